//! Any order of acceptances, claims, pushes, receipts, expiry, registrations and restarts leaves a store
//! whose rows agree.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sealpost_service::engine::Snapshot;
use sealpost_wire::id::SlotId;
use sealpost_wire::slot::{SlotCapability, SlotClaim};

use super::*;
use crate::store::codec::Decoder;
use crate::store::delivery_row::DeliveryRow;
use crate::store::event_row::{self, StoredEvent};
use crate::store::key::{self, BOXES, DELIVERIES, EVENTS, JOBS, MAILBOXES, MESSAGES, SLOTS};
use crate::store::lease::job_of;
use crate::store::mailbox::Mailbox;
use crate::store::message_row::MessageRow;
use crate::store::slot_row::{SlotCount, SlotRow};

const DEVICES: u8 = 3;
const SLOT_COUNT: u8 = 2;

#[derive(Clone, Debug)]
enum Step {
    Accept {
        author: u8,
        id: u8,
        devices: u8,
        priority: u8,
        claim: Option<Claim>,
    },
    /// Leases what is due, and keeps the leases.
    Lease {
        priority: u8,
    },
    /// Settles or gives back the oldest lease that is kept.
    Settle {
        result: u8,
    },
    Say {
        author: u8,
        id: u8,
        device: u8,
        statement: u8,
    },
    Register {
        device: u8,
        token: u8,
    },
    Pass {
        seconds: u32,
    },
    Restart,
}

/// A claim, as seen from what the slot expects.
#[derive(Clone, Copy, Debug)]
struct Claim {
    slot: u8,
    /// Added to the sequence expected; a stale one where it is below zero.
    ahead: i8,
    shows: Shows,
}

#[derive(Clone, Copy, Debug)]
enum Shows {
    Right,
    Wrong,
    Nothing,
}

/// What a slot is to expect: the sequence, and the number of the capability.
type Expected = (u64, u64);

fn claim() -> impl Strategy<Value = Claim> {
    let ahead = prop_oneof![8 => Just(0_i8), 1 => Just(-1), 1 => Just(1)];
    let shows = prop_oneof![6 => Just(Shows::Right), 1 => Just(Shows::Wrong), 2 => Just(Shows::Nothing)];
    (0..SLOT_COUNT, ahead, shows).prop_map(|(slot, ahead, shows)| Claim { slot, ahead, shows })
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0..12_u8;
    let device = 0..DEVICES;
    prop_oneof![
        6 => (0..2_u8, id.clone(), 1..8_u8, 0..3_u8, prop::option::of(claim())).prop_map(
            |(author, id, devices, priority, claim)| Step::Accept { author, id, devices, priority, claim }
        ),
        4 => (0..3_u8).prop_map(|priority| Step::Lease { priority }),
        6 => (0..7_u8).prop_map(|result| Step::Settle { result }),
        6 => (0..2_u8, id, device.clone(), 0..4_u8)
            .prop_map(|(author, id, device, statement)| Step::Say { author, id, device, statement }),
        2 => (device, 0..4_u8).prop_map(|(device, token)| Step::Register { device, token }),
        3 => prop_oneof![Just(0_u32), 1..100_u32, 1000..100_000_u32, 20_000_000..35_000_000_u32]
            .prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::Restart),
    ]
}

struct Simulation {
    world: World,
    kept: Vec<(Priority, Lease)>,
    /// By slot: what it is to expect, and when it was claimed last.
    slots: BTreeMap<u8, (Expected, u64)>,
    /// Gives each claim a next capability of its own.
    capabilities: u64,
}

impl Simulation {
    async fn take(mut self, step: Step) -> Self {
        match step {
            Step::Accept { author, id, devices, priority, claim } => {
                let devices: Vec<u8> = (0..DEVICES).filter(|device| devices & (1 << device) != 0).collect();
                let priority = Priority::ALL[usize::from(priority)];
                let accepting = self.world.accepting_by(author_of(author), id, &devices, priority);
                match claim {
                    None => drop(self.world.store.accept(accepting).await.unwrap()),
                    Some(claim) => self.claim(accepting, claim).await,
                }
            }
            Step::Lease { priority } => {
                let priority = Priority::ALL[usize::from(priority)];
                let leases = self.world.lease(priority);
                self.kept.extend(leases.into_iter().map(|lease| (priority, lease)));
            }
            Step::Settle { result } if !self.kept.is_empty() => {
                let (priority, lease) = self.kept.remove(0);
                let due_ms = self.world.now_ms + 7_000;
                let result = match result {
                    0..=1 => PushResult::Pushed,
                    2 => PushResult::Dead { since_ms: None },
                    3 => PushResult::Retry { due_ms, push_id: [1; 16], why: PushFailure::NoAnswer },
                    4 => PushResult::Refused,
                    5 => PushResult::Stopped { why: PushFailure::Credential },
                    _ => {
                        self.world.store.give_back(&self.world.lane(priority), [&lease]);
                        return self;
                    }
                };
                self.world.settle(priority, &lease, result).await;
            }
            Step::Settle { .. } => {}
            Step::Say { author, id, device, statement } => {
                let statement = match statement {
                    0 => ReceiptStatement::Fetched,
                    1 => OPENED,
                    2 => CONFIRMED,
                    _ => ReceiptStatement::Unopenable("bad_box".to_owned()),
                };
                let receipt = self.world.receipt_for(&author_of(author), id, device, statement);
                self.world.acknowledge(device, vec![receipt]).await;
            }
            Step::Register { device, token } => {
                let token = [b"first".as_slice(), b"second"].get(usize::from(token)).copied();
                let row = self.world.row(device, token);
                self.world.register_row(device, row, false).await;
            }
            Step::Pass { seconds } => {
                self.world.now_ms += u64::from(seconds) * 1000;
                self.world.expire().await;
                self.forget_slots().await;
            }
            Step::Restart => {
                self.kept.clear();
                self.world = self.world.restarted();
            }
        }
        self
    }

    /// Submits with a claim, and expects the answer that its slot's state asks for.
    async fn claim(&mut self, accepting: Accepting, claim: Claim) {
        let expected = self.slots.get(&claim.slot).map(|(expected, _)| *expected);
        let (sequence, asked) = expected.unwrap_or((1000, 0));
        let sequence = sequence.saturating_add_signed(claim.ahead.into());
        self.capabilities += 1;
        let next = self.capabilities;
        let shown = match claim.shows {
            Shows::Right if expected.is_none() => None,
            Shows::Right => Some(asked),
            Shows::Wrong => Some(u64::MAX),
            Shows::Nothing => None,
        };
        let slot = SlotClaim {
            slot: SlotId([claim.slot; 16]),
            sequence,
            capability: shown.map(capability),
            next: capability(next).digest(),
        };
        let refusal = match (expected, shown) {
            (None, None) => None,
            (None, Some(_)) => Some(SlotRefusal::Unknown),
            (Some((expected, _)), _) if expected != sequence => Some(SlotRefusal::Conflict),
            (Some(_), Some(shown)) if shown == asked => None,
            (Some(_), _) => Some(SlotRefusal::Forbidden),
        };
        let digest = Digest::of(format!("{:?} {slot:?} {shown:?}", accepting.digest).as_bytes());
        let rows = |world: &World| world.store.engine().logical_digest().unwrap();
        let before = refusal.map(|_| rows(&self.world));
        let accepting = Accepting { slot: Some(slot), digest, ..accepting };
        let answer = self.world.store.accept(accepting).await.unwrap();
        let is_same = before.is_none_or(|before| rows(&self.world) == before);
        match answer {
            Accepted::New(_) => {
                assert_eq!(refusal, None);
                self.slots.insert(claim.slot, ((sequence + 1, next), self.world.now_ms / 1000));
            }
            Accepted::SlotRefused(answer) => assert_eq!((Some(answer), is_same), (refusal, true)),
            // The id was used before.
            Accepted::Conflict => assert!(is_same),
            Accepted::Duplicate(_) => panic!("no two claims are alike"),
        }
    }

    async fn forget_slots(&mut self) {
        let now = UnixTime(self.world.now_ms / 1000);
        let count = self.slots.len();
        self.slots.retain(|_, (_, used)| *used + SLOT_UNUSED_SECONDS_MAX > now.0);
        let looked = self.world.store.forget_slots(&tenant(), None, now, 100).await.unwrap();
        assert_eq!(looked, SlotsForgotten { count: count - self.slots.len(), next: None });
    }

    /// Each slot expects what it is to expect, and is counted.
    fn check_slots(&self) {
        let snapshot = self.world.store.engine().snapshot();
        let home = self.world.store.home(&tenant()).unwrap();
        let mut counts = BTreeMap::new();
        for (slot, ((sequence, asked), used)) in &self.slots {
            let row = snapshot.get(SLOTS, key::slot(home, SlotId([*slot; 16]))).unwrap().unwrap();
            let row = SlotRow::decode(&row).unwrap();
            let expected = (*sequence, capability(*asked).digest(), UnixTime(*used));
            assert_eq!((row.sequence, row.next, row.used), expected);
            *counts.entry(key::slot_maker(home, row.maker).to_vec()).or_insert(0) += 1;
            *counts.entry(key::slot_count(home).to_vec()).or_insert(0) += 1;
        }
        let is_slot = |key: &[u8]| key.starts_with(&key::slots(home));
        let (slots, counted): (Vec<_>, Vec<_>) =
            rows(&snapshot, SLOTS).into_iter().partition(|(key, _)| is_slot(key));
        assert_eq!(slots.len(), self.slots.len());
        let counted = counted.into_iter().map(|(key, value)| (key, SlotCount::decode(&value).unwrap().0));
        assert_eq!(counted.collect::<BTreeMap<_, _>>(), counts);
    }
}

/// A sender, or a device that is registered too.
fn author_of(number: u8) -> AuthorName {
    if number == 0 { lab() } else { device(0).into() }
}

fn capability(number: u64) -> SlotCapability {
    SlotCapability::from_bytes(Digest::of(&number.to_be_bytes()).0)
}

/// Checks that the rows say the same about the same.
fn check(world: &World) {
    let snapshot = world.store.engine().snapshot();
    let home = world.store.home(&tenant()).unwrap();
    let mut waiting: BTreeMap<u64, Vec<(u64, DeliveryRow)>> = BTreeMap::new();
    for (key, value) in rows(&snapshot, DELIVERIES) {
        let number = u64::from_be_bytes(key[2..10].try_into().unwrap());
        let row = DeliveryRow::decode(&value).unwrap();
        waiting.entry(number).or_default().push((key::last_number(&key).unwrap(), row));
    }
    let deliveries: usize = waiting.values().map(Vec::len).sum();
    assert_eq!(rows(&snapshot, BOXES).len(), deliveries, "each has its box");

    let mut jobs = BTreeMap::new();
    for (key, value) in rows(&snapshot, JOBS) {
        let (due, device) = job_of(&key, &value).unwrap();
        let priority = Decoder::new(&[&[ROW_VERSION], &key[4..5]].concat()).unwrap().priority().unwrap();
        assert_eq!(jobs.insert(device, (due, priority)), None, "one job for each device");
    }
    for number in 0..DEVICES {
        let Some(value) = snapshot.get(MAILBOXES, key::device(home, device(number))).unwrap() else {
            continue;
        };
        let mailbox = Mailbox::decode(&value).unwrap();
        let own = waiting.remove(&mailbox.number).unwrap_or_default();
        assert_eq!(usize::try_from(mailbox.waiting).unwrap(), own.len());
        let wanting = |priority| {
            let wants = |row: &DeliveryRow| row.priority == priority && row.state.wants_push();
            u32::try_from(own.iter().filter(|(_, row)| wants(row)).count()).unwrap()
        };
        assert_eq!(mailbox.wanting, Priority::ALL.map(wanting));
        let job = mailbox.job.as_ref().map(|job| (job.due_ms, job.priority));
        assert_eq!(jobs.remove(&device(number)), job, "the job's row is where the mailbox says");
        assert_eq!(job.is_some(), mailbox.app.is_some() && mailbox.most_urgent().is_some());
        assert_eq!(job.map(|job| job.1), mailbox.app.and_then(|_| mailbox.most_urgent()));
        for (cursor, row) in &own {
            assert!(*cursor >= mailbox.waiting_from && *cursor < mailbox.next_cursor);
            assert!(
                row.state != DeliveryState::Queued || *cursor >= mailbox.queued_from,
                "{row:?} {mailbox:?}"
            );
        }
    }
    assert!(waiting.is_empty() && jobs.is_empty(), "{waiting:?} {jobs:?}");
    check_events(world, &snapshot);
}

/// The events, one after the other, lead to the state that each message has; those of senders' messages and
/// those of devices' are each without gaps.
fn check_events(world: &World, snapshot: &Snapshot) {
    let home = world.store.home(&tenant()).unwrap();
    let mut states = BTreeMap::new();
    for series in Series::ALL {
        let rows = snapshot.prefix(EVENTS, key::event_rows(home, series));
        let events: Vec<StoredEvent> =
            rows.flat_map(|row| event_row::decode(&row.unwrap().1).unwrap()).collect();
        assert!(events.iter().map(|event| event.id).eq((series.first()..).take(events.len())), "dense");
        for event in events {
            assert_eq!(Series::of(&event.author), series);
            let delivery = (event.author.clone(), event.message, event.device);
            let before = states.insert(delivery, event.to);
            match event.from {
                // An id comes again once its message was forgotten.
                None => assert!(before.is_none_or(|state| !state.keeps_box()), "{event:?}"),
                Some(_) => assert_eq!(event.from, before, "{event:?}"),
            }
            if let Some(from) = event.from.filter(|from| *from != event.to) {
                assert!(from.allows(event.to), "{event:?}");
            }
        }
    }
    let of_senders = states.keys().filter(|(author, ..)| Series::of(author) == Series::Senders).count();
    let read: BTreeSet<_> = world.events().into_iter().map(|event| (event.message, event.device)).collect();
    assert_eq!(read.len(), of_senders, "senders read of theirs alone");
    for (key, value) in rows(snapshot, MESSAGES) {
        let id = TransportId(key[2..18].try_into().unwrap());
        let author = MessageRow::decode(&value).unwrap().author;
        for delivery in world.store.message(&tenant(), &author, id).unwrap().unwrap().deliveries {
            let state = states.get(&(author.clone(), id, delivery.device));
            assert_eq!(state, Some(&delivery.state));
        }
    }
}

fn rows(snapshot: &Snapshot, keyspace: Keyspace) -> Vec<(Vec<u8>, Vec<u8>)> {
    let row = |row: Result<engine::Row, _>| {
        let (key, value) = row.unwrap();
        (key.to_vec(), value.to_vec())
    };
    snapshot.range(keyspace, ..).map(row).collect()
}

/// Whatever is left to be pushed is found when its time comes, by memory or by a store that was opened anew.
async fn find_every_job(simulation: Simulation) {
    let Simulation { mut world, kept, .. } = simulation;
    for (priority, lease) in kept {
        world.store.give_back(&world.lane(priority), [&lease]);
    }
    world.now_ms += 40 * 24 * HOUR_MS;
    let jobs = rows(&world.store.engine().snapshot(), JOBS).len();
    let found: usize = Priority::ALL.into_iter().map(|priority| world.lease(priority).len()).sum();
    assert_eq!(found, jobs, "by memory");
    let world = world.restarted();
    let found: usize = Priority::ALL.into_iter().map(|priority| world.lease(priority).len()).sum();
    assert_eq!(found, jobs, "after a restart");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn the_rows_agree_after_any_steps(steps in prop::collection::vec(step(), 1..70)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut simulation = Simulation {
                world: World::new(),
                kept: Vec::new(),
                slots: BTreeMap::new(),
                capabilities: 0,
            };
            simulation.world.register(0).await;
            simulation.world.register(1).await;
            for step in steps {
                simulation = simulation.take(step).await;
                check(&simulation.world);
                simulation.check_slots();
            }
            find_every_job(simulation).await;
        });
    }
}
