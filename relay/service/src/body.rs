//! Bodies of requests: bounded in size and time, then JSON of one form.

use std::time::Duration;

use axum::extract::{FromRequest, Request, rejection::BytesRejection};
use axum::response::IntoResponse as _;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::problem::{ProblemCode, Refusal};

/// How long a body may take to come. A server puts it into the extensions of each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyTime(pub Duration);

impl Default for BodyTime {
    fn default() -> Self {
        Self(Duration::from_secs(BODY_SECONDS_DEFAULT))
    }
}

/// Time for a body where nobody said another (seconds).
const BODY_SECONDS_DEFAULT: u64 = 20;

/// A body as it came: at most as large as the route's `DefaultBodyLimit` says.
#[derive(Clone, Debug)]
pub struct RawBody(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for RawBody {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let BodyTime(within) = request.extensions().get().copied().unwrap_or_default();
        let read = Bytes::from_request(request, state);
        match tokio::time::timeout(within, read).await {
            Ok(Ok(bytes)) => Ok(Self(bytes)),
            Ok(Err(rejection)) => Err(unread(rejection)),
            Err(_) => Err(ProblemCode::RequestTimeout.into()),
        }
    }
}

/// A body of JSON. Its type decides about unknown fields (the bodies in `sealpost_wire::api` refuse them).
#[derive(Clone, Debug)]
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        check_json(request.headers())?;
        let RawBody(bytes) = RawBody::from_request(request, state).await?;
        parse_json(&bytes).map(Self)
    }
}

/// Refuses a request whose `Content-Type` is not `application/json`.
///
/// # Errors
/// [`ProblemCode::UnsupportedMediaType`].
pub fn check_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let declared =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = declared.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(Refusal::new(ProblemCode::UnsupportedMediaType).detail("application/json is taken here"))
    }
}

/// The object in `bytes`, all of them. An array of the values of an object's fields, which serde would take as
/// well, is none.
///
/// # Errors
/// [`ProblemCode::MalformedBody`]; its detail names the place and at most a field, never a value.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Refusal::new(ProblemCode::MalformedBody).detail("an object is taken here"));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let what = match error.classify() {
            Category::Data => field_of(&error.to_string()),
            Category::Eof => "the JSON ends early".to_owned(),
            Category::Syntax | Category::Io => "not JSON".to_owned(),
        };
        let place = format!("{what}, at line {} column {}", error.line(), error.column());
        Refusal::new(ProblemCode::MalformedBody).detail(place)
    })
}

/// What serde says about a field; what it says about values may quote them, and a value may be a push token.
fn field_of(message: &str) -> String {
    let names_only = ["unknown field `", "missing field `", "duplicate field `"];
    match names_only.iter().find(|start| message.starts_with(**start)) {
        // Up to the closing quote of the name: what follows lists the fields that are known.
        Some(start) => {
            let name = message[start.len()..].split('`').next().unwrap_or_default();
            let name: String = name.chars().take(FIELD_CHARS_MAX).map(plain).collect();
            format!("{start}{name}`")
        }
        None => "a value has the wrong form".to_owned(),
    }
}

/// Characters of a field name that an answer repeats.
const FIELD_CHARS_MAX: usize = 40;

/// Answers go into terminals and logs, and fields that are known are ASCII: what is not may turn a line around.
const fn plain(letter: char) -> char {
    if letter.is_ascii_graphic() { letter } else { '?' }
}

fn unread(rejection: BytesRejection) -> Refusal {
    match rejection.into_response().status() {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::new(ProblemCode::BodyTooLarge),
        _ => Refusal::new(ProblemCode::MalformedBody).detail("the body ended early"),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[expect(dead_code, reason = "only parsed")]
        number: u8,
    }

    #[test]
    fn a_malformed_body_is_described_without_its_values() {
        let detail = |text: &str| {
            let refusal = parse_json::<Sample>(text.as_bytes()).unwrap_err();
            assert_eq!(refusal.code(), ProblemCode::MalformedBody);
            format!("{refusal:?}")
        };
        assert!(detail(r#"{"number":1,"other":"secret"}"#).contains("unknown field `other`"));
        assert!(detail("{}").contains("missing field `number`"));
        for text in [r#"{"number":"secret"}"#, r#"{"number":1"#, "secret", r#"{"number":1} secret"#, ""] {
            assert!(!detail(text).contains("secret"), "{text}");
        }
        assert!(detail("[1]").contains("an object"));
        let long = format!(r#"{{"{}":1}}"#, "x".repeat(1000));
        assert!(detail(&long).len() < 250);
        let turned = "{\"a\u{202e}b\u{61f8b}\\u001bc\":1}";
        assert!(detail(turned).contains("unknown field `a?b??c`"), "{}", detail(turned));
    }

    #[test]
    fn json_is_the_only_media_type() {
        let headers = |value: &'static str| {
            HeaderMap::from_iter([(header::CONTENT_TYPE, http::HeaderValue::from_static(value))])
        };
        for good in ["application/json", "Application/JSON; charset=utf-8"] {
            assert_eq!(check_json(&headers(good)), Ok(()), "{good}");
        }
        for bad in ["text/json", "application/json5", "application/cbor", ""] {
            assert!(check_json(&headers(bad)).is_err(), "{bad}");
        }
        assert!(check_json(&HeaderMap::new()).is_err());
    }
}
