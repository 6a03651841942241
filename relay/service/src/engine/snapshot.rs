//! Reads outside the writer: one moment of the store, between two groups.

use std::{ops::RangeBounds, sync::Arc};

use aws_lc_rs::digest::{Context, SHA256};
use fjall::{Readable, Slice};

use super::{
    EngineError, Keyspace,
    store::Store,
    view::{Direction, KeyRange},
};

/// A row: key and value.
pub type Row = (Slice, Slice);

/// The store as of one durable group, for as long as it lives.
pub struct Snapshot {
    store: Arc<Store>,
    moment: fjall::Snapshot,
}

impl Snapshot {
    pub(super) fn new(store: Arc<Store>) -> Self {
        let moment = store.snapshot();
        Self { store, moment }
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// [`EngineError::Read`] when a block cannot be read or is damaged; so for all reads here.
    pub fn get(&self, keyspace: Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Slice>, EngineError> {
        self.moment.get(self.store.tree(keyspace), key.as_ref()).map_err(EngineError::read)
    }

    /// Rows whose keys lie in `bounds`, ascending. A range that ends before it begins is empty.
    pub fn range<'k>(&self, keyspace: Keyspace, bounds: impl RangeBounds<&'k [u8]>) -> SnapshotRows {
        self.rows(keyspace, &KeyRange::new(&bounds), Direction::Ascending)
    }

    /// Rows whose keys lie in `bounds`, descending.
    pub fn range_rev<'k>(&self, keyspace: Keyspace, bounds: impl RangeBounds<&'k [u8]>) -> SnapshotRows {
        self.rows(keyspace, &KeyRange::new(&bounds), Direction::Descending)
    }

    /// Rows whose keys begin with `prefix`, ascending.
    pub fn prefix(&self, keyspace: Keyspace, prefix: impl AsRef<[u8]>) -> SnapshotRows {
        self.rows(keyspace, &KeyRange::of_prefix(prefix.as_ref()), Direction::Ascending)
    }

    /// Rows whose keys begin with `prefix`, descending.
    pub fn prefix_rev(&self, keyspace: Keyspace, prefix: impl AsRef<[u8]>) -> SnapshotRows {
        self.rows(keyspace, &KeyRange::of_prefix(prefix.as_ref()), Direction::Descending)
    }

    /// See [`Engine::dump`](super::Engine::dump).
    ///
    /// # Errors
    /// [`EngineError::Read`] when a block cannot be read or is damaged.
    pub fn dump(&self, mut visit: impl FnMut(&'static str, &[u8], &[u8])) -> Result<(), EngineError> {
        for keyspace in self.store.keyspaces() {
            for row in self.range(keyspace, ..) {
                let (key, value) = row?;
                visit(keyspace.name(), &key, &value);
            }
        }
        Ok(())
    }

    /// See [`Engine::logical_digest`](super::Engine::logical_digest).
    ///
    /// # Errors
    /// [`EngineError::Read`] when a block cannot be read or is damaged.
    pub fn logical_digest(&self) -> Result<[u8; 32], EngineError> {
        let mut digest = Context::new(&SHA256);
        self.dump(|name, key, value| {
            for part in [name.as_bytes(), key, value] {
                digest.update(&(part.len() as u64).to_be_bytes());
                digest.update(part);
            }
        })?;
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.finish().as_ref());
        Ok(bytes)
    }

    fn rows(&self, keyspace: Keyspace, range: &KeyRange<'_>, direction: Direction) -> SnapshotRows {
        let rows = (!range.is_empty())
            .then(|| self.moment.range::<&[u8], _>(self.store.tree(keyspace), range.bounds()));
        SnapshotRows { rows, direction }
    }
}

/// Rows of a [`Snapshot`], in key order. Holds the snapshot's moment by itself.
pub struct SnapshotRows {
    rows: Option<fjall::Iter>,
    direction: Direction,
}

impl Iterator for SnapshotRows {
    type Item = Result<Row, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rows = self.rows.as_mut()?;
        let row = match self.direction {
            Direction::Ascending => rows.next(),
            Direction::Descending => rows.next_back(),
        }?;
        Some(row.into_inner().map_err(EngineError::read))
    }
}
