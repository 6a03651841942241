//! What time does: messages expire and are forgotten, old events, used assertions and unused slots go.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sealpost_service::access::expire_jtis;
use sealpost_service::engine::{EngineError, Space};
use sealpost_service::tenants::Tenant;
use sealpost_wire::id::{SlotId, TenantId};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::relay::Relay;
use crate::store::{Store, StoreError};

/// How often messages whose time is over are looked for.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(1);
/// How often old events, used assertions and unused slots are looked for.
const TRIM_INTERVAL: Duration = Duration::from_secs(60);
/// Rows that one write deals with.
const ROWS_PER_WRITE: usize = 64;
/// Slots of a tenant that one look goes over. They are forgotten after so long that it does not matter when a
/// round over all of them ends.
const SLOTS_PER_LOOK: usize = 1024;

/// Where the next look for unused slots begins, by tenant; at the first where nothing is said.
type SlotCursors = HashMap<TenantId, SlotId>;

/// Sweeps until the relay drains; `now` makes it look at once.
pub(crate) async fn run(relay: Arc<Relay>, now: Arc<Notify>) {
    let mut trimmed: Option<Instant> = None;
    let mut slots = SlotCursors::new();
    loop {
        let trim = trimmed.is_none_or(|at| at.elapsed() >= TRIM_INTERVAL);
        relay.door.forget(relay.clock.now());
        for tenant in relay.tenants.iter() {
            if let Err(error) = sweep(&relay, tenant, trim, &mut slots).await {
                // Busy, or out of order; requests report the latter.
                tracing::warn!(%error, tenant = %tenant.id(), "sweeping was cut short");
            }
        }
        if trim {
            trimmed = Some(Instant::now());
        }
        tokio::select! {
            () = tokio::time::sleep(EXPIRE_INTERVAL) => {}
            () = now.notified() => trimmed = None,
            () = relay.shutdown.begun() => return,
        }
    }
}

async fn sweep(
    relay: &Relay,
    tenant: &Tenant,
    trim: bool,
    slots: &mut SlotCursors,
) -> Result<(), StoreError> {
    let (store, id, now_ms) = (&relay.store, tenant.id(), relay.clock.now_millis());
    while store.expire(id, now_ms, ROWS_PER_WRITE).await? >= ROWS_PER_WRITE {
        if relay.shutdown.is_draining() {
            return Ok(());
        }
    }
    if !trim {
        return Ok(());
    }
    let kept_ms = relay.limits.events_retention_seconds.saturating_mul(1000);
    while store.trim_events(id, now_ms.saturating_sub(kept_ms), ROWS_PER_WRITE).await? == ROWS_PER_WRITE {}
    while forget_assertions(relay, tenant).await? == ROWS_PER_WRITE {}
    let from = slots.get(id).copied();
    let looked = store.forget_slots(id, from, relay.clock.now(), SLOTS_PER_LOOK).await?;
    match looked.next {
        Some(next) => slots.insert(id.clone(), next),
        None => slots.remove(id),
    };
    Ok(())
}

async fn forget_assertions(relay: &Relay, tenant: &Tenant) -> Result<usize, EngineError> {
    let (keyspace, id, now) = (Store::shared_keyspaces().assertions, tenant.id().clone(), relay.clock.now());
    let forget = move |view: &mut sealpost_service::engine::View| {
        Ok::<_, std::convert::Infallible>(expire_jtis(view, keyspace, &id, now, ROWS_PER_WRITE))
    };
    let engine = relay.store.engine();
    match engine.write_with("expire_assertions", Space::Frees, forget).await? {
        Ok(count) => Ok(count),
        Err(never) => match never {},
    }
}
