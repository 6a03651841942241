//! The fjall database under an engine: how it is laid out, and what it records about itself.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use fjall::{
    CompressionType, Database, JournalRecoveryError, KeyspaceCreateOptions, KvSeparationOptions,
    OwnedWriteBatch, PersistMode, Slice,
    compaction::Leveled,
    config::{CompressionPolicy, PartitioningPolicy, PinningPolicy},
};

use super::{
    JOURNAL_BYTES_MIN, Keyspace, OpenError, Options, journal_tail::cut_torn_batch, keyspace::Content,
    view::KeyRange,
};

/// Values of a [`Keyspace::bulk`] from this size on are kept apart from their keys.
const SEPARATED_BYTES_MIN: u32 = 1024;

/// Size of the files that hold separated values. A file is deleted once nothing in it is alive: small files
/// follow a queue's tail more closely.
const SEPARATED_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// fjall's own threads. One: with two, the first passes compactions on to the second by taking the message
/// from the channel and putting it back, over and over while the second is busy, which costs a core.
const WORKER_THREADS: usize = 1;

/// Tables that flushes leave beside each other before they are merged into the next level, and the size of a table
/// there. A small memtable gives a few hundred kilobytes, and most keys are random, so that a merge writes the whole of
/// the next level again: it must not be far larger than what comes in. It may hold as many tables as come in.
const FLUSHED_TABLES: u8 = 8;
const TABLE_BYTES: u64 = 2 * 1024 * 1024;

/// Files kept open, so that a large store does not run into the limit of the process.
const OPEN_FILES_MAX: usize = 256;

/// Keyspaces that one store may have.
const KEYSPACE_COUNT_MAX: usize = 64;

/// Row of [`Keyspace::STORE`]: one byte, [`Options::version`].
const VERSION_KEY: &[u8] = b"version";

/// Row of [`Keyspace::STORE`]: the incarnation, 8 bytes, big endian.
pub(super) const INCARNATION_KEY: &[u8] = b"incarnation";

pub(super) struct Store {
    database: Database,
    /// By slot: the store's own keyspace, then the others by index.
    keyspaces: Vec<(Keyspace, fjall::Keyspace)>,
    path: PathBuf,
}

/// Refuses options that contradict themselves, before anything is touched.
pub(super) fn check(options: &Options) -> Result<(), OpenError> {
    let refuse = |what| Err(OpenError::Options(what));
    if options.keyspaces.len() > KEYSPACE_COUNT_MAX {
        return refuse("too many keyspaces");
    }
    for (position, keyspace) in options.keyspaces.iter().enumerate() {
        let (earlier, _) = options.keyspaces.split_at(position);
        let name = keyspace.name();
        if keyspace.slot() != position + 1 {
            return refuse("keyspaces are not listed by their indices");
        }
        if name.is_empty() || name.len() > usize::from(u8::MAX) || name == Keyspace::STORE.name() {
            return refuse("a keyspace has a name that cannot be used");
        }
        if earlier.iter().any(|other| other.name() == name) {
            return refuse("two keyspaces have one name");
        }
    }
    if options.journal_bytes < JOURNAL_BYTES_MIN {
        return refuse("journal_bytes is below the size of one journal");
    }
    if options.memtable_bytes == 0 || options.queue_len == 0 || options.group_max_commands == 0 {
        return refuse("memtable_bytes, queue_len and group_max_commands must not be 0");
    }
    Ok(())
}

impl Store {
    pub(super) fn open(options: &Options) -> Result<Self, OpenError> {
        let database = open_database(options).map_err(|error| match error {
            fjall::Error::Locked => OpenError::Locked { path: options.path.clone() },
            other => OpenError::Database(other),
        })?;
        // Before any keyspace is made: a store of another version is left as it was found.
        let fresh = database.keyspace_count() == 0;
        if !fresh && !database.keyspace_exists(Keyspace::STORE.name()) {
            return Err(OpenError::Foreign("it records no version"));
        }
        let own = open_keyspace(&database, Keyspace::STORE, options)?;
        match own.get(VERSION_KEY).map_err(OpenError::Database)?.as_deref() {
            Some([version]) if *version == options.version => {}
            Some([version])
                if *version < options.version
                    && options.oldest_version.is_some_and(|oldest| oldest <= *version) =>
            {
                let mut batch = database.batch().durability(Some(PersistMode::SyncData));
                batch.insert(&own, VERSION_KEY, [options.version]);
                batch.commit().map_err(OpenError::Database)?;
            }
            Some([found]) if *found > options.version => {
                return Err(OpenError::NewerStore { found: *found, supported: options.version });
            }
            Some([found]) => return Err(OpenError::OlderStore { found: *found, needed: options.version }),
            Some(_) => return Err(OpenError::Foreign("its version is not one byte")),
            // Made, and then cut off before its first batch: nothing was ever stored.
            None if fresh || database.keyspace_count() == 1 => {
                let mut batch = database.batch().durability(Some(PersistMode::SyncData));
                batch.insert(&own, VERSION_KEY, [options.version]);
                batch.insert(&own, INCARNATION_KEY, 1_u64.to_be_bytes());
                batch.commit().map_err(OpenError::Database)?;
            }
            None => return Err(OpenError::Foreign("it records no version")),
        }
        let mut keyspaces = vec![(Keyspace::STORE, own)];
        for keyspace in options.keyspaces {
            keyspaces.push((*keyspace, open_keyspace(&database, *keyspace, options)?));
        }
        Ok(Self { database, keyspaces, path: options.path.clone() })
    }

    pub(super) fn get(&self, keyspace: Keyspace, key: &[u8]) -> fjall::Result<Option<Slice>> {
        self.tree(keyspace).get(key)
    }

    pub(super) fn contains(&self, keyspace: Keyspace, key: &[u8]) -> fjall::Result<bool> {
        self.tree(keyspace).contains_key(key)
    }

    /// Rows of the store alone. On the writer thread, that is everything but the open group.
    pub(super) fn range(&self, keyspace: Keyspace, range: &KeyRange<'_>) -> fjall::Iter {
        self.tree(keyspace).range::<&[u8], _>(range.bounds())
    }

    pub(super) fn snapshot(&self) -> fjall::Snapshot {
        self.database.snapshot()
    }

    /// A batch whose commit syncs the journal before any row of it becomes visible; see the module
    /// documentation of [`engine`](super).
    pub(super) fn batch(&self, len: usize) -> OwnedWriteBatch {
        OwnedWriteBatch::with_capacity(self.database.clone(), len).durability(Some(PersistMode::SyncData))
    }

    /// Starts writing out what the memtable of a slot holds.
    pub(super) fn rotate_memtable(&self, slot: usize) -> fjall::Result<bool> {
        self.keyspaces[slot].1.rotate_memtable()
    }

    pub(super) fn sync_all(&self) -> fjall::Result<()> {
        self.database.persist(PersistMode::SyncAll)
    }

    pub(super) fn incarnation(&self) -> fjall::Result<u64> {
        let value = self.get(Keyspace::STORE, INCARNATION_KEY)?;
        Ok(value.map_or(0, |value| incarnation_of(&value)))
    }

    pub(super) fn disk_bytes(&self) -> fjall::Result<u64> {
        self.database.disk_space()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// All keyspaces by slot, the store's own first.
    pub(super) fn keyspaces(&self) -> impl Iterator<Item = Keyspace> + '_ {
        self.keyspaces.iter().map(|(keyspace, _)| *keyspace)
    }

    pub(super) fn slot_count(&self) -> usize {
        self.keyspaces.len()
    }

    pub(super) fn content_of_slot(&self, slot: usize) -> Content {
        self.keyspaces[slot].0.content()
    }

    pub(super) fn tree_of_slot(&self, slot: usize) -> &fjall::Keyspace {
        &self.keyspaces[slot].1
    }

    /// The tree of a keyspace; a keyspace of another store is a mistake in the program.
    pub(super) fn tree(&self, keyspace: Keyspace) -> &fjall::Keyspace {
        let (known, tree) = &self.keyspaces[keyspace.slot()];
        debug_assert_eq!(*known, keyspace, "a keyspace of another store");
        tree
    }
}

pub(super) fn incarnation_of(value: &[u8]) -> u64 {
    // A row of another length was not written by this program; 0 is no incarnation of any store.
    value.try_into().map_or(0, u64::from_be_bytes)
}

/// Opens the database; if the newest journal ends in a batch that a loss of power has torn, without that
/// batch.
fn open_database(options: &Options) -> fjall::Result<Database> {
    let open = || {
        Database::builder(&options.path)
            .cache_size(options.cache_bytes)
            .max_journaling_size(options.journal_bytes)
            // Most of what is large is ciphertext already.
            .journal_compression(CompressionType::None)
            .worker_threads(WORKER_THREADS)
            .max_cached_files(Some(OPEN_FILES_MAX))
            // The writer says for each batch how durable it is.
            .manual_journal_persist(true)
            .open()
    };
    match open() {
        Err(fjall::Error::JournalRecovery(JournalRecoveryError::ChecksumMismatch))
            if cut_torn_batch(&options.path)? =>
        {
            let path = options.path.display();
            tracing::warn!(%path, "dropped a torn batch at the end of the journal: nobody was answered for it");
            open()
        }
        opened => opened,
    }
}

fn open_keyspace(
    database: &Database,
    keyspace: Keyspace,
    options: &Options,
) -> Result<fjall::Keyspace, OpenError> {
    let create = || {
        let create = KeyspaceCreateOptions::default()
            .max_memtable_size(options.memtable_bytes)
            .manual_journal_persist(true)
            .compaction_strategy(Arc::new(
                Leveled::default().with_l0_threshold(FLUSHED_TABLES).with_table_target_size(TABLE_BYTES),
            ))
            // Through the cache a filter would be read whole, hundreds of kilobytes, for a row that is looked up,
            // and push everything else out: filters and indices stay in memory.
            .filter_block_pinning_policy(PinningPolicy::all(true))
            .index_block_pinning_policy(PinningPolicy::all(true))
            .filter_block_partitioning_policy(PartitioningPolicy::all(false))
            .index_block_partitioning_policy(PartitioningPolicy::all(false));
        match keyspace.content() {
            Content::Rows => create,
            Content::Bulk => {
                let separation = KvSeparationOptions::default()
                    .compression(CompressionType::None)
                    .separation_threshold(SEPARATED_BYTES_MIN)
                    .file_target_size(SEPARATED_FILE_BYTES);
                create
                    .data_block_compression_policy(CompressionPolicy::disabled())
                    .with_kv_separation(Some(separation))
            }
        }
    };
    database.keyspace(keyspace.name(), create).map_err(OpenError::Database)
}
