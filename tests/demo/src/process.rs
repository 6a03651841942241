//! The processes of the demo: each with a log file, none of which outlives it.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::DemoError;

/// How long a process may take until it says that it is there.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// How long a process may take to end once it is told to.
const STOP_DEADLINE: Duration = Duration::from_secs(15);
/// Lines of a log that are shown when its process did not start.
const LOG_LINES_SHOWN: usize = 5;

/// All processes that were started, so that all can be ended.
#[derive(Clone)]
pub(crate) struct Processes(Arc<Mutex<Started>>);

/// Nothing, once all were ended: no more are started then.
type Started = Option<Vec<Arc<Mutex<Child>>>>;

/// What becomes of the standard output of a process.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// It goes to a file beside the log, too.
    Logged,
    /// It is for the demo alone: the screen of a phone.
    Private,
}

/// A process that runs.
pub(crate) struct Process {
    name: String,
    child: Arc<Mutex<Child>>,
    input: Option<ChildStdin>,
    lines: Option<Receiver<String>>,
    log: PathBuf,
}

impl Processes {
    /// No process yet.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Some(Vec::new()))))
    }

    /// Starts `command` as `name`, which also names its log in `logs`.
    pub(crate) fn start(
        &self,
        name: &str,
        mut command: Command,
        logs: &Path,
        output: Output,
    ) -> Result<Process, DemoError> {
        let failed = |error: io::Error| DemoError::failed(format!("cannot start {name}"), error);
        let log = logs.join(format!("{name}.log"));
        // A group of its own: an interrupt at the terminal reaches the demo alone, which then ends the others.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(File::create(&log).map_err(failed)?);
        let (child, input, out) = {
            // Held meanwhile: nothing starts unseen while all are ended.
            let mut started = lock(&self.0);
            let started = started.as_mut().ok_or_else(|| DemoError::failed(name, "the demo ends"))?;
            let mut child = command.spawn().map_err(failed)?;
            let (input, out) = (child.stdin.take(), child.stdout.take());
            let child = Arc::new(Mutex::new(child));
            started.push(Arc::clone(&child));
            (child, input, out)
        };

        let mut copy = match output {
            Output::Logged => Some(File::create(logs.join(format!("{name}.out"))).map_err(failed)?),
            Output::Private => None,
        };
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in out.map(BufReader::new).into_iter().flat_map(|out| out.lines().map_while(Result::ok))
            {
                if let Some(copy) = &mut copy {
                    let _ = writeln!(copy, "{line}");
                }
                let _ = sender.send(line);
            }
        });
        Ok(Process { name: name.to_owned(), child, input, lines: Some(lines), log })
    }

    /// Ends all processes at once, however they are. None is started any more.
    pub(crate) fn kill_all(&self) {
        for child in lock(&self.0).take().into_iter().flatten() {
            let mut child = lock(&child);
            // One that has ended already is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Process {
    /// The first line that the process prints, which says that it is ready.
    pub(crate) fn first_line(&self) -> Result<String, DemoError> {
        let lines =
            self.lines.as_ref().ok_or_else(|| DemoError::failed(&self.name, "its output was taken"))?;
        lines.recv_timeout(START_DEADLINE).map_err(|error| {
            let what = match error {
                RecvTimeoutError::Timeout => format!("{} does not start", self.name),
                RecvTimeoutError::Disconnected => format!("{} ended as it started", self.name),
            };
            DemoError::failed(what, last_lines(&self.log))
        })
    }

    /// Everything that the process prints from now on, line by line.
    pub(crate) fn take_lines(&mut self) -> Option<Receiver<String>> {
        self.lines.take()
    }

    /// Writes a line to the standard input of the process.
    pub(crate) fn tell(&mut self, line: &str) -> Result<(), DemoError> {
        let input =
            self.input.as_mut().ok_or_else(|| DemoError::failed(&self.name, "its input is closed"))?;
        let written = input.write_all(line.as_bytes()).and_then(|()| input.write_all(b"\n"));
        let written = written.and_then(|()| input.flush());
        written.map_err(|error| DemoError::failed(format!("{}: {error}", self.name), self.last_words()))
    }

    /// Closes the standard input of the process, which ends a phone.
    pub(crate) fn end_of_input(&mut self) {
        self.input = None;
    }

    /// Asks the process to end: SIGTERM.
    pub(crate) fn ask_to_end(&self) {
        // It may have ended already, which `await_end` will tell.
        let _ = kill_process(Pid::from_child(&lock(&self.child)), Signal::TERM);
    }

    /// Waits until the process has ended.
    pub(crate) fn await_end(&self) -> Result<(), DemoError> {
        let deadline = Instant::now() + STOP_DEADLINE;
        loop {
            // Not held while waiting: whoever interrupts the demo must get at the child.
            let ended = lock(&self.child).try_wait();
            match ended.map_err(|error| DemoError::failed(&self.name, error))? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    return Err(DemoError::failed(
                        &self.name,
                        format!("{status}; {}", last_lines(&self.log)),
                    ));
                }
                None if Instant::now() >= deadline => {
                    return Err(DemoError::failed(&self.name, "does not end when it is told to"));
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// The end of its log, on one line, and how it ended if it has.
    pub(crate) fn last_words(&self) -> String {
        let words = last_lines(&self.log);
        match lock(&self.child).try_wait() {
            Ok(Some(status)) => format!("it has ended ({status}); {words}"),
            _ => words,
        }
    }
}

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let mut last = VecDeque::with_capacity(LOG_LINES_SHOWN);
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        if last.len() == LOG_LINES_SHOWN {
            last.pop_front();
        }
        last.push_back(line.trim());
    }
    if last.is_empty() { "its log is empty".to_owned() } else { Vec::from(last).join(" | ") }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls `act` with the number of each SIGINT and SIGTERM that comes, on a thread of its own.
pub(crate) fn on_interruption(mut act: impl FnMut(i32) + Send + 'static) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    drop(entered);
    std::thread::spawn(move || {
        loop {
            let number = runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => SignalKind::interrupt(),
                    _ = terminate.recv() => SignalKind::terminate(),
                }
            });
            act(number.as_raw_value());
        }
    });
    Ok(())
}
