//! A relay or a keyserver that listens, and whose store the test can look into.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use sealpost_keyserver::keyserver::OpenKeyserver;
use sealpost_relay::relay::{Edge, RunningRelay};
use sealpost_service::clock::ManualClock;
use sealpost_service::engine::Engine;
use sealpost_service::reload::Reload;
use sealpost_service::shutdown::Shutdown;
use sealpost_service::telemetry::Metrics;
use sealpost_wire::id::TenantId;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::document::Document;
use crate::hospital::{Hospital, rng};

/// A server.
#[derive(Debug)]
pub struct Server {
    /// Its address, `http://…`; it goes by the same.
    pub base: String,
    /// What ends it.
    pub shutdown: Shutdown,
    engine: Engine,
    ended: JoinHandle<()>,
    folder: TempDir,
}

/// Rows of a store: keyspace and key, and the value.
pub type Rows = BTreeMap<(&'static str, Vec<u8>), Vec<u8>>;

impl Server {
    /// A relay of two hospitals, with further settings.
    ///
    /// # Panics
    /// It does not start.
    pub async fn relay(hospitals: [&Hospital; 2], clock: &ManualClock, settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let text = format!("push_token_key_file = \"push.key\"\n{}", config(hospitals, settings));
        let file = written(folder.path(), &text);
        let config = sealpost_relay::config::Config::load(&file).expect("a configuration");
        let shutdown = Shutdown::new();
        let edge = Edge {
            clock: Arc::new(clock.clone()),
            rng: rng(),
            metrics: Metrics::new(),
            shutdown: shutdown.clone(),
            reload: Reload::new(),
        };
        let relay = RunningRelay::start(config, edge).await.expect("the relay starts");
        let base = relay.public_url().as_str().to_owned();
        let engine = relay.store().engine().clone();
        let ended = tokio::spawn(async move { relay.ended().await.expect("it drains") });
        Self::started(base, shutdown, engine, ended, folder, clock)
    }

    /// A keyserver of two hospitals, with further settings.
    ///
    /// # Panics
    /// It does not start.
    pub async fn keyserver(hospitals: [&Hospital; 2], clock: &ManualClock, settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = written(folder.path(), &config(hospitals, settings));
        let config = sealpost_keyserver::config::Config::load(&file).expect("a configuration");
        let shutdown = Shutdown::new();
        let reload = Reload::new();
        let opened = OpenKeyserver::open(config, false, shutdown.clone(), &reload, clock.clone());
        let keyserver = opened.await.expect("the keyserver starts");
        let base = format!("http://{}", keyserver.listener().address());
        let engine = keyserver.engine().clone();
        let ended = tokio::spawn(keyserver.serve());
        Self::started(base, shutdown, engine, ended, folder, clock)
    }

    fn started(
        base: String,
        shutdown: Shutdown,
        engine: Engine,
        ended: JoinHandle<()>,
        folder: TempDir,
        clock: &ManualClock,
    ) -> Self {
        // What was signed up to a start is refused after it.
        clock.advance(Duration::from_secs(1));
        Self { base, shutdown, engine, ended, folder }
    }

    /// The document that it serves.
    pub async fn document(&self) -> Document {
        let answer = crate::call::Call::new(http::Method::GET, "/openapi.json").send(&self.base).await;
        let answer = answer.expect(200);
        Document::read(std::str::from_utf8(&answer.body).expect("text"))
    }

    /// The digest of everything that it stores.
    ///
    /// # Panics
    /// The store cannot be read.
    #[must_use]
    pub fn digest(&self) -> String {
        HEXLOWER.encode(&self.engine.logical_digest().expect("the store is readable"))
    }

    /// The rows of one tenant.
    ///
    /// # Panics
    /// The store cannot be read.
    #[must_use]
    pub fn rows(&self, tenant: &TenantId) -> Rows {
        let prefix = [tenant.as_str().as_bytes(), &[0]].concat();
        let mut rows = Rows::new();
        let dumped = self.engine.dump(|keyspace, key, value| {
            if key.starts_with(&prefix) {
                rows.insert((keyspace, key.to_vec()), value.to_vec());
            }
        });
        dumped.expect("the store is readable");
        rows
    }

    /// Ends it.
    ///
    /// # Panics
    /// It does not end well.
    pub async fn end(self) {
        self.shutdown.begin();
        self.ended.await.expect("it ends");
        drop(self.folder);
    }
}

fn written(folder: &Path, text: &str) -> std::path::PathBuf {
    let file = folder.join("server.toml");
    std::fs::write(&file, text).expect("the folder is writable");
    file
}

fn config(hospitals: [&Hospital; 2], settings: &str) -> String {
    let tenant = |hospital: &Hospital| {
        let root = HEXLOWER.encode(hospital.root.verifying_key().as_bytes());
        format!("[[tenants]]\nid = \"{}\"\nroots = [\"{root}\"]\n", hospital.id)
    };
    let http = if settings.contains("[http]") { "" } else { "[http]\nannounce_seconds = 0\n" };
    format!(
        "listen = \"127.0.0.1:0\"\ndata = \"store\"\naccess_token_key_file = \"token.key\"\n{}{http}{settings}",
        hospitals.map(tenant).concat()
    )
}
