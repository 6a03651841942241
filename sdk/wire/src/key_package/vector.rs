//! The presentation language of RFC 9420 section 2, as far as key packages have it: numbers, big endian, and
//! vectors behind their length.

use crate::error::FormatError;

/// Reads values from the front of some bytes.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes were read.
    pub(super) const fn position(&self) -> usize {
        self.at
    }

    /// The bytes that were read since `position`.
    pub(super) fn since(&self, position: usize) -> &'a [u8] {
        self.bytes.get(position..self.at).unwrap_or_default()
    }

    pub(super) fn u8(&mut self) -> Result<u8, FormatError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, FormatError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_be_bytes)
    }

    /// `opaque x<V>`.
    pub(super) fn vector(&mut self) -> Result<&'a [u8], FormatError> {
        let length = self.length()?;
        self.take(length)
    }

    /// `uint16 x<V>`.
    pub(super) fn numbers(&mut self) -> Result<Numbers<'a>, FormatError> {
        let (numbers, rest) = self.vector()?.as_chunks();
        if rest.is_empty() { Ok(Numbers(numbers)) } else { Err(FormatError::Truncated) }
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<(), FormatError> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(FormatError::TrailingBytes) }
    }

    /// The length in front of a vector (section 2.1.2): the two highest bits say in how many bytes, and no more of
    /// them than needed.
    fn length(&mut self) -> Result<usize, FormatError> {
        let [first] = self.array()?;
        let low = usize::from(first & 0x3f);
        let (length, least) = match first >> 6 {
            0 => return Ok(low),
            1 => {
                let [second] = self.array()?;
                (low << 8 | usize::from(second), 1 << 6)
            }
            2 => {
                let [second, third, fourth] = self.array()?;
                let length =
                    [second, third, fourth].iter().fold(low, |sum, byte| sum << 8 | usize::from(*byte));
                (length, 1 << 14)
            }
            _ => return Err(FormatError::WrongValue("length")),
        };
        if length < least { Err(FormatError::NotDeterministic) } else { Ok(length) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        self.take(N)?.try_into().map_err(|_| FormatError::Truncated)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], FormatError> {
        let end = self.at.checked_add(length).ok_or(FormatError::Truncated)?;
        let taken = self.bytes.get(self.at..end).ok_or(FormatError::Truncated)?;
        self.at = end;
        Ok(taken)
    }
}

/// A vector of numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers<'a>(&'a [[u8; 2]]);

impl Numbers<'_> {
    pub(super) fn contains(&self, number: u16) -> bool {
        self.0.contains(&number.to_be_bytes())
    }
}

/// Writes `opaque x<V>`. What is written here is far below the 2^30 bytes that a length can say.
pub(super) fn put_vector(bytes: &mut Vec<u8>, vector: &[u8]) {
    let length = vector.len() as u64;
    let four = (length | 1 << 31).to_be_bytes();
    let [.., third, fourth] = four;
    match length {
        0..=0x3f => bytes.push(fourth),
        0x40..=0x3fff => bytes.extend_from_slice(&[third | 0x40, fourth]),
        _ => bytes.extend(four.iter().skip(4)),
    }
    bytes.extend_from_slice(vector);
}

/// Writes `uint16 x<V>`.
pub(super) fn put_numbers(bytes: &mut Vec<u8>, numbers: &[u16]) {
    let numbers: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
    put_vector(bytes, &numbers);
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// The header alone, and what it says of the bytes behind it.
    fn length(header: &str) -> Result<usize, FormatError> {
        Reader::new(&HEXLOWER.decode(header.as_bytes()).unwrap()).length()
    }

    #[test]
    fn lengths_are_those_of_the_working_group() {
        let cases = include_str!("../../../../tests/vectors/mls/deserialization.json");
        let cases: Vec<Value> = serde_json::from_str(cases).unwrap();
        assert_eq!(cases.len(), 14);
        for case in cases {
            let header = case["vlbytes_header"].as_str().unwrap();
            assert_eq!(
                length(header).map(|length| length as u64),
                Ok(case["length"].as_u64().unwrap()),
                "{header}"
            );
        }
    }

    #[test]
    fn lengths_have_one_form() {
        for (name, header, expected) in [
            ("63 in two bytes", "403f", FormatError::NotDeterministic),
            ("0 in two bytes", "4000", FormatError::NotDeterministic),
            ("16383 in four bytes", "80003fff", FormatError::NotDeterministic),
            ("a prefix without meaning", "c000000000000000", FormatError::WrongValue("length")),
            ("nothing", "", FormatError::Truncated),
            ("half of two bytes", "40", FormatError::Truncated),
            ("three of four bytes", "bfffff", FormatError::Truncated),
        ] {
            assert_eq!(length(header), Err(expected), "{name}");
        }
    }

    #[test]
    fn a_vector_ends_with_its_bytes() {
        let read = |bytes: &[u8]| Reader::new(bytes).vector().map(<[u8]>::to_vec);
        assert_eq!(read(&[2, 7, 8, 9]), Ok(vec![7, 8]));
        assert_eq!(read(&[2, 7]), Err(FormatError::Truncated));
        assert_eq!(read(&[0xbf, 0xff, 0xff, 0xff, 0]), Err(FormatError::Truncated));
        assert_eq!(
            Reader::new(&[3, 0, 1, 0]).numbers().map(|_| ()),
            Err(FormatError::Truncated),
            "a half number"
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(lengths in prop::collection::vec(0_usize..20_000, 1..4)) {
            let mut bytes = Vec::new();
            lengths.iter().for_each(|length| put_vector(&mut bytes, &vec![7; *length]));
            let mut reader = Reader::new(&bytes);
            for length in lengths {
                prop_assert_eq!(reader.vector(), Ok(&vec![7; length][..]));
            }
            prop_assert_eq!(reader.end(), Ok(()));
        }
    }
}
