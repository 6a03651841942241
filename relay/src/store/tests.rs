//! The store from outside: what senders, devices and workers notice.

mod authors;
mod deliveries;
mod pushes;
mod simulation;
mod slots;

use sealpost_service::audit::{Act, Actor, Entry};
use sealpost_wire::api::relay::{Event, MessageStatus, ReceiptOutcome, WaitingBox};
use sealpost_wire::author::AuthorName;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::delivery::{DeliveryState, PushFailure};
use sealpost_wire::id::{DeviceId, Digest, TransportId};
use sealpost_wire::key::{RequestKey, SigningKey};
use sealpost_wire::prekey::PrekeyKind;
use sealpost_wire::receipt::{Receipt, ReceiptStatement};

use super::*;
use crate::push_token::SealedPushToken;

const START_MS: u64 = 1_800_000_000_000;
const HOUR_MS: u64 = 3_600_000;

/// A store in a folder of its own, and the time that passes in it.
struct World {
    _folder: tempfile::TempDir,
    store: Store,
    now_ms: u64,
}

fn tenant() -> TenantId {
    "st-mary".parse().unwrap()
}

fn lab() -> AuthorName {
    "lab".parse().unwrap()
}

/// What an author seals for a device under an id.
fn sealed(author: &AuthorName, id: u8, device: u8) -> Vec<u8> {
    vec![id, device, if *author == lab() { 0xee } else { 0xdd }]
}

const fn device(number: u8) -> DeviceId {
    DeviceId([number; 16])
}

const fn message(number: u8) -> TransportId {
    TransportId([number; 16])
}

fn options(path: &std::path::Path) -> StoreOptions {
    let mut options = StoreOptions::new(path);
    options.engine.reserve_free_bytes = 0;
    options.tenants = vec![tenant(), "st-john".parse().unwrap()];
    options.apps = vec![(tenant(), "ios".to_owned()), (tenant(), "android".to_owned())];
    options
}

fn open(path: &std::path::Path) -> Store {
    let options = options(path);
    tokio::task::block_in_place(|| {
        let (store, survey) = Store::open(options, &Metrics::new()).unwrap();
        survey.run(|| false).unwrap();
        store
    })
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        Self { _folder: folder, store, now_ms: START_MS }
    }

    /// The same store after a restart.
    fn restarted(self) -> Self {
        let Self { _folder, store, now_ms } = self;
        store.engine().shutdown();
        drop(store);
        Self { store: open(_folder.path()), _folder, now_ms }
    }

    fn entry(&self) -> Entry {
        Entry::new(self.now_ms, Act::MessageAccepted, &Actor::Client("lab".parse().unwrap()), &[], "done")
    }

    fn lane(&self, priority: Priority) -> LaneId {
        LaneId { tenant: tenant(), app: self.store.app(&tenant(), "ios").unwrap(), priority }
    }

    fn row(&self, number: u8, token: Option<&[u8]>) -> Device {
        let key = identity(number).verifying_key();
        Device {
            identity_key: key,
            request_key: RequestKey::Ed25519(key),
            created: UnixTime(1),
            push: token.map(|token| PushTarget {
                app: self.store.app(&tenant(), "ios").unwrap(),
                registered_ms: self.now_ms,
                refused: false,
                token: SealedPushToken::from_bytes(token.to_vec()),
            }),
        }
    }

    async fn register_row(&self, number: u8, row: Device, same_token: bool) -> Registered {
        let registering = Registering {
            tenant: tenant(),
            device: device(number),
            row,
            same_token,
            now_ms: self.now_ms,
            audit: self.entry(),
        };
        self.store.register_device(registering).await.unwrap()
    }

    async fn register(&self, number: u8) {
        assert_eq!(self.register_row(number, self.row(number, Some(b"token")), false).await, Registered::New);
    }

    fn accepting(&self, id: u8, devices: &[u8], priority: Priority) -> Accepting {
        self.accepting_by(lab(), id, devices, priority)
    }

    fn accepting_by(&self, author: AuthorName, id: u8, devices: &[u8], priority: Priority) -> Accepting {
        let one = |number: &u8| {
            let sealed = sealed(&author, id, *number);
            AcceptingBox {
                device: device(*number),
                revoked: false,
                digest: Digest::of(&sealed),
                value: BoxValue::new(&sealed),
            }
        };
        Accepting {
            tenant: tenant(),
            boxes: devices.iter().map(one).collect(),
            author,
            id: message(id),
            digest: Digest::of(&[id, priority.code()]),
            expires_at: UnixTime((self.now_ms + 24 * HOUR_MS) / 1000),
            priority,
            slot: None,
            now_ms: self.now_ms,
            audit: self.entry(),
        }
    }

    async fn accept(&self, id: u8, devices: &[u8], priority: Priority) -> MessageStatus {
        match self.store.accept(self.accepting(id, devices, priority)).await.unwrap() {
            Accepted::New(status) => status,
            other => panic!("{other:?}"),
        }
    }

    fn receipt(&self, id: u8, number: u8, statement: ReceiptStatement) -> VerifiedReceipt {
        self.receipt_for(&lab(), id, number, statement)
    }

    fn receipt_for(
        &self,
        author: &AuthorName,
        id: u8,
        number: u8,
        statement: ReceiptStatement,
    ) -> VerifiedReceipt {
        let receipt = Receipt {
            tenant: tenant(),
            transport_id: message(id),
            device: device(number),
            sealed: Digest::of(&sealed(author, id, number)),
            statement,
            time: UnixTime(self.now_ms / 1000),
        };
        let bytes = receipt.sign(&identity(number));
        VerifiedReceipt { receipt, bytes, audit: self.entry() }
    }

    async fn acknowledge(&self, number: u8, receipts: Vec<VerifiedReceipt>) -> Vec<ReceiptOutcome> {
        let device = device(number);
        let acknowledging = Acknowledging { tenant: tenant(), device, receipts, now_ms: self.now_ms };
        self.store.acknowledge(acknowledging).await.unwrap()
    }

    async fn say(&self, id: u8, number: u8, statement: ReceiptStatement) -> ReceiptOutcome {
        self.acknowledge(number, vec![self.receipt(id, number, statement)]).await[0]
    }

    fn boxes(&self, number: u8) -> Vec<WaitingBox> {
        let now = UnixTime(self.now_ms / 1000);
        let page = BoxPage { after: 0, boxes_max: 64, bytes_max: 1 << 20, now };
        self.store.waiting_boxes(&tenant(), device(number), page).unwrap().0
    }

    fn status(&self, id: u8) -> MessageStatus {
        self.store.message(&tenant(), &lab(), message(id)).unwrap().unwrap()
    }

    fn state(&self, id: u8, number: u8) -> DeliveryState {
        let status = self.status(id);
        status.deliveries.iter().find(|delivery| delivery.device == device(number)).unwrap().state
    }

    fn events(&self) -> Vec<Event> {
        match self.store.events(&tenant(), 0, 1000).unwrap() {
            EventsAnswer::Page(page) => {
                let ids: Vec<u64> = page.events.iter().map(|event| event.id).collect();
                assert_eq!(ids, (1..=page.last).collect::<Vec<_>>(), "dense from 1");
                page.events
            }
            EventsAnswer::Gone { oldest } => panic!("gone below {oldest}"),
        }
    }

    /// The states that the events tell of, in order.
    fn told(&self) -> Vec<DeliveryState> {
        self.events().iter().map(|event| event.to).collect()
    }

    fn lease(&self, priority: Priority) -> Vec<Lease> {
        self.store.lease(&self.lane(priority), self.now_ms, 100).unwrap()
    }

    async fn settle(&self, priority: Priority, lease: &Lease, result: PushResult) {
        let settling = [Settling { lease: lease.clone(), result }];
        self.store.settle(&self.lane(priority), settling.into(), self.now_ms, Vec::new()).await.unwrap();
    }

    async fn expire(&self) {
        while self.store.expire(&tenant(), self.now_ms, 2).await.unwrap() > 0 {}
    }
}

fn identity(number: u8) -> SigningKey {
    SigningKey::from_seed(&[number; 32])
}

const OPENED: ReceiptStatement = ReceiptStatement::Opened(PrekeyKind::OneTime);
const CONFIRMED: ReceiptStatement = ReceiptStatement::Confirmed(PrekeyKind::OneTime);
