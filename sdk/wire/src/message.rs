//! The outer form of a sealed message, and the signed message inside it.
//!
//! ```text
//! sealed    = 16([ protected, { -4: ek }, ciphertext ])                       COSE_Encrypt0 (RFC 9052 section 5.2)
//! protected = bstr .cbor { 1: alg, 4: prekey id, 16: "sealpost-message-v1+cose" }
//! ```
//! Anyone can read this much; what is in `ciphertext` takes the device's key.

use serde::{Deserialize, Serialize};

use crate::cbor::{Reader, Writer};
use crate::context::MessageContext;
use crate::error::FormatError;
use crate::id::PrekeyId;
use crate::limits::SEALED_BYTES_MAX;

pub use crate::payload::{SignedMessage, VerifiedMessage};

const TYP: &str = "sealpost-message-v1+cose";
const TAG_ENCRYPT0: u64 = 16;
const HEADER_ALG: i64 = 1;
const HEADER_KID: i64 = 4;
const HEADER_TYP: i64 = 16;
const HEADER_EK: i64 = -4;
/// Bytes of the tag of ChaCha20-Poly1305 (RFC 8439).
const AEAD_TAG_BYTES: usize = 16;

/// An HPKE suite (RFC 9180 section 7), by its COSE algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Suite {
    /// X-Wing (0x647a), HKDF-SHA256 (0x0001), ChaCha20-Poly1305 (0x0003). COSE -65537, private use.
    Hybrid,
    /// X25519 (0x0020), HKDF-SHA256 (0x0001), ChaCha20-Poly1305 (0x0003). COSE 42, HPKE-4.
    Classical,
}

impl Suite {
    /// The COSE algorithm.
    #[must_use]
    pub const fn algorithm(self) -> i64 {
        match self {
            Self::Hybrid => -65537,
            Self::Classical => 42,
        }
    }

    /// The suite with this COSE algorithm.
    pub const fn from_algorithm(algorithm: i64) -> Result<Self, FormatError> {
        match algorithm {
            -65537 => Ok(Self::Hybrid),
            42 => Ok(Self::Classical),
            _ => Err(FormatError::UnknownAlgorithm),
        }
    }

    /// Bytes of a public key.
    #[must_use]
    pub const fn public_key_bytes(self) -> usize {
        match self {
            Self::Hybrid => 1216,
            Self::Classical => 32,
        }
    }

    /// Bytes of the encapsulated key.
    #[must_use]
    pub const fn encapsulated_key_bytes(self) -> usize {
        match self {
            Self::Hybrid => 1120,
            Self::Classical => 32,
        }
    }
}

/// A sealed message taken apart; nothing of it is authentic yet.
#[derive(Clone, Copy, Debug)]
pub struct SealedMessage<'a> {
    protected: &'a [u8],
    /// The suite.
    pub suite: Suite,
    /// The prekey that it is sealed to.
    pub prekey: PrekeyId,
    /// The HPKE encapsulated key.
    pub encapsulated_key: &'a [u8],
    /// The HPKE ciphertext with its tag.
    pub ciphertext: &'a [u8],
}

impl<'a> SealedMessage<'a> {
    /// Takes `bytes` apart.
    pub fn read(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, SEALED_BYTES_MAX)?;
        reader.tag(TAG_ENCRYPT0)?;
        reader.tuple(3)?;
        let protected = reader.bytes()?;
        let mut unprotected = reader.map()?;
        unprotected.key(&mut reader, HEADER_EK)?;
        let encapsulated_key = reader.bytes()?;
        unprotected.end()?;
        let ciphertext = reader.bytes()?;

        let mut reader = Reader::new(protected, SEALED_BYTES_MAX)?;
        let mut fields = reader.map()?;
        fields.key(&mut reader, HEADER_ALG)?;
        let suite = Suite::from_algorithm(reader.int()?)?;
        fields.key(&mut reader, HEADER_KID)?;
        let prekey = PrekeyId(reader.array("prekey id")?);
        fields.key(&mut reader, HEADER_TYP)?;
        if reader.text("typ", 64)? != TYP {
            return Err(FormatError::WrongTyp);
        }
        fields.end()?;

        if encapsulated_key.len() != suite.encapsulated_key_bytes() {
            return Err(FormatError::WrongValue("encapsulated key"));
        }
        if ciphertext.len() < AEAD_TAG_BYTES {
            return Err(FormatError::WrongValue("ciphertext"));
        }
        Ok(Self { protected, suite, prekey, encapsulated_key, ciphertext })
    }

    /// The associated data of the encryption: the Enc_structure of RFC 9052 section 5.3.
    #[must_use]
    pub fn associated_data(&self, context: &MessageContext) -> Vec<u8> {
        enc_structure(self.protected, context)
    }
}

/// The protected header of a message that is being sealed: what the encryption is bound to, then the finished
/// bytes.
#[derive(Clone, Debug)]
pub struct SealedHeader(Vec<u8>);

impl SealedHeader {
    /// The header for `suite` and `prekey`.
    #[must_use]
    pub fn new(suite: Suite, prekey: PrekeyId) -> Self {
        let mut writer = Writer::new();
        writer.map(3).int(HEADER_ALG).int(suite.algorithm());
        writer.int(HEADER_KID).bytes(prekey.as_bytes()).int(HEADER_TYP).text(TYP);
        Self(writer.finish())
    }

    /// The associated data of the encryption.
    #[must_use]
    pub fn associated_data(&self, context: &MessageContext) -> Vec<u8> {
        enc_structure(&self.0, context)
    }

    /// The sealed message.
    #[must_use]
    pub fn finish(&self, encapsulated_key: &[u8], ciphertext: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.tag(TAG_ENCRYPT0).array(3).bytes(&self.0);
        writer.map(1).int(HEADER_EK).bytes(encapsulated_key).bytes(ciphertext);
        writer.finish()
    }
}

fn enc_structure(protected: &[u8], context: &MessageContext) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.array(3).text("Encrypt0").bytes(protected).bytes(&context.to_bytes());
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        for suite in [Suite::Hybrid, Suite::Classical] {
            let header = SealedHeader::new(suite, PrekeyId([9; 16]));
            let bytes = header.finish(&vec![1; suite.encapsulated_key_bytes()], &[2; 40]);
            let sealed = SealedMessage::read(&bytes).unwrap();
            assert_eq!((sealed.suite, sealed.prekey), (suite, PrekeyId([9; 16])));
            let short = header.finish(&[1; 31], &[2; 40]);
            assert_eq!(SealedMessage::read(&short).unwrap_err(), FormatError::WrongValue("encapsulated key"));
            let empty = header.finish(&vec![1; suite.encapsulated_key_bytes()], &[2; 15]);
            assert_eq!(SealedMessage::read(&empty).unwrap_err(), FormatError::WrongValue("ciphertext"));
        }
        let huge = vec![0; SEALED_BYTES_MAX + 1];
        assert_eq!(SealedMessage::read(&huge).unwrap_err(), FormatError::TooLarge(SEALED_BYTES_MAX));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_answered(bytes: Vec<u8>) {
            let _answer = SealedMessage::read(&bytes);
        }
    }
}
