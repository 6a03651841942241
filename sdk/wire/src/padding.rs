//! Padding hides the kind of result: lengths leave only a logarithm of information.
//!
//! ```text
//! padded = length (4 bytes, big endian) | message | zeros
//! ```
//! Its size is Padmé's (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication
//! with PURBs", PoPETs 2019, algorithm 1) of 4 + length, and at least 1024 bytes.

use crate::limits::{PADDED_BYTES_MIN, SIGNED_BYTES_MAX};

const LENGTH_BYTES: usize = 4;

/// Why a padded message is refused. A retry cannot help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PaddingError {
    /// The length in front does not fit the bytes that follow.
    #[error("the length prefix does not fit")]
    WrongLength,
    /// The size is not the one that the length has.
    #[error("the padded size is not the one for this length")]
    WrongSize,
    /// A padding byte is not zero.
    #[error("a padding byte is not zero")]
    NotZero,
}

impl PaddingError {
    /// The stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::WrongLength => "padding_length",
            Self::WrongSize => "padding_size",
            Self::NotZero => "padding_not_zero",
        }
    }
}

/// The size that `length` bytes are padded to, by Padmé alone.
#[must_use]
pub const fn padme(length: usize) -> usize {
    if length < 2 {
        return length;
    }
    let exponent = length.ilog2();
    let significant = exponent.ilog2() + 1;
    let mask = (1_usize << exponent.saturating_sub(significant)) - 1;
    (length + mask) & !mask
}

/// The size of the padded form of a message of `length` bytes.
#[must_use]
pub fn padded_size(length: usize) -> usize {
    padme(LENGTH_BYTES + length).max(PADDED_BYTES_MIN)
}

/// The padded form of `message`, or nothing when it is longer than a message may be.
#[must_use]
pub fn pad(message: &[u8]) -> Option<Vec<u8>> {
    if message.len() > SIGNED_BYTES_MAX {
        return None;
    }
    let length = u32::try_from(message.len()).ok()?;
    let mut padded = Vec::with_capacity(padded_size(message.len()));
    padded.extend_from_slice(&length.to_be_bytes());
    padded.extend_from_slice(message);
    padded.resize(padded_size(message.len()), 0);
    Some(padded)
}

/// The message inside `padded`.
pub fn unpad(padded: &[u8]) -> Result<&[u8], PaddingError> {
    let (length, rest) = padded.split_first_chunk::<LENGTH_BYTES>().ok_or(PaddingError::WrongLength)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| PaddingError::WrongLength)?;
    let (message, zeros) = rest.split_at_checked(length).ok_or(PaddingError::WrongLength)?;
    if padded.len() != padded_size(length) {
        return Err(PaddingError::WrongSize);
    }
    if zeros.iter().any(|byte| *byte != 0) {
        return Err(PaddingError::NotZero);
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_padmes() {
        // Worked from the paper's definition: E = floor(log2 L), S = floor(log2 E) + 1, the last E - S bits
        // are zero.
        for (length, size) in
            [(1024, 1024), (1025, 1088), (1088, 1088), (1089, 1152), (9000, 9216), (65537, 67584)]
        {
            assert_eq!(padme(length), size, "{length}");
        }
        assert_eq!(padded_size(0), 1024);
        assert_eq!(padded_size(1020), 1024);
        assert_eq!(padded_size(1021), 1088);
    }

    proptest::proptest! {
        #[test]
        fn padding_costs_little_and_comes_off(message in proptest::collection::vec(0_u8.., 0..20_000)) {
            let padded = pad(&message).unwrap();
            assert_eq!(unpad(&padded), Ok(&message[..]));
            // At most 12 % (the paper's bound), once past the least size.
            assert!(padded.len() == PADDED_BYTES_MIN || padded.len() * 100 <= (message.len() + 4) * 112);
        }
    }

    #[test]
    fn other_paddings_are_refused() {
        let padded = pad(b"hello").unwrap();
        let mut dirty = padded.clone();
        dirty[1000] = 1;
        assert_eq!(unpad(&dirty), Err(PaddingError::NotZero));
        assert_eq!(unpad(&padded[..1000]), Err(PaddingError::WrongSize));
        let mut longer = padded.clone();
        longer.resize(1088, 0);
        assert_eq!(unpad(&longer), Err(PaddingError::WrongSize));
        let mut lying = padded;
        lying[..4].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(unpad(&lying), Err(PaddingError::WrongLength));
        assert_eq!(unpad(&[0, 0, 0]), Err(PaddingError::WrongLength));
        assert_eq!(pad(&vec![0; SIGNED_BYTES_MAX + 1]), None);
    }
}
