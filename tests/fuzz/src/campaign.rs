//! A campaign: libFuzzer over the targets, guided by coverage, each for a given processor time.
//!
//! # In scope
//! Building the instrumented program, running it within bounds, keeping what it finds and what it has spent, so
//! that a campaign of hours can be interrupted and taken up again.
//!
//! # Out of scope
//! What must hold of an input: the targets say that.
//!
//! All it writes is in one folder:
//! ```text
//! lock            held while a campaign runs: two would spoil each other's results
//! program         the instrumented program that the campaign runs
//! reproducer      the one that has last run a single input
//! results.json    what each target has spent and reached
//! corpus/TARGET   inputs that reach what those before them did not; the corpus in the repository is only read
//! findings/       inputs that broke something: TARGET-crash-…, TARGET-oom-…, TARGET-timeout-…
//! logs/TARGET     what libFuzzer said last
//! ```

mod output;
mod process;
mod results;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use self::process::Fuzzer;
pub use self::results::{Reached, Results};
use crate::Target;

/// The variable of the environment that tells the program its target.
pub const TARGET_VARIABLE: &str = "SEALPOST_FUZZ_TARGET";

/// Memory of the program, above which its input is a finding. A target takes inputs of some KiB.
const RESIDENT_MIB_MAX: u32 = 1024;
/// What one input may take (by the clock: that is how libFuzzer counts), before it is a finding. The slowest takes
/// milliseconds; a busy machine may let it wait.
const INPUT_SECONDS_MAX: u32 = 20;

const PROGRAM: &str = "program";

/// What goes wrong here ends the campaign: the text says what, nobody handles it. A finding is no error.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A campaign and the folder that it lives in.
#[derive(Debug)]
pub struct Campaign {
    folder: PathBuf,
    results: Mutex<Results>,
    /// Unlocked when dropped.
    _lock: File,
}

impl Campaign {
    /// Builds the program and begins anew with `targets`. What others have reached stays in the results, and all
    /// inputs stay in the corpus.
    ///
    /// # Errors
    /// The program cannot be built, the folder cannot be written, or another campaign runs in it.
    pub fn begin(folder: &Path, targets: &[Target]) -> Outcome<Self> {
        let lock = lock(folder)?;
        build(&folder.join(PROGRAM))?;
        let mut results = Results::read(folder)?;
        for target in targets {
            results.targets.remove(target.name);
        }
        results.write(folder)?;
        Ok(Self { folder: folder.to_owned(), results: Mutex::new(results), _lock: lock })
    }

    /// Takes up the campaign that has been interrupted, with the program that it began with.
    ///
    /// # Errors
    /// There is none, or it still runs.
    pub fn resume(folder: &Path) -> Outcome<Self> {
        if !folder.join(PROGRAM).is_file() {
            return Err("there is no campaign to take up".into());
        }
        let lock = lock(folder)?;
        let results = Mutex::new(Results::read(folder)?);
        Ok(Self { folder: folder.to_owned(), results, _lock: lock })
    }

    /// Runs each target until it has spent `processor_time` in all, `jobs` of them at a time, and tells each one's
    /// end. A target that has a finding is not run again: it would find the same.
    ///
    /// # Errors
    /// The program does not run, or ends without being asked to and without a finding; the results cannot be
    /// written.
    pub fn run(
        &self,
        targets: &[Target],
        processor_time: Duration,
        jobs: usize,
        tell: &(dyn Fn(&str, &Reached) + Sync),
    ) -> Outcome<()> {
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
                let reached = self.run_one(target, processor_time)?;
                tell(target.name, &reached);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(work)).collect();
            let ended = workers.into_iter().map(|worker| match worker.join() {
                Ok(ended) => ended,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            ended.collect::<Vec<_>>().into_iter().collect()
        })
    }

    /// What all targets have reached so far.
    #[must_use]
    pub fn results(&self) -> Results {
        self.held().clone()
    }

    fn run_one(&self, target: &Target, processor_time: Duration) -> Outcome<Reached> {
        let before = self.held().targets.get(target.name).cloned().unwrap_or_default();
        let left = processor_time.saturating_sub(before.processor_time());
        if left.is_zero() || !before.findings.is_empty() {
            return Ok(before);
        }
        let corpus = self.folder.join("corpus").join(target.name);
        let (findings, logs) = (self.folder.join("findings"), self.folder.join("logs"));
        for folder in [&corpus, &findings, &logs] {
            fs::create_dir_all(folder)?;
        }
        let mut command = bounded(&self.folder.join(PROGRAM), target);
        command
            .arg(format!("-max_len={}", target.input_bytes_max))
            .arg(format!("-artifact_prefix={}/{}-", findings.display(), target.name))
            // An input that comes nearer to what it is compared with is kept too: formats are made of such comparisons.
            .arg("-use_value_profile=1")
            .args(["-print_final_stats=1", "-reload=0"])
            .args([&corpus, &target.corpus()]);
        let fuzzer = Fuzzer::start(command, &logs.join(target.name))?;
        fuzzer.run(left, &mut |session| self.keep(target, before.with(session)))
    }

    fn keep(&self, target: &Target, reached: Reached) -> Outcome<Reached> {
        let mut results = self.held();
        results.targets.insert(target.name.to_owned(), reached.clone());
        results.write(&self.folder)?;
        Ok(reached)
    }

    fn held(&self) -> MutexGuard<'_, Results> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Builds the program and gives it this one input, within the bounds of a campaign. What it says goes where the
/// caller's own words go.
///
/// # Errors
/// The program cannot be built or run.
pub fn reproduce(folder: &Path, target: &Target, input: &Path) -> Outcome<ExitStatus> {
    fs::create_dir_all(folder)?;
    let program = folder.join("reproducer");
    build(&program)?;
    let mut child = bounded(&program, target).arg(input).stdin(Stdio::piped()).spawn()?;
    // Its end would be the end of the program.
    let held = child.stdin.take();
    let status = child.wait()?;
    drop(held);
    Ok(status)
}

fn bounded(program: &Path, target: &Target) -> Command {
    let mut command = Command::new(program);
    command
        .env(TARGET_VARIABLE, target.name)
        .arg(format!("-rss_limit_mb={RESIDENT_MIB_MAX}"))
        .arg(format!("-timeout={INPUT_SECONDS_MAX}"));
    command
}

fn lock(folder: &Path) -> Outcome<File> {
    fs::create_dir_all(folder)?;
    let lock = File::create(folder.join("lock"))?;
    lock.try_lock().map_err(|error| format!("another campaign runs in {}: {error}", folder.display()))?;
    Ok(lock)
}

/// Compiles the program, the workspace's crates in it with coverage, and puts it where `program` says. Cargo keeps
/// these crates apart from their ordinary builds, as it does for Clippy, and shares all dependencies with them.
fn build(program: &Path) -> Outcome<()> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--locked", "--bin", "sealpost-fuzz", "--features", "libfuzzer"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(package)
        .env("RUSTC_WORKSPACE_WRAPPER", package.join("instrument"))
        .stderr(Stdio::inherit())
        .output()?;
    let messages = output.stdout.split(|byte| *byte == b'\n');
    let mut messages = messages.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let built = messages.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    let Some(built) = built.filter(|_| output.status.success()) else {
        return Err("the instrumented program could not be built".into());
    };
    // Cargo may build over its own file while this one runs.
    fs::copy(built, program)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_campaign_at_a_time_runs_in_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let error = Campaign::resume(folder.path()).unwrap_err().to_string();
        assert!(error.contains("no campaign"), "{error}");
        fs::write(folder.path().join(PROGRAM), []).unwrap();
        let first = Campaign::resume(folder.path()).unwrap();
        let error = Campaign::resume(folder.path()).unwrap_err().to_string();
        assert!(error.contains("another campaign"), "{error}");
        drop(first);
        Campaign::resume(folder.path()).unwrap();
    }
}
