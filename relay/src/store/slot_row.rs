//! The row of a slot: what it expects next, and who has come last. Beside the slots are counts of them.
//!
//! ```text
//! slot:  version | next sequence | SHA-256 of the next capability (32) | used (seconds) | maker (16)
//!                | transport id (16) | digest (32) | author
//! count: version | slots
//! ```
//! The last three name the submission that has claimed the place before: the winner of its race.

use sealpost_wire::author::AuthorName;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{Digest, TransportId};

use super::codec::{Decoder, Encoder};
use super::key::Maker;

/// A slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotRow {
    /// The sequence number that the next claim names.
    pub(super) sequence: u64,
    /// SHA-256 of the capability that it shows.
    pub(super) next: Digest,
    /// When it was claimed last.
    pub(super) used: UnixTime,
    /// Whose count it is in.
    pub(super) maker: Maker,
    /// The submission that claimed last.
    pub(super) winner: Winner,
}

/// A submission that has claimed a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Winner {
    pub(super) id: TransportId,
    pub(super) digest: Digest,
    pub(super) author: AuthorName,
}

impl SlotRow {
    pub(super) fn encode(&self) -> Vec<u8> {
        let author = self.winner.author.text();
        let mut row = Encoder::new(114 + author.len());
        row.u64(self.sequence).bytes(self.next.as_bytes()).u64(self.used.0).bytes(&self.maker);
        row.bytes(self.winner.id.as_bytes()).bytes(self.winner.digest.as_bytes()).text(&author).finish()
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let mut row = Decoder::new(value)?;
        let read = Self {
            sequence: row.u64()?,
            next: Digest(row.array()?),
            used: UnixTime(row.u64()?),
            maker: row.array()?,
            winner: Winner {
                id: TransportId(row.array()?),
                digest: Digest(row.array()?),
                author: row.text()?.parse().ok()?,
            },
        };
        row.end(read)
    }
}

/// How many slots there are, or one author has made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SlotCount(pub(super) u32);

impl SlotCount {
    pub(super) fn encode(self) -> Vec<u8> {
        Encoder::new(5).u32(self.0).finish()
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let mut row = Decoder::new(value)?;
        let read = Self(row.u32()?);
        row.end(read)
    }
}

#[cfg(test)]
mod tests {
    use sealpost_wire::id::DeviceId;

    use super::*;

    #[test]
    fn rows_are_read_as_they_were_written() {
        let winner = Winner {
            id: TransportId([3; 16]),
            digest: Digest([4; 32]),
            author: AuthorName::from(DeviceId([5; 16])),
        };
        let row =
            SlotRow { sequence: u64::MAX, next: Digest([1; 32]), used: UnixTime(7), maker: [2; 16], winner };
        let value = row.encode();
        assert_eq!(SlotRow::decode(&value), Some(row));
        assert_eq!(SlotRow::decode(&value[..value.len() - 1]), None);
        assert_eq!(SlotRow::decode(&[value.as_slice(), &[0]].concat()), None);
        assert_eq!(SlotCount::decode(&SlotCount(9).encode()), Some(SlotCount(9)));
        assert_eq!(SlotCount::decode(&value), None);
    }
}
