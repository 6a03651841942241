//! HL7 version 2 messages, from bytes and back (HL7 v2.9 chapter 2).
//!
//! ```text
//! message      = segment *(CR segment)          or LF, CRLF, doubled CR: what a source ends its lines with
//! segment      = name *("|" field)              name: PID, OBX ...; in MSH, field 1 is the "|" itself
//! field        = repetition *("~" repetition)
//! repetition   = component *("^" component)
//! component    = subcomponent *("&" subcomponent)
//! subcomponent = text with escapes              \F\ \S\ \T\ \R\ \E\ \P\ \.br\ \Xhh..\ ...
//! ```
//!
//! The five separators above are the usual ones; a message names its own in MSH-1 and MSH-2. The character
//! set is that of MSH-18, and the whole message is decoded before it is split: in some sets the second byte
//! of a character looks like a separator.
//!
//! A [`Message`] keeps its text, and fields are views into it that are split when they are asked for: a
//! message of a million separators costs no more memory than its bytes.

mod charset;
mod escape;
mod segment;
mod separators;
mod timestamp;

use std::fmt;

pub use charset::{Charset, Fallback};
pub use segment::{Component, Field, Repetition, Segment};
pub use separators::Separators;
pub use timestamp::{Timestamp, UtcOffset};

use charset::Decoded;
use segment::Syntax;

/// Bytes of a message.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Segments of a message.
pub const SEGMENTS_MAX: usize = 4096;
/// Fields of a segment. The longest segment of the standard has fewer than 100.
pub const FIELDS_MAX: usize = 512;
/// Lines of a file or batch header (FHS, BHS) that may stand before MSH.
const ENVELOPE_LINES_MAX: usize = 2;

/// What a reader is told about a source: limits, and the character set of messages that declare none.
#[derive(Clone, Copy, Debug)]
pub struct ReadOptions {
    /// Bytes that a message may have.
    pub message_bytes_max: usize,
    /// Segments that a message may have.
    pub segments_max: usize,
    /// Fields that a segment may have.
    pub fields_max: usize,
    /// The character set of a message that declares none (or ASCII) and is not UTF-8.
    pub fallback: Fallback,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            message_bytes_max: MESSAGE_BYTES_MAX,
            segments_max: SEGMENTS_MAX,
            fields_max: FIELDS_MAX,
            fallback: Fallback::default(),
        }
    }
}

/// Why bytes are not a message that this reader takes. The same bytes fail again: a retry cannot help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Hl7Error {
    /// There is nothing.
    #[error("the message is empty")]
    Empty,
    /// More bytes than the limit.
    #[error("the message has more than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// Does not begin with an MSH segment (a file or batch header aside).
    #[error("the message does not begin with MSH")]
    NotHl7,
    /// MSH-1 or MSH-2 is missing, too long, or names one character twice.
    #[error("MSH-1 and MSH-2 do not name separators")]
    BadSeparators,
    /// MSH-18 names a character set that this reader does not know.
    #[error("the character set in MSH-18 is not supported")]
    UnsupportedCharset,
    /// Bytes that the declared character set does not have.
    #[error("the text is not in the character set {charset}")]
    InvalidText {
        /// The character set that was declared.
        charset: &'static str,
    },
    /// MSH-18 reads differently before and after decoding, so the declaration cannot be trusted.
    #[error("MSH-18 does not hold in its own character set")]
    CharsetConflict,
    /// A line that begins with no segment name.
    #[error("line {line} does not begin with a segment name")]
    BadSegment {
        /// The line, from 1, empty ones left out.
        line: usize,
    },
    /// Segments end with CR, yet a single LF is followed by what looks like a segment: a break in a text and
    /// the end of a segment cannot be told apart.
    #[error("segment {line} holds a line feed before what looks like another segment")]
    MixedLineEnds {
        /// The line, from 1, empty ones left out.
        line: usize,
    },
    /// More segments than the limit.
    #[error("the message has more than {limit} segments")]
    TooManySegments {
        /// The limit.
        limit: usize,
    },
    /// A segment with more fields than the limit.
    #[error("segment {line} has more than {limit} fields")]
    TooManyFields {
        /// The line, from 1, empty ones left out.
        line: usize,
        /// The limit.
        limit: usize,
    },
    /// A second MSH: a batch, or two messages run together.
    #[error("there is more than one message")]
    MultipleMessages,
}

impl Hl7Error {
    /// A stable name for logs, metrics and acknowledgements.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Empty => "message_empty",
            Self::TooLarge { .. } => "message_too_large",
            Self::NotHl7 => "not_hl7",
            Self::BadSeparators => "bad_separators",
            Self::UnsupportedCharset => "unsupported_charset",
            Self::InvalidText { .. } => "invalid_text",
            Self::CharsetConflict => "charset_conflict",
            Self::BadSegment { .. } => "bad_segment",
            Self::MixedLineEnds { .. } => "mixed_line_ends",
            Self::TooManySegments { .. } => "too_many_segments",
            Self::TooManyFields { .. } => "too_many_fields",
            Self::MultipleMessages => "multiple_messages",
        }
    }
}

/// Why a message cannot be changed or written. The same change fails again: a retry cannot help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A text holds a separator, and the message names no escape character.
    #[error("the message has no escape character for a text that needs one")]
    NoEscape,
    /// A text holds a character that the message's character set does not have.
    #[error("the text cannot be written in the character set {charset}")]
    Unencodable {
        /// The message's character set.
        charset: &'static str,
    },
}

impl WriteError {
    /// A stable name for logs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoEscape => "no_escape",
            Self::Unencodable { .. } => "unencodable",
        }
    }
}

/// Where a text stands in a message. Everything counts from 1, as the standard does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location<'m> {
    /// The segment's name.
    pub segment: &'m str,
    /// Which segment of the message.
    pub segment_number: usize,
    /// Which field of the segment.
    pub field: usize,
    /// Which repetition of the field.
    pub repetition: usize,
    /// Which component of the repetition.
    pub component: usize,
    /// Which subcomponent of the component.
    pub subcomponent: usize,
}

/// A message that has been read: segments, each with a name, MSH first and once.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    separators: Separators,
    charset: Charset,
    /// Each is valid for its name; texts still hold their escapes, so that an unchanged message is written
    /// unchanged.
    segments: Vec<Box<str>>,
}

impl Message {
    /// Reads one message. An FHS or BHS header before it and a BTS or FTS trailer behind it are passed over.
    ///
    /// # Errors
    /// [`Hl7Error`], each with a stable code; no input makes this panic.
    pub fn parse(bytes: &[u8], options: &ReadOptions) -> Result<Self, Hl7Error> {
        if bytes.len() > options.message_bytes_max {
            return Err(Hl7Error::TooLarge { limit: options.message_bytes_max });
        }
        let Decoded { text, charset, declared } = charset::decode(bytes, options.fallback)?;
        let lines = lines(&text);
        let envelope = lines.iter().take(ENVELOPE_LINES_MAX).take_while(|line| is_envelope(line)).count();
        if lines.is_empty() {
            return Err(Hl7Error::Empty);
        }
        if let Some(broken) = lines.iter().take(envelope).position(|line| line.contains('\n')) {
            return Err(Hl7Error::MixedLineEnds { line: broken + 1 });
        }
        let header = lines.get(envelope).filter(|line| line.starts_with("MSH")).ok_or(Hl7Error::NotHl7)?;
        let separators = Separators::of_header(header)?;
        let mut segments: Vec<Box<str>> = Vec::new();
        for (index, &content) in lines.iter().enumerate().skip(envelope) {
            let line = index + 1;
            if hides_segment(content, separators.field()) {
                return Err(Hl7Error::MixedLineEnds { line });
            }
            match segment_name(content, separators.field()).ok_or(Hl7Error::BadSegment { line })? {
                "MSH" | "FHS" | "BHS" if !segments.is_empty() => return Err(Hl7Error::MultipleMessages),
                "BTS" | "FTS" => continue,
                _ => {}
            }
            if segments.len() >= options.segments_max {
                return Err(Hl7Error::TooManySegments { limit: options.segments_max });
            }
            if content.matches(separators.field()).count() > options.fields_max {
                return Err(Hl7Error::TooManyFields { line, limit: options.fields_max });
            }
            segments.push(content.into());
        }
        let message = Self { separators, charset, segments };
        if let Some(declared) = declared
            && message.header().field(18).raw().as_bytes() != declared
        {
            return Err(Hl7Error::CharsetConflict);
        }
        Ok(message)
    }

    /// The MSH segment.
    #[must_use]
    pub fn header(&self) -> Segment<'_> {
        Segment::new(self.segments.first().map_or("MSH", |text| text), self.syntax())
    }

    /// Every segment in its order, MSH first.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        self.segments.iter().map(|text| Segment::new(text, self.syntax()))
    }

    /// The message's separators.
    #[must_use]
    pub const fn separators(&self) -> Separators {
        self.separators
    }

    /// The character set that the message came in and is written in.
    #[must_use]
    pub const fn charset(&self) -> Charset {
        self.charset
    }

    /// Offers every text (each subcomponent that is not empty, MSH-1 and MSH-2 left out) to `change`,
    /// decoded, and puts what it returns in its place, escaped. The structure stays: a text cannot become a
    /// separator.
    ///
    /// # Errors
    /// [`WriteError::NoEscape`]; the message is then unchanged.
    pub fn map_texts(
        &mut self,
        mut change: impl FnMut(Location<'_>, &str) -> Option<String>,
    ) -> Result<(), WriteError> {
        let changed = self
            .segments()
            .enumerate()
            .map(|(index, segment)| rewritten(segment, index + 1, &mut change).map(String::into_boxed_str))
            .collect::<Result<Vec<_>, _>>()?;
        self.segments = changed;
        Ok(())
    }

    /// The message as bytes: its separators, its character set, each segment ended by CR.
    ///
    /// # Errors
    /// [`WriteError::Unencodable`] after a change that the character set cannot express.
    pub fn encode(&self) -> Result<Vec<u8>, WriteError> {
        let mut text = String::with_capacity(self.segments.iter().map(|segment| segment.len() + 1).sum());
        for segment in &self.segments {
            text.push_str(segment);
            text.push('\r');
        }
        self.charset.encode(&text).ok_or(WriteError::Unencodable { charset: self.charset.name() })
    }

    const fn syntax(&self) -> Syntax {
        Syntax { separators: self.separators, charset: self.charset }
    }
}

/// Names and counts, never content.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.segments().map(|segment| segment.name()).collect();
        f.debug_struct("Message")
            .field("charset", &self.charset)
            .field("segments", &names)
            .finish_non_exhaustive()
    }
}

/// Splits a text into its lines that are not empty. With a CR anywhere, segments end with CR, and an LF beside it
/// belongs to the line end.
fn lines(text: &str) -> Vec<&str> {
    let end = if text.contains('\r') { '\r' } else { '\n' };
    text.split(end).map(|line| line.trim_matches('\n')).filter(|line| !line.is_empty()).collect()
}

/// Whether a segment seems to follow a lone LF in a line. Such an LF is a break inside a text, and then nothing
/// follows it that looks like a segment: what does is refused rather than guessed at, since one reading would lose a
/// result and the other would let a note forge one.
fn hides_segment(line: &str, field_separator: char) -> bool {
    let mut breaks = line.split('\n').skip(1).filter_map(|part| part.split_once(field_separator));
    breaks.any(|(name, _)| segment_name(name, field_separator).is_some())
}

/// File and batch headers have the form of MSH, and may stand before it.
fn is_envelope(line: &str) -> bool {
    line.starts_with("FHS") || line.starts_with("BHS")
}

/// The name of a segment: a capital, then two capitals or digits, then the field separator or the end.
fn segment_name(line: &str, field_separator: char) -> Option<&str> {
    let (name, rest) = line.split_at_checked(3)?;
    let mut bytes = name.bytes();
    let named = bytes.next().is_some_and(|byte| byte.is_ascii_uppercase())
        && bytes.all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    (named && (rest.is_empty() || rest.starts_with(field_separator))).then_some(name)
}

/// The text of a segment after `change`.
fn rewritten(
    segment: Segment<'_>,
    segment_number: usize,
    change: &mut impl FnMut(Location<'_>, &str) -> Option<String>,
) -> Result<String, WriteError> {
    let mut text = segment.name().to_owned();
    for (index, field) in segment.fields().enumerate() {
        let number = index + 1;
        if segment.is_header() && number == 1 {
            continue;
        }
        text.push(segment.separators().field());
        if segment.is_header() && number == 2 {
            text.push_str(field.raw());
            continue;
        }
        for (repetition, part) in field.repetitions().enumerate() {
            join(&mut text, repetition, segment.separators().repetition());
            for (component, part) in part.components().enumerate() {
                join(&mut text, component, segment.separators().component());
                for (subcomponent, raw) in part.raw_subcomponents().enumerate() {
                    join(&mut text, subcomponent, segment.separators().subcomponent());
                    let location = Location {
                        segment: segment.name(),
                        segment_number,
                        field: number,
                        repetition: repetition + 1,
                        component: component + 1,
                        subcomponent: subcomponent + 1,
                    };
                    let new = if raw.is_empty() { None } else { change(location, &segment.decode(raw)) };
                    match new {
                        None => text.push_str(raw),
                        Some(new) => text.push_str(&escape::encode(&new, segment.separators())?),
                    }
                }
            }
        }
    }
    Ok(text)
}

/// Puts `separator` before every part but the first. A text that was split had one.
fn join(text: &mut String, index: usize, separator: Option<char>) {
    if index > 0 {
        text.extend(separator);
    }
}
