//! One state change: what a command reads and writes, the events it makes, and what is told once it is
//! durable.

use std::sync::Arc;

use sealpost_service::audit::{self, Entry};
use sealpost_service::engine::{Keyspace, View};
use sealpost_wire::delivery::DeliveryState;
use sealpost_wire::id::{DeviceId, SubjectId, TenantId, TransportId};
use sealpost_wire::payload::Priority;

use super::delivery_row::DeliveryRow;
use super::device_row::Device;
use super::event_row::{EventBatch, EventBounds, NewEvent};
use super::key::{self, BOXES, DEADLINES, DELIVERIES, DEVICES, EVENTS, JOBS, MAILBOXES, MESSAGES, SHARED};
use super::mailbox::Mailbox;
use super::message_row::{DeliveryEnd, MessageRow};
use super::signals::{Shared, Signals};
use super::{AppId, Damaged};

/// The change that one command makes, within one tenant.
pub(super) struct Change<'v> {
    pub(super) view: &'v mut View,
    pub(super) tenant: TenantId,
    /// The time of the change (milliseconds).
    pub(super) now_ms: u64,
    events: Option<(EventBounds, EventBatch)>,
    signals: Signals,
}

/// A mailbox that a change works on; [`Change::close`] writes it.
pub(super) struct OpenMailbox {
    pub(super) device: DeviceId,
    pub(super) mailbox: Mailbox,
    stored_job: Option<JobPlace>,
}

/// Where a job's row is.
type JobPlace = (AppId, Priority, u64);

impl OpenMailbox {
    fn new(device: DeviceId, mailbox: Mailbox) -> Self {
        Self { device, stored_job: place(&mailbox), mailbox }
    }
}

fn place(mailbox: &Mailbox) -> Option<JobPlace> {
    let job = mailbox.job.as_ref()?;
    mailbox.app.map(|app| (app, job.priority, job.due_ms))
}

impl<'v> Change<'v> {
    pub(super) fn new(view: &'v mut View, tenant: TenantId, now_ms: u64) -> Self {
        Self { view, tenant, now_ms, events: None, signals: Signals::default() }
    }

    /// The mailbox of a device; nothing when the device never registered.
    pub(super) fn mailbox(&self, device: DeviceId) -> Result<Option<OpenMailbox>, Damaged> {
        let mailbox = self.read(MAILBOXES, &key::device(&self.tenant, device), Mailbox::decode)?;
        Ok(mailbox.map(|mailbox| OpenMailbox::new(device, mailbox)))
    }

    /// The mailbox of a device that registers for the first time.
    pub(super) const fn new_mailbox(device: DeviceId) -> OpenMailbox {
        OpenMailbox { device, mailbox: Mailbox::new(), stored_job: None }
    }

    /// Writes a mailbox, and moves its job's row where it belongs.
    pub(super) fn close(&mut self, open: OpenMailbox) {
        let OpenMailbox { device, mailbox, stored_job } = open;
        let wanted = place(&mailbox);
        if stored_job != wanted {
            if let Some((app, priority, due_ms)) = stored_job {
                self.view.remove(JOBS, key::job(&self.tenant, app, priority, due_ms, device));
                self.signals.job_removed(app, priority, (due_ms, device));
            }
            if let Some((app, priority, due_ms)) = wanted {
                self.view.put(
                    JOBS,
                    key::job(&self.tenant, app, priority, due_ms, device),
                    [key::STORE_VERSION],
                );
                self.signals.job_inserted(app, priority, (due_ms, device), due_ms <= self.now_ms);
            }
        }
        self.view.put(MAILBOXES, key::device(&self.tenant, device), mailbox.encode());
    }

    pub(super) fn device(&self, device: DeviceId) -> Result<Option<Device>, Damaged> {
        self.read(DEVICES, &key::device(&self.tenant, device), Device::decode)
    }

    pub(super) fn put_device(&mut self, device: DeviceId, row: &Device) {
        self.view.put(DEVICES, key::device(&self.tenant, device), row.encode());
    }

    pub(super) fn message(&self, id: TransportId, sender: &SubjectId) -> Result<Option<MessageRow>, Damaged> {
        self.read(MESSAGES, &key::message(&self.tenant, id, sender), MessageRow::decode)
    }

    pub(super) fn put_message(&mut self, id: TransportId, sender: &SubjectId, row: &MessageRow) {
        self.view.put(MESSAGES, key::message(&self.tenant, id, sender), row.encode());
    }

    pub(super) fn delivery(&self, device: DeviceId, cursor: u64) -> Result<Option<DeliveryRow>, Damaged> {
        self.read(DELIVERIES, &key::delivery(&self.tenant, device, cursor), DeliveryRow::decode)
    }

    pub(super) fn put_delivery(&mut self, device: DeviceId, cursor: u64, row: &DeliveryRow) {
        self.view.put(DELIVERIES, key::delivery(&self.tenant, device, cursor), row.encode());
    }

    /// Brings a waiting delivery into a state that keeps its box. Returns the id of the event.
    pub(super) fn move_waiting(
        &mut self,
        device: DeviceId,
        row: &mut DeliveryRow,
        to: DeliveryState,
        cause: Cause<'_>,
    ) -> Result<u64, Damaged> {
        let from = std::mem::replace(&mut row.state, to);
        row.changed_ms = self.now_ms;
        let event = NewEvent {
            message: row.message,
            sender: &row.sender,
            device,
            from: Some(from),
            to,
            late: false,
            reason: cause.reason,
            receipt: cause.receipt,
        };
        self.event(&event)
    }

    /// Takes a waiting delivery out of its mailbox: its box goes, and `end` gets its state. Returns the id of
    /// the event.
    pub(super) fn end_waiting(
        &mut self,
        open: &mut OpenMailbox,
        row: &DeliveryRow,
        end: &mut DeliveryEnd,
        to: DeliveryState,
        cause: Cause<'_>,
    ) -> Result<u64, Damaged> {
        let (device, cursor) = (open.device, end.cursor);
        self.view.remove(DELIVERIES, key::delivery(&self.tenant, device, cursor));
        self.view.remove(BOXES, key::delivery(&self.tenant, device, cursor));
        if row.state.wants_push() {
            open.mailbox.unwant(row.priority);
        }
        open.mailbox.remove(cursor);
        (end.state, end.changed_ms) = (to, self.now_ms);
        end.reason = cause.reason.to_owned();
        end.receipts.clone_from(&row.receipts);
        let event = NewEvent {
            message: row.message,
            sender: &row.sender,
            device,
            from: Some(row.state),
            to,
            late: false,
            reason: cause.reason,
            receipt: cause.receipt,
        };
        self.event(&event)
    }

    /// Records an event, and gives its id.
    pub(super) fn event(&mut self, event: &NewEvent<'_>) -> Result<u64, Damaged> {
        if event.from != Some(event.to) {
            self.signals.changed(event.from, event.to);
        }
        if self.events.is_none() {
            let bounds = self.read(EVENTS, &key::event_bounds(&self.tenant), EventBounds::decode)?;
            let bounds = bounds.unwrap_or(EventBounds::NONE);
            self.events = Some((bounds, EventBatch::new(bounds.last + 1, self.now_ms)));
        }
        let (_, batch) = self.events.as_mut().ok_or(Damaged(EVENTS.name()))?;
        Ok(batch.push(event))
    }

    /// Sets when a message is to be dealt with (seconds).
    pub(super) fn put_deadline(&mut self, at: u64, id: TransportId, sender: &SubjectId) {
        self.view.put(DEADLINES, key::deadline(&self.tenant, at, id, sender), [key::STORE_VERSION]);
        self.signals.deadline(at);
    }

    /// A box came for the device.
    pub(super) fn grown(&mut self, device: DeviceId) {
        self.signals.grown(device);
    }

    /// Adds a row to the tenant's audit.
    pub(super) fn audit(&mut self, entry: Entry) {
        audit::append(self.view, SHARED.audit, &self.tenant, entry);
    }

    /// Writes the events; what was collected is told once all of it is durable.
    pub(super) fn finish(mut self, shared: &Arc<Shared>) {
        if let Some((bounds, batch)) = self.events.take() {
            let last = batch.last();
            self.view.put(EVENTS, key::events(&self.tenant, last), batch.finish());
            self.view.put(EVENTS, key::event_bounds(&self.tenant), EventBounds { last, ..bounds }.encode());
            self.signals.last_event(last);
        }
        let (signals, shared, tenant) = (self.signals, shared.clone(), self.tenant);
        self.view.after_commit(move || signals.send(&shared, &tenant));
    }

    fn read<T>(
        &self,
        keyspace: Keyspace,
        key: &[u8],
        decode: fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, Damaged> {
        let value = self.view.get(keyspace, key);
        value.map(|value| decode(&value).ok_or(Damaged(keyspace.name()))).transpose()
    }
}

/// Why a delivery changes.
#[derive(Clone, Copy, Default)]
pub(super) struct Cause<'a> {
    /// Why, for `failed` and `unopenable`, and for what a push provider said; else empty.
    pub(super) reason: &'a str,
    /// The device's receipt; else empty.
    pub(super) receipt: &'a [u8],
}
