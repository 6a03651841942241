//! What a command wants known once it is durable: jobs that came and went, mailboxes that grew, new events,
//! counts.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sealpost_wire::delivery::DeliveryState;
use sealpost_wire::id::{DeviceId, TenantId};
use sealpost_wire::payload::Priority;
use tokio::sync::watch;

use super::AppId;
use super::lane::{Due, Lane};
use super::metrics::StoreMetrics;
use super::waiters::MailboxWaiters;

/// What memory keeps beside the store, exact as of the last durable command.
pub(super) struct Shared {
    pub(super) lanes: HashMap<AppId, [Lane; 3]>,
    pub(super) mailboxes: MailboxWaiters,
    /// The last event of each tenant.
    pub(super) events: HashMap<TenantId, watch::Sender<u64>>,
    /// No deadline of a tenant below this time (seconds) is left.
    pub(super) passed: HashMap<TenantId, AtomicU64>,
    pub(super) metrics: StoreMetrics,
}

impl Shared {
    /// The lane of an app that is configured.
    pub(super) fn lane(&self, app: AppId, priority: Priority) -> Option<&Lane> {
        let [critical, normal, bulk] = self.lanes.get(&app)?;
        Some(match priority {
            Priority::Critical => critical,
            Priority::Normal => normal,
            Priority::Bulk => bulk,
        })
    }
}

/// Collected while a command decides, told when it is durable.
#[derive(Default)]
pub(super) struct Signals {
    jobs: Vec<JobSignal>,
    grown: Vec<DeviceId>,
    changes: Vec<(Option<DeliveryState>, DeliveryState)>,
    last_event: Option<u64>,
    deadline: Option<u64>,
}

struct JobSignal {
    app: AppId,
    priority: Priority,
    job: Due,
    change: JobChange,
}

enum JobChange {
    Inserted { now: bool },
    Removed,
}

impl Signals {
    pub(super) fn job_inserted(&mut self, app: AppId, priority: Priority, job: Due, now: bool) {
        self.jobs.push(JobSignal { app, priority, job, change: JobChange::Inserted { now } });
    }

    pub(super) fn job_removed(&mut self, app: AppId, priority: Priority, job: Due) {
        self.jobs.push(JobSignal { app, priority, job, change: JobChange::Removed });
    }

    pub(super) fn grown(&mut self, device: DeviceId) {
        self.grown.push(device);
    }

    pub(super) fn changed(&mut self, from: Option<DeliveryState>, to: DeliveryState) {
        self.changes.push((from, to));
    }

    pub(super) const fn last_event(&mut self, id: u64) {
        self.last_event = Some(id);
    }

    /// A deadline was set (seconds).
    pub(super) fn deadline(&mut self, at: u64) {
        self.deadline = Some(self.deadline.map_or(at, |earliest| earliest.min(at)));
    }

    /// Tells everybody. On the writer thread: short, and without waiting.
    pub(super) fn send(self, shared: &Arc<Shared>, tenant: &TenantId) {
        for signal in self.jobs {
            // Jobs of an app that is not configured any more stay in the store.
            let Some(lane) = shared.lane(signal.app, signal.priority) else { continue };
            match signal.change {
                JobChange::Inserted { now } => lane.inserted(signal.job, now),
                JobChange::Removed => lane.removed(signal.job),
            }
        }
        for device in self.grown {
            shared.mailboxes.grown(tenant, device);
        }
        for (from, to) in self.changes {
            shared.metrics.changed(from, to);
        }
        if let (Some(at), Some(passed)) = (self.deadline, shared.passed.get(tenant)) {
            passed.fetch_min(at, Ordering::SeqCst);
        }
        if let (Some(id), Some(sender)) = (self.last_event, shared.events.get(tenant)) {
            sender.send_replace(id);
        }
    }
}
