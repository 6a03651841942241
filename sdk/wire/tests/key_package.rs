//! Key packages: those of the MLS working group are read and their signatures hold; of our own, each fault is
//! refused with its code, and no change of a byte goes unnoticed.

use data_encoding::HEXLOWER;
use proptest::prelude::*;
use sealpost_wire::admission::Admission;
use sealpost_wire::certificate::{Certificate, Purpose};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{CertificateId, DeviceId, TenantId, TicketId};
use sealpost_wire::key::{RequestKey, SigningKey};
use sealpost_wire::key_package::{
    KeyPackageDraft, KeyPackageError, KeyPackageOwner, Lifetime, MlsSuite, SignedKeyPackage,
};
use sealpost_wire::limits::{
    CLOCK_SKEW_SECONDS_MAX, KEY_PACKAGE_BYTES_MAX, KEY_PACKAGE_LIFETIME_SECONDS_MAX,
    MEMBER_CREDENTIAL_BYTES_MAX,
};
use sealpost_wire::member::{MailboxStatement, MemberCredential};
use sealpost_wire::message::Suite;
use sealpost_wire::record::DeviceRecord;
use sealpost_wire::status::TenantStatus;
use sealpost_wire::trust::TenantTrust;
use serde_json::Value;

const NOW: UnixTime = UnixTime(1_800_000_000);
const DEVICE: DeviceId = DeviceId([0xd1; 16]);

#[test]
fn key_packages_of_the_working_group_are_read_and_their_signatures_hold() {
    let cases = include_str!("../../../tests/vectors/mls/passive-client-welcome.json");
    let cases: Vec<Value> = serde_json::from_str(cases).unwrap();
    assert_eq!(cases.len(), 8);
    let world = World::new();
    for case in cases {
        let message = hex(&case["key_package"]);
        let bytes = message.strip_prefix(&[0, 1, 0, 5]).expect("an MLSMessage with a key package");
        let package = SignedKeyPackage::read(bytes).unwrap();
        assert_eq!(package.suite(), MlsSuite::Classical);
        assert_eq!(package.verify_signatures(), Ok(()));
        let seed = hex(&case["signature_priv"]).try_into().unwrap();
        assert_eq!(package.signature_key(), &SigningKey::from_seed(&seed).verifying_key());
        // The welcome names the key package that it is for.
        let reference = [&[32], &package.reference().as_bytes()[..]].concat();
        assert!(hex(&case["welcome"]).windows(33).any(|window| window == reference));
        // They live for a year, and nobody here knows them.
        let verified = package.verify(&mut world.owner(), NOW).map(|_| ());
        assert_eq!(verified, Err(KeyPackageError::WrongLifetime));
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] ^= 1;
            let is_noticed =
                SignedKeyPackage::read(&changed).map_or(true, |read| read.verify_signatures().is_err());
            assert!(is_noticed, "byte {at}");
            assert!(SignedKeyPackage::read(&bytes[..at]).is_err(), "cut off at {at}");
        }
    }
}

#[test]
fn what_is_written_is_read_and_verified() {
    let world = World::new();
    for suite in MlsSuite::ALL {
        for is_last_resort in [false, true] {
            let draft = KeyPackageDraft {
                suite,
                init_key: vec![1; suite.public_key_bytes()],
                encryption_key: vec![2; suite.public_key_bytes()],
                credential: credential(&world.admission),
                lifetime: lifetime(),
                is_last_resort,
            };
            let bytes = draft.sign(&world.identity);
            let parts = Parts { suite: suite.code(), ..world.parts() }.with_keys(suite.public_key_bytes());
            let listed = if is_last_resort { vec![10] } else { Vec::new() };
            let extensions = listed.iter().map(|kind| (*kind, Vec::new())).collect();
            let parts = parts.with_capability(2, listed.clone()).with_capability(1, vec![suite.code()]);
            assert_eq!(
                bytes,
                Parts { extensions, ..parts }.sign(&world.identity),
                "two writers, the same bytes"
            );
            let package = SignedKeyPackage::read(&bytes).unwrap();
            let verified = package.verify(&mut world.owner(), NOW).unwrap();
            assert_eq!(verified.package().suite(), suite);
            assert_eq!(verified.package().is_last_resort(), is_last_resort);
            assert_eq!(verified.package().lifetime(), lifetime());
        }
    }
    assert!(MlsSuite::ALL.iter().all(|suite| MlsSuite::from_code(suite.code()) == Some(*suite)));
}

#[test]
fn a_key_package_of_the_largest_parts_fits() {
    let world = World::new();
    // Two X-Wing keys, and an admission and a mailbox statement as large as they may be.
    let parts = Parts { suite: 0x4d, identity: vec![0; MEMBER_CREDENTIAL_BYTES_MAX], ..world.parts() };
    let parts = parts.with_keys(1216).with_capability(1, vec![3, 0x4d]);
    assert!(SignedKeyPackage::read(&parts.sign(&world.identity)).is_ok());
}

#[test]
fn each_fault_has_its_code() {
    let world = World::new();
    let other = World::new();
    let stranger = SigningKey::generate(&mut rng());
    type Change<'c> = Box<dyn Fn(Parts) -> Parts + 'c>;
    let cases: Vec<(&str, Change<'_>, &str)> = vec![
        ("another version", Box::new(|parts| Parts { version: 2, ..parts }), "unknown_version"),
        ("another suite", Box::new(|parts| Parts { suite: 1, ..parts }), "unknown_suite"),
        ("keys of another suite", Box::new(|parts| Parts { suite: 0x4d, ..parts }), "wrong_value"),
        ("an init key too long", Box::new(|parts| Parts { init_key: vec![1; 33], ..parts }), "wrong_value"),
        (
            "a leaf key too short",
            Box::new(|parts| Parts { encryption_key: vec![2; 31], ..parts }),
            "wrong_value",
        ),
        ("one key twice", Box::new(|parts| Parts { init_key: vec![2; 32], ..parts }), "repeated_key"),
        (
            "a signature key of P-256",
            Box::new(|parts| Parts { signature_key: vec![4; 65], ..parts }),
            "wrong_value",
        ),
        (
            "a signature key of small order",
            Box::new(|parts| Parts { signature_key: vec![0; 32], ..parts }),
            "wrong_value",
        ),
        ("a certificate chain", Box::new(|parts| Parts { credential: 2, ..parts }), "wrong_credential"),
        ("a leaf of an update", Box::new(|parts| Parts { source: 2, ..parts }), "wrong_leaf_source"),
        ("a leaf of a commit", Box::new(|parts| Parts { source: 3, ..parts }), "wrong_leaf_source"),
        ("no version of MLS", Box::new(|parts| parts.with_capability(0, Vec::new())), "missing_capability"),
        ("without its suite", Box::new(|parts| parts.with_capability(1, vec![1])), "missing_capability"),
        (
            "without basic credentials",
            Box::new(|parts| parts.with_capability(4, vec![2])),
            "missing_capability",
        ),
        (
            "a last resort that it does not list",
            Box::new(|parts| Parts { extensions: vec![(10, Vec::new())], ..parts }),
            "missing_capability",
        ),
        (
            "an extension of the leaf that it does not list",
            Box::new(|parts| Parts { leaf_extensions: vec![(0xf5ea, Vec::new())], ..parts }),
            "missing_capability",
        ),
        (
            "an extension of the type 0",
            Box::new(|parts| Parts { leaf_extensions: vec![(0, Vec::new())], ..parts }),
            "missing_capability",
        ),
        (
            "an extension twice",
            Box::new(|parts| Parts { leaf_extensions: vec![(1, Vec::new()), (1, vec![7])], ..parts }),
            "wrong_value",
        ),
        (
            "17 extensions",
            Box::new(|parts| {
                let kinds: Vec<u16> = (100..117).collect();
                let extensions = kinds.iter().map(|kind| (*kind, Vec::new())).collect();
                Parts { extensions, ..parts.with_capability(2, kinds) }
            }),
            "wrong_value",
        ),
        (
            "an end before the beginning",
            Box::new(|parts| Parts { not_after: NOW.0 - 3601, ..parts }),
            "wrong_lifetime",
        ),
        (
            "a lifetime too long",
            Box::new(|parts| Parts {
                not_after: parts.not_before + KEY_PACKAGE_LIFETIME_SECONDS_MAX + 1,
                ..parts
            }),
            "wrong_lifetime",
        ),
        (
            "all of time",
            Box::new(|parts| Parts { not_before: 0, not_after: u64::MAX, ..parts }),
            "wrong_lifetime",
        ),
        (
            "begun too late",
            Box::new(|parts| Parts { not_before: NOW.0 + CLOCK_SKEW_SECONDS_MAX + 1, ..parts }),
            "key_package_not_yet_valid",
        ),
        ("over", Box::new(|parts| Parts { not_after: NOW.0, ..parts }), "key_package_expired"),
        ("no credential", Box::new(|parts| Parts { identity: Vec::new(), ..parts }), "truncated"),
        (
            "an admission without its map",
            Box::new(|parts| Parts { identity: world.admission.clone(), ..parts }),
            "wrong_type",
        ),
        (
            "a credential with more behind it",
            Box::new(|parts| Parts { identity: [&parts.identity[..], &[0]].concat(), ..parts }),
            "trailing_bytes",
        ),
        (
            "another tenant's device",
            Box::new(|parts| Parts { identity: credential(&other.admission), ..parts }),
            "unknown_root",
        ),
        (
            "another device's admission",
            Box::new(|parts| Parts {
                identity: credential(&world.admission_of(DeviceId([1; 16]), &world.identity)),
                ..parts
            }),
            "wrong_device",
        ),
        (
            "an admission of another identity",
            Box::new(|parts| Parts { identity: credential(&world.admission_of(DEVICE, &stranger)), ..parts }),
            "wrong_device",
        ),
        (
            "another key than the device's",
            Box::new(|parts| Parts { signature_key: stranger.verifying_key().as_bytes().to_vec(), ..parts }),
            "wrong_device",
        ),
    ];
    for (name, change, code) in cases {
        let bytes = change(world.parts()).sign(&world.identity);
        assert_eq!(world.verified(&bytes), Err(code), "{name}");
    }

    let good = world.parts().sign(&world.identity);
    assert_eq!(world.verified(&good), Ok(()));
    assert_eq!(world.verified(&[&good[..], &[0]].concat()), Err("trailing_bytes"));
    assert_eq!(world.verified(&vec![0; KEY_PACKAGE_BYTES_MAX + 1]), Err("too_large"));
    assert_eq!(world.verified(&good[..good.len() - 1]), Err("truncated"));
    // The length of the init key in two bytes, signed so.
    let mut long = world.parts();
    long.is_long = true;
    assert_eq!(world.verified(&long.sign(&world.identity)), Err("not_deterministic"));
    assert_eq!(world.verified(&world.parts().sign(&stranger)), Err("bad_signature"));
    let swapped = Parts { labels: ("KeyPackageTBS", "LeafNodeTBS"), ..world.parts() };
    assert_eq!(world.verified(&swapped.sign(&world.identity)), Err("bad_signature"));
    let leaf_only = Parts { labels: ("LeafNodeTBS", "LeafNodeTBS"), ..world.parts() };
    assert_eq!(world.verified(&leaf_only.sign(&world.identity)), Err("bad_signature"));
    let package_only = Parts { labels: ("KeyPackageTBS", "KeyPackageTBS"), ..world.parts() };
    assert_eq!(world.verified(&package_only.sign(&world.identity)), Err("bad_signature"));
}

#[test]
fn what_is_at_the_edge_is_taken() {
    let world = World::new();
    let cases = [
        ("its last second", Parts { not_after: NOW.0 + 1, ..world.parts() }),
        ("a clock ahead", Parts { not_before: NOW.0 + CLOCK_SKEW_SECONDS_MAX, ..world.parts() }),
        (
            "the longest lifetime",
            Parts { not_after: world.parts().not_before + KEY_PACKAGE_LIFETIME_SECONDS_MAX, ..world.parts() },
        ),
        (
            "an application id, which every client knows",
            Parts { leaf_extensions: vec![(1, vec![7])], ..world.parts() },
        ),
        (
            "an unknown extension that is listed",
            Parts {
                leaf_extensions: vec![(0x1a1a, vec![7])],
                ..world.parts().with_capability(2, vec![0x1a1a])
            },
        ),
        ("grease among the suites", world.parts().with_capability(1, vec![0x0a0a, 3, 0xdada])),
    ];
    for (name, parts) in cases {
        assert_eq!(world.verified(&parts.sign(&world.identity)), Ok(()), "{name}");
    }
}

#[test]
fn a_mailbox_says_whose_it_is_and_a_wrong_statement_is_refused() {
    let world = World::new();
    let verified = |world: &World, (key, certificate): (SigningKey, Vec<u8>), identity| {
        let tenant = world.trust.tenant().clone();
        let statement = MailboxStatement { tenant, device: DEVICE, identity, issued: NOW };
        let statement = Some(statement.sign(&key, &certificate).unwrap());
        let identity = MemberCredential { admission: world.admission.clone(), statement }.to_bytes();
        world.verified(&Parts { identity, ..world.parts() }.sign(&world.identity))
    };
    let own = world.identity.verifying_key().digest();
    assert_eq!(verified(&world, world.certified(Purpose::Send), own), Ok(()));
    assert_eq!(verified(&world, world.certified(Purpose::Enrol), own), Err("wrong_purpose"));
    assert_eq!(verified(&world, World::new().certified(Purpose::Send), own), Err("unknown_root"));
    let other = SigningKey::generate(&mut rng()).verifying_key().digest();
    assert_eq!(verified(&world, world.certified(Purpose::Send), other), Err("wrong_device"));
}

#[test]
fn a_revoked_device_has_no_key_packages() {
    let mut world = World::new();
    let bytes = world.parts().sign(&world.identity);
    assert_eq!(world.verified(&bytes), Ok(()));
    let (key, certificate) = world.certified(Purpose::Revoke);
    let status = TenantStatus {
        tenant: world.trust.tenant().clone(),
        sequence: 1,
        issued: NOW,
        revoked_keys: Vec::new(),
        revoked_devices: vec![DEVICE],
    };
    world.trust.accept_status(&status.sign(&key, &certificate).unwrap(), NOW).unwrap();
    assert_eq!(world.verified(&bytes), Err("device_revoked"));
}

#[test]
fn a_credential_that_was_believed_is_no_pass_for_another() {
    let (world, other) = (World::new(), World::new());
    let good = world.parts().sign(&world.identity);
    let foreign = Parts { identity: credential(&other.admission), ..world.parts() }.sign(&world.identity);
    let mut owner = world.owner();
    for _ in 0..2 {
        assert!(SignedKeyPackage::read(&good).unwrap().verify(&mut owner, NOW).is_ok());
        assert!(SignedKeyPackage::read(&foreign).unwrap().verify(&mut owner, NOW).is_err());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes: Vec<u8>, head in prop::bool::ANY) {
        let start: &[u8] = if head { &[0, 1, 0, 3, 32] } else { &[] };
        let bytes = [start, &bytes].concat();
        if let Ok(package) = SignedKeyPackage::read(&bytes) {
            let _reference = package.reference();
        }
    }

    #[test]
    fn no_change_goes_unnoticed(at in any::<prop::sample::Index>(), kind in 0..3_u8, byte in 1..=u8::MAX) {
        let world = World::fixed();
        let good = world.parts().sign(&world.identity);
        let mut changed = good.clone();
        let at = at.index(good.len());
        match kind {
            0 => changed[at] ^= byte,
            1 => changed.insert(at, byte),
            _ => drop(changed.remove(at)),
        }
        prop_assume!(changed != good);
        prop_assert!(world.verified(&changed).is_err());
    }
}

/// A tenant with one admitted device.
struct World {
    root: SigningKey,
    identity: SigningKey,
    trust: TenantTrust,
    enrol: (SigningKey, Vec<u8>),
    admission: Vec<u8>,
}

impl World {
    fn new() -> Self {
        Self::of(SigningKey::generate(&mut rng()), SigningKey::generate(&mut rng()))
    }

    fn fixed() -> Self {
        Self::of(SigningKey::from_seed(&[1; 32]), SigningKey::from_seed(&[2; 32]))
    }

    fn of(root: SigningKey, identity: SigningKey) -> Self {
        let trust = TenantTrust::new("st-mary".parse().unwrap(), vec![root.verifying_key()]);
        let mut world = Self {
            enrol: (SigningKey::from_seed(&[3; 32]), Vec::new()),
            admission: Vec::new(),
            root,
            identity,
            trust,
        };
        world.enrol = world.certified(Purpose::Enrol);
        world.admission = world.admission_of(DEVICE, &world.identity);
        world
    }

    fn certified(&self, purpose: Purpose) -> (SigningKey, Vec<u8>) {
        let key = SigningKey::from_seed(&[3; 32]);
        let certificate = Certificate {
            tenant: self.trust.tenant().clone(),
            purpose,
            subject: "portal".parse().unwrap(),
            id: CertificateId([4; 16]),
            key: RequestKey::Ed25519(key.verifying_key()),
            not_before: NOW.minus(86_400),
            not_after: NOW.plus(86_400),
            roles: Vec::new(),
        };
        (key, certificate.sign(&self.root).unwrap())
    }

    fn admission_of(&self, device: DeviceId, identity: &SigningKey) -> Vec<u8> {
        let tenant: TenantId = self.trust.tenant().clone();
        let record = DeviceRecord {
            tenant: tenant.clone(),
            ticket: TicketId([5; 16]),
            device,
            identity_key: identity.verifying_key(),
            request_key: RequestKey::Ed25519(identity.verifying_key()),
            suites: vec![Suite::Classical],
            relay: "https://relay.example".to_owned(),
            created: NOW,
        };
        Admission::sign(&tenant, &record.sign(identity).unwrap(), NOW, &self.enrol.0, &self.enrol.1)
    }

    fn owner(&self) -> KeyPackageOwner<'_> {
        KeyPackageOwner::new(&self.trust, DEVICE, self.identity.verifying_key())
    }

    fn parts(&self) -> Parts {
        Parts {
            version: 1,
            suite: 3,
            init_key: vec![1; 32],
            is_long: false,
            encryption_key: vec![2; 32],
            signature_key: self.identity.verifying_key().as_bytes().to_vec(),
            credential: 1,
            identity: credential(&self.admission),
            capabilities: [vec![1], vec![3], Vec::new(), Vec::new(), vec![1]],
            source: 1,
            not_before: lifetime().not_before.0,
            not_after: lifetime().not_after.0,
            leaf_extensions: Vec::new(),
            extensions: Vec::new(),
            labels: ("LeafNodeTBS", "KeyPackageTBS"),
        }
    }

    fn verified(&self, bytes: &[u8]) -> Result<(), &'static str> {
        let package = SignedKeyPackage::read(bytes).map_err(KeyPackageError::code)?;
        package.verify(&mut self.owner(), NOW).map(|_| ()).map_err(KeyPackageError::code)
    }
}

fn lifetime() -> Lifetime {
    Lifetime { not_before: NOW.minus(3600), not_after: NOW.plus(28 * 86_400) }
}

/// A member credential without a mailbox statement.
fn credential(admission: &[u8]) -> Vec<u8> {
    MemberCredential { admission: admission.to_vec(), statement: None }.to_bytes()
}

/// A key package field by field, right or wrong. Written from RFC 9420, not from the product's own writer.
struct Parts {
    version: u16,
    suite: u16,
    init_key: Vec<u8>,
    /// Whether the length of the init key takes two bytes where one will do.
    is_long: bool,
    encryption_key: Vec<u8>,
    signature_key: Vec<u8>,
    credential: u16,
    identity: Vec<u8>,
    /// Versions, suites, extensions, proposals, credentials.
    capabilities: [Vec<u16>; 5],
    source: u8,
    not_before: u64,
    not_after: u64,
    leaf_extensions: Vec<(u16, Vec<u8>)>,
    extensions: Vec<(u16, Vec<u8>)>,
    /// What leaf and package are signed as.
    labels: (&'static str, &'static str),
}

impl Parts {
    fn with_keys(self, bytes: usize) -> Self {
        Self { init_key: vec![1; bytes], encryption_key: vec![2; bytes], ..self }
    }

    fn with_capability(mut self, at: usize, numbers: Vec<u16>) -> Self {
        self.capabilities[at] = numbers;
        self
    }

    fn sign(&self, key: &SigningKey) -> Vec<u8> {
        let mut leaf = [vector(&self.encryption_key), vector(&self.signature_key)].concat();
        leaf.extend_from_slice(&self.credential.to_be_bytes());
        leaf.extend(vector(&self.identity));
        for numbers in &self.capabilities {
            leaf.extend(vector(&numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<_>>()));
        }
        leaf.push(self.source);
        leaf.extend_from_slice(&self.not_before.to_be_bytes());
        leaf.extend_from_slice(&self.not_after.to_be_bytes());
        leaf.extend(list(&self.leaf_extensions));
        let leaf = signed(leaf, key, self.labels.0);

        let mut package = [self.version.to_be_bytes(), self.suite.to_be_bytes()].concat();
        let init_key = vector(&self.init_key);
        package.extend(if self.is_long { [&[0x40], &init_key[..]].concat() } else { init_key });
        package.extend(leaf);
        package.extend(list(&self.extensions));
        signed(package, key, self.labels.1)
    }
}

fn list(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let one = |(kind, data): &(u16, Vec<u8>)| [&kind.to_be_bytes()[..], &vector(data)].concat();
    vector(&extensions.iter().flat_map(one).collect::<Vec<_>>())
}

fn signed(bytes: Vec<u8>, key: &SigningKey, label: &str) -> Vec<u8> {
    let label = format!("MLS 1.0 {label}");
    let signature = key.sign(&[vector(label.as_bytes()), vector(&bytes)].concat());
    [bytes, vector(&signature)].concat()
}

fn vector(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    let header = match length {
        0..64 => length.to_be_bytes()[3..].to_vec(),
        64..16_384 => (length | 0x4000).to_be_bytes()[2..].to_vec(),
        _ => (length | 0x8000_0000).to_be_bytes().to_vec(),
    };
    [&header, bytes].concat()
}

fn hex(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

fn rng() -> rand_core::UnwrapErr<getrandom::SysRng> {
    rand_core::UnwrapErr(getrandom::SysRng)
}
