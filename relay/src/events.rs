//! `GET /v1/events`: what happened to a tenant's deliveries, in order and without gaps, as a long poll. Who accepts
//! `text/event-stream` gets a stream instead: `event_stream.rs`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use sealpost_service::access::{Access, Caller};
use sealpost_service::parameter::InQuery;
use sealpost_service::problem::{ProblemCode, Refusal};
use sealpost_wire::api::relay::EventPage;
use sealpost_wire::certificate::Role;
use serde::Deserialize;

use crate::event_stream;
use crate::relay::Relay;
use crate::store::EventsAnswer;

/// The query of `GET /v1/events`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct EventQuery {
    /// Only events behind this id; behind `Last-Event-ID`, if a request has it. A stream goes by these alone.
    after: u64,
    /// Stay connected this long (seconds) for an event to come when there is none.
    wait: u16,
    /// At most so many; the relay's limit without it.
    limit: Option<usize>,
}

/// Answers with the events behind a cursor; waits for one if there is none.
pub(crate) async fn get(
    State(relay): State<Arc<Relay>>,
    Caller(caller): Caller,
    InQuery(mut query): InQuery<EventQuery>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    caller.require(&[Role::Sender])?;
    query.after = event_stream::last_event_id(&headers)?.unwrap_or(query.after);
    if event_stream::is_wanted(&headers) {
        return event_stream::open(relay, caller, query.after);
    }
    page(&relay, &caller, query).await.map(IntoResponse::into_response)
}

async fn page(relay: &Relay, caller: &Access, query: EventQuery) -> Result<Json<EventPage>, Refusal> {
    let tenant = caller.tenant().id();
    let max = relay.limits.events_per_page_max;
    let limit = query.limit.unwrap_or(max).min(max);
    if limit == 0 {
        return Err(Refusal::new(ProblemCode::InvalidValue).detail("limit is at least 1"));
    }
    let wait = Duration::from_secs(query.wait.min(relay.limits.wait_seconds_max).into());
    if !wait.is_zero() && !relay.shutdown.is_draining() {
        wait_for_event(relay, tenant, query.after, wait).await;
    }
    match relay.store.events(tenant, query.after, limit)? {
        EventsAnswer::Page(page) => Ok(Json(page)),
        EventsAnswer::Gone { oldest } => Err(gone(oldest)),
    }
}

/// The cursor is behind what is kept.
pub(crate) fn gone(oldest: u64) -> Refusal {
    Refusal::new(ProblemCode::CursorGone).detail(format!("the oldest event is {oldest}"))
}

async fn wait_for_event(relay: &Relay, tenant: &sealpost_wire::id::TenantId, after: u64, wait: Duration) {
    let Some(mut last) = relay.store.last_event(tenant) else { return };
    tokio::select! {
        // The sender lives as long as the store.
        _ = last.wait_for(|last| *last > after) => {}
        () = tokio::time::sleep(wait) => {}
        () = relay.shutdown.begun() => {}
    }
}
