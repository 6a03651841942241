//! What stands in requests: device signatures, client assertions, submission digests.

use sealpost_wire::api::relay::{Submission, SubmittedBox};
use sealpost_wire::assertion;
use sealpost_wire::certificate::{Certificate, Purpose, Role};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::http_signature::{RequestParts, SignatureHeaders, sign};
use sealpost_wire::id::{DeviceId, SlotId};
use sealpost_wire::key::{RequestKey, RequestSigningKey, SignRequest};
use sealpost_wire::limits::SLOT_SEQUENCE_MAX;
use sealpost_wire::payload::Priority;
use sealpost_wire::slot::{SlotCapability, SlotClaim};
use serde_json::{Value, json};

use crate::structures::Structure;
use crate::tenant_structures::key_json;
use crate::world::{self, Dice, NOW};

pub(crate) fn structures() -> Vec<Value> {
    let mut structures = requests();
    structures.extend(assertions());
    structures.extend(submissions());
    structures
}

const SYNC: RequestParts<'static> = RequestParts {
    method: "POST",
    authority: "relay.example",
    path: "/v1/sync",
    query: None,
    body: br#"{"after":0}"#,
};

/// Says that it is an Ed25519 key, and signs with P-256.
struct Liar(RequestSigningKey);

impl SignRequest for Liar {
    fn request_key(&self) -> RequestKey {
        RequestKey::Ed25519(world::key("phone request").verifying_key())
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message)
    }
}

fn requests() -> Vec<Value> {
    let phone = DeviceId(world::id("phone"));
    let ed25519 = RequestSigningKey::Ed25519(world::key("phone request"));
    let p256 = RequestSigningKey::P256(world::p256("phone request"));
    let headers = |parts: &RequestParts<'_>, key: &dyn SignRequest| {
        sign(parts, &"st-mary".parse().unwrap(), phone, key, NOW, &mut Dice::new(parts.path))
    };
    let case =
        |name, what, parts: &RequestParts<'_>, headers: &SignatureHeaders, key: RequestKey, now: UnixTime| {
            let given = json!({
                "method": parts.method,
                "authority": parts.authority,
                "path": parts.path,
                "query": parts.query,
                "body": String::from_utf8(parts.body.to_vec()).unwrap(),
                "content_digest": headers.content_digest,
                "signature_input": headers.signature_input,
                "signature": headers.signature,
                "key": key_json(&key),
                "now": now.0,
            });
            Structure::new("request", name, what, given)
        };
    let read = json!({ "tenant": "st-mary", "device": phone.to_string(), "created": NOW.0 });
    let wait =
        RequestParts { method: "GET", path: "/v1/devices/x", query: Some("wait=30"), body: b"", ..SYNC };
    let public = ed25519.request_key();
    let good = headers(&SYNC, &ed25519);
    let with = |from: &str, to: &str| SignatureHeaders {
        signature_input: good.signature_input.replace(from, to),
        ..good.clone()
    };
    let moved = |name, what, parts: &RequestParts<'_>| case(name, what, parts, &good, public, NOW);
    vec![
        case("Ed25519", "a sync", &SYNC, &good, public, NOW).gives(read.clone()),
        case("P-256", "a sync", &SYNC, &headers(&SYNC, &p256), p256.request_key(), NOW).gives(read.clone()),
        case("with a query", "a GET without a body", &wait, &headers(&wait, &ed25519), public, NOW)
            .gives(read.clone()),
        case("a minute later", "60 s after it was signed", &SYNC, &good, public, NOW.plus(60))
            .gives(read.clone()),
        case("a minute earlier", "60 s before it was signed", &SYNC, &good, public, NOW.minus(60))
            .gives(read),
        case("too late", "61 s after it was signed", &SYNC, &good, public, NOW.plus(61)).fails("clock_skew"),
        case("too early", "61 s before it was signed", &SYNC, &good, public, NOW.minus(61))
            .fails("clock_skew"),
        moved("another method", "sent with PUT", &RequestParts { method: "PUT", ..SYNC })
            .fails("bad_signature"),
        moved(
            "another server",
            "sent to another authority",
            &RequestParts { authority: "other.example", ..SYNC },
        )
        .fails("bad_signature"),
        moved("another path", "sent to another path", &RequestParts { path: "/v1/other", ..SYNC })
            .fails("bad_signature"),
        moved("a query more", "sent with a query", &RequestParts { query: Some("a"), ..SYNC })
            .fails("bad_signature"),
        moved("another body", "the digest is the old one", &RequestParts { body: b"{}", ..SYNC })
            .fails("wrong_digest"),
        case(
            "another key",
            "signed by another device",
            &SYNC,
            &good,
            RequestKey::Ed25519(world::key("tablet request").verifying_key()),
            NOW,
        )
        .fails("bad_signature"),
        case(
            "a key of the other kind",
            "alg says ed25519, the key is P-256",
            &SYNC,
            &good,
            p256.request_key(),
            NOW,
        )
        .fails("bad_signature"),
        case(
            "an algorithm that is not the key's",
            "alg says ed25519; the signature is P-256, and so is the key",
            &SYNC,
            &headers(&SYNC, &Liar(p256.clone())),
            p256.request_key(),
            NOW,
        )
        .fails("bad_signature"),
        case("a component less", "the query is not covered", &SYNC, &with(" \"@query\"", ""), public, NOW)
            .fails("malformed_signature"),
        case("a parameter more", "an expiry", &SYNC, &with(";tag", ";expires=1;tag"), public, NOW)
            .fails("malformed_signature"),
        case("another tag", "for another protocol", &SYNC, &with("sealpost-device", "other"), public, NOW)
            .fails("malformed_signature"),
        case(
            "parameters in another order",
            "tag first",
            &SYNC,
            &with(";created=1800000000", ";tag=\"sealpost-device\";created=1800000000"),
            public,
            NOW,
        )
        .fails("malformed_signature"),
        case(
            "no digest",
            "another digest algorithm alone",
            &SYNC,
            &SignatureHeaders {
                content_digest: good.content_digest.replace("sha-256", "sha-512"),
                ..good.clone()
            },
            public,
            NOW,
        )
        .fails("malformed_signature"),
    ]
}

fn assertions() -> Vec<Value> {
    let audience = "https://relay.example/v1/token";
    let made = |name, what, key: RequestSigningKey| {
        let certificate = Certificate {
            key: key.request_key(),
            roles: vec![Role::Sender],
            ..world::certificate("st-mary", Purpose::Request, "lab")
        };
        let certificate = certificate.sign(&world::root("st-mary")).unwrap();
        let id = assertion::client_id(&"st-mary".parse().unwrap(), &"lab".parse().unwrap());
        let jwt = assertion::sign(&id, audience, &certificate, &key, NOW, &mut Dice::new("assertion"));
        let given = json!({ "jwt": jwt, "trust": "st-mary", "audience": audience, "now": NOW.0 });
        Structure::new("assertion", name, what, given)
            .gives(json!({ "client": "st-mary/lab", "roles": ["sender"], "exp": NOW.0 + 300 }))
    };
    vec![
        made("Ed25519", "signed with EdDSA", RequestSigningKey::Ed25519(world::key("lab request"))),
        made("P-256", "signed with ES256", RequestSigningKey::P256(world::p256("lab request"))),
    ]
}

fn submissions() -> Vec<Value> {
    let boxed = |name: &str| SubmittedBox {
        device: DeviceId(world::id(name)),
        sealed: format!("a box for the {name}").into_bytes().into(),
    };
    let claimed = |name, what, priority: Priority, boxes: Vec<SubmittedBox>, slot: Option<SlotClaim>| {
        let submission = Submission { expires_at: NOW, priority, boxes, slot };
        Structure::new("submission", name, what, json!({ "submission": submission }))
            .gives(json!({ "digest": submission.digest().to_string() }))
    };
    let digest = |name, what, priority, boxes| claimed(name, what, priority, boxes, None);
    let capability = |epoch: &str| SlotCapability::from_bytes(world::seed(&format!("capability {epoch}")));
    let first = SlotClaim {
        slot: SlotId(world::id("slot")),
        sequence: 7,
        capability: None,
        next: capability("of the second claim").digest(),
    };
    let second = SlotClaim {
        sequence: 8,
        capability: Some(capability("of the second claim")),
        next: capability("of the third claim").digest(),
        ..first.clone()
    };
    let last = SlotClaim { sequence: SLOT_SEQUENCE_MAX, ..second.clone() };
    let with = |name, what, claim| {
        claimed(name, what, Priority::Normal, vec![boxed("phone"), boxed("tablet")], Some(claim))
    };
    vec![
        digest("two boxes", "its digest", Priority::Critical, vec![boxed("phone"), boxed("tablet")]),
        digest(
            "in another order",
            "the same digest",
            Priority::Critical,
            vec![boxed("tablet"), boxed("phone")],
        ),
        digest("another priority", "another digest", Priority::Bulk, vec![boxed("phone"), boxed("tablet")]),
        with("a claim that makes a slot", "it shows no capability", first),
        with("a claim", "it shows the capability that the claim before asked for", second),
        with("the last claim", "the highest sequence number", last),
    ]
}
