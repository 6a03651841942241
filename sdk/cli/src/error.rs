//! Why a command failed, in one line, with an exit code that a script can go by.

use sealpost_connector::alert::AlertError;
use sealpost_connector::patients::PatientMapError;
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

    /// A stable code.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Usage(_) => "usage",
            Self::State { code, .. } => code,
            Self::NotYet(_) => "not_yet",
            Self::File { .. } | Self::PrivateFile(_) => "file",
            Self::Sender(error) => error.code(),
            Self::Device(error) => match error {
                DeviceError::NotEnrolled => "not_enrolled",
                DeviceError::AlreadyEnrolled => "already_enrolled",
                DeviceError::NotAdmitted => "not_admitted",
                DeviceError::UnknownMessage => "unknown_message",
                DeviceError::Http(error) => error.code(),
                DeviceError::Trust(error) => error.code(),
                DeviceError::Format(error) => error.code(),
                _ => "device",
            },
            Self::Patients(_) => "patient_map",
            Self::Quarantine(_) => "quarantine",
            Self::Alert(_) => "alert",
            Self::Format(error) => error.code(),
            Self::Trust(error) => error.code(),
        }
    }

    /// 1: refused or failed; 2: the command line; 3: the same command later may do.
    pub(crate) fn exit_code(&self) -> u8 {
        let temporary = match self {
            Self::Usage(_) => return 2,
            Self::NotYet(_) => true,
            Self::Sender(error) => error.is_temporary(),
            Self::Device(error) => error.is_temporary(),
            _ => false,
        };
        if temporary { 3 } else { 1 }
    }
}

impl From<PlatformError> for CliError {
    fn from(error: PlatformError) -> Self {
        Self::Device(error.into())
    }
}
