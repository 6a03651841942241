//! The vectors of sealed messages: `tests/vectors/sealed.json`.

use data_encoding::HEXLOWER;
use sealpost_open::PrekeyPrivate;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::context::MessageContext;
use sealpost_wire::message::Suite;
use sealpost_wire::payload::{Frame, MlsFrame, Notification};
use sealpost_wire::prekey::PrekeyKind;
use sealpost_wire::status::Revocation;
use serde_json::{Map, Value, json};

use crate::world::{self, NOW};
use crate::{look_ups, mls_frames, negative, payloads, positive};

/// One sealed message and what an opener says to it.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// What was done.
    pub(crate) what: &'static str,
    pub(crate) sealed: Vec<u8>,
    pub(crate) context: MessageContext,
    pub(crate) key: &'static str,
    pub(crate) trust: &'static str,
    pub(crate) now: UnixTime,
    /// The message as JSON, or the code.
    pub(crate) outcome: Result<Value, &'static str>,
}

pub(crate) fn vectors() -> Value {
    let mut cases = positive::cases();
    cases.extend(negative::cases());
    cases.extend(payloads::cases());
    cases.extend(mls_frames::cases());
    json!({
        "keys": keys(),
        "trusts": trusts(),
        "open": cases.iter().map(case_json).collect::<Vec<_>>(),
        "replay": replays(),
        "look_up": look_ups::cases(),
    })
}

pub(crate) fn suite_name(suite: Suite) -> &'static str {
    match suite {
        Suite::Hybrid => "hybrid",
        Suite::Classical => "classical",
    }
}

/// The name of the phone's signed prekey.
pub(crate) fn phone_key(suite: Suite) -> &'static str {
    match suite {
        Suite::Hybrid => "phone hybrid",
        Suite::Classical => "phone classical",
    }
}

pub(crate) fn hex(bytes: impl AsRef<[u8]>) -> String {
    HEXLOWER.encode(bytes.as_ref())
}

fn keys() -> Value {
    let (phone, tablet) = (world::phone(), world::tablet());
    let mut keys = Map::new();
    for (device, key, suite, kind) in [
        (&phone, "phone hybrid", Suite::Hybrid, PrekeyKind::Signed),
        (&phone, "phone hybrid one-time", Suite::Hybrid, PrekeyKind::OneTime),
        (&phone, "phone classical", Suite::Classical, PrekeyKind::Signed),
        (&phone, "phone classical one-time", Suite::Classical, PrekeyKind::OneTime),
        (&tablet, "tablet hybrid", Suite::Hybrid, PrekeyKind::Signed),
        (&tablet, "tablet classical", Suite::Classical, PrekeyKind::Signed),
    ] {
        let private: &PrekeyPrivate = device.private(suite, kind);
        let value = json!({
            "suite": suite_name(suite),
            "seed": hex(private.expose_seed()),
            "public": hex(private.public_key()),
            "prekey_id": private.id().to_string(),
        });
        keys.insert(key.to_owned(), value);
    }
    keys.into()
}

fn trusts() -> Value {
    let (lab, other, enroller) = (world::key("lab"), world::key("cafeteria"), world::key("portal"));
    let tablet = world::tablet().id;
    let mut trusts = Map::new();
    for (name, tenant, status) in [
        ("st-mary", "st-mary", None),
        ("st-john", "st-john", None),
        (
            "others revoked",
            "st-mary",
            Some(world::status(7, &[(&other, Revocation::Compromised)], &[tablet])),
        ),
        ("sender compromised", "st-mary", Some(world::status(8, &[(&lab, Revocation::Compromised)], &[]))),
        ("sender retired", "st-mary", Some(world::status(8, &[(&lab, Revocation::Retired)], &[]))),
        (
            "enroller compromised",
            "st-mary",
            Some(world::status(9, &[(&enroller, Revocation::Compromised)], &[])),
        ),
        ("enroller retired", "st-mary", Some(world::status(9, &[(&enroller, Revocation::Retired)], &[]))),
    ] {
        let value = json!({
            "tenant": tenant,
            "roots": [hex(world::root(tenant).verifying_key().as_bytes())],
            "status": status.map(|status| hex(world::signed_status(&status))),
        });
        trusts.insert(name.to_owned(), value);
    }
    trusts.into()
}

pub(crate) fn context_json(context: &MessageContext) -> Value {
    json!({
        "tenant": context.tenant.as_str(),
        "transport_id": context.transport_id.to_string(),
        "device": context.device.to_string(),
        "identity": context.identity.to_string(),
        "expires_at": context.expires_at.0,
    })
}

fn case_json(case: &Case) -> Value {
    let (code, message) = match &case.outcome {
        Ok(message) => (Value::Null, message.clone()),
        Err(code) => (json!(code), Value::Null),
    };
    // A huge message is one byte again and again.
    let sealed = match case.sealed.first() {
        Some(first) if case.sealed.len() > 10_000 && case.sealed.iter().all(|byte| byte == first) => {
            json!({ "byte": hex([*first]), "times": case.sealed.len() })
        }
        _ => json!(hex(&case.sealed)),
    };
    json!({
        "name": case.name,
        "what": case.what,
        "sealed": sealed,
        "context": context_json(&case.context),
        "key": case.key,
        "trust": case.trust,
        "now": case.now.0,
        "code": code,
        "message": message,
    })
}

/// What `author` says, as JSON; bytes in hexadecimal.
pub(crate) fn message_json(author: &str, frame: &Frame) -> Value {
    match frame {
        Frame::Notification(notification) => notification_json(author, notification),
        Frame::Mls(frame) => mls_json(author, frame),
    }
}

fn mls_json(author: &str, frame: &MlsFrame) -> Value {
    json!({
        "author": author,
        "created": frame.created.0,
        "kind": frame.kind.code(),
        "group": frame.group.to_string(),
        "body": hex(&frame.body),
        "sets": frame.sets.iter().map(hex).collect::<Vec<_>>(),
    })
}

fn notification_json(author: &str, notification: &Notification) -> Value {
    let parts = notification.parts.iter().map(|part| json!([part.media_type, hex(&part.bytes)]));
    let replies =
        notification.replies.iter().map(|reply| json!({ "code": reply.code, "labels": reply.labels }));
    let attachments = notification.attachments.iter().map(|file| {
        json!({
            "id": hex(file.id),
            "size": file.size,
            "digest": file.digest.to_string(),
            "key": hex(file.key),
        })
    });
    json!({
        "author": author,
        "id": notification.id.to_string(),
        "revision": notification.revision,
        "created": notification.created.0,
        "priority": notification.priority.code(),
        "category": notification.category,
        "sensitivity": notification.sensitivity,
        "texts": notification.texts,
        "parts": parts.collect::<Vec<_>>(),
        "replies": replies.collect::<Vec<_>>(),
        "attachments": attachments.collect::<Vec<_>>(),
        "head": notification.head.map(|head| json!({ "epoch": head.epoch, "root": head.root.to_string() })),
    })
}

/// Openings one after the other by one device that remembers what it opened.
fn replays() -> Value {
    let end = NOW.plus(world::DAY + 300);
    json!([
        {
            "name": "the same box again",
            "what": "a box that was opened is handed out again",
            "steps": [
                { "open": "hybrid/one language", "now": NOW.0, "code": null },
                { "open": "hybrid/one language", "now": NOW.0 + 1, "code": "replayed" },
                { "open": "hybrid/all fields", "now": NOW.0 + 2, "code": null },
            ],
        },
        {
            "name": "the same message to another prekey",
            "what": "tenant, sender and transport id are those of an opened message; box and prekey are not",
            "steps": [
                { "open": "hybrid/one language", "now": NOW.0, "code": null },
                { "open": "classical/one language", "now": NOW.0, "code": "replayed" },
            ],
        },
        {
            "name": "an MLS frame again",
            "what": "a device's transport ids are its own: the laboratory's message under the same one is another",
            "steps": [
                { "open": "hybrid/MLS: message", "now": NOW.0, "code": null },
                { "open": "hybrid/MLS: message", "now": NOW.0 + 1, "code": "replayed" },
                { "open": "hybrid/MLS: under a sender's transport id", "now": NOW.0 + 2, "code": null },
                { "open": "hybrid/one language", "now": NOW.0 + 3, "code": null },
                { "open": "hybrid/MLS: under a sender's transport id", "now": NOW.0 + 4, "code": "replayed" },
            ],
        },
        {
            "name": "the same box when its time is over",
            "what": "it is remembered as long as it would open, and then it does not open",
            "steps": [
                { "open": "hybrid/one language", "now": NOW.0, "code": null },
                { "open": "hybrid/one language", "now": end.0, "code": "replayed" },
                { "open": "hybrid/one language", "now": end.0 + 1, "code": "expired" },
            ],
        },
        {
            "name": "the same box after the clock was set back",
            "what": "the device's clock never goes back, so what it forgot stays expired",
            "steps": [
                { "open": "hybrid/one language", "now": NOW.0, "code": null },
                { "open": "hybrid/one language", "now": end.0 + 1, "code": "expired" },
                { "open": "hybrid/one language", "now": NOW.0, "code": "expired" },
            ],
        },
    ])
}
