//! The keyserver's configuration file; `deploy/keyserver.toml` is one with every key.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use sealpost_service::config::{self, ConfigError, PublicUrl, RootKey};
use sealpost_service::rates::{Rate, RateOptions};
use sealpost_service::server::{HttpOptions, TlsOptions};
use sealpost_service::telemetry::LogOptions;
use sealpost_wire::id::TenantId;
use sealpost_wire::limits::{KEY_PACKAGES_PER_UPLOAD_MAX, PREKEYS_PER_BATCH_MAX};
use serde::Deserialize;

use crate::consent::ConsentPolicy;
use crate::key_package::KeyPackageLimits;
use crate::prekey::PrekeyLimits;

/// Longest wait that a request may ask for (seconds).
pub const WAIT_SECONDS_MAX: u64 = 60;

/// What the file says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address and port to listen at; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The address that clients use: the audience of their assertions, the authority in signed requests.
    /// Without it, the address that is listened at.
    pub public_url: Option<PublicUrl>,
    /// Folder of the store.
    pub data: PathBuf,
    /// File with the key of access tokens: 64 hexadecimal digits, mode 0600; made if it is not there.
    pub access_token_key_file: PathBuf,
    /// The tenants.
    pub tenants: Vec<KeyserverTenant>,
    /// What is kept at most.
    #[serde(default)]
    pub limits: Limits,
    /// How often callers may ask.
    #[serde(default)]
    pub rates: RateOptions,
    /// How often key packages may be looked up.
    #[serde(default)]
    pub key_package_rates: KeyPackageRates,
    /// How HTTP is served.
    #[serde(default)]
    pub http: HttpOptions,
    /// TLS at the keyserver itself, if nothing in front of it does that.
    #[serde(default)]
    pub tls: Option<TlsOptions>,
    /// How to log.
    #[serde(default)]
    pub log: LogOptions,
}

/// A tenant of a keyserver.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyserverTenant {
    /// The tenant.
    pub id: TenantId,
    /// Its root keys; two while a successor takes over.
    pub roots: Vec<RootKey>,
    /// What a missing consent means.
    #[serde(default)]
    pub consent: ConsentPolicy,
}

/// What is kept at most, and how long.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// One-time prekeys of one suite that wait for one device.
    pub one_time_prekeys_max: u64,
    /// Ids of prekeys that are remembered for one device, of used ones too.
    pub remembered_prekeys_max: u64,
    /// One-time key packages of one suite that wait for one device.
    pub key_packages_max: u64,
    /// References of key packages that are remembered for one device, of used ones too.
    pub remembered_key_packages_max: u64,
    /// How long an expired ticket and what claimed it are kept (seconds): an enroller may countersign until
    /// then.
    pub ticket_kept_seconds: u64,
    /// Time between two looks for what has expired (seconds).
    pub expiry_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            one_time_prekeys_max: 256,
            remembered_prekeys_max: 16_384,
            key_packages_max: 256,
            remembered_key_packages_max: 4096,
            ticket_kept_seconds: 86_400,
            expiry_seconds: 10,
        }
    }
}

impl Limits {
    /// The part that uploads of key packages are judged by.
    #[must_use]
    pub const fn key_packages(&self) -> KeyPackageLimits {
        KeyPackageLimits {
            one_time_max: self.key_packages_max,
            remembered_max: self.remembered_key_packages_max,
        }
    }

    /// The part that uploads of prekeys are judged by.
    #[must_use]
    pub const fn prekeys(&self) -> PrekeyLimits {
        PrekeyLimits { one_time_max: self.one_time_prekeys_max, remembered_max: self.remembered_prekeys_max }
    }
}

/// How often key packages may be looked up: each look-up uses some up. A malicious member of a tenant that has
/// used up what waits for somebody has made their devices fall back on their last resorts, no more.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyPackageRates {
    /// By one device.
    pub caller: Rate,
    /// Of one recipient, whoever asks.
    pub recipient: Rate,
}

impl Default for KeyPackageRates {
    fn default() -> Self {
        const CALLER: Rate = Rate::of(1000, 3600);
        const RECIPIENT: Rate = Rate::of(60, 3600);
        Self { caller: CALLER, recipient: RECIPIENT }
    }
}

impl Config {
    /// Reads and checks the file at `path`; relative paths in it start from its folder.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let (mut config, folder) = config::load::<Self>(path)?;
        config.data = folder.join(&config.data);
        config.access_token_key_file = folder.join(&config.access_token_key_file);
        config.tls.iter_mut().for_each(|tls| tls.resolve(&folder));
        config.check()?;
        Ok(config)
    }

    /// Refuses values that contradict each other or would serve nobody.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn check(&self) -> Result<(), ConfigError> {
        config::check_tenants(self.tenants.iter().map(|tenant| (&tenant.id, tenant.roots.as_slice())))?;
        self.http.check()?;
        self.rates.check()?;
        self.key_package_rates.caller.check()?;
        self.key_package_rates.recipient.check()?;
        self.tls.as_ref().map_or(Ok(()), TlsOptions::check)?;
        let refuse = |what: &str| Err(ConfigError::Value(what.to_owned()));
        let batch = PREKEYS_PER_BATCH_MAX as u64;
        if self.limits.one_time_prekeys_max < batch || self.limits.remembered_prekeys_max < batch {
            return refuse(
                "limits: one batch has up to 128 prekeys; the limits on prekeys are at least that",
            );
        }
        // With a last resort.
        let upload = KEY_PACKAGES_PER_UPLOAD_MAX as u64 + 1;
        if self.limits.key_packages_max < upload || self.limits.remembered_key_packages_max < upload {
            return refuse(
                "limits: one upload has up to 101 key packages; the limits on key packages are at least that",
            );
        }
        if self.limits.expiry_seconds == 0 {
            return refuse("limits: expiry_seconds is at least 1");
        }
        if self.http.request_seconds_max <= WAIT_SECONDS_MAX {
            return refuse(
                "http: request_seconds_max is above 60, the longest wait that a request may ask for",
            );
        }
        if self.public_url.is_none() && self.listen.ip().is_unspecified() {
            return refuse("public_url is needed where all addresses are listened at");
        }
        Ok(())
    }
}
