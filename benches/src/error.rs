//! Why a row could not be measured.

use std::path::PathBuf;

/// Why a row could not be measured. A figure that was not measured as it should be is none: nothing here is
/// passed over.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The folder is on no disk; another one, by `--dir`, will do.
    #[error("{folder} is on {file_system}, where nothing is durable: name a folder on a disk with --dir")]
    NotOnDisk {
        /// The folder.
        folder: PathBuf,
        /// What it is on.
        file_system: &'static str,
    },
    /// A file, a process or a socket.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The relay was not built, did not start, or ended.
    #[error("the relay: {0}")]
    Relay(String),
    /// The relay answered otherwise than it should.
    #[error("{what} was answered {status}: {body}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// The status of the answer.
        status: u16,
        /// The beginning of its body.
        body: String,
    },
    /// What was counted is not what was sent.
    #[error("{0}")]
    Miscounted(String),
    /// It took longer than anything that could be called working.
    #[error("{0} took too long")]
    TooLong(&'static str),
    /// HTTP/1.1 towards the relay.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// HTTP/2 towards the emulators.
    #[error("HTTP/2: {0}")]
    Http2(#[from] h2::Error),
    /// A request that cannot be written.
    #[error("a request: {0}")]
    Request(#[from] http::Error),
    /// JSON that is not as it should be.
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Keys, certificates, records or boxes of this program's own making.
    #[error("{what}: {why}")]
    Cast {
        /// What was to be made.
        what: &'static str,
        /// Why it was not.
        why: String,
    },
    /// The emulators did not start.
    #[error("the emulators: {0}")]
    Emulators(#[from] sealpost_emulators::StartError),
    /// A task or thread of this program panicked.
    #[error("a part of the load ended")]
    Ended,
}

impl BenchError {
    /// An error of the system while trying `what`.
    pub(crate) fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { what, source }
    }

    /// Something of this program's own making could not be made.
    pub(crate) fn cast<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |why| Self::Cast { what, why: why.to_string() }
    }
}
