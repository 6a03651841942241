//! Why something on the device did not work.

use std::time::Duration;

use sealpost_group::GroupError;
use sealpost_seal::SealError;
use sealpost_wire::error::{FormatError, TrustError};

use crate::platform::PlatformError;

/// Why an operation of a device failed.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// There is no enrolled device in the folder.
    #[error("no device is enrolled here")]
    NotEnrolled,
    /// A device is enrolled already; a second enrolment takes another folder.
    #[error("a device is enrolled here already")]
    AlreadyEnrolled,
    /// The tenant has not countersigned the device yet. Trying later helps.
    #[error("the tenant has not countersigned the device yet")]
    NotAdmitted,
    /// The state was written by a newer version.
    #[error("the state was written by a newer version ({0})")]
    NewerState(i64),
    /// A stored value cannot be read with the platform's key.
    #[error("a stored value cannot be read: the platform's key is another one, or the value was changed")]
    Unreadable,
    /// No such message.
    #[error("there is no such message")]
    UnknownMessage,
    /// None of the recipient's devices that could come into the group has a key package.
    #[error("no device of the recipient can be invited: there is no key package, or all are in the group")]
    NobodyToInvite,
    /// No box can be sealed to any of those that a frame is for. Trying later helps, once they have been online.
    #[error("no member of the group can be reached: none has a prekey")]
    NobodyReached,
    /// Somebody is about to leave the group, and no commit has gone through yet. Trying later helps.
    #[error("the group is changing")]
    GroupIsChanging,
    /// The relay does not take this device's word for the group's order any more: it has lost the epoch, and comes
    /// back into the group by itself.
    #[error("the group's slot asks for another capability: the epoch is lost")]
    SlotForbidden,
    /// A group, or this device's place in it.
    #[error("the group: {0}")]
    Group(#[from] GroupError),
    /// A box that cannot be sealed.
    #[error("a box for a member of a group: {0}")]
    Seal(#[from] SealError),
    /// The key store or a file.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// The database.
    #[error("the device's database failed: {0}")]
    Database(#[from] rusqlite::Error),
    /// A server.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A signed structure from a server that is not to be believed.
    #[error("the server sent something that is not to be believed: {0}")]
    Trust(#[from] TrustError),
    /// Something that cannot be signed as it is.
    #[error("not possible in the format: {0}")]
    Format(#[from] FormatError),
}

impl DeviceError {
    /// Whether the device's own store failed: nothing else is to be tried.
    #[must_use]
    pub const fn is_storage(&self) -> bool {
        matches!(
            self,
            Self::Database(_) | Self::Platform(_) | Self::Unreadable | Self::Group(GroupError::Store(_))
        )
    }

    /// A stable code, for states and logs.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::NotEnrolled => "not_enrolled",
            Self::AlreadyEnrolled => "already_enrolled",
            Self::NotAdmitted => "not_admitted",
            Self::NewerState(_) => "newer_state",
            Self::Unreadable => "unreadable",
            Self::UnknownMessage => "unknown_message",
            Self::NobodyToInvite => "nobody_to_invite",
            Self::NobodyReached => "nobody_reached",
            Self::GroupIsChanging => "group_is_changing",
            Self::SlotForbidden => "slot_forbidden",
            Self::Group(error) => error.code(),
            Self::Seal(error) => error.code(),
            Self::Platform(_) => "file",
            Self::Database(_) => "database",
            Self::Http(error) => error.code(),
            Self::Trust(error) => error.code(),
            Self::Format(error) => error.code(),
        }
    }

    /// How long the server asks to wait before the same call.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Http(HttpError::Refused { retry_after, .. }) => *retry_after,
            _ => None,
        }
    }

    /// Whether the same call later may work; not before [`Self::retry_after`].
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::NotAdmitted | Self::Database(_) | Self::NobodyReached | Self::GroupIsChanging => true,
            Self::Http(error) => error.is_temporary(),
            _ => false,
        }
    }
}

/// Why a request to a server failed.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No answer: name, connection, time.
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
            Self::Refused { status, .. } => *status >= 500 || matches!(*status, 408 | 429),
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
}
