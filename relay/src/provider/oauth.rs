//! OAuth 2.0 access tokens for a service account (RFC 7523: a signed assertion for a bearer token).
//!
//! One token serves all pushes of a client. It is fetched by one task at a time, ahead of its expiry, while
//! the present one still serves; a failing token endpoint backs off for all pushes together.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use sealpost_wire::clock::Clock;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};
use zeroize::Zeroizing;

use super::apns_token::bearer;
use super::endpoint::{DialError, Dialer, Endpoint, Protocol, Protocols};
use super::outcome::{CredentialFault, Detail, Outcome};
use super::proxy::ProxyUrl;
use super::skew::Skew;
use super::{ProviderError, backoff, exchange, read_file};

/// What of a service account's key file is used. The file has more fields.
#[derive(Deserialize)]
pub(super) struct ServiceAccount {
    pub(super) project_id: String,
    private_key_id: String,
    private_key: Zeroizing<String>,
    client_email: String,
    token_uri: String,
}

impl ServiceAccount {
    pub(super) fn load(path: &Path) -> Result<Self, ProviderError> {
        let json = read_file(ACCOUNT, path)?;
        // The parser's own message may quote the file.
        serde_json::from_slice(&json).map_err(|_| ProviderError::Credential {
            what: ACCOUNT,
            why: "not a key file of a service account (JSON with project_id, private_key, token_uri …)",
        })
    }
}

/// An access token, as the header that carries it.
pub(super) struct AccessToken {
    pub(super) bearer: HeaderValue,
    /// Seconds since the Unix epoch.
    refresh_at: u64,
    expires_at: u64,
}

impl AccessToken {
    /// Seconds since the Unix epoch.
    pub(super) const fn expires_at(&self) -> u64 {
        self.expires_at
    }
}

/// Why there is no access token.
#[derive(Clone, Debug)]
pub(super) struct TokenFailure {
    pub(super) fault: CredentialFault,
    pub(super) after: Duration,
    pub(super) detail: Detail,
}

impl From<TokenFailure> for Outcome {
    fn from(failure: TokenFailure) -> Self {
        Self::Credential { fault: failure.fault, after: failure.after, detail: failure.detail }
    }
}

/// The access tokens of one service account.
pub(super) struct AccessTokens {
    key: EncodingKey,
    key_id: String,
    client_email: String,
    token_uri: String,
    dialer: Dialer,
    clock: Arc<dyn Clock>,
    skew: Skew,
    current: ArcSwapOption<AccessToken>,
    is_refreshing_ahead: AtomicBool,
    fetching: Mutex<Fetching>,
}

#[derive(Default)]
struct Fetching {
    failures: u32,
    /// The last failure, which stands until then.
    failed: Option<(TokenFailure, Instant)>,
    /// When a token was last fetched because the provider refused the one before.
    forced_at: Option<Instant>,
}

impl AccessTokens {
    pub(super) fn new(
        account: ServiceAccount,
        proxy: Option<&ProxyUrl>,
        root_ca_file: Option<&Path>,
        connect_timeout: Duration,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, ProviderError> {
        let invalid = |why| ProviderError::Credential { what: ACCOUNT, why };
        let key = EncodingKey::from_rsa_pem(account.private_key.as_bytes())
            .map_err(|_| invalid("private_key is no RSA key in PEM"))?;
        let endpoint = Endpoint::parse(&account.token_uri)?;
        let dialer = Dialer::new(endpoint, proxy, root_ca_file, Protocols::Http2OrHttp1, connect_timeout)?;
        let tokens = Self {
            key,
            key_id: account.private_key_id,
            client_email: account.client_email,
            token_uri: account.token_uri,
            dialer,
            clock,
            skew: Skew::new(),
            current: ArcSwapOption::empty(),
            is_refreshing_ahead: AtomicBool::new(false),
            fetching: Mutex::default(),
        };
        tokens.assertion(0).map_err(|_| invalid("private_key cannot sign"))?;
        Ok(Arc::new(tokens))
    }

    /// What is known of Google's clock.
    pub(super) const fn skew(&self) -> &Skew {
        &self.skew
    }

    /// The token to use now; waits for one until `deadline`.
    pub(super) async fn current(
        self: &Arc<Self>,
        deadline: Instant,
    ) -> Result<Arc<AccessToken>, TokenFailure> {
        let now = self.clock.now().0;
        match self.current.load_full() {
            Some(token) if now < token.refresh_at => Ok(token),
            Some(token) if now < token.expires_at => {
                self.refresh_ahead(&token);
                Ok(token)
            }
            stale => self.replace(stale, Because::Expired, deadline).await,
        }
    }

    /// Another token than `refused`, which the provider did not accept. An error where one was fetched for
    /// this reason a moment ago: then it is not the token.
    pub(super) async fn renew(
        self: &Arc<Self>,
        refused: &Arc<AccessToken>,
        deadline: Instant,
    ) -> Result<Arc<AccessToken>, TokenFailure> {
        self.replace(Some(Arc::clone(refused)), Because::Refused, deadline).await
    }

    fn refresh_ahead(self: &Arc<Self>, token: &Arc<AccessToken>) {
        if self.is_refreshing_ahead.swap(true, Ordering::AcqRel) {
            return;
        }
        let (this, stale) = (Arc::clone(self), Some(Arc::clone(token)));
        tokio::spawn(async move {
            if let Err(failure) = this.fetch_once(stale, Because::Expired).await {
                tracing::warn!(
                    why = failure.detail.as_str(),
                    "access token not refreshed; the present one serves"
                );
            }
            this.is_refreshing_ahead.store(false, Ordering::Release);
        });
    }

    /// The fetch is a task of its own: it ends, and serves the others, even if the push that began it goes
    /// away.
    async fn replace(
        self: &Arc<Self>,
        stale: Option<Arc<AccessToken>>,
        because: Because,
        deadline: Instant,
    ) -> Result<Arc<AccessToken>, TokenFailure> {
        let this = Arc::clone(self);
        let fetch = tokio::spawn(async move { this.fetch_once(stale, because).await });
        match timeout_at(deadline, fetch).await {
            Ok(Ok(fetched)) => fetched,
            Ok(Err(_cancelled)) => Err(endpoint_failure("fetch was cancelled", FIRST_WAIT)),
            Err(_elapsed) => Err(endpoint_failure("no access token before the deadline", FIRST_WAIT)),
        }
    }

    /// Fetches a token unless another task has replaced `stale` meanwhile, or has just failed to.
    async fn fetch_once(
        &self,
        stale: Option<Arc<AccessToken>>,
        because: Because,
    ) -> Result<Arc<AccessToken>, TokenFailure> {
        let mut fetching = self.fetching.lock().await;
        let is_same =
            |token: &Arc<AccessToken>| stale.as_ref().is_some_and(|stale| Arc::ptr_eq(stale, token));
        if let Some(token) = self.current.load_full().filter(|token| !is_same(token)) {
            return Ok(token);
        }
        let now = Instant::now();
        if let Some((failure, until)) = &fetching.failed
            && *until > now
        {
            return Err(TokenFailure { after: *until - now, ..failure.clone() });
        }
        if because == Because::Refused {
            let allowed_at = fetching.forced_at.map_or(now, |at| at + FORCED_INTERVAL_MIN);
            if allowed_at > now {
                return Err(TokenFailure {
                    fault: CredentialFault::AccessToken,
                    after: allowed_at - now,
                    detail: Detail::new("401: a new access token is refused as well"),
                });
            }
            fetching.forced_at = Some(now);
        }
        let fetched = timeout(FETCH_TIMEOUT, self.fetch()).await;
        let fetched =
            fetched.unwrap_or_else(|_| Err(endpoint_failure("token endpoint does not answer", FIRST_WAIT)));
        match fetched {
            Ok(token) => {
                let token = Arc::new(token);
                fetching.failures = 0;
                fetching.failed = None;
                self.current.store(Some(Arc::clone(&token)));
                Ok(token)
            }
            Err(mut failure) => {
                fetching.failures = fetching.failures.saturating_add(1);
                failure.after = backoff::delay(failure.after, WAIT_MAX, fetching.failures, backoff::jitter());
                fetching.failed = Some((failure.clone(), Instant::now() + failure.after));
                tracing::warn!(
                    fault = failure.fault.label(),
                    why = failure.detail.as_str(),
                    failures = fetching.failures,
                    "no access token"
                );
                Err(failure)
            }
        }
    }

    async fn fetch(&self) -> Result<AccessToken, TokenFailure> {
        let issued_at = self.skew.theirs(self.clock.now().0);
        let mut answer = self.exchange(issued_at).await?;
        let told = self.skew.theirs(self.clock.now().0);
        if answer.status.is_client_error() && told.abs_diff(issued_at) > ASSERTION_OFF_S_MAX {
            // Dated by a clock that is wrong, as this very answer tells.
            answer = self.exchange(told).await?;
        }
        read_answer(answer.status, &answer.headers, &answer.body, self.clock.now().0)
    }

    async fn exchange(&self, issued_at: u64) -> Result<TokenAnswer, TokenFailure> {
        let assertion =
            self.assertion(issued_at).map_err(|_| endpoint_failure("assertion not signed", FIRST_WAIT))?;
        // A JWT has no character that a form would escape.
        let form = Bytes::from([FORM, &assertion].concat());
        let sent_ms = self.clock.now_millis();
        let answer =
            self.post(form).await.map_err(|error| endpoint_failure(&error.to_string(), FIRST_WAIT))?;
        self.skew.observe(&answer.headers, sent_ms, self.clock.now_millis());
        Ok(answer)
    }

    fn assertion(&self, issued_at: u64) -> jsonwebtoken::errors::Result<Zeroizing<String>> {
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(self.key_id.clone());
        let claims = Claims {
            iss: &self.client_email,
            scope: SCOPE,
            aud: &self.token_uri,
            iat: issued_at,
            exp: issued_at.saturating_add(ASSERTION_S),
        };
        jsonwebtoken::encode(&header, &claims, &self.key).map(Zeroizing::new)
    }

    /// One request on a connection of its own: it happens once an hour.
    async fn post(&self, form: Bytes) -> Result<TokenAnswer, PostError> {
        let (transport, protocol) = self.dialer.dial().await?;
        let io = TokioIo::new(transport);
        let endpoint = &self.dialer.endpoint;
        let mut request = Request::new(Full::new(form));
        *request.method_mut() = Method::POST;
        request
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let response = match protocol {
            Protocol::Http1 => {
                *request.uri_mut() = endpoint.path.parse()?;
                let host = HeaderValue::from_str(endpoint.authority.as_str())?;
                request.headers_mut().insert(header::HOST, host);
                let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
                tokio::spawn(connection);
                sender.send_request(request).await?
            }
            Protocol::Http2 => {
                *request.uri_mut() = Uri::builder()
                    .scheme(endpoint.scheme.clone())
                    .authority(endpoint.authority.clone())
                    .path_and_query(endpoint.path.as_str())
                    .build()?;
                let executor = TokioExecutor::new();
                let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await?;
                tokio::spawn(connection);
                sender.send_request(request).await?
            }
        };
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|_| PostError::Body)?;
        Ok(TokenAnswer { status: parts.status, headers: parts.headers, body: body.to_bytes() })
    }
}

impl fmt::Debug for AccessTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessTokens({})", self.client_email)
    }
}

/// The access token in an answer of the token endpoint, or why there is none. `now`: seconds since the Unix
/// epoch.
pub(super) fn read_answer(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: u64,
) -> Result<AccessToken, TokenFailure> {
    if !status.is_success() {
        return Err(refusal(status, headers, body, now));
    }
    let grant: Grant = serde_json::from_slice(body)
        .map_err(|_| endpoint_failure("token endpoint's answer is not a token", FIRST_WAIT))?;
    let bearer = bearer(&format!("Bearer {}", *grant.access_token))
        .filter(|_| grant.token_type.eq_ignore_ascii_case("bearer"))
        .ok_or_else(|| endpoint_failure("token endpoint's token is not a bearer token", FIRST_WAIT))?;
    let lifetime = grant.expires_in.clamp(LIFETIME_S_MIN, LIFETIME_S_MAX);
    let ahead = REFRESH_AHEAD_S.min(lifetime / 4);
    let expires_at = now.saturating_add(lifetime);
    Ok(AccessToken { bearer, refresh_at: expires_at - ahead, expires_at })
}

fn refusal(status: StatusCode, headers: &HeaderMap, body: &[u8], now: u64) -> TokenFailure {
    let error: GrantError = serde_json::from_slice(body).unwrap_or_default();
    let is_final = status.is_client_error()
        && !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
    let (fault, first) = if is_final {
        (CredentialFault::TokenRefused, REFUSED_WAIT)
    } else {
        (CredentialFault::TokenEndpoint, FIRST_WAIT)
    };
    let after = exchange::retry_after(headers, now).unwrap_or(first);
    TokenFailure { fault, after, detail: Detail::answer(status, &["token", &error.error]) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Because {
    Expired,
    Refused,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    scope: &'static str,
    aud: &'a str,
    iat: u64,
    exp: u64,
}

#[derive(Deserialize)]
struct Grant {
    access_token: Zeroizing<String>,
    expires_in: u64,
    token_type: String,
}

#[derive(Default, Deserialize)]
struct GrantError {
    #[serde(default)]
    error: String,
}

struct TokenAnswer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// Why the token endpoint gave no answer. A retry may help with each.
#[derive(Debug, thiserror::Error)]
enum PostError {
    #[error("token endpoint: {0}")]
    Dial(#[from] DialError),
    #[error("token endpoint: {0}")]
    Http(#[from] hyper::Error),
    #[error("token endpoint: {0}")]
    Request(#[from] http::Error),
    #[error("token endpoint: {0}")]
    Uri(#[from] http::uri::InvalidUri),
    #[error("token endpoint: {0}")]
    Header(#[from] header::InvalidHeaderValue),
    #[error("token endpoint's answer is too long or broken off")]
    Body,
}

fn endpoint_failure(why: &str, after: Duration) -> TokenFailure {
    TokenFailure { fault: CredentialFault::TokenEndpoint, after, detail: Detail::new(why) }
}

const ACCOUNT: &str = "the service account";
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
const FORM: &str = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=";
/// How long the assertion is valid: the longest that Google takes.
const ASSERTION_S: u64 = 3600;
/// An assertion that was refused and is dated this far off is made again at once.
const ASSERTION_OFF_S_MAX: u64 = 30;
/// A token is replaced this long before it expires, or at three quarters of a shorter life.
const REFRESH_AHEAD_S: u64 = 600;
const LIFETIME_S_MIN: u64 = 1;
const LIFETIME_S_MAX: u64 = 86_400;
const FETCH_TIMEOUT: Duration = Duration::from_secs(8);
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// A refused token is replaced at most once in this time.
const FORCED_INTERVAL_MIN: Duration = Duration::from_secs(10);
const FIRST_WAIT: Duration = Duration::from_secs(1);
const REFUSED_WAIT: Duration = Duration::from_secs(60);
const WAIT_MAX: Duration = Duration::from_secs(300);
