//! An append log with one fdatasync for each group: the least that durable acceptance can cost.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use crate::error::BenchError;
use crate::report::per_second;

/// Records that share one fdatasync.
pub const GROUP: usize = 64;

/// Appends `count` records of `bytes` bytes in groups of [`GROUP`], each group synced. Records a second.
///
/// # Errors
/// [`BenchError::Io`].
pub fn run(folder: &Path, count: usize, bytes: usize) -> Result<f64, BenchError> {
    append(folder, count, bytes).map_err(BenchError::io("the append log"))
}

fn append(folder: &Path, count: usize, bytes: usize) -> std::io::Result<f64> {
    let path = folder.join("append.log");
    let mut file = File::create(&path)?;
    let group = vec![0x5a; bytes * GROUP];
    let start = Instant::now();
    let mut left = count;
    while left > 0 {
        let now = left.min(GROUP);
        file.write_all(&group[..now * bytes])?;
        file.sync_data()?;
        left -= now;
    }
    let taken = start.elapsed();
    std::fs::remove_file(path)?;
    Ok(per_second(count, taken))
}
