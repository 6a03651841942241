//! An append log with one fdatasync for each group: the least that durable acceptance can cost.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

/// Appends `count` records of `bytes` bytes in groups of `group`, each group synced. Records a second.
pub fn run(folder: &Path, count: usize, bytes: usize, group: usize) -> std::io::Result<f64> {
    let path = folder.join("append.log");
    let mut file = File::create(&path)?;
    let record = vec![0x5a; bytes];
    let mut buffer = Vec::with_capacity(bytes * group);
    let start = Instant::now();
    let mut left = count;
    while left > 0 {
        let now = left.min(group);
        buffer.clear();
        for _ in 0..now {
            buffer.extend_from_slice(&record);
        }
        file.write_all(&buffer)?;
        file.sync_data()?;
        left -= now;
    }
    let seconds = start.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(per_second(count, seconds))
}

/// `count` in `seconds`, as a rate.
#[must_use]
pub fn per_second(count: usize, seconds: f64) -> f64 {
    // Counts of a measurement are far below what a float holds exactly.
    #[allow(clippy::cast_precision_loss)]
    let count = count as f64;
    count / seconds
}
