//! A phone: a process of its own that holds a device's keys. The demo starts two of them.
//!
//! It gets its enrolment link on standard input and tells what happens on its screen as lines of JSON on standard output.
//! Once it is enrolled it waits for pushes, as the operating system would deliver them, and syncs when one has come. It
//! has no timer. It ends when its standard input is closed.

use std::convert::Infallible;
use std::io::{self, BufRead as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use sealpost_device::{
    Device, DeviceError, DeviceParts, EnrolOptions, FilePlatform, RequestKeyKind, TakenBox,
};
use sealpost_wire::api::relay::PushRegistration;
use sealpost_wire::clock::Clock as _;
use sealpost_wire::payload::Priority;
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
    /// Something did not work; the next push is another chance.
    Failed {
        /// What.
        error: String,
    },
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
    std::thread::spawn(end_with_input);

    let mut device = enrol(arguments, &link)?;
    tell(&PhoneEvent::Enrolled { device: device.id().to_string() });
    let control = Control::new(&arguments.control);
    let mut last = 0;
    loop {
        let pushes = control.await_pushes(&arguments.push_token, last)?;
        let Some(newest) = pushes.last() else { continue };
        last = newest.sequence;
        if pushes.iter().any(|push| push.status == Some(200)) {
            tell(&PhoneEvent::Woken { at_ms: SystemClock.now_millis() });
            if let Err(error) = sync(&mut device) {
                tell(&PhoneEvent::Failed { error: error.to_string() });
            }
        }
    }
}

fn enrol(arguments: &PhoneArguments, link: &EnrolmentLink) -> Result<Device, DeviceError> {
    let platform = FilePlatform::new(&arguments.folder.join("keystore"))?;
    let parts = DeviceParts {
        platform: Arc::new(platform),
        clock: system_clock(),
        rng: system_rng(),
        roots: sealpost_device::ServerRoots::public(),
    };
    let request_key = if arguments.p256 { RequestKeyKind::P256 } else { RequestKeyKind::Ed25519 };
    let options = EnrolOptions { request_key, ..EnrolOptions::default() };
    let mut device = Device::enrol(&arguments.folder.join("state"), link, &options, parts)?;
    if let Some(code) = device.code() {
        tell(&PhoneEvent::Claimed { code });
    }
    while !device.await_admission(ADMISSION_WAIT)? {}
    let push = PushRegistration { app: arguments.app.clone(), token: arguments.push_token.clone() };
    device.register(Some(push))?;
    Ok(device)
}

fn sync(device: &mut Device) -> Result<(), DeviceError> {
    let report = device.sync(Duration::ZERO)?;
    tell(&PhoneEvent::Synced { at_ms: SystemClock.now_millis(), receipts: report.receipts_sent });
    for message in device.present()? {
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
    for taken in &report.boxes {
        if let TakenBox::Unopenable(id, reason) = taken {
            tell(&PhoneEvent::Failed { error: format!("message {id} cannot be opened: {reason}") });
        }
    }
    Ok(())
}

/// Whoever started the phone holds its standard input: when that is closed, nobody watches any more.
fn end_with_input() {
    let mut rest = String::new();
    while io::stdin().lock().read_line(&mut rest).is_ok_and(|read| read > 0) {
        rest.clear();
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
