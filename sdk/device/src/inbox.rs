//! What the device has opened.

use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{NotificationId, SubjectId, TransportId};
use sealpost_wire::payload::Notification;
use sealpost_wire::receipt::{Receipt, ReceiptStatement};

use crate::Device;
use crate::error::DeviceError;
use crate::store::MessageRow;

/// A message in the device's inbox: the newest revision of a notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxMessage {
    /// Who sent it, as the tenant root certified.
    pub sender: SubjectId,
    /// The submission that brought it.
    pub transport_id: TransportId,
    /// When the device opened it.
    pub received: UnixTime,
    /// Whether it was handed over for showing.
    pub presented: bool,
    /// What it says.
    pub notification: Notification,
}

/// A person's answer to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// They agree, or will act.
    Confirm,
    /// They do not; an escalation goes to its next step at once.
    Decline,
}

impl Device {
    /// Everything that was opened, oldest first.
    pub fn messages(&self) -> Result<Vec<InboxMessage>, DeviceError> {
        self.store.messages(false)?.iter().map(InboxMessage::of).collect()
    }

    /// What was opened and not yet handed over, oldest first. Each revision is handed over once, also across crashes: it
    /// counts as presented before the caller sees it, and stays in [`Self::messages`].
    pub fn present(&mut self) -> Result<Vec<InboxMessage>, DeviceError> {
        let _held = self.lock.hold()?;
        let rows = self.store.change(|change| change.take_unpresented())?;
        rows.iter().map(InboxMessage::of).collect()
    }

    /// Queues a person's answer; the next sync sends it, signed.
    pub fn answer(&mut self, id: NotificationId, answer: Answer) -> Result<(), DeviceError> {
        let _held = self.lock.hold()?;
        let rows = self.store.messages(false)?;
        let row = rows
            .into_iter()
            .find(|row| row.notification == id.as_bytes())
            .ok_or(DeviceError::UnknownMessage)?;
        let receipt = Receipt {
            tenant: self.enrolled.tenant.clone(),
            transport_id: row.transport_id,
            device: self.enrolled.device,
            sealed: row.sealed,
            statement: match answer {
                Answer::Confirm => ReceiptStatement::Confirmed(row.kind),
                Answer::Decline => ReceiptStatement::Declined(row.kind),
            },
            time: self.clock.now(),
        };
        let receipt = receipt.sign(&self.enrolled.identity);
        self.store.change(|change| change.queue_receipt(&receipt))
    }
}

impl InboxMessage {
    fn of(row: &MessageRow) -> Result<Self, DeviceError> {
        Ok(Self {
            sender: row.sender.parse().map_err(|_| DeviceError::Unreadable)?,
            transport_id: row.transport_id,
            received: row.received,
            presented: row.presented,
            notification: serde_json::from_slice(&row.content).map_err(|_| DeviceError::Unreadable)?,
        })
    }
}
