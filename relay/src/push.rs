//! Pushing: each app and priority has a lane of its own, with a worker that leases due jobs, sends stubs, and
//! settles what the provider said.
//!
//! ```text
//! store.lease -> open the token -> client.push -> verdict -> store.settle (many in one write)
//! ```
//! Lanes share nothing but the app's provider client and the breaker of its credential: critical messages do not
//! wait behind bulk ones, and a credential that fails stops the lanes of its own app alone. A provider that fails push
//! after push opens the breaker of the lane: its jobs wait in the store until the provider answers again, and no
//! attempts are spent on it but those that ask whether it does.

mod breaker;
mod follow;
mod metrics;
mod verdict;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand_core::Rng as _;
use sealpost_service::audit::{Act, Actor, Entry, Object};
use sealpost_service::shutdown::{Shutdown, WorkGuard};
use sealpost_service::telemetry::{MetricError, Metrics};
use sealpost_wire::clock::Clock;
use sealpost_wire::delivery::PushFailure;
use sealpost_wire::id::{DeviceId, TenantId};
use sealpost_wire::payload::Priority;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::breaker::{Breaker, BreakerState};
use self::metrics::{LaneMetrics, PushMetrics};
use self::verdict::{Earlier, Health, Verdict, health, verdict};
use crate::SystemRng;
use crate::id_list::Devices;
use crate::provider::{FollowedClient, Outcome, Push, PushPriority};
use crate::push_token::PushTokenKey;
use crate::store::{AppId, LaneId, Lease, PushResult, Settling, Store, StoreError};

/// Bounds of pushing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushOptions {
    /// Stubs of one app in flight at a time: critical, normal, bulk. Together below what its provider takes,
    /// so that no critical one waits for a stream.
    pub in_flight_max: [usize; 3],
    /// The longest waits between two attempts, unless the provider asks for more: critical, normal, bulk.
    pub retry_max: [Duration; 3],
}

impl Default for PushOptions {
    fn default() -> Self {
        // A critical message must not wait for long once a provider is back.
        let retry_max = [60, 600, 3600].map(Duration::from_secs);
        Self { in_flight_max: [400, 300, 80], retry_max }
    }
}

/// An app that stubs are pushed to.
pub struct App {
    tenant: TenantId,
    id: AppId,
    name: String,
    client: FollowedClient,
    credential: Breaker,
}

impl App {
    /// The app `name` of `tenant`, at the provider of `client`.
    #[must_use]
    pub fn new(tenant: TenantId, id: AppId, name: String, client: FollowedClient) -> Self {
        Self { tenant, id, name, client, credential: Breaker::of_credential() }
    }
}

/// Pushes stubs for all apps.
pub struct Pusher {
    store: Store,
    apps: Vec<Arc<App>>,
    key: Arc<PushTokenKey>,
    clock: Arc<dyn Clock>,
    rng: SystemRng,
    options: PushOptions,
    metrics: PushMetrics,
}

impl Pusher {
    /// A pusher for `apps`.
    ///
    /// # Errors
    /// The metrics are registered already.
    pub fn new(
        store: Store,
        apps: Vec<App>,
        key: Arc<PushTokenKey>,
        clock: Arc<dyn Clock>,
        rng: SystemRng,
        options: PushOptions,
        metrics: &Metrics,
    ) -> Result<Self, MetricError> {
        let apps = apps.into_iter().map(Arc::new).collect();
        Ok(Self { store, apps, key, clock, rng, options, metrics: PushMetrics::register(metrics)? })
    }

    /// Starts a worker for each lane. When `shutdown` begins, they lease no more and let what is in flight
    /// finish.
    pub fn start(&self, shutdown: &Shutdown) {
        for app in &self.apps {
            let bounds = self.options.in_flight_max.into_iter().zip(self.options.retry_max);
            for (priority, (in_flight_max, retry_max)) in Priority::ALL.into_iter().zip(bounds) {
                let worker = Worker {
                    lane: LaneId { tenant: app.tenant.clone(), app: app.id, priority },
                    app: app.clone(),
                    store: self.store.clone(),
                    key: self.key.clone(),
                    clock: self.clock.clone(),
                    rng: self.rng,
                    in_flight_max,
                    retry_max,
                    provider: Breaker::of_provider(),
                    metrics: Arc::new(self.metrics.lane(&app.name, priority)),
                };
                tokio::spawn(Arc::new(worker).run(shutdown.clone(), shutdown.work()));
            }
        }
    }

    /// Sets the gauges that change by themselves.
    pub fn refresh_metrics(&self) {
        let now_ms = self.clock.now_millis();
        for app in &self.apps {
            let is_paused = app.credential.state() != BreakerState::Closed;
            self.metrics.refresh_app(&app.name, is_paused, &app.client);
            for priority in Priority::ALL {
                let state = self.store.lane_state(app.id, priority, now_ms);
                self.metrics.lane(&app.name, priority).refresh(state, now_ms);
            }
        }
    }
}

/// Pushes of one lane that are settled in one write.
const SETTLE_MAX: usize = 512;
/// Writes that settle pushes of one lane at a time: while one waits for the disk, the next one gathers.
const SETTLES_MAX: usize = 2;
/// Pushes of one lane that wait to be settled; above, no more are leased.
const UNSETTLED_MAX: usize = 4096;
/// A worker looks at the time of day again at the latest after this: it may have been set.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// Pause after the store refused a read or a write.
const STORE_PAUSE: Duration = Duration::from_millis(100);

/// The worker of one lane.
struct Worker {
    lane: LaneId,
    app: Arc<App>,
    store: Store,
    key: Arc<PushTokenKey>,
    clock: Arc<dyn Clock>,
    rng: SystemRng,
    in_flight_max: usize,
    retry_max: Duration,
    provider: Breaker,
    metrics: Arc<LaneMetrics>,
}

/// A push that has been answered.
struct Answered {
    lease: Lease,
    push_id: [u8; 16],
    began: Instant,
    outcome: Outcome,
}

impl Worker {
    async fn run(self: Arc<Self>, shutdown: Shutdown, _work: WorkGuard) {
        let mut pushes: JoinSet<Answered> = JoinSet::new();
        let mut settles: JoinSet<()> = JoinSet::new();
        let mut unsettled: Vec<Settling> = Vec::new();
        let mut draining = false;
        // There is such a lane: the app has its number from the store.
        while let Some(woken) = self.store.work_came(&self.lane) {
            tokio::pin!(woken);
            // Before the look: work that comes after it wakes.
            woken.as_mut().enable();
            let mut pause = None;
            let room = if draining { 0 } else { self.room(pushes.len(), unsettled.len()) };
            if room > 0 {
                match self.store.lease(&self.lane, self.clock.now_millis(), room) {
                    Ok(leases) => leases.into_iter().for_each(|lease| {
                        pushes.spawn(self.clone().push(lease));
                    }),
                    Err(error) => {
                        tracing::error!(%error, app = self.app.name, "push jobs cannot be read");
                        pause = Some(STORE_PAUSE);
                    }
                }
            }
            if settles.len() < SETTLES_MAX && !unsettled.is_empty() {
                let rest = unsettled.split_off(unsettled.len().min(SETTLE_MAX));
                settles.spawn(self.clone().settle(std::mem::replace(&mut unsettled, rest).into()));
                continue;
            }
            self.metrics.in_flight(pushes.len());
            self.metrics.breaker(self.provider.state());
            if draining && pushes.is_empty() && settles.is_empty() {
                return;
            }
            let has_room = !draining && self.room(pushes.len(), unsettled.len()) > 0;
            let wait = pause.or_else(|| self.wait());
            tokio::select! {
                Some(answered) = pushes.join_next() => {
                    self.answered(answered, &mut unsettled);
                    while let Some(answered) = pushes.try_join_next() {
                        self.answered(answered, &mut unsettled);
                    }
                }
                Some(_) = settles.join_next() => {}
                () = woken, if has_room => {}
                () = tokio::time::sleep(wait.unwrap_or(SLEEP_MAX)), if has_room && wait.is_some() => {}
                () = self.app.credential.changed(), if !draining && is_open(&self.app.credential) => {}
                () = self.provider.changed(), if !draining && is_open(&self.provider) => {}
                () = shutdown.begun(), if !draining => draining = true,
            }
        }
    }

    /// How many pushes may begin.
    fn room(&self, in_flight: usize, unsettled: usize) -> usize {
        if unsettled >= UNSETTLED_MAX {
            return 0;
        }
        self.provider.limit(self.app.credential.limit(self.in_flight_max)).saturating_sub(in_flight)
    }

    /// How long there is nothing to do unless something comes; nothing for ever.
    fn wait(&self) -> Option<Duration> {
        let due = self.store.next_due(&self.lane)?;
        let wait = Duration::from_millis(due.saturating_sub(self.clock.now_millis()));
        Some(wait.min(SLEEP_MAX))
    }

    async fn push(self: Arc<Self>, lease: Lease) -> Answered {
        let push_id = lease.push_id.unwrap_or_else(|| {
            let mut id = [0; 16];
            let mut rng = self.rng;
            rng.fill_bytes(&mut id);
            id
        });
        let began = Instant::now();
        let outcome = match self.key.open(&lease.token, &self.lane.tenant, lease.device, self.lane.app) {
            Ok(token) => {
                let priority = match self.lane.priority {
                    Priority::Critical | Priority::Normal => PushPriority::High,
                    Priority::Bulk => PushPriority::Normal,
                };
                let push = Push { priority, expires_at: whole_hours(lease.latest_expiry.0), push_id };
                let outcome = self.app.client.push(&token, push).await;
                self.metrics.answered(&outcome, began.elapsed());
                outcome
            }
            Err(error) => {
                tracing::error!(%error, app = self.app.name, device = %lease.device, "not pushed");
                Outcome::BadToken { detail: crate::provider::Detail::new("sealed under another key") }
            }
        };
        Answered { lease, push_id, began, outcome }
    }

    /// Takes an answer in: it is to be settled, and tells whether others may follow.
    fn answered(&self, answered: Result<Answered, tokio::task::JoinError>, unsettled: &mut Vec<Settling>) {
        let Answered { lease, push_id, began, outcome } = match answered {
            Ok(answered) => answered,
            Err(error) => {
                // Its lease is lost until the next start; the other pushes go on.
                tracing::error!(%error, app = self.app.name, "a push panicked");
                return;
            }
        };
        let now_ms = self.clock.now_millis();
        let mut rng = self.rng;
        self.judge_provider(&outcome, began, rng.next_u32());
        let earlier = Earlier { failures: lease.failures, pause_left: self.provider.pause_left() };
        let result = match verdict(&outcome, earlier, self.retry_max, rng.next_u32()) {
            Verdict::Settle(result) => result,
            Verdict::Retry { after, why } => {
                let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                PushResult::Retry { due_ms: now_ms.saturating_add(after_ms), push_id, why }
            }
            Verdict::Stop { after, why } => {
                if self.app.credential.failed(began, after, rng.next_u32()).is_some() {
                    let (why, detail) = (outcome.reason_label(), outcome.detail());
                    tracing::error!(app = self.app.name, why, %detail, "the app's lanes pause");
                }
                PushResult::Stopped { why }
            }
        };
        if result == PushResult::Pushed {
            self.metrics.delay(Duration::from_millis(now_ms.saturating_sub(lease.due_ms)));
        } else {
            self.report(&outcome, lease.device);
        }
        unsettled.push(Settling { lease, result });
    }

    /// Takes in what an answer says of the provider.
    fn judge_provider(&self, outcome: &Outcome, began: Instant, jitter: u32) {
        let (app, priority) = (self.app.name.as_str(), self.lane.priority.name());
        match health(outcome) {
            Health::Works => {
                self.app.credential.succeeded();
                if self.provider.succeeded() {
                    tracing::info!(app, priority, "the provider answers again: the lane goes on");
                }
            }
            Health::Fails(asked) => {
                if let Some(pause) = self.provider.failed(began, asked, jitter) {
                    let (why, pause_ms) = (outcome.reason_label(), pause.as_millis());
                    self.metrics.breaker_opened();
                    tracing::warn!(app, priority, why, pause_ms, "the provider fails: the lane pauses");
                }
            }
            Health::Unknown => {}
        }
    }

    fn report(&self, outcome: &Outcome, device: DeviceId) {
        let (what, why) = (outcome.label(), outcome.reason_label());
        tracing::debug!(app = self.app.name, %device, what, why, detail = %outcome.detail(), "a push failed");
    }

    /// Settles until it is done: leases that were not settled would be lost.
    async fn settle(self: Arc<Self>, settlings: Arc<[Settling]>) {
        loop {
            let now_ms = self.clock.now_millis();
            let audit = self.audit(&settlings, now_ms);
            match self.store.settle(&self.lane, settlings.clone(), now_ms, audit).await {
                Ok(()) => return,
                Err(StoreError::Engine(error)) if error.is_retryable() => {
                    tokio::time::sleep(STORE_PAUSE).await;
                }
                Err(error) => {
                    tracing::error!(%error, app = self.app.name, "pushes cannot be settled");
                    return;
                }
            }
        }
    }

    /// A row of the audit for each kind of answer, with the devices that it was about.
    fn audit(&self, settlings: &[Settling], now_ms: u64) -> Vec<Entry> {
        let mut by_outcome: BTreeMap<_, Vec<DeviceId>> = BTreeMap::new();
        for one in settlings {
            by_outcome.entry(one.result.failure()).or_default().push(one.lease.device);
        }
        let entry = |(failure, devices): (Option<PushFailure>, Vec<DeviceId>)| {
            let objects: [Object<'_>; 3] = [
                ("app", &self.app.name),
                ("priority", &self.lane.priority.name()),
                ("devices", &Devices(devices.iter().copied())),
            ];
            let outcome = failure.map_or("done", PushFailure::code);
            Entry::new(now_ms, Act::Pushed, &Actor::Server, &objects, outcome)
        };
        by_outcome.into_iter().map(entry).collect()
    }
}

fn is_open(breaker: &Breaker) -> bool {
    breaker.state() != BreakerState::Closed
}

/// Rounded up to whole hours, so that a provider cannot tell by it which devices one message went to.
const fn whole_hours(seconds: u64) -> u64 {
    seconds.div_ceil(3600).saturating_mul(3600)
}
