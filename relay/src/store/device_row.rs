//! The row of a registered device.
//!
//! ```text
//! version | identity key (32) | alg (1) | request key (32 or 33) | record created
//!         | 0, or: 1 | app (2) | registered ms | refused (1) | sealed push token
//! ```

use sealpost_wire::clock::UnixTime;
use sealpost_wire::key::{RequestKey, VerifyingKey};

use super::AppId;
use super::codec::{Decoder, Encoder};
use crate::push_token::SealedPushToken;

/// A registered device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Verifies its receipts.
    pub identity_key: VerifyingKey,
    /// Verifies its requests.
    pub request_key: RequestKey,
    /// When the record that it registered with was made. An older one is not taken in its place.
    pub created: UnixTime,
    /// Where its stubs go; nothing when it gave no push token, or the token has died.
    pub push: Option<PushTarget>,
}

/// Where a device's stubs go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushTarget {
    /// The app.
    pub app: AppId,
    /// When the token was registered, last (milliseconds).
    pub registered_ms: u64,
    /// Whether the provider has said that it does not know the token. It is not used until it is registered
    /// again.
    pub refused: bool,
    /// The token, sealed.
    pub token: SealedPushToken,
}

impl Device {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut row = Encoder::new(128 + self.push.as_ref().map_or(0, |push| push.token.as_bytes().len()));
        row.bytes(self.identity_key.as_bytes());
        match &self.request_key {
            RequestKey::Ed25519(key) => row.u8(ED25519).bytes(key.as_bytes()),
            RequestKey::P256(point) => row.u8(P256).bytes(point),
        };
        row.u64(self.created.0);
        match &self.push {
            None => row.u8(0),
            Some(push) => {
                row.u8(1).u16(push.app.0).u64(push.registered_ms).u8(u8::from(push.refused));
                row.blob(push.token.as_bytes())
            }
        };
        row.finish()
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let mut row = Decoder::new(value)?;
        let identity_key = VerifyingKey::from_bytes(&row.array()?).ok()?;
        let request_key = match row.u8()? {
            ED25519 => RequestKey::Ed25519(VerifyingKey::from_bytes(&row.array()?).ok()?),
            P256 => RequestKey::P256(row.array()?),
            _ => return None,
        };
        let created = UnixTime(row.u64()?);
        let push = PushTarget::read(&mut row)?;
        row.end(Self { identity_key, request_key, created, push })
    }
}

impl PushTarget {
    /// The push target in the row of a device. Its keys are passed over: to make points of them takes longer than all
    /// the rest of a lease.
    pub(super) fn decode(value: &[u8]) -> Option<Option<Self>> {
        let mut row = Decoder::new(value)?;
        row.bytes(IDENTITY_KEY_BYTES)?;
        let request_key_bytes = match row.u8()? {
            ED25519 => 32,
            P256 => 33,
            _ => return None,
        };
        row.bytes(request_key_bytes + CREATED_BYTES)?;
        let push = Self::read(&mut row)?;
        row.end(push)
    }

    fn read(row: &mut Decoder<'_>) -> Option<Option<Self>> {
        if row.u8()? == 0 {
            return Some(None);
        }
        Some(Some(Self {
            app: AppId(row.u16()?),
            registered_ms: row.u64()?,
            refused: row.u8()? != 0,
            token: SealedPushToken::from_bytes(row.blob()?.to_vec()),
        }))
    }
}

const IDENTITY_KEY_BYTES: usize = 32;
const CREATED_BYTES: usize = 8;

const ED25519: u8 = 1;
const P256: u8 = 2;
