//! What a device signs: records, enrolments, prekeys, receipts.

use sealpost_wire::clock::UnixTime;
use sealpost_wire::error::TrustError;
use sealpost_wire::id::{Digest, TransportId};
use sealpost_wire::key::{RequestKey, SigningKey};
use sealpost_wire::merkle;
use sealpost_wire::message::Suite;
use sealpost_wire::prekey::{PrekeyKind, PrekeyLeaf, ProvenPrekey, sign_batch};
use sealpost_wire::receipt::{Receipt, ReceiptStatement};
use sealpost_wire::record::{DeviceRecord, Enrolment, enrol};
use sealpost_wire::ticket::TicketSecret;
use serde_json::{Value, json};

use crate::forge::{Item, Sign1, array, bytes, int, map, tag, text};
use crate::look_ups;
use crate::sealed::{hex, suite_name};
use crate::structures::Structure;
use crate::tenant_structures::key_json;
use crate::world::{self, DAY, Device, NOW};

pub(crate) fn structures() -> Vec<Value> {
    let mut structures = tickets();
    structures.extend(records());
    structures.extend(enrolments());
    structures.extend(leaves());
    structures.extend(batches());
    structures.extend(proven());
    structures.extend(trees());
    structures.extend(receipts());
    structures
}

fn tickets() -> Vec<Value> {
    let ticket = |name, seed: [u8; 32]| {
        let secret = TicketSecret::from_bytes(seed);
        let read = json!({
            "ticket": secret.ticket_id().to_string(),
            "claim_token": hex(secret.claim_token().expose()),
            "claim_digest": secret.claim_token().digest().to_string(),
        });
        Structure::new("ticket", name, "what follows from a ticket's secret", json!({ "secret": hex(seed) }))
            .gives(read)
    };
    vec![ticket("random", world::seed("ticket")), ticket("zeros", [0; 32])]
}

fn record_json(record: &DeviceRecord) -> Value {
    json!({
        "tenant": record.tenant.as_str(),
        "ticket": record.ticket.to_string(),
        "device": record.device.to_string(),
        "identity_key": hex(record.identity_key.as_bytes()),
        "request_key": key_json(&record.request_key),
        "suites": record.suites.iter().map(|suite| suite_name(*suite)).collect::<Vec<_>>(),
        "relay": record.relay,
        "created": record.created.0,
    })
}

fn records() -> Vec<Value> {
    let phone = world::phone();
    let case =
        |name, what, bytes: &[u8]| Structure::new("record", name, what, json!({ "bytes": hex(bytes) }));
    let identity = &phone.identity;
    let ed25519 = DeviceRecord {
        request_key: RequestKey::Ed25519(world::key("phone request").verifying_key()),
        ..phone.record.clone()
    };
    let forged = |field: i64, value: Item, by: &SigningKey| {
        let request = array([int(-9), bytes(world::p256("phone request").public())]);
        let fields = [
            (1, text("st-mary")),
            (2, bytes(phone.record.ticket.as_bytes())),
            (3, bytes(phone.id.as_bytes())),
            (4, bytes(identity.verifying_key().as_bytes())),
            (5, request),
            (6, array([int(-65537)])),
            (7, text("https://relay.example")),
            (8, Item::Uint(NOW.0)),
        ];
        let fields = fields.map(|(key, old)| (key, if key == field { value.clone() } else { old }));
        Sign1::new(by, "sealpost-record-v1+cose", None, &map(fields)).sign(by)
    };
    let mut no_point = [0xff; 33];
    no_point[0] = 2;
    let uncompressed = [&[4][..], &[1; 64]].concat();
    vec![
        case("a phone's", "its request key is on P-256", &phone.record_bytes)
            .gives(record_json(&phone.record)),
        case("a pager's", "it opens the classical suite only", &world::pager().record_bytes)
            .gives(record_json(&world::pager().record)),
        case("an Ed25519 request key", "both keys are Ed25519", &ed25519.sign(identity).unwrap())
            .gives(record_json(&ed25519)),
        case(
            "by another key",
            "signed by a key that it does not name",
            &forged(0, int(0), &world::key("thief")),
        )
        .fails("bad_signature"),
        case("no suites", "the list of suites is empty", &forged(6, array([]), identity))
            .fails("wrong_value"),
        case(
            "a suite twice",
            "the list of suites names one twice",
            &forged(6, array([int(42), int(42)]), identity),
        )
        .fails("wrong_value"),
        case(
            "an unknown suite",
            "the list of suites names HPKE-0 (35)",
            &forged(6, array([int(35)]), identity),
        )
        .fails("unknown_algorithm"),
        case(
            "five suites",
            "the list of suites is too long",
            &forged(6, array([1, 2, 3, 4, 5].map(int)), identity),
        )
        .fails("wrong_value"),
        case(
            "a request key that is no point",
            "a compressed point that is not on the curve",
            &forged(5, array([int(-9), bytes(no_point)]), identity),
        )
        .fails("wrong_value"),
        case(
            "an uncompressed request key",
            "65 bytes of P-256 key",
            &forged(5, array([int(-9), bytes(uncompressed)]), identity),
        )
        .fails("wrong_value"),
        case(
            "a request key for another algorithm",
            "a P-256 key under Ed25519's number",
            &forged(5, array([int(-19), bytes(world::p256("phone request").public())]), identity),
        )
        .fails("wrong_value"),
        case("no relay", "an empty address", &forged(7, text(""), identity)).fails("wrong_value"),
        case("a device id of 8 bytes", "half an id", &forged(3, bytes([1; 8]), identity))
            .fails("wrong_value"),
    ]
}

fn enrolments() -> Vec<Value> {
    let phone = world::phone();
    let secret = TicketSecret::from_bytes(world::seed("ticket"));
    let case = |name, what, bytes: &[u8]| {
        let given = json!({ "bytes": hex(bytes), "ticket_secret": hex(secret.expose()) });
        Structure::new("enrolment", name, what, given)
    };
    let enrolment = enrol(&phone.record_bytes, &secret.binding_key());
    let other =
        enrol(&phone.record_bytes, &TicketSecret::from_bytes(world::seed("other ticket")).binding_key());
    let with = |algorithm: i64, typ: &str, unprotected: Item| {
        let protected = map([(1, int(algorithm)), (16, text(typ))]).encode();
        let parts = [bytes(protected), unprotected, bytes(&phone.record_bytes), bytes([0; 32])];
        tag(17, array(parts)).encode()
    };
    let mut flipped = enrolment.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let read = Enrolment::read(&enrolment).unwrap();
    let mut forged = phone.record_bytes.clone();
    *forged.last_mut().unwrap() ^= 1;
    vec![
        case("an enrolment", "made with the ticket's secret", &enrolment).gives(json!({
            "device": phone.id.to_string(),
            "record_digest": read.record_digest().to_string(),
            "code": secret.binding_key().code(&enrolment),
        })),
        case("without the secret", "made with another ticket's", &other).fails(TrustError::BadMac.code()),
        case("a flipped bit", "the last byte of the tag is changed", &flipped).fails("bad_mac"),
        case("a forged record", "the record's signature is changed", &enrol(&forged, &secret.binding_key()))
            .fails("bad_signature"),
        case("another algorithm", "HMAC 256/64 (4)", &with(4, "sealpost-enrolment-v1+cose", map([])))
            .fails("unknown_algorithm"),
        case("another typ", "typ is a record's", &with(5, "sealpost-record-v1+cose", map([])))
            .fails("wrong_typ"),
        case(
            "an unprotected header",
            "the header is not empty",
            &with(5, "sealpost-enrolment-v1+cose", map([(4, bytes([1]))])),
        )
        .fails("wrong_field"),
        case("the record alone", "tag 18 in place of 17", &phone.record_bytes).fails("wrong_type"),
    ]
}

fn leaves() -> Vec<Value> {
    let phone = world::phone();
    let case =
        |name, what, bytes: &[u8]| Structure::new("prekey_leaf", name, what, json!({ "bytes": hex(bytes) }));
    let read = |leaf: &PrekeyLeaf| {
        json!({
            "device": leaf.device.to_string(),
            "prekey_id": leaf.id().to_string(),
            "suite": suite_name(leaf.suite),
            "kind": leaf.kind,
            "key": hex(&leaf.key),
            "seal_until": leaf.seal_until.0,
            "open_until": leaf.open_until.0,
        })
    };
    let classical = phone.verified(Suite::Classical, PrekeyKind::OneTime).leaf().clone();
    let hybrid = phone.verified(Suite::Hybrid, PrekeyKind::Signed).leaf().clone();
    let forged = |field: i64, value: Item| {
        let fields = [
            (1, bytes(phone.id.as_bytes())),
            (2, bytes(classical.id().as_bytes())),
            (3, int(42)),
            (4, int(1)),
            (5, bytes(&classical.key)),
            (6, Item::Uint(NOW.0)),
            (7, Item::Uint(NOW.0 + DAY)),
        ];
        map(fields.map(|(key, old)| (key, if key == field { value.clone() } else { old }))).encode()
    };
    vec![
        case("hybrid, signed", "an X-Wing key", &hybrid.to_bytes()).gives(read(&hybrid)),
        case("classical, one-time", "an X25519 key", &classical.to_bytes()).gives(read(&classical)),
        case("another id", "the id is not that of the key", &forged(2, bytes([1; 16])))
            .fails("prekey_mismatch"),
        case("a key of the other suite", "32 bytes under the hybrid algorithm", &forged(3, int(-65537)))
            .fails("wrong_value"),
        case("kind 2", "a kind that does not exist", &forged(4, int(2))).fails("wrong_value"),
        case(
            "open_until before seal_until",
            "it could not be opened when it is sealed to",
            &forged(7, Item::Uint(NOW.0 - 1)),
        )
        .fails("wrong_value"),
        case("an unknown suite", "the algorithm is HPKE-0 (35)", &forged(3, int(35)))
            .fails("unknown_algorithm"),
    ]
}

fn batches() -> Vec<Value> {
    let phone = world::phone();
    let bytes_of: Vec<_> = phone.prekeys.iter().map(|(_, leaf)| leaf.to_bytes()).collect();
    let case = |name, what, batch: &[u8], leaves: &[Vec<u8>]| {
        let given = json!({
            "bytes": hex(batch),
            "leaves": leaves.iter().map(hex).collect::<Vec<_>>(),
            "record": hex(&phone.record_bytes),
        });
        Structure::new("prekey_batch", name, what, given)
    };
    let mut swapped = bytes_of.clone();
    swapped.swap(0, 1);
    let theirs: Vec<_> = world::tablet().prekeys.iter().map(|(_, leaf)| leaf.to_bytes()).collect();
    let tenant = &phone.record.tenant;
    let with_theirs = sign_batch(tenant, phone.id, &theirs, NOW, &phone.identity).unwrap();
    let elsewhere =
        sign_batch(&"st-john".parse().unwrap(), phone.id, &bytes_of, NOW, &phone.identity).unwrap();
    let for_tablet = sign_batch(tenant, world::tablet().id, &bytes_of, NOW, &phone.identity).unwrap();
    let signed_as = |size: i64, certificate: Option<&[u8]>| {
        let payload = map([
            (1, text("st-mary")),
            (2, bytes(phone.id.as_bytes())),
            (3, bytes(merkle::root(&bytes_of).as_bytes())),
            (4, int(size)),
            (5, Item::Uint(NOW.0)),
        ]);
        Sign1::new(&phone.identity, "sealpost-prekeys-v1+cose", certificate, &payload).sign(&phone.identity)
    };
    let sized = |size: i64| signed_as(size, None);
    let count = bytes_of.len() as i64;
    vec![
        case("a batch", "all of its leaves, in order", &phone.batch, &bytes_of).gives(json!({
            "root": merkle::root(&bytes_of).to_string(),
            "size": bytes_of.len(),
            "created": NOW.0 - DAY,
        })),
        case("a leaf missing", "the last leaf is not there", &phone.batch, &bytes_of[..bytes_of.len() - 1])
            .fails("prekey_mismatch"),
        case("leaves swapped", "the first two leaves in the other order", &phone.batch, &swapped)
            .fails("prekey_mismatch"),
        case(
            "another device's leaves",
            "signed by the phone over the tablet's leaves",
            &with_theirs,
            &theirs,
        )
        .fails("wrong_device"),
        case("another device's batch", "signed by the tablet", &world::tablet().batch, &theirs)
            .fails("bad_signature"),
        case("for another device", "the phone's signature, the tablet's id", &for_tablet, &bytes_of)
            .fails("wrong_device"),
        case("another tenant's", "the payload names another tenant", &elsewhere, &bytes_of)
            .fails("wrong_tenant"),
        case("size 0", "no leaves", &sized(0), &bytes_of).fails("wrong_value"),
        case("size 129", "one leaf too many", &sized(129), &bytes_of).fails("wrong_value"),
        case("another size", "one leaf more than there is", &sized(count + 1), &bytes_of)
            .fails("prekey_mismatch"),
        case(
            "a certificate",
            "the header carries one, and none is drawn",
            &signed_as(count, Some(b"x")),
            &bytes_of,
        )
        .fails("wrong_field"),
    ]
}

fn proven() -> Vec<Value> {
    let (phone, pager) = (world::phone(), world::pager());
    let case = |name, what, proven: &ProvenPrekey, device: &Device, now: UnixTime| {
        let given = json!({ "proven": proven, "record": hex(&device.record_bytes), "now": now.0 });
        Structure::new("prekey", name, what, given)
    };
    let good = phone.proven(Suite::Classical, PrekeyKind::OneTime);
    let id = phone.private(Suite::Classical, PrekeyKind::OneTime).id().to_string();
    let with = |change: &dyn Fn(&mut ProvenPrekey)| {
        let mut proven = good.clone();
        change(&mut proven);
        proven
    };
    let unlisted = look_ups::unlisted(&pager).signed.unwrap();
    let theirs = world::tablet().proven(Suite::Classical, PrekeyKind::OneTime);
    let end = NOW.plus(20 * DAY);
    vec![
        case("a prekey", "proven by its batch", &good, &phone, NOW).gives(json!({ "prekey_id": id })),
        case("the last second", "at seal_until", &good, &phone, end).gives(json!({ "prekey_id": id })),
        case("expired", "a second after seal_until", &good, &phone, end.plus(1)).fails("prekey_expired"),
        case("an unlisted suite", "the record does not list the suite", &unlisted, &pager, NOW)
            .fails("prekey_mismatch"),
        case("another device's", "the tablet's, batch and all", &theirs, &phone, NOW).fails("bad_signature"),
        case(
            "another device's leaf",
            "the tablet's leaf with the phone's batch",
            &with(&|proven| proven.leaf = theirs.leaf.clone()),
            &phone,
            NOW,
        )
        .fails("wrong_device"),
        case(
            "a longer path",
            "a digest more",
            &with(&|proven| proven.path.push(Digest([0; 32]))),
            &phone,
            NOW,
        )
        .fails("prekey_mismatch"),
        case("a shorter path", "a digest less", &with(&|proven| proven.path.truncate(1)), &phone, NOW)
            .fails("prekey_mismatch"),
        case(
            "out of the batch",
            "an index that the batch has not",
            &with(&|proven| proven.index = 4),
            &phone,
            NOW,
        )
        .fails("prekey_mismatch"),
    ]
}

fn trees() -> Vec<Value> {
    let tree = |name, what, count: u8| {
        let leaves: Vec<Vec<u8>> = (0..count).map(|n| vec![n; usize::from(n)]).collect();
        let paths: Vec<Vec<String>> = (0..leaves.len())
            .map(|index| merkle::path(&leaves, index).unwrap().iter().map(Digest::to_string).collect())
            .collect();
        let given = json!({ "leaves": leaves.iter().map(hex).collect::<Vec<_>>() });
        let read = json!({ "root": merkle::root(&leaves).to_string(), "paths": paths });
        Structure::new("tree", name, what, given).gives(read)
    };
    vec![
        tree("one leaf", "its hash is the root", 1),
        tree("two leaves", "one node", 2),
        tree("seven leaves", "no power of two: 4 and 3", 7),
    ]
}

fn receipts() -> Vec<Value> {
    let phone = world::phone();
    let case = |name, what, bytes: &[u8]| {
        let given = json!({
            "bytes": hex(bytes),
            "tenant": "st-mary",
            "device": phone.id.to_string(),
            "identity_key": hex(phone.identity.verifying_key().as_bytes()),
        });
        Structure::new("receipt", name, what, given)
    };
    let receipt = |statement: ReceiptStatement| Receipt {
        tenant: phone.record.tenant.clone(),
        transport_id: TransportId(world::id("hybrid/one language")),
        device: phone.id,
        sealed: Digest(world::seed("sealed")),
        statement,
        time: NOW,
    };
    let good = |name, what, statement: ReceiptStatement, state: &str, kind: Value, reason: Value| {
        let receipt = receipt(statement);
        case(name, what, &receipt.sign(&phone.identity)).gives(json!({
            "transport_id": receipt.transport_id.to_string(),
            "sealed": receipt.sealed.to_string(),
            "state": state,
            "kind": kind,
            "reason": reason,
            "time": NOW.0,
        }))
    };
    let opened = receipt(ReceiptStatement::Opened(PrekeyKind::Signed));
    let forged = |typ: &str, label: &str, rest: Vec<Item>| {
        let mut items = vec![
            text(label),
            text("st-mary"),
            bytes(opened.transport_id.as_bytes()),
            bytes(phone.id.as_bytes()),
            bytes(opened.sealed.as_bytes()),
        ];
        items.extend(rest);
        items.push(Item::Uint(NOW.0));
        Sign1::new(&phone.identity, typ, None, &Item::Array(items)).sign(&phone.identity)
    };
    let state = |state: i64, kind: i64| {
        forged("sealpost-receipt-v1+cose", "sealpost-receipt/1", vec![int(state), int(kind)])
    };
    let reason =
        |reason: &str| forged("sealpost-unopenable-v1+cose", "sealpost-unopenable/1", vec![text(reason)]);
    let with = |change: &dyn Fn(&mut Receipt)| {
        let mut receipt = opened.clone();
        change(&mut receipt);
        receipt.sign(&phone.identity)
    };
    vec![
        good("fetched", "the box is stored", ReceiptStatement::Fetched, "fetched", Value::Null, Value::Null),
        good(
            "opened",
            "with a signed prekey",
            ReceiptStatement::Opened(PrekeyKind::Signed),
            "opened",
            json!("signed"),
            Value::Null,
        ),
        good(
            "confirmed",
            "with a one-time prekey",
            ReceiptStatement::Confirmed(PrekeyKind::OneTime),
            "confirmed",
            json!("one-time"),
            Value::Null,
        ),
        good(
            "declined",
            "with a one-time prekey",
            ReceiptStatement::Declined(PrekeyKind::OneTime),
            "declined",
            json!("one-time"),
            Value::Null,
        ),
        good(
            "unopenable",
            "with the code of the error",
            ReceiptStatement::Unopenable("undecryptable".to_owned()),
            "unopenable",
            Value::Null,
            json!("undecryptable"),
        ),
        case("by another key", "signed by the tablet", &opened.sign(&world::tablet().identity))
            .fails("bad_signature"),
        case(
            "for another tenant",
            "the payload names another tenant",
            &with(&|receipt| receipt.tenant = "st-john".parse().unwrap()),
        )
        .fails("wrong_tenant"),
        case(
            "for another device",
            "the payload names the tablet",
            &with(&|receipt| receipt.device = world::tablet().id),
        )
        .fails("wrong_device"),
        case("state 2", "a device does not say pushed", &state(2, 0)).fails("wrong_value"),
        case("state 7", "a device does not say expired", &state(7, 0)).fails("wrong_value"),
        case("fetched with a kind", "the kind is unknown before it is opened", &state(3, 0))
            .fails("wrong_value"),
        case("opened without a kind", "the kind is known once it is opened", &state(4, 2))
            .fails("wrong_value"),
        case(
            "a label of the other type",
            "typ says receipt, the label unopenable",
            &forged("sealpost-receipt-v1+cose", "sealpost-unopenable/1", vec![int(4), int(0)]),
        )
        .fails("wrong_value"),
        case("an empty reason", "no reason", &reason("")).fails("wrong_value"),
        case("a reason with capitals", "reasons are codes", &reason("Dear Dr. Adler")).fails("wrong_value"),
        case("a long reason", "65 bytes", &reason(&"x".repeat(65))).fails("wrong_value"),
        case(
            "too short",
            "seven parts",
            &forged("sealpost-receipt-v1+cose", "sealpost-receipt/1", vec![int(4)]),
        )
        .fails("wrong_field"),
        case("another typ", "a record is no receipt", &phone.record_bytes).fails("wrong_typ"),
    ]
}
