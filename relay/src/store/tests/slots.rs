//! Claims on slots: one winner for each place, and nothing left of those who lose.

use sealpost_service::engine::{CommitHook, CommitStage, FatalHandler};
use sealpost_wire::id::SlotId;
use sealpost_wire::slot::{SlotCapability, SlotClaim};

use super::*;

const DAY_MS: u64 = 24 * HOUR_MS;

/// What holders of a place show; a number stands for the secret of an epoch.
fn capability(number: u64) -> SlotCapability {
    SlotCapability::from_bytes(Digest::of(&number.to_be_bytes()).0)
}

fn claim(slot: u8, sequence: u64, shown: Option<u64>, next: u64) -> SlotClaim {
    let (shown, next) = (shown.map(capability), capability(next).digest());
    SlotClaim { slot: SlotId([slot; 16]), sequence, capability: shown, next }
}

fn refused(refusal: SlotRefusal) -> Accepted {
    Accepted::SlotRefused(refusal)
}

impl World {
    /// A submission with a claim; its id and digest are its own.
    fn claiming(&self, author: AuthorName, claim: SlotClaim) -> Accepting {
        let content =
            format!("{author} {claim:?} {:?}", claim.capability.as_ref().map(SlotCapability::digest));
        let digest = Digest::of(content.as_bytes());
        let id = TransportId(*digest.0.first_chunk().unwrap());
        let slot = Some(claim);
        Accepting { id, digest, slot, ..self.accepting_by(author, 1, &[1], Priority::Normal) }
    }

    async fn claim(&self, claim: SlotClaim) -> Accepted {
        self.store.accept(self.claiming(lab(), claim)).await.unwrap()
    }

    async fn wins(&self, claim: SlotClaim) {
        let answer = self.claim(claim).await;
        assert!(matches!(answer, Accepted::New(_)), "{answer:?}");
    }

    /// The answer to a claim that loses; the store is as it was.
    async fn loses(&self, claim: SlotClaim) -> Accepted {
        let before = self.store.engine().logical_digest().unwrap();
        let answer = self.claim(claim).await;
        assert!(self.store.engine().logical_digest().unwrap() == before, "something was stored: {answer:?}");
        answer
    }

    async fn forget_slots(&self) -> usize {
        let (mut from, mut count) = (None, 0);
        loop {
            let now = UnixTime(self.now_ms / 1000);
            let looked = self.store.forget_slots(&tenant(), from, now, 2).await.unwrap();
            count += looked.count;
            from = looked.next;
            if from.is_none() {
                return count;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_win_one_after_the_other_and_any_other_leaves_the_store_as_it_was() {
    use SlotRefusal::{Conflict, Forbidden, Unknown};
    let world = World::new();
    world.register(1).await;
    assert_eq!(world.loses(claim(1, 5, Some(5), 6)).await, refused(Unknown), "a capability, and no slot");
    world.wins(claim(1, 5, None, 6)).await;
    assert_eq!(world.loses(claim(1, 5, None, 66)).await, refused(Conflict), "made already");
    assert_eq!(
        world.loses(claim(1, 5, Some(5), 66)).await,
        refused(Conflict),
        "stale, and no matter what it shows"
    );
    assert_eq!(
        world.loses(claim(1, 5, Some(6), 66)).await,
        refused(Conflict),
        "stale, with what is asked for now"
    );
    assert_eq!(world.loses(claim(1, 7, Some(6), 66)).await, refused(Conflict), "ahead");
    assert_eq!(world.loses(claim(1, 6, Some(7), 66)).await, refused(Forbidden), "forged");
    assert_eq!(world.loses(claim(1, 6, None, 66)).await, refused(Forbidden), "shows nothing");
    world.wins(claim(1, 6, Some(6), 7)).await;
    assert_eq!(world.loses(claim(1, 7, Some(6), 66)).await, refused(Forbidden), "the one before");
    world.wins(claim(1, 7, Some(7), 8)).await;
    world.wins(claim(2, 1 << 48, None, 1)).await;

    let last = sealpost_wire::limits::SLOT_SEQUENCE_MAX;
    world.wins(claim(3, last, None, 1)).await;
    assert_eq!(
        world.loses(claim(3, last + 1, Some(1), 2)).await,
        refused(Conflict),
        "there is no place behind it"
    );
    assert_eq!(world.loses(claim(4, last + 1, None, 2)).await, refused(Conflict));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_winners_bytes_again_are_its_answer_again_even_after_a_restart_and_the_losers_lose_again() {
    let mut world = World::new();
    world.register(1).await;
    world.wins(claim(1, 0, None, 1)).await;
    let (winner, loser) = (claim(1, 1, Some(1), 2), claim(1, 1, Some(1), 3));
    let Accepted::New(answer) = world.claim(winner.clone()).await else { panic!() };
    for round in 0..2 {
        assert_eq!(world.claim(winner.clone()).await, Accepted::Duplicate(answer.clone()), "{round}");
        assert_eq!(world.loses(loser.clone()).await, refused(SlotRefusal::Conflict), "{round}");
        let stolen = world.claiming(device(9).into(), winner.clone());
        let stolen = world.store.accept(stolen).await.unwrap();
        assert_eq!(stolen, refused(SlotRefusal::Conflict), "the same claim by somebody else: {round}");
        world = world.restarted();
    }
    assert_eq!(world.boxes(1).len(), 2, "one for each that won");
    world.wins(claim(1, 2, Some(2), 4)).await;
    assert_eq!(world.claim(winner).await, Accepted::Duplicate(answer), "long since over");
}

/// Slots, each claimed so often by two at once.
const SLOTS: u8 = 8;
const RACES: u64 = 125;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_races_have_one_winner_each_and_every_loser_is_told() {
    let world = Arc::new(World::new());
    world.register(1).await;
    let racing: Vec<_> = (1..=SLOTS).map(|slot| tokio::spawn(race(world.clone(), slot))).collect();
    for one in racing {
        one.await.unwrap();
    }
    let world = Arc::into_inner(world).unwrap().restarted();
    for slot in 1..=SLOTS {
        let home = world.store.home(&tenant()).unwrap();
        let row = world.store.engine().get(key::SLOTS, key::slot(home, SlotId([slot; 16]))).unwrap().unwrap();
        let row = slot_row::SlotRow::decode(&row).unwrap();
        assert_eq!(row.sequence, u64::from(slot) * 1000 + RACES);
    }
}

/// A sender and a device race for each place of a slot; each would go on with a secret of its own.
async fn race(world: Arc<World>, slot: u8) {
    let first = u64::from(slot) * 1000;
    let mut shown = None;
    for sequence in first..first + RACES {
        let claimants = [(lab(), sequence * 2), (device(9).into(), sequence * 2 + 1)];
        let claims = claimants.map(|(author, next)| {
            let accepting = world.claiming(author, claim(slot, sequence, shown, next));
            let store = world.store.clone();
            (next, tokio::spawn(async move { store.accept(accepting).await.unwrap() }))
        });
        let mut winners = Vec::new();
        for (next, answer) in claims {
            match answer.await.unwrap() {
                Accepted::New(_) => winners.push(next),
                other => assert_eq!(other, refused(SlotRefusal::Conflict)),
            }
        }
        assert_eq!(winners.len(), 1, "slot {slot}, sequence {sequence}");
        // Only the winner's secret goes on.
        let lost = if winners[0] % 2 == 0 { winners[0] + 1 } else { winners[0] - 1 };
        if sequence % 25 == 0 {
            let forged = world.claiming(lab(), claim(slot, sequence + 1, Some(lost), 0));
            let forged = world.store.accept(forged).await.unwrap();
            assert_eq!(forged, refused(SlotRefusal::Forbidden));
        }
        shown = winners.first().copied();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_of_another_tenant_is_another_slot() {
    let world = World::new();
    world.register(1).await;
    let john: TenantId = "st-john".parse().unwrap();
    let of_john = |claim| Accepting { tenant: john.clone(), ..world.claiming(lab(), claim) };
    world.wins(claim(1, 0, None, 1)).await;
    let answer = world.store.accept(of_john(claim(1, 1, Some(1), 2))).await.unwrap();
    assert_eq!(answer, refused(SlotRefusal::Unknown));
    assert!(matches!(world.store.accept(of_john(claim(1, 9, None, 8))).await.unwrap(), Accepted::New(_)));
    world.wins(claim(1, 1, Some(1), 2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_that_was_there_before_claims_nothing() {
    let world = World::new();
    world.register(1).await;
    let plain = world.accept(1, &[1], Priority::Normal).await;
    let with_claim =
        Accepting { slot: Some(claim(1, 0, None, 1)), ..world.accepting(1, &[1], Priority::Normal) };
    // The door computes another digest with a claim; the store goes by what it is given.
    assert_eq!(world.store.accept(with_claim.clone()).await.unwrap(), Accepted::Duplicate(plain));
    let with_claim = Accepting { digest: Digest::of(b"with a claim"), ..with_claim };
    assert_eq!(world.store.accept(with_claim).await.unwrap(), Accepted::Conflict);
    world.wins(claim(1, 3, None, 4)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_are_bounded_by_tenant_and_by_author_and_forgotten_when_nobody_claims_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path());
    (options.limits.slots_per_tenant_max, options.limits.slots_per_author_max) = (4, 3);
    let store = tokio::task::block_in_place(|| Store::open(options, &Metrics::new()).unwrap().0);
    let mut world = World { _folder: folder, store, now_ms: START_MS };
    world.register(1).await;
    for slot in 1..=3 {
        world.wins(claim(slot, 0, None, 1)).await;
    }
    assert_eq!(world.loses(claim(4, 0, None, 1)).await, refused(SlotRefusal::Full), "the author's");
    let by_phone = |world: &World, slot| {
        let (store, accepting) =
            (world.store.clone(), world.claiming(device(9).into(), claim(slot, 0, None, 1)));
        async move { store.accept(accepting).await.unwrap() }
    };
    assert!(matches!(by_phone(&world, 4).await, Accepted::New(_)));
    assert_eq!(by_phone(&world, 5).await, refused(SlotRefusal::Full), "the tenant's");
    world.wins(claim(1, 1, Some(1), 2)).await;

    world.now_ms += 399 * DAY_MS;
    assert_eq!(world.forget_slots().await, 0);
    world.wins(claim(2, 1, Some(1), 2)).await;
    world.now_ms += DAY_MS;
    assert_eq!(world.forget_slots().await, 3);
    assert_eq!(world.loses(claim(1, 2, Some(2), 3)).await, refused(SlotRefusal::Unknown), "forgotten");
    world.wins(claim(2, 2, Some(2), 3)).await;
    for slot in [1, 3] {
        world.wins(claim(slot, 7, None, 1)).await;
    }
    assert_eq!(world.loses(claim(4, 0, None, 1)).await, refused(SlotRefusal::Full), "counted as before");
    assert!(matches!(by_phone(&world, 5).await, Accepted::New(_)));
    world.now_ms += 400 * DAY_MS;
    assert_eq!(world.forget_slots().await, 4);
    let left = world.store.engine().snapshot().range(key::SLOTS, ..).count();
    assert_eq!(left, 0, "nor is a count of none kept");
}

/// The claim and its message are durable together or not at all, wherever the store fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_has_the_claim_and_the_message_or_neither() {
    for (stage, is_there) in [(CommitStage::Before, false), (CommitStage::After, true)] {
        let world = World::new();
        world.register(1).await;
        world.wins(claim(1, 0, None, 1)).await;
        let World { _folder: folder, store, now_ms } = world;
        store.engine().shutdown();
        drop(store);

        let mut options = options(folder.path());
        let failing: CommitHook =
            Arc::new(
                move |now| {
                    if now == stage { Err(std::io::Error::other("no such disk")) } else { Ok(()) }
                },
            );
        options.engine.commit_hook = Some(failing);
        let on_fatal: FatalHandler = Arc::new(|_| ());
        options.engine.on_fatal = Some(on_fatal);
        let store = tokio::task::block_in_place(|| Store::open(options, &Metrics::new()).unwrap().0);
        let world = World { _folder: folder, store, now_ms };
        let in_doubt = claim(1, 1, Some(1), 2);
        assert!(world.store.accept(world.claiming(lab(), in_doubt.clone())).await.is_err());

        let world = world.restarted();
        assert_eq!(world.boxes(1).len(), if is_there { 2 } else { 1 });
        let rival = claim(1, 1, Some(1), 3);
        if is_there {
            assert_eq!(world.loses(rival).await, refused(SlotRefusal::Conflict));
            assert!(matches!(world.claim(in_doubt).await, Accepted::Duplicate(_)));
        } else {
            assert!(matches!(world.claim(in_doubt).await, Accepted::New(_)));
            assert_eq!(world.loses(rival).await, refused(SlotRefusal::Conflict));
        }
        world.wins(claim(1, 2, Some(2), 4)).await;
    }
}
