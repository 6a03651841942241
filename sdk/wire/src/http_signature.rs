//! Signed requests of devices (RFC 9421, with the content digest of RFC 9530).
//!
//! ```text
//! Content-Digest:  sha-256=:…:
//! Signature-Input: sealpost=("@method" "@authority" "@path" "@query" "content-digest");created=…;nonce="…";
//!                  alg="ed25519";keyid="tenant/device";tag="sealpost-device"
//! Signature:       sealpost=:…:
//! ```
//! Components and parameters are exactly these, in this order (the one that common libraries write). `alg` is
//! `ed25519` or `ecdsa-p256-sha256`.

use data_encoding::BASE64;
use rand_core::CryptoRng;
use sfv::{BareItem, Dictionary, FieldType as _, InnerList, ListEntry, Parser};

use crate::base64url;
use crate::clock::UnixTime;
use crate::id::{DeviceId, Digest, TenantId};
use crate::key::{RequestKey, SignRequest};
use crate::limits::REQUEST_WINDOW_SECONDS;

const LABEL: &str = "sealpost";
const TAG: &str = "sealpost-device";
const COMPONENTS: [&str; 5] = ["@method", "@authority", "@path", "@query", "content-digest"];
const PARAMETERS: [&str; 5] = ["created", "nonce", "alg", "keyid", "tag"];
/// Characters of a nonce.
pub const NONCE_CHARS_MAX: usize = 64;
/// Bytes of a signature header.
const HEADER_BYTES_MAX: usize = 1024;

/// The parts of a request that a signature covers.
#[derive(Clone, Copy, Debug)]
pub struct RequestParts<'a> {
    /// The method, in capitals.
    pub method: &'a str,
    /// Host, and port unless it is the scheme's own; lower case (RFC 9421 section 2.2.3).
    pub authority: &'a str,
    /// The path, as sent.
    pub path: &'a str,
    /// What follows `?`, as sent; nothing without one.
    pub query: Option<&'a str>,
    /// The body.
    pub body: &'a [u8],
}

/// The three headers of a signed request, and the time in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureHeaders {
    /// `Content-Digest`.
    pub content_digest: String,
    /// `Signature-Input`.
    pub signature_input: String,
    /// `Signature`.
    pub signature: String,
}

/// Why a signed request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// A header is missing, or not of the form above. A retry cannot help.
    #[error("the request is not signed as it must be")]
    Malformed,
    /// The body is not the one that was signed. A retry cannot help.
    #[error("the content digest does not fit the body")]
    WrongDigest,
    /// The time in the signature is too far from the server's. Signing anew with the server's time helps.
    #[error("the signature's time is outside the window")]
    ClockSkew,
    /// The signature does not verify. A retry cannot help.
    #[error("the signature does not verify")]
    BadSignature,
}

impl SignatureError {
    /// The stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Malformed => "malformed_signature",
            Self::WrongDigest => "wrong_digest",
            Self::ClockSkew => "clock_skew",
            Self::BadSignature => "bad_signature",
        }
    }
}

/// Signs a request of `device`.
pub fn sign<R: CryptoRng + ?Sized>(
    request: &RequestParts<'_>,
    tenant: &TenantId,
    device: DeviceId,
    key: &dyn SignRequest,
    created: UnixTime,
    rng: &mut R,
) -> SignatureHeaders {
    let mut nonce = [0; 16];
    rng.fill_bytes(&mut nonce);
    let components = COMPONENTS.map(|name| format!("\"{name}\"")).join(" ");
    let parameters = format!(
        "({components});created={};nonce=\"{}\";alg=\"{}\";keyid=\"{tenant}/{device}\";tag=\"{TAG}\"",
        created.0,
        base64url::encode(&nonce),
        algorithm(&key.request_key()),
    );
    let content_digest = content_digest(request.body);
    let base = signature_base(request, &content_digest, &parameters);
    let signature = key.sign(base.as_bytes());
    SignatureHeaders {
        content_digest,
        signature_input: format!("{LABEL}={parameters}"),
        signature: format!("{LABEL}=:{}:", BASE64.encode(&signature)),
    }
}

/// A signed request that was read: whose it says it is, and what is left to verify.
#[derive(Clone, Debug)]
pub struct SignedRequest {
    /// The tenant that it names.
    pub tenant: TenantId,
    /// The device that it names.
    pub device: DeviceId,
    /// When it says it was signed.
    pub created: UnixTime,
    /// Used once within the window.
    pub nonce: String,
    algorithm: String,
    content_digest: String,
    base: String,
    signature: [u8; 64],
}

impl SignedRequest {
    /// Reads the headers of a request and checks its digest.
    pub fn read(request: &RequestParts<'_>, headers: &SignatureHeaders) -> Result<Self, SignatureError> {
        check_sizes(headers)?;
        check_digest(&headers.content_digest, request.body)?;
        Self::read_signature(request, headers)
    }

    /// Reads the headers of a request whose body has not come yet; `request.body` is not looked at. The
    /// signature covers the digest, so that the request can be verified before a large body is taken in;
    /// [`Self::check_body`] is to follow.
    pub fn read_head(request: &RequestParts<'_>, headers: &SignatureHeaders) -> Result<Self, SignatureError> {
        check_sizes(headers)?;
        digest_in(&headers.content_digest)?;
        Self::read_signature(request, headers)
    }

    /// Checks that the body is the one that was signed.
    pub fn check_body(&self, body: &[u8]) -> Result<(), SignatureError> {
        check_digest(&self.content_digest, body)
    }

    fn read_signature(
        request: &RequestParts<'_>,
        headers: &SignatureHeaders,
    ) -> Result<Self, SignatureError> {
        let input = only_member(&headers.signature_input)?;
        let Some(ListEntry::InnerList(covered)) = input.get(LABEL) else {
            return Err(SignatureError::Malformed);
        };
        if !covers_exactly(covered) {
            return Err(SignatureError::Malformed);
        }
        let created = match covered.params.get("created") {
            Some(BareItem::Integer(seconds)) => u64::try_from(i64::from(*seconds)).ok(),
            _ => None,
        };
        let text = |name: &str| match covered.params.get(name) {
            Some(BareItem::String(text)) => Ok(text.as_str().to_owned()),
            _ => Err(SignatureError::Malformed),
        };
        let (nonce, keyid, algorithm) = (text("nonce")?, text("keyid")?, text("alg")?);
        if text("tag")? != TAG || nonce.is_empty() || nonce.len() > NONCE_CHARS_MAX {
            return Err(SignatureError::Malformed);
        }
        let (tenant, device) = keyid.split_once('/').ok_or(SignatureError::Malformed)?;
        let tenant = tenant.parse().map_err(|_| SignatureError::Malformed)?;
        let device = device.parse().map_err(|_| SignatureError::Malformed)?;

        let signatures = only_member(&headers.signature)?;
        let signature = match signatures.get(LABEL) {
            Some(ListEntry::Item(item)) => match &item.bare_item {
                BareItem::ByteSequence(bytes) => <[u8; 64]>::try_from(bytes.as_slice()).ok(),
                _ => None,
            },
            _ => None,
        };
        let serialized = input.serialize().ok_or(SignatureError::Malformed)?;
        let parameters = serialized.strip_prefix("sealpost=").ok_or(SignatureError::Malformed)?;
        Ok(Self {
            tenant,
            device,
            created: UnixTime(created.ok_or(SignatureError::Malformed)?),
            nonce,
            algorithm,
            content_digest: headers.content_digest.clone(),
            base: signature_base(request, &headers.content_digest, parameters),
            signature: signature.ok_or(SignatureError::Malformed)?,
        })
    }

    /// Verifies the signature by `key` and that it was made within the window around `now`.
    pub fn verify(&self, key: &RequestKey, now: UnixTime) -> Result<(), SignatureError> {
        if self.algorithm != algorithm(key) {
            return Err(SignatureError::BadSignature);
        }
        key.verify(self.base.as_bytes(), &self.signature).map_err(|_| SignatureError::BadSignature)?;
        // After the signature: a stranger learns nothing about this clock, and the device can trust the
        // answer's reason.
        if self.created.0.abs_diff(now.0) > REQUEST_WINDOW_SECONDS {
            return Err(SignatureError::ClockSkew);
        }
        Ok(())
    }
}

const fn algorithm(key: &RequestKey) -> &'static str {
    match key {
        RequestKey::Ed25519(_) => "ed25519",
        RequestKey::P256(_) => "ecdsa-p256-sha256",
    }
}

fn content_digest(body: &[u8]) -> String {
    format!("sha-256=:{}:", BASE64.encode(Digest::of(body).as_bytes()))
}

fn check_sizes(headers: &SignatureHeaders) -> Result<(), SignatureError> {
    let texts = [&headers.content_digest, &headers.signature_input, &headers.signature];
    let is_long = texts.iter().any(|text| text.len() > HEADER_BYTES_MAX);
    if is_long { Err(SignatureError::Malformed) } else { Ok(()) }
}

fn check_digest(header: &str, body: &[u8]) -> Result<(), SignatureError> {
    let covers = digest_in(header)? == Digest::of(body).as_bytes();
    if covers { Ok(()) } else { Err(SignatureError::WrongDigest) }
}

/// The SHA-256 in a `Content-Digest`, of whatever length.
fn digest_in(header: &str) -> Result<Vec<u8>, SignatureError> {
    let digests: Dictionary = Parser::new(header).parse().map_err(|_| SignatureError::Malformed)?;
    match digests.get("sha-256") {
        Some(ListEntry::Item(item)) => match &item.bare_item {
            BareItem::ByteSequence(bytes) => Ok(bytes.clone()),
            _ => Err(SignatureError::Malformed),
        },
        _ => Err(SignatureError::Malformed),
    }
}

fn only_member(header: &str) -> Result<Dictionary, SignatureError> {
    let members: Dictionary = Parser::new(header).parse().map_err(|_| SignatureError::Malformed)?;
    if members.len() == 1 { Ok(members) } else { Err(SignatureError::Malformed) }
}

fn covers_exactly(covered: &InnerList) -> bool {
    let components = covered.items.iter().map(|item| match &item.bare_item {
        BareItem::String(name) if item.params.is_empty() => name.as_str(),
        _ => "",
    });
    components.eq(COMPONENTS) && covered.params.keys().map(|name| name.as_str()).eq(PARAMETERS)
}

/// The signature base of RFC 9421 section 2.5.
fn signature_base(request: &RequestParts<'_>, content_digest: &str, parameters: &str) -> String {
    format!(
        "\"@method\": {}\n\"@authority\": {}\n\"@path\": {}\n\"@query\": ?{}\n\"content-digest\": {}\n\
         \"@signature-params\": {}",
        request.method,
        request.authority,
        request.path,
        request.query.unwrap_or_default(),
        content_digest,
        parameters,
    )
}

#[cfg(test)]
mod tests {
    use getrandom::{SysRng, rand_core::UnwrapErr};

    use super::*;
    use crate::key::{P256SigningKey, RequestSigningKey, SigningKey};

    const BODY: &[u8] = br#"{"after":0}"#;

    fn parts() -> RequestParts<'static> {
        RequestParts { method: "POST", authority: "relay.example", path: "/v1/sync", query: None, body: BODY }
    }

    fn signed(key: &RequestSigningKey) -> SignatureHeaders {
        let tenant = "st-mary".parse().unwrap();
        sign(&parts(), &tenant, DeviceId([1; 16]), key, UnixTime(1000), &mut UnwrapErr(SysRng))
    }

    #[test]
    fn both_kinds_of_key_sign_requests() {
        let mut rng = UnwrapErr(SysRng);
        for key in [
            RequestSigningKey::Ed25519(SigningKey::generate(&mut rng)),
            RequestSigningKey::P256(P256SigningKey::generate(&mut rng)),
        ] {
            let request = SignedRequest::read(&parts(), &signed(&key)).unwrap();
            assert_eq!(request.device, DeviceId([1; 16]));
            assert_eq!(request.verify(&key.request_key(), UnixTime(1060)), Ok(()));
            assert_eq!(request.verify(&key.request_key(), UnixTime(1061)), Err(SignatureError::ClockSkew));
            assert_eq!(request.verify(&key.request_key(), UnixTime(939)), Err(SignatureError::ClockSkew));
            let other = SigningKey::generate(&mut rng).verifying_key();
            let answer = request.verify(&RequestKey::Ed25519(other), UnixTime(1000));
            assert_eq!(answer, Err(SignatureError::BadSignature));
        }
    }

    #[test]
    fn every_covered_part_is_bound() {
        let key = RequestSigningKey::Ed25519(SigningKey::from_seed(&[3; 32]));
        let headers = signed(&key);
        let answer = |parts: RequestParts<'_>| {
            SignedRequest::read(&parts, &headers)?.verify(&key.request_key(), UnixTime(1000))
        };
        assert_eq!(answer(parts()), Ok(()));
        for changed in [
            RequestParts { method: "PUT", ..parts() },
            RequestParts { authority: "other.example", ..parts() },
            RequestParts { path: "/v1/synC", ..parts() },
            RequestParts { query: Some("a=b"), ..parts() },
        ] {
            assert_eq!(answer(changed), Err(SignatureError::BadSignature), "{changed:?}");
        }
        assert_eq!(answer(RequestParts { body: b"{}", ..parts() }), Err(SignatureError::WrongDigest));
    }

    #[test]
    fn a_request_is_verified_before_its_body_comes_and_bound_to_it_all_the_same() {
        let key = RequestSigningKey::Ed25519(SigningKey::from_seed(&[3; 32]));
        let head = RequestParts { body: b"", ..parts() };
        let request = SignedRequest::read_head(&head, &signed(&key)).unwrap();
        assert_eq!(request.verify(&key.request_key(), UnixTime(1000)), Ok(()));
        assert_eq!(request.check_body(BODY), Ok(()));
        assert_eq!(request.check_body(b""), Err(SignatureError::WrongDigest));
        let other = RequestParts { path: "/v1/other", ..head };
        let request = SignedRequest::read_head(&other, &signed(&key)).unwrap();
        let answer = request.verify(&key.request_key(), UnixTime(1000));
        assert_eq!(answer, Err(SignatureError::BadSignature));
        for digest in ["", "sha-256=1", "sha-512=:AAAA:", "sha-256=:AA"] {
            let headers = SignatureHeaders { content_digest: digest.to_owned(), ..signed(&key) };
            let answer = SignedRequest::read_head(&head, &headers).map(|_| ());
            assert_eq!(answer, Err(SignatureError::Malformed), "{digest}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        let key = RequestSigningKey::Ed25519(SigningKey::from_seed(&[3; 32]));
        let good = signed(&key);
        let change = |from: &str, to: &str| SignatureHeaders {
            signature_input: good.signature_input.replace(from, to),
            ..good.clone()
        };
        for (name, headers) in [
            ("fewer components", change(" \"@query\"", "")),
            ("a component twice", change("\"@query\"", "\"@query\" \"@query\"")),
            ("a component with a parameter", change("\"@query\"", "\"@query\";req")),
            ("without nonce", change(";nonce=", ";once=")),
            ("another tag", change("sealpost-device", "sealpost-other")),
            ("created as text", change("created=1000", "created=\"1000\"")),
            ("created before the epoch", change("created=1000", "created=-1")),
            ("a key id without device", change("st-mary/", "st-mary-")),
            ("an expiry that nobody checks", change(";tag", ";expires=1;tag")),
            ("two signatures", change("sealpost=", "other=(),sealpost=")),
            ("not a structured field", change("=(", "=((")),
            ("a huge header", change("sealpost-device", &"x".repeat(2000))),
        ] {
            let answer = SignedRequest::read(&parts(), &headers).map(|_| ());
            assert_eq!(answer, Err(SignatureError::Malformed), "{name}");
        }
        let short = SignatureHeaders { signature: "sealpost=:AAAA:".to_owned(), ..good.clone() };
        assert_eq!(SignedRequest::read(&parts(), &short).map(|_| ()), Err(SignatureError::Malformed));
    }
}
