//! Client assertions (`private_key_jwt`): verified against the tenant's root, and used once.
//!
//! ```text
//! tenant | 0 | 0 | SHA-256(client id | jti)           -> version | until (8 bytes)
//! tenant | 0 | 1 | until | SHA-256(client id | jti)   -> version          in order of time, for expiry
//! ```

use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use sealpost_wire::assertion::{AssertionClaims, client_id};
use sealpost_wire::certificate::{Certificate, Purpose, SignedCertificate};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::error::TrustError;
use sealpost_wire::id::{Digest, KeyId, SubjectId, TenantId};
use sealpost_wire::key::RequestKey;
use sealpost_wire::limits::ASSERTION_LIFETIME_SECONDS_MAX;

use super::Roles;
use crate::audit::Actor;
use crate::engine::{Keyspace, View};
use crate::store_key::{after_tenant, tenant_key, versioned};
use crate::tenants::{Tenant, Tenants};

/// Clocks of a client and of the server may differ by this much (seconds).
const SKEW_SECONDS_MAX: u64 = 60;
/// Bytes of an assertion; one with a certificate has about 1000.
const ASSERTION_BYTES_MAX: usize = 4096;
/// Bytes of a `jti`.
const JTI_BYTES_MAX: usize = 128;
/// Version of the rows' values.
const VERSION: u8 = 1;
const BY_ID: &[u8] = &[0];
const BY_TIME: &[u8] = &[1];

/// Why an assertion is refused. All of them are `invalid_client` to the client; the log and the metric say
/// more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssertionError {
    /// Not a JWT with the claims of an assertion.
    #[error("it is not a JWT with the claims of an assertion")]
    Malformed,
    /// Another algorithm than the key's: `none`, a MAC, RSA.
    #[error("its algorithm is not the one of the key")]
    Algorithm,
    /// The certificate in it is not to be believed.
    #[error("its certificate is refused: {0}")]
    Certificate(TrustError),
    /// No tenant of this server.
    #[error("its tenant is not known here")]
    UnknownTenant,
    /// The signature is not by the certificate's key.
    #[error("its signature is not by the certificate's key")]
    Signature,
    /// `iss`, `sub` or `kid` name another client or key.
    #[error("it names another client or key than the certificate")]
    Client,
    /// It was made for another server.
    #[error("its audience is another server")]
    Audience,
    /// Too old, too new, or living too long.
    #[error("its time is over, has not come, or is longer than 5 minutes")]
    Time,
    /// It was used before. A new one helps.
    #[error("it was used before")]
    Replayed,
}

impl AssertionError {
    /// The label of its metric.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Algorithm => "algorithm",
            Self::Certificate(_) => "certificate",
            Self::UnknownTenant => "unknown_tenant",
            Self::Signature => "signature",
            Self::Client => "client",
            Self::Audience => "audience",
            Self::Time => "time",
            Self::Replayed => "replayed",
        }
    }
}

/// An assertion that is to be believed; what is left is to use it up with [`claim_jti`].
#[derive(Clone, Debug)]
pub struct VerifiedAssertion {
    tenant: Arc<Tenant>,
    certificate: Certificate,
    jti: Digest,
    /// Until when it could be shown again.
    until: UnixTime,
}

impl VerifiedAssertion {
    /// Verifies `assertion` for the token endpoint at `audience`: certificate chain, signature, client,
    /// audience and times.
    ///
    /// # Errors
    /// See [`AssertionError`].
    pub fn verify(
        assertion: &str,
        audience: &str,
        tenants: &Tenants,
        now: UnixTime,
    ) -> Result<Self, AssertionError> {
        if assertion.len() > ASSERTION_BYTES_MAX {
            return Err(AssertionError::Malformed);
        }
        // Refuses `none` by itself: it is no algorithm of the library.
        let header = jsonwebtoken::decode_header(assertion).map_err(|_| AssertionError::Algorithm)?;
        let claimed = jsonwebtoken::dangerous::insecure_decode_claims::<AssertionClaims>(assertion)
            .map_err(|_| AssertionError::Malformed)?;
        let (tenant, certificate) = certified(claimed.sealpost_certificate.as_ref(), tenants, now)?;

        let (algorithm, key) = match &certificate.key {
            RequestKey::Ed25519(key) => (Algorithm::EdDSA, DecodingKey::from_ed_der(key.as_bytes())),
            RequestKey::P256(point) => (Algorithm::ES256, DecodingKey::from_ec_der(point)),
        };
        if header.alg != algorithm {
            return Err(AssertionError::Algorithm);
        }
        let mut validation = Validation::new(algorithm);
        // Times are checked against the clock that is passed in, and the audience with an error of its own.
        validation.validate_exp = false;
        validation.validate_aud = false;
        let claims = jsonwebtoken::decode::<AssertionClaims>(assertion, &key, &validation)
            .map_err(|_| AssertionError::Signature)?
            .claims;

        let client = client_id(tenant.id(), &certificate.subject);
        let kid = certificate.key.key_id().to_string();
        if claims.iss != client || claims.sub != client || header.kid.as_deref() != Some(kid.as_str()) {
            return Err(AssertionError::Client);
        }
        if claims.aud != audience {
            return Err(AssertionError::Audience);
        }
        let lifetime =
            claims.exp.checked_sub(claims.iat).filter(|seconds| *seconds <= ASSERTION_LIFETIME_SECONDS_MAX);
        if lifetime.is_none()
            || claims.iat > now.plus(SKEW_SECONDS_MAX).0
            || claims.exp <= now.minus(SKEW_SECONDS_MAX).0
        {
            return Err(AssertionError::Time);
        }
        if claims.jti.is_empty() || claims.jti.len() > JTI_BYTES_MAX {
            return Err(AssertionError::Malformed);
        }
        // A client id contains no NUL, so the two cannot run into each other.
        let jti = Digest::of(format!("{client}\0{}", claims.jti).as_bytes());
        Ok(Self { tenant, certificate, jti, until: UnixTime(claims.exp).plus(SKEW_SECONDS_MAX) })
    }

    /// The client's tenant.
    #[must_use]
    pub const fn tenant(&self) -> &Arc<Tenant> {
        &self.tenant
    }

    /// The client within its tenant.
    #[must_use]
    pub const fn subject(&self) -> &SubjectId {
        &self.certificate.subject
    }

    /// The client's `request` key.
    #[must_use]
    pub fn key(&self) -> KeyId {
        self.certificate.key.key_id()
    }

    /// The client, for the audit.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor::Client(self.certificate.subject.clone())
    }

    pub(super) fn roles(&self) -> Roles {
        Roles::of(&self.certificate.roles)
    }

    pub(super) const fn not_after(&self) -> UnixTime {
        self.certificate.not_after
    }
}

/// Uses an assertion up, in the transaction of `view`: durable before the answer, so that a restart forgets
/// nothing.
///
/// # Errors
/// [`AssertionError::Replayed`] when it was used before.
pub fn claim_jti(
    view: &mut View,
    keyspace: Keyspace,
    assertion: &VerifiedAssertion,
) -> Result<(), AssertionError> {
    let tenant = assertion.tenant.id();
    let by_id = tenant_key(tenant, &[BY_ID, assertion.jti.as_bytes()]);
    if view.contains(keyspace, &by_id) {
        return Err(AssertionError::Replayed);
    }
    let until = assertion.until.0.to_be_bytes();
    view.put(keyspace, by_id, versioned(VERSION, &until));
    view.put(keyspace, tenant_key(tenant, &[BY_TIME, &until, assertion.jti.as_bytes()]), [VERSION]);
    Ok(())
}

/// Forgets at most `limit` assertions of `tenant` that nobody could show again, and says how many it forgot.
pub fn expire_jtis(
    view: &mut View,
    keyspace: Keyspace,
    tenant: &TenantId,
    now: UnixTime,
    limit: usize,
) -> usize {
    let start = tenant_key(tenant, &[BY_TIME]);
    let end = tenant_key(tenant, &[BY_TIME, &now.0.to_be_bytes()]);
    let over: Vec<_> =
        view.range(keyspace, start.as_slice()..end.as_slice()).take(limit).map(|(key, _)| key).collect();
    for key in &over {
        let after = after_tenant(key, tenant).unwrap_or_default();
        // Behind the kind (1 byte) and the time (8 bytes).
        let jti = after.get(9..).unwrap_or_default();
        view.remove(keyspace, tenant_key(tenant, &[BY_ID, jti]));
        view.remove(keyspace, key.clone());
    }
    over.len()
}

fn certified(
    bytes: &[u8],
    tenants: &Tenants,
    now: UnixTime,
) -> Result<(Arc<Tenant>, Certificate), AssertionError> {
    let refused = AssertionError::Certificate;
    let claimed = SignedCertificate::read(bytes).map_err(|error| refused(error.into()))?;
    let tenant = tenants.tenant(claimed.claimed_tenant()).ok_or(AssertionError::UnknownTenant)?;
    let certificate = tenant.state().trust.certificate(bytes, Purpose::Request, now).map_err(refused)?;
    Ok((tenant.clone(), certificate))
}
