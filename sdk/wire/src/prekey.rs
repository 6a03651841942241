//! Prekeys: the public keys that messages are sealed to. One signature of the device covers a batch of them.
//!
//! ```text
//! leaf  = { 1: device, 2: prekey id, 3: suite, 4: kind, 5: key, 6: seal_until, 7: open_until }
//! batch = COSE_Sign1 by the identity key, typ "sealpost-prekeys-v1+cose", over
//!   { 1: tenant, 2: device, 3: root, 4: size, 5: created }
//! root  = Merkle tree hash (RFC 9162 section 2.1.1) over the leaves of the batch, in upload order
//! kind  = 0 (signed: sealed to again and again) / 1 (one-time)
//! prekey id = SHA-256(key)[..16]
//! ```

use serde::{Deserialize, Serialize};

use crate::base64url::Base64Url;
use crate::cbor::{Reader, Writer};
use crate::clock::UnixTime;
use crate::error::{FormatError, TrustError};
use crate::id::{DeviceId, Digest, PrekeyId, TenantId};
use crate::key::{SigningKey, VerifyingKey};
use crate::limits::{PREKEY_BATCH_BYTES_MAX, PREKEY_LEAF_BYTES_MAX, PREKEYS_PER_BATCH_MAX};
use crate::merkle;
use crate::message::Suite;
use crate::record::DeviceRecord;
use crate::sign1::{self, Sign1, Signer};

const TYP: &str = "sealpost-prekeys-v1+cose";

/// How often a prekey is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrekeyKind {
    /// Sealed to again and again until it is rotated.
    Signed,
    /// Sealed to once; its private half goes with the message.
    OneTime,
}

impl PrekeyKind {
    pub(crate) const fn code(self) -> u64 {
        match self {
            Self::Signed => 0,
            Self::OneTime => 1,
        }
    }

    pub(crate) const fn from_code(code: u64) -> Result<Self, FormatError> {
        match code {
            0 => Ok(Self::Signed),
            1 => Ok(Self::OneTime),
            _ => Err(FormatError::WrongValue("kind")),
        }
    }
}

/// The id of a public key.
#[must_use]
pub fn prekey_id(key: &[u8]) -> PrekeyId {
    PrekeyId(Digest::of(key).first_half())
}

/// One prekey, as a batch lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrekeyLeaf {
    /// Whose it is.
    pub device: DeviceId,
    /// The suite that its key is for.
    pub suite: Suite,
    /// How often it may be used.
    pub kind: PrekeyKind,
    /// The public key, 1216 or 32 bytes.
    pub key: Vec<u8>,
    /// Until when it may be sealed to.
    pub seal_until: UnixTime,
    /// Until when the device keeps the private half; a message expires no later.
    pub open_until: UnixTime,
}

impl PrekeyLeaf {
    /// The prekey's id.
    #[must_use]
    pub fn id(&self) -> PrekeyId {
        prekey_id(&self.key)
    }

    /// The leaf's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.map(7).int(1).bytes(self.device.as_bytes()).int(2).bytes(self.id().as_bytes());
        writer.int(3).int(self.suite.algorithm()).int(4).uint(self.kind.code()).int(5).bytes(&self.key);
        writer.int(6).uint(self.seal_until.0).int(7).uint(self.open_until.0);
        writer.finish()
    }

    /// Reads a leaf; its id must be that of its key.
    pub fn read(bytes: &[u8]) -> Result<Self, TrustError> {
        let mut reader = Reader::new(bytes, PREKEY_LEAF_BYTES_MAX)?;
        let mut fields = reader.map()?;
        fields.key(&mut reader, 1)?;
        let device = DeviceId(reader.array("device")?);
        fields.key(&mut reader, 2)?;
        let id = PrekeyId(reader.array("prekey id")?);
        fields.key(&mut reader, 3)?;
        let suite = Suite::from_algorithm(reader.int()?)?;
        fields.key(&mut reader, 4)?;
        let kind = PrekeyKind::from_code(reader.uint()?)?;
        fields.key(&mut reader, 5)?;
        let key = reader.bytes()?.to_vec();
        fields.key(&mut reader, 6)?;
        let seal_until = UnixTime(reader.uint()?);
        fields.key(&mut reader, 7)?;
        let open_until = UnixTime(reader.uint()?);
        fields.end()?;
        if key.len() != suite.public_key_bytes() {
            return Err(FormatError::WrongValue("key").into());
        }
        if open_until < seal_until {
            return Err(FormatError::WrongValue("open_until").into());
        }
        let leaf = Self { device, suite, kind, key, seal_until, open_until };
        if leaf.id() == id { Ok(leaf) } else { Err(TrustError::PrekeyMismatch) }
    }
}

/// Signs the batch of `leaves` (their bytes, in upload order).
pub fn sign_batch(
    tenant: &TenantId,
    device: DeviceId,
    leaves: &[Vec<u8>],
    created: UnixTime,
    identity: &SigningKey,
) -> Result<Vec<u8>, FormatError> {
    if leaves.is_empty() || leaves.len() > PREKEYS_PER_BATCH_MAX {
        return Err(FormatError::WrongValue("size"));
    }
    let mut writer = Writer::new();
    writer.map(5).int(1).text(tenant.as_str()).int(2).bytes(device.as_bytes());
    writer.int(3).bytes(merkle::root(leaves).as_bytes()).int(4).uint(leaves.len() as u64);
    writer.int(5).uint(created.0);
    Ok(sign1::sign(identity, TYP, Signer::Known, &writer.finish(), &[]))
}

/// What a device signed about a batch, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrekeyBatch {
    /// The root over the leaves.
    pub root: Digest,
    /// How many leaves it has.
    pub size: u64,
    /// When it was signed.
    pub created: UnixTime,
}

impl PrekeyBatch {
    /// Reads a batch and verifies that the device's identity key signed it for this tenant and device.
    pub fn verify(
        bytes: &[u8],
        tenant: &TenantId,
        device: DeviceId,
        identity: &VerifyingKey,
    ) -> Result<Self, TrustError> {
        let signed = Sign1::read(bytes, PREKEY_BATCH_BYTES_MAX, TYP)?;
        signed.check_known()?;
        let mut reader = Reader::new(signed.payload, PREKEY_BATCH_BYTES_MAX)?;
        let mut fields = reader.map()?;
        fields.key(&mut reader, 1)?;
        let named_tenant: TenantId = reader.parsed("tenant")?;
        fields.key(&mut reader, 2)?;
        let named_device = DeviceId(reader.array("device")?);
        fields.key(&mut reader, 3)?;
        let root = Digest(reader.array("root")?);
        fields.key(&mut reader, 4)?;
        let size = reader.uint()?;
        fields.key(&mut reader, 5)?;
        let created = UnixTime(reader.uint()?);
        fields.end()?;
        signed.verify(identity, &[])?;
        if named_tenant != *tenant {
            return Err(TrustError::WrongTenant);
        }
        if named_device != device {
            return Err(TrustError::WrongDevice);
        }
        if size == 0 || size > PREKEYS_PER_BATCH_MAX as u64 {
            return Err(FormatError::WrongValue("size").into());
        }
        Ok(Self { root, size, created })
    }

    /// Verifies that `leaves` (bytes, in upload order) are this batch, all of it, and `device`'s.
    pub fn verify_leaves(
        &self,
        leaves: &[Base64Url],
        device: DeviceId,
    ) -> Result<Vec<PrekeyLeaf>, TrustError> {
        if leaves.len() as u64 != self.size || merkle::root(leaves) != self.root {
            return Err(TrustError::PrekeyMismatch);
        }
        leaves
            .iter()
            .map(|bytes| {
                let leaf = PrekeyLeaf::read(bytes.as_ref())?;
                if leaf.device == device { Ok(leaf) } else { Err(TrustError::WrongDevice) }
            })
            .collect()
    }
}

/// A prekey with the proof that it is the device's, as a look-up returns it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvenPrekey {
    /// The leaf's bytes.
    pub leaf: Base64Url,
    /// Its place in the batch.
    pub index: u64,
    /// The inclusion proof.
    pub path: Vec<Digest>,
    /// The signed batch.
    pub batch: Base64Url,
}

/// A prekey that may be sealed to: proven to be the device's, of a suite that its record lists, not expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedPrekey {
    record: DeviceRecord,
    leaf: PrekeyLeaf,
}

impl VerifiedPrekey {
    /// Verifies `proven` against the record of the device, at `now`.
    pub fn verify(proven: &ProvenPrekey, record: &DeviceRecord, now: UnixTime) -> Result<Self, TrustError> {
        let batch =
            PrekeyBatch::verify(proven.batch.as_ref(), &record.tenant, record.device, &record.identity_key)?;
        let leaf = PrekeyLeaf::read(proven.leaf.as_ref())?;
        if leaf.device != record.device {
            return Err(TrustError::WrongDevice);
        }
        let included =
            merkle::verify(proven.leaf.as_ref(), proven.index, batch.size, &proven.path, &batch.root);
        if !included || !record.suites.contains(&leaf.suite) {
            return Err(TrustError::PrekeyMismatch);
        }
        if now > leaf.seal_until {
            return Err(TrustError::PrekeyExpired);
        }
        Ok(Self { record: record.clone(), leaf })
    }

    /// The device's record.
    #[must_use]
    pub const fn record(&self) -> &DeviceRecord {
        &self.record
    }

    /// The prekey.
    #[must_use]
    pub const fn leaf(&self) -> &PrekeyLeaf {
        &self.leaf
    }
}
