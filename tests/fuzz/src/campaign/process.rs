//! The program while it runs: what it says, what processor time it has spent, and its end.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::output::{Line, Progress};
use super::{Outcome, Reached};

/// How often its processor time is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often what it has reached is kept.
const KEEP_EVERY: Duration = Duration::from_secs(5);
/// Ticks of a second in /proc, whatever the kernel's own are (proc_pid_stat(5)).
const TICKS_PER_SECOND: u64 = 100;
/// Lines of its log that an error shows.
const SHOWN_LINES: usize = 20;

/// The program on one target.
pub(super) struct Fuzzer {
    child: Child,
    /// It ends when this is dropped.
    held: Option<ChildStdin>,
    log: PathBuf,
    said: Arc<Mutex<Said>>,
    reader: JoinHandle<std::io::Result<()>>,
}

#[derive(Default)]
struct Said {
    start: Option<Progress>,
    now: Progress,
    findings: Vec<PathBuf>,
}

impl Fuzzer {
    pub(super) fn start(mut command: Command, log: &Path) -> Outcome<Self> {
        let mut file = BufWriter::new(File::create(log)?);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let held = child.stdin.take();
        let stderr = child.stderr.take().ok_or("standard error is piped")?;
        let said = Arc::default();
        let hears = Arc::clone(&said);
        let reader = std::thread::spawn(move || listen(stderr, &hears, &mut file));
        Ok(Self { child, held, log: log.to_owned(), said, reader })
    }

    /// Lets it run until it has spent `processor_time` or found something. What the session has reached is given
    /// to `keep` now and then, and at the end.
    pub(super) fn run(
        mut self,
        processor_time: Duration,
        keep: &mut dyn FnMut(&Reached) -> Outcome<Reached>,
    ) -> Outcome<Reached> {
        let mut spent = Duration::ZERO;
        let mut kept = Instant::now();
        let status = loop {
            // Looked at first: the time of a process that has been waited for is gone.
            spent = spent_by(self.child.id())?.unwrap_or(spent);
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if spent >= processor_time {
                self.held = None;
            }
            if kept.elapsed() >= KEEP_EVERY {
                keep(&reached(&held(&self.said), spent))?;
                kept = Instant::now();
            }
            std::thread::sleep(LOOK_EVERY);
        };
        match self.reader.join() {
            Ok(heard) => heard?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        let said = held(&self.said);
        let reached = keep(&reached(&said, spent))?;
        let was_asked = self.held.is_none();
        if !said.findings.is_empty() || (status.success() && was_asked) {
            return Ok(reached);
        }
        let log = fs::read(&self.log)?;
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
        Err(format!("the fuzzer ended by itself with {status}:\n{tail}").into())
    }
}

fn listen(stderr: ChildStderr, said: &Mutex<Said>, log: &mut BufWriter<File>) -> std::io::Result<()> {
    for line in BufReader::new(stderr).split(b'\n') {
        let line = line?;
        log.write_all(&line)?;
        log.write_all(b"\n")?;
        let Some(line) = Line::read(&String::from_utf8_lossy(&line)) else { continue };
        let said = &mut *held(said);
        match line {
            Line::Executions(executions) => said.now.executions = executions,
            Line::Finding(path) => said.findings.push(path),
            Line::Progress(progress) => {
                if progress.is_initial {
                    said.start = Some(progress);
                }
                said.now = progress;
            }
        }
    }
    log.flush()
}

fn reached(said: &Said, spent: Duration) -> Reached {
    Reached {
        processor_ms: u64::try_from(spent.as_millis()).unwrap_or(u64::MAX),
        executions: said.now.executions,
        coverage_at_start: said.start.map(|start| start.coverage),
        coverage: said.now.coverage,
        units_at_start: said.start.map(|start| start.units),
        units: said.now.units,
        findings: said.findings.clone(),
    }
}

/// Processor time that a process has spent, for itself and in the kernel; nothing when it is gone.
fn spent_by(process: u32) -> Outcome<Option<Duration>> {
    let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else {
        let has_proc = Path::new("/proc/self/stat").is_file();
        return if has_proc {
            Ok(None)
        } else {
            Err("processor time is read from /proc, as Linux has it".into())
        };
    };
    Ok(Some(spent_of(&stat).ok_or("/proc/PID/stat has another form")?))
}

/// The 14th and the 15th field, in ticks. The second is the program's name in parentheses, with whatever is in it.
fn spent_of(stat: &str) -> Option<Duration> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut times = behind_name.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (times.next()?.parse().ok()?, times.next()?.parse().ok()?);
    Some(Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND))
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that says what libFuzzer would, in the shell.
    fn fuzzer(script: &str) -> (tempfile::TempDir, Fuzzer) {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let fuzzer = Fuzzer::start(command, &folder.path().join("log")).unwrap();
        (folder, fuzzer)
    }

    const START: &str = "echo '#2\tINITED cov: 5 ft: 6 corp: 1/8b' >&2;";

    #[test]
    fn it_is_asked_to_end_when_its_processor_time_is_spent() {
        let script = format!(
            "{START} echo '#9 NEW cov: 7 ft: 8 corp: 3/9b' >&2; cat; echo 'stat::number_of_executed_units: 11' >&2"
        );
        let (_folder, fuzzer) = fuzzer(&script);
        let mut kept = Vec::new();
        let reached = fuzzer.run(Duration::ZERO, &mut |reached| {
            kept.push(reached.clone());
            Ok(reached.clone())
        });
        let reached = reached.unwrap();
        assert_eq!((reached.coverage_at_start, reached.coverage), (Some(5), 7));
        assert_eq!((reached.units_at_start, reached.units, reached.executions), (Some(1), 3, 11));
        assert_eq!(kept, [reached]);
    }

    #[test]
    fn a_finding_is_told_apart_from_a_failure() {
        let run = |script: &str| {
            let (_folder, fuzzer) = fuzzer(script);
            fuzzer.run(Duration::from_secs(3600), &mut |reached| Ok(reached.clone()))
        };
        let found = run(&format!("{START} echo 'Test unit written to f/hl7-oom-1' >&2; exit 71")).unwrap();
        assert_eq!(found.findings, [Path::new("f/hl7-oom-1")]);
        for script in ["echo 'not instrumented' >&2; exit 1", "echo 'not instrumented' >&2; exit 0"] {
            let error = run(script).unwrap_err().to_string();
            assert!(error.contains("not instrumented"), "{error}");
        }
    }

    #[test]
    fn processor_time_is_what_the_system_counts() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 9 0 0 0 250 51 0 0 20 0 1 0 9 9 9";
        assert_eq!(spent_of(stat), Some(Duration::from_millis(3010)));
        assert_eq!(spent_of("7 (a) S 1"), None);
        assert!(spent_by(std::process::id()).unwrap().is_some());
    }
}
