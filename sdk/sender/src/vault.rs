//! Alerts at rest: XChaCha20-Poly1305 under the outbox's key, each bound to its row.
//!
//! ```text
//! value = nonce (24 random bytes) | ciphertext and tag,  aad = what the row is
//! ```

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand_core::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error::SenderError;

const NONCE_BYTES: usize = 24;

/// The key to the alerts and ticket secrets that wait in a database, wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct StorageKey([u8; 32]);

impl StorageKey {
    /// The key with these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the key file.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for StorageKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StorageKey(…)")
    }
}

/// Seals and opens stored values.
pub(crate) struct Vault(XChaCha20Poly1305);

impl Vault {
    pub(crate) fn new(key: &StorageKey) -> Self {
        Self(XChaCha20Poly1305::new(key.expose().into()))
    }

    pub(crate) fn seal(
        &self,
        place: &[u8],
        value: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, SenderError> {
        let mut nonce = [0; NONCE_BYTES];
        rng.fill_bytes(&mut nonce);
        let payload = Payload { msg: value, aad: place };
        let sealed = self.0.encrypt(&XNonce::from(nonce), payload).map_err(|_| SenderError::Unreadable)?;
        Ok([&nonce[..], &sealed].concat())
    }

    pub(crate) fn open(&self, place: &[u8], stored: &[u8]) -> Result<Zeroizing<Vec<u8>>, SenderError> {
        let (nonce, sealed) = stored.split_first_chunk::<NONCE_BYTES>().ok_or(SenderError::Unreadable)?;
        let payload = Payload { msg: sealed, aad: place };
        let value = self.0.decrypt(&XNonce::from(*nonce), payload).map_err(|_| SenderError::Unreadable)?;
        Ok(Zeroizing::new(value))
    }
}
