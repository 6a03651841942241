//! States of a delivery: one message on its way to one device.
//!
//! ```text
//! held -> queued -> pushed -> fetched -> opened -> confirmed / declined
//!            ^---------'                            ends: confirmed, declined, opened (once it has expired),
//!                                                   expired, recalled, revoked, unopenable, failed
//! ```
//! [`DeliveryState::allows`] is the table of every change there is; the stores ask it and nothing else
//! decides.

use serde::{Deserialize, Serialize};

/// Where one message is on its way to one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// Stored and not released: its manifest is not committed, or an escalation has not come to it.
    Held,
    /// Released. A push is due; one that failed, or a device without a push token, stays here.
    Queued,
    /// Apple or Google accepted a stub. It says nothing about the patient.
    Pushed,
    /// The device signed that it has stored the box.
    Fetched,
    /// The device signed that it has opened the message. It never means that a person saw it.
    Opened,
    /// A person agreed, and the device signed it.
    Confirmed,
    /// A person declined, and the device signed it.
    Declined,
    /// Its time ran out before the device had opened it.
    Expired,
    /// The sender took it back.
    Recalled,
    /// The device was revoked.
    Revoked,
    /// The device signed that it cannot open the box.
    Unopenable,
    /// It was never deliverable.
    Failed,
}

impl DeliveryState {
    /// All of them, in the order of a message's life.
    pub const ALL: [Self; 12] = [
        Self::Held,
        Self::Queued,
        Self::Pushed,
        Self::Fetched,
        Self::Opened,
        Self::Confirmed,
        Self::Declined,
        Self::Expired,
        Self::Recalled,
        Self::Revoked,
        Self::Unopenable,
        Self::Failed,
    ];

    /// Whether nothing comes after it. `opened` is an end too once the message has expired: nothing is left
    /// to happen.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Confirmed
                | Self::Declined
                | Self::Expired
                | Self::Recalled
                | Self::Revoked
                | Self::Unopenable
                | Self::Failed
        )
    }

    /// Whether the relay still keeps the box: it goes with `opened`, `unopenable` or an end.
    #[must_use]
    pub const fn keeps_box(self) -> bool {
        matches!(self, Self::Held | Self::Queued | Self::Pushed | Self::Fetched)
    }

    /// Whether a push is (again) due for it.
    #[must_use]
    pub const fn wants_push(self) -> bool {
        matches!(self, Self::Queued | Self::Pushed)
    }

    /// Whether a delivery in this state may come into `next`. Signed words of a device may skip states: a
    /// device that opened has fetched.
    #[must_use]
    pub const fn allows(self, next: Self) -> bool {
        match self {
            Self::Held => {
                matches!(next, Self::Queued | Self::Expired | Self::Recalled | Self::Revoked | Self::Failed)
            }
            Self::Queued => !matches!(next, Self::Held | Self::Queued),
            Self::Pushed => !matches!(next, Self::Held | Self::Pushed),
            Self::Fetched => !matches!(next, Self::Held | Self::Queued | Self::Pushed | Self::Fetched),
            Self::Opened => matches!(next, Self::Confirmed | Self::Declined),
            Self::Confirmed
            | Self::Declined
            | Self::Expired
            | Self::Recalled
            | Self::Revoked
            | Self::Unopenable
            | Self::Failed => false,
        }
    }

    /// The number in stored values.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Held => 0,
            Self::Queued => 1,
            Self::Pushed => 2,
            Self::Fetched => 3,
            Self::Opened => 4,
            Self::Confirmed => 5,
            Self::Declined => 6,
            Self::Expired => 7,
            Self::Recalled => 8,
            Self::Revoked => 9,
            Self::Unopenable => 10,
            Self::Failed => 11,
        }
    }

    /// The state with this number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.code() == code)
    }

    /// Its name, as in JSON and in metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Queued => "queued",
            Self::Pushed => "pushed",
            Self::Fetched => "fetched",
            Self::Opened => "opened",
            Self::Confirmed => "confirmed",
            Self::Declined => "declined",
            Self::Expired => "expired",
            Self::Recalled => "recalled",
            Self::Revoked => "revoked",
            Self::Unopenable => "unopenable",
            Self::Failed => "failed",
        }
    }
}

/// Why a delivery failed, in the answer to its submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// The relay does not know the device, or it is another tenant's.
    UnknownDevice,
    /// The tenant has revoked the device.
    RevokedDevice,
    /// The device's mailbox is full.
    MailboxFull,
}

/// Why an attempt to push failed: the `reason` of a note in a sender's events (an event whose delivery stays as it
/// was: `queued -> queued`, or `pushed -> pushed` where a repeated stub failed), and the `outcome` in the audit.
///
/// None of them ends a delivery: the message waits in its mailbox, and a device that syncs gets it all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PushFailure {
    /// The app is gone from the device, or its push token has expired. Nothing is pushed until the device registers
    /// a new one.
    TokenDead,
    /// The provider does not know the push token. It rests until the device registers again.
    TokenRefused,
    /// The provider spoke of an earlier registration of the same push token; this one is tried again.
    AnswerOutdated,
    /// The provider takes no more for now, of this device or of this app.
    Throttled,
    /// The provider's own failure: 5xx.
    ProviderError,
    /// The provider did not answer in time.
    NoAnswer,
    /// No connection to the provider, or it broke.
    NoConnection,
    /// The relay had too many pushes waiting for a connection.
    Busy,
    /// The provider refuses the app's credential, or none could be got: an operator has to act.
    Credential,
    /// The provider refuses the request itself: the app's configuration is at fault.
    Rejected,
}

impl PushFailure {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::TokenDead,
        Self::TokenRefused,
        Self::AnswerOutdated,
        Self::Throttled,
        Self::ProviderError,
        Self::NoAnswer,
        Self::NoConnection,
        Self::Busy,
        Self::Credential,
        Self::Rejected,
    ];

    /// Its stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TokenDead => "push_token_dead",
            Self::TokenRefused => "push_token_refused",
            Self::AnswerOutdated => "push_answer_outdated",
            Self::Throttled => "push_throttled",
            Self::ProviderError => "push_provider_error",
            Self::NoAnswer => "push_no_answer",
            Self::NoConnection => "push_no_connection",
            Self::Busy => "push_busy",
            Self::Credential => "push_credential",
            Self::Rejected => "push_rejected",
        }
    }

    /// The failure with this code.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|failure| failure.code() == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn push_failures_have_a_code_each() {
        for failure in PushFailure::ALL {
            assert!(failure.code().starts_with("push_"));
            assert_eq!(PushFailure::from_code(failure.code()), Some(failure));
        }
        assert_eq!(PushFailure::from_code("push_"), None);
    }

    #[test]
    fn the_table_of_changes() {
        // Rows: from; columns: to, in the order of ALL. Written out, so that a change of the table shows
        // here.
        #[rustfmt::skip]
        let table = [
            ("held",       ".Q.....XRV.F"),
            ("queued", "..PFOCDXRVUF"),
            ("pushed", ".Q.FOCDXRVUF"),
            ("fetched", "....OCDXRVUF"),
            ("opened", ".....CD....."),
            ("confirmed", "............"),
            ("declined", "............"),
            ("expired", "............"),
            ("recalled", "............"),
            ("revoked", "............"),
            ("unopenable", "............"),
            ("failed", "............"),
        ];
        for (from, (name, row)) in DeliveryState::ALL.into_iter().zip(table) {
            assert_eq!(from.name(), name);
            for (to, mark) in DeliveryState::ALL.into_iter().zip(row.chars()) {
                assert_eq!(from.allows(to), mark != '.', "{name} -> {}", to.name());
            }
            assert_eq!(from.is_terminal(), row.chars().all(|mark| mark == '.'), "{name}");
            assert_eq!(DeliveryState::from_code(from.code()), Some(from));
        }
    }
}
