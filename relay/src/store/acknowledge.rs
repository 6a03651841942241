//! A device's receipts come.

use sealpost_service::audit::Entry;
use sealpost_service::engine::{Space, View};
use sealpost_wire::api::relay::ReceiptOutcome;
use sealpost_wire::author::AuthorName;
use sealpost_wire::delivery::DeliveryState;
use sealpost_wire::id::{DeviceId, TenantId};
use sealpost_wire::receipt::{Receipt, ReceiptStatement};

use super::change::{Cause, Change, OpenMailbox};
use super::event_row::NewEvent;
use super::key::{self, Home, MESSAGES, MessageName};
use super::message_row::{DeliveryEnd, MessageRow, RECEIPTS_MAX};
use super::{Damaged, Store, StoreError};

/// The verified receipts of one device.
#[derive(Clone, Debug)]
pub struct Acknowledging {
    /// The device's tenant.
    pub tenant: TenantId,
    /// The device.
    pub device: DeviceId,
    /// Its receipts: what each says, its bytes, and the row for the audit.
    pub receipts: Vec<VerifiedReceipt>,
    /// Now (milliseconds).
    pub now_ms: u64,
}

/// A receipt whose signature was verified by the device's key.
#[derive(Clone, Debug)]
pub struct VerifiedReceipt {
    /// What it says.
    pub receipt: Receipt,
    /// As it was signed.
    pub bytes: Vec<u8>,
    /// The row for the audit, used unless the receipt changes nothing.
    pub audit: Entry,
}

impl Store {
    /// Applies a device's receipts, all in one write. Gives the outcome of each, in their order.
    ///
    /// # Errors
    /// [`StoreError`]; the same receipts may be tried again.
    pub async fn acknowledge(&self, acknowledging: Acknowledging) -> Result<Vec<ReceiptOutcome>, StoreError> {
        // A receipt does not name the author. A message never changes its key, so it can be looked up before.
        let home = self.home(&acknowledging.tenant)?;
        let mut names = Vec::with_capacity(acknowledging.receipts.len());
        for one in &acknowledging.receipts {
            names.push(self.message_of(home, &one.receipt)?);
        }
        if names.iter().all(Option::is_none) {
            return Ok(vec![ReceiptOutcome::Unknown; names.len()]);
        }
        let shared = self.shared.clone();
        let decide = move |view: &mut View| {
            let Acknowledging { tenant, device, receipts, now_ms } = acknowledging;
            let mut change = Change::new(view, tenant, home, now_ms);
            let Some(mut open) = change.mailbox(device)? else {
                return Ok(vec![ReceiptOutcome::Unknown; receipts.len()]);
            };
            let before = open.mailbox.clone();
            let mut outcomes = Vec::with_capacity(receipts.len());
            for (one, name) in receipts.into_iter().zip(names) {
                outcomes.push(match name {
                    Some(name) => apply(&mut change, &mut open, one, name)?,
                    None => ReceiptOutcome::Unknown,
                });
            }
            if open.mailbox != before {
                change.close(open);
            }
            change.finish(&shared);
            Ok(outcomes)
        };
        self.write_with("acknowledge", Space::Frees, decide).await
    }

    /// Which message a receipt is about.
    fn message_of(&self, home: Home, receipt: &Receipt) -> Result<Option<MessageName>, StoreError> {
        let same_id = key::messages(home, receipt.transport_id);
        for row in self.engine.snapshot().prefix(MESSAGES, same_id).take(AUTHORS_PER_ID_MAX) {
            let (key, value) = row?;
            let message = MessageRow::decode(&value).ok_or(Damaged(MESSAGES.name()))?;
            if message.deliveries.iter().any(|delivery| is_about(receipt, delivery)) {
                return Ok(key.last_chunk().copied());
            }
        }
        Ok(None)
    }
}

/// Transport ids are random: two authors with the same one do not happen, unless somebody copies ids.
const AUTHORS_PER_ID_MAX: usize = 64;

fn is_about(receipt: &Receipt, delivery: &DeliveryEnd) -> bool {
    delivery.cursor > 0 && delivery.device == receipt.device && delivery.sealed == receipt.sealed
}

fn apply(
    change: &mut Change<'_>,
    open: &mut OpenMailbox,
    one: VerifiedReceipt,
    name: MessageName,
) -> Result<ReceiptOutcome, Damaged> {
    let VerifiedReceipt { receipt, bytes, audit } = one;
    let Some(mut message) = change.message_named(name)? else { return Ok(ReceiptOutcome::Unknown) };
    let Some(at) = message.deliveries.iter().position(|delivery| is_about(&receipt, delivery)) else {
        return Ok(ReceiptOutcome::Unknown);
    };
    let over = change.now_ms / 1000 >= message.expires_at.0;
    let author = &message.author;
    let end = &mut message.deliveries[at];
    let outcome = if end.waits() {
        match change.delivery(end.device_number, end.cursor)? {
            None => return Err(Damaged(key::DELIVERIES.name())),
            Some(row) if over => {
                // Its deadline has passed, and expiry has not come to it yet.
                change.end_waiting(open, &row, end, DeliveryState::Expired, Cause::default())?;
                come_late(change, end, &receipt, &bytes, author)?
            }
            Some(row) => advance_waiting(change, open, row, end, &receipt, &bytes)?,
        }
    } else {
        advance_ended(change, end, &receipt, &bytes, author, over)?
    };
    if outcome != ReceiptOutcome::Duplicate {
        change.put_message(receipt.transport_id, &message);
        change.audit(&audit);
    }
    Ok(outcome)
}

/// The device's word about a box that waits.
fn advance_waiting(
    change: &mut Change<'_>,
    open: &mut OpenMailbox,
    mut row: super::delivery_row::DeliveryRow,
    end: &mut DeliveryEnd,
    receipt: &Receipt,
    bytes: &[u8],
) -> Result<ReceiptOutcome, Damaged> {
    let next = receipt.statement.state();
    if !row.state.allows(next) {
        // Of the states that keep a box, `fetched` alone refuses one of a device's words: `fetched` again.
        return Ok(ReceiptOutcome::Duplicate);
    }
    let cause = Cause { reason: reason(receipt), receipt: bytes };
    if next.keeps_box() {
        if row.state.wants_push() {
            open.mailbox.unwant(row.priority);
        }
        let event = change.move_waiting(open.device, &mut row, next, cause)?;
        row.receipts.push(event);
        change.put_delivery(end.device_number, end.cursor, &row);
    } else {
        let event = change.end_waiting(open, &row, end, next, cause)?;
        end.receipts.push(event);
    }
    Ok(ReceiptOutcome::Accepted)
}

/// The device's word about a box that is gone.
fn advance_ended(
    change: &mut Change<'_>,
    end: &mut DeliveryEnd,
    receipt: &Receipt,
    bytes: &[u8],
    author: &AuthorName,
    over: bool,
) -> Result<ReceiptOutcome, Damaged> {
    let next = receipt.statement.state();
    if says_what_is_known(end.state, next) {
        return Ok(ReceiptOutcome::Duplicate);
    }
    // `opened` is an end too once the message is over.
    if over || !end.state.allows(next) {
        return come_late(change, end, receipt, bytes, author);
    }
    let event = change.event(&NewEvent {
        message: receipt.transport_id,
        author,
        device: end.device,
        from: Some(end.state),
        to: next,
        late: false,
        reason: reason(receipt),
        receipt: bytes,
    })?;
    (end.state, end.changed_ms) = (next, change.now_ms);
    end.receipts.push(event);
    Ok(ReceiptOutcome::Accepted)
}

/// The state stands; the receipt is kept in an event, once for each kind.
fn come_late(
    change: &mut Change<'_>,
    end: &mut DeliveryEnd,
    receipt: &Receipt,
    bytes: &[u8],
    author: &AuthorName,
) -> Result<ReceiptOutcome, Damaged> {
    let kind = late_bit(&receipt.statement);
    if end.late & kind != 0 || end.receipts.len() >= RECEIPTS_MAX {
        return Ok(ReceiptOutcome::Duplicate);
    }
    end.late |= kind;
    let event = change.event(&NewEvent {
        message: receipt.transport_id,
        author,
        device: end.device,
        from: Some(end.state),
        to: end.state,
        late: true,
        reason: reason(receipt),
        receipt: bytes,
    })?;
    end.receipts.push(event);
    Ok(ReceiptOutcome::Late)
}

/// Whether a device that came into `state` by its own word has said `next` with it: one that opened has
/// fetched.
const fn says_what_is_known(state: DeliveryState, next: DeliveryState) -> bool {
    use DeliveryState::{Confirmed, Declined, Fetched, Opened, Unopenable};
    matches!(
        (state, next),
        (Opened, Fetched | Opened)
            | (Confirmed, Fetched | Opened | Confirmed)
            | (Declined, Fetched | Opened | Declined)
            | (Unopenable, Fetched | Unopenable)
    )
}

const fn late_bit(statement: &ReceiptStatement) -> u8 {
    match statement {
        ReceiptStatement::Fetched => 1,
        ReceiptStatement::Opened(_) => 2,
        ReceiptStatement::Confirmed(_) => 4,
        ReceiptStatement::Declined(_) => 8,
        ReceiptStatement::Unopenable(_) => 16,
    }
}

fn reason(receipt: &Receipt) -> &str {
    match &receipt.statement {
        ReceiptStatement::Unopenable(reason) => reason,
        _ => "",
    }
}
