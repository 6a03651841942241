//! A phone: a process of its own that holds a device's keys. The demo starts two or three of them.
//!
//! It gets its enrolment link on standard input, and then what the person at it does, as lines of JSON; it tells what
//! happens on its screen as lines of JSON on standard output. Once it is enrolled it waits for pushes, as the operating
//! system would deliver them, and syncs when one has come. It has no timer. It ends when its standard input is closed.

use std::convert::Infallible;
use std::io::{self, BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use clap::Args;
use data_encoding::HEXLOWER;
use sealpost_device::{
    ContentKind, Device, DeviceError, DeviceParts, EnrolOptions, FilePlatform, GroupMessage, GroupReply,
    MessageId, NewMessage, RequestKeyKind, Standing, TakenBox,
};
use sealpost_wire::api::relay::PushRegistration;
use sealpost_wire::clock::Clock as _;
use sealpost_wire::payload::Priority;
use sealpost_wire::problem::ProblemCode;
use sealpost_wire::ticket::EnrolmentLink;
use serde::{Deserialize, Serialize};

use crate::clock::{SystemClock, system_clock, system_rng};
use crate::emulators::Control;

/// How long the keyserver is asked to wait for the hospital to let the device in.
const ADMISSION_WAIT: Duration = Duration::from_secs(30);

/// What a phone is told when it is started.
#[derive(Args, Debug)]
pub(crate) struct PhoneArguments {
    /// Where its state goes.
    #[arg(long)]
    folder: PathBuf,
    /// The app, by its name in the relay's configuration.
    #[arg(long)]
    app: String,
    /// The push token that Apple or Google gave the app.
    #[arg(long)]
    push_token: String,
    /// The emulators' control address, which stands for the delivery of pushes to the phone.
    #[arg(long)]
    control: String,
    /// Keep the request key on P-256, as a secure element would.
    #[arg(long)]
    p256: bool,
    /// Make key packages, so that it can be invited into groups.
    #[arg(long)]
    groups: bool,
}

/// What the person at a phone does.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub(crate) enum PhoneOrder {
    /// Write a text to the group.
    Write {
        /// The text.
        text: String,
    },
    /// Touch one of the answers that a message offers.
    Answer {
        /// The message, in hexadecimal.
        about: String,
        /// The answer's code.
        code: String,
    },
    /// Say that a message was seen and understood.
    Confirm {
        /// The message, in hexadecimal.
        about: String,
    },
    /// Open the app, which looks for messages.
    Look,
}

/// A group, as a phone sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupView {
    /// What the group is called.
    pub(crate) label: String,
    /// How often the group has changed.
    pub(crate) epoch: u64,
    /// What members that agree on epoch and state have in common.
    pub(crate) authenticator: String,
    /// Devices that are in.
    pub(crate) members: Vec<String>,
    /// Whether the phone is in.
    pub(crate) is_in: bool,
}

/// What happens on a phone. Times are milliseconds since 1970.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum PhoneEvent {
    /// It claimed its ticket and shows this code.
    Claimed {
        /// What the patient compares.
        code: String,
    },
    /// It was let in and has a mailbox at the relay.
    Enrolled {
        /// Its id.
        device: String,
    },
    /// A push came.
    Woken {
        /// When.
        at_ms: u64,
    },
    /// A message that was opened is on the screen.
    Opened {
        /// When.
        at_ms: u64,
        /// Its transport id.
        message: String,
        /// Who sent it, as their certificate says.
        sender: String,
        /// How urgent it is.
        priority: Priority,
        /// What the patient reads.
        title: String,
        /// What the patient reads.
        body: String,
        /// All data of the message for the app, as text.
        data: String,
    },
    /// A sync ended: what waited is opened, and the relay has the receipts.
    Synced {
        /// When.
        at_ms: u64,
        /// Receipts that were sent.
        receipts: usize,
    },
    /// It has come into a group, or the group has changed.
    Group {
        /// When.
        at_ms: u64,
        /// The group now.
        view: GroupView,
    },
    /// A message of the group is on the screen.
    Read {
        /// When.
        at_ms: u64,
        /// The device that wrote it.
        author: String,
        /// Its id, in hexadecimal.
        message: String,
        /// The message that it answers or confirms.
        about: Option<String>,
        /// What it says: the text, or the answer in words; nothing for a confirmation.
        text: String,
        /// The answers that it offers: code, and in words.
        offers: Vec<(String, String)>,
    },
    /// What the person wrote is on its way.
    Wrote {
        /// Its id, in hexadecimal.
        message: String,
        /// What the phone keeps of it.
        text: String,
    },
    /// The relay does not let the phone in.
    TurnedAway {
        /// When.
        at_ms: u64,
        /// The relay's code.
        code: String,
    },
    /// Something did not work; the next push is another chance.
    Failed {
        /// What.
        error: String,
    },
}

/// What a phone waits for.
enum Happening {
    /// A push came.
    Pushed,
    /// The person does something.
    Ordered(PhoneOrder),
    /// No pushes come any more, or an order cannot be read.
    Broken(String),
}

/// Runs a phone until its standard input is closed.
pub(crate) fn run(arguments: &PhoneArguments) -> ExitCode {
    match live(arguments) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("phone: {error}");
            tell(&PhoneEvent::Failed { error: error.to_string() });
            ExitCode::FAILURE
        }
    }
}

fn live(arguments: &PhoneArguments) -> Result<Infallible, Box<dyn std::error::Error>> {
    let mut link = String::new();
    io::stdin().lock().read_line(&mut link)?;
    let link: EnrolmentLink = link.parse()?;
    let (happens, happenings) = channel();
    let ordered = happens.clone();
    std::thread::spawn(move || take_orders(&ordered));

    let device = enrol(arguments, &link)?;
    tell(&PhoneEvent::Enrolled { device: device.id().to_string() });
    let (control, token) = (Control::new(&arguments.control), arguments.push_token.clone());
    std::thread::spawn(move || watch_pushes(&control, &token, &happens));
    let mut phone = Phone { device, view: None };
    loop {
        let done = match happenings.recv()? {
            Happening::Pushed => {
                tell(&PhoneEvent::Woken { at_ms: SystemClock.now_millis() });
                phone.sync()
            }
            Happening::Ordered(order) => phone.obey(order),
            Happening::Broken(error) => return Err(error.into()),
        };
        match done {
            Ok(()) => {}
            Err(error) if error.code() == ProblemCode::Revoked.code() => {
                let code = error.code().to_owned();
                tell(&PhoneEvent::TurnedAway { at_ms: SystemClock.now_millis(), code });
            }
            Err(error) => tell(&PhoneEvent::Failed { error: error.to_string() }),
        }
    }
}

/// Tells of every push that the provider delivered to `token`.
fn watch_pushes(control: &Control, token: &str, happens: &Sender<Happening>) {
    let mut last = 0;
    loop {
        let happened = match control.await_pushes(token, last) {
            Ok(pushes) => {
                let Some(newest) = pushes.last() else { continue };
                last = newest.sequence;
                if pushes.iter().all(|push| push.status != Some(200)) {
                    continue;
                }
                Happening::Pushed
            }
            Err(error) => Happening::Broken(error.to_string()),
        };
        let is_last = matches!(happened, Happening::Broken(_));
        if happens.send(happened).is_err() || is_last {
            return;
        }
    }
}

/// What a device in `folder` is built on.
pub(crate) fn device_parts(folder: &Path) -> Result<DeviceParts, DeviceError> {
    Ok(DeviceParts {
        platform: Arc::new(FilePlatform::new(&folder.join("keystore"))?),
        clock: system_clock(),
        rng: system_rng(),
        roots: sealpost_device::ServerRoots::public(),
    })
}

fn enrol(arguments: &PhoneArguments, link: &EnrolmentLink) -> Result<Device, DeviceError> {
    let parts = device_parts(&arguments.folder)?;
    let request_key = if arguments.p256 { RequestKeyKind::P256 } else { RequestKeyKind::Ed25519 };
    let options = EnrolOptions { request_key, ..EnrolOptions::default() };
    let mut device = Device::enrol(&arguments.folder.join("state"), link, &options, parts)?;
    if let Some(code) = device.code() {
        tell(&PhoneEvent::Claimed { code });
    }
    while !device.await_admission(ADMISSION_WAIT)? {}
    let push = PushRegistration { app: arguments.app.clone(), token: arguments.push_token.clone() };
    device.register(Some(push))?;
    if arguments.groups {
        device.maintain_prekeys()?;
    }
    Ok(device)
}

/// The phone in its owner's hand.
struct Phone {
    device: Device,
    /// Its group, as it was told last.
    view: Option<GroupView>,
}

impl Phone {
    fn obey(&mut self, order: PhoneOrder) -> Result<(), DeviceError> {
        let message = match order {
            PhoneOrder::Look => return self.sync(),
            PhoneOrder::Write { text } => NewMessage::Text { text, quick_replies: Vec::new() },
            PhoneOrder::Answer { about, code } => NewMessage::QuickReply { about: message_id(&about)?, code },
            PhoneOrder::Confirm { about } => NewMessage::Confirmation { about: message_id(&about)? },
        };
        let groups = self.device.groups()?;
        let group = groups.first().ok_or(DeviceError::UnknownMessage)?.group;
        let id = self.device.send_to_group(group, &message)?;
        let kept = self.device.group_messages(group)?;
        let kept = kept.into_iter().find(|one| one.content.id == id).ok_or(DeviceError::UnknownMessage)?;
        tell(&PhoneEvent::Wrote { message: id.to_string(), text: kept.content.text });
        Ok(())
    }

    fn sync(&mut self) -> Result<(), DeviceError> {
        let report = self.device.sync(Duration::ZERO)?;
        tell(&PhoneEvent::Synced { at_ms: SystemClock.now_millis(), receipts: report.receipts_sent });
        for message in self.device.present()? {
            let notification = message.notification;
            // The demo's patient reads the first language; an app would choose.
            let Some(text) = notification.texts.into_values().next() else { continue };
            let data = notification.parts.iter().map(|part| String::from_utf8_lossy(&part.bytes)).collect();
            tell(&PhoneEvent::Opened {
                at_ms: SystemClock.now_millis(),
                message: message.transport_id.to_string(),
                sender: message.sender.to_string(),
                priority: notification.priority,
                title: text.title,
                body: text.body,
                data,
            });
        }
        for message in self.device.present_group_messages()? {
            let known = self.device.group_messages(message.group)?;
            tell(&read(&message, &known));
        }
        self.tell_group()?;
        for taken in &report.boxes {
            if let TakenBox::Unopenable(id, reason) = taken {
                tell(&PhoneEvent::Failed { error: format!("message {id} cannot be opened: {reason}") });
            }
        }
        for (_, code) in &report.groups.refused {
            tell(&PhoneEvent::Failed { error: format!("a message to the group was given up: {code}") });
        }
        Ok(())
    }

    /// Tells of the phone's group, if it has one that has changed.
    fn tell_group(&mut self) -> Result<(), DeviceError> {
        let Some(state) = self.device.groups()?.into_iter().next() else { return Ok(()) };
        let members = self.device.group_members(state.group)?;
        let view = GroupView {
            label: state.label,
            epoch: state.epoch,
            authenticator: state.authenticator.to_string(),
            members: members.iter().map(|member| member.device.to_string()).collect(),
            is_in: state.standing == Standing::In,
        };
        if self.view.as_ref() != Some(&view) {
            tell(&PhoneEvent::Group { at_ms: SystemClock.now_millis(), view: view.clone() });
            self.view = Some(view);
        }
        Ok(())
    }
}

/// A message as a person reads it, among all of the conversation.
fn read(message: &GroupMessage, known: &[GroupMessage]) -> PhoneEvent {
    let content = &message.content;
    let asked = known.iter().find(|one| Some(one.content.id) == content.about);
    let offered = asked.map_or(&[][..], |asked| asked.content.quick_replies.as_slice());
    let text = match content.kind {
        ContentKind::QuickReply => {
            let reply = offered.iter().find(|reply| reply.code == content.text);
            reply.map_or_else(String::new, |reply| reply.label.clone())
        }
        ContentKind::Text | ContentKind::Confirmation => content.text.clone(),
    };
    PhoneEvent::Read {
        at_ms: SystemClock.now_millis(),
        author: message.author.to_string(),
        message: content.id.to_string(),
        about: content.about.map(|about| about.to_string()),
        text,
        offers: content
            .quick_replies
            .iter()
            .cloned()
            .map(|GroupReply { code, label }| (code, label))
            .collect(),
    }
}

/// The message's id in `text`, in hexadecimal.
pub(crate) fn message_id(text: &str) -> Result<MessageId, DeviceError> {
    let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.map(MessageId).ok_or(DeviceError::UnknownMessage)
}

/// Hands on what the person at the phone does. Whoever started the phone holds its standard input: when that is closed,
/// nobody watches any more.
fn take_orders(ordered: &Sender<Happening>) {
    let mut line = String::new();
    while io::stdin().lock().read_line(&mut line).is_ok_and(|read| read > 0) {
        let happened = match serde_json::from_str(&line) {
            Ok(order) => Happening::Ordered(order),
            Err(error) => Happening::Broken(format!("an order cannot be read: {error}")),
        };
        // It is taken once the phone is enrolled.
        let _ = ordered.send(happened);
        line.clear();
    }
    std::process::exit(0);
}

fn tell(event: &PhoneEvent) {
    // An event has strings and numbers only, which always have a JSON form.
    let Ok(mut line) = serde_json::to_string(event) else { return };
    line.push('\n');
    let mut out = io::stdout().lock();
    if out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_err() {
        // Nobody watches any more.
        std::process::exit(0);
    }
}
