//! The client of Firebase Cloud Messaging (HTTP v1, over HTTP/2).

use std::fmt;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sealpost_wire::clock::Clock;
use serde::Deserialize;
use tokio::time::Instant;

use super::apns::request;
use super::connection::{ConnectionConfig, ConnectionStats};
use super::endpoint::{Dialer, Endpoint, Protocols};
use super::fcm_answer::FcmRefusal;
use super::oauth::{AccessToken, AccessTokens, ServiceAccount};
use super::outcome::{Detail, Outcome};
use super::pool::Pool;
use super::proxy::ProxyUrl;
use super::{ProviderError, Push, PushPriority, PushToken, exchange, stub};

/// One app at FCM.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FcmConfig {
    /// The service account's key file (JSON), as Google gives it. Its `token_uri` is where access tokens come
    /// from.
    pub service_account_file: PathBuf,
    /// The Firebase project, where it is not the service account's own.
    #[serde(default)]
    pub project_id: Option<String>,
    /// Another server than Google's: `https://host[:port]`.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The HTTP proxy on the way to both: `http://[user:password@]host:port`.
    #[serde(default)]
    pub proxy: Option<ProxyUrl>,
    /// Root certificates (PEM) trusted beside the public ones, for the endpoint and for `token_uri`.
    #[serde(default)]
    pub root_ca_file: Option<PathBuf>,
    /// Limits of the connections.
    #[serde(default)]
    pub connection: ConnectionConfig,
}

impl FcmConfig {
    /// The files that a client is made from.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        [&self.service_account_file].into_iter().chain(&self.root_ca_file).cloned().collect()
    }
}

/// Sends an app's stub to its devices through FCM. Cheap to share by reference; its connections open with the
/// first push, and close when it is dropped.
pub struct FcmClient {
    pool: Arc<Pool>,
    tokens: Arc<AccessTokens>,
    clock: Arc<dyn Clock>,
    endpoint: Endpoint,
    path: PathAndQuery,
    request_timeout: Duration,
}

impl FcmClient {
    /// A client for the app of `config`.
    ///
    /// # Errors
    /// A configuration or a service account that cannot be used. Nothing is sent yet.
    pub fn new(config: FcmConfig, clock: Arc<dyn Clock>) -> Result<Self, ProviderError> {
        config.connection.validate()?;
        let account = ServiceAccount::load(&config.service_account_file)?;
        let path = messages_path(config.project_id.as_deref().unwrap_or(&account.project_id))?;
        let (proxy, root_ca_file) = (config.proxy.as_ref(), config.root_ca_file.as_deref());
        let connect_timeout = config.connection.connect_timeout();
        let endpoint = Endpoint::parse_origin(config.endpoint.as_deref().unwrap_or(ENDPOINT))?;
        let dialer =
            Dialer::new(endpoint.clone(), proxy, root_ca_file, Protocols::Http2Only, connect_timeout)?;
        Ok(Self {
            tokens: AccessTokens::new(account, proxy, root_ca_file, connect_timeout, Arc::clone(&clock))?,
            request_timeout: config.connection.request_timeout(),
            pool: Pool::new(dialer, config.connection),
            clock,
            endpoint,
            path,
        })
    }

    /// Sends the stub to one device; see [`super::ProviderClient::push`].
    pub async fn push(&self, token: &PushToken, push: Push) -> Outcome {
        let deadline = Instant::now() + self.request_timeout;
        let body = message(token, push);
        let sent_ms = self.clock.now_millis();
        let mut access = match self.tokens.current(deadline).await {
            Ok(access) => access,
            Err(failure) => return failure.into(),
        };
        let mut is_first = true;
        loop {
            let head = || request(&self.endpoint, self.path.clone(), headers(&access));
            let answer = match self.pool.exchange(deadline, &body, head).await {
                Ok(answer) => answer,
                Err(no_answer) => return no_answer.into(),
            };
            self.tokens.skew().observe(&answer.headers, sent_ms, self.clock.now_millis());
            if answer.status == StatusCode::OK {
                return Outcome::Accepted { provider_id: message_id(&answer.body) };
            }
            let refusal = FcmRefusal::read(answer.status, &answer.body);
            if is_first && refusal.is_access_token() {
                access = match self.tokens.renew(&access, deadline).await {
                    Ok(renewed) => renewed,
                    Err(failure) => return failure.into(),
                };
                is_first = false;
                continue;
            }
            let their_now = self.tokens.skew().theirs(self.clock.now().0);
            return refusal.outcome(exchange::retry_after(&answer.headers, their_now));
        }
    }

    /// The connections' present state, for metrics.
    #[must_use]
    pub fn stats(&self) -> ConnectionStats {
        self.pool.stats()
    }

    /// Seconds that Google's clock is ahead of this machine's, as far as its answers have told.
    #[must_use]
    pub fn clock_ahead_s(&self) -> Option<i64> {
        self.tokens.skew().ahead_s()
    }
}

impl fmt::Debug for FcmClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FcmClient").field("path", &self.path).field("tokens", &self.tokens).finish()
    }
}

/// The message: the device's address, and the same stub for all. It has no collapse key: FCM allows four of
/// them a device and throttles what collapses. Nor has it a `ttl`, which would tell messages apart: FCM keeps
/// it for four weeks, and a stub that comes after its message's end finds nothing to fetch.
fn message(token: &PushToken, push: Push) -> Bytes {
    let priority = match push.priority {
        PushPriority::High => "HIGH",
        PushPriority::Normal => "NORMAL",
    };
    let mut body = Vec::with_capacity(MESSAGE_BYTES + token.expose().len());
    // A push token needs no escaping in JSON, and writing to a vector does not fail.
    let _infallible = write!(
        body,
        r#"{{"message":{{"token":"{}","data":{{"sealpost":"{}"}},"android":{{"priority":"{priority}"}}}}}}"#,
        token.expose(),
        stub::SYNC,
    );
    body.into()
}

fn headers(access: &AccessToken) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(2);
    headers.insert(header::AUTHORIZATION, access.bearer.clone());
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers
}

/// The last part of `projects/…/messages/…`.
fn message_id(body: &[u8]) -> Detail {
    #[derive(Deserialize)]
    struct Sent<'a> {
        #[serde(borrow)]
        name: &'a str,
    }
    let name = serde_json::from_slice::<Sent<'_>>(body).map_or("", |sent| sent.name);
    Detail::new(name.rsplit('/').next().unwrap_or_default())
}

fn messages_path(project_id: &str) -> Result<PathAndQuery, ProviderError> {
    let invalid = ProviderError::Config { field: "project_id", why: "is a project id such as my-app-12345" };
    let is_project = (1..=PROJECT_BYTES_MAX).contains(&project_id.len())
        && project_id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:".contains(&b));
    if !is_project {
        return Err(invalid);
    }
    format!("/v1/projects/{project_id}/messages:send").parse().map_err(|_| invalid)
}

const ENDPOINT: &str = "https://fcm.googleapis.com";
/// The message without its token, in bytes, about.
const MESSAGE_BYTES: usize = 120;
const PROJECT_BYTES_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(token: &str, priority: PushPriority, expires_at: u64) -> String {
        let push = Push { priority, expires_at, push_id: [7; 16] };
        String::from_utf8(message(&PushToken::new(token).unwrap(), push).to_vec()).unwrap()
    }

    #[test]
    fn message_is_the_token_and_the_constant_stub() {
        let expected =
            r#"{"message":{"token":"dQ:a-_b","data":{"sealpost":"sync"},"android":{"priority":"HIGH"}}}"#;
        for expires_at in [0, 4_600, u64::MAX] {
            assert_eq!(text("dQ:a-_b", PushPriority::High, expires_at), expected, "the expiry does not show");
        }
        let message: serde_json::Value = serde_json::from_str(&text("t", PushPriority::Normal, 1)).unwrap();
        assert_eq!(message["message"]["android"]["priority"], "NORMAL");
        assert!(message["message"]["android"].get("collapse_key").is_none());
    }

    #[test]
    fn provider_id_is_the_last_part_of_the_name() {
        assert_eq!(message_id(br#"{"name":"projects/p/messages/0:15%2f"}"#).as_str(), "0:15%2f");
        for other in [&b""[..], b"{}", b"[]", b"\xff"] {
            assert_eq!(message_id(other).as_str(), "");
        }
    }

    #[test]
    fn project_becomes_a_path_or_an_error() {
        assert_eq!(messages_path("my-app").unwrap(), "/v1/projects/my-app/messages:send");
        for bad in ["", "a/b", "a b", "a?b", "ä"] {
            assert!(messages_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn configuration_is_read_strictly() {
        assert!(serde_json::from_str::<FcmConfig>(r#"{"service_account_file":"a.json"}"#).is_ok());
        assert!(serde_json::from_str::<FcmConfig>(r#"{"service_account_file":"a.json","x":1}"#).is_err());
        assert!(serde_json::from_str::<FcmConfig>("{}").is_err());
    }
}
