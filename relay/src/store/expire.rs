//! Messages whose time is over: first they expire, later they are forgotten. Events are kept for a time as
//! well.

use std::sync::atomic::Ordering;

use sealpost_service::audit::{Act, Actor, Entry, Object};
use sealpost_service::engine::{Space, View};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::delivery::DeliveryState;
use sealpost_wire::id::TenantId;

use super::change::{Cause, Change, message_names};
use super::event_row::{self, EventBounds};
use super::key::{self, DEADLINES, EVENTS, MESSAGES, MessageName, Series};
use super::message_row::MessageRow;
use super::{Damaged, Store, StoreError};

/// A row of deadlines that have passed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Deadlines {
    at: u64,
    event: u64,
    messages: Vec<MessageName>,
}

impl Store {
    /// Expires and forgets about `max` messages of a tenant. Returns how many deadlines it dealt with; fewer
    /// than `max` means that no other has passed.
    ///
    /// # Errors
    /// [`StoreError`]; the same may be tried again.
    pub async fn expire(&self, tenant: &TenantId, now_ms: u64, max: usize) -> Result<usize, StoreError> {
        let home = self.home(tenant)?;
        let deadlines = self.passed_deadlines(tenant, UnixTime(now_ms / 1000), max)?;
        let count = deadlines.iter().map(|row| row.messages.len()).sum();
        if count == 0 {
            return Ok(0);
        }
        let (shared, retention) = (self.shared.clone(), self.limits.message_retention.as_secs());
        let of = tenant.clone();
        let decide = move |view: &mut View| {
            let mut change = Change::new(view, of, home, now_ms);
            for row in &deadlines {
                pass(&mut change, row, retention)?;
            }
            change.finish(&shared);
            Ok(())
        };
        self.write_with("expire", Space::Frees, decide).await?;
        Ok(count)
    }

    /// Forgets the events of a tenant that happened before `before_ms`, up to `max` rows of them, oldest
    /// first. Returns how many rows went.
    ///
    /// # Errors
    /// [`StoreError`]; the same may be tried again.
    pub async fn trim_events(
        &self,
        tenant: &TenantId,
        before_ms: u64,
        max: usize,
    ) -> Result<usize, StoreError> {
        let mut count = 0;
        for series in Series::ALL {
            count += self.trim_series(tenant, series, before_ms, max - count).await?;
        }
        Ok(count)
    }

    async fn trim_series(
        &self,
        tenant: &TenantId,
        series: Series,
        before_ms: u64,
        max: usize,
    ) -> Result<usize, StoreError> {
        let mut lasts = Vec::new();
        let home = self.home(tenant)?;
        let Some(bounds) = self.event_bounds(home, series)? else { return Ok(0) };
        // From the first that is there: rows that went leave traces, which a look from the start would walk
        // over.
        let (from, to) = (key::events(home, bounds.first), key::events(home, series.end()));
        for row in self.engine.snapshot().range(EVENTS, from.as_slice()..=to.as_slice()).take(max) {
            let (key, value) = row?;
            let time = event_row::time_ms(&value).ok_or(Damaged(EVENTS.name()))?;
            if time >= before_ms {
                break;
            }
            lasts.extend(key::last_number(&key));
        }
        let (count, Some(last_gone)) = (lasts.len(), lasts.last().copied()) else { return Ok(0) };
        let decide = move |view: &mut View| {
            let stored = view.get(EVENTS, key::event_bounds(home, series));
            let bounds = stored.and_then(|value| EventBounds::decode(&value));
            let bounds = bounds.ok_or(Damaged(EVENTS.name()))?;
            lasts.iter().for_each(|last| view.remove(EVENTS, key::events(home, *last)));
            let first = bounds.first.max(last_gone + 1);
            view.put(EVENTS, key::event_bounds(home, series), EventBounds { first, ..bounds }.encode());
            Ok(())
        };
        self.write_with("trim_events", Space::Frees, decide).await?;
        Ok(count)
    }

    fn passed_deadlines(
        &self,
        tenant: &TenantId,
        now: UnixTime,
        max: usize,
    ) -> Result<Vec<Deadlines>, StoreError> {
        let Some(passed) = self.shared.passed.get(tenant) else { return Ok(Vec::new()) };
        // Raised before the look, so that a deadline that comes during it lowers it again.
        let from = passed.swap(now.0.saturating_add(1), Ordering::SeqCst);
        let looked = self.deadlines_between(tenant, from, now, max);
        let left_from = match &looked {
            Ok(rows) => rows.first().map(|row| row.at),
            Err(_) => Some(from),
        };
        passed.fetch_min(left_from.unwrap_or(u64::MAX), Ordering::SeqCst);
        looked
    }

    fn deadlines_between(
        &self,
        tenant: &TenantId,
        from: u64,
        now: UnixTime,
        max: usize,
    ) -> Result<Vec<Deadlines>, StoreError> {
        let home = self.home(tenant)?;
        let (from, to) = (key::deadline(home, from, 0), key::deadline(home, now.0.saturating_add(1), 0));
        let (mut rows, mut count) = (Vec::new(), 0);
        for row in self.engine.snapshot().range(DEADLINES, from.as_slice()..to.as_slice()) {
            let (key, value) = row?;
            let parts = key::deadline_parts(&key).zip(message_names(&value));
            let ((at, event), messages) = parts.ok_or(Damaged(DEADLINES.name()))?;
            count += messages.len();
            rows.push(Deadlines { at, event, messages });
            if count >= max {
                break;
            }
        }
        Ok(rows)
    }
}

/// Deals with deadlines of one second: they expire together, and are forgotten together.
fn pass(change: &mut Change<'_>, row: &Deadlines, retention: u64) -> Result<(), Damaged> {
    let key = key::deadline(change.home, row.at, row.event);
    if !change.view.contains(DEADLINES, key) {
        return Ok(());
    }
    change.view.remove(DEADLINES, key);
    let mut kept = Vec::new();
    for name in &row.messages {
        let Some(message) = change.message_named(*name)? else { continue };
        if row.at > message.expires_at.0 {
            change.view.remove(MESSAGES, key::message(change.home, *name));
        } else {
            kept.push(*name);
            expire(change, *name, message)?;
        }
    }
    if !kept.is_empty() {
        change.put_deadlines(row.at.saturating_add(retention.max(1)), row.event, &kept);
    }
    Ok(())
}

/// Ends what still waits of a message.
fn expire(change: &mut Change<'_>, name: MessageName, mut message: MessageRow) -> Result<(), Damaged> {
    let mut expired = false;
    for end in message.deliveries.iter_mut().filter(|end| end.waits()) {
        let row = change.delivery(end.device_number, end.cursor)?.ok_or(Damaged(key::DELIVERIES.name()))?;
        let mut open = change.mailbox(end.device)?.ok_or(Damaged(key::MAILBOXES.name()))?;
        change.end_waiting(&mut open, &row, end, DeliveryState::Expired, Cause::default())?;
        change.close(open);
        expired = true;
    }
    if expired {
        let id = key::transport_id(&name);
        change.put_message(id, &message);
        let objects: [Object<'_>; 2] = [("message", &id), ("sender", &message.author)];
        change.audit(&Entry::new(change.now_ms, Act::DeliveryEnded, &Actor::Server, &objects, "expired"));
    }
    Ok(())
}
