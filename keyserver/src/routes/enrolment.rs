//! Routes of tickets: an enroller makes and watches them, a device claims one.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use sealpost_service::access::Caller;
use sealpost_service::audit::{Act, Actor, Entry, Object};
use sealpost_service::body::JsonBody;
use sealpost_service::parameter::{InPath, InQuery};
use sealpost_service::problem::{ProblemCode, Refusal};
use sealpost_service::rates::Stranger;
use sealpost_wire::api::keyserver::{ClaimBody, CloseBody, TicketBody, TicketState};
use sealpost_wire::certificate::Role;
use sealpost_wire::id::TicketId;
use sealpost_wire::ticket::ClaimToken;

use super::{Done, Wait};
use crate::keyserver::Keyserver;
use crate::store::Put;
use crate::ticket::{ClaimRequest, Claimed, Ticket};

pub(super) async fn put_ticket(
    State(keyserver): State<Arc<Keyserver>>,
    Caller(caller): Caller,
    InPath(id): InPath<TicketId>,
    JsonBody(body): JsonBody<TicketBody>,
) -> Result<(StatusCode, Json<TicketState>), Refusal> {
    caller.require(&[Role::Enroller])?;
    let ticket = Ticket::new(body.claim_digest, body.expires_at, keyserver.clock.now())?;
    let objects: [Object<'_>; 1] = [("ticket", &id)];
    let entry = Entry::new(keyserver.clock.now_millis(), Act::TicketMade, &caller.actor(), &objects, "done");
    let kept = keyserver.limits.ticket_kept_seconds;
    let tenant = caller.tenant().id();
    match keyserver.store.put_ticket(tenant, id, ticket.clone(), kept, entry).await? {
        Put::New => Ok((StatusCode::CREATED, Json(ticket.state(id)))),
        Put::Again => Ok((StatusCode::OK, Json(keyserver.store.ticket(tenant, id)?.state(id)))),
    }
}

pub(super) async fn ticket(
    State(keyserver): State<Arc<Keyserver>>,
    Caller(caller): Caller,
    InPath(id): InPath<TicketId>,
    InQuery(wait): InQuery<Wait>,
) -> Result<Json<TicketState>, Refusal> {
    caller.require(&[Role::Enroller])?;
    let end = keyserver.shutdown.begun();
    let ticket = keyserver.store.wait_for_claim(caller.tenant().id(), id, wait.longest(), end).await?;
    Ok(Json(ticket.state(id)))
}

/// The device has no credentials yet but the claim token. A wrong token, an unknown ticket and an unknown
/// tenant are told alike.
pub(super) async fn claim(
    State(keyserver): State<Arc<Keyserver>>,
    _: Stranger,
    InPath(id): InPath<TicketId>,
    JsonBody(body): JsonBody<ClaimBody>,
) -> Result<(StatusCode, Json<Done>), Refusal> {
    let claimed = try_claim(&keyserver, id, body).await;
    let outcome = match &claimed {
        Ok(Claimed::New) => "new",
        Ok(Claimed::Second) => "second",
        Ok(Claimed::Again) => "again",
        Err(_) => "refused",
    };
    keyserver.metrics.claims.with_label_values(&[outcome]).inc();
    claimed.map(|_| (StatusCode::ACCEPTED, Json(Done {})))
}

async fn try_claim(keyserver: &Keyserver, id: TicketId, body: ClaimBody) -> Result<Claimed, Refusal> {
    let invalid = || Refusal::new(ProblemCode::InvalidCredentials);
    let token: [u8; 32] = body.claim_token.as_ref().try_into().map_err(|_| invalid())?;
    let claim = ClaimRequest::read(id, &ClaimToken::from_bytes(token), body.enrolment)?;
    let tenant = keyserver.tenants.tenant(&claim.record.tenant).ok_or_else(invalid)?;
    if tenant.state().trust.check_device(claim.record.device).is_err() {
        return Err(ProblemCode::Revoked.into());
    }
    let device = claim.record.device;
    let objects: [Object<'_>; 2] = [("ticket", &id), ("device", &device)];
    let who = Actor::Device(device);
    let entry = Entry::new(keyserver.clock.now_millis(), Act::TicketClaimed, &who, &objects, "done");
    let claimed = keyserver.store.claim_ticket(tenant.id(), claim, keyserver.clock.now(), entry).await?;
    if claimed == Claimed::Second {
        tracing::warn!(tenant = %tenant.id(), ticket = %id, "a ticket was claimed by another device too");
    }
    Ok(claimed)
}

pub(super) async fn close(
    State(keyserver): State<Arc<Keyserver>>,
    Caller(caller): Caller,
    InPath(id): InPath<TicketId>,
    JsonBody(CloseBody {}): JsonBody<CloseBody>,
) -> Result<Json<TicketState>, Refusal> {
    caller.require(&[Role::Enroller])?;
    let objects: [Object<'_>; 1] = [("ticket", &id)];
    let entry =
        Entry::new(keyserver.clock.now_millis(), Act::TicketClosed, &caller.actor(), &objects, "done");
    let tenant = caller.tenant().id();
    keyserver.store.close_ticket(tenant, id, entry).await?;
    Ok(Json(keyserver.store.ticket(tenant, id)?.state(id)))
}
