//! Members of groups (RFC 9420). A member is a device of the tenant; a sender that takes part has a device of its
//! own, its *mailbox*, and says so.
//!
//! ```text
//! credential        = { 1: admission, ? 2: mailbox statement }        the identity of an MLS BasicCredential
//! mailbox statement = COSE_Sign1 by a send key, with its certificate, typ "sealpost-mailbox-v1+cose", over
//!   { 1: tenant, 2: device, 3: SHA-256(identity key), 4: issued }
//! ```
//!
//! A credential is public: it proves nothing of who shows it. Who uses it must take the key of the MLS leaf for the
//! member's only if it is the identity key in the admission's record.

use crate::admission::Admission;
use crate::cbor::{Reader, Writer};
use crate::certificate::{Certificate, Purpose};
use crate::clock::UnixTime;
use crate::error::{FormatError, TrustError};
use crate::id::{DeviceId, Digest, SubjectId, TenantId};
use crate::key::SigningKey;
use crate::limits::{ADMISSION_BYTES_MAX, MAILBOX_STATEMENT_BYTES_MAX, MEMBER_CREDENTIAL_BYTES_MAX};
use crate::record::DeviceRecord;
use crate::sign1::{self, Sign1, Signer};
use crate::trust::TenantTrust;

const TYP_MAILBOX: &str = "sealpost-mailbox-v1+cose";

/// A sender's word that a device is its mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailboxStatement {
    /// The tenant.
    pub tenant: TenantId,
    /// The device.
    pub device: DeviceId,
    /// SHA-256 of its identity key: a device that enrolled anew under the same id is not meant.
    pub identity: Digest,
    /// When it was signed.
    pub issued: UnixTime,
}

impl MailboxStatement {
    /// The statement's bytes, signed by the sender's `send` key.
    ///
    /// # Errors
    /// The certificate is too large.
    pub fn sign(&self, key: &SigningKey, certificate: &[u8]) -> Result<Vec<u8>, FormatError> {
        let mut writer = Writer::new();
        writer.map(4).int(1).text(self.tenant.as_str()).int(2).bytes(self.device.as_bytes());
        writer.int(3).bytes(self.identity.as_bytes()).int(4).uint(self.issued.0);
        let bytes = sign1::sign(key, TYP_MAILBOX, Signer::Certified(certificate), &writer.finish(), &[]);
        check_size(&bytes, MAILBOX_STATEMENT_BYTES_MAX)?;
        Ok(bytes)
    }

    /// Reads a statement and verifies its chain, and that it is about the device of `record`. Returns the
    /// statement and the certificate of the sender that signed it.
    ///
    /// # Errors
    /// The form; the certificate is not one of this tenant for sending, was not valid at `issued`, or its key was
    /// revoked; another tenant's, another device's or an earlier enrolment's.
    pub fn verify(
        bytes: &[u8],
        trust: &TenantTrust,
        record: &DeviceRecord,
    ) -> Result<(Self, Certificate), TrustError> {
        let signed = Sign1::read(bytes, MAILBOX_STATEMENT_BYTES_MAX, TYP_MAILBOX)?;
        signed.required_certificate()?;
        let mut reader = Reader::new(signed.payload, MAILBOX_STATEMENT_BYTES_MAX)?;
        let mut fields = reader.map()?;
        fields.key(&mut reader, 1)?;
        let tenant: TenantId = reader.parsed("tenant")?;
        fields.key(&mut reader, 2)?;
        let device = DeviceId(reader.array("device")?);
        fields.key(&mut reader, 3)?;
        let identity = Digest(reader.array("identity")?);
        fields.key(&mut reader, 4)?;
        let issued = UnixTime(reader.uint()?);
        fields.end()?;
        let certificate = trust.verify_certified(&signed, Purpose::Send, Some(issued))?;
        if tenant != *trust.tenant() {
            return Err(TrustError::WrongTenant);
        }
        if device != record.device || identity != record.identity_key.digest() {
            return Err(TrustError::WrongDevice);
        }
        Ok((Self { tenant, device, identity, issued }, certificate))
    }
}

/// What a member of a group shows of itself, read and not yet believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberCredential {
    /// The tenant's admission of the device.
    pub admission: Vec<u8>,
    /// The mailbox statement of the sender whose device it is.
    pub statement: Option<Vec<u8>>,
}

/// A member of a group whose device the tenant has admitted and not revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedMember {
    /// The admission, with the device's record: the member's key is the identity key in it.
    pub admission: Admission,
    /// The sender whose mailbox the device is, if it is one.
    pub sender: Option<SubjectId>,
}

impl VerifiedMember {
    /// What the device says of itself.
    #[must_use]
    pub const fn record(&self) -> &DeviceRecord {
        &self.admission.record
    }
}

impl MemberCredential {
    /// The credential's bytes: the identity of the BasicCredential (RFC 9420 section 5.3).
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.map(1 + usize::from(self.statement.is_some())).int(1).bytes(&self.admission);
        if let Some(statement) = &self.statement {
            writer.int(2).bytes(statement);
        }
        writer.finish()
    }

    /// Reads a credential; what is in it is read when it is verified.
    ///
    /// # Errors
    /// The form, or a part larger than it may be.
    pub fn read(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, MEMBER_CREDENTIAL_BYTES_MAX)?;
        let mut fields = reader.map()?;
        fields.key(&mut reader, 1)?;
        let admission = reader.bytes()?;
        check_size(admission, ADMISSION_BYTES_MAX)?;
        let statement = match fields.optional(&mut reader, 2)? {
            true => Some(reader.bytes()?),
            false => None,
        };
        check_size(statement.unwrap_or_default(), MAILBOX_STATEMENT_BYTES_MAX)?;
        fields.end()?;
        Ok(Self { admission: admission.to_vec(), statement: statement.map(<[u8]>::to_vec) })
    }

    /// The member, if the tenant has admitted its device and not revoked it, and a sender that is named has said
    /// that the device is its mailbox.
    ///
    /// # Errors
    /// What [`Admission::verify`] and [`MailboxStatement::verify`] refuse, in this order.
    pub fn verify(&self, trust: &TenantTrust) -> Result<VerifiedMember, TrustError> {
        let admission = Admission::verify(&self.admission, trust)?;
        let sender = match &self.statement {
            Some(statement) => {
                let (_, certificate) = MailboxStatement::verify(statement, trust, &admission.record)?;
                Some(certificate.subject)
            }
            None => None,
        };
        Ok(VerifiedMember { admission, sender })
    }
}

fn check_size(bytes: &[u8], max: usize) -> Result<(), FormatError> {
    if bytes.len() > max { Err(FormatError::TooLarge(max)) } else { Ok(()) }
}
