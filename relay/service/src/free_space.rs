//! Free space of a file system, read now and then.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Bytes that may be written between two readings: a reading is renewed early when much was written since.
const WRITTEN_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Watches that a file system keeps a reserve.
#[derive(Debug)]
pub struct FreeSpace {
    path: PathBuf,
    reserve_bytes: u64,
    interval: Duration,
    bytes: u64,
    read_at: Instant,
    written_bytes: u64,
}

impl FreeSpace {
    /// Watches the file system of `path`, which must exist; readings are at most `interval` old.
    ///
    /// # Errors
    /// The file system cannot be asked.
    pub fn new(path: &Path, reserve_bytes: u64, interval: Duration) -> io::Result<Self> {
        let bytes = free_bytes(path)?;
        Ok(Self {
            path: path.into(),
            reserve_bytes,
            interval,
            bytes,
            read_at: Instant::now(),
            written_bytes: 0,
        })
    }

    /// Whether at least the reserve is free. A reading that fails leaves the last one in force, with a
    /// warning.
    pub fn is_enough(&mut self) -> bool {
        if self.read_at.elapsed() >= self.interval || self.written_bytes >= WRITTEN_BYTES_MAX {
            match free_bytes(&self.path) {
                Ok(bytes) => self.bytes = bytes,
                Err(error) => {
                    tracing::warn!(%error, path = %self.path.display(), "reading the free space failed");
                }
            }
            self.read_at = Instant::now();
            self.written_bytes = 0;
        }
        self.bytes >= self.reserve_bytes
    }

    /// Free bytes at the last reading.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Tells that `bytes` were written since.
    pub const fn written(&mut self, bytes: usize) {
        self.written_bytes = self.written_bytes.saturating_add(bytes as u64);
    }
}

/// Bytes that an unprivileged process can still write to the file system of `path`.
///
/// # Errors
/// The file system cannot be asked.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let status = rustix::fs::statvfs(path)?;
    Ok(status.f_bavail.saturating_mul(status.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_above_the_disk_is_never_met_and_zero_always_is() {
        let folder = tempfile::tempdir().unwrap();
        let interval = Duration::ZERO;
        assert!(!FreeSpace::new(folder.path(), u64::MAX, interval).unwrap().is_enough());
        assert!(FreeSpace::new(folder.path(), 0, interval).unwrap().is_enough());
    }

    #[test]
    fn a_missing_path_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(free_bytes(&folder.path().join("missing")).is_err());
    }
}
