//! Signing keys. Ed25519 (RFC 8032) everywhere, verified strictly; a device's request key may be P-256
//! instead, so that it can live in a secure element.

use std::fmt;

use p256::ecdsa::signature::{Signer as _, Verifier as _};
use p256::elliptic_curve::Generate as _;
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::cbor::{Reader, Writer};
use crate::error::{FormatError, TrustError};
use crate::id::{Digest, KeyId};

/// COSE algorithm Ed25519 (RFC 9864).
pub const ALG_ED25519: i64 = -19;
/// COSE algorithm ESP256: ECDSA on P-256 with SHA-256 (RFC 9864).
pub const ALG_ESP256: i64 = -9;

/// A private Ed25519 key, made from its 32-byte seed (RFC 8032 section 5.1.5) and wiped when dropped.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// A new random key.
    pub fn generate<R: CryptoRng + ?Sized>(rng: &mut R) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(seed.as_mut());
        Self::from_seed(&seed)
    }

    /// The key with this seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The seed. Whoever sees it can sign: it goes into a key file or a protected store, nowhere else.
    #[must_use]
    pub fn seed(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The public half.
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(self.0.verifying_key())
    }

    /// Signs `message`: 64 bytes.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.verifying_key().key_id())
    }
}

/// A public Ed25519 key: the one encoding of a point on the curve that is not of small order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VerifyingKey(ed25519_dalek::VerifyingKey);

impl VerifyingKey {
    /// The key with these 32 bytes. Bytes that are no point, one of small order, or another encoding of a
    /// point than its own (y not below 2^255 - 19, RFC 8032 section 5.1.3) are refused: a key has one form
    /// and so one id.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, FormatError> {
        if !is_reduced(bytes) {
            return Err(FormatError::WrongValue("public key"));
        }
        let key = ed25519_dalek::VerifyingKey::from_bytes(bytes);
        let key = key.map_err(|_| FormatError::WrongValue("public key"))?;
        if key.is_weak() { Err(FormatError::WrongValue("public key")) } else { Ok(Self(key)) }
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The key's id.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        KeyId(Digest::of(self.as_bytes()).first_half())
    }

    /// SHA-256 of the key, as the context of a message names a device's identity.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(self.as_bytes())
    }

    /// Verifies strictly: canonical encodings, no small order, the equation without cofactor.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), TrustError> {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        self.0.verify_strict(message, &signature).map_err(|_| TrustError::BadSignature)
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({})", self.key_id())
    }
}

/// Whether the y coordinate in `bytes` (little endian, the top bit being the sign of x) is below 2^255 - 19.
/// The library reduces it silently. With x = 0 the sign bit has two forms too, but those points are of small
/// order.
fn is_reduced(bytes: &[u8; 32]) -> bool {
    let [lowest, middle @ .., highest] = bytes;
    *lowest < 0xed || highest & 0x7f != 0x7f || middle.iter().any(|byte| *byte != 0xff)
}

/// The public key that authenticates a device's or a client's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKey {
    /// Ed25519, 32 bytes.
    Ed25519(VerifyingKey),
    /// P-256, as a compressed point of 33 bytes (SEC 1 section 2.3.3).
    P256([u8; 33]),
}

impl RequestKey {
    /// The key's bytes, as its id is computed over them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Ed25519(key) => key.as_bytes(),
            Self::P256(point) => point,
        }
    }

    /// The key's id.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        KeyId(Digest::of(self.as_bytes()).first_half())
    }

    /// Verifies a signature of 64 bytes: Ed25519, or ECDSA as `r | s` (RFC 9421 section 3.3).
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), TrustError> {
        match self {
            Self::Ed25519(key) => key.verify(message, signature),
            Self::P256(point) => {
                let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(point);
                let key = key.map_err(|_| TrustError::BadSignature)?;
                let signature = p256::ecdsa::Signature::from_slice(signature);
                let signature = signature.map_err(|_| TrustError::BadSignature)?;
                key.verify(message, &signature).map_err(|_| TrustError::BadSignature)
            }
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        let algorithm = match self {
            Self::Ed25519(_) => ALG_ED25519,
            Self::P256(_) => ALG_ESP256,
        };
        writer.array(2).int(algorithm).bytes(self.as_bytes());
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        reader.tuple(2)?;
        match reader.int()? {
            ALG_ED25519 => Ok(Self::Ed25519(VerifyingKey::from_bytes(&reader.array("request key")?)?)),
            ALG_ESP256 => {
                let point: [u8; 33] = reader.array("request key")?;
                p256::ecdsa::VerifyingKey::from_sec1_bytes(&point)
                    .map_err(|_| FormatError::WrongValue("request key"))?;
                Ok(Self::P256(point))
            }
            _ => Err(FormatError::UnknownAlgorithm),
        }
    }
}

/// The private key that signs requests. A secure element holds a key of its own instead and implements
/// [`SignRequest`].
#[derive(Debug, Clone)]
pub enum RequestSigningKey {
    /// Ed25519.
    Ed25519(SigningKey),
    /// P-256.
    P256(P256SigningKey),
}

/// What signs a request: a key in memory, or one in a secure element.
pub trait SignRequest {
    /// The public half.
    fn request_key(&self) -> RequestKey;
    /// Signs `message`: 64 bytes.
    fn sign(&self, message: &[u8]) -> [u8; 64];
}

impl SignRequest for RequestSigningKey {
    fn request_key(&self) -> RequestKey {
        match self {
            Self::Ed25519(key) => RequestKey::Ed25519(key.verifying_key()),
            Self::P256(key) => RequestKey::P256(key.public()),
        }
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        match self {
            Self::Ed25519(key) => key.sign(message),
            Self::P256(key) => key.sign(message),
        }
    }
}

/// A private P-256 key, wiped when dropped.
#[derive(Clone)]
pub struct P256SigningKey(p256::ecdsa::SigningKey);

impl P256SigningKey {
    /// A new random key.
    pub fn generate<R: CryptoRng + ?Sized>(rng: &mut R) -> Self {
        Self(p256::ecdsa::SigningKey::generate_from_rng(rng))
    }

    /// The key with this scalar of 32 bytes, big endian.
    pub fn from_bytes(scalar: &[u8; 32]) -> Result<Self, FormatError> {
        p256::ecdsa::SigningKey::from_slice(scalar)
            .map(Self)
            .map_err(|_| FormatError::WrongValue("private key"))
    }

    /// The scalar, big endian. It goes into a protected store, nowhere else.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes().into()
    }

    /// The public half as a compressed point.
    #[must_use]
    pub fn public(&self) -> [u8; 33] {
        let point = self.0.verifying_key().to_sec1_point(true);
        let mut bytes = [0; 33];
        bytes.iter_mut().zip(point.as_bytes()).for_each(|(to, from)| *to = *from);
        bytes
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature: p256::ecdsa::Signature = self.0.sign(message);
        signature.to_bytes().into()
    }
}

impl fmt::Debug for P256SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("P256SigningKey(…)")
    }
}
