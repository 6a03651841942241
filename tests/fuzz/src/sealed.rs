//! Sealed messages, and what is inside them.

use sealpost_open::open;
use sealpost_wire::author::{Author, AuthorName};
use sealpost_wire::message::{SealedHeader, SealedMessage, SignedMessage};
use sealpost_wire::padding::{pad, padded_size, unpad};
use sealpost_wire::payload::{Frame, GroupInfoBody, MlsKind, Notification};

use crate::cose::{sign1, sign1_admitted};
use crate::world::{DEVICE, NOW, TRANSPORT, world};

pub(crate) const TYP_NOTIFICATION: &str = "sealpost-notification-v1+cose";
pub(crate) const TYP_MLS: &str = "sealpost-mls-v1+cose";

/// Input: a sealed message. Its prekey is taken for the phone's own, so that decryption is reached.
pub(crate) fn sealed(bytes: &[u8]) {
    let world = world();
    let Ok(read) = SealedMessage::read(bytes) else { return };
    let header = SealedHeader::new(read.suite, read.prekey);
    assert_eq!(header.finish(read.encapsulated_key, read.ciphertext), bytes);
    let context = world.context();
    assert_eq!(read.associated_data(&context), header.associated_data(&context));
    let key = world.prekey(read.suite, read.prekey);
    if open(bytes, &context, &key, &world.trust, NOW).is_ok() {
        let mut other = context;
        other.expires_at = other.expires_at.plus(1);
        assert!(open(bytes, &other, &key, &world.trust, NOW).is_err(), "it opens in its context only");
    }
}

/// Input: a padded message.
pub(crate) fn padding(padded: &[u8]) {
    if let Ok(message) = unpad(padded) {
        assert_eq!(pad(message).as_deref(), Some(padded));
    }
    let own = pad(padded).expect("inputs are short");
    assert_eq!(own.len(), padded_size(padded.len()));
    assert_eq!(unpad(&own), Ok(padded));
}

/// Input: a notification's payload, signed as the sender would and opened as the phone would.
pub(crate) fn notification(payload: &[u8]) {
    let world = world();
    let (sender, context) = (&world.send, world.context());
    let external_aad = context.to_bytes();
    let bytes = sign1(&sender.key, TYP_NOTIFICATION, Some(&sender.certificate), payload, &external_aad);
    let signed = SignedMessage::read(&bytes).expect("the form around it is right");
    let Ok(verified) = signed.verify(&context, &world.trust, NOW) else { return };
    let Frame::Notification(notification) = verified.frame else { panic!("the type says otherwise") };
    assert!(matches!(verified.author, Author::Sender(_)));
    assert_eq!(notification.check(), Ok(()), "what can be read can be written");
    let again = notification.sign(&context, &sender.key, &sender.certificate).expect("it was checked");
    assert_eq!(*again, bytes);
    let json = serde_json::to_vec(&notification).expect("it has a form in JSON");
    let from_json: Notification = serde_json::from_slice(&json).expect("it was written a moment ago");
    assert_eq!(from_json, *notification);
    assert_eq!((context.transport_id, context.device), (TRANSPORT, DEVICE));
}

/// Input: an MLS frame's payload, signed as an admitted device would and opened as the phone would.
pub(crate) fn mls_frame(payload: &[u8]) {
    let world = world();
    let context = world.context();
    let bytes = sign1_admitted(&world.identity, TYP_MLS, &world.admission, payload, &context.to_bytes());
    let signed = SignedMessage::read(&bytes).expect("the form around it is right");
    let Ok(verified) = signed.verify(&context, &world.trust, NOW) else { return };
    assert_eq!(verified.author.name(), AuthorName::Device(DEVICE));
    let Frame::Mls(frame) = verified.frame else { panic!("the type says otherwise") };
    assert_eq!(frame.check(), Ok(()), "what can be read can be written");
    let again = frame.sign(&context, &world.identity, &world.admission).expect("it was checked");
    assert_eq!(*again, bytes);
    assert_eq!(frame.kind == MlsKind::RejoinRequest, frame.body.is_empty());
    if frame.kind == MlsKind::GroupInfo {
        let info = GroupInfoBody::read(&frame.body).expect("the frame was read");
        assert_eq!(*info.to_bytes(), frame.body);
    }
}
