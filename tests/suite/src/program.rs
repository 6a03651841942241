//! A program of a site that can be killed, cut off from its power, and started again on the same files.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use sealpost_power::PowerCut;

use crate::Outcome;
use crate::plan::Files;
use crate::process::Process;
use crate::tap::Tap;

type Hear = Box<dyn Fn(&str) + Send + Sync>;

/// How a power cut treats syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syncs {
    /// What was synced is there afterwards.
    Count,
    /// They make nothing durable, as if they were taken out of the program: a test of the test.
    AreIgnored,
}

/// A program, running or not.
pub struct Program {
    name: &'static str,
    /// Its files.
    folder: PathBuf,
    log: PathBuf,
    command: Box<dyn Fn() -> Outcome<Command> + Send + Sync>,
    hear: std::sync::Arc<Hear>,
    /// Where clients reach it, if it is a server.
    tap: Option<Tap>,
    power: Option<PowerCut>,
    process: Option<Process>,
}

impl Program {
    /// The program that `command` starts, with its files in `folder`. What it says after its first line goes
    /// to `hear`.
    #[must_use]
    pub fn new(
        name: &'static str,
        folder: PathBuf,
        log: PathBuf,
        command: impl Fn() -> Outcome<Command> + Send + Sync + 'static,
        hear: impl Fn(&str) + Send + Sync + 'static,
    ) -> Self {
        let hear: Hear = Box::new(hear);
        Self {
            name,
            folder,
            log,
            command: Box::new(command),
            hear: hear.into(),
            tap: None,
            power: None,
            process: None,
        }
    }

    /// A server: it says `{"listening":"address"}` first, and `tap` leads to it.
    #[must_use]
    pub fn behind(mut self, tap: Tap) -> Self {
        self.tap = Some(tap);
        self
    }

    /// The tap before a server.
    ///
    /// # Errors
    /// It is no server.
    pub fn tap(&self) -> Outcome<&Tap> {
        self.tap.as_ref().ok_or_else(|| format!("{} has no tap", self.name).into())
    }

    /// From the next start on, what the program has not synced is lost by a cut. Its files count as durable
    /// as they are.
    ///
    /// # Errors
    /// It is running; the shim is not built.
    pub fn arm(&mut self, syncs: Syncs) -> Outcome<()> {
        if self.process.is_some() {
            return Err(format!("{} is running", self.name).into());
        }
        let power = PowerCut::new(&self.folder, self.folder.with_extension("shadow"))?;
        self.power = Some(match syncs {
            Syncs::Count => power,
            Syncs::AreIgnored => power.ignoring_syncs(),
        });
        Ok(())
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// It does not get ready.
    pub fn start(&mut self) -> Outcome<String> {
        let mut command = (self.command)()?;
        if let Some(power) = &self.power {
            power.arm(&mut command);
        }
        let hear = std::sync::Arc::clone(&self.hear);
        let mut process = Process::start(command, &self.log, move |line| hear(line))?;
        let first = process.ready()?;
        if let Some(tap) = &self.tap {
            tap.lead_to(Some(listening(&first)?));
        }
        self.process = Some(process);
        Ok(first)
    }

    /// SIGKILL, and what `files` says to what it leaves behind.
    ///
    /// # Errors
    /// It is not running, or had ended by itself; it was not armed for a cut.
    pub fn kill(&mut self, files: Files) -> Outcome<()> {
        self.process.take().ok_or_else(|| format!("{} is not running", self.name))?.kill()?;
        if let Some(tap) = &self.tap {
            tap.lead_to(None);
        }
        let power = || self.power.as_ref().ok_or_else(|| format!("{} is not armed", self.name));
        match files {
            Files::Kept => {}
            Files::Cut => drop(power()?.restore()?),
            Files::Torn(seed) => drop(power()?.restore_torn(seed)?),
        }
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// It does not end well.
    pub fn terminate(&mut self) -> Outcome<()> {
        let ended = self.process.take().map_or(Ok(()), Process::terminate);
        if let Some(tap) = &self.tap {
            tap.lead_to(None);
        }
        ended
    }

    /// Writes a line to its standard input. Returns whether it could be.
    pub fn tell(&mut self, line: &str) -> bool {
        self.process.as_mut().is_some_and(|process| process.tell(line))
    }
}

fn listening(line: &str) -> Outcome<SocketAddr> {
    let line: serde_json::Value = serde_json::from_str(line)?;
    let address = line["listening"].as_str().ok_or("a server says where it listens")?;
    Ok(address.parse()?)
}
