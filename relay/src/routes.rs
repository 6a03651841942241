//! The relay's routes.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::Response;
use axum::routing::{get, post, put};
use http::HeaderMap;
use sealpost_service::access::{TOKEN_BODY_BYTES_MAX, answer_token_request};
use sealpost_service::body::RawBody;
use sealpost_service::tenants::STATUS_BODY_BYTES_MAX;

use crate::relay::Relay;
use crate::store::Store;
use crate::{device, events, message, status, submit, sync};

/// All routes, each with the size of its body.
pub(crate) fn router(relay: Arc<Relay>) -> Router {
    let limit = DefaultBodyLimit::max;
    Router::new()
        .route("/v1/token", post(token).layer(limit(TOKEN_BODY_BYTES_MAX)))
        .route("/v1/status", put(status::put).get(status::get).layer(limit(STATUS_BODY_BYTES_MAX)))
        .route("/v1/messages/{id}", put(submit::put).layer(limit(submit::BODY_BYTES_MAX)).get(message::get))
        .route("/v1/events", get(events::get))
        .route("/v1/devices/{device}", put(device::put).layer(limit(device::BODY_BYTES_MAX)))
        .route("/v1/sync", post(sync::post).layer(limit(sync::BODY_BYTES_MAX)))
        .with_state(relay)
}

async fn token(State(relay): State<Arc<Relay>>, headers: HeaderMap, RawBody(body): RawBody) -> Response {
    let engine = relay.store.engine();
    answer_token_request(&relay.authority, engine, Store::shared_keyspaces(), &headers, &body).await
}
