//! Deterministic CBOR (RFC 8949 section 4.2.1), read strictly.
//!
//! `minicbor` decodes the items; what it leaves open is checked first, in one pass over the bytes: shortest
//! heads, definite lengths, map keys in order and once, bounded depth and count, UTF-8, nothing behind the
//! end. After that pass every structure has exactly one encoding, so that a digest of bytes is a digest of
//! the structure.

use std::convert::Infallible;

use minicbor::data::Type;

use crate::error::FormatError;
use crate::limits::{CBOR_DEPTH_MAX, CBOR_ITEMS_MAX};

/// Checks that `bytes` are exactly one item in deterministic encoding.
pub(crate) fn check(bytes: &[u8]) -> Result<(), FormatError> {
    let mut walk = Walk { bytes, at: 0, items: 0 };
    walk.item(0)?;
    if walk.at == bytes.len() { Ok(()) } else { Err(FormatError::TrailingBytes) }
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    items: usize,
}

impl<'a> Walk<'a> {
    fn item(&mut self, depth: usize) -> Result<(), FormatError> {
        if depth > CBOR_DEPTH_MAX {
            return Err(FormatError::TooDeep);
        }
        self.items += 1;
        if self.items > CBOR_ITEMS_MAX {
            return Err(FormatError::TooManyItems);
        }
        let (major, value) = self.head()?;
        match major {
            0 | 1 => Ok(()),
            2 => self.take(value).map(|_| ()),
            3 => std::str::from_utf8(self.take(value)?).map(|_| ()).map_err(|_| FormatError::WrongType),
            4 => (0..value).try_for_each(|_| self.item(depth + 1)),
            5 => {
                let mut before: &[u8] = &[];
                for _ in 0..value {
                    let start = self.at;
                    self.item(depth + 1)?;
                    let key = self.bytes.get(start..self.at).ok_or(FormatError::Truncated)?;
                    if key <= before {
                        return Err(FormatError::NotDeterministic);
                    }
                    before = key;
                    self.item(depth + 1)?;
                }
                Ok(())
            }
            6 => self.item(depth + 1),
            // Booleans, null, floats: no structure here has one.
            _ => Err(FormatError::WrongType),
        }
    }

    /// The major type and argument of the next item.
    fn head(&mut self) -> Result<(u8, u64), FormatError> {
        let first = self.take(1)?.first().copied().ok_or(FormatError::Truncated)?;
        let (major, info) = (first >> 5, first & 0x1f);
        let (length, least) = match info {
            0..=23 => return Ok((major, u64::from(info))),
            24 => (1, 24),
            25 => (2, 1 << 8),
            26 => (4, 1 << 16),
            27 => (8, 1 << 32),
            31 => return Err(FormatError::NotDeterministic),
            _ => return Err(FormatError::WrongType),
        };
        let value = self.take(length)?.iter().fold(0_u64, |value, byte| (value << 8) | u64::from(*byte));
        if value < least { Err(FormatError::NotDeterministic) } else { Ok((major, value)) }
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], FormatError> {
        let end = usize::try_from(length).ok().and_then(|length| self.at.checked_add(length));
        let end = end.ok_or(FormatError::Truncated)?;
        let taken = self.bytes.get(self.at..end).ok_or(FormatError::Truncated)?;
        self.at = end;
        Ok(taken)
    }
}

/// Reads items in the order in which a structure has them.
pub(crate) struct Reader<'a>(minicbor::Decoder<'a>);

impl<'a> Reader<'a> {
    /// A reader of `bytes`, at most `max` of them, in deterministic encoding.
    pub(crate) fn new(bytes: &'a [u8], max: usize) -> Result<Self, FormatError> {
        if bytes.len() > max {
            return Err(FormatError::TooLarge(max));
        }
        check(bytes)?;
        Ok(Self(minicbor::Decoder::new(bytes)))
    }

    pub(crate) fn uint(&mut self) -> Result<u64, FormatError> {
        self.0.u64().map_err(|_| FormatError::WrongType)
    }

    pub(crate) fn int(&mut self) -> Result<i64, FormatError> {
        self.0.i64().map_err(|_| FormatError::WrongType)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], FormatError> {
        self.0.bytes().map_err(|_| FormatError::WrongType)
    }

    /// A byte string of exactly `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], FormatError> {
        self.bytes()?.try_into().map_err(|_| FormatError::WrongValue(field))
    }

    pub(crate) fn text(&mut self, field: &'static str, max: usize) -> Result<&'a str, FormatError> {
        let text = self.0.str().map_err(|_| FormatError::WrongType)?;
        if text.is_empty() || text.len() > max { Err(FormatError::WrongValue(field)) } else { Ok(text) }
    }

    /// A name or other text with a form of its own.
    pub(crate) fn parsed<T: std::str::FromStr>(&mut self, field: &'static str) -> Result<T, FormatError> {
        let text = self.0.str().map_err(|_| FormatError::WrongType)?;
        text.parse().map_err(|_| FormatError::WrongValue(field))
    }

    pub(crate) fn tag(&mut self, expected: u64) -> Result<(), FormatError> {
        match self.0.tag() {
            Ok(tag) if tag.as_u64() == expected => Ok(()),
            _ => Err(FormatError::WrongType),
        }
    }

    /// The head of a list of at most `max` items.
    pub(crate) fn list(&mut self, field: &'static str, max: usize) -> Result<usize, FormatError> {
        let length = self.0.array().ok().flatten().ok_or(FormatError::WrongType)?;
        usize::try_from(length).ok().filter(|n| *n <= max).ok_or(FormatError::WrongValue(field))
    }

    /// The head of an array of exactly `length` items.
    pub(crate) fn tuple(&mut self, length: u64) -> Result<(), FormatError> {
        match self.0.array() {
            Ok(Some(n)) if n == length => Ok(()),
            Ok(Some(_)) => Err(FormatError::WrongField),
            _ => Err(FormatError::WrongType),
        }
    }

    /// The head of a map whose keys are integers.
    pub(crate) fn map(&mut self) -> Result<Fields, FormatError> {
        let left = self.0.map().ok().flatten().ok_or(FormatError::WrongType)?;
        Ok(Fields { left })
    }

    /// The head of a map whose keys are texts: how many pairs follow.
    pub(crate) fn text_map(&mut self, field: &'static str, max: usize) -> Result<usize, FormatError> {
        let length = self.0.map().ok().flatten().ok_or(FormatError::WrongType)?;
        usize::try_from(length).ok().filter(|n| *n <= max).ok_or(FormatError::WrongValue(field))
    }

    fn next_key(&self) -> Option<i64> {
        let mut probe = self.0.clone();
        match probe.datatype() {
            Ok(
                Type::U8 | Type::U16 | Type::U32 | Type::U64 | Type::I8 | Type::I16 | Type::I32 | Type::I64,
            ) => probe.i64().ok(),
            _ => None,
        }
    }
}

/// The pairs of a map that are still to be read, in the order of their keys.
pub(crate) struct Fields {
    left: u64,
}

impl Fields {
    /// Steps over `key`, which must come next: its value is the reader's next item.
    pub(crate) fn key(&mut self, reader: &mut Reader<'_>, key: i64) -> Result<(), FormatError> {
        if self.optional(reader, key)? { Ok(()) } else { Err(FormatError::WrongField) }
    }

    /// Steps over `key` if it comes next.
    pub(crate) fn optional(&mut self, reader: &mut Reader<'_>, key: i64) -> Result<bool, FormatError> {
        if self.left == 0 || reader.next_key() != Some(key) {
            return Ok(false);
        }
        self.left -= 1;
        reader.int().map(|_| true)
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), FormatError> {
        if self.left == 0 { Ok(()) } else { Err(FormatError::WrongField) }
    }
}

/// Writes items into a growing buffer, each in its shortest form. The caller writes map keys in order.
pub(crate) struct Writer(minicbor::Encoder<Vec<u8>>);

impl Writer {
    pub(crate) fn new() -> Self {
        Self(minicbor::Encoder::new(Vec::new()))
    }

    /// A writer that does not move what it wrote while that has at most `bytes`: a secret that is wiped at
    /// the end leaves no copy behind.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(minicbor::Encoder::new(Vec::with_capacity(bytes)))
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.into_writer()
    }

    pub(crate) fn uint(&mut self, value: u64) -> &mut Self {
        let written = self.0.u64(value).map(|_| ());
        self.wrote(&written)
    }

    pub(crate) fn int(&mut self, value: i64) -> &mut Self {
        let written = self.0.i64(value).map(|_| ());
        self.wrote(&written)
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        let written = self.0.bytes(value).map(|_| ());
        self.wrote(&written)
    }

    pub(crate) fn text(&mut self, value: &str) -> &mut Self {
        let written = self.0.str(value).map(|_| ());
        self.wrote(&written)
    }

    pub(crate) fn tag(&mut self, value: u64) -> &mut Self {
        let written = self.0.tag(minicbor::data::Tag::new(value)).map(|_| ());
        self.wrote(&written)
    }

    pub(crate) fn array(&mut self, length: usize) -> &mut Self {
        let written = self.0.array(length as u64).map(|_| ());
        self.wrote(&written)
    }

    pub(crate) fn map(&mut self, length: usize) -> &mut Self {
        let written = self.0.map(length as u64).map(|_| ());
        self.wrote(&written)
    }

    /// Writing into a `Vec` cannot fail; the encoder says so in its error type.
    fn wrote(&mut self, written: &Result<(), minicbor::encode::Error<Infallible>>) -> &mut Self {
        debug_assert!(written.is_ok(), "the encoder refused a plain item");
        self
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER_PERMISSIVE as HEX;

    use super::*;

    #[test]
    fn only_deterministic_encodings_pass() {
        #[rustfmt::skip]
        let table: &[(&str, &str, Result<(), FormatError>)] = &[
            ("integer 0",                    "00",           Ok(())),
            ("integer 24",                   "1818",         Ok(())),
            ("integer 23 in two bytes",      "1817",         Err(FormatError::NotDeterministic)),
            ("255 in three bytes",           "1900ff",       Err(FormatError::NotDeterministic)),
            ("65535 in five bytes",          "1a0000ffff",   Err(FormatError::NotDeterministic)),
            ("small in nine bytes",          "1b00000000ffffffff", Err(FormatError::NotDeterministic)),
            ("map {1: 0, 2: 0}",             "a201000200",   Ok(())),
            ("map keys out of order",        "a202000100",   Err(FormatError::NotDeterministic)),
            ("map key twice",                "a201000100",   Err(FormatError::NotDeterministic)),
            ("positive keys before negative", "a201002000",  Ok(())),
            ("indefinite array",             "9f00ff",       Err(FormatError::NotDeterministic)),
            ("indefinite byte string",       "5f4100ff",     Err(FormatError::NotDeterministic)),
            ("float",                        "f93c00",       Err(FormatError::WrongType)),
            ("null",                         "f6",           Err(FormatError::WrongType)),
            ("reserved length",              "1c",           Err(FormatError::WrongType)),
            ("text that is not UTF-8",       "61ff",         Err(FormatError::WrongType)),
            ("nothing",                      "",             Err(FormatError::Truncated)),
            ("string longer than its bytes", "4200",         Err(FormatError::Truncated)),
            ("string of 2^64-1 bytes",       "5bffffffffffffffff", Err(FormatError::Truncated)),
            ("two items",                    "0000",         Err(FormatError::TrailingBytes)),
            ("seven arrays deep",            "8181818181818100", Err(FormatError::TooDeep)),
            ("a list of 2^32-1 items",       "9affffffff",   Err(FormatError::Truncated)),
        ];
        for (name, hex, expected) in table {
            let bytes = HEX.decode(hex.as_bytes()).unwrap();
            assert_eq!(check(&bytes), *expected, "{name}");
        }
    }

    #[test]
    fn a_bomb_of_items_is_bounded() {
        let mut bomb = vec![0x99, 0xff, 0xff];
        bomb.extend(std::iter::repeat_n(0x00, 0xffff));
        assert_eq!(check(&bomb), Err(FormatError::TooManyItems));
        assert_eq!(check(&vec![0x81; 100_000]), Err(FormatError::TooDeep));
        assert_eq!(check(&vec![0xc1; 100_000]), Err(FormatError::TooDeep));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_answered(bytes: Vec<u8>) {
            let _answer = check(&bytes);
        }
    }
}
