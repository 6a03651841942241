//! Keys and values of the rows.
//!
//! ```text
//! tickets      tenant | 0 | ticket                                  -> 1 | JSON Ticket
//! devices      tenant | 0 | device                                  -> 1 | JSON Device
//! device_sets  tenant | 0 | recipient                               -> 1 | set (see SetRow)
//! stocks       tenant | 0 | device                                  -> 1 | JSON Stock
//! prekeys      tenant | 0 | device | suite (1) | 0 | number (8)     -> 1 | prekey (see PrekeyRow)   one-time
//! prekeys      tenant | 0 | device | suite (1) | 1                  -> 1 | prekey                   signed
//! batches      tenant | 0 | device | batch (16)                     -> 1 | batch (see BatchRow)
//! prekey_ids   tenant | 0 | device | prekey id                      -> 1
//! consents     tenant | 0 | recipient | category                    -> 1 | JSON Consent
//! expiry       tenant | 0 | time (8) | kind (1) | what              -> 1
//!
//! key_package_stocks   tenant | 0 | device                              -> 1 | JSON KeyPackageStock
//! key_packages         tenant | 0 | device | suite (2) | 0 | number (8) -> 1 | key package             one-time
//! key_packages         tenant | 0 | device | suite (2) | 1              -> 1 | key package             last resort
//! key_package_refs     tenant | 0 | device | reference (32)             -> 1
//! key_package_uploads  tenant | 0 | device | upload (16)                -> 1 | reference (32 each)
//! ```

use sealpost_service::engine::{Keyspace, View};
use sealpost_service::store_key::{content, tenant_key, versioned};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{DeviceId, Digest, KeyPackageRef, PrekeyId, RecipientId, TenantId, TicketId};
use sealpost_wire::message::Suite;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{BATCHES, DEVICE_SETS, KEY_PACKAGE_UPLOADS, StoreError};

/// Version of every value here.
pub(super) const VERSION: u8 = 1;
const ONE_TIME: u8 = 0;
const SIGNED: u8 = 1;
const LAST_RESORT: u8 = 1;

pub(super) fn ticket(tenant: &TenantId, ticket: TicketId) -> Vec<u8> {
    tenant_key(tenant, &[ticket.as_bytes()])
}

pub(super) fn device(tenant: &TenantId, device: DeviceId) -> Vec<u8> {
    tenant_key(tenant, &[device.as_bytes()])
}

pub(super) fn recipient(tenant: &TenantId, recipient: RecipientId) -> Vec<u8> {
    tenant_key(tenant, &[recipient.as_bytes()])
}

pub(super) fn consent(tenant: &TenantId, recipient: RecipientId, category: &str) -> Vec<u8> {
    tenant_key(tenant, &[recipient.as_bytes(), category.as_bytes()])
}

pub(super) fn one_time(tenant: &TenantId, device: DeviceId, suite: Suite, number: u64) -> Vec<u8> {
    tenant_key(tenant, &[device.as_bytes(), &[suite_code(suite), ONE_TIME], &number.to_be_bytes()])
}

pub(super) fn signed(tenant: &TenantId, device: DeviceId, suite: Suite) -> Vec<u8> {
    tenant_key(tenant, &[device.as_bytes(), &[suite_code(suite), SIGNED]])
}

pub(super) fn batch(tenant: &TenantId, device: DeviceId, batch: &[u8; 16]) -> Vec<u8> {
    tenant_key(tenant, &[device.as_bytes(), batch])
}

pub(super) fn prekey_id(tenant: &TenantId, device: DeviceId, id: PrekeyId) -> Vec<u8> {
    tenant_key(tenant, &[device.as_bytes(), id.as_bytes()])
}

pub(super) fn key_package(tenant: &TenantId, device: DeviceId, suite: u16, number: u64) -> Vec<u8> {
    tenant_key(tenant, &[device.as_bytes(), &suite.to_be_bytes(), &[ONE_TIME], &number.to_be_bytes()])
}

pub(super) fn last_resort(tenant: &TenantId, device: DeviceId, suite: u16) -> Vec<u8> {
    tenant_key(tenant, &[device.as_bytes(), &suite.to_be_bytes(), &[LAST_RESORT]])
}

pub(super) fn key_package_ref(tenant: &TenantId, device: DeviceId, reference: KeyPackageRef) -> Vec<u8> {
    tenant_key(tenant, &[device.as_bytes(), reference.as_bytes()])
}

/// The first half of a batch's digest, which names it in keys.
pub(super) fn batch_name(digest: &Digest) -> [u8; 16] {
    let mut name = [0; 16];
    name.iter_mut().zip(digest.as_bytes()).for_each(|(to, from)| *to = *from);
    name
}

const fn suite_code(suite: Suite) -> u8 {
    match suite {
        Suite::Hybrid => 1,
        Suite::Classical => 2,
    }
}

/// Something whose time comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// A ticket and its claims are forgotten.
    Ticket(TicketId),
    /// One-time prekeys of a device may be sealed to no longer.
    OneTime(DeviceId),
    /// Nothing sealed to a batch can be opened any more.
    Batch(DeviceId, [u8; 16]),
    /// A device was removed: its prekeys and key packages go.
    Removed(DeviceId),
    /// All key packages of an upload have ended.
    KeyPackages(DeviceId, [u8; 16]),
}

impl Due {
    pub(super) fn key(self, tenant: &TenantId, at: UnixTime) -> Vec<u8> {
        let time = at.0.to_be_bytes();
        match self {
            Self::Ticket(ticket) => tenant_key(tenant, &[&time, &[1], ticket.as_bytes()]),
            Self::OneTime(device) => tenant_key(tenant, &[&time, &[2], device.as_bytes()]),
            Self::Batch(device, batch) => tenant_key(tenant, &[&time, &[3], device.as_bytes(), &batch]),
            Self::Removed(device) => tenant_key(tenant, &[&time, &[4], device.as_bytes()]),
            Self::KeyPackages(device, upload) => {
                tenant_key(tenant, &[&time, &[5], device.as_bytes(), &upload])
            }
        }
    }

    /// Reads what follows tenant and separator in a key.
    pub(super) fn read(after_tenant: &[u8]) -> Option<Self> {
        let (_, rest) = after_tenant.split_first_chunk::<8>()?;
        let (kind, what) = rest.split_first()?;
        match kind {
            1 => what.try_into().ok().map(|id| Self::Ticket(TicketId(id))),
            2 => what.try_into().ok().map(|id| Self::OneTime(DeviceId(id))),
            3 => {
                let (device, batch) = what.split_first_chunk()?;
                Some(Self::Batch(DeviceId(*device), batch.try_into().ok()?))
            }
            4 => what.try_into().ok().map(|id| Self::Removed(DeviceId(id))),
            5 => {
                let (device, upload) = what.split_first_chunk()?;
                Some(Self::KeyPackages(DeviceId(*device), upload.try_into().ok()?))
            }
            _ => None,
        }
    }
}

/// A device set with what commands need of it, so that they verify no signature:
/// `version (8) | digest (32) | devices (1) | device (16 each) | set`.
pub(super) struct SetRow<'a> {
    pub(super) version: u64,
    pub(super) digest: Digest,
    pub(super) devices: Vec<DeviceId>,
    pub(super) bytes: &'a [u8],
}

impl<'a> SetRow<'a> {
    pub(super) fn read(value: &'a [u8]) -> Result<Self, StoreError> {
        Self::read_content(value).ok_or(StoreError::Damaged(DEVICE_SETS.name()))
    }

    pub(super) fn to_value(&self) -> Vec<u8> {
        let mut value = vec![VERSION];
        value.extend_from_slice(&self.version.to_be_bytes());
        value.extend_from_slice(self.digest.as_bytes());
        // A set has at most 16 devices.
        value.push(u8::try_from(self.devices.len()).unwrap_or(u8::MAX));
        self.devices.iter().for_each(|device| value.extend_from_slice(device.as_bytes()));
        value.extend_from_slice(self.bytes);
        value
    }

    fn read_content(value: &'a [u8]) -> Option<Self> {
        let (version, rest) = content(value, VERSION)?.split_first_chunk::<8>()?;
        let (digest, rest) = rest.split_first_chunk::<32>()?;
        let (count, rest) = rest.split_first()?;
        let (devices, bytes) = rest.split_at_checked(usize::from(*count) * 16)?;
        let devices = devices.chunks_exact(16).map(|id| id.try_into().map(DeviceId));
        Some(Self {
            version: u64::from_be_bytes(*version),
            digest: Digest(*digest),
            devices: devices.collect::<Result<_, _>>().ok()?,
            bytes,
        })
    }
}

/// A batch with the ids of its prekeys: `ids (2) | id (16 each) | batch`.
pub(super) struct BatchRow {
    pub(super) ids: Vec<PrekeyId>,
    pub(super) batch: Vec<u8>,
}

impl BatchRow {
    pub(super) fn value(ids: impl ExactSizeIterator<Item = PrekeyId>, batch: &[u8]) -> Vec<u8> {
        let mut value = vec![VERSION];
        // A batch has at most 128 prekeys.
        value.extend_from_slice(&u16::try_from(ids.len()).unwrap_or(u16::MAX).to_be_bytes());
        ids.for_each(|id| value.extend_from_slice(id.as_bytes()));
        value.extend_from_slice(batch);
        value
    }

    pub(super) fn read(value: &[u8]) -> Result<Self, StoreError> {
        Self::read_content(value).ok_or(StoreError::Damaged(BATCHES.name()))
    }

    fn read_content(value: &[u8]) -> Option<Self> {
        let (count, rest) = content(value, VERSION)?.split_first_chunk::<2>()?;
        let (ids, batch) = rest.split_at_checked(usize::from(u16::from_be_bytes(*count)) * 16)?;
        let ids = ids.chunks_exact(16).map(|id| id.try_into().map(PrekeyId));
        Some(Self { ids: ids.collect::<Result<_, _>>().ok()?, batch: batch.to_vec() })
    }
}

/// The references of an upload of key packages, one behind the other.
pub(super) struct KeyPackageUploadRow;

impl KeyPackageUploadRow {
    pub(super) fn value(references: impl Iterator<Item = KeyPackageRef>) -> Vec<u8> {
        let mut value = vec![VERSION];
        references.for_each(|reference| value.extend_from_slice(reference.as_bytes()));
        value
    }

    pub(super) fn read(value: &[u8]) -> Result<Vec<KeyPackageRef>, StoreError> {
        let (references, rest) = content(value, VERSION).unwrap_or(&[0]).as_chunks();
        let damaged = StoreError::Damaged(KEY_PACKAGE_UPLOADS.name());
        if rest.is_empty() {
            Ok(references.iter().copied().map(KeyPackageRef).collect())
        } else {
            Err(damaged)
        }
    }
}

/// The value in a row of JSON.
pub(super) fn json<T: DeserializeOwned>(value: &[u8], keyspace: Keyspace) -> Result<T, StoreError> {
    let json = content(value, VERSION).and_then(|bytes| serde_json::from_slice(bytes).ok());
    json.ok_or(StoreError::Damaged(keyspace.name()))
}

/// The row of JSON under `key`, if there is one.
pub(super) fn find<T: DeserializeOwned>(
    view: &View,
    keyspace: Keyspace,
    key: &[u8],
) -> Result<Option<T>, StoreError> {
    view.get(keyspace, key).map(|value| json(&value, keyspace)).transpose()
}

/// Stores a row of JSON.
pub(super) fn put<T: Serialize>(
    view: &mut View,
    keyspace: Keyspace,
    key: Vec<u8>,
    row: &T,
) -> Result<(), StoreError> {
    // Plain structs of texts and numbers serialize; if one does not, nothing of the command is kept.
    let json = serde_json::to_vec(row).map_err(|_| StoreError::Damaged(keyspace.name()))?;
    view.put(keyspace, key, versioned(VERSION, &json));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_is_read_back() {
        let tenant: TenantId = "st-mary".parse().unwrap();
        for due in [
            Due::Ticket(TicketId([1; 16])),
            Due::OneTime(DeviceId([2; 16])),
            Due::Batch(DeviceId([3; 16]), [4; 16]),
            Due::Removed(DeviceId([5; 16])),
            Due::KeyPackages(DeviceId([6; 16]), [7; 16]),
        ] {
            let key = due.key(&tenant, UnixTime(7));
            let after = sealpost_service::store_key::after_tenant(&key, &tenant).unwrap();
            assert_eq!(Due::read(after), Some(due));
        }
    }

    #[test]
    fn rows_of_another_length_are_damaged_and_never_a_panic() {
        let set =
            SetRow { version: 2, digest: Digest([1; 32]), devices: vec![DeviceId([2; 16])], bytes: b"set" };
        let value = set.to_value();
        let read = SetRow::read(&value).unwrap();
        assert_eq!((read.version, read.devices, read.bytes), (2, vec![DeviceId([2; 16])], &b"set"[..]));
        let batch = BatchRow::value([PrekeyId([1; 16])].into_iter(), b"batch");
        let read = BatchRow::read(&batch).unwrap();
        assert_eq!((read.ids, read.batch), (vec![PrekeyId([1; 16])], b"batch".to_vec()));
        let references = [KeyPackageRef([1; 32]), KeyPackageRef([2; 32])];
        let upload = KeyPackageUploadRow::value(references.into_iter());
        assert_eq!(KeyPackageUploadRow::read(&upload).unwrap(), references);
        for length in (0..33).chain(34..65) {
            assert_eq!(KeyPackageUploadRow::read(&upload[..length]).is_err(), length != 1, "{length}");
        }
        for length in 0..58 {
            assert!(SetRow::read(&value[..length]).is_err(), "{length}");
        }
        for length in 0..19 {
            assert!(BatchRow::read(&batch[..length]).is_err(), "{length}");
        }
    }
}
