//! Sync: receipts up, boxes down, each box taken in by one transaction.

use std::time::Duration;

use sealpost_open::{OpenError, open};
use sealpost_wire::admission::Admission;
use sealpost_wire::api::relay::{SyncRequest, SyncResponse, WaitingBox};
use sealpost_wire::author::{Author, AuthorName};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::context::MessageContext;
use sealpost_wire::id::{Digest, GroupId, NotificationId, TransportId};
use sealpost_wire::limits::RECEIPTS_PER_SYNC_MAX;
use sealpost_wire::message::SealedMessage;
use sealpost_wire::payload::{Frame, MessageError, MlsFrame, Notification};
use sealpost_wire::prekey::PrekeyKind;
use sealpost_wire::receipt::{Receipt, ReceiptStatement};
use sealpost_wire::trust::TenantTrust;
use zeroize::Zeroizing;

use crate::Device;
use crate::error::DeviceError;
use crate::groups::state::{Own, Work};
use crate::groups::{GroupEvent, GroupReport};
use crate::http::json;
use crate::store::{Change, MessageRow};

/// Round trips of one sync: enough for any mailbox, and an end if a server never says "no more".
const ROUNDS_MAX: usize = 1000;

/// The reason for a box whose prekey is not, or no more, on this device.
const UNKNOWN_PREKEY: &str = "unknown_prekey";
/// The reason for a second, other box under a transport id that was used before.
const REPLAYED: &str = "replayed";

/// What a sync brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncReport {
    /// What became of each box that came, in order.
    pub boxes: Vec<TakenBox>,
    /// Receipts that reached the relay.
    pub receipts_sent: usize,
    /// What was done for groups.
    pub groups: GroupReport,
}

/// What became of one box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TakenBox {
    /// Opened and stored.
    Opened(NotificationId),
    /// A frame of a group, opened and taken in or kept.
    Group(GroupId, GroupEvent),
    /// Opened; a revision as new was there already.
    Superseded(NotificationId),
    /// This very box was taken in before; its receipt goes out once more.
    Duplicate(TransportId),
    /// It cannot be opened; the sender is told the code.
    Unopenable(TransportId, String),
    /// Not yet: this device's clock is behind, or it is no member of groups just now. The relay keeps it.
    Deferred(TransportId),
}

impl Device {
    /// Sends receipts, fetches all boxes that wait, opens and acknowledges them. With a `wait` the relay keeps the
    /// request open that long (whole seconds) for a box to come when none waits. Then does what is due for groups: sends
    /// what waits, commits, answers those who have lost an epoch, or asks for the way back.
    ///
    /// # Errors
    /// Server and storage errors. What was taken in before an error stays taken in.
    pub fn sync(&mut self, wait: Duration) -> Result<SyncReport, DeviceError> {
        let mut report = SyncReport::default();
        self.sync_boxes(wait, &mut report)?;
        report.groups = self.work_on_groups()?;
        Ok(report)
    }

    /// Sends receipts and takes in all boxes that wait.
    pub(crate) fn sync_boxes(&mut self, wait: Duration, report: &mut SyncReport) -> Result<(), DeviceError> {
        let mut after = 0;
        let mut wait = wait;
        for _ in 0..ROUNDS_MAX {
            let receipts = self.store.receipts(RECEIPTS_PER_SYNC_MAX)?;
            let body = SyncRequest {
                after,
                limit: None,
                wait: u16::try_from(wait.as_secs()).unwrap_or(u16::MAX),
                receipts: receipts.iter().map(|(_, receipt)| Base64Url(receipt.clone())).collect(),
            };
            let relay = self.enrolled.relay.clone();
            let answer: SyncResponse =
                self.call("POST", &relay, "/v1/sync".to_owned(), json(&body)?, wait)?;
            wait = Duration::ZERO;
            if let Some(status) = &answer.status {
                self.take_status(status.as_ref())?;
            }
            let sent: Vec<i64> = receipts.iter().map(|(id, _)| *id).take(answer.receipts.len()).collect();
            report.receipts_sent += sent.len();
            let before = after;
            after = answer.boxes.last().map_or(after, |last| last.cursor.max(after));
            self.take_boxes(&answer.boxes, &sent, report)?;
            // A relay that neither takes receipts nor hands over boxes is not asked again and again.
            let stands_still = sent.is_empty() && after == before;
            if (!answer.more && self.store.receipts(1)?.is_empty()) || (stands_still && !receipts.is_empty())
            {
                break;
            }
        }
        Ok(())
    }

    /// Takes in a newer tenant status; an older one is left aside.
    pub(crate) fn take_status(&mut self, bytes: &[u8]) -> Result<(), DeviceError> {
        let mut trust = self.trust()?;
        match trust.accept_status(bytes, self.clock.now()) {
            Ok(true) => {
                let rng = self.rng.as_mut();
                self.store.change(|change| change.set_meta("status", bytes, rng))
            }
            Ok(false) => Ok(()),
            Err(error) => {
                // The relay may be behind the keyserver, or lie; either way what is known stands.
                tracing::warn!(code = error.code(), "a tenant status was refused");
                Ok(())
            }
        }
    }

    pub(crate) fn take_boxes(
        &mut self,
        boxes: &[WaitingBox],
        receipts_sent: &[i64],
        report: &mut SyncReport,
    ) -> Result<(), DeviceError> {
        let _held = self.lock.hold()?;
        let now = self.clock.now();
        // The relay has answered for these, each of them: sending them again would change nothing.
        self.store.change(|change| {
            receipts_sent.iter().try_for_each(|id| change.delete_receipt(*id))?;
            change.forget_expired(now)?;
            change.set_counter("latest_time", now.0.cast_signed())
        })?;
        let trust = self.trust()?;
        // A device that the tenant has revoked still takes in what it is sent, but for groups.
        let own = self.own_member(&trust).ok();
        for waiting in boxes {
            let taken = self.take_box(waiting, &trust, own.as_ref(), now)?;
            report.boxes.push(taken);
        }
        Ok(())
    }

    fn take_box(
        &mut self,
        waiting: &WaitingBox,
        trust: &TenantTrust,
        own: Option<&Own>,
        now: UnixTime,
    ) -> Result<TakenBox, DeviceError> {
        let context = MessageContext {
            tenant: self.enrolled.tenant.clone(),
            transport_id: waiting.id,
            device: self.enrolled.device,
            identity: self.enrolled.identity_digest(),
            expires_at: waiting.expires_at,
        };
        let identity = &self.enrolled.identity;
        let rng = self.rng.as_mut();
        let (taken, generation) = self.store.change(|change| {
            let sealed = Digest::of(waiting.sealed.as_ref());
            if let Some(receipt) = change.seen(sealed)? {
                change.queue_receipt(&receipt)?;
                return Ok((TakenBox::Duplicate(waiting.id), None));
            }
            let receipt = |statement| {
                Receipt {
                    tenant: context.tenant.clone(),
                    transport_id: waiting.id,
                    device: context.device,
                    sealed,
                    statement,
                    time: now,
                }
                .sign(identity)
            };
            match open_box(change, waiting, &context, (trust, own), now)? {
                Opening::Opened(opened) => {
                    let receipt = receipt(ReceiptStatement::Opened(opened.kind));
                    let author = opened.author.to_string();
                    change.mark_seen(sealed, Some(&author), waiting.id, waiting.expires_at, &receipt)?;
                    if opened.kind == PrekeyKind::OneTime {
                        change.delete_prekey(opened.prekey)?;
                    }
                    change.queue_receipt(&receipt)?;
                    let taken = match opened.content {
                        Content::Notification(notification) => {
                            let content =
                                serde_json::to_vec(&notification).map_err(|_| DeviceError::Unreadable)?;
                            let row = MessageRow {
                                sender: author,
                                notification: notification.id.as_bytes().to_vec(),
                                revision: i64::try_from(notification.revision).unwrap_or(i64::MAX),
                                transport_id: waiting.id,
                                sealed,
                                kind: opened.kind,
                                received: now,
                                presented: false,
                                content: Zeroizing::new(content),
                            };
                            let stored = change.put_message(&row, rng)?;
                            let id = notification.id;
                            if stored { TakenBox::Opened(id) } else { TakenBox::Superseded(id) }
                        }
                        Content::Group(author, frame, own) => {
                            let event = Work { change, own, trust, now, rng }.take_frame(&author, &frame)?;
                            TakenBox::Group(frame.group, event)
                        }
                    };
                    Ok((taken, Some(change.next_generation()?)))
                }
                Opening::Refused(code) => {
                    let receipt = receipt(ReceiptStatement::Unopenable(code.to_owned()));
                    change.mark_seen(sealed, None, waiting.id, waiting.expires_at, &receipt)?;
                    change.queue_receipt(&receipt)?;
                    Ok((TakenBox::Unopenable(waiting.id, code.to_owned()), None))
                }
                Opening::Deferred => Ok((TakenBox::Deferred(waiting.id), None)),
            }
        })?;
        if let Some(generation) = generation {
            self.platform.set_generation(generation)?;
        }
        Ok(taken)
    }
}

struct OpenedBox<'o> {
    author: AuthorName,
    content: Content<'o>,
    prekey: sealpost_wire::id::PrekeyId,
    kind: PrekeyKind,
}

/// What was in a box, and who may read it.
enum Content<'o> {
    Notification(Box<Notification>),
    Group(Box<Admission>, Box<MlsFrame>, &'o Own),
}

enum Opening<'o> {
    Opened(Box<OpenedBox<'o>>),
    Refused(&'static str),
    Deferred,
}

/// Opens a box with the prekey that it names. Every check has passed before a prekey is deleted.
fn open_box<'o>(
    change: &Change<'_>,
    waiting: &WaitingBox,
    context: &MessageContext,
    (trust, own): (&TenantTrust, Option<&'o Own>),
    now: UnixTime,
) -> Result<Opening<'o>, DeviceError> {
    let bytes = waiting.sealed.as_ref();
    let prekey = match SealedMessage::read(bytes) {
        Ok(sealed) => sealed.prekey,
        Err(error) => return Ok(Opening::Refused(error.code())),
    };
    let Some(stored) = change.prekey(prekey)? else { return Ok(Opening::Refused(UNKNOWN_PREKEY)) };
    let message = match open(bytes, context, &stored.key, trust, now) {
        Ok(message) => message,
        Err(error) if is_for_later(&error) => return Ok(Opening::Deferred),
        Err(error) => return Ok(Opening::Refused(error.code())),
    };
    let author = message.author.name();
    let content = match (message.frame, message.author) {
        (Frame::Notification(notification), _) => Content::Notification(notification),
        (Frame::Mls(frame), Author::Device(admission)) => match own {
            Some(own) => Content::Group(admission, frame, own),
            // Not admitted, or revoked just now: the relay keeps it as long as it may be of use.
            None => return Ok(Opening::Deferred),
        },
        (Frame::Mls(_), Author::Sender(_)) => {
            return Ok(Opening::Refused(MessageError::FrameUnsupported.code()));
        }
    };
    if change.replayed(&author.to_string(), waiting.id)? {
        tracing::warn!(message = %waiting.id, "another box came under a transport id that was used before");
        return Ok(Opening::Refused(REPLAYED));
    }
    Ok(Opening::Opened(Box::new(OpenedBox { author, content, prekey, kind: stored.kind })))
}

/// Whether only this device's clock stands in the way.
fn is_for_later(error: &OpenError) -> bool {
    matches!(error.code(), "created_in_future" | "certificate_not_yet_valid")
}
