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

#[cfg(test)]
mod tests {
    use super::*;

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
