//! Who submits messages, and asks what became of them: a sender by its access token, or a device by its
//! signature.
//!
//! ```text
//! token      -> authority -> role -> the body
//! signature  -> door: key, time, once, not revoked, allowance -> the body, which is to be the one that was signed
//! ```
//! Either is let in before the body is read: it may be large, and a stranger's is not taken in.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Uri};
use sealpost_service::audit::Actor;
use sealpost_service::device_request::is_signed;
use sealpost_service::problem::{ProblemCode, Refusal};
use sealpost_service::tenants::Tenant;
use sealpost_wire::author::AuthorName;
use sealpost_wire::certificate::Role;
use sealpost_wire::http_signature::SignedRequest;

use crate::device::tenant_of;
use crate::relay::Relay;

/// A sender or a device that was let in.
pub(crate) struct Author {
    tenant: Arc<Tenant>,
    name: AuthorName,
    /// What a device has signed.
    signed: Option<SignedRequest>,
}

impl Author {
    /// Lets in whoever a request shows. One that shows both a token and a signature is refused: it would be
    /// of two authors.
    ///
    /// # Errors
    /// What the authority of tokens or the door of devices says; [`ProblemCode::Forbidden`] for a client that
    /// is no sender.
    pub(crate) fn let_in(
        relay: &Relay,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Self, Refusal> {
        match (headers.contains_key(AUTHORIZATION), is_signed(headers)) {
            (true, true) => {
                Err(Refusal::new(ProblemCode::InvalidCredentials).detail("a token and a signature at once"))
            }
            (false, true) => Self::device(relay, relay.door.read_head(method, uri, headers)?),
            (_, false) => Self::sender(relay, headers),
        }
    }

    fn sender(relay: &Relay, headers: &HeaderMap) -> Result<Self, Refusal> {
        let caller = relay.authority.authenticate(headers)?;
        caller.require(&[Role::Sender])?;
        let name = AuthorName::Sender(caller.subject().clone());
        Ok(Self { tenant: caller.tenant().clone(), name, signed: None })
    }

    fn device(relay: &Relay, request: SignedRequest) -> Result<Self, Refusal> {
        let tenant = tenant_of(relay, &request)?;
        let device = relay.store.device(&request.tenant, request.device)?;
        let key = device.as_ref().map(|device| &device.request_key);
        relay.door.admit(&request, &tenant, key, relay.clock.now())?;
        Ok(Self { tenant, name: AuthorName::Device(request.device), signed: Some(request) })
    }

    /// Checks that the body is the one that was signed, by a device that was not revoked while it came.
    ///
    /// # Errors
    /// [`ProblemCode::InvalidCredentials`], [`ProblemCode::Revoked`].
    pub(crate) fn check_body(&self, relay: &Relay, body: &[u8]) -> Result<(), Refusal> {
        let Some(request) = &self.signed else { return Ok(()) };
        relay.door.check_body(request, body)?;
        let known = self.tenant.state().trust.check_device(request.device);
        known.map_err(|_| ProblemCode::Revoked.into())
    }

    pub(crate) const fn tenant(&self) -> &Arc<Tenant> {
        &self.tenant
    }

    pub(crate) const fn name(&self) -> &AuthorName {
        &self.name
    }

    /// Whether a device's signature is what let it in.
    pub(crate) const fn is_signed(&self) -> bool {
        self.signed.is_some()
    }

    /// The author, for the audit.
    pub(crate) fn actor(&self) -> Actor {
        match &self.name {
            AuthorName::Sender(subject) => Actor::Client(subject.clone()),
            AuthorName::Device(device) => Actor::Device(*device),
        }
    }
}
