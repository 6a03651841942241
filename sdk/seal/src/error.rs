//! Why a message is not sealed.

use sealpost_wire::error::{FormatError, TrustError};

/// Why a message is not sealed. Nothing was made that could be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The frame has a value or size that the format does not allow. A retry cannot help.
    #[error("the frame cannot be written: {0}")]
    Format(#[from] FormatError),
    /// The sender's certificate, the device's admission, or a prekey must not be believed. A retry helps after a new
    /// certificate or look-up.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The expiry is not in the future, or further away than a message lives. A retry cannot help.
    #[error("the expiry is in the past or too far away")]
    InvalidExpiry,
    /// The device may have deleted the prekey's private half before the message expires. An earlier expiry
    /// helps.
    #[error("the message outlives the prekey")]
    ExpiresAfterPrekey,
    /// The frame was made too long before its expiry. An earlier expiry helps.
    #[error("the message lives longer than a message may, seen from when it was made")]
    LifetimeTooLong,
    /// The frame was made in the future. A retry helps when that time has come.
    #[error("the frame was made in the future")]
    CreatedInFuture,
    /// The device opens the hybrid suite and is offered a classical prekey, or none for the hybrid suite. A
    /// later look-up may help; if it stays so, somebody takes the prekeys away.
    #[error("a device with the hybrid suite is offered no hybrid prekey")]
    Downgrade,
    /// There is no prekey for the device. A later look-up helps, once the device was online.
    #[error("there is no prekey for the device")]
    NoPrekey,
    /// The policy insists on a one-time prekey, and there is none. A later look-up helps, once the device was
    /// online.
    #[error("there is no one-time prekey for the device")]
    NoOneTimePrekey,
    /// The prekey is not a public key of its suite. A retry with the same prekey cannot help.
    #[error("the prekey is not a public key of its suite")]
    InvalidPrekey,
}

impl SealError {
    /// The stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Format(error) => error.code(),
            Self::Trust(error) => error.code(),
            Self::InvalidExpiry => "invalid_expiry",
            Self::ExpiresAfterPrekey => "expires_after_prekey",
            Self::LifetimeTooLong => "lifetime_too_long",
            Self::CreatedInFuture => "created_in_future",
            Self::Downgrade => "downgrade",
            Self::NoPrekey => "no_prekey",
            Self::NoOneTimePrekey => "no_one_time_prekey",
            Self::InvalidPrekey => "invalid_prekey",
        }
    }

    /// Whether sealing may succeed after another look-up, with all else unchanged.
    #[must_use]
    pub const fn look_up_may_help(self) -> bool {
        matches!(
            self,
            Self::Trust(TrustError::PrekeyExpired)
                | Self::ExpiresAfterPrekey
                | Self::Downgrade
                | Self::NoPrekey
                | Self::NoOneTimePrekey
                | Self::InvalidPrekey
        )
    }
}
