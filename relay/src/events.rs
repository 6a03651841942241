//! `GET /v1/events`: what happened to a tenant's deliveries, in order and without gaps, as a long poll.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use sealpost_service::access::Caller;
use sealpost_service::parameter::InQuery;
use sealpost_service::problem::{ProblemCode, Refusal};
use sealpost_wire::api::relay::EventPage;
use sealpost_wire::certificate::Role;
use serde::Deserialize;

use crate::relay::Relay;
use crate::store::EventsAnswer;

/// The query of `GET /v1/events`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct EventQuery {
    /// Only events behind this id.
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
    InQuery(query): InQuery<EventQuery>,
) -> Result<Json<EventPage>, Refusal> {
    caller.require(&[Role::Sender])?;
    let tenant = caller.tenant().id();
    let max = relay.limits.events_per_page_max;
    let limit = query.limit.unwrap_or(max).min(max);
    if limit == 0 {
        return Err(Refusal::new(ProblemCode::InvalidValue).detail("limit is at least 1"));
    }
    let wait = Duration::from_secs(query.wait.min(relay.limits.wait_seconds_max).into());
    if !wait.is_zero() && !relay.shutdown.is_draining() {
        wait_for_event(&relay, tenant, query.after, wait).await;
    }
    match relay.store.events(tenant, query.after, limit)? {
        EventsAnswer::Page(page) => Ok(Json(page)),
        EventsAnswer::Gone { oldest } => {
            Err(Refusal::new(ProblemCode::CursorGone).detail(format!("the oldest event is {oldest}")))
        }
    }
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
