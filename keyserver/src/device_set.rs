//! Device sets: whether a new one may take the place of the stored one.

use sealpost_wire::admission::Admission;
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::certificate::Certificate;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::device_set::{DeviceSet, SetDevice};
use sealpost_wire::error::TrustError;
use sealpost_wire::id::{DeviceId, Digest, KeyId, RecipientId};
use sealpost_wire::limits::CLOCK_SKEW_SECONDS_MAX;
use sealpost_wire::trust::TenantTrust;

/// How old the signatures of a new set may be (seconds): an hour, for a queue at the hospital.
const SIGNED_AGE_SECONDS_MAX: u64 = 3600;

/// Why a set is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// The set or an admission is not to be believed. No retry helps.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// It is not the successor of the stored set. Fetching that one and signing anew helps.
    #[error("the version has moved on")]
    VersionConflict,
    /// A value does not fit the rest of the request.
    #[error("the field {0} has a value that is not allowed")]
    Value(&'static str),
    /// Only an enroller may add devices.
    #[error("only an enroller may add devices")]
    AddsDevices,
}

/// A set that may take the place of the one it was judged against.
#[derive(Clone, Debug)]
pub struct SetChange {
    /// The recipient.
    pub recipient: RecipientId,
    /// The new version.
    pub version: u64,
    /// SHA-256 of the set that it follows.
    pub previous: Option<Digest>,
    /// SHA-256 of the set.
    pub digest: Digest,
    /// The set.
    pub bytes: Vec<u8>,
    /// Its devices, sorted.
    pub devices: Vec<DeviceId>,
    /// The devices that are new in it.
    pub added: Vec<AddedDevice>,
    /// New admissions of devices that stay.
    pub readmitted: Vec<(DeviceId, Base64Url)>,
    /// The devices that are in it no more.
    pub removed: Vec<DeviceId>,
    /// The key that signed it.
    pub signer: KeyId,
}

/// A device that is new in a set.
#[derive(Clone, Debug)]
pub struct AddedDevice {
    /// The device.
    pub device: DeviceId,
    /// Its record, as the set has it; the claim must have the same.
    pub record: Vec<u8>,
    /// What it shows the relay.
    pub admission: Base64Url,
}

/// What a caller wants to put.
#[derive(Clone, Debug)]
pub struct NewSet {
    /// Whose set, by the path.
    pub recipient: RecipientId,
    /// The set.
    pub bytes: Vec<u8>,
    /// Admissions of devices in it.
    pub admissions: Vec<Base64Url>,
    /// Whether the caller may add devices.
    pub may_add: bool,
}

impl NewSet {
    /// Judges the set against the stored one, which was judged so before.
    ///
    /// # Errors
    /// See [`SetError`].
    pub fn judge(
        self,
        stored: Option<&[u8]>,
        trust: &TenantTrust,
        now: UnixTime,
    ) -> Result<SetChange, SetError> {
        let previous = stored.map(DeviceSet::verified_before).transpose()?;
        let (set, certificate) = DeviceSet::verify(&self.bytes, trust, previous.as_ref())?;
        if set.recipient != self.recipient {
            return Err(SetError::Value("recipient"));
        }
        if !set.follows(previous.as_ref()) {
            return Err(SetError::VersionConflict);
        }
        check_signer(&certificate, set.issued, trust, now)?;

        let before = previous.as_ref().map_or(&[][..], |previous| &previous.devices);
        let removed = before.iter().map(|known| known.record.device).filter(|id| set.device(*id).is_none());
        let removed = removed.collect();
        let mut added = Vec::new();
        for device in &set.devices {
            match before.iter().find(|known| known.record.device == device.record.device) {
                // A record never changes: a device with another key is another device.
                Some(known) if known != device => return Err(SetError::Value("records")),
                Some(_) => {}
                None => added.push(device),
            }
        }
        if !added.is_empty() && !self.may_add {
            return Err(SetError::AddsDevices);
        }
        let mut admissions = verified_admissions(self.admissions, &set, trust, now)?;
        let added = added.into_iter().map(|device| admitted(device, &mut admissions, trust));
        Ok(SetChange {
            recipient: set.recipient,
            version: set.version,
            previous: set.previous,
            digest: set.digest,
            added: added.collect::<Result<_, _>>()?,
            readmitted: admissions,
            removed,
            devices: set.devices.iter().map(|device| device.record.device).collect(),
            bytes: self.bytes,
            signer: certificate.key.key_id(),
        })
    }
}

/// A set lives on when its signer's certificate has expired or its key was retired; a new set by such a key
/// is refused, and so is a signature that is dated back to before the end.
fn check_signer(
    certificate: &Certificate,
    issued: UnixTime,
    trust: &TenantTrust,
    now: UnixTime,
) -> Result<(), SetError> {
    certificate.check_time(now)?;
    check_key(certificate.key.key_id(), trust)?;
    check_issued(issued, now)
}

fn check_key(key: KeyId, trust: &TenantTrust) -> Result<(), SetError> {
    match trust.status().and_then(|status| status.revocation(key)) {
        Some(_) => Err(TrustError::KeyRevoked.into()),
        None => Ok(()),
    }
}

fn check_issued(issued: UnixTime, now: UnixTime) -> Result<(), SetError> {
    if issued > now.plus(CLOCK_SKEW_SECONDS_MAX) || issued < now.minus(SIGNED_AGE_SECONDS_MAX) {
        return Err(SetError::Value("issued"));
    }
    Ok(())
}

/// The admissions, each of another device of the set, and of the very record that the set has.
fn verified_admissions(
    admissions: Vec<Base64Url>,
    set: &DeviceSet,
    trust: &TenantTrust,
    now: UnixTime,
) -> Result<Vec<(DeviceId, Base64Url)>, SetError> {
    let mut verified: Vec<(DeviceId, Base64Url)> = Vec::new();
    for bytes in admissions {
        let admission = Admission::verify(bytes.as_ref(), trust)?;
        check_key(admission.signer, trust)?;
        check_issued(admission.issued, now)?;
        let device = admission.record.device;
        let is_member = set.device(device).is_some_and(|member| member.record == admission.record);
        if !is_member || verified.iter().any(|(known, _)| *known == device) {
            return Err(SetError::Value("admissions"));
        }
        verified.push((device, bytes));
    }
    Ok(verified)
}

fn admitted(
    device: &SetDevice,
    admissions: &mut Vec<(DeviceId, Base64Url)>,
    trust: &TenantTrust,
) -> Result<AddedDevice, SetError> {
    let id = device.record.device;
    trust.check_device(id)?;
    let at = admissions.iter().position(|(known, _)| *known == id).ok_or(SetError::Value("admissions"))?;
    let (_, admission) = admissions.swap_remove(at);
    Ok(AddedDevice { device: id, record: device.bytes.clone(), admission })
}
