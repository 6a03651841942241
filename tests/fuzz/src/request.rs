//! Signed requests of devices (RFC 9421), at the door of either server.

use std::sync::{Arc, LazyLock};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use sealpost_service::config::PublicUrl;
use sealpost_service::device_request::DeviceDoor;
use sealpost_service::rates::{RateOptions, Rates};
use sealpost_service::telemetry::Metrics;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::http_signature::{NONCE_CHARS_MAX, RequestParts, SignatureHeaders, SignedRequest};
use sealpost_wire::key::SignRequest as _;
use sealpost_wire::limits::REQUEST_WINDOW_SECONDS;

use crate::world::{NOW, world};

pub(crate) const BODY: &[u8] = br#"{"after":0}"#;
pub(crate) const AUTHORITY: &str = "relay.example";

/// Input: lines. The method, the target and each header of a request whose body is [`BODY`].
pub(crate) fn request_signature(input: &[u8]) {
    let Some((method, uri, headers)) = request(input) else { return };
    if let Ok(signed) = door().read(&method, &uri, &headers, BODY) {
        check(&method, &uri, &signed);
    }
    // The same headers as texts that no HTTP library has looked at.
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let headers = SignatureHeaders {
        content_digest: header("content-digest").to_owned(),
        signature_input: header("signature-input").to_owned(),
        signature: header("signature").to_owned(),
    };
    let parts = RequestParts {
        method: method.as_str(),
        authority: AUTHORITY,
        path: uri.path(),
        query: uri.query(),
        body: BODY,
    };
    if let Ok(signed) = SignedRequest::read(&parts, &headers) {
        check(&method, &uri, &signed);
        let other = RequestParts { body: b"{}", ..parts };
        assert!(SignedRequest::read(&other, &headers).is_err(), "the digest covers the body");
    }
}

fn check(method: &Method, uri: &Uri, signed: &SignedRequest) {
    let key = world().device_request.request_key();
    assert!(!signed.nonce.is_empty() && signed.nonce.len() <= NONCE_CHARS_MAX);
    if signed.verify(&key, NOW).is_err() {
        return;
    }
    assert!(signed.created.0.abs_diff(NOW.0) <= REQUEST_WINDOW_SECONDS);
    assert_eq!(signed.device, crate::world::DEVICE);
    // The key has signed the one request among the seeds: no other bears its signature.
    assert_eq!((method, uri.path(), uri.query()), (&Method::POST, "/v1/sync", None));
}

fn door() -> &'static DeviceDoor {
    static DOOR: LazyLock<DeviceDoor> = LazyLock::new(|| {
        let url = PublicUrl::parse("https://relay.example").expect("an address");
        let metrics = Metrics::new();
        let rates = Rates::new(&RateOptions::default(), [], &metrics).expect("metrics of its own");
        DeviceDoor::new(&url, UnixTime(0), Arc::new(rates), &metrics).expect("metrics of its own")
    });
    &DOOR
}

fn request(input: &[u8]) -> Option<(Method, Uri, HeaderMap)> {
    let mut lines = input.split(|byte| *byte == b'\n');
    let method = Method::from_bytes(lines.next()?).ok()?;
    let uri = Uri::try_from(lines.next()?).ok()?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(line.get(..colon)?).ok()?;
        headers.append(name, HeaderValue::from_bytes(line.get(colon + 1..)?.trim_ascii()).ok()?);
    }
    Some((method, uri, headers))
}
