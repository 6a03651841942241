//! The tenant status: short, signed, carried by sync and look-ups. It names the keys and devices that the
//! tenant revoked.
//!
//! ```text
//! status = COSE_Sign1 by a revoke key, with its certificate, typ "sealpost-status-v1+cose", over
//!   { 1: tenant, 2: sequence, 3: issued, 4: [* [key id, reason]], 5: [* device] }
//! reason = 0 (retired: what it signed stays) / 1 (compromised: what it signed counts no more)
//! ```
//! Both lists are sorted bytewise, each entry once.

use crate::cbor::{Reader, Writer};
use crate::certificate::Purpose;
use crate::clock::UnixTime;
use crate::error::{FormatError, TrustError};
use crate::id::{DeviceId, KeyId, TenantId};
use crate::key::SigningKey;
use crate::limits::{CLOCK_SKEW_SECONDS_MAX, STATUS_BYTES_MAX, STATUS_ENTRIES_MAX};
use crate::sign1::{self, Sign1, Signer};
use crate::trust::TenantTrust;

const TYP: &str = "sealpost-status-v1+cose";

/// Why a key is not used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Revocation {
    /// Out of use; what an enrol key countersigned stays.
    Retired,
    /// In other hands: what it signed counts no more.
    Compromised,
}

impl Revocation {
    const fn code(self) -> u64 {
        match self {
            Self::Retired => 0,
            Self::Compromised => 1,
        }
    }

    /// Whether signatures that are already there stop to count. Records outlive a retired enrol key; a
    /// message, a request or an order by a key out of use is refused whatever the reason.
    pub(crate) const fn voids(self, purpose: Purpose) -> bool {
        match self {
            Self::Compromised => true,
            Self::Retired => !matches!(purpose, Purpose::Enrol),
        }
    }
}

/// The tenant's revocations as of a moment. One that came from outside is had from [`SignedStatus::verify`]
/// only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantStatus {
    /// The tenant.
    pub tenant: TenantId,
    /// Grows with every change.
    pub sequence: u64,
    /// When it was signed; reissued unchanged so that its age stays small.
    pub issued: UnixTime,
    /// Keys out of use, sorted by id.
    pub revoked_keys: Vec<(KeyId, Revocation)>,
    /// Devices out of use, sorted.
    pub revoked_devices: Vec<DeviceId>,
}

impl TenantStatus {
    /// The status' bytes, signed by a revoke key.
    pub fn sign(&self, key: &SigningKey, certificate: &[u8]) -> Result<Vec<u8>, FormatError> {
        let mut writer = Writer::new();
        writer.map(5).int(1).text(self.tenant.as_str()).int(2).uint(self.sequence).int(3).uint(self.issued.0);
        writer.int(4).array(self.revoked_keys.len());
        for (key, reason) in &self.revoked_keys {
            writer.array(2).bytes(key.as_bytes()).uint(reason.code());
        }
        writer.int(5).array(self.revoked_devices.len());
        for device in &self.revoked_devices {
            writer.bytes(device.as_bytes());
        }
        let bytes = sign1::sign(key, TYP, Signer::Certified(certificate), &writer.finish(), &[]);
        SignedStatus::read(&bytes)?;
        Ok(bytes)
    }

    /// Why `key` is out of use, if it is.
    #[must_use]
    pub fn revocation(&self, key: KeyId) -> Option<Revocation> {
        let at = self.revoked_keys.binary_search_by_key(&key, |(id, _)| *id).ok()?;
        self.revoked_keys.get(at).map(|(_, reason)| *reason)
    }

    pub(crate) fn same_revocations(&self, other: &Self) -> bool {
        self.revoked_keys == other.revoked_keys && self.revoked_devices == other.revoked_devices
    }

    fn read(payload: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(payload, STATUS_BYTES_MAX)?;
        let mut fields = reader.map()?;
        fields.key(&mut reader, 1)?;
        let tenant = reader.parsed("tenant")?;
        fields.key(&mut reader, 2)?;
        let sequence = reader.uint()?;
        fields.key(&mut reader, 3)?;
        let issued = UnixTime(reader.uint()?);
        fields.key(&mut reader, 4)?;
        let mut revoked_keys = Vec::new();
        for _ in 0..reader.list("revoked keys", STATUS_ENTRIES_MAX)? {
            reader.tuple(2)?;
            let key = KeyId(reader.array("revoked keys")?);
            let reason = match reader.uint()? {
                0 => Revocation::Retired,
                1 => Revocation::Compromised,
                _ => return Err(FormatError::WrongValue("reason")),
            };
            revoked_keys.push((key, reason));
        }
        fields.key(&mut reader, 5)?;
        let mut revoked_devices = Vec::new();
        for _ in 0..reader.list("revoked devices", STATUS_ENTRIES_MAX)? {
            revoked_devices.push(DeviceId(reader.array("revoked devices")?));
        }
        fields.end()?;
        if !revoked_keys.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(FormatError::WrongValue("revoked keys"));
        }
        if !revoked_devices.is_sorted_by(|a, b| a < b) {
            return Err(FormatError::WrongValue("revoked devices"));
        }
        Ok(Self { tenant, sequence, issued, revoked_keys, revoked_devices })
    }
}

/// A status that was read and not yet believed.
#[derive(Clone, Debug)]
pub struct SignedStatus<'a> {
    signed: Sign1<'a>,
    claimed: TenantStatus,
}

impl<'a> SignedStatus<'a> {
    /// Reads a status.
    pub fn read(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let signed = Sign1::read(bytes, STATUS_BYTES_MAX, TYP)?;
        signed.required_certificate()?;
        Ok(Self { signed, claimed: TenantStatus::read(signed.payload)? })
    }

    /// The status, if a revoke key of the tenant signed it while valid, and not in the future.
    pub fn verify(self, trust: &TenantTrust, now: UnixTime) -> Result<TenantStatus, TrustError> {
        trust.verify_certified(&self.signed, Purpose::Revoke, Some(self.claimed.issued))?;
        if self.claimed.tenant != *trust.tenant() {
            return Err(TrustError::WrongTenant);
        }
        if self.claimed.issued > now.plus(CLOCK_SKEW_SECONDS_MAX) {
            return Err(TrustError::CertificateNotYetValid);
        }
        Ok(self.claimed)
    }
}
