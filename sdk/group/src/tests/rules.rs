//! What members refuse of each other. The rogue members here use openmls as it is, past this crate's rules.

use openmls::extensions::Extensions;
use openmls::group::{CommitBuilder, Initial, MlsGroup};
use openmls::prelude::{CredentialWithKey, KeyPackage, LeafNodeParameters, Lifetime};
use sealpost_wire::id::{DeviceId, GroupId};
use sealpost_wire::message::Suite;
use sealpost_wire::payload::{MlsFrame, MlsKind};
use tls_codec::Serialize as _;

use super::world::{DAY, Device, World, key};
use crate::context::Context;
use crate::{CommitPlan, CommitReason, GroupSuite, Groups, NewMember, Processed, Refusal};

type Builder<'a> = CommitBuilder<'a, Initial, &'a mut MlsGroup>;

/// A commit that this crate's rules have not seen, and the welcome if there is one. The rogue's store is put back.
fn rogue(
    device: &mut Device,
    group: GroupId,
    sets: &[Vec<u8>],
    build: impl for<'a> FnOnce(Builder<'a>) -> Builder<'a>,
) -> Vec<MlsFrame> {
    let before = device.store.clone();
    let frames = device.groups().operate(|operation| {
        let mut loaded = operation.load(group)?;
        let builder = build(loaded.mls.commit_builder().force_self_update(true));
        let bundle = builder
            .load_psks(&operation.provider.storage)
            .unwrap()
            .create_group_info(false)
            .build(&operation.provider.crypto, &operation.provider.crypto, operation.member, |_| true)
            .unwrap()
            .stage_commit(&operation.provider)
            .unwrap();
        let (commit, welcome, _) = bundle.into_messages();
        let frame = |kind, body| operation.frame(group, vec![], kind, body, sets.to_vec()).frame;
        let mut frames = vec![frame(MlsKind::Message, commit.to_bytes().unwrap())];
        frames.extend(welcome.map(|welcome| frame(MlsKind::Welcome, welcome.to_bytes().unwrap())));
        Ok(frames)
    });
    device.store = before;
    frames.unwrap()
}

fn key_package(bytes: &[u8]) -> KeyPackage {
    use openmls::prelude::{KeyPackageIn, ProtocolVersion};
    use tls_codec::Deserialize as _;
    let mut dice = super::world::Dice::new("reader");
    let crypto = crate::crypto::Crypto::new(&mut dice);
    KeyPackageIn::tls_deserialize_exact(bytes).unwrap().validate(&crypto, ProtocolVersion::Mls10).unwrap()
}

/// What the device at `to` makes of a commit, which changes nothing.
fn refused(world: &mut World, to: usize, by: usize, frame: &MlsFrame) -> &'static str {
    let author = world.devices[by].id();
    let device = &mut world.devices[to];
    let before = device.store.clone();
    let outcome = device.process(author, frame);
    let Processed::Refused(refusal) = outcome else { panic!("{outcome:?}") };
    assert_eq!(device.store, before, "a commit that is refused changes nothing");
    refusal.code()
}

#[test]
fn only_stewards_add() {
    let mut world = World::new(&["patient", "nurse"]);
    let group = world.group;
    let mut doctor = world.tenant.device("doctor");
    let new = doctor.invited(GroupSuite::Classical);
    let plan = CommitPlan { add: vec![new.clone()], ..CommitPlan::default() };
    assert_eq!(world.devices[1].refused(group, &plan), "not_steward");
    let package = key_package(&new.key_package);
    let frames = rogue(&mut world.devices[1], group, &[new.set], |commit| commit.propose_adds([package]));
    assert_eq!(refused(&mut world, 0, 1, &frames[0]), "not_steward");
    assert_eq!(refused(&mut world, 2, 1, &frames[0]), "not_steward");
    // Nor does the newcomer believe the welcome.
    world.devices.push(doctor);
    assert_eq!(refused(&mut world, 3, 1, &frames[1]), "not_steward");
}

#[test]
fn only_stewards_remove_and_name_stewards() {
    let mut world = World::new(&["patient", "nurse"]);
    let group = world.group;
    let (patient, nurse) = (world.devices[1].id(), world.devices[2].id());
    let remove = CommitPlan { remove: vec![nurse], ..CommitPlan::default() };
    assert_eq!(world.devices[1].refused(group, &remove), "not_revoked");
    let place = openmls::prelude::LeafNodeIndex::new(2);
    let frames = rogue(&mut world.devices[1], group, &[], |commit| commit.propose_removals([place]));
    assert_eq!(refused(&mut world, 0, 1, &frames[0]), "not_revoked");

    let crown = CommitPlan { stewards: Some(vec![patient]), ..CommitPlan::default() };
    assert_eq!(world.devices[1].refused(group, &crown), "not_steward");
    let context = context_of(&mut world.devices[1], group);
    let crowned = Context { stewards: vec![patient], ..context.clone() }.extensions().unwrap();
    let frames = rogue(&mut world.devices[1], group, &[], |commit| with_context(commit, crowned));
    assert_eq!(refused(&mut world, 0, 1, &frames[0]), "not_steward");

    // The slot is the group's for life, for stewards too.
    let moved = Context { sequence_offset: 1, ..context }.extensions().unwrap();
    let frames = rogue(&mut world.devices[0], group, &[], |commit| with_context(commit, moved));
    assert_eq!(refused(&mut world, 1, 0, &frames[0]), "unsupported");
    let nothing = Extensions::empty();
    let frames = rogue(&mut world.devices[0], group, &[], |commit| with_context(commit, nothing));
    assert_eq!(refused(&mut world, 1, 0, &frames[0]), "unsupported");
    let stranger = CommitPlan { remove: vec![DeviceId([9; 16])], ..CommitPlan::default() };
    assert_eq!(world.devices[0].refused(group, &stranger), "no_such_member");
    let oneself = CommitPlan { remove: vec![world.devices[0].id()], ..CommitPlan::default() };
    assert_eq!(world.devices[0].refused(group, &oneself), "invalid_commit");
}

fn context_of(device: &mut Device, group: GroupId) -> Context {
    device.groups().operate(|operation| Ok(operation.load(group)?.context)).unwrap()
}

fn with_context(commit: Builder<'_>, extensions: Extensions<openmls::group::GroupContext>) -> Builder<'_> {
    commit.propose_group_context_extensions(extensions).unwrap()
}

#[test]
fn who_comes_in_is_named_by_a_set() {
    let mut world = World::new(&["patient"]);
    let group = world.group;
    let mut doctor = world.tenant.device("doctor");
    let new = doctor.invited(GroupSuite::Classical);
    let package = || key_package(&new.key_package);
    let other = world.devices[1].set.clone();
    let frames = rogue(&mut world.devices[0], group, &[], |commit| commit.propose_adds([package()]));
    assert_eq!(refused(&mut world, 1, 0, &frames[0]), "not_in_set");
    let frames = rogue(&mut world.devices[0], group, std::slice::from_ref(&other), |commit| {
        commit.propose_adds([package()])
    });
    assert_eq!(refused(&mut world, 1, 0, &frames[0]), "not_in_set");
    let plan = |set: &[u8]| CommitPlan {
        add: vec![NewMember { key_package: new.key_package.clone(), set: set.to_vec() }],
        ..CommitPlan::default()
    };
    assert_eq!(world.devices[0].refused(group, &plan(&other)), "not_in_set");

    // A set that revokes it, a set that nobody signed, and one that is older than what was seen.
    let record = doctor.record.clone();
    let tenant = &world.tenant;
    let out = tenant.set("doctor", 2, Some(&new.set), vec![], vec![doctor.id()]);
    let newest = tenant.set("doctor", 3, Some(&out), vec![record], vec![]);
    assert_eq!(world.devices[0].refused(group, &plan(&out)), "not_in_set");
    let mut forged = new.set.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(world.devices[0].refused(group, &plan(&forged)), "bad_signature");
    world.devices[0].groups().note_sets(group, &[newest]).unwrap();
    assert_eq!(world.devices[0].refused(group, &plan(&new.set)), "set_rollback");
}

#[test]
fn a_revoked_device_does_not_come_in() {
    let mut world = World::new(&["patient"]);
    let group = world.group;
    let mut doctor = world.tenant.device("doctor");
    let new = doctor.invited(GroupSuite::Classical);
    let status = world.tenant.revoke(doctor.id());
    world.devices[1].accept(&status);
    let plan = CommitPlan { add: vec![new], ..CommitPlan::default() };
    // The steward has not heard of it yet; the patient has.
    let staged = world.devices[0].stage(group, &plan);
    assert_eq!(refused(&mut world, 1, 0, &staged.frames[0].frame), "device_revoked");
    world.devices[0].groups().discard_staged(group).unwrap();
    world.devices[0].accept(&status);
    assert_eq!(world.devices[0].refused(group, &plan), "device_revoked");
}

#[test]
fn a_revoked_member_goes_with_the_next_commit_of_anybody() {
    let mut world = World::new(&["patient", "nurse", "doctor"]);
    let group = world.group;
    let doctor = world.devices[3].id();
    let status = world.tenant.revoke(doctor);
    for at in [0, 1] {
        world.devices[at].accept(&status);
    }
    assert_eq!(world.devices[1].groups().commit_due(group).unwrap(), Some(CommitReason::Revoked));
    assert!(world.devices[1].groups().members(group).unwrap()[3].revoked);
    // It says nothing to those who know.
    let said = world.devices[3].say(group, "from a stolen phone");
    assert_eq!(refused(&mut world, 1, 3, &said.frame), "device_revoked");
    let update = world.devices[3].stage(group, &CommitPlan::default());
    assert_eq!(refused(&mut world, 0, 3, &update.frames[0].frame), "device_revoked");

    let staged = world.devices[1].stage(group, &CommitPlan::default());
    assert!(!staged.frames[0].to.contains(&doctor));
    assert!(world.slot.claim(&staged.claim));
    world.devices[1].groups().merge_staged(group).unwrap();
    let patient = world.devices[1].id();
    let outcome = world.devices[0].process(patient, &staged.frames[0].frame);
    let Processed::Changed(change) = outcome else { panic!("{outcome:?}") };
    assert_eq!(change.removed, [doctor]);
    // The nurse has not heard of it: the commit waits for the newer status.
    assert_eq!(refused(&mut world, 2, 1, &staged.frames[0].frame), "not_revoked");
    assert!(Refusal::NotRevoked.may_pass_later());
    world.devices[2].accept(&status);
    assert!(matches!(world.devices[2].process(patient, &staged.frames[0].frame), Processed::Changed(_)));
    world.assert_agreed(&[0, 1, 2]);
}

#[test]
fn a_member_that_its_recipient_removed_goes_with_the_evidence() {
    let mut world = World::new(&["patient", "nurse", "doctor"]);
    let group = world.group;
    let doctor = world.devices[3].id();
    let removal = world.tenant.removal("doctor", 2, &world.devices[3].set, doctor);
    world.devices[1].groups().note_sets(group, &[removal]).unwrap();
    assert_eq!(world.devices[1].groups().commit_due(group).unwrap(), Some(CommitReason::Revoked));
    let said = world.devices[3].say(group, "from a lost phone");
    assert_eq!(refused(&mut world, 1, 3, &said.frame), "device_revoked");
    let outcomes = world.commit(1, &CommitPlan::default());
    assert_eq!(outcomes.len(), 2, "the others");
    world.assert_agreed(&[0, 1, 2]);
    assert_eq!(world.devices[2].in_group(group).len(), 3);
    assert_eq!(world.devices[1].groups().commit_due(group).unwrap(), None);
    // With the older set nobody brings the doctor back.
    let mut doctor = world.devices.remove(3);
    doctor.store = super::world::Memory::default();
    let add = vec![doctor.invited(GroupSuite::Classical)];
    assert_eq!(world.devices[0].refused(group, &CommitPlan { add, ..CommitPlan::default() }), "set_rollback");
}

#[test]
fn when_the_enrol_key_is_lost_its_devices_are_void() {
    let mut world = World::new(&["patient"]);
    let group = world.group;
    let status = world.tenant.lose_enrol_key();
    world.devices[0].accept(&status);
    assert_eq!(world.devices[0].groups().commit_due(group).unwrap(), Some(CommitReason::Revoked));
    let said = world.devices[1].say(group, "hello");
    assert_eq!(refused(&mut world, 0, 1, &said.frame), "key_revoked");
}

#[test]
fn a_device_comes_in_once() {
    let mut world = World::new(&["patient"]);
    let group = world.group;
    let again = world.devices[1].invited(GroupSuite::Classical);
    let plan = CommitPlan { add: vec![again], ..CommitPlan::default() };
    assert_eq!(world.devices[0].refused(group, &plan), "invalid_commit");
    let mut doctor = world.tenant.device("doctor");
    let twice = (0..2).map(|_| doctor.invited(GroupSuite::Classical)).collect();
    let plan = CommitPlan { add: twice, ..CommitPlan::default() };
    assert_eq!(world.devices[0].refused(group, &plan), "invalid_commit");
}

#[test]
fn a_leaf_stays_its_devices() {
    let mut world = World::new(&["patient", "nurse"]);
    let group = world.group;
    let as_nurse = |world: &World| CredentialWithKey {
        credential: world.devices[2].member.credential().credential,
        signature_key: world.devices[1].member.credential().signature_key,
    };
    let parameters = |credential| LeafNodeParameters::builder().with_credential_with_key(credential).build();
    let credential = as_nurse(&world);
    let frames = rogue(&mut world.devices[1], group, &[], |commit| {
        commit.leaf_node_parameters(parameters(credential))
    });
    assert_eq!(refused(&mut world, 0, 1, &frames[0]), "wrong_key");

    // With the other's key too, which a thief of it has: the leaf would be the other device's.
    let mut thief = world.tenant.device("patient");
    thief.store = world.devices[1].store.clone();
    thief.dice = super::world::Dice::new("thief");
    let stolen = world.tenant.device("doctor");
    let before = thief.store.clone();
    let frames = thief.groups().operate(|operation| {
        let mut loaded = operation.load(group)?;
        let bundle = loaded
            .mls
            .commit_builder()
            .load_psks(&operation.provider.storage)
            .unwrap()
            .create_group_info(false)
            .build_with_new_signer(
                &operation.provider.crypto,
                &operation.provider.crypto,
                operation.member,
                openmls::credentials::NewSignerBundle {
                    signer: &stolen.member,
                    credential_with_key: stolen.member.credential(),
                },
                |_| true,
            )
            .unwrap()
            .stage_commit(&operation.provider)
            .unwrap();
        let body = bundle.into_commit().to_bytes().unwrap();
        Ok(operation.frame(group, vec![], MlsKind::Message, body, vec![]).frame)
    });
    thief.store = before;
    assert_eq!(refused(&mut world, 0, 1, &frames.unwrap()), "device_changed");
}

#[test]
fn leaves_can_do_what_these_groups_need() {
    let mut world = World::new(&["patient", "nurse"]);
    let group = world.group;
    let poor = openmls::prelude::Capabilities::new(
        None,
        Some(&[GroupSuite::Hybrid.mls()]),
        Some(&[openmls::extensions::ExtensionType::Unknown(crate::context::EXTENSION_TYPE)]),
        None,
        None,
    );
    let parameters = LeafNodeParameters::builder().with_capabilities(poor).build();
    let frames = rogue(&mut world.devices[1], group, &[], |commit| commit.leaf_node_parameters(parameters));
    assert_eq!(refused(&mut world, 0, 1, &frames[0]), "invalid_commit");
}

#[test]
fn every_commit_renews_its_authors_keys() {
    let mut world = World::new(&["patient"]);
    let group = world.group;
    let mut doctor = world.tenant.device("doctor");
    let new = doctor.invited(GroupSuite::Classical);
    let package = key_package(&new.key_package);
    let frames = rogue(&mut world.devices[0], group, &[new.set], |commit| {
        commit.force_self_update(false).propose_adds([package])
    });
    assert_eq!(refused(&mut world, 1, 0, &frames[0]), "no_path");
}

#[test]
fn the_author_of_the_frame_is_the_author_of_the_message() {
    let mut world = World::new(&["patient", "nurse"]);
    let group = world.group;
    let said = world.devices[1].say(group, "hello").frame;
    assert_eq!(refused(&mut world, 0, 2, &said), "wrong_author");
    let commit = world.devices[1].stage(group, &CommitPlan::default());
    assert_eq!(refused(&mut world, 0, 2, &commit.frames[0].frame), "wrong_author");
    let mut doctor = world.tenant.device("doctor");
    let add = vec![doctor.invited(GroupSuite::Classical)];
    let staged = world.devices[0].stage(group, &CommitPlan { add, ..CommitPlan::default() });
    world.devices.push(doctor);
    assert_eq!(refused(&mut world, 3, 1, &staged.frames[1].frame), "wrong_author");
    let mut other = said;
    other.group.0[0] ^= 1;
    let patient = world.devices[1].id();
    assert!(matches!(world.devices[0].process(patient, &other), Processed::Ignored(_)));
}

#[test]
fn proposals_are_for_leaving_alone() {
    let mut world = World::new(&["patient", "nurse"]);
    let group = world.group;
    let mut doctor = world.tenant.device("doctor");
    let package = key_package(&doctor.invited(GroupSuite::Classical).key_package);
    let propose = |groups: &mut Groups<'_, _>, which: u8| {
        groups
            .operate(|operation| {
                let mut loaded = operation.load(group)?;
                let (provider, member) = (&operation.provider, operation.member);
                let message = match which {
                    0 => loaded.mls.propose_add_member(provider, member, &package).unwrap().0,
                    1 => {
                        let other = openmls::prelude::LeafNodeIndex::new(2);
                        loaded.mls.propose_remove_member(provider, member, other).unwrap().0
                    }
                    _ => {
                        let same = LeafNodeParameters::default();
                        loaded.mls.propose_self_update(provider, member, same).unwrap().0
                    }
                };
                let body = message.to_bytes().unwrap();
                Ok(operation.frame(group, vec![], MlsKind::Message, body, vec![]).frame)
            })
            .unwrap()
    };
    for which in 0..3 {
        let before = world.devices[1].store.clone();
        let frame = propose(&mut world.devices[1].groups(), which);
        world.devices[1].store = before;
        assert_eq!(refused(&mut world, 0, 1, &frame), "proposal_kind", "{which}");
    }
}

#[test]
fn a_commit_without_its_proposal_waits() {
    let mut world = World::new(&["patient", "nurse", "doctor"]);
    let group = world.group;
    let nurse = world.devices[2].id();
    let asks = world.devices[2].groups().leave(group).unwrap();
    world.devices[1].process(nurse, &asks.frame);
    world.devices[3].process(nurse, &asks.frame);
    let staged = world.devices[1].stage(group, &CommitPlan::default());
    assert_eq!(refused(&mut world, 0, 1, &staged.frames[0].frame), "proposal_missing");
    assert!(Refusal::ProposalMissing.may_pass_later());
    world.devices[0].process(nurse, &asks.frame);
    world.devices[1].groups().merge_staged(group).unwrap();
    world.deliver(1, &staged.frames);
    world.assert_agreed(&[0, 1, 3]);
}

#[test]
fn lifetimes_are_what_they_may_be() {
    let mut world = World::new(&["patient"]);
    let group = world.group;
    let now = world.tenant.now.0;
    let mut doctor = world.tenant.device("doctor");
    let mut made = |from: u64, until: u64| {
        let bytes = doctor.groups().operate(|operation| {
            let bundle = KeyPackage::builder()
                .key_package_lifetime(Lifetime::init(from, until))
                .leaf_node_capabilities(operation.member.capabilities())
                .build(
                    GroupSuite::Classical.mls(),
                    &operation.provider,
                    operation.member,
                    operation.member.credential(),
                )
                .unwrap();
            Ok(bundle.key_package().tls_serialize_detached().unwrap())
        });
        NewMember { key_package: bytes.unwrap(), set: doctor.set.clone() }
    };
    let (endless, over) = (made(0, u64::MAX), made(now - 40 * DAY, now - DAY));
    for bad in [&endless, &over] {
        let plan = CommitPlan { add: vec![bad.clone()], ..CommitPlan::default() };
        assert_eq!(world.devices[0].refused(group, &plan), "lifetime");
    }
    let package = key_package(&endless.key_package);
    let frames = rogue(&mut world.devices[0], group, &[endless.set], |commit| commit.propose_adds([package]));
    assert_eq!(refused(&mut world, 1, 0, &frames[0]), "lifetime");
}

#[test]
fn unknown_extensions_are_refused() {
    use openmls::extensions::{ApplicationIdExtension, Extension, ExtensionType, UnknownExtension};
    use openmls::prelude::{Capabilities, KeyPackageBuilder};
    let mut world = World::new(&["patient"]);
    let group = world.group;
    let mut doctor = world.tenant.device("doctor");
    let mut made = |with: fn(KeyPackageBuilder) -> KeyPackageBuilder| {
        let bytes = doctor.groups().operate(|operation| {
            let known = [crate::context::EXTENSION_TYPE, 0xF5EB].map(ExtensionType::Unknown);
            let able = Capabilities::new(
                None,
                Some(&[GroupSuite::Classical.mls()]),
                Some(&[known[0], known[1], ExtensionType::LastResort]),
                None,
                None,
            );
            let builder = KeyPackage::builder()
                .key_package_lifetime(crate::operation::lifetime(operation.now))
                .leaf_node_capabilities(able);
            let suite = GroupSuite::Classical.mls();
            let bundle = with(builder)
                .build(suite, &operation.provider, operation.member, operation.member.credential())
                .unwrap();
            Ok(bundle.key_package().tls_serialize_detached().unwrap())
        });
        NewMember { key_package: bytes.unwrap(), set: doctor.set.clone() }
    };
    let unknown = || Extension::Unknown(0xF5EB, UnknownExtension(vec![1]));
    let plain = made(|builder| builder);
    let in_package = made(|builder| {
        let unknown = Extension::Unknown(0xF5EB, UnknownExtension(vec![1]));
        builder.key_package_extensions(Extensions::single(unknown).unwrap())
    });
    let in_leaf = made(|builder| {
        let named = Extension::ApplicationId(ApplicationIdExtension::new(b"name"));
        builder.leaf_node_extensions(Extensions::single(named).unwrap())
    });
    for bad in [in_package, in_leaf] {
        let plan = CommitPlan { add: vec![bad.clone()], ..CommitPlan::default() };
        assert_eq!(world.devices[0].refused(group, &plan), "unsupported");
        let package = key_package(&bad.key_package);
        let frames = rogue(&mut world.devices[0], group, &[bad.set], |commit| commit.propose_adds([package]));
        assert_eq!(refused(&mut world, 1, 0, &frames[0]), "unsupported");
    }
    // In the group's context too, where everybody would know it.
    let context = context_of(&mut world.devices[0], group).extensions().unwrap();
    let mut more = context;
    more.add(unknown()).unwrap();
    assert_eq!(Context::of(&more), Err(Refusal::Unsupported));
    let plan = CommitPlan { add: vec![plain], ..CommitPlan::default() };
    world.devices[0].stage(group, &plan);
}

#[test]
fn a_group_without_a_sender_among_its_stewards_is_not_believed() {
    let mut world = World::new(&["patient", "nurse"]);
    let lab = world.devices[0].id();
    let group = world.devices[1].groups().create("Ward 3", &[lab], GroupSuite::Classical).unwrap();
    let add = vec![world.devices[2].invited(GroupSuite::Classical)];
    let staged = world.devices[1].stage(group, &CommitPlan { add, ..CommitPlan::default() });
    assert_eq!(refused(&mut world, 2, 1, &staged.frames[1].frame), "not_anchored");
}

#[test]
fn a_hybrid_group_takes_in_those_only_who_open_hybrid_boxes() {
    let mut world = World::with_suite(&["patient"], GroupSuite::Hybrid);
    let group = world.group;
    let mut old = world.tenant.device_of("old phone", "old phone", false, &[Suite::Classical]);
    assert_eq!(old.member.suites(), [GroupSuite::Classical]);
    let refused = old.groups().make_key_packages(1, GroupSuite::Hybrid, false).unwrap_err();
    assert_eq!(refused.code(), "unsupported_suite");
    let classical = old.invited(GroupSuite::Classical);
    let plan = CommitPlan { add: vec![classical], ..CommitPlan::default() };
    assert_eq!(world.devices[0].refused(group, &plan), "unsupported");
}

#[test]
fn a_welcome_is_taken_once() {
    let mut world = World::new(&["patient"]);
    let group = world.group;
    let mut doctor = world.tenant.device("doctor");
    let add = vec![doctor.invited(GroupSuite::Classical)];
    let staged = world.devices[0].stage(group, &CommitPlan { add, ..CommitPlan::default() });
    world.slot.claim(&staged.claim);
    world.devices[0].groups().merge_staged(group).unwrap();
    world.devices.push(doctor);
    let lab = world.devices[0].id();
    let welcome = &staged.frames[1].frame;
    assert_eq!(staged.frames[1].to, [world.devices[2].id()]);
    // Somebody who is in and never had the key takes it for one of its own that was used.
    let other = world.devices[1].process(lab, welcome);
    assert_eq!(other, Processed::Ignored(crate::Ignored::AlreadyIn));
    let mut stranger = world.tenant.device("stranger");
    assert_eq!(stranger.process(lab, welcome), Processed::Refused(Refusal::NoKeyPackage));
    assert!(matches!(world.devices[2].process(lab, welcome), Processed::Joined { .. }));
    let again = world.devices[2].process(lab, welcome);
    assert_eq!(again, Processed::Ignored(crate::Ignored::AlreadyIn));
}

#[test]
fn an_old_welcome_by_a_last_resort_brings_nobody_back() {
    let mut world = World::new(&["patient"]);
    let group = world.group;
    let mut doctor = world.tenant.device("doctor");
    let key_package = doctor.groups().make_key_packages(1, GroupSuite::Classical, true).unwrap().remove(0);
    let add = vec![NewMember { key_package, set: doctor.set.clone() }];
    let staged = world.devices[0].stage(group, &CommitPlan { add, ..CommitPlan::default() });
    world.slot.claim(&staged.claim);
    world.devices[0].groups().merge_staged(group).unwrap();
    world.devices.push(doctor);
    world.deliver(0, &staged.frames);
    let (lab, doctor) = (world.devices[0].id(), world.devices[2].id());
    let welcome = &staged.frames[1].frame;
    assert_eq!(world.devices[2].process(lab, welcome), Processed::Ignored(crate::Ignored::AlreadyIn));
    world.commit(0, &CommitPlan { remove: vec![doctor], ..CommitPlan::default() });
    assert_eq!(world.devices[2].process(lab, welcome), Processed::Refused(Refusal::Stale));
}

#[test]
fn the_own_key_is_the_one_of_the_credential() {
    let world = World::new(&[]);
    let credential = sealpost_wire::member::MemberCredential::read(
        world.devices[0].member.credential().credential.serialized_content(),
    )
    .unwrap();
    let other = crate::Member::new(key("somebody"), &credential, &world.tenant.trust).unwrap_err();
    assert_eq!(other.code(), "wrong_device");
}
