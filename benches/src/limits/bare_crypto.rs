//! `hpke` and an Ed25519 signature on their own, over the bytes that a sealed message has.

use std::marker::PhantomData;

use ed25519_dalek::{Signer as _, SigningKey};
use getrandom::SysRng;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::{Deserializable as _, Kem, OpModeR, OpModeS, Serializable as _};
use rand_core::UnwrapErr;

/// Bare sealing and opening of one message with one KEM.
pub struct Bare<K: Kem> {
    signing: SigningKey,
    public: Vec<u8>,
    private: Vec<u8>,
    message: Vec<u8>,
    aad: Vec<u8>,
    kem: PhantomData<K>,
}

impl<K: Kem> Bare<K> {
    /// A message of `bytes` bytes with `aad` bytes of associated data.
    #[must_use]
    pub fn new(bytes: usize, aad: usize) -> Self {
        let mut rng = UnwrapErr(SysRng);
        let (private, public) = K::gen_keypair_with_rng(&mut rng);
        Self {
            signing: SigningKey::from_bytes(&[7; 32]),
            public: public.to_bytes().to_vec(),
            private: private.to_bytes().to_vec(),
            message: vec![0x61; bytes],
            aad: vec![0x62; aad],
            kem: PhantomData,
        }
    }

    /// Signs and seals once: signature, encapsulated key, ciphertext.
    #[must_use]
    pub fn seal(&self) -> ([u8; 64], Vec<u8>, Vec<u8>) {
        let signature = self.signing.sign(&self.message);
        let public = K::PublicKey::from_bytes(&self.public).expect("the key was just made");
        let (key, ciphertext) = hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, K>(
            &OpModeS::Base,
            &public,
            b"",
            &self.message,
            &self.aad,
            &mut UnwrapErr(SysRng),
        )
        .expect("sealing to a key that was just made");
        (signature.to_bytes(), key.to_bytes().to_vec(), ciphertext)
    }

    /// The private key, made from the 32 bytes that are kept of it.
    #[must_use]
    pub fn private(&self) -> K::PrivateKey {
        K::PrivateKey::from_bytes(&self.private).expect("the key was just made")
    }

    /// Opens with `private` and verifies once.
    pub fn open(&self, private: &K::PrivateKey, (signature, key, ciphertext): &([u8; 64], Vec<u8>, Vec<u8>)) {
        let key = K::EncappedKey::from_bytes(key).expect("the key was just made");
        let message = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, K>(
            &OpModeR::Base,
            private,
            &key,
            b"",
            ciphertext,
            &self.aad,
        )
        .expect("opening what was just sealed");
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        // The sender's; that of the root under the sender's certificate a device verifies once and remembers.
        self.signing
            .verifying_key()
            .verify_strict(&message, &signature)
            .expect("verifying what was just signed");
    }
}
