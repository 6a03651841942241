//! The device's state: one SQLite database, shared by the app and its extension.
//!
//! ```text
//! meta    name                     -> sealed value
//! prekey  id                       -> suite, kind, sealed seed, times
//! batch   prekeys made and not yet uploaded
//! seen    SHA-256(sealed message)  -> who sent it, under which id, and the receipt that answered it
//! message sender, notification id  -> the newest revision, sealed
//! receipt                          -> what is still to be sent
//! ```
//! The tables of groups are drawn in `groups/rows.rs`.
//!
//! One transaction takes a box in: opened, marked as seen, prekey deleted, message stored, receipt queued.

use std::path::Path;

use rand_core::CryptoRng;
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use sealpost_open::{PrekeyPrivate, remember_until};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{Digest, PrekeyId, TransportId};
use sealpost_wire::message::Suite;
use sealpost_wire::prekey::PrekeyKind;
use zeroize::Zeroizing;

use crate::error::DeviceError;
use crate::groups::rows::GROUP_TABLES;
use crate::platform::Platform;
use crate::vault::{Vault, place};

/// The version of the tables; a newer state is refused, and an older one gets the tables that it lacks.
const VERSION: i64 = 2;
/// The version before groups.
const VERSION_BEFORE_GROUPS: i64 = 1;
const FILE: &str = "device.sqlite";
/// How long a process waits for the other one's transaction.
const BUSY_MILLISECONDS: u32 = 10_000;

const TABLES: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
    CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
    CREATE TABLE prekey (
        id BLOB PRIMARY KEY, suite INTEGER NOT NULL, one_time INTEGER NOT NULL, seed BLOB NOT NULL,
        created INTEGER NOT NULL, seal_until INTEGER NOT NULL, open_until INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE batch (id INTEGER PRIMARY KEY, upload BLOB NOT NULL) STRICT;
    CREATE TABLE seen (
        sealed BLOB PRIMARY KEY, sender TEXT, transport_id BLOB NOT NULL, until INTEGER NOT NULL, receipt BLOB NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX seen_by_sender ON seen (sender, transport_id);
    CREATE TABLE message (
        sender TEXT NOT NULL, notification BLOB NOT NULL, revision INTEGER NOT NULL, transport_id BLOB NOT NULL,
        sealed BLOB NOT NULL, one_time INTEGER NOT NULL, received INTEGER NOT NULL, presented INTEGER NOT NULL,
        content BLOB NOT NULL, PRIMARY KEY (sender, notification)
    ) STRICT;
    CREATE TABLE receipt (id INTEGER PRIMARY KEY, receipt BLOB NOT NULL UNIQUE) STRICT;
";

/// The database, and the key to the values in it.
pub(crate) struct Store {
    pub(crate) connection: Connection,
    pub(crate) vault: Vault,
}

/// A prekey, ready to open with.
pub(crate) struct StoredPrekey {
    pub(crate) key: PrekeyPrivate,
    pub(crate) kind: PrekeyKind,
}

/// A prekey that is to be stored.
pub(crate) struct NewPrekey {
    pub(crate) id: PrekeyId,
    pub(crate) key: PrekeyPrivate,
    pub(crate) kind: PrekeyKind,
    pub(crate) seal_until: UnixTime,
    pub(crate) open_until: UnixTime,
}

/// A message, as its row has it.
pub(crate) struct MessageRow {
    pub(crate) sender: String,
    pub(crate) notification: Vec<u8>,
    pub(crate) revision: i64,
    pub(crate) transport_id: TransportId,
    pub(crate) sealed: Digest,
    pub(crate) kind: PrekeyKind,
    pub(crate) received: UnixTime,
    pub(crate) presented: bool,
    pub(crate) content: Zeroizing<Vec<u8>>,
}

impl Store {
    pub(crate) fn open(folder: &Path, platform: &dyn Platform) -> Result<Self, DeviceError> {
        let vault = Vault::new(&platform.wrapping_key()?);
        let mut connection = Connection::open(folder.join(FILE))?;
        connection.busy_timeout(std::time::Duration::from_millis(u64::from(BUSY_MILLISECONDS)))?;
        // FULL: a commit is durable when it returns, in WAL mode too. Deleted keys are overwritten, not just unlinked.
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "secure_delete", "ON")?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        match version {
            0 => {
                transaction.execute_batch(TABLES)?;
                transaction.execute_batch(GROUP_TABLES)?;
                transaction.pragma_update(None, "user_version", VERSION)?;
            }
            VERSION_BEFORE_GROUPS => {
                transaction.execute_batch(GROUP_TABLES)?;
                transaction.pragma_update(None, "user_version", VERSION)?;
            }
            VERSION => {}
            newer => return Err(DeviceError::NewerState(newer)),
        }
        transaction.commit()?;
        Ok(Self { connection, vault })
    }

    /// Runs `change` in one transaction: an error leaves everything as it was.
    pub(crate) fn change<T>(
        &mut self,
        change: impl FnOnce(&Change<'_>) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        self.try_change(change)
    }

    /// [`Self::change`], for work with errors of its own.
    pub(crate) fn try_change<T, E: From<rusqlite::Error>>(
        &mut self,
        change: impl FnOnce(&Change<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let change_of = Change { transaction, vault: &self.vault };
        let result = change(&change_of)?;
        change_of.transaction.commit()?;
        Ok(result)
    }

    pub(crate) fn meta(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, DeviceError> {
        let sealed: Option<Vec<u8>> = self
            .connection
            .query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0))
            .optional()?;
        sealed.map(|sealed| self.vault.open(&place("meta", name.as_bytes()), &sealed)).transpose()
    }

    pub(crate) fn counter(&self, name: &str) -> Result<i64, DeviceError> {
        let value = self
            .connection
            .query_row("SELECT value FROM counter WHERE name = ?1", [name], |row| row.get(0))
            .optional()?;
        Ok(value.unwrap_or(0))
    }

    /// How many times prekeys were used or made.
    pub(crate) fn generation(&self) -> Result<u64, DeviceError> {
        Ok(self.counter("generation")?.cast_unsigned())
    }

    pub(crate) fn set_generation(&mut self, generation: u64) -> Result<(), DeviceError> {
        self.change(|change| change.set_counter("generation", generation.cast_signed()))
    }

    pub(crate) fn clock_offset(&self) -> Result<i64, DeviceError> {
        self.counter("clock_offset")
    }

    pub(crate) fn latest_time(&self) -> Result<UnixTime, DeviceError> {
        Ok(UnixTime(self.counter("latest_time")?.cast_unsigned()))
    }

    /// Whether prekeys were burnt and the keyserver does not know yet.
    pub(crate) fn burnt(&self) -> Result<bool, DeviceError> {
        Ok(self.counter("burnt")? != 0)
    }

    /// Deletes every prekey, and remembers that the keyserver is to be told.
    pub(crate) fn burn_prekeys(&mut self) -> Result<(), DeviceError> {
        self.change(|change| {
            change.transaction.execute_batch("DELETE FROM prekey; DELETE FROM batch;")?;
            change.set_counter("burnt", 1)
        })
    }

    /// Deletes every prekey of a device that was never admitted.
    pub(crate) fn forget_prekeys(&mut self) -> Result<(), DeviceError> {
        self.change(|change| {
            Ok(change.transaction.execute_batch("DELETE FROM prekey; DELETE FROM batch;")?)
        })
    }

    /// The uploads that the keyserver has not confirmed, oldest first.
    pub(crate) fn pending_uploads(&self) -> Result<Vec<(i64, Vec<u8>)>, DeviceError> {
        let mut statement = self.connection.prepare_cached("SELECT id, upload FROM batch ORDER BY id")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// When the newest signed prekey of `suite` was made.
    pub(crate) fn newest_signed_prekey(&self, suite: Suite) -> Result<Option<UnixTime>, DeviceError> {
        let sql = "SELECT max(created) FROM prekey WHERE suite = ?1 AND one_time = 0";
        let created: Option<i64> = self.connection.query_row(sql, [suite.algorithm()], |row| row.get(0))?;
        Ok(created.map(|seconds| UnixTime(seconds.cast_unsigned())))
    }

    /// Receipts that are still to be sent, oldest first.
    pub(crate) fn receipts(&self, limit: usize) -> Result<Vec<(i64, Vec<u8>)>, DeviceError> {
        let mut statement =
            self.connection.prepare_cached("SELECT id, receipt FROM receipt ORDER BY id LIMIT ?1")?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement.query_map([limit], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Messages, newest last; only those not presented yet if `unpresented`.
    pub(crate) fn messages(&self, unpresented: bool) -> Result<Vec<MessageRow>, DeviceError> {
        read_messages(&self.connection, &self.vault, unpresented)
    }
}

/// One transaction.
pub(crate) struct Change<'a> {
    pub(crate) transaction: Transaction<'a>,
    pub(crate) vault: &'a Vault,
}

impl Change<'_> {
    pub(crate) fn set_meta(
        &self,
        name: &str,
        value: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<(), DeviceError> {
        let sealed = self.vault.seal(&place("meta", name.as_bytes()), value, rng)?;
        self.transaction.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", params![name, sealed])?;
        Ok(())
    }

    pub(crate) fn set_counter(&self, name: &str, value: i64) -> Result<(), DeviceError> {
        self.transaction.execute("INSERT OR REPLACE INTO counter VALUES (?1, ?2)", params![name, value])?;
        Ok(())
    }

    pub(crate) fn counter(&self, name: &str) -> Result<i64, DeviceError> {
        let sql = "SELECT value FROM counter WHERE name = ?1";
        let value = self.transaction.query_row(sql, [name], |row| row.get(0)).optional()?;
        Ok(value.unwrap_or(0))
    }

    /// Counts a use of prekeys or of keys of groups; the platform's counter follows once this has been committed.
    pub(crate) fn next_generation(&self) -> Result<u64, DeviceError> {
        let sql = "INSERT INTO counter VALUES ('generation', 1)
                   ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value";
        let generation: i64 = self.transaction.query_row(sql, [], |row| row.get(0))?;
        Ok(generation.cast_unsigned())
    }

    pub(crate) fn prekey(&self, id: PrekeyId) -> Result<Option<StoredPrekey>, DeviceError> {
        let sql = "SELECT suite, one_time, seed FROM prekey WHERE id = ?1";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get::<_, Vec<u8>>(2)?));
        let row: Option<(i64, bool, Vec<u8>)> =
            self.transaction.query_row(sql, [id.as_bytes()], read).optional()?;
        let Some((suite, one_time, sealed)) = row else { return Ok(None) };
        let seed = self.vault.open(&place("prekey", id.as_bytes()), &sealed)?;
        let seed =
            Zeroizing::new(<[u8; 32]>::try_from(seed.as_slice()).map_err(|_| DeviceError::Unreadable)?);
        let key = PrekeyPrivate::restore(Suite::from_algorithm(suite)?, id, *seed);
        Ok(Some(StoredPrekey { key, kind: kind(one_time) }))
    }

    pub(crate) fn insert_prekey(
        &self,
        prekey: &NewPrekey,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), DeviceError> {
        let seed = self.vault.seal(&place("prekey", prekey.id.as_bytes()), prekey.key.expose_seed(), rng)?;
        self.transaction.execute(
            "INSERT INTO prekey VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                prekey.id.as_bytes(),
                prekey.key.suite().algorithm(),
                prekey.kind == PrekeyKind::OneTime,
                seed,
                now.0.cast_signed(),
                prekey.seal_until.0.cast_signed(),
                prekey.open_until.0.cast_signed(),
            ],
        )?;
        Ok(())
    }

    pub(crate) fn delete_prekey(&self, id: PrekeyId) -> Result<(), DeviceError> {
        self.transaction.execute("DELETE FROM prekey WHERE id = ?1", [id.as_bytes()])?;
        Ok(())
    }

    pub(crate) fn insert_upload(&self, upload: &[u8]) -> Result<(), DeviceError> {
        self.transaction.execute("INSERT INTO batch (upload) VALUES (?1)", [upload])?;
        Ok(())
    }

    pub(crate) fn delete_upload(&self, id: i64) -> Result<(), DeviceError> {
        self.transaction.execute("DELETE FROM batch WHERE id = ?1", [id])?;
        Ok(())
    }

    /// The receipt that answered this very box, if it was seen before.
    pub(crate) fn seen(&self, sealed: Digest) -> Result<Option<Vec<u8>>, DeviceError> {
        let sql = "SELECT receipt FROM seen WHERE sealed = ?1";
        Ok(self.transaction.query_row(sql, [sealed.as_bytes()], |row| row.get(0)).optional()?)
    }

    /// Whether another box of this sender came under the same transport id.
    pub(crate) fn replayed(&self, sender: &str, id: TransportId) -> Result<bool, DeviceError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM seen WHERE sender = ?1 AND transport_id = ?2)";
        Ok(self.transaction.query_row(sql, params![sender, id.as_bytes()], |row| row.get(0))?)
    }

    /// Marks a box as seen until its message can come no more.
    pub(crate) fn mark_seen(
        &self,
        sealed: Digest,
        sender: Option<&str>,
        id: TransportId,
        expires_at: UnixTime,
        receipt: &[u8],
    ) -> Result<(), DeviceError> {
        let until = remember_until(expires_at).0.cast_signed();
        self.transaction.execute(
            "INSERT INTO seen VALUES (?1, ?2, ?3, ?4, ?5)",
            params![sealed.as_bytes(), sender, id.as_bytes(), until, receipt],
        )?;
        Ok(())
    }

    /// Stores a message unless a revision as new is there. Returns whether it was stored.
    pub(crate) fn put_message(&self, row: &MessageRow, rng: &mut dyn CryptoRng) -> Result<bool, DeviceError> {
        let key = [row.sender.as_bytes(), &[0], &row.notification].concat();
        let content = self.vault.seal(&place("message", &key), &row.content, rng)?;
        let stored = self.transaction.execute(
            "INSERT INTO message VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8)
             ON CONFLICT (sender, notification) DO UPDATE SET revision = ?3, transport_id = ?4, sealed = ?5,
                 one_time = ?6, received = ?7, presented = 0, content = ?8 WHERE revision < ?3",
            params![
                row.sender,
                row.notification,
                row.revision,
                row.transport_id.as_bytes(),
                row.sealed.as_bytes(),
                row.kind == PrekeyKind::OneTime,
                row.received.0.cast_signed(),
                content,
            ],
        )?;
        Ok(stored == 1)
    }

    /// Messages that were not presented yet; they count as presented once this is committed.
    pub(crate) fn take_unpresented(&self) -> Result<Vec<MessageRow>, DeviceError> {
        let rows = read_messages(&self.transaction, self.vault, true)?;
        self.transaction.execute("UPDATE message SET presented = 1 WHERE presented = 0", [])?;
        Ok(rows)
    }

    pub(crate) fn queue_receipt(&self, receipt: &[u8]) -> Result<(), DeviceError> {
        self.transaction.execute("INSERT OR IGNORE INTO receipt (receipt) VALUES (?1)", [receipt])?;
        Ok(())
    }

    pub(crate) fn delete_receipt(&self, id: i64) -> Result<(), DeviceError> {
        self.transaction.execute("DELETE FROM receipt WHERE id = ?1", [id])?;
        Ok(())
    }

    /// Forgets what is over: private keys past `open_until`, and boxes that can come no more.
    pub(crate) fn forget_expired(&self, now: UnixTime) -> Result<(), DeviceError> {
        let now = now.0.cast_signed();
        self.transaction.execute("DELETE FROM prekey WHERE open_until < ?1", [now])?;
        self.transaction.execute("DELETE FROM seen WHERE until < ?1", [now])?;
        Ok(())
    }
}

fn read_messages(
    connection: &Connection,
    vault: &Vault,
    unpresented: bool,
) -> Result<Vec<MessageRow>, DeviceError> {
    let sql =
        "SELECT sender, notification, revision, transport_id, sealed, one_time, received, presented, content
               FROM message WHERE presented = 0 OR NOT ?1 ORDER BY received, rowid";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([unpresented])?;
    let mut messages = Vec::new();
    while let Some(row) = rows.next()? {
        let (sender, notification): (String, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let key = [sender.as_bytes(), &[0], &notification].concat();
        messages.push(MessageRow {
            content: vault.open(&place("message", &key), &row.get::<_, Vec<u8>>(8)?)?,
            revision: row.get(2)?,
            transport_id: TransportId(row.get(3)?),
            sealed: Digest(row.get(4)?),
            kind: kind(row.get(5)?),
            received: UnixTime(row.get::<_, i64>(6)?.cast_unsigned()),
            presented: row.get(7)?,
            sender,
            notification,
        });
    }
    Ok(messages)
}

const fn kind(one_time: bool) -> PrekeyKind {
    if one_time { PrekeyKind::OneTime } else { PrekeyKind::Signed }
}
