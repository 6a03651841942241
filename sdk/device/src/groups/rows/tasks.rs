//! What is owed to groups, and what keeps something back.

use rand_core::CryptoRng;
use rusqlite::{OptionalExtension as _, params};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{DeviceId, GroupId};
use zeroize::Zeroizing;

use crate::error::DeviceError;
use crate::groups::rows::time;
use crate::store::{Change, Store};
use crate::vault::place;

/// What is owed to a group, or keeps something back. The numbers are stored: they stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Ask for the group info: the epoch is lost, or will be if no commit comes until the task is due.
    Rejoin = 1,
    /// Give a member the group info.
    Answer = 2,
    /// Come back in by the group info in the task's frame.
    Return = 3,
    /// Ask a member, who takes this device for one too, to be invited anew.
    Ask = 4,
    /// A member has asked for the way back so often; due was the last time.
    Call = 5,
    /// Invite a member anew that does not come back by itself.
    Invite = 6,
    /// Ask the others to let this device go, until they have.
    Leave = 7,
    /// Commits have lost so many races in a row: none is made before it is due.
    Race = 8,
    /// A commit that was due by itself was refused: none of that kind is made before it is due.
    Refusal = 9,
}

impl Task {
    const ALL: [Self; 9] = [
        Self::Rejoin,
        Self::Answer,
        Self::Return,
        Self::Ask,
        Self::Call,
        Self::Invite,
        Self::Leave,
        Self::Race,
        Self::Refusal,
    ];

    fn of(code: i64) -> Result<Self, DeviceError> {
        Self::ALL.into_iter().find(|task| *task as i64 == code).ok_or(DeviceError::Unreadable)
    }
}

/// A task of a group.
pub(crate) struct TaskRow {
    pub(crate) group: GroupId,
    pub(crate) task: Task,
    pub(crate) peer: DeviceId,
    pub(crate) due: UnixTime,
    pub(crate) tries: u32,
}

impl Store {
    /// The tasks of all groups, the longest due first.
    pub(crate) fn group_tasks(&self) -> Result<Vec<TaskRow>, DeviceError> {
        let sql = "SELECT group_id, task, peer, due, tries FROM group_task ORDER BY due, rowid";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([])?;
        let mut tasks = Vec::new();
        while let Some(row) = rows.next()? {
            tasks.push(TaskRow {
                group: GroupId(row.get(0)?),
                task: Task::of(row.get(1)?)?,
                peer: DeviceId(row.get(2)?),
                due: time(row, 3)?,
                tries: row.get(4)?,
            });
        }
        Ok(tasks)
    }
}

impl Change<'_> {
    /// Notes a task; one that is there is not put off.
    pub(crate) fn put_task(
        &self,
        group: GroupId,
        task: Task,
        peer: DeviceId,
        due: UnixTime,
    ) -> Result<(), DeviceError> {
        let sql = "INSERT INTO group_task VALUES (?1, ?2, ?3, ?4, 0, NULL)
                   ON CONFLICT DO UPDATE SET due = min(due, excluded.due)";
        let due = due.0.cast_signed();
        self.transaction.execute(sql, params![group.as_bytes(), task as i64, peer.as_bytes(), due])?;
        Ok(())
    }

    /// Notes the group info that a member gave, in the place of its last.
    pub(crate) fn put_return(
        &self,
        group: GroupId,
        peer: DeviceId,
        frame: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<(), DeviceError> {
        let sealed = self.vault.seal(&place("group_task", group.as_bytes()), frame, rng)?;
        let sql = "INSERT OR REPLACE INTO group_task VALUES (?1, ?2, ?3, 0, 0, ?4)";
        let task = Task::Return as i64;
        self.transaction.execute(sql, params![group.as_bytes(), task, peer.as_bytes(), sealed])?;
        Ok(())
    }

    /// The group info that a member gave.
    pub(crate) fn return_frame(
        &self,
        group: GroupId,
        peer: DeviceId,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, DeviceError> {
        let sql = "SELECT frame FROM group_task WHERE group_id = ?1 AND task = ?2 AND peer = ?3";
        let key = params![group.as_bytes(), Task::Return as i64, peer.as_bytes()];
        let sealed: Option<Vec<u8>> = self.transaction.query_row(sql, key, |row| row.get(0)).optional()?;
        sealed.map(|sealed| self.vault.open(&place("group_task", group.as_bytes()), &sealed)).transpose()
    }

    /// Notes a task unless it is there.
    pub(crate) fn put_task_once(
        &self,
        group: GroupId,
        task: Task,
        peer: DeviceId,
        due: UnixTime,
    ) -> Result<(), DeviceError> {
        let sql = "INSERT OR IGNORE INTO group_task VALUES (?1, ?2, ?3, ?4, 0, NULL)";
        let due = due.0.cast_signed();
        self.transaction.execute(sql, params![group.as_bytes(), task as i64, peer.as_bytes(), due])?;
        Ok(())
    }

    /// Puts a task off, or notes it, and counts it. Returns how often that was.
    pub(crate) fn count_task(
        &self,
        group: GroupId,
        task: Task,
        peer: DeviceId,
        due: UnixTime,
    ) -> Result<u32, DeviceError> {
        let sql = "INSERT INTO group_task VALUES (?1, ?2, ?3, ?4, 1, NULL)
                   ON CONFLICT DO UPDATE SET due = excluded.due, tries = tries + 1 RETURNING tries";
        let key = params![group.as_bytes(), task as i64, peer.as_bytes(), due.0.cast_signed()];
        Ok(self.transaction.query_row(sql, key, |row| row.get(0))?)
    }

    /// Puts a task off without counting it.
    pub(crate) fn put_off_task(&self, group: GroupId, task: Task, due: UnixTime) -> Result<(), DeviceError> {
        let sql = "UPDATE group_task SET due = ?3 WHERE group_id = ?1 AND task = ?2";
        self.transaction.execute(sql, params![group.as_bytes(), task as i64, due.0.cast_signed()])?;
        Ok(())
    }

    /// How often a task of this device was tried, and when it is due; nothing if there is none.
    pub(crate) fn task(
        &self,
        group: GroupId,
        task: Task,
        peer: DeviceId,
    ) -> Result<Option<(u32, UnixTime)>, DeviceError> {
        let sql = "SELECT tries, due FROM group_task WHERE group_id = ?1 AND task = ?2 AND peer = ?3";
        let key = params![group.as_bytes(), task as i64, peer.as_bytes()];
        Ok(self.transaction.query_row(sql, key, |row| Ok((row.get(0)?, time(row, 1)?))).optional()?)
    }

    /// Tasks of one kind, of all groups.
    pub(crate) fn count_tasks(&self, task: Task) -> Result<usize, DeviceError> {
        let sql = "SELECT count(*) FROM group_task WHERE task = ?1";
        let count: i64 = self.transaction.query_row(sql, [task as i64], |row| row.get(0))?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    pub(crate) fn has_task(&self, group: GroupId, task: Task) -> Result<bool, DeviceError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM group_task WHERE group_id = ?1 AND task = ?2)";
        Ok(self.transaction.query_row(sql, params![group.as_bytes(), task as i64], |row| row.get(0))?)
    }

    /// Forgets the task of a group, whoever it is about.
    pub(crate) fn delete_tasks(&self, group: GroupId, task: Task) -> Result<(), DeviceError> {
        let sql = "DELETE FROM group_task WHERE group_id = ?1 AND task = ?2";
        self.transaction.execute(sql, params![group.as_bytes(), task as i64])?;
        Ok(())
    }

    /// Forgets the task of a group that is about one member.
    pub(crate) fn delete_task(&self, group: GroupId, task: Task, peer: DeviceId) -> Result<(), DeviceError> {
        let sql = "DELETE FROM group_task WHERE group_id = ?1 AND task = ?2 AND peer = ?3";
        self.transaction.execute(sql, params![group.as_bytes(), task as i64, peer.as_bytes()])?;
        Ok(())
    }
}
