//! `sealpost outbox`: what waits to be sent.

use std::panic::AssertUnwindSafe;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use sealpost_sender::Sender;
use serde_json::json;

use crate::arguments::OutboxCommand;
use crate::error::CliError;
use crate::home::Home;
use crate::output::Output;
use crate::{status, stop};

/// The longest that the relay is asked to wait for events: another process may have put something into the outbox.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// The pause after a relay did not answer.
const PAUSE: Duration = Duration::from_secs(5);

/// Why a run ends.
enum End {
    Asked,
    Failed(CliError),
}

pub(crate) fn run(command: &OutboxCommand, home: &Home, output: &Output) -> Result<(), CliError> {
    match command {
        OutboxCommand::List { sender } => list(&home.sender(sender.as_deref())?, output),
        OutboxCommand::Run { sender, once: true } => work_once(&mut home.sender(sender.as_deref())?, output),
        OutboxCommand::Run { sender, once: false } => work_until_stopped(home, sender.as_deref(), output),
    }
}

fn list(sender: &Sender, output: &Output) -> Result<(), CliError> {
    let mut waiting = sender.alerts()?;
    waiting.retain(sealpost_sender::AlertStatus::is_under_way);
    if waiting.is_empty() {
        output.say("Nothing waits to be sent.");
    } else {
        status::say(&waiting, output);
    }
    output.result(&json!({"waiting": waiting}));
    Ok(())
}

/// Until nothing waits to be sent; what a server is out for is waited for.
fn work_once(sender: &mut Sender, output: &Output) -> Result<(), CliError> {
    loop {
        work_off(sender, output)?;
        match sender.next_due_in_ms()? {
            Some(due_ms) => std::thread::sleep(Duration::from_millis(due_ms).min(PAUSE)),
            None => break,
        }
    }
    output.result(&json!({"alerts": sender.alerts()?.len()}));
    Ok(())
}

/// The sender works on a thread of its own: whatever it does when a signal comes, it can be left at any moment.
fn work_until_stopped(home: &Home, name: Option<&str>, output: &Output) -> Result<(), CliError> {
    let (told, ends) = mpsc::channel();
    let asked = told.clone();
    let signals = stop::on_signal(move || {
        // Nobody listens when the run has ended already.
        let _told = asked.send(End::Asked);
    });
    signals.map_err(|error| CliError::File { path: "signals".to_owned(), error })?;
    let mut sender = home.sender(name)?;
    let said = Output::new(output.is_json());
    std::thread::spawn(move || {
        // What a panic says has been written to standard error; without this, nobody would end the run.
        let worked = std::panic::catch_unwind(AssertUnwindSafe(|| work_on(&mut sender, &said)));
        let error = match worked {
            Ok(Err(error)) => error,
            Err(_) => CliError::state("internal", "the program failed"),
        };
        let _told = told.send(End::Failed(error));
    });
    match ends.recv() {
        Ok(End::Failed(error)) => Err(error),
        Ok(End::Asked) | Err(mpsc::RecvError) => {
            output.say("Stopped.");
            output.result(&json!({"stopped": true}));
            Ok(())
        }
    }
}

fn work_on(sender: &mut Sender, output: &Output) -> Result<std::convert::Infallible, CliError> {
    // A relay that says when to come again is not asked for events before; what is due is sent meanwhile.
    let mut events_from = Instant::now();
    loop {
        work_off(sender, output)?;
        let due = sender.next_due_in_ms()?.map_or(WAIT_MAX, Duration::from_millis).min(WAIT_MAX);
        if due < Duration::from_secs(1) || Instant::now() < events_from {
            std::thread::sleep(due);
            continue;
        }
        // Waiting for events is the pause between two looks at the outbox.
        match sender.follow(Duration::from_secs(due.as_secs())) {
            Ok(report) if report.refused > 0 => {
                output.say(format_args!("{} receipts do not verify: somebody lies", report.refused));
            }
            Ok(_) => {}
            Err(error) if error.is_temporary() => {
                tracing::warn!(code = error.code(), "no events from the relay");
                events_from = Instant::now() + error.retry_after().unwrap_or(PAUSE);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Does all that is due.
fn work_off(sender: &mut Sender, output: &Output) -> Result<(), CliError> {
    loop {
        let done = sender.work()?;
        if done == sealpost_sender::WorkReport::default() {
            return Ok(());
        }
        output.say(format_args!(
            "{} sealed, {} accepted, {} put off, {} given up",
            done.sealed, done.accepted, done.postponed, done.failed
        ));
    }
}
