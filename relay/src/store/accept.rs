//! A submission comes.

use sealpost_service::audit::Entry;
use sealpost_service::engine::{Slice, View};
use sealpost_wire::api::relay::MessageStatus;
use sealpost_wire::author::AuthorName;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::delivery::{DeliveryState, FailureReason};
use sealpost_wire::id::{DeviceId, Digest, TenantId, TransportId};
use sealpost_wire::payload::Priority;
use sealpost_wire::slot::SlotClaim;

use super::change::Change;
use super::codec::Encoder;
use super::delivery_row::DeliveryRow;
use super::event_row::NewEvent;
use super::key::{self, BOXES, MESSAGES, MessageName};
use super::message_row::{DeliveryEnd, MessageRow};
use super::slot::{self, SlotLimits, SlotRefusal};
use super::{Damaged, Store, StoreError};

/// Boxes of devices fill a mailbox to this part of it: however many a device submits, there is room for what
/// the tenant's senders have to say.
const MAILBOX_PART_FOR_DEVICES: u32 = 2;

/// A submission that was checked and is to be accepted.
#[derive(Clone, Debug)]
pub struct Accepting {
    /// Whose.
    pub tenant: TenantId,
    /// Who submits it.
    pub author: AuthorName,
    /// Its id, scoped by both.
    pub id: TransportId,
    /// What makes the same id the same submission.
    pub digest: Digest,
    /// When it is over.
    pub expires_at: UnixTime,
    /// How soon it is to be delivered.
    pub priority: Priority,
    /// One box for each device, sorted by device.
    pub boxes: Vec<AcceptingBox>,
    /// It is accepted only if this claim wins.
    pub slot: Option<SlotClaim>,
    /// Now (milliseconds).
    pub now_ms: u64,
    /// The row for the audit.
    pub audit: Entry,
}

/// One device's box.
#[derive(Clone, Debug)]
pub struct AcceptingBox {
    /// The device.
    pub device: DeviceId,
    /// Whether the tenant has revoked it.
    pub revoked: bool,
    /// SHA-256 of the sealed message.
    pub digest: Digest,
    /// The sealed message, as a value of the store.
    pub value: BoxValue,
}

/// A sealed message in the form that it is stored in.
#[derive(Clone, Debug)]
pub struct BoxValue(Slice);

impl BoxValue {
    /// The value for `sealed`.
    #[must_use]
    pub fn new(sealed: &[u8]) -> Self {
        Self(Encoder::new(1 + sealed.len()).bytes(sealed).finish().into())
    }

    /// Bytes of the sealed message.
    fn sealed_bytes(&self) -> u32 {
        u32::try_from(self.0.len() - 1).unwrap_or(u32::MAX)
    }
}

/// What became of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is durable.
    New(MessageStatus),
    /// It was durable already; the answer is the same.
    Duplicate(MessageStatus),
    /// The id was used with another content.
    Conflict,
    /// Its claim on a slot did not win. Nothing of it is stored.
    SlotRefused(SlotRefusal),
}

impl Store {
    /// Accepts a submission: manifest, boxes, push jobs, events, audit and its claim on a slot at once. It is
    /// durable when this returns.
    ///
    /// # Errors
    /// [`StoreError`]; the same submission may be tried again.
    pub async fn accept(&self, accepting: Accepting) -> Result<Accepted, StoreError> {
        let (shared, mailbox_max) = (self.shared.clone(), self.mailbox_max(&accepting.author));
        let slots = SlotLimits {
            tenant_max: self.limits.slots_per_tenant_max,
            author_max: self.limits.slots_per_author_max,
        };
        let home = self.home(&accepting.tenant)?;
        let name = key::message_name(accepting.id, &accepting.author);
        let decide = move |view: &mut View| {
            let mut change = Change::new(view, accepting.tenant.clone(), home, accepting.now_ms);
            if let Some(row) = change.message_named(name)? {
                return Ok(row.answer(accepting.id, &accepting.author, accepting.digest));
            }
            if let Some(claim) = &accepting.slot
                && let Err(refusal) = slot::claim(&mut change, &accepting, claim, slots)?
            {
                return Ok(Accepted::SlotRefused(refusal));
            }
            let row = stage(&mut change, &accepting, name, mailbox_max)?;
            let answer = Accepted::New(row.accepted(accepting.id));
            change.finish(&shared);
            Ok(answer)
        };
        self.write("accept", decide).await
    }

    /// What a submission would be answered that came before: a duplicate or a conflict; nothing for a new
    /// one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn accepted(
        &self,
        tenant: &TenantId,
        author: &AuthorName,
        id: TransportId,
        digest: Digest,
    ) -> Result<Option<Accepted>, StoreError> {
        let key = key::message(self.home(tenant)?, key::message_name(id, author));
        let Some(value) = self.engine.get(MESSAGES, key)? else { return Ok(None) };
        let row = MessageRow::decode(&value).ok_or(Damaged(MESSAGES.name()))?;
        Ok(Some(row.answer(id, author, digest)))
    }

    /// Boxes that may wait in a mailbox for one more by this author to come in.
    fn mailbox_max(&self, author: &AuthorName) -> u32 {
        let max = self.limits.mailbox_boxes_max;
        match author {
            AuthorName::Sender(_) => max,
            AuthorName::Device(_) => max.div_ceil(MAILBOX_PART_FOR_DEVICES),
        }
    }
}

impl MessageRow {
    /// The answer to a submission with the key of this one.
    fn answer(&self, id: TransportId, author: &AuthorName, digest: Digest) -> Accepted {
        // Another author's whose tag is the same: ids are random, so this takes somebody who copies them.
        if self.digest == digest && self.author == *author {
            Accepted::Duplicate(self.accepted(id))
        } else {
            Accepted::Conflict
        }
    }
}

/// Stores the boxes, and then the manifest: the one decision point.
fn stage(
    change: &mut Change<'_>,
    accepting: &Accepting,
    name: MessageName,
    mailbox_max: u32,
) -> Result<MessageRow, Damaged> {
    let mut deliveries = Vec::with_capacity(accepting.boxes.len());
    let mut event = 0;
    for one in &accepting.boxes {
        let delivery = stage_box(change, accepting, one, mailbox_max)?;
        event = change.event(&NewEvent {
            message: accepting.id,
            author: &accepting.author,
            device: delivery.device,
            from: None,
            to: delivery.state,
            late: false,
            reason: &delivery.reason,
            receipt: &[],
        })?;
        deliveries.push(delivery);
    }
    let row = MessageRow {
        digest: accepting.digest,
        author: accepting.author.clone(),
        accepted_ms: accepting.now_ms,
        expires_at: accepting.expires_at,
        priority: accepting.priority,
        deliveries,
    };
    change.view.put(MESSAGES, key::message(change.home, name), row.encode());
    change.put_deadline(accepting.expires_at.0, event, name);
    change.audit(&accepting.audit);
    Ok(row)
}

fn stage_box(
    change: &mut Change<'_>,
    accepting: &Accepting,
    one: &AcceptingBox,
    mailbox_max: u32,
) -> Result<DeliveryEnd, Damaged> {
    let device = one.device;
    let fail = |reason| DeliveryEnd {
        device,
        state: DeliveryState::Failed,
        late: 0,
        changed_ms: accepting.now_ms,
        device_number: 0,
        cursor: 0,
        sealed: one.digest,
        reason: reason_code(reason).to_owned(),
        receipts: Vec::new(),
    };
    if one.revoked {
        return Ok(fail(FailureReason::RevokedDevice));
    }
    let Some(mut open) = change.mailbox(device)? else { return Ok(fail(FailureReason::UnknownDevice)) };
    if open.mailbox.waiting >= mailbox_max {
        return Ok(fail(FailureReason::MailboxFull));
    }
    let cursor = open.mailbox.accept(accepting.priority, accepting.expires_at, change.now_ms);
    let number = open.mailbox.number;
    change.close(open);
    let row = DeliveryRow {
        state: DeliveryState::Queued,
        priority: accepting.priority,
        expires_at: accepting.expires_at,
        changed_ms: change.now_ms,
        box_bytes: one.value.sealed_bytes(),
        message: accepting.id,
        receipts: Vec::new(),
        author: accepting.author.clone(),
    };
    change.put_delivery(number, cursor, &row);
    change.view.put(BOXES, key::delivery(change.home, number, cursor), one.value.0.clone());
    change.grown(device);
    Ok(DeliveryEnd {
        device,
        state: DeliveryState::Queued,
        late: 0,
        changed_ms: change.now_ms,
        device_number: number,
        cursor,
        sealed: one.digest,
        reason: String::new(),
        receipts: Vec::new(),
    })
}

/// The reason's code, as in JSON.
const fn reason_code(reason: FailureReason) -> &'static str {
    match reason {
        FailureReason::UnknownDevice => "unknown_device",
        FailureReason::RevokedDevice => "revoked_device",
        FailureReason::MailboxFull => "mailbox_full",
    }
}
