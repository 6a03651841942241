//! What is sealed opens, and what a device would refuse is not sealed.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sealpost_open::{PrekeyPrivate, open};
use sealpost_seal::{
    DeviceAuthor, Envelope, OneTimePolicy, SealError, SealPolicy, SealedBox, SenderIdentity, SuitePolicy,
    seal, seal_mls,
};
use sealpost_wire::author::{Author, AuthorName};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::certificate::{Certificate, Purpose};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::context::MessageContext;
use sealpost_wire::id::{Digest, GroupId, NotificationId, TransportId};
use sealpost_wire::limits::{
    BODY_BYTES_MAX, DEVICE_SET_BYTES_MAX, MLS_SETS_MAX, PADDED_BYTES_MIN, PART_BYTES_MAX, SIGNED_BYTES_MAX,
};
use sealpost_wire::message::{SealedHeader, SealedMessage, Suite};
use sealpost_wire::payload::{Frame, MlsFrame, MlsKind, Notification, Part, Priority, Sensitivity, Text};
use sealpost_wire::prekey::{PrekeyKind, PrekeyLeaf, ProvenPrekey, VerifiedPrekey, sign_batch};
use sealpost_wire::status::Revocation;

#[path = "../examples/vectors/forge.rs"]
#[allow(dead_code, reason = "the generator needs more of it")]
mod forge;
#[path = "../examples/vectors/world.rs"]
#[allow(dead_code, reason = "the generator needs more of it")]
mod world;

use world::{DAY, Device, Dice, NOW};

const SUITES: [Suite; 2] = [Suite::Hybrid, Suite::Classical];

/// All that sealing takes, to be changed.
struct Attempt {
    notification: Notification,
    envelope: Envelope,
    prekey: VerifiedPrekey,
    sender: SenderIdentity,
    now: UnixTime,
}

impl Attempt {
    fn new(phone: &Device, suite: Suite) -> Self {
        let context = phone.context("attempt");
        Self {
            notification: notification("A body"),
            envelope: Envelope {
                tenant: context.tenant,
                transport_id: context.transport_id,
                expires_at: context.expires_at,
            },
            prekey: phone.verified(suite, PrekeyKind::Signed),
            sender: world::sender(suite),
            now: NOW,
        }
    }

    fn seal(&self, dice: &mut Dice) -> Result<SealedBox, SealError> {
        seal(&self.notification, &self.envelope, &self.prekey, &self.sender, self.now, dice)
    }
}

fn notification(body: &str) -> Notification {
    let text = Text { title: "A title".to_owned(), body: body.to_owned() };
    Notification {
        id: NotificationId([1; 16]),
        revision: 1,
        created: NOW,
        priority: Priority::Normal,
        category: "lab-result".to_owned(),
        sensitivity: Sensitivity::Private,
        texts: BTreeMap::from([("en".to_owned(), text)]),
        parts: Vec::new(),
        replies: Vec::new(),
        attachments: Vec::new(),
        head: None,
    }
}

fn context(phone: &Device, envelope: &Envelope) -> MessageContext {
    MessageContext {
        transport_id: envelope.transport_id,
        expires_at: envelope.expires_at,
        ..phone.context("")
    }
}

#[test]
fn a_box_says_what_it_is_and_no_two_share_a_byte_by_design() {
    let phone = world::phone();
    for suite in SUITES {
        let attempt = Attempt::new(&phone, suite);
        let mut dice = Dice::new("boxes");
        let (one, two) = (attempt.seal(&mut dice).unwrap(), attempt.seal(&mut dice).unwrap());
        assert_eq!((one.device, one.suite, one.kind), (phone.id, suite, PrekeyKind::Signed));
        assert_eq!(one.digest, Digest::of(&one.bytes));
        let (one, two) = (SealedMessage::read(&one.bytes).unwrap(), SealedMessage::read(&two.bytes).unwrap());
        assert_eq!(one.prekey, phone.private(suite, PrekeyKind::Signed).id());
        assert_ne!(one.encapsulated_key, two.encapsulated_key);
        let same = one.ciphertext.iter().zip(two.ciphertext).filter(|(a, b)| a == b).count();
        assert!(same < 40, "{same} of {} bytes are the same", one.ciphertext.len());
    }
}

#[test]
fn what_a_device_would_refuse_is_not_sealed() {
    type Change = fn(&mut Attempt);
    let phone = world::phone();
    #[rustfmt::skip]
    let table: [(&str, Change, &str); 12] = [
        ("an expiry now", |a| a.envelope.expires_at = NOW, "invalid_expiry"),
        ("an expiry in the past", |a| a.envelope.expires_at = NOW.minus(1), "invalid_expiry"),
        ("an expiry after 30 days", |a| a.envelope.expires_at = NOW.plus(30 * DAY + 1), "invalid_expiry"),
        ("made in the future", |a| a.notification.created = NOW.plus(301), "created_in_future"),
        ("made long ago", |a| {
            a.notification.created = NOW.minus(30 * DAY);
            a.envelope.expires_at = NOW.plus(1);
        }, "lifetime_too_long"),
        ("another tenant's device", |a| a.envelope.tenant = "st-john".parse().unwrap(), "wrong_tenant"),
        ("past the prekey's time", |a| {
            a.now = NOW.plus(20 * DAY + 1);
            a.envelope.expires_at = NOW.plus(21 * DAY);
        }, "prekey_expired"),
        ("after the certificate's end", |a| {
            a.sender = sender(|certificate| certificate.not_after = NOW);
            a.notification.created = NOW.plus(1);
        }, "certificate_expired"),
        ("a body too long", |a| a.notification = notification(&"x".repeat(BODY_BYTES_MAX + 1)), "wrong_value"),
        ("no text", |a| a.notification.texts.clear(), "wrong_value"),
        ("parts too large together", |a| {
            let part = Part { media_type: "a/b".to_owned(), bytes: vec![0; PART_BYTES_MAX] };
            a.notification.parts = vec![part.clone(), part];
        }, "too_large"),
        ("a policy that wants one-time", |a| {
            let policy = SealPolicy { suites: SuitePolicy::AllowClassical, one_time: OneTimePolicy::Required };
            a.sender = with_policy(policy);
        }, "no_one_time_prekey"),
    ];
    for suite in SUITES {
        assert!(Attempt::new(&phone, suite).seal(&mut Dice::new("good")).is_ok());
        for (name, change, code) in &table {
            let mut attempt = Attempt::new(&phone, suite);
            change(&mut attempt);
            let refused = attempt.seal(&mut Dice::new("bad")).map(|_| ()).map_err(SealError::code);
            assert_eq!(refused, Err(*code), "{name}, {suite:?}");
        }
    }
}

#[test]
fn a_message_may_end_with_its_prekey_and_no_later() {
    let phone = world::phone();
    let leaf = PrekeyLeaf {
        open_until: NOW.plus(25 * DAY),
        ..phone.verified(Suite::Hybrid, PrekeyKind::Signed).leaf().clone()
    };
    let mut attempt = Attempt::new(&phone, Suite::Hybrid);
    attempt.prekey = proven_alone(&phone, &leaf);
    attempt.envelope.expires_at = NOW.plus(25 * DAY);
    assert!(attempt.seal(&mut Dice::new("")).is_ok());
    attempt.envelope.expires_at = NOW.plus(25 * DAY + 1);
    assert_eq!(attempt.seal(&mut Dice::new("")), Err(SealError::ExpiresAfterPrekey));
}

#[test]
fn a_classical_prekey_of_a_hybrid_device_takes_a_policy() {
    let phone = world::phone();
    let mut attempt = Attempt::new(&phone, Suite::Classical);
    attempt.sender = world::sender(Suite::Hybrid);
    assert_eq!(attempt.seal(&mut Dice::new("")), Err(SealError::Downgrade));
    // A device that lists the classical suite only needs none.
    let pager = world::pager();
    attempt.prekey = pager.verified(Suite::Classical, PrekeyKind::Signed);
    assert!(attempt.seal(&mut Dice::new("")).is_ok());
}

#[test]
fn a_prekey_that_is_no_public_key_is_refused() {
    let phone = world::phone();
    // Coefficients that are not reduced (FIPS 203 section 7.2); an X25519 key of small order.
    for (suite, key) in [(Suite::Hybrid, vec![0xff; 1216]), (Suite::Classical, vec![0; 32])] {
        let leaf = PrekeyLeaf { key, suite, ..phone.verified(suite, PrekeyKind::Signed).leaf().clone() };
        let mut attempt = Attempt::new(&phone, suite);
        attempt.prekey = proven_alone(&phone, &leaf);
        assert_eq!(attempt.seal(&mut Dice::new("")), Err(SealError::InvalidPrekey), "{suite:?}");
    }
}

#[test]
fn an_identity_takes_its_own_valid_certificate() {
    let identity = |key: &str, certificate: Vec<u8>| {
        let policy = SealPolicy::default();
        let made = SenderIdentity::new(world::key(key), certificate, policy, &world::trust("st-mary"), NOW);
        made.map(|_| ()).map_err(SealError::code)
    };
    let of = |purpose, subject| world::signed_certificate("st-mary", purpose, subject);
    assert_eq!(identity("lab", of(Purpose::Send, "lab")), Ok(()));
    assert_eq!(identity("lab", of(Purpose::Send, "cafeteria")), Err("bad_signature"));
    assert_eq!(identity("portal", of(Purpose::Enrol, "portal")), Err("wrong_purpose"));
    let old = Certificate { not_after: NOW.minus(1), ..world::certificate("st-mary", Purpose::Send, "lab") };
    assert_eq!(identity("lab", old.sign(&world::root("st-mary")).unwrap()), Err("certificate_expired"));
}

/// All that sealing an MLS frame takes, to be changed.
struct MlsAttempt {
    frame: MlsFrame,
    envelope: Envelope,
    prekey: VerifiedPrekey,
    author: DeviceAuthor,
    now: UnixTime,
}

impl MlsAttempt {
    fn new(phone: &Device, suite: Suite) -> Self {
        let Attempt { envelope, prekey, now, .. } = Attempt::new(phone, suite);
        let frame = MlsFrame {
            created: NOW,
            kind: MlsKind::Message,
            group: GroupId([9; 32]),
            body: b"an MLSMessage".to_vec(),
            sets: Vec::new(),
        };
        Self { frame, envelope, prekey, author: world::author(&world::tablet(), suite), now }
    }

    fn seal(&self, dice: &mut Dice) -> Result<SealedBox, SealError> {
        seal_mls(&self.frame, &self.envelope, &self.prekey, &self.author, self.now, dice)
    }
}

#[test]
fn a_frame_that_a_device_would_refuse_is_not_sealed() {
    type Change = fn(&mut MlsAttempt);
    let phone = world::phone();
    #[rustfmt::skip]
    let table: [(&str, Change, &str); 15] = [
        ("an expiry now", |a| a.envelope.expires_at = NOW, "invalid_expiry"),
        ("an expiry after 30 days", |a| a.envelope.expires_at = NOW.plus(30 * DAY + 1), "invalid_expiry"),
        ("made in the future", |a| a.frame.created = NOW.plus(301), "created_in_future"),
        ("made long ago", |a| {
            a.frame.created = NOW.minus(30 * DAY);
            a.envelope.expires_at = NOW.plus(1);
        }, "lifetime_too_long"),
        ("another tenant's device", |a| a.envelope.tenant = "st-john".parse().unwrap(), "wrong_tenant"),
        ("past the prekey's time", |a| {
            a.now = NOW.plus(20 * DAY + 1);
            a.frame.created = a.now;
            a.envelope.expires_at = NOW.plus(21 * DAY);
        }, "prekey_expired"),
        ("an empty message", |a| a.frame.body.clear(), "wrong_value"),
        ("an empty welcome", |a| {
            a.frame.kind = MlsKind::Welcome;
            a.frame.body.clear();
        }, "wrong_value"),
        ("a rejoin request with a body", |a| a.frame.kind = MlsKind::RejoinRequest, "wrong_value"),
        ("a group info that is none", |a| {
            a.frame.kind = MlsKind::GroupInfo;
            a.frame.body = vec![0xa0];
        }, "wrong_field"),
        ("too many sets", |a| a.frame.sets = vec![vec![0]; MLS_SETS_MAX + 1], "wrong_value"),
        ("an oversized set", |a| a.frame.sets = vec![vec![0; DEVICE_SET_BYTES_MAX + 1]], "too_large"),
        ("too large a body", |a| a.frame.body = vec![0; SIGNED_BYTES_MAX - 500], "too_large"),
        ("sets too large together", |a| a.frame.sets = vec![vec![0; DEVICE_SET_BYTES_MAX]; 7], "too_large"),
        ("a policy that wants one-time", |a| {
            let policy = SealPolicy { suites: SuitePolicy::AllowClassical, one_time: OneTimePolicy::Required };
            let tablet = world::tablet();
            let admission = world::admission(&tablet);
            a.author = DeviceAuthor::new(tablet.identity, admission, policy, &world::trust("st-mary")).unwrap();
        }, "no_one_time_prekey"),
    ];
    for suite in SUITES {
        assert!(MlsAttempt::new(&phone, suite).seal(&mut Dice::new("good")).is_ok());
        for (name, change, code) in &table {
            let mut attempt = MlsAttempt::new(&phone, suite);
            change(&mut attempt);
            let refused = attempt.seal(&mut Dice::new("bad")).map(|_| ()).map_err(SealError::code);
            assert_eq!(refused, Err(*code), "{name}, {suite:?}");
        }
    }
    let mut downgraded = MlsAttempt::new(&phone, Suite::Classical);
    downgraded.author = world::author(&world::tablet(), Suite::Hybrid);
    assert_eq!(downgraded.seal(&mut Dice::new("bad")), Err(SealError::Downgrade));
}

#[test]
fn a_device_writes_by_its_own_admission_while_it_is_not_revoked() {
    let (phone, tablet) = (world::phone(), world::tablet());
    let revoked = {
        let mut trust = world::trust("st-mary");
        let status = world::status(1, &[(&world::key("lab"), Revocation::Retired)], &[tablet.id]);
        trust.accept_status(&world::signed_status(&status), NOW).unwrap();
        trust
    };
    let admission = world::admission(&tablet);
    for (name, identity, trust, expected) in [
        ("its own", &tablet.identity, &world::trust("st-mary"), Ok(())),
        ("another device's", &phone.identity, &world::trust("st-mary"), Err("bad_signature")),
        ("revoked", &tablet.identity, &revoked, Err("device_revoked")),
        ("another tenant's", &tablet.identity, &world::trust("st-john"), Err("unknown_root")),
    ] {
        let author = DeviceAuthor::new(identity.clone(), admission.clone(), SealPolicy::default(), trust);
        assert_eq!(author.map(|_| ()).map_err(SealError::code), expected, "{name}");
    }
}

#[test]
fn frames_do_not_show_what_they_carry() {
    let mut attempt = MlsAttempt::new(&world::phone(), Suite::Hybrid);
    attempt.frame.body = b"an MLSMessage of a group".to_vec();
    let shown = format!("{:?}", attempt.frame);
    assert!(shown.contains("body_bytes: 24"), "{shown}");
    assert!(!shown.contains(&format!("{:?}", &attempt.frame.body[..4])[1..10]), "{shown}");
}

#[test]
fn an_oversized_message_inside_is_refused_before_it_is_read() {
    let phone = world::phone();
    let key = phone.private(Suite::Hybrid, PrekeyKind::Signed);
    let context = phone.context("oversized");
    let header = SealedHeader::new(Suite::Hybrid, key.id());
    // 240000 bytes that are not CBOR, padded as they should be: the box itself is not too large.
    let mut padded = 240_000_u32.to_be_bytes().to_vec();
    padded.resize(sealpost_wire::padding::padded_size(240_000), 0);
    padded[4..240_004].fill(0x81);
    let mut dice = Dice::new("oversized");
    let aad = header.associated_data(&context);
    let (ek, ciphertext) = forge::encrypt(Suite::Hybrid, &key.public_key(), &aad, &padded, &mut dice);
    let sealed = header.finish(&ek, &ciphertext);
    let refused = open(&sealed, &context, key, &world::trust("st-mary"), NOW).unwrap_err();
    assert_eq!(refused.code(), "too_large");
}

#[test]
fn private_keys_do_not_show_themselves() {
    let (key, _) = PrekeyPrivate::generate(Suite::Hybrid, &mut Dice::new("shown"));
    let shown = format!("{key:?}");
    assert!(shown.contains(&key.id().to_string()));
    let seed = data_encoding::HEXLOWER.encode(key.expose_seed());
    assert!(!shown.contains(&seed[..8]) && !shown.contains(&format!("{:?}", key.expose_seed())[..12]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn what_is_sealed_opens_as_it_was(
        hybrid: bool,
        body in "\\PC{1,3000}",
        part in prop::collection::vec(0_u8.., 0..5000),
        transport_id: [u8; 16],
        lifetime in 1..30 * DAY,
    ) {
        let phone = world::phone();
        let suite = if hybrid { Suite::Hybrid } else { Suite::Classical };
        let mut attempt = Attempt::new(&phone, suite);
        attempt.notification = notification(&body);
        attempt.notification.parts = vec![Part { media_type: "a/b".to_owned(), bytes: part }];
        attempt.envelope.transport_id = TransportId(transport_id);
        attempt.envelope.expires_at = NOW.plus(lifetime);
        let sealed = attempt.seal(&mut Dice::new(&body)).unwrap();
        prop_assert!(sealed.bytes.len() > PADDED_BYTES_MIN);
        let context = context(&phone, &attempt.envelope);
        let key = phone.private(suite, PrekeyKind::Signed);
        let opened = open(&sealed.bytes, &context, key, &world::trust("st-mary"), NOW).unwrap();
        prop_assert_eq!(opened.frame, Frame::Notification(Box::new(attempt.notification)));
        prop_assert_eq!(opened.author.name(), AuthorName::Sender("lab".parse().unwrap()));
    }

    #[test]
    fn what_a_device_seals_opens_as_it_was(
        hybrid: bool,
        body in prop::collection::vec(0_u8.., 1..5000),
        sets in prop::collection::vec(prop::collection::vec(0_u8.., 0..2000), 0..5),
        group: [u8; 32],
        age in 0..DAY,
    ) {
        let phone = world::phone();
        let suite = if hybrid { Suite::Hybrid } else { Suite::Classical };
        let mut attempt = MlsAttempt::new(&phone, suite);
        let frame = MlsFrame { created: NOW.minus(age), group: GroupId(group), body, sets, ..attempt.frame };
        attempt.frame = frame;
        let sealed = attempt.seal(&mut Dice::new("frame")).unwrap();
        let context = context(&phone, &attempt.envelope);
        let key = phone.private(suite, PrekeyKind::Signed);
        let opened = open(&sealed.bytes, &context, key, &world::trust("st-mary"), NOW).unwrap();
        prop_assert_eq!(opened.frame, Frame::Mls(Box::new(attempt.frame)));
        let Author::Device(admission) = opened.author else { panic!("a sender's") };
        prop_assert_eq!(admission.record, world::tablet().record);
    }

    #[test]
    fn any_bytes_are_answered(bytes: Vec<u8>) {
        let phone = world::phone();
        let key = phone.private(Suite::Classical, PrekeyKind::Signed);
        let opened = open(&bytes, &phone.context("any"), key, &world::trust("st-mary"), NOW);
        prop_assert!(opened.is_err());
    }
}

fn proven_alone(phone: &Device, leaf: &PrekeyLeaf) -> VerifiedPrekey {
    let leaf = leaf.to_bytes();
    let batch = sign_batch(&phone.record.tenant, phone.id, std::slice::from_ref(&leaf), NOW, &phone.identity);
    let proven =
        ProvenPrekey { leaf: Base64Url(leaf), index: 0, path: Vec::new(), batch: Base64Url(batch.unwrap()) };
    VerifiedPrekey::verify(&proven, &phone.record, NOW).unwrap()
}

fn sender(change: impl Fn(&mut Certificate)) -> SenderIdentity {
    let mut certificate = world::certificate("st-mary", Purpose::Send, "lab");
    change(&mut certificate);
    let certificate = certificate.sign(&world::root("st-mary")).unwrap();
    let policy = SealPolicy { suites: SuitePolicy::AllowClassical, ..SealPolicy::default() };
    SenderIdentity::new(world::key("lab"), certificate, policy, &world::trust("st-mary"), NOW).unwrap()
}

fn with_policy(policy: SealPolicy) -> SenderIdentity {
    let certificate = world::signed_certificate("st-mary", Purpose::Send, "lab");
    SenderIdentity::new(world::key("lab"), certificate, policy, &world::trust("st-mary"), NOW).unwrap()
}
