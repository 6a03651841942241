//! What members write to each other: the plaintext of MLS application messages.
//!
//! ```text
//! content = { 1: message id, 2: created, 3: kind, 4: text or code, ? 5: about, ? 6: [+ [code, label]] }
//! kind    = 0 text / 1 quick reply (4: its code, 5: the message that offered it) / 2 confirmation (5: of what)
//! ```

use std::convert::Infallible;
use std::fmt;

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};
use rand_core::CryptoRng;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::error::FormatError;
use zeroize::Zeroizing;

use crate::limits::{
    CONTENT_BYTES_MAX, QUICK_REPLIES_MAX, REPLY_CODE_BYTES_MAX, REPLY_LABEL_BYTES_MAX, TEXT_BYTES_MAX,
};

/// A message of a group, chosen by its author.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub [u8; 16]);

impl MessageId {
    /// A new random identifier.
    pub fn random<R: CryptoRng + ?Sized>(rng: &mut R) -> Self {
        let mut bytes = [0; 16];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

/// What kind of message one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContentKind {
    /// A text.
    Text,
    /// One of the answers that another message offered, by its code.
    QuickReply,
    /// A person's word that another message was seen and understood.
    Confirmation,
}

impl ContentKind {
    const ALL: [Self; 3] = [Self::Text, Self::QuickReply, Self::Confirmation];

    const fn code(self) -> u8 {
        match self {
            Self::Text => 0,
            Self::QuickReply => 1,
            Self::Confirmation => 2,
        }
    }
}

/// An answer that a message offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupReply {
    /// What is sent back: 1 to 64 bytes.
    pub code: String,
    /// What a person sees: 1 to 128 bytes.
    pub label: String,
}

/// A message of a group. Its text is not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct GroupContent {
    /// The message's own id.
    pub id: MessageId,
    /// When its author wrote it.
    pub created: UnixTime,
    /// What it is.
    pub kind: ContentKind,
    /// The text, or the code of a quick reply; at most 16 KiB. Empty for a confirmation that says no more.
    pub text: String,
    /// The message that it is about: needed for a quick reply and a confirmation.
    pub about: Option<MessageId>,
    /// The answers that a text offers; at most 8, each code once.
    pub quick_replies: Vec<GroupReply>,
}

impl GroupContent {
    /// The content's bytes, wiped when dropped.
    ///
    /// # Errors
    /// A value or size that the format does not allow.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, FormatError> {
        self.check()?;
        let bytes = self.encoded();
        if bytes.len() > CONTENT_BYTES_MAX {
            Err(FormatError::TooLarge(CONTENT_BYTES_MAX))
        } else {
            Ok(bytes)
        }
    }

    /// Reads a content: deterministic CBOR, nothing behind it.
    ///
    /// # Errors
    /// The form, or a value or size that the format does not allow.
    pub fn read(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() > CONTENT_BYTES_MAX {
            return Err(FormatError::TooLarge(CONTENT_BYTES_MAX));
        }
        let content = Self::decode(&mut Decoder::new(bytes)).map_err(|_| FormatError::WrongType)?;
        content.check()?;
        // What was read has one encoding: another one, or bytes behind it, is refused.
        if content.encoded().as_slice() == bytes { Ok(content) } else { Err(FormatError::NotDeterministic) }
    }

    fn check(&self) -> Result<(), FormatError> {
        let bad = |field| Err(FormatError::WrongValue(field));
        match self.kind {
            ContentKind::Text if self.text.is_empty() || self.text.len() > TEXT_BYTES_MAX => {
                return bad("text");
            }
            ContentKind::QuickReply if self.text.is_empty() || self.text.len() > REPLY_CODE_BYTES_MAX => {
                return bad("code");
            }
            ContentKind::Confirmation if self.text.len() > TEXT_BYTES_MAX => return bad("text"),
            ContentKind::QuickReply | ContentKind::Confirmation if self.about.is_none() => {
                return bad("about");
            }
            ContentKind::QuickReply | ContentKind::Confirmation if !self.quick_replies.is_empty() => {
                return bad("quick replies");
            }
            _ => {}
        }
        if self.quick_replies.len() > QUICK_REPLIES_MAX {
            return bad("quick replies");
        }
        for (at, reply) in self.quick_replies.iter().enumerate() {
            let fits = |text: &str, max| !text.is_empty() && text.len() <= max;
            let again = self.quick_replies.iter().take(at).any(|before| before.code == reply.code);
            if !fits(&reply.code, REPLY_CODE_BYTES_MAX) || !fits(&reply.label, REPLY_LABEL_BYTES_MAX) || again
            {
                return bad("quick replies");
            }
        }
        Ok(())
    }

    fn encoded(&self) -> Zeroizing<Vec<u8>> {
        // All of it at once: a vector that grows would leave copies behind that nobody overwrites.
        let mut writer = Encoder::new(Vec::with_capacity(self.encoded_bytes_max()));
        let written = self.write(&mut writer);
        debug_assert!(written.is_ok(), "writing into memory cannot fail");
        Zeroizing::new(writer.into_writer())
    }

    /// What the encoding has room in: heads take at most 9 bytes.
    fn encoded_bytes_max(&self) -> usize {
        const HEAD: usize = 9;
        let replies = self.quick_replies.iter().map(|reply| 3 * HEAD + reply.code.len() + reply.label.len());
        // The map; six keys and values, two of them ids.
        13 * HEAD + 2 * size_of::<MessageId>() + self.text.len() + replies.sum::<usize>()
    }

    fn write(&self, writer: &mut Encoder<Vec<u8>>) -> Result<(), minicbor::encode::Error<Infallible>> {
        let optional = u64::from(self.about.is_some()) + u64::from(!self.quick_replies.is_empty());
        writer.map(4 + optional)?.u8(1)?.bytes(&self.id.0)?.u8(2)?.u64(self.created.0)?;
        writer.u8(3)?.u8(self.kind.code())?.u8(4)?.str(&self.text)?;
        if let Some(about) = &self.about {
            writer.u8(5)?.bytes(&about.0)?;
        }
        if !self.quick_replies.is_empty() {
            writer.u8(6)?.array(self.quick_replies.len() as u64)?;
            for reply in &self.quick_replies {
                writer.array(2)?.str(&reply.code)?.str(&reply.label)?;
            }
        }
        Ok(())
    }

    fn decode(reader: &mut Decoder<'_>) -> Result<Self, minicbor::decode::Error> {
        let wrong = |what| minicbor::decode::Error::message(what);
        let mut left = reader.map()?.ok_or_else(|| wrong("a map of indefinite length"))?;
        let mut key = |reader: &mut Decoder<'_>, expected: u8| {
            let next = left > 0 && reader.datatype()? == Type::U8 && reader.probe().u8()? == expected;
            if next {
                left -= 1;
                reader.u8()?;
            }
            Ok::<bool, minicbor::decode::Error>(next)
        };
        let missing = |found: bool| if found { Ok(()) } else { Err(wrong("a field is missing")) };
        missing(key(reader, 1)?)?;
        let id = message_id(reader)?;
        missing(key(reader, 2)?)?;
        let created = UnixTime(reader.u64()?);
        missing(key(reader, 3)?)?;
        let code = reader.u8()?;
        let kind = ContentKind::ALL.into_iter().find(|kind| kind.code() == code);
        let kind = kind.ok_or_else(|| wrong("an unknown kind"))?;
        missing(key(reader, 4)?)?;
        let text = reader.str()?.to_owned();
        let about = if key(reader, 5)? { Some(message_id(reader)?) } else { None };
        let mut quick_replies = Vec::new();
        if key(reader, 6)? {
            let count = reader.array()?.filter(|count| *count <= QUICK_REPLIES_MAX as u64);
            for _ in 0..count.ok_or_else(|| wrong("too many quick replies"))? {
                reader.array()?;
                let code = reader.str()?.to_owned();
                quick_replies.push(GroupReply { code, label: reader.str()?.to_owned() });
            }
        }
        Ok(Self { id, created, kind, text, about, quick_replies })
    }
}

impl fmt::Debug for GroupContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupContent")
            .field("id", &self.id)
            .field("created", &self.created)
            .field("kind", &self.kind)
            .field("about", &self.about)
            .finish_non_exhaustive()
    }
}

fn message_id(reader: &mut Decoder<'_>) -> Result<MessageId, minicbor::decode::Error> {
    let id = reader.bytes()?.try_into();
    id.map(MessageId).map_err(|_| minicbor::decode::Error::message("an id has 16 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> GroupContent {
        GroupContent {
            id: MessageId([1; 16]),
            created: UnixTime(1_700_000_000),
            kind: ContentKind::Text,
            text: "Is the dose right?".into(),
            about: None,
            quick_replies: vec![
                GroupReply { code: "yes".into(), label: "Yes".into() },
                GroupReply { code: "no".into(), label: "No".into() },
            ],
        }
    }

    #[test]
    fn contents_come_back_and_have_one_encoding() {
        let about = Some(MessageId([1; 16]));
        let reply = GroupContent {
            kind: ContentKind::QuickReply,
            text: "yes".into(),
            about,
            quick_replies: vec![],
            ..text()
        };
        let confirmation =
            GroupContent { kind: ContentKind::Confirmation, text: String::new(), ..reply.clone() };
        for content in [text(), reply, confirmation] {
            let bytes = content.to_bytes().unwrap();
            assert_eq!(GroupContent::read(&bytes), Ok(content));
            for at in 0..bytes.len() {
                assert!(GroupContent::read(&bytes[..at]).is_err(), "cut at {at}");
            }
            assert!(GroupContent::read(&[&bytes[..], &[0]].concat()).is_err());
        }
    }

    #[test]
    fn what_has_no_sense_is_neither_written_nor_read() {
        let bad = [
            GroupContent { text: String::new(), ..text() },
            GroupContent { text: "x".repeat(TEXT_BYTES_MAX + 1), ..text() },
            GroupContent { kind: ContentKind::QuickReply, text: "yes".into(), ..text() },
            GroupContent { kind: ContentKind::Confirmation, quick_replies: vec![], ..text() },
            GroupContent {
                quick_replies: vec![GroupReply { code: "a".into(), label: "A".into() }; 2],
                ..text()
            },
            GroupContent {
                quick_replies: vec![GroupReply { code: "a".into(), label: String::new() }],
                ..text()
            },
        ];
        for content in bad {
            assert!(content.to_bytes().is_err(), "{content:?}");
            assert!(GroupContent::read(&content.encoded()).is_err(), "{content:?}");
        }
    }

    #[test]
    fn the_example_of_the_format_page_is_read() {
        let page = include_str!("../FORMAT.md");
        let hex: String = page
            .lines()
            .skip_while(|line| !line.starts_with("a5 01"))
            .take_while(|line| !line.starts_with("```"))
            .collect::<String>()
            .split_whitespace()
            .collect();
        let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
        let yes = vec![GroupReply { code: "yes".into(), label: "Yes".into() }];
        let expected = GroupContent { quick_replies: yes, ..text() };
        assert_eq!(GroupContent::read(&bytes), Ok(expected));
    }

    #[test]
    fn a_text_does_not_show_itself() {
        assert!(!format!("{:?}", text()).contains("dose"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_answered(bytes: Vec<u8>) {
            if let Ok(content) = GroupContent::read(&bytes) {
                let written = content.to_bytes().unwrap();
                proptest::prop_assert_eq!(written.as_slice(), bytes.as_slice());
            }
        }
    }
}
