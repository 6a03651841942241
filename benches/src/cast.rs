//! Who takes part in a measurement: a hospital with its keys, and its devices.

mod participant;

use std::ops::Range;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use getrandom::SysRng;
use rand_core::UnwrapErr;
use sealpost_emulators::Clock as _;
use sealpost_open::PrekeyPrivate;
use sealpost_seal::{SealPolicy, SenderIdentity, SuitePolicy};
use sealpost_wire::admission::Admission;
use sealpost_wire::assertion;
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::certificate::{Certificate, Purpose, Role};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{CertificateId, DeviceId, SubjectId, TenantId, TicketId};
use sealpost_wire::key::{RequestKey, RequestSigningKey, SigningKey};
use sealpost_wire::merkle;
use sealpost_wire::message::Suite;
use sealpost_wire::prekey::{PrekeyKind, PrekeyLeaf, ProvenPrekey, VerifiedPrekey, sign_batch};
use sealpost_wire::record::DeviceRecord;
use sealpost_wire::trust::TenantTrust;

pub use self::participant::{Memory, Participant};

use crate::cores;
use crate::error::BenchError;

/// The tenant.
const TENANT: &str = "bench";
/// Its sending system.
const SENDER: &str = "laboratory";
/// Who admits devices.
const ENROLLER: &str = "portal";
/// The address that the relay goes by, in its configuration and in every signature. Nobody looks it up.
pub const RELAY_URL: &str = "http://relay.example";
/// The same without its scheme.
pub const RELAY_AUTHORITY: &str = "relay.example";

const DAY_SECONDS: u64 = 86_400;
/// A little earlier than the relay's clock, which is the same one.
const BACKDATED_SECONDS: u64 = 60;

/// Randomness, as every program of this project makes it at its edge.
#[must_use]
pub fn system_rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

/// The time of day.
#[must_use]
pub fn system_time() -> UnixTime {
    UnixTime(sealpost_emulators::SystemClock.now_ms() / 1000)
}

/// A tenant and its systems.
pub struct Hospital {
    tenant: TenantId,
    root: SigningKey,
    sender: SenderIdentity,
    send: Certified,
    request: Certified,
    enrol: Certified,
    trust: TenantTrust,
    /// When it was made.
    now: UnixTime,
    /// A prekey for each suite, which all devices share: generating one for each would only take time.
    prekeys: [(Suite, PrekeyPrivate, Vec<u8>); 2],
}

struct Certified {
    key: SigningKey,
    certificate: Vec<u8>,
}

impl Hospital {
    /// A new tenant.
    ///
    /// # Errors
    /// [`BenchError::Cast`].
    pub fn new() -> Result<Self, BenchError> {
        let now = system_time();
        let tenant: TenantId = TENANT.parse().map_err(BenchError::cast("the tenant"))?;
        let root = SigningKey::generate(&mut system_rng());
        let trust = TenantTrust::new(tenant.clone(), vec![root.verifying_key()]);
        let certify = |subject, purpose, roles| certify(&tenant, &root, subject, purpose, roles, now);
        let send = certify(SENDER, Purpose::Send, vec![])?;
        let policy = SealPolicy { suites: SuitePolicy::AllowClassical, ..SealPolicy::default() };
        let sender = SenderIdentity::new(send.key.clone(), send.certificate.clone(), policy, &trust, now);
        let prekeys = [Suite::Hybrid, Suite::Classical].map(|suite| {
            let (private, public) = PrekeyPrivate::generate(suite, &mut system_rng());
            (suite, private, public)
        });
        Ok(Self {
            sender: sender.map_err(BenchError::cast("the sender"))?,
            send,
            request: certify(SENDER, Purpose::Request, vec![Role::Sender])?,
            enrol: certify(ENROLLER, Purpose::Enrol, vec![])?,
            tenant,
            root,
            trust,
            now,
            prekeys,
        })
    }

    /// The tenant's id.
    #[must_use]
    pub const fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// The tenant's root as a configuration has it.
    #[must_use]
    pub fn root_hex(&self) -> String {
        HEXLOWER.encode(self.root.verifying_key().as_bytes())
    }

    /// What devices trust.
    #[must_use]
    pub const fn trust(&self) -> &TenantTrust {
        &self.trust
    }

    /// The sending system.
    #[must_use]
    pub const fn sender(&self) -> &SenderIdentity {
        &self.sender
    }

    /// When it was made; certificates are valid for a day around it.
    #[must_use]
    pub const fn now(&self) -> UnixTime {
        self.now
    }

    /// The private half of the prekey that devices have for `suite`.
    #[must_use]
    pub fn private_prekey(&self, suite: Suite) -> &PrekeyPrivate {
        let [(hybrid, hybrid_key, _), (_, classical_key, _)] = &self.prekeys;
        if *hybrid == suite { hybrid_key } else { classical_key }
    }

    /// What the sending system shows at the relay's token endpoint.
    #[must_use]
    pub fn assertion(&self, now: UnixTime) -> String {
        let client = format!("{TENANT}/{SENDER}");
        let audience = format!("{RELAY_URL}/v1/token");
        let key = RequestSigningKey::Ed25519(self.request.key.clone());
        assertion::sign(&client, &audience, &self.request.certificate, &key, now, &mut system_rng())
    }

    /// A new device with a prekey of `suite`, admitted by the tenant.
    ///
    /// # Errors
    /// [`BenchError::Cast`].
    pub fn enrol(&self, suite: Suite) -> Result<Device, BenchError> {
        let mut rng = system_rng();
        let identity = SigningKey::generate(&mut rng);
        let record = DeviceRecord {
            tenant: self.tenant.clone(),
            ticket: TicketId([1; 16]),
            device: DeviceId::random(&mut rng),
            identity_key: identity.verifying_key(),
            request_key: RequestKey::Ed25519(identity.verifying_key()),
            suites: vec![suite],
            relay: RELAY_URL.to_owned(),
            created: self.now,
        };
        let signed = record.sign(&identity).map_err(BenchError::cast("a record"))?;
        let Certified { key, certificate } = &self.enrol;
        let admission = Admission::sign(&self.tenant, &signed, self.now, key, certificate);
        let prekey = self.prekey(suite, &record, &identity)?;
        Ok(Device {
            id: record.device,
            identity: identity.clone(),
            request_key: RequestSigningKey::Ed25519(identity),
            admission: Base64Url(admission),
            prekey,
        })
    }

    /// The prekey of a device as a sender has it: proven and verified.
    fn prekey(
        &self,
        suite: Suite,
        record: &DeviceRecord,
        identity: &SigningKey,
    ) -> Result<VerifiedPrekey, BenchError> {
        let public = self.prekeys.iter().find(|(of, ..)| *of == suite).map(|(_, _, public)| public.clone());
        let leaf = PrekeyLeaf {
            device: record.device,
            suite,
            kind: PrekeyKind::Signed,
            key: public.unwrap_or_default(),
            seal_until: self.now.plus(DAY_SECONDS),
            open_until: self.now.plus(2 * DAY_SECONDS),
        };
        let leaves = [leaf.to_bytes()];
        let batch = sign_batch(&self.tenant, record.device, &leaves, self.now, identity);
        let proven = ProvenPrekey {
            path: merkle::path(&leaves, 0).unwrap_or_default(),
            index: 0,
            batch: Base64Url(batch.map_err(BenchError::cast("a prekey batch"))?),
            leaf: Base64Url(leaves.into_iter().next().unwrap_or_default()),
        };
        VerifiedPrekey::verify(&proven, record, self.now).map_err(BenchError::cast("a prekey"))
    }
}

fn certify(
    tenant: &TenantId,
    root: &SigningKey,
    subject: &str,
    purpose: Purpose,
    roles: Vec<Role>,
    now: UnixTime,
) -> Result<Certified, BenchError> {
    let subject: SubjectId = subject.parse().map_err(BenchError::cast("a subject"))?;
    let key = SigningKey::generate(&mut system_rng());
    let certificate = Certificate {
        tenant: tenant.clone(),
        purpose,
        subject,
        id: CertificateId::random(&mut system_rng()),
        key: RequestKey::Ed25519(key.verifying_key()),
        not_before: now.minus(BACKDATED_SECONDS),
        not_after: now.plus(DAY_SECONDS),
        roles,
    };
    let certificate = certificate.sign(root).map_err(BenchError::cast("a certificate"))?;
    Ok(Certified { key, certificate })
}

/// A device of a patient.
pub struct Device {
    id: DeviceId,
    identity: SigningKey,
    request_key: RequestSigningKey,
    admission: Base64Url,
    prekey: VerifiedPrekey,
}

impl Device {
    /// The device's id.
    #[must_use]
    pub const fn id(&self) -> DeviceId {
        self.id
    }

    /// The key that signs its receipts.
    #[must_use]
    pub const fn identity(&self) -> &SigningKey {
        &self.identity
    }

    /// The key that signs its requests.
    #[must_use]
    pub const fn request_key(&self) -> &RequestSigningKey {
        &self.request_key
    }

    /// The tenant's word to the relay.
    #[must_use]
    pub const fn admission(&self) -> &Base64Url {
        &self.admission
    }

    /// What senders seal to.
    #[must_use]
    pub const fn prekey(&self) -> &VerifiedPrekey {
        &self.prekey
    }
}

/// A hospital and as many devices as the rows so far have needed: making them takes longer than most runs.
pub struct Cast {
    hospital: Arc<Hospital>,
    devices: Vec<Arc<Device>>,
}

impl Cast {
    /// A hospital without devices.
    ///
    /// # Errors
    /// [`BenchError::Cast`].
    pub fn new() -> Result<Self, BenchError> {
        Ok(Self { hospital: Arc::new(Hospital::new()?), devices: Vec::new() })
    }

    /// The hospital.
    #[must_use]
    pub const fn hospital(&self) -> &Arc<Hospital> {
        &self.hospital
    }

    /// The devices with these numbers, the same ones each time.
    ///
    /// # Errors
    /// [`BenchError::Cast`].
    pub fn devices(&mut self, which: Range<usize>) -> Result<Arc<[Arc<Device>]>, BenchError> {
        let missing = which.end.saturating_sub(self.devices.len());
        let hospital = &self.hospital;
        let mut made = cores::make_on_both(missing, |_| hospital.enrol(Suite::Hybrid).map(Arc::new))?;
        self.devices.append(&mut made);
        Ok(self.devices.get(which).unwrap_or_default().iter().cloned().collect())
    }
}
