//! The APNs provider token: a JWT (RFC 7519) under the team's ES256 key.
//!
//! APNs refuses a token older than an hour, and a team that changes its token more often than every 20
//! minutes. A token per process, restart or node breaks the second rule. So a token is a function of team,
//! key and time alone: `iat` is the start of a half-hour window, and the signature is deterministic (RFC
//! 6979). All nodes, and a process that starts again, send the same bytes.
//!
//! The time is APNs' own as far as its answers have told it ([`Skew`]). Until they have, or where they carry
//! no `date`, a window is used from five minutes after its start until 35, so that a clock which is five
//! minutes off breaks neither rule.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
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

use super::skew::Skew;
use super::{ProviderError, read_file};

/// The provider tokens of all teams: clients that name the same team and key share one. Make one for the
/// process and give it to each client.
#[derive(Clone, Default)]
pub struct ApnsTokens {
    signers: Arc<Mutex<Signers>>,
}

impl ApnsTokens {
    /// The signer of a team's key. If the file holds another key than it did, that one is signed with from
    /// now on.
    pub(super) fn signer(
        &self,
        team_id: &str,
        key_id: &str,
        key_file: &Path,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<TokenSigner>, ProviderError> {
        let signer = Arc::new(TokenSigner::load(team_id, key_id, key_file, clock)?);
        let mut signers = self.signers.lock().unwrap_or_else(PoisonError::into_inner);
        match signers.get(&(team_id.to_owned(), key_id.to_owned())) {
            Some(shared) if shared.key.verifying_key() == signer.key.verifying_key() => {
                Ok(Arc::clone(shared))
            }
            Some(shared) if shared.key_file != key_file => Err(ProviderError::Credential {
                what: KEY,
                why: "two different keys are given under one key id",
            }),
            _ => {
                signers.insert((team_id.to_owned(), key_id.to_owned()), Arc::clone(&signer));
                Ok(signer)
            }
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
    /// When this process began to use it, by this machine's clock: only what has passed since then counts.
    signed_at: u64,
}

impl ProviderToken {
    fn is_usable(&self, now: Now) -> bool {
        let is_from_the_future = self.issued_at > now.theirs.saturating_add(AHEAD_S_MAX);
        let age_s = now.theirs.saturating_sub(self.issued_at);
        let may_change = now.ours.abs_diff(self.signed_at) >= CHANGE_S_MIN;
        !is_from_the_future && age_s < AGE_S_MAX && (age_s < USE_S + SETTLE_S || !may_change)
    }
}

/// One moment by two clocks, in seconds since the Unix epoch.
#[derive(Clone, Copy)]
struct Now {
    /// This machine's.
    ours: u64,
    /// APNs', as far as it is known.
    theirs: u64,
}

/// Signs the provider tokens of one key, and keeps the present one.
pub(super) struct TokenSigner {
    team_id: String,
    key_id: String,
    key_file: PathBuf,
    key: SigningKey,
    clock: Arc<dyn Clock>,
    skew: Skew,
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
            key_file: key_file.to_owned(),
            key,
            clock,
            skew: Skew::new(),
            current: ArcSwapOption::empty(),
            renewed_at: Mutex::new(None),
        })
    }

    /// What is known of APNs' clock.
    pub(super) const fn skew(&self) -> &Skew {
        &self.skew
    }

    /// The token to use now.
    pub(super) fn current(&self) -> Arc<ProviderToken> {
        let now = self.now();
        if let Some(token) = self.current.load_full().filter(|token| token.is_usable(now)) {
            return token;
        }
        let _signing = self.renewed_at.lock().unwrap_or_else(PoisonError::into_inner);
        let previous = self.current.load_full();
        if let Some(token) = previous.clone().filter(|token| token.is_usable(now)) {
            return token;
        }
        let window = window(now.theirs);
        // After a token that was signed out of turn, the window's start may be too close to it.
        let is_close = |token: Arc<ProviderToken>| {
            (token.issued_at..token.issued_at.saturating_add(CHANGE_S_MIN)).contains(&window)
        };
        self.replace(if previous.is_some_and(is_close) { now.theirs } else { window }, now)
    }

    /// Another token than `refused`, which APNs found expired. `None` where one was signed for this reason
    /// within the last 20 minutes: then the clock is wrong, and further tokens would only add a second
    /// refusal.
    pub(super) fn renew(&self, refused: &Arc<ProviderToken>) -> Option<Arc<ProviderToken>> {
        let now = self.now();
        let mut renewed_at = self.renewed_at.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = self.current.load_full().filter(|token| !Arc::ptr_eq(token, refused)) {
            return Some(token);
        }
        if renewed_at.is_some_and(|at| now.ours.abs_diff(at) < CHANGE_S_MIN) {
            return None;
        }
        *renewed_at = Some(now.ours);
        // The refusal may have told that our clock is wrong. Then the usual token is another one than the
        // refused.
        let window = window(now.theirs);
        let is_far = refused.issued_at.abs_diff(window) >= CHANGE_S_MIN;
        // A second earlier makes no difference to APNs, the same bytes again would.
        let present = now.theirs - u64::from(now.theirs == refused.issued_at);
        Some(self.replace(if is_far { window } else { present }, now))
    }

    fn now(&self) -> Now {
        let ours = self.clock.now().0;
        Now { ours, theirs: self.skew.theirs(ours) }
    }

    fn replace(&self, issued_at: u64, now: Now) -> Arc<ProviderToken> {
        let token = Arc::new(ProviderToken { bearer: self.sign(issued_at), issued_at, signed_at: now.ours });
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

/// The start of the half-hour whose token is in use.
const fn window(now: u64) -> u64 {
    let settled = now.saturating_sub(SETTLE_S);
    settled - settled % USE_S
}

/// An `authorization` value: never indexed by HPACK, not shown by `Debug`.
pub(super) fn bearer(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

const KEY: &str = "the APNs key";
/// One `iat` serves this long,
const USE_S: u64 = 30 * 60;
/// and not before this has passed since it: clocks may differ by as much.
const SETTLE_S: u64 = 5 * 60;
/// A token is not changed sooner than this after this process began to use it.
const CHANGE_S_MIN: u64 = 20 * 60;
/// A token is not used longer than this after its `iat`.
const AGE_S_MAX: u64 = 55 * 60;
/// A token that is dated further ahead is refused.
const AHEAD_S_MAX: u64 = 60;
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
        let first = fixture(START + SETTLE_S + 7);
        let clock = Arc::new(TestClock(AtomicU64::new(START + SETTLE_S + 1500)));
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
    fn a_file_that_holds_another_key_replaces_the_one_before() {
        let tokens = ApnsTokens::default();
        let file = key_file();
        let clock = Arc::new(TestClock(AtomicU64::new(START)));
        let signer = || tokens.signer("TEAM", "KEY", file.path(), clock.clone()).unwrap();
        let first = signer();
        std::fs::copy(key_file().path(), file.path()).unwrap();
        let second = signer();
        assert!(!Arc::ptr_eq(&first, &second));
        assert_ne!(first.current().bearer, second.current().bearer);
        assert!(Arc::ptr_eq(&second, &signer()), "all clients of the team go over to it");
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

    /// What APNs sees of a process whose clock is `ours_ahead_s` ahead, from its start at every phase of a
    /// window: each token must be from the last hour, and follow the one before by 20 minutes. `is_told`: its
    /// answers carry a `date`.
    fn assert_within_apns_rules(ours_ahead_s: i64, is_told: bool) {
        for phase_s in (0..USE_S).step_by(170) {
            let begins = START + phase_s;
            let ours = |theirs: u64| theirs.checked_add_signed(ours_ahead_s).unwrap();
            let fixture = fixture(ours(begins));
            let mut accepted: Option<u64> = None;
            let mut refusals = 0;
            for theirs in (begins..begins + 3 * 3600).step_by(10) {
                fixture.clock.0.store(ours(theirs), Ordering::Relaxed);
                let mut token = fixture.signer.current();
                if is_told {
                    let now_ms = fixture.clock.now_millis();
                    fixture.signer.skew().observe(&dated(theirs), now_ms, now_ms);
                }
                let is_young = |token: &ProviderToken| {
                    token.issued_at <= theirs + AHEAD_S_MAX && theirs - token.issued_at.min(theirs) <= 3600
                };
                if !is_young(&token) {
                    refusals += 1;
                    token = fixture.signer.renew(&token).expect("the first refusal within 20 minutes");
                }
                assert!(is_young(&token), "{ours_ahead_s} s ahead, {} s into it", theirs - begins);
                if accepted != Some(token.issued_at) {
                    let gap_s = accepted.map(|before| token.issued_at.abs_diff(before));
                    assert!(gap_s.is_none_or(|gap_s| gap_s >= 1200), "{ours_ahead_s} s ahead: {gap_s:?} s");
                    accepted = Some(token.issued_at);
                }
            }
            assert!(refusals <= u32::from(is_told), "{ours_ahead_s} s ahead: {refusals} refusals");
        }
    }

    fn dated(theirs: u64) -> http::HeaderMap {
        let date = std::time::UNIX_EPOCH + std::time::Duration::from_secs(theirs);
        let date = httpdate::fmt_http_date(date).parse().unwrap();
        http::HeaderMap::from_iter([(http::header::DATE, date)])
    }

    #[test]
    fn a_clock_that_is_five_minutes_off_breaks_no_rule() {
        for ours_ahead_s in [-300, -299, -120, -1, 0, 1, 120, 300] {
            assert_within_apns_rules(ours_ahead_s, false);
            assert_within_apns_rules(ours_ahead_s, true);
        }
    }

    #[test]
    fn a_clock_that_is_far_off_costs_one_refusal_where_apns_tells_the_time() {
        for ours_ahead_s in [-86_400, -3600, -1300, -600, 600, 1300, 3600, 86_400] {
            assert_within_apns_rules(ours_ahead_s, true);
        }
    }

    #[test]
    fn signature_verifies_and_the_header_is_not_shown() {
        use p256::ecdsa::signature::Verifier as _;
        let fixture = fixture(START + SETTLE_S + 90);
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
