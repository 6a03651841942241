//! Why a command failed, in one line, with an exit code that a script can go by.

use std::path::Path;

use sealpost_connector::alert::AlertError;
use sealpost_connector::patients::PatientMapError;
use sealpost_connector::policy::PolicyError;
use sealpost_connector::quarantine::QuarantineError;
use sealpost_device::{DeviceError, PlatformError};
use sealpost_sender::{PrivateFileError, SenderError};
use sealpost_wire::error::{FormatError, TrustError};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The command line.
    #[error("{0}")]
    Usage(String),
    /// Something is there already, or is not.
    #[error("{message}")]
    State {
        /// A stable code.
        code: &'static str,
        /// What, and what to do about it.
        message: String,
    },
    /// Some of it was done, and not all.
    #[error("{message}")]
    Partly {
        /// A stable code.
        code: String,
        /// What is missing, and what to do about it.
        message: String,
        /// Whether the same command later may do the rest.
        temporary: bool,
        /// What was done, for `--json`.
        done: serde_json::Value,
    },
    /// Not yet: the same command later may do.
    #[error("{0}")]
    NotYet(String),
    /// A file.
    #[error("{path}: {error}")]
    File {
        /// Its path.
        path: String,
        /// What failed.
        error: std::io::Error,
    },
    /// A key or state file.
    #[error(transparent)]
    PrivateFile(#[from] PrivateFileError),
    /// The sender or the enroller.
    #[error(transparent)]
    Sender(#[from] SenderError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The patient map.
    #[error(transparent)]
    Patients(#[from] PatientMapError),
    /// The policy of categories.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The quarantine.
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
    /// The mapping of a result.
    #[error(transparent)]
    Alert(#[from] AlertError),
    /// A value that the format does not allow.
    #[error("not possible in the format: {0}")]
    Format(#[from] FormatError),
    /// A signed structure that is not to be believed.
    #[error("not to be believed: {0}")]
    Trust(#[from] TrustError),
}

impl CliError {
    /// Something is there already, or is not.
    pub(crate) fn state(code: &'static str, message: impl Into<String>) -> Self {
        Self::State { code, message: message.into() }
    }

    /// The file system's answer about `path`.
    pub(crate) fn file(path: &Path, error: std::io::Error) -> Self {
        let path =
            if path.as_os_str() == "-" { "standard input".to_owned() } else { path.display().to_string() };
        Self::File { path, error }
    }

    /// A stable code.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Usage(_) => "usage",
            Self::State { code, .. } => code,
            Self::Partly { code, .. } => code,
            Self::NotYet(_) => "not_yet",
            Self::File { .. } | Self::PrivateFile(_) => "file",
            Self::Sender(error) => error.code(),
            Self::Device(error) => error.code(),
            Self::Patients(_) => "patient_map",
            Self::Policy(_) => "policy",
            Self::Quarantine(_) => "quarantine",
            Self::Alert(_) => "alert",
            Self::Format(error) => error.code(),
            Self::Trust(error) => error.code(),
        }
    }

    /// What was done before it failed.
    pub(crate) const fn done(&self) -> Option<&serde_json::Value> {
        match self {
            Self::Partly { done, .. } => Some(done),
            _ => None,
        }
    }

    /// 1: refused or failed; 2: the command line; 3: the same command later may do.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            _ if self.is_temporary() => 3,
            _ => 1,
        }
    }

    /// Whether the same command later may do.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::NotYet(_) => true,
            Self::Partly { temporary, .. } => *temporary,
            // An alert waits for credentials to be set right; a person is told that they are not.
            Self::Sender(SenderError::Http(error)) if error.is_status(401) => false,
            Self::Sender(error) => error.is_temporary(),
            Self::Device(error) => error.is_temporary(),
            _ => false,
        }
    }
}

impl From<PlatformError> for CliError {
    fn from(error: PlatformError) -> Self {
        Self::Device(error.into())
    }
}
