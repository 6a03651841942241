//! The keyserver as a whole: what its routes share, how it starts and how it ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use getrandom::SysRng;
use rand_core::UnwrapErr;
use sealpost_service::access::Authority;
use sealpost_service::clock::MonotonicClock;
use sealpost_service::config::{ConfigError, PublicUrl, SecretKey};
use sealpost_service::device_request::DeviceDoor;
use sealpost_service::engine::{Engine, EngineError, OpenError};
use sealpost_service::rates::{Allowances, Rates};
use sealpost_service::reload::Reload;
use sealpost_service::server::{Listener, Operations, Server, Tls, TlsError, with_operations};
use sealpost_service::shutdown::Shutdown;
use sealpost_service::telemetry::{MetricError, Metrics};
use sealpost_service::tenants::{RestoreError, Tenants};
use sealpost_wire::clock::Clock;
use sealpost_wire::id::TenantId;
use sealpost_wire::key_package::MlsSuite;

use crate::config::{Config, Limits};
use crate::consent::ConsentPolicy;
use crate::metrics::{KeyserverMetrics, suite_label};
use crate::routes;
use crate::store::Store;

/// Why a keyserver does not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum KeyserverError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store cannot be opened. One that is locked can be retried once its other process has ended.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] EngineError),
    /// A stored status is not to be believed under the configured roots.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// A mistake in the program: a metric twice.
    #[error(transparent)]
    Metrics(#[from] MetricError),
    /// The TLS files cannot be used.
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
    /// The address cannot be listened at, or standard output is closed.
    #[error("listening at the configured address: {0}")]
    Listen(#[from] io::Error),
}

/// What the routes share.
pub struct Keyserver {
    pub(crate) store: Store,
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) policies: HashMap<TenantId, ConsentPolicy>,
    pub(crate) authority: Authority,
    pub(crate) door: DeviceDoor,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) limits: Limits,
    pub(crate) key_package_callers: Allowances,
    pub(crate) key_package_recipients: Allowances,
    pub(crate) metrics: KeyserverMetrics,
    pub(crate) shutdown: Shutdown,
}

/// A keyserver that is open and not yet serving.
pub struct OpenKeyserver {
    keyserver: Arc<Keyserver>,
    server: Server,
}

impl fmt::Debug for OpenKeyserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenKeyserver").field("server", &self.server).finish_non_exhaustive()
    }
}

impl OpenKeyserver {
    /// Binds the listener and opens the store. `restored` says that the store was restored from a copy;
    /// `reload` has the TLS files read anew;
    /// `clock` may go back, what is decided by it does not.
    ///
    /// # Errors
    /// See [`KeyserverError`].
    pub async fn open<C: Clock + 'static>(
        config: Config,
        restored: bool,
        shutdown: Shutdown,
        reload: &Reload,
        clock: C,
    ) -> Result<Self, KeyserverError> {
        config.check()?;
        let metrics = Metrics::for_process()?;
        let tls = config.tls.clone().map(|tls| Tls::load(tls, &metrics)).transpose()?;
        let mut rng = UnwrapErr(SysRng);
        let key = SecretKey::read_or_create(&config.access_token_key_file, &mut rng)?;
        let roots = |roots: &[sealpost_service::config::RootKey]| roots.iter().map(|root| root.0).collect();
        let tenants = config.tenants.iter().map(|tenant| (tenant.id.clone(), roots(&tenant.roots)));
        let tenants = Arc::new(Tenants::new(tenants));
        let policies = config.tenants.iter().map(|tenant| (tenant.id.clone(), tenant.consent)).collect();

        sealpost_service::config::create_private_folder(&config.data)?;
        let store = Store::open(&config.data, restored, &metrics).await?;
        // Replay windows that were closed once stay closed, also when the machine's clock was set back
        // meanwhile.
        let clock = MonotonicClock::starting_at(clock, store.last_time_millis(&tenants)?);
        let clock: Arc<dyn Clock> = Arc::new(clock);
        store.restore_statuses(&tenants, clock.now())?;

        let listener = Listener::bind(config.listen).await?;
        let of_listener = || PublicUrl::of_listener(listener.address(), tls.is_some());
        let public_url = config.public_url.clone().unwrap_or_else(of_listener);
        let ids = config.tenants.iter().map(|tenant| &tenant.id);
        let rates = Arc::new(Rates::new(&config.rates, ids, &metrics)?);
        let shown = clock.clone();
        let authority = Authority::new(tenants.clone(), shown, &public_url, &key, rates.clone(), &metrics)?;
        let key_packages = &config.key_package_rates;
        let keyserver = Arc::new(Keyserver {
            key_package_callers: rates.allowances("key_package_caller", key_packages.caller),
            key_package_recipients: rates.allowances("key_package_recipient", key_packages.recipient),
            store,
            tenants,
            policies,
            authority,
            door: DeviceDoor::new(&public_url, clock.now().plus(1), rates, &metrics)?,
            clock,
            limits: config.limits.clone(),
            metrics: KeyserverMetrics::register(&metrics)?,
            shutdown: shutdown.clone(),
        });
        let (asked, aged) = (keyserver.clone(), keyserver.clone());
        if let Some(tls) = tls.clone() {
            tokio::spawn(tls.keep_current(reload.requests(), shutdown.clone()));
        }
        let operations = Operations {
            metrics: metrics.clone(),
            shutdown,
            ready: Arc::new(move || asked.store.is_ready()),
            refresh: Arc::new(move || aged.refresh()),
            document: routes::DOCUMENT,
        };
        let routes = routes::api().with_state(keyserver.clone());
        let router = with_operations(routes, operations, &config.http)?;
        let server = Server::new(listener, router, config.http, tls, &metrics)?;
        Ok(Self { keyserver, server })
    }

    /// Where it listens.
    #[must_use]
    pub const fn listener(&self) -> &Listener {
        self.server.listener()
    }

    /// The engine of its store, for tests that look into it.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        self.keyserver.store.engine()
    }

    /// Serves until its shutdown begins; then lets running requests finish, and closes the store.
    pub async fn serve(self) {
        let shutdown = self.keyserver.shutdown.clone();
        let expiry = tokio::spawn(self.keyserver.clone().expire());
        if let Err(unfinished) = self.server.run(&shutdown).await {
            tracing::warn!(%unfinished, "draining took too long");
        }
        // Ends by itself once the shutdown has begun; what it has handed to the store is finished by the
        // store.
        let _ = expiry.await;
        // Blocks for one commit; nothing else runs any more.
        self.keyserver.store.shutdown();
        tracing::info!("stopped");
    }
}

impl fmt::Debug for Keyserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyserver").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Keyserver {
    pub(crate) fn policy(&self, tenant: &TenantId) -> ConsentPolicy {
        self.policies.get(tenant).copied().unwrap_or_default()
    }

    /// Forgets what is over, from time to time, until the shutdown begins.
    async fn expire(self: Arc<Self>) {
        let mut tick = tokio::time::interval(Duration::from_secs(self.limits.expiry_seconds));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.begun() => return,
                _ = tick.tick() => {}
            }
            self.door.forget(self.clock.now());
            for tenant in self.tenants.iter() {
                while !self.shutdown.is_draining() {
                    match self.store.expire(tenant.id(), self.clock.now()).await {
                        Ok(expired) => {
                            self.metrics.expired.with_label_values(&["ticket"]).inc_by(expired.tickets);
                            self.metrics.expired.with_label_values(&["batch"]).inc_by(expired.batches);
                            let uploads = self.metrics.expired.with_label_values(&["key_package_upload"]);
                            uploads.inc_by(expired.key_package_uploads);
                            self.metrics.expired.with_label_values(&["assertion"]).inc_by(expired.assertions);
                            if !expired.more {
                                break;
                            }
                        }
                        Err(error) => {
                            tracing::warn!(%error, tenant = %tenant.id(), "expiry failed; it goes on later");
                            break;
                        }
                    }
                }
            }
        }
    }

    fn refresh(&self) {
        for tenant in self.tenants.iter() {
            let age = tenant.status_age(self.clock.now());
            let age = age.map_or(-1, |seconds| i64::try_from(seconds).unwrap_or(i64::MAX));
            self.metrics.status_age.with_label_values(&[tenant.id().as_str()]).set(age);
        }
        for suite in MlsSuite::ALL {
            let waiting = self.store.key_packages_waiting(suite);
            self.metrics.key_packages_waiting.with_label_values(&[suite_label(suite)]).set(waiting);
        }
    }
}
