//! The disk that the measured stores are on.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use crate::report::median;

/// File systems that live in memory: a store there syncs nothing.
const IN_MEMORY: [(i64, &str); 3] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs"), (0x794c_7630, "overlayfs")];

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
pub fn look(folder: &Path) -> Result<Disk, String> {
    let status = rustix::fs::statfs(folder).map_err(|error| error.to_string())?;
    let kind = i64::try_from(status.f_type).unwrap_or(0);
    let file_system = match IN_MEMORY.iter().find(|(magic, _)| *magic == kind) {
        Some((_, name @ ("tmpfs" | "ramfs"))) => {
            return Err(format!("{} is on {name}: name a folder on a disk with --dir", folder.display()));
        }
        Some((_, name)) => (*name).to_owned(),
        None if kind == 0xef53 => "ext4".to_owned(),
        None if kind == 0x5846_5342 => "xfs".to_owned(),
        None if kind == 0x9123_683e => "btrfs".to_owned(),
        None => format!("file system {kind:#x}"),
    };
    let fdatasync_ms = fdatasync_ms(folder).map_err(|error| error.to_string())?;
    Ok(Disk { file_system, fdatasync_ms })
}

fn fdatasync_ms(folder: &Path) -> std::io::Result<f64> {
    const TRIES: usize = 101;
    let path = folder.join("fdatasync");
    let mut file = File::create(&path)?;
    let mut times = Vec::with_capacity(TRIES);
    for _ in 0..TRIES {
        file.write_all(&[7; 4096])?;
        let start = Instant::now();
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    std::fs::remove_file(path)?;
    Ok(median(&times))
}
