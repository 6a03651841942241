//! A tenant: its root, and the identities that the root certified.

use std::sync::Arc;

use getrandom::SysRng;
use rand_core::UnwrapErr;
use sealpost_sender::identity::{CertifiedKey, EnrollerIdentityFile, SenderIdentityFile, StorageKey};
use sealpost_sender::{MakeRng, SenderParts};
use sealpost_service::clock::SystemClock;
use sealpost_wire::certificate::{Certificate, Purpose, Role};
use sealpost_wire::clock::{Clock as _, UnixTime};
use sealpost_wire::error::FormatError;
use sealpost_wire::id::{CertificateId, IdError, SubjectId, TenantId};
use sealpost_wire::key::{RequestKey, SigningKey};

use crate::Outcome;

/// Certificates live this long (seconds): a day, which no test outlives.
const CERTIFICATE_SECONDS: u64 = 86_400;

/// A hospital.
pub struct Tenant {
    /// Its name.
    pub id: TenantId,
    /// Its root key.
    pub root: SigningKey,
    /// Where its servers are.
    pub keyserver: String,
    /// Where its servers are.
    pub relay: String,
}

/// The system's clock and randomness, for a sender or an enroller.
#[must_use]
pub fn parts() -> SenderParts {
    let rng: MakeRng = Arc::new(|| Box::new(UnwrapErr(SysRng)));
    SenderParts { clock: Arc::new(SystemClock), rng, roots: sealpost_sender::ServerRoots::public() }
}

/// The time now.
#[must_use]
pub fn now() -> UnixTime {
    SystemClock.now()
}

impl Tenant {
    /// A new tenant of these servers.
    ///
    /// # Errors
    /// `id` is no tenant's name.
    pub fn new(id: &str, keyserver: String, relay: String) -> Result<Self, IdError> {
        Ok(Self { id: id.parse()?, root: SigningKey::generate(&mut UnwrapErr(SysRng)), keyserver, relay })
    }

    /// A new key of `subject` for `purpose`, certified by the root.
    ///
    /// # Errors
    /// Roles that do not go with the purpose.
    pub fn certify(
        &self,
        subject: &SubjectId,
        purpose: Purpose,
        roles: &[Role],
    ) -> Result<CertifiedKey, FormatError> {
        let rng = &mut UnwrapErr(SysRng);
        let key = SigningKey::generate(rng);
        let now = now();
        let certificate = Certificate {
            tenant: self.id.clone(),
            purpose,
            subject: subject.clone(),
            id: CertificateId::random(rng),
            key: RequestKey::Ed25519(key.verifying_key()),
            not_before: now.minus(60),
            not_after: now.plus(CERTIFICATE_SECONDS),
            roles: roles.to_vec(),
        };
        Ok(CertifiedKey { certificate: certificate.sign(&self.root)?, key })
    }

    /// A new sending system.
    ///
    /// # Errors
    /// `subject` is no name.
    pub fn sender(&self, subject: &str) -> Outcome<SenderIdentityFile> {
        let subject = subject.parse()?;
        Ok(SenderIdentityFile {
            tenant: self.id.clone(),
            root: self.root.verifying_key(),
            keyserver: self.keyserver.clone(),
            relay: self.relay.clone(),
            send: self.certify(&subject, Purpose::Send, &[])?,
            request: self.certify(&subject, Purpose::Request, &[Role::Sender])?,
            outbox_key: storage_key(),
            subject,
        })
    }

    /// A new enroller, which may revoke too.
    ///
    /// # Errors
    /// `subject` is no name.
    pub fn enroller(&self, subject: &str) -> Outcome<EnrollerIdentityFile> {
        let subject = subject.parse()?;
        Ok(EnrollerIdentityFile {
            tenant: self.id.clone(),
            root: self.root.verifying_key(),
            keyserver: self.keyserver.clone(),
            relay: self.relay.clone(),
            enrol: self.certify(&subject, Purpose::Enrol, &[])?,
            request: self.certify(&subject, Purpose::Request, &[Role::Enroller, Role::Revoker])?,
            revoke: self.certify(&subject, Purpose::Revoke, &[])?,
            ticket_key: storage_key(),
            subject,
        })
    }
}

fn storage_key() -> StorageKey {
    use rand_core::Rng as _;
    let mut bytes = [0; 32];
    UnwrapErr(SysRng).fill_bytes(&mut bytes);
    StorageKey::new(bytes)
}
