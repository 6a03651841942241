//! Push tokens at rest: AES-256-GCM (NIST SP 800-38D) under the relay's push token key.
//!
//! ```text
//! sealed = nonce (12, random) | ciphertext | tag (16)      aad = tenant | 0 | device (16) | app number (2)
//! ```
//! A token that is moved to another device, app or tenant does not open.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rand_core::CryptoRng;
use sealpost_service::config::SecretKey;
use sealpost_wire::id::{DeviceId, TenantId};
use zeroize::Zeroizing;

use crate::provider::PushToken;
use crate::store::AppId;

/// A sealed push token. What it holds is hidden; its length is that of the token and 28 bytes more.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedPushToken(Vec<u8>);

impl SealedPushToken {
    /// A token that was sealed before.
    #[must_use]
    pub const fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The sealed bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SealedPushToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedPushToken({} bytes)", self.0.len())
    }
}

/// A push token that does not open: sealed under another key, for another device, or damaged. A retry cannot
/// help; the device's next registration does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a push token could not be opened")]
pub struct PushTokenError;

/// The key that push tokens are sealed under.
pub struct PushTokenKey(LessSafeKey);

impl PushTokenKey {
    /// The key in `secret`.
    ///
    /// # Errors
    /// Never for a key of 32 bytes, which it is; the cipher's own answer is passed on all the same.
    pub fn new(secret: &SecretKey) -> Result<Self, PushTokenError> {
        let key = UnboundKey::new(&AES_256_GCM, secret.expose()).map_err(|_| PushTokenError)?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// Seals the token of a device at an app.
    ///
    /// # Errors
    /// [`PushTokenError`], if the cipher fails.
    pub fn seal<R: CryptoRng + ?Sized>(
        &self,
        token: &PushToken,
        tenant: &TenantId,
        device: DeviceId,
        app: AppId,
        rng: &mut R,
    ) -> Result<SealedPushToken, PushTokenError> {
        let mut nonce = [0; NONCE_LEN];
        // Random nonces: below 2^32 registrations under one key the chance of a repeat stays under 2^-32.
        rng.fill_bytes(&mut nonce);
        let mut text = Zeroizing::new(token.expose().as_bytes().to_vec());
        let aad = Aad::from(associated_data(tenant, device, app));
        let sealing = Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(sealing, aad, &mut text).map_err(|_| PushTokenError)?;
        Ok(SealedPushToken([nonce.as_slice(), &text, tag.as_ref()].concat()))
    }

    /// Opens the token of a device at an app.
    ///
    /// # Errors
    /// [`PushTokenError`].
    pub fn open(
        &self,
        sealed: &SealedPushToken,
        tenant: &TenantId,
        device: DeviceId,
        app: AppId,
    ) -> Result<PushToken, PushTokenError> {
        let (nonce, rest) = sealed.0.split_first_chunk::<NONCE_LEN>().ok_or(PushTokenError)?;
        let mut text = Zeroizing::new(rest.to_vec());
        let aad = Aad::from(associated_data(tenant, device, app));
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.0.open_in_place(nonce, aad, &mut text).map_err(|_| PushTokenError)?;
        let token = std::str::from_utf8(opened).map_err(|_| PushTokenError)?;
        PushToken::new(token).map_err(|_| PushTokenError)
    }
}

impl fmt::Debug for PushTokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PushTokenKey(…)")
    }
}

fn associated_data(tenant: &TenantId, device: DeviceId, app: AppId) -> Vec<u8> {
    [tenant.as_str().as_bytes(), &[0], device.as_bytes(), &app.0.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use getrandom::{SysRng, rand_core::UnwrapErr};

    use super::*;

    #[test]
    fn a_token_opens_for_its_own_device_and_app_alone() {
        let mut rng = UnwrapErr(SysRng);
        let key = PushTokenKey::new(&SecretKey::from_bytes([7; 32])).unwrap();
        let (tenant, device): (TenantId, _) = ("st-mary".parse().unwrap(), DeviceId([1; 16]));
        let token = PushToken::new("c0ffee".repeat(10)).unwrap();
        let sealed = key.seal(&token, &tenant, device, AppId(1), &mut rng).unwrap();
        assert_eq!(key.open(&sealed, &tenant, device, AppId(1)), Ok(token.clone()));
        let again = key.seal(&token, &tenant, device, AppId(1), &mut rng).unwrap();
        assert_ne!(sealed, again, "two seals of one token look alike to nobody");

        let other_tenant = "st-john".parse().unwrap();
        assert_eq!(key.open(&sealed, &other_tenant, device, AppId(1)), Err(PushTokenError));
        assert_eq!(key.open(&sealed, &tenant, DeviceId([2; 16]), AppId(1)), Err(PushTokenError));
        assert_eq!(key.open(&sealed, &tenant, device, AppId(2)), Err(PushTokenError));
        let other = PushTokenKey::new(&SecretKey::from_bytes([8; 32])).unwrap();
        assert_eq!(other.open(&sealed, &tenant, device, AppId(1)), Err(PushTokenError));
        for (position, bytes) in (0..sealed.as_bytes().len()).map(|at| (at, sealed.as_bytes().to_vec())) {
            let mut changed = bytes.clone();
            changed[position] ^= 1;
            let changed = SealedPushToken::from_bytes(changed);
            assert_eq!(key.open(&changed, &tenant, device, AppId(1)), Err(PushTokenError));
            let short = SealedPushToken::from_bytes(bytes[..position].to_vec());
            assert_eq!(key.open(&short, &tenant, device, AppId(1)), Err(PushTokenError));
        }
    }
}
