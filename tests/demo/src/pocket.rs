//! The patient's phones, as the demo sees them from outside: it starts them, reads their screens, and holds their inputs.

use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Instant;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use rand_core::Rng as _;

use crate::clock::system_rng;
use crate::emulators::Provider;
use crate::error::DemoError;
use crate::phone::PhoneEvent;
use crate::process::{Output, Process, Processes};
use crate::site::{ANDROID_APP, IOS_APP, Site};

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
}

/// The patient's phones.
pub(crate) const MODELS: [Model; 2] = [
    Model { name: "iPhone", app: IOS_APP, p256: true, provider: Provider::Apns },
    Model { name: "Android", app: ANDROID_APP, p256: false, provider: Provider::Fcm },
];

/// The phones at work.
pub(crate) struct Pocket {
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
    /// No phone yet.
    pub(crate) fn new() -> Self {
        let (sender, screens) = channel();
        Self { phones: Vec::new(), screens, sender, events: Vec::new() }
    }

    /// Starts the next of [`MODELS`], and hands it its enrolment link.
    pub(crate) fn add(
        &mut self,
        processes: &Processes,
        site: &Site,
        control_url: &str,
        link: &str,
    ) -> Result<(), DemoError> {
        let index = self.phones.len();
        let model = MODELS[index];
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

    /// The code that a phone shows once it has claimed its ticket.
    pub(crate) fn await_code(&mut self, phone: usize, until: Instant) -> Result<String, DemoError> {
        self.await_event(phone, until, "claim its ticket", |event| match event {
            PhoneEvent::Claimed { code } => Some(code.clone()),
            _ => None,
        })
    }

    /// The id of a phone once it is enrolled.
    pub(crate) fn await_enrolled(&mut self, phone: usize, until: Instant) -> Result<String, DemoError> {
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

    fn await_event<T>(
        &mut self,
        phone: usize,
        until: Instant,
        what: &str,
        find: impl Fn(&PhoneEvent) -> Option<T>,
    ) -> Result<T, DemoError> {
        let mut looked_at = 0;
        loop {
            for (owner, event) in &self.events[looked_at..] {
                let name = MODELS[*owner].name;
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
                let what = format!("the {} did not {what}", MODELS[phone].name);
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
