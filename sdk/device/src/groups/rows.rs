//! The tables of groups, in the device's database.
//!
//! ```text
//! group_state        opaque key                  -> sealed value of the group's state (MLS)
//! group_message      group, author, message id   -> what was written and read, sealed
//! group_outgoing     submissions that the relay has not answered for, boxes sealed, in order
//! group_plan         commits that are to be made, until one is merged
//! group_task         what is owed: group info to answer with or to ask for, invitations, pauses
//! group_held         frames that cannot be used yet, sealed
//! group_author       device                      -> the record of one whose frames could not be used
//! group_peer         device                      -> its signed prekeys
//! group_invited      group, recipient            -> the category that they were invited for
//! key_package_batch  key packages made and not yet uploaded
//! ```

mod held;
mod members;
mod tasks;

use rand_core::CryptoRng;
use rusqlite::{OptionalExtension as _, Row, params};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{DeviceId, GroupId, TransportId};
use zeroize::Zeroizing;

use crate::error::DeviceError;
use crate::groups::conversation::MessageState;
use crate::store::{Change, Store};
use crate::vault::place;

pub(crate) use held::HeldLimits;
pub(crate) use tasks::{Task, TaskRow};

pub(crate) const GROUP_TABLES: &str = "
    CREATE TABLE group_state (key BLOB PRIMARY KEY, value BLOB NOT NULL) STRICT;
    CREATE TABLE group_message (
        place INTEGER PRIMARY KEY AUTOINCREMENT, group_id BLOB NOT NULL, author BLOB NOT NULL, id BLOB NOT NULL,
        received INTEGER NOT NULL, presented INTEGER NOT NULL, state INTEGER NOT NULL, content BLOB NOT NULL,
        UNIQUE (group_id, author, id)
    ) STRICT;
    CREATE TABLE group_outgoing (
        id INTEGER PRIMARY KEY AUTOINCREMENT, group_id BLOB NOT NULL, transport_id BLOB NOT NULL UNIQUE,
        stage INTEGER NOT NULL, plan INTEGER, message BLOB, expires_at INTEGER NOT NULL, due INTEGER NOT NULL,
        tries INTEGER NOT NULL, submission BLOB NOT NULL
    ) STRICT;
    CREATE TABLE group_plan (
        id INTEGER PRIMARY KEY AUTOINCREMENT, group_id BLOB NOT NULL, plan BLOB NOT NULL
    ) STRICT;
    CREATE TABLE group_task (
        group_id BLOB NOT NULL, task INTEGER NOT NULL, peer BLOB NOT NULL, due INTEGER NOT NULL, tries INTEGER NOT NULL,
        frame BLOB, PRIMARY KEY (group_id, task, peer)
    ) STRICT;
    CREATE TABLE group_held (
        id INTEGER PRIMARY KEY AUTOINCREMENT, group_id BLOB NOT NULL, author BLOB NOT NULL, since INTEGER NOT NULL,
        asked INTEGER NOT NULL, frame BLOB NOT NULL
    ) STRICT;
    CREATE TABLE group_author (device BLOB PRIMARY KEY, seen INTEGER NOT NULL, record BLOB NOT NULL) STRICT;
    CREATE TABLE group_invited (
        group_id BLOB NOT NULL, recipient BLOB NOT NULL, category TEXT NOT NULL, PRIMARY KEY (group_id, recipient)
    ) STRICT;
    CREATE TABLE group_peer (device BLOB PRIMARY KEY, fetched INTEGER NOT NULL, prekeys TEXT NOT NULL) STRICT;
    CREATE TABLE key_package_batch (id INTEGER PRIMARY KEY, upload BLOB NOT NULL) STRICT;
";

/// Where a submission is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It can go.
    Free = 0,
    /// It can go, and claims the group's slot.
    Claims = 1,
    /// It goes when the claim before it was accepted.
    AfterClaim = 2,
    /// It can go, and its message was encrypted in an epoch that is over.
    Stale = 3,
}

/// A submission that is to be stored.
pub(crate) struct NewOutgoing {
    pub(crate) group: GroupId,
    pub(crate) transport_id: TransportId,
    pub(crate) stage: Stage,
    pub(crate) plan: Option<i64>,
    pub(crate) message: Option<[u8; 16]>,
    pub(crate) expires_at: UnixTime,
    pub(crate) submission: Zeroizing<Vec<u8>>,
}

/// A submission that waits.
pub(crate) struct OutgoingRow {
    pub(crate) id: i64,
    pub(crate) group: GroupId,
    pub(crate) transport_id: TransportId,
    pub(crate) claims: bool,
    pub(crate) stale: bool,
    pub(crate) plan: Option<i64>,
    pub(crate) message: Option<[u8; 16]>,
    pub(crate) expires_at: UnixTime,
    pub(crate) tries: u32,
    pub(crate) submission: Zeroizing<Vec<u8>>,
}

/// A plan's number, and the plan.
pub(crate) type PlanRow = (i64, Zeroizing<Vec<u8>>);

/// A message of a group, as its row has it.
pub(crate) struct GroupMessageRow {
    pub(crate) group: GroupId,
    pub(crate) author: DeviceId,
    pub(crate) id: [u8; 16],
    pub(crate) received: UnixTime,
    pub(crate) presented: bool,
    pub(crate) state: MessageState,
    pub(crate) content: Zeroizing<Vec<u8>>,
}

impl Store {
    /// The next submission that can go: the first of its group, and due.
    pub(crate) fn next_outgoing(&self, now: UnixTime) -> Result<Option<OutgoingRow>, DeviceError> {
        let sql = "SELECT id, group_id, transport_id, stage, plan, message, expires_at, tries, submission
                   FROM group_outgoing AS one
                   WHERE due <= ?1 AND id = (SELECT min(id) FROM group_outgoing WHERE group_id = one.group_id)
                   ORDER BY id LIMIT 1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([now.0.cast_signed()])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let transport_id: [u8; 16] = row.get(2)?;
        let sealed: Vec<u8> = row.get(8)?;
        Ok(Some(OutgoingRow {
            id: row.get(0)?,
            group: GroupId(row.get(1)?),
            transport_id: TransportId(transport_id),
            claims: row.get::<_, i64>(3)? == Stage::Claims as i64,
            stale: row.get::<_, i64>(3)? == Stage::Stale as i64,
            plan: row.get(4)?,
            message: row.get(5)?,
            expires_at: time(row, 6)?,
            tries: row.get(7)?,
            submission: self.vault.open(&place("group_outgoing", &transport_id), &sealed)?,
        }))
    }

    /// Whether a plan is still to be carried out.
    pub(crate) fn has_plan(&self, id: i64) -> Result<bool, DeviceError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM group_plan WHERE id = ?1)";
        Ok(self.connection.query_row(sql, [id], |row| row.get(0))?)
    }

    /// The uploads of key packages that the keyserver has not confirmed, oldest first.
    pub(crate) fn key_package_batches(&self) -> Result<Vec<(i64, Vec<u8>)>, DeviceError> {
        let sql = "SELECT id, upload FROM key_package_batch ORDER BY id";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Change<'_> {
    pub(crate) fn group_state(&self, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, DeviceError> {
        let sql = "SELECT value FROM group_state WHERE key = ?1";
        let sealed: Option<Vec<u8>> = self.transaction.query_row(sql, [key], |row| row.get(0)).optional()?;
        sealed.map(|sealed| self.vault.open(&place("group_state", key), &sealed)).transpose()
    }

    pub(crate) fn put_group_state(
        &self,
        key: &[u8],
        value: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<(), DeviceError> {
        let sealed = self.vault.seal(&place("group_state", key), value, rng)?;
        let sql = "INSERT OR REPLACE INTO group_state VALUES (?1, ?2)";
        self.transaction.execute(sql, params![key, sealed])?;
        Ok(())
    }

    pub(crate) fn delete_group_state(&self, key: &[u8]) -> Result<(), DeviceError> {
        self.transaction.execute("DELETE FROM group_state WHERE key = ?1", [key])?;
        Ok(())
    }

    /// Stores a message; one that is there already stays as it is.
    pub(crate) fn put_group_message(
        &self,
        row: &GroupMessageRow,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), DeviceError> {
        let content = self.vault.seal(&message_place(row.group, row.author, row.id), &row.content, rng)?;
        self.transaction.execute(
            "INSERT OR IGNORE INTO group_message (group_id, author, id, received, presented, state, content)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                row.group.as_bytes(),
                row.author.as_bytes(),
                row.id,
                row.received.0.cast_signed(),
                row.presented,
                row.state as i64,
                content,
            ],
        )?;
        Ok(())
    }

    /// What a message says.
    pub(crate) fn group_message(
        &self,
        group: GroupId,
        author: DeviceId,
        id: [u8; 16],
    ) -> Result<Option<Zeroizing<Vec<u8>>>, DeviceError> {
        let sql = "SELECT content FROM group_message WHERE group_id = ?1 AND author = ?2 AND id = ?3";
        let found = params![group.as_bytes(), author.as_bytes(), id];
        let sealed: Option<Vec<u8>> = self.transaction.query_row(sql, found, |row| row.get(0)).optional()?;
        sealed.map(|sealed| self.vault.open(&message_place(group, author, id), &sealed)).transpose()
    }

    /// Whether `author` has written a message of this id to the group.
    pub(crate) fn has_group_message(
        &self,
        group: GroupId,
        author: DeviceId,
        id: [u8; 16],
    ) -> Result<bool, DeviceError> {
        let sql =
            "SELECT EXISTS (SELECT 1 FROM group_message WHERE group_id = ?1 AND author = ?2 AND id = ?3)";
        let found = params![group.as_bytes(), author.as_bytes(), id];
        Ok(self.transaction.query_row(sql, found, |row| row.get(0))?)
    }

    pub(crate) fn set_message_state(
        &self,
        group: GroupId,
        author: DeviceId,
        id: [u8; 16],
        state: MessageState,
    ) -> Result<(), DeviceError> {
        let sql = "UPDATE group_message SET state = ?4 WHERE group_id = ?1 AND author = ?2 AND id = ?3";
        self.transaction.execute(sql, params![group.as_bytes(), author.as_bytes(), id, state as i64])?;
        Ok(())
    }

    /// The messages of one group or of all, oldest first; only those not presented if `unpresented`.
    pub(crate) fn group_messages(
        &self,
        group: Option<GroupId>,
        unpresented: bool,
    ) -> Result<Vec<GroupMessageRow>, DeviceError> {
        let sql = "SELECT group_id, author, id, received, presented, state, content FROM group_message
                   WHERE (?1 IS NULL OR group_id = ?1) AND (presented = 0 OR NOT ?2) ORDER BY place";
        let mut statement = self.transaction.prepare_cached(sql)?;
        let mut rows = statement.query(params![group.map(|group| group.0), unpresented])?;
        let mut messages = Vec::new();
        while let Some(row) = rows.next()? {
            let (group, author) = (GroupId(row.get(0)?), DeviceId(row.get(1)?));
            let id: [u8; 16] = row.get(2)?;
            let sealed: Vec<u8> = row.get(6)?;
            messages.push(GroupMessageRow {
                group,
                author,
                id,
                received: time(row, 3)?,
                presented: row.get(4)?,
                state: MessageState::of(row.get(5)?),
                content: self.vault.open(&message_place(group, author, id), &sealed)?,
            });
        }
        Ok(messages)
    }

    /// All messages count as presented.
    pub(crate) fn mark_group_messages_presented(&self) -> Result<(), DeviceError> {
        self.transaction.execute("UPDATE group_message SET presented = 1 WHERE presented = 0", [])?;
        Ok(())
    }

    pub(crate) fn insert_outgoing(
        &self,
        new: &NewOutgoing,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), DeviceError> {
        let place = place("group_outgoing", new.transport_id.as_bytes());
        let sealed = self.vault.seal(&place, &new.submission, rng)?;
        self.transaction.execute(
            "INSERT INTO group_outgoing
                 (group_id, transport_id, stage, plan, message, expires_at, due, tries, submission)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, 0, ?7)",
            params![
                new.group.as_bytes(),
                new.transport_id.as_bytes(),
                new.stage as i64,
                new.plan,
                new.message,
                new.expires_at.0.cast_signed(),
                sealed,
            ],
        )?;
        Ok(())
    }

    /// Whether a submission still waits: another process may have dealt with it.
    pub(crate) fn has_outgoing_row(&self, id: i64) -> Result<bool, DeviceError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM group_outgoing WHERE id = ?1)";
        Ok(self.transaction.query_row(sql, [id], |row| row.get(0))?)
    }

    /// Whether anything of a message still waits to be sent.
    pub(crate) fn has_outgoing_of(&self, group: GroupId, message: [u8; 16]) -> Result<bool, DeviceError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM group_outgoing WHERE group_id = ?1 AND message = ?2)";
        Ok(self.transaction.query_row(sql, params![group.as_bytes(), message], |row| row.get(0))?)
    }

    /// Puts a submission off. `tries` counts.
    pub(crate) fn delay_outgoing(&self, id: i64, due: UnixTime) -> Result<(), DeviceError> {
        let sql = "UPDATE group_outgoing SET due = ?2, tries = tries + 1 WHERE id = ?1";
        self.transaction.execute(sql, params![id, due.0.cast_signed()])?;
        Ok(())
    }

    /// Puts another submission under the same transport id: the relay has stored nothing of the one before.
    pub(crate) fn replace_submission(
        &self,
        row: &OutgoingRow,
        submission: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<(), DeviceError> {
        let place = place("group_outgoing", row.transport_id.as_bytes());
        let sealed = self.vault.seal(&place, submission, rng)?;
        let sql = "UPDATE group_outgoing SET submission = ?2, tries = tries + 1 WHERE id = ?1";
        self.transaction.execute(sql, params![row.id, sealed])?;
        Ok(())
    }

    pub(crate) fn delete_outgoing(&self, id: i64) -> Result<(), DeviceError> {
        self.transaction.execute("DELETE FROM group_outgoing WHERE id = ?1", [id])?;
        Ok(())
    }

    /// A group has entered another epoch: messages that wait were encrypted in the one before.
    pub(crate) fn mark_messages_stale(&self, group: GroupId) -> Result<(), DeviceError> {
        let sql =
            "UPDATE group_outgoing SET stage = ?2 WHERE group_id = ?1 AND stage = ?3 AND message NOT NULL";
        let stages = (Stage::Stale as i64, Stage::Free as i64);
        self.transaction.execute(sql, params![group.as_bytes(), stages.0, stages.1])?;
        Ok(())
    }

    /// The stale messages of a group, oldest first, each once.
    pub(crate) fn stale_messages(&self, group: GroupId) -> Result<Vec<[u8; 16]>, DeviceError> {
        let sql = "SELECT message FROM group_outgoing WHERE group_id = ?1 AND stage = ?2
                   GROUP BY message ORDER BY min(id)";
        let mut statement = self.transaction.prepare_cached(sql)?;
        let rows = statement.query_map(params![group.as_bytes(), Stage::Stale as i64], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Stale messages go as they are.
    pub(crate) fn let_stale_messages_go(&self, group: GroupId) -> Result<(), DeviceError> {
        let sql = "UPDATE group_outgoing SET stage = ?2 WHERE group_id = ?1 AND stage = ?3";
        let stages = (Stage::Free as i64, Stage::Stale as i64);
        self.transaction.execute(sql, params![group.as_bytes(), stages.0, stages.1])?;
        Ok(())
    }

    /// What waits of a message is not sent.
    pub(crate) fn drop_outgoing_of(&self, group: GroupId, message: [u8; 16]) -> Result<(), DeviceError> {
        let sql = "DELETE FROM group_outgoing WHERE group_id = ?1 AND message = ?2";
        self.transaction.execute(sql, params![group.as_bytes(), message])?;
        Ok(())
    }

    /// The claim of a group was accepted: what waited for it can go.
    pub(crate) fn release_after_claim(&self, group: GroupId) -> Result<(), DeviceError> {
        let sql = "UPDATE group_outgoing SET stage = 0 WHERE group_id = ?1 AND stage = 2";
        self.transaction.execute(sql, [group.as_bytes()])?;
        Ok(())
    }

    /// The claim of a group has lost: it goes, and what waited for it.
    pub(crate) fn drop_claim(&self, group: GroupId) -> Result<(), DeviceError> {
        let sql = "DELETE FROM group_outgoing WHERE group_id = ?1 AND stage IN (1, 2)";
        self.transaction.execute(sql, [group.as_bytes()])?;
        Ok(())
    }

    pub(crate) fn insert_plan(
        &self,
        group: GroupId,
        plan: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<i64, DeviceError> {
        let sealed = self.vault.seal(&place("group_plan", group.as_bytes()), plan, rng)?;
        let sql = "INSERT INTO group_plan (group_id, plan) VALUES (?1, ?2)";
        self.transaction.execute(sql, params![group.as_bytes(), sealed])?;
        Ok(self.transaction.last_insert_rowid())
    }

    /// The oldest plan of a group.
    pub(crate) fn next_plan(&self, group: GroupId) -> Result<Option<PlanRow>, DeviceError> {
        let sql = "SELECT id, plan FROM group_plan WHERE group_id = ?1 ORDER BY id LIMIT 1";
        let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?));
        let row = self.transaction.query_row(sql, [group.as_bytes()], read).optional()?;
        row.map(|(id, sealed)| Ok((id, self.vault.open(&place("group_plan", group.as_bytes()), &sealed)?)))
            .transpose()
    }

    pub(crate) fn delete_plan(&self, id: i64) -> Result<(), DeviceError> {
        self.transaction.execute("DELETE FROM group_plan WHERE id = ?1", [id])?;
        Ok(())
    }

    pub(crate) fn insert_key_package_batch(&self, upload: &[u8]) -> Result<(), DeviceError> {
        self.transaction.execute("INSERT INTO key_package_batch (upload) VALUES (?1)", [upload])?;
        Ok(())
    }

    pub(crate) fn delete_key_package_batch(&self, id: i64) -> Result<(), DeviceError> {
        self.transaction.execute("DELETE FROM key_package_batch WHERE id = ?1", [id])?;
        Ok(())
    }

    /// What an older copy of the state would have sent is not sent: its messages count as not sent.
    pub(crate) fn forget_unsent(&self) -> Result<(), DeviceError> {
        self.transaction.execute(
            "UPDATE group_message SET state = ?1 WHERE state = ?2",
            [MessageState::Failed as i64, MessageState::Sending as i64],
        )?;
        Ok(self.transaction.execute_batch(
            "DELETE FROM group_outgoing; DELETE FROM group_plan; DELETE FROM group_task;
             DELETE FROM key_package_batch;",
        )?)
    }

    /// Forgets what is to be done in a group that the device is out of.
    pub(crate) fn forget_group_work(&self, group: GroupId) -> Result<(), DeviceError> {
        self.drop_claim(group)?;
        self.transaction.execute("DELETE FROM group_plan WHERE group_id = ?1", [group.as_bytes()])?;
        self.transaction.execute("DELETE FROM group_task WHERE group_id = ?1", [group.as_bytes()])?;
        self.transaction.execute("DELETE FROM group_invited WHERE group_id = ?1", [group.as_bytes()])?;
        Ok(())
    }
}

fn message_place(group: GroupId, author: DeviceId, id: [u8; 16]) -> Vec<u8> {
    place("group_message", &[&group.0[..], &author.0, &id].concat())
}

fn time(row: &Row<'_>, at: usize) -> rusqlite::Result<UnixTime> {
    Ok(UnixTime(row.get::<_, i64>(at)?.cast_unsigned()))
}
