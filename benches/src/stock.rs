//! Stores with a past, filled through the store's own methods: months of a relay in minutes.
//!
//! What is in them is as the relay would have written it, but for three things: boxes hold random bytes (a
//! relay cannot tell), receipts carry no valid signature (the relay has checked it before it comes to the
//! store), and stubs are pushed again after a month only, so that no past message disturbs a run.

mod fill;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sealpost_relay::push_token::PushTokenKey;
use sealpost_relay::store::{Schedules, Store, StoreOptions};
use sealpost_service::config::{SecretKey, create_private_folder};
use sealpost_service::telemetry::Metrics;
use sealpost_wire::id::TenantId;
use tempfile::TempDir;

use crate::cast::system_rng;
use crate::cores;
use crate::error::BenchError;
use crate::scene::{App, Stage, forget_folder, remember_folder};

pub use self::fill::OpenStock;

/// Devices whose messages have all been settled.
const SETTLED_DEVICES: usize = 50_000;
/// When stubs of the past are pushed again.
const AGAIN: Duration = Duration::from_secs(30 * 86_400);

/// A folder with a relay's store and keys.
pub struct Stock {
    folder: TempDir,
    tenant: TenantId,
}

impl Stock {
    /// A store in which nothing has happened.
    ///
    /// # Errors
    /// [`BenchError::Io`], [`BenchError::Cast`].
    pub fn empty(stage: &Stage) -> Result<Self, BenchError> {
        let folder = tempfile::Builder::new().prefix("stock-").tempdir_in(&stage.folder);
        let folder = folder.map_err(BenchError::io("making a folder for a store"))?;
        remember_folder(folder.path());
        create_private_folder(&folder.path().join("store")).map_err(BenchError::cast("a store's folder"))?;
        Ok(Self { folder, tenant: stage.cast.hospital().tenant().clone() })
    }

    /// A store in which `count` messages, each for a device of its own, were pushed and wait to be fetched.
    ///
    /// # Errors
    /// See [`BenchError`].
    pub fn waiting(stage: &Stage, count: usize) -> Result<Self, BenchError> {
        let stock = Self::empty(stage)?;
        stock.fill(async |open| {
            let devices = open.register(count).await?;
            open.accept(&devices).await?;
            open.push(count).await
        })?;
        Ok(stock)
    }

    /// A store in which `count` messages were accepted, pushed, and opened by their devices, and none waits.
    ///
    /// # Errors
    /// See [`BenchError`].
    pub fn settled(stage: &Stage, count: usize) -> Result<Self, BenchError> {
        let stock = Self::empty(stage)?;
        stock.fill(async |open| {
            let devices = open.register(count.min(SETTLED_DEVICES)).await?;
            let mut left = count;
            while left > 0 {
                let some = &devices[..left.min(devices.len())];
                let sent = open.accept(some).await?;
                open.push(some.len()).await?;
                open.acknowledge(sent).await?;
                left -= some.len();
            }
            Ok(())
        })?;
        Ok(stock)
    }

    /// Where the store and its keys are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Opens the store in this process, and finds the jobs that are in it.
    ///
    /// # Errors
    /// [`BenchError::Cast`].
    pub fn open(&self) -> Result<OpenStock, BenchError> {
        let mut options = StoreOptions::new(self.folder().join("store").join("store"));
        options.tenants = vec![self.tenant.clone()];
        options.apps = [App::Apns, App::Fcm].map(|app| (self.tenant.clone(), app.name().to_owned())).to_vec();
        options.schedules = Schedules::new(&[AGAIN], &[AGAIN], &[AGAIN]).unwrap_or_default();
        let key = SecretKey::read_or_create(&self.folder().join("push-token.key"), &mut system_rng());
        let key = PushTokenKey::new(&key.map_err(BenchError::cast("a key"))?);
        let opened = Store::open(options, &Metrics::new());
        let (store, survey) = opened.map_err(BenchError::cast("a store"))?;
        survey.run(|| false).map_err(BenchError::cast("a look over a store"))?;
        let app = store.app(&self.tenant, App::Apns.name());
        let app = app.ok_or_else(|| BenchError::Relay("the store has no number for the app".to_owned()))?;
        let key = key.map_err(BenchError::cast("a key"))?;
        OpenStock::new(store, self.tenant.clone(), app, Arc::new(key))
    }

    fn fill(
        &self,
        fill: impl AsyncFnOnce(&OpenStock) -> Result<(), BenchError> + Send,
    ) -> Result<(), BenchError> {
        cores::on_both(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
            let runtime = runtime.map_err(BenchError::io("making a runtime"))?;
            let open = self.open()?;
            runtime.block_on(fill(&open))?;
            open.close();
            Ok(())
        })?
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        forget_folder(self.folder());
    }
}
