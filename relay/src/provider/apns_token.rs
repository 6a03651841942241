//! The APNs provider token: a JWT (RFC 7519) under the team's ES256 key.
//!
//! APNs refuses a token older than an hour, and a team that changes its token more often than every 20 minutes.
//! A token per process, restart or node breaks the second rule. So a token is a function of team, key and time
//! alone: `iat` is the start of a half-hour window, and the signature is deterministic (RFC 6979). All nodes, and
//! a process that starts again, send the same bytes.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use data_encoding::BASE64URL_NOPAD;
use http::HeaderValue;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::DecodePrivateKey as _;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use sealpost_wire::clock::Clock;
use serde_json::json;

use super::{ProviderError, read_file};

/// The provider tokens of all teams: clients that name the same team and key share one. Make one for the process
/// and give it to each client.
#[derive(Clone, Default)]
pub struct ApnsTokens {
    signers: Arc<Mutex<BTreeMap<(String, String), Arc<TokenSigner>>>>,
}

impl ApnsTokens {
    /// The signer of a team's key.
    pub(super) fn signer(
        &self,
        team_id: &str,
        key_id: &str,
        key_file: &Path,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<TokenSigner>, ProviderError> {
        let signer = TokenSigner::load(team_id, key_id, key_file, clock)?;
        let mut signers = self.signers.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = signers
            .entry((team_id.to_owned(), key_id.to_owned()))
            .or_insert_with(|| Arc::new(signer.clone_of_key()));
        if shared.key.verifying_key() == signer.key.verifying_key() {
            Ok(Arc::clone(shared))
        } else {
            Err(ProviderError::Credential { what: KEY, why: "two different keys are given under one key id" })
        }
    }
}

impl fmt::Debug for ApnsTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApnsTokens")
    }
}
