//! `PUT /v1/devices/{device}`: a device makes its mailbox, or renews its push token. Also who signs a
//! request.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::{HeaderMap, Method, StatusCode, Uri};
use sealpost_service::audit::{Act, Actor, Entry, Object};
use sealpost_service::body::{RawBody, check_json, parse_json};
use sealpost_service::parameter::InPath;
use sealpost_service::problem::{ProblemCode, Refusal};
use sealpost_service::tenants::Tenant;
use sealpost_wire::admission::Admission;
use sealpost_wire::api::relay::{DeviceRegistered, DeviceRegistration, PushRegistration};
use sealpost_wire::error::TrustError;
use sealpost_wire::http_signature::SignedRequest;
use sealpost_wire::id::{DeviceId, TenantId};
use sealpost_wire::limits::{ADMISSION_BYTES_MAX, PUSH_TOKEN_BYTES_MAX};

use crate::provider::PushToken;
use crate::relay::Relay;
use crate::store::{AppId, Device, PushTarget, Registered, Registering};

/// Bytes of a registration: the admission in base64url, the push token, and the JSON around them.
pub(crate) const BODY_BYTES_MAX: usize = ADMISSION_BYTES_MAX.div_ceil(3) * 4 + PUSH_TOKEN_BYTES_MAX + 1024;

/// Registers a device that its tenant has admitted.
pub(crate) async fn put(
    State(relay): State<Arc<Relay>>,
    InPath(device): InPath<DeviceId>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    RawBody(body): RawBody,
) -> Result<(StatusCode, Json<DeviceRegistered>), Refusal> {
    check_json(&headers)?;
    let request = relay.door.read(&method, &uri, &headers, &body)?;
    let tenant = tenant_of(&relay, &request)?;
    let registration: DeviceRegistration = parse_json(&body)?;
    let admission = admission(&tenant, registration.admission.as_ref())?;
    let record = admission.record;
    // The key is the record's: whoever shows somebody else's admission cannot sign for it.
    let key = Some(&record.request_key).filter(|_| record.device == request.device);
    relay.door.admit(&request, &tenant, key, relay.clock.now())?;
    if record.device != device {
        return Err(Refusal::new(ProblemCode::InvalidValue).detail("another device's admission"));
    }
    if record.relay != relay.public_url.as_str() {
        return Err(Refusal::new(ProblemCode::InvalidValue).detail("the device enrolled with another relay"));
    }
    let now_ms = relay.clock.now_millis();
    let target = registration.push.map(|push| target(&relay, tenant.id(), device, &push, now_ms));
    let (push, same_token) = target.transpose()?.map_or((None, false), |(push, same)| (Some(push), same));
    let has_push = push.is_some();
    let objects: [Object<'_>; 2] = [("device", &device), ("push", &has_push)];
    let registering = Registering {
        tenant: tenant.id().clone(),
        device,
        row: Device {
            identity_key: record.identity_key,
            request_key: record.request_key,
            created: record.created,
            push,
        },
        same_token,
        now_ms,
        audit: Entry::new(now_ms, Act::DeviceRegistered, &Actor::Device(device), &objects, "done"),
    };
    let (outcome, answer) = match relay.store.register_device(registering).await? {
        Registered::New => ("new", Ok(StatusCode::CREATED)),
        Registered::Renewed => ("renewed", Ok(StatusCode::OK)),
        Registered::OtherIdentity => ("refused", Err(ProblemCode::Conflict)),
        Registered::Outdated => ("refused", Err(ProblemCode::VersionConflict)),
    };
    relay.metrics.registration(outcome);
    Ok((answer?, Json(DeviceRegistered { device, push: has_push })))
}

/// The tenant that a signed request names. One that is not served here is answered like a wrong signature.
pub(crate) fn tenant_of(relay: &Relay, request: &SignedRequest) -> Result<Arc<Tenant>, Refusal> {
    let tenant = relay.tenants.tenant(&request.tenant).cloned();
    tenant.ok_or_else(|| relay.door.unknown())
}

fn admission(tenant: &Tenant, bytes: &[u8]) -> Result<Admission, Refusal> {
    Admission::verify(bytes, &tenant.state().trust).map_err(|error| match error {
        TrustError::DeviceRevoked => ProblemCode::Revoked.into(),
        error => error.into(),
    })
}

/// Where stubs go from now on, and whether they went there before.
fn target(
    relay: &Relay,
    tenant: &TenantId,
    device: DeviceId,
    push: &PushRegistration,
    now_ms: u64,
) -> Result<(PushTarget, bool), Refusal> {
    let invalid = |detail: &'static str| Refusal::new(ProblemCode::InvalidValue).detail(detail);
    let app = relay.store.app(tenant, &push.app).ok_or_else(|| invalid("push.app is not known here"))?;
    if push.token.len() > PUSH_TOKEN_BYTES_MAX {
        return Err(invalid("push.token is too long"));
    }
    let token = PushToken::new(push.token.as_str())
        .map_err(|error| invalid("push.token").detail(error.to_string()))?;
    let same = is_same(relay, tenant, device, app, &token)?;
    let mut rng = relay.rng;
    let sealed = relay.push_token_key.seal(&token, tenant, device, app, &mut rng);
    let sealed = sealed.map_err(|error| {
        tracing::error!(%error, "a push token could not be sealed");
        Refusal::new(ProblemCode::Internal)
    })?;
    Ok((PushTarget { app, registered_ms: now_ms, refused: false, token: sealed }, same))
}

fn is_same(
    relay: &Relay,
    tenant: &TenantId,
    device: DeviceId,
    app: AppId,
    token: &PushToken,
) -> Result<bool, Refusal> {
    let before = relay.store.device(tenant, device)?.and_then(|row| row.push).filter(|push| push.app == app);
    let before = before.and_then(|push| relay.push_token_key.open(&push.token, tenant, device, app).ok());
    Ok(before.as_ref() == Some(token))
}
