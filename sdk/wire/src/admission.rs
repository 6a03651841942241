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
        let claimed = Claimed::read(bytes)?;
        let signer =
            trust.verify_certified(&claimed.signed, Purpose::Enrol, Some(claimed.issued))?.key.key_id();
        let record = DeviceRecord::verify(claimed.record)?;
        if claimed.tenant != *trust.tenant() || record.tenant != claimed.tenant {
            return Err(TrustError::WrongTenant);
        }
        trust.check_device(record.device)?;
        Ok(Self { record, record_bytes: claimed.record.to_vec(), issued: claimed.issued, signer })
    }

    /// The record in an admission, signed by the key that it names and by nobody else as far as this tells: good for
    /// saying whose an admission is that counts no more, and for nothing else.
    pub fn claimed_record(bytes: &[u8]) -> Result<DeviceRecord, TrustError> {
        DeviceRecord::verify(Claimed::read(bytes)?.record)
    }
}

/// An admission that was read and not yet believed.
struct Claimed<'a> {
    signed: Sign1<'a>,
    tenant: TenantId,
    record: &'a [u8],
    issued: UnixTime,
}

impl<'a> Claimed<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let signed = Sign1::read(bytes, ADMISSION_BYTES_MAX, TYP)?;
        let mut reader = Reader::new(signed.payload, ADMISSION_BYTES_MAX)?;
        let mut fields = reader.map()?;
        fields.key(&mut reader, 1)?;
        let tenant = reader.parsed("tenant")?;
        fields.key(&mut reader, 2)?;
        let record = reader.bytes()?;
        fields.key(&mut reader, 3)?;
        let issued = UnixTime(reader.uint()?);
        fields.end()?;
        if record.len() > RECORD_BYTES_MAX {
            return Err(FormatError::TooLarge(RECORD_BYTES_MAX));
        }
        Ok(Self { signed, tenant, record, issued })
    }
}
