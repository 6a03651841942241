//! One state change: what a command reads and writes, the events it makes, and what is told once it is
//! durable.

use std::sync::Arc;

use sealpost_service::audit::{self, Entry};
use sealpost_service::engine::{Keyspace, View};
use sealpost_wire::author::AuthorName;
use sealpost_wire::delivery::DeliveryState;
use sealpost_wire::id::{DeviceId, TenantId, TransportId};
use sealpost_wire::payload::Priority;

use super::codec::{Decoder, Encoder};
use super::delivery_row::DeliveryRow;
use super::device_row::Device;
use super::event_row::{EventBatch, EventBounds, NewEvent};
use super::key::{
    self, BOXES, DEADLINES, DELIVERIES, DEVICES, EVENTS, Home, JOBS, MAILBOXES, MESSAGES, MessageName,
    SHARED, Series,
};
use super::mailbox::Mailbox;
use super::message_row::{DeliveryEnd, MessageRow};
use super::signals::{Shared, Signals};
use super::{AppId, Damaged};

/// The change that one command makes, within one tenant.
pub(super) struct Change<'v> {
    pub(super) view: &'v mut View,
    pub(super) tenant: TenantId,
    pub(super) home: Home,
    /// The time of the change (milliseconds).
    pub(super) now_ms: u64,
    /// By series.
    events: [Option<(EventBounds, EventBatch)>; 2],
    signals: Signals,
}

/// A mailbox that a change works on; [`Change::close`] writes it.
pub(super) struct OpenMailbox {
    pub(super) device: DeviceId,
    pub(super) mailbox: Mailbox,
    stored_job: Option<JobPlace>,
}

/// A row that commands of one commit share is gone on with up to this size.
const OPEN_ROW_BYTES_MAX: usize = 4096;

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
    pub(super) fn new(view: &'v mut View, tenant: TenantId, home: Home, now_ms: u64) -> Self {
        Self { view, tenant, home, now_ms, events: [None, None], signals: Signals::default() }
    }

    /// The mailbox of a device; nothing when the device never registered.
    pub(super) fn mailbox(&self, device: DeviceId) -> Result<Option<OpenMailbox>, Damaged> {
        let mailbox = self.read(MAILBOXES, &key::device(self.home, device), Mailbox::decode)?;
        Ok(mailbox.map(|mailbox| OpenMailbox::new(device, mailbox)))
    }

    /// The mailbox of a device that registers for the first time.
    pub(super) const fn new_mailbox(device: DeviceId, number: u64) -> OpenMailbox {
        OpenMailbox { device, mailbox: Mailbox::new(number), stored_job: None }
    }

    /// Writes a mailbox, and moves its job's row where it belongs.
    pub(super) fn close(&mut self, open: OpenMailbox) {
        let OpenMailbox { device, mailbox, stored_job } = open;
        let wanted = place(&mailbox);
        if stored_job != wanted {
            if let Some((app, priority, due_ms)) = stored_job {
                self.view.remove(JOBS, key::job(self.home, app, priority, due_ms, mailbox.number));
                self.signals.job_removed(app, priority, (due_ms, device));
            }
            if let Some((app, priority, due_ms)) = wanted {
                let value = Encoder::new(17).bytes(device.as_bytes()).finish();
                self.view.put(JOBS, key::job(self.home, app, priority, due_ms, mailbox.number), value);
                self.signals.job_inserted(app, priority, (due_ms, device), due_ms <= self.now_ms);
            }
        }
        self.view.put(MAILBOXES, key::device(self.home, device), mailbox.encode());
    }

    pub(super) fn device(&self, device: DeviceId) -> Result<Option<Device>, Damaged> {
        self.read(DEVICES, &key::device(self.home, device), Device::decode)
    }

    pub(super) fn put_device(&mut self, device: DeviceId, row: &Device) {
        self.view.put(DEVICES, key::device(self.home, device), row.encode());
    }

    pub(super) fn message(
        &self,
        id: TransportId,
        author: &AuthorName,
    ) -> Result<Option<MessageRow>, Damaged> {
        let row = self.message_named(key::message_name(id, author))?;
        Ok(row.filter(|row| row.author == *author))
    }

    /// A submission by its name; in theory that of another author, whose tag is the same.
    pub(super) fn message_named(&self, name: MessageName) -> Result<Option<MessageRow>, Damaged> {
        self.read(MESSAGES, &key::message(self.home, name), MessageRow::decode)
    }

    pub(super) fn put_message(&mut self, id: TransportId, row: &MessageRow) {
        let name = key::message_name(id, &row.author);
        self.view.put(MESSAGES, key::message(self.home, name), row.encode());
    }

    pub(super) fn delivery(&self, number: u64, cursor: u64) -> Result<Option<DeliveryRow>, Damaged> {
        self.read(DELIVERIES, &key::delivery(self.home, number, cursor), DeliveryRow::decode)
    }

    pub(super) fn put_delivery(&mut self, number: u64, cursor: u64, row: &DeliveryRow) {
        self.view.put(DELIVERIES, key::delivery(self.home, number, cursor), row.encode());
    }

    /// Brings a waiting delivery into a state that keeps its box. Returns the id of the event.
    pub(super) fn move_waiting(
        &mut self,
        device: DeviceId,
        row: &mut DeliveryRow,
        to: DeliveryState,
        cause: Cause<'_>,
    ) -> Result<u64, Damaged> {
        debug_assert!(row.state.allows(to), "{:?} -> {to:?}", row.state);
        let from = std::mem::replace(&mut row.state, to);
        row.changed_ms = self.now_ms;
        let event = NewEvent {
            message: row.message,
            author: &row.author,
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
        debug_assert!(row.state.allows(to), "{:?} -> {to:?}", row.state);
        let (device, number, cursor) = (open.device, open.mailbox.number, end.cursor);
        self.view.remove(DELIVERIES, key::delivery(self.home, number, cursor));
        self.view.remove(BOXES, key::delivery(self.home, number, cursor));
        if row.state.wants_push() {
            open.mailbox.unwant(row.priority);
        }
        open.mailbox.remove(cursor);
        (end.state, end.changed_ms) = (to, self.now_ms);
        end.reason = cause.reason.to_owned();
        end.receipts.clone_from(&row.receipts);
        let event = NewEvent {
            message: row.message,
            author: &row.author,
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
        let series = Series::of(event.author);
        let [senders, devices] = &mut self.events;
        let open = match series {
            Series::Senders => senders,
            Series::Devices => devices,
        };
        let (_, batch) = match open {
            Some(open) => open,
            None => {
                let key = key::event_bounds(self.home, series);
                let bounds = self.view.get(EVENTS, key).map(|value| EventBounds::decode(&value));
                let bounds = bounds.unwrap_or(Some(EventBounds::none(series)));
                let bounds = bounds.ok_or(Damaged(EVENTS.name()))?;
                open.insert((bounds, EventBatch::new(bounds.last + 1, self.now_ms)))
            }
        };
        Ok(batch.push(event))
    }

    /// Sets when a message is to be dealt with (seconds), together with others of that second that come in the same
    /// commit. `event` is one of the message.
    pub(super) fn put_deadline(&mut self, at: u64, event: u64, name: MessageName) {
        let prefix = key::deadlines(self.home, at);
        let open = self.view.take_open(DEADLINES, &prefix, OPEN_ROW_BYTES_MAX);
        let names = open.as_ref().and_then(|(_, value)| message_names(value)).unwrap_or_default();
        self.put_deadlines(at, event, &[names.as_slice(), &[name]].concat());
    }

    /// Sets when messages are to be dealt with (seconds). `event` is one of one of them.
    pub(super) fn put_deadlines(&mut self, at: u64, event: u64, names: &[MessageName]) {
        let value = Encoder::new(1 + names.len() * 18).bytes(names.as_flattened()).finish();
        self.view.put(DEADLINES, key::deadline(self.home, at, event), value);
        self.signals.deadline(at);
    }

    /// A box came for the device.
    pub(super) fn grown(&mut self, device: DeviceId) {
        self.signals.grown(device);
    }

    /// Adds a row to the tenant's audit.
    pub(super) fn audit(&mut self, entry: &Entry) {
        audit::append(self.view, SHARED.audit, &self.tenant, entry);
    }

    /// Writes the events; what was collected is told once all of it is durable.
    pub(super) fn finish(mut self, shared: &Arc<Shared>) {
        for (series, open) in Series::ALL.into_iter().zip(&mut self.events) {
            let Some((bounds, batch)) = open.take() else { continue };
            let last = batch.last();
            // The events of the last command of this commit are right before these: ids have no gaps.
            let open = self.view.take_open(EVENTS, &key::event_rows(self.home, series), OPEN_ROW_BYTES_MAX);
            let row = batch.finish(open.as_ref().map(|(_, row)| &**row));
            self.view.put(EVENTS, key::events(self.home, last), row);
            let bounds = EventBounds { last, ..bounds };
            self.view.put(EVENTS, key::event_bounds(self.home, series), bounds.encode());
            if series == Series::Senders {
                self.signals.last_event(last);
            }
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

/// The messages in a row of deadlines.
pub(super) fn message_names(value: &[u8]) -> Option<Vec<MessageName>> {
    let mut row = Decoder::new(value)?;
    let mut names = Vec::new();
    while !row.is_empty() {
        names.push(row.array()?);
    }
    Some(names)
}

/// Why a delivery changes.
#[derive(Clone, Copy, Default)]
pub(super) struct Cause<'a> {
    /// Why, for `failed` and `unopenable`, and for what a push provider said; else empty.
    pub(super) reason: &'a str,
    /// The device's receipt; else empty.
    pub(super) receipt: &'a [u8],
}
