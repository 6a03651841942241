//! Values at rest: XChaCha20-Poly1305 under the platform's wrapping key, each bound to the place it is stored at.
//!
//! ```text
//! value = nonce (24 random bytes) | ciphertext and tag,  aad = table and key of the row
//! ```

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::error::DeviceError;
use crate::platform::WrappingKey;

const NONCE_BYTES: usize = 24;

/// Seals and opens stored values.
pub(crate) struct Vault(XChaCha20Poly1305);

impl Vault {
    pub(crate) fn new(key: &WrappingKey) -> Self {
        Self(XChaCha20Poly1305::new(key.expose().into()))
    }

    pub(crate) fn seal(
        &self,
        place: &[u8],
        value: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, DeviceError> {
        let mut nonce = [0; NONCE_BYTES];
        rng.fill_bytes(&mut nonce);
        let payload = Payload { msg: value, aad: place };
        let sealed = self.0.encrypt(&XNonce::from(nonce), payload).map_err(|_| DeviceError::Unreadable)?;
        Ok([&nonce[..], &sealed].concat())
    }

    pub(crate) fn open(&self, place: &[u8], stored: &[u8]) -> Result<Zeroizing<Vec<u8>>, DeviceError> {
        let (nonce, sealed) = stored.split_first_chunk::<NONCE_BYTES>().ok_or(DeviceError::Unreadable)?;
        let payload = Payload { msg: sealed, aad: place };
        let value = self.0.decrypt(&XNonce::from(*nonce), payload).map_err(|_| DeviceError::Unreadable)?;
        Ok(Zeroizing::new(value))
    }
}

/// The place of a row, for [`Vault`].
pub(crate) fn place(table: &str, key: &[u8]) -> Vec<u8> {
    [table.as_bytes(), &[0], key].concat()
}

#[cfg(test)]
mod tests {
    use getrandom::SysRng;
    use rand_core::UnwrapErr;

    use super::*;

    #[test]
    fn a_value_opens_at_its_place_only() {
        let mut rng = UnwrapErr(SysRng);
        let vault = Vault::new(&WrappingKey::new([1; 32]));
        let sealed = vault.seal(&place("prekey", b"a"), b"seed", &mut rng).unwrap();
        assert_eq!(vault.open(&place("prekey", b"a"), &sealed).unwrap().as_slice(), b"seed");
        assert!(vault.open(&place("prekey", b"b"), &sealed).is_err());
        assert!(vault.open(&place("meta", b"a"), &sealed).is_err());
        assert!(vault.open(&place("prekey", b"a"), &sealed[..20]).is_err());
        let other = Vault::new(&WrappingKey::new([2; 32]));
        assert!(other.open(&place("prekey", b"a"), &sealed).is_err());
    }
}
