//! The relay's routes.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use sealpost_service::access::{TOKEN_BODY_BYTES_MAX, answer_token_request};
use sealpost_service::body::RawBody;
use sealpost_service::rates::Stranger;
use sealpost_service::server::{Api, Operation, common_operations};
use sealpost_service::tenants::STATUS_BODY_BYTES_MAX;

use crate::relay::Relay;
use crate::store::Store;
use crate::{device, events, message, status, submit, sync};

/// The OpenAPI document of the relay: `relay/openapi.json`.
pub const DOCUMENT: &str = include_str!("../openapi.json");

/// The list of the relay's routes, which [`DOCUMENT`] describes.
#[must_use]
pub fn operations() -> Vec<Operation> {
    [api().operations(), &common_operations()].concat()
}

/// All routes, each with the size of its body.
pub(crate) fn api() -> Api<Arc<Relay>> {
    Api::new()
        .post("/v1/token", TOKEN_BODY_BYTES_MAX, token)
        .put("/v1/status", STATUS_BODY_BYTES_MAX, status::put)
        .get("/v1/status", status::get)
        .put("/v1/messages/{id}", submit::BODY_BYTES_MAX, submit::put)
        .get("/v1/messages/{id}", message::get)
        .get("/v1/events", events::get)
        .put("/v1/devices/{device}", device::BODY_BYTES_MAX, device::put)
        .post("/v1/sync", sync::BODY_BYTES_MAX, sync::post)
}

async fn token(
    State(relay): State<Arc<Relay>>,
    _: Stranger,
    headers: HeaderMap,
    RawBody(body): RawBody,
) -> Response {
    let engine = relay.store.engine();
    answer_token_request(&relay.authority, engine, Store::shared_keyspaces(), &headers, &body).await
}
