//! Several who commit at once, and messages that come late, twice or in another order.

use super::world::{Failing, World};
use crate::limits::{FORWARD_DISTANCE_MAX, OUT_OF_ORDER_MAX};
use crate::{CommitPlan, GroupError, Groups, Ignored, Processed, Refusal};

#[test]
fn the_loser_of_a_race_processes_the_winner_and_tries_again() {
    let mut world = World::new(&["patient", "nurse"]);
    let group = world.group;
    let by_patient = world.devices[1].stage(group, &CommitPlan::default());
    let by_nurse = world.devices[2].stage(group, &CommitPlan::default());
    assert_eq!(by_patient.claim.sequence, by_nurse.claim.sequence);
    assert!(world.slot.claim(&by_nurse.claim));
    assert!(!world.slot.claim(&by_patient.claim));
    world.devices[2].groups().merge_staged(group).unwrap();

    let outcomes = world.deliver(2, &by_nurse.frames);
    let lost: Vec<_> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Processed::Changed(change) => change.lost_own,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(lost, [false, true]);
    assert_eq!(world.devices[1].groups().merge_staged(group).unwrap_err().code(), "nothing_staged");
    world.commit(1, &CommitPlan::default());
    world.assert_agreed(&[0, 1, 2]);
}

#[test]
fn a_discarded_commit_leaves_the_group_where_it_was() {
    let mut world = World::new(&["patient"]);
    let group = world.group;
    let mut doctor = world.tenant.device("doctor");
    let add = vec![doctor.invited(world.suite())];
    world.devices[0].stage(group, &CommitPlan { add, ..CommitPlan::default() });
    assert!(world.devices[0].groups().state(group).unwrap().staged);
    let again = world.devices[0].groups().stage_commit(group, &CommitPlan::default());
    assert_eq!(again.unwrap_err().code(), "commit_staged");
    assert_eq!(world.devices[0].groups().leave(group).unwrap_err().code(), "commit_staged");
    world.devices[0].groups().discard_staged(group).unwrap();
    assert_eq!(world.devices[0].groups().discard_staged(group).unwrap_err().code(), "nothing_staged");
    world.assert_agreed(&[0, 1]);
}

#[test]
fn many_rounds_of_committers_have_one_winner_each() {
    let mut world = World::new(&["patient", "nurse", "doctor"]);
    let group = world.group;
    for round in 0..12 {
        let staged: Vec<_> =
            (0..4).map(|at| world.devices[at].stage(group, &CommitPlan::default())).collect();
        let first = round % 4;
        let winners: Vec<_> =
            (0..4).map(|step| (first + step) % 4).filter(|at| world.slot.claim(&staged[*at].claim)).collect();
        assert_eq!(winners, [first]);
        world.devices[first].groups().merge_staged(group).unwrap();
        world.deliver(first, &staged[first].frames);
    }
    world.assert_agreed(&[0, 1, 2, 3]);
}

#[test]
fn answers_to_a_commit_wait_for_its_own_merge() {
    let mut world = World::new(&["patient"]);
    let group = world.group;
    let staged = world.devices[0].stage(group, &CommitPlan::default());
    world.deliver(0, &staged.frames);
    let answer = world.devices[1].say(group, "in the new epoch");
    let patient = world.devices[1].id();
    assert_eq!(world.devices[0].process(patient, &answer.frame), Processed::SettleStagedFirst);
    world.devices[0].groups().merge_staged(group).unwrap();
    assert!(matches!(world.devices[0].process(patient, &answer.frame), Processed::Message(_)));
}

#[test]
fn own_frames_that_come_back_say_nothing() {
    let mut world = World::new(&["patient"]);
    let group = world.group;
    let lab = world.devices[0].id();
    let said = world.devices[0].say(group, "hello");
    let staged = world.devices[0].stage(group, &CommitPlan::default());
    for frame in [&said.frame, &staged.frames[0].frame] {
        assert_eq!(world.devices[0].process(lab, frame), Processed::Ignored(Ignored::Own));
    }
}

#[test]
fn messages_come_twice_late_and_in_any_order() {
    let mut world = World::new(&["patient"]);
    let group = world.group;
    let lab = world.devices[0].id();
    let said: Vec<_> =
        (0..=OUT_OF_ORDER_MAX + 1).map(|n| world.devices[0].say(group, &n.to_string())).collect();
    let (last, earlier) = said.split_last().unwrap();
    assert!(matches!(world.devices[1].process(lab, &last.frame), Processed::Message(_)));
    // Those of the window can be late; those before are lost.
    let mut opened = 0;
    for said in earlier {
        match world.devices[1].process(lab, &said.frame) {
            Processed::Message(_) => opened += 1,
            Processed::Ignored(Ignored::TooOld) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(opened, OUT_OF_ORDER_MAX - 1);
    for said in said.iter().rev().take(OUT_OF_ORDER_MAX as usize) {
        assert_eq!(world.devices[1].process(lab, &said.frame), Processed::Duplicate);
    }
}

#[test]
fn a_gap_in_an_authors_messages_is_bounded() {
    let mut world = World::new(&["patient"]);
    let group = world.group;
    let lab = world.devices[0].id();
    let mut last = world.devices[0].say(group, "first");
    for _ in 0..FORWARD_DISTANCE_MAX + 1 {
        last = world.devices[0].say(group, "lost");
    }
    let outcome = world.devices[1].process(lab, &last.frame);
    assert_eq!(outcome, Processed::Refused(Refusal::TooFarAhead));
    assert!(Refusal::TooFarAhead.may_pass_later());
    world.commit(1, &CommitPlan::default());
    world.assert_agreed(&[0, 1]);
}

#[test]
fn commits_of_epochs_that_are_over_say_nothing() {
    let mut world = World::new(&["patient", "nurse"]);
    let group = world.group;
    let lab = world.devices[0].id();
    let staged = world.devices[0].stage(group, &CommitPlan::default());
    assert!(world.slot.claim(&staged.claim));
    world.devices[0].groups().merge_staged(group).unwrap();
    world.deliver(0, &staged.frames);
    let again = world.devices[1].process(lab, &staged.frames[0].frame);
    assert_eq!(again, Processed::Ignored(Ignored::PastEpoch));
    world.assert_agreed(&[0, 1, 2]);
}

#[test]
fn a_dropped_transaction_leaves_no_trace() {
    let mut world = World::new(&["patient"]);
    let group = world.group;
    let lab = world.devices[0].id();
    let said = world.devices[0].say(group, "hello");
    let before = world.devices[1].store.clone();
    assert!(matches!(world.devices[1].process(lab, &said.frame), Processed::Message(_)));
    world.devices[1].store = before;
    // It is as if it had not come: it comes again, and opens.
    assert!(matches!(world.devices[1].process(lab, &said.frame), Processed::Message(_)));

    let staged = world.devices[0].stage(group, &CommitPlan::default());
    world.slot.claim(&staged.claim);
    world.devices[0].groups().merge_staged(group).unwrap();
    let before = world.devices[1].store.clone();
    world.deliver(0, &staged.frames);
    world.devices[1].store = before;
    assert_eq!(world.devices[1].epoch(group), 1);
    world.deliver(0, &staged.frames);
    world.assert_agreed(&[0, 1]);
}

#[test]
fn what_is_refused_changes_nothing() {
    let mut world = World::new(&["patient"]);
    let group = world.group;
    let lab = world.devices[0].id();
    let mut said = world.devices[0].say(group, "hello").frame;
    let last = said.body.len() - 1;
    said.body[last] ^= 1;
    let before = world.devices[1].store.clone();
    assert_eq!(world.devices[1].process(lab, &said), Processed::Refused(Refusal::Undecryptable));
    assert_eq!(world.devices[1].store, before);
    said.body[last] ^= 1;
    assert!(matches!(world.devices[1].process(lab, &said), Processed::Message(_)));
}

/// At each of its calls in turn, reads and writes alike: the operation says so, and after the transaction is dropped
/// it is as if it had not been tried.
#[test]
fn a_store_that_fails_anywhere_loses_nothing() {
    let mut world = World::new(&["patient", "nurse"]);
    let group = world.group;
    let lab = world.devices[0].id();
    let said = world.devices[0].say(group, "hello");
    let staged = world.devices[0].stage(group, &CommitPlan::default());
    world.slot.claim(&staged.claim);
    world.devices[0].groups().merge_staged(group).unwrap();
    for frame in [&said.frame, &staged.frames[0].frame] {
        let device = &mut world.devices[1];
        let before = device.store.clone();
        let mut failures = 0;
        loop {
            let mut memory = before.clone();
            let mut store = Failing { memory: &mut memory, left: std::cell::Cell::new(failures) };
            let mut groups =
                Groups::new(&device.member, &device.trust, device.now, &mut store, &mut device.dice);
            match groups.process(lab, frame) {
                Err(GroupError::Store(error)) => assert_eq!(error.to_string(), "the disk is full"),
                Err(other) => panic!("{other:?} at call {failures}"),
                Ok(processed) => {
                    assert!(
                        matches!(processed, Processed::Message(_) | Processed::Changed(_)),
                        "{processed:?}"
                    );
                    device.store = memory;
                    break;
                }
            }
            failures += 1;
        }
        assert!(failures > 10, "{failures}");
    }
    world.deliver(0, &[said]);
    let nurse = world.devices[2].id();
    world.deliver(0, &staged.frames);
    assert!(world.devices[1].in_group(group).contains(&nurse));
    world.assert_agreed(&[0, 1, 2]);
}
