//! What is to be done when this program is told to end in the middle of a run: its relay would go on alone.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use crate::error::BenchError;

/// A folder that must not stay, and the relay that works in it.
struct Run {
    relay: Option<u32>,
    folder: PathBuf,
}

static RUNS: Mutex<Vec<Run>> = Mutex::new(Vec::new());

/// Remembers a run until [`over`].
pub(super) fn begun(relay: u32, folder: PathBuf) {
    runs().push(Run { relay: Some(relay), folder });
}

/// Remembers a folder until [`forget_folder`].
pub fn remember_folder(folder: &Path) {
    runs().push(Run { relay: None, folder: folder.to_path_buf() });
}

/// A folder is removed already.
pub fn forget_folder(folder: &Path) {
    runs().retain(|run| run.folder != folder);
}

/// The run of `relay` is over: the relay has ended and was waited for.
pub(super) fn over(relay: u32) {
    runs().retain(|run| run.relay != Some(relay));
}

/// From now on, SIGINT and SIGTERM end the relays that run, remove their folders, and end this program.
///
/// # Errors
/// The system takes no handler.
pub fn end_relays_on_signals() -> Result<(), BenchError> {
    let failed = || BenchError::io("watching for signals");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed())?;
    let entered = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed())?;
    drop(entered);
    std::thread::spawn(move || {
        let number = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => SignalKind::interrupt(),
                _ = terminate.recv() => SignalKind::terminate(),
            }
        });
        for run in runs().drain(..) {
            let relay = run.relay.and_then(|relay| i32::try_from(relay).ok()).and_then(Pid::from_raw);
            // One that has ended already is as good, and a folder that stays harms nobody.
            let _ = relay.map(|relay| kill_process(relay, Signal::KILL));
            let _ = std::fs::remove_dir_all(run.folder);
        }
        std::process::exit(128 + number.as_raw_value());
    });
    Ok(())
}

fn runs() -> MutexGuard<'static, Vec<Run>> {
    // Nothing panics while it is locked.
    RUNS.lock().unwrap_or_else(PoisonError::into_inner)
}
