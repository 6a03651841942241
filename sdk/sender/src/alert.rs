//! Alerts: what a source system wants a person to be told, and where it has got to.

use std::collections::BTreeMap;

use sealpost_wire::clock::UnixTime;
use sealpost_wire::delivery::DeliveryState;
use sealpost_wire::id::{DeviceId, Digest, NotificationId, RecipientId, TransportId};
use sealpost_wire::payload::{Part, Priority, QuickReply, Sensitivity, Text};
use serde::{Deserialize, Serialize};

/// What happened at the source. The same event makes one alert however often it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceEvent {
    /// Names the event within this sender, at most 512 bytes: for HL7, sending application, facility and control id.
    pub key: String,
    /// SHA-256 of what came, so that another content under the same key is noticed.
    pub body: Digest,
    /// What the event is about (an order), if later events replace what earlier ones said of it.
    pub subject: Option<String>,
    /// When what it says was true: an older event never replaces a newer one about the same subject.
    pub as_of: Option<UnixTime>,
}

/// What a person is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Where it comes from.
    pub source: SourceEvent,
    /// Who is to be told.
    pub recipient: RecipientId,
    /// An agreed code; the recipient's consent is looked up by it.
    pub category: String,
    /// How soon.
    pub priority: Priority,
    /// What a locked screen may show.
    pub sensitivity: Sensitivity,
    /// Title and body by language.
    pub texts: BTreeMap<String, Text>,
    /// Data for the app.
    pub parts: Vec<Part>,
    /// Answers to offer.
    pub replies: Vec<QuickReply>,
    /// How long it is worth delivering (seconds), at most 30 days.
    pub lifetime_seconds: u64,
}

/// What [`crate::Sender::enqueue`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enqueued {
    /// It is in the outbox now.
    New(NotificationId),
    /// The same event had come before.
    Known(NotificationId),
    /// A newer event about the same subject had come before; nothing is sent.
    Outdated(NotificationId),
}

/// How far a submission is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// To be looked up and sealed.
    Waiting,
    /// Sealed; the relay has not said 202.
    Sealed,
    /// The relay said 202: it is durable there.
    Accepted,
    /// It will not be sent; the reason is with it.
    Failed,
}

impl Stage {
    pub(crate) const fn code(self) -> i64 {
        match self {
            Self::Waiting => 0,
            Self::Sealed => 1,
            Self::Accepted => 2,
            Self::Failed => 3,
        }
    }

    pub(crate) fn from_code(code: i64) -> Option<Self> {
        [Self::Waiting, Self::Sealed, Self::Accepted, Self::Failed]
            .into_iter()
            .find(|stage| stage.code() == code)
    }
}

/// Where one alert is.
#[derive(Clone, Debug, Serialize)]
pub struct AlertStatus {
    /// The source event's key.
    pub source: String,
    /// The notification that the person is told by.
    pub notification: NotificationId,
    /// Its revision.
    pub revision: u64,
    /// When it was taken in (seconds).
    pub created: UnixTime,
    /// Until when it is delivered (seconds).
    pub expires_at: UnixTime,
    /// Its submissions, oldest first: one, and one more for each box that had to be sealed anew.
    pub submissions: Vec<SubmissionStatus>,
}

/// Where one submission is.
#[derive(Clone, Debug, Serialize)]
pub struct SubmissionStatus {
    /// Its transport id, once it is sealed.
    pub transport_id: Option<TransportId>,
    /// How far it is.
    pub stage: Stage,
    /// Tries so far that did not succeed.
    pub attempts: u32,
    /// The code of the last failure.
    pub failure: Option<String>,
    /// When the relay accepted it (milliseconds, this clock).
    pub accepted_ms: Option<u64>,
    /// Whether it was sealed to a set from the cache because the keyserver was out.
    pub from_cache: bool,
    /// Its boxes.
    pub boxes: Vec<BoxStatus>,
}

/// Where one box is.
#[derive(Clone, Debug, Serialize)]
pub struct BoxStatus {
    /// The device.
    pub device: DeviceId,
    /// The state, as the relay says.
    pub state: DeliveryState,
    /// Why, for `failed` and `unopenable`; for `queued` the code of the last attempt to push that failed
    /// ([`sealpost_wire::delivery::PushFailure`]), if one did.
    pub reason: Option<String>,
    /// Whether the device's own signature proves the state.
    pub verified: bool,
    /// The device's time in its receipt.
    pub device_time: Option<UnixTime>,
    /// Bytes of the sealed message, which is all that the relay has of it.
    pub bytes: u64,
}

impl AlertStatus {
    /// The newest box of each device: one that was sealed anew stands for those before it. A box that the relay could
    /// not deliver at all (`failed`) counts only if it is all there is.
    #[must_use]
    pub fn newest_boxes(&self) -> Vec<&BoxStatus> {
        let mut newest = BTreeMap::new();
        for one in self.submissions.iter().flat_map(|submission| &submission.boxes) {
            newest.insert(one.device, one);
        }
        let (failed, newest): (Vec<_>, Vec<_>) =
            newest.into_values().partition(|one| one.state == DeliveryState::Failed);
        if newest.is_empty() { failed } else { newest }
    }

    /// Whether every device that the alert was accepted for has opened it, by its own signature, and there is one.
    #[must_use]
    pub fn is_opened(&self) -> bool {
        let newest = self.newest_boxes();
        !self.is_under_way() && !newest.is_empty() && newest.into_iter().all(BoxStatus::is_opened)
    }

    /// Whether nothing more will come of it: every submission is over, and every device has opened it or never will.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !self.is_under_way()
            && self.newest_boxes().into_iter().all(|one| one.is_opened() || one.state.is_terminal())
    }

    /// Whether something of it is still to be sealed or sent.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        self.submissions.iter().any(|submission| matches!(submission.stage, Stage::Waiting | Stage::Sealed))
    }
}

impl BoxStatus {
    /// Whether the device's own signature says that it has opened the message.
    #[must_use]
    pub const fn is_opened(&self) -> bool {
        self.verified
            && matches!(
                self.state,
                DeliveryState::Opened | DeliveryState::Confirmed | DeliveryState::Declined
            )
    }
}
