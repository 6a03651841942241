//! What a party believes of a tenant: its roots and the newest status it has seen. Every chain is checked
//! here.

use std::sync::{PoisonError, RwLock};

use crate::certificate::{Certificate, Purpose, SignedCertificate};
use crate::clock::UnixTime;
use crate::error::{FormatError, TrustError};
use crate::id::{DeviceId, Digest, TenantId};
use crate::key::VerifyingKey;
use crate::limits::CERTIFICATE_BYTES_MAX;
use crate::sign1::Sign1;
use crate::status::{SignedStatus, TenantStatus};

/// What a party believes of one tenant.
#[derive(Clone, Debug)]
pub struct TenantTrust {
    tenant: TenantId,
    roots: Vec<VerifyingKey>,
    status: Option<TenantStatus>,
    verified: VerifiedCertificates,
}

impl TenantTrust {
    /// Trust in `roots` for `tenant`, with no status seen yet.
    #[must_use]
    pub const fn new(tenant: TenantId, roots: Vec<VerifyingKey>) -> Self {
        Self { tenant, roots, status: None, verified: VerifiedCertificates::new() }
    }

    /// The tenant.
    #[must_use]
    pub const fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// The newest status that was accepted.
    #[must_use]
    pub const fn status(&self) -> Option<&TenantStatus> {
        self.status.as_ref()
    }

    /// Takes in a status. One with a lower sequence than the newest is refused; the same sequence is accepted
    /// again only as the same status or a later reissue of it. Returns whether anything changed.
    pub fn accept_status(&mut self, bytes: &[u8], now: UnixTime) -> Result<bool, TrustError> {
        let status = SignedStatus::read(bytes)?.verify(self, now)?;
        match &self.status {
            Some(seen) if status.sequence < seen.sequence || status.issued < seen.issued => {
                Err(TrustError::Rollback)
            }
            Some(seen) if status.sequence == seen.sequence && !status.same_revocations(seen) => {
                Err(TrustError::Rollback)
            }
            Some(seen) if *seen == status => Ok(false),
            _ => {
                self.status = Some(status);
                Ok(true)
            }
        }
    }

    /// The certificate in `bytes`: of this tenant, for `purpose`, valid at `time`, its key not revoked.
    pub fn certificate(
        &self,
        bytes: &[u8],
        purpose: Purpose,
        time: UnixTime,
    ) -> Result<Certificate, TrustError> {
        let certificate = self.certificate_at_any_time(bytes, purpose)?;
        certificate.check_time(time)?;
        Ok(certificate)
    }

    /// Like [`Self::certificate`], whatever the time: for records and sets, which outlive the certificate
    /// that countersigned them.
    pub fn certificate_at_any_time(&self, bytes: &[u8], purpose: Purpose) -> Result<Certificate, TrustError> {
        let certificate = self.verified.get_or_verify(bytes, &self.roots)?;
        if certificate.tenant != self.tenant {
            return Err(TrustError::WrongTenant);
        }
        if certificate.purpose != purpose {
            return Err(TrustError::WrongPurpose);
        }
        match self.status.as_ref().and_then(|status| status.revocation(certificate.key.key_id())) {
            // Retired: what it signed stays, nothing new is taken; the time of signing is the caller's to
            // judge.
            Some(revocation) if revocation.voids(purpose) => Err(TrustError::KeyRevoked),
            _ => Ok(certificate),
        }
    }

    /// Whether the tenant has revoked the device.
    pub fn check_device(&self, device: DeviceId) -> Result<(), TrustError> {
        match &self.status {
            Some(status) if status.revoked_devices.contains(&device) => Err(TrustError::DeviceRevoked),
            _ => Ok(()),
        }
    }

    /// Verifies a structure that carries the certificate of its signer, over an empty `external_aad`.
    pub(crate) fn verify_certified(
        &self,
        signed: &Sign1<'_>,
        purpose: Purpose,
        time: Option<UnixTime>,
    ) -> Result<Certificate, TrustError> {
        let bytes = signed.required_certificate()?;
        let certificate = match time {
            Some(time) => self.certificate(bytes, purpose, time)?,
            None => self.certificate_at_any_time(bytes, purpose)?,
        };
        signed.verify(&certificate.ed25519()?, &[])?;
        Ok(certificate)
    }
}

/// Certificates that a root was seen to have signed, by the SHA-256 of all their bytes: the few senders of a
/// tenant come again and again, and a signature that verified once need not be verified a second time. Only
/// that is remembered; tenant, purpose, times and revocations are looked at each time.
#[derive(Debug)]
struct VerifiedCertificates(RwLock<Vec<(Digest, Certificate)>>);

impl VerifiedCertificates {
    /// Certificates that are remembered; the oldest makes room.
    const COUNT_MAX: usize = 32;

    const fn new() -> Self {
        Self(RwLock::new(Vec::new()))
    }

    fn get_or_verify(&self, bytes: &[u8], roots: &[VerifyingKey]) -> Result<Certificate, TrustError> {
        if bytes.len() > CERTIFICATE_BYTES_MAX {
            return Err(FormatError::TooLarge(CERTIFICATE_BYTES_MAX).into());
        }
        let digest = Digest::of(bytes);
        // A panic elsewhere leaves whole entries: the list is good whatever the poison says.
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, certificate)) = known.iter().find(|(known, _)| *known == digest) {
            return Ok(certificate.clone());
        }
        drop(known);
        let certificate = SignedCertificate::read(bytes)?.verify(roots)?;
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= Self::COUNT_MAX {
            known.remove(0);
        }
        known.push((digest, certificate.clone()));
        Ok(certificate)
    }
}

impl Clone for VerifiedCertificates {
    fn clone(&self) -> Self {
        Self(RwLock::new(self.0.read().unwrap_or_else(PoisonError::into_inner).clone()))
    }
}
