//! Notifications: what a person is told.
//!
//! ```text
//! notification = { 1: transport id, 2: device, 3: notification id, 4: revision, 5: created, 6: priority, 7: category,
//!   8: sensitivity, 9: { + language => text }, ? 10: [+ part], ? 11: [+ reply], ? 12: [+ attachment], ? 13: head }
//! text = { 1: title, 2: body }          part = { 1: media type, 2: bytes }
//! reply = { 1: code, 2: { + language => label } }
//! attachment = { 1: id, 2: size, 3: SHA-256, 4: key }      head = { 1: epoch, 2: root }
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cbor::{Reader, Writer};
use crate::clock::UnixTime;
use crate::error::FormatError;
use crate::id::{DeviceId, Digest, NotificationId, TransportId};
use crate::limits::{
    ATTACHMENTS_MAX, BODY_BYTES_MAX, CATEGORY_BYTES_MAX, LANGUAGE_BYTES_MAX, LANGUAGES_MAX,
    MEDIA_TYPE_BYTES_MAX, PART_BYTES_MAX, PARTS_MAX, REPLIES_MAX, REPLY_CODE_BYTES_MAX, SIGNED_BYTES_MAX,
    TITLE_BYTES_MAX,
};

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
    /// Whether the notification can be written: what a reader would refuse is told before anything is signed.
    ///
    /// # Errors
    /// A value or size that the format does not allow.
    pub fn check(&self) -> Result<(), FormatError> {
        check_text("category", &self.category, CATEGORY_BYTES_MAX)?;
        check_by_language("texts", &self.texts, |text| {
            check_text("title", &text.title, TITLE_BYTES_MAX)?;
            check_text("body", &text.body, BODY_BYTES_MAX)
        })?;
        check_most("parts", self.parts.len(), PARTS_MAX)?;
        for part in &self.parts {
            check_text("media type", &part.media_type, MEDIA_TYPE_BYTES_MAX)?;
            check_most("parts", part.bytes.len(), PART_BYTES_MAX)?;
        }
        check_most("replies", self.replies.len(), REPLIES_MAX)?;
        for reply in &self.replies {
            check_text("reply code", &reply.code, REPLY_CODE_BYTES_MAX)?;
            check_by_language("labels", &reply.labels, |label| check_text("label", label, TITLE_BYTES_MAX))?;
        }
        check_most("attachments", self.attachments.len(), ATTACHMENTS_MAX)
    }

    pub(super) fn write(&self, transport_id: TransportId, device: DeviceId) -> Vec<u8> {
        let optional = [!self.parts.is_empty(), !self.replies.is_empty(), !self.attachments.is_empty()];
        let optional = optional.iter().filter(|there| **there).count() + usize::from(self.head.is_some());
        let mut writer = Writer::with_capacity(self.written_bytes_max());
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

    /// At least the bytes that [`Self::write`] gives: the texts, and room for all else.
    fn written_bytes_max(&self) -> usize {
        const FIXED: usize = 256;
        const HEADS: usize = 32;
        const FILE: usize = 128;
        let by_language = |language: &str, text: &str| language.len() + text.len() + HEADS;
        let texts =
            self.texts.iter().map(|(language, text)| by_language(language, &text.title) + text.body.len());
        let parts = self.parts.iter().map(|part| by_language(&part.media_type, "") + part.bytes.len());
        let replies = self.replies.iter().map(|reply| {
            let labels = reply.labels.iter().map(|(language, label)| by_language(language, label));
            by_language(&reply.code, "") + labels.sum::<usize>()
        });
        FIXED
            + self.category.len()
            + texts.chain(parts).chain(replies).sum::<usize>()
            + self.attachments.len() * FILE
    }

    /// The notification in `payload`, with the transport id and the device that it names.
    pub(super) fn read(payload: &[u8]) -> Result<(TransportId, DeviceId, Self), FormatError> {
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

/// Map entries in the order of their encoded keys: shorter texts first, then bytewise (RFC 8949 section
/// 4.2.1: the length is in the head).
fn in_encoded_order<T>(map: &BTreeMap<String, T>) -> Vec<(&String, &T)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| key.len());
    entries
}

fn check_text(field: &'static str, text: &str, max: usize) -> Result<(), FormatError> {
    if text.is_empty() { Err(FormatError::WrongValue(field)) } else { check_most(field, text.len(), max) }
}

fn check_most(field: &'static str, count: usize, max: usize) -> Result<(), FormatError> {
    if count > max { Err(FormatError::WrongValue(field)) } else { Ok(()) }
}

fn check_by_language<T>(
    field: &'static str,
    map: &BTreeMap<String, T>,
    check: impl Fn(&T) -> Result<(), FormatError>,
) -> Result<(), FormatError> {
    if map.is_empty() {
        return Err(FormatError::WrongValue(field));
    }
    check_most(field, map.len(), LANGUAGES_MAX)?;
    map.iter().try_for_each(|(language, value)| {
        check_text(field, language, LANGUAGE_BYTES_MAX)?;
        if is_language(language) { check(value) } else { Err(FormatError::WrongValue("language")) }
    })
}

/// Letters, digits and hyphens: what a tag of RFC 5646 is made of.
fn is_language(tag: &str) -> bool {
    tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn read_by_language<T>(
    reader: &mut Reader<'_>,
    field: &'static str,
    read: impl Fn(&mut Reader<'_>) -> Result<T, FormatError>,
) -> Result<BTreeMap<String, T>, FormatError> {
    let mut map = BTreeMap::new();
    for _ in 0..reader.text_map(field, LANGUAGES_MAX)? {
        let language = reader.text(field, LANGUAGE_BYTES_MAX)?;
        if !is_language(language) {
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

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    /// Texts around the length `max`, the empty one among them.
    fn text(max: usize) -> impl Strategy<Value = String> {
        prop_oneof![100 => Just(1), 1 => Just(0), 40 => Just(max), 1 => Just(max + 1)]
            .prop_map(|length| "x".repeat(length))
    }

    fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
        btree_map(language(), text(TITLE_BYTES_MAX), 1..4)
    }

    /// A few, or around the count `max`.
    fn count(max: usize) -> impl Strategy<Value = usize> {
        prop_oneof![20 => 0..4_usize, 1 => Just(max), 1 => Just(max + 1)]
    }

    fn language() -> impl Strategy<Value = String> {
        prop_oneof![
            100 => "[a-z]{2}(-[A-Z]{2})?",
            1 => "[a-z]{35,36}",
            1 => Just("d e".to_owned()),
            1 => Just(String::new()),
        ]
    }

    prop_compose! {
        fn notification()(
            category in text(CATEGORY_BYTES_MAX),
            texts in count(LANGUAGES_MAX)
                .prop_flat_map(|n| btree_map(language(), (text(TITLE_BYTES_MAX), text(200)), n)),
            parts in count(PARTS_MAX)
                .prop_flat_map(|n| vec((text(MEDIA_TYPE_BYTES_MAX), vec(0_u8.., 0..40)), n)),
            replies in count(REPLIES_MAX)
                .prop_flat_map(|n| vec((text(REPLY_CODE_BYTES_MAX), labels()), n)),
            attachments in count(ATTACHMENTS_MAX),
            head in any::<Option<u64>>(),
        ) -> Notification {
            let file = Attachment { id: [1; 16], size: u64::MAX, digest: Digest([2; 32]), key: [3; 32] };
            Notification {
                id: NotificationId([4; 16]),
                revision: u64::MAX,
                created: UnixTime(u64::MAX),
                priority: Priority::Bulk,
                category,
                sensitivity: Sensitivity::Restricted,
                texts: texts.into_iter().map(|(tag, (title, body))| (tag, Text { title, body })).collect(),
                parts: parts.into_iter().map(|(media_type, bytes)| Part { media_type, bytes }).collect(),
                replies: replies.into_iter().map(|(code, labels)| QuickReply { code, labels }).collect(),
                attachments: vec![file; attachments],
                head: head.map(|epoch| DirectoryHead { epoch, root: Digest([5; 32]) }),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn what_is_checked_is_what_the_reader_refuses(notification in notification()) {
            let bytes = notification.write(TransportId([6; 16]), DeviceId([7; 16]));
            prop_assert!(bytes.len() <= notification.written_bytes_max(), "a copy was left behind");
            let read = Notification::read(&bytes);
            prop_assert_eq!(notification.check().is_ok(), read.is_ok(), "{:?}", read);
            if let Ok((_, _, read)) = read {
                prop_assert_eq!(read, notification);
            }
        }
    }
}
