//! The demo itself: two servers, the emulators, a hospital and two phones; one result on its way through them.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sealpost_sender::{Alert, AlertStatus};
use sealpost_wire::clock::Clock as _;
use serde::Deserialize;

use crate::clock::SystemClock;
use crate::emulators::{Control, Manifest, Provider, Push};
use crate::error::DemoError;
use crate::hospital::{Hospital, Tenant};
use crate::phone::PhoneEvent;
use crate::pocket::{MODELS, Pocket};
use crate::process::{Output, Process, Processes};
use crate::programs::Programs;
use crate::result::LabResult;
use crate::screen::{Timeline, counted, grouped, say};
use crate::site::Site;

/// How long the phones may take to enrol.
const ENROLMENT_DEADLINE: Duration = Duration::from_secs(30);
/// How long the message may take until its receipts are back.
const DELIVERY_DEADLINE: Duration = Duration::from_secs(20);
/// What the patient agrees to be told: lab results, and what `sealpost send --text` sends.
const CATEGORIES: [&str; 2] = [sealpost_connector::alert::CATEGORY, "message"];
/// Characters of a push token that are shown.
const TOKEN_CHARS_SHOWN: usize = 12;

/// Everything that runs.
pub(crate) struct Scenario<'d> {
    site: &'d Site,
    processes: &'d Processes,
    programs: &'d Programs,
    keyserver: Server,
    relay: Server,
    emulators: Process,
    control: Control,
    hospital: Hospital,
    pocket: Pocket,
}

struct Server {
    process: Process,
    url: String,
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
        let logs = site.logs();
        let tenant = Tenant::create(&site.home())?;
        // The two that take time start side by side.
        let mut command = Command::new(&programs.emulators);
        command.arg("--json").arg("--dir").arg(site.providers());
        let emulators = processes.start("emulators", command, &logs, Output::Logged)?;
        let config = site.configure_keyserver(&tenant.root_hex())?;
        let keyserver = start_server("keyserver", &programs.keyserver, &config, processes, &logs)?;
        let manifest: Manifest = parse("the emulators", &emulators.first_line()?)?;
        let config = site.configure_relay(&tenant.root_hex(), &manifest)?;
        let relay = start_server("relay", &programs.relay, &config, processes, &logs)?;
        let keyserver = await_server(keyserver)?;
        let relay = await_server(relay)?;
        say(&format!(
            "Running    keyserver {}, relay {}, emulators of Apple {} and Google {}",
            keyserver.url, relay.url, manifest.apns.url, manifest.fcm.url
        ));

        let hospital = tenant.open(&keyserver.url, &relay.url)?;
        for category in CATEGORIES {
            hospital.record_consent(category)?;
        }
        let control = Control::new(&manifest.control_url);
        let pocket = Pocket::new();
        let mut scenario =
            Self { site, processes, programs, keyserver, relay, emulators, control, hospital, pocket };
        scenario.enrol(&manifest.control_url)?;
        Ok(scenario)
    }

    fn enrol(&mut self, control_url: &str) -> Result<(), DemoError> {
        let until = Instant::now() + ENROLMENT_DEADLINE;
        let mut tickets = Vec::new();
        for _ in MODELS {
            let (ticket, link) = self.hospital.new_ticket()?;
            self.pocket.add(self.processes, self.site, control_url, &link)?;
            tickets.push(ticket);
        }
        for (phone, ticket) in tickets.iter().enumerate() {
            let code = self.pocket.await_code(phone, until)?;
            let claim = self.hospital.await_claim(ticket)?;
            if claim.code != code {
                return Err(DemoError::Failed("phone and portal show different codes".to_owned()));
            }
            self.hospital.countersign(ticket, &code)?;
        }
        for (phone, model) in MODELS.iter().enumerate() {
            let device = self.pocket.await_enrolled(phone, until)?;
            say(&format!("Enrolled   {}, device {device}; the patient compared the codes", model.name));
        }
        Ok(())
    }

    /// Sends the result, waits for the phones and their receipts, and prints what happened.
    pub(crate) fn deliver(&mut self, result: &LabResult) -> Result<Delivery, DemoError> {
        let alerts = result.alerts(self.hospital.recipient)?;
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
        for push in self.pushes()? {
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

    /// Every push that the emulators saw.
    fn pushes(&self) -> Result<Vec<Push>, DemoError> {
        let pushes = self.control.all_pushes();
        pushes.map_err(|error| DemoError::failed("cannot ask the emulators what they saw", error))
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
        let phone = self.pocket.of_token(&push.token).map_or("a phone", |phone| MODELS[phone].name);
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
        let (site, recipient) = (self.site, self.hospital.recipient);
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
            ("What the relay counts", format!("curl {}/metrics", self.relay.url)),
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
        self.write_metrics()?;
        self.write_pushes()?;
        self.pocket.put_away()?;
        for process in [&self.relay.process, &self.keyserver.process, &self.emulators] {
            process.ask_to_end();
        }
        for process in [&self.relay.process, &self.keyserver.process, &self.emulators] {
            process.await_end()?;
        }
        drop(self.hospital);
        let site = self.site;
        dump(site, "relay", &self.programs.relay, &site.relay().join("relay.toml"))?;
        dump(site, "keyserver", &self.programs.keyserver, &site.keyserver().join("keyserver.toml"))
    }

    fn write_metrics(&self) -> Result<(), DemoError> {
        for (name, url) in [("relay", &self.relay.url), ("keyserver", &self.keyserver.url)] {
            let failed =
                |error: &dyn std::fmt::Display| DemoError::failed(format!("metrics of the {name}"), error);
            let answer = ureq::get(format!("{url}/metrics")).call();
            let text = answer.and_then(|mut answer| answer.body_mut().read_to_string());
            let text = text.map_err(|error| failed(&error))?;
            fs::write(self.site.metrics().join(format!("{name}.prom")), text)
                .map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    fn write_pushes(&self) -> Result<(), DemoError> {
        let folder = self.site.pushes();
        for push in self.pushes()? {
            let provider = match push.provider {
                Provider::Apns => "apns",
                Provider::Fcm => "fcm",
            };
            let name = folder.join(format!("{:04}-{provider}", push.sequence));
            let headers = serde_json::Value::Object(push.headers).to_string();
            fs::write(name.with_extension("body"), &push.body)
                .and_then(|()| fs::write(name.with_extension("headers"), headers))
                .map_err(|error| DemoError::failed(name.display(), error))?;
        }
        Ok(())
    }
}

fn start_server(
    name: &str,
    program: &Path,
    config: &Path,
    processes: &Processes,
    logs: &Path,
) -> Result<Process, DemoError> {
    let mut command = Command::new(program);
    command.arg("--config").arg(config);
    processes.start(name, command, logs, Output::Logged)
}

fn await_server(process: Process) -> Result<Server, DemoError> {
    #[derive(Deserialize)]
    struct Ready {
        listening: String,
    }
    let ready: Ready = parse("a server", &process.first_line()?)?;
    Ok(Server { process, url: format!("http://{}", ready.listening) })
}

fn parse<T: serde::de::DeserializeOwned>(who: &str, line: &str) -> Result<T, DemoError> {
    let unexpected = |error| DemoError::failed(format!("{who} said something unexpected"), error);
    serde_json::from_str(line).map_err(unexpected)
}

/// Prints the store of a server that has ended into a file.
fn dump(site: &Site, name: &str, program: &Path, config: &Path) -> Result<(), DemoError> {
    let failed = |error: &dyn std::fmt::Display| DemoError::failed(format!("the store of the {name}"), error);
    let out = File::create(site.dumps().join(format!("{name}.ndjson"))).map_err(|error| failed(&error))?;
    let log = File::create(site.logs().join(format!("{name}-dump.log"))).map_err(|error| failed(&error))?;
    let mut command = Command::new(program);
    command.arg("dump").arg("--config").arg(config).stdin(Stdio::null()).stdout(out).stderr(log);
    let status = command.status().map_err(|error| failed(&error))?;
    if status.success() { Ok(()) } else { Err(failed(&format!("cannot be printed: {status}"))) }
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
        PhoneEvent::Claimed { .. } | PhoneEvent::Enrolled { .. } => {}
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
        PhoneEvent::Failed { error } => {
            timeline.add(SystemClock.now_millis(), name, format!("FAILED: {error}"));
        }
    }
}
