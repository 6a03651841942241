//! The tenants of a server: their roots from the configuration, and the newest status of each.

mod status;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::error::TrustError;
use sealpost_wire::id::{KeyId, TenantId};
use sealpost_wire::key::VerifyingKey;
use sealpost_wire::trust::TenantTrust;

pub use self::status::{RestoreError, STATUS_BODY_BYTES_MAX, put_status, restore_statuses, status_body};
use crate::problem::{ProblemCode, Refusal};

/// All tenants of a server. The set is fixed while it runs; their statuses change.
#[derive(Debug)]
pub struct Tenants {
    by_id: HashMap<TenantId, Arc<Tenant>>,
}

impl Tenants {
    /// Tenants with their root keys, no status seen yet. Of a tenant given twice, the last counts; the
    /// configuration refuses that.
    pub fn new(tenants: impl IntoIterator<Item = (TenantId, Vec<VerifyingKey>)>) -> Self {
        let tenant =
            |(id, roots): (TenantId, Vec<VerifyingKey>)| (id.clone(), Arc::new(Tenant::new(id, roots)));
        Self { by_id: tenants.into_iter().map(tenant).collect() }
    }

    /// The tenant with this id.
    #[must_use]
    pub fn tenant(&self, id: &TenantId) -> Option<&Arc<Tenant>> {
        self.by_id.get(id)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.by_id.values()
    }
}

/// One tenant.
#[derive(Debug)]
pub struct Tenant {
    id: TenantId,
    state: ArcSwap<TenantState>,
}

/// What is believed of a tenant at one moment. It never changes; a new status makes a new one.
#[derive(Clone, Debug)]
pub struct TenantState {
    /// The roots and what the newest status says.
    pub trust: TenantTrust,
    /// The newest status as it was signed, to pass on.
    pub status: Option<Bytes>,
}

impl Tenant {
    fn new(id: TenantId, roots: Vec<VerifyingKey>) -> Self {
        let trust = TenantTrust::new(id.clone(), roots);
        Self { id, state: ArcSwap::from_pointee(TenantState { trust, status: None }) }
    }

    /// The tenant's id.
    #[must_use]
    pub const fn id(&self) -> &TenantId {
        &self.id
    }

    /// What is believed of it now. Cheap; drop it soon, and take it once per request, so that one request is
    /// judged by one status.
    #[must_use]
    pub fn state(&self) -> Guard<Arc<TenantState>> {
        self.state.load()
    }

    /// What is believed of it now, to keep for as long as it takes to decide by it.
    #[must_use]
    pub fn state_shared(&self) -> Arc<TenantState> {
        self.state.load_full()
    }

    /// Refuses a request key that the tenant has put out of use.
    ///
    /// # Errors
    /// [`ProblemCode::Revoked`].
    pub fn check_request_key(&self, key: KeyId) -> Result<(), Refusal> {
        let state = self.state();
        match state.trust.status().and_then(|status| status.revocation(key)) {
            Some(_) => Err(ProblemCode::Revoked.into()),
            None => Ok(()),
        }
    }

    /// How old the newest status is (seconds); nothing when the tenant never put one.
    #[must_use]
    pub fn status_age(&self, now: UnixTime) -> Option<u64> {
        let state = self.state();
        state.trust.status().map(|status| now.0.saturating_sub(status.issued.0))
    }

    /// Refuses to go by a status older than `max_age` seconds. A tenant that never put a status has none to
    /// go by.
    ///
    /// # Errors
    /// [`ProblemCode::StatusStale`].
    pub fn check_status_age(&self, now: UnixTime, max_age: u64) -> Result<(), Refusal> {
        match self.status_age(now) {
            Some(age) if age > max_age => Err(ProblemCode::StatusStale.into()),
            _ => Ok(()),
        }
    }

    /// What a status would change, if it is to be believed after the one that `before` holds.
    fn judge(before: &TenantState, bytes: &[u8], now: UnixTime) -> Result<Option<TenantState>, TrustError> {
        let mut trust = before.trust.clone();
        let changed = trust.accept_status(bytes, now)?;
        Ok(changed.then(|| TenantState { trust, status: Some(Bytes::copy_from_slice(bytes)) }))
    }

    /// Shows `next` to everybody, unless a newer status is shown already.
    fn install(&self, next: &Arc<TenantState>) {
        let order = |state: &TenantState| state.trust.status().map(|status| (status.sequence, status.issued));
        self.state.rcu(|shown| if order(shown) < order(next) { next.clone() } else { shown.clone() });
    }
}
