//! `sealpost device`: a device for the terminal.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sealpost_device::{
    Answer, Device, DeviceError, DeviceParts, EnrolOptions, FilePlatform, InboxMessage, PrekeyReport,
    RequestKeyKind, ServerRoots, TakenBox,
};
use sealpost_wire::api::relay::PushRegistration;
use sealpost_wire::message::Suite;
use sealpost_wire::ticket::EnrolmentLink;
use serde_json::{Value, json};

use crate::arguments::{DeviceCommand, DeviceSubcommand, PushArguments, Suites};
use crate::edge::{self, SystemClock};
use crate::error::CliError;
use crate::group;
use crate::output::{Output, plain, utc};

/// Bytes of a link on standard input.
const LINK_BYTES_MAX: u64 = 4096;
/// Messages that `show` shows.
const SHOWN: usize = 20;
/// The longest that a server is asked to wait at a time.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Where a device's state is, and by which root certificates it believes its servers, if not the public ones.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) ca_file: Option<&'a Path>,
}

pub(crate) fn run(command: &DeviceCommand, ca_file: Option<&Path>, output: &Output) -> Result<(), CliError> {
    let place = Place { folder: &command.place.device, ca_file };
    match &command.command {
        DeviceSubcommand::Enrol { link, suite, p256, wait, push } => {
            let options = EnrolOptions {
                suites: match suite {
                    Suites::Hybrid => vec![Suite::Hybrid],
                    Suites::Classical => vec![Suite::Classical],
                    Suites::Both => vec![Suite::Hybrid, Suite::Classical],
                },
                request_key: if *p256 { RequestKeyKind::P256 } else { RequestKeyKind::Ed25519 },
            };
            enrol(place, &read_link(link)?, &options, *wait, push, output)
        }
        DeviceSubcommand::Register { push } => {
            let mut device = open(place)?;
            if !device.await_admission(Duration::ZERO)? {
                return Err(DeviceError::NotAdmitted.into());
            }
            let registered = device.register(registration(push))?;
            output.say(said_of_pushes(registered.push));
            output.result(&json!({"device": device.id(), "push": registered.push}));
            Ok(())
        }
        DeviceSubcommand::Show { all } => show(&open(place)?, *all, output),
        DeviceSubcommand::Sync { wait, extension } => sync(&mut open(place)?, *wait, *extension, output),
        DeviceSubcommand::Confirm { notification, decline } => {
            let mut device = open(place)?;
            let answer = if *decline { Answer::Decline } else { Answer::Confirm };
            device.answer(*notification, answer)?;
            let report = device.sync(Duration::ZERO).map_err(|error| CliError::Partly {
                code: error.code().to_owned(),
                message: format!("the answer is stored and goes out with the next sync: {error}"),
                temporary: error.is_temporary(),
                done: json!({"notification": notification, "stored": true}),
            })?;
            output.say(if *decline { "Declined." } else { "Confirmed." });
            output.result(&json!({"notification": notification, "receipts_sent": report.receipts_sent}));
            Ok(())
        }
        DeviceSubcommand::Status => status(&mut open(place)?, output),
    }
}

fn show(device: &Device, all: bool, output: &Output) -> Result<(), CliError> {
    let messages = device.messages()?;
    let count = if all { messages.len() } else { SHOWN };
    let newest = &messages[messages.len().saturating_sub(count)..];
    newest.iter().for_each(|message| say_message(message, output));
    match messages.len() - newest.len() {
        0 if newest.is_empty() => output.say("No messages."),
        0 => {}
        older => output.say(format_args!("{older} older ones: --all shows them.")),
    }
    output.result(&json!({"messages": newest.iter().map(message_json).collect::<Vec<_>>()}));
    Ok(())
}

/// What is known here, and what the keyserver adds to it if it can be reached.
fn status(device: &mut Device, output: &Output) -> Result<(), CliError> {
    let asked = device.await_admission(Duration::ZERO).and_then(|_| device.maintain_prekeys());
    output.say(format_args!("device     {} of {}", device.id(), device.tenant()));
    output.say(format_args!("keyserver  {}", device.keyserver()));
    output.say(format_args!("relay      {}", device.relay()));
    let word = if device.is_admitted() { "countersigned" } else { "waits to be countersigned" };
    output.say(format_args!("state      {word}"));
    if let Some(code) = device.code() {
        output.say(format_args!("code       {code}"));
    }
    let messages = device.messages()?;
    let new = messages.iter().filter(|message| !message.presented).count();
    output.say(format_args!("messages   {}, {new} of them new", messages.len()));
    let (prekeys, unknown) = match &asked {
        Ok(report) => (report.left.clone(), None),
        Err(error) => (Vec::new(), Some(error.code())),
    };
    for count in &prekeys {
        let until = count
            .signed_until
            .map_or_else(|| "no signed one".to_owned(), |time| format!("signed until {}", utc(time)));
        output.say(format_args!(
            "prekeys    {:?}: {} one-time at the keyserver, {until}",
            count.suite, count.one_time
        ));
    }
    if let Err(error) = &asked {
        output.say(format_args!("prekeys    not known: {error}"));
    }
    output.result(&json!({
        "device": device.id(), "tenant": device.tenant(), "admitted": device.is_admitted(), "code": device.code(),
        "messages": messages.len(), "new": new, "prekeys": prekeys, "keyserver_error": unknown,
    }));
    Ok(())
}

fn enrol(
    place: Place<'_>,
    link: &EnrolmentLink,
    options: &EnrolOptions,
    wait: Duration,
    push: &PushArguments,
    output: &Output,
) -> Result<(), CliError> {
    let mut device = Device::enrol(&place.folder.join("state"), link, options, parts(place)?)?;
    let code = device.code();
    output.say(format_args!("device  {}", device.id()));
    if let Some(code) = &code {
        output.say(format_args!("code    {code}"));
        output.say("Compare the code with the one in the hospital's portal.");
    }
    if wait > Duration::ZERO {
        output.meanwhile(&json!({"device": device.id(), "code": code}));
    }
    let admitted = std::cell::Cell::new(device.is_admitted());
    edge::until(
        wait,
        || Ok::<_, CliError>(admitted.get()),
        |left| {
            admitted.set(device.await_admission(left.min(WAIT_MAX))?);
            Ok(())
        },
    )?;
    if wait > Duration::ZERO && !admitted.get() {
        return Err(CliError::NotYet("the hospital has not countersigned the device yet".to_owned()));
    }
    let mut pushes = None;
    if admitted.get() {
        let registered = device.register(registration(push))?;
        output.say("The hospital has let the device in.");
        output.say(said_of_pushes(registered.push));
        pushes = Some(registered.push);
    }
    output.result(&json!({"device": device.id(), "code": code, "admitted": admitted.get(), "push": pushes}));
    Ok(())
}

fn sync(device: &mut Device, wait: Duration, extension: bool, output: &Output) -> Result<(), CliError> {
    if !device.is_admitted() && !device.await_admission(Duration::ZERO)? {
        return Err(DeviceError::NotAdmitted.into());
    }
    let report = device.sync(wait)?;
    // Messages are shown whether or not the keyserver can be reached.
    let refilled = if extension { Ok(PrekeyReport::default()) } else { device.maintain_prekeys() };
    if let Err(error) = &refilled {
        tracing::warn!(code = error.code(), "prekeys could not be refilled");
    }
    let shown = device.present()?;
    shown.iter().for_each(|message| say_message(message, output));
    let written = group::present(device, output)?;
    let mut boxes = Vec::new();
    for taken in &report.boxes {
        boxes.push(match taken {
            TakenBox::Opened(id) => json!({"outcome": "opened", "notification": id}),
            TakenBox::Group(group, event) => {
                json!({"outcome": "group", "group": group, "event": event.name()})
            }
            TakenBox::Superseded(id) => json!({"outcome": "superseded", "notification": id}),
            TakenBox::Duplicate(id) => json!({"outcome": "duplicate", "message": id}),
            TakenBox::Deferred(id) => {
                output.say(format_args!("{id} waits: this device's clock is behind"));
                json!({"outcome": "deferred", "message": id})
            }
            TakenBox::Unopenable(id, code) => {
                output.say(format_args!("{id} cannot be opened ({code}); the sender is told"));
                json!({"outcome": "unopenable", "message": id, "code": code})
            }
        });
    }
    if shown.is_empty() && written.is_empty() && boxes.is_empty() {
        output.say("Nothing new.");
    }
    group::say_report(&report.groups, output);
    output.result(&json!({
        "boxes": boxes, "shown": shown.iter().map(message_json).collect::<Vec<_>>(), "group_messages": written,
        "groups": group::report_json(&report.groups),
        "receipts_sent": report.receipts_sent, "prekeys_uploaded": refilled.as_ref().map_or(0, |done| done.uploaded),
        "prekeys_error": refilled.as_ref().err().map(|error| error.code()),
    }));
    Ok(())
}

pub(crate) fn open(place: Place<'_>) -> Result<Device, CliError> {
    let folder = place.folder;
    // Asked before anything is made: a mistyped folder stays away.
    if !folder.join("state").exists() {
        let message =
            format!("no device is enrolled in {}: see `sealpost device enrol --help`", folder.display());
        return Err(CliError::state("not_enrolled", message));
    }
    Ok(Device::open(&folder.join("state"), parts(place)?)?)
}

/// Keys beside the state, not in it: a copy of the state alone opens nothing.
fn parts(place: Place<'_>) -> Result<DeviceParts, CliError> {
    let platform = Arc::new(FilePlatform::new(&place.folder.join("keys"))?);
    let roots = match place.ca_file {
        Some(path) => {
            let roots = ServerRoots::from_pem(&edge::roots_pem(path)?);
            roots.map_err(|error| edge::no_roots(path, error))?
        }
        None => ServerRoots::public(),
    };
    Ok(DeviceParts { platform, clock: Arc::new(SystemClock), rng: edge::rng(), roots })
}

fn registration(push: &PushArguments) -> Option<PushRegistration> {
    let (app, token) = push.app.clone().zip(push.token.clone())?;
    Some(PushRegistration { app, token })
}

fn said_of_pushes(push: bool) -> &'static str {
    if push {
        "Pushes will be sent to it."
    } else {
        "Nothing will be pushed to it: run `sealpost device sync`."
    }
}

fn read_link(argument: &str) -> Result<EnrolmentLink, CliError> {
    let mut text = argument.to_owned();
    if argument == "-" {
        text.clear();
        let read = std::io::stdin().take(LINK_BYTES_MAX).read_to_string(&mut text);
        read.map_err(|error| CliError::File { path: "standard input".to_owned(), error })?;
    }
    // The link itself is not repeated: it holds a secret.
    text.parse().map_err(|_| CliError::state("malformed_link", "that is not the link of a ticket"))
}

fn say_message(message: &InboxMessage, output: &Output) {
    let notification = &message.notification;
    output.say(format_args!(
        "{}  {}  from {}  {}{}",
        notification.id,
        utc(message.received),
        message.sender,
        notification.priority.name(),
        if notification.revision > 1 { ", changed" } else { "" }
    ));
    if let Some(text) = notification.texts.get("en").or_else(|| notification.texts.values().next()) {
        output.say(format_args!("  {}", plain(&text.title)));
        text.body.lines().for_each(|line| output.say(format_args!("  {}", plain(line))));
    }
    for part in &notification.parts {
        output.say(format_args!("  [{}, {} bytes]", plain(&part.media_type), part.bytes.len()));
    }
}

fn message_json(message: &InboxMessage) -> Value {
    json!({
        "sender": message.sender, "message": message.transport_id, "received": message.received,
        "presented": message.presented, "notification": message.notification,
    })
}
