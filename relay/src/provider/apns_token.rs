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
    signers: Arc<Mutex<Signers>>,
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
        let signer = Arc::new(TokenSigner::load(team_id, key_id, key_file, clock)?);
        let mut signers = self.signers.lock().unwrap_or_else(PoisonError::into_inner);
        let shared =
            signers.entry((team_id.to_owned(), key_id.to_owned())).or_insert_with(|| Arc::clone(&signer));
        if shared.key.verifying_key() == signer.key.verifying_key() {
            Ok(Arc::clone(shared))
        } else {
            Err(ProviderError::Credential { what: KEY, why: "two different keys are given under one key id" })
        }
    }
}

/// By team and key id.
type Signers = BTreeMap<(String, String), Arc<TokenSigner>>;

impl fmt::Debug for ApnsTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApnsTokens")
    }
}

/// A provider token, as the header that carries it.
pub(super) struct ProviderToken {
    pub(super) bearer: HeaderValue,
    /// `iat`, in seconds since the Unix epoch.
    issued_at: u64,
    /// When this process began to use it.
    signed_at: u64,
}

impl ProviderToken {
    fn is_usable(&self, now: u64) -> bool {
        let age_s = now.saturating_sub(self.issued_at);
        let is_clock_set_back = now.saturating_add(CLOCK_STEP_S) < self.signed_at;
        let may_change = now.saturating_sub(self.signed_at) >= CHANGE_S_MIN;
        !is_clock_set_back && age_s < AGE_S_MAX && (age_s < WINDOW_S || !may_change)
    }
}

/// Signs the provider tokens of one key, and keeps the present one.
pub(super) struct TokenSigner {
    team_id: String,
    key_id: String,
    key: SigningKey,
    clock: Arc<dyn Clock>,
    current: ArcSwapOption<ProviderToken>,
    /// When a token was last signed because APNs found the one before expired. Also the lock of signing.
    renewed_at: Mutex<Option<u64>>,
}

impl TokenSigner {
    fn load(
        team_id: &str,
        key_id: &str,
        key_file: &Path,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ProviderError> {
        let is_id = |id: &str| {
            (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric())
        };
        for (id, field) in [(team_id, "team_id"), (key_id, "key_id")] {
            if !is_id(id) {
                return Err(ProviderError::Config { field, why: "is letters and digits, as Apple shows it" });
            }
        }
        let invalid = |why| ProviderError::Credential { what: KEY, why };
        let pem = read_file(KEY, key_file)?;
        let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|_| invalid("no PKCS #8 key in PEM"))?;
        let key = SigningKey::from_pkcs8_der(der.secret_pkcs8_der()).map_err(|_| invalid("no P-256 key"))?;
        Ok(Self {
            team_id: team_id.to_owned(),
            key_id: key_id.to_owned(),
            key,
            clock,
            current: ArcSwapOption::empty(),
            renewed_at: Mutex::new(None),
        })
    }

    /// The token to use now.
    pub(super) fn current(&self) -> Arc<ProviderToken> {
        let now = self.clock.now().0;
        if let Some(token) = self.current.load_full().filter(|token| token.is_usable(now)) {
            return token;
        }
        let _signing = self.renewed_at.lock().unwrap_or_else(PoisonError::into_inner);
        let previous = self.current.load_full();
        if let Some(token) = previous.clone().filter(|token| token.is_usable(now)) {
            return token;
        }
        let window = now - now % WINDOW_S;
        // After a token that was signed out of turn, the window's start may be too close to it.
        let is_close = |token: Arc<ProviderToken>| {
            (token.issued_at..token.issued_at.saturating_add(CHANGE_S_MIN)).contains(&window)
        };
        self.replace(if previous.is_some_and(is_close) { now } else { window }, now)
    }

    /// Another token than `refused`, which APNs found expired. `None` where one was signed for this reason within
    /// the last 20 minutes: then the clock is wrong, and further tokens would only add a second refusal.
    pub(super) fn renew(&self, refused: &Arc<ProviderToken>) -> Option<Arc<ProviderToken>> {
        let now = self.clock.now().0;
        let mut renewed_at = self.renewed_at.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = self.current.load_full().filter(|token| !Arc::ptr_eq(token, refused)) {
            return Some(token);
        }
        if renewed_at.is_some_and(|at| now.saturating_sub(at) < CHANGE_S_MIN) {
            return None;
        }
        *renewed_at = Some(now);
        // A second later or earlier makes no difference to APNs, the same bytes again would.
        let issued_at = if refused.issued_at == now { now.saturating_sub(1) } else { now };
        Some(self.replace(issued_at, now))
    }

    fn replace(&self, issued_at: u64, now: u64) -> Arc<ProviderToken> {
        let token = Arc::new(ProviderToken { bearer: self.sign(issued_at), issued_at, signed_at: now });
        self.current.store(Some(Arc::clone(&token)));
        token
    }

    fn sign(&self, issued_at: u64) -> HeaderValue {
        let header = json!({ "alg": "ES256", "kid": self.key_id }).to_string();
        let claims = json!({ "iss": self.team_id, "iat": issued_at }).to_string();
        let mut jwt = BASE64URL_NOPAD.encode(header.as_bytes());
        jwt.push('.');
        BASE64URL_NOPAD.encode_append(claims.as_bytes(), &mut jwt);
        let signature: Signature = self.key.sign(jwt.as_bytes());
        jwt.push('.');
        BASE64URL_NOPAD.encode_append(&signature.to_bytes(), &mut jwt);
        bearer(&format!("bearer {jwt}")).unwrap_or(HeaderValue::from_static("bearer"))
    }
}

impl fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenSigner({}, {})", self.team_id, self.key_id)
    }
}

/// An `authorization` value: never indexed by HPACK, not shown by `Debug`.
pub(super) fn bearer(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

const KEY: &str = "the APNs key";
/// One `iat` serves this long.
const WINDOW_S: u64 = 30 * 60;
/// A token is not changed sooner than this after this process began to use it.
const CHANGE_S_MIN: u64 = 20 * 60;
/// A token is not used longer than this after its `iat`.
const AGE_S_MAX: u64 = 55 * 60;
/// A clock that is set back by more makes the token's age meaningless.
const CLOCK_STEP_S: u64 = 60;
const ID_BYTES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// The start of a window.
    const START: u64 = 1_800_000_000;

    struct TestClock(AtomicU64);

    impl Clock for TestClock {
        fn now_millis(&self) -> u64 {
            self.0.load(Ordering::Relaxed) * 1000
        }
    }

    struct Fixture {
        signer: Arc<TokenSigner>,
        clock: Arc<TestClock>,
        key_file: tempfile::NamedTempFile,
    }

    fn fixture(now: u64) -> Fixture {
        let key_file = key_file();
        let clock = Arc::new(TestClock(AtomicU64::new(now)));
        let signer = ApnsTokens::default().signer("TEAM", "KEY", key_file.path(), clock.clone()).unwrap();
        Fixture { signer, clock, key_file }
    }

    fn key_file() -> tempfile::NamedTempFile {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), key.serialize_pem()).unwrap();
        file
    }

    fn at(fixture: &Fixture, now: u64) -> Arc<ProviderToken> {
        fixture.clock.0.store(now, Ordering::Relaxed);
        fixture.signer.current()
    }

    #[test]
    fn token_is_made_once_and_changed_between_20_and_60_minutes() {
        for offset_s in [0, 1, 599, 600, 601, 900, 1200, 1799] {
            let start = START + offset_s;
            let fixture = fixture(start);
            let mut token = at(&fixture, start);
            let mut changed_at = start;
            for now in (start..start + 4 * 3600).step_by(10) {
                let next = at(&fixture, now);
                assert!(now - next.issued_at < 3600, "APNs refuses it after an hour");
                if !Arc::ptr_eq(&next, &token) {
                    assert!(now - changed_at >= 1200, "changed after {} s", now - changed_at);
                    (token, changed_at) = (next, now);
                }
            }
            assert!(changed_at > start);
        }
    }

    #[test]
    fn another_node_or_a_restart_sends_the_same_bytes() {
        let first = fixture(START + 7);
        let clock = Arc::new(TestClock(AtomicU64::new(START + 1500)));
        let second = ApnsTokens::default().signer("TEAM", "KEY", first.key_file.path(), clock).unwrap();
        assert_eq!(first.signer.current().bearer.as_bytes(), second.current().bearer.as_bytes());
    }

    #[test]
    fn clients_of_one_team_share_a_token_and_conflicting_keys_are_refused() {
        let tokens = ApnsTokens::default();
        let (file, other) = (key_file(), key_file());
        let clock = Arc::new(TestClock(AtomicU64::new(START)));
        let first = tokens.signer("TEAM", "KEY", file.path(), clock.clone()).unwrap();
        let second = tokens.signer("TEAM", "KEY", file.path(), clock.clone()).unwrap();
        assert!(Arc::ptr_eq(&first.current(), &second.current()));
        assert!(tokens.signer("TEAM", "KEY", other.path(), clock).is_err());
    }

    #[test]
    fn renewal_happens_once_in_20_minutes_and_for_all() {
        let fixture = fixture(START);
        let refused = at(&fixture, START);
        let renewed = fixture.signer.renew(&refused).unwrap();
        assert_ne!(renewed.bearer, refused.bearer);
        // Another request that was refused with the old one gets the same new one.
        assert!(Arc::ptr_eq(&fixture.signer.renew(&refused).unwrap(), &renewed));
        assert!(fixture.signer.renew(&renewed).is_none());
        fixture.clock.0.store(START + 1200, Ordering::Relaxed);
        assert!(fixture.signer.renew(&renewed).is_some());
    }

    #[test]
    fn times_of_issue_stay_20_minutes_apart_after_a_renewal() {
        let fixture = fixture(START);
        let refused = at(&fixture, START + 1500);
        let renewed = fixture.signer.renew(&refused).unwrap();
        let mut issued = vec![renewed.issued_at];
        for now in (START + 1500..START + 4 * 3600).step_by(10) {
            issued.push(at(&fixture, now).issued_at);
        }
        issued.dedup();
        assert!(issued.len() > 3);
        assert!(issued.windows(2).all(|pair| pair[1] - pair[0] >= 1200), "{issued:?}");
    }

    #[test]
    fn clock_set_back_makes_a_new_token() {
        let fixture = fixture(START);
        let early = at(&fixture, START + 86_400);
        let corrected = at(&fixture, START);
        assert!(early.issued_at > START && corrected.issued_at <= START);
    }

    #[test]
    fn signature_verifies_and_the_header_is_not_shown() {
        use p256::ecdsa::signature::Verifier as _;
        let fixture = fixture(START + 90);
        let token = fixture.signer.current();
        let jwt = token.bearer.to_str().unwrap().strip_prefix("bearer ").unwrap();
        let (signed, signature) = jwt.rsplit_once('.').unwrap();
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
        let signature = Signature::from_slice(&signature).unwrap();
        fixture.signer.key.verifying_key().verify(signed.as_bytes(), &signature).unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        let json = |part: &str| -> serde_json::Value {
            serde_json::from_slice(&BASE64URL_NOPAD.decode(part.as_bytes()).unwrap()).unwrap()
        };
        assert_eq!(json(header), json!({ "alg": "ES256", "kid": "KEY" }));
        assert_eq!(json(claims), json!({ "iss": "TEAM", "iat": START }));
        assert!(!format!("{:?}", token.bearer).contains(signed));
    }

    #[test]
    fn unusable_keys_and_ids_are_refused_at_the_start() {
        let tokens = ApnsTokens::default();
        let clock = || Arc::new(TestClock(AtomicU64::new(START)));
        let file = key_file();
        assert!(tokens.signer("", "KEY", file.path(), clock()).is_err());
        assert!(tokens.signer("TEAM", "K\"Y", file.path(), clock()).is_err());
        assert!(tokens.signer("TEAM", "KEY", Path::new("/nonexistent"), clock()).is_err());
        let other_curve = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        for bad in [other_curve.serialize_pem(), "-----BEGIN".to_owned(), String::new()] {
            std::fs::write(file.path(), bad).unwrap();
            assert!(tokens.signer("TEAM", "KEY", file.path(), clock()).is_err());
        }
    }
}
