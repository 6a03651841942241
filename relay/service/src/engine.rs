//! The embedded store engine: one writer, groups of commands, nothing answered before it is durable.
//!
//! A *command* is a closure that reads a [`View`], decides, and writes to it. One thread runs all commands,
//! one after the other, against the store plus an overlay that holds what the open *group* has written so
//! far; so a command sees every earlier one, and two commands never race. The group is then committed as one
//! batch:
//!
//! ```text
//! write() -> queue -> writer: decide, decide, ... -> one batch, one fdatasync -> visible -> answers
//! ```
//!
//! A group is whatever was waiting when the writer came back from the last commit, up to the limits in
//! [`Options`]: alone, a command waits for one `fdatasync`; under load, groups grow and share it. There is no
//! timer.
//!
//! # Durable before visible
//!
//! Read in fjall 3.1.13, `batch/mod.rs`: `commit` takes the journal lock, writes the batch to the journal,
//! and, when the batch carries a durability, calls `persist` (for `SyncData` a flush and `fdatasync`)
//! *before* the loop that inserts the rows into the memtables and before `snapshot_tracker.publish`, still
//! under the lock. A failed write or sync poisons the database and returns before any row was inserted. So
//! neither a point read nor a snapshot can see a row that is not on disk. `commit()` without durability
//! followed by `Database::persist` has the opposite order and is not used here. A batch carries a checksum
//! and an end marker: after a crash it is there whole or not at all. (Of what a loss of power can leave,
//! fjall refuses one form; `journal_tail` says which, and removes it.)
//!
//! # Memory
//!
//! The block cache has a fixed size. Filters and indices of all tables stay in memory beside it, and so grow with
//! the rows of the store: a filter has 10 bits for a row, an index an entry for each 4 KiB. Memtables are bounded
//! together by [`Options::memtable_bytes`], not for each keyspace: the writer rotates one when their sum reaches
//! it, so that twenty small keyspaces cost no more than one. While a rotated memtable is being written out
//! it stays in memory too. fjall blocks a commit, in steps of 100 ms, once four rotated memtables of one keyspace
//! wait to be written; see [`Options::memtable_bytes`] for a size that avoids it.

mod answers;
mod command;
mod error;
mod journal_tail;
mod keyspace;
mod metrics;
mod queue;
mod snapshot;
mod store;
mod view;
mod writer;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

pub use command::{Reply, Space};
pub use error::{EngineError, OpenError};
pub use fjall::Slice;
pub use keyspace::Keyspace;
pub use snapshot::{Row, Snapshot, SnapshotRows};
pub use view::{View, ViewRows};

use self::{command::Command, metrics::EngineMetrics, queue::CommandQueue, store::Store, writer::Writer};
use crate::telemetry::Metrics;

/// Longest key in bytes: fjall writes the length in 16 bits.
pub const KEY_BYTES_MAX: usize = u16::MAX as usize;

/// Largest value in bytes. Far above any row of the two servers; a larger one is a mistake.
pub const VALUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Smallest [`Options::journal_bytes`]: fjall's journal files are 64 MiB each.
pub const JOURNAL_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// How an engine is opened. [`Options::new`] fills in values that keep a relay within 60 MiB.
#[derive(Clone)]
pub struct Options {
    /// Folder of the store; made if it is not there. Must be on a disk: a RAM file system loses accepted
    /// messages.
    pub path: PathBuf,
    /// Every keyspace of the store, in the order of their indices.
    pub keyspaces: &'static [Keyspace],
    /// Version of what the rows contain. A store that records another is refused, unless it is one from
    /// [`Self::oldest_version`] on.
    pub version: u8,
    /// The oldest version whose rows this program reads as they are: a store of it is raised to
    /// [`Self::version`] when it is opened, before anything is written, so that a program that does not know
    /// the newer rows refuses it from then on. Without one, no other version is read.
    pub oldest_version: Option<u8>,
    /// Capacity of the block cache (data, index and filter blocks), in bytes.
    pub cache_bytes: u64,
    /// Bound on the bytes of all active memtables together, as fjall counts them (row, plus about 60 bytes
    /// each). Smaller is less memory and more, smaller files; a memtable that fills in less time than one
    /// takes to be written out makes commits wait.
    pub memtable_bytes: u64,
    /// Journal on disk that asks quiet keyspaces to be written out, in bytes; also bounds what is replayed at
    /// start.
    pub journal_bytes: u64,
    /// Commands that may wait; one more gets [`EngineError::Busy`].
    pub queue_len: usize,
    /// Commands in one group.
    pub group_max_commands: usize,
    /// Bytes of keys and values after which a group takes no further command.
    pub group_max_bytes: usize,
    /// Free bytes of the file system below which commands that take space are refused. Leave room for the
    /// journal, for one compaction, and for what [`Space::Frees`] commands write.
    pub reserve_free_bytes: u64,
    /// How old a reading of the free space may be.
    pub free_space_interval: Duration,
    /// Called once, on the writer thread, when the store can no longer be trusted; `None` ends the process at
    /// once, which is what a server wants: after a failed sync nobody knows what is on disk but a recovery.
    pub on_fatal: Option<FatalHandler>,
    /// Called around every commit, for fault and ordering tests; `None` in a server.
    pub commit_hook: Option<CommitHook>,
}

/// Told why the store can no longer be trusted.
pub type FatalHandler = Arc<dyn Fn(&EngineError) + Send + Sync>;

/// Runs on the writer thread around a commit. It may block, which holds the group, or fail, which is handled
/// as a failed sync: at [`CommitStage::Before`] the group is lost, at [`CommitStage::After`] it is on disk
/// all the same.
pub type CommitHook = Arc<dyn Fn(CommitStage) -> io::Result<()> + Send + Sync>;

/// When a [`CommitHook`] is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitStage {
    /// The group is decided; nothing of it is on disk.
    Before,
    /// The group is on disk and visible; nothing of it has been answered.
    After,
}

impl Options {
    /// Options for a store of `keyspaces` at `path`, with defaults for the rest.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, keyspaces: &'static [Keyspace], version: u8) -> Self {
        Self {
            path: path.into(),
            keyspaces,
            version,
            oldest_version: None,
            cache_bytes: 4 * 1024 * 1024,
            memtable_bytes: 6 * 1024 * 1024,
            journal_bytes: 2 * JOURNAL_BYTES_MIN,
            queue_len: 8192,
            group_max_commands: 1024,
            group_max_bytes: 4 * 1024 * 1024,
            reserve_free_bytes: 512 * 1024 * 1024,
            free_space_interval: Duration::from_millis(500),
            on_fatal: None,
            commit_hook: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("path", &self.path)
            .field("version", &self.version)
            .field("oldest_version", &self.oldest_version)
            .field("cache_bytes", &self.cache_bytes)
            .field("memtable_bytes", &self.memtable_bytes)
            .field("journal_bytes", &self.journal_bytes)
            .field("queue_len", &self.queue_len)
            .field("group_max_commands", &self.group_max_commands)
            .field("group_max_bytes", &self.group_max_bytes)
            .field("reserve_free_bytes", &self.reserve_free_bytes)
            .finish_non_exhaustive()
    }
}

/// An open store. Cheap to clone; the last clone to go drains the queue and closes it, as
/// [`Engine::shutdown`] does.
#[derive(Clone)]
pub struct Engine {
    handle: Arc<Handle>,
}

impl Engine {
    /// Opens or creates the store and starts its writer thread.
    ///
    /// Call it within the async runtime that will await the replies: a group is then answered with one wake of it.
    /// Outside of one it works too, at the price of a wake for each answer.
    ///
    /// # Errors
    /// The folder is in use, holds another version of the store, cannot be read, or the options contradict
    /// themselves.
    pub fn open(options: Options, metrics: &Metrics) -> Result<Self, OpenError> {
        store::check(&options)?;
        let metrics = Arc::new(EngineMetrics::register(metrics)?);
        let store = Arc::new(Store::open(&options)?);
        let queue = Arc::new(CommandQueue::new(options.queue_len));
        let writer = Writer::new(options, store.clone(), queue.clone(), metrics.clone())?;
        let thread = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run())
            .map_err(|source| OpenError::Io { what: "starting the writer thread", source })?;
        Ok(Self { handle: Arc::new(Handle { store, queue, metrics, thread: Mutex::new(Some(thread)) }) })
    }

    /// Hands `command` to the writer; what it writes takes space. See [`Engine::write_with`].
    pub fn write<T, E, F>(&self, name: &'static str, command: F) -> Reply<T, E>
    where
        F: FnOnce(&mut View) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        self.write_with(name, Space::Takes, command)
    }

    /// Hands `command` to the writer under `name`, the label of its metrics.
    ///
    /// The command is queued by this call, not by the first poll, and runs even if the reply is dropped. If
    /// it returns `Err`, or panics, what it wrote is taken back, and only that. The reply comes once the
    /// group is durable, also for a command that failed or wrote nothing: what it read may be another
    /// command's that is not durable yet.
    ///
    /// The command runs on the one thread that everybody waits for: decide, and leave hashing, parsing and
    /// verification outside.
    pub fn write_with<T, E, F>(&self, name: &'static str, space: Space, command: F) -> Reply<T, E>
    where
        F: FnOnce(&mut View) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let (command, reply) = Command::new(name, space, command);
        match self.handle.queue.push(Box::new(command)) {
            Ok(()) => reply,
            Err(error) => {
                self.handle.metrics.refused(&error);
                Reply::refused(error)
            }
        }
    }

    /// The value of `key`, as of the last durable group.
    ///
    /// Reads never wait for the writer, but may read the disk: call them where a short blocking read is
    /// acceptable.
    ///
    /// # Errors
    /// [`EngineError::Read`] when a block cannot be read or is damaged.
    pub fn get(&self, keyspace: Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Slice>, EngineError> {
        self.handle.store.get(keyspace, key.as_ref()).map_err(EngineError::read)
    }

    /// All of the store as of the last durable group: no group is seen in part. Keep it short: while it
    /// lives, no deleted row that it can see is reclaimed.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.handle.store.clone())
    }

    /// Shows every row to `visit` as (keyspace, key, value), keyspace by keyspace in key order, values
    /// decoded.
    ///
    /// # Errors
    /// [`EngineError::Read`] when a block cannot be read or is damaged.
    pub fn dump(&self, visit: impl FnMut(&'static str, &[u8], &[u8])) -> Result<(), EngineError> {
        self.snapshot().dump(visit)
    }

    /// SHA-256 over every row: equal for two stores with the same rows, however they got there.
    ///
    /// # Errors
    /// [`EngineError::Read`] when a block cannot be read or is damaged.
    pub fn logical_digest(&self) -> Result<[u8; 32], EngineError> {
        self.snapshot().logical_digest()
    }

    /// Which life of this store it is: 1 for a new one, raised by [`Engine::raise_incarnation`].
    ///
    /// # Errors
    /// [`EngineError::Read`] when the row cannot be read.
    pub fn incarnation(&self) -> Result<u64, EngineError> {
        self.handle.store.incarnation().map_err(EngineError::read)
    }

    /// Marks the store as restored from a copy, and gives its new incarnation. Rows that were deleted after
    /// the copy was taken are back: whoever keeps one-time things compares incarnations.
    pub fn raise_incarnation(&self) -> Reply<u64, std::convert::Infallible> {
        self.write("raise_incarnation", |view| Ok(view.raise_incarnation()))
    }

    /// Commands that wait for the writer now.
    #[must_use]
    pub fn queue_len(&self) -> usize {
        self.handle.queue.len()
    }

    /// Bytes of the store's files.
    ///
    /// # Errors
    /// [`EngineError::Read`] when the journal's size cannot be read.
    pub fn disk_bytes(&self) -> Result<u64, EngineError> {
        self.handle.store.disk_bytes().map_err(EngineError::read)
    }

    /// Folder of the store.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.handle.store.path()
    }

    /// Whether the engine has failed or was shut down: it takes no more commands.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.handle.queue.is_closed()
    }

    /// Takes no more commands, commits and answers those that wait, and ends the writer thread.
    ///
    /// Blocks until it is done. Other clones stay readable; the folder is free once the last of them, and
    /// every snapshot, is gone.
    pub fn shutdown(&self) {
        self.handle.close();
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("path", &self.path()).field("queue_len", &self.queue_len()).finish()
    }
}

struct Handle {
    store: Arc<Store>,
    queue: Arc<CommandQueue>,
    metrics: Arc<EngineMetrics>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

impl Handle {
    fn close(&self) {
        self.queue.close(EngineError::Stopped);
        let thread = self.thread.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        // A command may own the last clone: the writer cannot wait for itself, and ends on its own.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != thread::current().id()) {
            // The writer catches panics of commands; one of its own has been reported by then.
            let _ = thread.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests;
