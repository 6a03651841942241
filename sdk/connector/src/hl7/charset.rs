//! Character sets: MSH-18, table 0211, and what stands in messages in practice.

use encoding_rs::{Encoding, REPLACEMENT, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

use super::{ENVELOPE_LINES_MAX, Hl7Error};

/// The character set of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charset {
    encoding: &'static Encoding,
    byte_order_mark: bool,
}

/// The character set for messages that declare none and are not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallback(&'static Encoding);

impl Default for Fallback {
    /// windows-1252, which holds all of ISO 8859-1.
    fn default() -> Self {
        Self(WINDOWS_1252)
    }
}

impl Fallback {
    /// The set with this name, as MSH-18 or the WHATWG would write it: `8859/2`, `windows-1250`, `Shift_JIS`.
    /// `None` for a name that is not known, and for UTF-16, which no one sends undeclared.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        encoding(name).filter(|encoding| encoding.is_ascii_compatible()).map(Self)
    }
}

impl Charset {
    /// The name of the set, as the WHATWG Encoding Standard has it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.encoding.name()
    }

    /// A text in this set; `None` if it has a character that the set does not.
    pub(super) fn encode(self, text: &str) -> Option<Vec<u8>> {
        let units = || self.byte_order_mark.then_some(0xFEFF).into_iter().chain(text.encode_utf16());
        if self.encoding == UTF_16LE {
            return Some(units().flat_map(u16::to_le_bytes).collect());
        }
        if self.encoding == UTF_16BE {
            return Some(units().flat_map(u16::to_be_bytes).collect());
        }
        let (bytes, _, replaced) = self.encoding.encode(text);
        let mark: &[u8] = if self.byte_order_mark { &[0xEF, 0xBB, 0xBF] } else { &[] };
        (!replaced).then(|| [mark, &bytes].concat())
    }

    /// The text of the bytes of an `\X..\` escape.
    pub(super) fn decode_part(self, bytes: &[u8]) -> Option<String> {
        let encoding = if self.encoding.is_ascii_compatible() { self.encoding } else { UTF_8 };
        encoding.decode_without_bom_handling_and_without_replacement(bytes).map(Into::into)
    }
}

/// A message as text, and how it was found out.
pub(super) struct Decoded<'b> {
    pub(super) text: String,
    pub(super) charset: Charset,
    /// The bytes of MSH-18 where they decided: the decoded header must show them again.
    pub(super) declared: Option<&'b [u8]>,
}

/// Decodes a message: a byte order mark decides, then MSH-18, then whether it is UTF-8. A declared set is
/// taken at its word: bytes outside it are an error, since a replaced character may stand in a unit or a
/// dose.
pub(super) fn decode(bytes: &[u8], fallback: Fallback) -> Result<Decoded<'_>, Hl7Error> {
    if let Some((encoding, mark)) = Encoding::for_bom(bytes) {
        let bytes = bytes.get(mark..).unwrap_or_default();
        return strictly(bytes, Charset { encoding, byte_order_mark: true }, None);
    }
    let unmarked = |encoding| Charset { encoding, byte_order_mark: false };
    match bytes {
        [b'M', 0, b'S', 0, ..] => return strictly(bytes, unmarked(UTF_16LE), None),
        [0, b'M', 0, b'S', ..] => return strictly(bytes, unmarked(UTF_16BE), None),
        _ => {}
    }
    let (declared, name) = declaration(bytes)?;
    match name {
        b"" | b"ASCII" => {
            let encoding = if std::str::from_utf8(bytes).is_ok() { UTF_8 } else { fallback.0 };
            strictly(bytes, unmarked(encoding), Some(declared))
        }
        name => {
            let name = std::str::from_utf8(name).map_err(|_| Hl7Error::UnsupportedCharset)?;
            let encoding = encoding(name).ok_or(Hl7Error::UnsupportedCharset)?;
            // One byte a character up to MSH-18: whoever wrote UTF-16 there has converted the message since.
            let encoding = if encoding == UTF_16LE || encoding == UTF_16BE { UTF_8 } else { encoding };
            strictly(bytes, unmarked(encoding), Some(declared))
        }
    }
}

fn strictly<'b>(bytes: &[u8], charset: Charset, declared: Option<&'b [u8]>) -> Result<Decoded<'b>, Hl7Error> {
    let text = charset
        .encoding
        .decode_without_bom_handling_and_without_replacement(bytes)
        .ok_or(Hl7Error::InvalidText { charset: charset.name() })?;
    Ok(Decoded { text: text.into_owned(), charset, declared })
}

/// MSH-18 in bytes, and its first repetition: the set of the message. Further ones are for switching within
/// it.
fn declaration(bytes: &[u8]) -> Result<(&[u8], &[u8]), Hl7Error> {
    let mut lines = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).filter(|line| !line.is_empty());
    let first = lines.next().ok_or(Hl7Error::Empty)?;
    let header = std::iter::once(first)
        .chain(lines)
        .take(ENVELOPE_LINES_MAX + 1)
        .find(|line| !line.starts_with(b"FHS") && !line.starts_with(b"BHS"))
        .filter(|line| line.starts_with(b"MSH"))
        .ok_or(Hl7Error::NotHl7)?;
    let separator = header.get(3).ok_or(Hl7Error::BadSeparators)?;
    let declared = header.split(|byte| byte == separator).nth(17).unwrap_or_default();
    // The second character of MSH-2 separates repetitions.
    let repetition = header.get(5);
    let first = declared.split(|byte| Some(byte) == repetition).next().unwrap_or_default();
    Ok((declared, first))
}

/// The encoding that a name of table 0211, or one of those seen beside it, stands for.
fn encoding(name: &str) -> Option<&'static Encoding> {
    let name = name.trim();
    if name.starts_with("UNICODE UTF-32") {
        return None;
    }
    let label = match name {
        "UNICODE" | "UNICODE UTF-8" => "utf-8",
        "UNICODE UTF-16" => "utf-16le",
        "ASCII" | "8859/1" => "windows-1252",
        "ISO IR14" => "shift_jis",
        "ISO IR87" | "ISO IR159" => "iso-2022-jp",
        "GB 18030-2000" => "gb18030",
        "KS X 1001" => "euc-kr",
        "CNS 11643-1992" | "BIG-5" => "big5",
        _ => "",
    };
    if !label.is_empty() {
        return Encoding::for_label(label.as_bytes());
    }
    let known = match name.strip_prefix("8859/") {
        Some(part) => Encoding::for_label(format!("iso-8859-{part}").as_bytes()),
        None => Encoding::for_label(name.as_bytes()),
    };
    known.filter(|encoding| *encoding != REPLACEMENT)
}
