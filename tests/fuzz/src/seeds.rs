//! What the corpus begins with: for each target, inputs that reach as deep as honest ones do.

use std::convert::Infallible;
use std::path::Path;
use std::sync::LazyLock;

use rand_core::{TryCryptoRng, TryRng};
use sealpost_seal::{Envelope, seal};
use sealpost_wire::assertion;
use sealpost_wire::base64url::{self, Base64Url};
use sealpost_wire::device_set::DeviceSetDraft;
use sealpost_wire::http_signature::{RequestParts, sign};
use sealpost_wire::id::{DeviceId, Digest, GroupId, KeyId, NotificationId, OrderId, PrekeyId};
use sealpost_wire::key::RequestSigningKey;
use sealpost_wire::key_package::MlsSuite;
use sealpost_wire::member::{MailboxStatement, MemberCredential};
use sealpost_wire::merkle;
use sealpost_wire::message::Suite;
use sealpost_wire::order::WipeOrder;
use sealpost_wire::padding;
use sealpost_wire::payload::{
    Attachment, DirectoryHead, GroupInfoBody, MlsFrame, MlsKind, Notification, Part, Priority, QuickReply,
    Sensitivity, Text,
};
use sealpost_wire::prekey::{PrekeyKind, PrekeyLeaf, ProvenPrekey, VerifiedPrekey, sign_batch};
use sealpost_wire::receipt::{Receipt, ReceiptStatement};
use sealpost_wire::record::enrol;
use sealpost_wire::slot::SlotCapability;
use sealpost_wire::status::{Revocation, TenantStatus};
use sealpost_wire::ticket::EnrolmentLink;
use serde_json::{Value, json};

use crate::cose::payload;
use crate::key_package;
use crate::request::{AUTHORITY, BODY};
use crate::world::{DEVICE, NOW, RECIPIENT, TRANSPORT, world};

/// Inputs, each with the name of its target.
#[must_use]
pub fn all() -> Vec<(&'static str, Vec<u8>)> {
    let mut seeds = Vec::new();
    signed(&mut seeds);
    messages(&mut seeds);
    groups(&mut seeds);
    clinical(&mut seeds);
    bodies(&mut seeds);
    requests(&mut seeds);
    answers(&mut seeds);
    seeds
}

/// The recipient's first device set.
pub(crate) fn device_set() -> Vec<u8> {
    static SET: LazyLock<Vec<u8>> = LazyLock::new(|| set_draft(1, None));
    SET.clone()
}

type Seeds = Vec<(&'static str, Vec<u8>)>;

fn signed(seeds: &mut Seeds) {
    let world = world();
    for certified in [&world.send, &world.request, &world.enrol, &world.revoke] {
        seeds.push(("certificate", payload(&certified.certificate)));
        seeds.push(("envelope", certified.certificate.clone()));
    }
    let status = |revoked_keys, revoked_devices| {
        let status = TenantStatus {
            tenant: world.tenant.clone(),
            sequence: 7,
            issued: NOW,
            revoked_keys,
            revoked_devices,
        };
        status.sign(&world.revoke.key, &world.revoke.certificate).expect("a status")
    };
    let revoked_keys = vec![(KeyId([1; 16]), Revocation::Retired), (KeyId([2; 16]), Revocation::Compromised)];
    let full = status(revoked_keys, vec![DeviceId([1; 16]), DeviceId([2; 16])]);
    seeds.push(("tenant_status", payload(&status(Vec::new(), Vec::new()))));
    seeds.push(("tenant_status", payload(&full)));
    seeds.push(("envelope", full));

    seeds.push(("admission", payload(&world.admission)));
    seeds.push(("envelope", world.admission.clone()));
    let order = WipeOrder {
        id: OrderId([3; 16]),
        tenant: world.tenant.clone(),
        device: DEVICE,
        identity: world.identity.verifying_key().digest(),
        issued: NOW,
    };
    let order = order.sign(&world.revoke.key, &world.revoke.certificate).expect("an order");
    seeds.push(("wipe_order", payload(&order)));
    seeds.push(("envelope", order));

    seeds.push(("device_record", payload(&world.record_bytes)));
    seeds.push(("envelope", world.record_bytes.clone()));
    seeds.push(("envelope", enrol(&world.record_bytes, &world.secret.binding_key())));
    for set in [device_set(), set_draft(2, Some(Digest::of(&device_set())))] {
        seeds.push(("device_set", payload(&set)));
        seeds.push(("envelope", set));
    }
    prekeys(seeds);
    key_packages(seeds);
    receipts(seeds);
    let link = EnrolmentLink {
        tenant: world.tenant.clone(),
        keyserver: "https://keys.example".to_owned(),
        relay: "https://relay.example".to_owned(),
        root: world.root.verifying_key(),
        secret: world.secret.clone(),
    };
    let link = link.to_url("https://portal.example/");
    let fragment = link.rsplit_once('.').and_then(|(_, fragment)| base64url::decode(fragment));
    seeds.push(("enrolment_link", fragment.expect("a link ends with its fragment")));
    seeds.push(("enrolment_link", link.into_bytes()));
}

fn set_draft(version: u64, previous: Option<Digest>) -> Vec<u8> {
    let world = world();
    let draft = DeviceSetDraft {
        tenant: world.tenant.clone(),
        recipient: RECIPIENT,
        version,
        previous,
        records: vec![world.record_bytes.clone()],
        revoked: vec![DeviceId([1; 16]), DeviceId([2; 16])],
        issued: NOW,
    };
    draft.sign(&world.enrol.key, &world.enrol.certificate).expect("a set")
}

/// Prekeys of both suites, as one batch.
fn leaves() -> Vec<PrekeyLeaf> {
    let leaf = |suite, kind| PrekeyLeaf {
        device: DEVICE,
        suite,
        kind,
        key: world().prekey(suite, PrekeyId([0; 16])).public_key(),
        seal_until: NOW.plus(86_400),
        open_until: NOW.plus(86_400 * 30),
    };
    vec![leaf(Suite::Classical, PrekeyKind::Signed), leaf(Suite::Hybrid, PrekeyKind::OneTime)]
}

fn proven() -> Vec<ProvenPrekey> {
    let world = world();
    let leaves: Vec<Vec<u8>> = leaves().iter().map(PrekeyLeaf::to_bytes).collect();
    let batch = sign_batch(&world.tenant, DEVICE, &leaves, NOW, &world.identity).expect("a batch");
    let proven = |index: usize| ProvenPrekey {
        leaf: Base64Url(leaves[index].clone()),
        index: index as u64,
        path: merkle::path(&leaves, index).expect("a leaf"),
        batch: Base64Url(batch.clone()),
    };
    vec![proven(0), proven(1)]
}

fn prekeys(seeds: &mut Seeds) {
    for proven in proven() {
        seeds.push(("prekeys", [&[0], proven.leaf.as_ref()].concat()));
        seeds.push(("prekeys", [&[1], &payload(proven.batch.as_ref())[..]].concat()));
        seeds.push(("prekeys", [vec![2], json_of(&proven)].concat()));
        seeds.push(("envelope", proven.leaf.0));
        seeds.push(("envelope", proven.batch.0));
    }
}

fn key_packages(seeds: &mut Seeds) {
    for suite in MlsSuite::ALL {
        for is_last_resort in [false, true] {
            let bytes = key_package::draft(suite, is_last_resort).sign(&world().identity);
            if suite == MlsSuite::Classical {
                seeds.push(("envelope", bytes.clone()));
            }
            seeds.push(("key_package", [&[0], &bytes[..]].concat()));
        }
    }
    for fields in key_package::fields() {
        seeds.push(("key_package", [&[1], &fields[..]].concat()));
    }
    seeds.push(("key_package", [&[2], &key_package::credential()[..]].concat()));
}

fn receipts(seeds: &mut Seeds) {
    let world = world();
    for statement in [
        ReceiptStatement::Fetched,
        ReceiptStatement::Opened(PrekeyKind::OneTime),
        ReceiptStatement::Confirmed(PrekeyKind::Signed),
        ReceiptStatement::Declined(PrekeyKind::Signed),
        ReceiptStatement::Unopenable("undecryptable".to_owned()),
    ] {
        let typ = u8::from(!matches!(statement, ReceiptStatement::Unopenable(_)));
        let receipt = Receipt {
            tenant: world.tenant.clone(),
            transport_id: TRANSPORT,
            device: DEVICE,
            sealed: Digest([4; 32]),
            statement,
            time: NOW,
        };
        let receipt = receipt.sign(&world.identity);
        seeds.push(("receipt", [&[typ], &payload(&receipt)[..]].concat()));
        seeds.push(("envelope", receipt));
    }
}

fn messages(seeds: &mut Seeds) {
    let world = world();
    let context = world.context();
    let (short, full) = (notification(false), notification(true));
    for notification in [&short, &full] {
        let signed = notification.sign(&context, &world.send.key, &world.send.certificate);
        let signed = signed.expect("a message");
        seeds.push(("notification", payload(&signed)));
        seeds.push(("padding", padding::pad(&signed).expect("it is short")));
        seeds.push(("envelope", signed.to_vec()));
    }
    seeds.push(("padding", padding::pad(b"").expect("it is short")));
    let envelope =
        Envelope { tenant: world.tenant.clone(), transport_id: TRANSPORT, expires_at: context.expires_at };
    for proven in proven() {
        let prekey = VerifiedPrekey::verify(&proven, &world.record, NOW).expect("a prekey");
        let sealed = seal(&short, &envelope, &prekey, &world.sender(), NOW, &mut Dice(5));
        // The tenant's policy wants the hybrid suite: the classical box keeps its form and opens nothing.
        let Ok(sealed) = sealed else { continue };
        seeds.push(("envelope", sealed.bytes.clone()));
        seeds.push(("sealed", sealed.bytes));
    }
    let header = sealpost_wire::message::SealedHeader::new(Suite::Classical, PrekeyId([1; 16]));
    seeds.push(("sealed", header.finish(&[9; 32], &[0; 64])));
}

/// What members of groups show and send.
fn groups(seeds: &mut Seeds) {
    let world = world();
    let statement = MailboxStatement {
        tenant: world.tenant.clone(),
        device: DEVICE,
        identity: world.record.identity_key.digest(),
        issued: NOW,
    };
    let statement = statement.sign(&world.send.key, &world.send.certificate).expect("a statement");
    seeds.push(("mailbox_statement", payload(&statement)));
    seeds.push(("envelope", statement.clone()));
    for statement in [None, Some(statement)] {
        let credential = MemberCredential { admission: world.admission.clone(), statement }.to_bytes();
        seeds.push(("member_credential", credential.clone()));
        seeds.push(("envelope", credential));
    }

    let capability = SlotCapability::from_bytes([3; 32]);
    let info = GroupInfoBody { group_info: b"a GroupInfo".to_vec(), capability }.to_bytes();
    for (kind, body, sets) in [
        (MlsKind::Message, &b"an MLSMessage"[..], vec![]),
        (MlsKind::Welcome, b"a Welcome", vec![device_set(), vec![1]]),
        (MlsKind::RejoinRequest, b"", vec![]),
        (MlsKind::GroupInfo, &info, vec![]),
    ] {
        let frame = MlsFrame { created: NOW, kind, group: GroupId([2; 32]), body: body.to_vec(), sets };
        let signed = frame.sign(&world.context(), &world.identity, &world.admission).expect("a frame");
        seeds.push(("mls_frame", payload(&signed)));
        seeds.push(("envelope", signed.to_vec()));
    }
}

fn notification(is_full: bool) -> Notification {
    let text = |title: &str| Text { title: title.to_owned(), body: "Please open the app.".to_owned() };
    let mut notification = Notification {
        id: NotificationId([5; 16]),
        revision: 1,
        created: NOW,
        priority: Priority::Normal,
        category: "lab".to_owned(),
        sensitivity: Sensitivity::Private,
        texts: [("en".to_owned(), text("A result is there"))].into(),
        parts: Vec::new(),
        replies: Vec::new(),
        attachments: Vec::new(),
        head: None,
    };
    if is_full {
        notification.texts.insert("de-CH".to_owned(), text("Ein Befund ist da"));
        notification.parts =
            vec![Part { media_type: "application/fhir+json".to_owned(), bytes: b"{}".to_vec() }];
        let labels = [("en".to_owned(), "Yes".to_owned()), ("de-CH".to_owned(), "Ja".to_owned())];
        notification.replies = vec![QuickReply { code: "yes".to_owned(), labels: labels.into() }];
        notification.attachments =
            vec![Attachment { id: [6; 16], size: 1, digest: Digest([7; 32]), key: [8; 32] }];
        notification.head = Some(DirectoryHead { epoch: 9, root: Digest([9; 32]) });
    }
    notification
}

fn clinical(seeds: &mut Seeds) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/hl7");
    for entry in std::fs::read_dir(folder).expect("the samples are there").flatten() {
        seeds.push(("hl7", std::fs::read(entry.path()).expect("a sample")));
    }
    let result = "MSH|^~\\&|LAB|N|||20240301||ORU^R01|1|P|2.5|||AL|NE||";
    let behind = "\rPID|1||1^^^N^MR||T\rOBR|1||7|K^x^LN|||20240301||||||||||||||||||F\r\
                  OBX|1|NM|2823-3^K^LN||7.1|mmol/L^^UCUM|3.5-5.1|HH|||F|||20240301\rNTE|1||a\\.br\\b\\X0D\\\r";
    for charset in ["", "UNICODE UTF-8", "8859/1", "ISO IR87", "UNICODE UTF-16"] {
        seeds.push(("hl7", format!("{result}{charset}{behind}").into_bytes()));
    }
    seeds.push(("hl7", b"FHS|^~\\&\rBHS|^~\\&\rMSH|^~\\&\rBTS|1\rFTS|1\r".to_vec()));
    for stream in [
        &b"\x01\x0bMSH|1\x1c\r\x0bMSH|2\x1c\r"[..],
        b"\x02\r\n\x0bMSH|1\x1c\r\n\x0b\x1c\r",
        b"\x03\x0bMSH|1\x0bMSH|2\x1c\n\x0bFHS\x1c\x0bBHS",
        b"\xff\x0b0123456789012345678901234567890123456789012345678901234567890123456789\x0bMSH\x1c\r",
    ] {
        seeds.push(("mllp", stream.to_vec()));
    }
}

/// JSON bodies, by the number that their target knows them by.
fn bodies(seeds: &mut Seeds) {
    let id = "7a".repeat(16);
    let digest = "04".repeat(32);
    let proven = json!(proven()[0]);
    let delivery = json!({"device": id, "state": "unopenable", "changed_at_ms": 1, "reason": "expired",
                          "receipts": ["AAAA"]});
    let event = json!({"id": 1, "time_ms": 2, "message": id, "sender": "lab", "device": id, "from": "queued",
                       "to": "pushed", "late": true, "reason": "x", "receipt": "AAAA"});
    let waiting = json!({"cursor": 1, "id": id, "sender": "lab", "expires_at": 2, "sealed": "AAAA"});
    let counts = json!([{"suite": "hybrid", "one_time": 3, "signed_until": 4}]);
    let packages = json!([{"suite": 3, "one_time": 5, "last_resort_until": 6}]);
    let peer = json!({"device": id, "prekeys": [{"suite": "hybrid", "signed": proven}]});
    let consent = json!({"granted": true, "given_at": 1, "recorded_by": "portal", "method": "paper",
                         "document": digest});
    let relay = [
        json!({"expires_at": 1_800_000_000, "priority": "critical", "boxes": [
            {"device": id, "sealed": "AAAA"}, {"device": "00".repeat(16), "sealed": ""}]}),
        json!({"admission": "AAAA", "push": {"app": "ios", "token": "abcd"}}),
        json!({"after": 1, "limit": 2, "wait": 3, "receipts": ["AAAA"]}),
        json!({"status": "AAAA"}),
        json!({"id": id, "accepted_at": 1, "expires_at": 2, "priority": "bulk", "deliveries": [delivery]}),
        json!({"boxes": [waiting], "more": false, "receipts": ["accepted", "late"], "status": "AAAA",
               "time": 1, "incarnation": 1}),
        json!({"events": [event], "next": 1, "last": 2}),
        json!({"device": id, "push": true}),
        json!({"access_token": "x", "token_type": "bearer", "expires_in": 300, "scope": "sender"}),
        json!({"type": "about:blank", "title": "x", "status": 400, "code": "malformed_body", "detail": "y"}),
    ];
    let keyserver = [
        json!({"claim_digest": digest, "expires_at": 1}),
        json!({"claim_token": "AAAA", "enrolment": "AAAA"}),
        json!({}),
        json!({"set": "AAAA", "admissions": ["AAAA"]}),
        json!({"batch": "AAAA", "leaves": ["AAAA"], "replace": true}),
        json!({"category": "lab", "one_time": true}),
        consent.clone(),
        json!({"ticket": id, "expires_at": 1, "enrolments": ["AAAA"], "closed": false}),
        json!({"set": "AAAA", "version": 1}),
        json!({"admission": "AAAA", "set": "AAAA", "status": "AAAA", "prekeys": counts,
               "key_packages": packages, "incarnation": 1, "time": 2}),
        json!({"prekeys": counts}),
        json!({"set": "AAAA", "status": "AAAA", "time": 1, "devices": [
            {"device": id, "suite": "classical", "signed": proven, "one_time": null}]}),
        json!({"consents": {"lab": consent}}),
        json!({"grant_type": "client_credentials", "client_assertion_type": "x", "client_assertion": "y",
               "scope": "sender"}),
        json!({"suite": 3, "packages": ["AAAA"], "last_resort": "AAAA", "replace": true}),
        json!({"key_packages": packages}),
        json!({"suite": 77, "category": "care-team"}),
        json!({"set": "AAAA", "status": "AAAA", "time": 1,
               "packages": [{"device": id, "package": "AAAA", "last_resort": false}],
               "prekeys": [{"device": id, "suite": "classical", "signed": proven}]}),
        json!({"devices": [id]}),
        json!({"peers": [peer], "status": "AAAA", "time": 1}),
    ];
    push_bodies(seeds, "relay_bodies", &relay);
    let claim = json!({"slot": id, "sequence": 7, "capability": base64url::encode(&[3; 32]), "next": digest});
    let claimed = json!({"expires_at": 1_800_000_000, "priority": "bulk", "boxes": [], "slot": claim});
    seeds.push(("relay_bodies", [vec![0], json_of(&claimed)].concat()));
    push_bodies(seeds, "keyserver_bodies", &keyserver);
}

fn push_bodies(seeds: &mut Seeds, target: &'static str, bodies: &[Value]) {
    for (number, body) in (0..).zip(bodies) {
        seeds.push((target, [vec![number], json_of(body)].concat()));
    }
}

fn requests(seeds: &mut Seeds) {
    let world = world();
    let parts =
        RequestParts { method: "POST", authority: AUTHORITY, path: "/v1/sync", query: None, body: BODY };
    let headers = sign(&parts, &world.tenant, DEVICE, &world.device_request, NOW, &mut Dice(6));
    let lines = format!(
        "POST\n/v1/sync\ncontent-digest: {}\nsignature-input: {}\nsignature: {}",
        headers.content_digest, headers.signature_input, headers.signature
    );
    seeds.push(("request_signature", lines.replace("/v1/sync\n", "/v1/sync?wait=1\n").into_bytes()));
    seeds.push(("request_signature", lines.into_bytes()));

    let key = RequestSigningKey::Ed25519(world.request.key.clone());
    let client = format!("{}/lab", world.tenant);
    let certificate = &world.request.certificate;
    let jwt = assertion::sign(&client, crate::assertion::AUDIENCE, certificate, &key, NOW, &mut Dice(7));
    let part =
        |number| jwt.split('.').nth(number).and_then(base64url::decode).expect("a JWT has three parts");
    seeds.push(("client_assertion", [&part(0)[..], b"\n", &part(1)].concat()));
    seeds.push(("client_assertion", jwt.into_bytes()));
}

fn answers(seeds: &mut Seeds) {
    let answer = |status: u16, wait: &str, body: &Value| {
        [&(status - 100).to_be_bytes()[..], wait.as_bytes(), b"\n", &json_of(body)].concat()
    };
    for (status, wait, reason) in [
        (410, "", "Unregistered"),
        (410, "", "ExpiredToken"),
        (400, "", "BadDeviceToken"),
        (400, "", "BadTopic"),
        (403, "", "ExpiredProviderToken"),
        (403, "", "InvalidProviderToken"),
        (413, "", "PayloadTooLarge"),
        (429, "120", "TooManyRequests"),
        (429, "Sun, 06 Nov 1994 08:49:37 GMT", "TooManyProviderTokenUpdates"),
        (500, "99999999999", "InternalServerError"),
        (503, "", "Shutdown"),
    ] {
        let body = json!({"reason": reason, "timestamp": 1_700_000_000_123_u64});
        seeds.push(("apns_answer", answer(status, wait, &body)));
    }
    let fcm = "type.googleapis.com/google.firebase.fcm.v1.FcmError";
    let info = "type.googleapis.com/google.rpc.ErrorInfo";
    let request = "type.googleapis.com/google.rpc.BadRequest";
    for (status, rpc, code) in [
        (404, "NOT_FOUND", "UNREGISTERED"),
        (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        (401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"),
        (403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"),
        (429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"),
        (503, "UNAVAILABLE", "UNAVAILABLE"),
    ] {
        let details = json!([{"@type": info, "reason": "RATE_LIMIT"}, {"@type": fcm, "errorCode": code},
                             {"@type": request, "fieldViolations": [{"field": "message.token"}]}]);
        let body = json!({"error": {"code": status, "message": "x", "status": rpc, "details": details}});
        seeds.push(("fcm_answer", answer(status, "", &body)));
    }
    let token = json!({"access_token": "ya29.x", "expires_in": 3599, "token_type": "Bearer"});
    seeds.push(("token_answer", answer(200, "", &token)));
    for (status, wait) in [(400, ""), (401, "5"), (429, "60"), (503, "")] {
        seeds.push(("token_answer", answer(status, wait, &json!({"error": "invalid_grant"}))));
    }
}

fn json_of(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("it has a form in JSON")
}

/// Chance that comes out the same in every run (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

impl TryRng for Dice {
    type Error = Infallible;

    #[expect(clippy::cast_possible_truncation, reason = "half of the bits are asked for")]
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.roll() as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.roll())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            let roll = self.roll().to_le_bytes();
            chunk.iter_mut().zip(roll).for_each(|(to, from)| *to = from);
        }
        Ok(())
    }
}

impl TryCryptoRng for Dice {}
