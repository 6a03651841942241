//! Where members can be reached, and what for they were invited.

use rusqlite::{OptionalExtension as _, Row, params};
use sealpost_wire::api::keyserver::DevicePrekeys;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{DeviceId, GroupId, RecipientId};

use crate::error::DeviceError;
use crate::groups::rows::time;
use crate::store::Change;

/// The prekeys of a member, as the keyserver gave them.
pub(crate) struct PeerRow {
    pub(crate) prekeys: Vec<DevicePrekeys>,
    pub(crate) fetched: UnixTime,
}

impl Change<'_> {
    /// Remembers what a recipient was invited for.
    pub(crate) fn put_invited(
        &self,
        group: GroupId,
        recipient: RecipientId,
        category: &str,
    ) -> Result<(), DeviceError> {
        let sql = "INSERT OR REPLACE INTO group_invited VALUES (?1, ?2, ?3)";
        self.transaction.execute(sql, params![group.as_bytes(), recipient.as_bytes(), category])?;
        Ok(())
    }

    /// The category that this device has invited a recipient for.
    pub(crate) fn invited(
        &self,
        group: GroupId,
        recipient: RecipientId,
    ) -> Result<Option<String>, DeviceError> {
        let sql = "SELECT category FROM group_invited WHERE group_id = ?1 AND recipient = ?2";
        let key = params![group.as_bytes(), recipient.as_bytes()];
        Ok(self.transaction.query_row(sql, key, |row| row.get(0)).optional()?)
    }

    pub(crate) fn peer(&self, device: DeviceId) -> Result<Option<PeerRow>, DeviceError> {
        let sql = "SELECT fetched, prekeys FROM group_peer WHERE device = ?1";
        let read = |row: &Row<'_>| Ok((time(row, 0)?, row.get::<_, String>(1)?));
        let row = self.transaction.query_row(sql, [device.as_bytes()], read).optional()?;
        row.map(|(fetched, prekeys)| {
            let prekeys = serde_json::from_str(&prekeys).map_err(|_| DeviceError::Unreadable)?;
            Ok(PeerRow { prekeys, fetched })
        })
        .transpose()
    }

    pub(crate) fn put_peer(
        &self,
        device: DeviceId,
        prekeys: &[DevicePrekeys],
        now: UnixTime,
    ) -> Result<(), DeviceError> {
        let prekeys = serde_json::to_string(prekeys).map_err(|_| DeviceError::Unreadable)?;
        let sql = "INSERT OR REPLACE INTO group_peer VALUES (?1, ?2, ?3)";
        self.transaction.execute(sql, params![device.as_bytes(), now.0.cast_signed(), prekeys])?;
        Ok(())
    }

    /// The devices whose prekeys were fetched before a time, at most so many, the oldest first.
    pub(crate) fn peers(&self, before: UnixTime, most: usize) -> Result<Vec<DeviceId>, DeviceError> {
        let sql = "SELECT device FROM group_peer WHERE fetched < ?1 ORDER BY fetched LIMIT ?2";
        let mut statement = self.transaction.prepare_cached(sql)?;
        let limit = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let peers =
            statement.query_map([limit(before.0), limit(most as u64)], |row| row.get(0).map(DeviceId))?;
        Ok(peers.collect::<Result<_, _>>()?)
    }

    /// The prekeys of a device are fetched anew when they are needed.
    pub(crate) fn forget_peer(&self, device: DeviceId) -> Result<(), DeviceError> {
        self.transaction.execute("DELETE FROM group_peer WHERE device = ?1", [device.as_bytes()])?;
        Ok(())
    }
}
