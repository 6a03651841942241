//! Messages whose sender is not to be believed: certificates that are another's, over, revoked, or not of
//! their form.

use sealpost_wire::certificate::{Certificate, Purpose, Role};
use sealpost_wire::key::{RequestKey, SigningKey};

use crate::forge::{Item, Sign1, array, bytes, int, map, text};
use crate::negative::Good;
use crate::payloads::{self, TYP, inside, payload, signed_payload};
use crate::sealed::Case;
use crate::world::{self, DAY, NOW};

pub(crate) fn cases(good: &Good) -> Vec<Case> {
    let mut cases = certificates(good);
    cases.extend(certificate_forms(good));
    cases
}

fn certificates(good: &Good) -> Vec<Case> {
    let root = world::root("st-mary");
    let by = |name: &str, what: &'static str, certificate: Vec<u8>, key: &str, code: &'static str| {
        let signed = signed_payload(good, TYP, key, &certificate, &payload(good)).sign(&world::key(key));
        inside(good, &format!("certificate: {name}"), what, &signed, code)
    };
    let lab = || world::certificate("st-mary", Purpose::Send, "lab");
    let with = |change: &dyn Fn(&mut Certificate)| {
        let mut certificate = lab();
        change(&mut certificate);
        certificate.sign(&root).unwrap()
    };
    let mut flipped = lab().sign(&root).unwrap();
    *flipped.last_mut().unwrap() ^= 1;
    let p256 = Certificate {
        key: RequestKey::P256(world::p256("lab").public()),
        roles: vec![Role::Sender],
        ..world::certificate("st-mary", Purpose::Request, "lab")
    };
    let mut cases = vec![
        by(
            "unknown root",
            "made by a root that is not the tenant's",
            lab().sign(&world::key("stranger")).unwrap(),
            "lab",
            "unknown_root",
        ),
        by(
            "another tenant's",
            "a sender of another tenant, certified by that tenant's root",
            world::signed_certificate("st-john", Purpose::Send, "lab"),
            "lab",
            "unknown_root",
        ),
        by(
            "another tenant's name",
            "made by the tenant's root, and names another tenant",
            with(&|certificate| certificate.tenant = "st-john".parse().unwrap()),
            "lab",
            "wrong_tenant",
        ),
        by("flipped bit", "a bit of the root's signature is flipped", flipped, "lab", "bad_signature"),
        by(
            "for enrolling",
            "an enrol key signs the message",
            world::signed_certificate("st-mary", Purpose::Enrol, "portal"),
            "portal",
            "wrong_purpose",
        ),
        by(
            "for revoking",
            "a revoke key signs the message",
            world::signed_certificate("st-mary", Purpose::Revoke, "security"),
            "security",
            "wrong_purpose",
        ),
        by(
            "for requests",
            "a request key on P-256 signs the message",
            p256.sign(&root).unwrap(),
            "lab",
            "wrong_purpose",
        ),
        by(
            "another sender's",
            "another sender's certificate stands beside this sender's signature",
            world::signed_certificate("st-mary", Purpose::Send, "cafeteria"),
            "lab",
            "bad_signature",
        ),
        by(
            "expired",
            "it ended a second before the notification was made",
            with(&|certificate| certificate.not_after = NOW.minus(61)),
            "lab",
            "certificate_expired",
        ),
        by(
            "not yet valid",
            "it begins a second after the notification was made",
            with(&|certificate| certificate.not_before = NOW.minus(59)),
            "lab",
            "certificate_not_yet_valid",
        ),
    ];
    for (name, what, trust) in [
        (
            "compromised",
            "the tenant's status says that the sender's key is in other hands",
            "sender compromised",
        ),
        ("retired", "the tenant's status says that the sender's key is out of use", "sender retired"),
    ] {
        let mut case = by(name, what, lab().sign(&root).unwrap(), "lab", "key_revoked");
        case.trust = trust;
        cases.push(case);
    }
    cases
}

/// Certificates that the root signed though they are not of the form.
fn certificate_forms(good: &Good) -> Vec<Case> {
    let root = world::root("st-mary");
    let forged = |key: Item, subject: &str| {
        map([
            (1, text("st-mary")),
            (2, int(1)),
            (3, text(subject)),
            (4, bytes(world::id("forged certificate"))),
            (5, key),
            (6, Item::Uint(NOW.0 - DAY)),
            (7, Item::Uint(NOW.0 + DAY)),
        ])
    };
    let ed25519 = |key: &[u8]| array([int(-19), bytes(key)]);
    let lab = *world::key("lab").verifying_key().as_bytes();
    let case = |name: &str, what: &'static str, payload: &Item, code: &'static str| {
        let certificate = Sign1::new(&root, "sealpost-certificate-v1+cose", None, payload).sign(&root);
        let signed = signed_payload(good, TYP, "lab", &certificate, &payloads::payload(good));
        inside(good, &format!("certificate: {name}"), what, &signed.sign(&world::key("lab")), code)
    };
    let mut identity = [0; 32];
    identity[0] = 1;
    // y = p + 3: the point y = 3 in a form that is not reduced.
    let mut unreduced = [0xff; 32];
    (unreduced[0], unreduced[31]) = (0xf0, 0x7f);
    let mut no_point = [0; 32];
    no_point[0] = 2;
    let request = |key: &SigningKey| {
        let mut fields = vec![(int(1), text("st-mary")), (int(2), int(2)), (int(3), text("lab"))];
        fields.extend([
            (int(4), bytes(world::id("forged certificate"))),
            (int(5), ed25519(key.verifying_key().as_bytes())),
            (int(6), Item::Uint(NOW.0 - DAY)),
            (int(7), Item::Uint(NOW.0 + DAY)),
        ]);
        Item::Map(fields)
    };
    vec![
        case(
            "a key of small order",
            "the key is the neutral element",
            &forged(ed25519(&identity), "lab"),
            "wrong_value",
        ),
        case("a key of order 2", "the key is (0, -1)", &forged(ed25519(&order_two()), "lab"), "wrong_value"),
        case(
            "a key that is not reduced",
            "the key is a point in another form than its own",
            &forged(ed25519(&unreduced), "lab"),
            "wrong_value",
        ),
        case(
            "a key that is no point",
            "y = 2 is on no point of the curve",
            &forged(ed25519(&no_point), "lab"),
            "wrong_value",
        ),
        case(
            "a key of 31 bytes",
            "the key is a byte short",
            &forged(ed25519(&lab[..31]), "lab"),
            "wrong_value",
        ),
        case(
            "a P-256 key for sending",
            "only a request key may be P-256",
            &forged(array([int(-9), bytes(world::p256("lab").public())]), "lab"),
            "unknown_algorithm",
        ),
        case(
            "a key of an unknown algorithm",
            "the key's algorithm is EdDSA (-8)",
            &forged(array([int(-8), bytes(lab)]), "lab"),
            "unknown_algorithm",
        ),
        case("a name in capitals", "the subject is LAB", &forged(ed25519(&lab), "LAB"), "wrong_value"),
        case("oversized", "401 bytes and more", &forged(ed25519(&lab), &"x".repeat(300)), "too_large"),
        case(
            "no roles for requests",
            "purpose request without a role",
            &request(&world::key("lab")),
            "wrong_value",
        ),
    ]
}

fn order_two() -> [u8; 32] {
    let mut point = [0xff; 32];
    (point[0], point[31]) = (0xec, 0x7f);
    point
}
