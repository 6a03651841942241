//! The phones, as the demo sees them from outside: it starts them, reads their screens, and holds their inputs.

use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use rand_core::Rng as _;
use sealpost_wire::id::RecipientId;

use crate::clock::system_rng;
use crate::emulators::Provider;
use crate::error::DemoError;
use crate::hospital::Hospital;
use crate::phone::{PhoneEvent, PhoneOrder};
use crate::process::{Output, Process, Processes};
use crate::screen::say;
use crate::site::{ANDROID_APP, IOS_APP, Site};

/// How long the phones may take to enrol.
const ENROLMENT_DEADLINE: Duration = Duration::from_secs(30);
/// Bytes of an APNs device token.
const APNS_TOKEN_BYTES: usize = 32;
/// Random bytes of an FCM registration token.
const FCM_TOKEN_BYTES: usize = 105;

/// What kind of phone it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Model {
    /// What the timeline calls it; in lower case, the name of its folder and log.
    pub(crate) name: &'static str,
    /// The app on it.
    app: &'static str,
    /// Whether its request key is on P-256, as a secure element has it.
    p256: bool,
    /// Whose pushes it gets.
    pub(crate) provider: Provider,
    /// Whether it can be invited into groups.
    groups: bool,
}

/// The phones of the patient who gets a result.
pub(crate) const MODELS: [Model; 2] = [
    Model { name: "iPhone", app: IOS_APP, p256: true, provider: Provider::Apns, groups: false },
    Model { name: "Android", app: ANDROID_APP, p256: false, provider: Provider::Fcm, groups: false },
];

/// The phones of a care team.
pub(crate) const TEAM: [Model; 3] = [
    Model { name: "patient", app: IOS_APP, p256: true, provider: Provider::Apns, groups: true },
    Model { name: "nurse", app: ANDROID_APP, p256: false, provider: Provider::Fcm, groups: true },
    Model { name: "doctor", app: IOS_APP, p256: true, provider: Provider::Apns, groups: true },
];

/// The phones at work.
pub(crate) struct Pocket {
    models: &'static [Model],
    phones: Vec<Phone>,
    screens: Receiver<(usize, Option<PhoneEvent>)>,
    sender: Sender<(usize, Option<PhoneEvent>)>,
    /// Everything that happened, by phone.
    events: Vec<(usize, PhoneEvent)>,
}

struct Phone {
    process: Process,
    token: String,
}

impl Pocket {
    /// No phone yet; they will be these.
    pub(crate) fn new(models: &'static [Model]) -> Self {
        let (sender, screens) = channel();
        Self { models, phones: Vec::new(), screens, sender, events: Vec::new() }
    }

    /// Starts the phones, each with a ticket of its recipient, and lets them in once their codes were compared.
    pub(crate) fn enrol(
        &mut self,
        hospital: &Hospital,
        recipients: &[RecipientId],
        processes: &Processes,
        site: &Site,
        control_url: &str,
    ) -> Result<Vec<String>, DemoError> {
        let until = Instant::now() + ENROLMENT_DEADLINE;
        let mut tickets = Vec::new();
        for recipient in recipients {
            let (ticket, link) = hospital.new_ticket(*recipient)?;
            self.add(processes, site, control_url, &link)?;
            tickets.push(ticket);
        }
        for (phone, ticket) in tickets.iter().enumerate() {
            let code = self.await_code(phone, until)?;
            let claim = hospital.await_claim(ticket)?;
            if claim.code != code {
                return Err(DemoError::Failed("phone and portal show different codes".to_owned()));
            }
            hospital.countersign(ticket, &code)?;
        }
        let mut devices = Vec::new();
        for phone in 0..tickets.len() {
            let device = self.await_enrolled(phone, until)?;
            let name = self.name(phone);
            say(&format!("Enrolled   {name}, device {device}; codes on phone and portal were compared"));
            devices.push(device);
        }
        Ok(devices)
    }

    /// What the timeline calls a phone.
    pub(crate) fn name(&self, phone: usize) -> &'static str {
        self.models[phone].name
    }

    /// Starts the next phone, and hands it its enrolment link.
    fn add(
        &mut self,
        processes: &Processes,
        site: &Site,
        control_url: &str,
        link: &str,
    ) -> Result<(), DemoError> {
        let index = self.phones.len();
        let model = self.models[index];
        let own =
            std::env::current_exe().map_err(|error| DemoError::failed("cannot start a phone", error))?;
        let token = push_token(model.provider);
        let name = model.name.to_lowercase();
        let mut command = Command::new(own);
        command.arg("phone").arg("--folder").arg(site.devices().join(&name));
        // A token may begin with a hyphen.
        command.args(["--app", model.app, &format!("--push-token={token}"), "--control", control_url]);
        if model.p256 {
            command.arg("--p256");
        }
        if model.groups {
            command.arg("--groups");
        }
        let mut process = processes.start(&name, command, &site.logs(), Output::Private)?;
        // By its input, not its arguments: those can be seen by every process of the machine.
        process.tell(link)?;
        let (lines, sender) = (process.take_lines(), self.sender.clone());
        std::thread::spawn(move || {
            for line in lines.into_iter().flatten() {
                if let Ok(event) = serde_json::from_str(&line) {
                    let _ = sender.send((index, Some(event)));
                }
            }
            let _ = sender.send((index, None));
        });
        self.phones.push(Phone { process, token });
        Ok(())
    }

    /// Has the person at a phone do something on it.
    pub(crate) fn tell(&mut self, phone: usize, order: &PhoneOrder) -> Result<(), DemoError> {
        let line = serde_json::to_string(order);
        let line = line.map_err(|error| DemoError::failed("an order has no JSON form", error))?;
        self.phones[phone].process.tell(&line)
    }

    /// The code that a phone shows once it has claimed its ticket.
    fn await_code(&mut self, phone: usize, until: Instant) -> Result<String, DemoError> {
        self.await_event(phone, until, "claim its ticket", |event| match event {
            PhoneEvent::Claimed { code } => Some(code.clone()),
            _ => None,
        })
    }

    /// The id of a phone once it is enrolled.
    fn await_enrolled(&mut self, phone: usize, until: Instant) -> Result<String, DemoError> {
        self.await_event(phone, until, "enrol", |event| match event {
            PhoneEvent::Enrolled { device } => Some(device.clone()),
            _ => None,
        })
    }

    /// Waits until every phone has opened so many messages, or until `until`.
    pub(crate) fn await_opened(&mut self, messages: usize, until: Instant) {
        while !(0..self.phones.len()).all(|phone| self.has_opened(phone, messages)) {
            if !self.take_event(until) {
                return;
            }
        }
    }

    /// What happened so far, by phone.
    pub(crate) fn events(&self) -> &[(usize, PhoneEvent)] {
        &self.events
    }

    /// The next thing that happens, if it is before `until`.
    pub(crate) fn next_event(&mut self, until: Instant) -> Option<(usize, PhoneEvent)> {
        let known = self.events.len();
        while self.take_event(until) {
            if let Some(event) = self.events.get(known) {
                return Some(event.clone());
            }
        }
        None
    }

    /// Which phone has this push token.
    pub(crate) fn of_token(&self, token: &str) -> Option<usize> {
        self.phones.iter().position(|phone| phone.token == token)
    }

    /// Ends the phones.
    pub(crate) fn put_away(&mut self) -> Result<(), DemoError> {
        for phone in &mut self.phones {
            phone.process.end_of_input();
        }
        self.phones.iter().try_for_each(|phone| phone.process.await_end())
    }

    fn has_opened(&self, phone: usize, messages: usize) -> bool {
        let mut opened: Vec<&str> = Vec::new();
        for (owner, event) in &self.events {
            match event {
                PhoneEvent::Opened { message, .. }
                    if *owner == phone && !opened.contains(&message.as_str()) =>
                {
                    opened.push(message);
                }
                _ => {}
            }
        }
        opened.len() >= messages
    }

    /// Waits for something to happen on a phone, whether or not it has already.
    ///
    /// # Errors
    /// It does not by then, or a phone gives up meanwhile.
    pub(crate) fn await_event<T>(
        &mut self,
        phone: usize,
        until: Instant,
        what: &str,
        find: impl Fn(&PhoneEvent) -> Option<T>,
    ) -> Result<T, DemoError> {
        let mut looked_at = 0;
        loop {
            for (owner, event) in &self.events[looked_at..] {
                let name = self.models[*owner].name;
                match event {
                    // One that cannot go on ends the demo, whichever is looked at.
                    PhoneEvent::Failed { error } => {
                        return Err(DemoError::failed(format!("the {name} gave up"), error));
                    }
                    event if *owner == phone => {
                        if let Some(found) = find(event) {
                            return Ok(found);
                        }
                    }
                    _ => {}
                }
            }
            looked_at = self.events.len();
            if !self.take_event(until) {
                let what = format!("the {} did not {what}", self.models[phone].name);
                let words = self.phones.iter().map(|phone| phone.process.last_words()).collect::<Vec<_>>();
                return Err(DemoError::failed(what, words.join("; ")));
            }
        }
    }

    /// Takes what happens next. Says no when nothing does until `until`, or a phone has ended.
    fn take_event(&mut self, until: Instant) -> bool {
        match self.screens.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok((phone, Some(event))) => {
                self.events.push((phone, event));
                true
            }
            Ok((_, None)) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => false,
        }
    }
}

/// A token as the provider would give it.
fn push_token(provider: Provider) -> String {
    let mut rng = system_rng();
    match provider {
        Provider::Apns => {
            let mut bytes = [0; APNS_TOKEN_BYTES];
            rng.fill_bytes(&mut bytes);
            HEXLOWER.encode(&bytes)
        }
        Provider::Fcm => {
            let mut bytes = [0; FCM_TOKEN_BYTES];
            rng.fill_bytes(&mut bytes);
            let token = BASE64URL_NOPAD.encode(&bytes);
            let (instance, rest) = token.split_at(22);
            format!("{instance}:APA91b{rest}")
        }
    }
}
