//! Orders of a tenant to a device and to the relay that holds its mailbox.
//!
//! ```text
//! wipe = COSE_Sign1 by a revoke key, with its certificate, typ "sealpost-wipe-v1+cose", over
//!   { 1: order id, 2: tenant, 3: device, 4: SHA-256(identity key), 5: issued }
//! ```

use crate::cbor::{Reader, Writer};
use crate::certificate::Purpose;
use crate::clock::UnixTime;
use crate::error::{FormatError, TrustError};
use crate::id::{DeviceId, Digest, OrderId, TenantId};
use crate::key::SigningKey;
use crate::limits::ORDER_BYTES_MAX;
use crate::sign1::{self, Sign1, Signer};
use crate::trust::TenantTrust;

const TYP: &str = "sealpost-wipe-v1+cose";

/// The order to destroy a device's keys and messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WipeOrder {
    /// The order's own id.
    pub id: OrderId,
    /// The tenant.
    pub tenant: TenantId,
    /// The device.
    pub device: DeviceId,
    /// SHA-256 of its identity key: a device that enrolled anew under the same id is not meant.
    pub identity: Digest,
    /// When it was signed.
    pub issued: UnixTime,
}

impl WipeOrder {
    /// The order's bytes, signed by a revoke key.
    pub fn sign(&self, key: &SigningKey, certificate: &[u8]) -> Result<Vec<u8>, FormatError> {
        let mut writer = Writer::new();
        writer.map(5).int(1).bytes(self.id.as_bytes()).int(2).text(self.tenant.as_str());
        writer.int(3).bytes(self.device.as_bytes()).int(4).bytes(self.identity.as_bytes());
        writer.int(5).uint(self.issued.0);
        let bytes = sign1::sign(key, TYP, Signer::Certified(certificate), &writer.finish(), &[]);
        if bytes.len() > ORDER_BYTES_MAX { Err(FormatError::TooLarge(ORDER_BYTES_MAX)) } else { Ok(bytes) }
    }

    /// Reads an order and verifies its chain, and that it is for this device with this identity.
    pub fn verify(
        bytes: &[u8],
        trust: &TenantTrust,
        device: DeviceId,
        identity: Digest,
    ) -> Result<Self, TrustError> {
        let signed = Sign1::read(bytes, ORDER_BYTES_MAX, TYP)?;
        let mut reader = Reader::new(signed.payload, ORDER_BYTES_MAX)?;
        let mut fields = reader.map()?;
        fields.key(&mut reader, 1)?;
        let id = OrderId(reader.array("order id")?);
        fields.key(&mut reader, 2)?;
        let tenant: TenantId = reader.parsed("tenant")?;
        fields.key(&mut reader, 3)?;
        let named_device = DeviceId(reader.array("device")?);
        fields.key(&mut reader, 4)?;
        let named_identity = Digest(reader.array("identity")?);
        fields.key(&mut reader, 5)?;
        let issued = UnixTime(reader.uint()?);
        fields.end()?;
        trust.verify_certified(&signed, Purpose::Revoke, Some(issued))?;
        if tenant != *trust.tenant() {
            return Err(TrustError::WrongTenant);
        }
        if named_device != device || named_identity != identity {
            return Err(TrustError::WrongDevice);
        }
        Ok(Self { id, tenant, device, identity, issued })
    }
}
