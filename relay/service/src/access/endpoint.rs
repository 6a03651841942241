//! `POST /v1/token`: an assertion in, an access token out (RFC 6749 section 4.4, RFC 7523 section 2.2).

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode, header};
use prometheus::IntCounterVec;
use sealpost_wire::api::{TokenRequest, TokenResponse};
use sealpost_wire::assertion::{ASSERTION_TYPE, GRANT_TYPE};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::limits::ACCESS_TOKEN_LIFETIME_SECONDS_MAX;
use serde::Serialize;
use url::form_urlencoded;

use super::{AssertionError, Authority, Roles, VerifiedAssertion, claim_jti};
use crate::audit::{self, Act, Entry};
use crate::engine::Engine;
use crate::problem::Refusal;
use crate::shared_rows::SharedKeyspaces;
use crate::telemetry::{MetricError, Metrics};

/// Bytes of a token request's body.
pub const TOKEN_BODY_BYTES_MAX: usize = 8 * 1024;

/// Answers a token request. Errors have the form of RFC 6749 section 5.2; only a store that cannot be written
/// is answered by a problem document.
pub async fn answer_token_request(
    authority: &Authority,
    engine: &Engine,
    keyspaces: SharedKeyspaces,
    headers: &HeaderMap,
    body: &[u8],
) -> Response {
    match token_response(authority, engine, keyspaces, headers, body).await {
        Ok(response) => {
            authority.metrics.requests.with_label_values(&["issued"]).inc();
            ([(header::CACHE_CONTROL, "no-store")], Json(response)).into_response()
        }
        Err(refused) => {
            authority.metrics.requests.with_label_values(&[refused.label()]).inc();
            refused.into_response()
        }
    }
}

pub(super) struct TokenMetrics {
    requests: IntCounterVec,
}

impl TokenMetrics {
    pub(super) fn register(metrics: &Metrics) -> Result<Self, MetricError> {
        let name = "sealpost_token_requests_total";
        let help = "Requests for access tokens, by what became of them.";
        Ok(Self { requests: metrics.counters(name, help, &["outcome"])? })
    }
}

async fn token_response(
    authority: &Authority,
    engine: &Engine,
    keyspaces: SharedKeyspaces,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<TokenResponse, Refused> {
    let request = read_form(headers, body)?;
    let now = authority.clock.now();
    let assertion =
        VerifiedAssertion::verify(&request.client_assertion, &authority.audience, &authority.tenants, now)?;
    let roles = match &request.scope {
        None => assertion.roles(),
        Some(scope) => {
            Roles::named(scope).filter(|roles| roles.is_within(assertion.roles())).ok_or(Refused::Scope)?
        }
    };
    // Never past the certificate's own end.
    let expires_at = UnixTime(now.plus(ACCESS_TOKEN_LIFETIME_SECONDS_MAX).0.min(assertion.not_after().0));
    let access_token = authority.key.issue(&assertion, roles, expires_at)?;
    let expires_in = expires_at.0.saturating_sub(now.0);

    let key = assertion.key();
    let entry = Entry::new(
        authority.clock.now_millis(),
        Act::TokenIssued,
        &assertion.actor(),
        &[("key", &key), ("scope", &roles)],
        "done",
    );
    let claimed = engine.write("claim_assertion", move |view| {
        claim_jti(view, keyspaces.assertions, &assertion)?;
        audit::append(view, keyspaces.audit, assertion.tenant().id(), &entry);
        Ok::<_, AssertionError>(())
    });
    claimed.await.map_err(Refusal::from)??;
    Ok(TokenResponse { access_token, token_type: "bearer".to_owned(), expires_in, scope: roles.to_string() })
}

fn read_form(headers: &HeaderMap, body: &[u8]) -> Result<TokenRequest, Refused> {
    let declared =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = declared.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(Refused::Form("the body is a form"));
    }
    let (mut grant_type, mut assertion_type, mut assertion, mut scope) = (None, None, None, None);
    for (name, value) in form_urlencoded::parse(body) {
        let field = match name.as_ref() {
            "grant_type" => &mut grant_type,
            "client_assertion_type" => &mut assertion_type,
            "client_assertion" => &mut assertion,
            "scope" => &mut scope,
            // RFC 6749 section 3.2: unrecognized parameters are ignored.
            _ => continue,
        };
        if field.replace(value.into_owned()).is_some() {
            return Err(Refused::Form("a parameter is there twice"));
        }
    }
    if grant_type.as_deref() != Some(GRANT_TYPE) {
        return Err(if grant_type.is_some() {
            Refused::Grant
        } else {
            Refused::Form("grant_type is missing")
        });
    }
    match (assertion_type, assertion) {
        (Some(kind), Some(client_assertion)) if kind == ASSERTION_TYPE => Ok(TokenRequest {
            grant_type: GRANT_TYPE.to_owned(),
            client_assertion_type: kind,
            client_assertion,
            scope,
        }),
        _ => Err(Refused::Form("a client assertion of the type jwt-bearer is needed")),
    }
}

/// Why no token is given.
enum Refused {
    Form(&'static str),
    Grant,
    Scope,
    Assertion(AssertionError),
    Service(Refusal),
}

impl From<AssertionError> for Refused {
    fn from(error: AssertionError) -> Self {
        Self::Assertion(error)
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::Service(refusal)
    }
}

impl Refused {
    const fn label(&self) -> &'static str {
        match self {
            Self::Form(_) | Self::Grant => "malformed",
            Self::Scope => "scope",
            Self::Assertion(error) => error.label(),
            Self::Service(_) => "unavailable",
        }
    }

    fn into_response(self) -> Response {
        /// RFC 6749 section 5.2.
        #[derive(Serialize)]
        struct OAuthError {
            error: &'static str,
            error_description: String,
        }
        let (status, error, description) = match self {
            Self::Form(what) => (StatusCode::BAD_REQUEST, "invalid_request", what.to_owned()),
            Self::Grant => {
                let what = "client_credentials is the only grant".to_owned();
                (StatusCode::BAD_REQUEST, "unsupported_grant_type", what)
            }
            Self::Scope => {
                let what = "the certificate does not give these roles".to_owned();
                (StatusCode::BAD_REQUEST, "invalid_scope", what)
            }
            Self::Assertion(error) => {
                tracing::info!(%error, "a client assertion was refused");
                (StatusCode::UNAUTHORIZED, "invalid_client", error.to_string())
            }
            Self::Service(refusal) => return refusal.into_response(),
        };
        let body = OAuthError { error, error_description: description };
        let mut response = (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let challenge = http::HeaderValue::from_static("Bearer realm=\"sealpost\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
