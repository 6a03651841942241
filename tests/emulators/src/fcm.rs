//! The FCM HTTP v1 API: request checks, answers and errors.
//!
//! Errors follow Google's error model (AIP-193): `error.status` is the canonical code, and `details` carries
//! what a client must read first: `FcmError.errorCode`, `ErrorInfo.reason`, or `BadRequest.fieldViolations`.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use crate::connection::{Delivery, Exchange, Reply};
use crate::faults::Verdict;
use crate::fcm_message::{self, Violation};
use crate::oauth::TokenEndpoint;
use crate::outcome::{Details, Outcome};
use crate::provider_token::bearer;
use crate::record::Push;
use crate::world::{Provider, World};

/// The emulated service, with the token endpoint that lives on the same port.
pub(crate) struct Fcm {
    world: Arc<World>,
    oauth: Arc<TokenEndpoint>,
    project_id: String,
    max_streams: u32,
    messages: AtomicU64,
}

/// Why a request is refused before the fault table is asked.
enum Refusal {
    NotFound,
    CredentialsMissing,
    /// Unknown, or past its end.
    TokenExpired,
    OtherProject,
    NotJson,
    Message(Violation),
}

impl Fcm {
    pub(crate) fn new(
        world: Arc<World>,
        oauth: Arc<TokenEndpoint>,
        project_id: String,
        max_streams: u32,
    ) -> Self {
        Self { world, oauth, project_id, max_streams, messages: AtomicU64::new(0) }
    }

    /// The device token of an acceptable request.
    fn check(&self, request: &Parts, body: &[u8], now_ms: u64) -> Result<String, Refusal> {
        let path = request.uri.path().strip_prefix("/v1/projects/").ok_or(Refusal::NotFound)?;
        let project = path.strip_suffix("/messages:send").ok_or(Refusal::NotFound)?;
        if request.method != Method::POST || project.is_empty() || project.contains('/') {
            return Err(Refusal::NotFound);
        }
        let token = request.headers.get(header::AUTHORIZATION).ok_or(Refusal::CredentialsMissing)?;
        let token = token.to_str().ok().and_then(bearer).ok_or(Refusal::CredentialsMissing)?;
        if !self.oauth.is_valid(token, now_ms) {
            return Err(Refusal::TokenExpired);
        }
        if project != self.project_id {
            return Err(Refusal::OtherProject);
        }
        if !is_json(&request.headers) {
            return Err(Refusal::NotJson);
        }
        fcm_message::check(body).map_err(Refusal::Message)
    }

    fn accepted(&self) -> Decision {
        let number = self.messages.fetch_add(1, Ordering::Relaxed) + 1;
        let body = json!({ "name": format!("projects/{}/messages/{number}", self.project_id) });
        Decision { reply: reply(StatusCode::OK, &body), reason: None }
    }

    fn decide(&self, token: &str) -> Decision {
        match self.world.faults.judge(Provider::Fcm, token) {
            Verdict::Usual => self.accepted(),
            Verdict::Dead(_) => {
                fcm_error(StatusCode::NOT_FOUND, "UNREGISTERED".into(), Details::FcmError, &self.project_id)
            }
            Verdict::Chosen(outcome) => self.chosen(&outcome),
        }
    }

    fn chosen(&self, outcome: &Outcome) -> Decision {
        let status = StatusCode::from_u16(outcome.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut decision = if status == StatusCode::OK {
            self.accepted()
        } else {
            let details = outcome.details.unwrap_or(Details::FcmError);
            match outcome.reason.clone() {
                Some(reason) if reason == "ACCESS_TOKEN_EXPIRED" => Refusal::TokenExpired.decision(),
                Some(reason) => fcm_error(status, reason.into(), details, &self.project_id),
                None => fcm_error(status, usual_reason(status, details).into(), details, &self.project_id),
            }
        };
        decision.reply.apply(outcome);
        if let Some(failure) = decision.reply.delivery.failure() {
            decision.reason = Some(failure.into());
        }
        decision
    }
}

impl Exchange for Fcm {
    type Session = ();

    fn provider(&self) -> Provider {
        Provider::Fcm
    }

    fn world(&self) -> &World {
        &self.world
    }

    fn initial_streams(&self) -> u32 {
        self.max_streams
    }

    fn goaway_debug_data(&self) -> Option<&'static str> {
        None
    }

    fn speaks_http1(&self) -> bool {
        true
    }

    fn answer(&self, (): &mut (), request: &Parts, body: Bytes) -> Reply {
        if request.uri.path() == TOKEN_PATH {
            return self.oauth.answer(request, &body);
        }
        let now_ms = self.world.clock.now_ms();
        let (token, mut decision) = match self.check(request, &body, now_ms) {
            Ok(token) => {
                let decision = self.decide(&token);
                (token, decision)
            }
            Err(refusal) => (String::new(), refusal.decision()),
        };
        if self.world.dates.of(Provider::Fcm) {
            decision.reply.date(now_ms);
        }
        if matches!(decision.reply.delivery, Delivery::Unprocessed(_)) {
            return decision.reply;
        }
        let keep = self.world.record.keeps();
        self.world.record.push(Push {
            sequence: 0,
            provider: Provider::Fcm,
            token: if keep { token } else { String::new() },
            received_ms: now_ms,
            received: Instant::now(),
            headers: if keep { recorded(&request.headers) } else { Vec::new() },
            body: if keep { Bytes::copy_from_slice(&body) } else { Bytes::new() },
            status: decision.reply.recorded_status(),
            reason: decision.reason,
        });
        decision.reply
    }
}

/// An answer, and the reason to record.
struct Decision {
    reply: Reply,
    reason: Option<Cow<'static, str>>,
}

impl Refusal {
    fn decision(&self) -> Decision {
        let (status, message, details, reason): (_, Cow<'static, str>, _, &'static str) = match self {
            Self::NotFound => {
                (StatusCode::NOT_FOUND, "Requested entity was not found.".into(), json!([]), "NOT_FOUND")
            }
            Self::CredentialsMissing => (
                StatusCode::UNAUTHORIZED,
                "Request is missing required authentication credential. Expected OAuth 2 access token, login \
                 cookie or other valid authentication credential."
                    .into(),
                json!([error_info("CREDENTIALS_MISSING", "googleapis.com")]),
                "CREDENTIALS_MISSING",
            ),
            Self::TokenExpired => (
                StatusCode::UNAUTHORIZED,
                "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie \
                 or other valid authentication credential."
                    .into(),
                json!([error_info("ACCESS_TOKEN_EXPIRED", "googleapis.com")]),
                "ACCESS_TOKEN_EXPIRED",
            ),
            Self::OtherProject => (
                StatusCode::FORBIDDEN,
                "Permission 'cloudmessaging.messages.create' denied on resource (or it may not exist)."
                    .into(),
                json!([error_info("IAM_PERMISSION_DENIED", "cloudresourcemanager.googleapis.com")]),
                "IAM_PERMISSION_DENIED",
            ),
            Self::NotJson => (
                StatusCode::BAD_REQUEST,
                "Invalid JSON payload received: the content type must be application/json.".into(),
                json!([]),
                "INVALID_ARGUMENT",
            ),
            Self::Message(violation) => (
                StatusCode::BAD_REQUEST,
                Cow::Owned(violation.description.clone()),
                violation_details(violation),
                "INVALID_ARGUMENT",
            ),
        };
        let mut reply = reply(status, &error_body(status, &message, &details));
        if status == StatusCode::UNAUTHORIZED {
            let realm = HeaderValue::from_static("Bearer realm=\"https://accounts.google.com/\"");
            reply.headers.push((header::WWW_AUTHENTICATE, realm));
        }
        Decision { reply, reason: Some(reason.into()) }
    }
}

fn violation_details(violation: &Violation) -> Value {
    let bad_request = json!({
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": [{ "field": violation.field, "description": violation.description }],
    });
    if violation.by_fcm {
        // What parsed and was then refused by FCM itself carries both.
        json!([{ "@type": FCM_ERROR, "errorCode": "INVALID_ARGUMENT" }, bad_request])
    } else {
        json!([bad_request])
    }
}

fn error_info(reason: &str, domain: &str) -> Value {
    json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "domain": domain,
        "metadata": { "service": "fcm.googleapis.com" },
    })
}

fn fcm_error(
    status: StatusCode,
    error_code: Cow<'static, str>,
    details: Details,
    project_id: &str,
) -> Decision {
    let message = match &*error_code {
        "UNREGISTERED" => "Requested entity was not found.",
        "SENDER_ID_MISMATCH" => "SenderId mismatch",
        "QUOTA_EXCEEDED" => "Resource has been exhausted (e.g. check quota).",
        "UNAVAILABLE" => "The service is currently unavailable.",
        "INTERNAL" => "Internal error encountered.",
        "THIRD_PARTY_AUTH_ERROR" => "Auth error from APNS or Web Push Service",
        "INVALID_ARGUMENT" => "The registration token is not a valid FCM registration token",
        _ => "Error.",
    };
    let fcm_error = json!({ "@type": FCM_ERROR, "errorCode": error_code });
    let details = match details {
        Details::None => json!([]),
        Details::FcmError => json!([fcm_error]),
        Details::ErrorInfo => json!([error_info(&error_code, "googleapis.com")]),
        Details::QuotaFailure => {
            let violation = json!({
                "subject": format!("project:{project_id}"),
                "description": "Messages per minute exceeded.",
            });
            json!([
                fcm_error,
                { "@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation] },
            ])
        }
        Details::BadRequest => json!([{
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{ "field": "message.token", "description": message }],
        }]),
    };
    Decision { reply: reply(status, &error_body(status, message, &details)), reason: Some(error_code) }
}

fn error_body(status: StatusCode, message: &str, details: &Value) -> Value {
    let mut error = json!({
        "code": status.as_u16(),
        "message": message,
        "status": canonical_code(status),
    });
    if details.as_array().is_some_and(|details| !details.is_empty()) {
        error["details"] = details.clone();
    }
    json!({ "error": error })
}

fn reply(status: StatusCode, body: &Value) -> Reply {
    let mut reply = Reply::new(status, Bytes::from(body.to_string()));
    let json = HeaderValue::from_static("application/json; charset=UTF-8");
    reply.headers.push((header::CONTENT_TYPE, json));
    reply
}

/// `google.rpc.Code` of an HTTP status (google/rpc/code.proto).
fn canonical_code(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        409 => "ABORTED",
        429 => "RESOURCE_EXHAUSTED",
        499 => "CANCELLED",
        500 => "INTERNAL",
        501 => "UNIMPLEMENTED",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        _ => "UNKNOWN",
    }
}

fn usual_reason(status: StatusCode, details: Details) -> &'static str {
    if details == Details::ErrorInfo {
        match status.as_u16() {
            401 => return "ACCESS_TOKEN_TYPE_UNSUPPORTED",
            403 => return "SERVICE_DISABLED",
            429 => return "RATE_LIMIT_EXCEEDED",
            _ => {}
        }
    }
    match status.as_u16() {
        400 => "INVALID_ARGUMENT",
        401 => "THIRD_PARTY_AUTH_ERROR",
        403 => "SENDER_ID_MISMATCH",
        404 => "UNREGISTERED",
        429 => "QUOTA_EXCEEDED",
        500 => "INTERNAL",
        503 => "UNAVAILABLE",
        _ => "UNSPECIFIED_ERROR",
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| {
        let media_type = value.split(';').next().unwrap_or_default();
        media_type.trim().eq_ignore_ascii_case("application/json")
    })
}

fn recorded(headers: &HeaderMap) -> Vec<(&'static str, String)> {
    let value = headers.get(header::CONTENT_TYPE);
    let value = value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    value.map(|value| ("content-type", value)).into_iter().collect()
}

/// Where the token endpoint is, on the FCM port.
pub(crate) const TOKEN_PATH: &str = "/token";
const FCM_ERROR: &str = "type.googleapis.com/google.firebase.fcm.v1.FcmError";
