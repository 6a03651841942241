//! Two hospitals with keys, emulated providers, and a relay that can be restarted.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use getrandom::SysRng;
use http::StatusCode;
use rand_core::UnwrapErr;
use sealpost_emulators::{Emulator, Options};
use sealpost_relay::config::Config;
use sealpost_relay::relay::{Edge, RunningRelay};
use sealpost_relay::store::LaneId;
use sealpost_service::clock::{ManualClock, SystemClock};
use sealpost_service::reload::Reload;
use sealpost_service::shutdown::Shutdown;
use sealpost_service::telemetry::Metrics;
use sealpost_wire::admission::Admission;
use sealpost_wire::assertion;
use sealpost_wire::certificate::{Certificate, Purpose, Role};
use sealpost_wire::clock::{Clock, UnixTime};
use sealpost_wire::id::{CertificateId, DeviceId, KeyId, SubjectId, TenantId};
use sealpost_wire::key::{RequestKey, RequestSigningKey, SignRequest as _, SigningKey};
use sealpost_wire::payload::Priority;
use sealpost_wire::status::{Revocation, TenantStatus};

use crate::client::{ApiClient, Http, Phone, Sender, new_id, submission};

/// The address in the configuration, which nobody resolves: it is only signed.
pub(crate) const PUBLIC_URL: &str = "https://relay.example";

/// A hospital's keys.
#[derive(Clone)]
pub(crate) struct Hospital {
    pub(crate) id: TenantId,
    root: SigningKey,
    enrol: (SigningKey, Vec<u8>),
    revoke: (SigningKey, Vec<u8>),
}

/// A client's request key.
pub(crate) struct Key {
    subject: SubjectId,
    key: RequestSigningKey,
    certificate: Vec<u8>,
}

impl Key {
    pub(crate) fn id(&self) -> KeyId {
        self.key.request_key().key_id()
    }
}

impl Hospital {
    fn new(id: &str, now: UnixTime) -> Self {
        let rng = &mut UnwrapErr(SysRng);
        let root = SigningKey::generate(rng);
        let hospital = |enrol, revoke| Self { id: id.parse().unwrap(), root: root.clone(), enrol, revoke };
        let nothing = (SigningKey::from_seed(&[0; 32]), Vec::new());
        let bare = hospital(nothing.clone(), nothing);
        let certified = |purpose| {
            let key = SigningKey::generate(&mut UnwrapErr(SysRng));
            let public = RequestKey::Ed25519(key.verifying_key());
            (key, bare.certify("office", purpose, public, &[], now))
        };
        hospital(certified(Purpose::Enrol), certified(Purpose::Revoke))
    }

    fn certify(
        &self,
        subject: &str,
        purpose: Purpose,
        key: RequestKey,
        roles: &[Role],
        now: UnixTime,
    ) -> Vec<u8> {
        let certificate = Certificate {
            tenant: self.id.clone(),
            purpose,
            subject: subject.parse().unwrap(),
            id: CertificateId::random(&mut UnwrapErr(SysRng)),
            key,
            not_before: now.minus(3600),
            not_after: now.plus(365 * 86_400),
            roles: roles.to_vec(),
        };
        certificate.sign(&self.root).unwrap()
    }

    pub(crate) fn key(&self, subject: &str, roles: &[Role], now: UnixTime) -> Key {
        let key = RequestSigningKey::Ed25519(SigningKey::generate(&mut UnwrapErr(SysRng)));
        let certificate = self.certify(subject, Purpose::Request, key.request_key(), roles, now);
        Key { subject: subject.parse().unwrap(), key, certificate }
    }

    pub(crate) fn assertion(&self, key: &Key, now: UnixTime) -> String {
        let client = assertion::client_id(&self.id, &key.subject);
        let audience = format!("{PUBLIC_URL}/v1/token");
        assertion::sign(&client, &audience, &key.certificate, &key.key, now, &mut UnwrapErr(SysRng))
    }

    pub(crate) fn admit(&self, record: &[u8], now: UnixTime) -> Vec<u8> {
        Admission::sign(&self.id, record, now, &self.enrol.0, &self.enrol.1)
    }

    pub(crate) fn status(
        &self,
        sequence: u64,
        issued: UnixTime,
        keys: &[KeyId],
        devices: &[DeviceId],
    ) -> Vec<u8> {
        let mut revoked_keys: Vec<_> = keys.iter().map(|key| (*key, Revocation::Compromised)).collect();
        revoked_keys.sort_unstable_by_key(|(key, _)| *key);
        let mut revoked_devices = devices.to_vec();
        revoked_devices.sort_unstable();
        let status =
            TenantStatus { tenant: self.id.clone(), sequence, issued, revoked_keys, revoked_devices };
        status.sign(&self.revoke.0, &self.revoke.1).unwrap()
    }
}

/// Time that both the relay and the emulators go by.
#[derive(Clone)]
struct EmulatorClock(ManualClock);

impl sealpost_emulators::Clock for EmulatorClock {
    fn now_ms(&self) -> u64 {
        self.0.now_millis()
    }
}

/// A relay and everything around it.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) emulator: Emulator,
    pub(crate) clock: ManualClock,
    pub(crate) mary: Hospital,
    pub(crate) john: Hospital,
    pub(crate) metrics: Metrics,
    pub(crate) reload: Reload,
    shutdown: Shutdown,
    relay: Option<RunningRelay>,
    config: PathBuf,
    phones: std::cell::Cell<u8>,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// A relay with further lines in its configuration, which come before every section.
    pub(crate) async fn start_with(lines: &str) -> Self {
        let mut world = Self::stopped(lines).await;
        world.start_relay().await;
        world
    }

    /// Changes a line of the configuration; a restart makes it count.
    pub(crate) fn reconfigure(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(&self.config).unwrap();
        assert!(text.contains(from), "{from}");
        std::fs::write(&self.config, text.replace(from, to)).unwrap();
    }

    /// Everything but the relay.
    pub(crate) async fn stopped(lines: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(SystemClock.now());
        let mut options = Options::new(folder.path().join("emulators"));
        options.clock = Arc::new(EmulatorClock(clock.clone()));
        let emulator = Emulator::start(options).await.unwrap();
        let (mary, john) = (Hospital::new("st-mary", clock.now()), Hospital::new("st-john", clock.now()));
        let config = folder.path().join("relay.toml");
        std::fs::write(&config, config_text(&emulator, &mary, &john, lines)).unwrap();
        Self {
            folder,
            emulator,
            clock,
            mary,
            john,
            metrics: Metrics::new(),
            reload: Reload::new(),
            shutdown: Shutdown::new(),
            relay: None,
            config,
            phones: std::cell::Cell::new(0),
        }
    }

    pub(crate) async fn start_relay(&mut self) {
        self.metrics = Metrics::new();
        self.shutdown = Shutdown::new();
        let edge = Edge {
            clock: Arc::new(self.clock.clone()),
            rng: UnwrapErr(SysRng),
            metrics: self.metrics.clone(),
            shutdown: self.shutdown.clone(),
            reload: self.reload.clone(),
        };
        self.relay = Some(RunningRelay::start(Config::load(&self.config).unwrap(), edge).await.unwrap());
        // What a device signed before the start, or within its second, is refused.
        self.clock.advance(Duration::from_secs(1));
    }

    pub(crate) async fn stop_relay(&mut self) {
        self.shutdown.begin();
        self.relay.take().unwrap().ended().await.unwrap();
    }

    pub(crate) async fn restart(&mut self) {
        self.stop_relay().await;
        self.start_relay().await;
    }

    pub(crate) fn relay(&self) -> &RunningRelay {
        self.relay.as_ref().unwrap()
    }

    pub(crate) fn config(&self) -> &Path {
        &self.config
    }

    pub(crate) fn http(&self) -> Http {
        Http::new(&format!("http://{}", self.relay().address()))
    }

    pub(crate) fn now(&self) -> UnixTime {
        self.clock.now()
    }

    /// Moves the time, and lets the relay see it.
    pub(crate) fn pass(&self, time: Duration) {
        self.clock.advance(time);
        self.relay().look_at_clock();
    }

    /// The push lane of St Mary's phones.
    pub(crate) fn lane(&self, priority: Priority) -> LaneId {
        let app = self.relay().store().app(&self.mary.id, "ios").unwrap();
        LaneId { tenant: self.mary.id.clone(), app, priority }
    }

    pub(crate) async fn client(&self, hospital: &Hospital, subject: &str, roles: &[Role]) -> ApiClient {
        let key = hospital.key(subject, roles, self.now());
        ApiClient::with_assertion(self.http(), &hospital.assertion(&key, self.now())).await
    }

    pub(crate) async fn sender(&self) -> Sender {
        self.client(&self.mary, "lab", &[Role::Sender]).await
    }

    pub(crate) fn new_phone(&self, hospital: &Hospital) -> Phone {
        self.phones.set(self.phones.get() + 1);
        let clock = self.clock.clone();
        let http = self.http();
        let mut phone = Phone::new(self.phones.get(), &hospital.id, &http, Arc::new(move || clock.now()));
        phone.authority = PUBLIC_URL.trim_start_matches("https://").to_owned();
        phone
    }

    pub(crate) fn admission(&self, hospital: &Hospital, phone: &Phone) -> Vec<u8> {
        hospital.admit(&phone.record(PUBLIC_URL), self.now())
    }

    /// A phone of St Mary's that has registered.
    pub(crate) async fn phone(&self) -> Phone {
        let phone = self.new_phone(&self.mary);
        let admission = self.admission(&self.mary, &phone);
        phone.register(admission, Some("ios")).await.expect(StatusCode::CREATED);
        phone
    }

    /// A registered phone that nothing is pushed to: what waits for it leaves the store alone.
    pub(crate) async fn quiet_phone(&self) -> Phone {
        let phone = self.new_phone(&self.mary);
        let admission = self.admission(&self.mary, &phone);
        phone.register(admission, None).await.expect(StatusCode::CREATED);
        phone
    }

    /// Submits a message of normal priority for a day.
    pub(crate) async fn send(&self, sender: &Sender, phones: &[&Phone]) -> sealpost_wire::id::TransportId {
        self.send_as(sender, phones, Priority::Normal).await
    }

    pub(crate) async fn send_as(
        &self,
        sender: &Sender,
        phones: &[&Phone],
        priority: Priority,
    ) -> sealpost_wire::id::TransportId {
        let id = new_id();
        let devices: Vec<_> = phones.iter().map(|phone| phone.id).collect();
        let submission = submission(&devices, &id.to_string(), priority, self.now().plus(86_400));
        sender.accepted(id, &submission).await;
        id
    }
}

fn config_text(emulator: &Emulator, mary: &Hospital, john: &Hospital, lines: &str) -> String {
    let (apns, fcm) = (&emulator.manifest().apns, &emulator.manifest().fcm);
    let ca = emulator.manifest().ca_file.display();
    let root = |hospital: &Hospital| -> String {
        hospital.root.verifying_key().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    };
    format!(
        r#"
        listen = "127.0.0.1:0"
        public_url = "{PUBLIC_URL}"
        data = "data"
        push_token_key_file = "push.key"
        access_token_key_file = "access.key"
        {lines}
        [[tenants]]
        id = "{}"
        roots = ["{}"]
        [[tenants]]
        id = "{}"
        roots = ["{}"]
        [[apps]]
        name = "ios"
        tenant = "st-mary"
        provider = "apns"
        endpoint = "{}"
        ca_file = "{ca}"
        team_id = "{}"
        key_id = "{}"
        key_file = "{}"
        topic = "{}"
        [apps.connection]
        backoff_first_ms = 50
        backoff_max_ms = 100
        [[apps]]
        name = "android"
        tenant = "st-mary"
        provider = "fcm"
        endpoint = "{}"
        ca_file = "{ca}"
        service_account_file = "{}"
        [store]
        reserve_free_bytes = 0
        [http]
        announce_seconds = 0
        "#,
        mary.id,
        root(mary),
        john.id,
        root(john),
        apns.url,
        apns.team_id,
        apns.key_id,
        apns.key_file.display(),
        apns.topics[0],
        fcm.url,
        fcm.service_account_file.display(),
    )
}
