//! Devices that stay connected until a box comes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sealpost_wire::id::{DeviceId, TenantId};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::signals::Shared;

/// Who waits, by mailbox. At most so many at a time; one that finds no room is answered at once.
pub(super) struct MailboxWaiters {
    waiting_max: usize,
    state: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    count: usize,
    by_mailbox: HashMap<(TenantId, DeviceId), (Arc<Notify>, usize)>,
}

impl MailboxWaiters {
    pub(super) fn new(waiting_max: usize) -> Self {
        Self { waiting_max, state: Mutex::default() }
    }

    /// How many wait.
    pub(super) fn count(&self) -> usize {
        self.state().count
    }

    /// A box came, and is visible.
    pub(super) fn grown(&self, tenant: &TenantId, device: DeviceId) {
        let state = self.state();
        if state.count > 0
            && let Some((notify, _)) = state.by_mailbox.get(&(tenant.clone(), device))
        {
            notify.notify_waiters();
        }
    }

    fn state(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics between two changes of the state, so a poisoned lock still guards a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for one mailbox; over when it is dropped.
pub struct MailboxWaiter {
    shared: Arc<Shared>,
    mailbox: (TenantId, DeviceId),
    notify: Arc<Notify>,
}

impl MailboxWaiter {
    /// Begins to wait, if there is room.
    pub(super) fn new(shared: &Arc<Shared>, tenant: &TenantId, device: DeviceId) -> Option<Self> {
        let mut state = shared.mailboxes.state();
        if state.count >= shared.mailboxes.waiting_max {
            return None;
        }
        state.count += 1;
        let mailbox = (tenant.clone(), device);
        let (notify, count) = state.by_mailbox.entry(mailbox.clone()).or_default();
        *count += 1;
        let notify = notify.clone();
        drop(state);
        Some(Self { shared: shared.clone(), mailbox, notify })
    }

    /// Comes when a box has come since this was called: call it, then look into the store, then await it.
    pub fn grown(&self) -> Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for MailboxWaiter {
    fn drop(&mut self) {
        let mut state = self.shared.mailboxes.state();
        state.count -= 1;
        if let Some((_, count)) = state.by_mailbox.get_mut(&self.mailbox) {
            *count -= 1;
            if *count == 0 {
                state.by_mailbox.remove(&self.mailbox);
            }
        }
    }
}
