//! Requests to both servers, signed by the device (RFC 9421).

use std::time::Duration;

use rand_core::CryptoRng;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::http_signature::{self, RequestParts};
use sealpost_wire::id::{DeviceId, TenantId};
use sealpost_wire::key::SignRequest;
use sealpost_wire::problem::Problem;
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::Agent;
use url::{Position, Url};

use crate::error::HttpError;
use crate::roots::ServerRoots;

/// How long a request may take, besides what it asks the server to wait.
const REQUEST_DEADLINE: Duration = Duration::from_secs(20);
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of an answer: a page of boxes in base64url and what is around it, with room.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Who signs.
pub(crate) struct Signer<'a> {
    pub(crate) tenant: &'a TenantId,
    pub(crate) device: DeviceId,
    pub(crate) key: &'a dyn SignRequest,
}

/// What is asked of a server.
pub(crate) struct Call<'a> {
    pub(crate) method: &'static str,
    /// The server's URL, without a trailing slash.
    pub(crate) server: &'a str,
    /// The path, and the query if there is one.
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
    /// How long the server was asked to wait.
    pub(crate) wait: Duration,
}

/// The client. It keeps its connections, and how far the servers' clock is from this one: for signing, nothing else.
pub(crate) struct Http {
    agent: Agent,
    offset_seconds: i64,
}

impl Http {
    pub(crate) fn new(offset_seconds: i64, roots: &ServerRoots) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT_DEADLINE))
            .tls_config(roots.tls())
            .user_agent(concat!("sealpost-device/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: config.new_agent(), offset_seconds }
    }

    /// Seconds to add to this clock to get the servers'.
    pub(crate) const fn offset_seconds(&self) -> i64 {
        self.offset_seconds
    }

    /// A signed request. A clock that is off is set right once, by the server's word, and the request signed anew.
    pub(crate) fn signed<T: DeserializeOwned>(
        &mut self,
        call: &Call<'_>,
        signer: &Signer<'_>,
        reading: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<T, HttpError> {
        match self.send(call, Some((signer, reading)), rng) {
            Err(Failure::Skew(server_time)) => {
                self.offset_seconds = signed_difference(server_time, reading);
                tracing::info!(offset_seconds = self.offset_seconds, "signing by the server's clock");
                self.send(call, Some((signer, reading)), rng).map_err(Failure::into_error)
            }
            answer => answer.map_err(Failure::into_error),
        }
    }

    /// A request without a signature.
    pub(crate) fn unsigned<T: DeserializeOwned>(
        &self,
        call: &Call<'_>,
        rng: &mut dyn CryptoRng,
    ) -> Result<T, HttpError> {
        self.send(call, None, rng).map_err(Failure::into_error)
    }

    fn send<T: DeserializeOwned>(
        &self,
        call: &Call<'_>,
        signer: Option<(&Signer<'_>, UnixTime)>,
        rng: &mut dyn CryptoRng,
    ) -> Result<T, Failure> {
        let url = Url::parse(&format!("{}{}", call.server, call.path));
        let url = url.map_err(|error| HttpError::Unreachable(format!("{}: {error}", call.server)))?;
        let mut request = ureq::http::Request::builder()
            .method(call.method)
            .uri(url.as_str())
            .header("accept", "application/json");
        if !call.body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        if let Some((signer, reading)) = signer {
            let parts = RequestParts {
                method: call.method,
                authority: &url[Position::BeforeHost..Position::AfterPort],
                path: url.path(),
                query: url.query(),
                body: &call.body,
            };
            let created = UnixTime(reading.0.saturating_add_signed(self.offset_seconds));
            let headers =
                http_signature::sign(&parts, signer.tenant, signer.device, signer.key, created, rng);
            request = request
                .header("content-digest", headers.content_digest)
                .header("signature-input", headers.signature_input)
                .header("signature", headers.signature);
        }
        let unreachable = |error: ureq::Error| HttpError::Unreachable(format!("{}: {error}", call.server));
        let request = request.body(call.body.clone()).map_err(|_| HttpError::Malformed)?;
        let deadline = REQUEST_DEADLINE + call.wait;
        let request = self.agent.configure_request(request).timeout_global(Some(deadline)).build();
        let mut response = self.agent.run(request).map_err(unreachable)?;
        let body =
            response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec().map_err(unreachable)?;
        let status = response.status().as_u16();
        if (200..300).contains(&status) {
            return Ok(serde_json::from_slice(&body).map_err(|_| HttpError::Malformed)?);
        }
        let problem: Option<Problem> = serde_json::from_slice(&body).ok();
        if let Some(Problem { code, server_time: Some(time), .. }) = &problem
            && code == "clock_skew"
        {
            return Err(Failure::Skew(UnixTime(*time)));
        }
        let seconds =
            response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        Err(Failure::Other(HttpError::Refused {
            status,
            code: problem.as_ref().map_or_else(|| format!("http_{status}"), |problem| problem.code.clone()),
            detail: problem.and_then(|problem| problem.detail),
            retry_after: seconds.map(Duration::from_secs),
        }))
    }
}

/// The JSON of a body.
pub(crate) fn json<T: Serialize>(body: &T) -> Result<Vec<u8>, HttpError> {
    serde_json::to_vec(body).map_err(|_| HttpError::Malformed)
}

enum Failure {
    Skew(UnixTime),
    Other(HttpError),
}

impl Failure {
    fn into_error(self) -> HttpError {
        match self {
            Self::Skew(_) => HttpError::Refused {
                status: 401,
                code: "clock_skew".to_owned(),
                detail: None,
                retry_after: None,
            },
            Self::Other(error) => error,
        }
    }
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        Self::Other(error)
    }
}

fn signed_difference(server: UnixTime, own: UnixTime) -> i64 {
    let difference = i128::from(server.0) - i128::from(own.0);
    i64::try_from(difference).unwrap_or(0)
}
