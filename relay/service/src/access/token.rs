//! Access tokens: JWTs (RFC 9068 names their type) under a MAC that only this server can make.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{KeyId, SubjectId, TenantId};
use serde::{Deserialize, Serialize};

use super::{Access, Roles, VerifiedAssertion};
use crate::config::SecretKey;
use crate::problem::{ProblemCode, Refusal};
use crate::tenants::Tenants;

const TYP: &str = "at+jwt";

/// What a token says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenClaims {
    /// The server that made it, and the only one that takes it.
    iss: String,
    tenant: TenantId,
    sub: SubjectId,
    scope: String,
    /// The `request` key.
    key: KeyId,
    exp: u64,
}

pub(super) struct TokenKey {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
    issuer: String,
}

impl TokenKey {
    pub(super) fn new(key: &SecretKey, issuer: &str) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        // Times are checked against the clock that is passed in; the library would ask the system's.
        validation.validate_exp = false;
        validation.set_issuer(&[issuer]);
        validation.set_required_spec_claims(&["iss", "exp"]);
        Self {
            encoding: EncodingKey::from_secret(key.expose()),
            decoding: DecodingKey::from_secret(key.expose()),
            validation,
            issuer: issuer.to_owned(),
        }
    }

    /// A token for the client of `assertion` with `roles`, until `expires_at`.
    pub(super) fn issue(
        &self,
        assertion: &VerifiedAssertion,
        roles: Roles,
        expires_at: UnixTime,
    ) -> Result<String, Refusal> {
        let header = Header { typ: Some(TYP.to_owned()), ..Header::new(Algorithm::HS256) };
        let claims = TokenClaims {
            iss: self.issuer.clone(),
            tenant: assertion.tenant().id().clone(),
            sub: assertion.subject().clone(),
            scope: roles.to_string(),
            key: assertion.key(),
            exp: expires_at.0,
        };
        jsonwebtoken::encode(&header, &claims, &self.encoding).map_err(|error| {
            tracing::error!(%error, "making an access token failed");
            ProblemCode::Internal.into()
        })
    }

    /// The access that `token` gives, whether or not it has expired since.
    pub(super) fn verify(&self, token: &str, tenants: &Tenants, now: UnixTime) -> Result<Access, Refusal> {
        let invalid = || Refusal::new(ProblemCode::InvalidCredentials);
        let token = jsonwebtoken::decode::<TokenClaims>(token, &self.decoding, &self.validation)
            .map_err(|_| invalid())?;
        if token.header.typ.as_deref() != Some(TYP) || token.claims.exp <= now.0 {
            return Err(invalid());
        }
        let claims = token.claims;
        // A tenant may have left the configuration since.
        let tenant = Arc::clone(tenants.tenant(&claims.tenant).ok_or_else(invalid)?);
        let roles = Roles::named(&claims.scope).ok_or_else(invalid)?;
        let expires_at = UnixTime(claims.exp);
        Ok(Access { tenant, subject: claims.sub, roles, key: claims.key, expires_at })
    }
}
