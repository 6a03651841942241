//! What one device sends to another as members of a group. The tablet writes to the phone.

use sealpost_seal::{Envelope, seal_mls};
use sealpost_wire::admission::Admission;
use sealpost_wire::author::AuthorName;
use sealpost_wire::certificate::Purpose;
use sealpost_wire::context::MessageContext;
use sealpost_wire::device_set::DeviceSetDraft;
use sealpost_wire::id::{GroupId, RecipientId, TransportId};
use sealpost_wire::limits::{ADMISSION_BYTES_MAX, DEVICE_SET_BYTES_MAX, MLS_SETS_MAX};
use sealpost_wire::message::Suite;
use sealpost_wire::payload::{Frame, GroupInfoBody, MlsFrame, MlsKind};
use sealpost_wire::prekey::PrekeyKind;
use sealpost_wire::slot::SlotCapability;

use crate::forge::{Item, Sign1, array, bytes, int, map, text};
use crate::negative::Good;
use crate::payloads::{self, inside};
use crate::sealed::{Case, message_json, phone_key, suite_name};
use crate::world::{self, DAY, Device, Dice, NOW};

const TYP: &str = "sealpost-mls-v1+cose";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = opened(Suite::Hybrid);
    cases.extend(opened(Suite::Classical).into_iter().take(2));
    let forger = Forger::new();
    cases.extend(forger.authors());
    cases.extend(forger.signatures());
    cases.extend(forger.fields());
    cases.extend(forger.bodies());
    cases.extend(forger.sets());
    cases
}

/// A frame of the group, made a minute ago.
fn frame(kind: MlsKind, body: &[u8]) -> MlsFrame {
    MlsFrame {
        created: NOW.minus(60),
        kind,
        group: GroupId(world::seed("group")),
        body: body.to_vec(),
        sets: Vec::new(),
    }
}

/// The first set of a recipient whose device is the tablet.
fn set() -> Vec<u8> {
    let draft = DeviceSetDraft {
        tenant: "st-mary".parse().unwrap(),
        recipient: RecipientId(world::id("recipient of the tablet")),
        version: 1,
        previous: None,
        records: vec![world::tablet().record_bytes],
        revoked: Vec::new(),
        issued: NOW.minus(60 * DAY),
    };
    let certificate = world::signed_certificate("st-mary", Purpose::Enrol, "portal");
    draft.sign(&world::key("portal"), &certificate).unwrap()
}

fn group_info() -> GroupInfoBody {
    let capability = SlotCapability::from_bytes(world::seed("slot capability"));
    GroupInfoBody { group_info: b"an MLSMessage with a GroupInfo".to_vec(), capability }
}

/// Frames that open, by the product's own sealing.
fn opened(suite: Suite) -> Vec<Case> {
    let (phone, tablet) = (world::phone(), world::tablet());
    let case = |name: &str, what: &'static str, frame: MlsFrame, context: MessageContext| {
        let name = format!("{}/MLS: {name}", suite_name(suite));
        let envelope = Envelope {
            tenant: context.tenant.clone(),
            transport_id: context.transport_id,
            expires_at: context.expires_at,
        };
        let prekey = phone.verified(suite, PrekeyKind::Signed);
        let author = world::author(&tablet, suite);
        let sealed = seal_mls(&frame, &envelope, &prekey, &author, NOW, &mut Dice::new(&name)).unwrap();
        Case {
            name,
            what,
            sealed: sealed.bytes,
            context,
            key: phone_key(suite),
            trust: "st-mary",
            now: NOW,
            outcome: Ok(message_json(
                &AuthorName::Device(tablet.id).to_string(),
                &Frame::Mls(Box::new(frame)),
            )),
        }
    };
    let of = |name: &str, what: &'static str, frame: MlsFrame| case(name, what, frame, phone.context(name));
    let message = || frame(MlsKind::Message, b"an MLSMessage");
    let with_sets =
        |sets: Vec<Vec<u8>>| MlsFrame { sets, ..frame(MlsKind::Welcome, b"an MLSMessage with a Welcome") };
    let mut cases = vec![
        of("message", "a message to the group", message()),
        of("welcome", "with the device set of the one who comes", with_sets(vec![set()])),
        of("rejoin request", "its body is empty", frame(MlsKind::RejoinRequest, b"")),
        of(
            "group info",
            "with the capability of the group's slot",
            frame(MlsKind::GroupInfo, &group_info().to_bytes()),
        ),
        of(
            "64 sets",
            "as many as a frame may carry; what is in them is looked at where it is used",
            with_sets((1..=MLS_SETS_MAX).map(|n| vec![0x18; n]).collect()),
        ),
        of(
            "made a little ahead",
            "made 300 s after the opener's time, as far as clocks may differ",
            MlsFrame { created: NOW.plus(300), ..message() },
        ),
        case(
            "under a sender's transport id",
            "a device's transport ids are its own",
            message(),
            phone.context("one language"),
        ),
    ];
    let mut retired = of("admitted by a retired key", "what a retired enrol key signed stays", message());
    retired.trust = "enroller retired";
    cases.push(retired);
    cases
}

/// Makes what the product does not, in hybrid boxes to the phone.
struct Forger {
    good: Good,
    tablet: Device,
    admission: Vec<u8>,
}

impl Forger {
    fn new() -> Self {
        let tablet = world::tablet();
        Self { good: Good::new(Suite::Hybrid), admission: world::admission(&tablet), tablet }
    }

    fn payload_fields(&self) -> Vec<(Item, Item)> {
        let fields = [
            (1, bytes(self.good.context.transport_id.as_bytes())),
            (2, bytes(self.good.context.device.as_bytes())),
            (3, Item::Uint(NOW.0 - 60)),
            (4, int(0)),
            (5, bytes(world::seed("group"))),
            (6, bytes(b"an MLSMessage")),
        ];
        fields.map(|(key, value)| (int(key), value)).into()
    }

    /// A frame that opens, to be changed: its header has nothing for who signed it.
    fn anonymous(&self, typ: &str) -> Sign1 {
        let payload = Item::Map(self.payload_fields());
        let mut signed = Sign1::new(&self.tablet.identity, typ, None, &payload);
        signed.external_aad = self.good.context.to_bytes();
        signed
    }

    fn admitted_by(&self, admission: &[u8]) -> Sign1 {
        let mut signed = self.anonymous(TYP);
        signed.protected.push((int(-65538), bytes(admission)));
        signed
    }

    fn signed(&self) -> Sign1 {
        self.admitted_by(&self.admission)
    }

    fn case(&self, name: &str, what: &'static str, signed: &[u8], code: &'static str) -> Case {
        inside(&self.good, &format!("MLS: {name}"), what, signed, code)
    }

    /// Whose word a frame is.
    fn authors(&self) -> Vec<Case> {
        let identity = &self.tablet.identity;
        let (lab, certificate) =
            (world::key("lab"), world::signed_certificate("st-mary", Purpose::Send, "lab"));
        let fields = Item::Map(self.payload_fields());
        let by_sender = payloads::signed_payload(&self.good, TYP, "lab", &certificate, &fields).sign(&lab);
        let mut notification = Sign1::new(identity, payloads::TYP, None, &payloads::payload(&self.good));
        notification.external_aad = self.good.context.to_bytes();
        notification.protected.push((int(-65538), bytes(&self.admission)));
        let headers = |more: &[(i64, &[u8])]| {
            let mut signed = self.anonymous(TYP);
            signed.protected.extend(more.iter().map(|(label, value)| (int(*label), bytes(value))));
            signed.sign(identity)
        };
        let admission = |record: &[u8], enroller: &str, certificate: &[u8]| {
            let tenant = "st-mary".parse().unwrap();
            Admission::sign(&tenant, record, NOW.minus(DAY), &world::key(enroller), certificate)
        };
        let enroller = world::signed_certificate("st-mary", Purpose::Enrol, "portal");
        let revoker = world::signed_certificate("st-mary", Purpose::Revoke, "security");
        let elsewhere = world::signed_certificate("st-john", Purpose::Enrol, "portal");
        let record = &self.tablet.record_bytes;
        let mut of_john = self.tablet.record.clone();
        of_john.tenant = "st-john".parse().unwrap();
        let of_john = of_john.sign(identity).unwrap();
        let by = |name: &str, what: &'static str, admission: &[u8], code: &'static str| {
            self.case(name, what, &self.admitted_by(admission).sign(identity), code)
        };
        let mut flipped = self.admission.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let mut as_text = self.anonymous(TYP);
        as_text.protected.push((int(-65538), text("admission")));
        let mut cases = vec![
            self.case("by a sender", "a sender's certificate and signature", &by_sender, "wrong_field"),
            self.case(
                "a notification by a device",
                "a notification under a device's admission and signature",
                &notification.sign(identity),
                "wrong_field",
            ),
            self.case(
                "a certificate in the admission's place",
                "signed by the device all the same",
                &headers(&[(-65537, &certificate)]),
                "wrong_field",
            ),
            self.case(
                "both headers",
                "a certificate and an admission",
                &headers(&[(-65537, &certificate), (-65538, &self.admission)]),
                "wrong_field",
            ),
            self.case("neither header", "no certificate, no admission", &headers(&[]), "wrong_field"),
            self.case(
                "headers out of order",
                "the admission's label before the certificate's",
                &headers(&[(-65538, &self.admission), (-65537, &certificate)]),
                "not_deterministic",
            ),
            self.case("an admission as text", "not a byte string", &as_text.sign(identity), "wrong_type"),
            by(
                "another device's admission",
                "the phone's",
                &world::admission(&world::phone()),
                "bad_signature",
            ),
            by("a record for an admission", "what the device says of itself", record, "wrong_typ"),
            by("a forged admission", "a bit of its signature is flipped", &flipped, "bad_signature"),
            by(
                "admitted by a revoke key",
                "only enrol keys admit",
                &admission(record, "security", &revoker),
                "wrong_purpose",
            ),
            by(
                "admitted by another tenant",
                "by an enrol key under another tenant's root",
                &admission(record, "portal", &elsewhere),
                "unknown_root",
            ),
            by(
                "another tenant's record",
                "the device enrolled with another tenant",
                &admission(&of_john, "portal", &enroller),
                "wrong_tenant",
            ),
            by(
                "an oversized admission",
                "2049 bytes; nothing of them is looked at",
                &[0; ADMISSION_BYTES_MAX + 1],
                "too_large",
            ),
            by("an empty admission", "no bytes", &[], "truncated"),
            by(
                "an admission with more behind it",
                "a zero byte follows the admission",
                &[&self.admission[..], &[0]].concat(),
                "trailing_bytes",
            ),
        ];
        for (name, what, trust, code) in [
            (
                "by a revoked device",
                "the tenant's status names the author's device",
                "others revoked",
                "device_revoked",
            ),
            (
                "admitted by a compromised key",
                "what a compromised enrol key signed counts no more",
                "enroller compromised",
                "key_revoked",
            ),
        ] {
            let mut case = self.case(name, what, &self.signed().sign(identity), code);
            case.trust = trust;
            cases.push(case);
        }
        cases
    }

    fn signatures(&self) -> Vec<Case> {
        let identity = &self.tablet.identity;
        let changed = |name: &str, what: &'static str, change: &dyn Fn(&mut Sign1)| {
            let mut signed = self.signed();
            change(&mut signed);
            self.case(name, what, &signed.sign(identity), "bad_signature")
        };
        let kid = world::phone().record.identity_key.key_id();
        let flipped = self.signed().sign_by(|message| {
            let mut signature = identity.sign(message);
            signature[40] ^= 1;
            signature
        });
        vec![
            self.case("a flipped signature", "a bit of the signature is flipped", &flipped, "bad_signature"),
            self.case(
                "another key",
                "signed by a key that the admission does not name",
                &self.signed().sign(&world::key("thief")),
                "bad_signature",
            ),
            changed("another key id", "the key id in the header is the phone's", &|signed| {
                signed.protected[1].1 = bytes(kid.as_bytes());
            }),
            changed("for another device", "signed for the tablet itself, sealed to the phone", &|signed| {
                signed.external_aad = self.tablet.context("good").to_bytes();
            }),
            changed("replayed as another message", "signed for another transport id", &|signed| {
                signed.external_aad = world::phone().context("other").to_bytes();
            }),
            changed("replayed later", "signed for an expiry one second earlier", &|signed| {
                let mut context = self.good.context.clone();
                context.expires_at.0 -= 1;
                signed.external_aad = context.to_bytes();
            }),
            changed("no context", "signed over an empty external_aad", &|signed| signed.external_aad.clear()),
        ]
    }

    /// The frame with these fields.
    fn with(&self, name: &str, what: &'static str, fields: Vec<(Item, Item)>, code: &'static str) -> Case {
        self.with_payload(name, what, Item::Map(fields).encode(), code)
    }

    fn with_payload(&self, name: &str, what: &'static str, payload: Vec<u8>, code: &'static str) -> Case {
        let mut signed = self.signed();
        signed.payload = payload;
        self.case(name, what, &signed.sign(&self.tablet.identity), code)
    }

    /// The fields with one changed.
    fn changed(&self, field: i64, value: Item) -> Vec<(Item, Item)> {
        let mut fields = self.payload_fields();
        fields[usize::try_from(field - 1).unwrap()].1 = value;
        fields
    }

    fn more(&self, field: i64, value: Item) -> Vec<(Item, Item)> {
        let mut fields = self.payload_fields();
        fields.push((int(field), value));
        fields
    }

    fn fields(&self) -> Vec<Case> {
        let field = |name: &str, what: &'static str, field: i64, value: Item, code: &'static str| {
            self.with(name, what, self.changed(field, value), code)
        };
        let longer = [Item::Map(self.payload_fields()).encode(), vec![0]].concat();
        let without_body = self.payload_fields()[..5].to_vec();
        let month_ago = self.good.context.expires_at.0 - 30 * DAY;
        vec![
            field("a group id of 31 bytes", "a byte short", 5, bytes([1; 31]), "wrong_value"),
            field("a group id of 33 bytes", "a byte long", 5, bytes([1; 33]), "wrong_value"),
            field("no group id", "no bytes", 5, bytes([]), "wrong_value"),
            field("kind 4", "a kind that does not exist", 4, int(4), "wrong_value"),
            field("kind -1", "a kind below zero", 4, int(-1), "wrong_type"),
            field("a body as text", "not a byte string", 6, text("an MLSMessage"), "wrong_type"),
            field(
                "another transport id inside",
                "the payload names another message than the context",
                1,
                bytes(TransportId(world::id("other")).as_bytes()),
                "id_mismatch",
            ),
            field(
                "another device inside",
                "the payload names another device than the context",
                2,
                bytes(self.tablet.id.as_bytes()),
                "id_mismatch",
            ),
            field(
                "made in the future",
                "made 301 s after the opener's time",
                3,
                Item::Uint(NOW.0 + 301),
                "created_in_future",
            ),
            field(
                "a lifetime too long",
                "expires 30 days and a second after it was made",
                3,
                Item::Uint(month_ago - 1),
                "lifetime_too_long",
            ),
            self.with("no body", "field 6 is missing", without_body, "wrong_field"),
            self.with("an unknown field", "a field 8 follows", self.more(8, int(0)), "wrong_field"),
            self.with_payload("a trailing byte", "a zero byte follows the map", longer, "trailing_bytes"),
            self.with_payload(
                "a notification's payload",
                "the type says MLS",
                payloads::payload(&self.good).encode(),
                "wrong_type",
            ),
        ]
    }

    fn bodies(&self) -> Vec<Case> {
        let body = |name: &str, what: &'static str, kind: MlsKind, body: &[u8], code: &'static str| {
            let mut fields = self.changed(6, bytes(body));
            fields[3].1 = int(kind.code().into());
            self.with(name, what, fields, code)
        };
        let info = |fields: Item| fields.encode();
        let (group_info, capability) = (|| bytes(b"a GroupInfo"), || bytes([7; 32]));
        let good = info(map([(1, group_info()), (2, capability())]));
        let kind = MlsKind::GroupInfo;
        vec![
            body("an empty message", "no bytes", MlsKind::Message, &[], "wrong_value"),
            body("an empty welcome", "no bytes", MlsKind::Welcome, &[], "wrong_value"),
            body("a rejoin request with a body", "one byte", MlsKind::RejoinRequest, &[0], "wrong_value"),
            body("no group info", "an empty body", kind, &[], "truncated"),
            body(
                "an empty group info",
                "the first field has no bytes",
                kind,
                &info(map([(1, bytes([])), (2, capability())])),
                "wrong_value",
            ),
            body(
                "a group info without a capability",
                "a field 1 alone",
                kind,
                &info(map([(1, group_info())])),
                "wrong_field",
            ),
            body(
                "a capability of 31 bytes",
                "a byte short",
                kind,
                &info(map([(1, group_info()), (2, bytes([7; 31]))])),
                "wrong_value",
            ),
            body(
                "a group info with a field more",
                "a field 3",
                kind,
                &info(map([(1, group_info()), (2, capability()), (3, int(0))])),
                "wrong_field",
            ),
            body(
                "a group info with more behind it",
                "a zero byte follows the body's map",
                kind,
                &[&good[..], &[0]].concat(),
                "trailing_bytes",
            ),
            body(
                "a group info as a list",
                "a list in the map's place",
                kind,
                &info(array([group_info(), capability()])),
                "wrong_type",
            ),
        ]
    }

    fn sets(&self) -> Vec<Case> {
        let sets = |name: &str, what: &'static str, sets: Item, code: &'static str| {
            self.with(name, what, self.more(7, sets), code)
        };
        let of =
            |count: usize, bytes_of_one: usize| Item::Array(vec![bytes(vec![0x18; bytes_of_one]); count]);
        vec![
            sets("no sets", "a list of sets that is empty", of(0, 0), "wrong_value"),
            sets("65 sets", "one more than a frame may carry", of(MLS_SETS_MAX + 1, 1), "wrong_value"),
            sets("an oversized set", "32769 bytes", of(1, DEVICE_SET_BYTES_MAX + 1), "too_large"),
            sets("a set as text", "not a byte string", array([text("set")]), "wrong_type"),
            sets("sets in a map", "a map in the list's place", map([(1, bytes(set()))]), "wrong_type"),
        ]
    }
}
