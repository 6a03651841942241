//! A tenant with its keys and clients, and a keyserver that knows its root.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use getrandom::SysRng;
use http::Method;
use rand_core::UnwrapErr;
use sealpost_keyserver::config::Config;
use sealpost_keyserver::keyserver::OpenKeyserver;
use sealpost_keyserver::store::Store;
use sealpost_service::audit::AuditRow;
use sealpost_service::clock::ManualClock;
use sealpost_service::reload::Reload;
use sealpost_service::shutdown::Shutdown;
use sealpost_service::telemetry::Metrics;
use sealpost_wire::api::keyserver::{Consent, DeviceSetBody, DeviceSetState, LookUp, LookedUp, TicketBody};
use sealpost_wire::api::{StatusBody, TokenResponse};
use sealpost_wire::assertion::{self, ASSERTION_TYPE, GRANT_TYPE, client_id};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::certificate::{Certificate, Purpose, Role};
use sealpost_wire::clock::{Clock as _, UnixTime};
use sealpost_wire::device_set::{DeviceSet, DeviceSetDraft};
use sealpost_wire::id::{CertificateId, DeviceId, KeyId, RecipientId, SubjectId, TenantId};
use sealpost_wire::key::{P256SigningKey, RequestKey, RequestSigningKey, SignRequest as _, SigningKey};
use sealpost_wire::status::{Revocation, TenantStatus};
use sealpost_wire::ticket::TicketSecret;
use serde::Serialize;
use tokio::task::JoinHandle;

use crate::client::{Answer, Call, Http};
use crate::device::TestDevice;

/// When every test begins.
pub const START: UnixTime = UnixTime(1_800_000_000);
pub const CATEGORY: &str = "lab-results";

pub fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

/// A certified key.
#[derive(Clone)]
pub struct Certified {
    pub key: SigningKey,
    pub certificate: Vec<u8>,
}

/// A client with a `request` key, and the token that it has now.
pub struct TestClient {
    pub id: String,
    pub key: RequestSigningKey,
    pub certificate: Vec<u8>,
    token: Mutex<Option<String>>,
}

/// A hospital.
pub struct Tenant {
    pub id: TenantId,
    pub root: SigningKey,
    pub enrol: Certified,
    pub revoke: Certified,
    pub sender: TestClient,
    pub enroller: TestClient,
    pub revoker: TestClient,
}

impl Tenant {
    pub fn new(name: &str) -> Self {
        let id: TenantId = name.parse().unwrap();
        let root = SigningKey::generate(&mut rng());
        let ed25519 = || RequestSigningKey::Ed25519(SigningKey::generate(&mut rng()));
        let p256 = || RequestSigningKey::P256(P256SigningKey::generate(&mut rng()));
        Self {
            enrol: certified(&id, &root, Purpose::Enrol),
            revoke: certified(&id, &root, Purpose::Revoke),
            sender: TestClient::new(&id, &root, "lab", ed25519(), vec![Role::Sender]),
            enroller: TestClient::new(&id, &root, "portal", p256(), vec![Role::Enroller]),
            revoker: TestClient::new(&id, &root, "security", ed25519(), vec![Role::Revoker]),
            id,
            root,
        }
    }

    fn forget_tokens(&self) {
        [&self.sender, &self.enroller, &self.revoker].into_iter().for_each(TestClient::forget_token);
    }

    pub fn status(&self, sequence: u64, issued: UnixTime, keys: &[KeyId], devices: &[DeviceId]) -> Vec<u8> {
        let mut revoked_keys: Vec<_> = keys.iter().map(|key| (*key, Revocation::Compromised)).collect();
        revoked_keys.sort_unstable_by_key(|(key, _)| *key);
        let mut revoked_devices = devices.to_vec();
        revoked_devices.sort_unstable();
        let status =
            TenantStatus { tenant: self.id.clone(), sequence, issued, revoked_keys, revoked_devices };
        status.sign(&self.revoke.key, &self.revoke.certificate).unwrap()
    }
}

impl TestClient {
    pub fn new(
        tenant: &TenantId,
        root: &SigningKey,
        subject: &str,
        key: RequestSigningKey,
        roles: Vec<Role>,
    ) -> Self {
        let subject: SubjectId = subject.parse().unwrap();
        let draft = certificate(tenant, Purpose::Request, &subject, key.request_key(), roles);
        let certificate = draft.sign(root).unwrap();
        Self { id: client_id(tenant, &subject), key, certificate, token: Mutex::new(None) }
    }

    /// A signed assertion for the server at `base`.
    pub fn assertion(&self, base: &str, now: UnixTime) -> String {
        let audience = format!("{base}/v1/token");
        assertion::sign(&self.id, &audience, &self.certificate, &self.key, now, &mut rng())
    }

    pub fn forget_token(&self) {
        *self.token.lock().unwrap() = None;
    }
}

pub fn certificate(
    tenant: &TenantId,
    purpose: Purpose,
    subject: &SubjectId,
    key: RequestKey,
    roles: Vec<Role>,
) -> Certificate {
    Certificate {
        tenant: tenant.clone(),
        purpose,
        subject: subject.clone(),
        id: CertificateId::random(&mut rng()),
        key,
        not_before: START.minus(86_400),
        not_after: START.plus(400 * 86_400),
        roles,
    }
}

pub fn certified(tenant: &TenantId, root: &SigningKey, purpose: Purpose) -> Certified {
    let key = SigningKey::generate(&mut rng());
    let public = RequestKey::Ed25519(key.verifying_key());
    let draft = certificate(tenant, purpose, &"keys".parse().unwrap(), public, Vec::new());
    Certified { certificate: draft.sign(root).unwrap(), key }
}

/// What a keyserver has stored.
pub struct Stored {
    store: Store,
    bytes: Vec<u8>,
}

impl Stored {
    pub fn contains(&self, needle: &[u8]) -> bool {
        self.bytes.windows(needle.len()).any(|window| window == needle)
    }

    pub fn audit(&self, tenant: &TenantId) -> Vec<(u64, AuditRow)> {
        self.store.audit_rows(tenant, 0, 10_000).unwrap()
    }
}

/// A running keyserver.
struct Running {
    shutdown: Shutdown,
    served: JoinHandle<()>,
}

/// A keyserver with two tenants, and a clock that the test moves.
pub struct World {
    pub clock: ManualClock,
    pub http: Http,
    pub tenant: Tenant,
    pub other: Tenant,
    folder: tempfile::TempDir,
    settings: String,
    running: Running,
}

impl World {
    pub async fn new() -> Self {
        Self::with("").await
    }

    /// A world whose keyserver has more in its configuration than it must.
    pub async fn with(settings: &str) -> Self {
        Self::with_policy(settings, "opt-in").await
    }

    pub async fn with_policy(settings: &str, consent: &str) -> Self {
        let (tenant, other) = (Tenant::new("st-mary"), Tenant::new("st-other"));
        // Tests that are not about it do not wait for load balancers.
        let http = if settings.contains("[http]") { "" } else { "[http]\nannounce_seconds = 0\n" };
        let settings = format!(
            "listen = \"127.0.0.1:0\"\ndata = \"store\"\naccess_token_key_file = \"token.key\"\n{}{}\n\
             {http}{settings}",
            tenant_settings(&tenant, consent),
            tenant_settings(&other, "opt-in"),
        );
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(START.minus(1));
        let (running, http) = start(folder.path(), &settings, false, &clock).await;
        Self { clock, http, tenant, other, folder, settings, running }
    }

    pub fn now(&self) -> UnixTime {
        self.clock.now()
    }

    /// Moves the clock, and makes the clients ask for new tokens.
    pub fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        for tenant in [&self.tenant, &self.other] {
            [&tenant.sender, &tenant.enroller, &tenant.revoker]
                .into_iter()
                .for_each(TestClient::forget_token);
        }
    }

    /// Stops the keyserver and starts it again on the same store.
    pub async fn restart(&mut self) {
        self.restart_as(false).await;
    }

    pub async fn restart_as(&mut self, restored: bool) {
        self.start_again(self.settings.clone(), restored).await;
    }

    /// Restarts it as the server at `base`, wherever it listens.
    pub async fn restart_at(&mut self, base: &str) {
        self.start_again(format!("public_url = \"{base}\"\n{}", self.settings), false).await;
        self.http = self.http.named(base);
    }

    async fn start_again(&mut self, settings: String, restored: bool) {
        self.stop().await;
        let (running, http) = start(self.folder.path(), &settings, restored, &self.clock).await;
        (self.running, self.http) = (running, http);
        [&self.tenant, &self.other].into_iter().for_each(Tenant::forget_tokens);
    }

    /// All that a stopped keyserver has stored.
    pub async fn read_store(&self) -> Stored {
        let store = Store::open(&self.folder.path().join("store"), false, &Metrics::new()).await.unwrap();
        let mut bytes = Vec::new();
        store
            .dump(|name, key, value| bytes.extend_from_slice(&[name.as_bytes(), key, value].concat()))
            .unwrap();
        Stored { store, bytes }
    }

    /// The keyspace of each row that a stopped keyserver has stored.
    pub async fn rows(&self) -> Vec<String> {
        let mut keyspaces = Vec::new();
        let stored = self.read_store().await;
        stored.store.dump(|name, _, _| keyspaces.push(name.to_owned())).unwrap();
        keyspaces
    }

    /// Whether this line is among the metrics.
    pub async fn metric(&self, line: &str) -> bool {
        let text = String::from_utf8(self.http.get("/metrics").await.body).unwrap();
        text.lines().any(|known| known == line)
    }

    /// Waits until this line is among the metrics: what runs by itself, every second of real time, has run.
    pub async fn await_metric(&self, line: &str) {
        while !self.metric(line).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn stop(&mut self) {
        self.running.shutdown.begin();
        (&mut self.running.served).await.unwrap();
    }

    pub fn shutdown(&self) -> &Shutdown {
        &self.running.shutdown
    }

    pub async fn ask_for_token(&self, assertion: &str) -> Answer {
        self.http.send(token_call(assertion)).await
    }

    pub async fn token(&self, client: &TestClient) -> String {
        let held = client.token.lock().unwrap().clone();
        if let Some(token) = held {
            return token;
        }
        let assertion = client.assertion(self.http.base(), self.now());
        let answer: TokenResponse = self.ask_for_token(&assertion).await.expect(200);
        *client.token.lock().unwrap() = Some(answer.access_token.clone());
        answer.access_token
    }

    pub async fn call(&self, client: &TestClient, call: Call) -> Answer {
        let token = self.token(client).await;
        self.http.send(call.bearer(&token)).await
    }

    pub async fn get(&self, client: &TestClient, path: &str) -> Answer {
        self.call(client, Call::new(Method::GET, path)).await
    }

    pub async fn put<T: Serialize>(&self, client: &TestClient, path: &str, body: &T) -> Answer {
        self.call(client, Call::json(Method::PUT, path, body)).await
    }

    pub async fn post<T: Serialize>(&self, client: &TestClient, path: &str, body: &T) -> Answer {
        self.call(client, Call::json(Method::POST, path, body)).await
    }

    /// A ticket of the tenant, made by its enroller.
    pub async fn ticket(&self) -> TicketSecret {
        let secret = TicketSecret::generate(&mut rng());
        let answer = self.put_ticket(&secret, self.now().plus(900)).await;
        assert_eq!(answer.status, 201);
        secret
    }

    pub async fn put_ticket(&self, secret: &TicketSecret, expires_at: UnixTime) -> Answer {
        let body = TicketBody { claim_digest: secret.claim_token().digest(), expires_at };
        self.put(&self.tenant.enroller, &format!("/v1/tickets/{}", secret.ticket_id()), &body).await
    }

    /// A device that has claimed a ticket.
    pub async fn pending_device(&self) -> TestDevice {
        let device = TestDevice::new(&self.tenant.id, &self.ticket().await, self.now());
        let answer = device.claim(&self.http).await;
        assert_eq!(answer.status, 202, "{}", String::from_utf8_lossy(&answer.body));
        device
    }

    /// A device in the set of `recipient`, with prekeys.
    pub async fn enrolled_device(&self, recipient: RecipientId, one_time: usize) -> TestDevice {
        let device = self.pending_device().await;
        let answer = self.admit(recipient, &device).await;
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        device.upload(self, one_time).await;
        device
    }

    /// The next set of `recipient`, changed by `change`, signed by the tenant's enrol key.
    pub async fn draft(&self, recipient: RecipientId) -> DeviceSetDraft {
        let answer = self.get(&self.tenant.enroller, &devices_path(recipient)).await;
        let mut draft = DeviceSetDraft {
            tenant: self.tenant.id.clone(),
            recipient,
            version: 1,
            previous: None,
            records: Vec::new(),
            revoked: Vec::new(),
            issued: self.now(),
        };
        if answer.status == 404 {
            return draft;
        }
        let state: DeviceSetState = answer.expect(200);
        let set = DeviceSet::verified_before(state.set.as_ref()).unwrap();
        draft.version = set.version + 1;
        draft.previous = Some(set.digest);
        draft.records = set.devices.into_iter().map(|device| device.bytes).collect();
        draft.revoked = set.revoked;
        draft
    }

    pub fn sign(&self, draft: DeviceSetDraft) -> Base64Url {
        let enrol = &self.tenant.enrol;
        Base64Url(draft.sign(&enrol.key, &enrol.certificate).unwrap())
    }

    pub async fn put_set(
        &self,
        recipient: RecipientId,
        set: Base64Url,
        admissions: Vec<Base64Url>,
    ) -> Answer {
        let body = DeviceSetBody { set, admissions };
        self.put(&self.tenant.enroller, &devices_path(recipient), &body).await
    }

    pub async fn admit(&self, recipient: RecipientId, device: &TestDevice) -> Answer {
        let mut draft = self.draft(recipient).await;
        draft.records.push(device.record.clone());
        let set = self.sign(draft);
        self.put_set(recipient, set, vec![device.admission(&self.tenant.enrol, self.now())]).await
    }

    pub async fn consent(&self, recipient: RecipientId, granted: bool) {
        let body = consent(granted, self.now());
        let answer = self.put(&self.tenant.enroller, &consent_path(recipient, CATEGORY), &body).await;
        assert!(answer.status.is_success(), "{}", String::from_utf8_lossy(&answer.body));
    }

    pub async fn try_look_up(&self, recipient: RecipientId, one_time: bool) -> Answer {
        let body = LookUp { category: CATEGORY.to_owned(), one_time };
        self.post(&self.tenant.sender, &format!("/v1/recipients/{recipient}/look-up"), &body).await
    }

    pub async fn look_up(&self, recipient: RecipientId) -> LookedUp {
        self.try_look_up(recipient, true).await.expect(200)
    }

    pub async fn put_status(&self, status: Vec<u8>) -> Answer {
        self.put(&self.tenant.revoker, "/v1/status", &StatusBody { status: Base64Url(status) }).await
    }
}

pub fn consent(granted: bool, given_at: UnixTime) -> Consent {
    Consent {
        granted,
        given_at,
        recorded_by: "portal".to_owned(),
        method: "portal".to_owned(),
        document: None,
    }
}

pub fn devices_path(recipient: RecipientId) -> String {
    format!("/v1/recipients/{recipient}/devices")
}

pub fn consent_path(recipient: RecipientId, category: &str) -> String {
    format!("/v1/recipients/{recipient}/consent/{category}")
}

pub fn recipient() -> RecipientId {
    RecipientId::random(&mut rng())
}

pub fn token_call(assertion: &str) -> Call {
    let body = format!(
        "grant_type={GRANT_TYPE}&client_assertion_type={}&client_assertion={assertion}",
        ASSERTION_TYPE.replace(':', "%3A"),
    );
    let mut call = Call::new(Method::POST, "/v1/token");
    call.body = body.into_bytes();
    call.header("content-type", "application/x-www-form-urlencoded")
}

fn tenant_settings(tenant: &Tenant, consent: &str) -> String {
    let root = data_encoding::HEXLOWER.encode(tenant.root.verifying_key().as_bytes());
    format!("[[tenants]]\nid = \"{}\"\nroots = [\"{root}\"]\nconsent = \"{consent}\"\n", tenant.id)
}

async fn start(folder: &Path, settings: &str, restored: bool, clock: &ManualClock) -> (Running, Http) {
    let file = folder.join("keyserver.toml");
    std::fs::write(&file, settings).unwrap();
    let shutdown = Shutdown::new();
    let config = Config::load(&file).unwrap();
    let reload = Reload::new();
    let opened = OpenKeyserver::open(config, restored, shutdown.clone(), &reload, clock.clone());
    let keyserver = opened.await.unwrap();
    let http = Http::new(&format!("http://{}", keyserver.listener().address()));
    // What was signed up to a start is refused after it.
    clock.advance(Duration::from_secs(1));
    (Running { shutdown, served: tokio::spawn(keyserver.serve()) }, http)
}
