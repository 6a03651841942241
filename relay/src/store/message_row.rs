//! The row of a submission: its manifest, which decides that it was accepted, and how its deliveries ended.
//!
//! ```text
//! version | digest (32) | author | accepted ms | expires | priority | count (1) | deliveries
//! delivery = device (16) | state | late | changed ms | device number | cursor | SHA-256(sealed) (32) | reason
//!          | count (1) | event ids
//! ```
//! While a box waits, its state is in its own row ([`super::delivery_row`]) and stays `queued` here.

use sealpost_wire::api::relay::{DeliveryStatus, MessageStatus};
use sealpost_wire::author::AuthorName;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::delivery::DeliveryState;
use sealpost_wire::id::{DeviceId, Digest, TransportId};
use sealpost_wire::payload::Priority;

use super::codec::{Decoder, Encoder};

/// Receipts of one delivery that are kept: fetched, opened, a person's act, and one late one of each kind.
pub(super) const RECEIPTS_MAX: usize = 8;

/// A submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MessageRow {
    pub(super) digest: Digest,
    /// The key has a tag of the name only.
    pub(super) author: AuthorName,
    pub(super) accepted_ms: u64,
    pub(super) expires_at: UnixTime,
    pub(super) priority: Priority,
    /// Sorted by device.
    pub(super) deliveries: Vec<DeliveryEnd>,
}

/// One delivery of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeliveryEnd {
    pub(super) device: DeviceId,
    pub(super) state: DeliveryState,
    /// Kinds of receipts that came late, a bit for each.
    pub(super) late: u8,
    pub(super) changed_ms: u64,
    /// The number of the device's mailbox, and its place in it; 0 when it never came into one.
    pub(super) device_number: u64,
    pub(super) cursor: u64,
    pub(super) sealed: Digest,
    /// Empty when there is none.
    pub(super) reason: String,
    /// The events that carry its receipts.
    pub(super) receipts: Vec<u64>,
}

impl DeliveryEnd {
    /// Whether its state is in a row of its own.
    pub(super) const fn waits(&self) -> bool {
        self.cursor > 0 && self.state.keeps_box()
    }

    pub(super) fn status(&self) -> DeliveryStatus {
        DeliveryStatus {
            device: self.device,
            state: self.state,
            changed_at_ms: self.changed_ms,
            reason: Some(self.reason.clone()).filter(|reason| !reason.is_empty()),
            receipts: Vec::new(),
        }
    }
}

impl MessageRow {
    /// The answer to its submission, the same each time.
    pub(super) fn accepted(&self, id: TransportId) -> MessageStatus {
        let accepted = |delivery: &DeliveryEnd| {
            let status = delivery.status();
            if delivery.cursor == 0 {
                return status;
            }
            let state = DeliveryState::Queued;
            DeliveryStatus { state, changed_at_ms: self.accepted_ms, reason: None, ..status }
        };
        self.status(id, self.deliveries.iter().map(accepted).collect())
    }

    pub(super) const fn status(&self, id: TransportId, deliveries: Vec<DeliveryStatus>) -> MessageStatus {
        MessageStatus {
            id,
            accepted_at: UnixTime(self.accepted_ms / 1000),
            expires_at: self.expires_at,
            priority: self.priority,
            deliveries,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut row = Encoder::new(96 + self.deliveries.len() * 96);
        row.bytes(self.digest.as_bytes()).text(&self.author.text());
        row.u64(self.accepted_ms).u64(self.expires_at.0);
        row.u8(self.priority.code()).u8(count(self.deliveries.len()));
        for delivery in &self.deliveries {
            row.bytes(delivery.device.as_bytes()).u8(delivery.state.code()).u8(delivery.late);
            row.u64(delivery.changed_ms).u64(delivery.device_number).u64(delivery.cursor);
            row.bytes(delivery.sealed.as_bytes());
            row.text(&delivery.reason);
            write_ids(&mut row, &delivery.receipts);
        }
        row.finish()
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let mut row = Decoder::new(value)?;
        let (digest, author) = (Digest(row.array()?), row.text()?.parse().ok()?);
        let (accepted_ms, expires_at, priority) = (row.u64()?, UnixTime(row.u64()?), row.priority()?);
        let count = row.u8()?;
        let mut deliveries = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            deliveries.push(DeliveryEnd {
                device: DeviceId(row.array()?),
                state: row.state()?,
                late: row.u8()?,
                changed_ms: row.u64()?,
                device_number: row.u64()?,
                cursor: row.u64()?,
                sealed: Digest(row.array()?),
                reason: row.text()?.to_owned(),
                receipts: read_ids(&mut row)?,
            });
        }
        row.end(Self { digest, author, accepted_ms, expires_at, priority, deliveries })
    }
}

pub(super) fn write_ids(row: &mut Encoder, ids: &[u64]) {
    row.u8(count(ids.len()));
    ids.iter().for_each(|id| {
        row.u64(*id);
    });
}

pub(super) fn read_ids(row: &mut Decoder<'_>) -> Option<Vec<u64>> {
    let count = row.u8()?;
    (0..count).map(|_| row.u64()).collect()
}

/// A number of deliveries or receipts: both are bounded far below 255.
fn count(length: usize) -> u8 {
    u8::try_from(length).unwrap_or(u8::MAX)
}
