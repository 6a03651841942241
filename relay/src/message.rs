//! `GET /v1/messages/{transport id}`: where a message is, for the sender or the device that submitted it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequest as _, Request, State};
use sealpost_service::body::RawBody;
use sealpost_service::parameter::InPath;
use sealpost_service::problem::{ProblemCode, Refusal};
use sealpost_wire::api::relay::MessageStatus;
use sealpost_wire::id::TransportId;

use crate::author::Author;
use crate::relay::Relay;

/// Answers with the states and receipts of an author's own message.
pub(crate) async fn get(
    State(relay): State<Arc<Relay>>,
    InPath(id): InPath<TransportId>,
    request: Request,
) -> Result<Json<MessageStatus>, Refusal> {
    let author = Author::let_in(&relay, request.method(), request.uri(), request.headers())?;
    if author.is_signed() {
        let RawBody(body) = RawBody::from_request(request, &()).await?;
        author.check_body(&relay, &body)?;
    }
    let status = relay.store.message(author.tenant().id(), author.name(), id)?;
    status.map(Json).ok_or_else(|| ProblemCode::NotFound.into())
}
