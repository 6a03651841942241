//! Keyspaces and keys. Every key starts with its *home*, two bytes: the number that the store gave to a tenant
//! and its lane (an embedded store has one lane for each tenant). `tenants` and `apps`, which tell numbers, and
//! what `sealpost-service` keeps here start with the tenant's name.
//!
//! ```text
//! messages    home | transport id | tag                  a submission: manifest and ends
//! deliveries  home | device number | cursor              a box that waits, and its state
//! boxes       home | device number | cursor              the sealed message itself
//! mailboxes   home | device                              device number, cursors, counts, the push job
//! devices     home | device                              keys, push token
//! jobs        home | app | priority | due | device number       push jobs, by when they are due
//! deadlines   home | time | event id                     when to expire or forget messages
//! events      home | 0                                   of senders' messages: the first and the last id
//!             home | 1 | last id in the row
//!             home | 2                                   the same of devices' messages
//!             home | 3 | last id in the row
//! slots       home | 0                                   how many there are
//!             home | 1 | slot                            what it expects next
//!             home | 2 | maker                           how many its author has made
//! tenants     tenant | 0                                 its number, and how many devices it has
//! apps        tenant | 0 | name                          the number of an app
//! ```
//! Numbers are big endian, so that keys are in their order; times have 6 bytes, ids and cursors 8. The tag, 2
//! bytes of the SHA-256 of the author's name, comes behind the transport id, because a device's receipt names
//! the one and not the other; a maker is 16 bytes of it. No key is longer than 20 bytes: so long ones live in
//! the nodes of a memtable, and a look-up neither allocates nor leaves the node to compare.

use sealpost_service::engine::Keyspace;
use sealpost_service::shared_rows::SharedKeyspaces;
use sealpost_service::store_key::tenant_key;
use sealpost_wire::author::AuthorName;
use sealpost_wire::id::{DeviceId, Digest, SlotId, TenantId, TransportId};
use sealpost_wire::payload::Priority;

use super::AppId;

/// Version of what a store holds. 2 knows devices as authors, and slots.
pub(super) const STORE_VERSION: u8 = 2;
/// The oldest version whose rows all mean the same in this one: such a store is raised when it is opened.
pub(super) const STORE_VERSION_OLDEST: u8 = 1;
/// Version of the form of a value: its first byte.
pub(super) const ROW_VERSION: u8 = 1;

pub(super) const MESSAGES: Keyspace = Keyspace::rows(0, "messages");
pub(super) const DELIVERIES: Keyspace = Keyspace::rows(1, "deliveries");
pub(super) const BOXES: Keyspace = Keyspace::bulk(2, "boxes");
pub(super) const MAILBOXES: Keyspace = Keyspace::rows(3, "mailboxes");
pub(super) const DEVICES: Keyspace = Keyspace::rows(4, "devices");
pub(super) const JOBS: Keyspace = Keyspace::rows(5, "jobs");
pub(super) const DEADLINES: Keyspace = Keyspace::rows(6, "deadlines");
pub(super) const EVENTS: Keyspace = Keyspace::rows(7, "events");
pub(super) const TENANTS: Keyspace = Keyspace::rows(8, "tenants");
pub(super) const APPS: Keyspace = Keyspace::rows(9, "apps");

/// The keyspaces that the parts of `sealpost-service` fill.
pub(super) const SHARED: SharedKeyspaces = SharedKeyspaces {
    assertions: Keyspace::rows(10, "assertions"),
    statuses: Keyspace::rows(11, "statuses"),
    audit: Keyspace::rows(12, "audit"),
};

pub(super) const SLOTS: Keyspace = Keyspace::rows(13, "slots");

/// All of them, by index.
pub(super) static KEYSPACES: [Keyspace; 14] = [
    MESSAGES,
    DELIVERIES,
    BOXES,
    MAILBOXES,
    DEVICES,
    JOBS,
    DEADLINES,
    EVENTS,
    TENANTS,
    APPS,
    SHARED.assertions,
    SHARED.statuses,
    SHARED.audit,
    SLOTS,
];

const SLOT_COUNT: [u8; 1] = [0];
const SLOT_ROWS: [u8; 1] = [1];
const SLOT_MAKERS: [u8; 1] = [2];

/// The number of a tenant and its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Home(pub(super) u16);

/// The key of a submission, without its home: how deadlines name it.
pub(super) type MessageName = [u8; 18];

/// The author of slots, as keys have it.
pub(super) type Maker = [u8; 16];

pub(super) fn message_name(id: TransportId, author: &AuthorName) -> MessageName {
    let [first, second, ..] = author_digest(author).0;
    joined([id.as_bytes(), &[first, second]])
}

pub(super) fn transport_id(name: &MessageName) -> TransportId {
    let [id @ .., _, _] = *name;
    TransportId(id)
}

pub(super) fn maker(author: &AuthorName) -> Maker {
    joined([&author_digest(author).0[..16]])
}

fn author_digest(author: &AuthorName) -> Digest {
    Digest::of(author.text().as_bytes())
}

pub(super) fn message(home: Home, name: MessageName) -> [u8; 20] {
    joined([&home.bytes(), &name])
}

/// What begins the keys of all submissions under a transport id: one for each author that used it.
pub(super) fn messages(home: Home, id: TransportId) -> [u8; 18] {
    joined([&home.bytes(), id.as_bytes()])
}

/// The keys of a device's mailbox and of its registration.
pub(super) fn device(home: Home, device: DeviceId) -> [u8; 18] {
    joined([&home.bytes(), device.as_bytes()])
}

/// The keys of a delivery and of its box.
pub(super) fn delivery(home: Home, device_number: u64, cursor: u64) -> [u8; 18] {
    joined([&home.bytes(), &device_number.to_be_bytes(), &cursor.to_be_bytes()])
}

/// The last number in a key: the cursor of a delivery, the last id of a row of events.
pub(super) fn last_number(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// What begins the keys of all jobs of an app and priority.
pub(super) fn jobs(home: Home, app: AppId, priority: Priority) -> [u8; 5] {
    joined([&home.bytes(), &app.0.to_be_bytes(), &[priority.code()]])
}

pub(super) fn job(home: Home, app: AppId, priority: Priority, due_ms: u64, device_number: u64) -> [u8; 19] {
    joined([&jobs(home, app, priority), &time(due_ms), &device_number.to_be_bytes()])
}

/// When a job is due (milliseconds).
pub(super) fn due(job_key: &[u8]) -> Option<u64> {
    time_at(job_key, 5)
}

/// Deadlines of one second (seconds); `event` is one of their messages, and tells the row from others.
pub(super) fn deadline(home: Home, at: u64, event: u64) -> [u8; 16] {
    joined([&home.bytes(), &time(at), &event.to_be_bytes()])
}

/// What begins the keys of all deadlines of one second.
pub(super) fn deadlines(home: Home, at: u64) -> [u8; 8] {
    joined([&home.bytes(), &time(at)])
}

/// What a deadline's key says: when (seconds), and the event.
pub(super) fn deadline_parts(key: &[u8]) -> Option<(u64, u64)> {
    time_at(key, 2).zip(last_number(key))
}

/// Whose messages events are about. Senders read what happened to theirs one after the other, without gaps,
/// so that what happened to devices' messages has ids and rows of its own: it is read with its message alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Series {
    Senders,
    Devices,
}

impl Series {
    pub(super) const ALL: [Self; 2] = [Self::Senders, Self::Devices];

    pub(super) const fn of(author: &AuthorName) -> Self {
        match author {
            AuthorName::Sender(_) => Self::Senders,
            AuthorName::Device(_) => Self::Devices,
        }
    }

    /// The highest bit of an id tells its series: so an id alone names an event.
    const fn of_event(id: u64) -> Self {
        if id < Self::Devices.first() { Self::Senders } else { Self::Devices }
    }

    /// The id of the first event there can be.
    pub(super) const fn first(self) -> u64 {
        match self {
            Self::Senders => 1,
            Self::Devices => 1 << 63,
        }
    }

    /// The highest id there can be.
    pub(super) const fn end(self) -> u64 {
        match self {
            Self::Senders => Self::Devices.first() - 1,
            Self::Devices => u64::MAX,
        }
    }

    const fn bounds_tag(self) -> [u8; 1] {
        match self {
            Self::Senders => [0],
            Self::Devices => [2],
        }
    }

    const fn rows_tag(self) -> [u8; 1] {
        match self {
            Self::Senders => [1],
            Self::Devices => [3],
        }
    }
}

pub(super) fn event_bounds(home: Home, series: Series) -> [u8; 3] {
    joined([&home.bytes(), &series.bounds_tag()])
}

/// What begins the keys of all rows of events of a series.
pub(super) fn event_rows(home: Home, series: Series) -> [u8; 3] {
    joined([&home.bytes(), &series.rows_tag()])
}

/// The row whose last event has this id.
pub(super) fn events(home: Home, last: u64) -> [u8; 11] {
    joined([&event_rows(home, Series::of_event(last)), &last.to_be_bytes()])
}

/// Where the rows of the series of this event end.
pub(super) fn events_end(home: Home, id: u64) -> [u8; 11] {
    events(home, Series::of_event(id).end())
}

pub(super) fn slot_count(home: Home) -> [u8; 3] {
    joined([&home.bytes(), &SLOT_COUNT])
}

pub(super) fn slot(home: Home, slot: SlotId) -> [u8; 19] {
    joined([&home.bytes(), &SLOT_ROWS, slot.as_bytes()])
}

/// What begins the keys of all slots.
#[cfg(test)]
pub(super) fn slots(home: Home) -> [u8; 3] {
    joined([&home.bytes(), &SLOT_ROWS])
}

/// The slot in a key.
pub(super) fn slot_id(key: &[u8]) -> Option<SlotId> {
    key.last_chunk().copied().map(SlotId)
}

pub(super) fn slot_maker(home: Home, maker: Maker) -> [u8; 19] {
    joined([&home.bytes(), &SLOT_MAKERS, &maker])
}

pub(super) fn tenant(tenant: &TenantId) -> Vec<u8> {
    tenant_key(tenant, &[])
}

pub(super) fn app(tenant: &TenantId, name: &str) -> Vec<u8> {
    tenant_key(tenant, &[name.as_bytes()])
}

impl Home {
    const fn bytes(self) -> [u8; 2] {
        self.0.to_be_bytes()
    }
}

/// Six bytes of a time: in milliseconds enough until the year 10889. What is later counts as that.
fn time(at: u64) -> [u8; 6] {
    const TIME_MAX: u64 = (1 << 48) - 1;
    let [_, _, bytes @ ..] = at.min(TIME_MAX).to_be_bytes();
    bytes
}

fn time_at(key: &[u8], position: usize) -> Option<u64> {
    let bytes = key.get(position..)?.first_chunk::<6>()?;
    Some(bytes.iter().fold(0, |time, byte| (time << 8) | u64::from(*byte)))
}

/// The parts one after the other; together they are as long as the array.
fn joined<const N: usize, const PARTS: usize>(parts: [&[u8]; PARTS]) -> [u8; N] {
    let mut key = [0; N];
    let bytes = parts.into_iter().flatten();
    key.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_say_what_went_in_sort_by_time_and_fit_into_20_bytes() {
        let (home, id) = (Home(1), TransportId([7; 16]));
        let author = |text: &str| text.parse::<AuthorName>().unwrap();
        let (lab, radiology) = (author("lab"), author("radiology"));
        let message_key = message(home, message_name(id, &lab));
        assert!(message_key.starts_with(&messages(home, id)));
        assert_ne!(message_key, message(home, message_name(id, &radiology)));
        assert_eq!(last_number(&delivery(home, 3, 12)), Some(12));
        let job_key = |due| job(home, AppId(3), Priority::Bulk, due, 9);
        assert_eq!(due(&job_key(1_800_000_000_000)), Some(1_800_000_000_000));
        assert!(
            job_key(255) < job_key(256) && job_key(256).starts_with(&jobs(home, AppId(3), Priority::Bulk))
        );
        assert_eq!(due(&job_key(u64::MAX)), Some((1 << 48) - 1));
        assert_eq!(deadline_parts(&deadline(home, 99, 5)), Some((99, 5)));
        assert!(deadline(home, 99, u64::MAX) < deadline(home, 100, 0));
        assert!(deadline(home, u64::MAX, 0) < deadline(Home(2), 0, 0));
        assert_eq!(last_number(&events(home, 8)), Some(8));
        let slot_key = slot(home, SlotId([9; 16]));
        assert!(slot_key.starts_with(&slots(home)));
        assert_eq!(slot_id(&slot_key), Some(SlotId([9; 16])));
        let maker_key = slot_maker(home, maker(&lab));
        let lengths = [
            message_key.len(),
            job_key(1).len(),
            delivery(home, 1, 1).len(),
            slot_key.len(),
            maker_key.len(),
        ];
        assert!(lengths.iter().all(|length| *length <= 20));
    }

    #[test]
    fn a_device_and_a_client_named_like_it_have_keys_of_their_own() {
        let (home, id, device) = (Home(1), TransportId([7; 16]), DeviceId([0xab; 16]));
        let client: AuthorName = device.to_string().parse().unwrap();
        let device = AuthorName::from(device);
        assert_ne!(message(home, message_name(id, &device)), message(home, message_name(id, &client)));
        assert_ne!(maker(&device), maker(&client));
    }

    #[test]
    fn events_of_senders_and_of_devices_do_not_meet() {
        let home = Home(1);
        for series in Series::ALL {
            for id in [series.first(), series.end()] {
                assert_eq!(Series::of_event(id), series);
                assert!(events(home, id).starts_with(&event_rows(home, series)));
                assert!(events(home, id) <= events_end(home, series.first()));
            }
        }
        assert!(events_end(home, 1)[..] < event_bounds(home, Series::Devices)[..]);
        assert!(event_bounds(home, Series::Devices)[..] < events(home, Series::Devices.first())[..]);
    }
}
