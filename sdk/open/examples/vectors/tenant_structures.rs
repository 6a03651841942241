//! What a tenant's own keys sign about keys and devices: certificates, statuses, wipe orders.

use sealpost_wire::certificate::{Certificate, Purpose, Role};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{DeviceId, Digest, OrderId};
use sealpost_wire::key::RequestKey;
use sealpost_wire::order::WipeOrder;
use sealpost_wire::status::{Revocation, TenantStatus};
use serde_json::{Value, json};

use crate::forge::{Item, Pairs, Sign1, array, bytes, int, map, text};
use crate::sealed::hex;
use crate::structures::Structure;
use crate::world::{self, DAY, NOW};

pub(crate) fn structures() -> Vec<Value> {
    let mut structures = certificates();
    structures.extend(statuses());
    structures.extend(wipes());
    structures
}

/// A status that a party has seen.
pub(crate) fn seen() -> TenantStatus {
    world::status(41, &[(&world::key("cafeteria"), Revocation::Retired)], &[world::tablet().id])
}

pub(crate) fn enroller_out(reason: &str) -> TenantStatus {
    out("portal", reason)
}

pub(crate) fn sender_out(reason: &str) -> TenantStatus {
    out("lab", reason)
}

fn out(subject: &str, reason: &str) -> TenantStatus {
    let reason = if reason == "retired" { Revocation::Retired } else { Revocation::Compromised };
    world::status(42, &[(&world::key(subject), reason)], &[])
}

pub(crate) fn phone_out() -> TenantStatus {
    world::status(43, &[], &[world::phone().id])
}

fn certificates() -> Vec<Value> {
    let root = world::root("st-mary");
    let given = |bytes: &[u8], purpose: &str, time: UnixTime| {
        let bytes = hex(bytes);
        json!({ "bytes": bytes, "trust": "st-mary", "purpose": purpose, "time": time.0 })
    };
    let case = |name, what, bytes: &[u8], purpose: &str, time: UnixTime| {
        Structure::new("certificate", name, what, given(bytes, purpose, time))
    };
    let send = world::certificate("st-mary", Purpose::Send, "lab");
    let sent = send.sign(&root).unwrap();
    let request = Certificate {
        key: RequestKey::P256(world::p256("lab request").public()),
        roles: vec![Role::Sender, Role::Enroller, Role::Revoker],
        ..world::certificate("st-mary", Purpose::Request, "lab")
    };
    let read = |certificate: &Certificate, purpose: &str, roles: &[&str]| {
        json!({
            "tenant": "st-mary",
            "purpose": purpose,
            "subject": certificate.subject.as_str(),
            "id": certificate.id.to_string(),
            "key": key_json(&certificate.key),
            "key_id": certificate.key.key_id().to_string(),
            "not_before": certificate.not_before.0,
            "not_after": certificate.not_after.0,
            "roles": roles,
        })
    };
    let forged = |change: &dyn Fn(&mut Pairs)| {
        let mut fields = vec![
            (int(1), text("st-mary")),
            (int(2), int(1)),
            (int(3), text("lab")),
            (int(4), bytes(world::id("forged certificate"))),
            (int(5), array([int(-19), bytes(world::key("lab").verifying_key().as_bytes())])),
            (int(6), Item::Uint(NOW.0 - DAY)),
            (int(7), Item::Uint(NOW.0 + DAY)),
        ];
        change(&mut fields);
        Sign1::new(&root, "sealpost-certificate-v1+cose", None, &Item::Map(fields)).sign(&root)
    };
    let roles = |list: &[i64]| {
        let list = Item::Array(list.iter().map(|role| int(*role)).collect());
        forged(&move |fields| {
            fields[1].1 = int(2);
            fields.push((int(8), list.clone()));
        })
    };
    let mut nested = Sign1::new(&root, "sealpost-certificate-v1+cose", Some(b"x"), &map([]));
    nested.payload.clear();
    vec![
        case("send", "a sender's", &sent, "send", NOW).gives(read(&send, "send", &[])),
        case(
            "request",
            "a client's, on P-256, with every role",
            &request.sign(&root).unwrap(),
            "request",
            NOW,
        )
        .gives(read(&request, "request", &["sender", "enroller", "revoker"])),
        case("first second", "the second in which it begins", &sent, "send", send.not_before).gives(read(
            &send,
            "send",
            &[],
        )),
        case("last second", "the second in which it ends", &sent, "send", send.not_after).gives(read(
            &send,
            "send",
            &[],
        )),
        case("too early", "a second before it begins", &sent, "send", send.not_before.minus(1))
            .fails("certificate_not_yet_valid"),
        case("too late", "a second after it ends", &sent, "send", send.not_after.plus(1))
            .fails("certificate_expired"),
        case("another purpose", "a sender's certificate for enrolling", &sent, "enrol", NOW)
            .fails("wrong_purpose"),
        case(
            "purpose 5",
            "a purpose that does not exist",
            &forged(&|fields| fields[1].1 = int(5)),
            "send",
            NOW,
        )
        .fails("wrong_value"),
        case(
            "ends before it begins",
            "not_after is before not_before",
            &forged(&|fields| fields[6].1 = int(1)),
            "send",
            NOW,
        )
        .fails("wrong_value"),
        case(
            "roles for sending",
            "only request keys have roles",
            &forged(&|fields| fields.push((int(8), array([int(1)])))),
            "send",
            NOW,
        )
        .fails("wrong_value"),
        case("roles out of order", "roles 2, 1", &roles(&[2, 1]), "request", NOW).fails("wrong_value"),
        case("a role twice", "roles 1, 1", &roles(&[1, 1]), "request", NOW).fails("wrong_value"),
        case("an empty list of roles", "the list is there, and empty", &roles(&[]), "request", NOW)
            .fails("wrong_value"),
        case(
            "P-256 for sending",
            "only a request key may be P-256",
            &forged(&|fields| fields[4].1 = array([int(-9), bytes(world::p256("lab").public())])),
            "send",
            NOW,
        )
        .fails("unknown_algorithm"),
        case("a field more", "a field 9", &forged(&|fields| fields.push((int(9), int(0)))), "send", NOW)
            .fails("wrong_field"),
        case("a certificate in a certificate", "the header carries one", &nested.sign(&root), "send", NOW)
            .fails("wrong_field"),
        case(
            "by a stranger",
            "made by another root",
            &send.sign(&world::key("stranger")).unwrap(),
            "send",
            NOW,
        )
        .fails("unknown_root"),
    ]
}

pub(crate) fn key_json(key: &RequestKey) -> Value {
    let alg = match key {
        RequestKey::Ed25519(_) => -19,
        RequestKey::P256(_) => -9,
    };
    json!({ "alg": alg, "key": hex(key.as_bytes()) })
}

fn statuses() -> Vec<Value> {
    let case = |name, what, bytes: &[u8], trust: &str| {
        let given = json!({ "bytes": hex(bytes), "trust": trust, "now": NOW.0 });
        Structure::new("status", name, what, given)
    };
    let read = |status: &TenantStatus, changed: bool| {
        let keys = status.revoked_keys.iter().map(|(key, reason)| json!([key.to_string(), reason]));
        let devices = status.revoked_devices.iter().map(DeviceId::to_string);
        json!({
            "sequence": status.sequence,
            "issued": status.issued.0,
            "revoked_keys": keys.collect::<Vec<_>>(),
            "revoked_devices": devices.collect::<Vec<_>>(),
            "changed": changed,
        })
    };
    let signed = world::signed_status;
    let first = world::status(1, &[], &[]);
    let seen = seen();
    let with = |change: &dyn Fn(&mut TenantStatus)| {
        let mut status = seen.clone();
        change(&mut status);
        status
    };
    let full = with(&|status| {
        let keys = ["cafeteria", "lab", "pharmacy"];
        let mut keys: Vec<_> =
            keys.map(|name| (world::key(name).verifying_key().key_id(), Revocation::Compromised)).into();
        keys.sort_by_key(|(id, _)| *id);
        (status.sequence, status.revoked_keys) = (42, keys);
    });
    let reissued = with(&|status| status.issued = NOW);
    let mut unsorted = full.revoked_keys.clone();
    unsorted.reverse();
    let revoker = world::key("security");
    let certificate = world::signed_certificate("st-mary", Purpose::Revoke, "security");
    let forged = |list: Vec<Item>| {
        let payload = map([
            (1, text("st-mary")),
            (2, int(42)),
            (3, Item::Uint(NOW.0)),
            (4, Item::Array(list)),
            (5, Item::Array(Vec::new())),
        ]);
        Sign1::new(&revoker, "sealpost-status-v1+cose", Some(&certificate), &payload).sign(&revoker)
    };
    let entry = |id: &[u8], reason: i64| array([bytes(id), int(reason)]);
    let by_enroller =
        first.sign(&world::key("portal"), &world::signed_certificate("st-mary", Purpose::Enrol, "portal"));
    let without = {
        let mut signed = Sign1::new(&revoker, "sealpost-status-v1+cose", None, &map([]));
        signed.payload.clear();
        signed.sign(&revoker)
    };
    vec![
        case("first", "the first status, with nothing revoked", &signed(&first), "st-mary")
            .gives(read(&first, true)),
        case("next", "a higher sequence", &signed(&full), "seen").gives(read(&full, true)),
        case("the same again", "the status that was seen", &signed(&seen), "seen").gives(read(&seen, false)),
        case("reissued", "the same sequence, signed later", &signed(&reissued), "seen")
            .gives(read(&reissued, true)),
        case("rolled back", "a lower sequence", &signed(&with(&|s| s.sequence = 40)), "seen")
            .fails("rollback"),
        case(
            "rewritten",
            "the same sequence without the revoked device",
            &signed(&with(&|s| s.revoked_devices.clear())),
            "seen",
        )
        .fails("rollback"),
        case(
            "back in time",
            "a higher sequence, signed earlier",
            &signed(&with(&|s| {
                s.sequence = 42;
                s.issued = s.issued.minus(1);
            })),
            "seen",
        )
        .fails("rollback"),
        case(
            "from the future",
            "signed 301 s ahead",
            &signed(&with(&|s| s.issued = NOW.plus(301))),
            "st-mary",
        )
        .fails("certificate_not_yet_valid"),
        case(
            "another tenant's",
            "the payload names another tenant",
            &signed(&with(&|s| s.tenant = "st-john".parse().unwrap())),
            "st-mary",
        )
        .fails("wrong_tenant"),
        case("by an enrol key", "only revoke keys sign it", &by_enroller.unwrap(), "st-mary")
            .fails("wrong_purpose"),
        case(
            "keys out of order",
            "the revoked keys are not sorted",
            &forged(unsorted.iter().map(|(id, _)| entry(id.as_bytes(), 1)).collect()),
            "st-mary",
        )
        .fails("wrong_value"),
        case(
            "a key twice",
            "a revoked key stands twice",
            &forged(vec![entry(&[1; 16], 0), entry(&[1; 16], 1)]),
            "st-mary",
        )
        .fails("wrong_value"),
        case("reason 2", "a reason that does not exist", &forged(vec![entry(&[1; 16], 2)]), "st-mary")
            .fails("wrong_value"),
        case(
            "1001 keys",
            "one revoked key too many",
            &forged(
                (0..1001_u16)
                    .map(|n| {
                        let mut id = [0; 16];
                        id[..2].copy_from_slice(&n.to_be_bytes());
                        entry(&id, 0)
                    })
                    .collect(),
            ),
            "st-mary",
        )
        .fails("wrong_value"),
        case("no certificate", "the header carries none", &without, "st-mary").fails("wrong_field"),
    ]
}

fn wipes() -> Vec<Value> {
    let phone = world::phone();
    let order = WipeOrder {
        id: OrderId(world::id("wipe")),
        tenant: "st-mary".parse().unwrap(),
        device: phone.id,
        identity: phone.record.identity_key.digest(),
        issued: NOW,
    };
    let case = |name, what, bytes: Vec<u8>| {
        let given = json!({
            "bytes": hex(bytes),
            "trust": "st-mary",
            "device": phone.id.to_string(),
            "identity": order.identity.to_string(),
        });
        Structure::new("wipe", name, what, given)
    };
    let signed = |order: &WipeOrder| {
        let certificate = world::signed_certificate("st-mary", Purpose::Revoke, "security");
        order.sign(&world::key("security"), &certificate).unwrap()
    };
    let with = |change: &dyn Fn(&mut WipeOrder)| {
        let mut order = order.clone();
        change(&mut order);
        signed(&order)
    };
    let by_sender =
        order.sign(&world::key("lab"), &world::signed_certificate("st-mary", Purpose::Send, "lab")).unwrap();
    vec![
        case("a wipe", "signed by a revoke key", signed(&order))
            .gives(json!({ "id": order.id.to_string(), "issued": NOW.0 })),
        case("another device's", "for the tablet", with(&|order| order.device = world::tablet().id))
            .fails("wrong_device"),
        case(
            "an earlier enrolment's",
            "for another identity key of the device",
            with(&|order| order.identity = Digest([0; 32])),
        )
        .fails("wrong_device"),
        case(
            "another tenant's",
            "names another tenant",
            with(&|order| order.tenant = "st-john".parse().unwrap()),
        )
        .fails("wrong_tenant"),
        case("by a send key", "only revoke keys sign it", by_sender).fails("wrong_purpose"),
        case(
            "after the certificate's end",
            "signed when the certificate was over",
            with(&|order| order.issued = NOW.plus(200 * DAY)),
        )
        .fails("certificate_expired"),
    ]
}
