//! Audit rows: what was done, by whom, to which objects. Each is written in the store transaction of its act.
//!
//! ```text
//! tenant | 0 | 0              -> version | last sequence (8 bytes, big endian)
//! tenant | 0 | 1 | sequence   -> version | a line of JSON { time_ms, act, who, objects, outcome } for each
//! ```
//! Sequences are dense in each tenant, from 1. What became durable together shares rows; the key has the
//! sequence of the last line. Rows hold ids only: never contents, tokens, or names of
//! people.

use std::fmt::Display;

use sealpost_wire::id::{DeviceId, SubjectId, TenantId};
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, EngineError, Keyspace, View};
use crate::store_key::{content, tenant_key, versioned};

/// Version of the rows' values.
const VERSION: u8 = 1;
const LAST: &[u8] = &[0];
const ROWS: &[u8] = &[1];

/// A row that commands of one commit share is gone on with up to this size.
const OPEN_ROW_BYTES_MAX: usize = 4096;

/// Everything that is audited, of both servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// A client got an access token.
    TokenIssued,
    /// A client put a tenant status.
    StatusPut,
    /// An enroller made a ticket.
    TicketMade,
    /// A device claimed a ticket.
    TicketClaimed,
    /// An enroller closed a ticket.
    TicketClosed,
    /// An enroller or revoker put a device set.
    DeviceSetPut,
    /// A device uploaded prekeys.
    PrekeysPut,
    /// A sender looked a recipient up.
    LookedUp,
    /// A device uploaded key packages.
    KeyPackagesPut,
    /// A device looked a recipient up for a group, and took key packages.
    KeyPackagesTaken,
    /// A device asked where its peers can be reached.
    PeersLookedUp,
    /// An enroller recorded a consent.
    ConsentPut,
    /// A sender or a device submitted a message.
    MessageAccepted,
    /// A device made or renewed its mailbox at the relay.
    DeviceRegistered,
    /// Stubs were given to a push provider: `done` when it accepted them, else why not.
    Pushed,
    /// A device fetched waiting boxes.
    Synced,
    /// A device's receipt was stored.
    ReceiptStored,
    /// A delivery came to its end without the device.
    DeliveryEnded,
    /// A device was put out of use.
    DeviceRevoked,
}

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A client with a `request` key.
    Client(SubjectId),
    /// A device.
    Device(DeviceId),
    /// The server by itself: expiry, retries.
    Server,
}

impl Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Client(subject) => write!(f, "client:{subject}"),
            Self::Device(device) => write!(f, "device:{device}"),
            Self::Server => f.write_str("server"),
        }
    }
}

/// What an act was upon: the kind of object, and its id.
pub type Object<'a> = (&'a str, &'a (dyn Display + Sync));

/// What is to be written, as its line of JSON: made outside the writer thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry(Vec<u8>);

impl Entry {
    /// The line of an act at `time_ms` (milliseconds since the epoch) upon `objects`: what kind of object, and
    /// its id. The outcome is `done`, or the code of the refusal.
    #[must_use]
    pub fn new(time_ms: u64, act: Act, who: &Actor, objects: &[Object<'_>], outcome: &str) -> Self {
        let row = NewRow { time_ms, act, who: Shown(who), objects: Objects(objects), outcome };
        let mut line = Vec::with_capacity(256);
        // Writing plain texts and numbers into memory cannot fail.
        let _ = serde_json::to_writer(&mut line, &row);
        line.push(b'\n');
        Self(line)
    }
}

/// Adds `entry` to the tenant's audit, in the transaction of `view`, and gives its sequence.
pub fn append(view: &mut View, keyspace: Keyspace, tenant: &TenantId, entry: &Entry) -> u64 {
    let last = tenant_key(tenant, &[LAST]);
    let sequence = view.get(keyspace, &last).map_or(0, |value| number(&value)).saturating_add(1);
    view.put(keyspace, last, versioned(VERSION, &sequence.to_be_bytes()));
    let open = view.take_open(keyspace, &tenant_key(tenant, &[ROWS]), OPEN_ROW_BYTES_MAX);
    let row = match open {
        Some((_, row)) => [&row, entry.0.as_slice()].concat(),
        None => versioned(VERSION, &entry.0),
    };
    view.put(keyspace, tenant_key(tenant, &[ROWS, &sequence.to_be_bytes()]), row);
    sequence
}

/// A row as it is read back.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct AuditRow {
    /// When (milliseconds since the epoch).
    pub time_ms: u64,
    /// What was done.
    pub act: Act,
    /// By whom: `client:` and a subject, `device:` and an id, or `server`.
    pub who: String,
    /// Upon which objects: kind and id.
    pub objects: std::collections::BTreeMap<String, String>,
    /// `done`, or the code of the refusal.
    pub outcome: String,
}

/// The tenant's rows with sequences above `after`, at most `limit` of them, in order.
///
/// # Errors
/// [`EngineError::Read`]. Rows that this program cannot read are left out.
pub fn rows(
    engine: &Engine,
    keyspace: Keyspace,
    tenant: &TenantId,
    after: u64,
    limit: usize,
) -> Result<Vec<(u64, AuditRow)>, EngineError> {
    let start = tenant_key(tenant, &[ROWS, &after.saturating_add(1).to_be_bytes()]);
    let end = tenant_key(tenant, &[ROWS, &u64::MAX.to_be_bytes()]);
    let mut found = Vec::new();
    for row in engine.snapshot().range(keyspace, start.as_slice()..=end.as_slice()) {
        let (key, value) = row?;
        let Some(last) = key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes)) else { continue };
        let lines = content(&value, VERSION).unwrap_or_default().split_inclusive(|byte| *byte == b'\n');
        let first = (last + 1).saturating_sub(lines.clone().map(|_| 1).sum());
        for (sequence, line) in (first..).zip(lines).filter(|(sequence, _)| *sequence > after) {
            if found.len() >= limit {
                return Ok(found);
            }
            found.extend(serde_json::from_slice(line).ok().map(|row| (sequence, row)));
        }
    }
    Ok(found)
}

/// When the tenant's newest act was (milliseconds since the epoch); 0 when there is none. A clock that starts
/// no earlier keeps replay windows closed over a restart.
///
/// # Errors
/// [`EngineError::Read`].
pub fn last_time_millis(engine: &Engine, keyspace: Keyspace, tenant: &TenantId) -> Result<u64, EngineError> {
    let last = engine.get(keyspace, tenant_key(tenant, &[LAST]))?.map_or(0, |value| number(&value));
    let row = rows(engine, keyspace, tenant, last.saturating_sub(1), 1)?;
    Ok(row.first().map_or(0, |(_, row)| row.time_ms))
}

fn number(value: &[u8]) -> u64 {
    // A value of another version cannot be there: a store of another version is refused when it is opened.
    content(value, VERSION).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
}

#[derive(Serialize)]
struct NewRow<'a> {
    time_ms: u64,
    act: Act,
    who: Shown<'a>,
    objects: Objects<'a>,
    outcome: &'a str,
}

struct Shown<'a>(&'a dyn Display);

impl Serialize for Shown<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self.0)
    }
}

struct Objects<'a>(&'a [Object<'a>]);

impl Serialize for Objects<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(kind, id)| (kind, Shown(*id))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Options;
    use crate::telemetry::Metrics;

    const AUDIT: Keyspace = Keyspace::rows(0, "audit");
    static KEYSPACES: [Keyspace; 1] = [AUDIT];

    #[tokio::test]
    async fn sequences_are_dense_in_each_tenant_and_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two): (TenantId, TenantId) = ("one".parse().unwrap(), "one.two".parse().unwrap());
        for round in 0..2_u64 {
            let engine = Engine::open(Options::new(folder.path(), &KEYSPACES, 1), &Metrics::new()).unwrap();
            for number in 1..=3 {
                let time_ms = round * 1000 + number;
                let entry = |outcome| {
                    Entry::new(time_ms, Act::LookedUp, &Actor::Server, &[("number", &number)], outcome)
                };
                let (first, second, taken_back) = (entry("done"), entry("done"), entry("done"));
                let (to_one, to_two, refused) = (one.clone(), two.clone(), one.clone());
                let kept = engine.write("append", move |view| {
                    append(view, AUDIT, &to_two, &first);
                    Ok::<_, ()>(append(view, AUDIT, &to_one, &second))
                });
                let lost = engine.write("append", move |view| {
                    append(view, AUDIT, &refused, &taken_back);
                    Err::<(), ()>(())
                });
                assert_eq!(kept.await.unwrap(), Ok(round * 3 + number));
                assert_eq!(lost.await.unwrap(), Err(()));
            }
            assert_eq!(last_time_millis(&engine, AUDIT, &one).unwrap(), round * 1000 + 3);
            engine.shutdown();
        }
        let engine = Engine::open(Options::new(folder.path(), &KEYSPACES, 1), &Metrics::new()).unwrap();
        for tenant in [&one, &two] {
            let found = rows(&engine, AUDIT, tenant, 0, 100).unwrap();
            assert!(found.iter().map(|(sequence, _)| *sequence).eq(1..=6));
            assert_eq!(found[5].1.objects["number"], "3");
            assert_eq!(rows(&engine, AUDIT, tenant, 4, 1).unwrap().len(), 1);
        }
    }

    #[test]
    fn rows_are_plain_json() {
        let device = DeviceId([0xab; 16]);
        let objects: [Object<'_>; 1] = [("device", &device)];
        let entry = Entry::new(5, Act::TicketClaimed, &Actor::Device(device), &objects, "done");
        let id = "ab".repeat(16);
        let expected = format!(
            r#"{{"time_ms":5,"act":"ticket_claimed","who":"device:{id}","objects":{{"device":"{id}"}},"outcome":"done"}}"#
        );
        assert_eq!(entry.0, [expected.as_bytes(), b"\n"].concat());
    }
}
