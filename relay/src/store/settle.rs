//! Pushes come to an end: what providers said is brought to the mailboxes.

use std::sync::Arc;

use sealpost_service::audit::Entry;
use sealpost_service::engine::{Space, View};
use sealpost_wire::delivery::{DeliveryState, PushFailure};
use sealpost_wire::id::DeviceId;

use super::change::{Cause, Change, OpenMailbox};
use super::delivery_row::DeliveryRow;
use super::event_row::NewEvent;
use super::key::{self, DELIVERIES};
use super::lane::Due;
use super::lease::{LaneId, Lease};
use super::schedule::Schedules;
use super::signals::Shared;
use super::{Damaged, Store, StoreError};

/// What became of a leased push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushResult {
    /// The provider accepted the stub.
    Pushed,
    /// The token is dead since this time (milliseconds), or now. One that was registered later is not.
    Dead {
        /// Since when.
        since_ms: Option<u64>,
    },
    /// The provider does not know the token: it is not used again until it is registered again.
    Refused,
    /// To be tried again.
    Retry {
        /// When (milliseconds).
        due_ms: u64,
        /// The id of the push, the same at each attempt.
        push_id: [u8; 16],
        /// Why.
        why: PushFailure,
    },
    /// Nothing of the app can be pushed for now; the job is as due as before.
    Stopped {
        /// Why.
        why: PushFailure,
    },
}

impl PushResult {
    /// Why the attempt failed; nothing for one that did not.
    #[must_use]
    pub const fn failure(&self) -> Option<PushFailure> {
        match self {
            Self::Pushed => None,
            Self::Dead { .. } => Some(PushFailure::TokenDead),
            Self::Refused => Some(PushFailure::TokenRefused),
            Self::Retry { why, .. } | Self::Stopped { why } => Some(*why),
        }
    }
}

/// A leased push and what became of it.
#[derive(Clone, Debug)]
pub struct Settling {
    /// The lease, which ends.
    pub lease: Lease,
    /// What became of it.
    pub result: PushResult,
}

/// Cursors that are looked up one by one; more are read as a range.
const CURSORS_SINGLY_MAX: u64 = 16;
/// The newest messages that a failed stub stood for, and that are told so: the older ones heard of earlier attempts.
const NOTED_MAX: u64 = 8;

impl Store {
    /// Settles pushes of one lane in one write. The leases end, unless it fails. Each attempt that failed is noted
    /// in the events of the messages that the stub stood for.
    ///
    /// # Errors
    /// [`StoreError`]; the leases are as they were, and the same may be tried again.
    pub async fn settle(
        &self,
        id: &LaneId,
        settlings: Arc<[Settling]>,
        now_ms: u64,
        audit: Vec<Entry>,
    ) -> Result<(), StoreError> {
        let (shared, schedules) = (self.shared.clone(), self.schedules.clone());
        let (lane, home) = (id.clone(), self.home(&id.tenant)?);
        let decide = move |view: &mut View| {
            let mut change = Change::new(view, lane.tenant.clone(), home, now_ms);
            let mut settled = Vec::with_capacity(settlings.len());
            for one in settlings.iter() {
                let stands = settle(&mut change, &lane, one, &schedules)?;
                settled.push(((one.lease.due_ms, one.lease.device), stands));
            }
            audit.iter().for_each(|entry| change.audit(entry));
            change.finish(&shared);
            // Even if nobody waits for the answer any more: a lease that never ends is a device that is never
            // pushed.
            view.after_commit(move || end_leases(&shared, &lane, settled));
            Ok(())
        };
        self.write_with("settle", Space::Frees, decide).await
    }
}

fn end_leases(shared: &Shared, id: &LaneId, settled: Vec<(Due, bool)>) {
    let Some(lane) = shared.lane(id.app, id.priority) else { return };
    for (job, stands) in settled {
        if stands {
            lane.give_back(job);
        } else {
            lane.finished(job);
        }
    }
}

/// Settles one push. Whether the job stands where it stood: due at once, for what came within the same
/// millisecond.
fn settle(
    change: &mut Change<'_>,
    lane: &LaneId,
    settling: &Settling,
    schedules: &Schedules,
) -> Result<bool, Damaged> {
    let lease = &settling.lease;
    let Some(mut open) = change.mailbox(lease.device)? else { return Ok(false) };
    let before = open.mailbox.clone();
    // A job that moved meanwhile stands; its own push will settle it.
    let is_current = open.mailbox.job.as_ref().is_some_and(|job| job.due_ms == lease.due_ms);
    match &settling.result {
        PushResult::Pushed => {
            let newer = mark_pushed(change, &open, lease.through)?;
            if is_current {
                open.mailbox.pushed(lease.through, newer, change.now_ms, schedules);
            } else {
                open.mailbox.queued_from = open.mailbox.queued_from.max(lease.through + 1);
            }
        }
        PushResult::Retry { due_ms, push_id, why } => {
            note_failure(change, &open, lease, *why)?;
            if is_current {
                open.mailbox.failed(*due_ms, *push_id);
            }
        }
        PushResult::Stopped { why } => note_failure(change, &open, lease, *why)?,
        PushResult::Dead { since_ms } => {
            let is_older = since_ms.is_none_or(|since| lease.registered_ms <= since);
            if is_older {
                lose_token(change, &mut open, lease, PushFailure::TokenDead)?;
            } else {
                note_failure(change, &open, lease, PushFailure::AnswerOutdated)?;
                if is_current {
                    open.mailbox.pushed(0, false, change.now_ms, schedules);
                }
            }
        }
        PushResult::Refused => lose_token(change, &mut open, lease, PushFailure::TokenRefused)?,
    }
    let job = open.mailbox.job.as_ref().filter(|_| open.mailbox.app == Some(lane.app));
    let stands = job.is_some_and(|job| job.due_ms == lease.due_ms && job.priority == lane.priority);
    if open.mailbox != before {
        change.close(open);
    }
    Ok(stands)
}

/// Brings what was queued up to `through` into `pushed`. Whether something behind it is queued.
fn mark_pushed(change: &mut Change<'_>, open: &OpenMailbox, through: u64) -> Result<bool, Damaged> {
    let mailbox = &open.mailbox;
    let mut newer = false;
    for (cursor, mut row) in waiting(change, mailbox.number, mailbox.queued_from, mailbox.next_cursor)? {
        if !row.state.allows(DeliveryState::Pushed) {
            continue;
        }
        if cursor > through {
            newer = true;
            break;
        }
        change.move_waiting(open.device, &mut row, DeliveryState::Pushed, Cause::default())?;
        change.put_delivery(mailbox.number, cursor, &row);
    }
    Ok(newer)
}

/// Notes a failed attempt at the newest messages that the stub stood for: they stay as they were.
fn note_failure(
    change: &mut Change<'_>,
    open: &OpenMailbox,
    lease: &Lease,
    why: PushFailure,
) -> Result<(), Damaged> {
    let to = lease.through + 1;
    let from = open.mailbox.waiting_from.max(to.saturating_sub(NOTED_MAX));
    for (_, row) in waiting(change, open.mailbox.number, from, to)? {
        if row.state.wants_push() {
            note(change, lease.device, &row, why)?;
        }
    }
    Ok(())
}

/// An event that changes nothing, and says why.
fn note(
    change: &mut Change<'_>,
    device: DeviceId,
    row: &DeliveryRow,
    why: PushFailure,
) -> Result<(), Damaged> {
    change.event(&NewEvent {
        message: row.message,
        author: &row.author,
        device,
        from: Some(row.state),
        to: row.state,
        late: false,
        reason: why.code(),
        receipt: &[],
    })?;
    Ok(())
}

/// The push token is gone: what was pushed is queued again, and says why.
fn lose_token(
    change: &mut Change<'_>,
    open: &mut OpenMailbox,
    lease: &Lease,
    loss: PushFailure,
) -> Result<(), Damaged> {
    let Some(mut device) = change.device(lease.device)? else { return Ok(()) };
    // Registered anew since the push began: the answer is about the token before.
    let Some(push) = device.push.as_mut().filter(|push| push.registered_ms == lease.registered_ms) else {
        return Ok(());
    };
    if loss == PushFailure::TokenDead {
        device.push = None;
    } else {
        push.refused = true;
    }
    change.put_device(lease.device, &device);
    open.mailbox.redirect(None, false, change.now_ms);
    open.mailbox.requeue();
    let (from, to) = (open.mailbox.waiting_from, open.mailbox.next_cursor);
    for (cursor, mut row) in waiting(change, open.mailbox.number, from, to)? {
        if row.state.allows(DeliveryState::Queued) {
            let cause = Cause { reason: loss.code(), receipt: &[] };
            change.move_waiting(lease.device, &mut row, DeliveryState::Queued, cause)?;
            change.put_delivery(open.mailbox.number, cursor, &row);
        } else if row.state.wants_push() {
            note(change, lease.device, &row, loss)?;
        }
    }
    Ok(())
}

/// The waiting deliveries of a mailbox with cursors in `from..to`.
pub(super) fn waiting(
    change: &Change<'_>,
    device_number: u64,
    from: u64,
    to: u64,
) -> Result<Vec<(u64, DeliveryRow)>, Damaged> {
    let mut found = Vec::new();
    if to.saturating_sub(from) <= CURSORS_SINGLY_MAX {
        for cursor in from..to {
            found.extend(change.delivery(device_number, cursor)?.map(|row| (cursor, row)));
        }
        return Ok(found);
    }
    let from = key::delivery(change.home, device_number, from);
    let to = key::delivery(change.home, device_number, to);
    for (key, value) in change.view.range(DELIVERIES, from.as_slice()..to.as_slice()) {
        let row = DeliveryRow::decode(&value).zip(key::last_number(&key));
        let (row, cursor) = row.ok_or(Damaged(DELIVERIES.name()))?;
        found.push((cursor, row));
    }
    Ok(found)
}
