//! The relay's configuration file (TOML). `deploy/relay.toml` shows every key.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sealpost_service::config::{ConfigError, PublicUrl, TenantConfig, check_tenants, load};
use sealpost_service::rates::RateOptions;
use sealpost_service::server::{HttpOptions, TlsOptions};
use sealpost_service::telemetry::LogOptions;
use sealpost_wire::id::TenantId;
use sealpost_wire::limits::MESSAGE_LIFETIME_SECONDS_MAX;
use serde::Deserialize;

use crate::provider::{ApnsConfig, ApnsEnvironment, ConnectionConfig, FcmConfig, ProxyUrl, StubConfig};
use crate::push::PushOptions;
use crate::store::{Schedules, StoreLimits, StoreOptions};

/// The relay's configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The address that clients reach the relay by; that of the listener without it.
    #[serde(default)]
    pub public_url: Option<PublicUrl>,
    /// Folder of the store.
    pub data: PathBuf,
    /// Key that push tokens are sealed under; made when it is not there.
    pub push_token_key_file: PathBuf,
    /// Key that access tokens are authenticated by; made when it is not there.
    pub access_token_key_file: PathBuf,
    /// The tenants.
    pub tenants: Vec<TenantConfig>,
    /// The apps that stubs are pushed to.
    #[serde(default)]
    pub apps: Vec<AppConfig>,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
    /// How often callers may ask.
    #[serde(default)]
    pub rates: RateOptions,
    /// How stubs are pushed.
    #[serde(default)]
    pub push: PushConfig,
    /// How the store uses memory and disk.
    #[serde(default)]
    pub store: StoreConfig,
    /// How HTTP is served.
    #[serde(default)]
    pub http: HttpOptions,
    /// TLS at the relay itself, if nothing in front of it does that.
    #[serde(default)]
    pub tls: Option<TlsOptions>,
    /// How to log.
    #[serde(default)]
    pub log: LogOptions,
}

/// An app at a push provider.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppConfig {
    /// Its name, by which devices register.
    pub name: String,
    /// Whose it is.
    pub tenant: TenantId,
    /// Where its stubs go.
    pub provider: ProviderName,
    /// Another server than the provider's own.
    pub endpoint: Option<String>,
    /// The HTTP proxy on the way there: `http://[user:password@]host:port`.
    pub proxy: Option<ProxyUrl>,
    /// Root certificates (PEM) trusted beside the public ones.
    pub ca_file: Option<PathBuf>,
    /// What a push shows until the app replaces it: a title, none if it is empty.
    #[serde(default = "default_title")]
    pub title: String,
    /// And a text.
    #[serde(default = "default_body")]
    pub body: String,
    /// Keys of both in the app's own string files.
    pub title_loc_key: Option<String>,
    /// See [`Self::title_loc_key`].
    pub loc_key: Option<String>,
    /// Limits of the connections to the provider.
    #[serde(default)]
    pub connection: ConnectionConfig,
    /// APNs: Apple's team.
    pub team_id: Option<String>,
    /// APNs: the id of the key, where the key's file is not named after it.
    pub key_id: Option<String>,
    /// APNs: the key (`AuthKey_….p8`).
    pub key_file: Option<PathBuf>,
    /// APNs: the app's bundle id.
    pub topic: Option<String>,
    /// APNs: which of Apple's services.
    pub environment: Option<ApnsEnvironment>,
    /// FCM: the service account's key (JSON).
    pub service_account_file: Option<PathBuf>,
    /// FCM: the project, where it is not the service account's own.
    pub project_id: Option<String>,
}

/// A push provider by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderName {
    /// Apple Push Notification service.
    Apns,
    /// Firebase Cloud Messaging.
    Fcm,
}

/// What a provider's client is made from.
#[derive(Clone, Debug)]
pub enum ClientConfig {
    /// A client of APNs.
    Apns(ApnsConfig),
    /// A client of FCM.
    Fcm(FcmConfig),
}

impl ClientConfig {
    /// The files that the client is made from.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Apns(client) => client.files(),
            Self::Fcm(client) => client.files(),
        }
    }
}

/// Bounds; the `limits` section.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Boxes that wait in one mailbox; further ones fail with `mailbox_full`. Those of devices fail already
    /// when half as many wait.
    pub mailbox_boxes_max: u32,
    /// Slots of one tenant; one more is refused.
    pub slots_per_tenant_max: u32,
    /// Slots that one sender or device of it has made.
    pub slots_per_author_max: u32,
    /// Devices that may stay connected until a box comes; one more is answered at once.
    pub waiting_devices_max: usize,
    /// The longest that a device or a sender may stay connected for (seconds).
    pub wait_seconds_max: u16,
    /// Bytes of submissions that are read at one time. Those of devices take half of it at most.
    pub submission_bytes_in_flight_max: u32,
    /// Events in one answer.
    pub events_per_page_max: usize,
    /// Streams of events that one tenant may have open.
    pub event_streams_per_tenant_max: usize,
    /// How often a stream on which nothing happens shows that it is there (seconds).
    pub events_heartbeat_seconds: u64,
    /// How long a stream waits for its reader to take what happened (seconds).
    pub events_reader_seconds_max: u64,
    /// How long a message is remembered after its expiry (seconds).
    pub message_retention_seconds: u64,
    /// How long events are kept (seconds); receipts are kept in them.
    pub events_retention_seconds: u64,
    /// How old a tenant's status may be for submissions to be taken (seconds).
    pub status_age_seconds_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        let store = StoreLimits::default();
        Self {
            mailbox_boxes_max: store.mailbox_boxes_max,
            slots_per_tenant_max: store.slots_per_tenant_max,
            slots_per_author_max: store.slots_per_author_max,
            waiting_devices_max: store.waiting_devices_max,
            wait_seconds_max: 60,
            submission_bytes_in_flight_max: 32 * 1024 * 1024,
            events_per_page_max: 1000,
            event_streams_per_tenant_max: 64,
            events_heartbeat_seconds: 15,
            events_reader_seconds_max: 30,
            message_retention_seconds: store.message_retention.as_secs(),
            events_retention_seconds: MESSAGE_LIFETIME_SECONDS_MAX + 15 * 86_400,
            status_age_seconds_max: 86_400,
        }
    }
}

/// How stubs are pushed; the `push` section. By priority: how many of one app are in flight at a time, and
/// the waits (seconds) between the stubs for what was not fetched, the last of which repeats.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PushConfig {
    /// Critical stubs in flight.
    pub critical_in_flight_max: usize,
    /// Normal stubs in flight.
    pub normal_in_flight_max: usize,
    /// Bulk stubs in flight.
    pub bulk_in_flight_max: usize,
    /// Waits between the stubs for critical messages.
    pub critical_again_seconds: Vec<u64>,
    /// For normal ones.
    pub normal_again_seconds: Vec<u64>,
    /// For bulk ones.
    pub bulk_again_seconds: Vec<u64>,
    /// The longest wait between two attempts for critical messages that failed (seconds), unless the provider
    /// asks for more.
    pub critical_retry_seconds_max: u64,
    /// For normal ones.
    pub normal_retry_seconds_max: u64,
    /// For bulk ones.
    pub bulk_retry_seconds_max: u64,
}

impl Default for PushConfig {
    fn default() -> Self {
        let options = PushOptions::default();
        let [critical_in_flight_max, normal_in_flight_max, bulk_in_flight_max] = options.in_flight_max;
        let [critical_retry, normal_retry, bulk_retry] = options.retry_max;
        Self {
            critical_in_flight_max,
            normal_in_flight_max,
            bulk_in_flight_max,
            critical_again_seconds: vec![30, 120, 600, 3600],
            normal_again_seconds: vec![900, 21_600, 86_400],
            bulk_again_seconds: vec![86_400],
            critical_retry_seconds_max: critical_retry.as_secs(),
            normal_retry_seconds_max: normal_retry.as_secs(),
            bulk_retry_seconds_max: bulk_retry.as_secs(),
        }
    }
}

impl PushConfig {
    const fn retries(&self) -> [u64; 3] {
        [self.critical_retry_seconds_max, self.normal_retry_seconds_max, self.bulk_retry_seconds_max]
    }
}

/// How the store uses memory and disk; the `store` section.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// Cache of what was read from disk (bytes).
    pub cache_bytes: u64,
    /// What was written and is not in files yet (bytes).
    pub memtable_bytes: u64,
    /// Journal on disk (bytes); at least 64 MiB.
    pub journal_bytes: u64,
    /// Writes that may wait; further ones are answered 503.
    pub queue_len: usize,
    /// Writes that share one sync.
    pub group_max_commands: usize,
    /// Free bytes of the file system below which nothing new is taken.
    pub reserve_free_bytes: u64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        let engine = StoreOptions::new("").engine;
        Self {
            cache_bytes: engine.cache_bytes,
            memtable_bytes: engine.memtable_bytes,
            journal_bytes: engine.journal_bytes,
            queue_len: engine.queue_len,
            group_max_commands: engine.group_max_commands,
            reserve_free_bytes: engine.reserve_free_bytes,
        }
    }
}

impl Config {
    /// Reads and checks the configuration at `path`; relative paths in it start from its folder.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let (mut config, folder): (Self, PathBuf) = load(path)?;
        let files = [&mut config.data, &mut config.push_token_key_file, &mut config.access_token_key_file];
        files.into_iter().for_each(|file| *file = folder.join(&*file));
        config.tls.iter_mut().for_each(|tls| tls.resolve(&folder));
        for app in &mut config.apps {
            let files = [&mut app.ca_file, &mut app.key_file, &mut app.service_account_file];
            files.into_iter().flatten().for_each(|file| *file = folder.join(&*file));
        }
        config.check()?;
        Ok(config)
    }

    /// Refuses what contradicts itself.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn check(&self) -> Result<(), ConfigError> {
        check_tenants(self.tenants.iter().map(|tenant| (&tenant.id, tenant.roots.as_slice())))?;
        self.http.check()?;
        self.rates.check()?;
        self.tls.as_ref().map_or(Ok(()), TlsOptions::check)?;
        for (position, app) in self.apps.iter().enumerate() {
            app.check(&self.tenants)?;
            // Names are labels of metrics, so they are unique among all tenants.
            if self.apps.iter().take(position).any(|other| other.name == app.name) {
                return refuse(format!("app {} is there twice", app.name));
            }
        }
        let push = &self.push;
        let in_flight = [push.critical_in_flight_max, push.normal_in_flight_max, push.bulk_in_flight_max];
        if in_flight.contains(&0) || push.retries().contains(&0) {
            return refuse("push: a limit of 0 would push nothing");
        }
        if self.schedules().is_none() {
            return refuse("push: each of the waits is a list of seconds above 0");
        }
        let limits = &self.limits;
        if u64::from(limits.wait_seconds_max) >= self.http.request_seconds_max {
            return refuse("limits: wait_seconds_max is below http.request_seconds_max");
        }
        if limits.mailbox_boxes_max == 0
            || limits.events_per_page_max == 0
            || limits.events_heartbeat_seconds == 0
            || limits.events_reader_seconds_max == 0
        {
            return refuse("limits: a limit of 0 would serve nobody");
        }
        if limits.submission_bytes_in_flight_max < SUBMISSION_BYTES_IN_FLIGHT_MIN {
            return refuse("limits: submission_bytes_in_flight_max is at least 6 MiB");
        }
        Ok(())
    }

    /// When stubs are pushed again; nothing when a list of waits cannot be used.
    fn schedules(&self) -> Option<Schedules> {
        let waits =
            |seconds: &[u64]| seconds.iter().map(|wait| Duration::from_secs(*wait)).collect::<Vec<_>>();
        let push = &self.push;
        Schedules::new(
            &waits(&push.critical_again_seconds),
            &waits(&push.normal_again_seconds),
            &waits(&push.bulk_again_seconds),
        )
    }

    /// How the store is opened.
    #[must_use]
    pub fn store_options(&self) -> StoreOptions {
        let mut options = StoreOptions::new(self.data.join("store"));
        options.engine.cache_bytes = self.store.cache_bytes;
        options.engine.memtable_bytes = self.store.memtable_bytes;
        options.engine.journal_bytes = self.store.journal_bytes;
        options.engine.queue_len = self.store.queue_len;
        options.engine.group_max_commands = self.store.group_max_commands;
        options.engine.reserve_free_bytes = self.store.reserve_free_bytes;
        options.tenants = self.tenants.iter().map(|tenant| tenant.id.clone()).collect();
        options.apps = self.apps.iter().map(|app| (app.tenant.clone(), app.name.clone())).collect();
        options.schedules = self.schedules().unwrap_or_default();
        options.limits = StoreLimits {
            mailbox_boxes_max: self.limits.mailbox_boxes_max,
            waiting_devices_max: self.limits.waiting_devices_max,
            message_retention: Duration::from_secs(self.limits.message_retention_seconds),
            slots_per_tenant_max: self.limits.slots_per_tenant_max,
            slots_per_author_max: self.limits.slots_per_author_max,
        };
        options
    }

    /// How stubs are pushed.
    #[must_use]
    pub const fn push_options(&self) -> PushOptions {
        let push = &self.push;
        let [critical_retry, normal_retry, bulk_retry] = push.retries();
        PushOptions {
            in_flight_max: [push.critical_in_flight_max, push.normal_in_flight_max, push.bulk_in_flight_max],
            retry_max: [
                Duration::from_secs(critical_retry),
                Duration::from_secs(normal_retry),
                Duration::from_secs(bulk_retry),
            ],
        }
    }
}

impl AppConfig {
    fn check(&self, tenants: &[TenantConfig]) -> Result<(), ConfigError> {
        let name = &self.name;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > APP_NAME_BYTES_MAX || !name.bytes().all(plain) {
            return refuse(format!("app {name:?}: a name has 1 to 64 letters, digits and -_."));
        }
        if !tenants.iter().any(|tenant| tenant.id == self.tenant) {
            return refuse(format!("app {name}: there is no tenant {}", self.tenant));
        }
        self.client().map(|_| ())
    }

    /// What its provider's client is made from.
    ///
    /// # Errors
    /// [`ConfigError::Value`] when a key of its provider is missing, or one of the other provider is there.
    pub fn client(&self) -> Result<ClientConfig, ConfigError> {
        let foreign = match self.provider {
            ProviderName::Apns => self.service_account_file.is_some() || self.project_id.is_some(),
            ProviderName::Fcm => {
                let keys = [&self.team_id, &self.key_id, &self.topic, &self.loc_key, &self.title_loc_key];
                keys.iter().any(|key| key.is_some()) || self.key_file.is_some() || self.environment.is_some()
            }
        };
        if foreign {
            return refuse(format!("app {}: a key of another provider", self.name));
        }
        match self.provider {
            ProviderName::Apns => self.apns().map(ClientConfig::Apns),
            ProviderName::Fcm => Ok(ClientConfig::Fcm(FcmConfig {
                service_account_file: self
                    .needed("service_account_file", self.service_account_file.as_ref())?,
                project_id: self.project_id.clone(),
                endpoint: self.endpoint.clone(),
                proxy: self.proxy.clone(),
                root_ca_file: self.ca_file.clone(),
                connection: self.connection.clone(),
            })),
        }
    }

    fn apns(&self) -> Result<ApnsConfig, ConfigError> {
        Ok(ApnsConfig {
            topic: self.needed("topic", self.topic.as_ref())?,
            team_id: self.needed("team_id", self.team_id.as_ref())?,
            key_id: self.key_id.clone(),
            key_file: self.needed("key_file", self.key_file.as_ref())?,
            environment: self.environment.unwrap_or_default(),
            endpoint: self.endpoint.clone(),
            proxy: self.proxy.clone(),
            root_ca_file: self.ca_file.clone(),
            stub: StubConfig {
                title: Some(self.title.clone()).filter(|title| !title.is_empty()),
                body: self.body.clone(),
                title_loc_key: self.title_loc_key.clone(),
                loc_key: self.loc_key.clone(),
                ..StubConfig::default()
            },
            connection: self.connection.clone(),
        })
    }

    fn needed<T: Clone>(&self, key: &str, value: Option<&T>) -> Result<T, ConfigError> {
        value.cloned().ok_or_else(|| ConfigError::Value(format!("app {}: {key} is missing", self.name)))
    }
}

/// Bytes of an app's name.
const APP_NAME_BYTES_MAX: usize = 64;
/// The largest submission must fit.
const SUBMISSION_BYTES_IN_FLIGHT_MIN: u32 = 6 * 1024 * 1024;

fn default_title() -> String {
    "New message".to_owned()
}

fn default_body() -> String {
    "Open the app to read it.".to_owned()
}

fn refuse<T>(what: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Value(what.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/relay.toml");

    #[test]
    fn the_sample_is_valid_and_its_limits_are_the_defaults() {
        let config = Config::load(Path::new(SAMPLE)).unwrap();
        assert_eq!(config.limits, Limits::default());
        assert_eq!(config.push, PushConfig::default());
        assert_eq!(config.store, StoreConfig::default());
        assert_eq!(config.http, HttpOptions::default());
        assert_eq!(config.rates, RateOptions::default());
        assert_eq!(config.tls, None);
        assert_eq!(config.store_options().schedules, Schedules::default());
        assert!(matches!(config.apps[0].client().unwrap(), ClientConfig::Apns(_)));
        assert!(matches!(config.apps[1].client().unwrap(), ClientConfig::Fcm(_)));
        assert!(config.data.is_absolute() || config.data.starts_with(Path::new(SAMPLE).parent().unwrap()));
    }

    #[test]
    fn the_sample_shows_every_key() {
        let text = std::fs::read_to_string(SAMPLE).unwrap();
        let sections = [
            format!("{:?}", Limits::default()),
            format!("{:?}", PushConfig::default()),
            format!("{:?}", StoreConfig::default()),
            format!("{:?}", HttpOptions::default()),
            format!("{:?}", RateOptions::default()),
            format!("{:?}", LogOptions::default()),
            format!("{:?}", ConnectionConfig::default()),
        ];
        let app = [
            "name",
            "tenant",
            "provider",
            "endpoint",
            "proxy",
            "ca_file",
            "title",
            "body",
            "title_loc_key",
            "loc_key",
        ];
        let tls = ["certificate_file", "key_file", "handshake_seconds_max", "look_seconds"];
        let apns = ["team_id", "key_id", "key_file", "topic", "environment"];
        let fcm = ["service_account_file", "project_id"];
        let fields = sections.iter().flat_map(|section| section.split(['{', ',', ' ']));
        let fields = fields.filter_map(|part| part.strip_suffix(':'));
        for key in fields.chain(app).chain(apns).chain(fcm).chain(tls) {
            assert!(text.contains(&format!("{key} = ")), "{key}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let text = std::fs::read_to_string(SAMPLE).unwrap();
        let checked = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            let config: Config =
                toml::from_str(&text.replacen(from, to, 1)).map_err(|error| error.to_string())?;
            config.check().map_err(|error| error.to_string())
        };
        assert_eq!(checked("listen", "listen"), Ok(()));
        for (from, to, why) in [
            ("\ndata = ", "\ndatum = ", "unknown field `datum`"),
            ("topic = ", "# topic = ", "topic is missing"),
            ("topic = ", "project_id = \"x\"\ntopic = ", "another provider"),
            ("name = \"st-mary-android\"", "name = \"st-mary-ios\"", "twice"),
            ("name = \"st-mary-android\"", "name = \"\"", "1 to 64"),
            ("tenant = \"st-mary\"", "tenant = \"st-john\"", "no tenant"),
            ("bulk_again_seconds = [86400]", "bulk_again_seconds = []", "waits"),
            ("wait_seconds_max = 60", "wait_seconds_max = 75", "request_seconds_max"),
            ("critical_in_flight_max = 400", "critical_in_flight_max = 0", "nothing"),
            ("mailbox_boxes_max = 1000", "mailbox_boxes_max = 0", "nobody"),
        ] {
            let refused = checked(from, to).unwrap_err();
            assert!(refused.contains(why), "{to}: {refused}");
        }
    }
}
