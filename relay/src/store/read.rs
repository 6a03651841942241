//! Reads of the durable state: they never wait for a writer.

use sealpost_service::engine::{EngineError, Snapshot};
use sealpost_wire::api::relay::{DeliveryStatus, Event, EventPage, MessageStatus, WaitingBox};
use sealpost_wire::author::AuthorName;
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{DeviceId, TenantId, TransportId};
use tokio::sync::watch;

use super::delivery_row::DeliveryRow;
use super::event_row::{self, EventBounds};
use super::key::{self, BOXES, DELIVERIES, EVENTS, Home, MAILBOXES, MESSAGES, ROW_VERSION, Series};
use super::mailbox::Mailbox;
use super::message_row::{DeliveryEnd, MessageRow};
use super::waiters::MailboxWaiter;
use super::{Damaged, Store, StoreError};

/// Which boxes a device asks for.
#[derive(Clone, Copy, Debug)]
pub struct BoxPage {
    /// Only boxes behind this cursor.
    pub after: u64,
    /// At most so many.
    pub boxes_max: usize,
    /// At most so many bytes of sealed messages; the first box is given whatever its size.
    pub bytes_max: usize,
    /// Boxes that have expired by now are not given.
    pub now: UnixTime,
}

/// What a look at the events gives.
#[derive(Clone, Debug)]
pub enum EventsAnswer {
    /// Events, in order.
    Page(EventPage),
    /// The events right behind the cursor are not kept any more; the oldest that is.
    Gone {
        /// Its id.
        oldest: u64,
    },
}

impl Store {
    /// Boxes that wait for a device, by cursor, and whether there are more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn waiting_boxes(
        &self,
        tenant: &TenantId,
        device: DeviceId,
        page: BoxPage,
    ) -> Result<(Vec<WaitingBox>, bool), StoreError> {
        let (snapshot, home) = (self.engine.snapshot(), self.home(tenant)?);
        let Some(value) = snapshot.get(MAILBOXES, key::device(home, device))? else {
            return Ok((Vec::new(), false));
        };
        let mailbox = Mailbox::decode(&value).ok_or(Damaged(MAILBOXES.name()))?;
        if mailbox.waiting == 0 {
            return Ok((Vec::new(), false));
        }
        let first = mailbox.waiting_from.max(page.after.saturating_add(1));
        let from = key::delivery(home, mailbox.number, first);
        let to = key::delivery(home, mailbox.number, mailbox.next_cursor);
        let (mut boxes, mut bytes) = (Vec::new(), 0);
        for row in snapshot.range(DELIVERIES, from.as_slice()..to.as_slice()) {
            let (key, value) = row?;
            let row = DeliveryRow::decode(&value).zip(key::last_number(&key));
            let (row, cursor) = row.ok_or(Damaged(DELIVERIES.name()))?;
            if row.expires_at <= page.now {
                continue;
            }
            bytes += usize::try_from(row.box_bytes).unwrap_or(usize::MAX);
            if boxes.len() >= page.boxes_max || (!boxes.is_empty() && bytes > page.bytes_max) {
                return Ok((boxes, true));
            }
            let sealed = snapshot.get(BOXES, &key)?.ok_or(Damaged(BOXES.name()))?;
            let sealed = sealed.strip_prefix(&[ROW_VERSION]).ok_or(Damaged(BOXES.name()))?;
            boxes.push(WaitingBox {
                cursor,
                id: row.message,
                sender: row.author,
                expires_at: row.expires_at,
                sealed: Base64Url(sealed.to_vec()),
            });
        }
        Ok((boxes, false))
    }

    /// Begins to wait for a box to come; nothing when too many devices wait already.
    #[must_use]
    pub fn mailbox_waiter(&self, tenant: &TenantId, device: DeviceId) -> Option<MailboxWaiter> {
        MailboxWaiter::new(&self.shared, tenant, device)
    }

    /// Lets a device that waits for a box look again: something else has changed for it.
    pub fn wake_device(&self, tenant: &TenantId, device: DeviceId) {
        self.shared.mailboxes.grown(tenant, device);
    }

    /// Where a message is on its way to each device; nothing when the author has no such message.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn message(
        &self,
        tenant: &TenantId,
        author: &AuthorName,
        id: TransportId,
    ) -> Result<Option<MessageStatus>, StoreError> {
        let (snapshot, home) = (self.engine.snapshot(), self.home(tenant)?);
        let key = key::message(home, key::message_name(id, author));
        let Some(value) = snapshot.get(MESSAGES, key)? else { return Ok(None) };
        let row = MessageRow::decode(&value).ok_or(Damaged(MESSAGES.name()))?;
        if row.author != *author {
            return Ok(None);
        }
        let mut deliveries = Vec::with_capacity(row.deliveries.len());
        for delivery in &row.deliveries {
            deliveries.push(delivery_status(&snapshot, home, delivery)?);
        }
        Ok(Some(row.status(id, deliveries)))
    }

    /// Events of senders' messages behind `after`, at most `limit` of them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn events(&self, tenant: &TenantId, after: u64, limit: usize) -> Result<EventsAnswer, StoreError> {
        let (snapshot, home) = (self.engine.snapshot(), self.home(tenant)?);
        let bounds = bounds(&snapshot, home, Series::Senders)?.unwrap_or(EventBounds::none(Series::Senders));
        if after.saturating_add(1) < bounds.first {
            return Ok(EventsAnswer::Gone { oldest: bounds.first });
        }
        let mut events: Vec<Event> = Vec::new();
        if after < bounds.last {
            let (from, to) = (key::events(home, after + 1), key::events(home, bounds.last));
            for row in snapshot.range(EVENTS, from.as_slice()..=to.as_slice()) {
                let (_, value) = row?;
                let row = event_row::decode(&value).ok_or(Damaged(EVENTS.name()))?;
                for event in row.into_iter().filter(|event| event.id > after) {
                    events.push(event.of_sender().ok_or(Damaged(EVENTS.name()))?);
                }
                if events.len() >= limit {
                    events.truncate(limit);
                    break;
                }
            }
        }
        let next = events.last().map_or(after, |event| event.id);
        Ok(EventsAnswer::Page(EventPage { events, next, last: bounds.last }))
    }

    /// Shows the id of the last event of the tenant's senders, as it grows.
    #[must_use]
    pub fn last_event(&self, tenant: &TenantId) -> Option<watch::Receiver<u64>> {
        self.shared.events.get(tenant).map(watch::Sender::subscribe)
    }

    pub(super) fn event_bounds(&self, home: Home, series: Series) -> Result<Option<EventBounds>, StoreError> {
        bounds(&self.engine.snapshot(), home, series)
    }
}

fn bounds(snapshot: &Snapshot, home: Home, series: Series) -> Result<Option<EventBounds>, StoreError> {
    let value = snapshot.get(EVENTS, key::event_bounds(home, series))?;
    Ok(value.map(|value| EventBounds::decode(&value).ok_or(Damaged(EVENTS.name()))).transpose()?)
}

fn delivery_status(
    snapshot: &Snapshot,
    home: Home,
    delivery: &DeliveryEnd,
) -> Result<DeliveryStatus, StoreError> {
    let mut status = delivery.status();
    let mut receipts = delivery.receipts.clone();
    if delivery.waits() {
        let value = snapshot.get(DELIVERIES, key::delivery(home, delivery.device_number, delivery.cursor))?;
        let row = value.and_then(|value| DeliveryRow::decode(&value)).ok_or(Damaged(DELIVERIES.name()))?;
        (status.state, status.changed_at_ms, receipts) = (row.state, row.changed_ms, row.receipts);
    }
    for id in receipts {
        status.receipts.extend(receipt(snapshot, home, id)?);
    }
    Ok(status)
}

/// The receipt that an event carries; nothing when the event is not kept any more.
fn receipt(snapshot: &Snapshot, home: Home, id: u64) -> Result<Option<Base64Url>, EngineError> {
    let (from, to) = (key::events(home, id), key::events_end(home, id));
    let Some(row) = snapshot.range(EVENTS, from.as_slice()..=to.as_slice()).next() else { return Ok(None) };
    let (_, value) = row?;
    let events = event_row::decode(&value).unwrap_or_default();
    Ok(events.into_iter().find(|event| event.id == id).and_then(|event| event.receipt))
}
