//! How a tenant's status is put, kept and read back.
//!
//! ```text
//! tenant | 0  -> version | the signed status
//! ```

use std::sync::Arc;

use sealpost_wire::api::StatusBody;
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::clock::{Clock, UnixTime};
use sealpost_wire::error::TrustError;
use sealpost_wire::id::TenantId;
use sealpost_wire::limits::STATUS_BYTES_MAX;
use sealpost_wire::status::TenantStatus;

use super::{Tenant, TenantState, Tenants};
use crate::audit::{self, Act, Actor, Entry};
use crate::engine::{Engine, EngineError, Keyspace, View};
use crate::problem::{ProblemCode, Refusal};
use crate::shared_rows::SharedKeyspaces;
use crate::store_key::{content, tenant_key, versioned};

/// Bytes of the body of `PUT /v1/status`: the status in base64url, and the JSON around it.
pub const STATUS_BODY_BYTES_MAX: usize = STATUS_BYTES_MAX.div_ceil(3) * 4 + 1024;

/// Version of the row's value.
const VERSION: u8 = 1;

/// How often a put starts again because another one came between.
const ATTEMPTS_MAX: usize = 8;

/// Takes in a status: verified, durable, and in force for every request that begins after this returns.
///
/// `follow` runs in the same transaction and is for what else the status changes in the store: a relay drops
/// the mailboxes of revoked devices. It may run more than once.
///
/// # Errors
/// [`ProblemCode::InvalidStructure`] for a status that is not to be believed or is older than the newest, and
/// what the store says.
pub async fn put_status<F>(
    engine: &Engine,
    keyspaces: SharedKeyspaces,
    tenant: &Arc<Tenant>,
    bytes: &[u8],
    who: &Actor,
    clock: &dyn Clock,
    follow: F,
) -> Result<(), Refusal>
where
    F: Fn(&mut View, &TenantStatus) + Clone + Send + 'static,
{
    for _ in 0..ATTEMPTS_MAX {
        let before = tenant.state.load_full();
        let Some(next) = Tenant::judge(&before, bytes, clock.now())? else { return Ok(()) };
        let Some(status) = next.trust.status().cloned() else { return Err(ProblemCode::Internal.into()) };
        let entry = Entry::new(
            clock.now_millis(),
            Act::StatusPut,
            who,
            &[("sequence", &status.sequence), ("issued", &status.issued.0)],
            "done",
        );
        let put = Put { tenant: tenant.clone(), before, next: Arc::new(next), status, entry };
        let follow = follow.clone();
        let done = engine.write("put_status", move |view| put.decide(view, keyspaces, &follow)).await?;
        if done.is_ok() {
            return Ok(());
        }
        // By now the other one is in force: judge by that one.
    }
    Err(Refusal::new(ProblemCode::Unavailable).retry_after(1))
}

/// The answer to `GET /v1/status`.
///
/// # Errors
/// [`ProblemCode::NotFound`] when the tenant never put one.
pub fn status_body(tenant: &Tenant) -> Result<StatusBody, Refusal> {
    let state = tenant.state();
    match &state.status {
        Some(bytes) => Ok(StatusBody { status: Base64Url(bytes.to_vec()) }),
        None => Err(ProblemCode::NotFound.into()),
    }
}

/// Why stored statuses cannot be read back at start.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A stored status does not verify any more. Starting without it would bring revoked keys back: put a
    /// status that a newer root vouches for before the root of the stored one leaves the configuration.
    #[error("the stored status of tenant {tenant} does not verify: {source}")]
    Status {
        /// Whose status.
        tenant: TenantId,
        /// What is wrong with it.
        source: TrustError,
    },
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] EngineError),
}

/// Reads every tenant's status back, at start.
///
/// # Errors
/// See [`RestoreError`]; the server must not start.
pub fn restore_statuses(
    engine: &Engine,
    keyspace: Keyspace,
    tenants: &Tenants,
    now: UnixTime,
) -> Result<(), RestoreError> {
    for tenant in tenants.iter() {
        if let Some(value) = engine.get(keyspace, row_key(tenant.id()))? {
            let tenant_id = || tenant.id().clone();
            restore(tenant, &value, now)
                .map_err(|source| RestoreError::Status { tenant: tenant_id(), source })?;
        }
    }
    Ok(())
}

fn restore(tenant: &Tenant, value: &[u8], now: UnixTime) -> Result<(), TrustError> {
    let bytes = content(value, VERSION).unwrap_or_default();
    if let Some(next) = Tenant::judge(&tenant.state(), bytes, now)? {
        tenant.install(&Arc::new(next));
    }
    Ok(())
}

fn row_key(tenant: &TenantId) -> Vec<u8> {
    tenant_key(tenant, &[])
}

/// The store holds another status than the one that the new one was judged by.
struct Moved;

struct Put {
    tenant: Arc<Tenant>,
    before: Arc<TenantState>,
    next: Arc<TenantState>,
    status: TenantStatus,
    entry: Entry,
}

impl Put {
    fn decide(
        self,
        view: &mut View,
        keyspaces: SharedKeyspaces,
        follow: &dyn Fn(&mut View, &TenantStatus),
    ) -> Result<(), Moved> {
        let key = row_key(self.tenant.id());
        let stored = view.get(keyspaces.statuses, &key);
        if let Some(stored) = &stored
            && content(stored, VERSION) != self.before.status.as_deref()
        {
            return Err(Moved);
        }
        let bytes = self.next.status.as_deref().unwrap_or_default();
        view.put(keyspaces.statuses, key, versioned(VERSION, bytes));
        follow(view, &self.status);
        audit::append(view, keyspaces.audit, self.tenant.id(), &self.entry);
        // In force once it is durable, whether or not the client still waits.
        view.after_commit(move || self.tenant.install(&self.next));
        Ok(())
    }
}
