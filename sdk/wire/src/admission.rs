//! Admissions: an enrol key's word to a relay that one device belongs to the tenant.
//!
//! A device set would say the same, and with it the recipient's pseudonym and the other devices, which are
//! none of the relay's business.
//!
//! ```text
//! admission = COSE_Sign1 by an enrol key, with its certificate, typ "sealpost-admission-v1+cose", over
//!   { 1: tenant, 2: record, 3: issued }
//! ```

use crate::cbor::{Reader, Writer};
use crate::certificate::Purpose;
use crate::clock::UnixTime;
use crate::error::{FormatError, TrustError};
use crate::id::{KeyId, TenantId};
use crate::key::SigningKey;
use crate::limits::{ADMISSION_BYTES_MAX, RECORD_BYTES_MAX};
use crate::record::DeviceRecord;
use crate::sign1::{self, Sign1, Signer};
use crate::trust::TenantTrust;

const TYP: &str = "sealpost-admission-v1+cose";

/// A device that its tenant has admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The device's record.
    pub record: DeviceRecord,
    /// The record's bytes, for those who keep them.
    pub record_bytes: Vec<u8>,
    /// When the enroller signed.
    pub issued: UnixTime,
    /// The enrol key that signed.
    pub signer: KeyId,
}

impl Admission {
    /// Admits the device of `record`.
    #[must_use]
    pub fn sign(
        tenant: &TenantId,
        record: &[u8],
        issued: UnixTime,
        key: &SigningKey,
        certificate: &[u8],
    ) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.map(3).int(1).text(tenant.as_str()).int(2).bytes(record).int(3).uint(issued.0);
        sign1::sign(key, TYP, Signer::Certified(certificate), &writer.finish(), &[])
    }

    /// Reads an admission and verifies its chain, its record and that the device is not revoked.
    pub fn verify(bytes: &[u8], trust: &TenantTrust) -> Result<Self, TrustError> {
        let signed = Sign1::read(bytes, ADMISSION_BYTES_MAX, TYP)?;
        let mut reader = Reader::new(signed.payload, ADMISSION_BYTES_MAX)?;
        let mut fields = reader.map()?;
        fields.key(&mut reader, 1)?;
        let tenant: TenantId = reader.parsed("tenant")?;
        fields.key(&mut reader, 2)?;
        let record = reader.bytes()?;
        fields.key(&mut reader, 3)?;
        let issued = UnixTime(reader.uint()?);
        fields.end()?;
        if record.len() > RECORD_BYTES_MAX {
            return Err(FormatError::TooLarge(RECORD_BYTES_MAX).into());
        }
        let signer = trust.verify_certified(&signed, Purpose::Enrol, Some(issued))?.key.key_id();
        let record_bytes = record.to_vec();
        let record = DeviceRecord::verify(record)?;
        if tenant != *trust.tenant() || record.tenant != tenant {
            return Err(TrustError::WrongTenant);
        }
        trust.check_device(record.device)?;
        Ok(Self { record, record_bytes, issued, signer })
    }
}
