//! The relay's store: one method for each state change, each one write of the engine; no transaction leaves
//! it.
//!
//! ```text
//! accept -> lease -> settle          a message comes (its claim on a slot has won), its device is pushed
//!        -> waiting_boxes -> acknowledge   the device fetches, and says what became of it
//!        -> expire                   its time is over
//! ```
//! Reads (`read`) see durable state only. What memory keeps beside the rows, see `lane` and `signals`,
//! follows the commits in their order.

mod accept;
mod acknowledge;
mod change;
mod codec;
mod delivery_row;
mod device_row;
mod dump;
mod event_row;
mod expire;
mod key;
mod lane;
mod lease;
mod mailbox;
mod message_row;
mod metrics;
mod read;
mod register;
mod schedule;
mod settle;
mod signals;
mod slot;
mod slot_row;
mod survey;
mod tenant_row;
mod waiters;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use sealpost_service::engine::{self, Engine, EngineError, Keyspace, OpenError, Space, View};
use sealpost_service::shared_rows::SharedKeyspaces;
use sealpost_service::telemetry::{MetricError, Metrics};
use sealpost_wire::id::TenantId;
use sealpost_wire::payload::Priority;
use tokio::sync::futures::Notified;
use tokio::sync::watch;

pub use self::accept::{Accepted, Accepting, AcceptingBox, BoxValue};
pub use self::acknowledge::{Acknowledging, VerifiedReceipt};
pub use self::device_row::{Device, PushTarget};
pub use self::dump::{DumpError, dump};
pub use self::lease::{LaneId, Lease};
pub use self::read::{BoxPage, EventsAnswer};
pub use self::register::{Registered, Registering};
pub use self::schedule::Schedules;
pub use self::settle::{PushResult, Settling};
pub use self::slot::{SLOT_UNUSED_SECONDS_MAX, SlotRefusal, SlotsForgotten};
pub use self::survey::Survey;
pub use self::waiters::MailboxWaiter;

use self::key::{
    APPS, Home, KEYSPACES, ROW_VERSION, SHARED, STORE_VERSION, STORE_VERSION_OLDEST, Series, TENANTS,
};
use self::lane::Lane;
use self::metrics::StoreMetrics;
use self::signals::Shared;
use self::tenant_row::TenantRow;
use self::waiters::MailboxWaiters;

/// An app by its number in this store, from 1: names may be long, and their order in a configuration may
/// change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppId(pub u16);

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The engine's options, with the relay's keyspaces: see [`StoreOptions::new`].
    pub engine: engine::Options,
    /// The tenants.
    pub tenants: Vec<TenantId>,
    /// The apps: whose, and by which name.
    pub apps: Vec<(TenantId, String)>,
    /// When stubs are pushed again.
    pub schedules: Schedules,
    /// Bounds.
    pub limits: StoreLimits,
}

impl StoreOptions {
    /// A store in the folder `path`, with defaults for everything else and no tenants.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let engine = engine::Options::new(path, &KEYSPACES, STORE_VERSION);
        Self {
            engine: engine::Options { oldest_version: Some(STORE_VERSION_OLDEST), ..engine },
            tenants: Vec::new(),
            apps: Vec::new(),
            schedules: Schedules::default(),
            limits: StoreLimits::default(),
        }
    }
}

/// Bounds of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// Boxes that wait in one mailbox; further ones fail with `mailbox_full`.
    pub mailbox_boxes_max: u32,
    /// Devices that may wait for a box at a time.
    pub waiting_devices_max: usize,
    /// How long a message is remembered after its expiry.
    pub message_retention: Duration,
    /// Slots of one tenant.
    pub slots_per_tenant_max: u32,
    /// Slots that one author has made.
    pub slots_per_author_max: u32,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            mailbox_boxes_max: 1000,
            waiting_devices_max: 10_000,
            message_retention: Duration::from_secs(7 * 86_400),
            slots_per_tenant_max: 200_000,
            slots_per_author_max: 50_000,
        }
    }
}

/// Why a store could not be opened. Only a folder in use may pass by itself.
#[derive(Debug, thiserror::Error)]
pub enum StoreOpenError {
    /// The engine could not be opened.
    #[error(transparent)]
    Engine(#[from] OpenError),
    /// The store could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The metrics are registered already.
    #[error(transparent)]
    Metrics(#[from] MetricError),
    /// More tenants or apps than have numbers.
    #[error("the store has no number left for another tenant or app")]
    TooMany,
}

/// Why something was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The engine refused or failed; see [`EngineError::is_retryable`].
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A row is not of its form. A retry meets it again.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// The store was opened without this tenant. A retry meets the same.
    #[error("the store was opened without this tenant")]
    UnknownTenant,
}

/// A row that is not of its form: in which keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a row in {0} is not of its form")]
pub struct Damaged(&'static str);

/// The relay's store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    engine: Engine,
    shared: Arc<Shared>,
    schedules: Arc<Schedules>,
    limits: StoreLimits,
    homes: Arc<HashMap<TenantId, Home>>,
    apps: Arc<BTreeMap<(TenantId, String), AppId>>,
}

impl Store {
    /// Opens or makes a store. The [`Survey`] must be run once: it finds the jobs of earlier lives, and takes
    /// time where there are many.
    ///
    /// # Errors
    /// See [`StoreOpenError`].
    pub fn open(options: StoreOptions, metrics: &Metrics) -> Result<(Self, Survey), StoreOpenError> {
        let store_metrics = StoreMetrics::register(metrics)?;
        let engine = Engine::open(options.engine, metrics)?;
        let homes = number_tenants(&engine, &options.tenants)?;
        let apps = number_apps(&engine, &options.tenants, options.apps)?;
        let shared = Arc::new(Shared {
            lanes: apps.values().map(|app| (*app, std::array::from_fn(|_| Lane::default()))).collect(),
            mailboxes: MailboxWaiters::new(options.limits.waiting_devices_max),
            events: HashMap::new(),
            passed: options.tenants.iter().map(|tenant| (tenant.clone(), AtomicU64::new(0))).collect(),
            metrics: store_metrics,
        });
        let mut store = Self {
            engine,
            shared,
            schedules: Arc::new(options.schedules),
            limits: options.limits,
            homes: Arc::new(homes),
            apps: Arc::new(apps),
        };
        let mut events = HashMap::new();
        for tenant in options.tenants {
            let last =
                store.event_bounds(store.home(&tenant)?, Series::Senders)?.map_or(0, |bounds| bounds.last);
            events.insert(tenant, watch::Sender::new(last));
        }
        if let Some(shared) = Arc::get_mut(&mut store.shared) {
            shared.events = events;
        }
        // Taken before the first write: what it counts and what commits tell add up.
        let apps = store.apps.iter().filter_map(|((tenant, _), app)| Some((*store.homes.get(tenant)?, *app)));
        let survey = Survey::new(store.engine.snapshot(), store.shared.clone(), apps.collect());
        Ok((store, survey))
    }

    /// The number of an app.
    #[must_use]
    pub fn app(&self, tenant: &TenantId, name: &str) -> Option<AppId> {
        self.apps.get(&(tenant.clone(), name.to_owned())).copied()
    }

    /// The engine, for what `sealpost-service` keeps in it.
    #[must_use]
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The keyspaces that `sealpost-service` fills.
    #[must_use]
    pub const fn shared_keyspaces() -> SharedKeyspaces {
        SHARED
    }

    /// When a lane has work, as far as is known (milliseconds; 0 for at once); nothing when it has none.
    #[must_use]
    pub fn next_due(&self, id: &LaneId) -> Option<u64> {
        self.shared.lane(id.app, id.priority)?.next_due()
    }

    /// Comes when a lane may have new work; nothing for an app that is not configured.
    #[must_use]
    pub fn work_came(&self, id: &LaneId) -> Option<Notified<'_>> {
        self.shared.lane(id.app, id.priority).map(Lane::woken)
    }

    /// Lets all lanes look for work, after the clock was moved.
    pub fn wake_lanes(&self) {
        self.shared.lanes.values().flatten().for_each(Lane::wake);
    }

    /// Since when (milliseconds) the oldest due job of a lane waits, and how many jobs are ready and held in
    /// memory.
    #[must_use]
    pub fn lane_state(&self, app: AppId, priority: Priority, now_ms: u64) -> LaneState {
        let lane = self.shared.lane(app, priority);
        let (ready, held) = lane.map_or((0, 0), Lane::counts);
        LaneState { oldest_due_ms: lane.and_then(|lane| lane.oldest_due(now_ms)), ready, held }
    }

    /// How many devices wait for a box.
    #[must_use]
    pub fn waiting_devices(&self) -> usize {
        self.shared.mailboxes.count()
    }

    fn home(&self, tenant: &TenantId) -> Result<Home, StoreError> {
        self.homes.get(tenant).copied().ok_or(StoreError::UnknownTenant)
    }

    async fn write<T, F>(&self, name: &'static str, decide: F) -> Result<T, StoreError>
    where
        F: FnOnce(&mut View) -> Result<T, Damaged> + Send + 'static,
        T: Send + 'static,
    {
        self.write_with(name, Space::Takes, decide).await
    }

    async fn write_with<T, F>(&self, name: &'static str, space: Space, decide: F) -> Result<T, StoreError>
    where
        F: FnOnce(&mut View) -> Result<T, Damaged> + Send + 'static,
        T: Send + 'static,
    {
        Ok(self.engine.write_with(name, space, decide).await??)
    }
}

/// What a lane is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneState {
    /// Since when the oldest job that is due waits (milliseconds).
    pub oldest_due_ms: Option<u64>,
    /// Jobs that wait for a worker in memory.
    pub ready: usize,
    /// Those, and the ones that workers have.
    pub held: usize,
}

/// Gives each tenant its number: the one it had, or a new one.
fn number_tenants(engine: &Engine, tenants: &[TenantId]) -> Result<HashMap<TenantId, Home>, StoreOpenError> {
    let read = |value: &[u8]| TenantRow::decode(value).ok_or(StoreError::Damaged(Damaged(TENANTS.name())));
    let mut last = 0;
    for row in engine.snapshot().range(TENANTS, ..) {
        last = last.max(read(&row.map_err(StoreError::from)?.1)?.home.0);
    }
    let (mut homes, mut new) = (HashMap::new(), Vec::new());
    for tenant in tenants {
        let key = key::tenant(tenant);
        let home = match engine.get(TENANTS, &key).map_err(StoreError::from)? {
            Some(value) => read(&value)?.home,
            None => {
                last = last.checked_add(1).ok_or(StoreOpenError::TooMany)?;
                new.push((key, TenantRow { home: Home(last), devices: 0 }.encode()));
                Home(last)
            }
        };
        homes.insert(tenant.clone(), home);
    }
    put_numbers(engine, TENANTS, new)?;
    Ok(homes)
}

/// Gives each app its number: the one it had, or a new one.
fn number_apps(
    engine: &Engine,
    tenants: &[TenantId],
    apps: Vec<(TenantId, String)>,
) -> Result<BTreeMap<(TenantId, String), AppId>, StoreOpenError> {
    let read = |value: &[u8]| {
        let number = value.strip_prefix(&[ROW_VERSION]).and_then(|bytes| bytes.try_into().ok());
        number.map(u16::from_be_bytes).ok_or(StoreError::Damaged(Damaged(APPS.name())))
    };
    let mut last = 0;
    for row in engine.snapshot().range(APPS, ..) {
        last = last.max(read(&row.map_err(StoreError::from)?.1)?);
    }
    let mut numbers = BTreeMap::new();
    let mut new = Vec::new();
    for (tenant, name) in apps.into_iter().filter(|(tenant, _)| tenants.contains(tenant)) {
        let key = key::app(&tenant, &name);
        let number = match engine.get(APPS, &key).map_err(StoreError::from)? {
            Some(value) => read(&value)?,
            None => {
                last = last.checked_add(1).ok_or(StoreOpenError::TooMany)?;
                new.push((key, [&[ROW_VERSION], last.to_be_bytes().as_slice()].concat()));
                last
            }
        };
        numbers.insert((tenant, name), AppId(number));
    }
    put_numbers(engine, APPS, new)?;
    Ok(numbers)
}

fn put_numbers(
    engine: &Engine,
    keyspace: Keyspace,
    rows: Vec<(Vec<u8>, Vec<u8>)>,
) -> Result<(), StoreOpenError> {
    if rows.is_empty() {
        return Ok(());
    }
    let decide = move |view: &mut View| {
        rows.into_iter().for_each(|(key, value)| view.put(keyspace, key, value));
        Ok::<_, Damaged>(())
    };
    let written = engine.write("number", decide).wait().map_err(StoreError::from)?;
    Ok(written.map_err(StoreError::from)?)
}

#[cfg(test)]
mod tests;
