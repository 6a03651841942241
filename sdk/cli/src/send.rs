//! `sealpost send` and `sealpost outbox`.

use std::path::Path;
use std::time::Duration;

use sealpost_connector::alert::{Alert as Mapped, AlertOptions};
use sealpost_connector::hl7::{Message, ReadOptions};
use sealpost_connector::oru::{Oru, ProcessingId};
use sealpost_connector::patients::PatientMap;
use sealpost_connector::quarantine::Reason;
use sealpost_sender::{Alert, AlertStatus, Enqueued, Sender, SourceEvent, Stage};
use sealpost_wire::clock::Clock as _;
use sealpost_wire::id::{Digest, NotificationId};
use sealpost_wire::payload::{Priority, Sensitivity, Text};
use serde_json::json;

use crate::arguments::{OutboxCommand, PriorityArgument, SendCommand};
use crate::edge::{self, SystemClock};
use crate::error::CliError;
use crate::home::Home;
use crate::output::Output;
use crate::{quarantine, status};

/// How long a critical alert is delivered, unless told otherwise.
const LIFETIME_CRITICAL: Duration = Duration::from_secs(24 * 3600);
/// How long any other is.
const LIFETIME: Duration = Duration::from_secs(7 * 86_400);
/// The longest that the relay is asked to wait at a time, so that a stop is noticed.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// The longest pause of an outbox that has nothing due.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long `send` tries to reach the relay before it leaves the rest to the outbox.
const SEND_PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn run(command: &SendCommand, home: &Home, output: &Output) -> Result<(), CliError> {
    let mut held = Vec::new();
    let mut alerts = Vec::new();
    match (&command.text, &command.patients) {
        (Some(body), _) => alerts.push(text_alert(command, body)?),
        (None, Some(map)) => {
            let patients = PatientMap::load(map)?;
            for path in &command.hl7 {
                match hl7_alerts(command, path, &patients, home)? {
                    Read::Alerts(read) => alerts.extend(read),
                    Read::Held(id, reason) => {
                        let code = reason.code().to_owned();
                        output.say(format_args!("{}: not sent ({code}); held as {id}", path.display()));
                        held.push(json!({"file": path, "reason": code, "id": id}));
                    }
                }
            }
        }
        (None, None) => return Err(CliError::Usage("--hl7 needs --patients".to_owned())),
    }
    let mut sender = home.sender(command.sender.as_deref())?;
    let mut ids = Vec::new();
    for alert in &alerts {
        let enqueued = sender.enqueue(alert)?;
        let (id, word) = match enqueued {
            Enqueued::New(id) => (id, "new"),
            Enqueued::Known(id) => (id, "known"),
            Enqueued::Outdated(id) => (id, "outdated"),
        };
        match enqueued {
            Enqueued::New(_) => {}
            Enqueued::Known(_) => output.say(format_args!("{}: was taken in before", alert.source.key)),
            Enqueued::Outdated(_) => output.say(format_args!("{}: a newer one was sent", alert.source.key)),
        }
        ids.push((id, word));
    }
    send_now(&mut sender, &ids, command.wait)?;
    let mine = of_these(&sender, &ids)?;
    mine.iter().for_each(|alert| status::say(alert, output));
    let opened = mine.iter().all(AlertStatus::is_opened);
    let failed = mine.iter().flat_map(|alert| &alert.submissions).find(|one| one.stage == Stage::Failed);
    let failure = failed.map(|one| one.failure.clone().unwrap_or_else(|| "unknown".to_owned()));
    let accepted = mine.iter().flat_map(|alert| &alert.submissions).all(|one| one.stage == Stage::Accepted);
    if let Some(code) = failure {
        return Err(CliError::state("not_sent", format!("an alert cannot be sent: {code}")));
    }
    if !held.is_empty() {
        let message = format!("{} of the files were not sent: see `sealpost quarantine list`", held.len());
        return Err(CliError::state("quarantined", message));
    }
    if !accepted {
        let message = "the alert is safe in the outbox and not yet accepted: `sealpost outbox run` goes on";
        return Err(CliError::NotYet(message.to_owned()));
    }
    if command.wait.is_some() && !opened {
        return Err(CliError::NotYet("accepted; not every device has opened it yet".to_owned()));
    }
    let taken_in: Vec<_> = ids.iter().map(|(id, word)| json!({"notification": id, "source": word})).collect();
    output.result(&json!({"accepted": accepted, "opened": opened, "taken_in": taken_in, "alerts": mine}));
    Ok(())
}

pub(crate) fn outbox(command: &OutboxCommand, home: &Home, output: &Output) -> Result<(), CliError> {
    let OutboxCommand::Run { sender, once } = command;
    let mut sender = home.sender(sender.as_deref())?;
    loop {
        let done = sender.work()?;
        if done.sealed + done.accepted + done.failed > 0 {
            output.say(format_args!(
                "{} sealed, {} accepted, {} put off, {} given up",
                done.sealed, done.accepted, done.postponed, done.failed
            ));
            continue;
        }
        let due = sender.next_due_in_ms()?.map(Duration::from_millis);
        if *once && due.is_none() {
            output.result(&json!({"alerts": sender.alerts()?.len()}));
            return Ok(());
        }
        // Waiting for events is the pause; an unreachable relay is no reason to ask again at once.
        let pause = due.unwrap_or(WAIT_MAX).min(WAIT_MAX);
        if sender.follow(Duration::from_secs(pause.as_secs())).is_err() || pause < Duration::from_secs(1) {
            std::thread::sleep(due.unwrap_or(PAUSE_MAX).min(PAUSE_MAX));
        }
    }
}

/// Works the outbox until these alerts are accepted, or the relay cannot be reached for a while; with `wait`, until their
/// devices have opened them.
fn send_now(
    sender: &mut Sender,
    ids: &[(NotificationId, &str)],
    wait: Option<Duration>,
) -> Result<(), CliError> {
    let sender = std::cell::RefCell::new(sender);
    let settled = |alert: &AlertStatus| {
        alert.submissions.iter().all(|one| matches!(one.stage, Stage::Accepted | Stage::Failed))
    };
    edge::until(
        wait.unwrap_or(SEND_PATIENCE).max(SEND_PATIENCE),
        || {
            let mut sender = sender.borrow_mut();
            sender.work()?;
            Ok::<_, CliError>(of_these(&sender, ids)?.iter().all(settled))
        },
        |left| {
            let due = sender.borrow().next_due_in_ms()?.map(Duration::from_millis).unwrap_or_default();
            std::thread::sleep(due.min(left));
            Ok(())
        },
    )?;
    let Some(wait) = wait else { return Ok(()) };
    edge::until(
        wait,
        || {
            let mut sender = sender.borrow_mut();
            sender.work()?;
            let mine = of_these(&sender, ids)?;
            let over = |alert: &AlertStatus| {
                alert.is_opened() || alert.submissions.iter().any(|one| one.stage == Stage::Failed)
            };
            Ok::<_, CliError>(mine.iter().all(over))
        },
        |left| {
            let wait = left.min(WAIT_MAX).as_secs().max(1);
            sender.borrow_mut().follow(Duration::from_secs(wait))?;
            Ok(())
        },
    )?;
    Ok(())
}

fn of_these(sender: &Sender, ids: &[(NotificationId, &str)]) -> Result<Vec<AlertStatus>, CliError> {
    let mut alerts = sender.alerts()?;
    alerts.retain(|alert| ids.iter().any(|(id, _)| *id == alert.notification));
    Ok(alerts)
}

/// What a file came to.
enum Read {
    Alerts(Vec<Alert>),
    Held(Digest, Reason),
}

fn hl7_alerts(
    command: &SendCommand,
    path: &Path,
    patients: &PatientMap,
    home: &Home,
) -> Result<Read, CliError> {
    let read = std::fs::read(path);
    let bytes = read.map_err(|error| CliError::File { path: path.display().to_string(), error })?;
    let mapped = map(command, &bytes, patients);
    match mapped {
        Ok(mapped) => Ok(Read::Alerts(mapped?.iter().map(|alert| result_alert(command, alert)).collect())),
        Err(reason) => {
            let id = quarantine::open(home)?.put(&bytes, &reason, SystemClock.now())?;
            Ok(Read::Held(id, reason))
        }
    }
}

fn map(
    command: &SendCommand,
    bytes: &[u8],
    patients: &PatientMap,
) -> Result<Result<Vec<Mapped>, CliError>, Reason> {
    let message = Message::parse(bytes, &ReadOptions::default()).map_err(|error| Reason::from(&error))?;
    let oru = Oru::from_message(&message).map_err(|error| Reason::from(&error))?;
    if oru.source.processing != ProcessingId::Production && !command.allow_training {
        return Err(Reason::NotProduction);
    }
    let recipient = patients.resolve(&oru.patient)?;
    Ok(Mapped::from_oru(&oru, recipient, &AlertOptions::default()).map_err(CliError::from))
}

fn result_alert(command: &SendCommand, mapped: &Mapped) -> Alert {
    let priority = Priority::from(mapped.priority);
    Alert {
        source: SourceEvent {
            key: format!("{}|{}", mapped.source_event.key, mapped.order),
            body: mapped.source_event.body_digest,
            subject: Some(mapped.order.clone()),
            as_of: mapped.observed_at,
        },
        recipient: mapped.recipient,
        category: mapped.category.clone(),
        priority,
        sensitivity: Sensitivity::Private,
        texts: mapped.texts.clone(),
        parts: mapped.part.iter().cloned().collect(),
        replies: Vec::new(),
        lifetime_seconds: lifetime(command, priority),
    }
}

fn text_alert(command: &SendCommand, body: &str) -> Result<Alert, CliError> {
    let recipient =
        command.recipient.ok_or_else(|| CliError::Usage("--text needs --recipient".to_owned()))?;
    let priority = match command.priority {
        PriorityArgument::Critical => Priority::Critical,
        PriorityArgument::Normal => Priority::Normal,
        PriorityArgument::Bulk => Priority::Bulk,
    };
    let random = || NotificationId::random(edge::rng().as_mut()).to_string();
    let text = Text { title: command.title.clone(), body: body.to_owned() };
    let content = [recipient.to_string().as_str(), &command.category, &text.title, &text.body].join("\u{1f}");
    Ok(Alert {
        source: SourceEvent {
            key: command.source.clone().unwrap_or_else(random),
            body: Digest::of(content.as_bytes()),
            subject: None,
            as_of: None,
        },
        recipient,
        category: command.category.clone(),
        priority,
        sensitivity: Sensitivity::Private,
        texts: [("en".to_owned(), text)].into(),
        parts: Vec::new(),
        replies: Vec::new(),
        lifetime_seconds: lifetime(command, priority),
    })
}

fn lifetime(command: &SendCommand, priority: Priority) -> u64 {
    let usual = if priority == Priority::Critical { LIFETIME_CRITICAL } else { LIFETIME };
    command.lifetime.unwrap_or(usual).as_secs()
}
