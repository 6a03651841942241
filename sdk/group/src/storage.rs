//! The state of one operation: what it reads from the caller's store, and what it is going to write there.
//!
//! ```text
//! key   = kind (1 byte) | SHA-256(incarnation (4 bytes) | CBOR of what the value is stored by)
//! value = CBOR
//! ```
//! A group's *incarnation* counts how often this member has come into it (invited, or back by an external commit): a
//! new one is written beside the old one, whose last messages can be read for a while.

mod provider;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::error::Error;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::store::GroupStore;

/// What a value is. The numbers are stored: they stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    // This crate's own.
    Record = 1,
    Members = 2,
    Groups = 3,
    KeyPackageIndex = 4,
    // The state of openmls.
    JoinConfig = 16,
    OwnLeafNodes = 17,
    ProposalRefs = 18,
    Proposal = 19,
    Tree = 20,
    InterimTranscriptHash = 21,
    Context = 22,
    ConfirmationTag = 23,
    State = 24,
    MessageSecrets = 25,
    ResumptionPsks = 26,
    OwnLeafIndex = 27,
    EpochSecrets = 28,
    SignatureKeyPair = 29,
    EncryptionKeyPair = 30,
    EpochKeyPairs = 31,
    KeyPackage = 32,
    Psk = 33,
}

/// Why the state cannot be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StorageError {
    /// The caller's store failed; its error is kept beside.
    #[error("the store failed")]
    Store,
    /// A stored value is not what was stored.
    #[error("a stored value cannot be read")]
    Unreadable,
}

type Changes = BTreeMap<Vec<u8>, Option<Zeroizing<Vec<u8>>>>;

/// One operation's view of the caller's store.
pub(crate) struct Storage<'s, S: GroupStore> {
    store: &'s S,
    changes: RefCell<Changes>,
    failure: RefCell<Option<S::Error>>,
    incarnation: Cell<u32>,
}

impl<'s, S: GroupStore> Storage<'s, S> {
    pub(crate) const fn new(store: &'s S) -> Self {
        Self {
            store,
            changes: RefCell::new(BTreeMap::new()),
            failure: RefCell::new(None),
            incarnation: Cell::new(0),
        }
    }

    /// The incarnation whose state openmls reads and writes from now on.
    pub(crate) fn set_incarnation(&self, incarnation: u32) {
        self.incarnation.set(incarnation);
    }

    /// Why the caller's store failed, if it did.
    pub(crate) fn take_failure(&self) -> Option<Box<dyn Error + Send + Sync>> {
        self.failure.borrow_mut().take().map(|error| Box::new(error) as _)
    }

    /// What is to be written.
    pub(crate) fn into_changes(self) -> Changes {
        self.changes.into_inner()
    }

    /// A value of this crate's own.
    pub(crate) fn load<V: DeserializeOwned>(
        &self,
        kind: Kind,
        by: &impl Serialize,
    ) -> Result<Option<V>, StorageError> {
        self.get_at(&place(kind, 0, by)?)
    }

    pub(crate) fn save(
        &self,
        kind: Kind,
        by: &impl Serialize,
        value: &impl Serialize,
    ) -> Result<(), StorageError> {
        self.put_at(place(kind, 0, by)?, value)
    }

    pub(crate) fn remove(&self, kind: Kind, by: &impl Serialize) -> Result<(), StorageError> {
        self.delete_at(place(kind, 0, by)?);
        Ok(())
    }

    fn get<V: DeserializeOwned>(&self, kind: Kind, by: &impl Serialize) -> Result<Option<V>, StorageError> {
        self.get_at(&place(kind, self.incarnation_of(kind), by)?)
    }

    fn put<V: Serialize + ?Sized>(
        &self,
        kind: Kind,
        by: &impl Serialize,
        value: &V,
    ) -> Result<(), StorageError> {
        self.put_at(place(kind, self.incarnation_of(kind), by)?, value)
    }

    fn delete(&self, kind: Kind, by: &impl Serialize) -> Result<(), StorageError> {
        self.delete_at(place(kind, self.incarnation_of(kind), by)?);
        Ok(())
    }

    /// Key packages and keys belong to no group, and so to no incarnation of one.
    fn incarnation_of(&self, kind: Kind) -> u32 {
        match kind {
            Kind::KeyPackage | Kind::EncryptionKeyPair | Kind::SignatureKeyPair | Kind::Psk => 0,
            _ => self.incarnation.get(),
        }
    }

    fn get_at<V: DeserializeOwned>(&self, place: &[u8]) -> Result<Option<V>, StorageError> {
        if let Some(change) = self.changes.borrow().get(place) {
            return change.as_ref().map(|value| decode(value)).transpose();
        }
        match self.store.read(place) {
            Ok(value) => value.map(|value| decode(&value)).transpose(),
            Err(error) => {
                self.failure.borrow_mut().get_or_insert(error);
                Err(StorageError::Store)
            }
        }
    }

    fn put_at<V: Serialize + ?Sized>(&self, place: Vec<u8>, value: &V) -> Result<(), StorageError> {
        self.changes.borrow_mut().insert(place, Some(encode(value)?));
        Ok(())
    }

    fn delete_at(&self, place: Vec<u8>) {
        self.changes.borrow_mut().insert(place, None);
    }
}

/// Writes what an operation changed.
pub(crate) fn apply<S: GroupStore>(changes: Changes, store: &mut S) -> Result<(), S::Error> {
    for (place, value) in changes {
        match value {
            Some(value) => store.write(place, value)?,
            None => store.delete(&place)?,
        }
    }
    Ok(())
}

fn place(kind: Kind, incarnation: u32, by: &impl Serialize) -> Result<Vec<u8>, StorageError> {
    let mut hash = Sha256::new();
    hash.update(incarnation.to_be_bytes());
    hash.update(encode(by)?.as_slice());
    let mut place = Vec::with_capacity(33);
    place.push(kind as u8);
    place.extend_from_slice(&hash.finalize());
    Ok(place)
}

fn encode<V: Serialize + ?Sized>(value: &V) -> Result<Zeroizing<Vec<u8>>, StorageError> {
    minicbor_serde::to_vec(value).map(Zeroizing::new).map_err(|_| StorageError::Unreadable)
}

fn decode<V: DeserializeOwned>(bytes: &[u8]) -> Result<V, StorageError> {
    minicbor_serde::from_slice(bytes).map_err(|_| StorageError::Unreadable)
}
