//! Messages that decrypt, and whose inside is wrong: padding, signature, frame, payload. The hybrid
//! suite stands for both.

use sealpost_wire::certificate::Purpose;
use sealpost_wire::id::{NotificationId, TransportId};
use sealpost_wire::message::Suite;
use sealpost_wire::padding;

use crate::chains;
use crate::forge::{Item, Sign1, array, bytes, int, malleate, map, sign_with_neutral_r, text};
use crate::negative::Good;
use crate::sealed::Case;
use crate::world::{self, DAY, NOW};

pub(crate) const TYP: &str = "sealpost-notification-v1+cose";

pub(crate) fn cases() -> Vec<Case> {
    let good = Good::new(Suite::Hybrid);
    let mut cases = paddings(&good);
    cases.extend(signatures(&good));
    cases.extend(frames(&good));
    cases.extend(chains::cases(&good));
    cases.extend(ids_and_times(&good));
    cases.extend(fields(&good));
    cases
}

pub(crate) fn inside(good: &Good, name: &str, what: &'static str, signed: &[u8], code: &'static str) -> Case {
    good.case(name, what, good.boxed(&padding::pad(signed).unwrap()), code)
}

fn paddings(good: &Good) -> Vec<Case> {
    let padded = padding::pad(&good.signed).unwrap();
    let case = |name: &str, what: &'static str, padded: &[u8], code: &'static str| {
        good.case(&format!("padding: {name}"), what, good.boxed(padded), code)
    };
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut padded = padded.clone();
        change(&mut padded);
        padded
    };
    let last = padded.len() - 1;
    let length = u32::try_from(good.signed.len()).unwrap();
    vec![
        case("last byte not zero", "the last byte is 1", &changed(&|p| p[last] = 1), "padding_not_zero"),
        case(
            "first byte not zero",
            "the byte behind the message is 1, and the length leaves it out",
            &changed(&|p| p[4 + length as usize] = 1),
            "padding_not_zero",
        ),
        case(
            "too long",
            "64 zeros more than Padmé gives",
            &changed(&|p| p.resize(last + 65, 0)),
            "padding_size",
        ),
        case("one byte more", "one zero more than Padmé gives", &changed(&|p| p.push(0)), "padding_size"),
        case("none", "no zeros at all", &padded[..4 + length as usize], "padding_size"),
        case(
            "length too large",
            "the length is larger than what follows",
            &changed(&|p| p[..4].copy_from_slice(&1021_u32.to_be_bytes())),
            "padding_length",
        ),
        case(
            "length of 2^32 - 1",
            "the length is as large as it can be",
            &changed(&|p| p[..4].fill(0xff)),
            "padding_length",
        ),
        case(
            "length too small",
            "the length says one byte less: the message's last byte is padding that is not zero",
            &changed(&|p| p[..4].copy_from_slice(&(length - 1).to_be_bytes())),
            "padding_not_zero",
        ),
        case(
            "length too large by one",
            "the length says one byte more: a zero follows the message",
            &changed(&|p| p[..4].copy_from_slice(&(length + 1).to_be_bytes())),
            "trailing_bytes",
        ),
        case("three bytes", "no room for the length", &[0, 0, 0], "padding_length"),
        case("nothing", "the ciphertext is a tag alone", &[], "padding_length"),
        case("an empty message", "the length is 0", &[0; 1024], "truncated"),
    ]
}

/// A signed message, to be changed.
fn signed(good: &Good) -> Sign1 {
    signed_payload(
        good,
        TYP,
        "lab",
        &world::signed_certificate("st-mary", Purpose::Send, "lab"),
        &payload(good),
    )
}

pub(crate) fn signed_payload(good: &Good, typ: &str, key: &str, certificate: &[u8], payload: &Item) -> Sign1 {
    let mut signed = Sign1::new(&world::key(key), typ, Some(certificate), payload);
    signed.external_aad = good.context.to_bytes();
    signed
}

/// The payload of a notification that opens.
pub(crate) fn payload(good: &Good) -> Item {
    map(payload_fields(good))
}

fn payload_fields(good: &Good) -> [(i64, Item); 9] {
    let texts = Item::Map(vec![(text("en"), map([(1, text("Title")), (2, text("Body"))]))]);
    [
        (1, bytes(good.context.transport_id.as_bytes())),
        (2, bytes(good.context.device.as_bytes())),
        (3, bytes(NotificationId(world::id("forged")).as_bytes())),
        (4, int(1)),
        (5, Item::Uint(NOW.0 - 60)),
        (6, int(2)),
        (7, text("lab-result")),
        (8, int(1)),
        (9, texts),
    ]
}

/// The payload with one field changed.
fn payload_with(good: &Good, field: i64, value: Item) -> Item {
    let mut fields = payload_fields(good);
    if let Some((_, old)) = fields.iter_mut().find(|(key, _)| *key == field) {
        *old = value;
    }
    map(fields)
}

fn signatures(good: &Good) -> Vec<Case> {
    let lab = world::key("lab");
    let case = |name: &str, what: &'static str, signed: Vec<u8>, code: &'static str| {
        inside(good, &format!("signature: {name}"), what, &signed, code)
    };
    let changed = |change: &dyn Fn(&mut Sign1)| {
        let mut signed = signed(good);
        change(&mut signed);
        signed.sign(&lab)
    };
    let tablet = world::tablet().context("good");
    let kid = |id: &str| bytes(world::key(id).verifying_key().key_id().as_bytes());
    let mut untagged = signed(good).sign(&lab);
    untagged.remove(0);
    vec![
        case(
            "flipped bit",
            "a bit of the signature is flipped",
            signed(good).sign_by(|message| {
                let mut signature = lab.sign(message);
                signature[40] ^= 1;
                signature
            }),
            "bad_signature",
        ),
        case(
            "S + L",
            "S is not reduced: a lax verifier takes it",
            signed(good).sign_by(|message| malleate(lab.sign(message))),
            "bad_signature",
        ),
        case(
            "neutral R",
            "R is the neutral element and the equation holds: a lax verifier takes it",
            signed(good).sign_by(|message| sign_with_neutral_r(lab.seed(), message)),
            "bad_signature",
        ),
        case("zeros", "the signature is zero", signed(good).sign_by(|_| [0; 64]), "bad_signature"),
        case(
            "another key",
            "signed by a key that the certificate does not name",
            signed(good).sign(&world::key("cafeteria")),
            "bad_signature",
        ),
        case(
            "another key id",
            "the key id in the header is another key's",
            changed(&|signed| signed.protected[1].1 = kid("cafeteria")),
            "bad_signature",
        ),
        case(
            "for another device",
            "signed for the tablet and sealed to the phone: surreptitious forwarding",
            changed(&|signed| signed.external_aad = tablet.to_bytes()),
            "bad_signature",
        ),
        case(
            "for another expiry",
            "the signature is bound to an expiry one second later",
            changed(&|signed| {
                let mut context = good.context.clone();
                context.expires_at.0 += 1;
                signed.external_aad = context.to_bytes();
            }),
            "bad_signature",
        ),
        case(
            "no context",
            "signed over an empty external_aad",
            changed(&|signed| signed.external_aad.clear()),
            "bad_signature",
        ),
        case(
            "polymorphic EdDSA",
            "alg is EdDSA (-8), not Ed25519 (-19)",
            changed(&|signed| signed.protected[0].1 = int(-8)),
            "unknown_algorithm",
        ),
        case(
            "an algorithm for another key",
            "alg is ESP256 (-9), the key is Ed25519",
            changed(&|signed| signed.protected[0].1 = int(-9)),
            "unknown_algorithm",
        ),
        case(
            "no certificate",
            "the header has no certificate",
            changed(&|signed| signed.protected.truncate(3)),
            "wrong_field",
        ),
        case(
            "an unprotected header",
            "the key id stands in the unprotected header too",
            changed(&|signed| signed.unprotected = map([(4, kid("lab"))])),
            "wrong_field",
        ),
        case(
            "a header more",
            "a content type (3) stands in the protected header",
            changed(&|signed| signed.protected.insert(1, (int(3), text("a/b")))),
            "wrong_field",
        ),
        case(
            "a certificate as text",
            "the certificate is a text",
            changed(&|signed| signed.protected[3].1 = text("certificate")),
            "wrong_type",
        ),
        case("no tag", "the array without tag 18", untagged, "wrong_type"),
        case("JSON", "JSON in the message's place", b"{\"title\":\"hello\"}".to_vec(), "truncated"),
        case("deep arrays", "500 arrays in each other", vec![0x81; 500], "too_deep"),
    ]
}

fn frames(good: &Good) -> Vec<Case> {
    let certificate = world::signed_certificate("st-mary", Purpose::Send, "lab");
    let framed = |typ: &str, payload: &Item| {
        signed_payload(good, typ, "lab", &certificate, payload).sign(&world::key("lab"))
    };
    let case = |name: &str, what: &'static str, typ: &str, code: &'static str| {
        inside(good, &format!("frame: {name}"), what, &framed(typ, &payload(good)), code)
    };
    vec![
        case("reply", "a frame that is reserved", "sealpost-reply-v1+cose", "frame_unsupported"),
        case("recall", "a frame that is reserved", "sealpost-recall-v1+cose", "frame_unsupported"),
        case("a receipt", "typ is a receipt's", "sealpost-receipt-v1+cose", "wrong_typ"),
        case("version 2", "typ is one that does not exist", "sealpost-notification-v2+cose", "wrong_typ"),
    ]
}

fn ids_and_times(good: &Good) -> Vec<Case> {
    let certificate = world::signed_certificate("st-mary", Purpose::Send, "lab");
    let case = |name: &str, what: &'static str, payload: &Item, code: &'static str| {
        let signed = signed_payload(good, TYP, "lab", &certificate, payload).sign(&world::key("lab"));
        inside(good, name, what, &signed, code)
    };
    let made = |time: u64| payload_with(good, 5, Item::Uint(time));
    vec![
        case(
            "another transport id inside",
            "the payload names another message than the context",
            &payload_with(good, 1, bytes(TransportId(world::id("other")).as_bytes())),
            "id_mismatch",
        ),
        case(
            "another device inside",
            "the payload names another device than the context",
            &payload_with(good, 2, bytes(world::tablet().id.as_bytes())),
            "id_mismatch",
        ),
        case(
            "made in the future",
            "made 301 s after the opener's time",
            &made(NOW.0 + 301),
            "created_in_future",
        ),
        case(
            "a lifetime too long",
            "expires 30 days and a second after it was made",
            &made(good.context.expires_at.0 - 30 * DAY - 1),
            "lifetime_too_long",
        ),
        case("made at the end of time", "made at 2^64 - 1", &made(u64::MAX), "created_in_future"),
    ]
}

fn fields(good: &Good) -> Vec<Case> {
    let certificate = world::signed_certificate("st-mary", Purpose::Send, "lab");
    let case = |name: &str, what: &'static str, payload: &Item, code: &'static str| {
        let signed = signed_payload(good, TYP, "lab", &certificate, payload).sign(&world::key("lab"));
        inside(good, &format!("payload: {name}"), what, &signed, code)
    };
    let with = |field: i64, value: Item| payload_with(good, field, value);
    let more = |field: i64, value: Item| {
        let mut pairs: Vec<_> =
            payload_fields(good).into_iter().map(|(key, value)| (int(key), value)).collect();
        pairs.push((int(field), value));
        Item::Map(pairs)
    };
    let texts = |pairs: Vec<(Item, Item)>| with(9, Item::Map(pairs));
    let one = |title: &str, body: &str| map([(1, text(title)), (2, text(body))]);
    let without_category =
        map(payload_fields(good).map(|(key, value)| (if key == 7 { 70 } else { key }, value)));
    let mut trailing = payload(good).encode();
    trailing.push(0);
    vec![
        case("trailing byte", "a zero byte follows the map", &Item::Raw(trailing), "trailing_bytes"),
        case("a list", "a list in the map's place", &array([int(1)]), "wrong_type"),
        case(
            "keys out of order",
            "the category's key is 70, before 8",
            &without_category,
            "not_deterministic",
        ),
        case(
            "no texts",
            "field 9 is missing",
            &map::<8>(payload_fields(good)[..8].to_vec().try_into().unwrap()),
            "wrong_field",
        ),
        case("an unknown field", "a field 14 follows", &more(14, int(0)), "wrong_field"),
        case(
            "a text for a key",
            "the key of a field is a text",
            &Item::Map(vec![(text("1"), int(1))]),
            "wrong_field",
        ),
        case("priority 4", "a priority that does not exist", &with(6, int(4)), "wrong_value"),
        case("priority -1", "a priority below zero", &with(6, int(-1)), "wrong_type"),
        case("sensitivity 0", "a sensitivity that does not exist", &with(8, int(0)), "wrong_value"),
        case(
            "revision as a float",
            "1.5 for a revision",
            &with(4, Item::Raw(vec![0xf9, 0x3e, 0x00])),
            "wrong_type",
        ),
        case(
            "revision as a long integer",
            "1 in two bytes",
            &with(4, Item::Raw(vec![0x18, 0x01])),
            "not_deterministic",
        ),
        case(
            "revision as a big number",
            "2^64 under tag 2",
            &with(4, Item::Raw(vec![0xc2, 0x49, 1, 0, 0, 0, 0, 0, 0, 0, 0])),
            "wrong_type",
        ),
        case("no category", "an empty category", &with(7, text("")), "wrong_value"),
        case("a long category", "65 bytes of category", &with(7, text(&"x".repeat(65))), "wrong_value"),
        case("no languages", "no text at all", &texts(Vec::new()), "wrong_value"),
        case(
            "an empty body",
            "a body of no bytes",
            &texts(vec![(text("en"), one("Title", ""))]),
            "wrong_value",
        ),
        case(
            "a long title",
            "257 bytes of title",
            &texts(vec![(text("en"), one(&"x".repeat(257), "Body"))]),
            "wrong_value",
        ),
        case(
            "a language with a space",
            "the tag is no language tag",
            &texts(vec![(text("e n"), one("Title", "Body"))]),
            "wrong_value",
        ),
        case(
            "languages out of order",
            "de-CH stands before en, though its encoding is longer",
            &texts(vec![(text("de-CH"), one("Titel", "Text")), (text("en"), one("Title", "Body"))]),
            "not_deterministic",
        ),
        case(
            "a body that is not UTF-8",
            "the body holds the byte 0xff",
            &texts(vec![(text("en"), map([(1, text("Title")), (2, Item::Raw(vec![0x61, 0xff]))]))]),
            "wrong_type",
        ),
        case(
            "a body of surrogates",
            "the body encodes U+D800",
            &texts(vec![(
                text("en"),
                map([(1, text("Title")), (2, Item::Raw(vec![0x63, 0xed, 0xa0, 0x80]))]),
            )]),
            "wrong_type",
        ),
        case("no parts", "a list of parts that is empty", &more(10, Item::Array(Vec::new())), "wrong_value"),
        case(
            "a reply without labels",
            "a quick reply that says nothing",
            &more(11, array([map([(1, text("yes")), (2, map([]))])])),
            "wrong_value",
        ),
        case(
            "a short attachment key",
            "an attachment's key of 31 bytes",
            &more(
                12,
                array([map([(1, bytes([1; 16])), (2, int(1)), (3, bytes([2; 32])), (4, bytes([3; 31]))])]),
            ),
            "wrong_value",
        ),
        case(
            "a part deep down",
            "a part is five arrays deep",
            &more(10, Item::Raw(vec![0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0x80])),
            "too_deep",
        ),
    ]
}
