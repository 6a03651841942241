//! A run's setting: a relay of its own, the emulators that it pushes to, and devices that it knows.

mod interruption;
mod relay;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use sealpost_emulators::{Emulator, Manifest, Options};
use sealpost_wire::api::TokenResponse;
use sealpost_wire::api::relay::{DeviceRegistered, DeviceRegistration, PushRegistration};
use sealpost_wire::assertion::{ASSERTION_TYPE, GRANT_TYPE};
use sealpost_wire::id::TenantId;
use serde_json::json;
use tempfile::TempDir;

use crate::cast::{Cast, Device, Hospital, RELAY_URL, system_time};
use crate::client::Client;
use crate::cores;
use crate::error::BenchError;
use crate::load::closed_loop;
use crate::report::millis;
use crate::stock::Stock;

pub use self::interruption::{end_relays_on_signals, forget_folder, remember_folder};
pub use self::relay::Relay;

/// Connections over which devices are registered.
const REGISTERING: usize = 100;
/// The longest that a relay may take to become ready.
const READY_DEADLINE: Duration = Duration::from_secs(10);
/// How often it is asked.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// The longest that a relay may take to become quiet.
const QUIET_DEADLINE: Duration = Duration::from_secs(60);
/// How long it must have been quiet.
const QUIET_FOR: Duration = Duration::from_millis(400);
/// Processor time that counts as quiet within that time.
const QUIET_SPENT: Duration = Duration::from_millis(20);
/// The longest that pushes may take to come once everything was accepted.
pub const PUSH_DEADLINE: Duration = Duration::from_secs(60);

/// What all runs share.
pub struct Stage {
    /// The release build of the relay.
    pub program: PathBuf,
    /// The folder that stores are made in.
    pub folder: PathBuf,
    /// Its file system.
    pub file_system: String,
    /// Who takes part.
    pub cast: Cast,
    /// Where the picture of the sizes of groups goes, if one is asked for.
    pub picture: Option<PathBuf>,
    waiting: Option<(usize, Arc<Stock>)>,
    used: usize,
}

impl Stage {
    /// A stage with nobody but the tenant on it.
    ///
    /// # Errors
    /// [`BenchError::Cast`].
    pub fn new(program: PathBuf, folder: PathBuf, file_system: String) -> Result<Self, BenchError> {
        Ok(Self { program, folder, file_system, cast: Cast::new()?, picture: None, waiting: None, used: 0 })
    }

    /// A store in which `count` messages wait, the same one for all rows.
    ///
    /// # Errors
    /// See [`BenchError`].
    pub fn waiting(&mut self, count: usize) -> Result<Arc<Stock>, BenchError> {
        if let Some((of, stock)) = &self.waiting
            && *of == count
        {
            return Ok(Arc::clone(stock));
        }
        let stock = Arc::new(Stock::waiting(self, count)?);
        self.waiting = Some((count, Arc::clone(&stock)));
        Ok(stock)
    }

    /// `count` devices that no run over a shared store has used.
    pub const fn unused_devices(&mut self, count: usize) -> Range<usize> {
        let from = self.used;
        self.used += count;
        from..self.used
    }

    /// What every row of the relay says: TLS, file system, fdatasync.
    #[must_use]
    pub fn ground(&self) -> String {
        let fdatasync = crate::disk::fdatasync_ms(&self.folder).map_or(f64::NAN, |ms| ms);
        format!(
            "TLS towards the emulator, none towards the relay; {}, fdatasync of 4 KiB {fdatasync:.2} ms now",
            self.file_system
        )
    }
}

/// What a run needs.
pub struct Plan<'a> {
    /// Which of the cast's devices are registered.
    pub devices: Range<usize>,
    /// Their app, in turn.
    pub apps: &'static [App],
    /// A store with a past, instead of a new one.
    pub stock: Option<&'a Stock>,
}

impl Plan<'_> {
    /// `devices` of the app at APNs, and a new store.
    #[must_use]
    pub const fn new(devices: usize) -> Self {
        Self { devices: 0..devices, apps: &[App::Apns], stock: None }
    }
}

/// An app of the tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum App {
    /// At APNs.
    Apns,
    /// At FCM.
    Fcm,
}

impl App {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Apns => "bench-ios",
            Self::Fcm => "bench-android",
        }
    }
}

/// A relay that runs, and all around it.
pub struct Scene {
    /// The relay.
    pub relay: Relay,
    /// The emulators.
    pub emulator: Arc<Emulator>,
    /// The tenant.
    pub hospital: Arc<Hospital>,
    /// Its devices, all registered; number `n` has the push token [`push_token`]`(n)`.
    pub devices: Arc<[Arc<Device>]>,
    apps: &'static [App],
    config: String,
    folder: TempDir,
}

impl Scene {
    /// Starts emulators on the current runtime and a relay on the core under test, and registers `devices`.
    ///
    /// # Errors
    /// See [`BenchError`].
    pub async fn open(stage: &mut Stage, plan: Plan<'_>) -> Result<Self, BenchError> {
        let devices = stage.cast.devices(plan.devices)?;
        let hospital = Arc::clone(stage.cast.hospital());
        let folder = tempfile::Builder::new().prefix("run-").tempdir_in(&stage.folder);
        let folder = folder.map_err(BenchError::io("making a folder for a run"))?;
        let options = Options { record_bodies: false, ..Options::new(folder.path().join("emulators")) };
        let emulator = Arc::new(Emulator::start(options).await?);
        let home = plan.stock.map_or(folder.path(), Stock::folder);
        let config = config(hospital.tenant(), &hospital.root_hex(), emulator.manifest(), home)?;
        let relay = Relay::start(&stage.program, folder.path(), &config)?;
        let scene = Self { relay, emulator, hospital, devices, apps: plan.apps, config, folder };
        scene.await_ready().await?;
        scene.register().await?;
        scene.settle().await?;
        Ok(scene)
    }

    /// Kills the relay and starts it again over its store. Returns when it was killed; it listens, and may not
    /// be ready yet.
    ///
    /// # Errors
    /// It does not start.
    pub fn kill_and_restart(&mut self, stage: &Stage) -> Result<Instant, BenchError> {
        let killed = Instant::now();
        self.relay.kill();
        self.relay = Relay::start(&stage.program, self.folder.path(), &self.config)?;
        Ok(killed)
    }

    /// The folder of this run.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// An access token of the sender.
    ///
    /// # Errors
    /// The relay refuses.
    pub async fn token(&self) -> Result<HeaderValue, BenchError> {
        let assertion = self.hospital.assertion(system_time());
        // Neither base64url nor `.` is changed in a form; the colons of the type are.
        let kind = ASSERTION_TYPE.replace(':', "%3A");
        let form =
            format!("grant_type={GRANT_TYPE}&client_assertion_type={kind}&client_assertion={assertion}");
        let answer = Client::connect(self.relay.address()).await?.post_form("/v1/token", form).await?;
        let answer: TokenResponse = serde_json::from_slice(&answer)?;
        HeaderValue::from_str(&format!("Bearer {}", answer.access_token)).map_err(BenchError::cast("a token"))
    }

    /// Waits until the relay has written out what came before.
    ///
    /// # Errors
    /// [`BenchError::TooLong`].
    pub async fn settle(&self) -> Result<(), BenchError> {
        let began = Instant::now();
        loop {
            let before = self.relay.spent()?;
            tokio::time::sleep(QUIET_FOR).await;
            if self.relay.spent()?.saturating_sub(before) <= QUIET_SPENT {
                return Ok(());
            }
            if began.elapsed() > QUIET_DEADLINE {
                return Err(BenchError::TooLong("the relay's becoming quiet"));
            }
        }
    }

    /// Waits until `count` pushes came since the last reset, and a little longer: there must not be one more.
    ///
    /// # Errors
    /// [`BenchError::TooLong`], [`BenchError::Miscounted`].
    pub async fn await_pushes(&self, count: usize) -> Result<Instant, BenchError> {
        let awaited = self.emulator.wait_for_count(count as u64);
        tokio::time::timeout(PUSH_DEADLINE, awaited).await.map_err(|_| self.missing(count))?;
        Ok(Instant::now())
    }

    /// Checks that the emulator took `count` pushes, every one with 200, and refused none.
    ///
    /// # Errors
    /// [`BenchError::Miscounted`].
    pub fn check_pushes(&self, count: usize) -> Result<(), BenchError> {
        let counts = self.emulator.counts().apns;
        let taken = counts.by_status.get(&200).copied().unwrap_or_default();
        if (counts.total, taken) == (count as u64, count as u64) { Ok(()) } else { Err(self.missing(count)) }
    }

    fn missing(&self, count: usize) -> BenchError {
        let counts = self.emulator.counts().apns;
        BenchError::Miscounted(format!(
            "{} pushes came for {count} messages; by status {:?}, by reason {:?}",
            counts.total, counts.by_status, counts.by_reason
        ))
    }

    /// Begins to measure what something costs.
    ///
    /// # Errors
    /// The relay has ended.
    pub fn meter(&self) -> Result<Meter, BenchError> {
        let load = cores::spent_by(std::process::id())?;
        Ok(Meter { relay: self.relay.spent()?, load, began: Instant::now() })
    }

    /// A relay says where it listens before it is ready, and refuses what was signed before it was.
    ///
    /// # Errors
    /// It does not become ready.
    pub async fn await_ready(&self) -> Result<(), BenchError> {
        let mut client = Client::connect(self.relay.address()).await?;
        let began = Instant::now();
        while let Err(error) = client.touch("/readyz").await {
            if began.elapsed() > READY_DEADLINE {
                return Err(error);
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        Ok(())
    }

    async fn register(&self) -> Result<(), BenchError> {
        let clients = Client::connect_many(self.relay.address(), REGISTERING).await?;
        let (hospital, devices, apps) = (Arc::clone(&self.hospital), Arc::clone(&self.devices), self.apps);
        let register = move |mut client: Client, index: usize| {
            let (hospital, devices) = (Arc::clone(&hospital), Arc::clone(&devices));
            async move {
                let device = &devices[index];
                let registration = DeviceRegistration {
                    admission: device.admission().clone(),
                    push: Some(PushRegistration {
                        app: apps[index % apps.len()].name().to_owned(),
                        token: push_token(index),
                    }),
                };
                let body = serde_json::to_vec(&registration)?;
                let path = format!("/v1/devices/{}", device.id());
                let answer = client.signed("a registration", "PUT", &path, &hospital, device, body).await?;
                let registered: DeviceRegistered = serde_json::from_slice(&answer)?;
                if registered.push {
                    Ok(client)
                } else {
                    Err(BenchError::Relay("a device was registered without its push token".to_owned()))
                }
            }
        };
        closed_loop(clients, self.devices.len(), register).await?;
        Ok(())
    }
}

/// Measures what something costs, from its making on.
pub struct Meter {
    began: Instant,
    relay: Duration,
    load: Duration,
}

/// What something cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Time on the wall.
    pub wall: Duration,
    /// Processor time of the relay.
    pub relay: Duration,
    /// Processor time of load and emulators.
    pub load: Duration,
}

impl Meter {
    /// What it cost until `end`; processor time until now.
    ///
    /// # Errors
    /// The relay has ended.
    pub fn until(&self, end: Instant, scene: &Scene) -> Result<Cost, BenchError> {
        Ok(Cost {
            wall: end.saturating_duration_since(self.began),
            relay: scene.relay.spent()?.saturating_sub(self.relay),
            load: cores::spent_by(std::process::id())?.saturating_sub(self.load),
        })
    }
}

impl Cost {
    /// `count` in this time, a second.
    #[must_use]
    pub fn rate(&self, count: usize) -> f64 {
        crate::report::per_second(count, self.wall)
    }

    /// How busy both cores were, and what one message costs the relay.
    #[must_use]
    pub fn note(&self, count: usize) -> String {
        let share = |spent: Duration| 100.0 * spent.as_secs_f64() / self.wall.as_secs_f64();
        // Counts of a measurement are far below what a float holds exactly.
        #[allow(clippy::cast_precision_loss)]
        let each = millis(self.relay) * 1000.0 / count as f64;
        format!(
            "last run: the relay spent {each:.0} µs of processor time for each, {:.0} % of its core; load \
             and emulator {:.0} % of theirs",
            share(self.relay),
            share(self.load)
        )
    }
}

/// The push token of device number `index`: 32 bytes, as Apple's are.
#[must_use]
pub fn push_token(index: usize) -> String {
    format!("{index:064x}")
}

/// The device that a push token belongs to.
#[must_use]
pub fn device_of(token: &str) -> Option<usize> {
    usize::from_str_radix(token, 16).ok()
}

/// The relay's configuration with its files in `home`: what it must be told, and everything else as it comes.
///
/// # Errors
/// [`BenchError::Cast`].
pub fn config(
    tenant: &TenantId,
    root_hex: &str,
    emulators: &Manifest,
    home: &Path,
) -> Result<String, BenchError> {
    let config = json!({
        "listen": "127.0.0.1:0",
        "public_url": RELAY_URL,
        "data": home.join("store"),
        "push_token_key_file": home.join("push-token.key"),
        "access_token_key_file": home.join("access-token.key"),
        "tenants": [{ "id": tenant, "roots": [root_hex] }],
        "apps": [{
            "name": App::Apns.name(),
            "tenant": tenant,
            "provider": "apns",
            "endpoint": emulators.apns.url,
            "ca_file": emulators.ca_file,
            "team_id": emulators.apns.team_id,
            "key_id": emulators.apns.key_id,
            "key_file": emulators.apns.key_file,
            "topic": emulators.apns.topics.first(),
        }, {
            "name": App::Fcm.name(),
            "tenant": tenant,
            "provider": "fcm",
            "endpoint": emulators.fcm.url,
            "ca_file": emulators.ca_file,
            "service_account_file": emulators.fcm.service_account_file,
        }],
    });
    toml::to_string(&config).map_err(BenchError::cast("the relay's configuration"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_token_names_its_device() {
        for index in [0, 1, 100_000] {
            assert_eq!(push_token(index).len(), 64);
            assert_eq!(device_of(&push_token(index)), Some(index));
        }
        assert_eq!(device_of("not a token"), None);
    }
}
