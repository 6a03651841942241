//! The relay as a process of its own, on the core under test.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use serde::Deserialize;

use super::interruption;
use crate::cores;
use crate::error::BenchError;

/// How long it may take until it listens.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// Bytes of its log that are shown when it did not start.
const LOG_BYTES_SHOWN: usize = 600;

/// A relay that runs. It ends, at once, when it is dropped: its store is not used again.
pub struct Relay {
    child: Child,
    address: SocketAddr,
}

impl Relay {
    /// Starts `program` with the configuration `config` in `folder`.
    ///
    /// # Errors
    /// [`BenchError::Relay`] with the end of its log when it does not start.
    pub fn start(program: &Path, folder: &Path, config: &str) -> Result<Self, BenchError> {
        let (path, log) = (folder.join("relay.toml"), folder.join("relay.log"));
        std::fs::write(&path, config).map_err(BenchError::io("writing the relay's configuration"))?;
        let errors = File::create(&log).map_err(BenchError::io("making the relay's log"))?;
        let mut command = Command::new(program);
        command.arg("--config").arg(path).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        // A process begins on the cores of the thread that starts it.
        let child = cores::run_on(cores::TESTED, || command.spawn())?;
        let child = child.map_err(BenchError::io("starting the relay"))?;
        interruption::begun(child.id(), folder.to_path_buf());
        let mut relay = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        relay.address = relay.listening(&log)?;
        Ok(relay)
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Processor time that it has spent.
    ///
    /// # Errors
    /// It has ended.
    pub fn spent(&self) -> Result<Duration, BenchError> {
        cores::spent_by(self.id())
    }

    /// Resident memory, now and at most so far (bytes).
    ///
    /// # Errors
    /// It has ended.
    pub fn resident_bytes(&self) -> Result<[u64; 2], BenchError> {
        cores::resident_bytes(self.id())
    }

    /// Ends it at once (SIGKILL), and waits until it has ended.
    pub fn kill(&mut self) {
        // One that has ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
        interruption::over(self.id());
    }

    fn listening(&mut self, log: &Path) -> Result<SocketAddr, BenchError> {
        #[derive(Deserialize)]
        struct Listening {
            listening: SocketAddr,
        }
        let failed = |why: &str| BenchError::Relay(format!("{why}; the end of its log: {}", end_of(log)));
        let out = self.child.stdout.take().ok_or_else(|| failed("it has no output"))?;
        let (sender, line) = channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            // What cannot be read is no line either.
            let _ = BufReader::new(out).read_line(&mut line);
            let _ = sender.send(line);
        });
        let line = line.recv_timeout(START_DEADLINE).map_err(|_| failed("it does not start"))?;
        let listening: Listening =
            serde_json::from_str(&line).map_err(|_| failed("it ended as it started"))?;
        Ok(listening.listening)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.kill();
    }
}

fn end_of(log: &Path) -> String {
    let text = std::fs::read_to_string(PathBuf::from(log)).unwrap_or_default();
    let start = text.len().saturating_sub(LOG_BYTES_SHOWN);
    let start = (start..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    text[start..].trim().replace('\n', " | ")
}
