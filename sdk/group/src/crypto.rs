//! The cryptography under MLS: the crates that seal and open messages too, behind the traits of openmls, drawing every
//! random byte from the generator that the caller passes.
//!
//! `openmls_rust_crypto` is not used: it refuses suite 0x004D, its HPKE draws randomness of its own, and it brings
//! second versions of most of these crates.

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use hpke::kdf::HkdfSha256;
use hpke::kem::{X25519HkdfSha256, XWing};
use hpke::{Deserializable as _, Kem, OpModeR, OpModeS, Serializable as _};
use openmls_traits::crypto::OpenMlsCrypto;
use openmls_traits::random::OpenMlsRand;
use openmls_traits::types::{
    AeadType, Ciphersuite, CryptoError, ExporterSecret, HashType, HpkeAeadType, HpkeCiphertext, HpkeConfig,
    HpkeKdfType, HpkeKemType, HpkeKeyPair, KemOutput, SignatureScheme,
};
use rand_core::{CryptoRng, Rng as _, TryCryptoRng, TryRng};
use sealpost_wire::key::{SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};
use tls_codec::SecretVLBytes;
use zeroize::Zeroizing;

use crate::suite::GroupSuite;

/// The primitives of both suites, and the caller's generator.
pub(crate) struct Crypto<'r> {
    rng: Mutex<&'r mut (dyn CryptoRng + Send)>,
}

impl<'r> Crypto<'r> {
    pub(crate) const fn new(rng: &'r mut (dyn CryptoRng + Send)) -> Self {
        Self { rng: Mutex::new(rng) }
    }

    /// Random bytes for this crate's own needs.
    pub(crate) fn fill(&self, bytes: &mut [u8]) {
        Draw(self).fill_bytes(bytes);
    }
}

/// Draws from the caller's generator, one call at a time: openmls encrypts a path's nodes on several threads.
struct Draw<'c, 'r>(&'c Crypto<'r>);

impl TryRng for Draw<'_, '_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        // A panic elsewhere leaves the generator as it is: good for the next draw whatever the poison says.
        Ok(self.0.rng.lock().unwrap_or_else(PoisonError::into_inner).next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.rng.lock().unwrap_or_else(PoisonError::into_inner).next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.rng.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(bytes);
        Ok(())
    }
}

impl TryCryptoRng for Draw<'_, '_> {}

impl OpenMlsRand for Crypto<'_> {
    type Error = Infallible;

    fn random_array<const N: usize>(&self) -> Result<[u8; N], Infallible> {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        Ok(bytes)
    }

    fn random_vec(&self, length: usize) -> Result<Vec<u8>, Infallible> {
        let mut bytes = vec![0; length];
        self.fill(&mut bytes);
        Ok(bytes)
    }
}

impl OpenMlsCrypto for Crypto<'_> {
    fn supports(&self, suite: Ciphersuite) -> Result<(), CryptoError> {
        match GroupSuite::from_mls(suite) {
            Some(_) => Ok(()),
            None => Err(CryptoError::UnsupportedCiphersuite),
        }
    }

    fn supported_ciphersuites(&self) -> Vec<Ciphersuite> {
        GroupSuite::ALL.iter().map(|suite| suite.mls()).collect()
    }

    fn hkdf_extract(&self, hash: HashType, salt: &[u8], ikm: &[u8]) -> Result<SecretVLBytes, CryptoError> {
        sha256_only(hash)?;
        let (key, _) = Hkdf::<Sha256>::extract(Some(salt), ikm);
        Ok(secret(&key))
    }

    fn hmac(&self, hash: HashType, key: &[u8], message: &[u8]) -> Result<SecretVLBytes, CryptoError> {
        sha256_only(hash)?;
        let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|_| CryptoError::InvalidLength)?;
        mac.update(message);
        Ok(secret(&mac.finalize().into_bytes()))
    }

    fn hkdf_expand(
        &self,
        hash: HashType,
        prk: &[u8],
        info: &[u8],
        length: usize,
    ) -> Result<SecretVLBytes, CryptoError> {
        sha256_only(hash)?;
        let hkdf = Hkdf::<Sha256>::from_prk(prk).map_err(|_| CryptoError::HkdfOutputLengthInvalid)?;
        let mut okm = vec![0; length];
        hkdf.expand(info, &mut okm).map_err(|_| CryptoError::HkdfOutputLengthInvalid)?;
        Ok(SecretVLBytes::new(okm))
    }

    fn hash(&self, hash: HashType, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        sha256_only(hash)?;
        Ok(Sha256::digest(data).to_vec())
    }

    fn aead_encrypt(
        &self,
        algorithm: AeadType,
        key: &[u8],
        data: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let (cipher, nonce) = cipher(algorithm, key, nonce)?;
        cipher.encrypt(&nonce, Payload { msg: data, aad }).map_err(|_| CryptoError::CryptoLibraryError)
    }

    fn aead_decrypt(
        &self,
        algorithm: AeadType,
        key: &[u8],
        ciphertext: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let (cipher, nonce) = cipher(algorithm, key, nonce)?;
        cipher.decrypt(&nonce, Payload { msg: ciphertext, aad }).map_err(|_| CryptoError::AeadDecryptionError)
    }

    fn signature_key_gen(&self, algorithm: SignatureScheme) -> Result<(Vec<u8>, Vec<u8>), CryptoError> {
        ed25519_only(algorithm)?;
        let key = SigningKey::generate(&mut Draw(self));
        Ok((key.seed().to_vec(), key.verifying_key().as_bytes().to_vec()))
    }

    fn verify_signature(
        &self,
        algorithm: SignatureScheme,
        data: &[u8],
        key: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        ed25519_only(algorithm)?;
        let key = key.try_into().map_err(|_| CryptoError::InvalidPublicKey)?;
        let key = VerifyingKey::from_bytes(key).map_err(|_| CryptoError::InvalidPublicKey)?;
        let signature = signature.try_into().map_err(|_| CryptoError::InvalidSignature)?;
        key.verify(data, signature).map_err(|_| CryptoError::InvalidSignature)
    }

    fn sign(&self, algorithm: SignatureScheme, data: &[u8], key: &[u8]) -> Result<Vec<u8>, CryptoError> {
        ed25519_only(algorithm)?;
        let seed = key.try_into().map_err(|_| CryptoError::InvalidLength)?;
        Ok(SigningKey::from_seed(seed).sign(data).to_vec())
    }

    fn hpke_seal(
        &self,
        config: HpkeConfig,
        public_key: &[u8],
        info: &[u8],
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<HpkeCiphertext, CryptoError> {
        match kem(&config)? {
            GroupSuite::Classical => seal_with::<X25519HkdfSha256>(self, public_key, info, aad, plaintext),
            GroupSuite::Hybrid => seal_with::<XWing>(self, public_key, info, aad, plaintext),
        }
    }

    fn hpke_open(
        &self,
        config: HpkeConfig,
        input: &HpkeCiphertext,
        private_key: &[u8],
        info: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        match kem(&config)? {
            GroupSuite::Classical => open_with::<X25519HkdfSha256>(input, private_key, info, aad),
            GroupSuite::Hybrid => open_with::<XWing>(input, private_key, info, aad),
        }
    }

    fn hpke_setup_sender_and_export(
        &self,
        config: HpkeConfig,
        public_key: &[u8],
        info: &[u8],
        exporter_context: &[u8],
        length: usize,
    ) -> Result<(KemOutput, ExporterSecret), CryptoError> {
        match kem(&config)? {
            GroupSuite::Classical => {
                export_to::<X25519HkdfSha256>(self, public_key, info, exporter_context, length)
            }
            GroupSuite::Hybrid => export_to::<XWing>(self, public_key, info, exporter_context, length),
        }
    }

    fn hpke_setup_receiver_and_export(
        &self,
        config: HpkeConfig,
        encapsulated: &[u8],
        private_key: &[u8],
        info: &[u8],
        exporter_context: &[u8],
        length: usize,
    ) -> Result<ExporterSecret, CryptoError> {
        match kem(&config)? {
            GroupSuite::Classical => {
                export_from::<X25519HkdfSha256>(encapsulated, private_key, info, exporter_context, length)
            }
            GroupSuite::Hybrid => {
                export_from::<XWing>(encapsulated, private_key, info, exporter_context, length)
            }
        }
    }

    fn derive_hpke_keypair(&self, config: HpkeConfig, ikm: &[u8]) -> Result<HpkeKeyPair, CryptoError> {
        Ok(match kem(&config)? {
            GroupSuite::Classical => keypair_with::<X25519HkdfSha256>(ikm),
            GroupSuite::Hybrid => keypair_with::<XWing>(ikm),
        })
    }
}

type Aead = hpke::aead::ChaCha20Poly1305;

fn seal_with<K: Kem>(
    crypto: &Crypto<'_>,
    public_key: &[u8],
    info: &[u8],
    aad: &[u8],
    plaintext: &[u8],
) -> Result<HpkeCiphertext, CryptoError> {
    let public_key = K::PublicKey::from_bytes(public_key).map_err(|_| CryptoError::InvalidPublicKey)?;
    let mut rng = Draw(crypto);
    let (encapsulated, mut context) =
        hpke::setup_sender_with_rng::<Aead, HkdfSha256, K>(&OpModeS::Base, &public_key, info, &mut rng)
            .map_err(|_| CryptoError::HpkeEncryptionError)?;
    let ciphertext = context.seal(plaintext, aad).map_err(|_| CryptoError::HpkeEncryptionError)?;
    Ok(HpkeCiphertext { kem_output: encapsulated.to_bytes().to_vec().into(), ciphertext: ciphertext.into() })
}

fn open_with<K: Kem>(
    input: &HpkeCiphertext,
    private_key: &[u8],
    info: &[u8],
    aad: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    let private_key = K::PrivateKey::from_bytes(private_key).map_err(|_| CryptoError::HpkeDecryptionError)?;
    let encapsulated = K::EncappedKey::from_bytes(input.kem_output.as_slice())
        .map_err(|_| CryptoError::HpkeDecryptionError)?;
    let mut context =
        hpke::setup_receiver::<Aead, HkdfSha256, K>(&OpModeR::Base, &private_key, &encapsulated, info)
            .map_err(|_| CryptoError::HpkeDecryptionError)?;
    context.open(input.ciphertext.as_slice(), aad).map_err(|_| CryptoError::HpkeDecryptionError)
}

fn export_to<K: Kem>(
    crypto: &Crypto<'_>,
    public_key: &[u8],
    info: &[u8],
    exporter_context: &[u8],
    length: usize,
) -> Result<(KemOutput, ExporterSecret), CryptoError> {
    let public_key = K::PublicKey::from_bytes(public_key).map_err(|_| CryptoError::InvalidPublicKey)?;
    let mut rng = Draw(crypto);
    let (encapsulated, context) =
        hpke::setup_sender_with_rng::<Aead, HkdfSha256, K>(&OpModeS::Base, &public_key, info, &mut rng)
            .map_err(|_| CryptoError::SenderSetupError)?;
    let mut exported = vec![0; length];
    context.export(exporter_context, &mut exported).map_err(|_| CryptoError::ExporterError)?;
    Ok((encapsulated.to_bytes().to_vec(), exported.into()))
}

fn export_from<K: Kem>(
    encapsulated: &[u8],
    private_key: &[u8],
    info: &[u8],
    exporter_context: &[u8],
    length: usize,
) -> Result<ExporterSecret, CryptoError> {
    let private_key = K::PrivateKey::from_bytes(private_key).map_err(|_| CryptoError::ReceiverSetupError)?;
    let encapsulated =
        K::EncappedKey::from_bytes(encapsulated).map_err(|_| CryptoError::ReceiverSetupError)?;
    let context =
        hpke::setup_receiver::<Aead, HkdfSha256, K>(&OpModeR::Base, &private_key, &encapsulated, info)
            .map_err(|_| CryptoError::ReceiverSetupError)?;
    let mut exported = vec![0; length];
    context.export(exporter_context, &mut exported).map_err(|_| CryptoError::ExporterError)?;
    Ok(exported.into())
}

/// DeriveKeyPair of the KEM: for X-Wing as draft-ietf-hpke-pq has it.
fn keypair_with<K: Kem>(ikm: &[u8]) -> HpkeKeyPair {
    let (private, public) = K::derive_keypair(ikm);
    let private = Zeroizing::new(private.to_bytes().to_vec());
    HpkeKeyPair { private: private.as_slice().into(), public: public.to_bytes().to_vec() }
}

/// The suite whose KEM `config` names; KDF and AEAD are the same for both.
fn kem(config: &HpkeConfig) -> Result<GroupSuite, CryptoError> {
    if config.1 != HpkeKdfType::HkdfSha256 || config.2 != HpkeAeadType::ChaCha20Poly1305 {
        return Err(CryptoError::UnsupportedCiphersuite);
    }
    match config.0 {
        HpkeKemType::DhKem25519 => Ok(GroupSuite::Classical),
        HpkeKemType::XWingKemDraft6 => Ok(GroupSuite::Hybrid),
        _ => Err(CryptoError::UnsupportedCiphersuite),
    }
}

fn cipher(algorithm: AeadType, key: &[u8], nonce: &[u8]) -> Result<(ChaCha20Poly1305, Nonce), CryptoError> {
    if algorithm != AeadType::ChaCha20Poly1305 {
        return Err(CryptoError::UnsupportedAeadAlgorithm);
    }
    let key: &[u8; 32] = key.try_into().map_err(|_| CryptoError::InvalidLength)?;
    let nonce: [u8; 12] = nonce.try_into().map_err(|_| CryptoError::InvalidLength)?;
    Ok((ChaCha20Poly1305::new(<&Key>::from(key)), Nonce::from(nonce)))
}

fn sha256_only(hash: HashType) -> Result<(), CryptoError> {
    if hash == HashType::Sha2_256 { Ok(()) } else { Err(CryptoError::UnsupportedHashAlgorithm) }
}

fn ed25519_only(algorithm: SignatureScheme) -> Result<(), CryptoError> {
    if algorithm == SignatureScheme::ED25519 { Ok(()) } else { Err(CryptoError::UnsupportedSignatureScheme) }
}

fn secret(bytes: &[u8]) -> SecretVLBytes {
    SecretVLBytes::new(bytes.to_vec())
}
