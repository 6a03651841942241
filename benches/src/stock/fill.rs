//! What happened in a store: devices came, messages were accepted, pushed and opened.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rand_core::Rng as _;
use sealpost_relay::provider::PushToken;
use sealpost_relay::push_token::PushTokenKey;
use sealpost_relay::store::{
    Accepted, Accepting, AcceptingBox, Acknowledging, AppId, BoxValue, Device, LaneId, Lease, PushResult,
    PushTarget, Registering, Settling, Store, VerifiedReceipt,
};
use sealpost_service::audit::{Act, Actor, Entry};
use sealpost_wire::api::relay::ReceiptOutcome;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{DeviceId, Digest, SubjectId, TenantId, TransportId};
use sealpost_wire::key::{RequestKey, SigningKey, VerifyingKey};
use sealpost_wire::payload::Priority;
use sealpost_wire::prekey::PrekeyKind;
use sealpost_wire::receipt::{Receipt, ReceiptStatement};
use tokio::task::JoinSet;

use crate::cast::{system_rng, system_time};
use crate::error::BenchError;
use crate::report::millis;

/// Writes that are under way at a time.
const IN_PROGRESS: usize = 256;
/// Jobs that are leased and settled together.
const LEASED: usize = 512;
/// Bytes of a box in which an alert without attachments comes.
const BOX_BYTES: usize = 2300;
/// Bytes of a signed receipt.
const RECEIPT_BYTES: usize = 220;
/// How long messages live: longer than any row takes.
const LIFETIME_SECONDS: u64 = 7 * 86_400;
const PRIORITY: Priority = Priority::Normal;

/// A store that is open in this process. Cheap to clone.
#[derive(Clone)]
pub struct OpenStock {
    store: Store,
    tenant: TenantId,
    sender: SubjectId,
    app: AppId,
    key: Arc<PushTokenKey>,
    /// One for all devices: none of them signs anything.
    identity: VerifyingKey,
}

/// A message that was accepted.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    device: DeviceId,
    id: TransportId,
    digest: Digest,
}

impl OpenStock {
    pub(super) fn new(
        store: Store,
        tenant: TenantId,
        app: AppId,
        key: Arc<PushTokenKey>,
    ) -> Result<Self, BenchError> {
        let sender = "past-laboratory".parse().map_err(BenchError::cast("a subject"))?;
        let identity = SigningKey::generate(&mut system_rng()).verifying_key();
        Ok(Self { store, tenant, sender, app, key, identity })
    }

    /// Ends the store's threads; everything is on disk.
    pub fn close(self) {
        self.store.engine().shutdown();
    }

    /// Registers `count` new devices.
    ///
    /// # Errors
    /// [`BenchError::Cast`].
    pub async fn register(&self, count: usize) -> Result<Vec<DeviceId>, BenchError> {
        let stock = self.clone();
        for_each(count, move |_| {
            let stock = stock.clone();
            async move { stock.register_one().await }
        })
        .await
    }

    /// Accepts a message for each of `devices`.
    ///
    /// # Errors
    /// [`BenchError::Cast`].
    pub async fn accept(&self, devices: &[DeviceId]) -> Result<Vec<Sent>, BenchError> {
        let (stock, devices): (_, Arc<[DeviceId]>) = (self.clone(), devices.into());
        for_each(devices.len(), move |index| {
            let (stock, device) = (stock.clone(), devices[index]);
            async move { stock.accept_one(device).await }
        })
        .await
    }

    /// Pushes `count` messages that are due.
    ///
    /// # Errors
    /// [`BenchError::Cast`]; [`BenchError::Miscounted`] if fewer are due.
    pub async fn push(&self, count: usize) -> Result<(), BenchError> {
        let mut left = count;
        while left > 0 {
            let leases = self.lease(left.min(LEASED))?;
            left -= leases.len();
            self.pushed(leases).await?;
        }
        Ok(())
    }

    /// Leases `count` jobs that are due, `at_once` at a time, and says how long each time took
    /// (milliseconds). All are settled afterwards.
    ///
    /// # Errors
    /// [`BenchError::Cast`]; [`BenchError::Miscounted`] if fewer are due.
    pub async fn time_leases(&self, count: usize, at_once: usize) -> Result<Vec<f64>, BenchError> {
        let (mut times, mut all) = (Vec::new(), Vec::with_capacity(count));
        while all.len() < count {
            let most = at_once.min(count - all.len());
            let start = Instant::now();
            let leases = self.lease(most)?;
            times.push(millis(start.elapsed()));
            all.extend(leases);
        }
        while !all.is_empty() {
            self.pushed(all.split_off(all.len().saturating_sub(LEASED))).await?;
        }
        Ok(times)
    }

    /// Every device has opened its message.
    ///
    /// # Errors
    /// [`BenchError::Cast`], [`BenchError::Miscounted`].
    pub async fn acknowledge(&self, sent: Vec<Sent>) -> Result<(), BenchError> {
        let (stock, sent): (_, Arc<[Sent]>) = (self.clone(), sent.into());
        for_each(sent.len(), move |index| {
            let (stock, sent) = (stock.clone(), sent[index]);
            async move { stock.acknowledge_one(sent).await }
        })
        .await?;
        Ok(())
    }

    async fn register_one(&self) -> Result<DeviceId, BenchError> {
        let mut rng = system_rng();
        let (device, now) = (DeviceId::random(&mut rng), system_time());
        let token: String = (0..4).map(|_| format!("{:016x}", rng.next_u64())).collect();
        let token = PushToken::new(token).map_err(BenchError::cast("a push token"))?;
        let sealed = self.key.seal(&token, &self.tenant, device, self.app, &mut rng);
        let push = PushTarget {
            app: self.app,
            registered_ms: in_millis(now),
            refused: false,
            token: sealed.map_err(BenchError::cast("a push token"))?,
        };
        let registering = Registering {
            tenant: self.tenant.clone(),
            device,
            row: Device {
                identity_key: self.identity,
                request_key: RequestKey::Ed25519(self.identity),
                created: now,
                push: Some(push),
            },
            same_token: false,
            now_ms: in_millis(now),
            audit: entry(now, Act::DeviceRegistered, &Actor::Device(device), "device", &device),
        };
        self.store.register_device(registering).await.map_err(BenchError::cast("a registration"))?;
        Ok(device)
    }

    async fn accept_one(&self, device: DeviceId) -> Result<Sent, BenchError> {
        let (mut rng, now) = (system_rng(), system_time());
        let mut sealed = [0; BOX_BYTES];
        rng.fill_bytes(&mut sealed);
        let (id, digest) = (TransportId::random(&mut rng), Digest::of(&sealed));
        let accepting = Accepting {
            tenant: self.tenant.clone(),
            author: self.sender.clone().into(),
            id,
            digest,
            expires_at: now.plus(LIFETIME_SECONDS),
            priority: PRIORITY,
            boxes: vec![AcceptingBox { device, revoked: false, digest, value: BoxValue::new(&sealed) }],
            slot: None,
            now_ms: in_millis(now),
            audit: entry(now, Act::MessageAccepted, &Actor::Client(self.sender.clone()), "message", &id),
        };
        let accepted = self.store.accept(accepting).await.map_err(BenchError::cast("a message"))?;
        match accepted {
            Accepted::New(_) => Ok(Sent { device, id, digest }),
            other => Err(BenchError::Miscounted(format!("a new message was answered {other:?}"))),
        }
    }

    fn lease(&self, most: usize) -> Result<Vec<Lease>, BenchError> {
        // A job that came within this very millisecond is due as well.
        let now_ms = in_millis(system_time().plus(1));
        let leases = self.store.lease(&self.lane(), now_ms, most).map_err(BenchError::cast("a lease"))?;
        if leases.is_empty() {
            return Err(BenchError::Miscounted("fewer pushes were due than messages accepted".to_owned()));
        }
        Ok(leases)
    }

    async fn pushed(&self, leases: Vec<Lease>) -> Result<(), BenchError> {
        let now = system_time();
        let devices: Vec<String> = leases.iter().map(|lease| lease.device.to_string()).collect();
        let audit = entry(now, Act::Pushed, &Actor::Server, "devices", &devices.join(" "));
        let settlings: Arc<[Settling]> =
            leases.into_iter().map(|lease| Settling { lease, result: PushResult::Pushed }).collect();
        let settled = self.store.settle(&self.lane(), settlings, in_millis(now), vec![audit]).await;
        settled.map_err(BenchError::cast("a push"))
    }

    async fn acknowledge_one(&self, sent: Sent) -> Result<(), BenchError> {
        let now = system_time();
        let mut bytes = vec![0; RECEIPT_BYTES];
        system_rng().fill_bytes(&mut bytes);
        let receipt = Receipt {
            tenant: self.tenant.clone(),
            transport_id: sent.id,
            device: sent.device,
            sealed: sent.digest,
            statement: ReceiptStatement::Opened(PrekeyKind::Signed),
            time: now,
        };
        let audit = entry(now, Act::ReceiptStored, &Actor::Device(sent.device), "message", &sent.id);
        let acknowledging = Acknowledging {
            tenant: self.tenant.clone(),
            device: sent.device,
            receipts: vec![VerifiedReceipt { receipt, bytes, audit }],
            now_ms: in_millis(now),
        };
        let outcomes = self.store.acknowledge(acknowledging).await.map_err(BenchError::cast("a receipt"))?;
        if outcomes == [ReceiptOutcome::Accepted] {
            Ok(())
        } else {
            Err(BenchError::Miscounted(format!("a receipt became {outcomes:?}")))
        }
    }

    fn lane(&self) -> LaneId {
        LaneId { tenant: self.tenant.clone(), app: self.app, priority: PRIORITY }
    }
}

fn entry(now: UnixTime, act: Act, who: &Actor, kind: &str, object: &(dyn std::fmt::Display + Sync)) -> Entry {
    Entry::new(in_millis(now), act, who, &[(kind, object)], "done")
}

const fn in_millis(time: UnixTime) -> u64 {
    time.0.saturating_mul(1000)
}

/// Does `work` for each of `0..count`, [`IN_PROGRESS`] at a time. The results, in no order.
async fn for_each<T, W, F>(count: usize, work: W) -> Result<Vec<T>, BenchError>
where
    T: Send + 'static,
    W: Fn(usize) -> F + Clone + Send + 'static,
    F: Future<Output = Result<T, BenchError>> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let mut running = JoinSet::new();
    for _ in 0..IN_PROGRESS {
        let (next, work) = (Arc::clone(&next), work.clone());
        running.spawn(async move {
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return Ok::<_, BenchError>(done);
                }
                done.push(work(index).await?);
            }
        });
    }
    let mut all = Vec::with_capacity(count);
    while let Some(done) = running.join_next().await {
        all.append(&mut done.map_err(|_| BenchError::Ended)??);
    }
    Ok(all)
}
