//! Who seals.

use sealpost_wire::admission::Admission;
use sealpost_wire::certificate::{Certificate, Purpose};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::error::TrustError;
use sealpost_wire::key::SigningKey;
use sealpost_wire::trust::TenantTrust;

use crate::choice::SealPolicy;
use crate::error::SealError;

/// A sender: its key, its certificate, and what its tenant asks of it.
#[derive(Clone, Debug)]
pub struct SenderIdentity {
    key: SigningKey,
    certificate_bytes: Vec<u8>,
    certificate: Certificate,
    policy: SealPolicy,
}

impl SenderIdentity {
    /// The identity of `key`, as `certificate` says.
    ///
    /// # Errors
    /// The certificate is not one of this tenant for sending, is not valid at `now`, was revoked, or is
    /// another key's.
    pub fn new(
        key: SigningKey,
        certificate: Vec<u8>,
        policy: SealPolicy,
        trust: &TenantTrust,
        now: UnixTime,
    ) -> Result<Self, SealError> {
        let verified = trust.certificate(&certificate, Purpose::Send, now)?;
        if verified.ed25519()? != key.verifying_key() {
            return Err(TrustError::BadSignature.into());
        }
        Ok(Self { key, certificate_bytes: certificate, certificate: verified, policy })
    }

    /// What the certificate says.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// What the tenant asks of this sender.
    #[must_use]
    pub const fn policy(&self) -> &SealPolicy {
        &self.policy
    }

    pub(crate) const fn key(&self) -> &SigningKey {
        &self.key
    }

    pub(crate) fn certificate_bytes(&self) -> &[u8] {
        &self.certificate_bytes
    }
}

/// A device that writes to other devices of its tenant: its identity key, its admission, and what it asks of their
/// prekeys.
#[derive(Clone, Debug)]
pub struct DeviceAuthor {
    identity: SigningKey,
    admission_bytes: Vec<u8>,
    admission: Admission,
    policy: SealPolicy,
}

impl DeviceAuthor {
    /// The device whose identity key this is, as `admission` says.
    ///
    /// # Errors
    /// The admission is not one of this tenant, was signed by an enrol key that is compromised, admits a revoked
    /// device, or is another device's.
    pub fn new(
        identity: SigningKey,
        admission: Vec<u8>,
        policy: SealPolicy,
        trust: &TenantTrust,
    ) -> Result<Self, SealError> {
        let verified = Admission::verify(&admission, trust)?;
        if verified.record.identity_key != identity.verifying_key() {
            return Err(TrustError::BadSignature.into());
        }
        Ok(Self { identity, admission_bytes: admission, admission: verified, policy })
    }

    /// What the admission says.
    #[must_use]
    pub const fn admission(&self) -> &Admission {
        &self.admission
    }

    /// What the device asks of the prekeys that it seals to.
    #[must_use]
    pub const fn policy(&self) -> &SealPolicy {
        &self.policy
    }

    pub(crate) const fn identity(&self) -> &SigningKey {
        &self.identity
    }

    pub(crate) fn admission_bytes(&self) -> &[u8] {
        &self.admission_bytes
    }
}
