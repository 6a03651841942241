//! A running relay: its parts put together, started and stopped.

use std::net::SocketAddr;
use std::sync::Arc;

use sealpost_service::access::{Authority, HasAuthority};
use sealpost_service::audit;
use sealpost_service::clock::MonotonicClock;
use sealpost_service::config::{ConfigError, PublicUrl, SecretKey, create_private_folder};
use sealpost_service::device_request::DeviceDoor;
use sealpost_service::engine::EngineError;
use sealpost_service::rates::Rates;
use sealpost_service::reload::Reload;
use sealpost_service::server::{HttpOptions, Listener, Operations, Server, Tls, TlsError, with_operations};
use sealpost_service::shutdown::{Shutdown, Unfinished};
use sealpost_service::telemetry::{MetricError, Metrics};
use sealpost_service::tenants::{RestoreError, Tenants, restore_statuses};
use sealpost_wire::clock::Clock;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::SystemRng;
use crate::config::{ClientConfig, Config, Limits};
use crate::event_stream::EventStreams;
use crate::metrics::DoorMetrics;
use crate::provider::{ApnsClient, ApnsTokens, FcmClient, FollowedClient, ProviderClient, ProviderError};
use crate::push::{App, Pusher};
use crate::push_token::{PushTokenError, PushTokenKey};
use crate::store::{Store, StoreError, StoreOpenError, Survey};
use crate::submit::SubmissionBudget;
use crate::{routes, sweep};

/// What a relay takes from the edge of its program.
#[derive(Clone)]
pub struct Edge {
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// The randomness of the operating system.
    pub rng: SystemRng,
    /// Where its metrics go.
    pub metrics: Metrics,
    /// What ends it.
    pub shutdown: Shutdown,
    /// What has it read its files anew.
    pub reload: Reload,
}

/// Why a relay does not start. An operator has to change something, unless the address or the folder is in
/// use.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An app's provider cannot be used.
    #[error("app {app}: {source}")]
    Provider {
        /// The app.
        app: String,
        /// What is wrong.
        source: ProviderError,
    },
    /// The key of the push tokens cannot be used.
    #[error("push_token_key_file: {0}")]
    PushTokenKey(#[from] PushTokenError),
    /// The store could not be opened.
    #[error(transparent)]
    Store(#[from] StoreOpenError),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] EngineError),
    /// A tenant's status could not be read back.
    #[error(transparent)]
    Status(#[from] RestoreError),
    /// The TLS files cannot be used.
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
    /// The metrics are registered already: one registry serves one relay.
    #[error(transparent)]
    Metrics(#[from] MetricError),
    /// The address could not be listened on.
    #[error("listening on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// A task of the start panicked.
    #[error("the start was cut off: {0}")]
    CutOff(#[from] tokio::task::JoinError),
}

/// What every route has.
pub(crate) struct Relay {
    pub(crate) store: Store,
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) authority: Authority,
    pub(crate) door: DeviceDoor,
    pub(crate) push_token_key: Arc<PushTokenKey>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: SystemRng,
    pub(crate) public_url: PublicUrl,
    pub(crate) limits: Limits,
    pub(crate) budget: SubmissionBudget,
    pub(crate) event_streams: EventStreams,
    pub(crate) incarnation: u64,
    pub(crate) metrics: DoorMetrics,
    pub(crate) shutdown: Shutdown,
}

impl HasAuthority for Relay {
    fn authority(&self) -> &Authority {
        &self.authority
    }
}

/// A relay that runs. It ends when its [`Edge::shutdown`] begins, and drains first.
pub struct RunningRelay {
    address: SocketAddr,
    public_url: PublicUrl,
    store: Store,
    sweep_now: Arc<Notify>,
    serving: JoinHandle<Result<(), Unfinished>>,
}

/// A relay that listens and does not serve yet.
pub struct BoundRelay {
    config: Config,
    edge: Edge,
    listener: Listener,
    tls: Option<Tls>,
    store: Store,
    survey: Survey,
}

impl RunningRelay {
    /// Starts a relay; `/readyz` says when it is ready.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: Config, edge: Edge) -> Result<Self, StartError> {
        BoundRelay::bind(config, edge).await?.serve().await
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address that clients reach it by.
    #[must_use]
    pub const fn public_url(&self) -> &PublicUrl {
        &self.public_url
    }

    /// Its store, for tests and benchmarks that look into it or fill it.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Lets push lanes and expiry look at the clock now, after it was moved.
    pub fn look_at_clock(&self) {
        self.store.wake_lanes();
        self.sweep_now.notify_one();
    }

    /// Waits for the end: requests are answered, pushes settled, everything is on disk.
    ///
    /// # Errors
    /// [`Unfinished`] when the drain took too long; what was accepted is durable all the same.
    pub async fn ended(self) -> Result<(), Unfinished> {
        let ended = self.serving.await;
        let engine = self.store.engine().clone();
        // Blocks until the last writes are on disk; a panic in it has been reported by the engine.
        let _ = tokio::task::spawn_blocking(move || engine.shutdown()).await;
        ended.unwrap_or(Err(Unfinished { unfinished: 1 }))
    }
}

impl BoundRelay {
    /// Opens the store and binds the listener.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn bind(config: Config, edge: Edge) -> Result<Self, StartError> {
        config.check()?;
        let tls = config.tls.clone().map(|tls| Tls::load(tls, &edge.metrics)).transpose()?;
        let options = config.store_options();
        let (data, metrics) = (config.data.clone(), edge.metrics.clone());
        let opened = tokio::task::spawn_blocking(move || {
            create_private_folder(&data)?;
            Ok::<_, StartError>(Store::open(options, &metrics)?)
        });
        let (store, survey) = opened.await??;
        let address = config.listen;
        let listener =
            Listener::bind(address).await.map_err(|source| StartError::Listen { address, source })?;
        Ok(Self { config, edge, listener, tls, store, survey })
    }

    /// The listener, to announce it.
    #[must_use]
    pub const fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Begins to serve, push and expire.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn serve(self) -> Result<RunningRelay, StartError> {
        let Self { config, mut edge, listener, tls, store, survey } = self;
        edge.clock = steady_clock(edge.clock, &store, &config)?;
        let address = listener.address();
        let push_token_key = SecretKey::read_or_create(&config.push_token_key_file, &mut edge.rng)?;
        let push_token_key = Arc::new(PushTokenKey::new(&push_token_key)?);
        let apps = apps(&config, &store, &edge)?;
        let pusher = Pusher::new(
            store.clone(),
            apps,
            push_token_key.clone(),
            edge.clock.clone(),
            edge.rng,
            config.push_options(),
            &edge.metrics,
        )?;
        let public_url =
            config.public_url.clone().unwrap_or_else(|| PublicUrl::of_listener(address, tls.is_some()));
        let relay = Arc::new(relay(&config, &edge, store.clone(), public_url.clone(), push_token_key)?);

        let shutdown = edge.shutdown.clone();
        tokio::task::spawn_blocking(move || run_survey(survey, &shutdown));
        pusher.start(&edge.shutdown);
        pusher.follow_files(edge.reload.requests(), edge.shutdown.clone());
        let sweep_now = Arc::new(Notify::new());
        tokio::spawn(sweep::run(relay.clone(), sweep_now.clone()));
        let router = router(relay, pusher, &edge, &config.http)?;
        if let Some(tls) = tls.clone() {
            tokio::spawn(tls.keep_current(edge.reload.requests(), edge.shutdown.clone()));
        }
        let drain_seconds = config.http.drain_seconds;
        let server = Server::new(listener, router, config.http, tls, &edge.metrics)?;
        let serving = tokio::spawn(run_server(server, drain_seconds, edge.shutdown));
        Ok(RunningRelay { address, public_url, store, sweep_now, serving })
    }
}

/// Serves until the drain is over: connections first, then pushes in flight.
async fn run_server(server: Server, drain_seconds: u64, shutdown: Shutdown) -> Result<(), Unfinished> {
    server.run(&shutdown).await?;
    shutdown.drain(std::time::Duration::from_secs(drain_seconds)).await
}

fn router(
    relay: Arc<Relay>,
    pusher: Pusher,
    edge: &Edge,
    options: &HttpOptions,
) -> Result<axum::Router, MetricError> {
    let engine = relay.store.engine().clone();
    let shown = relay.clone();
    let operations = Operations {
        metrics: edge.metrics.clone(),
        shutdown: edge.shutdown.clone(),
        ready: Arc::new(move || !engine.is_closed()),
        refresh: Arc::new(move || {
            pusher.refresh_metrics();
            shown.refresh_metrics();
        }),
        document: routes::DOCUMENT,
    };
    with_operations(routes::api().with_state(relay), operations, options)
}

/// A look over the whole store, beside everything else. If it fails, jobs would be missed: the relay ends.
fn run_survey(survey: Survey, shutdown: &Shutdown) {
    if let Err(error) = survey.run(|| shutdown.is_draining()) {
        tracing::error!(%error, "the store cannot be read: ending");
        shutdown.begin();
    }
}

/// A clock that shows no earlier time than the last life of the store: replay windows stay closed.
fn steady_clock(
    clock: Arc<dyn Clock>,
    store: &Store,
    config: &Config,
) -> Result<Arc<dyn Clock>, EngineError> {
    let mut floor = 0;
    for tenant in &config.tenants {
        let last = audit::last_time_millis(store.engine(), Store::shared_keyspaces().audit, &tenant.id)?;
        floor = floor.max(last);
    }
    Ok(Arc::new(MonotonicClock::starting_at(Passed(clock), floor)))
}

/// A clock that was passed in.
struct Passed(Arc<dyn Clock>);

impl Clock for Passed {
    fn now_millis(&self) -> u64 {
        self.0.now_millis()
    }
}

fn relay(
    config: &Config,
    edge: &Edge,
    store: Store,
    public_url: PublicUrl,
    push_token_key: Arc<PushTokenKey>,
) -> Result<Relay, StartError> {
    let roots = |tenant: &sealpost_service::config::TenantConfig| {
        (tenant.id.clone(), tenant.roots.iter().map(|root| root.0).collect::<Vec<_>>())
    };
    let tenants = Arc::new(Tenants::new(config.tenants.iter().map(roots)));
    let started = edge.clock.now();
    restore_statuses(store.engine(), Store::shared_keyspaces().statuses, &tenants, started)?;
    let mut rng = edge.rng;
    let access_key = SecretKey::read_or_create(&config.access_token_key_file, &mut rng)?;
    let clock = edge.clock.clone();
    let ids = || config.tenants.iter().map(|tenant| &tenant.id);
    let rates = Arc::new(Rates::new(&config.rates, ids(), &edge.metrics)?);
    let authority =
        Authority::new(tenants.clone(), clock, &public_url, &access_key, rates.clone(), &edge.metrics)?;
    Ok(Relay {
        incarnation: store.engine().incarnation()?,
        tenants,
        authority,
        door: DeviceDoor::new(&public_url, started.plus(1), rates, &edge.metrics)?,
        push_token_key,
        clock: edge.clock.clone(),
        rng: edge.rng,
        public_url,
        limits: config.limits.clone(),
        event_streams: EventStreams::new(ids(), config.limits.event_streams_per_tenant_max),
        budget: SubmissionBudget::new(config.limits.submission_bytes_in_flight_max),
        metrics: DoorMetrics::register(&edge.metrics)?,
        shutdown: edge.shutdown.clone(),
        store,
    })
}

fn apps(config: &Config, store: &Store, edge: &Edge) -> Result<Vec<App>, StartError> {
    // A team's provider token is shared by its apps.
    let tokens = ApnsTokens::default();
    let mut apps = Vec::with_capacity(config.apps.len());
    for app in &config.apps {
        let clock = edge.clock.clone();
        let (config, tokens) = (app.client()?, tokens.clone());
        let client = FollowedClient::new(config.files(), move || match config.clone() {
            ClientConfig::Apns(config) => {
                ApnsClient::with_tokens(config, &tokens, clock.clone()).map(ProviderClient::from)
            }
            ClientConfig::Fcm(config) => FcmClient::new(config, clock.clone()).map(ProviderClient::from),
        });
        let client = client.map_err(|source| StartError::Provider { app: app.name.clone(), source })?;
        // The store was opened with the same apps, and has numbered them all.
        let Some(id) = store.app(&app.tenant, &app.name) else { continue };
        apps.push(App::new(app.tenant.clone(), id, app.name.clone(), client));
    }
    Ok(apps)
}

impl Relay {
    fn refresh_metrics(&self) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.waiting_devices.set(number(self.store.waiting_devices()));
        if let Ok(bytes) = self.store.engine().disk_bytes() {
            self.metrics.store_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        let now = self.clock.now();
        for tenant in self.tenants.iter() {
            if let Some(age) = tenant.status_age(now) {
                let gauge = self.metrics.status_age.with_label_values(&[tenant.id().as_str()]);
                gauge.set(i64::try_from(age).unwrap_or(i64::MAX));
            }
        }
    }
}

/// What the store says to a request.
impl From<StoreError> for sealpost_service::problem::Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Engine(error) => error.into(),
            StoreError::Damaged(_) | StoreError::UnknownTenant => {
                tracing::error!(%error, "a request failed in the store");
                Self::new(sealpost_service::problem::ProblemCode::Internal)
            }
        }
    }
}
