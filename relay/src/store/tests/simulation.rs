//! Any order of acceptances, pushes, receipts, expiry, registrations and restarts leaves a store whose rows agree.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sealpost_service::engine::Snapshot;

use super::*;
use crate::store::codec::Decoder;
use crate::store::delivery_row::DeliveryRow;
use crate::store::key::{self, BOXES, DELIVERIES, JOBS, MAILBOXES, MESSAGES};
use crate::store::lease::job_of;
use crate::store::mailbox::Mailbox;
use crate::store::message_row::MessageRow;

const DEVICES: u8 = 3;

#[derive(Clone, Debug)]
enum Step {
    Accept {
        id: u8,
        devices: u8,
        priority: u8,
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

fn step() -> impl Strategy<Value = Step> {
    let id = 0..12_u8;
    let device = 0..DEVICES;
    prop_oneof![
        6 => (id.clone(), 1..8_u8, 0..3_u8)
            .prop_map(|(id, devices, priority)| Step::Accept { id, devices, priority }),
        4 => (0..3_u8).prop_map(|priority| Step::Lease { priority }),
        6 => (0..7_u8).prop_map(|result| Step::Settle { result }),
        6 => (id, device.clone(), 0..4_u8)
            .prop_map(|(id, device, statement)| Step::Say { id, device, statement }),
        2 => (device, 0..4_u8).prop_map(|(device, token)| Step::Register { device, token }),
        3 => prop_oneof![Just(0_u32), 1..100_u32, 1000..100_000_u32].prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::Restart),
    ]
}

struct Simulation {
    world: World,
    kept: Vec<(Priority, Lease)>,
}

impl Simulation {
    async fn take(mut self, step: Step) -> Self {
        match step {
            Step::Accept { id, devices, priority } => {
                let devices: Vec<u8> = (0..DEVICES).filter(|device| devices & (1 << device) != 0).collect();
                let accepting = self.world.accepting(id, &devices, Priority::ALL[usize::from(priority)]);
                self.world.store.accept(accepting).await.unwrap();
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
            Step::Say { id, device, statement } => {
                let statement = match statement {
                    0 => ReceiptStatement::Fetched,
                    1 => OPENED,
                    2 => CONFIRMED,
                    _ => ReceiptStatement::Unopenable("bad_box".to_owned()),
                };
                self.world.say(id, device, statement).await;
            }
            Step::Register { device, token } => {
                let token = [b"first".as_slice(), b"second"].get(usize::from(token)).copied();
                let row = self.world.row(device, token);
                self.world.register_row(device, row, false).await;
            }
            Step::Pass { seconds } => {
                self.world.now_ms += u64::from(seconds) * 1000;
                self.world.expire().await;
            }
            Step::Restart => {
                self.kept.clear();
                self.world = self.world.restarted();
            }
        }
        self
    }
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
        let priority = Decoder::new(&[&[STORE_VERSION], &key[4..5]].concat()).unwrap().priority().unwrap();
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

/// The events, one after the other, lead to the state that each message has.
fn check_events(world: &World, snapshot: &Snapshot) {
    let mut states = BTreeMap::new();
    for event in world.events() {
        let before = states.insert((event.message, event.device), event.to);
        assert_eq!(event.from, before, "{event:?}");
        if let Some(from) = event.from.filter(|from| *from != event.to) {
            assert!(from.allows(event.to), "{event:?}");
        }
    }
    for (key, _) in rows(snapshot, MESSAGES) {
        let id = TransportId(key[2..18].try_into().unwrap());
        for delivery in world.store.message(&tenant(), &lab(), id).unwrap().unwrap().deliveries {
            assert_eq!(states.get(&(id, delivery.device)), Some(&delivery.state));
        }
    }
    let first = rows(snapshot, MESSAGES).first().map(|(_, value)| MessageRow::decode(value).unwrap());
    assert!(first.is_none_or(|row| row.sender == lab()));
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
    let Simulation { mut world, kept } = simulation;
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
            let mut simulation = Simulation { world: World::new(), kept: Vec::new() };
            simulation.world.register(0).await;
            simulation.world.register(1).await;
            for step in steps {
                simulation = simulation.take(step).await;
                check(&simulation.world);
            }
            find_every_job(simulation).await;
        });
    }
}
