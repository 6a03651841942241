//! Answers of Apple and Google, and of Google's token endpoint.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use sealpost_relay::provider::{Detail, Outcome, answer};
use serde_json::Value;

use crate::world::NOW;

/// The longest wait that an answer brings about.
const WAIT_MAX: Duration = Duration::from_secs(3600);
const TOKEN_LIFETIME_SECONDS_MAX: u64 = 86_400;

/// Input: status (two bytes), `Retry-After` up to a line feed, body.
pub(crate) fn apns_answer(input: &[u8]) {
    let Some((status, headers, body)) = split(input) else { return };
    let outcome = answer::apns_refusal(status, &headers, body, NOW);
    check(&outcome);
    if let Outcome::DeadToken { since_ms, .. } = outcome {
        let Ok(body) = serde_json::from_slice::<Value>(body) else { return };
        assert!(
            status == StatusCode::GONE && matches!(said(&body["reason"]), "Unregistered" | "ExpiredToken")
        );
        assert_eq!(since_ms, body["timestamp"].as_u64());
    }
}

/// Input: as above.
pub(crate) fn fcm_answer(input: &[u8]) {
    let Some((status, headers, body)) = split(input) else { return };
    let outcome = answer::fcm_refusal(status, &headers, body, NOW);
    check(&outcome);
    assert!(!matches!(outcome, Outcome::BadToken { .. }), "Google has no such word");
    if matches!(outcome, Outcome::DeadToken { .. }) {
        assert_eq!(status, StatusCode::NOT_FOUND);
        let Ok(body) = serde_json::from_slice::<Value>(body) else { return };
        let error = &body["error"];
        let codes =
            error["details"].as_array().into_iter().flatten().map(|detail| said(&detail["errorCode"]));
        assert!(codes.chain([said(&error["status"])]).any(|code| code == "UNREGISTERED"));
    }
}

/// Input: as above.
pub(crate) fn token_answer(input: &[u8]) {
    let Some((status, headers, body)) = split(input) else { return };
    match answer::access_token(status, &headers, body, NOW) {
        Ok(expires_at) => {
            assert!(status.is_success());
            assert!(expires_at > NOW && expires_at <= NOW.plus(TOKEN_LIFETIME_SECONDS_MAX));
        }
        Err(outcome) => {
            check(&outcome);
            assert!(matches!(outcome, Outcome::Credential { .. }), "no token is no fault of a device");
        }
    }
}

/// What holds of every refusal: it is no success, its wait is bounded, its text fit for a log.
fn check(outcome: &Outcome) {
    match outcome {
        Outcome::Accepted { .. } => panic!("a refusal is no success"),
        Outcome::Retry { after, .. } | Outcome::Credential { after, .. } => assert!(*after <= WAIT_MAX),
        Outcome::DeadToken { .. } | Outcome::BadToken { .. } | Outcome::Rejected { .. } => {}
    }
    let detail = outcome.detail().as_str();
    assert!(detail.len() <= Detail::BYTES_MAX && detail.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
}

fn said(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn split(input: &[u8]) -> Option<(StatusCode, HeaderMap, &[u8])> {
    let (status, rest) = input.split_first_chunk::<2>()?;
    let status = StatusCode::from_u16(100 + u16::from_be_bytes(*status) % 900).ok()?;
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let (wait, body) = rest.split_at_checked(end)?;
    let mut headers = HeaderMap::new();
    if !wait.is_empty() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_bytes(wait).ok()?);
    }
    Some((status, headers, body.get(1..)?))
}
