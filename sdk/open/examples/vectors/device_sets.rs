//! How a tenant says which devices are its own: admissions and device sets.

use sealpost_wire::admission::Admission;
use sealpost_wire::certificate::Purpose;
use sealpost_wire::device_set::DeviceSetDraft;
use sealpost_wire::id::{DeviceId, Digest, RecipientId};
use serde_json::{Value, json};

use crate::forge::{Item, Sign1, bytes, int, map, text};
use crate::sealed::hex;
use crate::structures::Structure;
use crate::world::{self, DAY, Device, NOW};

pub(crate) fn structures() -> Vec<Value> {
    let mut structures = admissions();
    structures.extend(device_sets());
    structures
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
