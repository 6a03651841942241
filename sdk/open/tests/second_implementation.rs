//! Another implementation of HPKE (hpke-rs over libcrux) opens what is sealed here, and what it seals opens
//! here.

use data_encoding::HEXLOWER;
use hpke_rs::hpke_types::{AeadAlgorithm, KdfAlgorithm, KemAlgorithm};
use hpke_rs::{Hpke, HpkePrivateKey, HpkePublicKey, Mode};
use hpke_rs_libcrux::HpkeLibcrux;
use sealpost_open::{PrekeyPrivate, open};
use sealpost_seal::{Envelope, seal};
use sealpost_wire::certificate::Purpose;
use sealpost_wire::id::NotificationId;
use sealpost_wire::message::{SealedHeader, SealedMessage, Suite};
use sealpost_wire::padding;
use sealpost_wire::payload::{Frame, Notification, Priority, Sensitivity, SignedMessage, Text};
use sealpost_wire::prekey::PrekeyKind;
use serde_json::Value;

#[path = "../examples/vectors/world.rs"]
#[allow(dead_code, reason = "the generator needs more of it")]
mod world;

use world::{Dice, NOW};

fn other(suite: Suite) -> Hpke<HpkeLibcrux> {
    let kem = match suite {
        Suite::Hybrid => KemAlgorithm::XWingDraft06,
        Suite::Classical => KemAlgorithm::DhKem25519,
    };
    Hpke::new(Mode::Base, kem, KdfAlgorithm::HkdfSha256, AeadAlgorithm::ChaCha20Poly1305)
}

/// The key as the other implementation takes it: the same 32 bytes in both suites.
fn private(key: &PrekeyPrivate) -> HpkePrivateKey {
    HpkePrivateKey::new(key.expose_seed().to_vec())
}

#[test]
fn it_opens_what_is_sealed_here() {
    let phone = world::phone();
    for suite in [Suite::Hybrid, Suite::Classical] {
        let context = phone.context("interoperate");
        let envelope = Envelope {
            tenant: context.tenant.clone(),
            transport_id: context.transport_id,
            expires_at: context.expires_at,
        };
        let prekey = phone.verified(suite, PrekeyKind::OneTime);
        let notification = notification();
        let mut dice = Dice::new("interoperate");
        let sealed = seal(&notification, &envelope, &prekey, &world::sender(suite), NOW, &mut dice).unwrap();
        let message = SealedMessage::read(&sealed.bytes).unwrap();
        let key = private(phone.private(suite, PrekeyKind::OneTime));
        let associated_data = message.associated_data(&context);
        let padded = other(suite)
            .open(message.encapsulated_key, &key, b"", &associated_data, message.ciphertext, None, None, None)
            .unwrap();
        let signed = SignedMessage::read(padding::unpad(&padded).unwrap()).unwrap();
        let verified = signed.verify(&context, &world::trust("st-mary"), NOW).unwrap();
        assert_eq!(verified.frame, Frame::Notification(Box::new(notification)));
    }
}

#[test]
fn what_it_seals_opens_here() {
    let phone = world::phone();
    for suite in [Suite::Hybrid, Suite::Classical] {
        let context = phone.context("interoperate");
        let key = phone.private(suite, PrekeyKind::Signed);
        let certificate = world::signed_certificate("st-mary", Purpose::Send, "lab");
        let signed = notification().sign(&context, &world::key("lab"), &certificate).unwrap();
        let header = SealedHeader::new(suite, key.id());
        let public = HpkePublicKey::new(key.public_key());
        let padded = padding::pad(&signed).unwrap();
        let (ek, ciphertext) = other(suite)
            .seal(&public, b"", &header.associated_data(&context), &padded, None, None, None)
            .unwrap();
        let sealed = header.finish(&ek, &ciphertext);
        let opened = open(&sealed, &context, key, &world::trust("st-mary"), NOW).unwrap();
        assert_eq!(opened.frame, Frame::Notification(Box::new(notification())));
    }
}

#[test]
fn it_agrees_with_the_drafts_x_wing() {
    let file: Value = serde_json::from_str(include_str!("../../../tests/vectors/hpke.json")).unwrap();
    let vector = &file[1];
    let field = |name: &str| HEXLOWER.decode(vector[name].as_str().unwrap().as_bytes()).unwrap();
    let key = HpkePrivateKey::new(field("skRm"));
    let mut receiver =
        other(Suite::Hybrid).setup_receiver(&field("enc"), &key, &field("info"), None, None, None).unwrap();
    let first = &vector["encryptions"][0];
    let part = |name: &str| HEXLOWER.decode(first[name].as_str().unwrap().as_bytes()).unwrap();
    assert_eq!(receiver.open(&part("aad"), &part("ct")).unwrap(), part("pt"));
}

fn notification() -> Notification {
    let text = Text { title: "Merhaba".to_owned(), body: "Sonucunuz hazır.".to_owned() };
    Notification {
        id: NotificationId(world::id("interoperate")),
        revision: 1,
        created: NOW,
        priority: Priority::Normal,
        category: "lab-result".to_owned(),
        sensitivity: Sensitivity::Private,
        texts: [("tr".to_owned(), text)].into(),
        parts: Vec::new(),
        replies: Vec::new(),
        attachments: Vec::new(),
        head: None,
    }
}
