//! Frames that are kept for later, and who wrote them.

use rand_core::CryptoRng;
use rusqlite::{OptionalExtension as _, params};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{DeviceId, GroupId};
use sealpost_wire::record::DeviceRecord;
use zeroize::Zeroizing;

use crate::error::DeviceError;
use crate::store::Change;
use crate::vault::place;

/// How many frames are kept for later.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeldLimits {
    /// Of one author.
    pub(crate) of_author: usize,
    /// Of all groups and authors.
    pub(crate) of_all: usize,
}

/// A frame that waits for what comes before it.
pub(crate) struct HeldRow {
    pub(crate) id: i64,
    pub(crate) author: DeviceId,
    /// It was here when the device came back into the group: what it says of an epoch is not believed once more.
    pub(crate) asked: bool,
    pub(crate) frame: Zeroizing<Vec<u8>>,
}

impl Change<'_> {
    /// Keeps a frame for later, within limits: the oldest go first.
    pub(crate) fn hold_frame(
        &self,
        group: GroupId,
        author: DeviceId,
        frame: &[u8],
        (now, limits): (UnixTime, HeldLimits),
        rng: &mut dyn CryptoRng,
    ) -> Result<(), DeviceError> {
        let sealed = self.vault.seal(&place("group_held", group.as_bytes()), frame, rng)?;
        let sql = "INSERT INTO group_held (group_id, author, since, asked, frame) VALUES (?1, ?2, ?3, 0, ?4)";
        let since = now.0.cast_signed();
        self.transaction.execute(sql, params![group.as_bytes(), author.as_bytes(), since, sealed])?;
        let limit = |limit: usize| i64::try_from(limit).unwrap_or(i64::MAX);
        let sql = "DELETE FROM group_held WHERE author = ?1 AND id NOT IN
                       (SELECT id FROM group_held WHERE author = ?1 ORDER BY id DESC LIMIT ?2)";
        self.transaction.execute(sql, params![author.as_bytes(), limit(limits.of_author)])?;
        let sql = "DELETE FROM group_held WHERE id NOT IN
                       (SELECT id FROM group_held ORDER BY id DESC LIMIT ?1)";
        self.transaction.execute(sql, [limit(limits.of_all)])?;
        Ok(())
    }

    /// Groups whose frames were kept.
    pub(crate) fn groups_with_held(&self) -> Result<Vec<GroupId>, DeviceError> {
        let mut statement = self.transaction.prepare_cached("SELECT DISTINCT group_id FROM group_held")?;
        let groups = statement.query_map([], |row| row.get(0).map(GroupId))?;
        Ok(groups.collect::<Result<_, _>>()?)
    }

    /// Who wrote the frames of a group that were kept, the latest first.
    pub(crate) fn held_authors(&self, group: GroupId, most: usize) -> Result<Vec<DeviceId>, DeviceError> {
        let sql = "SELECT author FROM group_held WHERE group_id = ?1 GROUP BY author
                   ORDER BY max(id) DESC LIMIT ?2";
        let mut statement = self.transaction.prepare_cached(sql)?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let authors = statement.query_map(params![group.as_bytes(), most], |row| row.get(0).map(DeviceId))?;
        Ok(authors.collect::<Result<_, _>>()?)
    }

    /// Remembers the record of a device whose frame could not be used: it is to be asked for the way in.
    pub(crate) fn put_author(
        &self,
        device: DeviceId,
        record: &[u8],
        now: UnixTime,
    ) -> Result<(), DeviceError> {
        let sql = "INSERT OR REPLACE INTO group_author VALUES (?1, ?2, ?3)";
        self.transaction.execute(sql, params![device.as_bytes(), now.0.cast_signed(), record])?;
        Ok(())
    }

    /// The records of those of `devices` that were remembered.
    pub(crate) fn author_records(&self, devices: &[DeviceId]) -> Result<Vec<DeviceRecord>, DeviceError> {
        let mut statement =
            self.transaction.prepare_cached("SELECT record FROM group_author WHERE device = ?1")?;
        let mut records = Vec::new();
        for device in devices {
            let record: Option<Vec<u8>> =
                statement.query_row([device.as_bytes()], |row| row.get(0)).optional()?;
            records.extend(record.map(|record| DeviceRecord::verify(&record)).transpose()?);
        }
        Ok(records)
    }

    /// The frames of a group that were kept, oldest first.
    pub(crate) fn held_frames(&self, group: GroupId) -> Result<Vec<HeldRow>, DeviceError> {
        let sql = "SELECT id, author, frame, asked FROM group_held WHERE group_id = ?1 ORDER BY id";
        let mut statement = self.transaction.prepare_cached(sql)?;
        let mut rows = statement.query([group.as_bytes()])?;
        let mut held = Vec::new();
        while let Some(row) = rows.next()? {
            let sealed: Vec<u8> = row.get(2)?;
            held.push(HeldRow {
                id: row.get(0)?,
                author: DeviceId(row.get(1)?),
                asked: row.get(3)?,
                frame: self.vault.open(&place("group_held", group.as_bytes()), &sealed)?,
            });
        }
        Ok(held)
    }

    /// The device has come back into a group: what is kept of it was no reason to be believed, if it cannot be used now.
    pub(crate) fn mark_held_asked(&self, group: GroupId) -> Result<(), DeviceError> {
        self.transaction
            .execute("UPDATE group_held SET asked = 1 WHERE group_id = ?1", [group.as_bytes()])?;
        Ok(())
    }

    pub(crate) fn delete_held(&self, id: i64) -> Result<(), DeviceError> {
        self.transaction.execute("DELETE FROM group_held WHERE id = ?1", [id])?;
        Ok(())
    }

    /// Forgets the frames that were kept before `since`, and who wrote nothing else.
    pub(crate) fn forget_held(&self, since: UnixTime) -> Result<(), DeviceError> {
        let since = since.0.cast_signed();
        self.transaction.execute("DELETE FROM group_held WHERE since < ?1", [since])?;
        self.transaction.execute("DELETE FROM group_author WHERE seen < ?1", [since])?;
        Ok(())
    }
}
