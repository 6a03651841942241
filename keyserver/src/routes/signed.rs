//! Requests of devices, which sign them.

use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::request::Parts;
use sealpost_service::body::{RawBody, check_json, parse_json};
use sealpost_service::problem::{ProblemCode, Refusal};
use sealpost_service::tenants::Tenant;
use sealpost_wire::id::DeviceId;
use serde::de::DeserializeOwned;

use crate::device::{Device, Standing};
use crate::keyserver::Keyserver;
use crate::store::StoreError;

/// A request that its device signed.
pub(super) struct Signed {
    /// The device's tenant.
    pub(super) tenant: Arc<Tenant>,
    /// The device.
    pub(super) device: DeviceId,
    /// What is stored of it.
    pub(super) known: Device,
    parts: Parts,
    body: Bytes,
}

impl Signed {
    /// The tenant of the device, if it is the one in the path. Another one is nothing that this device knows
    /// of.
    pub(super) fn of(&self, in_path: DeviceId) -> Result<&Arc<Tenant>, Refusal> {
        if self.device == in_path { Ok(&self.tenant) } else { Err(ProblemCode::NotFound.into()) }
    }

    /// Refuses a device that is in no set: members of groups are.
    pub(super) fn require_admitted(&self) -> Result<(), Refusal> {
        match self.known.standing {
            Standing::Admitted { .. } => Ok(()),
            Standing::Pending => Err(Refusal::new(ProblemCode::Forbidden).detail("not_admitted")),
            Standing::Declined => Err(ProblemCode::TicketUnavailable.into()),
            Standing::Removed { .. } => Err(ProblemCode::Revoked.into()),
        }
    }

    /// The body, which is JSON.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        check_json(&self.parts.headers)?;
        parse_json(&self.body)
    }
}

impl FromRequest<Arc<Keyserver>> for Signed {
    type Rejection = Refusal;

    async fn from_request(request: Request, keyserver: &Arc<Keyserver>) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let signed = keyserver.door.read_head(&parts.method, &parts.uri, &parts.headers)?;
        // Unknown tenants and devices are told as a wrong signature is.
        let invalid = || keyserver.door.unknown();
        let tenant = Arc::clone(keyserver.tenants.tenant(&signed.tenant).ok_or_else(invalid)?);
        let known = match keyserver.store.device(tenant.id(), signed.device) {
            Ok(device) => Some(device),
            Err(StoreError::NotFound) => None,
            Err(error) => return Err(error.into()),
        };
        let key = known.as_ref().and_then(Device::request_key);
        keyserver.door.admit(&signed, &tenant, key.as_ref(), keyserver.clock.now())?;
        let known = known.ok_or_else(invalid)?;
        // Let in before its body comes: a stranger's is never taken in.
        let request = Request::from_parts(parts.clone(), body);
        let RawBody(body) = RawBody::from_request(request, keyserver).await?;
        keyserver.door.check_body(&signed, &body)?;
        Ok(Self { tenant, device: signed.device, known, parts, body })
    }
}
