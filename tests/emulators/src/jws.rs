//! Compact JWS (RFC 7515) as the providers read it: lenient about Base64, strict about the signature.

use aws_lc_rs::signature::{ParsedPublicKey, VerificationAlgorithm};
use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A JWS that was parsed and not verified.
pub(crate) struct Jws<'a, C> {
    signing_input: &'a str,
    signature: Vec<u8>,
    /// The protected header.
    pub(crate) header: Header,
    /// The claims: not to be believed before `is_signed_by` said yes.
    pub(crate) claims: C,
}

/// The header fields that matter (RFC 7515, section 4.1).
#[derive(Deserialize)]
pub(crate) struct Header {
    pub(crate) alg: String,
    #[serde(default)]
    pub(crate) kid: Option<String>,
}

impl<'a, C: DeserializeOwned> Jws<'a, C> {
    /// Parses `header.claims.signature`. Padded and standard Base64 are taken as well as URL-safe: clients in
    /// the field send them, and the providers accept them.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        if text.len() > MAX_JWS_LEN {
            return None;
        }
        let (signing_input, signature) = text.rsplit_once('.')?;
        let (header, claims) = signing_input.split_once('.')?;
        Some(Self {
            signing_input,
            signature: decode(signature)?,
            header: serde_json::from_slice(&decode(header)?).ok()?,
            claims: serde_json::from_slice(&decode(claims)?).ok()?,
        })
    }

    pub(crate) fn is_signed_by(&self, key: &PublicKey) -> bool {
        key.0.verify_sig(self.signing_input.as_bytes(), &self.signature).is_ok()
    }
}

/// The public half of a signing key, bound to one algorithm.
pub(crate) struct PublicKey(ParsedPublicKey);

impl PublicKey {
    /// `bytes` as rcgen gives them: an uncompressed point, or an RSAPublicKey (RFC 8017, A.1.1).
    pub(crate) fn new(algorithm: &'static dyn VerificationAlgorithm, bytes: &[u8]) -> Option<Self> {
        ParsedPublicKey::new(algorithm, bytes).ok().map(Self)
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let url_safe: Vec<u8> = text
        .trim_end_matches('=')
        .bytes()
        .map(|byte| match byte {
            b'+' => b'-',
            b'/' => b'_',
            other => other,
        })
        .collect();
    BASE64URL_NOPAD.decode(&url_safe).ok()
}

const MAX_JWS_LEN: usize = 8 * 1024;
