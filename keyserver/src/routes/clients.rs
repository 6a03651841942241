//! Routes of clients with a `request` key: access tokens, the tenant status.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use sealpost_service::access::Caller;
use sealpost_service::body::{JsonBody, RawBody};
use sealpost_service::problem::Refusal;
use sealpost_service::rates::Stranger;
use sealpost_service::tenants::status_body;
use sealpost_wire::api::StatusBody;
use sealpost_wire::certificate::Role;

use super::Done;
use crate::keyserver::Keyserver;

pub(super) async fn token(
    State(keyserver): State<Arc<Keyserver>>,
    _: Stranger,
    headers: HeaderMap,
    RawBody(body): RawBody,
) -> Response {
    keyserver.store.claim_jti(&keyserver.authority, &headers, &body).await
}

pub(super) async fn put_status(
    State(keyserver): State<Arc<Keyserver>>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody<StatusBody>,
) -> Result<Json<Done>, Refusal> {
    caller.require(&[Role::Revoker])?;
    let clock = &*keyserver.clock;
    keyserver.store.put_status(caller.tenant(), body.status.as_ref(), &caller.actor(), clock).await?;
    Ok(Json(Done {}))
}

pub(super) async fn status(Caller(caller): Caller) -> Result<Json<StatusBody>, Refusal> {
    status_body(caller.tenant()).map(Json)
}
