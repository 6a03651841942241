//! Claims of submissions on slots, over HTTP and over the end of the relay.

use std::time::Duration;

use http::StatusCode;
use sealpost_service::clock::SystemClock;
use sealpost_wire::api::relay::Submission;
use sealpost_wire::certificate::Role;
use sealpost_wire::clock::{Clock as _, UnixTime};
use sealpost_wire::id::{DeviceId, Digest, SlotId, TransportId};
use sealpost_wire::limits::SLOT_SEQUENCE_MAX;
use sealpost_wire::payload::Priority;
use sealpost_wire::slot::{SlotCapability, SlotClaim};

use crate::client::{Answer, ApiClient, Http, new_id, submission};
use crate::process::Process;
use crate::world::World;

const SLOT: SlotId = SlotId([7; 16]);

/// What holders of a place show; a number stands for the secret of an epoch.
fn capability(number: u64) -> SlotCapability {
    SlotCapability::from_bytes(Digest::of(&number.to_be_bytes()).0)
}

fn claim(sequence: u64, shown: Option<u64>, next: u64) -> SlotClaim {
    let (shown, next) = (shown.map(capability), capability(next).digest());
    SlotClaim { slot: SLOT, sequence, capability: shown, next }
}

/// A submission to `device`, with a claim.
fn claiming(device: DeviceId, claim: SlotClaim, expires_at: UnixTime) -> Submission {
    let content = format!("{} {:?}", claim.sequence, claim.next);
    let one = submission(&[device], &content, Priority::Normal, expires_at);
    Submission { slot: Some(claim), ..one }
}

#[tokio::test(flavor = "multi_thread")]
async fn senders_and_devices_claim_in_turn_and_each_refusal_has_its_code() {
    let mut world = World::start().await;
    let (nurse, doctor, sender) = (world.phone().await, world.quiet_phone().await, world.sender().await);
    let until = world.now().plus(600);
    let one = |claim| claiming(doctor.id, claim, until);
    let by_sender = async |claim| sender.submit(new_id(), &one(claim)).await;
    let by_nurse = async |claim| nurse.submit(new_id(), &one(claim)).await;
    let digest = || world.relay().store().engine().logical_digest().unwrap();
    let refused = async |claim: SlotClaim, code: &str| {
        let before = digest();
        assert_eq!(by_sender(claim.clone()).await.problem(), code);
        assert_eq!(by_nurse(claim).await.problem(), code);
        assert!(digest() == before, "{code}: something was stored");
    };
    refused(claim(0, Some(0), 1), "slot_unknown").await;
    by_sender(claim(0, None, 1)).await.expect(StatusCode::ACCEPTED);
    refused(claim(0, None, 9), "slot_conflict").await;
    refused(claim(1, Some(9), 9), "slot_forbidden").await;
    refused(claim(1, None, 9), "slot_forbidden").await;
    refused(claim(2, Some(1), 9), "slot_conflict").await;
    refused(SlotClaim { slot: SlotId([8; 16]), ..claim(SLOT_SEQUENCE_MAX + 1, None, 9) }, "invalid_value")
        .await;
    by_nurse(claim(1, Some(1), 2)).await.expect(StatusCode::ACCEPTED);
    refused(claim(1, Some(1), 9), "slot_conflict").await;
    let (id, third) = (new_id(), one(claim(2, Some(2), 3)));
    let first = sender.submit(id, &third).await.expect(StatusCode::ACCEPTED);
    let other = Submission { slot: Some(claim(2, Some(2), 4)), ..third.clone() };
    assert_eq!(sender.submit(id, &other).await.problem(), "conflict", "the claim is part of the submission");
    let without = Submission { slot: None, ..third.clone() };
    assert_eq!(sender.submit(id, &without).await.problem(), "conflict");
    assert_eq!(doctor.boxes().await.len(), 3);

    let john = world.client(&world.john, "lab", &[Role::Sender]).await;
    assert_eq!(john.submit(new_id(), &one(claim(3, Some(3), 4))).await.problem(), "slot_unknown");
    john.submit(new_id(), &one(claim(5, None, 6))).await.expect(StatusCode::ACCEPTED);

    let shown = String::from_utf8(world.http().get("/metrics").await.body.to_vec()).unwrap();
    for (outcome, count) in
        [("made", 2), ("won", 2), ("conflict", 6), ("unknown", 3), ("forbidden", 4), ("full", 0)]
    {
        let line = format!("sealpost_relay_slot_claims_total{{outcome=\"{outcome}\"}} {count}");
        assert!(shown.contains(&line), "{line}");
    }

    world.restart().await;
    world.pass(Duration::from_secs(601));
    let sender = world.sender().await;
    let again = sender.submit(id, &third).await.expect(StatusCode::ACCEPTED);
    assert_eq!(again.body, first.body, "over since, and the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_are_bounded() {
    let world = World::start_with("limits = { slots_per_tenant_max = 1 }").await;
    let (nurse, doctor) = (world.phone().await, world.phone().await);
    let until = world.now().plus(600);
    nurse.submit(new_id(), &claiming(doctor.id, claim(0, None, 1), until)).await.expect(StatusCode::ACCEPTED);
    let other = SlotClaim { slot: SlotId([8; 16]), ..claim(0, None, 1) };
    let full = nurse.submit(new_id(), &claiming(doctor.id, other, until)).await;
    assert_eq!((full.status, full.problem().as_str()), (StatusCode::INSUFFICIENT_STORAGE, "out_of_space"));
    nurse
        .submit(new_id(), &claiming(doctor.id, claim(1, Some(1), 2), until))
        .await
        .expect(StatusCode::ACCEPTED);
}

/// Races of a sender and a device for one place after the other.
const RACES: u64 = 100;

#[tokio::test(flavor = "multi_thread")]
async fn races_for_a_place_have_one_winner_each_and_nobody_is_stuck() {
    let world = World::start().await;
    let (nurse, doctor, sender) = (world.phone().await, world.phone().await, world.sender().await);
    let (first, until) = ((1 << 48) - 2, world.now().plus(600));
    let mut shown = None;
    let mut won = [0, 0];
    for sequence in first..first + RACES {
        let [by_sender, by_nurse] = [0, 1].map(|claimant| {
            let next = sequence * 2 + claimant;
            claiming(doctor.id, claim(sequence, shown, next), until)
        });
        let (sender_id, nurse_id) = (new_id(), new_id());
        let answers = tokio::join!(sender.submit(sender_id, &by_sender), nurse.submit(nurse_id, &by_nurse));
        let winner = match (answers.0.status, answers.1.status) {
            (StatusCode::ACCEPTED, StatusCode::CONFLICT) => 0,
            (StatusCode::CONFLICT, StatusCode::ACCEPTED) => 1,
            _ => panic!("{answers:?}"),
        };
        let loser = if winner == 0 { &answers.1 } else { &answers.0 };
        assert_eq!(loser.problem(), "slot_conflict");
        won[winner] += 1;
        shown = Some(sequence * 2 + u64::try_from(winner).unwrap());
        // The author's answer was lost: it asks again, and hears that it has won.
        if sequence % 10 == 0 {
            let again = if winner == 0 {
                sender.submit(sender_id, &by_sender).await
            } else {
                nurse.submit(nurse_id, &by_nurse).await
            };
            again.expect(StatusCode::ACCEPTED);
        }
    }
    assert_eq!(won[0] + won[1], RACES);
    let status = nurse.submit(new_id(), &claiming(doctor.id, claim(first + RACES, shown, 0), until)).await;
    status.expect(StatusCode::ACCEPTED);
}

/// How often the relay is killed, after so many races.
const KILLS: usize = 3;
const RACES_BEFORE: usize = 20;

/// One of two that race: its submission, the number of the capability that it names, and whether it was told
/// to have won.
struct Claimant {
    id: TransportId,
    one: Submission,
    next: u64,
    told: Option<bool>,
}

/// Two race for each place of a slot until the relay is killed; what they were told stands, and what they
/// were not told is completed by the same bytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_relay_has_one_winner_for_each_place() {
    let world = World::stopped("").await;
    let now = SystemClock.now();
    let key = world.mary.key("lab", &[Role::Sender], now);
    // What the last winner has named, and the place behind it.
    let (mut shown, mut place) = (None, 100);
    let mut in_doubt: Option<[Claimant; 2]> = None;
    for _ in 0..KILLS {
        let process = Process::start(&world);
        let assertion = world.mary.assertion(&key, SystemClock.now());
        let sender = ApiClient::with_assertion(Http::new(&process.url), &assertion).await;
        if let Some(claimants) = in_doubt.take() {
            let mut winners = Vec::new();
            for claimant in claimants {
                let has_won = won(&sender.submit(claimant.id, &claimant.one).await);
                assert!(claimant.told.is_none_or(|told| told == has_won), "it was told otherwise before");
                winners.extend(has_won.then_some(claimant.next));
            }
            assert_eq!(winners.len(), 1);
            (shown, place) = (winners.first().copied(), place + 1);
        }
        let mut process = Some(process);
        for round in 0.. {
            let mut claimants = [0, 1].map(|number| {
                let next = place * 2 + number;
                let one = claiming(DeviceId([1; 16]), claim(place, shown, next), now.plus(600));
                Claimant { id: new_id(), one, next, told: None }
            });
            let killed = if round == RACES_BEFORE { process.take() } else { None };
            let answers = tokio::join!(
                sender.try_submit(claimants[0].id, &claimants[0].one),
                sender.try_submit(claimants[1].id, &claimants[1].one),
                // Right after both were sent.
                async { drop(killed) },
            );
            claimants[0].told = answers.0.as_ref().map(won);
            claimants[1].told = answers.1.as_ref().map(won);
            let winners: Vec<_> =
                claimants.iter().filter(|one| one.told == Some(true)).map(|one| one.next).collect();
            assert!(winners.len() <= 1, "both were told to have won");
            if claimants.iter().any(|one| one.told.is_none()) {
                assert!(round >= RACES_BEFORE, "an answer was lost before the relay was killed");
                in_doubt = Some(claimants);
                break;
            }
            assert_eq!(winners.len(), 1);
            (shown, place) = (winners.first().copied(), place + 1);
        }
    }
}

fn won(answer: &Answer) -> bool {
    if answer.status == StatusCode::ACCEPTED {
        return true;
    }
    assert_eq!(answer.problem(), "slot_conflict");
    false
}
