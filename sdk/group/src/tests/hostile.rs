//! Bytes that nobody would send in good faith: every one has an answer, and none of them a panic.
//!
//! Among them what openmls was once wrong about: tags that were compared over their common length only, ratchets
//! that were not stored after a message was opened, and trees nested in trees (GHSA-8x3w-qj7j-gqhf,
//! GHSA-rrmv-c79f-cf5r, GHSA-gc79-23g3-8g52).

use std::sync::{Mutex, OnceLock};

use proptest::prelude::*;
use sealpost_wire::id::DeviceId;
use sealpost_wire::payload::{GroupInfoBody, MlsFrame, MlsKind};
use sealpost_wire::slot::SlotCapability;

use super::world::{Device, World};
use crate::{CommitPlan, GroupSuite, Processed, Refusal};

/// A group, a frame of every kind for its second member, and who wrote it.
struct Scene {
    device: Device,
    author: DeviceId,
    frames: Vec<MlsFrame>,
}

fn scene() -> &'static Mutex<Scene> {
    static SCENE: OnceLock<Mutex<Scene>> = OnceLock::new();
    SCENE.get_or_init(|| {
        let mut world = World::new(&["patient", "nurse"]);
        let group = world.group;
        let author = world.devices[2].id();
        let message = world.devices[2].say(group, "hello").frame;
        let before = world.devices[2].store.clone();
        let commit = world.devices[2].stage(group, &CommitPlan::default()).frames.remove(0).frame;
        world.devices[2].store.clone_from(&before);
        let leave = world.devices[2].groups().leave(group).unwrap().frame;
        world.devices[2].store.clone_from(&before);
        let info = world.devices[0].groups().group_info(group, author).unwrap().frame;
        let lab = world.devices[0].id();
        let back = world.devices[2].groups().rejoin(lab, &info, None).unwrap().frames.remove(0).frame;
        let patient = world.devices[1].id();
        let info = world.devices[0].groups().group_info(group, patient).unwrap().frame;
        // An invitation to a second group.
        let other = world.devices[0].groups().create("Ward 4", &[], GroupSuite::Classical).unwrap();
        let add = vec![world.devices[1].invited(GroupSuite::Classical)];
        let plan = CommitPlan { add, ..CommitPlan::default() };
        let welcome = world.devices[0].stage(other, &plan).frames.remove(1).frame;
        let device = world.devices.remove(1);
        Mutex::new(Scene { device, author, frames: vec![message, commit, leave, back, info, welcome] })
    })
}

/// What becomes of a frame in a transaction that is dropped; a group info is tried as a way back too.
fn answer(scene: &mut Scene, author: DeviceId, frame: &MlsFrame) -> Processed {
    let before = scene.device.store.clone();
    let outcome = scene.device.groups().process(author, frame).unwrap();
    let unchanged = matches!(
        outcome,
        Processed::Refused(_)
            | Processed::Ignored(_)
            | Processed::Duplicate
            | Processed::NeedsRejoin { .. }
            | Processed::GroupInfoOffered { .. }
            | Processed::GroupInfoWanted { .. }
    );
    assert!(!unchanged || scene.device.store == before, "{outcome:?} changed the store");
    if frame.kind == MlsKind::GroupInfo {
        let _staged_or_refused = scene.device.groups().rejoin(author, frame, None);
    }
    scene.device.store = before;
    outcome
}

#[test]
fn the_frames_of_the_scene_are_good() {
    let mut scene = scene().lock().unwrap();
    let (author, frames) = (scene.author, scene.frames.clone());
    let taken = |outcome: &Processed| !matches!(outcome, Processed::Refused(_) | Processed::Ignored(_));
    let lab = frames.iter().map(|_| author).collect::<Vec<_>>();
    for (at, frame) in frames.iter().enumerate().take(5) {
        let outcome = answer(&mut scene, lab[at], frame);
        assert!(taken(&outcome), "{at}: {outcome:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_bytes_are_answered(body in prop::collection::vec(any::<u8>(), 0..600), kind in 0..4_usize) {
        let mut scene = scene().lock().unwrap();
        let mut frame = scene.frames[0].clone();
        frame.kind = MlsKind::ALL[kind];
        frame.body = body;
        let author = scene.author;
        answer(&mut scene, author, &frame);
    }

    #[test]
    fn any_bytes_behind_a_good_head_are_answered(
        which in 0..6_usize, keep in 0..90_usize, rest in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut scene = scene().lock().unwrap();
        let mut frame = scene.frames[which].clone();
        frame.body.truncate(keep);
        frame.body.extend(rest);
        let author = scene.author;
        let outcome = answer(&mut scene, author, &frame);
        let taken = matches!(outcome, Processed::Message(_) | Processed::Changed(_) | Processed::Joined { .. });
        prop_assert!(!taken, "{:?}", outcome);
    }

    #[test]
    fn a_good_frame_with_one_bit_wrong_is_not_taken(
        which in 0..6_usize, at in any::<prop::sample::Index>(), bit in 0..8_u8,
    ) {
        let mut scene = scene().lock().unwrap();
        let mut frame = scene.frames[which].clone();
        let at = at.index(frame.body.len());
        frame.body[at] ^= 1 << bit;
        let author = scene.author;
        let outcome = answer(&mut scene, author, &frame);
        let taken = matches!(
            outcome,
            Processed::Message(_) | Processed::Changed(_) | Processed::Joined { .. } | Processed::Asked { .. }
        );
        prop_assert!(!taken, "{:?}", outcome);
    }

    #[test]
    fn sets_of_any_bytes_are_answered(set in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut scene = scene().lock().unwrap();
        let mut frame = scene.frames[1].clone();
        frame.sets = vec![set];
        let author = scene.author;
        let outcome = answer(&mut scene, author, &frame);
        prop_assert!(matches!(outcome, Processed::Refused(_)));
    }
}

#[test]
fn a_frame_that_is_too_large_is_not_read() {
    let mut scene = scene().lock().unwrap();
    let mut frame = scene.frames[0].clone();
    frame.body = vec![0; crate::limits::BODY_BYTES_MAX + 1];
    let author = scene.author;
    assert_eq!(answer(&mut scene, author, &frame), Processed::Refused(Refusal::TooLarge));
    frame.body = vec![0; 10];
    frame.sets = vec![vec![]; crate::limits::SETS_PER_FRAME_MAX + 1];
    assert_eq!(answer(&mut scene, author, &frame), Processed::Refused(Refusal::TooLarge));
}

/// The confirmation tag of a public message is its last field: 32 bytes behind their length.
#[test]
fn a_tag_that_is_shorter_or_empty_is_no_tag() {
    let mut scene = scene().lock().unwrap();
    let (author, frame) = (scene.author, scene.frames[3].clone());
    assert!(matches!(answer(&mut scene, author, &frame), Processed::Changed(_)));
    let head = frame.body.len() - 33;
    assert_eq!(frame.body[head], 32);
    for length in [0_u8, 1, 16, 31] {
        let mut short = frame.clone();
        short.body.truncate(head + 1 + usize::from(length));
        short.body[head] = length;
        let outcome = answer(&mut scene, author, &short);
        assert!(matches!(outcome, Processed::Refused(_)), "{length}: {outcome:?}");
    }
    let mut long = frame;
    long.body[head] = 33;
    long.body.push(0);
    assert!(matches!(answer(&mut scene, author, &long), Processed::Refused(_)));
}

/// What a message was opened with is gone once the transaction is committed, whatever reads the store next.
#[test]
fn a_message_opens_once() {
    let mut world = World::new(&["patient"]);
    let group = world.group;
    let lab = world.devices[0].id();
    let said = world.devices[0].say(group, "hello");
    assert!(matches!(world.devices[1].process(lab, &said.frame), Processed::Message(_)));
    let before = world.devices[1].store.clone();
    assert_eq!(world.devices[1].process(lab, &said.frame), Processed::Duplicate);
    assert_eq!(world.devices[1].store, before);
    // A forged message far ahead does not use up the keys of those in between.
    let next = world.devices[0].say(group, "next");
    let mut forged = world.devices[0].say(group, "forged").frame;
    *forged.body.last_mut().unwrap() ^= 1;
    assert!(matches!(world.devices[1].process(lab, &forged), Processed::Refused(_)));
    assert!(matches!(world.devices[1].process(lab, &next.frame), Processed::Message(_)));
}

/// A ratchet tree whose leaf has a ratchet tree among its extensions, and so on: built from the inside out.
fn nested(depth: usize) -> Vec<u8> {
    let leaf = |extensions: &[u8]| {
        let mut leaf = vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2];
        leaf.extend(variable(extensions));
        leaf.push(0);
        leaf
    };
    let tree = |leaf: &[u8]| variable(&[&[1, 1], leaf].concat());
    let mut inner = tree(&leaf(&[]));
    for _ in 0..depth {
        inner = tree(&leaf(&[&[0, 2], &variable(&inner)[..]].concat()));
    }
    inner
}

/// `bytes` behind their length (RFC 9420 section 2.1.2).
fn variable(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    let head = match length {
        0..64 => vec![u8::try_from(length).unwrap()],
        64..16384 => u16::try_from(length | 0x4000).unwrap().to_be_bytes().to_vec(),
        _ => (length | 0x8000_0000).to_be_bytes().to_vec(),
    };
    [&head, bytes].concat()
}

#[test]
fn trees_nested_in_trees_are_refused_without_descending() {
    let mut scene = scene().lock().unwrap();
    let author = scene.author;
    for depth in [1, 8, 3000] {
        // GroupInfo: version, wire format, context (version, suite, group id, epoch, hashes), extensions.
        let group = scene.frames[0].group;
        let context = [
            &[0, 1, 0, 3][..],
            &variable(group.as_bytes()),
            &[0; 8],
            &variable(&[0; 32]),
            &variable(&[0; 32]),
            &[0],
        ];
        let extension = [&[0, 2], &variable(&nested(depth))[..]].concat();
        let info = [
            &[0, 1, 0, 4][..],
            &context.concat(),
            &variable(&extension),
            &variable(&[0; 32]),
            &[0; 4],
            &variable(&[0; 64]),
        ]
        .concat();
        let capability = SlotCapability::from_bytes([0; 32]);
        let body = GroupInfoBody { group_info: info.clone(), capability }.to_bytes().to_vec();
        let frame = MlsFrame { kind: MlsKind::GroupInfo, body, ..scene.frames[0].clone() };
        let refused = scene.device.groups().rejoin(author, &frame, None).unwrap_err();
        assert_eq!(refused.code(), "malformed", "depth {depth}");
        for kind in [MlsKind::Message, MlsKind::Welcome] {
            let frame = MlsFrame { kind, body: info.clone(), ..scene.frames[0].clone() };
            assert_eq!(answer(&mut scene, author, &frame), Processed::Refused(Refusal::Malformed));
        }
        // The same in the leaf of a key package.
        let leaf = nested(depth);
        let package = [&[0, 1, 0, 3, 0][..], &leaf[..]].concat();
        let mut dice = super::world::Dice::new("reader");
        let crypto = crate::crypto::Crypto::new(&mut dice);
        let now = scene.device.now;
        let read = crate::key_package::read(&package, GroupSuite::Classical, now, &crypto);
        assert!(matches!(read, Err(Refusal::Malformed | Refusal::TooLarge)));
    }
}

/// An extension of 16383 bytes, whose length openmls once took for two bytes more.
#[test]
fn extensions_at_the_edge_of_a_length_are_answered() {
    let mut scene = scene().lock().unwrap();
    let author = scene.author;
    for length in [63, 64, 16_382, 16_383, 16_384] {
        let extension = [&[0x0A, 0x0A], &variable(&vec![0; length])[..]].concat();
        let group = scene.frames[0].group;
        let info = [
            &[0, 1, 0, 4, 0, 1, 0, 3][..],
            &variable(group.as_bytes()),
            &[0; 8],
            &variable(&[0; 32]),
            &variable(&[0; 32]),
            &variable(&extension),
            &[0],
            &variable(&[0; 32]),
            &[0; 4],
            &variable(&[0; 64]),
        ]
        .concat();
        let capability = SlotCapability::from_bytes([0; 32]);
        let body = GroupInfoBody { group_info: info, capability }.to_bytes().to_vec();
        let frame = MlsFrame { kind: MlsKind::GroupInfo, body, ..scene.frames[0].clone() };
        assert!(scene.device.groups().rejoin(author, &frame, None).is_err());
    }
}
