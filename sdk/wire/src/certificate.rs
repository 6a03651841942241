//! Certificates: a tenant root says that a key serves one purpose.
//!
//! ```text
//! certificate = COSE_Sign1 by the root, typ "sealpost-certificate-v1+cose", over
//!   { 1: tenant, 2: purpose, 3: subject, 4: certificate id, 5: [alg, key], 6: not before, 7: not after, ? 8: [+ role] }
//! ```

use crate::cbor::{Reader, Writer};
use crate::clock::UnixTime;
use crate::error::{FormatError, TrustError};
use crate::id::{CertificateId, KeyId, SubjectId, TenantId};
use crate::key::{RequestKey, SigningKey, VerifyingKey};
use crate::limits::CERTIFICATE_BYTES_MAX;
use crate::sign1::{self, Sign1, Signer};

const TYP: &str = "sealpost-certificate-v1+cose";

/// The one thing that a certified key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Signs messages.
    Send,
    /// Authenticates a client at a server.
    Request,
    /// Countersigns devices.
    Enrol,
    /// Signs revocations, wipes and the tenant status.
    Revoke,
}

impl Purpose {
    const fn code(self) -> u64 {
        match self {
            Self::Send => 1,
            Self::Request => 2,
            Self::Enrol => 3,
            Self::Revoke => 4,
        }
    }

    fn from_code(code: u64) -> Result<Self, FormatError> {
        [Self::Send, Self::Request, Self::Enrol, Self::Revoke]
            .into_iter()
            .find(|purpose| purpose.code() == code)
            .ok_or(FormatError::WrongValue("purpose"))
    }
}

/// What a client that holds a `request` key may ask of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Looks recipients up, submits messages, reads their states.
    Sender,
    /// Makes tickets, reads enrolments, puts device sets and consent.
    Enroller,
    /// Puts the tenant status and orders.
    Revoker,
}

impl Role {
    const ALL: [Self; 3] = [Self::Sender, Self::Enroller, Self::Revoker];

    const fn code(self) -> u64 {
        match self {
            Self::Sender => 1,
            Self::Enroller => 2,
            Self::Revoker => 3,
        }
    }
}

/// What a certificate says. One that came from outside is had from [`SignedCertificate::verify`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The tenant.
    pub tenant: TenantId,
    /// The one thing the key may do.
    pub purpose: Purpose,
    /// Who holds the key.
    pub subject: SubjectId,
    /// The certificate's own id.
    pub id: CertificateId,
    /// The key. Only a `request` key may be P-256.
    pub key: RequestKey,
    /// From when the key may be used.
    pub not_before: UnixTime,
    /// Until when the key may be used.
    pub not_after: UnixTime,
    /// For purpose `request`: what the client may ask; otherwise empty. Sorted, each once.
    pub roles: Vec<Role>,
}

impl Certificate {
    /// The certificate's bytes, signed by the tenant root.
    pub fn sign(&self, root: &SigningKey) -> Result<Vec<u8>, FormatError> {
        let mut writer = Writer::new();
        writer.map(7 + usize::from(!self.roles.is_empty()));
        writer.int(1).text(self.tenant.as_str()).int(2).uint(self.purpose.code());
        writer.int(3).text(self.subject.as_str()).int(4).bytes(self.id.as_bytes());
        writer.int(5);
        self.key.write(&mut writer);
        writer.int(6).uint(self.not_before.0).int(7).uint(self.not_after.0);
        if !self.roles.is_empty() {
            writer.int(8).array(self.roles.len());
            self.roles.iter().for_each(|role| {
                writer.uint(role.code());
            });
        }
        let bytes = sign1::sign(root, TYP, Signer::Known, &writer.finish(), &[]);
        // What cannot be read back must not be signed.
        SignedCertificate::read(&bytes)?;
        Ok(bytes)
    }

    /// The key as an Ed25519 key, which every purpose but `request` has.
    pub fn ed25519(&self) -> Result<VerifyingKey, FormatError> {
        match self.key {
            RequestKey::Ed25519(key) => Ok(key),
            RequestKey::P256(_) => Err(FormatError::UnknownAlgorithm),
        }
    }

    /// Whether the key may be used at `time`.
    pub fn check_time(&self, time: UnixTime) -> Result<(), TrustError> {
        if time < self.not_before {
            Err(TrustError::CertificateNotYetValid)
        } else if time > self.not_after {
            Err(TrustError::CertificateExpired)
        } else {
            Ok(())
        }
    }

    fn read(payload: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(payload, CERTIFICATE_BYTES_MAX)?;
        let mut fields = reader.map()?;
        fields.key(&mut reader, 1)?;
        let tenant = reader.parsed("tenant")?;
        fields.key(&mut reader, 2)?;
        let purpose = Purpose::from_code(reader.uint()?)?;
        fields.key(&mut reader, 3)?;
        let subject = reader.parsed("subject")?;
        fields.key(&mut reader, 4)?;
        let id = CertificateId(reader.array("certificate id")?);
        fields.key(&mut reader, 5)?;
        let key = RequestKey::read(&mut reader)?;
        fields.key(&mut reader, 6)?;
        let not_before = UnixTime(reader.uint()?);
        fields.key(&mut reader, 7)?;
        let not_after = UnixTime(reader.uint()?);
        let mut roles = Vec::new();
        if fields.optional(&mut reader, 8)? {
            let mut before = 0;
            for _ in 0..reader.list("roles", Role::ALL.len())? {
                let code = reader.uint()?;
                let role = Role::ALL.into_iter().find(|role| role.code() == code && code > before);
                roles.push(role.ok_or(FormatError::WrongValue("roles"))?);
                before = code;
            }
        }
        fields.end()?;
        if not_after < not_before {
            return Err(FormatError::WrongValue("not after"));
        }
        if (purpose == Purpose::Request) == roles.is_empty() {
            return Err(FormatError::WrongValue("roles"));
        }
        if purpose != Purpose::Request && !matches!(key, RequestKey::Ed25519(_)) {
            return Err(FormatError::UnknownAlgorithm);
        }
        Ok(Self { tenant, purpose, subject, id, key, not_before, not_after, roles })
    }
}

/// A certificate that was read and not yet believed.
#[derive(Clone, Debug)]
pub struct SignedCertificate<'a> {
    signed: Sign1<'a>,
    claimed: Certificate,
}

impl<'a> SignedCertificate<'a> {
    /// Reads a certificate.
    pub fn read(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let signed = Sign1::read(bytes, CERTIFICATE_BYTES_MAX, TYP)?;
        signed.check_known()?;
        Ok(Self { signed, claimed: Certificate::read(signed.payload)? })
    }

    /// The root that it says it comes from.
    #[must_use]
    pub const fn issuer(&self) -> KeyId {
        self.signed.kid
    }

    /// The tenant that it says it belongs to: good for choosing the roots to verify it with, and for nothing
    /// else.
    #[must_use]
    pub const fn claimed_tenant(&self) -> &TenantId {
        &self.claimed.tenant
    }

    /// The certificate, if one of `roots` signed it.
    pub fn verify(self, roots: &[VerifyingKey]) -> Result<Certificate, TrustError> {
        let root =
            roots.iter().find(|root| root.key_id() == self.signed.kid).ok_or(TrustError::UnknownRoot)?;
        self.signed.verify(root, &[])?;
        Ok(self.claimed)
    }
}
