//! Programs of the workspace, run as processes.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::Outcome;

/// How long a program may take to say that it is ready. A start takes milliseconds; the machine may be busy.
const READY_SECONDS_MAX: u64 = 60;

/// The program `name`, beside or above the running one: Cargo puts tests into `deps`, programs one folder
/// above.
///
/// # Errors
/// It was not built.
pub fn built(name: &str) -> Outcome<PathBuf> {
    let own = std::env::current_exe()?;
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| format!("{name} is not built: run `cargo build --workspace --bins` first").into())
}

/// A running program; killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    ready: Receiver<String>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts `command`. Its first line on standard output is kept for [`Self::ready`], the others go to
    /// `hear`; standard error is appended to `log`.
    ///
    /// # Errors
    /// The log cannot be opened, the program cannot be started.
    pub fn start(
        mut command: Command,
        log: &Path,
        mut hear: impl FnMut(&str) + Send + 'static,
    ) -> Outcome<Self> {
        let name = Path::new(command.get_program()).file_name().unwrap_or(OsStr::new("?"));
        let name = name.to_string_lossy().into_owned();
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().map_err(|error| format!("{name}: {error}"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or("standard output is piped")?;
        let (tell, ready) = channel();
        let reader = std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
            if let Some(first) = lines.next() {
                // Nobody waits for it when the process was killed at once.
                let _heard = tell.send(first);
            }
            drop(tell);
            lines.for_each(|line| hear(&line));
        });
        Ok(Self { name, child, stdin, ready, reader: Some(reader) })
    }

    /// The first line that the program says, which it does when it is ready.
    ///
    /// # Errors
    /// It ends without a word, or says nothing for a minute.
    pub fn ready(&mut self) -> Outcome<String> {
        let waited = self.ready.recv_timeout(Duration::from_secs(READY_SECONDS_MAX));
        waited.map_err(|_| {
            let ended = self.child.try_wait().ok().flatten();
            let how =
                ended.map_or_else(|| "says nothing".to_owned(), |status| format!("ended with {status}"));
            format!("{} did not get ready: it {how}", self.name).into()
        })
    }

    /// Writes a line to its standard input. Returns whether it could be written: a process that was killed
    /// reads nothing.
    pub fn tell(&mut self, line: &str) -> bool {
        let Some(stdin) = &mut self.stdin else { return false };
        // One write, so that a kill cannot leave half a line.
        stdin.write_all(format!("{line}\n").as_bytes()).is_ok()
    }

    /// SIGKILL. When this returns, the process is gone and everything that it said was heard.
    ///
    /// # Errors
    /// The system's.
    pub fn kill(mut self) -> Outcome<()> {
        if let Some(status) = self.child.try_wait()? {
            return Err(format!("{} had ended by itself: {status}", self.name).into());
        }
        self.end()
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// It does not end well.
    pub fn terminate(mut self) -> Outcome<()> {
        self.stdin = None;
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        let status = self.child.wait()?;
        self.join();
        if asked.success() && status.success() {
            Ok(())
        } else {
            Err(format!("{} ended with {status} after SIGTERM", self.name).into())
        }
    }

    fn end(&mut self) -> Outcome<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.join();
        Ok(())
    }

    fn join(&mut self) {
        if let Some(reader) = self.reader.take()
            && let Err(panic) = reader.join()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.reader.is_some() {
            // It may have ended already.
            let _gone = self.child.kill();
            let _reaped = self.child.wait();
        }
    }
}
