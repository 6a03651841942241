//! The disk that the measured stores are on.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use crate::error::BenchError;
use crate::report::{median, millis};

/// Numbers of file systems (statfs(2)).
const FILE_SYSTEMS: [(u64, &str); 5] = [
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0x2fc1_2fc1, "zfs"),
    (0x794c_7630, "overlayfs"),
];
/// File systems that live in memory: a store there syncs nothing.
const IN_MEMORY: [(u64, &str); 2] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs")];

/// What the disk is: its file system, and what a small fdatasync takes.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The file system's name or number.
    pub file_system: String,
    /// The median time of an fdatasync of 4 KiB (milliseconds).
    pub fdatasync_ms: f64,
}

/// Looks at the disk of `folder`.
///
/// # Errors
/// A file system in memory is refused: nothing measured on it says anything about durability.
pub fn look(folder: &Path) -> Result<Disk, BenchError> {
    let status = rustix::fs::statfs(folder).map_err(std::io::Error::from);
    let status = status.map_err(BenchError::io("asking for the file system"))?;
    // The kernel's numbers have 32 bits; the type they come in differs by architecture.
    let number = u64::try_from(status.f_type).unwrap_or_default() & 0xffff_ffff;
    let name =
        |list: &[(u64, &'static str)]| list.iter().find(|(one, _)| *one == number).map(|(_, name)| *name);
    if let Some(file_system) = name(&IN_MEMORY) {
        return Err(BenchError::NotOnDisk { folder: folder.into(), file_system });
    }
    let file_system = name(&FILE_SYSTEMS).map_or_else(|| format!("file system {number:#x}"), str::to_owned);
    let fdatasync_ms = fdatasync_ms(folder).map_err(BenchError::io("syncing a file"))?;
    Ok(Disk { file_system, fdatasync_ms })
}

/// The median time of an fdatasync of 4 KiB, now (milliseconds): disks have slow hours and slow minutes.
///
/// # Errors
/// What the system says.
pub fn fdatasync_ms(folder: &Path) -> std::io::Result<f64> {
    const TRIES: usize = 101;
    let path = folder.join("fdatasync");
    let mut file = File::create(&path)?;
    let mut times = Vec::with_capacity(TRIES);
    for _ in 0..TRIES {
        file.write_all(&[7; 4096])?;
        let start = Instant::now();
        file.sync_data()?;
        times.push(millis(start.elapsed()));
    }
    std::fs::remove_file(path)?;
    Ok(median(&times))
}
