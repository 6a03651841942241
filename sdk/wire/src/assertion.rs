//! Client assertions: how a client with a `request` key gets an access token (`private_key_jwt`, RFC 7523
//! section 2.2, as in SMART Backend Services).
//!
//! The server knows tenant roots only, so the assertion carries the client's certificate in the private claim
//! `sealpost_certificate` (base64url).

use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};

use crate::base64url::{self, Base64Url};
use crate::clock::UnixTime;
use crate::id::{SubjectId, TenantId};
use crate::key::{RequestKey, SignRequest};
use crate::limits::ASSERTION_LIFETIME_SECONDS_MAX;

/// The `grant_type` of a token request.
pub const GRANT_TYPE: &str = "client_credentials";
/// The `client_assertion_type` of a token request.
pub const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The claims of a client assertion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssertionClaims {
    /// The client: `tenant/subject`.
    pub iss: String,
    /// The same.
    pub sub: String,
    /// The token endpoint's URL.
    pub aud: String,
    /// When it was made (seconds).
    pub iat: u64,
    /// Until when it may be used (seconds), at most 5 minutes after `iat`.
    pub exp: u64,
    /// Used once.
    pub jti: String,
    /// The certificate of the `request` key.
    pub sealpost_certificate: Base64Url,
}

/// The client id of `subject`.
#[must_use]
pub fn client_id(tenant: &TenantId, subject: &SubjectId) -> String {
    format!("{tenant}/{subject}")
}

/// A signed assertion for the token endpoint at `audience`: a JWT in compact form (RFC 7515 section 3.1).
pub fn sign<R: CryptoRng + ?Sized>(
    client_id: &str,
    audience: &str,
    certificate: &[u8],
    key: &dyn SignRequest,
    now: UnixTime,
    rng: &mut R,
) -> String {
    #[derive(Serialize)]
    struct Header<'a> {
        alg: &'a str,
        typ: &'a str,
        kid: String,
    }
    let mut jti = [0; 16];
    rng.fill_bytes(&mut jti);
    let public = key.request_key();
    let alg = match public {
        RequestKey::Ed25519(_) => "EdDSA",
        RequestKey::P256(_) => "ES256",
    };
    let header = Header { alg, typ: "JWT", kid: public.key_id().to_string() };
    let claims = AssertionClaims {
        iss: client_id.to_owned(),
        sub: client_id.to_owned(),
        aud: audience.to_owned(),
        iat: now.0,
        exp: now.plus(ASSERTION_LIFETIME_SECONDS_MAX).0,
        jti: base64url::encode(&jti),
        sealpost_certificate: Base64Url(certificate.to_vec()),
    };
    let signed = format!("{}.{}", json_part(&header), json_part(&claims));
    let signature = base64url::encode(&key.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn json_part<T: Serialize>(part: &T) -> String {
    // Plain structs of texts and numbers: serializing them into memory cannot fail.
    base64url::encode(&serde_json::to_vec(part).unwrap_or_default())
}
