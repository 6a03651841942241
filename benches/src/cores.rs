//! Which core a thread or process runs on, and what it cost.

use std::time::Duration;

use rustix::param::clock_ticks_per_second;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::error::BenchError;

/// The core of the system under test.
pub const TESTED: usize = 0;
/// The core of load and emulators.
pub const LOAD: usize = 1;

/// Keeps the calling thread, and what it starts from now on, on `core`. On a machine with one core it stays
/// there.
pub fn stay_on(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    // A machine with fewer cores measures anyway; the report says how many there are.
    let _refused = sched_setaffinity(None, &cores);
}

/// How many cores the calling thread may use.
#[must_use]
pub fn count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs `work` on a thread of its own that stays on `core`, and waits for it.
///
/// # Errors
/// [`BenchError::Ended`] when it panicked.
pub fn run_on<T: Send>(core: usize, work: impl FnOnce() -> T + Send) -> Result<T, BenchError> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            stay_on(core);
            work()
        });
        thread.join().map_err(|_| BenchError::Ended)
    })
}

/// Runs `work` on a thread of its own that, with all that it starts, has both cores, and waits for it.
///
/// # Errors
/// [`BenchError::Ended`] when it panicked.
pub fn on_both<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, BenchError> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut cores = CpuSet::new();
            cores.set(TESTED);
            cores.set(LOAD);
            // As in `stay_on`.
            let _refused = sched_setaffinity(None, &cores);
            work()
        });
        thread.join().map_err(|_| BenchError::Ended)
    })
}

/// Makes `count` things, half of them on each core.
///
/// # Errors
/// The first one of `make`.
pub fn make_on_both<T, F>(count: usize, make: F) -> Result<Vec<T>, BenchError>
where
    T: Send,
    F: Fn(usize) -> Result<T, BenchError> + Sync,
{
    let (make, half) = (&make, count / 2);
    std::thread::scope(|scope| {
        let parts = [(TESTED, 0..half), (LOAD, half..count)].map(|(core, part)| {
            scope.spawn(move || {
                stay_on(core);
                part.map(make).collect::<Result<Vec<T>, BenchError>>()
            })
        });
        let mut made = Vec::with_capacity(count);
        for part in parts {
            made.append(&mut part.join().map_err(|_| BenchError::Ended)??);
        }
        Ok(made)
    })
}

/// Processor time that the process `id` has spent, in user and system mode (proc_pid_stat(5), fields 14 and
/// 15).
///
/// # Errors
/// The process has ended.
pub fn spent_by(id: u32) -> Result<Duration, BenchError> {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat"));
    let text = text.map_err(BenchError::io("reading what a process has spent"))?;
    // The name, in parentheses, may hold anything; the third field is the first one behind it.
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 1000 / clock_ticks_per_second().max(1)))
}

/// Resident memory of the process `id`, now and at most so far (bytes).
///
/// # Errors
/// The process has ended.
pub fn resident_bytes(id: u32) -> Result<[u64; 2], BenchError> {
    let text = std::fs::read_to_string(format!("/proc/{id}/status"));
    let text = text.map_err(BenchError::io("reading the memory of a process"))?;
    Ok(["VmRSS:", "VmHWM:"].map(|name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0) * 1024
    }))
}

/// Processor time that the calling thread has spent (proc_pid_schedstat, the first field: nanoseconds).
///
/// # Errors
/// The kernel keeps no such account.
pub fn spent_by_this_thread() -> Result<Duration, BenchError> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat");
    let text = text.map_err(BenchError::io("reading what a thread has spent"))?;
    Ok(Duration::from_nanos(text.split_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or(0)))
}

/// Runs `work` on a thread of its own that stays on `core`, while the runtime goes on.
///
/// # Errors
/// [`BenchError::Ended`] when it panicked.
pub async fn run_beside<T: Send + 'static>(
    core: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, BenchError> {
    let (sender, done) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        stay_on(core);
        // Nobody waits any more when the run has failed elsewhere.
        let _ = sender.send(work());
    });
    done.await.map_err(|_| BenchError::Ended)
}

/// Runs a row's `work` on the core of the load, on a runtime with that one thread.
///
/// # Errors
/// Those of `work`.
pub fn drive<T>(work: impl Future<Output = Result<T, BenchError>>) -> Result<T, BenchError> {
    stay_on(LOAD);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(BenchError::io("making a runtime"))?.block_on(work)
}
