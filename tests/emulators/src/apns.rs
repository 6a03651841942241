//! The APNs provider API: request checks and answers.
//!
//! Follows Apple's "Sending notification requests to APNs" and "Handling notification responses from APNs".
//! Apple does not say in which order it checks; here it is: method, path, repeated headers, provider token,
//! the other headers, payload, device token. Where this emulator is stricter than Apple is known to be, so
//! that mistakes are seen: a missing `apns-push-type` is refused.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::connection::{Delivery, Exchange, Reply};
use crate::entropy::random;
use crate::faults::Verdict;
use crate::options::TokenUpdateScope;
use crate::outcome::Outcome;
use crate::provider_token::{ProviderSession, SigningKeys};
use crate::record::Push;
use crate::world::{Provider, World, lock};

/// The emulated service.
pub(crate) struct Apns {
    world: Arc<World>,
    keys: SigningKeys,
    max_streams: u32,
    /// Topic of each token that was registered; other tokens are taken under every topic.
    topics_by_token: Mutex<HashMap<String, String>>,
}

/// Why a request is refused: Apple's `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    BadCollapseId,
    BadDeviceToken,
    BadExpirationDate,
    BadMessageId,
    BadPath,
    BadPriority,
    DeviceTokenNotForTopic,
    DuplicateHeaders,
    ExpiredProviderToken,
    InvalidProviderToken,
    InvalidPushType,
    MethodNotAllowed,
    MissingDeviceToken,
    MissingProviderToken,
    MissingTopic,
    PayloadEmpty,
    PayloadTooLarge,
    TooManyProviderTokenUpdates,
    TopicDisallowed,
    UnrelatedKeyIdInToken,
}

impl Apns {
    pub(crate) fn new(world: Arc<World>, keys: SigningKeys, max_streams: u32) -> Self {
        Self { world, keys, max_streams, topics_by_token: Mutex::default() }
    }

    /// Over what a provider token may change only every 20 minutes.
    pub(crate) fn set_token_update_scope(&self, scope: TokenUpdateScope) {
        self.keys.set_scope(scope);
    }

    /// Says under which topic a token is registered.
    pub(crate) fn register(&self, token: &str, topic: &str) {
        lock(&self.topics_by_token).insert(token.to_ascii_lowercase(), topic.to_owned());
    }

    fn check(
        &self,
        session: &mut ProviderSession,
        request: &Parts,
        body: &[u8],
        now_ms: u64,
        first_token: &mut bool,
    ) -> Result<(), Reason> {
        if request.method != Method::POST {
            return Err(Reason::MethodNotAllowed);
        }
        let path = request.uri.path_and_query().map_or("", |path| path.as_str());
        let token = path.strip_prefix(DEVICE_PATH).ok_or(Reason::BadPath)?;
        if token.contains(['/', '?']) {
            return Err(Reason::BadPath);
        }
        let headers = &request.headers;
        if headers.len() != headers.keys_len() {
            return Err(Reason::DuplicateHeaders);
        }
        let provider = self.keys.authenticate(session, headers.get(header::AUTHORIZATION), now_ms / 1000)?;
        *first_token = provider.first;

        let push_type = check_push_type(headers)?;
        let topic = text(headers, &APNS_TOPIC).ok_or(Reason::MissingTopic)?;
        let bundle = topic.strip_suffix(push_type.topic_suffix).ok_or(Reason::TopicDisallowed)?;
        if !provider.topics.iter().any(|allowed| allowed == bundle) {
            return Err(Reason::TopicDisallowed);
        }
        check_priority(headers, push_type)?;
        check_expiration(headers)?;
        if let Some(id) = headers.get(&APNS_ID)
            && !is_uuid(id.as_bytes())
        {
            return Err(Reason::BadMessageId);
        }
        if headers.get(&APNS_COLLAPSE_ID).is_some_and(|id| id.is_empty() || id.len() > MAX_COLLAPSE_ID) {
            return Err(Reason::BadCollapseId);
        }
        check_payload(body, push_type)?;
        self.check_token(token, bundle)
    }

    fn check_token(&self, token: &str, topic: &str) -> Result<(), Reason> {
        if token.is_empty() {
            return Err(Reason::MissingDeviceToken);
        }
        let is_hex = token.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hex || !token.len().is_multiple_of(2) || token.len() > MAX_TOKEN_DIGITS {
            return Err(Reason::BadDeviceToken);
        }
        let registered = lock(&self.topics_by_token);
        let other_topic = !registered.is_empty()
            && registered.get(&token.to_ascii_lowercase()).is_some_and(|registered| registered != topic);
        if other_topic { Err(Reason::DeviceTokenNotForTopic) } else { Ok(()) }
    }

    fn decide(&self, checked: Result<(), Reason>, token: &str, now_ms: u64) -> Decision {
        if let Err(reason) = checked {
            return Decision::refused(reason.status(), reason.as_str().into(), None);
        }
        match self.world.faults.judge(Provider::Apns, token) {
            Verdict::Usual => Decision::accepted(),
            Verdict::Dead(since_ms) => {
                Decision::refused(StatusCode::GONE, "Unregistered".into(), Some(since_ms))
            }
            Verdict::Chosen(outcome) => Decision::chosen(&outcome, now_ms),
        }
    }
}

impl Exchange for Apns {
    type Session = ProviderSession;

    fn provider(&self) -> Provider {
        Provider::Apns
    }

    fn world(&self) -> &World {
        &self.world
    }

    /// One stream, until the connection has shown who it is.
    fn initial_streams(&self) -> u32 {
        1
    }

    fn goaway_debug_data(&self) -> Option<&'static str> {
        Some(r#"{"reason":"Shutdown"}"#)
    }

    fn answer(&self, session: &mut ProviderSession, request: &Parts, body: Bytes) -> Reply {
        let now_ms = self.world.clock.now_ms();
        let mut first_token = false;
        let checked = self.check(session, request, &body, now_ms, &mut first_token);
        let token = request.uri.path().strip_prefix(DEVICE_PATH).unwrap_or_default();
        let id_is_bad = checked == Err(Reason::BadMessageId);
        let mut decision = self.decide(checked, token, now_ms);

        let id = request.headers.get(&APNS_ID).filter(|_| !id_is_bad).cloned();
        decision.reply.headers.push((APNS_ID, id.unwrap_or_else(new_uuid)));
        if first_token {
            decision.reply.max_streams.get_or_insert(self.max_streams);
        }
        if self.world.dates.of(Provider::Apns) {
            decision.reply.date(now_ms);
        }
        if matches!(decision.reply.delivery, Delivery::Unprocessed(_)) {
            return decision.reply;
        }
        let keep = self.world.record.keeps();
        self.world.record.push(Push {
            sequence: 0,
            provider: Provider::Apns,
            token: if keep { token.to_owned() } else { String::new() },
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

impl Decision {
    fn accepted() -> Self {
        Self { reply: Reply::new(StatusCode::OK, Bytes::new()), reason: None }
    }

    fn refused(status: StatusCode, reason: Cow<'static, str>, timestamp_ms: Option<u64>) -> Self {
        let mut body = serde_json::json!({ "reason": reason });
        if let Some(timestamp_ms) = timestamp_ms {
            body["timestamp"] = timestamp_ms.into();
        }
        let mut reply = Reply::new(status, Bytes::from(body.to_string()));
        reply.headers.push((header::CONTENT_TYPE, HeaderValue::from_static("application/json")));
        Self { reply, reason: Some(reason) }
    }

    fn chosen(outcome: &Outcome, now_ms: u64) -> Self {
        let status = StatusCode::from_u16(outcome.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut decision = if status == StatusCode::OK {
            Self::accepted()
        } else {
            let reason = outcome.reason.clone().map_or_else(|| usual_reason(status).into(), Cow::Owned);
            let timestamp_ms = outcome.timestamp_ms.or((status == StatusCode::GONE).then_some(now_ms));
            Self::refused(status, reason, timestamp_ms)
        };
        decision.reply.apply(outcome);
        if let Some(failure) = decision.reply.delivery.failure() {
            decision.reason = Some(failure.into());
        }
        decision
    }
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Self::BadCollapseId => "BadCollapseId",
            Self::BadDeviceToken => "BadDeviceToken",
            Self::BadExpirationDate => "BadExpirationDate",
            Self::BadMessageId => "BadMessageId",
            Self::BadPath => "BadPath",
            Self::BadPriority => "BadPriority",
            Self::DeviceTokenNotForTopic => "DeviceTokenNotForTopic",
            Self::DuplicateHeaders => "DuplicateHeaders",
            Self::ExpiredProviderToken => "ExpiredProviderToken",
            Self::InvalidProviderToken => "InvalidProviderToken",
            Self::InvalidPushType => "InvalidPushType",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::MissingDeviceToken => "MissingDeviceToken",
            Self::MissingProviderToken => "MissingProviderToken",
            Self::MissingTopic => "MissingTopic",
            Self::PayloadEmpty => "PayloadEmpty",
            Self::PayloadTooLarge => "PayloadTooLarge",
            Self::TooManyProviderTokenUpdates => "TooManyProviderTokenUpdates",
            Self::TopicDisallowed => "TopicDisallowed",
            Self::UnrelatedKeyIdInToken => "UnrelatedKeyIdInToken",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::ExpiredProviderToken
            | Self::InvalidProviderToken
            | Self::MissingProviderToken
            | Self::UnrelatedKeyIdInToken => StatusCode::FORBIDDEN,
            Self::BadPath => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooManyProviderTokenUpdates => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

fn usual_reason(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "BadDeviceToken",
        403 => "Forbidden",
        404 => "BadPath",
        405 => "MethodNotAllowed",
        410 => "Unregistered",
        413 => "PayloadTooLarge",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "InternalServerError",
    }
}

/// A value of `apns-push-type`.
#[derive(Clone, Copy)]
struct PushType {
    name: &'static str,
    /// What the topic has after the bundle id.
    topic_suffix: &'static str,
}

fn check_push_type(headers: &HeaderMap) -> Result<PushType, Reason> {
    let name = text(headers, &APNS_PUSH_TYPE).ok_or(Reason::InvalidPushType)?;
    PUSH_TYPES.iter().find(|push_type| push_type.name == name).copied().ok_or(Reason::InvalidPushType)
}

fn check_priority(headers: &HeaderMap, push_type: PushType) -> Result<(), Reason> {
    match headers.get(&APNS_PRIORITY).map_or(&b"10"[..], HeaderValue::as_bytes) {
        b"5" => Ok(()),
        b"10" | b"1" if push_type.name != "background" => Ok(()),
        _ => Err(Reason::BadPriority),
    }
}

fn check_expiration(headers: &HeaderMap) -> Result<(), Reason> {
    let Some(value) = headers.get(&APNS_EXPIRATION) else { return Ok(()) };
    let text = value.to_str().map_err(|_| Reason::BadExpirationDate)?;
    match text.parse::<u64>() {
        Ok(seconds) if text.starts_with(|c: char| c.is_ascii_digit()) && seconds <= MAX_EXPIRATION => Ok(()),
        _ => Err(Reason::BadExpirationDate),
    }
}

/// The body is a JSON object with an object `aps`. Apple has no reason of its own for a body that is not.
fn check_payload(body: &[u8], push_type: PushType) -> Result<(), Reason> {
    let max = if push_type.name == "voip" { MAX_VOIP_PAYLOAD } else { MAX_PAYLOAD };
    if body.len() > max {
        return Err(Reason::PayloadTooLarge);
    }
    #[derive(serde::Deserialize)]
    struct Payload {
        #[serde(rename = "aps")]
        _aps: AnyObject,
    }
    match serde_json::from_slice::<Payload>(body) {
        Ok(_) => Ok(()),
        Err(_) if push_type.name == "mdm" && serde_json::from_slice::<AnyObject>(body).is_ok() => Ok(()),
        Err(_) => Err(Reason::PayloadEmpty),
    }
}

/// A JSON object whose members are well-formed and otherwise of no interest.
struct AnyObject;

impl<'de> Deserialize<'de> for AnyObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = AnyObject;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AnyObject, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(AnyObject)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).filter(|value| !value.is_empty())
}

fn recorded(headers: &HeaderMap) -> Vec<(&'static str, String)> {
    let value = |name: &'static str| {
        let value = headers.get(name)?;
        Some((name, String::from_utf8_lossy(value.as_bytes()).into_owned()))
    };
    RECORDED_HEADERS.into_iter().filter_map(value).collect()
}

/// The canonical form, 8-4-4-4-12 hexadecimal digits, in either case.
fn is_uuid(text: &[u8]) -> bool {
    text.len() == 36
        && text.iter().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// A random UUID (RFC 9562, version 4), in upper case as Apple writes them.
fn new_uuid() -> HeaderValue {
    // Without randomness: an id that repeats harms nobody here.
    let mut bytes: [u8; 16] = random().unwrap_or_default();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02X}");
    }
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

const DEVICE_PATH: &str = "/3/device/";
const APNS_ID: HeaderName = HeaderName::from_static("apns-id");
const APNS_TOPIC: HeaderName = HeaderName::from_static("apns-topic");
const APNS_PUSH_TYPE: HeaderName = HeaderName::from_static("apns-push-type");
const APNS_PRIORITY: HeaderName = HeaderName::from_static("apns-priority");
const APNS_EXPIRATION: HeaderName = HeaderName::from_static("apns-expiration");
const APNS_COLLAPSE_ID: HeaderName = HeaderName::from_static("apns-collapse-id");

const RECORDED_HEADERS: [&str; 6] =
    ["apns-id", "apns-topic", "apns-push-type", "apns-priority", "apns-expiration", "apns-collapse-id"];

const PUSH_TYPES: [PushType; 11] = [
    PushType { name: "alert", topic_suffix: "" },
    PushType { name: "background", topic_suffix: "" },
    PushType { name: "voip", topic_suffix: ".voip" },
    PushType { name: "complication", topic_suffix: ".complication" },
    PushType { name: "fileprovider", topic_suffix: ".pushkit.fileprovider" },
    PushType { name: "location", topic_suffix: ".location-query" },
    PushType { name: "liveactivity", topic_suffix: ".push-type.liveactivity" },
    PushType { name: "widgets", topic_suffix: ".push-type.widgets" },
    PushType { name: "controls", topic_suffix: ".push-type.controls" },
    PushType { name: "pushtotalk", topic_suffix: ".voip-ptt" },
    PushType { name: "mdm", topic_suffix: "" },
];

const MAX_PAYLOAD: usize = 4096;
const MAX_VOIP_PAYLOAD: usize = 5120;
const MAX_COLLAPSE_ID: usize = 64;
/// Apple promises no length; device tokens are 32 bytes today and were announced to grow up to 100.
const MAX_TOKEN_DIGITS: usize = 200;
/// Seconds that still fit a signed 32-bit time would be too few; milliseconds given by mistake are too many.
const MAX_EXPIRATION: u64 = 99_999_999_999;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_made_here_are_uuids() {
        let id = new_uuid();
        assert!(is_uuid(id.as_bytes()));
        assert_ne!(id, new_uuid());
        assert!(!is_uuid(b"123e4567e89b12d3a456426614174000"));
        assert!(!is_uuid(b"123e4567-e89b-12d3-a456-42661417400g"));
    }
}
