//! What is inside a box: a frame, signed by the sender and bound to the message's context.
//!
//! ```text
//! signed = COSE_Sign1 by the sender's `send` key, with its certificate, external_aad = context, typ = the frame:
//!   "sealpost-notification-v1+cose"  a notification
//!   "sealpost-reply-v1+cose"         a patient's answer          \
//!   "sealpost-recall-v1+cose"        a notification taken back    } their place; this version opens none of them
//!   "sealpost-mls-v1+cose"           an MLS message (RFC 9420)   /
//! ```

mod notification;

use zeroize::Zeroizing;

use crate::certificate::{Certificate, Purpose};
use crate::clock::UnixTime;
use crate::context::MessageContext;
use crate::error::{FormatError, TrustError};
use crate::id::SubjectId;
use crate::key::SigningKey;
use crate::limits::{CLOCK_SKEW_SECONDS_MAX, MESSAGE_LIFETIME_SECONDS_MAX, SIGNED_BYTES_MAX};
use crate::sign1::{self, Sign1};
use crate::trust::TenantTrust;

pub use notification::{
    Attachment, DirectoryHead, Notification, Part, Priority, QuickReply, Sensitivity, Text,
};

const TYP_NOTIFICATION: &str = "sealpost-notification-v1+cose";
const TYPS_RESERVED: [&str; 3] =
    ["sealpost-reply-v1+cose", "sealpost-recall-v1+cose", "sealpost-mls-v1+cose"];

impl Notification {
    /// Signs the notification for the device and message of `context`. What comes back is plaintext: it is
    /// wiped when dropped.
    ///
    /// # Errors
    /// A value or size that the format does not allow: what the recipient could not read is not signed.
    pub fn sign(
        &self,
        context: &MessageContext,
        key: &SigningKey,
        certificate: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, FormatError> {
        self.check()?;
        let payload = Zeroizing::new(self.write(context.transport_id, context.device));
        let signed = sign1::sign(key, TYP_NOTIFICATION, Some(certificate), &payload, &context.to_bytes());
        let signed = Zeroizing::new(signed);
        if signed.len() > SIGNED_BYTES_MAX {
            Err(FormatError::TooLarge(SIGNED_BYTES_MAX))
        } else {
            Ok(signed)
        }
    }
}

/// A frame, as the opener understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A notification.
    Notification(Box<Notification>),
}

/// Why a signed message is not believed, after it was decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The form, the signature or the chain.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The payload names another message or device than the context.
    #[error("the payload names another message or device")]
    IdMismatch,
    /// The message lives longer than a message may, seen from when it was made.
    #[error("the message lives longer than a message may")]
    LifetimeTooLong,
    /// The message was made in the future.
    #[error("the message was made in the future")]
    CreatedInFuture,
    /// A frame that this version does not open.
    #[error("a frame that this version does not open")]
    FrameUnsupported,
}

impl MessageError {
    /// The stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Trust(error) => error.code(),
            Self::IdMismatch => "id_mismatch",
            Self::LifetimeTooLong => "lifetime_too_long",
            Self::CreatedInFuture => "created_in_future",
            Self::FrameUnsupported => "frame_unsupported",
        }
    }
}

impl From<FormatError> for MessageError {
    fn from(error: FormatError) -> Self {
        Self::Trust(error.into())
    }
}

/// A decrypted message that was read and not yet believed.
#[derive(Clone, Copy, Debug)]
pub struct SignedMessage<'a> {
    signed: Sign1<'a>,
}

/// A message whose sender is known and that is for this device, this message and this time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedMessage {
    /// Who sent it, as the tenant root certified.
    pub sender: SubjectId,
    /// The sender's certificate.
    pub certificate: Certificate,
    /// What it says.
    pub frame: Frame,
}

impl<'a> SignedMessage<'a> {
    /// Reads a message that came out of a box.
    pub fn read(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let signed = Sign1::read_any(bytes, SIGNED_BYTES_MAX)?;
        if signed.typ != TYP_NOTIFICATION && !TYPS_RESERVED.contains(&signed.typ) {
            return Err(FormatError::WrongTyp);
        }
        signed.required_certificate()?;
        Ok(Self { signed })
    }

    /// Verifies chain, signature, ids and times, in this order. `now` is the opener's clock.
    pub fn verify(
        self,
        context: &MessageContext,
        trust: &TenantTrust,
        now: UnixTime,
    ) -> Result<VerifiedMessage, MessageError> {
        let bytes = self.signed.required_certificate()?;
        let certificate = trust.certificate_at_any_time(bytes, Purpose::Send)?;
        self.signed.verify(&certificate.ed25519()?, &context.to_bytes())?;
        if self.signed.typ != TYP_NOTIFICATION {
            return Err(MessageError::FrameUnsupported);
        }
        let (transport_id, device, notification) = Notification::read(self.signed.payload)?;
        if transport_id != context.transport_id || device != context.device {
            return Err(MessageError::IdMismatch);
        }
        if notification.created > now.plus(CLOCK_SKEW_SECONDS_MAX) {
            return Err(MessageError::CreatedInFuture);
        }
        // Together with the expiry in the context, this bounds how long a key is of use after its
        // certificate's end.
        if context.expires_at > notification.created.plus(MESSAGE_LIFETIME_SECONDS_MAX) {
            return Err(MessageError::LifetimeTooLong);
        }
        certificate.check_time(notification.created)?;
        Ok(VerifiedMessage {
            sender: certificate.subject.clone(),
            certificate,
            frame: Frame::Notification(Box::new(notification)),
        })
    }
}
