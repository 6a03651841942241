//! Prekeys: each one-time key once, none of them twice.

use std::collections::HashSet;

use sealpost_wire::api::keyserver::{LookedUp, PrekeyUpload, PrekeysStored};
use sealpost_wire::message::Suite;
use sealpost_wire::prekey::{PrekeyKind, PrekeyLeaf, ProvenPrekey};

use crate::device::TestDevice;
use crate::world::{World, recipient};

fn id_of(prekey: &ProvenPrekey) -> sealpost_wire::id::PrekeyId {
    PrekeyLeaf::read(prekey.leaf.as_ref()).unwrap().id()
}

async fn world_with_device(one_time: usize) -> (World, sealpost_wire::id::RecipientId, TestDevice) {
    let world = World::new().await;
    let recipient = recipient();
    let device = world.enrolled_device(recipient, one_time).await;
    world.consent(recipient, true).await;
    (world, recipient, device)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_look_ups_at_once_never_get_one_key_twice() {
    let (world, recipient, device) = world_with_device(120).await;
    let more = device.batch(Suite::Classical, 60, world.now());
    assert_eq!(device.put_prekeys(&world, &more).await.status, 200);
    let token = world.token(&world.tenant.sender).await;
    let mut look_ups = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let (http, token) = (world.http.clone(), token.clone());
        look_ups.spawn(async move {
            let body = serde_json::json!({ "category": crate::world::CATEGORY, "one_time": true });
            let path = format!("/v1/recipients/{recipient}/look-up");
            let call = crate::client::Call::json(http::Method::POST, &path, &body).bearer(&token);
            http.send(call).await.expect::<LookedUp>(200)
        });
    }
    let answers = look_ups.join_all().await;
    let taken: Vec<_> =
        answers.iter().filter_map(|found| found.devices[0].one_time.as_ref()).map(id_of).collect();
    assert_eq!(taken.len(), 180, "as many as there were");
    assert_eq!(taken.iter().collect::<HashSet<_>>().len(), 180, "each once");
    assert!(answers.iter().all(|found| found.devices[0].signed.is_some()), "exhausted: signed only");
    assert_eq!(device.state(&world).await.prekeys[0].one_time, 0);
}

#[tokio::test]
async fn a_look_up_that_asks_for_none_takes_none() {
    let (world, recipient, device) = world_with_device(2).await;
    for _ in 0..3 {
        let found: LookedUp = world.try_look_up(recipient, false).await.expect(200);
        assert!(found.devices[0].one_time.is_none() && found.devices[0].signed.is_some());
    }
    assert_eq!(device.state(&world).await.prekeys[0].one_time, 2);
}

#[tokio::test]
async fn a_key_that_was_taken_never_comes_back() {
    let mut world = World::new().await;
    let recipient = recipient();
    let device = world.enrolled_device(recipient, 0).await;
    world.consent(recipient, true).await;
    let (now, suite) = (world.now(), Suite::Classical);
    let leaves = [(); 2].map(|()| device.leaf(suite, PrekeyKind::OneTime, now));
    let upload = device.upload_of(&leaves, now);
    let stored: PrekeysStored = device.put_prekeys(&world, &upload).await.expect(200);
    assert_eq!(stored.prekeys[0].one_time, 2);
    let taken = id_of(world.look_up(recipient).await.devices[0].one_time.as_ref().unwrap());
    assert_eq!(taken, leaves[0].id(), "the oldest first");

    for round in ["at once", "after a restart"] {
        let again: PrekeysStored = device.put_prekeys(&world, &upload).await.expect(200);
        assert_eq!(again.prekeys[0].one_time, 1, "the same batch changes nothing, {round}");
        let spent = device.upload_of(&leaves[..1], world.now());
        device.put_prekeys(&world, &spent).await.expect_detail("conflict", "prekey_reused");
        let waiting = device.upload_of(&leaves[1..], world.now());
        device.put_prekeys(&world, &waiting).await.expect_detail("conflict", "prekey_reused");
        let mut as_signed = leaves[0].clone();
        as_signed.kind = PrekeyKind::Signed;
        let upload = device.upload_of(&[as_signed], world.now());
        device.put_prekeys(&world, &upload).await.expect_detail("conflict", "prekey_reused");
        world.restart().await;
    }
    let next = id_of(world.look_up(recipient).await.devices[0].one_time.as_ref().unwrap());
    assert_eq!(next, leaves[1].id());
    assert!(world.look_up(recipient).await.devices[0].one_time.is_none());
}

#[tokio::test]
async fn the_newest_signed_prekey_is_handed_out_until_it_ends() {
    let (world, recipient, device) = world_with_device(0).await;
    let signed = async || {
        let found: LookedUp = world.try_look_up(recipient, false).await.expect(200);
        found.devices[0].signed.as_ref().map(id_of)
    };
    let first = signed().await.unwrap();
    world.pass(100);
    let newer = device.leaf(Suite::Classical, PrekeyKind::Signed, world.now());
    let rotated = device.upload_of(std::slice::from_ref(&newer), world.now());
    assert_eq!(device.put_prekeys(&world, &rotated).await.status, 200);
    assert_eq!(signed().await, Some(newer.id()));
    // A batch that was signed earlier and comes later.
    let older = device.leaf(Suite::Classical, PrekeyKind::Signed, world.now());
    let late = device.upload_of(&[older], world.now().minus(50));
    assert_eq!(device.put_prekeys(&world, &late).await.status, 200);
    assert_eq!(signed().await, Some(newer.id()));
    assert_ne!(first, newer.id());
    world.pass(60 * 86_400);
    assert_eq!(signed().await, None);
    let counts = device.state(&world).await.prekeys;
    assert_eq!(counts[0].signed_until, None, "the device is told that it needs a new one");
}

#[tokio::test]
async fn one_time_prekeys_that_have_ended_are_passed_over_and_not_counted() {
    let world = World::with("[limits]\nexpiry_seconds = 1\n").await;
    let recipient = recipient();
    let device = world.enrolled_device(recipient, 0).await;
    world.consent(recipient, true).await;
    let now = world.now();
    let mut leaves = [(); 5].map(|()| device.leaf(Suite::Classical, PrekeyKind::OneTime, now));
    leaves[..3].iter_mut().for_each(|leaf| leaf.seal_until = now.plus(100));
    let upload = device.upload_of(&leaves[..3], now);
    assert_eq!(device.put_prekeys(&world, &upload).await.status, 200);
    let upload = device.upload_of(&leaves[3..], now);
    assert_eq!(device.put_prekeys(&world, &upload).await.status, 200);
    world.pass(101);
    let found = world.look_up(recipient).await;
    assert_eq!(found.devices[0].one_time.as_ref().map(id_of), Some(leaves[3].id()));
    assert_eq!(device.state(&world).await.prekeys[0].one_time, 1);

    // Without a look-up too, expiry tells the device that it needs new ones.
    world.pass(90 * 86_400);
    while device.state(&world).await.prekeys[0].one_time > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    // Once nothing can be opened with them, their ids are forgotten; they have ended, so they do not come
    // back.
    device.put_prekeys(&world, &upload).await.expect_problem("invalid_expiry");
}

#[tokio::test]
async fn a_device_that_lost_its_state_voids_what_it_uploaded() {
    let (world, recipient, device) = world_with_device(5).await;
    let mut upload = device.batch(Suite::Classical, 2, world.now());
    upload.replace = true;
    let stored: PrekeysStored = device.put_prekeys(&world, &upload).await.expect(200);
    assert_eq!(stored.prekeys[0].one_time, 2);
    let new: HashSet<_> =
        upload.leaves.iter().map(|leaf| PrekeyLeaf::read(leaf.as_ref()).unwrap().id()).collect();
    for _ in 0..2 {
        let found = world.look_up(recipient).await.devices.remove(0);
        assert!(new.contains(&id_of(&found.signed.unwrap())));
        assert!(new.contains(&id_of(&found.one_time.unwrap())));
    }
    // Repeated after a lost answer, it does not void what has been used since.
    let again: PrekeysStored = device.put_prekeys(&world, &upload).await.expect(200);
    assert_eq!(again.prekeys[0].one_time, 0);
}

#[tokio::test]
async fn a_restored_store_hands_out_no_one_time_key_of_its_earlier_life() {
    let mut world = World::new().await;
    let recipient = recipient();
    let device = world.enrolled_device(recipient, 3).await;
    world.consent(recipient, true).await;
    let before = device.state(&world).await;
    world.restart_as(true).await;
    let state = device.state(&world).await;
    assert_eq!(state.incarnation, before.incarnation + 1);
    assert_eq!(state.prekeys[0].one_time, 0);
    let found = world.look_up(recipient).await;
    assert!(found.devices[0].one_time.is_none() && found.devices[0].signed.is_some());
    device.upload(&world, 1).await;
    assert!(world.look_up(recipient).await.devices[0].one_time.is_some());
    world.restart().await;
    assert_eq!(device.state(&world).await.incarnation, before.incarnation + 1);
}

#[tokio::test]
async fn uploads_are_verified_and_bounded() {
    let world = World::with("[limits]\none_time_prekeys_max = 130\nremembered_prekeys_max = 300\n").await;
    let recipient = recipient();
    let device = world.enrolled_device(recipient, 0).await;
    let (now, suite) = (world.now(), Suite::Classical);
    let put = async |upload: &PrekeyUpload| device.put_prekeys(&world, upload).await;
    let leaf = || device.leaf(suite, PrekeyKind::OneTime, now);

    let other = world.pending_device().await;
    put(&other.upload_of(&[leaf()], now)).await.expect_problem("invalid_structure");
    let foreign = device.upload_of(&[other.leaf(suite, PrekeyKind::OneTime, now)], now);
    put(&foreign).await.expect_detail("invalid_structure", "wrong_device");
    let mut missing = device.upload_of(&[leaf(), leaf()], now);
    missing.leaves.pop();
    put(&missing).await.expect_detail("invalid_structure", "prekey_mismatch");
    let mut swapped = device.upload_of(&[leaf(), leaf()], now);
    swapped.leaves.swap(0, 1);
    put(&swapped).await.expect_detail("invalid_structure", "prekey_mismatch");
    let hybrid = device.upload_of(&[device.leaf(Suite::Hybrid, PrekeyKind::OneTime, now)], now);
    put(&hybrid).await.expect_detail("invalid_value", "suite");
    let same = leaf();
    put(&device.upload_of(&[same.clone(), same], now)).await.expect_detail("invalid_value", "leaves");
    let signed = || device.leaf(suite, PrekeyKind::Signed, now);
    put(&device.upload_of(&[signed(), signed()], now)).await.expect_detail("invalid_value", "leaves");
    let ended = PrekeyLeaf { seal_until: now, ..leaf() };
    put(&device.upload_of(&[ended], now)).await.expect_problem("invalid_expiry");
    let endless = PrekeyLeaf { open_until: now.plus(181 * 86_400), ..leaf() };
    put(&device.upload_of(&[endless], now)).await.expect_problem("invalid_expiry");
    put(&device.upload_of(&[leaf()], now.plus(1000))).await.expect_detail("invalid_value", "created");

    let many: Vec<_> = (0..128).map(|_| leaf()).collect();
    assert_eq!(put(&device.upload_of(&many, now)).await.status, 200);
    let three: Vec<_> = (0..3).map(|_| leaf()).collect();
    put(&device.upload_of(&three, now)).await.expect_detail("invalid_value", "too_many_prekeys");
    let stored: PrekeysStored = put(&device.upload_of(&three[..2], now)).await.expect(200);
    assert_eq!(stored.prekeys[0].one_time, 130);
    let mut replace = device.upload_of(&(0..120).map(|_| leaf()).collect::<Vec<_>>(), now);
    replace.replace = true;
    assert_eq!(put(&replace).await.status, 200);
    let mut replace = device.upload_of(&(0..120).map(|_| leaf()).collect::<Vec<_>>(), now);
    replace.replace = true;
    put(&replace).await.expect_detail("invalid_value", "too_many_prekeys");
    assert_eq!(device.state(&world).await.prekeys[0].one_time, 120, "what was refused has voided nothing");
}
