//! Messages that open.

use std::collections::BTreeMap;

use sealpost_seal::{Envelope, seal};
use sealpost_wire::certificate::Purpose;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::context::MessageContext;
use sealpost_wire::id::{Digest, NotificationId};
use sealpost_wire::message::Suite;
use sealpost_wire::payload::{
    Attachment, DirectoryHead, Frame, Notification, Part, Priority, QuickReply, Sensitivity, Text,
};
use sealpost_wire::prekey::PrekeyKind;

use crate::sealed::{Case, message_json, phone_key, suite_name};
use crate::world::{self, DAY, Device, Dice, NOW};

pub(crate) fn cases() -> Vec<Case> {
    [Suite::Hybrid, Suite::Classical].into_iter().flat_map(cases_of).collect()
}

/// A notification in one language, made a minute ago.
pub(crate) fn notification(name: &str) -> Notification {
    let text = Text {
        title: "Your result is here".to_owned(),
        body: "Dr. Adler has released your blood count. Nothing in it needs you to act.".to_owned(),
    };
    Notification {
        id: NotificationId(world::id(&format!("notification {name}"))),
        revision: 1,
        created: NOW.minus(60),
        priority: Priority::Normal,
        category: "lab-result".to_owned(),
        sensitivity: Sensitivity::Private,
        texts: BTreeMap::from([("en".to_owned(), text)]),
        parts: Vec::new(),
        replies: Vec::new(),
        attachments: Vec::new(),
        head: None,
    }
}

fn cases_of(suite: Suite) -> Vec<Case> {
    let phone = world::phone();
    let case = |name: &str, what: &'static str, notification: Notification| {
        opens(&phone, suite, name, what, notification, phone.context(name), NOW)
    };
    let mut cases = vec![
        case("one language", "as little as a notification has", notification("plain")),
        case("all fields", "every field that a notification can have", all_fields()),
        case(
            "a FHIR part",
            "padded to 3584 bytes",
            Notification {
                parts: vec![Part {
                    media_type: "application/fhir+json".to_owned(),
                    bytes: format!("{{\"resourceType\":\"Observation\",\"note\":\"{}\"}}", "x".repeat(2600))
                        .into(),
                }],
                ..notification("part")
            },
        ),
        case("no padding", "the signed message has 1020 bytes: not one zero follows it", filling(&phone)),
        case(
            "made a little ahead",
            "made 300 s after the opener's time, as far as clocks may differ",
            Notification { created: NOW.plus(300), ..notification("ahead") },
        ),
        case(
            "critical, unrestricted, corrected",
            "the other values of priority, sensitivity and revision",
            Notification {
                priority: Priority::Critical,
                sensitivity: Sensitivity::Normal,
                revision: u64::MAX,
                ..notification("critical")
            },
        ),
    ];
    let mut late = case("at the end", "opened 300 s after the expiry, the last moment", notification("late"));
    late.now = late.context.expires_at.plus(300);
    cases.push(late);

    let name = "thirty days";
    let mut context = phone.context(name);
    context.expires_at = NOW.minus(60).plus(30 * DAY);
    cases.push(opens(
        &phone,
        suite,
        name,
        "expires 30 days after it was made",
        notification(name),
        context,
        NOW,
    ));

    let name = "others revoked";
    let mut others =
        case(name, "the tenant has revoked another sender and another device", notification(name));
    others.trust = "others revoked";
    cases.push(others);

    let name = "a one-time prekey";
    let mut once =
        opens_with(&phone, suite, PrekeyKind::OneTime, name, notification(name), phone.context(name));
    once.what = "sealed to the one-time prekey";
    once.key = match suite {
        Suite::Hybrid => "phone hybrid one-time",
        Suite::Classical => "phone classical one-time",
    };
    cases.push(once);
    cases
}

fn opens(
    device: &Device,
    suite: Suite,
    name: &str,
    what: &'static str,
    notification: Notification,
    context: MessageContext,
    now: UnixTime,
) -> Case {
    let case = opens_with(device, suite, PrekeyKind::Signed, name, notification, context);
    Case { what, now, ..case }
}

fn opens_with(
    device: &Device,
    suite: Suite,
    kind: PrekeyKind,
    name: &str,
    notification: Notification,
    context: MessageContext,
) -> Case {
    let name = format!("{}/{name}", suite_name(suite));
    let envelope = Envelope {
        tenant: context.tenant.clone(),
        transport_id: context.transport_id,
        expires_at: context.expires_at,
    };
    // The classical suite for a device that lists both takes the policy that allows it.
    let prekey = device.verified(suite, kind);
    let sender = world::sender(suite);
    let sealed = seal(&notification, &envelope, &prekey, &sender, NOW, &mut Dice::new(&name)).unwrap();
    Case {
        name,
        what: "",
        sealed: sealed.bytes,
        context,
        key: phone_key(suite),
        trust: "st-mary",
        now: NOW,
        outcome: Ok(message_json("lab", &Frame::Notification(Box::new(notification)))),
    }
}

fn all_fields() -> Notification {
    let text = |title: &str, body: &str| Text { title: title.to_owned(), body: body.to_owned() };
    let labels = |en: &str, de: &str| {
        BTreeMap::from([("en".to_owned(), en.to_owned()), ("de-CH".to_owned(), de.to_owned())])
    };
    Notification {
        priority: Priority::Bulk,
        sensitivity: Sensitivity::Restricted,
        revision: 2,
        // In the encoding, shorter tags come first.
        texts: BTreeMap::from([
            ("en".to_owned(), text("Appointment moved", "Thursday at 10:30 in room 4.")),
            ("de-CH".to_owned(), text("Termin verschoben", "Donnerstag um 10.30 Uhr, Zimmer 4.")),
            ("tr".to_owned(), text("Randevu değişti", "Perşembe 10.30, oda 4.")),
        ]),
        parts: vec![
            Part { media_type: "application/fhir+json".to_owned(), bytes: b"{}".to_vec() },
            Part { media_type: "text/calendar".to_owned(), bytes: Vec::new() },
        ],
        replies: vec![
            QuickReply { code: "yes".to_owned(), labels: labels("I will come", "Ich komme") },
            QuickReply { code: "call-me".to_owned(), labels: labels("Call me", "Rufen Sie mich an") },
        ],
        attachments: vec![Attachment {
            id: world::id("attachment"),
            size: 4_294_967_296,
            digest: Digest(world::seed("attachment digest")),
            key: world::seed("attachment key"),
        }],
        head: Some(DirectoryHead { epoch: 70_000, root: Digest(world::seed("directory root")) }),
        ..notification("all fields")
    }
}

/// A notification whose signed message has exactly 1020 bytes.
fn filling(device: &Device) -> Notification {
    let mut notification = notification("filling");
    let context = device.context("filling");
    let certificate = world::signed_certificate("st-mary", Purpose::Send, "lab");
    for length in 1.. {
        notification.texts.get_mut("en").unwrap().body = "x".repeat(length);
        if notification.sign(&context, &world::key("lab"), &certificate).unwrap().len() == 1020 {
            break;
        }
    }
    notification
}
