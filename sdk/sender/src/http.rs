//! Requests to a server under an access token that is fetched by `private_key_jwt` (RFC 7523).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand_core::CryptoRng;
use sealpost_wire::api::TokenResponse;
use sealpost_wire::assertion::{self, ASSERTION_TYPE, GRANT_TYPE};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::key::RequestSigningKey;
use sealpost_wire::problem::Problem;
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::Agent;
use ureq::http::{Response, StatusCode};

use crate::error::HttpError;
use crate::roots::ServerRoots;

/// How long a request may take, besides what it asks the server to wait.
const REQUEST_DEADLINE: Duration = Duration::from_secs(20);
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of an answer: a page of events with receipts, or sixteen devices with their prekeys.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// A token this close to its end (seconds) is not used any more.
const TOKEN_MARGIN_SECONDS: u64 = 15;

/// Who asks: a client of the tenant with a `request` key.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// `tenant/subject`.
    pub(crate) id: String,
    pub(crate) key: RequestSigningKey,
    pub(crate) certificate: Vec<u8>,
}

/// A server, as a client of a tenant talks to it.
pub(crate) struct Server {
    url: String,
    client: Client,
    agent: Agent,
    token: Mutex<Option<(Arc<str>, UnixTime)>>,
}

/// What is asked.
pub(crate) struct Call {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
    /// How long the server was asked to wait.
    pub(crate) wait: Duration,
}

impl Call {
    pub(crate) fn get(path: String) -> Self {
        Self { method: "GET", path, body: Vec::new(), wait: Duration::ZERO }
    }

    pub(crate) fn put<T: Serialize>(path: String, body: &T) -> Result<Self, HttpError> {
        Ok(Self { method: "PUT", path, body: json(body)?, wait: Duration::ZERO })
    }

    pub(crate) fn post<T: Serialize>(path: String, body: &T) -> Result<Self, HttpError> {
        Ok(Self { method: "POST", path, body: json(body)?, wait: Duration::ZERO })
    }
}

impl Server {
    pub(crate) fn new(url: &str, client: Client, roots: &ServerRoots) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT_DEADLINE))
            .max_idle_connections_per_host(64)
            .tls_config(roots.tls())
            .user_agent(concat!("sealpost-sender/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            url: url.trim_end_matches('/').to_owned(),
            client,
            agent: config.new_agent(),
            token: Mutex::new(None),
        }
    }

    /// Asks; a token that the server does not take any more is fetched anew once.
    pub(crate) fn call<T: DeserializeOwned>(
        &self,
        call: &Call,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<T, HttpError> {
        let token = self.access_token(now, rng)?;
        match self.send(call, &token) {
            Err(error) if error.is_status(401) => {
                self.forget(&token);
                let token = self.access_token(now, rng)?;
                self.send(call, &token)
            }
            answer => answer,
        }
    }

    fn send<T: DeserializeOwned>(&self, call: &Call, token: &str) -> Result<T, HttpError> {
        let mut request = ureq::http::Request::builder()
            .method(call.method)
            .uri(format!("{}{}", self.url, call.path))
            .header("authorization", format!("Bearer {token}"))
            .header("accept", "application/json");
        if !call.body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(call.body.clone()).map_err(|_| HttpError::Malformed)?;
        let deadline = REQUEST_DEADLINE + call.wait;
        let request = self.agent.configure_request(request).timeout_global(Some(deadline)).build();
        let response = self.agent.run(request).map_err(|error| self.unreachable(&error))?;
        self.read(response)
    }

    fn access_token(&self, now: UnixTime, rng: &mut dyn CryptoRng) -> Result<Arc<str>, HttpError> {
        // Held while a token is fetched: one request for all threads.
        let mut held = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((token, until)) = held.as_ref()
            && now < *until
        {
            return Ok(Arc::clone(token));
        }
        let audience = format!("{}/v1/token", self.url);
        let client = &self.client;
        let assertion = assertion::sign(&client.id, &audience, &client.certificate, &client.key, now, rng);
        let form = [
            ("grant_type", GRANT_TYPE),
            ("client_assertion_type", ASSERTION_TYPE),
            ("client_assertion", assertion.as_str()),
        ];
        let request = self.agent.post(&audience).config().timeout_global(Some(REQUEST_DEADLINE)).build();
        let response = request.send_form(form).map_err(|error| self.unreachable(&error))?;
        let answer: TokenResponse = self.read(response)?;
        let token: Arc<str> = answer.access_token.into();
        let until = now.plus(answer.expires_in.saturating_sub(TOKEN_MARGIN_SECONDS));
        *held = Some((Arc::clone(&token), until));
        Ok(token)
    }

    fn forget(&self, token: &str) {
        let mut held = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref().is_some_and(|(known, _)| **known == *token) {
            *held = None;
        }
    }

    fn read<T: DeserializeOwned>(&self, mut response: Response<ureq::Body>) -> Result<T, HttpError> {
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let body = body.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|_| HttpError::Malformed);
        }
        let seconds =
            response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let (code, detail) = refusal(status, &body);
        let retry_after = seconds.map(Duration::from_secs);
        Err(HttpError::Refused { status: status.as_u16(), code, detail, retry_after })
    }

    /// Names the server: a client has two of them.
    fn unreachable(&self, error: &ureq::Error) -> HttpError {
        HttpError::Unreachable(format!("{}: {error}", self.url))
    }
}

/// The code of a problem document, or of an OAuth error (RFC 6749 section 5.2).
fn refusal(status: StatusCode, body: &[u8]) -> (String, Option<String>) {
    #[derive(serde::Deserialize)]
    struct OauthError {
        error: String,
        error_description: Option<String>,
    }
    if let Ok(problem) = serde_json::from_slice::<Problem>(body) {
        return (problem.code, problem.detail);
    }
    match serde_json::from_slice::<OauthError>(body) {
        Ok(error) => (error.error, error.error_description),
        Err(_) => (format!("http_{}", status.as_u16()), None),
    }
}

fn json<T: Serialize>(body: &T) -> Result<Vec<u8>, HttpError> {
    serde_json::to_vec(body).map_err(|_| HttpError::Malformed)
}
