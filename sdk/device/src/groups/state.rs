//! The state of groups inside one transaction of the device's store, and what works on it.

use std::collections::BTreeMap;

use rand_core::CryptoRng;
use sealpost_group::{GroupError, GroupStore, Groups, Member};
use sealpost_seal::{DeviceAuthor, SealPolicy};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::DeviceId;
use sealpost_wire::member::MemberCredential;
use sealpost_wire::trust::TenantTrust;
use zeroize::Zeroizing;

use crate::Device;
use crate::error::DeviceError;
use crate::groups::STATEMENT;
use crate::store::Change;

/// How often prekeys of members are fetched for one piece of work: members may change in between.
const PEER_ROUNDS_MAX: usize = 3;

/// The table of the groups' state, as the groups see it. What they write is put down when they are done.
pub(crate) struct StateStore<'c> {
    change: &'c Change<'c>,
    written: BTreeMap<Vec<u8>, Option<Zeroizing<Vec<u8>>>>,
}

impl GroupStore for StateStore<'_> {
    type Error = DeviceError;

    fn read(&self, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, DeviceError> {
        match self.written.get(key) {
            Some(written) => Ok(written.clone()),
            None => self.change.group_state(key),
        }
    }

    fn write(&mut self, key: Vec<u8>, value: Zeroizing<Vec<u8>>) -> Result<(), DeviceError> {
        self.written.insert(key, Some(value));
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), DeviceError> {
        self.written.insert(key.to_vec(), None);
        Ok(())
    }
}

/// This device as a member and as the author of boxes.
pub(crate) struct Own {
    pub(crate) member: Member,
    pub(crate) author: DeviceAuthor,
}

/// Work on groups inside one transaction.
pub(crate) struct Work<'w> {
    pub(crate) change: &'w Change<'w>,
    pub(crate) own: &'w Own,
    pub(crate) trust: &'w TenantTrust,
    pub(crate) now: UnixTime,
    pub(crate) rng: &'w mut (dyn CryptoRng + Send),
}

impl Work<'_> {
    /// Runs operations of the groups; what they write is in the transaction when this returns.
    pub(crate) fn groups<T>(
        &mut self,
        work: impl FnOnce(&mut Groups<'_, StateStore<'_>>) -> Result<T, GroupError>,
    ) -> Result<T, DeviceError> {
        let mut store = StateStore { change: self.change, written: BTreeMap::new() };
        let own = &self.own.member;
        let value = work(&mut Groups::new(own, self.trust, self.now, &mut store, &mut *self.rng))?;
        for (key, value) in store.written {
            match value {
                Some(value) => self.change.put_group_state(&key, &value, &mut *self.rng)?,
                None => self.change.delete_group_state(&key)?,
            }
        }
        Ok(value)
    }

    /// This device.
    pub(crate) fn device(&self) -> DeviceId {
        self.own.member.device()
    }
}

/// Why work on groups is not done.
pub(crate) enum WorkError {
    /// It cannot be done.
    Device(DeviceError),
    /// Boxes are to be sealed to these, whose prekeys are not at hand. Nothing was changed.
    PeersWanted(Vec<DeviceId>),
}

impl<E: Into<DeviceError>> From<E> for WorkError {
    fn from(error: E) -> Self {
        Self::Device(error.into())
    }
}

impl Device {
    /// This device as a member, once the tenant has admitted it.
    pub(crate) fn own_member(&self, trust: &TenantTrust) -> Result<Own, DeviceError> {
        let admission = self.enrolled.admission.clone().ok_or(DeviceError::NotAdmitted)?;
        let statement = self.store.meta(STATEMENT)?.map(|statement| statement.to_vec());
        let identity = self.enrolled.identity.clone();
        let member = |statement| {
            let credential = MemberCredential { admission: admission.clone(), statement };
            Member::new(identity.clone(), &credential, trust)
        };
        let is_mailbox = statement.is_some();
        let member = match member(statement) {
            Err(GroupError::Credential(error)) if is_mailbox => {
                // The sender's key was revoked: what is left is a device like any other.
                tracing::warn!(code = error.code(), "the mailbox statement is not believed any more");
                member(None)?
            }
            member => member?,
        };
        let author = DeviceAuthor::new(identity, admission, SealPolicy::default(), trust)?;
        Ok(Own { member, author })
    }

    /// Works on groups in one transaction, as often as prekeys of members have to be fetched for it. What it makes may
    /// leave the device when this returns: a copy of the state from before would be known for one by the counter.
    pub(crate) fn group_work<T>(
        &mut self,
        mut work: impl FnMut(&mut Work<'_>) -> Result<T, WorkError>,
    ) -> Result<T, DeviceError> {
        for _ in 0..PEER_ROUNDS_MAX {
            match self.group_transaction(&mut work) {
                Ok(value) => return Ok(value),
                Err(WorkError::Device(error)) => return Err(error),
                Err(WorkError::PeersWanted(devices)) => self.fetch_peers(&devices)?,
            }
        }
        Err(DeviceError::NobodyReached)
    }

    fn group_transaction<T>(
        &mut self,
        work: &mut impl FnMut(&mut Work<'_>) -> Result<T, WorkError>,
    ) -> Result<T, WorkError> {
        let _held = self.lock.hold()?;
        let trust = self.trust()?;
        let own = self.own_member(&trust)?;
        let now = self.clock.now();
        let rng = self.rng.as_mut();
        let (value, generation) = self.store.try_change(|change| {
            let value = work(&mut Work { change, own: &own, trust: &trust, now, rng })?;
            Ok::<_, WorkError>((value, change.next_generation()?))
        })?;
        self.platform.set_generation(generation)?;
        Ok(value)
    }

    /// Reads groups: nothing is made that could leave the device.
    pub(crate) fn read_groups<T>(
        &mut self,
        read: impl FnOnce(&mut Work<'_>) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        let _held = self.lock.hold()?;
        let trust = self.trust()?;
        let own = self.own_member(&trust)?;
        let now = self.clock.now();
        let rng = self.rng.as_mut();
        self.store.change(|change| read(&mut Work { change, own: &own, trust: &trust, now, rng }))
    }
}
