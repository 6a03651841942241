//! What is inside a box: a frame, signed by its author and bound to the message's context.
//!
//! ```text
//! signed = COSE_Sign1, external_aad = context, typ = the frame
//!          by a sender's `send` key, with its certificate:
//!   "sealpost-notification-v1+cose"  a notification
//!   "sealpost-reply-v1+cose"         a patient's answer         \ their place; this version opens
//!   "sealpost-recall-v1+cose"        a notification taken back  / neither
//!          by a device's identity key, with its admission:
//!   "sealpost-mls-v1+cose"           what a member of a group sends (RFC 9420)
//! ```

mod mls_frame;
mod notification;

use zeroize::Zeroizing;

use crate::admission::Admission;
use crate::author::Author;
use crate::certificate::Purpose;
use crate::clock::UnixTime;
use crate::context::MessageContext;
use crate::error::{FormatError, TrustError};
use crate::key::SigningKey;
use crate::limits::{CLOCK_SKEW_SECONDS_MAX, MESSAGE_LIFETIME_SECONDS_MAX, SIGNED_BYTES_MAX};
use crate::sign1::{self, Sign1, Signer};
use crate::trust::TenantTrust;

pub use mls_frame::{GroupInfoBody, MlsFrame, MlsKind};
pub use notification::{
    Attachment, DirectoryHead, Notification, Part, Priority, QuickReply, Sensitivity, Text,
};

const TYP_NOTIFICATION: &str = "sealpost-notification-v1+cose";
const TYP_MLS: &str = "sealpost-mls-v1+cose";
const TYPS_RESERVED: [&str; 2] = ["sealpost-reply-v1+cose", "sealpost-recall-v1+cose"];

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
        sign(key, TYP_NOTIFICATION, Signer::Certified(certificate), &payload, context)
    }
}

impl MlsFrame {
    /// Signs the frame for the device and message of `context`, as the device that `admission` admits and whose
    /// identity key this is. What comes back is wiped when dropped.
    ///
    /// # Errors
    /// A value or size that the format does not allow: what the recipient could not read is not signed.
    pub fn sign(
        &self,
        context: &MessageContext,
        identity: &SigningKey,
        admission: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, FormatError> {
        self.check()?;
        let payload = Zeroizing::new(self.write(context.transport_id, context.device));
        sign(identity, TYP_MLS, Signer::Admitted(admission), &payload, context)
    }
}

fn sign(
    key: &SigningKey,
    typ: &str,
    signer: Signer<'_>,
    payload: &[u8],
    context: &MessageContext,
) -> Result<Zeroizing<Vec<u8>>, FormatError> {
    let signed = Zeroizing::new(sign1::sign(key, typ, signer, payload, &context.to_bytes()));
    if signed.len() > SIGNED_BYTES_MAX { Err(FormatError::TooLarge(SIGNED_BYTES_MAX)) } else { Ok(signed) }
}

/// A frame, as the opener understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A notification, by a sender.
    Notification(Box<Notification>),
    /// What a member of a group sends, by a device.
    Mls(Box<MlsFrame>),
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
    typ: FrameType,
}

/// What the header says of the payload.
#[derive(Clone, Copy, Debug)]
enum FrameType {
    Notification,
    Mls,
    Reserved,
}

/// A message whose author is known and that is for this device, this message and this time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedMessage {
    /// Who wrote it. A notification is a sender's, an MLS frame a device's.
    pub author: Author,
    /// What it says.
    pub frame: Frame,
}

impl<'a> SignedMessage<'a> {
    /// Reads a message that came out of a box.
    pub fn read(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let signed = Sign1::read_any(bytes, SIGNED_BYTES_MAX)?;
        let typ = match signed.typ {
            TYP_NOTIFICATION => FrameType::Notification,
            TYP_MLS => FrameType::Mls,
            typ if TYPS_RESERVED.contains(&typ) => FrameType::Reserved,
            _ => return Err(FormatError::WrongTyp),
        };
        match (typ, signed.signer) {
            (FrameType::Notification | FrameType::Reserved, Signer::Certified(_))
            | (FrameType::Mls, Signer::Admitted(_)) => Ok(Self { signed, typ }),
            _ => Err(FormatError::WrongField),
        }
    }

    /// Verifies the author's chain, the signature, ids and times, in this order. `now` is the opener's clock.
    ///
    /// # Errors
    /// A [`MessageError`] with a stable code.
    pub fn verify(
        self,
        context: &MessageContext,
        trust: &TenantTrust,
        now: UnixTime,
    ) -> Result<VerifiedMessage, MessageError> {
        let author = self.verify_author(context, trust)?;
        let (transport_id, device, created, frame) = match self.typ {
            FrameType::Notification => {
                let (transport_id, device, notification) = Notification::read(self.signed.payload)?;
                let created = notification.created;
                (transport_id, device, created, Frame::Notification(Box::new(notification)))
            }
            FrameType::Mls => {
                let (transport_id, device, frame) = MlsFrame::read(self.signed.payload)?;
                (transport_id, device, frame.created, Frame::Mls(Box::new(frame)))
            }
            FrameType::Reserved => return Err(MessageError::FrameUnsupported),
        };
        if transport_id != context.transport_id || device != context.device {
            return Err(MessageError::IdMismatch);
        }
        if created > now.plus(CLOCK_SKEW_SECONDS_MAX) {
            return Err(MessageError::CreatedInFuture);
        }
        // Together with the expiry in the context, this bounds how long a key is of use after its
        // certificate's end.
        if context.expires_at > created.plus(MESSAGE_LIFETIME_SECONDS_MAX) {
            return Err(MessageError::LifetimeTooLong);
        }
        // An admission has no end: it holds until the tenant revokes the device.
        if let Author::Sender(certificate) = &author {
            certificate.check_time(created)?;
        }
        Ok(VerifiedMessage { author, frame })
    }

    /// The author, whose key signed the message for this context.
    fn verify_author(&self, context: &MessageContext, trust: &TenantTrust) -> Result<Author, TrustError> {
        let (author, key) = match self.signed.signer {
            Signer::Certified(certificate) => {
                let certificate = trust.certificate_at_any_time(certificate, Purpose::Send)?;
                let key = certificate.ed25519()?;
                (Author::Sender(Box::new(certificate)), key)
            }
            Signer::Admitted(admission) => {
                let admission = Admission::verify(admission, trust)?;
                let key = admission.record.identity_key;
                (Author::Device(Box::new(admission)), key)
            }
            Signer::Known => return Err(FormatError::WrongField.into()),
        };
        self.signed.verify(&key, &context.to_bytes())?;
        Ok(author)
    }
}
