//! Google's OAuth 2.0 token endpoint, as far as service accounts use it (RFC 7523).

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use serde::Deserialize;

use crate::connection::{Delivery, Reply};
use crate::entropy::random;
use crate::faults::Verdict;
use crate::jws::{Jws, PublicKey};
use crate::world::{Provider, World, lock};

/// The token endpoint and the access tokens it gave out.
pub(crate) struct TokenEndpoint {
    world: Arc<World>,
    account: ServiceAccount,
    ttl: Duration,
    /// Access token → when it ends, in epoch milliseconds.
    tokens: Mutex<HashMap<String, u64>>,
}

/// The one service account that exists.
pub(crate) struct ServiceAccount {
    pub(crate) client_email: String,
    pub(crate) key_id: String,
    pub(crate) public_key: PublicKey,
    /// What assertions are addressed to.
    pub(crate) token_uri: String,
}

/// An answer of RFC 6749, section 5.2.
struct Refusal {
    status: StatusCode,
    error: Cow<'static, str>,
    description: &'static str,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    #[serde(default)]
    scope: String,
    aud: String,
    iat: u64,
    exp: u64,
}

impl TokenEndpoint {
    pub(crate) fn new(world: Arc<World>, account: ServiceAccount, ttl: Duration) -> Self {
        Self { world, account, ttl, tokens: Mutex::default() }
    }

    /// Whether an access token was given out and has not ended.
    pub(crate) fn is_valid(&self, access_token: &str, now_ms: u64) -> bool {
        lock(&self.tokens).get(access_token).is_some_and(|end_ms| now_ms < *end_ms)
    }

    /// From now on no access token is known.
    pub(crate) fn revoke_all(&self) {
        lock(&self.tokens).clear();
    }

    /// Answers `POST /token`.
    pub(crate) fn answer(&self, request: &Parts, body: &[u8]) -> Reply {
        let now_ms = self.world.clock.now_ms();
        let mut outcome = None;
        let decided = self.check(request, body, now_ms / 1000).and_then(|()| {
            let Verdict::Chosen(chosen) = self.world.faults.judge(Provider::Oauth, "") else {
                return Ok(());
            };
            let status = StatusCode::from_u16(chosen.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let error = chosen.reason.clone().map_or_else(|| usual_error(status).into(), Cow::Owned);
            outcome = Some(chosen);
            if status == StatusCode::OK {
                Ok(())
            } else {
                Err(Refusal { status, error, description: "Chosen at the control port." })
            }
        });
        let (mut reply, mut reason) = match decided {
            Ok(()) => (self.grant(now_ms), None),
            Err(refusal) => {
                let body = serde_json::json!({
                    "error": refusal.error,
                    "error_description": refusal.description,
                });
                (Reply::new(refusal.status, Bytes::from(body.to_string())), Some(refusal.error))
            }
        };
        reply
            .headers
            .push((header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8")));
        if let Some(outcome) = outcome {
            reply.apply(&outcome);
        }
        if self.world.dates.of(Provider::Oauth) {
            reply.date(now_ms);
        }
        match reply.delivery.failure() {
            _ if matches!(reply.delivery, Delivery::Unprocessed(_)) => return reply,
            Some(failure) => reason = Some(failure.into()),
            None => {}
        }
        self.world.record.count(Provider::Oauth, reply.recorded_status(), reason);
        reply
    }

    fn grant(&self, now_ms: u64) -> Reply {
        let Ok(secret) = random::<48>() else {
            return Reply::new(StatusCode::INTERNAL_SERVER_ERROR, Bytes::new());
        };
        let access_token = format!("ya29.{}", BASE64URL_NOPAD.encode(&secret));
        let lifetime_ms = u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX);
        let mut tokens = lock(&self.tokens);
        if tokens.len() >= MAX_ACCESS_TOKENS {
            tokens.retain(|_, end_ms| *end_ms > now_ms);
        }
        if tokens.len() >= MAX_ACCESS_TOKENS {
            tokens.clear();
        }
        tokens.insert(access_token.clone(), now_ms.saturating_add(lifetime_ms));
        let body = serde_json::json!({
            "access_token": access_token,
            "expires_in": self.ttl.as_secs(),
            "token_type": "Bearer",
        });
        Reply::new(StatusCode::OK, Bytes::from(body.to_string()))
    }

    fn check(&self, request: &Parts, body: &[u8], now: u64) -> Result<(), Refusal> {
        if request.method != Method::POST {
            return Err(Refusal {
                status: StatusCode::METHOD_NOT_ALLOWED,
                error: "invalid_request".into(),
                description: "The token endpoint takes POST.",
            });
        }
        let content_type = request.headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        if !content_type.starts_with(b"application/x-www-form-urlencoded") {
            return Err(bad_request("invalid_request", "The body must be a form."));
        }
        let field = |wanted: &str| {
            url::form_urlencoded::parse(body).find(|(name, _)| name == wanted).map(|(_, value)| value)
        };
        match field("grant_type").as_deref() {
            Some(JWT_BEARER) => {}
            Some(_) => return Err(bad_request("unsupported_grant_type", "Invalid grant_type.")),
            None => return Err(bad_request("invalid_request", "Required parameter is missing: grant_type")),
        }
        let assertion = field("assertion")
            .ok_or_else(|| bad_request("invalid_request", "Required parameter is missing: assertion"))?;
        self.check_assertion(&assertion, now)
    }

    fn check_assertion(&self, assertion: &str, now: u64) -> Result<(), Refusal> {
        let invalid = |description| bad_request("invalid_grant", description);
        let jws = Jws::<Claims>::parse(assertion).ok_or_else(|| invalid("Bad Request"))?;
        let claims = &jws.claims;
        if claims.iss != self.account.client_email {
            return Err(invalid("Invalid grant: account not found"));
        }
        let key_is_ours = jws.header.kid.as_ref().is_none_or(|kid| *kid == self.account.key_id);
        if jws.header.alg != "RS256" || !key_is_ours || !jws.is_signed_by(&self.account.public_key) {
            return Err(invalid("Invalid JWT Signature."));
        }
        if claims.aud != self.account.token_uri && claims.aud != GOOGLE {
            return Err(invalid("Invalid JWT: Failed audience check"));
        }
        let reasonable = claims.iat <= now.saturating_add(MAX_SKEW_S)
            && claims.exp.saturating_add(MAX_SKEW_S) > now
            && claims.exp > claims.iat
            && claims.exp - claims.iat <= MAX_LIFETIME_S;
        if !reasonable {
            return Err(invalid(
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. \
                 Check your iat and exp values in the JWT claim.",
            ));
        }
        if !claims.scope.split(' ').any(|scope| SCOPES.contains(&scope)) {
            return Err(bad_request("invalid_scope", "Invalid OAuth scope or ID token audience provided."));
        }
        Ok(())
    }
}

fn bad_request(error: &'static str, description: &'static str) -> Refusal {
    Refusal { status: StatusCode::BAD_REQUEST, error: error.into(), description }
}

fn usual_error(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400..=499 => "invalid_grant",
        _ => "internal_failure",
    }
}

/// What Google's own libraries address every assertion to, whatever the key file names.
const GOOGLE: &str = "https://oauth2.googleapis.com/token";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// Scopes with which messages may be sent.
const SCOPES: [&str; 2] =
    ["https://www.googleapis.com/auth/firebase.messaging", "https://www.googleapis.com/auth/cloud-platform"];
const MAX_LIFETIME_S: u64 = 3600;
/// Tolerance for clocks on both ends of an assertion's life.
const MAX_SKEW_S: u64 = 60;
const MAX_ACCESS_TOKENS: usize = 10_000;
