//! What an answer of APNs means ("Handling notification responses from APNs").

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use super::exchange;
use super::outcome::{CredentialFault, Detail, Outcome, RejectedFault, RetryClass};

/// An answer other than 200, read.
pub(super) struct ApnsRefusal {
    status: StatusCode,
    reason: String,
    /// Epoch milliseconds, with status 410.
    timestamp: Option<u64>,
}

impl ApnsRefusal {
    /// Reads the body. One that is not the documented object leaves the reason empty.
    pub(super) fn read(status: StatusCode, body: &[u8]) -> Self {
        let body: Body = serde_json::from_slice(body).unwrap_or_default();
        Self { status, reason: body.reason, timestamp: body.timestamp }
    }

    /// The provider token is too old for APNs: signing anew may help, once.
    pub(super) fn is_expired_provider_token(&self) -> bool {
        self.status == StatusCode::FORBIDDEN && self.reason == "ExpiredProviderToken"
    }

    /// The server goes away, and its connection with it.
    pub(super) fn is_shutdown(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE && self.reason == "Shutdown"
    }

    /// What the caller is to do. `retry_after` is the answer's own wait.
    pub(super) fn outcome(&self, retry_after: Option<Duration>) -> Outcome {
        let detail = Detail::answer(self.status, &[&self.reason]);
        let rejected = |fault| Outcome::Rejected { fault, detail: detail.clone() };
        let credential = |fault| {
            let after = retry_after.unwrap_or(CREDENTIAL_WAIT);
            Outcome::Credential { fault, after, detail: detail.clone() }
        };
        let retry = |class, first: Duration| {
            let after = retry_after.unwrap_or(first);
            Outcome::Retry { after, class, detail: detail.clone() }
        };
        match (self.status.as_u16(), self.reason.as_str()) {
            (410, "Unregistered" | "ExpiredToken") => {
                Outcome::DeadToken { since_ms: self.timestamp, detail: detail.clone() }
            }
            (400, "BadDeviceToken" | "DeviceTokenNotForTopic") => {
                Outcome::BadToken { detail: detail.clone() }
            }
            (400, "BadTopic" | "MissingTopic" | "TopicDisallowed") => rejected(RejectedFault::Topic),
            (400, "IdleTimeout") => retry(RetryClass::Connection, SERVER_WAIT),
            (400 | 405, _) => rejected(RejectedFault::Request),
            (403, "ExpiredProviderToken") => credential(CredentialFault::ExpiredProviderToken),
            (403, "Forbidden") => credential(CredentialFault::Forbidden),
            (401 | 403, _) => credential(CredentialFault::ProviderToken),
            (404, _) => rejected(RejectedFault::NotFound),
            (408, _) => retry(RetryClass::NoAnswer, SERVER_WAIT),
            (413, _) => rejected(RejectedFault::PayloadTooLarge),
            (429, "TooManyProviderTokenUpdates") => retry(RetryClass::TokenUpdates, THROTTLE_WAIT),
            (429, _) => retry(RetryClass::Throttled, THROTTLE_WAIT),
            (500..=599, _) => retry(RetryClass::Server, SERVER_WAIT),
            // A status that is not documented, a 410 without a known reason among them: a token is declared dead
            // by the documented words alone.
            _ => rejected(RejectedFault::Unknown),
        }
    }
}

/// The same of a whole answer.
pub(super) fn read(answer: &exchange::Answer) -> ApnsRefusal {
    ApnsRefusal::read(answer.status, &answer.body)
}

#[derive(Default, Deserialize)]
struct Body {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    timestamp: Option<u64>,
}

/// Apple names no wait; another provider token or a device's quota takes minutes.
const THROTTLE_WAIT: Duration = Duration::from_secs(60);
const SERVER_WAIT: Duration = Duration::from_secs(5);
/// When a lane with a failing credential tries one push again. A person must act first.
const CREDENTIAL_WAIT: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(status: u16, reason: &str) -> (&'static str, &'static str) {
        let body = format!(r#"{{"reason":"{reason}"}}"#);
        let refusal = ApnsRefusal::read(StatusCode::from_u16(status).unwrap(), body.as_bytes());
        let outcome = refusal.outcome(None);
        assert!(outcome.detail().as_str().starts_with(&status.to_string()));
        (outcome.label(), outcome.reason_label())
    }

    #[test]
    fn every_documented_reason_has_its_outcome() {
        let table = [
            (400, "BadCollapseId", ("rejected", "request")),
            (400, "BadDeviceToken", ("bad_token", "")),
            (400, "BadExpirationDate", ("rejected", "request")),
            (400, "BadMessageId", ("rejected", "request")),
            (400, "BadPriority", ("rejected", "request")),
            (400, "BadTopic", ("rejected", "topic")),
            (400, "DeviceTokenNotForTopic", ("bad_token", "")),
            (400, "DuplicateHeaders", ("rejected", "request")),
            (400, "IdleTimeout", ("retry", "connection")),
            (400, "InvalidPushType", ("rejected", "request")),
            (400, "MissingDeviceToken", ("rejected", "request")),
            (400, "MissingTopic", ("rejected", "topic")),
            (400, "PayloadEmpty", ("rejected", "request")),
            (400, "TopicDisallowed", ("rejected", "topic")),
            (403, "BadCertificate", ("credential", "provider_token")),
            (403, "BadCertificateEnvironment", ("credential", "provider_token")),
            (403, "ExpiredProviderToken", ("credential", "expired_provider_token")),
            (403, "Forbidden", ("credential", "forbidden")),
            (403, "InvalidProviderToken", ("credential", "provider_token")),
            (403, "MissingProviderToken", ("credential", "provider_token")),
            (403, "UnrelatedKeyIdInToken", ("credential", "provider_token")),
            (403, "BadEnvironmentKeyIdInToken", ("credential", "provider_token")),
            (403, "BadEnvironmentKeyInToken", ("credential", "provider_token")),
            (404, "BadPath", ("rejected", "not_found")),
            (405, "MethodNotAllowed", ("rejected", "request")),
            (410, "ExpiredToken", ("dead_token", "")),
            (410, "Unregistered", ("dead_token", "")),
            (413, "PayloadTooLarge", ("rejected", "payload_too_large")),
            (429, "TooManyProviderTokenUpdates", ("retry", "token_updates")),
            (429, "TooManyRequests", ("retry", "throttled")),
            (500, "InternalServerError", ("retry", "server")),
            (503, "ServiceUnavailable", ("retry", "server")),
            (503, "Shutdown", ("retry", "server")),
        ];
        for (status, reason, expected) in table {
            assert_eq!(labels(status, reason), expected, "{status} {reason}");
        }
    }

    #[test]
    fn what_is_not_documented_never_kills_a_token() {
        for status in [400, 401, 402, 403, 404, 409, 410, 418, 429, 499, 500, 502, 599, 302] {
            let (label, _) = labels(status, "SomethingNew");
            assert!(matches!(label, "rejected" | "retry" | "credential"), "{status} {label}");
        }
        // The right words under another status are not the documented answer.
        assert_eq!(labels(400, "Unregistered"), ("rejected", "request"));
        for body in [&b""[..], b"{", b"[]", b"{\"reason\":1}", b"\xff\xff", b"{\"timestamp\":5}"] {
            let outcome = ApnsRefusal::read(StatusCode::GONE, body).outcome(None);
            assert_eq!(outcome.label(), "rejected", "{body:?}");
        }
    }

    #[test]
    fn dead_token_carries_its_moment() {
        let body = br#"{"reason":"Unregistered","timestamp":1700000000123}"#;
        let outcome = ApnsRefusal::read(StatusCode::GONE, body).outcome(None);
        assert!(matches!(outcome, Outcome::DeadToken { since_ms: Some(1_700_000_000_123), .. }));
    }

    #[test]
    fn an_own_wait_of_the_answer_is_kept() {
        let refusal = ApnsRefusal::read(StatusCode::SERVICE_UNAVAILABLE, b"");
        let Outcome::Retry { after, .. } = refusal.outcome(Some(Duration::from_secs(100))) else { panic!() };
        assert_eq!(after, Duration::from_secs(100));
    }

    proptest::proptest! {
        #[test]
        fn any_answer_has_a_bounded_outcome(status in 100u16..=999, body: Vec<u8>) {
            let status = StatusCode::from_u16(status).unwrap();
            let outcome = ApnsRefusal::read(status, &body).outcome(None);
            proptest::prop_assert_ne!(outcome.label(), "dead_token");
            proptest::prop_assert!(outcome.detail().as_str().len() <= Detail::BYTES_MAX);
        }
    }
}
