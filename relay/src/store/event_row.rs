//! Events: every change of a delivery, numbered without gaps in each series of a tenant. A row holds the
//! events of several commands that became durable together.
//!
//! ```text
//! bounds: version | first id that is kept | last id
//! row:    version | first id in it | events
//! event = time ms | message (16) | device (16) | from (255: none) | to | late | author | reason | receipt (2 + n)
//! ```
//! The key has the last id in the row, so that the first row at or behind an id is the one that holds it.

use sealpost_wire::api::relay::Event;
use sealpost_wire::author::AuthorName;
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::delivery::DeliveryState;
use sealpost_wire::id::{DeviceId, TransportId};

use super::codec::{Decoder, Encoder};
use super::key::Series;

/// One change of one delivery, before it has a number.
#[derive(Clone, Debug)]
pub(super) struct NewEvent<'a> {
    pub(super) message: TransportId,
    pub(super) author: &'a AuthorName,
    pub(super) device: DeviceId,
    pub(super) from: Option<DeliveryState>,
    pub(super) to: DeliveryState,
    pub(super) late: bool,
    pub(super) reason: &'a str,
    pub(super) receipt: &'a [u8],
}

/// An event as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredEvent {
    pub(super) id: u64,
    pub(super) time_ms: u64,
    pub(super) message: TransportId,
    pub(super) author: AuthorName,
    pub(super) device: DeviceId,
    pub(super) from: Option<DeliveryState>,
    pub(super) to: DeliveryState,
    pub(super) late: bool,
    pub(super) reason: Option<String>,
    pub(super) receipt: Option<Base64Url>,
}

impl StoredEvent {
    /// As senders read it; nothing when it is not about a sender's message.
    pub(super) fn of_sender(self) -> Option<Event> {
        let AuthorName::Sender(sender) = self.author else { return None };
        Some(Event {
            id: self.id,
            time_ms: self.time_ms,
            message: self.message,
            sender,
            device: self.device,
            from: self.from,
            to: self.to,
            late: self.late,
            reason: self.reason,
            receipt: self.receipt,
        })
    }
}

/// Which events of a series a tenant has: ids `first..=last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EventBounds {
    pub(super) first: u64,
    pub(super) last: u64,
}

impl EventBounds {
    pub(super) const fn none(series: Series) -> Self {
        Self { first: series.first(), last: series.first() - 1 }
    }

    pub(super) fn encode(self) -> Vec<u8> {
        Encoder::new(17).u64(self.first).u64(self.last).finish()
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let mut row = Decoder::new(value)?;
        let read = Self { first: row.u64()?, last: row.u64()? };
        row.end(read)
    }
}

/// The events of one command, as they are collected.
pub(super) struct EventBatch {
    /// A row that begins with them.
    row: Encoder,
    time_ms: u64,
    next: u64,
}

/// Bytes of version and first id.
const HEAD_BYTES: usize = 9;

impl EventBatch {
    /// Events from the id `first` on, of a command at `time_ms`.
    pub(super) fn new(first: u64, time_ms: u64) -> Self {
        let mut row = Encoder::new(128);
        row.u64(first);
        Self { row, time_ms, next: first }
    }

    /// Adds an event, and gives its id.
    pub(super) fn push(&mut self, event: &NewEvent<'_>) -> u64 {
        self.row.u64(self.time_ms).bytes(event.message.as_bytes()).bytes(event.device.as_bytes());
        self.row.u8(event.from.map_or(NO_STATE, DeliveryState::code)).u8(event.to.code());
        self.row.u8(u8::from(event.late)).text(&event.author.text()).text(event.reason).blob(event.receipt);
        let id = self.next;
        self.next += 1;
        id
    }

    /// The id of the last event.
    pub(super) const fn last(&self) -> u64 {
        self.next - 1
    }

    /// The row: these events behind those of `open`, if it goes on with that one.
    pub(super) fn finish(mut self, open: Option<&[u8]>) -> Vec<u8> {
        let row = self.row.finish();
        match open {
            None => row,
            Some(open) => [open, row.get(HEAD_BYTES..).unwrap_or_default()].concat(),
        }
    }
}

/// The events in a row.
pub(super) fn decode(value: &[u8]) -> Option<Vec<StoredEvent>> {
    let mut row = Decoder::new(value)?;
    let first = row.u64()?;
    let mut events = Vec::new();
    for id in first.. {
        if row.is_empty() {
            break;
        }
        let time_ms = row.u64()?;
        let (message, device) = (TransportId(row.array()?), DeviceId(row.array()?));
        let from = match row.u8()? {
            NO_STATE => None,
            code => Some(DeliveryState::from_code(code)?),
        };
        let (to, late) = (row.state()?, row.u8()? != 0);
        let author = row.text()?.parse().ok()?;
        let reason = Some(row.text()?).filter(|reason| !reason.is_empty()).map(str::to_owned);
        let receipt = Some(row.blob()?).filter(|bytes| !bytes.is_empty());
        let receipt = receipt.map(|bytes| Base64Url(bytes.to_vec()));
        events.push(StoredEvent { id, time_ms, message, author, device, from, to, late, reason, receipt });
    }
    Some(events)
}

/// When the first event of a row happened (milliseconds).
pub(super) fn time_ms(value: &[u8]) -> Option<u64> {
    let mut row = Decoder::new(value)?;
    row.u64()?;
    row.u64()
}

const NO_STATE: u8 = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_numbered_and_read_as_they_were_written() {
        let (lab, phone) = ("lab".parse().unwrap(), AuthorName::from(DeviceId([3; 16])));
        let event = NewEvent {
            message: TransportId([1; 16]),
            author: &lab,
            device: DeviceId([2; 16]),
            from: None,
            to: DeliveryState::Queued,
            late: false,
            reason: "",
            receipt: &[],
        };
        let mut batch = EventBatch::new(7, 99);
        assert_eq!(batch.push(&event), 7);
        let opened = NewEvent {
            from: Some(DeliveryState::Queued),
            to: DeliveryState::Opened,
            late: true,
            author: &phone,
            reason: "why",
            receipt: &[1, 2, 3],
            ..event
        };
        assert_eq!(batch.push(&opened), 8);
        assert_eq!(batch.last(), 8);
        let value = batch.finish(None);
        let mut later = EventBatch::new(9, 120);
        later.push(&event);
        let more = decode(&later.finish(Some(&value))).unwrap();
        assert_eq!(
            more.iter().map(|event| (event.id, event.time_ms)).collect::<Vec<_>>(),
            [(7, 99), (8, 99), (9, 120)]
        );
        let events = decode(&value).unwrap();
        assert_eq!(events.iter().map(|event| event.id).collect::<Vec<_>>(), [7, 8]);
        assert_eq!(events[0].from, None);
        assert_eq!((&events[0].author, &events[1].author), (&lab, &phone));
        assert_eq!(events[0].clone().of_sender().unwrap().sender.as_str(), "lab");
        assert_eq!(events[1].clone().of_sender(), None);
        assert_eq!(events[1].receipt, Some(Base64Url(vec![1, 2, 3])));
        assert_eq!((events[1].time_ms, events[1].late), (99, true));
        assert_eq!(time_ms(&value), Some(99));
        assert_eq!(decode(&value[..value.len() - 1]), None);
    }
}
