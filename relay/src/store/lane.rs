//! What memory knows of the push jobs of one app and priority: which are held (ready or in flight), and where
//! in the store to look for others.
//!
//! A job row is either *held* here, or a *hint* says that something may be due around its time; so an idle
//! lane sleeps, and a look-up never walks over rows that are gone: of a time slot without a hint it reads
//! nothing, and it reads a slot once. Hints are not taken back when a job goes, which costs one look into an
//! empty slot.
//!
//! Changes arrive in the order of commits
//! ([`View::after_commit`](sealpost_service::engine::View::after_commit)), right after they became visible.
//! Leases are kept here only: a restart makes every job due again.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sealpost_wire::id::DeviceId;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Jobs that wait in memory for a worker; further ones are found in the store when their turn comes.
const READY_MAX: usize = 4096;
/// Jobs that one look into the store brings.
pub(super) const SCAN_ROWS_MAX: usize = 512;
/// A slot of time is 2^13 milliseconds, about 8 seconds.
const SLOT_BITS: u32 = 13;

/// The jobs of one app and priority.
#[derive(Default)]
pub(super) struct Lane {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    /// In the order they are to be done. One whose device is not held with the same time, or is leased, is void.
    ready: VecDeque<Due>,
    held: HashMap<DeviceId, Held>,
    /// By slot: the earliest time at which something may be due.
    hints: BTreeMap<u64, u64>,
    /// What went while the store is being looked at.
    gone_during_scan: Option<HashSet<Due>>,
}

/// A job that is known here.
struct Held {
    due: u64,
    /// A worker has it. Otherwise it is ready.
    leased: bool,
}

/// When a job is due (milliseconds), and of which device.
pub(super) type Due = (u64, DeviceId);

/// A stretch of time to look at in the store, both ends included (milliseconds).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scan {
    pub(super) from: u64,
    pub(super) to: u64,
}

impl Lane {
    /// A job was stored. One that is due now waits here if there is room.
    pub(super) fn inserted(&self, (due, device): Due, now: bool) {
        let mut state = self.state();
        if state.holds((due, device)) {
            // A scan saw it before its commit was told here.
            return;
        }
        if now && state.ready.len() < READY_MAX {
            state.make_ready((due, device));
        } else {
            state.hint(due);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// A job is not stored any more.
    pub(super) fn removed(&self, job: Due) {
        let mut state = self.state();
        state.forget(job);
        if let Some(gone) = &mut state.gone_during_scan {
            gone.insert(job);
        }
    }

    /// Something may be due at `due` that only the store knows.
    pub(super) fn hint(&self, due: u64) {
        self.state().hint(due);
    }

    /// Up to `max` jobs, for a worker: they stay held until they are [finished](Self::finished) or
    /// [given back](Self::give_back).
    pub(super) fn take(&self, max: usize) -> Vec<Due> {
        let mut state = self.state();
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some((due, device)) = state.ready.pop_front()
        {
            if let Some(held) = state.held.get_mut(&device)
                && held.due == due
                && !held.leased
            {
                held.leased = true;
                taken.push((due, device));
            }
        }
        taken
    }

    /// Ends the lease of a job whose row is settled, or was found to be another.
    pub(super) fn finished(&self, job: Due) {
        self.state().forget(job);
    }

    /// Ends the lease of a job that is as due as before.
    pub(super) fn give_back(&self, (due, device): Due) {
        let mut state = self.state();
        // A job that went and came again within a millisecond is ready already.
        if let Some(held) = state.held.get_mut(&device)
            && held.due == due
            && held.leased
        {
            held.leased = false;
            state.ready.push_front((due, device));
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Where to look for jobs that are due at `now` and not held, if anywhere. [`Self::scanned`] must follow.
    pub(super) fn begin_scan(&self, now: u64) -> Option<Scan> {
        let mut state = self.state();
        let (&slot, &from) = state.hints.first_key_value()?;
        if from > now || state.gone_during_scan.is_some() {
            return None;
        }
        state.hints.remove(&slot);
        state.gone_during_scan = Some(HashSet::new());
        Some(Scan { from, to: slot_end(slot) })
    }

    /// What the store had: jobs that are due, and from when on there is more.
    pub(super) fn scanned(&self, due: &[Due], rest_from: Option<u64>) {
        let mut state = self.state();
        let gone = state.gone_during_scan.take().unwrap_or_default();
        for &(at, device) in due.iter().filter(|job| !gone.contains(*job)) {
            if !state.holds((at, device)) {
                state.make_ready((at, device));
            }
        }
        if let Some(from) = rest_from {
            state.hint(from);
        }
    }

    /// Whether a job of this device and time is held.
    pub(super) fn is_held(&self, job: Due) -> bool {
        self.state().holds(job)
    }

    /// When there is work, as far as is known: 0 when a job is ready.
    pub(super) fn next_due(&self) -> Option<u64> {
        let state = self.state();
        if state.ready.is_empty() { state.hints.first_key_value().map(|(_, due)| *due) } else { Some(0) }
    }

    /// Since when the oldest job that is due waits (milliseconds), as far as is known.
    pub(super) fn oldest_due(&self, now: u64) -> Option<u64> {
        let state = self.state();
        let ready = state.ready.front().map(|(due, _)| *due);
        let hinted = state.hints.first_key_value().map(|(_, due)| *due).filter(|due| *due <= now);
        ready.into_iter().chain(hinted).min()
    }

    /// Jobs that wait here, and jobs here in all.
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.ready.len(), state.held.len())
    }

    /// Comes when there may be new work.
    pub(super) fn woken(&self) -> Notified<'_> {
        self.wake.notified()
    }

    /// Lets the worker look again, whatever the hints say.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics between two changes of the state, so a poisoned lock still guards a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn hint(&mut self, due: u64) {
        let earliest = self.hints.entry(due >> SLOT_BITS).or_insert(due);
        *earliest = due.min(*earliest);
    }

    fn holds(&self, (due, device): Due) -> bool {
        self.held.get(&device).is_some_and(|held| held.due == due)
    }

    fn make_ready(&mut self, (due, device): Due) {
        self.held.insert(device, Held { due, leased: false });
        self.ready.push_back((due, device));
    }

    fn forget(&mut self, job: Due) {
        if self.holds(job) {
            self.held.remove(&job.1);
        }
    }
}

const fn slot_end(slot: u64) -> u64 {
    (slot << SLOT_BITS) | ((1 << SLOT_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn device(number: u8) -> DeviceId {
        DeviceId([number; 16])
    }

    #[test]
    fn a_job_that_is_due_is_taken_once_and_one_that_went_is_not() {
        let lane = Lane::default();
        lane.inserted((10, device(1)), true);
        lane.inserted((11, device(2)), true);
        lane.removed((11, device(2)));
        assert_eq!(lane.take(9), [(10, device(1))]);
        assert_eq!(lane.take(9), []);
        assert_eq!(lane.next_due(), None);
        lane.give_back((10, device(1)));
        assert_eq!(lane.take(9), [(10, device(1))]);
        lane.finished((10, device(1)));
        lane.give_back((10, device(1)));
        assert_eq!(lane.take(9), [], "settled is settled");
    }

    #[test]
    fn a_job_that_went_and_came_again_in_the_same_millisecond_is_taken_once() {
        let lane = Lane::default();
        let job = (10, device(1));
        lane.inserted(job, true);
        lane.removed(job);
        lane.inserted(job, true);
        assert_eq!(lane.take(9), [job]);
        lane.removed(job);
        lane.inserted(job, true);
        lane.give_back(job);
        assert_eq!(lane.take(9), [job], "the earlier lease gives nothing back");
    }

    #[test]
    fn the_store_is_looked_at_when_a_hint_is_due_and_each_slot_once() {
        let lane = Lane::default();
        lane.inserted((20_000, device(1)), false);
        assert_eq!(lane.next_due(), Some(20_000));
        assert_eq!(lane.begin_scan(19_999), None);
        let scan = lane.begin_scan(20_000).unwrap();
        assert_eq!((scan.from, scan.to), (20_000, 24_575));
        assert_eq!(lane.begin_scan(20_000), None, "one at a time");
        lane.scanned(&[(20_000, device(1))], Some(21_000));
        assert_eq!(lane.take(1), [(20_000, device(1))]);
        assert_eq!(lane.next_due(), Some(21_000));
        assert!(lane.begin_scan(21_000).is_some());
        lane.scanned(&[], None);
        assert_eq!(lane.next_due(), None);
    }

    #[test]
    fn changes_during_a_scan_are_not_lost() {
        let lane = Lane::default();
        lane.hint(1);
        lane.begin_scan(100).unwrap();
        lane.removed((5, device(1)));
        lane.inserted((7, device(3)), true);
        lane.scanned(&[(5, device(1)), (6, device(2)), (7, device(3))], None);
        // Its commit is told after the scan saw it.
        lane.inserted((6, device(2)), true);
        assert_eq!(lane.take(9), [(7, device(3)), (6, device(2))]);
    }

    #[test]
    fn what_finds_no_room_is_found_in_the_store() {
        let lane = Lane::default();
        for number in 0..=u64::try_from(READY_MAX).unwrap() {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&number.to_be_bytes());
            lane.inserted((number, DeviceId(id)), true);
        }
        assert_eq!(lane.counts(), (READY_MAX, READY_MAX));
        let scan = lane.begin_scan(10_000).unwrap();
        assert_eq!(scan.from, u64::try_from(READY_MAX).unwrap());
    }
}
