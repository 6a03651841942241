//! The demo itself: a hospital and two phones; one result on its way through the servers.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use sealpost_sender::{Alert, AlertStatus};
use sealpost_wire::clock::Clock as _;
use sealpost_wire::id::RecipientId;

use crate::clock::{SystemClock, system_rng};
use crate::emulators::{Provider, Push};
use crate::error::DemoError;
use crate::hospital::Hospital;
use crate::phone::PhoneEvent;
use crate::pocket::{MODELS, Pocket};
use crate::process::Processes;
use crate::programs::Programs;
use crate::result::LabResult;
use crate::running::Running;
use crate::screen::{Timeline, counted, grouped, say};
use crate::site::Site;

/// How long the message may take until its receipts are back.
const DELIVERY_DEADLINE: Duration = Duration::from_secs(20);
/// What the patient agrees to be told: lab results, and what `sealpost send --text` sends.
const CATEGORIES: [&str; 2] = [sealpost_connector::alert::CATEGORY, "message"];
/// Characters of a push token that are shown.
const TOKEN_CHARS_SHOWN: usize = 12;

/// Everything that runs.
pub(crate) struct Scenario<'d> {
    site: &'d Site,
    programs: &'d Programs,
    running: Running<'d>,
    hospital: Hospital,
    pocket: Pocket,
    /// The patient, by a random pseudonym.
    patient: RecipientId,
}

/// What became of the result that was sent.
pub(crate) struct Delivery {
    /// Messages that were sent.
    pub(crate) messages: usize,
    /// Phones that opened all of them.
    pub(crate) opened: usize,
    /// Receipts of opening that the sender verified.
    pub(crate) receipts_verified: usize,
    /// Milliseconds from the relay's 202 until the last phone had opened the message, the slowest message.
    pub(crate) milliseconds_accept_to_opened: Option<u64>,
    /// What each phone opened, all in one text.
    pub(crate) opened_texts: Vec<String>,
}

impl<'d> Scenario<'d> {
    /// Starts everything, and enrols the phones.
    pub(crate) fn start(
        site: &'d Site,
        processes: &'d Processes,
        programs: &'d Programs,
    ) -> Result<Self, DemoError> {
        let (running, hospital) = Running::start(site, processes, programs)?;
        let patient = RecipientId::random(system_rng().as_mut());
        for category in CATEGORIES {
            hospital.record_consent(patient, category)?;
        }
        let mut pocket = Pocket::new(&MODELS);
        let recipients = [patient; MODELS.len()];
        pocket.enrol(&hospital, &recipients, processes, site, running.control_url())?;
        Ok(Self { site, programs, running, hospital, pocket, patient })
    }

    /// Sends the result, waits for the phones and their receipts, and prints what happened.
    pub(crate) fn deliver(&mut self, result: &LabResult) -> Result<Delivery, DemoError> {
        let alerts = result.alerts(self.patient)?;
        let mut timeline = Timeline::default();
        timeline.add(SystemClock.now_millis(), "hospital", what_is_sent(result, &alerts));
        let until = Instant::now() + DELIVERY_DEADLINE;
        self.hospital.send(&alerts, until)?;

        let (hospital, pocket) = (&mut self.hospital, &mut self.pocket);
        let verified_ms = std::thread::scope(|scope| {
            let receipts = scope.spawn(|| hospital.await_receipts(until));
            pocket.await_opened(alerts.len(), until);
            receipts.join().map_err(|_| DemoError::Failed("following the receipts panicked".to_owned()))?
        })?;

        let sent = self.hospital.alerts()?;
        sent.iter().zip(&alerts).for_each(|(sent, alert)| add_acceptance(&mut timeline, sent, alert));
        for push in self.running.pushes()? {
            self.add_push(&mut timeline, &push);
        }
        for (phone, event) in self.pocket.events() {
            add_phone_event(&mut timeline, *phone, event, result);
        }
        if let Some(last_ms) = verified_ms.last() {
            let verified = counted(verified_ms.len(), "receipt", "receipts");
            timeline.add(
                *last_ms,
                "hospital",
                format!("{verified} verified: opened, by the signature of each phone"),
            );
        }
        timeline.lines().iter().for_each(|line| say(line));
        Ok(self.delivery(&sent, verified_ms.len()))
    }

    fn add_push(&self, timeline: &mut Timeline, push: &Push) {
        let who = match push.provider {
            Provider::Apns => "Apple",
            Provider::Fcm => "Google",
        };
        let shown_token: String = push.token.chars().take(TOKEN_CHARS_SHOWN).collect();
        let body = String::from_utf8_lossy(&push.body).replace(&push.token, &format!("{shown_token}…"));
        let outcome = match (push.status, &push.reason) {
            (Some(200), _) => String::new(),
            (_, reason) => format!("  refused: {}", reason.as_deref().unwrap_or("no answer")),
        };
        let phone = self.pocket.of_token(&push.token).map_or("a phone", |phone| self.pocket.name(phone));
        let headers: Vec<String> = push
            .headers
            .iter()
            .filter(|(name, _)| *name != "content-type")
            .map(|(name, value)| format!("{name}: {}", value.as_str().unwrap_or_default()))
            .collect();
        let headers = if headers.is_empty() { String::new() } else { format!("\n{}", headers.join("  ")) };
        let bytes = push.body.len();
        timeline.add(
            push.received_ms,
            who,
            format!("a stub of {bytes} bytes for the {phone}, which says no more than that it should ask:{outcome}\n{body}{headers}"),
        );
    }

    fn delivery(&self, sent: &[AlertStatus], receipts_verified: usize) -> Delivery {
        let accepted: Vec<(String, u64)> = sent
            .iter()
            .flat_map(|alert| &alert.submissions)
            .filter_map(|one| Some((one.transport_id?.to_string(), one.accepted_ms?)))
            .collect();
        let mut opened_texts = vec![String::new(); MODELS.len()];
        let mut messages: Vec<Vec<&str>> = vec![Vec::new(); MODELS.len()];
        let mut slowest = None;
        for (phone, event) in self.pocket.events() {
            let PhoneEvent::Opened { at_ms, message, title, body, data, .. } = event else { continue };
            opened_texts[*phone].push_str(&format!("{title}\n{body}\n{data}\n"));
            messages[*phone].push(message);
            if let Some((_, accepted_ms)) = accepted.iter().find(|(id, _)| id == message) {
                slowest = slowest.max(Some(at_ms.saturating_sub(*accepted_ms)));
            }
        }
        let opened = messages.iter().filter(|opened| opened.len() >= sent.len() && !sent.is_empty()).count();
        Delivery {
            messages: sent.len(),
            opened,
            receipts_verified,
            milliseconds_accept_to_opened: slowest.filter(|_| opened == MODELS.len()),
            opened_texts,
        }
    }

    /// Shows what the phones do until `until_told` comes.
    pub(crate) fn stay(&mut self, result: &LabResult, until_told: &std::sync::mpsc::Receiver<()>) {
        let start = SystemClock.now_millis();
        let pause = Duration::from_millis(200);
        while matches!(until_told.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty)) {
            if let Some((phone, event)) = self.pocket.next_event(Instant::now() + pause) {
                let mut timeline = Timeline::default();
                timeline.add(start, "", "");
                add_phone_event(&mut timeline, phone, &event, result);
                timeline.lines().iter().skip(1).for_each(|line| say(line));
            }
        }
    }

    /// Prints commands that can be tried while everything runs.
    pub(crate) fn print_commands(&self, result: &LabResult) -> Result<(), DemoError> {
        let (site, recipient) = (self.site, self.patient);
        let map = site.input().join("patients.json");
        let written = fs::write(&map, result.patient_map(recipient).to_string());
        written.map_err(|error| DemoError::failed(map.display(), error))?;
        let cli = self.programs.cli.as_deref().unwrap_or(Path::new("sealpost"));
        let sealpost = format!("{} --home {}", cli.display(), site.home().display());
        let file = site.input().join("result.hl7");
        let device = site.devices().join("terminal");
        let device = format!("{} device --device {}", cli.display(), device.display());
        let (file, map) = (file.display(), map.display());
        let commands = [
            ("Where the alert is, and what the phones have signed", format!("{sealpost} status")),
            (
                "A text to both phones",
                format!("{sealpost} send --text 'Please call us.' --recipient {recipient} --wait 20"),
            ),
            ("The same result again: it is known, nothing is sent twice", {
                format!("{sealpost} send --hl7 {file} --patients {map}")
            }),
            (
                "A third device in this terminal: make a ticket, and let in who claims it",
                format!("{sealpost} ticket new --recipient {recipient} --no-qr --wait 300 --approve auto"),
            ),
            ("Enrol it with that link, from another terminal", format!("{device} enrol LINK --wait 60")),
            ("Then send a text again, and fetch it", format!("{device} sync")),
            ("What the relay counts", format!("curl {}/metrics", self.running.relay_url())),
        ];
        say("\nEverything stays up; Ctrl-C goes on to the search. Meanwhile, try:");
        for (what, command) in commands {
            say(&format!("\n  # {what}\n  {command}"));
        }
        say("");
        Ok(())
    }

    /// Writes down what the servers and providers know, ends everything in good order, and prints the servers' stores
    /// row by row: all of it into the folder of the run, for the search.
    pub(crate) fn end(mut self) -> Result<(), DemoError> {
        self.running.write_down()?;
        self.pocket.put_away()?;
        self.running.end()
    }
}

fn what_is_sent(result: &LabResult, alerts: &[Alert]) -> String {
    let source = result.source();
    let from = if source.is_empty() { String::new() } else { format!(" from {source}") };
    let lines = result.summary(alerts).join("\n  ");
    format!(
        "sends a lab result{from} ({}; {}), with a canary in each of {}:\n  {lines}",
        result.origin,
        result.charset,
        counted(result.canaries.len(), "field", "fields"),
    )
}

fn add_acceptance(timeline: &mut Timeline, sent: &AlertStatus, alert: &Alert) {
    for one in &sent.submissions {
        let (Some(at_ms), Some(id)) = (one.accepted_ms, one.transport_id) else { continue };
        let boxes = one.boxes.iter();
        let boxes =
            boxes.map(|sealed| format!("  {} bytes for device {}", grouped(sealed.bytes), sealed.device));
        timeline.add(
            at_ms,
            "relay",
            format!(
                "answers 202: stored message {id}, priority {}, {}:\n{}\nNo text, no name, no category, no key that opens them.",
                alert.priority.name(),
                counted(one.boxes.len(), "sealed box", "sealed boxes"),
                boxes.collect::<Vec<_>>().join("\n")
            ),
        );
    }
}

fn add_phone_event(timeline: &mut Timeline, phone: usize, event: &PhoneEvent, result: &LabResult) {
    let name = MODELS[phone].name;
    match event {
        PhoneEvent::Claimed { .. }
        | PhoneEvent::Enrolled { .. }
        // Nobody has made a group.
        | PhoneEvent::Group { .. }
        | PhoneEvent::Read { .. }
        | PhoneEvent::Wrote { .. } => {}
        PhoneEvent::Woken { at_ms } => timeline.add(*at_ms, name, "woken by its stub; asks the relay"),
        PhoneEvent::Opened { at_ms, sender, title, body, data, .. } => {
            let shown = crate::canary::without_canaries(&format!("{title}\n{body}"), &result.canaries);
            let shown = shown.replace('\n', "\n  ");
            let data = match data.len() {
                0 => String::new(),
                bytes => format!("\n  and a report of {} bytes for the app", grouped(bytes as u64)),
            };
            timeline.add(*at_ms, name, format!("shows, signed by {sender}:\n  {shown}{data}"));
        }
        PhoneEvent::Synced { at_ms, receipts } => {
            let receipts = counted(*receipts, "signed receipt", "signed receipts");
            timeline.add(*at_ms, name, format!("opened what waited, and sent {receipts}"));
        }
        PhoneEvent::TurnedAway { at_ms, code } => {
            timeline.add(*at_ms, name, format!("FAILED: the relay does not let it in ({code})"));
        }
        PhoneEvent::Failed { error } => {
            timeline.add(SystemClock.now_millis(), name, format!("FAILED: {error}"));
        }
    }
}
