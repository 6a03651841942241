//! The client of the Apple Push Notification service (token-based, HTTP/2).

use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::uri::{Parts, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version, header};
use sealpost_wire::clock::Clock;
use serde::Deserialize;
use tokio::time::Instant;

use super::apns_token::{ApnsTokens, ProviderToken, TokenSigner};
use super::connection::{ConnectionConfig, ConnectionStats};
use super::endpoint::{Dialer, Endpoint, Protocols};
use super::outcome::{Detail, Outcome};
use super::pool::Pool;
use super::proxy::ProxyUrl;
use super::stub::{StubConfig, apns_stub};
use super::{ProviderError, Push, PushPriority, PushToken, apns_answer, exchange};

/// One app at APNs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApnsConfig {
    /// The app's bundle id (`apns-topic`).
    pub topic: String,
    /// The team's id, as Apple shows it.
    pub team_id: String,
    /// The id of the key in `key_file`. Without it: the one in the name of the file that `key_file` leads to,
    /// as Apple names it (`AuthKey_….p8`). A link that is changed then brings another key without a restart.
    #[serde(default)]
    pub key_id: Option<String>,
    /// The team's ES256 key (`AuthKey_….p8`: PKCS #8 in PEM).
    pub key_file: PathBuf,
    /// Which of Apple's services.
    #[serde(default)]
    pub environment: ApnsEnvironment,
    /// Another server than the environment's: `https://host[:port]`.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The HTTP proxy on the way there: `http://[user:password@]host:port`.
    #[serde(default)]
    pub proxy: Option<ProxyUrl>,
    /// Root certificates (PEM) trusted beside the public ones.
    #[serde(default)]
    pub root_ca_file: Option<PathBuf>,
    /// What the push shows.
    #[serde(default)]
    pub stub: StubConfig,
    /// Limits of the connections.
    #[serde(default)]
    pub connection: ConnectionConfig,
}

/// Which of Apple's services the app's tokens belong to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ApnsEnvironment {
    /// Apps from the App Store, TestFlight and device management.
    #[default]
    Production,
    /// Apps that a developer's machine installed.
    Sandbox,
}

impl ApnsConfig {
    /// The files that a client is made from.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        [&self.key_file].into_iter().chain(&self.root_ca_file).cloned().collect()
    }

    fn key_id(&self) -> Result<String, ProviderError> {
        if let Some(key_id) = &self.key_id {
            return Ok(key_id.clone());
        }
        let file = std::fs::canonicalize(&self.key_file).unwrap_or_else(|_| self.key_file.clone());
        let name = file.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let id = name.strip_prefix("AuthKey_").and_then(|name| name.strip_suffix(".p8"));
        id.map(str::to_owned).ok_or(ProviderError::Config {
            field: "key_id",
            why: "is missing, and key_file leads to no file that is named as Apple does: AuthKey_….p8",
        })
    }
}

impl ApnsEnvironment {
    const fn endpoint(self) -> &'static str {
        match self {
            Self::Production => "https://api.push.apple.com",
            Self::Sandbox => "https://api.sandbox.push.apple.com",
        }
    }
}

/// Sends an app's stub to its devices through APNs. Cheap to share by reference; its connections open with
/// the first push, and close when it is dropped.
pub struct ApnsClient {
    pool: Arc<Pool>,
    signer: Arc<TokenSigner>,
    clock: Arc<dyn Clock>,
    topic: HeaderValue,
    endpoint: Endpoint,
    stub: Bytes,
    request_timeout: Duration,
    prepared: ArcSwapOption<Prepared>,
}

impl ApnsClient {
    /// A client with a provider token of its own. Where several apps of a team are served, use
    /// [`Self::with_tokens`].
    ///
    /// # Errors
    /// A configuration or a key that cannot be used. Nothing is sent yet.
    pub fn new(config: ApnsConfig, clock: Arc<dyn Clock>) -> Result<Self, ProviderError> {
        Self::with_tokens(config, &ApnsTokens::default(), clock)
    }

    /// A client that shares its team's provider token with the others that were given `tokens`.
    ///
    /// # Errors
    /// A configuration or a key that cannot be used. Nothing is sent yet.
    pub fn with_tokens(
        config: ApnsConfig,
        tokens: &ApnsTokens,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ProviderError> {
        config.connection.validate()?;
        let signer =
            tokens.signer(&config.team_id, &config.key_id()?, &config.key_file, Arc::clone(&clock))?;
        let url = config.endpoint.as_deref().unwrap_or(config.environment.endpoint());
        let endpoint = Endpoint::parse_origin(url)?;
        let dialer = Dialer::new(
            endpoint.clone(),
            config.proxy.as_ref(),
            config.root_ca_file.as_deref(),
            Protocols::Http2Only,
            config.connection.connect_timeout(),
        )?;
        Ok(Self {
            topic: topic(&config.topic)?,
            stub: apns_stub(&config.stub)?,
            request_timeout: config.connection.request_timeout(),
            pool: Pool::new(dialer, config.connection),
            signer,
            clock,
            endpoint,
            prepared: ArcSwapOption::empty(),
        })
    }

    /// Sends the stub to one device; see [`super::ProviderClient::push`].
    pub async fn push(&self, token: &PushToken, push: Push) -> Outcome {
        let deadline = Instant::now() + self.request_timeout;
        let Some(path) = device_path(token) else {
            return Outcome::BadToken { detail: Detail::new("not a device token of APNs") };
        };
        let sent_ms = self.clock.now_millis();
        let variable = Variable::new(push, self.signer.skew().theirs(sent_ms / 1000));
        let mut prepared = self.prepare(self.signer.current());
        let mut is_first = true;
        loop {
            let head = || self.head(&prepared, path.clone(), push.priority, &variable);
            let answer = match self.pool.exchange(deadline, &self.stub, head).await {
                Ok(answer) => answer,
                Err(no_answer) => return no_answer.into(),
            };
            // Measured over all that this push took, which is never too narrow.
            self.signer.skew().observe(&answer.headers, sent_ms, self.clock.now_millis());
            if answer.status == StatusCode::OK {
                let id = answer.headers.get(&APNS_ID).unwrap_or(&variable.id);
                return Outcome::Accepted { provider_id: Detail::from_bytes(id.as_bytes()) };
            }
            let refusal = apns_answer::read(&answer);
            if refusal.is_shutdown() {
                self.pool.retire(answer.link);
            }
            if is_first
                && refusal.is_expired_provider_token()
                && let Some(renewed) = self.signer.renew(&prepared.token)
            {
                prepared = self.prepare(renewed);
                is_first = false;
                continue;
            }
            let their_now = self.signer.skew().theirs(self.clock.now().0);
            return refusal.outcome(exchange::retry_after(&answer.headers, their_now));
        }
    }

    /// The connections' present state, for metrics.
    #[must_use]
    pub fn stats(&self) -> ConnectionStats {
        self.pool.stats()
    }

    /// Seconds that APNs' clock is ahead of this machine's, as far as its answers have told.
    #[must_use]
    pub fn clock_ahead_s(&self) -> Option<i64> {
        self.signer.skew().ahead_s()
    }

    /// The headers that do not differ between pushes, made once for each provider token.
    fn prepare(&self, token: Arc<ProviderToken>) -> Arc<Prepared> {
        if let Some(prepared) = self.prepared.load_full().filter(|p| Arc::ptr_eq(&p.token, &token)) {
            return prepared;
        }
        let headers = |priority| {
            let mut headers = HeaderMap::with_capacity(HEADERS);
            headers.insert(header::AUTHORIZATION, token.bearer.clone());
            headers.insert(&APNS_TOPIC, self.topic.clone());
            headers.insert(&APNS_PUSH_TYPE, HeaderValue::from_static("alert"));
            headers.insert(&APNS_PRIORITY, HeaderValue::from_static(priority));
            headers
        };
        let prepared = Arc::new(Prepared { high: headers("10"), normal: headers("5"), token });
        self.prepared.store(Some(Arc::clone(&prepared)));
        prepared
    }

    fn head(
        &self,
        prepared: &Prepared,
        path: PathAndQuery,
        priority: PushPriority,
        variable: &Variable,
    ) -> Request<()> {
        let mut headers = match priority {
            PushPriority::High => prepared.high.clone(),
            PushPriority::Normal => prepared.normal.clone(),
        };
        headers.insert(&APNS_ID, variable.id.clone());
        headers.insert(&APNS_EXPIRATION, variable.expiration.clone());
        request(&self.endpoint, path, headers)
    }
}

impl fmt::Debug for ApnsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApnsClient").field("topic", &self.topic).field("signer", &self.signer).finish()
    }
}

/// A POST to an endpoint.
pub(super) fn request(endpoint: &Endpoint, path: PathAndQuery, headers: HeaderMap) -> Request<()> {
    let mut parts = Parts::default();
    parts.scheme = Some(endpoint.scheme.clone());
    parts.authority = Some(endpoint.authority.clone());
    parts.path_and_query = Some(path);
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    // Scheme, authority and path are all there: the only thing that from_parts checks.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    *request.headers_mut() = headers;
    request
}

/// The headers of one provider token, by priority.
struct Prepared {
    token: Arc<ProviderToken>,
    high: HeaderMap,
    normal: HeaderMap,
}

/// The headers that differ between pushes. They are marked sensitive for HPACK's sake: never indexed, they do
/// not push the others out of its table.
struct Variable {
    id: HeaderValue,
    expiration: HeaderValue,
}

impl Variable {
    fn new(push: Push, now: u64) -> Self {
        let mut id = uuid(push.push_id);
        id.set_sensitive(true);
        let mut expiration = HeaderValue::from(push.expires_at.min(now.saturating_add(STORED_S_MAX)));
        expiration.set_sensitive(true);
        Self { id, expiration }
    }
}

/// The canonical text of a UUID (RFC 9562 section 4).
fn uuid(bytes: [u8; 16]) -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (index, byte) in bytes.into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = DIGITS[usize::from(byte >> 4)];
        text[at + 1] = DIGITS[usize::from(byte & 15)];
        at += 2;
    }
    // Digits and hyphens are always a header value.
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static(""))
}

/// `None` where the token is not hexadecimal.
fn device_path(token: &PushToken) -> Option<PathAndQuery> {
    let token = token.expose();
    if !token.bytes().all(|b| b.is_ascii_hexdigit()) || token.len() % 2 == 1 {
        return None;
    }
    let path = [DEVICE_PATH, token].concat();
    PathAndQuery::from_maybe_shared(Bytes::from(path)).ok()
}

fn topic(text: &str) -> Result<HeaderValue, ProviderError> {
    let is_topic = (1..=TOPIC_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
    let invalid = ProviderError::Config { field: "topic", why: "is a bundle id such as org.example.app" };
    if is_topic { HeaderValue::from_str(text).map_err(|_| invalid) } else { Err(invalid) }
}

static APNS_ID: HeaderName = HeaderName::from_static("apns-id");
static APNS_TOPIC: HeaderName = HeaderName::from_static("apns-topic");
static APNS_PUSH_TYPE: HeaderName = HeaderName::from_static("apns-push-type");
static APNS_PRIORITY: HeaderName = HeaderName::from_static("apns-priority");
static APNS_EXPIRATION: HeaderName = HeaderName::from_static("apns-expiration");
const DEVICE_PATH: &str = "/3/device/";
const HEADERS: usize = 6;
/// APNs stores a push for 30 days at most.
const STORED_S_MAX: u64 = 30 * 86_400;
const TOPIC_BYTES_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn push_id_is_written_as_a_uuid() {
        let bytes = std::array::from_fn(|i| u8::try_from(i * 17).unwrap());
        assert_eq!(uuid(bytes), "00112233-4455-6677-8899-aabbccddeeff");
    }

    #[test]
    fn expiry_is_at_most_what_apns_stores() {
        let push = |expires_at| Push { priority: PushPriority::High, expires_at, push_id: [0; 16] };
        assert_eq!(Variable::new(push(1_000_500), 1_000_000).expiration, "1000500");
        assert_eq!(Variable::new(push(u64::MAX), 1_000_000).expiration, "3592000");
    }

    #[test]
    fn only_hexadecimal_tokens_reach_the_path() {
        let path = |token: &str| device_path(&PushToken::new(token).unwrap());
        assert_eq!(path("00fcAB").unwrap(), "/3/device/00fcAB");
        for bad in ["abc", "zz", "../../x", "ab/cd"] {
            assert!(path(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn key_id_is_configured_or_in_the_name_that_apple_gives() {
        let dir = tempfile::tempdir().unwrap();
        let id = |name: &str, key_id: Option<&str>| {
            let key_file = dir.path().join(name);
            std::fs::write(&key_file, "").unwrap();
            let config =
                serde_json::json!({ "topic": "t", "team_id": "T", "key_file": key_file, "key_id": key_id });
            serde_json::from_value::<ApnsConfig>(config).unwrap().key_id().ok()
        };
        assert_eq!(id("AuthKey_ABCDE12345.p8", None).as_deref(), Some("ABCDE12345"));
        assert_eq!(id("AuthKey_ABCDE12345.p8", Some("OTHER")).as_deref(), Some("OTHER"));
        assert_eq!(id("key.p8", Some("OTHER")).as_deref(), Some("OTHER"));
        assert_eq!(id("key.p8", None), None);
        assert_eq!(id("AuthKey_ABCDE12345.pem", None), None);
    }

    #[test]
    fn configuration_is_read_strictly() {
        let minimal = r#"{"topic":"org.example.app","team_id":"T","key_id":"K","key_file":"k.p8"}"#;
        let config: ApnsConfig = serde_json::from_str(minimal).unwrap();
        assert_eq!(config.environment.endpoint(), "https://api.push.apple.com");
        let sandbox = minimal.replace("{\"topic", "{\"environment\":\"sandbox\",\"topic");
        let config: ApnsConfig = serde_json::from_str(&sandbox).unwrap();
        assert_eq!(config.environment.endpoint(), "https://api.sandbox.push.apple.com");
        let unknown = minimal.replace("{\"topic", "{\"colour\":1,\"topic");
        assert!(serde_json::from_str::<ApnsConfig>(&unknown).is_err());
        for bad in ["", "a b", "ä", &"x".repeat(201)] {
            assert!(topic(bad).is_err(), "{bad}");
        }
    }
}
