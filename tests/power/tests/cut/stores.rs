//! Stores that are killed at random moments: every record that was acknowledged is there after the cut.

use crate::victim::{Scene, Victim, say};
use fjall::{Database, KeyspaceCreateOptions, PersistMode, Readable};
use rusqlite::Connection;
use sealpost_power::PowerCut;
use sealpost_power::dice::Dice;
use std::path::Path;

const RECORD_BYTES: usize = 1024;
const ROUNDS: u64 = 12;
const RECORDS_PER_ROUND_MAX: u64 = 150;

/// What a victim keeps its records in.
trait Store {
    /// How many there are; every one of them has the right bytes.
    fn check(&self) -> u64;
    /// Adds one, durably if the store is set up so.
    fn add(&self, number: u64);
}

/// The name of the store, and ` until N` to stop there.
pub(crate) fn work(name: &str, root: &Path) -> bool {
    let (name, end) = name.split_once(" until ").unwrap_or((name, ""));
    let sqlite = |journal, synchronous| Box::new(Sqlite::open(root, journal, synchronous));
    let store: Box<dyn Store> = match name {
        "sqlite wal full" => sqlite("WAL", "FULL"),
        "sqlite wal normal" => sqlite("WAL", "NORMAL"),
        "sqlite delete extra" => sqlite("DELETE", "EXTRA"),
        "sqlite delete full" => sqlite("DELETE", "FULL"),
        "sqlite delete off" => sqlite("DELETE", "OFF"),
        "fjall sync" => Box::new(Fjall::open(root, PersistMode::SyncData)),
        "fjall buffer" => Box::new(Fjall::open(root, PersistMode::Buffer)),
        _ => return false,
    };
    let found = store.check();
    say(&format!("have {found}"));
    for number in found..end.parse().unwrap_or(u64::MAX) {
        store.add(number);
        say(&format!("added {number}"));
    }
    // Closing it would sync.
    std::mem::forget(store);
    true
}

#[test]
fn sqlite_in_wal_mode_keeps_what_it_acknowledged() {
    assert_keeps("sqlite wal full", &Scene::new().power().verified(), 0);
}

#[test]
fn sqlite_in_wal_mode_keeps_what_it_acknowledged_under_the_strict_rule() {
    assert_keeps("sqlite wal full", &Scene::new().power().strict(), 0);
}

#[test]
fn sqlite_with_a_rollback_journal_keeps_what_it_acknowledged_when_it_syncs_the_removal() {
    assert_keeps("sqlite delete extra", &Scene::new().power().verified(), 0);
}

/// `synchronous=FULL` does not sync the folder after the journal's removal, which is the commit: the journal
/// may come back and undo the last transaction (<https://sqlite.org/pragma.html#pragma_synchronous>). `EXTRA`
/// is for that.
#[test]
fn sqlite_with_a_rollback_journal_loses_at_most_the_last_commit_when_it_does_not() {
    assert_keeps("sqlite delete full", &Scene::new().power(), 1);
    assert_loses("sqlite delete full", &Scene::new().power());
}

#[test]
fn fjall_keeps_what_it_acknowledged() {
    assert_keeps("fjall sync", &Scene::new().power(), 0);
}

#[test]
fn stores_that_do_not_sync_lose_what_they_acknowledged() {
    for work in ["sqlite wal normal", "sqlite delete off", "fjall buffer"] {
        assert_loses(work, &Scene::new().power());
    }
}

#[test]
fn with_syncs_ignored_every_store_loses_what_it_acknowledged() {
    for work in ["sqlite wal full", "sqlite delete extra", "fjall sync"] {
        assert_loses(work, &Scene::new().power().ignoring_syncs());
    }
}

/// Kills, cuts and starts again, at random moments; every second cut leaves torn writes.
#[track_caller]
fn assert_keeps(work: &str, power: &PowerCut, lost_max: u64) {
    let mut dice = Dice::seeded(7);
    let mut acknowledged = 0;
    for round in 0..=ROUNDS {
        let mut victim = Victim::start(power, work);
        let found = victim.hear_have();
        assert!(found + lost_max >= acknowledged, "{work}, round {round}: {found} of {acknowledged}");
        let more = dice.below(RECORDS_PER_ROUND_MAX);
        acknowledged = victim.kill_after(found, more);
        if round % 2 == 0 {
            power.restore().unwrap();
        } else {
            power.restore_torn(round).unwrap();
        }
    }
    assert!(acknowledged > ROUNDS, "{work} hardly wrote anything");
}

/// Kills it when it rests, so that the last acknowledged record was followed by no other sync.
#[track_caller]
fn assert_loses(work: &str, power: &PowerCut) {
    const RECORDS: u64 = 20;
    let mut victim = Victim::start(power, &format!("{work} until {RECORDS}"));
    assert_eq!(victim.hear_have(), 0);
    for number in 0..RECORDS {
        assert_eq!(victim.hear(), Some(format!("added {number}")));
    }
    victim.hear_done();
    victim.kill();
    power.restore().unwrap();
    let found = Victim::start(power, work).hear_have();
    assert!(found < RECORDS, "{work}: all are there");
}

impl Victim {
    #[track_caller]
    fn hear_have(&mut self) -> u64 {
        let line = self.hear().expect("the store opens");
        line.strip_prefix("have ").expect("the records come first").parse().expect("a number")
    }

    /// Lets it add some records and kills it; returns how many it had acknowledged in all.
    #[track_caller]
    fn kill_after(mut self, found: u64, more: u64) -> u64 {
        let mut last = found;
        let mut heard = |line: &str| {
            let number: u64 = line.strip_prefix("added ").expect("records only").parse().expect("a number");
            assert_eq!(number, last);
            last += 1;
        };
        for _ in 0..more {
            heard(&self.hear().expect("it goes on"));
        }
        self.kill().iter().for_each(|line| heard(line));
        last
    }
}

struct Sqlite(Connection);

impl Sqlite {
    fn open(root: &Path, journal: &str, synchronous: &str) -> Self {
        let connection = Connection::open(root.join("records.sqlite")).unwrap();
        connection.pragma_update(None, "journal_mode", journal).unwrap();
        connection.pragma_update(None, "synchronous", synchronous).unwrap();
        // Small enough that checkpoints are among what is killed.
        connection.pragma_update(None, "wal_autocheckpoint", 40).unwrap();
        let table =
            "CREATE TABLE IF NOT EXISTS record (number INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT";
        connection.execute(table, ()).unwrap();
        Self(connection)
    }
}

impl Store for Sqlite {
    fn check(&self) -> u64 {
        let mut rows = self.0.prepare("SELECT number, bytes FROM record ORDER BY number").unwrap();
        let rows = rows.query_map((), |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))).unwrap();
        let mut count = 0;
        for row in rows {
            let (number, bytes) = row.unwrap();
            assert_eq!(u64::try_from(number).unwrap(), count);
            assert_eq!(bytes, record(count));
            count += 1;
        }
        count
    }

    fn add(&self, number: u64) {
        let row = (i64::try_from(number).unwrap(), record(number));
        self.0.execute("INSERT INTO record VALUES (?1, ?2)", row).unwrap();
    }
}

struct Fjall {
    database: Database,
    records: fjall::Keyspace,
    durability: PersistMode,
}

impl Fjall {
    fn open(root: &Path, durability: PersistMode) -> Self {
        let database = Database::builder(root.join("records")).worker_threads(2).open().unwrap();
        // Small enough that flushes, compactions and new tables are among what is killed.
        let options = || KeyspaceCreateOptions::default().max_memtable_size(64 << 10);
        let records = database.keyspace("records", options).unwrap();
        Self { database, records, durability }
    }
}

impl Store for Fjall {
    fn check(&self) -> u64 {
        let mut count = 0u64;
        for row in self.database.snapshot().iter(&self.records) {
            let (number, bytes) = row.into_inner().unwrap();
            assert_eq!(*number, count.to_be_bytes());
            assert_eq!(*bytes, record(count));
            count += 1;
        }
        count
    }

    fn add(&self, number: u64) {
        let mut batch = self.database.batch().durability(Some(self.durability));
        batch.insert(&self.records, number.to_be_bytes(), record(number));
        batch.commit().unwrap();
    }
}

/// Bytes that no compression makes smaller.
fn record(number: u64) -> Vec<u8> {
    let mut dice = Dice::seeded(number);
    (0..RECORD_BYTES / 8).flat_map(|_| dice.roll().to_le_bytes()).collect()
}
