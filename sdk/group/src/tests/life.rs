//! How groups live when nothing goes wrong.

use super::world::{DAY, World};
use crate::{
    CommitPlan, CommitReason, ContentKind, GroupContent, GroupReply, GroupSuite, Ignored, MessageId,
    Processed, Standing,
};

fn texts(outcomes: &[Processed]) -> Vec<&str> {
    outcomes
        .iter()
        .map(|outcome| match outcome {
            Processed::Message(message) => message.content.text.as_str(),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn talks_in(suite: GroupSuite) {
    let mut world = World::with_suite(&["patient", "nurse"], suite);
    let group = world.group;
    let said = world.devices[1].say(group, "Is the dose right?");
    let outcomes = world.deliver(1, &[said]);
    assert_eq!(texts(&outcomes), ["Is the dose right?"; 2]);
    let Processed::Message(message) = &outcomes[0] else { panic!() };
    assert_eq!(message.author, world.devices[1].id());
    assert_eq!(message.epoch, 1);
    world.assert_agreed(&[0, 1, 2]);
    assert_eq!(world.devices[2].groups().state(group).unwrap().suite, suite);
}

#[test]
fn members_hear_each_other() {
    talks_in(GroupSuite::Classical);
}

#[test]
fn members_hear_each_other_behind_x_wing() {
    talks_in(GroupSuite::Hybrid);
}

#[test]
fn operations_of_one_transaction_follow_each_other() {
    let mut world = World::new(&["patient", "nurse"]);
    let group = world.group;
    let content = content_of(&world);
    let mut sent = Vec::new();
    let mut groups = world.devices[1].groups();
    for _ in 0..3 {
        sent.push(groups.send(group, &content).unwrap());
    }
    let update = groups.stage_commit(group, &CommitPlan::default()).unwrap();
    sent.push(groups.send(group, &content).unwrap());
    assert!(world.slot.claim(&update.claim));
    let mut groups = world.devices[1].groups();
    groups.merge_staged(group).unwrap();
    let after = groups.send(group, &content).unwrap();
    assert_eq!(groups.state(group).unwrap().epoch, 2);

    let patient = world.devices[1].id();
    let mut groups = world.devices[0].groups();
    for sent in &sent {
        assert!(matches!(groups.process(patient, &sent.frame).unwrap(), Processed::Message(_)));
        assert_eq!(groups.process(patient, &sent.frame).unwrap(), Processed::Duplicate);
    }
    assert!(matches!(groups.process(patient, &update.frames[0].frame).unwrap(), Processed::Changed(_)));
    assert!(matches!(groups.process(patient, &after.frame).unwrap(), Processed::Message(_)));
    assert_eq!(groups.process(patient, &sent[0].frame).unwrap(), Processed::Duplicate);
    groups.send(group, &content).unwrap();
    world.deliver(1, &update.frames[..1]);
    world.assert_agreed(&[0, 1, 2]);
}

#[test]
fn an_answer_and_a_confirmation_name_the_question() {
    let mut world = World::new(&["patient"]);
    let group = world.group;
    let now = world.tenant.now;
    let question = GroupContent {
        id: MessageId([7; 16]),
        created: now,
        kind: ContentKind::Text,
        text: "Is the dose right?".into(),
        about: None,
        quick_replies: vec![GroupReply { code: "yes".into(), label: "Yes".into() }],
    };
    let answer = GroupContent {
        id: MessageId([8; 16]),
        kind: ContentKind::QuickReply,
        text: "yes".into(),
        about: Some(question.id),
        quick_replies: vec![],
        ..question.clone()
    };
    let seen = GroupContent {
        id: MessageId([9; 16]),
        kind: ContentKind::Confirmation,
        text: String::new(),
        ..answer.clone()
    };
    for (by, content) in [(0, question), (1, answer), (0, seen)] {
        let sent = world.devices[by].groups().send(group, &content).unwrap();
        let outcomes = world.deliver(by, &[sent]);
        assert!(matches!(&outcomes[..], [Processed::Message(message)] if message.content == content));
    }
}

#[test]
fn the_roster_says_who_is_in() {
    let mut world = World::new(&["patient", "nurse"]);
    let group = world.group;
    let ids: Vec<_> = world.devices.iter().map(super::world::Device::id).collect();
    let recipients: Vec<_> = world.devices.iter().map(|device| device.recipient).collect();
    let members = world.devices[0].groups().members(group).unwrap();
    let steward: Vec<_> = members.iter().map(|entry| entry.steward).collect();
    let sender: Vec<_> = members.iter().map(|entry| entry.sender.is_some()).collect();
    assert_eq!(members.iter().map(|entry| entry.device).collect::<Vec<_>>(), ids);
    assert_eq!(steward, [true, false, false]);
    assert_eq!(sender, [true, false, false]);
    assert_eq!(members[1].recipient, Some(recipients[1]), "its set came with it");
    let state = world.devices[2].groups().state(group).unwrap();
    assert_eq!((state.label.as_str(), state.epoch, state.standing), ("Ward 3", 1, Standing::In));
    assert_eq!(state.stewards, [ids[0]]);
    assert_eq!(world.devices[1].groups().list().unwrap(), [group]);
}

#[test]
fn a_removed_member_opens_nothing_later_and_an_added_one_nothing_earlier() {
    let mut world = World::new(&["patient", "nurse"]);
    let group = world.group;
    let (patient, nurse) = (world.devices[1].id(), world.devices[2].id());
    let content = content_of(&world);
    let before = world.devices[1].say(group, "before");
    let doctor = world.tenant.device("doctor");
    world.invite(vec![doctor]);
    assert!(!matches!(world.devices[3].process(patient, &before.frame), Processed::Message(_)));
    let late = world.devices[1].say(group, "sent while the nurse was in");

    let outcomes = world.commit(0, &CommitPlan { remove: vec![nurse], ..CommitPlan::default() });
    assert!(outcomes.contains(&Processed::Removed { group, by: world.devices[0].id() }));
    assert_eq!(world.devices[2].groups().state(group).unwrap().standing, Standing::Out);
    world.assert_agreed(&[0, 1, 3]);
    let after = world.devices[1].say(group, "after");
    assert_eq!(world.devices[2].process(patient, &after.frame), Processed::Ignored(Ignored::NotMember));
    assert_eq!(world.devices[2].groups().send(group, &content).unwrap_err().code(), "not_member");
    assert_eq!(world.devices[2].groups().ask_to_rejoin(group).unwrap_err().code(), "not_member");
    // What was written while it was in may come late, for a while.
    assert!(matches!(world.devices[2].process(patient, &late.frame), Processed::Message(_)));
    assert_eq!(world.devices[2].process(patient, &late.frame), Processed::Duplicate);
}

fn content_of(world: &World) -> GroupContent {
    GroupContent {
        id: MessageId([1; 16]),
        created: world.tenant.now,
        kind: ContentKind::Text,
        text: "text".into(),
        about: None,
        quick_replies: vec![],
    }
}

#[test]
fn who_was_removed_can_be_invited_again() {
    let mut world = World::new(&["patient", "nurse"]);
    let group = world.group;
    let nurse = world.devices[2].id();
    world.commit(0, &CommitPlan { remove: vec![nurse], ..CommitPlan::default() });
    let add = vec![world.devices[2].invited(GroupSuite::Classical)];
    let outcomes = world.commit(0, &CommitPlan { add, ..CommitPlan::default() });
    assert!(outcomes.contains(&Processed::Joined { group, by: world.devices[0].id(), epoch: 3 }));
    world.assert_agreed(&[0, 1, 2]);
}

#[test]
fn a_member_leaves() {
    let mut world = World::new(&["patient", "nurse"]);
    let group = world.group;
    let content = content_of(&world);
    let nurse = world.devices[2].id();
    let asks = world.devices[2].groups().leave(group).unwrap();
    assert_eq!(world.devices[2].groups().state(group).unwrap().standing, Standing::Leaving);
    assert_eq!(world.devices[2].groups().send(group, &content).unwrap_err().code(), "leaving");
    let outcomes = world.deliver(2, std::slice::from_ref(&asks));
    assert_eq!(outcomes, [Processed::Asked { group, by: nurse }, Processed::Asked { group, by: nurse }]);
    assert_eq!(world.devices[1].process(nurse, &asks.frame), Processed::Duplicate);
    assert_eq!(world.devices[1].groups().send(group, &content).unwrap_err().code(), "commit_first");
    assert_eq!(world.devices[1].groups().commit_due(group).unwrap(), Some(CommitReason::Leaving));
    // Anybody may let it go.
    let outcomes = world.commit(1, &CommitPlan::default());
    assert!(outcomes.contains(&Processed::Removed { group, by: world.devices[1].id() }));
    world.assert_agreed(&[0, 1]);
}

#[test]
fn keys_are_renewed_weekly() {
    let mut world = World::new(&["patient"]);
    let group = world.group;
    assert_eq!(world.devices[1].groups().commit_due(group).unwrap(), None);
    for device in &mut world.devices {
        device.now = device.now.plus(7 * DAY);
    }
    assert_eq!(world.devices[1].groups().commit_due(group).unwrap(), Some(CommitReason::Update));
    world.commit(1, &CommitPlan::default());
    assert_eq!(world.devices[1].groups().commit_due(group).unwrap(), None);
    world.assert_agreed(&[0, 1]);
}

#[test]
fn stewards_hand_over() {
    let mut world = World::new(&["patient", "nurse"]);
    let group = world.group;
    let (lab, nurse) = (world.devices[0].id(), world.devices[2].id());
    let plan = CommitPlan {
        stewards: Some(vec![lab, nurse]),
        label: Some("Ward 4".into()),
        ..CommitPlan::default()
    };
    world.commit(0, &plan);
    let state = world.devices[1].groups().state(group).unwrap();
    assert_eq!(state.label, "Ward 4");
    let patient = world.devices[1].id();
    world.commit(2, &CommitPlan { remove: vec![patient], ..CommitPlan::default() });
    world.assert_agreed(&[0, 2]);
}

#[test]
fn keys_of_past_epochs_go_with_time_and_with_their_number() {
    let mut world = World::new(&["patient"]);
    let group = world.group;
    let lab = world.devices[0].id();
    let mut said = Vec::new();
    for _ in 0..7 {
        said.push(world.devices[0].say(group, "in this epoch"));
        world.commit(0, &CommitPlan::default());
    }
    // Seven epochs are over; the keys of five are there.
    let kept: Vec<_> = said.iter().map(|said| world.devices[1].clone_process(lab, &said.frame)).collect();
    let too_old = Processed::Ignored(Ignored::TooOld);
    assert_eq!(kept[..2], [too_old.clone(), too_old.clone()]);
    assert!(kept[2..].iter().all(|outcome| matches!(outcome, Processed::Message(_))), "{kept:?}");
    // A week later none of them is.
    world.devices[1].now = world.devices[1].now.plus(7 * DAY);
    world.devices[1].groups().forget_old_epochs().unwrap();
    assert!(said.iter().all(|said| world.devices[1].process(lab, &said.frame) == too_old));
    world.assert_agreed(&[0, 1]);
}

#[test]
fn keys_of_past_epochs_go_with_time_from_a_state_that_was_left_behind_too() {
    let mut world = World::new(&["patient", "nurse"]);
    let group = world.group;
    let (lab, patient) = (world.devices[0].id(), world.devices[1].id());
    let said = world.devices[0].say(group, "in an epoch that ends today");
    world.commit(0, &CommitPlan::default());
    let late = world.devices[0].say(group, "in the one that the removal ends");
    for device in &mut world.devices {
        device.now = device.now.plus(6 * DAY);
    }
    // The patient is removed and comes in anew: the old state stays beside the new one, and a removed device's too.
    let nurse = world.devices[2].id();
    world.commit(0, &CommitPlan { remove: vec![patient, nurse], ..CommitPlan::default() });
    let suite = world.suite();
    let add = vec![world.devices[1].invited(suite)];
    world.commit(0, &CommitPlan { add, ..CommitPlan::default() });
    for at in [1, 2] {
        assert!(matches!(world.devices[at].clone_process(lab, &said.frame), Processed::Message(_)));
        world.devices[at].now = world.devices[at].now.plus(DAY);
        world.devices[at].groups().forget_old_epochs().unwrap();
        let too_old = Processed::Ignored(Ignored::TooOld);
        assert_eq!(world.devices[at].clone_process(lab, &said.frame), too_old, "a week after its epoch");
        assert!(matches!(world.devices[at].clone_process(lab, &late.frame), Processed::Message(_)));
        world.devices[at].now = world.devices[at].now.plus(6 * DAY);
        world.devices[at].groups().forget_old_epochs().unwrap();
        assert!(!matches!(world.devices[at].process(lab, &late.frame), Processed::Message(_)));
    }
}

#[test]
fn what_a_group_leaves_behind_is_deleted() {
    let mut world = World::new(&["patient", "nurse"]);
    let group = world.group;
    let lab = world.devices[0].id();
    let nurse = world.devices[2].id();
    let late = world.devices[0].say(group, "late");
    world.commit(0, &CommitPlan { remove: vec![nurse], ..CommitPlan::default() });
    world.devices[2].now = world.devices[2].now.plus(7 * DAY);
    world.devices[2].groups().forget_old_epochs().unwrap();
    assert_eq!(world.devices[2].groups().state(group).unwrap_err().code(), "not_member");
    assert_eq!(world.devices[2].process(lab, &late.frame), Processed::Ignored(Ignored::NotMember));
    world.devices[2].groups().forget(group).unwrap();
    assert_eq!(world.devices[2].groups().list().unwrap(), []);
    // The lists of groups and of key packages are all that is left.
    assert_eq!(world.devices[2].store.0.len(), 2, "{:?}", world.devices[2].store.0.keys());
}

#[test]
fn key_packages_are_counted_used_and_forgotten() {
    let mut world = World::new(&[]);
    let mut nurse = world.tenant.device("nurse");
    nurse.groups().make_key_packages(3, GroupSuite::Classical, false).unwrap();
    nurse.groups().make_key_packages(1, GroupSuite::Classical, true).unwrap();
    let kept = nurse.groups().key_packages_kept().unwrap();
    assert_eq!((kept[0].one_time, kept[1].one_time), (3, 0));
    assert!(kept[0].last_resort_until.is_some());
    assert_eq!(
        nurse.groups().make_key_packages(101, GroupSuite::Classical, false).unwrap_err().code(),
        "too_many"
    );
    world.invite(vec![nurse]);
    let nurse = &mut world.devices[1];
    assert_eq!(nurse.groups().key_packages_kept().unwrap()[0].one_time, 3, "the fourth was used");
    nurse.now = nurse.now.plus(86 * DAY);
    nurse.groups().forget_old_key_packages().unwrap();
    let kept = nurse.groups().key_packages_kept().unwrap();
    assert_eq!((kept[0].one_time, kept[0].last_resort_until), (0, None));
}

/// What is made here with openmls is what the keyserver's own reader takes, under the same name.
#[test]
fn the_keyserver_reads_the_key_packages_that_are_made_here() {
    use openmls::prelude::{KeyPackageIn, ProtocolVersion};
    use sealpost_wire::key_package::{KeyPackageOwner, SignedKeyPackage};
    use tls_codec::Deserialize as _;
    let world = World::new(&[]);
    for (name, mailbox) in [("nurse", false), ("second mailbox", true)] {
        let mut device = if mailbox { world.tenant.mailbox(name) } else { world.tenant.device(name) };
        let (id, now) = (device.id(), device.now);
        let identity = super::world::key(name).verifying_key();
        for suite in [GroupSuite::Classical, GroupSuite::Hybrid] {
            for last_resort in [false, true] {
                for bytes in device.groups().make_key_packages(2, suite, last_resort).unwrap() {
                    let package = SignedKeyPackage::read(&bytes).unwrap();
                    assert_eq!(package.suite().code(), suite.code());
                    assert_eq!(package.is_last_resort(), last_resort);
                    let mut owner = KeyPackageOwner::new(&world.tenant.trust, id, identity);
                    package.verify(&mut owner, now).unwrap();
                    let mut dice = super::world::Dice::new("reader");
                    let crypto = crate::crypto::Crypto::new(&mut dice);
                    let ours = KeyPackageIn::tls_deserialize_exact(&bytes).unwrap();
                    let ours = ours.validate(&crypto, ProtocolVersion::Mls10).unwrap();
                    let reference = ours.hash_ref(&crypto).unwrap();
                    assert_eq!(reference.as_slice(), package.reference().as_bytes());
                }
            }
        }
    }
}

#[test]
fn who_came_by_a_last_resort_renews_its_keys_at_once() {
    let mut world = World::new(&[]);
    let group = world.group;
    let mut nurse = world.tenant.device("nurse");
    let key_package = nurse.groups().make_key_packages(1, GroupSuite::Classical, true).unwrap().remove(0);
    let add = vec![crate::NewMember { key_package: key_package.clone(), set: nurse.set.clone() }];
    world.devices.push(nurse);
    world.commit(0, &CommitPlan { add, ..CommitPlan::default() });
    assert_eq!(world.devices[1].groups().commit_due(group).unwrap(), Some(CommitReason::Update));
    world.commit(1, &CommitPlan::default());
    assert_eq!(world.devices[1].groups().commit_due(group).unwrap(), None);
    // It is good for another group.
    let other = world.devices[0].groups().create("Ward 4", &[], GroupSuite::Classical).unwrap();
    let set = world.devices[1].set.clone();
    let plan = CommitPlan { add: vec![crate::NewMember { key_package, set }], ..CommitPlan::default() };
    let staged = world.devices[0].stage(other, &plan);
    world.devices[0].groups().merge_staged(other).unwrap();
    let lab = world.devices[0].id();
    let outcome = world.devices[1].process(lab, &staged.frames[1].frame);
    assert_eq!(outcome, Processed::Joined { group: other, by: lab, epoch: 1 });
}
