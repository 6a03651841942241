//! Signed structures. The input of most targets is a payload: it is signed by the key that may, so that the
//! reader behind the signature is reached; what it accepts is signed anew by the product's own writer, and must
//! give the same bytes.

use sealpost_wire::admission::Admission;
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::certificate::{Purpose, SignedCertificate};
use sealpost_wire::device_set::{DeviceSet, DeviceSetDraft};
use sealpost_wire::key_package::SignedKeyPackage;
use sealpost_wire::limits::{DEVICES_PER_SET_MAX, PREKEYS_PER_BATCH_MAX};
use sealpost_wire::member::{MailboxStatement, MemberCredential};
use sealpost_wire::message::{SealedMessage, SignedMessage};
use sealpost_wire::order::WipeOrder;
use sealpost_wire::prekey::{PrekeyBatch, PrekeyLeaf, ProvenPrekey, VerifiedPrekey};
use sealpost_wire::receipt::SignedReceipt;
use sealpost_wire::record::{DeviceRecord, Enrolment, enrol};
use sealpost_wire::status::SignedStatus;
use sealpost_wire::ticket::EnrolmentLink;

use crate::cose::{self, sign1};
use crate::world::{DEVICE, NOW, world};

pub(crate) const TYP_CERTIFICATE: &str = "sealpost-certificate-v1+cose";
pub(crate) const TYP_STATUS: &str = "sealpost-status-v1+cose";
pub(crate) const TYP_ADMISSION: &str = "sealpost-admission-v1+cose";
pub(crate) const TYP_MAILBOX: &str = "sealpost-mailbox-v1+cose";
pub(crate) const TYP_WIPE: &str = "sealpost-wipe-v1+cose";
pub(crate) const TYP_RECORD: &str = "sealpost-record-v1+cose";
pub(crate) const TYP_DEVICE_SET: &str = "sealpost-device-set-v1+cose";
pub(crate) const TYP_PREKEYS: &str = "sealpost-prekeys-v1+cose";
pub(crate) const TYP_RECEIPT: &str = "sealpost-receipt-v1+cose";
pub(crate) const TYP_UNOPENABLE: &str = "sealpost-unopenable-v1+cose";

/// Input: a certificate's payload.
pub(crate) fn certificate(payload: &[u8]) {
    let world = world();
    let bytes = sign1(&world.root, TYP_CERTIFICATE, None, payload, &[]);
    let Ok(read) = SignedCertificate::read(&bytes) else { return };
    let certificate = read.verify(&[world.root.verifying_key()]).expect("the root signed it");
    assert_eq!(certificate.sign(&world.root).as_ref(), Ok(&bytes));
    assert_eq!(certificate.ed25519().is_ok(), certificate.key.as_bytes().len() == 32);
    if certificate.tenant == world.tenant {
        let trusted = world.trust.certificate(&bytes, certificate.purpose, certificate.not_before);
        assert_eq!(trusted.as_ref(), Ok(&certificate));
        let other = if certificate.purpose == Purpose::Send { Purpose::Enrol } else { Purpose::Send };
        assert!(world.trust.certificate_at_any_time(&bytes, other).is_err(), "one key, one purpose");
    }
}

/// Input: a tenant status' payload.
pub(crate) fn tenant_status(payload: &[u8]) {
    let world = world();
    let signer = &world.revoke;
    let bytes = sign1(&signer.key, TYP_STATUS, Some(&signer.certificate), payload, &[]);
    let Ok(read) = SignedStatus::read(&bytes) else { return };
    let Ok(status) = read.verify(&world.trust, NOW) else { return };
    assert_eq!(status.sign(&signer.key, &signer.certificate).as_ref(), Ok(&bytes));
    let mut trust = world.trust.clone();
    assert_eq!(trust.accept_status(&bytes, NOW), Ok(true));
    for (key, reason) in &status.revoked_keys {
        assert_eq!(status.revocation(*key), Some(*reason));
    }
    for device in &status.revoked_devices {
        assert!(trust.check_device(*device).is_err());
    }
    // A tenant that puts its revoke key out of use by that very key is believed once.
    if status.revocation(signer.key.verifying_key().key_id()).is_none() {
        assert_eq!(trust.accept_status(&bytes, NOW), Ok(false), "the same again changes nothing");
    }
}

/// Input: an admission's payload.
pub(crate) fn admission(payload: &[u8]) {
    let world = world();
    let signer = &world.enrol;
    let bytes = sign1(&signer.key, TYP_ADMISSION, Some(&signer.certificate), payload, &[]);
    let Ok(admission) = Admission::verify(&bytes, &world.trust) else { return };
    assert_eq!(admission.signer, signer.key.verifying_key().key_id());
    let record = admission.record.sign(&world.identity).expect("no other record is signed here");
    let again = Admission::sign(&world.tenant, &record, admission.issued, &signer.key, &signer.certificate);
    assert_eq!(again, bytes);
}

/// Input: a mailbox statement's payload.
pub(crate) fn mailbox_statement(payload: &[u8]) {
    let world = world();
    let signer = &world.send;
    let bytes = sign1(&signer.key, TYP_MAILBOX, Some(&signer.certificate), payload, &[]);
    let verified = MailboxStatement::verify(&bytes, &world.trust, &world.record);
    let credential = MemberCredential { admission: world.admission.clone(), statement: Some(bytes.clone()) };
    let member = credential.verify(&world.trust);
    let Ok((statement, certificate)) = verified else {
        assert!(member.is_err(), "a statement that is refused makes no member");
        return;
    };
    assert_eq!(statement.sign(&signer.key, &signer.certificate), Ok(bytes));
    assert_eq!((statement.device, statement.identity), (DEVICE, world.record.identity_key.digest()));
    assert_eq!(member.map(|member| member.sender), Ok(Some(certificate.subject)));
}

/// Input: a member's credential, as it stands.
pub(crate) fn member_credential(bytes: &[u8]) {
    let world = world();
    let Ok(credential) = MemberCredential::read(bytes) else { return };
    assert_eq!(credential.to_bytes(), bytes);
    let Ok(member) = credential.verify(&world.trust) else { return };
    assert_eq!(Admission::verify(&credential.admission, &world.trust).as_ref(), Ok(&member.admission));
    assert_eq!(member.sender.is_some(), credential.statement.is_some());
    let plain = MemberCredential { statement: None, ..credential };
    assert_eq!(plain.verify(&world.trust).map(|member| member.sender), Ok(None));
}

/// Input: a wipe order's payload.
pub(crate) fn wipe_order(payload: &[u8]) {
    let world = world();
    let signer = &world.revoke;
    let identity = world.identity.verifying_key().digest();
    let bytes = sign1(&signer.key, TYP_WIPE, Some(&signer.certificate), payload, &[]);
    let Ok(order) = WipeOrder::verify(&bytes, &world.trust, DEVICE, identity) else { return };
    assert_eq!(order.sign(&signer.key, &signer.certificate), Ok(bytes));
    assert_eq!((order.device, order.identity), (DEVICE, identity));
}

/// Input: a device record's payload.
pub(crate) fn device_record(payload: &[u8]) {
    let world = world();
    let bytes = sign1(&world.identity, TYP_RECORD, None, payload, &[]);
    let Ok(record) = DeviceRecord::verify(&bytes) else { return };
    assert_eq!(record.sign(&world.identity).as_ref(), Ok(&bytes));
    let binding = world.secret.binding_key();
    let enrolment = enrol(&bytes, &binding);
    let read = Enrolment::read(&enrolment).expect("it holds a record");
    assert_eq!((read.record(), read.record_bytes()), (&record, &bytes[..]));
    assert_eq!(read.verify_binding(&binding), Ok(()));
}

/// Input: a device set's payload.
pub(crate) fn device_set(payload: &[u8]) {
    let world = world();
    let signer = &world.enrol;
    let bytes = sign1(&signer.key, TYP_DEVICE_SET, Some(&signer.certificate), payload, &[]);
    let first = crate::seeds::device_set();
    let (previous, _) = DeviceSet::verify(&first, &world.trust, None).expect("a set");
    if let Ok((set, certificate)) = DeviceSet::verify(&bytes, &world.trust, None) {
        assert_eq!(certificate.purpose, Purpose::Enrol);
        assert!(set.devices.len() <= DEVICES_PER_SET_MAX);
        assert_eq!(set.follows(None), set.version == 1);
        assert_eq!(DeviceSet::verified_before(&bytes).as_ref(), Ok(&set));
        let draft = DeviceSetDraft {
            tenant: set.tenant.clone(),
            recipient: set.recipient,
            version: set.version,
            previous: set.previous,
            records: set.devices.iter().map(|device| device.bytes.clone()).collect(),
            revoked: set.revoked.clone(),
            issued: set.issued,
        };
        assert_eq!(draft.sign(&signer.key, &signer.certificate), Ok(bytes));
        if set.follows(Some(&previous)) {
            assert!(previous.revoked.iter().all(|device| set.revoked.contains(device)));
        }
    }
    // By a revoke key, which may take devices out and put none in.
    let signer = &world.revoke;
    let bytes = sign1(&signer.key, TYP_DEVICE_SET, Some(&signer.certificate), payload, &[]);
    assert!(DeviceSet::verify(&bytes, &world.trust, None).is_err(), "there is nothing to take out of");
    if let Ok((set, _)) = DeviceSet::verify(&bytes, &world.trust, Some(&previous)) {
        assert!(set.devices.iter().all(|device| previous.devices.contains(device)));
    }
}

/// Input: which of the structures around prekeys, and its bytes: a leaf, a batch's payload, a prekey with its
/// proof in JSON.
pub(crate) fn prekeys(input: &[u8]) {
    let world = world();
    match input.split_first() {
        Some((0, leaf)) => {
            if let Ok(read) = PrekeyLeaf::read(leaf) {
                assert_eq!(read.to_bytes(), leaf);
            }
        }
        Some((1, payload)) => {
            let bytes = sign1(&world.identity, TYP_PREKEYS, None, payload, &[]);
            let identity = world.identity.verifying_key();
            let Ok(batch) = PrekeyBatch::verify(&bytes, &world.tenant, DEVICE, &identity) else { return };
            assert!((1..=PREKEYS_PER_BATCH_MAX as u64).contains(&batch.size));
            // It is not kept with its leaves, so the product cannot sign it anew.
            let again = cose::write(|to| {
                to.map(5)?.u8(1)?.str(world.tenant.as_str())?.u8(2)?.bytes(DEVICE.as_bytes())?;
                to.u8(3)?
                    .bytes(batch.root.as_bytes())?
                    .u8(4)?
                    .u64(batch.size)?
                    .u8(5)?
                    .u64(batch.created.0)?;
                Ok(())
            });
            assert_eq!(again, payload);
            let wrong = vec![Base64Url(Vec::new()); usize::try_from(batch.size).unwrap_or_default()];
            assert!(batch.verify_leaves(&wrong, DEVICE).is_err());
        }
        Some((2, json)) => {
            let Ok(proven) = serde_json::from_slice::<ProvenPrekey>(json) else { return };
            let Ok(verified) = VerifiedPrekey::verify(&proven, &world.record, NOW) else { return };
            assert_eq!(verified.leaf().to_bytes(), proven.leaf.as_ref());
            assert_eq!(verified.record(), &world.record);
            assert!(
                verified.leaf().seal_until >= NOW && world.record.suites.contains(&verified.leaf().suite)
            );
        }
        _ => {}
    }
}

/// Input: which type of receipt (even: unopenable), and its payload.
pub(crate) fn receipt(input: &[u8]) {
    let world = world();
    let Some((typ, payload)) = input.split_first() else { return };
    let typ = if typ % 2 == 0 { TYP_UNOPENABLE } else { TYP_RECEIPT };
    let bytes = sign1(&world.identity, typ, None, payload, &[]);
    let Ok(read) = SignedReceipt::read(&bytes) else { return };
    let claimed = read.claimed().clone();
    assert_eq!(claimed.sign(&world.identity), bytes);
    let identity = world.identity.verifying_key();
    let verified = read.verify(&world.tenant, DEVICE, &identity);
    let is_ours = claimed.tenant == world.tenant && claimed.device == DEVICE;
    assert_eq!(verified.ok(), is_ours.then_some(claimed));
}

/// Input: whole structures as they stand, of whatever type. No bytes are two things.
pub(crate) fn envelope(bytes: &[u8]) {
    let world = world();
    let identity = world.identity.verifying_key();
    let mut is = Vec::new();
    let mut note = |name: &'static str, read: bool| {
        if read {
            is.push(name);
        }
    };
    note("certificate", SignedCertificate::read(bytes).is_ok());
    note("status", SignedStatus::read(bytes).is_ok());
    note("admission", Admission::verify(bytes, &world.trust).is_ok());
    note("wipe order", WipeOrder::verify(bytes, &world.trust, DEVICE, identity.digest()).is_ok());
    note("mailbox statement", MailboxStatement::verify(bytes, &world.trust, &world.record).is_ok());
    note("member credential", MemberCredential::read(bytes).is_ok());
    note("record", DeviceRecord::verify(bytes).is_ok());
    note("enrolment", Enrolment::read(bytes).is_ok());
    note("device set", DeviceSet::verified_before(bytes).is_ok());
    note("batch", PrekeyBatch::verify(bytes, &world.tenant, DEVICE, &identity).is_ok());
    note("leaf", PrekeyLeaf::read(bytes).is_ok());
    note("key package", SignedKeyPackage::read(bytes).is_ok());
    note("receipt", SignedReceipt::read(bytes).is_ok());
    note("message", SignedMessage::read(bytes).is_ok());
    note("sealed message", SealedMessage::read(bytes).is_ok());
    assert!(is.len() <= 1, "{is:?}");
    if let Ok(enrolment) = Enrolment::read(bytes)
        && enrolment.verify_binding(&world.secret.binding_key()).is_ok()
    {
        assert_eq!(enrol(enrolment.record_bytes(), &world.secret.binding_key()), bytes);
    }
}

/// Input: an enrolment link, or the CBOR in its fragment.
pub(crate) fn enrolment_link(input: &[u8]) {
    let fragment = Base64Url(input.to_vec());
    let encoded =
        format!("https://portal.example/#sp1.{}", sealpost_wire::base64url::encode(fragment.as_ref()));
    for link in [std::str::from_utf8(input).unwrap_or_default(), &encoded] {
        let Ok(read) = link.parse::<EnrolmentLink>() else { continue };
        let page = link.trim().split_once('#').map_or("", |(page, _)| page);
        assert_eq!(read.to_url(page), link.trim());
        assert!(!format!("{read:?}").contains(&sealpost_wire::base64url::encode(read.secret.expose())));
    }
}
