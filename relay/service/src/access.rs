//! Who may ask a server: clients with a `request` key get an access token by a signed assertion (RFC 7523)
//! and show it with each request (RFC 6750).
//!
//! ```text
//! certificate + assertion -> verified -> jti claimed in the store -> access token (5 minutes) -> Access
//! ```
//! A token is verified once and then found by its hash. What can change while it lives, the tenant's
//! revocations, is asked with every request.

mod assertion;
mod cache;
mod endpoint;
mod token;

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, header};
use sealpost_wire::certificate::Role;
use sealpost_wire::clock::{Clock, UnixTime};
use sealpost_wire::id::{KeyId, SubjectId};

pub use self::assertion::{AssertionError, VerifiedAssertion, claim_jti, expire_jtis};
use self::cache::TokenCache;
pub use self::endpoint::{TOKEN_BODY_BYTES_MAX, answer_token_request};
use self::token::TokenKey;
use crate::audit::Actor;
use crate::config::{PublicUrl, SecretKey};
use crate::problem::{ProblemCode, Refusal};
use crate::rates::Rates;
use crate::telemetry::{MetricError, Metrics};
use crate::tenants::{Tenant, Tenants};

/// Verified tokens that are remembered; one more forgets the older half.
const CACHED_TOKENS_MAX: usize = 8192;
/// Bytes of a token; one of this server has about 400.
const TOKEN_BYTES_MAX: usize = 1024;

/// Issues and checks the access tokens of a server.
pub struct Authority {
    tenants: Arc<Tenants>,
    clock: Arc<dyn Clock>,
    audience: String,
    key: TokenKey,
    cache: TokenCache,
    rates: Arc<Rates>,
    metrics: endpoint::TokenMetrics,
}

impl Authority {
    /// The authority of the server at `public_url`. Tokens are authenticated by `key`, which no other server
    /// has; `rates` is how often clients may ask.
    ///
    /// # Errors
    /// The metrics are registered already.
    pub fn new(
        tenants: Arc<Tenants>,
        clock: Arc<dyn Clock>,
        public_url: &PublicUrl,
        key: &SecretKey,
        rates: Arc<Rates>,
        metrics: &Metrics,
    ) -> Result<Self, MetricError> {
        Ok(Self {
            tenants,
            clock,
            audience: public_url.token_endpoint(),
            key: TokenKey::new(key, public_url.as_str()),
            cache: TokenCache::new(CACHED_TOKENS_MAX),
            rates,
            metrics: endpoint::TokenMetrics::register(metrics)?,
        })
    }

    /// Who asks, by the token in `Authorization: Bearer`.
    ///
    /// # Errors
    /// [`ProblemCode::MissingCredentials`], [`ProblemCode::InvalidCredentials`] for a token that is forged,
    /// expired or of another server, [`ProblemCode::Revoked`] once the tenant has revoked the client's key,
    /// [`ProblemCode::RateLimited`].
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<Access>, Refusal> {
        let token = bearer(headers)?;
        let hash = token_hash(token);
        let now = self.clock.now();
        let access = match self.cache.find(&hash) {
            Some(access) => access,
            None => {
                let access = Arc::new(self.key.verify(token, &self.tenants, now)?);
                self.cache.insert(hash, access.clone());
                access
            }
        };
        check_at(&access, now)?;
        self.rates.client(access.tenant.id(), &access.subject)?;
        Ok(access)
    }

    /// Whether a client may still go on with what it was let in for.
    ///
    /// # Errors
    /// [`ProblemCode::InvalidCredentials`] once its token has expired, [`ProblemCode::Revoked`].
    pub fn check(&self, access: &Access) -> Result<(), Refusal> {
        check_at(access, self.clock.now())
    }

    /// How often callers may ask.
    #[must_use]
    pub fn rates(&self) -> &Rates {
        &self.rates
    }
}

fn check_at(access: &Access, now: UnixTime) -> Result<(), Refusal> {
    if now >= access.expires_at {
        return Err(ProblemCode::InvalidCredentials.into());
    }
    access.tenant.check_request_key(access.key)
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("audience", &self.audience).finish_non_exhaustive()
    }
}

/// A client that has shown a valid token.
#[derive(Clone, Debug)]
pub struct Access {
    tenant: Arc<Tenant>,
    subject: SubjectId,
    roles: Roles,
    key: KeyId,
    expires_at: UnixTime,
}

impl Access {
    /// The client's tenant.
    #[must_use]
    pub const fn tenant(&self) -> &Arc<Tenant> {
        &self.tenant
    }

    /// The client within its tenant.
    #[must_use]
    pub const fn subject(&self) -> &SubjectId {
        &self.subject
    }

    /// The `request` key that it authenticated with.
    #[must_use]
    pub const fn key(&self) -> KeyId {
        self.key
    }

    /// When its token expires.
    #[must_use]
    pub const fn expires_at(&self) -> UnixTime {
        self.expires_at
    }

    /// The client, for the audit.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor::Client(self.subject.clone())
    }

    /// Whether the client has `role`.
    #[must_use]
    pub const fn has(&self, role: Role) -> bool {
        self.roles.contains(role)
    }

    /// Refuses a client that has none of `roles`.
    ///
    /// # Errors
    /// [`ProblemCode::Forbidden`].
    pub fn require(&self, roles: &[Role]) -> Result<(), Refusal> {
        if roles.iter().any(|role| self.has(*role)) { Ok(()) } else { Err(ProblemCode::Forbidden.into()) }
    }
}

/// The state of a router whose routes ask who calls.
pub trait HasAuthority: Send + Sync {
    /// Issues and checks the server's access tokens.
    fn authority(&self) -> &Authority;
}

impl<S: HasAuthority> HasAuthority for Arc<S> {
    fn authority(&self) -> &Authority {
        (**self).authority()
    }
}

/// The caller of a route, by the token of the request.
#[derive(Clone, Debug)]
pub struct Caller(pub Arc<Access>);

impl<S: HasAuthority> FromRequestParts<S> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        state.authority().authenticate(&parts.headers).map(Self)
    }
}

/// A set of roles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Roles(u8);

impl Roles {
    const ALL: [(Role, &'static str); 3] =
        [(Role::Sender, "sender"), (Role::Enroller, "enroller"), (Role::Revoker, "revoker")];

    fn of(roles: &[Role]) -> Self {
        Self(roles.iter().fold(0, |set, role| set | Self::bit(*role)))
    }

    /// The roles named in `text`, separated by single spaces; nothing when one is unknown.
    fn named(text: &str) -> Option<Self> {
        text.split(' ').try_fold(Self(0), |set, name| {
            let (role, _) = Self::ALL.into_iter().find(|(_, known)| *known == name)?;
            Some(Self(set.0 | Self::bit(role)))
        })
    }

    const fn contains(self, role: Role) -> bool {
        self.0 & Self::bit(role) != 0
    }

    const fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    const fn bit(role: Role) -> u8 {
        match role {
            Role::Sender => 1,
            Role::Enroller => 2,
            Role::Revoker => 4,
        }
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (_, name) in Self::ALL.into_iter().filter(|(role, _)| self.contains(*role)) {
            write!(f, "{separator}{name}")?;
            separator = " ";
        }
        Ok(())
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or(ProblemCode::MissingCredentials)?;
    let (scheme, token) =
        value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(ProblemCode::InvalidCredentials)?;
    if values.next().is_some() || !scheme.eq_ignore_ascii_case("Bearer") || token.len() > TOKEN_BYTES_MAX {
        return Err(ProblemCode::InvalidCredentials.into());
    }
    Ok(token)
}

/// SHA-256 of a token: what the cache knows it by, so that memory holds no token that could be used.
type TokenHash = [u8; 32];

fn token_hash(token: &str) -> TokenHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    hash
}

#[cfg(test)]
mod tests;
