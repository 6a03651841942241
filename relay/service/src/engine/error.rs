//! What can go wrong, and whether trying again can help.

use std::{io, path::PathBuf, sync::Arc};

use crate::telemetry::MetricError;

/// Why a store could not be opened. Only [`OpenError::Locked`] can pass by itself.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another engine of this one, has the folder. Retry once that one has ended.
    #[error("the store at {} is in use by another process", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// A newer program has written the store: use that one.
    #[error("the store has version {found}, and this program reads up to version {supported}")]
    NewerStore {
        /// What the store records.
        found: u8,
        /// What [`Options::version`](super::Options::version) asked for.
        supported: u8,
    },
    /// An older program has written the store, and nothing here migrates it.
    #[error("the store has version {found}, and this program needs version {needed}")]
    OlderStore {
        /// What the store records.
        found: u8,
        /// What [`Options::version`](super::Options::version) asked for.
        needed: u8,
    },
    /// The folder holds a database that is not a store of this project, or its first rows are damaged.
    #[error("not a store of this program: {0}")]
    Foreign(&'static str),
    /// The options contradict themselves.
    #[error("store options: {0}")]
    Options(&'static str),
    /// The database could not be opened or recovered.
    #[error("opening the store: {0}")]
    Database(#[source] fjall::Error),
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The metrics are registered already: one registry serves one engine.
    #[error(transparent)]
    Metrics(#[from] MetricError),
}

/// Why a command or a read was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// As many commands wait as may. Nothing was done; retry after a pause.
    #[error("the store is busy: its queue is full")]
    Busy,
    /// The file system is nearly full. Nothing was done; retry once somebody has made room.
    #[error("the store is short of disk space")]
    NoSpace,
    /// The engine was shut down. Nothing was done; do not retry here.
    #[error("the store is shut down")]
    Stopped,
    /// The command panicked and was taken back. A retry panics again.
    #[error("the store command {0} panicked")]
    Panicked(&'static str),
    /// A read met an unreadable or damaged block; a command that did was taken back. A retry rarely helps.
    #[error("reading the store: {0}")]
    Read(#[source] Arc<fjall::Error>),
    /// The store could not be written: what was not answered may or may not be on disk. The process ends.
    #[error("the store failed: {0}")]
    Failed(#[source] Arc<fjall::Error>),
}

impl EngineError {
    /// Whether the same call may succeed later, in this process.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Busy | Self::NoSpace => true,
            Self::Stopped | Self::Panicked(_) | Self::Read(_) | Self::Failed(_) => false,
        }
    }

    pub(super) fn read(error: fjall::Error) -> Self {
        Self::Read(Arc::new(error))
    }

    pub(super) fn failed(error: fjall::Error) -> Self {
        Self::Failed(Arc::new(error))
    }
}
