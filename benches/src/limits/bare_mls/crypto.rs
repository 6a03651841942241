//! The primitives of suite 0x0003 behind the traits of openmls: from the crates that `sealpost-group` takes them from.

use std::convert::Infallible;

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem as _, OpModeR, OpModeS, Serializable as _};
use openmls_traits::crypto::OpenMlsCrypto;
use openmls_traits::random::OpenMlsRand;
use openmls_traits::types::{
    AeadType, Ciphersuite, CryptoError, ExporterSecret, HashType, HpkeCiphertext, HpkeConfig, HpkeKeyPair,
    KemOutput, SignatureScheme,
};
use rand_core::Rng as _;
use sealpost_wire::key::{SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};
use tls_codec::SecretVLBytes;

use super::SUITE;
use crate::cast::system_rng;

type Aead = hpke::aead::ChaCha20Poly1305;
type Kem = X25519HkdfSha256;
type PrivateKey = <Kem as hpke::Kem>::PrivateKey;
type PublicKey = <Kem as hpke::Kem>::PublicKey;
type EncappedKey = <Kem as hpke::Kem>::EncappedKey;

/// The primitives.
#[derive(Default)]
pub(super) struct Crypto;

impl OpenMlsRand for Crypto {
    type Error = Infallible;

    fn random_array<const N: usize>(&self) -> Result<[u8; N], Infallible> {
        let mut bytes = [0; N];
        system_rng().fill_bytes(&mut bytes);
        Ok(bytes)
    }

    fn random_vec(&self, length: usize) -> Result<Vec<u8>, Infallible> {
        let mut bytes = vec![0; length];
        system_rng().fill_bytes(&mut bytes);
        Ok(bytes)
    }
}

/// openmls asks for what the suite has and nothing else: which hash, signature or cipher is not looked at.
impl OpenMlsCrypto for Crypto {
    fn supports(&self, suite: Ciphersuite) -> Result<(), CryptoError> {
        if suite == SUITE { Ok(()) } else { Err(CryptoError::UnsupportedCiphersuite) }
    }

    fn supported_ciphersuites(&self) -> Vec<Ciphersuite> {
        vec![SUITE]
    }

    fn hkdf_extract(&self, _hash: HashType, salt: &[u8], ikm: &[u8]) -> Result<SecretVLBytes, CryptoError> {
        let (key, _) = Hkdf::<Sha256>::extract(Some(salt), ikm);
        Ok(SecretVLBytes::new(key.to_vec()))
    }

    fn hmac(&self, _hash: HashType, key: &[u8], message: &[u8]) -> Result<SecretVLBytes, CryptoError> {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|_| CryptoError::InvalidLength)?;
        mac.update(message);
        Ok(SecretVLBytes::new(mac.finalize().into_bytes().to_vec()))
    }

    fn hkdf_expand(
        &self,
        _hash: HashType,
        prk: &[u8],
        info: &[u8],
        length: usize,
    ) -> Result<SecretVLBytes, CryptoError> {
        let hkdf = Hkdf::<Sha256>::from_prk(prk).map_err(|_| CryptoError::HkdfOutputLengthInvalid)?;
        let mut okm = vec![0; length];
        hkdf.expand(info, &mut okm).map_err(|_| CryptoError::HkdfOutputLengthInvalid)?;
        Ok(SecretVLBytes::new(okm))
    }

    fn hash(&self, _hash: HashType, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        Ok(Sha256::digest(data).to_vec())
    }

    fn aead_encrypt(
        &self,
        _algorithm: AeadType,
        key: &[u8],
        data: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let (cipher, nonce) = cipher(key, nonce)?;
        cipher.encrypt(&nonce, Payload { msg: data, aad }).map_err(|_| CryptoError::CryptoLibraryError)
    }

    fn aead_decrypt(
        &self,
        _algorithm: AeadType,
        key: &[u8],
        ciphertext: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let (cipher, nonce) = cipher(key, nonce)?;
        cipher.decrypt(&nonce, Payload { msg: ciphertext, aad }).map_err(|_| CryptoError::AeadDecryptionError)
    }

    fn signature_key_gen(&self, _algorithm: SignatureScheme) -> Result<(Vec<u8>, Vec<u8>), CryptoError> {
        let key = SigningKey::generate(&mut system_rng());
        Ok((key.seed().to_vec(), key.verifying_key().as_bytes().to_vec()))
    }

    fn verify_signature(
        &self,
        _algorithm: SignatureScheme,
        data: &[u8],
        key: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        let key = key.try_into().map_err(|_| CryptoError::InvalidPublicKey)?;
        let key = VerifyingKey::from_bytes(key).map_err(|_| CryptoError::InvalidPublicKey)?;
        let signature = signature.try_into().map_err(|_| CryptoError::InvalidSignature)?;
        key.verify(data, signature).map_err(|_| CryptoError::InvalidSignature)
    }

    fn sign(&self, _algorithm: SignatureScheme, data: &[u8], key: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let seed = key.try_into().map_err(|_| CryptoError::InvalidLength)?;
        Ok(SigningKey::from_seed(seed).sign(data).to_vec())
    }

    fn hpke_seal(
        &self,
        _config: HpkeConfig,
        public_key: &[u8],
        info: &[u8],
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<HpkeCiphertext, CryptoError> {
        let public_key = PublicKey::from_bytes(public_key).map_err(|_| CryptoError::InvalidPublicKey)?;
        let mode = OpModeS::Base;
        let (encapsulated, ciphertext) = hpke::single_shot_seal_with_rng::<Aead, HkdfSha256, Kem>(
            &mode,
            &public_key,
            info,
            plaintext,
            aad,
            &mut system_rng(),
        )
        .map_err(|_| CryptoError::HpkeEncryptionError)?;
        Ok(HpkeCiphertext {
            kem_output: encapsulated.to_bytes().to_vec().into(),
            ciphertext: ciphertext.into(),
        })
    }

    fn hpke_open(
        &self,
        _config: HpkeConfig,
        input: &HpkeCiphertext,
        private_key: &[u8],
        info: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let failed = |_| CryptoError::HpkeDecryptionError;
        let private_key = PrivateKey::from_bytes(private_key).map_err(failed)?;
        let encapsulated = EncappedKey::from_bytes(input.kem_output.as_slice()).map_err(failed)?;
        let ciphertext = input.ciphertext.as_slice();
        hpke::single_shot_open::<Aead, HkdfSha256, Kem>(
            &OpModeR::Base,
            &private_key,
            &encapsulated,
            info,
            ciphertext,
            aad,
        )
        .map_err(failed)
    }

    /// For external commits: the pair makes none.
    fn hpke_setup_sender_and_export(
        &self,
        _config: HpkeConfig,
        _public_key: &[u8],
        _info: &[u8],
        _exporter_context: &[u8],
        _length: usize,
    ) -> Result<(KemOutput, ExporterSecret), CryptoError> {
        Err(CryptoError::UnsupportedCiphersuite)
    }

    /// For external commits: the pair makes none.
    fn hpke_setup_receiver_and_export(
        &self,
        _config: HpkeConfig,
        _encapsulated: &[u8],
        _private_key: &[u8],
        _info: &[u8],
        _exporter_context: &[u8],
        _length: usize,
    ) -> Result<ExporterSecret, CryptoError> {
        Err(CryptoError::UnsupportedCiphersuite)
    }

    fn derive_hpke_keypair(&self, _config: HpkeConfig, ikm: &[u8]) -> Result<HpkeKeyPair, CryptoError> {
        let (private, public) = Kem::derive_keypair(ikm);
        Ok(HpkeKeyPair { private: private.to_bytes().as_slice().into(), public: public.to_bytes().to_vec() })
    }
}

fn cipher(key: &[u8], nonce: &[u8]) -> Result<(ChaCha20Poly1305, Nonce), CryptoError> {
    let key: &[u8; 32] = key.try_into().map_err(|_| CryptoError::InvalidLength)?;
    let nonce: [u8; 12] = nonce.try_into().map_err(|_| CryptoError::InvalidLength)?;
    Ok((ChaCha20Poly1305::new(<&Key>::from(key)), Nonce::from(nonce)))
}
