//! Key packages of MLS: as they stand, with fields that nobody would write, and with any credential; signed by the
//! device's key where a signature would stop the fuzzer.

use sealpost_wire::admission::Admission;
use sealpost_wire::key::SigningKey;
use sealpost_wire::key_package::{KeyPackageDraft, KeyPackageOwner, Lifetime, MlsSuite, SignedKeyPackage};
use sealpost_wire::limits::{CLOCK_SKEW_SECONDS_MAX, KEY_PACKAGE_LIFETIME_SECONDS_MAX};
use sealpost_wire::member::MemberCredential;

use crate::world::{DEVICE, NOW, world};

/// Input: which part of a key package, and its bytes. 0: all of it, with its signatures. 1: a byte with the length
/// of the leaf's fields behind the credential, these fields, the extensions behind the leaf. 2: the credential.
pub(crate) fn key_package(input: &[u8]) {
    match input.split_first() {
        Some((0, bytes)) => whole(bytes),
        Some((1, fields)) => with_fields(fields),
        Some((2, credential)) => with_credential(credential),
        _ => {}
    }
}

/// What a device with a library would write.
pub(crate) fn draft(suite: MlsSuite, is_last_resort: bool) -> KeyPackageDraft {
    KeyPackageDraft {
        suite,
        init_key: vec![1; suite.public_key_bytes()],
        encryption_key: vec![2; suite.public_key_bytes()],
        credential: credential(),
        lifetime: Lifetime { not_before: NOW.minus(3600), not_after: NOW.plus(86_400) },
        is_last_resort,
    }
}

/// The member credential of the phone.
pub(crate) fn credential() -> Vec<u8> {
    let world = world();
    let signer = &world.enrol;
    let admission =
        Admission::sign(&world.tenant, &world.record_bytes, NOW, &signer.key, &signer.certificate);
    MemberCredential { admission, statement: None }.to_bytes()
}

/// Inputs of the second kind, without their first byte.
pub(crate) fn fields() -> Vec<Vec<u8>> {
    let lifetime = [NOW.minus(3600).0.to_be_bytes(), NOW.plus(86_400).0.to_be_bytes()].concat();
    // Versions, suites, extensions, proposals, credentials, source.
    let plain = [&[2, 0, 1, 2, 0, 3, 0, 0, 2, 0, 1, 1], &lifetime[..], &[0]].concat();
    let full = [
        &[2, 0, 1, 6, 0x0a, 0x0a, 0, 3, 0, 0x4d, 4, 0, 10, 0xf5, 0xea, 2, 0, 8, 4, 0, 1, 0, 2, 1],
        &lifetime[..],
        &[9, 0, 1, 1, 7, 0xf5, 0xea, 2, 8, 9],
    ]
    .concat();
    let with = |leaf: &[u8], extensions: &[u8]| {
        [&[u8::try_from(leaf.len()).expect("a short leaf")], leaf, extensions].concat()
    };
    vec![with(&plain, &[0]), with(&full, &[3, 0, 10, 0])]
}

fn whole(bytes: &[u8]) {
    let Ok(package) = SignedKeyPackage::read(bytes) else { return };
    assert!(SignedKeyPackage::read(&[bytes, &[0]].concat()).is_err(), "bytes behind the end");
    assert!(SignedKeyPackage::read(&bytes[..bytes.len() - 1]).is_err(), "bytes that end early");
    if package.verify_signatures().is_ok() {
        let mut changed = bytes.to_vec();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        let is_noticed =
            SignedKeyPackage::read(&changed).map_or(true, |read| read.verify_signatures().is_err());
        assert!(is_noticed, "another package under the same signatures");
    }
    if let Ok(verified) = package.verify(&mut owner(), NOW) {
        check_verified(verified.package());
    }
}

fn with_fields(input: &[u8]) {
    let Some((length, input)) = input.split_first() else { return };
    let Some((fields, extensions)) = input.split_at_checked(usize::from(*length)) else { return };
    let identity = &world().identity;
    let mut leaf = [vector(&[2; 32]), vector(identity.verifying_key().as_bytes()), vec![0, 1]].concat();
    leaf.extend(vector(&credential()));
    leaf.extend_from_slice(fields);
    let leaf = signed(leaf, identity, "LeafNodeTBS");
    let package = [vec![0, 1, 0, 3], vector(&[1; 32]), leaf, extensions.to_vec()].concat();
    let bytes = signed(package, identity, "KeyPackageTBS");
    let Ok(package) = SignedKeyPackage::read(&bytes) else { return };
    // Fields that hold what looks like a signature end the leaf before its own.
    if package.verify_signatures().is_err() {
        return;
    }
    assert_eq!(package.credential(), credential());
    assert_eq!((package.suite(), package.signature_key()), (MlsSuite::Classical, &identity.verifying_key()));
    if let Ok(verified) = package.verify(&mut owner(), NOW) {
        check_verified(verified.package());
    }
}

fn with_credential(credential: &[u8]) {
    let draft = KeyPackageDraft { credential: credential.to_vec(), ..draft(MlsSuite::Classical, false) };
    let bytes = draft.sign(&world().identity);
    let Ok(package) = SignedKeyPackage::read(&bytes) else { return };
    assert_eq!((package.credential(), package.verify_signatures()), (credential, Ok(())));
    let mut owner = owner();
    let first = package.verify(&mut owner, NOW).map(|_| ());
    assert_eq!(package.verify(&mut owner, NOW).map(|_| ()), first, "what is remembered changes nothing");
}

fn check_verified(package: &SignedKeyPackage<'_>) {
    let Lifetime { not_before, not_after } = package.lifetime();
    assert!(not_after > NOW && not_before <= NOW.plus(CLOCK_SKEW_SECONDS_MAX));
    assert!(not_after.0 - not_before.0 <= KEY_PACKAGE_LIFETIME_SECONDS_MAX);
    assert_eq!(package.signature_key(), &world().identity.verifying_key());
}

fn owner() -> KeyPackageOwner<'static> {
    KeyPackageOwner::new(&world().trust, DEVICE, world().identity.verifying_key())
}

/// SignWithLabel (RFC 9420 section 5.1.2), and the signature behind what it signs.
fn signed(bytes: Vec<u8>, key: &SigningKey, label: &str) -> Vec<u8> {
    let label = format!("MLS 1.0 {label}");
    let signature = key.sign(&[vector(label.as_bytes()), vector(&bytes)].concat());
    [bytes, vector(&signature)].concat()
}

/// `opaque x<V>` (section 2.1.2) of less than 16384 bytes.
fn vector(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("a short vector");
    let header = match length {
        0..64 => length.to_be_bytes()[1..].to_vec(),
        _ => (length | 0x4000).to_be_bytes().to_vec(),
    };
    [&header, bytes].concat()
}
