//! What a message is bound to.
//!
//! ```text
//! context = [ "sealpost/1", tenant, transport id, device id, SHA-256(device identity key), expires_at ]
//! ```

use crate::cbor::Writer;
use crate::clock::UnixTime;
use crate::id::{DeviceId, Digest, TenantId, TransportId};

/// The first element of every context.
const LABEL: &str = "sealpost/1";

/// What a message is bound to: it opens for this tenant, transport id, device and expiry only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageContext {
    /// The tenant that sends.
    pub tenant: TenantId,
    /// The submission.
    pub transport_id: TransportId,
    /// The device that the box is for.
    pub device: DeviceId,
    /// SHA-256 of the device's identity key.
    pub identity: Digest,
    /// When the message is over.
    pub expires_at: UnixTime,
}

impl MessageContext {
    /// The bytes that encryption and signature are bound to (`external_aad` of both).
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.array(6).text(LABEL).text(self.tenant.as_str());
        writer.bytes(self.transport_id.as_bytes()).bytes(self.device.as_bytes());
        writer.bytes(self.identity.as_bytes()).uint(self.expires_at.0);
        writer.finish()
    }
}
