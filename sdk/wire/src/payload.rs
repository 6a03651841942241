//! What is inside a box: a frame, signed by the sender and bound to the message's context.
//!
//! ```text
//! signed = COSE_Sign1 by the sender's `send` key, with its certificate, external_aad = context, typ = the frame:
//!   "sealpost-notification-v1+cose"  a notification
//!   "sealpost-reply-v1+cose"         a patient's answer          \
//!   "sealpost-recall-v1+cose"        a notification taken back    } their place; this version opens none of them
//!   "sealpost-mls-v1+cose"           an MLS message (RFC 9420)   /
//! notification = { 1: transport id, 2: device, 3: notification id, 4: revision, 5: created, 6: priority, 7: category,
//!   8: sensitivity, 9: { + language => text }, ? 10: [+ part], ? 11: [+ reply], ? 12: [+ attachment], ? 13: head }
//! text = { 1: title, 2: body }          part = { 1: media type, 2: bytes }
//! reply = { 1: code, 2: { + language => label } }
//! attachment = { 1: id, 2: size, 3: SHA-256, 4: key }      head = { 1: epoch, 2: root }
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cbor::{Reader, Writer};
use crate::certificate::{Certificate, Purpose};
use crate::clock::UnixTime;
use crate::context::MessageContext;
use crate::error::{FormatError, TrustError};
use crate::id::{DeviceId, Digest, NotificationId, SubjectId, TransportId};
use crate::key::SigningKey;
use crate::limits::{
    ATTACHMENTS_MAX, BODY_BYTES_MAX, CATEGORY_BYTES_MAX, CLOCK_SKEW_SECONDS_MAX, LANGUAGE_BYTES_MAX,
    LANGUAGES_MAX, MEDIA_TYPE_BYTES_MAX, MESSAGE_LIFETIME_SECONDS_MAX, PART_BYTES_MAX, PARTS_MAX,
    REPLIES_MAX, REPLY_CODE_BYTES_MAX, SIGNED_BYTES_MAX, TITLE_BYTES_MAX,
};
use crate::sign1::{self, Sign1};
use crate::trust::TenantTrust;

const TYP_NOTIFICATION: &str = "sealpost-notification-v1+cose";
const TYPS_RESERVED: [&str; 3] =
    ["sealpost-reply-v1+cose", "sealpost-recall-v1+cose", "sealpost-mls-v1+cose"];

/// How soon a notification is to be delivered. The relay sees it: it orders the work by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Somebody must act now.
    Critical,
    /// The patient waits for it.
    Normal,
    /// When convenient; never ahead of the others.
    Bulk,
}

impl Priority {
    /// All of them, most urgent first.
    pub const ALL: [Self; 3] = [Self::Critical, Self::Normal, Self::Bulk];

    /// The number in payloads and in stored keys: 1, 2, 3.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Critical => 1,
            Self::Normal => 2,
            Self::Bulk => 3,
        }
    }

    /// The priority with this number.
    pub fn from_code(code: u64) -> Result<Self, FormatError> {
        Self::ALL
            .into_iter()
            .find(|priority| u64::from(priority.code()) == code)
            .ok_or(FormatError::WrongValue("priority"))
    }

    /// Its name, as in JSON and in metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Normal => "normal",
            Self::Bulk => "bulk",
        }
    }
}

/// What may be seen of a notification on a locked screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sensitivity {
    /// Title and body.
    Normal,
    /// That there is a message, no more.
    Private,
    /// That there is a message; the body only after the app has authenticated the person.
    Restricted,
}

impl Sensitivity {
    const fn code(self) -> u64 {
        match self {
            Self::Normal => 1,
            Self::Private => 2,
            Self::Restricted => 3,
        }
    }

    fn from_code(code: u64) -> Result<Self, FormatError> {
        [Self::Normal, Self::Private, Self::Restricted]
            .into_iter()
            .find(|sensitivity| sensitivity.code() == code)
            .ok_or(FormatError::WrongValue("sensitivity"))
    }
}

/// What a person reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// One line.
    pub title: String,
    /// The message.
    pub body: String,
}

/// Data for the app: FHIR JSON, a PDF.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its media type (RFC 6838).
    pub media_type: String,
    /// The bytes.
    #[serde(with = "crate::base64url")]
    pub bytes: Vec<u8>,
}

/// An answer that the app offers as a button.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuickReply {
    /// What is sent back.
    pub code: String,
    /// What the button says, by language (RFC 5646).
    pub labels: BTreeMap<String, String>,
}

/// A file that was encrypted and uploaded on its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its id at the relay.
    pub id: [u8; 16],
    /// Bytes of the encrypted file.
    pub size: u64,
    /// SHA-256 of the encrypted file.
    pub digest: Digest,
    /// The key that it was encrypted under.
    pub key: [u8; 32],
}

/// The directory's state when the message was sealed, for the device to compare with its own view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryHead {
    /// The epoch.
    pub epoch: u64,
    /// Its root.
    pub root: Digest,
}

/// What a person is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// What is told, across resealing and corrections.
    pub id: NotificationId,
    /// Grows with each correction; a device shows the highest.
    pub revision: u64,
    /// When it was made.
    pub created: UnixTime,
    /// How soon it must arrive.
    pub priority: Priority,
    /// An agreed code, for consent and for the app's choice of sound and screen.
    pub category: String,
    /// What a locked screen may show.
    pub sensitivity: Sensitivity,
    /// At least one language (RFC 5646), shortest tag first as the encoding orders them.
    pub texts: BTreeMap<String, Text>,
    /// Data for the app.
    pub parts: Vec<Part>,
    /// Answers to offer.
    pub replies: Vec<QuickReply>,
    /// Files.
    pub attachments: Vec<Attachment>,
    /// The directory's state.
    pub head: Option<DirectoryHead>,
}

impl Notification {
    /// Signs the notification for the device and message of `context`.
    ///
    /// # Errors
    /// A value or size that the format does not allow.
    pub fn sign(
        &self,
        context: &MessageContext,
        key: &SigningKey,
        certificate: &[u8],
    ) -> Result<Vec<u8>, FormatError> {
        let payload = self.write(context.transport_id, context.device);
        let signed = sign1::sign(key, TYP_NOTIFICATION, Some(certificate), &payload, &context.to_bytes());
        let read = SignedMessage::read(&signed)?;
        // What the recipient could not read must not be sent.
        Self::read(read.signed.payload)?;
        Ok(signed)
    }

    fn write(&self, transport_id: TransportId, device: DeviceId) -> Vec<u8> {
        let optional = [!self.parts.is_empty(), !self.replies.is_empty(), !self.attachments.is_empty()];
        let optional = optional.iter().filter(|there| **there).count() + usize::from(self.head.is_some());
        let mut writer = Writer::new();
        writer.map(9 + optional);
        writer.int(1).bytes(transport_id.as_bytes()).int(2).bytes(device.as_bytes());
        writer.int(3).bytes(self.id.as_bytes()).int(4).uint(self.revision).int(5).uint(self.created.0);
        writer.int(6).uint(u64::from(self.priority.code())).int(7).text(&self.category);
        writer.int(8).uint(self.sensitivity.code());
        writer.int(9).map(self.texts.len());
        for (language, text) in in_encoded_order(&self.texts) {
            writer.text(language).map(2).int(1).text(&text.title).int(2).text(&text.body);
        }
        if !self.parts.is_empty() {
            writer.int(10).array(self.parts.len());
            for part in &self.parts {
                writer.map(2).int(1).text(&part.media_type).int(2).bytes(&part.bytes);
            }
        }
        if !self.replies.is_empty() {
            writer.int(11).array(self.replies.len());
            for reply in &self.replies {
                writer.map(2).int(1).text(&reply.code).int(2).map(reply.labels.len());
                for (language, label) in in_encoded_order(&reply.labels) {
                    writer.text(language).text(label);
                }
            }
        }
        if !self.attachments.is_empty() {
            writer.int(12).array(self.attachments.len());
            for file in &self.attachments {
                writer.map(4).int(1).bytes(&file.id).int(2).uint(file.size);
                writer.int(3).bytes(file.digest.as_bytes()).int(4).bytes(&file.key);
            }
        }
        if let Some(head) = self.head {
            writer.int(13).map(2).int(1).uint(head.epoch).int(2).bytes(head.root.as_bytes());
        }
        writer.finish()
    }

    /// The notification in `payload`, with the transport id and the device that it names.
    fn read(payload: &[u8]) -> Result<(TransportId, DeviceId, Self), FormatError> {
        let mut reader = Reader::new(payload, SIGNED_BYTES_MAX)?;
        let mut fields = reader.map()?;
        fields.key(&mut reader, 1)?;
        let transport_id = TransportId(reader.array("transport id")?);
        fields.key(&mut reader, 2)?;
        let device = DeviceId(reader.array("device")?);
        fields.key(&mut reader, 3)?;
        let id = NotificationId(reader.array("notification id")?);
        fields.key(&mut reader, 4)?;
        let revision = reader.uint()?;
        fields.key(&mut reader, 5)?;
        let created = UnixTime(reader.uint()?);
        fields.key(&mut reader, 6)?;
        let priority = Priority::from_code(reader.uint()?)?;
        fields.key(&mut reader, 7)?;
        let category = reader.text("category", CATEGORY_BYTES_MAX)?.to_owned();
        fields.key(&mut reader, 8)?;
        let sensitivity = Sensitivity::from_code(reader.uint()?)?;
        fields.key(&mut reader, 9)?;
        let texts = read_by_language(&mut reader, "texts", |reader| {
            let mut fields = reader.map()?;
            fields.key(reader, 1)?;
            let title = reader.text("title", TITLE_BYTES_MAX)?.to_owned();
            fields.key(reader, 2)?;
            let body = reader.text("body", BODY_BYTES_MAX)?.to_owned();
            fields.end()?;
            Ok(Text { title, body })
        })?;
        let parts = match fields.optional(&mut reader, 10)? {
            true => read_list(&mut reader, "parts", PARTS_MAX, read_part)?,
            false => Vec::new(),
        };
        let replies = match fields.optional(&mut reader, 11)? {
            true => read_list(&mut reader, "replies", REPLIES_MAX, read_reply)?,
            false => Vec::new(),
        };
        let attachments = match fields.optional(&mut reader, 12)? {
            true => read_list(&mut reader, "attachments", ATTACHMENTS_MAX, read_attachment)?,
            false => Vec::new(),
        };
        let head = match fields.optional(&mut reader, 13)? {
            true => Some(read_head(&mut reader)?),
            false => None,
        };
        fields.end()?;
        let notification = Self {
            id,
            revision,
            created,
            priority,
            category,
            sensitivity,
            texts,
            parts,
            replies,
            attachments,
            head,
        };
        Ok((transport_id, device, notification))
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
        // Together with the expiry in the context, this bounds how long a key is of use after its certificate's end.
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

/// Map entries in the order of their encoded keys: shorter texts first, then bytewise (RFC 8949 section 4.2.1: the
/// length is in the head).
fn in_encoded_order<T>(map: &BTreeMap<String, T>) -> Vec<(&String, &T)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| key.len());
    entries
}

fn read_by_language<T>(
    reader: &mut Reader<'_>,
    field: &'static str,
    read: impl Fn(&mut Reader<'_>) -> Result<T, FormatError>,
) -> Result<BTreeMap<String, T>, FormatError> {
    let mut map = BTreeMap::new();
    for _ in 0..reader.text_map(field, LANGUAGES_MAX)? {
        let language = reader.text(field, LANGUAGE_BYTES_MAX)?;
        if !language.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(FormatError::WrongValue("language"));
        }
        map.insert(language.to_owned(), read(reader)?);
    }
    if map.is_empty() { Err(FormatError::WrongValue(field)) } else { Ok(map) }
}

fn read_list<T>(
    reader: &mut Reader<'_>,
    field: &'static str,
    max: usize,
    read: impl Fn(&mut Reader<'_>) -> Result<T, FormatError>,
) -> Result<Vec<T>, FormatError> {
    let length = reader.list(field, max)?;
    // A list that is there has something in it, so that absence has one form.
    if length == 0 {
        return Err(FormatError::WrongValue(field));
    }
    (0..length).map(|_| read(reader)).collect()
}

fn read_part(reader: &mut Reader<'_>) -> Result<Part, FormatError> {
    let mut fields = reader.map()?;
    fields.key(reader, 1)?;
    let media_type = reader.text("media type", MEDIA_TYPE_BYTES_MAX)?.to_owned();
    fields.key(reader, 2)?;
    let bytes = reader.bytes()?.to_vec();
    fields.end()?;
    if bytes.len() > PART_BYTES_MAX {
        Err(FormatError::WrongValue("parts"))
    } else {
        Ok(Part { media_type, bytes })
    }
}

fn read_reply(reader: &mut Reader<'_>) -> Result<QuickReply, FormatError> {
    let mut fields = reader.map()?;
    fields.key(reader, 1)?;
    let code = reader.text("reply code", REPLY_CODE_BYTES_MAX)?.to_owned();
    fields.key(reader, 2)?;
    let labels =
        read_by_language(reader, "labels", |reader| Ok(reader.text("label", TITLE_BYTES_MAX)?.to_owned()))?;
    fields.end()?;
    Ok(QuickReply { code, labels })
}

fn read_attachment(reader: &mut Reader<'_>) -> Result<Attachment, FormatError> {
    let mut fields = reader.map()?;
    fields.key(reader, 1)?;
    let id = reader.array("attachment id")?;
    fields.key(reader, 2)?;
    let size = reader.uint()?;
    fields.key(reader, 3)?;
    let digest = Digest(reader.array("attachment digest")?);
    fields.key(reader, 4)?;
    let key = reader.array("attachment key")?;
    fields.end()?;
    Ok(Attachment { id, size, digest, key })
}

fn read_head(reader: &mut Reader<'_>) -> Result<DirectoryHead, FormatError> {
    let mut fields = reader.map()?;
    fields.key(reader, 1)?;
    let epoch = reader.uint()?;
    fields.key(reader, 2)?;
    let root = Digest(reader.array("root")?);
    fields.end()?;
    Ok(DirectoryHead { epoch, root })
}
