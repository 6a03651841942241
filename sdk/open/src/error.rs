//! Why a sealed message is not opened.

use sealpost_wire::error::{FormatError, TrustError};
use sealpost_wire::padding::PaddingError;
use sealpost_wire::payload::MessageError;

/// Why a sealed message is not opened. The same bytes with the same key and context will never open, but for
/// an unknown root, certificate or status that the device has not seen yet: those come with the next sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The sealed message does not have its form.
    #[error("the sealed message: {0}")]
    Format(#[from] FormatError),
    /// It is sealed for another suite than the key's.
    #[error("sealed for another suite")]
    SuiteMismatch,
    /// It is sealed to another prekey.
    #[error("sealed to another prekey")]
    PrekeyMismatch,
    /// It was over before it was opened.
    #[error("the message has expired")]
    Expired,
    /// It does not decrypt: sealed to another key or for another message, device, tenant or expiry, or
    /// changed.
    #[error("the message does not decrypt")]
    Undecryptable,
    /// What was decrypted is not padded as it must be.
    #[error(transparent)]
    Padding(#[from] PaddingError),
    /// What was decrypted is not to be believed.
    #[error(transparent)]
    Message(#[from] MessageError),
}

impl OpenError {
    /// The stable code; a signed `unopenable` gives it as its reason.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Format(error) => error.code(),
            Self::SuiteMismatch => "suite_mismatch",
            Self::PrekeyMismatch => "prekey_mismatch",
            Self::Expired => "expired",
            Self::Undecryptable => "undecryptable",
            Self::Padding(error) => error.code(),
            Self::Message(error) => error.code(),
        }
    }

    /// Whether the sender can mend it by sealing anew to a fresh prekey: the device has lost the key, or the
    /// box was changed on its way.
    #[must_use]
    pub const fn resealing_may_help(self) -> bool {
        matches!(self, Self::Format(_) | Self::SuiteMismatch | Self::PrekeyMismatch | Self::Undecryptable)
    }
}

impl From<TrustError> for OpenError {
    fn from(error: TrustError) -> Self {
        Self::Message(error.into())
    }
}
