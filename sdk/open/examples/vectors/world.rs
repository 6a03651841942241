//! The people and keys of the vectors. Everything follows from names.

use std::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng};
use sealpost_open::PrekeyPrivate;
use sealpost_seal::{DeviceAuthor, SealPolicy, SenderIdentity, SuitePolicy};
use sealpost_wire::admission::Admission;
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::certificate::{Certificate, Purpose, Role};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::context::MessageContext;
use sealpost_wire::id::{CertificateId, DeviceId, TicketId, TransportId};
use sealpost_wire::key::{P256SigningKey, RequestKey, SigningKey};
use sealpost_wire::merkle;
use sealpost_wire::message::Suite;
use sealpost_wire::prekey::{PrekeyKind, PrekeyLeaf, ProvenPrekey, VerifiedPrekey, sign_batch};
use sealpost_wire::record::DeviceRecord;
use sealpost_wire::status::{Revocation, TenantStatus};
use sealpost_wire::trust::TenantTrust;
use sha2::{Digest as _, Sha256};

/// 2027-01-15T08:00:00Z.
pub(crate) const NOW: UnixTime = UnixTime(1_800_000_000);
pub(crate) const DAY: u64 = 86_400;

/// 32 bytes that follow from a name.
pub(crate) fn seed(name: &str) -> [u8; 32] {
    Sha256::digest(format!("sealpost vectors {name}")).into()
}

/// An id that follows from a name.
pub(crate) fn id(name: &str) -> [u8; 16] {
    seed(name)[..16].try_into().unwrap()
}

/// A stream of bytes that follows from a name.
pub(crate) struct Dice {
    seed: [u8; 32],
    drawn: usize,
}

impl Dice {
    pub(crate) fn new(name: &str) -> Self {
        Self { seed: seed(name), drawn: 0 }
    }

    fn byte(&mut self) -> u8 {
        let block: [u8; 32] = Sha256::new()
            .chain_update(self.seed)
            .chain_update(((self.drawn / 32) as u64).to_be_bytes())
            .finalize()
            .into();
        self.drawn += 1;
        block[(self.drawn - 1) % 32]
    }
}

impl TryRng for Dice {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes).map(|()| u32::from_be_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes).map(|()| u64::from_be_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        to.iter_mut().for_each(|byte| *byte = self.byte());
        Ok(())
    }
}

impl TryCryptoRng for Dice {}

/// The Ed25519 key of a name.
pub(crate) fn key(name: &str) -> SigningKey {
    SigningKey::from_seed(&seed(name))
}

/// The P-256 key of a name.
pub(crate) fn p256(name: &str) -> P256SigningKey {
    P256SigningKey::from_bytes(&seed(name)).unwrap()
}

/// A certificate of `tenant` for the key named like its subject, valid for a year around [`NOW`].
pub(crate) fn certificate(tenant: &str, purpose: Purpose, subject: &str) -> Certificate {
    Certificate {
        tenant: tenant.parse().unwrap(),
        purpose,
        subject: subject.parse().unwrap(),
        id: CertificateId(id(&format!("{tenant} certificate {subject}"))),
        key: RequestKey::Ed25519(key(subject).verifying_key()),
        not_before: NOW.minus(180 * DAY),
        not_after: NOW.plus(180 * DAY),
        roles: if purpose == Purpose::Request { vec![Role::Sender] } else { Vec::new() },
    }
}

/// The same, signed by the tenant's root.
pub(crate) fn signed_certificate(tenant: &str, purpose: Purpose, subject: &str) -> Vec<u8> {
    certificate(tenant, purpose, subject).sign(&root(tenant)).unwrap()
}

pub(crate) fn root(tenant: &str) -> SigningKey {
    key(&format!("{tenant} root"))
}

/// Trust in a tenant's root, with no status.
pub(crate) fn trust(tenant: &str) -> TenantTrust {
    TenantTrust::new(tenant.parse().unwrap(), vec![root(tenant).verifying_key()])
}

/// A status of St. Mary's.
pub(crate) fn status(
    sequence: u64,
    revoked: &[(&SigningKey, Revocation)],
    devices: &[DeviceId],
) -> TenantStatus {
    let mut revoked_keys: Vec<_> =
        revoked.iter().map(|(key, reason)| (key.verifying_key().key_id(), *reason)).collect();
    revoked_keys.sort_by_key(|(id, _)| *id);
    let mut revoked_devices = devices.to_vec();
    revoked_devices.sort();
    TenantStatus {
        tenant: "st-mary".parse().unwrap(),
        sequence,
        issued: NOW.minus(30),
        revoked_keys,
        revoked_devices,
    }
}

/// The status' bytes, signed by the security office.
pub(crate) fn signed_status(status: &TenantStatus) -> Vec<u8> {
    status.sign(&key("security"), &signed_certificate("st-mary", Purpose::Revoke, "security")).unwrap()
}

/// The laboratory, which sends by a policy that lets it use `suite`.
pub(crate) fn sender(suite: Suite) -> SenderIdentity {
    let certificate = signed_certificate("st-mary", Purpose::Send, "lab");
    SenderIdentity::new(key("lab"), certificate, policy(suite), &trust("st-mary"), NOW).unwrap()
}

fn policy(suite: Suite) -> SealPolicy {
    let suites = match suite {
        Suite::Hybrid => SuitePolicy::RequireHybrid,
        Suite::Classical => SuitePolicy::AllowClassical,
    };
    SealPolicy { suites, ..SealPolicy::default() }
}

/// The portal's admission of a device.
pub(crate) fn admission(device: &Device) -> Vec<u8> {
    let certificate = signed_certificate("st-mary", Purpose::Enrol, "portal");
    Admission::sign(
        &device.record.tenant,
        &device.record_bytes,
        NOW.minus(90 * DAY),
        &key("portal"),
        &certificate,
    )
}

/// A device that writes by a policy that lets it use `suite`.
pub(crate) fn author(device: &Device, suite: Suite) -> DeviceAuthor {
    DeviceAuthor::new(device.identity.clone(), admission(device), policy(suite), &trust("st-mary")).unwrap()
}

/// A device: its record, and four prekeys in one batch.
pub(crate) struct Device {
    pub(crate) id: DeviceId,
    pub(crate) identity: SigningKey,
    pub(crate) record: DeviceRecord,
    pub(crate) record_bytes: Vec<u8>,
    pub(crate) prekeys: Vec<(PrekeyPrivate, PrekeyLeaf)>,
    pub(crate) batch: Vec<u8>,
}

impl Device {
    pub(crate) fn new(name: &str, suites: &[Suite]) -> Self {
        let identity = key(&format!("{name} identity"));
        let record = DeviceRecord {
            tenant: "st-mary".parse().unwrap(),
            ticket: TicketId(id(&format!("{name} ticket"))),
            device: DeviceId(id(name)),
            identity_key: identity.verifying_key(),
            request_key: RequestKey::P256(p256(&format!("{name} request")).public()),
            suites: suites.to_vec(),
            relay: "https://relay.example".to_owned(),
            created: NOW.minus(90 * DAY),
        };
        let mut dice = Dice::new(&format!("{name} prekeys"));
        let prekeys: Vec<_> = [Suite::Hybrid, Suite::Classical]
            .into_iter()
            .filter(|suite| suites.contains(suite))
            .flat_map(|suite| [(suite, PrekeyKind::Signed), (suite, PrekeyKind::OneTime)])
            .map(|(suite, kind)| {
                let (private, public) = PrekeyPrivate::generate(suite, &mut dice);
                let leaf = PrekeyLeaf {
                    device: record.device,
                    suite,
                    kind,
                    key: public,
                    seal_until: NOW.plus(20 * DAY),
                    open_until: NOW.plus(50 * DAY),
                };
                (private, leaf)
            })
            .collect();
        let leaves: Vec<_> = prekeys.iter().map(|(_, leaf)| leaf.to_bytes()).collect();
        let batch = sign_batch(&record.tenant, record.device, &leaves, NOW.minus(DAY), &identity).unwrap();
        let record_bytes = record.sign(&identity).unwrap();
        Self { id: record.device, identity, record, record_bytes, prekeys, batch }
    }

    fn index(&self, suite: Suite, kind: PrekeyKind) -> usize {
        self.prekeys.iter().position(|(_, leaf)| leaf.suite == suite && leaf.kind == kind).unwrap()
    }

    pub(crate) fn private(&self, suite: Suite, kind: PrekeyKind) -> &PrekeyPrivate {
        &self.prekeys[self.index(suite, kind)].0
    }

    pub(crate) fn proven(&self, suite: Suite, kind: PrekeyKind) -> ProvenPrekey {
        let leaves: Vec<_> = self.prekeys.iter().map(|(_, leaf)| leaf.to_bytes()).collect();
        let index = self.index(suite, kind);
        ProvenPrekey {
            leaf: Base64Url(leaves[index].clone()),
            index: index as u64,
            path: merkle::path(&leaves, index).unwrap(),
            batch: Base64Url(self.batch.clone()),
        }
    }

    pub(crate) fn verified(&self, suite: Suite, kind: PrekeyKind) -> VerifiedPrekey {
        VerifiedPrekey::verify(&self.proven(suite, kind), &self.record, NOW).unwrap()
    }

    /// The context of a message to this device that expires tomorrow.
    pub(crate) fn context(&self, message: &str) -> MessageContext {
        MessageContext {
            tenant: self.record.tenant.clone(),
            transport_id: TransportId(id(message)),
            device: self.id,
            identity: self.record.identity_key.digest(),
            expires_at: NOW.plus(DAY),
        }
    }
}

/// The phone that most messages are for.
pub(crate) fn phone() -> Device {
    Device::new("phone", &[Suite::Hybrid, Suite::Classical])
}

/// Another device of the same person.
pub(crate) fn tablet() -> Device {
    Device::new("tablet", &[Suite::Hybrid, Suite::Classical])
}

/// A device that opens the classical suite only.
pub(crate) fn pager() -> Device {
    Device::new("pager", &[Suite::Classical])
}
