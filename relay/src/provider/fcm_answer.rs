//! What an answer of FCM means (HTTP v1, `google.rpc.Status` and `FcmError`).

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use super::outcome::{CredentialFault, Detail, Outcome, RejectedFault, RetryClass};

/// An answer other than 200, read.
pub(super) struct FcmRefusal {
    status: StatusCode,
    /// `google.rpc.Status.status`.
    rpc_status: String,
    /// FCM's own `errorCode`. It is not `status`, and it comes first.
    error_code: String,
    /// `ErrorInfo.reason`, or the field that a `BadRequest` is about.
    cause: String,
}

impl FcmRefusal {
    /// Reads the body. One that is not the documented object leaves all codes empty.
    pub(super) fn read(status: StatusCode, body: &[u8]) -> Self {
        let Body { error } = serde_json::from_slice(body).unwrap_or_default();
        let mut refusal =
            Self { status, rpc_status: error.status, error_code: String::new(), cause: String::new() };
        for detail in error.details.into_iter().take(DETAILS_MAX) {
            match detail.kind.as_str() {
                "type.googleapis.com/google.firebase.fcm.v1.FcmError" => {
                    refusal.error_code = detail.error_code;
                }
                "type.googleapis.com/google.rpc.ErrorInfo" => refusal.cause = detail.reason,
                "type.googleapis.com/google.rpc.BadRequest" => {
                    if let Some(violation) = detail.field_violations.into_iter().next() {
                        refusal.cause = violation.field;
                    }
                }
                _ => {}
            }
        }
        refusal
    }

    /// The access token is not accepted: another one may be, once.
    pub(super) fn is_access_token(&self) -> bool {
        self.status == StatusCode::UNAUTHORIZED && self.error_code != "THIRD_PARTY_AUTH_ERROR"
    }

    /// What the caller is to do. `retry_after` is the answer's own wait.
    pub(super) fn outcome(&self, retry_after: Option<Duration>) -> Outcome {
        let detail = Detail::answer(self.status, &[self.code(), &self.cause]);
        let rejected = |fault| Outcome::Rejected { fault, detail: detail.clone() };
        let credential = |fault| {
            let after = retry_after.unwrap_or(CREDENTIAL_WAIT);
            Outcome::Credential { fault, after, detail: detail.clone() }
        };
        let retry = |class, first: Duration| {
            let after = retry_after.unwrap_or(first);
            Outcome::Retry { after, class, detail: detail.clone() }
        };
        match (self.status.as_u16(), self.code()) {
            (404, "UNREGISTERED") => Outcome::DeadToken { since_ms: None, detail: detail.clone() },
            (401, "THIRD_PARTY_AUTH_ERROR") => credential(CredentialFault::ThirdPartyAuth),
            (401, _) => credential(CredentialFault::AccessToken),
            (403, "SENDER_ID_MISMATCH") => rejected(RejectedFault::SenderId),
            (403, _) => credential(CredentialFault::AccessToken),
            (404, _) => rejected(RejectedFault::NotFound),
            (408, _) => retry(RetryClass::NoAnswer, SERVER_WAIT),
            (413, _) => rejected(RejectedFault::PayloadTooLarge),
            (429, _) => retry(RetryClass::Quota, QUOTA_WAIT),
            (500..=599, _) => retry(RetryClass::Server, SERVER_WAIT),
            // Whatever it says, a live token must not die of it.
            (400, _) => rejected(RejectedFault::Request),
            _ => rejected(RejectedFault::Unknown),
        }
    }

    fn code(&self) -> &str {
        if self.error_code.is_empty() { &self.rpc_status } else { &self.error_code }
    }
}

#[derive(Default, Deserialize)]
struct Body {
    #[serde(default)]
    error: RpcStatus,
}

#[derive(Default, Deserialize)]
struct RpcStatus {
    #[serde(default)]
    status: String,
    #[serde(default)]
    details: Vec<RpcDetail>,
}

#[derive(Deserialize)]
struct RpcDetail {
    #[serde(rename = "@type", default)]
    kind: String,
    #[serde(rename = "errorCode", default)]
    error_code: String,
    #[serde(default)]
    reason: String,
    #[serde(rename = "fieldViolations", default)]
    field_violations: Vec<FieldViolation>,
}

#[derive(Deserialize)]
struct FieldViolation {
    #[serde(default)]
    field: String,
}

const DETAILS_MAX: usize = 8;
/// After 429 without a Retry-After ("Throttling and quotas").
const QUOTA_WAIT: Duration = Duration::from_secs(60);
/// The first wait after 5xx without a Retry-After.
const SERVER_WAIT: Duration = Duration::from_secs(10);
/// When a lane with a failing credential tries one push again. A person must act first.
const CREDENTIAL_WAIT: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    fn body(status: u16, rpc_status: &str, error_code: &str) -> String {
        format!(
            r#"{{"error":{{"code":{status},"message":"text with dQw4:token","status":"{rpc_status}","details":[
            {{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"{error_code}"}}]}}}}"#
        )
    }

    fn outcome(status: u16, body: &str) -> Outcome {
        FcmRefusal::read(StatusCode::from_u16(status).unwrap(), body.as_bytes()).outcome(None)
    }

    #[test]
    fn every_documented_code_has_its_outcome() {
        let table = [
            (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", ("rejected", "request")),
            (401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR", ("credential", "third_party_auth")),
            (401, "UNAUTHENTICATED", "", ("credential", "access_token")),
            (403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH", ("rejected", "sender_id")),
            (403, "PERMISSION_DENIED", "", ("credential", "access_token")),
            (404, "NOT_FOUND", "UNREGISTERED", ("dead_token", "")),
            (404, "NOT_FOUND", "", ("rejected", "not_found")),
            (413, "", "", ("rejected", "payload_too_large")),
            (429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", ("retry", "quota")),
            (500, "INTERNAL", "INTERNAL", ("retry", "server")),
            (502, "", "", ("retry", "server")),
            (503, "UNAVAILABLE", "UNAVAILABLE", ("retry", "server")),
        ];
        for (status, rpc_status, error_code, expected) in table {
            let outcome = outcome(status, &body(status, rpc_status, error_code));
            assert_eq!((outcome.label(), outcome.reason_label()), expected, "{status} {error_code}");
            assert!(!outcome.detail().as_str().contains("token"), "{}", outcome.detail());
        }
    }

    #[test]
    fn only_404_unregistered_is_dead() {
        for status in [400, 401, 403, 405, 409, 410, 413, 429, 500, 503] {
            assert_ne!(outcome(status, &body(status, "NOT_FOUND", "UNREGISTERED")).label(), "dead_token");
        }
        for garbage in
            ["", "<html>404</html>", "{}", "[]", r#"{"error":"UNREGISTERED"}"#, r#"{"error":null}"#]
        {
            assert_eq!(outcome(404, garbage).label(), "rejected", "{garbage}");
        }
    }

    #[test]
    fn waits_are_those_that_google_asks_for() {
        let after = |status, told: Option<u64>| {
            let refusal = FcmRefusal::read(StatusCode::from_u16(status).unwrap(), b"");
            match refusal.outcome(told.map(Duration::from_secs)) {
                Outcome::Retry { after, .. } => after.as_secs(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((after(500, None), after(503, None)), (10, 10));
        assert_eq!((after(429, None), after(429, Some(7))), (60, 7));
    }

    #[test]
    fn the_field_at_fault_is_kept_and_its_text_is_not() {
        let body = r#"{"error":{"code":400,"status":"INVALID_ARGUMENT","details":[
            {"@type":"type.googleapis.com/google.rpc.BadRequest",
             "fieldViolations":[{"field":"message.token","description":"dQw4:secret"}]}]}}"#;
        assert_eq!(outcome(400, body).detail().as_str(), "400 INVALID_ARGUMENT message.token");
    }

    #[test]
    fn an_expired_access_token_is_told_from_a_third_party_one() {
        let expired = r#"{"error":{"code":401,"status":"UNAUTHENTICATED","details":[
            {"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"ACCESS_TOKEN_EXPIRED"}]}}"#;
        assert!(FcmRefusal::read(StatusCode::UNAUTHORIZED, expired.as_bytes()).is_access_token());
        let third_party = body(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR");
        assert!(!FcmRefusal::read(StatusCode::UNAUTHORIZED, third_party.as_bytes()).is_access_token());
    }

    proptest::proptest! {
        #[test]
        fn any_answer_has_a_bounded_outcome(status in 100u16..=999, body: Vec<u8>) {
            let status = StatusCode::from_u16(status).unwrap();
            let outcome = FcmRefusal::read(status, &body).outcome(None);
            proptest::prop_assert_ne!(outcome.label(), "dead_token");
            proptest::prop_assert!(outcome.detail().as_str().len() <= Detail::BYTES_MAX);
        }
    }
}
