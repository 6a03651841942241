//! Device records and enrolments.
//!
//! ```text
//! record    = COSE_Sign1 by the device's identity key, typ "sealpost-record-v1+cose", over
//!   { 1: tenant, 2: ticket id, 3: device, 4: identity key, 5: [alg, request key], 6: [+ suite], 7: relay, 8: created }
//! enrolment = COSE_Mac0 (RFC 9052 section 6.2), HMAC-SHA-256 by the ticket's binding key
//!           = 17([ bstr .cbor { 1: 5, 16: "sealpost-enrolment-v1+cose" }, {}, record, tag ])
//!             tag over [ "MAC0", protected, h'', record ]
//! ```

use crate::cbor::{Reader, Writer};
use crate::clock::UnixTime;
use crate::error::{FormatError, TrustError};
use crate::id::{DeviceId, Digest, TenantId, TicketId};
use crate::key::{RequestKey, SigningKey, VerifyingKey};
use crate::limits::{ENROLMENT_BYTES_MAX, RECORD_BYTES_MAX, URL_BYTES_MAX};
use crate::message::Suite;
use crate::sign1::{self, Sign1, Signer};
use crate::ticket::BindingKey;

const TYP_RECORD: &str = "sealpost-record-v1+cose";
const TYP_ENROLMENT: &str = "sealpost-enrolment-v1+cose";
const TAG_MAC0: u64 = 17;
/// COSE algorithm HMAC 256/256 (RFC 9053 section 3.1).
const ALG_HMAC_256: i64 = 5;
const SUITES_MAX: usize = 4;

/// What a device says of itself. A record proves possession of its identity key; that the device is a certain
/// person's is what a device set says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRecord {
    /// The tenant that the device enrols with.
    pub tenant: TenantId,
    /// The ticket that it claims.
    pub ticket: TicketId,
    /// The id that it chose.
    pub device: DeviceId,
    /// Signs records, prekey batches and receipts.
    pub identity_key: VerifyingKey,
    /// Authenticates its requests.
    pub request_key: RequestKey,
    /// The suites that it opens, best first, each once.
    pub suites: Vec<Suite>,
    /// The relay that holds its mailbox (URL without a trailing slash).
    pub relay: String,
    /// When it enrolled.
    pub created: UnixTime,
}

impl DeviceRecord {
    /// The record's bytes, signed by the identity key.
    pub fn sign(&self, identity: &SigningKey) -> Result<Vec<u8>, FormatError> {
        let mut writer = Writer::new();
        writer.map(8).int(1).text(self.tenant.as_str()).int(2).bytes(self.ticket.as_bytes());
        writer.int(3).bytes(self.device.as_bytes()).int(4).bytes(self.identity_key.as_bytes());
        writer.int(5);
        self.request_key.write(&mut writer);
        writer.int(6).array(self.suites.len());
        for suite in &self.suites {
            writer.int(suite.algorithm());
        }
        writer.int(7).text(&self.relay).int(8).uint(self.created.0);
        let bytes = sign1::sign(identity, TYP_RECORD, Signer::Known, &writer.finish(), &[]);
        Self::verify(&bytes).map_err(|_| FormatError::WrongValue("identity key"))?;
        Ok(bytes)
    }

    /// Reads a record and verifies its signature by the identity key that it names.
    pub fn verify(bytes: &[u8]) -> Result<Self, TrustError> {
        let signed = Sign1::read(bytes, RECORD_BYTES_MAX, TYP_RECORD)?;
        signed.check_known()?;
        let record = Self::read(signed.payload)?;
        signed.verify(&record.identity_key, &[])?;
        Ok(record)
    }

    fn read(payload: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(payload, RECORD_BYTES_MAX)?;
        let mut fields = reader.map()?;
        fields.key(&mut reader, 1)?;
        let tenant = reader.parsed("tenant")?;
        fields.key(&mut reader, 2)?;
        let ticket = TicketId(reader.array("ticket")?);
        fields.key(&mut reader, 3)?;
        let device = DeviceId(reader.array("device")?);
        fields.key(&mut reader, 4)?;
        let identity_key = VerifyingKey::from_bytes(&reader.array("identity key")?)?;
        fields.key(&mut reader, 5)?;
        let request_key = RequestKey::read(&mut reader)?;
        fields.key(&mut reader, 6)?;
        let mut suites = Vec::new();
        for _ in 0..reader.list("suites", SUITES_MAX)? {
            let suite = Suite::from_algorithm(reader.int()?)?;
            if suites.contains(&suite) {
                return Err(FormatError::WrongValue("suites"));
            }
            suites.push(suite);
        }
        fields.key(&mut reader, 7)?;
        let relay = reader.text("relay", URL_BYTES_MAX)?.to_owned();
        fields.key(&mut reader, 8)?;
        let created = UnixTime(reader.uint()?);
        fields.end()?;
        if suites.is_empty() {
            return Err(FormatError::WrongValue("suites"));
        }
        Ok(Self { tenant, ticket, device, identity_key, request_key, suites, relay, created })
    }
}

/// The enrolment of `record`: the record under a code that only the holder of the ticket's secret can make.
#[must_use]
pub fn enrol(record: &[u8], binding: &BindingKey) -> Vec<u8> {
    let mut header = Writer::new();
    header.map(2).int(1).int(ALG_HMAC_256).int(16).text(TYP_ENROLMENT);
    let protected = header.finish();
    let tag = binding.tag(&mac_structure(&protected, record));
    let mut writer = Writer::new();
    writer.tag(TAG_MAC0).array(4).bytes(&protected).map(0).bytes(record).bytes(&tag);
    writer.finish()
}

/// An enrolment that was read. Its record is verified; that it belongs to the ticket's holder is not, until
/// [`Self::verify_binding`].
#[derive(Clone, Debug)]
pub struct Enrolment<'a> {
    protected: &'a [u8],
    tag: [u8; 32],
    record_bytes: &'a [u8],
    record: DeviceRecord,
}

impl<'a> Enrolment<'a> {
    /// Reads an enrolment and verifies the record in it.
    pub fn read(bytes: &'a [u8]) -> Result<Self, TrustError> {
        let mut reader = Reader::new(bytes, ENROLMENT_BYTES_MAX)?;
        reader.tag(TAG_MAC0)?;
        reader.tuple(4)?;
        let protected = reader.bytes()?;
        reader.map()?.end()?;
        let record_bytes = reader.bytes()?;
        let tag = reader.array("tag")?;
        let mut reader = Reader::new(protected, ENROLMENT_BYTES_MAX)?;
        let mut fields = reader.map()?;
        fields.key(&mut reader, 1)?;
        if reader.int()? != ALG_HMAC_256 {
            return Err(FormatError::UnknownAlgorithm.into());
        }
        fields.key(&mut reader, 16)?;
        if reader.text("typ", 64)? != TYP_ENROLMENT {
            return Err(FormatError::WrongTyp.into());
        }
        fields.end()?;
        Ok(Self { protected, tag, record_bytes, record: DeviceRecord::verify(record_bytes)? })
    }

    /// The record, signed by the key it names.
    #[must_use]
    pub const fn record(&self) -> &DeviceRecord {
        &self.record
    }

    /// The record's bytes, as a device set carries them.
    #[must_use]
    pub const fn record_bytes(&self) -> &'a [u8] {
        self.record_bytes
    }

    /// SHA-256 of the record.
    #[must_use]
    pub fn record_digest(&self) -> Digest {
        Digest::of(self.record_bytes)
    }

    /// Verifies that a holder of the ticket's secret made it.
    pub fn verify_binding(&self, binding: &BindingKey) -> Result<(), TrustError> {
        binding.verify(&mac_structure(self.protected, self.record_bytes), &self.tag)
    }
}

/// The MAC_structure of RFC 9052 section 6.3.
fn mac_structure(protected: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.array(4).text("MAC0").bytes(protected).bytes(&[]).bytes(payload);
    writer.finish()
}
