//! `sealpost send`: lab results and texts into the outbox, and from there to the relay; or into groups, where the policy
//! says so.

mod conversation;

use std::path::Path;
use std::time::{Duration, Instant};

use sealpost_connector::alert::{Alert as Mapped, AlertOptions};
use sealpost_connector::hl7::{MESSAGE_BYTES_MAX, Message, ReadOptions};
use sealpost_connector::oru::{Oru, ProcessingId, SourceEvent as Source};
use sealpost_connector::patients::PatientMap;
use sealpost_connector::quarantine::Reason;
use sealpost_device::MessageState;
use sealpost_sender::{Alert, AlertStatus, Enqueued, Sender, SenderError, SourceEvent, Stage};
use sealpost_wire::clock::Clock as _;
use sealpost_wire::id::{Digest, NotificationId};
use sealpost_wire::payload::{Priority, Sensitivity, Text};
use serde_json::{Value, json};

use crate::arguments::{PriorityArgument, SendCommand, SensitivityArgument};
use crate::edge::{self, SystemClock};
use crate::error::CliError;
use crate::home::Home;
use crate::output::{Output, plain};
use crate::{quarantine, status};

use conversation::Conversations;

/// How long a critical alert is delivered, unless told otherwise.
const LIFETIME_CRITICAL: Duration = Duration::from_secs(24 * 3600);
/// How long any other is.
const LIFETIME: Duration = Duration::from_secs(7 * 86_400);
/// The longest that the relay is asked to wait at a time.
const EVENTS_WAIT_MAX: Duration = Duration::from_secs(10);
/// The pause after the relay did not answer.
const PAUSE: Duration = Duration::from_secs(1);
/// How long `send` tries to reach the relay before it leaves the rest to the outbox.
const SEND_PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn run(command: &SendCommand, home: &Home, output: &Output) -> Result<(), CliError> {
    let mut conversations = Conversations::open(home)?;
    let mut sender = home.sender(command.sender.as_deref())?;
    let mut taken = Taken::default();
    match (&command.text, &command.patients) {
        (Some(body), _) => {
            let alert = text_alert(command, body)?;
            if conversations.takes(&alert) {
                taken.write_to_group(&alert, &mut conversations, output)?;
            } else {
                let enqueued = sender.enqueue(&alert)?;
                taken.alert(alert.source.key, enqueued, output);
            }
        }
        (None, Some(map)) => {
            let mut ways = Ways { patients: PatientMap::load(map)?, sender: &mut sender, conversations };
            for path in &command.hl7 {
                take_result(command, path, home, &mut ways, &mut taken, output)?;
            }
        }
        (None, None) => return Err(CliError::Usage("--hl7 needs --patients".to_owned())),
    }
    deliver(&mut sender, &taken.sources, command.wait)?;
    let alerts = statuses(&sender, &taken.sources)?;
    if !alerts.is_empty() {
        status::say(&alerts, output);
    }
    taken.end(&alerts, command.wait.is_some(), output)
}

/// Where results go.
struct Ways<'w> {
    patients: PatientMap,
    sender: &'w mut Sender,
    conversations: Conversations<'w>,
}

/// What became of what was to be sent.
#[derive(Default)]
struct Taken {
    /// Keys of source events whose alerts are followed.
    sources: Vec<String>,
    /// What the outbox said of each event.
    events: Vec<Value>,
    /// Messages that went into groups.
    said: Vec<Value>,
    /// Some of those are not at the relay yet.
    unsent: bool,
    /// What could not go into a group, with its code.
    refused: Vec<(String, CliError)>,
    /// Messages in the quarantine.
    held: Vec<Value>,
    /// Files that could not be read.
    unread: Vec<Value>,
}

impl Taken {
    fn alert(&mut self, source: String, enqueued: Enqueued, output: &Output) {
        let (id, word) = match enqueued {
            Enqueued::New(id) => (id, "new"),
            Enqueued::Known(id) => (id, "known"),
            Enqueued::Outdated(id) => (id, "outdated"),
        };
        match enqueued {
            Enqueued::New(_) => {}
            Enqueued::Known(_) => output.say(format_args!("{}: already sent", plain(&source))),
            Enqueued::Outdated(_) => {
                output.say(format_args!("{}: not sent, a newer one was", plain(&source)));
            }
        }
        self.events.push(json!({"source": source, "notification": id, "taken_in": word}));
        if word != "outdated" {
            self.sources.push(source);
        }
    }

    /// Writes an alert to its recipient's group. What is wrong with one group does not keep what else is to be sent.
    fn write_to_group(
        &mut self,
        alert: &Alert,
        conversations: &mut Conversations<'_>,
        output: &Output,
    ) -> Result<(), CliError> {
        let source = &alert.source.key;
        match conversations.write(alert) {
            Ok(said) => {
                let row = said.json(source);
                output.say(format_args!(
                    "{}: {} in a group",
                    plain(source),
                    row["state"].as_str().unwrap_or("")
                ));
                match said.state {
                    MessageState::Sent | MessageState::Received => {}
                    MessageState::Sending => self.unsent = true,
                    MessageState::Failed => {
                        let error = CliError::state("not_sent", "the relay does not take it");
                        self.refused.push((source.clone(), error));
                    }
                }
                self.said.push(row);
            }
            // The device's own store fails for every message; all else is about this one.
            Err(CliError::Device(error)) if error.is_storage() => return Err(error.into()),
            Err(error @ (CliError::State { .. } | CliError::Device(_))) => {
                output.say(format_args!("{}: not sent ({error})", plain(source)));
                self.refused.push((source.clone(), error));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The command's result: 0 when all of it was accepted and, if that was waited for, opened.
    fn end(self, alerts: &[AlertStatus], waited: bool, output: &Output) -> Result<(), CliError> {
        let sent = |alert: &AlertStatus| alert.submissions.iter().any(|one| one.stage == Stage::Accepted);
        let failures = |of: &dyn Fn(&AlertStatus) -> bool| {
            let codes = alerts.iter().filter(|alert| of(alert)).flat_map(|alert| &alert.submissions);
            let mut codes: Vec<_> = codes.filter_map(|one| one.failure.as_deref()).map(explained).collect();
            codes.sort();
            codes.dedup();
            codes.join("; ")
        };
        let accepted = alerts.iter().all(sent);
        let opened = alerts.iter().all(AlertStatus::is_opened);
        let refused: Vec<_> = self
            .refused
            .iter()
            .map(|(source, error)| json!({"source": source, "code": error.code()}))
            .collect();
        let done = json!({
            "accepted": accepted && !self.unsent && self.refused.is_empty(),
            // Who has read a message of a group is not known here.
            "opened": opened && self.said.is_empty() && self.refused.is_empty(),
            "taken_in": self.events, "alerts": alerts,
            "in_groups": self.said, "refused": refused, "held": self.held, "unread": self.unread,
        });
        let given_up = |alert: &AlertStatus| !sent(alert) && !alert.is_under_way();
        let (code, temporary, message) = if !self.unread.is_empty() {
            ("file", false, format!("{} of the files cannot be read; they were not sent", self.unread.len()))
        } else if !self.held.is_empty() {
            let message =
                format!("{} of the messages are held: see `sealpost quarantine list`", self.held.len());
            ("quarantined", false, message)
        } else if let Some((_, error)) = self.refused.first() {
            (error.code(), error.is_temporary(), error.to_string())
        } else if alerts.iter().any(given_up) {
            ("not_sent", false, format!("an alert cannot be sent: {}", failures(&given_up)))
        } else if !accepted {
            let why = failures(&|alert| !sent(alert));
            let message =
                format!("safe in the outbox and not yet accepted ({why}): `sealpost outbox run` goes on");
            ("not_yet", true, message)
        } else if self.unsent {
            let message =
                "safe in the mailbox and not yet sent: `sealpost device sync` of the mailbox goes on";
            ("not_yet", true, message.to_owned())
        } else if waited && !opened {
            if alerts.iter().all(AlertStatus::is_settled) {
                let message = "accepted, and not every device has opened it or ever will: see the states";
                ("not_opened", false, message.to_owned())
            } else {
                ("not_yet", true, "accepted; not every device has opened it yet".to_owned())
            }
        } else {
            output.result(&done);
            return Ok(());
        };
        Err(CliError::Partly { code: code.to_owned(), message, temporary, done })
    }
}

/// What the codes that an integration engineer meets first mean.
fn explained(code: &str) -> String {
    let what = match code {
        "consent_missing" => "the recipient has not agreed to the category: `sealpost consent grant`",
        "no_devices" => "the recipient has no device yet: `sealpost ticket new`",
        "no_prekey" | "downgrade" => "a device has uploaded no keys to seal to yet",
        "unreachable" => "a server cannot be reached",
        "invalid_client" => "a server does not take this sender's keys: is the tenant in its configuration?",
        "status_stale" => "the list of what is revoked is too old: `sealpost tenant publish`",
        "certificate_expired" => "the sender's certificate has expired: `sealpost sender renew`",
        _ => return plain(code),
    };
    format!("{code}: {what}")
}

/// Takes a file's message into the outbox, or holds it. What is wrong with one file does not keep the others.
fn take_result(
    command: &SendCommand,
    path: &Path,
    home: &Home,
    ways: &mut Ways<'_>,
    taken: &mut Taken,
    output: &Output,
) -> Result<(), CliError> {
    let bytes = match edge::read(path, MESSAGE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) => {
            output.say(format_args!("{error}"));
            taken.unread.push(json!({"file": path, "message": error.to_string()}));
            return Ok(());
        }
    };
    let hold = |reason: &Reason, taken: &mut Taken| {
        let code = reason.code();
        let id = quarantine::open(home)?.put(&bytes, reason, SystemClock.now())?;
        output.say(format_args!("{}: not sent ({code}: {reason}); held as {id}", path.display()));
        taken.held.push(json!({"file": path, "reason": code, "id": id}));
        Ok(())
    };
    let alerts = match map(command, &bytes, &ways.patients) {
        Ok(alerts) => alerts?,
        Err(reason) => return hold(&reason, taken),
    };
    for alert in alerts {
        if ways.conversations.takes(&alert) {
            taken.write_to_group(&alert, &mut ways.conversations, output)?;
            continue;
        }
        match ways.sender.enqueue(&alert) {
            Ok(enqueued) => taken.alert(alert.source.key, enqueued, output),
            Err(SenderError::SourceConflict(_)) => return hold(&Reason::SourceConflict, taken),
            Err(SenderError::Format(error)) => {
                return hold(&Reason::Unreadable(error.code().to_owned()), taken);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn map(
    command: &SendCommand,
    bytes: &[u8],
    patients: &PatientMap,
) -> Result<Result<Vec<Alert>, CliError>, Reason> {
    let message = Message::parse(bytes, &ReadOptions::default()).map_err(|error| Reason::from(&error))?;
    let oru = Oru::from_message(&message).map_err(|error| Reason::from(&error))?;
    if oru.source.processing != ProcessingId::Production && !command.allow_training {
        return Err(Reason::NotProduction);
    }
    let recipient = patients.resolve(&oru.patient)?;
    let mapped = Mapped::from_oru(&oru, recipient, &AlertOptions::default());
    Ok(mapped
        .map(|mapped| mapped.iter().map(|alert| result_alert(command, &oru.source, alert)).collect())
        .map_err(CliError::from))
}

fn result_alert(command: &SendCommand, source: &Source, mapped: &Mapped) -> Alert {
    let priority = Priority::from(mapped.priority);
    Alert {
        source: SourceEvent {
            key: format!("{}|{}", mapped.source_event.key, mapped.order),
            body: mapped.source_event.body_digest,
            subject: Some(subject(source, &mapped.order)),
            as_of: mapped.observed_at,
        },
        recipient: mapped.recipient,
        category: mapped.category.clone(),
        priority,
        sensitivity: sensitivity(command),
        texts: mapped.texts.clone(),
        parts: mapped.part.iter().cloned().collect(),
        replies: Vec::new(),
        lifetime_seconds: lifetime(command, priority),
    }
}

/// What a correction replaces. An order number without an authority is unique within its laboratory at most: another
/// one's order of the same number must not replace this one.
fn subject(source: &Source, order: &str) -> String {
    if order.contains('^') {
        order.to_owned()
    } else {
        format!("{}|{}|{order}", source.sending_application, source.sending_facility)
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
        sensitivity: sensitivity(command),
        texts: [("en".to_owned(), text)].into(),
        parts: Vec::new(),
        replies: Vec::new(),
        lifetime_seconds: lifetime(command, priority),
    })
}

const fn sensitivity(command: &SendCommand) -> Sensitivity {
    match command.sensitivity {
        SensitivityArgument::Normal => Sensitivity::Normal,
        SensitivityArgument::Private => Sensitivity::Private,
        SensitivityArgument::Restricted => Sensitivity::Restricted,
    }
}

fn lifetime(command: &SendCommand, priority: Priority) -> u64 {
    let usual = if priority == Priority::Critical { LIFETIME_CRITICAL } else { LIFETIME };
    command.lifetime.unwrap_or(usual).as_secs()
}

/// Works the outbox until these alerts are accepted or given up, or servers cannot be reached for a while; with `wait`,
/// until their devices have opened them or never will.
fn deliver(sender: &mut Sender, sources: &[String], wait: Option<Duration>) -> Result<(), CliError> {
    let start = Instant::now();
    let patience = wait.unwrap_or_default().max(SEND_PATIENCE);
    loop {
        work_off(sender)?;
        let left = patience.saturating_sub(start.elapsed());
        if left.is_zero() || !statuses(sender, sources)?.iter().any(AlertStatus::is_under_way) {
            break;
        }
        std::thread::sleep(next_due(sender)?.min(left));
    }
    let Some(wait) = wait else { return Ok(()) };
    loop {
        work_off(sender)?;
        let left = wait.saturating_sub(start.elapsed());
        if left.is_zero() || statuses(sender, sources)?.iter().all(AlertStatus::is_settled) {
            return Ok(());
        }
        let ask = left.min(next_due(sender)?).min(EVENTS_WAIT_MAX);
        match sender.follow(Duration::from_secs(ask.as_secs())) {
            Ok(report) if report.events == 0 && ask < PAUSE => std::thread::sleep(ask),
            Ok(_) => {}
            Err(error) if error.is_temporary() => {
                tracing::warn!(code = error.code(), "no events from the relay");
                std::thread::sleep(error.retry_after().unwrap_or(PAUSE).min(left));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn work_off(sender: &mut Sender) -> Result<(), CliError> {
    while sender.work()? != sealpost_sender::WorkReport::default() {}
    Ok(())
}

fn next_due(sender: &Sender) -> Result<Duration, CliError> {
    Ok(sender.next_due_in_ms()?.map_or(Duration::MAX, Duration::from_millis))
}

fn statuses(sender: &Sender, sources: &[String]) -> Result<Vec<AlertStatus>, CliError> {
    let mut alerts = Vec::with_capacity(sources.len());
    for source in sources {
        alerts.extend(sender.alert(source)?);
    }
    Ok(alerts)
}
