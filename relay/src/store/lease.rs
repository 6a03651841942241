//! Due push jobs are leased to a worker.

use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{DeviceId, TenantId};
use sealpost_wire::payload::Priority;

use super::codec::Decoder;
use super::device_row::PushTarget;
use super::key::{self, DEVICES, JOBS, MAILBOXES};
use super::lane::{Due, Lane, SCAN_ROWS_MAX};
use super::mailbox::Mailbox;
use super::{AppId, Damaged, Store, StoreError};
use crate::push_token::SealedPushToken;

/// The jobs of one app and priority.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LaneId {
    /// The app's tenant.
    pub tenant: TenantId,
    /// The app.
    pub app: AppId,
    /// The priority.
    pub priority: Priority,
}

/// A push job that a worker has. It stays leased until it is [settled](Store::settle) or
/// [given back](Store::give_back).
#[derive(Clone, Debug)]
pub struct Lease {
    /// The device.
    pub device: DeviceId,
    /// When it was due (milliseconds): names the job among those of the device.
    pub due_ms: u64,
    /// The stub stands for all boxes up to this cursor.
    pub through: u64,
    /// The device's push token.
    pub token: SealedPushToken,
    /// When the token was registered (milliseconds).
    pub registered_ms: u64,
    /// The id of the push, if it was tried before.
    pub push_id: Option<[u8; 16]>,
    /// How many attempts have failed.
    pub failures: u8,
    /// When the last of the waiting messages expires.
    pub latest_expiry: UnixTime,
}

impl Store {
    /// Leases up to `max` jobs that are due. Reads; writes nothing: leases are kept in memory.
    ///
    /// # Errors
    /// [`StoreError`]; what had been leased so far is given back.
    pub fn lease(&self, id: &LaneId, now_ms: u64, max: usize) -> Result<Vec<Lease>, StoreError> {
        let Some(lane) = self.shared.lane(id.app, id.priority) else { return Ok(Vec::new()) };
        let mut jobs = lane.take(max);
        while jobs.len() < max && self.scan(id, lane, now_ms)? {
            jobs.extend(lane.take(max - jobs.len()));
        }
        let mut leases = Vec::with_capacity(jobs.len());
        for (position, job) in jobs.iter().enumerate() {
            match self.open_job(id, *job) {
                Ok(Some(lease)) => leases.push(lease),
                // The job went, or moved, and its commit is about to be told.
                Ok(None) => lane.finished(*job),
                Err(error) => {
                    jobs[position..].iter().for_each(|job| lane.give_back(*job));
                    self.give_back(id, leases.iter());
                    return Err(error);
                }
            }
        }
        Ok(leases)
    }

    /// Ends leases without a word about the jobs: they are as due as before.
    pub fn give_back<'l>(&self, id: &LaneId, leases: impl IntoIterator<Item = &'l Lease>) {
        if let Some(lane) = self.shared.lane(id.app, id.priority) {
            leases.into_iter().for_each(|lease| lane.give_back((lease.due_ms, lease.device)));
        }
    }

    /// Takes one look into the store. Whether it did, and so whether another look may bring more.
    fn scan(&self, id: &LaneId, lane: &Lane, now_ms: u64) -> Result<bool, StoreError> {
        let home = self.home(&id.tenant)?;
        let Some(scan) = lane.begin_scan(now_ms) else { return Ok(false) };
        let (mut due, mut rest_from, mut failure) = (Vec::new(), None, None);
        let from = key::job(home, id.app, id.priority, scan.from, 0);
        let to = key::job(home, id.app, id.priority, scan.to + 1, 0);
        for row in self.engine.snapshot().range(JOBS, from.as_slice()..to.as_slice()) {
            let job = match row {
                Ok((key, value)) => job_of(&key, &value),
                Err(error) => {
                    (rest_from, failure) = (Some(scan.from), Some(error));
                    break;
                }
            };
            let Some((at, device)) = job else { continue };
            if at > now_ms || due.len() >= SCAN_ROWS_MAX {
                rest_from = Some(at);
                break;
            }
            if !lane.is_held((at, device)) {
                due.push((at, device));
            }
        }
        lane.scanned(&due, rest_from);
        failure.map_or(Ok(true), |error| Err(error.into()))
    }

    /// What a worker needs for a job; nothing when the job is not that of the device's mailbox any more.
    fn open_job(&self, id: &LaneId, (due_ms, device): Due) -> Result<Option<Lease>, StoreError> {
        let key = key::device(self.home(&id.tenant)?, device);
        let Some(mailbox) = self.engine.get(MAILBOXES, key)? else { return Ok(None) };
        let mailbox = Mailbox::decode(&mailbox).ok_or(Damaged(MAILBOXES.name()))?;
        let through = mailbox.next_cursor - 1;
        let job = match mailbox.job {
            Some(job) if job.due_ms == due_ms && job.priority == id.priority => job,
            _ => return Ok(None),
        };
        let Some(row) = self.engine.get(DEVICES, key)? else { return Ok(None) };
        let target = PushTarget::decode(&row).ok_or(Damaged(DEVICES.name()))?;
        let target = target.filter(|push| push.app == id.app && !push.refused);
        Ok(target.map(|target| Lease {
            device,
            due_ms,
            through,
            token: target.token,
            registered_ms: target.registered_ms,
            push_id: job.push_id,
            failures: job.failures,
            latest_expiry: mailbox.latest_expiry,
        }))
    }
}

/// The job in a row: when it is due, and of which device.
pub(super) fn job_of(key: &[u8], value: &[u8]) -> Option<Due> {
    let mut row = Decoder::new(value)?;
    let device = DeviceId(row.array()?);
    row.end(key::due(key)?).map(|due| (due, device))
}
