//! The row of a delivery whose box waits. It goes with the box.
//!
//! ```text
//! version | state | priority | expires | changed ms | bytes of the box (4) | transport id (16) | count (1) | event ids
//!         | author
//! ```

use sealpost_wire::author::AuthorName;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::delivery::DeliveryState;
use sealpost_wire::id::TransportId;
use sealpost_wire::payload::Priority;

use super::codec::{Decoder, Encoder};
use super::message_row::{read_ids, write_ids};

/// A delivery whose box waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeliveryRow {
    pub(super) state: DeliveryState,
    pub(super) priority: Priority,
    pub(super) expires_at: UnixTime,
    pub(super) changed_ms: u64,
    pub(super) box_bytes: u32,
    pub(super) message: TransportId,
    /// The events that carry its receipts.
    pub(super) receipts: Vec<u64>,
    pub(super) author: AuthorName,
}

impl DeliveryRow {
    pub(super) fn encode(&self) -> Vec<u8> {
        let author = self.author.text();
        let mut row = Encoder::new(48 + self.receipts.len() * 8 + author.len());
        row.u8(self.state.code()).u8(self.priority.code()).u64(self.expires_at.0).u64(self.changed_ms);
        row.u32(self.box_bytes).bytes(self.message.as_bytes());
        write_ids(&mut row, &self.receipts);
        row.text(&author).finish()
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let mut row = Decoder::new(value)?;
        let read = Self {
            state: row.state()?,
            priority: row.priority()?,
            expires_at: UnixTime(row.u64()?),
            changed_ms: row.u64()?,
            box_bytes: row.u32()?,
            message: TransportId(row.array()?),
            receipts: read_ids(&mut row)?,
            author: row.text()?.parse().ok()?,
        };
        row.end(read)
    }
}
