//! `GET /v1/messages/{transport id}`: where a message is, for the sender that submitted it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use sealpost_service::access::Caller;
use sealpost_service::parameter::InPath;
use sealpost_service::problem::{ProblemCode, Refusal};
use sealpost_wire::api::relay::MessageStatus;
use sealpost_wire::certificate::Role;
use sealpost_wire::id::TransportId;

use crate::relay::Relay;

/// Answers with the states and receipts of a sender's own message.
pub(crate) async fn get(
    State(relay): State<Arc<Relay>>,
    Caller(caller): Caller,
    InPath(id): InPath<TransportId>,
) -> Result<Json<MessageStatus>, Refusal> {
    caller.require(&[Role::Sender])?;
    let status = relay.store.message(caller.tenant().id(), caller.subject(), id)?;
    status.map(Json).ok_or_else(|| ProblemCode::NotFound.into())
}
