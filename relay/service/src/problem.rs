//! Refusals: what a door answers, as a problem document (RFC 9457) with a stable code.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::error::{FormatError, TrustError};
use sealpost_wire::problem::MEDIA_TYPE;
pub use sealpost_wire::problem::ProblemCode;

use crate::engine::EngineError;

/// Seconds after which a client may try again when the server is busy.
const RETRY_AFTER_SECONDS: u32 = 1;

/// A request that is refused. [`ProblemCode`] says why and with which status; whether a retry helps follows
/// from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    code: ProblemCode,
    detail: Option<Cow<'static, str>>,
    server_time: Option<UnixTime>,
    retry_after_seconds: Option<u32>,
}

impl Refusal {
    /// A refusal without more to say than its code.
    #[must_use]
    pub const fn new(code: ProblemCode) -> Self {
        Self { code, detail: None, server_time: None, retry_after_seconds: None }
    }

    /// Says what was wrong in this case. It goes to the client: never a secret, never internal text.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds the server's time, for a client whose clock is off.
    #[must_use]
    pub const fn server_time(mut self, now: UnixTime) -> Self {
        self.server_time = Some(now);
        self
    }

    /// Adds `Retry-After`.
    #[must_use]
    pub const fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// The code.
    #[must_use]
    pub const fn code(&self) -> ProblemCode {
        self.code
    }
}

impl From<ProblemCode> for Refusal {
    fn from(code: ProblemCode) -> Self {
        Self::new(code)
    }
}

/// A signed structure in the body that is not to be believed.
impl From<TrustError> for Refusal {
    fn from(error: TrustError) -> Self {
        Self::new(ProblemCode::InvalidStructure).detail(error.code())
    }
}

/// A signed structure in the body that does not have its form.
impl From<FormatError> for Refusal {
    fn from(error: FormatError) -> Self {
        Self::new(ProblemCode::InvalidStructure).detail(error.code())
    }
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Busy | EngineError::Stopped => {
                Self::new(ProblemCode::Unavailable).retry_after(RETRY_AFTER_SECONDS)
            }
            EngineError::NoSpace => Self::new(ProblemCode::OutOfSpace),
            EngineError::Panicked(_) | EngineError::Read(_) | EngineError::Failed(_) => {
                tracing::error!(%error, "a request failed in the store");
                Self::new(ProblemCode::Internal)
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut problem = self.code.problem(self.detail.map(Cow::into_owned));
        problem.server_time = self.server_time.map(|time| time.0);
        // A plain struct of texts and numbers: serializing it into memory cannot fail.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, [(header::CONTENT_TYPE, MEDIA_TYPE)], body).into_response();
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110 section 11.6.1 wants a challenge with each 401.
            let challenge = HeaderValue::from_static("Bearer realm=\"sealpost\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use sealpost_wire::problem::Problem;

    use super::*;

    #[tokio::test]
    async fn a_refusal_is_a_problem_document() {
        let refusal = Refusal::new(ProblemCode::ClockSkew).detail("sign anew").server_time(UnixTime(1000));
        let response = refusal.into_response();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(response.headers()[header::CONTENT_TYPE], MEDIA_TYPE);
        assert!(response.headers().contains_key(header::WWW_AUTHENTICATE));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let problem: Problem = serde_json::from_slice(&body).unwrap();
        assert_eq!((problem.code.as_str(), problem.server_time), ("clock_skew", Some(1000)));
        assert_eq!(problem.detail.as_deref(), Some("sign anew"));
    }

    #[test]
    fn a_busy_store_says_when_to_come_again_and_a_full_one_does_not() {
        let busy = Refusal::from(EngineError::Busy).into_response();
        assert_eq!(busy.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(busy.headers().contains_key(header::RETRY_AFTER));
        let full = Refusal::from(EngineError::NoSpace).into_response();
        assert_eq!(full.status(), StatusCode::INSUFFICIENT_STORAGE);
        assert!(!full.headers().contains_key(header::RETRY_AFTER));
    }
}
