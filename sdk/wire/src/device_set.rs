//! Device sets: which devices a recipient has, as the tenant says. Senders seal only to a set.
//!
//! ```text
//! device set = COSE_Sign1 by an enrol key (a removal also by a revoke key), with its certificate,
//!              typ "sealpost-device-set-v1+cose", over
//!   { 1: tenant, 2: recipient, 3: version, 4: SHA-256(previous set) / h'', 5: [* record], 6: [* device], 7: issued }
//! ```
//! Version 1 has no previous set. Records are sorted by device id, revoked ids too, each once; no device is
//! in both.

use crate::cbor::{Reader, Writer};
use crate::certificate::{Certificate, Purpose};
use crate::clock::UnixTime;
use crate::error::{FormatError, TrustError};
use crate::id::{DeviceId, Digest, RecipientId, TenantId};
use crate::key::SigningKey;
use crate::limits::{DEVICE_SET_BYTES_MAX, DEVICES_PER_SET_MAX, REVOKED_PER_SET_MAX};
use crate::record::DeviceRecord;
use crate::sign1::{self, Sign1, Signer};
use crate::trust::TenantTrust;

const TYP: &str = "sealpost-device-set-v1+cose";

/// What a set is to say, before it is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSetDraft {
    /// The tenant.
    pub tenant: TenantId,
    /// The recipient.
    pub recipient: RecipientId,
    /// One more than the previous set's.
    pub version: u64,
    /// SHA-256 of the previous set; none for version 1.
    pub previous: Option<Digest>,
    /// The records, in any order.
    pub records: Vec<Vec<u8>>,
    /// Devices that are out, in any order.
    pub revoked: Vec<DeviceId>,
    /// When it is signed.
    pub issued: UnixTime,
}

impl DeviceSetDraft {
    /// The set's bytes, signed by an enrol key (or, for a removal, a revoke key).
    pub fn sign(mut self, key: &SigningKey, certificate: &[u8]) -> Result<Vec<u8>, TrustError> {
        let mut records = Vec::with_capacity(self.records.len());
        for record in &self.records {
            records.push((DeviceRecord::verify(record)?.device, record));
        }
        records.sort_by_key(|(device, _)| *device);
        self.revoked.sort_unstable();
        let mut writer = Writer::new();
        writer.map(7).int(1).text(self.tenant.as_str()).int(2).bytes(self.recipient.as_bytes());
        writer.int(3).uint(self.version);
        writer.int(4).bytes(self.previous.as_ref().map_or(&[][..], |digest| digest.as_bytes()));
        writer.int(5).array(records.len());
        for (_, record) in &records {
            writer.bytes(record);
        }
        writer.int(6).array(self.revoked.len());
        for device in &self.revoked {
            writer.bytes(device.as_bytes());
        }
        writer.int(7).uint(self.issued.0);
        let bytes = sign1::sign(key, TYP, Signer::Certified(certificate), &writer.finish(), &[]);
        let signed = Sign1::read(&bytes, DEVICE_SET_BYTES_MAX, TYP)?;
        DeviceSet::read(&bytes, &signed)?;
        Ok(bytes)
    }
}

/// A device of a set: its record and the record's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetDevice {
    /// What the device says of itself.
    pub record: DeviceRecord,
    /// The bytes, to carry them into the next version.
    pub bytes: Vec<u8>,
}

/// A recipient's devices, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSet {
    /// The tenant.
    pub tenant: TenantId,
    /// The recipient.
    pub recipient: RecipientId,
    /// Grows by one with each change.
    pub version: u64,
    /// SHA-256 of the previous set.
    pub previous: Option<Digest>,
    /// SHA-256 of this set.
    pub digest: Digest,
    /// The devices, sorted by id.
    pub devices: Vec<SetDevice>,
    /// Devices that are out, sorted.
    pub revoked: Vec<DeviceId>,
    /// When it was signed.
    pub issued: UnixTime,
}

impl DeviceSet {
    /// Reads a set and verifies its chain and every record in it. A revoke key may sign one only if it adds
    /// no device to `previous`, which the caller has verified before. Devices that the tenant status revokes
    /// are left to the caller (they stay in the set until an enroller removes them).
    ///
    /// Returns the set and the certificate of its signer: the sender's policy names the enrol keys that it
    /// accepts.
    pub fn verify(
        bytes: &[u8],
        trust: &TenantTrust,
        previous: Option<&Self>,
    ) -> Result<(Self, Certificate), TrustError> {
        let signed = Sign1::read(bytes, DEVICE_SET_BYTES_MAX, TYP)?;
        let set = Self::read(bytes, &signed)?;
        if set.tenant != *trust.tenant()
            || set.devices.iter().any(|device| device.record.tenant != set.tenant)
        {
            return Err(TrustError::WrongTenant);
        }
        // Sets outlive the certificate that countersigned them: it was valid when they were signed.
        let certificate = match trust.verify_certified(&signed, Purpose::Enrol, Some(set.issued)) {
            Err(TrustError::WrongPurpose)
                if previous.is_some_and(|previous| set.only_removes_from(previous)) =>
            {
                trust.verify_certified(&signed, Purpose::Revoke, Some(set.issued))?
            }
            verified => verified?,
        };
        Ok((set, certificate))
    }

    /// Reads a set that the caller verified before it stored it: its form and its records are checked, its
    /// signer is not, whose key may have been revoked since. For judging what follows it, never for a set
    /// that came from outside.
    pub fn verified_before(bytes: &[u8]) -> Result<Self, TrustError> {
        Self::read(bytes, &Sign1::read(bytes, DEVICE_SET_BYTES_MAX, TYP)?)
    }

    /// Whether this set follows `previous`: the next version, the hash of its bytes, the same recipient, and
    /// no revoked device forgotten or taken back.
    #[must_use]
    pub fn follows(&self, previous: Option<&Self>) -> bool {
        match previous {
            None => self.version == 1,
            Some(previous) => {
                self.recipient == previous.recipient
                    && self.tenant == previous.tenant
                    && previous.version.checked_add(1) == Some(self.version)
                    && self.previous == Some(previous.digest)
                    && previous.revoked.iter().all(|device| self.revoked.binary_search(device).is_ok())
            }
        }
    }

    /// The device with this id, if it is in.
    #[must_use]
    pub fn device(&self, device: DeviceId) -> Option<&SetDevice> {
        let at = self.devices.binary_search_by_key(&device, |known| known.record.device).ok()?;
        self.devices.get(at)
    }

    fn only_removes_from(&self, previous: &Self) -> bool {
        self.devices.iter().all(|device| previous.devices.contains(device))
    }

    fn read(bytes: &[u8], signed: &Sign1<'_>) -> Result<Self, TrustError> {
        let mut reader = Reader::new(signed.payload, DEVICE_SET_BYTES_MAX)?;
        let mut fields = reader.map()?;
        fields.key(&mut reader, 1)?;
        let tenant = reader.parsed("tenant")?;
        fields.key(&mut reader, 2)?;
        let recipient = RecipientId(reader.array("recipient")?);
        fields.key(&mut reader, 3)?;
        let version = reader.uint()?;
        fields.key(&mut reader, 4)?;
        let previous = match reader.bytes()? {
            [] => None,
            digest => Some(Digest(digest.try_into().map_err(|_| FormatError::WrongValue("previous"))?)),
        };
        fields.key(&mut reader, 5)?;
        let mut devices = Vec::new();
        for _ in 0..reader.list("records", DEVICES_PER_SET_MAX)? {
            let bytes = reader.bytes()?.to_vec();
            devices.push(SetDevice { record: DeviceRecord::verify(&bytes)?, bytes });
        }
        fields.key(&mut reader, 6)?;
        let mut revoked = Vec::new();
        for _ in 0..reader.list("revoked", REVOKED_PER_SET_MAX)? {
            revoked.push(DeviceId(reader.array("revoked")?));
        }
        fields.key(&mut reader, 7)?;
        let issued = UnixTime(reader.uint()?);
        fields.end()?;
        if version == 0 || (version == 1) != previous.is_none() {
            return Err(FormatError::WrongValue("version").into());
        }
        if !devices.is_sorted_by(|a, b| a.record.device < b.record.device) {
            return Err(FormatError::WrongValue("records").into());
        }
        let out = |device: &SetDevice| revoked.binary_search(&device.record.device).is_ok();
        if !revoked.is_sorted_by(|a, b| a < b) || devices.iter().any(out) {
            return Err(FormatError::WrongValue("revoked").into());
        }
        Ok(Self { tenant, recipient, version, previous, digest: Digest::of(bytes), devices, revoked, issued })
    }
}
