//! What members of groups show of themselves: mailbox statements and credentials.

use sealpost_wire::certificate::Purpose;
use sealpost_wire::id::Digest;
use sealpost_wire::limits::{ADMISSION_BYTES_MAX, MAILBOX_STATEMENT_BYTES_MAX, MEMBER_CREDENTIAL_BYTES_MAX};
use sealpost_wire::member::{MailboxStatement, MemberCredential};
use serde_json::{Value, json};

use crate::forge::{Item, Pairs, Sign1, bytes, int, map, text};
use crate::sealed::hex;
use crate::structures::Structure;
use crate::world::{self, DAY, Device, NOW};

const TYP: &str = "sealpost-mailbox-v1+cose";

pub(crate) fn structures() -> Vec<Value> {
    let mut structures = statements();
    structures.extend(credentials());
    structures
}

fn statement(device: &Device) -> MailboxStatement {
    MailboxStatement {
        tenant: device.record.tenant.clone(),
        device: device.id,
        identity: device.record.identity_key.digest(),
        issued: NOW.minus(DAY),
    }
}

/// The laboratory's word.
fn by_lab(statement: &MailboxStatement) -> Vec<u8> {
    let certificate = world::signed_certificate("st-mary", Purpose::Send, "lab");
    statement.sign(&world::key("lab"), &certificate).unwrap()
}

fn statements() -> Vec<Value> {
    let phone = world::phone();
    let case = |name, what, bytes: &[u8], trust: &str| {
        let given = json!({ "bytes": hex(bytes), "trust": trust, "record": hex(&phone.record_bytes) });
        Structure::new("mailbox", name, what, given)
    };
    let good = statement(&phone);
    let signed = by_lab(&good);
    let with = |change: &dyn Fn(&mut MailboxStatement)| {
        let mut statement = good.clone();
        change(&mut statement);
        by_lab(&statement)
    };
    let lab = world::key("lab");
    let certificate = world::signed_certificate("st-mary", Purpose::Send, "lab");
    let fields = || {
        vec![
            (int(1), text("st-mary")),
            (int(2), bytes(phone.id.as_bytes())),
            (int(3), bytes(good.identity.as_bytes())),
            (int(4), Item::Uint(good.issued.0)),
        ]
    };
    let forged = |change: &dyn Fn(&mut Sign1)| {
        let mut signed = Sign1::new(&lab, TYP, Some(&certificate), &Item::Map(fields()));
        change(&mut signed);
        signed.sign(&lab)
    };
    let payload = |change: &dyn Fn(&mut Pairs)| {
        let mut fields = fields();
        change(&mut fields);
        forged(&|signed| signed.payload = Item::Map(fields.clone()).encode())
    };
    let by_enroller =
        good.sign(&world::key("portal"), &world::signed_certificate("st-mary", Purpose::Enrol, "portal"));
    let beside = good.sign(&lab, &world::signed_certificate("st-mary", Purpose::Send, "cafeteria"));
    let mut flipped = signed.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut longer = signed.clone();
    longer.push(0);
    let read = json!({ "sender": "lab", "device": phone.id.to_string(), "issued": good.issued.0 });
    vec![
        case("a statement", "the laboratory says that the phone is its mailbox", &signed, "st-mary")
            .gives(read),
        case("another device's", "about the tablet", &by_lab(&statement(&world::tablet())), "st-mary")
            .fails("wrong_device"),
        case(
            "an earlier enrolment's",
            "about another identity key of the device",
            &with(&|statement| statement.identity = Digest([0; 32])),
            "st-mary",
        )
        .fails("wrong_device"),
        case(
            "another tenant's",
            "names another tenant",
            &with(&|statement| statement.tenant = "st-john".parse().unwrap()),
            "st-mary",
        )
        .fails("wrong_tenant"),
        case("by an enrol key", "only send keys sign it", &by_enroller.unwrap(), "st-mary")
            .fails("wrong_purpose"),
        case(
            "another sender's certificate",
            "it stands beside this sender's signature",
            &beside.unwrap(),
            "st-mary",
        )
        .fails("bad_signature"),
        case("a flipped bit", "a bit of the signature is flipped", &flipped, "st-mary")
            .fails("bad_signature"),
        case("by a retired key", "the sender's key is out of use", &signed, "sender retired")
            .fails("key_revoked"),
        case("by a compromised key", "the sender's key is in other hands", &signed, "sender compromised")
            .fails("key_revoked"),
        case(
            "after the certificate's end",
            "signed when the certificate was over",
            &with(&|statement| statement.issued = NOW.plus(200 * DAY)),
            "st-mary",
        )
        .fails("certificate_expired"),
        case(
            "before the certificate's beginning",
            "signed before the certificate was valid",
            &with(&|statement| statement.issued = NOW.minus(200 * DAY)),
            "st-mary",
        )
        .fails("certificate_not_yet_valid"),
        case(
            "no certificate",
            "the header carries none",
            &forged(&|signed| signed.protected.truncate(3)),
            "st-mary",
        )
        .fails("wrong_field"),
        case(
            "by a device",
            "the header carries an admission in the certificate's place",
            &forged(&|signed| signed.protected[3] = (int(-65538), bytes(world::admission(&phone)))),
            "st-mary",
        )
        .fails("wrong_field"),
        case(
            "a certificate and an admission",
            "the header carries both",
            &forged(&|signed| signed.protected.push((int(-65538), bytes(b"x")))),
            "st-mary",
        )
        .fails("wrong_field"),
        case("another typ", "a record is no statement", &phone.record_bytes, "st-mary").fails("wrong_typ"),
        case(
            "an identity of 31 bytes",
            "the digest is a byte short",
            &payload(&|fields| fields[2].1 = bytes([1; 31])),
            "st-mary",
        )
        .fails("wrong_value"),
        case(
            "a field more",
            "a field 5 follows",
            &payload(&|fields| fields.push((int(5), int(0)))),
            "st-mary",
        )
        .fails("wrong_field"),
        case("a field less", "nothing says when", &payload(&|fields| drop(fields.pop())), "st-mary")
            .fails("wrong_field"),
        case(
            "a trailing byte inside",
            "a zero byte follows the map",
            &forged(&|signed| signed.payload.push(0)),
            "st-mary",
        )
        .fails("trailing_bytes"),
        case("a trailing byte", "a zero byte follows the structure", &longer, "st-mary")
            .fails("trailing_bytes"),
        case("oversized", "1025 bytes", &[0; MAILBOX_STATEMENT_BYTES_MAX + 1], "st-mary").fails("too_large"),
    ]
}

fn credentials() -> Vec<Value> {
    let (phone, tablet) = (world::phone(), world::tablet());
    let case = |name, what, bytes: &[u8], trust: &str| {
        Structure::new("member", name, what, json!({ "bytes": hex(bytes), "trust": trust }))
    };
    let admission = world::admission(&phone);
    let mailbox = by_lab(&statement(&phone));
    let credential = |admission: &[u8], statement: Option<&[u8]>| {
        MemberCredential { admission: admission.to_vec(), statement: statement.map(<[u8]>::to_vec) }
            .to_bytes()
    };
    let (plain, of_sender) = (credential(&admission, None), credential(&admission, Some(&mailbox)));
    let read = |sender: Option<&str>| {
        json!({
            "device": phone.id.to_string(),
            "identity_key": hex(phone.record.identity_key.as_bytes()),
            "sender": sender,
        })
    };
    let mut flipped = admission.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let longer = |bytes: &[u8]| [bytes, &[0]].concat();
    vec![
        case("a device", "an admission alone", &plain, "st-mary").gives(read(None)),
        case("a sender's mailbox", "an admission and a mailbox statement", &of_sender, "st-mary")
            .gives(read(Some("lab"))),
        case(
            "admitted by a retired key",
            "what a retired enrol key signed stays",
            &of_sender,
            "enroller retired",
        )
        .gives(read(Some("lab"))),
        case(
            "admitted by a compromised key",
            "what a compromised enrol key signed counts no more",
            &plain,
            "enroller compromised",
        )
        .fails("key_revoked"),
        case("a revoked device", "the tenant has revoked the device", &plain, "phone revoked")
            .fails("device_revoked"),
        case("stated by a retired key", "the sender's key is out of use", &of_sender, "sender retired")
            .fails("key_revoked"),
        case(
            "a plain device of a tenant with a retired sender",
            "nothing of it is the sender's",
            &plain,
            "sender retired",
        )
        .gives(read(None)),
        case(
            "another device's statement",
            "the statement is about the tablet",
            &credential(&admission, Some(&by_lab(&statement(&tablet)))),
            "st-mary",
        )
        .fails("wrong_device"),
        case(
            "a forged admission",
            "a bit of its signature is flipped",
            &credential(&flipped, None),
            "st-mary",
        )
        .fails("bad_signature"),
        case(
            "a record for an admission",
            "what the device says of itself",
            &credential(&phone.record_bytes, None),
            "st-mary",
        )
        .fails("wrong_typ"),
        case(
            "a certificate for a statement",
            "the sender's certificate alone",
            &credential(&admission, Some(&world::signed_certificate("st-mary", Purpose::Send, "lab"))),
            "st-mary",
        )
        .fails("wrong_typ"),
        case("an empty admission", "no bytes", &credential(b"", None), "st-mary").fails("truncated"),
        case("an empty statement", "no bytes", &credential(&admission, Some(b"")), "st-mary")
            .fails("truncated"),
        case("no admission", "a statement alone", &map([(2, bytes(&mailbox))]).encode(), "st-mary")
            .fails("wrong_field"),
        case(
            "a field more",
            "a field 3 follows",
            &map([(1, bytes(&admission)), (3, int(0))]).encode(),
            "st-mary",
        )
        .fails("wrong_field"),
        case(
            "fields out of order",
            "the statement stands first",
            &map([(2, bytes(&mailbox)), (1, bytes(&admission))]).encode(),
            "st-mary",
        )
        .fails("not_deterministic"),
        case(
            "an admission as a list",
            "the bytes stand as an item, not as a byte string",
            &map([(1, Item::Raw(admission.clone()))]).encode(),
            "st-mary",
        )
        .fails("wrong_type"),
        case("a trailing byte", "a zero byte follows", &longer(&plain), "st-mary").fails("trailing_bytes"),
        case(
            "a trailing byte inside",
            "a zero byte follows the admission",
            &credential(&longer(&admission), None),
            "st-mary",
        )
        .fails("trailing_bytes"),
        case(
            "an oversized admission",
            "2049 bytes",
            &credential(&[0; ADMISSION_BYTES_MAX + 1], None),
            "st-mary",
        )
        .fails("too_large"),
        case(
            "an oversized statement",
            "1025 bytes",
            &credential(&admission, Some(&[0; MAILBOX_STATEMENT_BYTES_MAX + 1])),
            "st-mary",
        )
        .fails("too_large"),
        case(
            "an oversized statement beside a forged admission",
            "sizes are looked at before anything is verified",
            &credential(&flipped, Some(&[0; MAILBOX_STATEMENT_BYTES_MAX + 1])),
            "st-mary",
        )
        .fails("too_large"),
        case("oversized", "3137 bytes", &[0; MEMBER_CREDENTIAL_BYTES_MAX + 1], "st-mary").fails("too_large"),
    ]
}
