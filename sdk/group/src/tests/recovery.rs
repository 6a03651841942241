//! Lost epochs, lost stores, copied states.

use super::world::{DAY, World};
use crate::{CommitPlan, CommitReason, GroupSuite, Ignored, Processed, Refusal};

/// The device at `lost` comes back by an external commit, helped by the one at `helper`.
fn rejoin(world: &mut World, lost: usize, helper: usize) -> Vec<Processed> {
    let group = world.group;
    let (who, by) = (world.devices[lost].id(), world.devices[helper].id());
    let asks = world.devices[lost].groups().ask_to_rejoin(group).unwrap();
    assert!(asks.to.contains(&by));
    let outcome = world.devices[helper].process(who, &asks.frame);
    assert_eq!(outcome, Processed::GroupInfoWanted { group, by: who });
    let info = world.devices[helper].groups().group_info(group, who).unwrap();
    assert_eq!(info.to, [who]);
    let outcome = world.devices[lost].process(by, &info.frame);
    assert_eq!(outcome, Processed::GroupInfoOffered { group, by });
    let set = world.devices[lost].set.clone();
    let staged = world.devices[lost].groups().rejoin(by, &info.frame, Some(&set)).unwrap();
    assert!(world.slot.claim(&staged.claim), "the capability came with the group info");
    world.devices[lost].groups().merge_staged(group).unwrap();
    world.deliver(lost, &staged.frames)
}

fn comes_back_in(suite: GroupSuite) {
    let mut world = World::with_suite(&["patient", "nurse"], suite);
    let group = world.group;
    let nurse = world.devices[2].id();
    let late = world.devices[1].say(group, "before the epoch that was lost");
    let kept = world.devices[2].store.clone();
    world.commit(0, &CommitPlan::default());
    world.devices[2].store = kept;
    let said = world.devices[1].say(group, "in the epoch that was lost");
    let patient = world.devices[1].id();
    let outcome = world.devices[2].process(patient, &said.frame);
    assert_eq!(outcome, Processed::NeedsRejoin { group, ours: 1, theirs: 2 });

    let outcomes = rejoin(&mut world, 2, 1);
    for outcome in outcomes {
        let Processed::Changed(change) = outcome else { panic!("{outcome:?}") };
        assert!(change.came_back && change.added.is_empty() && change.removed.is_empty());
        assert_eq!((change.by, change.epoch), (nurse, 3));
    }
    world.assert_agreed(&[0, 1, 2]);
    assert_eq!(world.devices[1].in_group(group).len(), 3, "it took its own place");
    // The old state still reads what was written in its time.
    assert!(matches!(world.devices[2].process(patient, &late.frame), Processed::Message(_)));
    assert_eq!(world.devices[2].process(patient, &said.frame), Processed::Ignored(Ignored::TooOld));
    world.devices[2].now = world.devices[2].now.plus(7 * DAY);
    world.devices[2].groups().forget_old_epochs().unwrap();
    assert_eq!(world.devices[2].process(patient, &late.frame), Processed::Ignored(Ignored::TooOld));
    world.commit(2, &CommitPlan::default());
    world.assert_agreed(&[0, 1, 2]);
}

#[test]
fn a_member_that_lost_an_epoch_comes_back() {
    comes_back_in(GroupSuite::Classical);
}

#[test]
fn a_member_that_lost_an_epoch_comes_back_behind_x_wing() {
    comes_back_in(GroupSuite::Hybrid);
}

#[test]
fn a_steward_comes_back_as_steward() {
    let mut world = World::new(&["patient", "nurse"]);
    let kept = world.devices[0].store.clone();
    world.commit(1, &CommitPlan::default());
    world.devices[0].store = kept;
    rejoin(&mut world, 0, 2);
    world.assert_agreed(&[0, 1, 2]);
    let doctor = world.tenant.device("doctor");
    world.invite(vec![doctor]);
    world.assert_agreed(&[0, 1, 2, 3]);
}

#[test]
fn a_return_that_lost_its_race_is_tried_again() {
    let mut world = World::new(&["patient", "nurse"]);
    let group = world.group;
    let kept = world.devices[2].store.clone();
    world.commit(0, &CommitPlan::default());
    world.devices[2].store = kept;
    let (lab, nurse) = (world.devices[0].id(), world.devices[2].id());
    let info = world.devices[0].groups().group_info(group, nurse).unwrap();
    let old = world.devices[2].store.clone();
    let staged = world.devices[2].groups().rejoin(lab, &info.frame, None).unwrap();
    // Somebody else commits first.
    let other = world.devices[1].stage(group, &CommitPlan::default());
    assert!(world.slot.claim(&other.claim));
    assert!(!world.slot.claim(&staged.claim));
    let before = world.devices[2].groups().state(group).unwrap();
    assert!(before.staged);
    world.devices[2].groups().discard_staged(group).unwrap();
    assert_eq!(world.devices[2].store, old, "nothing is left of it");
    let after = world.devices[2].groups().state(group).unwrap();
    assert_eq!((after.epoch, after.authenticator), (before.epoch, before.authenticator));
    world.devices[1].groups().merge_staged(group).unwrap();
    let patient = world.devices[1].id();
    assert!(matches!(world.devices[0].process(patient, &other.frames[0].frame), Processed::Changed(_)));
    rejoin(&mut world, 2, 0);
    world.assert_agreed(&[0, 1, 2]);
}

#[test]
fn who_is_removed_while_coming_back_is_out() {
    let mut world = World::new(&["patient", "nurse"]);
    let group = world.group;
    let (lab, nurse) = (world.devices[0].id(), world.devices[2].id());
    // The commits of two epochs wait for the nurse, whose return begins at the end of the first.
    let first = world.devices[0].stage(group, &CommitPlan::default());
    world.devices[0].groups().merge_staged(group).unwrap();
    let info = world.devices[0].groups().group_info(group, nurse).unwrap();
    world.devices[2].groups().rejoin(lab, &info.frame, None).unwrap();
    let plan = CommitPlan { remove: vec![nurse], ..CommitPlan::default() };
    let removal = world.devices[0].stage(group, &plan);
    assert!(matches!(world.devices[2].process(lab, &first.frames[0].frame), Processed::Changed(_)));
    let outcome = world.devices[2].process(lab, &removal.frames[0].frame);
    assert_eq!(outcome, Processed::Removed { group, by: lab });
    assert_eq!(world.devices[2].groups().merge_staged(group).unwrap_err().code(), "nothing_staged");
    world.devices[2].groups().forget(group).unwrap();
    assert_eq!(world.devices[2].store.0.len(), 2, "the lists of groups and of key packages");
}

#[test]
fn a_missing_commit_that_comes_after_all_is_taken() {
    let mut world = World::new(&["patient", "nurse"]);
    let group = world.group;
    let lab = world.devices[0].id();
    let first = world.devices[0].stage(group, &CommitPlan::default());
    world.slot.claim(&first.claim);
    world.devices[0].groups().merge_staged(group).unwrap();
    let second = world.devices[0].stage(group, &CommitPlan::default());
    world.slot.claim(&second.claim);
    world.devices[0].groups().merge_staged(group).unwrap();
    // In the wrong order: the second waits.
    let outcome = world.devices[1].process(lab, &second.frames[0].frame);
    assert_eq!(outcome, Processed::NeedsRejoin { group, ours: 1, theirs: 2 });
    // A return is staged meanwhile; the commits before its base do not touch it, and the one at its base ends it.
    let patient = world.devices[1].id();
    let info = world.devices[0].groups().group_info(group, patient).unwrap();
    let rejoin = world.devices[1].groups().rejoin(lab, &info.frame, None).unwrap();
    for (frame, lost_own) in [(&first, false), (&second, false)] {
        let outcome = world.devices[1].process(lab, &frame.frames[0].frame);
        assert!(matches!(outcome, Processed::Changed(change) if change.lost_own == lost_own));
    }
    let third = world.devices[0].stage(group, &CommitPlan::default());
    world.slot.claim(&third.claim);
    world.devices[0].groups().merge_staged(group).unwrap();
    let outcome = world.devices[1].process(lab, &third.frames[0].frame);
    assert!(matches!(outcome, Processed::Changed(change) if change.lost_own));
    assert!(!world.slot.claim(&rejoin.claim));
    assert_eq!(world.devices[1].groups().merge_staged(group).unwrap_err().code(), "nothing_staged");
    world.deliver(0, &first.frames);
    world.deliver(0, &second.frames);
    world.deliver(0, &third.frames);
    world.assert_agreed(&[0, 1, 2]);
}

#[test]
fn a_copied_state_opens_nothing_after_its_owners_update() {
    let mut world = World::new(&["patient", "nurse"]);
    let group = world.group;
    let stolen = world.devices[2].store.clone();
    let said = world.devices[1].say(group, "the thief reads this");
    world.deliver(1, std::slice::from_ref(&said));
    world.commit(2, &CommitPlan::default());
    let after = world.devices[1].say(group, "and not this");

    let patient = world.devices[1].id();
    let owner = std::mem::replace(&mut world.devices[2].store, stolen);
    assert!(matches!(world.devices[2].process(patient, &said.frame), Processed::Message(_)));
    let nurse = world.devices[2].id();
    let outcome = world.devices[2].process(patient, &after.frame);
    assert_eq!(outcome, Processed::NeedsRejoin { group, ours: 1, theirs: 2 });
    // The owner's own commit does not bring the copy along either.
    let commit = world.devices[2].stage(group, &CommitPlan::default());
    assert_eq!(
        world.devices[1].process(nurse, &commit.frames[0].frame),
        Processed::Ignored(Ignored::PastEpoch)
    );
    world.devices[2].store = owner;
    world.assert_agreed(&[0, 1, 2]);
}

#[test]
fn a_stranger_and_one_who_is_out_are_given_nothing() {
    let mut world = World::new(&["patient", "nurse"]);
    let group = world.group;
    let stranger = world.tenant.device("stranger");
    let asks = world.devices[1].groups().ask_to_rejoin(group).unwrap();
    let outcome = world.devices[0].process(stranger.id(), &asks.frame);
    assert_eq!(outcome, Processed::Ignored(Ignored::Stranger));
    let refused = world.devices[0].groups().group_info(group, stranger.id()).unwrap_err();
    assert_eq!(refused.code(), "no_such_member");

    // Somebody who was removed comes back neither by an old group info nor by a stolen one.
    let nurse = world.devices[2].id();
    let info = world.devices[0].groups().group_info(group, nurse).unwrap();
    let lab = world.devices[0].id();
    let mut out = world.devices[2].store.clone();
    world.commit(0, &CommitPlan { remove: vec![nurse], ..CommitPlan::default() });
    let patient = world.devices[1].id();
    let fresh = world.devices[0].groups().group_info(group, patient);
    std::mem::swap(&mut out, &mut world.devices[2].store);
    let late = world.devices[2].groups().rejoin(lab, &info.frame, None).unwrap();
    assert!(!world.slot.claim(&late.claim), "the slot has moved on");
    let outcome = world.devices[1].process(nurse, &late.frames[0].frame);
    assert_eq!(outcome, Processed::Ignored(Ignored::PastEpoch));
    world.devices[2].groups().discard_staged(group).unwrap();
    let refused = world.devices[2].groups().rejoin(lab, &fresh.unwrap().frame, None);
    // Its own leaf is not in the tree: it would come in as somebody new.
    if let Ok(staged) = refused {
        let outcome = world.devices[1].process(nurse, &staged.frames[0].frame);
        assert_eq!(outcome, Processed::Refused(Refusal::NotMember));
    }
    world.assert_agreed(&[0, 1]);
}

#[test]
fn who_knows_nobody_that_is_still_in_comes_back_by_a_newcomer() {
    let mut world = World::new(&["patient", "nurse"]);
    let group = world.group;
    let kept = world.devices[1].store.clone();
    let doctor = world.tenant.device("doctor");
    world.invite(vec![doctor]);
    let nurse = world.devices[2].id();
    world.commit(0, &CommitPlan { remove: vec![nurse], ..CommitPlan::default() });
    world.devices[1].store = kept;
    world.devices[1].groups().mark_restored().unwrap();

    let (patient, doctor) = (world.devices[1].id(), world.devices[3].id());
    let asks = world.devices[1].groups().ask_to_rejoin(group).unwrap();
    assert!(!asks.to.contains(&doctor));
    let outcome = world.devices[3].process(patient, &asks.frame);
    assert_eq!(outcome, Processed::GroupInfoWanted { group, by: patient });
    let info = world.devices[3].groups().group_info(group, patient).unwrap();
    let outcome = world.devices[1].process(doctor, &info.frame);
    assert_eq!(outcome, Processed::GroupInfoOffered { group, by: doctor });
    let stranger = world.tenant.device("stranger").id();
    let refused = world.devices[1].groups().rejoin(stranger, &info.frame, None).unwrap_err();
    assert_eq!(refused.code(), "not_member");
    let staged = world.devices[1].groups().rejoin(doctor, &info.frame, None).unwrap();
    assert!(world.slot.claim(&staged.claim));
    world.devices[1].groups().merge_staged(group).unwrap();
    world.deliver(1, &staged.frames);
    world.assert_agreed(&[0, 1, 3]);
}

#[test]
fn a_group_info_of_an_epoch_that_is_over_here_is_stale() {
    let mut world = World::new(&["patient"]);
    let group = world.group;
    let (lab, patient) = (world.devices[0].id(), world.devices[1].id());
    let info = world.devices[0].groups().group_info(group, patient).unwrap();
    world.commit(0, &CommitPlan::default());
    let refused = world.devices[1].groups().rejoin(lab, &info.frame, None).unwrap_err();
    assert_eq!(refused.code(), "stale");
}

#[test]
fn a_member_that_is_lost_for_good_is_invited_anew() {
    let mut world = World::new(&["patient", "nurse"]);
    let group = world.group;
    let nurse = world.devices[2].id();
    // A new installation of the same device has nothing but its identity.
    world.devices[2].store = super::world::Memory::default();
    let add = vec![world.devices[2].invited(GroupSuite::Classical)];
    let plan = CommitPlan { add, remove: vec![nurse], ..CommitPlan::default() };
    world.commit(0, &plan);
    world.assert_agreed(&[0, 1, 2]);
    assert_eq!(world.devices[1].in_group(group).len(), 3);
}

#[test]
fn a_phone_that_was_off_for_weeks_catches_up() {
    let mut world = World::new(&["patient", "nurse"]);
    let group = world.group;
    let lab = world.devices[0].id();
    let mut waiting = Vec::new();
    for _ in 0..8 {
        for at in [0, 1] {
            world.devices[at].now = world.devices[at].now.plus(7 * DAY);
        }
        waiting.push(world.devices[0].say(group, "weekly"));
        let staged = world.devices[0].stage(group, &CommitPlan::default());
        assert!(world.slot.claim(&staged.claim));
        world.devices[0].groups().merge_staged(group).unwrap();
        waiting.extend(staged.frames);
    }
    for at in [1, 2] {
        world.devices[at].now = world.devices[0].now;
        for waiting in &waiting {
            let outcome = world.devices[at].process(lab, &waiting.frame);
            assert!(matches!(outcome, Processed::Message(_) | Processed::Changed(_)), "{outcome:?}");
        }
    }
    assert_eq!(world.devices[2].groups().commit_due(group).unwrap(), Some(CommitReason::Update));
    world.assert_agreed(&[0, 1, 2]);
}

#[test]
fn a_store_that_was_restored_writes_nothing_until_it_is_back() {
    let mut world = World::new(&["patient", "nurse"]);
    let group = world.group;
    world.devices[2].groups().make_key_packages(2, GroupSuite::Classical, true).unwrap();
    world.devices[2].stage(group, &CommitPlan::default());
    assert_eq!(world.devices[2].groups().mark_restored().unwrap(), [group]);
    let state = world.devices[2].groups().state(group).unwrap();
    assert_eq!((state.standing, state.staged), (crate::Standing::Lost, false));
    let content = super::world::text_of(&mut super::world::Dice::new("x"), world.tenant.now, "reused keys");
    let lab = world.devices[0].id();
    assert_eq!(world.devices[2].groups().send(group, &content).unwrap_err().code(), "state_lost");
    assert_eq!(world.devices[2].groups().leave(group).unwrap_err().code(), "state_lost");
    assert_eq!(world.devices[2].groups().group_info(group, lab).unwrap_err().code(), "state_lost");
    assert_eq!(world.devices[2].refused(group, &CommitPlan::default()), "state_lost");
    assert_eq!(world.devices[2].groups().commit_due(group).unwrap(), None);
    let kept = world.devices[2].groups().key_packages_kept().unwrap();
    assert!(kept.iter().all(|kept| kept.one_time == 0 && kept.last_resort_until.is_none()));
    // It reads, and a commit of somebody else does not make its keys good.
    let said = world.devices[0].say(group, "hello");
    assert!(matches!(world.devices[2].process(lab, &said.frame), Processed::Message(_)));
    world.commit(0, &CommitPlan::default());
    assert_eq!(world.devices[2].groups().send(group, &content).unwrap_err().code(), "state_lost");
    rejoin(&mut world, 2, 1);
    assert_eq!(world.devices[2].groups().state(group).unwrap().standing, crate::Standing::In);
    world.assert_agreed(&[0, 1, 2]);
}

#[test]
fn a_fork_shows_in_the_authenticators() {
    let mut world = World::new(&["patient", "nurse"]);
    let group = world.group;
    // A relay that lets two commits win.
    let by_patient = world.devices[1].stage(group, &CommitPlan::default());
    let by_nurse = world.devices[2].stage(group, &CommitPlan::default());
    world.devices[1].groups().merge_staged(group).unwrap();
    world.devices[2].groups().merge_staged(group).unwrap();
    let (patient, nurse) = (world.devices[1].id(), world.devices[2].id());
    world.devices[0].process(patient, &by_patient.frames[0].frame);
    let states: Vec<_> = (0..3).map(|at| world.devices[at].groups().state(group).unwrap()).collect();
    assert!(states.iter().all(|state| state.epoch == 2));
    assert_eq!(states[0].authenticator, states[1].authenticator);
    assert_ne!(states[0].authenticator, states[2].authenticator);
    let said = world.devices[2].say(group, "from the other branch");
    assert_eq!(world.devices[0].process(nurse, &said.frame), Processed::Refused(Refusal::Undecryptable));
    assert_eq!(
        world.devices[0].process(nurse, &by_nurse.frames[0].frame),
        Processed::Ignored(Ignored::PastEpoch)
    );
    // The one whose branch the slot did not take comes back into the other.
    world.slot.claim(&by_patient.claim);
    let info = world.devices[1].groups().group_info(group, nurse).unwrap();
    let staged = world.devices[2].groups().rejoin(patient, &info.frame, None).unwrap();
    assert!(world.slot.claim(&staged.claim));
    world.devices[2].groups().merge_staged(group).unwrap();
    world.deliver(2, &staged.frames);
    world.assert_agreed(&[0, 1, 2]);
}
