//! COSE_Sign1 (RFC 9052 section 4.2) as every signed structure here uses it.
//!
//! ```text
//! signed    = 18([ protected, {}, payload, signature ])
//! protected = bstr .cbor { 1: -19, 4: kid, 16: typ, ? -65537: certificate / ? -65538: admission }
//! signature = Ed25519 over [ "Signature1", protected, external_aad, payload ]
//! ```

use zeroize::Zeroizing;

use crate::cbor::{Reader, Writer};
use crate::error::{FormatError, TrustError};
use crate::id::KeyId;
use crate::key::{ALG_ED25519, SigningKey, VerifyingKey};

const TAG_SIGN1: u64 = 18;
const HEADER_ALG: i64 = 1;
const HEADER_KID: i64 = 4;
const HEADER_TYP: i64 = 16;
/// Private use (RFC 9052 section 11.1: labels below -65536).
const HEADER_CERTIFICATE: i64 = -65537;
/// Private use, too.
const HEADER_ADMISSION: i64 = -65538;
/// Room for what stands around the byte strings of a structure: tag, array, heads of at most 9 bytes, the
/// label.
const HEADS_BYTES_MAX: usize = 64;

/// What a structure says of the key that signed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signer<'a> {
    /// Nothing: its reader knows the key.
    Known,
    /// The tenant has certified the key: the certificate.
    Certified(&'a [u8]),
    /// It is the identity key of a device that the tenant has admitted: the admission.
    Admitted(&'a [u8]),
}

/// A signed structure that was read and not yet believed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sign1<'a> {
    protected: &'a [u8],
    signature: [u8; 64],
    pub(crate) payload: &'a [u8],
    pub(crate) kid: KeyId,
    pub(crate) typ: &'a str,
    pub(crate) signer: Signer<'a>,
}

impl<'a> Sign1<'a> {
    /// Reads `bytes`, at most `max` of them, as a signed structure of type `typ`.
    pub(crate) fn read(bytes: &'a [u8], max: usize, typ: &str) -> Result<Self, FormatError> {
        let signed = Self::read_any(bytes, max)?;
        if signed.typ == typ { Ok(signed) } else { Err(FormatError::WrongTyp) }
    }

    /// Reads `bytes` as a signed structure of any type.
    pub(crate) fn read_any(bytes: &'a [u8], max: usize) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, max)?;
        reader.tag(TAG_SIGN1)?;
        reader.tuple(4)?;
        let protected = reader.bytes()?;
        reader.map()?.end()?;
        let payload = reader.bytes()?;
        let signature = reader.array("signature")?;

        let mut reader = Reader::new(protected, max)?;
        let mut fields = reader.map()?;
        fields.key(&mut reader, HEADER_ALG)?;
        if reader.int()? != ALG_ED25519 {
            return Err(FormatError::UnknownAlgorithm);
        }
        fields.key(&mut reader, HEADER_KID)?;
        let kid = KeyId(reader.array("kid")?);
        fields.key(&mut reader, HEADER_TYP)?;
        let typ = reader.text("typ", 64)?;
        let mut optional = |label| match fields.optional(&mut reader, label)? {
            true => reader.bytes().map(Some),
            false => Ok(None),
        };
        let (certificate, admission) = (optional(HEADER_CERTIFICATE)?, optional(HEADER_ADMISSION)?);
        fields.end()?;
        let signer = match (certificate, admission) {
            (None, None) => Signer::Known,
            (Some(certificate), None) => Signer::Certified(certificate),
            (None, Some(admission)) => Signer::Admitted(admission),
            (Some(_), Some(_)) => return Err(FormatError::WrongField),
        };
        Ok(Self { protected, signature, payload, kid, typ, signer })
    }

    /// Verifies the signature by `key` over the structure and `external_aad`.
    pub(crate) fn verify(&self, key: &VerifyingKey, external_aad: &[u8]) -> Result<(), TrustError> {
        if self.kid != key.key_id() {
            return Err(TrustError::BadSignature);
        }
        key.verify(&to_be_signed(self.protected, external_aad, self.payload), &self.signature)
    }

    /// The certificate that the structure must carry.
    pub(crate) fn required_certificate(&self) -> Result<&'a [u8], FormatError> {
        match self.signer {
            Signer::Certified(certificate) => Ok(certificate),
            Signer::Known | Signer::Admitted(_) => Err(FormatError::WrongField),
        }
    }

    /// The structure must be one whose reader knows the key.
    pub(crate) fn check_known(&self) -> Result<(), FormatError> {
        if self.signer == Signer::Known { Ok(()) } else { Err(FormatError::WrongField) }
    }
}

/// Signs `payload` as a structure of type `typ`.
pub(crate) fn sign(
    key: &SigningKey,
    typ: &str,
    signer: Signer<'_>,
    payload: &[u8],
    external_aad: &[u8],
) -> Vec<u8> {
    let mut header = Writer::new();
    header.map(if signer == Signer::Known { 3 } else { 4 });
    header.int(HEADER_ALG).int(ALG_ED25519);
    header.int(HEADER_KID).bytes(key.verifying_key().key_id().as_bytes());
    header.int(HEADER_TYP).text(typ);
    match signer {
        Signer::Known => {}
        Signer::Certified(certificate) => {
            header.int(HEADER_CERTIFICATE).bytes(certificate);
        }
        Signer::Admitted(admission) => {
            header.int(HEADER_ADMISSION).bytes(admission);
        }
    }
    let protected = header.finish();
    let signature = key.sign(&to_be_signed(&protected, external_aad, payload));
    let mut writer =
        Writer::with_capacity(protected.len() + payload.len() + signature.len() + HEADS_BYTES_MAX);
    writer.tag(TAG_SIGN1).array(4).bytes(&protected).map(0).bytes(payload).bytes(&signature);
    writer.finish()
}

/// The Sig_structure of RFC 9052 section 4.4. It is wiped, for the payload of a message is secret.
fn to_be_signed(protected: &[u8], external_aad: &[u8], payload: &[u8]) -> Zeroizing<Vec<u8>> {
    let capacity = protected.len() + external_aad.len() + payload.len() + HEADS_BYTES_MAX;
    let mut writer = Writer::with_capacity(capacity);
    writer.array(4).text("Signature1").bytes(protected).bytes(external_aad).bytes(payload);
    Zeroizing::new(writer.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_labels_sort_as_they_are_written() {
        // 01, 04, 10, 3a00010000 or 3a00010001: bytewise order of the encoded keys.
        let key = SigningKey::from_seed(&[7; 32]);
        for signer in [Signer::Known, Signer::Certified(&[1, 2]), Signer::Admitted(&[3])] {
            let bytes = sign(&key, "typ", signer, b"payload", b"");
            let signed = Sign1::read(&bytes, 4096, "typ").unwrap();
            assert_eq!(signed.signer, signer);
            assert_eq!(signed.verify(&key.verifying_key(), b""), Ok(()));
            assert_eq!(signed.verify(&key.verifying_key(), b"x"), Err(TrustError::BadSignature));
            let other = SigningKey::from_seed(&[8; 32]).verifying_key();
            assert_eq!(signed.verify(&other, b""), Err(TrustError::BadSignature));
        }
    }
}
