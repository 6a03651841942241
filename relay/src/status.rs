//! `PUT` and `GET /v1/status`: the tenant's revocations.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use sealpost_service::access::Caller;
use sealpost_service::body::JsonBody;
use sealpost_service::problem::Refusal;
use sealpost_service::tenants::{put_status, status_body};
use sealpost_wire::api::StatusBody;
use sealpost_wire::certificate::Role;

use crate::relay::Relay;
use crate::store::Store;

/// Takes in a newer status. What it revokes is refused from now on, and revoked devices lose their mailboxes
/// in the same transaction.
pub(crate) async fn put(
    State(relay): State<Arc<Relay>>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody<StatusBody>,
) -> Result<Json<StatusBody>, Refusal> {
    caller.require(&[Role::Revoker])?;
    let tenant = caller.tenant();
    put_status(
        relay.store.engine(),
        Store::shared_keyspaces(),
        tenant,
        body.status.as_ref(),
        &caller.actor(),
        &*relay.clock,
        relay.store.revoke_devices(tenant.id(), relay.clock.clone()),
    )
    .await?;
    if let Some(status) = tenant.state().trust.status() {
        status.revoked_devices.iter().for_each(|device| relay.store.wake_device(tenant.id(), *device));
    }
    status_body(tenant).map(Json)
}

/// The newest status.
pub(crate) async fn get(Caller(caller): Caller) -> Result<Json<StatusBody>, Refusal> {
    status_body(caller.tenant()).map(Json)
}
