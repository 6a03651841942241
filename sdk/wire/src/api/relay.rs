//! Bodies of the relay.

use serde::{Deserialize, Serialize};

use crate::author::AuthorName;
use crate::base64url::Base64Url;
use crate::cbor::Writer;
use crate::clock::UnixTime;
use crate::delivery::DeliveryState;
use crate::id::{DeviceId, Digest, SubjectId, TransportId};
use crate::payload::Priority;
use crate::slot::SlotClaim;

/// `PUT /v1/messages/{transport id}`, by a sender, or signed by a device of the tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// When the message is over (seconds).
    pub expires_at: UnixTime,
    /// How soon it is to be delivered.
    pub priority: Priority,
    /// One box for each device; each device once.
    pub boxes: Vec<SubmittedBox>,
    /// Accept it only if this claim wins: submissions under one slot come one after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<SlotClaim>,
}

/// One device's box.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubmittedBox {
    /// The device.
    pub device: DeviceId,
    /// The sealed message.
    pub sealed: Base64Url,
}

impl Submission {
    /// What makes a repeated `PUT` the same: SHA-256 over
    /// `["sealpost-submission/1", expires_at, priority, [* [device, SHA-256(sealed)]], ? claim]`, boxes sorted by
    /// device, `claim` = `[slot, sequence, SHA-256(capability) or h'', next]` if there is one.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut boxes: Vec<_> =
            self.boxes.iter().map(|one| (one.device, Digest::of(one.sealed.as_ref()))).collect();
        boxes.sort_unstable();
        let mut writer = Writer::new();
        writer.array(if self.slot.is_some() { 5 } else { 4 });
        writer.text("sealpost-submission/1").uint(self.expires_at.0);
        writer.uint(u64::from(self.priority.code())).array(boxes.len());
        for (device, sealed) in boxes {
            writer.array(2).bytes(device.as_bytes()).bytes(sealed.as_bytes());
        }
        if let Some(claim) = &self.slot {
            claim.write(&mut writer);
        }
        Digest::of(&writer.finish())
    }
}

/// The answer to a submission (202) and to `GET /v1/messages/{transport id}` (200).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageStatus {
    /// The submission.
    pub id: TransportId,
    /// When it was accepted (seconds): it is durable since.
    pub accepted_at: UnixTime,
    /// When it is over (seconds).
    pub expires_at: UnixTime,
    /// Its priority.
    pub priority: Priority,
    /// One for each device, sorted by device.
    pub deliveries: Vec<DeliveryStatus>,
}

/// Where the message is on its way to one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryStatus {
    /// The device.
    pub device: DeviceId,
    /// The state.
    pub state: DeliveryState,
    /// When it came into the state (milliseconds).
    pub changed_at_ms: u64,
    /// Why, for `failed` and `unopenable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The device's receipts, oldest first, for the sender to verify.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub receipts: Vec<Base64Url>,
}

/// `PUT /v1/devices/{device}`, signed by the device: makes the mailbox, or renews its push token.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceRegistration {
    /// The tenant's admission of the device.
    pub admission: Base64Url,
    /// Where to push. Without it the mailbox is kept, and nothing is pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<PushRegistration>,
}

/// Where a device's stubs go.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushRegistration {
    /// An app by the name that the relay's configuration gives it; the provider follows from it.
    pub app: String,
    /// The push token as Apple (hexadecimal) or Google gave it.
    pub token: String,
}

impl std::fmt::Debug for PushRegistration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PushRegistration {{ app: {:?}, token: … }}", self.app)
    }
}

/// The answer to a [`DeviceRegistration`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceRegistered {
    /// The device.
    pub device: DeviceId,
    /// Whether stubs will be pushed to it.
    pub push: bool,
}

/// `POST /v1/sync`, signed by the device: receipts up, waiting boxes down.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncRequest {
    /// Only boxes behind this cursor; 0 for all that wait.
    #[serde(default)]
    pub after: u64,
    /// At most this many boxes; the relay's limit without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u16>,
    /// Stay connected this long (seconds) for a box to come when none waits.
    #[serde(default)]
    pub wait: u16,
    /// Signed receipts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub receipts: Vec<Base64Url>,
}

/// The answer to a [`SyncRequest`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SyncResponse {
    /// Waiting boxes, by cursor. What is not acknowledged comes again with every sync that starts from 0.
    pub boxes: Vec<WaitingBox>,
    /// Whether more wait behind the last cursor.
    pub more: bool,
    /// What became of each receipt, in the order of the request.
    pub receipts: Vec<ReceiptOutcome>,
    /// The newest tenant status that the relay has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Base64Url>,
    /// The relay's time (seconds).
    pub time: UnixTime,
    /// Raised when the relay's store was restored from a backup.
    pub incarnation: u64,
}

/// A box that waits for its device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WaitingBox {
    /// Its place in the mailbox.
    pub cursor: u64,
    /// The submission.
    pub id: TransportId,
    /// Who submitted it, as the relay authenticated them; the signature inside is what counts.
    pub sender: AuthorName,
    /// When the message is over (seconds).
    pub expires_at: UnixTime,
    /// The sealed message.
    pub sealed: Base64Url,
}

/// What became of a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptOutcome {
    /// It changed the delivery's state.
    Accepted,
    /// It says what is known already.
    Duplicate,
    /// It came after an end; the outcome stands, the receipt is in the events.
    Late,
    /// The relay knows no such delivery: it never had it, or keeps it no more.
    Unknown,
    /// It does not verify.
    Invalid,
}

impl ReceiptOutcome {
    /// Whether the device may forget the receipt: sending it again would change nothing.
    #[must_use]
    pub const fn is_final(self) -> bool {
        true
    }
}

/// The answer to `GET /v1/events?after=&wait=&limit=`, by a sender. It is about the messages of the tenant's
/// senders; a device asks for each of its own messages by its id.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventPage {
    /// Events with ids above `after`, dense, in order.
    pub events: Vec<Event>,
    /// The id to ask for next: that of the last event, or `after`.
    pub next: u64,
    /// The highest id there is.
    pub last: u64,
}

/// One change of one delivery; or, with `from` and `to` alike, a note that an attempt to push failed.
///
/// A message that waits is noted at each attempt that stood for it, while it is among the newest 8 of its device.
/// Attempts back off from half a second to the relay's bound for the priority: by default a minute for critical
/// messages, ten minutes for normal and an hour for bulk ones. While a provider fails push after push, or
/// refuses an app's credential, lanes pause and try one push at a time; what waits behind it is not attempted,
/// and not noted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// 1, 2, 3 … in each tenant, without gaps.
    pub id: u64,
    /// When (milliseconds).
    pub time_ms: u64,
    /// The submission.
    pub message: TransportId,
    /// Who submitted it.
    pub sender: SubjectId,
    /// The device.
    pub device: DeviceId,
    /// The state before, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<DeliveryState>,
    /// The state now.
    pub to: DeliveryState,
    /// Whether the device's word came after an end, so that the state stayed as it was.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
    /// Why: the code of a [`PushFailure`](crate::delivery::PushFailure) with a note, or with a delivery that was `pushed`
    /// and is `queued` again; the device's own with `unopenable`; a
    /// [`FailureReason`](crate::delivery::FailureReason) with `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The receipt that brought it about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Base64Url>,
}
