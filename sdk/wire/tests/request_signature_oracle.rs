//! Another implementation of RFC 9421 (httpsig) verifies requests that are signed here, and builds the same
//! signature base.

use getrandom::{SysRng, rand_core::UnwrapErr};
use httpsig::prelude::message_component::HttpMessageComponent;
use httpsig::prelude::{AlgorithmName, HttpSignatureBase, HttpSignatureHeaders, PublicKey, SecretKey};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::http_signature::{RequestParts, SignatureHeaders, SignedRequest, sign};
use sealpost_wire::id::DeviceId;
use sealpost_wire::key::{P256SigningKey, RequestKey, RequestSigningKey, SignRequest as _, SigningKey};

const NOW: UnixTime = UnixTime(1_800_000_000);

fn requests() -> Vec<RequestParts<'static>> {
    let sync = RequestParts {
        method: "POST",
        authority: "relay.example",
        path: "/v1/sync",
        query: None,
        body: br#"{"after":0}"#,
    };
    vec![
        sync,
        RequestParts {
            method: "GET",
            path: "/v1/devices/00",
            query: Some("wait=30&x=%20"),
            body: b"",
            ..sync
        },
        RequestParts { authority: "relay.example:8443", query: Some(""), ..sync },
    ]
}

fn keys() -> [RequestSigningKey; 2] {
    [
        RequestSigningKey::Ed25519(SigningKey::from_seed(&[7; 32])),
        RequestSigningKey::P256(P256SigningKey::from_bytes(&[7; 32]).unwrap()),
    ]
}

/// The components as the other implementation takes them, from the request itself.
fn base(request: &RequestParts<'_>, headers: &SignatureHeaders) -> (HttpSignatureBase, HttpSignatureHeaders) {
    let lines = [
        format!("\"@method\": {}", request.method),
        format!("\"@authority\": {}", request.authority),
        format!("\"@path\": {}", request.path),
        format!("\"@query\": ?{}", request.query.unwrap_or_default()),
        format!("\"content-digest\": {}", headers.content_digest),
    ];
    let lines: Vec<_> =
        lines.iter().map(|line| HttpMessageComponent::try_from(line.as_str()).unwrap()).collect();
    let parsed = HttpSignatureHeaders::try_parse(&headers.signature, &headers.signature_input).unwrap();
    let parsed = parsed.get("sealpost").unwrap().clone();
    (HttpSignatureBase::try_new(&lines, parsed.signature_params()).unwrap(), parsed)
}

#[test]
fn what_is_signed_here_verifies_there() {
    let tenant = "st-mary".parse().unwrap();
    for key in keys() {
        let public = match key.request_key() {
            RequestKey::Ed25519(public) => PublicKey::from_bytes(&AlgorithmName::Ed25519, public.as_bytes()),
            RequestKey::P256(point) => PublicKey::from_bytes(&AlgorithmName::EcdsaP256Sha256, &point),
        };
        let public = public.unwrap();
        for request in requests() {
            let headers = sign(&request, &tenant, DeviceId([1; 16]), &key, NOW, &mut UnwrapErr(SysRng));
            let (base, parsed) = base(&request, &headers);
            base.verify_signature_headers(&public, &parsed).unwrap();
            // And it is no oracle that says yes to everything.
            let other = RequestParts { path: "/v1/other", ..request };
            let (base, parsed) = self::base(&other, &headers);
            assert!(base.verify_signature_headers(&public, &parsed).is_err());
        }
    }
}

#[test]
fn what_is_signed_there_verifies_here() {
    let tenant = "st-mary".parse().unwrap();
    for key in keys() {
        let secret = match &key {
            RequestSigningKey::Ed25519(_) => SecretKey::from_bytes(&AlgorithmName::Ed25519, &[7; 32]),
            RequestSigningKey::P256(_) => SecretKey::from_bytes(&AlgorithmName::EcdsaP256Sha256, &[7; 32]),
        };
        let secret = secret.unwrap();
        for request in requests() {
            // Signed here for the parameters alone; the signature is the other's.
            let headers = sign(&request, &tenant, DeviceId([1; 16]), &key, NOW, &mut UnwrapErr(SysRng));
            let (base, _) = base(&request, &headers);
            let theirs = base.build_signature_headers(&secret, Some("sealpost")).unwrap();
            let headers = SignatureHeaders {
                signature_input: theirs.signature_input_header_value(),
                signature: theirs.signature_header_value(),
                ..headers
            };
            let read = SignedRequest::read(&request, &headers).unwrap();
            assert_eq!(read.verify(&key.request_key(), NOW), Ok(()));
            assert_eq!((read.device, read.created), (DeviceId([1; 16]), NOW));
        }
    }
}
