//! Clients and credentials as an operator would configure them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sealpost_emulators::{Emulator, Options};
use sealpost_relay::provider::{
    ApnsClient, ApnsConfig, FcmClient, FcmConfig, Outcome, Push, PushPriority, PushToken, RetryClass,
};
use sealpost_wire::clock::Clock;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// The start of a half-hour, in seconds since the Unix epoch.
pub(crate) const START: u64 = 1_800_000_000;

/// A clock that the test moves.
pub(crate) struct TestClock(AtomicU64);

impl TestClock {
    pub(crate) fn at(now: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(now)))
    }

    pub(crate) fn set(&self, now: u64) {
        self.0.store(now, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now_millis(&self) -> u64 {
        self.0.load(Ordering::SeqCst) * 1000
    }
}

/// The emulators, on the time of the tests' clock.
pub(crate) struct Emulated {
    pub(crate) emulator: Emulator,
    _dir: TempDir,
}

pub(crate) async fn emulated(adjust: impl FnOnce(&mut Options)) -> Emulated {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::new(dir.path());
    adjust(&mut options);
    Emulated { emulator: Emulator::start(options).await.unwrap(), _dir: dir }
}

/// The time of this machine, which the emulators use.
pub(crate) fn system_now() -> u64 {
    use sealpost_service::clock::SystemClock;
    SystemClock.now().0
}

impl Emulated {
    pub(crate) fn apns_config(&self, connection: &Value) -> ApnsConfig {
        let manifest = self.emulator.manifest();
        serde_json::from_value(json!({
            "topic": manifest.apns.topics[0],
            "team_id": manifest.apns.team_id,
            "key_id": manifest.apns.key_id,
            "key_file": manifest.apns.key_file,
            "endpoint": manifest.apns.url,
            "root_ca_file": manifest.ca_file,
            "connection": connection,
        }))
        .unwrap()
    }

    pub(crate) fn apns(&self, connection: &Value) -> ApnsClient {
        ApnsClient::new(self.apns_config(connection), TestClock::at(system_now())).unwrap()
    }

    pub(crate) fn fcm(&self, connection: &Value) -> FcmClient {
        self.fcm_at(connection, TestClock::at(system_now()))
    }

    pub(crate) fn fcm_at(&self, connection: &Value, clock: Arc<TestClock>) -> FcmClient {
        FcmClient::new(self.fcm_config(connection), clock).unwrap()
    }

    pub(crate) fn fcm_config(&self, connection: &Value) -> FcmConfig {
        let manifest = self.emulator.manifest();
        serde_json::from_value(json!({
            "service_account_file": manifest.fcm.service_account_file,
            "endpoint": manifest.fcm.url,
            "root_ca_file": manifest.ca_file,
            "connection": connection,
        }))
        .unwrap()
    }
}

/// A client of an APNs peer that is not the emulator.
pub(crate) struct Apns {
    pub(crate) client: Arc<ApnsClient>,
    pub(crate) clock: Arc<TestClock>,
    _dir: TempDir,
}

pub(crate) fn apns(endpoint: &str, connection: &Value) -> Apns {
    let dir = tempfile::tempdir().unwrap();
    let key_file = dir.path().join("key.p8");
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    let config = serde_json::from_value(json!({
        "topic": "org.example.sealpost",
        "team_id": "TEAM000001",
        "key_id": "KEY0000001",
        "key_file": key_file,
        "endpoint": endpoint,
        "connection": connection,
    }))
    .unwrap();
    let clock = TestClock::at(START);
    let client = Arc::new(ApnsClient::new(config, clock.clone()).unwrap());
    Apns { client, clock, _dir: dir }
}

/// A client of an FCM peer and a token endpoint that are not the emulator.
pub(crate) struct Fcm {
    pub(crate) client: Arc<FcmClient>,
    pub(crate) clock: Arc<TestClock>,
    _dir: TempDir,
}

pub(crate) fn fcm(endpoint: &str, token_uri: &str, connection: &Value) -> Fcm {
    let dir = tempfile::tempdir().unwrap();
    let account_file = dir.path().join("account.json");
    let account = json!({
        "type": "service_account",
        "project_id": "test-project",
        "private_key_id": "k1",
        "private_key": rsa_key(),
        "client_email": "relay@test-project.iam.gserviceaccount.com",
        "token_uri": token_uri,
    });
    std::fs::write(&account_file, account.to_string()).unwrap();
    let config = serde_json::from_value(json!({
        "service_account_file": account_file,
        "endpoint": endpoint,
        "connection": connection,
    }))
    .unwrap();
    let clock = TestClock::at(START);
    let client = Arc::new(FcmClient::new(config, clock.clone()).unwrap());
    Fcm { client, clock, _dir: dir }
}

fn rsa_key() -> String {
    let size = rcgen::RsaKeySize::_2048;
    rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).unwrap().serialize_pem()
}

/// Device token number `n`.
pub(crate) fn token(n: usize) -> PushToken {
    PushToken::new(format!("{n:064x}")).unwrap()
}

/// Push number `n`, which expires an hour after the tests' clock started.
pub(crate) fn push(n: u8) -> Push {
    Push { priority: PushPriority::High, expires_at: START + 3600, push_id: [n; 16] }
}

/// Sends `count` pushes at once and returns their outcomes.
pub(crate) async fn push_at_once(client: &Arc<ApnsClient>, count: usize) -> Vec<Outcome> {
    let mut pushes = JoinSet::new();
    for n in 0..count {
        let client = Arc::clone(client);
        pushes.spawn(async move { client.push(&token(n), push(1)).await });
    }
    pushes.join_all().await
}

pub(crate) fn assert_all_accepted(outcomes: &[Outcome]) {
    let others: Vec<_> =
        outcomes.iter().filter(|outcome| !matches!(outcome, Outcome::Accepted { .. })).collect();
    assert!(others.is_empty(), "{others:?}");
}

pub(crate) fn retry_class(outcome: &Outcome) -> RetryClass {
    match outcome {
        Outcome::Retry { class, after, .. } => {
            assert!(*after >= Duration::from_secs(1), "a wait that spares the provider");
            *class
        }
        other => panic!("not a retry: {other:?}"),
    }
}
