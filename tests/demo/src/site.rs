//! The folder of a run, and the configuration of what runs in it.
//!
//! ```text
//! relay/ keyserver/   configuration, keys, store
//! providers/          credentials of the emulators of Apple and Google
//! hospital/home/      the tenant's keys, outbox, tickets: the home of the `sealpost` command; its quarantine of results
//!                     that were not sent is not searched
//! hospital/input/     the message with the canaries, and who the patient is; not searched
//! devices/            the phones; not searched
//! logs/               what every process printed
//! metrics/ pushes/ dumps/   what the servers told, what Apple and Google saw, what the stores held
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::emulators::Manifest;
use crate::error::DemoError;
use crate::hospital::TENANT;

/// The iPhone's app, by its name in the relay's configuration.
pub(crate) const IOS_APP: &str = "st-mary-ios";
/// The Android phone's app.
pub(crate) const ANDROID_APP: &str = "st-mary-android";
/// Folders that hold what the patient and the hospital themselves have: the plaintext belongs there.
pub(crate) const UNSEARCHED: [&str; 3] = ["devices", "hospital/input", "hospital/home/quarantine"];

/// The folder of a run.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    root: PathBuf,
}

macro_rules! folders {
    ($($(#[$doc:meta])* $name:ident = $path:literal;)*) => {
        impl Site {
            const FOLDERS: &[&str] = &[$($path),*];
            $($(#[$doc])* pub(crate) fn $name(&self) -> PathBuf {
                self.root.join($path)
            })*
        }
    };
}

folders! {
    /// The relay's.
    relay = "relay";
    /// The keyserver's.
    keyserver = "keyserver";
    /// The emulators'.
    providers = "providers";
    /// The hospital's.
    home = "hospital/home";
    /// What the hospital's laboratory writes.
    input = "hospital/input";
    /// The phones'.
    devices = "devices";
    /// What the processes print.
    logs = "logs";
    /// The servers' metrics.
    metrics = "metrics";
    /// What Apple and Google saw.
    pushes = "pushes";
    /// The servers' stores, row by row.
    dumps = "dumps";
}

impl Site {
    /// Makes the folders in `root`, which must be empty or missing.
    pub(crate) fn create(root: &Path) -> Result<Self, DemoError> {
        let failed = |error: io::Error| DemoError::missing(root.display(), error);
        private_folder(root).map_err(failed)?;
        if fs::read_dir(root).map_err(failed)?.next().is_some() {
            return Err(DemoError::missing(root.display(), "the folder is not empty"));
        }
        let root = root.canonicalize().map_err(failed)?;
        for folder in Self::FOLDERS {
            private_folder(&root.join(folder)).map_err(failed)?;
        }
        Ok(Self { root })
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Writes the keyserver's configuration, and returns its path.
    pub(crate) fn configure_keyserver(&self, root_hex: &str) -> Result<PathBuf, DemoError> {
        write_config(
            &self.keyserver().join("keyserver.toml"),
            &KeyserverConfig {
                common: Common::new("access-token.key"),
                tenants: [TenantConfig { id: TENANT, roots: [root_hex] }],
                http: Http::QUICK,
            },
        )
    }

    /// Writes the relay's configuration for the emulators at `manifest`, and returns its path.
    pub(crate) fn configure_relay(&self, root_hex: &str, manifest: &Manifest) -> Result<PathBuf, DemoError> {
        let topic = manifest.apns.topics.first();
        let topic = topic.ok_or_else(|| DemoError::Failed("the emulators know no app".to_owned()))?;
        write_config(
            &self.relay().join("relay.toml"),
            &RelayConfig {
                common: Common::new("access-token.key"),
                push_token_key_file: "push-token.key",
                tenants: [TenantConfig { id: TENANT, roots: [root_hex] }],
                apps: [
                    App::Apns {
                        name: IOS_APP,
                        tenant: TENANT,
                        endpoint: &manifest.apns.url,
                        ca_file: &manifest.ca_file,
                        team_id: &manifest.apns.team_id,
                        key_id: &manifest.apns.key_id,
                        key_file: &manifest.apns.key_file,
                        topic,
                    },
                    App::Fcm {
                        name: ANDROID_APP,
                        tenant: TENANT,
                        endpoint: &manifest.fcm.url,
                        ca_file: &manifest.ca_file,
                        service_account_file: &manifest.fcm.service_account_file,
                    },
                ],
                store: Store::SMALL,
                http: Http::QUICK,
            },
        )
    }
}

fn private_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn write_config(path: &Path, config: &impl Serialize) -> Result<PathBuf, DemoError> {
    let failed = |error: &dyn std::fmt::Display| DemoError::failed(path.display(), error);
    let text = toml::to_string(config).map_err(|error| failed(&error))?;
    fs::write(path, text).map_err(|error| failed(&error))?;
    Ok(path.to_owned())
}

#[derive(Serialize)]
struct KeyserverConfig<'a> {
    #[serde(flatten)]
    common: Common,
    tenants: [TenantConfig<'a>; 1],
    http: Http,
}

#[derive(Serialize)]
struct RelayConfig<'a> {
    #[serde(flatten)]
    common: Common,
    push_token_key_file: &'static str,
    tenants: [TenantConfig<'a>; 1],
    apps: [App<'a>; 2],
    store: Store,
    http: Http,
}

#[derive(Serialize)]
struct Common {
    listen: &'static str,
    data: &'static str,
    access_token_key_file: &'static str,
}

impl Common {
    const fn new(access_token_key_file: &'static str) -> Self {
        Self { listen: "127.0.0.1:0", data: "data", access_token_key_file }
    }
}

#[derive(Serialize)]
struct TenantConfig<'a> {
    id: &'a str,
    roots: [&'a str; 1],
}

#[derive(Serialize)]
#[serde(tag = "provider", rename_all = "lowercase")]
enum App<'a> {
    Apns {
        name: &'a str,
        tenant: &'a str,
        endpoint: &'a str,
        ca_file: &'a Path,
        team_id: &'a str,
        key_id: &'a str,
        key_file: &'a Path,
        topic: &'a str,
    },
    Fcm {
        name: &'a str,
        tenant: &'a str,
        endpoint: &'a str,
        ca_file: &'a Path,
        service_account_file: &'a Path,
    },
}

#[derive(Serialize)]
struct Http {
    announce_seconds: u64,
}

impl Http {
    /// No load balancer looks at these servers: they need not announce their end to one.
    const QUICK: Self = Self { announce_seconds: 0 };
}

#[derive(Serialize)]
struct Store {
    reserve_free_bytes: u64,
}

impl Store {
    /// A demo needs less room than a hospital.
    const SMALL: Self = Self { reserve_free_bytes: 16 * 1024 * 1024 };
}
