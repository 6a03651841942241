//! What a tenant's own keys sign: certificates, statuses, wipe orders, admissions, device sets.

use sealpost_wire::admission::Admission;
use sealpost_wire::certificate::{Certificate, Purpose, Role};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::device_set::DeviceSetDraft;
use sealpost_wire::id::{DeviceId, Digest, OrderId, RecipientId};
use sealpost_wire::key::RequestKey;
use sealpost_wire::order::WipeOrder;
use sealpost_wire::status::{Revocation, TenantStatus};
use serde_json::{Value, json};

use crate::forge::{Item, Sign1, array, bytes, int, map, text};
use crate::sealed::hex;
use crate::structures::Structure;
use crate::world::{self, DAY, Device, NOW};

pub(crate) fn structures() -> Vec<Value> {
    let mut structures = certificates();
    structures.extend(statuses());
    structures.extend(wipes());
    structures.extend(admissions());
    structures.extend(device_sets());
    structures
}

/// A status that a party has seen.
pub(crate) fn seen() -> TenantStatus {
    world::status(41, &[(&world::key("cafeteria"), Revocation::Retired)], &[world::tablet().id])
}

pub(crate) fn enroller_out(reason: &str) -> TenantStatus {
    let reason = if reason == "retired" { Revocation::Retired } else { Revocation::Compromised };
    world::status(42, &[(&world::key("portal"), reason)], &[])
}

pub(crate) fn phone_out() -> TenantStatus {
    world::status(43, &[], &[world::phone().id])
}

fn certificates() -> Vec<Value> {
    let root = world::root("st-mary");
    let given = |bytes: &[u8], purpose: &str, time: UnixTime| json!({ "bytes": hex(bytes), "trust": "st-mary", "purpose": purpose, "time": time.0 });
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
    let forged = |change: &dyn Fn(&mut Vec<(Item, Item)>)| {
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

fn admissions() -> Vec<Value> {
    let phone = world::phone();
    let case = |name, what, bytes: &[u8], trust: &str| {
        Structure::new("admission", name, what, json!({ "bytes": hex(bytes), "trust": trust }))
    };
    let tenant = "st-mary".parse().unwrap();
    let enroller = world::key("portal");
    let certificate = world::signed_certificate("st-mary", Purpose::Enrol, "portal");
    let signed = |record: &[u8]| Admission::sign(&tenant, record, NOW, &enroller, &certificate);
    let admission = signed(&phone.record_bytes);
    let read = || {
        let identity_key = hex(phone.record.identity_key.as_bytes());
        json!({ "device": phone.id.to_string(), "issued": NOW.0, "identity_key": identity_key })
    };
    let mut flipped = phone.record_bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut elsewhere = phone.record.clone();
    elsewhere.tenant = "st-john".parse().unwrap();
    let other = world::signed_certificate("st-mary", Purpose::Revoke, "security");
    vec![
        case("an admission", "signed by an enrol key", &admission, "st-mary").gives(read()),
        case("by a retired key", "what a retired enrol key signed stays", &admission, "enroller retired")
            .gives(read()),
        case(
            "by a compromised key",
            "what a compromised enrol key signed counts no more",
            &admission,
            "enroller compromised",
        )
        .fails("key_revoked"),
        case("a revoked device", "the tenant has revoked the device", &admission, "phone revoked")
            .fails("device_revoked"),
        case("a forged record", "the record's signature is changed", &signed(&flipped), "st-mary")
            .fails("bad_signature"),
        case(
            "another tenant's record",
            "the device enrolled with another tenant",
            &signed(&elsewhere.sign(&phone.identity).unwrap()),
            "st-mary",
        )
        .fails("wrong_tenant"),
        case(
            "by a revoke key",
            "only enrol keys admit",
            &Admission::sign(&tenant, &phone.record_bytes, NOW, &world::key("security"), &other),
            "st-mary",
        )
        .fails("wrong_purpose"),
    ]
}

fn device_sets() -> Vec<Value> {
    let (phone, tablet, pager) = (world::phone(), world::tablet(), world::pager());
    let draft =
        |version: u64, previous: Option<&[u8]>, devices: &[&Device], revoked: &[&Device]| DeviceSetDraft {
            tenant: "st-mary".parse().unwrap(),
            recipient: RecipientId(world::id("recipient")),
            version,
            previous: previous.map(Digest::of),
            records: devices.iter().map(|device| device.record_bytes.clone()).collect(),
            revoked: revoked.iter().map(|device| device.id).collect(),
            issued: NOW.minus(60 * DAY),
        };
    let enrolled = |draft: DeviceSetDraft| {
        draft
            .sign(&world::key("portal"), &world::signed_certificate("st-mary", Purpose::Enrol, "portal"))
            .unwrap()
    };
    let revoked_by = |draft: DeviceSetDraft| {
        let certificate = world::signed_certificate("st-mary", Purpose::Revoke, "security");
        draft.sign(&world::key("security"), &certificate).unwrap()
    };
    let case = |name, what, bytes: &[u8], trust: &str, previous: Option<&[u8]>| {
        let given = json!({ "bytes": hex(bytes), "trust": trust, "previous": previous.map(hex) });
        Structure::new("device_set", name, what, given)
    };
    let read = |bytes: &[u8],
                version: u64,
                devices: &[&Device],
                revoked: &[&Device],
                signer: &str,
                follows: bool| {
        let sorted = |devices: &[&Device]| {
            let mut ids: Vec<_> = devices.iter().map(|device| device.id.to_string()).collect();
            ids.sort();
            ids
        };
        json!({
            "recipient": RecipientId(world::id("recipient")).to_string(),
            "version": version,
            "digest": Digest::of(bytes).to_string(),
            "devices": sorted(devices),
            "revoked": sorted(revoked),
            "issued": NOW.0 - 60 * DAY,
            "signer": signer,
            "follows": follows,
        })
    };
    let one = enrolled(draft(1, None, &[&phone], &[]));
    let two = enrolled(draft(2, Some(&one), &[&phone, &tablet, &pager], &[]));
    let removed = revoked_by(draft(3, Some(&two), &[&phone, &pager], &[&tablet]));
    let empty = enrolled(draft(4, Some(&removed), &[], &[&phone, &pager, &tablet]));
    let forgotten = enrolled(draft(4, Some(&removed), &[&phone, &pager], &[]));
    let skipped = enrolled(draft(3, Some(&one), &[&phone], &[]));
    let forged = |records: Vec<&[u8]>, revoked: Vec<DeviceId>, version: i64, previous: &[u8]| {
        let payload = map([
            (1, text("st-mary")),
            (2, bytes(world::id("recipient"))),
            (3, int(version)),
            (4, bytes(previous)),
            (5, Item::Array(records.into_iter().map(bytes).collect())),
            (6, Item::Array(revoked.into_iter().map(|id| bytes(id.as_bytes())).collect())),
            (7, Item::Uint(NOW.0)),
        ]);
        let certificate = world::signed_certificate("st-mary", Purpose::Enrol, "portal");
        Sign1::new(&world::key("portal"), "sealpost-device-set-v1+cose", Some(&certificate), &payload)
            .sign(&world::key("portal"))
    };
    let sorted = |descending: bool| {
        let mut records = vec![(phone.id, &phone.record_bytes[..]), (tablet.id, &tablet.record_bytes[..])];
        records.sort();
        if descending {
            records.reverse();
        }
        records.into_iter().map(|(_, record)| record).collect::<Vec<_>>()
    };
    let mut elsewhere = phone.record.clone();
    elsewhere.tenant = "st-john".parse().unwrap();
    let elsewhere = elsewhere.sign(&phone.identity).unwrap();
    vec![
        case("first", "version 1 with one device", &one, "st-mary", None).gives(read(
            &one,
            1,
            &[&phone],
            &[],
            "portal",
            true,
        )),
        case("second", "two devices more", &two, "st-mary", Some(&one)).gives(read(
            &two,
            2,
            &[&phone, &tablet, &pager],
            &[],
            "portal",
            true,
        )),
        case("a removal", "a revoke key takes a device out", &removed, "st-mary", Some(&two)).gives(read(
            &removed,
            3,
            &[&phone, &pager],
            &[&tablet],
            "security",
            true,
        )),
        case("empty", "every device is out", &empty, "st-mary", Some(&removed)).gives(read(
            &empty,
            4,
            &[],
            &[&phone, &pager, &tablet],
            "portal",
            true,
        )),
        case(
            "a revocation forgotten",
            "it verifies, and does not follow: the revoked device is not named any more",
            &forgotten,
            "st-mary",
            Some(&removed),
        )
        .gives(read(&forgotten, 4, &[&phone, &pager], &[], "portal", false)),
        case("a version skipped", "it verifies, and does not follow", &skipped, "st-mary", Some(&one))
            .gives(read(&skipped, 3, &[&phone], &[], "portal", false)),
        case("by a retired key", "what a retired enrol key signed stays", &one, "enroller retired", None)
            .gives(read(&one, 1, &[&phone], &[], "portal", true)),
        case(
            "by a compromised key",
            "what a compromised enrol key signed counts no more",
            &one,
            "enroller compromised",
            None,
        )
        .fails("key_revoked"),
        case(
            "an addition by a revoke key",
            "a revoke key may only take out",
            &revoked_by(draft(2, Some(&one), &[&phone, &tablet], &[])),
            "st-mary",
            Some(&one),
        )
        .fails("wrong_purpose"),
        case(
            "a removal out of the blue",
            "a revoke key's set without the one before",
            &removed,
            "st-mary",
            None,
        )
        .fails("wrong_purpose"),
        case(
            "records out of order",
            "not sorted by device",
            &forged(sorted(true), Vec::new(), 1, &[]),
            "st-mary",
            None,
        )
        .fails("wrong_value"),
        case(
            "a device twice",
            "one record stands twice",
            &forged(vec![&phone.record_bytes, &phone.record_bytes], Vec::new(), 1, &[]),
            "st-mary",
            None,
        )
        .fails("wrong_value"),
        case(
            "in and out",
            "a device is in the set and revoked",
            &forged(vec![&phone.record_bytes], vec![phone.id], 1, &[]),
            "st-mary",
            None,
        )
        .fails("wrong_value"),
        case("version 0", "versions begin at 1", &forged(sorted(false), Vec::new(), 0, &[]), "st-mary", None)
            .fails("wrong_value"),
        case(
            "version 1 with a previous set",
            "the first set has none",
            &forged(sorted(false), Vec::new(), 1, &[1; 32]),
            "st-mary",
            None,
        )
        .fails("wrong_value"),
        case(
            "version 2 without a previous set",
            "later sets have one",
            &forged(sorted(false), Vec::new(), 2, &[]),
            "st-mary",
            None,
        )
        .fails("wrong_value"),
        case(
            "seventeen records",
            "one more than a set may have",
            &forged(vec![&phone.record_bytes; 17], Vec::new(), 1, &[]),
            "st-mary",
            None,
        )
        .fails("wrong_value"),
        case(
            "another tenant's device",
            "a record of another tenant",
            &forged(vec![&elsewhere], Vec::new(), 1, &[]),
            "st-mary",
            None,
        )
        .fails("wrong_tenant"),
    ]
}
