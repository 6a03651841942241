//! Why something at the sender did not work.

use std::time::Duration;

use sealpost_seal::SealError;
use sealpost_wire::error::{FormatError, TrustError};

use crate::private_file::PrivateFileError;

/// Why an operation of a sender or an enroller failed.
#[derive(Debug, thiserror::Error)]
pub enum SenderError {
    /// The same source event came before with other content. Someone has to look at it; nothing was sent.
    #[error("the source event {0} came before with other content")]
    SourceConflict(String),
    /// The outbox was written by a newer version.
    #[error("the outbox was written by a newer version ({0})")]
    NewerOutbox(i64),
    /// A stored value cannot be read with the outbox's key.
    #[error("a stored value cannot be read: the outbox's key is another one, or the value was changed")]
    Unreadable,
    /// A key or state file.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// The outbox's database.
    #[error("the outbox's database failed: {0}")]
    Database(#[from] rusqlite::Error),
    /// A server.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A signed structure that is not to be believed.
    #[error("something that is not to be believed: {0}")]
    Trust(#[from] TrustError),
    /// A value that the format does not allow.
    #[error("not possible in the format: {0}")]
    Format(#[from] FormatError),
    /// Sealing was refused.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The set was signed by an enrol key that the policy does not name.
    #[error("the device set was signed by an enrol key that the policy does not name")]
    EnrolKeyNotAllowed,
    /// The recipient has no device that can be sealed to. A device may enrol later.
    #[error("the recipient has no device")]
    NoDevices,
    /// The device is not in the recipient's set.
    #[error("the recipient has no such device")]
    UnknownDevice,
    /// No such ticket, or it is over.
    #[error("there is no such open ticket")]
    UnknownTicket,
    /// The code is not the one of the device that claimed the ticket.
    #[error("the code is not that of the device that claimed the ticket")]
    WrongCode,
    /// Two devices claimed one ticket: its secret leaked. Both were refused and the ticket is closed.
    #[error("two devices claimed one ticket; both were refused")]
    TicketLeaked,
}

impl SenderError {
    /// Whether the same call later may work.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        match self {
            Self::Http(error) => error.is_temporary(),
            Self::NoDevices | Self::Database(_) => true,
            // A look-up raced a rotation or a clock: the next one brings others.
            Self::Trust(error) => matches!(
                error,
                TrustError::PrekeyExpired | TrustError::Rollback | TrustError::CertificateNotYetValid
            ),
            // An alert waits for the sender's new certificate rather than being lost.
            Self::Seal(SealError::Trust(error)) => {
                matches!(error, TrustError::CertificateExpired | TrustError::CertificateNotYetValid)
            }
            _ => false,
        }
    }

    /// A stable code, for states and logs.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::SourceConflict(_) => "source_conflict",
            Self::NewerOutbox(_) => "newer_outbox",
            Self::Unreadable => "unreadable",
            Self::File(_) => "file",
            Self::Database(_) => "database",
            Self::Http(error) => error.code(),
            Self::Trust(error) => error.code(),
            Self::Format(error) => error.code(),
            Self::Seal(error) => error.code(),
            Self::EnrolKeyNotAllowed => "enrol_key_not_allowed",
            Self::NoDevices => "no_devices",
            Self::UnknownDevice => "unknown_device",
            Self::UnknownTicket => "unknown_ticket",
            Self::WrongCode => "wrong_code",
            Self::TicketLeaked => "ticket_leaked",
        }
    }

    /// How long to wait before the next try, if a server said so.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Http(HttpError::Refused { retry_after, .. }) => *retry_after,
            _ => None,
        }
    }
}

/// Why a request to a server failed.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No answer: name, connection, time. The server may have done what was asked.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// The server refused, with the code of its problem document.
    #[error("the server refused: {code} ({status}){}", detail.as_deref().map(|text| format!(": {text}")).unwrap_or_default())]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The stable code.
        code: String,
        /// What was wrong in this case.
        detail: Option<String>,
        /// How long to wait, if the server said so.
        retry_after: Option<Duration>,
    },
    /// The answer is not what the contract says.
    #[error("the server's answer cannot be read")]
    Malformed,
}

impl HttpError {
    /// Whether the same request later may work.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Refused { status, .. } => *status >= 500 || matches!(*status, 408 | 429) || *status == 401,
            Self::Malformed => false,
        }
    }

    /// The stable code: the server's, or one of this client's.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Refused { code, .. } => code,
            Self::Malformed => "malformed_answer",
        }
    }

    /// Whether the server refused with this HTTP status.
    #[must_use]
    pub const fn is_status(&self, expected: u16) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == expected)
    }
}
