//! What became of one push.

use std::fmt;
use std::time::Duration;

use sealpost_wire::delivery::PushFailure;

/// What became of one push. Closed on purpose: each variant asks for another action, and the labels are used as
/// metric labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The provider took the stub. It says nothing about the device, and less about the patient.
    Accepted {
        /// The provider's name for the push (`apns-id`, or the last part of FCM's message name).
        provider_id: Detail,
    },
    /// The app is gone from the device, or the token has expired.
    DeadToken {
        /// The moment since when, in milliseconds since the Unix epoch. A token registered *after* it is alive,
        /// the answer then speaks of an earlier registration. `None`: dead now.
        since_ms: Option<u64>,
        /// What the provider said.
        detail: Detail,
    },
    /// The provider does not know the token at all (`BadDeviceToken`, `DeviceTokenNotForTopic`). Never retried
    /// for this registration. Not dead either: all tokens look so when the client is set to the wrong environment.
    BadToken {
        /// What the provider said.
        detail: Detail,
    },
    /// Nothing is wrong with the push; send it again, with the same push id.
    Retry {
        /// The first wait: what the provider asks for, or the least that spares it. The caller doubles it at each
        /// further failure of the push and adds jitter ([`super::backoff::delay`]).
        after: Duration,
        /// Why.
        class: RetryClass,
        /// What the provider said, or what happened.
        detail: Detail,
    },
    /// The app's credential at the provider fails. Every push of this client will fail alike: stop this client's
    /// lane, and no other, and tell the operator.
    Credential {
        /// Which part of it.
        fault: CredentialFault,
        /// When the lane may try one push again.
        after: Duration,
        /// What the provider said.
        detail: Detail,
    },
    /// The provider refuses the request itself. Ours to fix: neither a retry nor a new token helps, and the token
    /// is as alive as before.
    Rejected {
        /// What it refuses.
        fault: RejectedFault,
        /// What the provider said.
        detail: Detail,
    },
}

/// Why a push is to be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryClass {
    /// Too many pushes for this device (APNs 429 `TooManyRequests`).
    Throttled,
    /// Too many pushes of this app: FCM 429, which counts by project before it counts by device.
    Quota,
    /// APNs 429 `TooManyProviderTokenUpdates`: more than one signer uses the key, or a clock is off.
    TokenUpdates,
    /// The provider's own failure: 5xx.
    Server,
    /// No answer within the deadline, or no stream to ask on: those that are open are full of unanswered requests.
    NoAnswer,
    /// The provider closed the connection (GOAWAY, refused stream) more often than the push is resent at once.
    GoAway,
    /// No connection, or it broke more often than the push is resent at once.
    Connection,
    /// This client already has as many pushes waiting for a connection as it may.
    Busy,
}

/// Which part of the credential fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CredentialFault {
    /// APNs still finds the provider token expired after it was signed anew: the clock is off.
    ExpiredProviderToken,
    /// APNs refuses the provider token: wrong team, key or environment, or a revoked key.
    ProviderToken,
    /// APNs forbids the action for this key.
    Forbidden,
    /// FCM refuses the access token after it was fetched anew, or the service account lacks the permission.
    AccessToken,
    /// FCM cannot authenticate to Apple or to the web push service for this app.
    ThirdPartyAuth,
    /// The token endpoint refuses the service account's key.
    TokenRefused,
    /// The token endpoint cannot be reached or fails; it may recover by itself.
    TokenEndpoint,
}

/// What of the request the provider refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectedFault {
    /// The stub is too large: shorten its texts.
    PayloadTooLarge,
    /// The topic is not one of the key's team, or not allowed.
    Topic,
    /// A header or a field is not accepted.
    Request,
    /// The token belongs to another FCM sender: the app was built with another project.
    SenderId,
    /// The path or project does not exist.
    NotFound,
    /// Another refusal that this version does not know.
    Unknown,
}

/// A short text for the log: bounded, printable ASCII, never a token, never a body.
#[derive(Clone, PartialEq, Eq)]
pub struct Detail(Box<str>);

impl Outcome {
    /// The outcome's metric label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Accepted { .. } => "accepted",
            Self::DeadToken { .. } => "dead_token",
            Self::BadToken { .. } => "bad_token",
            Self::Retry { .. } => "retry",
            Self::Credential { .. } => "credential",
            Self::Rejected { .. } => "rejected",
        }
    }

    /// The second metric label: why, within the outcome. One of a closed set.
    #[must_use]
    pub const fn reason_label(&self) -> &'static str {
        match self {
            Self::Accepted { .. } | Self::DeadToken { .. } | Self::BadToken { .. } => "",
            Self::Retry { class, .. } => class.label(),
            Self::Credential { fault, .. } => fault.label(),
            Self::Rejected { fault, .. } => fault.label(),
        }
    }

    /// Why the attempt failed, as senders and auditors are told; nothing for one that was accepted.
    #[must_use]
    pub const fn failure(&self) -> Option<PushFailure> {
        Some(match self {
            Self::Accepted { .. } => return None,
            Self::DeadToken { .. } => PushFailure::TokenDead,
            Self::BadToken { .. } => PushFailure::TokenRefused,
            Self::Retry { class, .. } => match class {
                RetryClass::Throttled | RetryClass::Quota => PushFailure::Throttled,
                RetryClass::TokenUpdates => PushFailure::Credential,
                RetryClass::Server => PushFailure::ProviderError,
                RetryClass::NoAnswer => PushFailure::NoAnswer,
                RetryClass::GoAway | RetryClass::Connection => PushFailure::NoConnection,
                RetryClass::Busy => PushFailure::Busy,
            },
            Self::Credential { .. } => PushFailure::Credential,
            Self::Rejected { .. } => PushFailure::Rejected,
        })
    }

    /// What the provider said, for the log.
    #[must_use]
    pub const fn detail(&self) -> &Detail {
        match self {
            Self::Accepted { provider_id: detail }
            | Self::DeadToken { detail, .. }
            | Self::BadToken { detail }
            | Self::Retry { detail, .. }
            | Self::Credential { detail, .. }
            | Self::Rejected { detail, .. } => detail,
        }
    }
}

impl RetryClass {
    /// The class's metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Quota => "quota",
            Self::TokenUpdates => "token_updates",
            Self::Server => "server",
            Self::NoAnswer => "no_answer",
            Self::GoAway => "goaway",
            Self::Connection => "connection",
            Self::Busy => "busy",
        }
    }
}

impl CredentialFault {
    /// The fault's metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::ExpiredProviderToken => "expired_provider_token",
            Self::ProviderToken => "provider_token",
            Self::Forbidden => "forbidden",
            Self::AccessToken => "access_token",
            Self::ThirdPartyAuth => "third_party_auth",
            Self::TokenRefused => "token_refused",
            Self::TokenEndpoint => "token_endpoint",
        }
    }
}

impl RejectedFault {
    /// The fault's metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::PayloadTooLarge => "payload_too_large",
            Self::Topic => "topic",
            Self::Request => "request",
            Self::SenderId => "sender_id",
            Self::NotFound => "not_found",
            Self::Unknown => "unknown",
        }
    }
}

impl Detail {
    /// The longest text, in bytes.
    pub const BYTES_MAX: usize = 96;

    /// Keeps what is printable ASCII of a text, at most [`Self::BYTES_MAX`] of it; the rest is shown as `?`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self::from_bytes(text.as_bytes())
    }

    /// The same of bytes that may not be text.
    #[must_use]
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let printable = |&b: &u8| if b.is_ascii_graphic() || b == b' ' { char::from(b) } else { '?' };
        let text: String = bytes.iter().take(Self::BYTES_MAX).map(printable).collect();
        Self(text.into_boxed_str())
    }

    /// A provider's answer: its status and the codes it gave. Codes are names such as `BadDeviceToken`; text with
    /// any other character (a sentence may quote a token) is left out.
    #[must_use]
    pub(crate) fn answer(status: http::StatusCode, codes: &[&str]) -> Self {
        let is_code = |code: &&&str| {
            (1..=CODE_BYTES_MAX).contains(&code.len())
                && code.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.[]".contains(&b))
        };
        let mut text = status.as_str().to_owned();
        for code in codes.iter().filter(is_code) {
            text.push(' ');
            text.push_str(code);
        }
        Self::new(&text)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// The longest code that is kept of a provider's answer. Every documented one is shorter; tokens are longer.
const CODE_BYTES_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detail_keeps_codes_and_nothing_that_could_be_a_token() {
        let status = http::StatusCode::BAD_REQUEST;
        assert_eq!(Detail::answer(status, &["BadDeviceToken"]).as_str(), "400 BadDeviceToken");
        let token = "a".repeat(64);
        assert_eq!(Detail::answer(status, &[&token, "", "two words", "x\ny"]).as_str(), "400");
    }

    #[test]
    fn detail_is_bounded_and_printable() {
        assert_eq!(Detail::new(&"x".repeat(1000)).as_str().len(), Detail::BYTES_MAX);
        assert_eq!(Detail::new("a\x1b[31m\nb").as_str(), "a?[31m?b");
    }
}
