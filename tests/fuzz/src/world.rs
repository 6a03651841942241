//! The one tenant, sender and phone of all targets. Keys and times are fixed: an input means the same in every
//! run.

use std::sync::LazyLock;

use sealpost_open::PrekeyPrivate;
use sealpost_seal::{OneTimePolicy, SealPolicy, SenderIdentity, SuitePolicy};
use sealpost_service::tenants::Tenants;
use sealpost_wire::admission::Admission;
use sealpost_wire::certificate::{Certificate, Purpose, Role};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::context::MessageContext;
use sealpost_wire::id::{CertificateId, DeviceId, PrekeyId, RecipientId, TenantId, TransportId};
use sealpost_wire::key::{RequestKey, RequestSigningKey, SigningKey};
use sealpost_wire::message::Suite;
use sealpost_wire::record::DeviceRecord;
use sealpost_wire::ticket::TicketSecret;
use sealpost_wire::trust::TenantTrust;

/// Every clock's time.
pub(crate) const NOW: UnixTime = UnixTime(1_800_000_000);
pub(crate) const DEVICE: DeviceId = DeviceId([0xd1; 16]);
pub(crate) const RECIPIENT: RecipientId = RecipientId([0x4e; 16]);
pub(crate) const TRANSPORT: TransportId = TransportId([0x7a; 16]);

pub(crate) struct World {
    pub(crate) tenant: TenantId,
    pub(crate) root: SigningKey,
    pub(crate) send: Certified,
    pub(crate) request: Certified,
    pub(crate) enrol: Certified,
    pub(crate) revoke: Certified,
    pub(crate) trust: TenantTrust,
    pub(crate) tenants: Tenants,
    pub(crate) secret: TicketSecret,
    /// The phone's identity key.
    pub(crate) identity: SigningKey,
    pub(crate) device_request: RequestSigningKey,
    pub(crate) record: DeviceRecord,
    pub(crate) record_bytes: Vec<u8>,
    /// The enroller's admission of the phone.
    pub(crate) admission: Vec<u8>,
}

pub(crate) struct Certified {
    pub(crate) key: SigningKey,
    pub(crate) certificate: Vec<u8>,
}

pub(crate) fn world() -> &'static World {
    static WORLD: LazyLock<World> = LazyLock::new(World::new);
    &WORLD
}

impl World {
    fn new() -> Self {
        let tenant: TenantId = "st-mary".parse().expect("a name");
        let root = SigningKey::from_seed(&[1; 32]);
        let certified = |purpose, number: u8, roles: &[Role]| {
            let key = SigningKey::from_seed(&[number; 32]);
            let certificate = Certificate {
                tenant: tenant.clone(),
                purpose,
                subject: "lab".parse().expect("a name"),
                id: CertificateId([number; 16]),
                key: RequestKey::Ed25519(key.verifying_key()),
                not_before: UnixTime(1_700_000_000),
                not_after: UnixTime(1_900_000_000),
                roles: roles.to_vec(),
            };
            Certified { key, certificate: certificate.sign(&root).expect("a certificate") }
        };
        let identity = SigningKey::from_seed(&[6; 32]);
        let device_request = RequestSigningKey::Ed25519(SigningKey::from_seed(&[7; 32]));
        let secret = TicketSecret::from_bytes([8; 32]);
        let record = DeviceRecord {
            tenant: tenant.clone(),
            ticket: secret.ticket_id(),
            device: DEVICE,
            identity_key: identity.verifying_key(),
            request_key: RequestKey::Ed25519(SigningKey::from_seed(&[7; 32]).verifying_key()),
            suites: vec![Suite::Hybrid, Suite::Classical],
            relay: "https://relay.example".to_owned(),
            created: NOW.minus(3600),
        };
        let roots = vec![root.verifying_key()];
        let enrol = certified(Purpose::Enrol, 4, &[]);
        let record_bytes = record.sign(&identity).expect("a record");
        Self {
            send: certified(Purpose::Send, 2, &[]),
            request: certified(Purpose::Request, 3, &[Role::Sender, Role::Enroller]),
            revoke: certified(Purpose::Revoke, 5, &[]),
            trust: TenantTrust::new(tenant.clone(), roots.clone()),
            tenants: Tenants::new([(tenant.clone(), roots)]),
            admission: Admission::sign(&tenant, &record_bytes, NOW, &enrol.key, &enrol.certificate),
            enrol,
            record_bytes,
            tenant,
            root,
            secret,
            identity,
            device_request,
            record,
        }
    }

    /// What the one message is bound to.
    pub(crate) fn context(&self) -> MessageContext {
        MessageContext {
            tenant: self.tenant.clone(),
            transport_id: TRANSPORT,
            device: DEVICE,
            identity: self.identity.verifying_key().digest(),
            expires_at: NOW.plus(86_400),
        }
    }

    /// The phone's private prekey of a suite, under whatever id a box names.
    pub(crate) fn prekey(&self, suite: Suite, id: PrekeyId) -> PrekeyPrivate {
        PrekeyPrivate::restore(suite, id, [9; 32])
    }

    pub(crate) fn sender(&self) -> SenderIdentity {
        let policy = SealPolicy { suites: SuitePolicy::default(), one_time: OneTimePolicy::default() };
        SenderIdentity::new(self.send.key.clone(), self.send.certificate.clone(), policy, &self.trust, NOW)
            .expect("a sender")
    }
}
