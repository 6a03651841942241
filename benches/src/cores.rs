//! Which core a thread or process runs on.

use rustix::process::sched_setaffinity;
use rustix::thread::CpuSet;

/// The core of the system under test.
pub const TESTED: usize = 0;
/// The core of load and emulators.
pub const LOAD: usize = 1;

/// Keeps the calling thread, and what it starts from now on, on `core`. On a machine with one core it stays there.
pub fn stay_on(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    // A machine with fewer cores measures anyway; the report says how many there are.
    let _refused = sched_setaffinity(None, &cores);
}

/// How many cores this process may use.
#[must_use]
pub fn count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
