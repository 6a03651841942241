//! Key packages: each one-time one once, none of them twice, and the last resort when nothing else is there.

use std::collections::HashSet;

use http::Method;
use sealpost_service::audit::Act;
use sealpost_wire::api::keyserver::{
    KeyPackageCount, KeyPackageLookUp, KeyPackageUpload, KeyPackagesFound, KeyPackagesStored,
};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::id::{DeviceId, RecipientId};
use sealpost_wire::key::SigningKey;
use sealpost_wire::key_package::{KeyPackageDraft, Lifetime, MlsSuite, SignedKeyPackage};
use sealpost_wire::prekey::VerifiedPrekey;
use sealpost_wire::record::DeviceRecord;
use serde_json::json;

use crate::client::Call;
use crate::device::{TestDevice, credential};
use crate::world::{World, consent, consent_path, recipient, rng};

/// A patient's device, and that of a steward who adds it to groups.
struct Stage {
    world: World,
    recipient: RecipientId,
    device: TestDevice,
    steward: TestDevice,
}

impl Stage {
    async fn with(settings: &str) -> Self {
        let world = World::with(settings).await;
        let recipient = recipient();
        let device = world.enrolled_device(recipient, 0).await;
        let steward = world.enrolled_device(crate::world::recipient(), 0).await;
        world.consent(recipient, true).await;
        Self { world, recipient, device, steward }
    }

    async fn new() -> Self {
        Self::with("").await
    }

    async fn take(&self) -> KeyPackagesFound {
        self.steward.take(&self.world, self.recipient).await
    }

    /// The only key package that a look-up gives, if it gives one.
    async fn take_one(&self) -> Option<(Base64Url, bool)> {
        let found = self.take().await;
        assert!(found.packages.iter().all(|found| found.device == self.device.id));
        assert!(found.packages.len() <= 1);
        found.packages.into_iter().next().map(|found| (found.package, found.last_resort))
    }

    async fn put(&self, upload: &KeyPackageUpload) -> Vec<KeyPackageCount> {
        let stored: KeyPackagesStored = self.device.put_key_packages(&self.world, upload).await.expect(200);
        assert_eq!(stored.key_packages, self.device.state(&self.world).await.key_packages);
        stored.key_packages
    }

    fn packages(&self, packages: Vec<Base64Url>) -> KeyPackageUpload {
        KeyPackageUpload { suite: 3, packages, last_resort: None, replace: false }
    }
}

#[tokio::test]
async fn what_a_device_uploads_is_handed_out_with_what_it_takes_to_use_it() {
    let stage = Stage::new().await;
    let (world, device) = (&stage.world, &stage.device);
    assert!(device.state(world).await.key_packages.is_empty(), "the sign that there are none");
    world.put_status(world.tenant.status(1, world.now(), &[], &[])).await.expect::<serde_json::Value>(200);
    let upload = device.key_packages(world, 2);
    let counts = stage.put(&upload).await;
    assert_eq!(counts, [KeyPackageCount { suite: 3, one_time: 2, last_resort_until: None }]);

    let found = stage.take().await;
    let [package] = &found.packages[..] else { panic!("{found:?}") };
    assert!(upload.packages.contains(&package.package) && !package.last_resort);
    assert!(SignedKeyPackage::read(package.package.as_ref()).unwrap().verify_signatures().is_ok());
    let state = device.state(world).await;
    assert_eq!(
        (Some(&found.set), found.status.is_some(), found.time),
        (state.set.as_ref(), true, world.now())
    );
    let [prekeys] = &found.prekeys[..] else { panic!("{found:?}") };
    assert!(prekeys.one_time.is_none(), "the group's messages are sealed to signed ones");
    let record = DeviceRecord::verify(&device.record).unwrap();
    let signed = prekeys.signed.as_ref().unwrap();
    assert!(VerifiedPrekey::verify(signed, &record, world.now()).is_ok());
    assert_eq!(state.key_packages[0].one_time, 1, "and the device sees that it is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_takers_at_once_never_get_one_key_package_twice_and_all_there_are() {
    let stage = Stage::with("[key_package_rates]\nrecipient = { requests = 500, seconds = 1 }\n").await;
    let (world, device) = (&stage.world, &stage.device);
    let mut uploaded = HashSet::new();
    for one_time in [100, 20] {
        let upload = device.key_packages(world, one_time);
        uploaded.extend(upload.packages.iter().cloned());
        stage.put(&upload).await;
    }
    let other = world.enrolled_device(recipient(), 0).await;
    let mut look_ups = tokio::task::JoinSet::new();
    for number in 0..150 {
        let taker = if number % 2 == 0 { &stage.steward } else { &other };
        let call = taker.sign(&world.http, taker.key_package_call(stage.recipient, 3), world.now());
        let http = world.http.clone();
        look_ups.spawn(async move { http.send(call).await.expect::<KeyPackagesFound>(200) });
    }
    let answers = look_ups.join_all().await;
    let taken: Vec<_> = answers.into_iter().flat_map(|found| found.packages).collect();
    assert_eq!(taken.len(), 120, "as many as there were");
    let taken: HashSet<_> = taken.into_iter().map(|found| found.package).collect();
    assert_eq!(taken, uploaded, "each once");
    assert_eq!(device.state(world).await.key_packages[0].one_time, 0);
}

#[tokio::test]
async fn each_device_of_a_recipient_gives_one() {
    let stage = Stage::new().await;
    let world = &stage.world;
    let second = world.enrolled_device(stage.recipient, 0).await;
    let third = world.enrolled_device(stage.recipient, 0).await;
    for device in [&stage.device, &second] {
        device.upload_key_packages(world, 1).await;
    }
    let revoked = world.enrolled_device(stage.recipient, 0).await;
    revoked.upload_key_packages(world, 1).await;
    let status = world.tenant.status(1, world.now(), &[], &[revoked.id]);
    world.put_status(status).await.expect::<serde_json::Value>(200);

    let devices = |found: &KeyPackagesFound| -> HashSet<DeviceId> {
        found.packages.iter().map(|found| found.device).collect()
    };
    let found = stage.take().await;
    assert_eq!(devices(&found), HashSet::from([stage.device.id, second.id]));
    // Who has none left can still be written to, and is in the set: whoever adds the others sees it.
    assert!(found.prekeys.iter().any(|prekeys| prekeys.device == third.id && prekeys.signed.is_some()));
    assert!(found.prekeys.iter().all(|prekeys| prekeys.device != revoked.id));
    assert!(stage.take().await.packages.is_empty());
    revoked.put_key_packages(world, &revoked.key_packages(world, 1)).await.expect_problem("revoked");
    revoked.try_take(world, stage.recipient).await.expect_problem("revoked");
}

#[tokio::test]
async fn the_last_resort_is_given_again_and_again_once_the_others_are_gone() {
    let stage = Stage::new().await;
    let (world, device) = (&stage.world, &stage.device);
    let first = device.last_resort(world);
    let upload = KeyPackageUpload { last_resort: Some(first.clone()), ..device.key_packages(world, 1) };
    let counts = stage.put(&upload).await;
    let until = Some(world.now().plus(28 * 86_400));
    assert_eq!(counts, [KeyPackageCount { suite: 3, one_time: 1, last_resort_until: until }]);
    assert_eq!(stage.take_one().await, Some((upload.packages[0].clone(), false)));
    for _ in 0..3 {
        assert_eq!(stage.take_one().await, Some((first.clone(), true)));
    }
    world.pass(100);
    let second = device.last_resort(world);
    stage.put(&KeyPackageUpload { last_resort: Some(second.clone()), ..stage.packages(Vec::new()) }).await;
    assert_eq!(stage.take_one().await, Some((second, true)), "rotated");
    let again = device.put_key_packages(world, &upload).await;
    assert_eq!(again.status, 200, "the same upload again changes nothing");
    world.pass(28 * 86_400);
    assert_eq!(stage.take_one().await, None);
    assert!(device.state(world).await.key_packages.iter().all(|count| count.last_resort_until.is_none()));
}

#[tokio::test]
async fn suites_are_kept_apart() {
    let stage = Stage::new().await;
    let (world, device) = (&stage.world, &stage.device);
    let hybrid = device.key_package_until(world, MlsSuite::Hybrid, 86_400, false);
    stage.put(&KeyPackageUpload { suite: 0x4d, ..stage.packages(vec![hybrid.clone()]) }).await;
    let counts = stage.put(&device.key_packages(world, 2)).await;
    assert_eq!(
        counts.iter().map(|count| (count.suite, count.one_time)).collect::<Vec<_>>(),
        [(0x4d, 1), (3, 2)]
    );
    let call = stage.steward.key_package_call(stage.recipient, 0x4d);
    let found: KeyPackagesFound = stage.steward.send(world, call).await.expect(200);
    assert_eq!(found.packages[0].package, hybrid);
    let replace = KeyPackageUpload { replace: true, ..device.key_packages(world, 1) };
    let counts = stage.put(&replace).await;
    assert_eq!(
        counts.iter().map(|count| (count.suite, count.one_time)).collect::<Vec<_>>(),
        [(0x4d, 0), (3, 1)]
    );
}

#[tokio::test]
async fn a_key_package_that_was_taken_never_comes_back() {
    let mut stage = Stage::new().await;
    let upload = stage.device.key_packages(&stage.world, 2);
    stage.put(&upload).await;
    let (taken, _) = stage.take_one().await.unwrap();
    let other = upload.packages.iter().find(|package| **package != taken).unwrap().clone();
    for round in ["at once", "after a restart"] {
        let counts = stage.put(&upload).await;
        assert_eq!(counts[0].one_time, 1, "the same upload changes nothing, {round}");
        let new = stage.device.key_package(&stage.world);
        for known in [&taken, &other] {
            let mixed = stage.packages(vec![new.clone(), known.clone()]);
            let answer = stage.device.put_key_packages(&stage.world, &mixed).await;
            answer.expect_detail("conflict", "key_package_reused");
        }
        stage.world.restart().await;
    }
    assert_eq!(stage.take_one().await, Some((other, false)));
    assert_eq!(stage.take_one().await, None);
}

#[tokio::test]
async fn a_device_that_lost_its_state_voids_what_it_uploaded() {
    let stage = Stage::new().await;
    let (world, device) = (&stage.world, &stage.device);
    let old =
        KeyPackageUpload { last_resort: Some(device.last_resort(world)), ..device.key_packages(world, 3) };
    stage.put(&old).await;
    let new = KeyPackageUpload { replace: true, ..device.key_packages(world, 2) };
    let counts = stage.put(&new).await;
    assert_eq!(counts, [KeyPackageCount { suite: 3, one_time: 2, last_resort_until: None }]);
    for _ in 0..2 {
        assert!(new.packages.contains(&stage.take_one().await.unwrap().0));
    }
    // Repeated after a lost answer, it does not void what came since.
    stage.put(&device.key_packages(world, 1)).await;
    assert_eq!(stage.put(&new).await[0].one_time, 1);
}

#[tokio::test]
async fn a_restored_store_hands_out_no_one_time_key_package_of_its_earlier_life() {
    let mut stage = Stage::new().await;
    let last_resort = Some(stage.device.last_resort(&stage.world));
    let upload = KeyPackageUpload { last_resort, ..stage.device.key_packages(&stage.world, 3) };
    stage.put(&upload).await;
    let before = stage.device.state(&stage.world).await.incarnation;
    stage.world.restart_as(true).await;
    let state = stage.device.state(&stage.world).await;
    assert_eq!((state.incarnation, state.key_packages[0].one_time), (before + 1, 0));
    assert!(stage.world.metric("sealpost_keyserver_key_packages_waiting{suite=\"classical\"} 0").await);
    assert_eq!(stage.take_one().await, upload.last_resort.clone().map(|package| (package, true)));
    let again = stage.put(&upload).await;
    assert_eq!(again[0].one_time, 0, "they may have been taken in the life that was cut off");
    stage.put(&stage.device.key_packages(&stage.world, 1)).await;
    assert!(!stage.take_one().await.unwrap().1);
}

#[tokio::test]
async fn what_has_ended_is_neither_given_nor_kept() {
    let stage = Stage::with("[limits]\nexpiry_seconds = 1\n").await;
    let (world, device) = (&stage.world, &stage.device);
    let until = |seconds| device.key_package_until(world, MlsSuite::Classical, seconds, false);
    let (late, soon) = (vec![until(5000)], vec![until(100), until(200)]);
    stage.put(&stage.packages(late.clone())).await;
    stage.put(&stage.packages(soon.clone())).await;
    world.pass(100);
    assert_eq!(device.state(world).await.key_packages[0].one_time, 2);
    assert_eq!(stage.take_one().await, Some((soon[1].clone(), false)), "what ends first, first");
    assert_eq!(stage.take_one().await, Some((late[0].clone(), false)));
    let refused = device.put_key_packages(world, &stage.packages(soon)).await;
    refused.expect_detail("invalid_expiry", "key_package_expired");

    stage.put(&device.key_packages(world, 5)).await;
    assert!(world.metric("sealpost_keyserver_key_packages_waiting{suite=\"classical\"} 5").await);
    world.pass(28 * 86_400 + 1);
    // Without a look-up too.
    world.await_metric("sealpost_keyserver_key_packages_waiting{suite=\"classical\"} 0").await;
    let mut stage = stage;
    stage.world.stop().await;
    let rows = stage.world.rows().await;
    assert!(rows.iter().all(|row| !row.starts_with("key_package")), "{rows:?}");
}

#[tokio::test]
async fn a_device_that_was_removed_has_no_key_packages_any_more() {
    let stage = Stage::with("[limits]\nexpiry_seconds = 1\n").await;
    let (world, device) = (&stage.world, &stage.device);
    let last_resort = Some(device.last_resort(world));
    stage.put(&KeyPackageUpload { last_resort, ..device.key_packages(world, 3) }).await;
    let mut removed = world.draft(stage.recipient).await;
    removed.records.clear();
    removed.revoked.push(device.id);
    let set = world.sign(removed);
    assert_eq!(world.put_set(stage.recipient, set, Vec::new()).await.status, 200);
    assert_eq!(stage.take_one().await, None, "at once");
    device.put_key_packages(world, &device.key_packages(world, 1)).await.expect_problem("revoked");
    device.try_take(world, stage.recipient).await.expect_problem("revoked");
    world.pass(1);
    world.await_metric("sealpost_keyserver_key_packages_waiting{suite=\"classical\"} 0").await;
    assert!(device.state(world).await.key_packages.is_empty());
    let mut stage = stage;
    stage.world.stop().await;
    let rows = stage.world.rows().await;
    let kept = |name: &str| rows.iter().filter(|row| *row == name).count();
    assert_eq!((kept("key_packages"), kept("key_package_stocks")), (0, 0));
    assert_eq!(kept("key_package_refs"), 4, "until they have ended, none comes back");
}

#[tokio::test]
async fn uploads_are_verified_and_bounded() {
    let settings = "[limits]\nkey_packages_max = 101\nremembered_key_packages_max = 150\n";
    let stage = Stage::with(settings).await;
    let (world, device) = (&stage.world, &stage.device);
    let put = async |upload: &KeyPackageUpload| device.put_key_packages(world, upload).await;
    let good = || device.key_package(world);
    let of = |packages| stage.packages(packages);

    let other = world.enrolled_device(recipient(), 0).await;
    put(&of(vec![other.key_package(world)])).await.expect_detail("invalid_structure", "wrong_device");
    let thief = TestDevice {
        identity: SigningKey::generate(&mut rng()),
        ..TestDevice::new(&device.tenant, &device.secret, world.now())
    };
    put(&of(vec![thief.key_package(world)])).await.expect_detail("invalid_structure", "wrong_device");
    let foreign = KeyPackageDraft {
        suite: MlsSuite::Classical,
        init_key: vec![1; 32],
        encryption_key: vec![2; 32],
        credential: credential(&device.admission(&world.other.enrol, world.now())),
        lifetime: Lifetime { not_before: world.now(), not_after: world.now().plus(60) },
        is_last_resort: false,
    };
    let foreign = Base64Url(foreign.sign(&device.identity));
    put(&of(vec![good(), foreign])).await.expect_detail("invalid_structure", "unknown_root");
    let mut altered = good();
    *altered.0.last_mut().unwrap() ^= 1;
    put(&of(vec![altered])).await.expect_detail("invalid_structure", "bad_signature");
    let longer = Base64Url([&good().0[..], &[0]].concat());
    put(&of(vec![longer])).await.expect_detail("invalid_structure", "trailing_bytes");
    let long = device.key_package_until(world, MlsSuite::Classical, 85 * 86_400, false);
    put(&of(vec![long])).await.expect_detail("invalid_expiry", "wrong_lifetime");

    let hybrid = device.key_package_until(world, MlsSuite::Hybrid, 60, false);
    put(&of(vec![hybrid])).await.expect_detail("invalid_value", "suite");
    for suite in [0, 1, 2, 0x4c, u16::MAX] {
        put(&KeyPackageUpload { suite, ..of(vec![good()]) }).await.expect_detail("invalid_value", "suite");
    }
    put(&of(Vec::new())).await.expect_detail("invalid_value", "packages");
    put(&KeyPackageUpload { replace: true, ..of(Vec::new()) })
        .await
        .expect_detail("invalid_value", "packages");
    let same = good();
    put(&of(vec![same.clone(), good(), same])).await.expect_detail("invalid_value", "packages");
    put(&of(vec![device.last_resort(world)])).await.expect_detail("invalid_value", "last_resort");
    let as_last = KeyPackageUpload { last_resort: Some(good()), ..of(Vec::new()) };
    put(&as_last).await.expect_detail("invalid_value", "last_resort");
    put(&device.key_packages(world, 101)).await.expect_detail("invalid_value", "packages");
    assert!(device.state(world).await.key_packages.is_empty(), "nothing of all that is stored");

    assert_eq!(put(&device.key_packages(world, 100)).await.status, 200);
    put(&device.key_packages(world, 2)).await.expect_detail("invalid_value", "too_many_key_packages");
    assert_eq!(put(&device.key_packages(world, 1)).await.status, 200);
    let replace = |one_time| KeyPackageUpload { replace: true, ..device.key_packages(world, one_time) };
    put(&replace(50)).await.expect_detail("invalid_value", "too_many_key_packages");
    assert_eq!(
        device.state(world).await.key_packages[0].one_time,
        101,
        "what was refused has voided nothing"
    );
    assert_eq!(put(&replace(49)).await.status, 200);
}

#[tokio::test]
async fn only_devices_in_a_set_have_key_packages_and_take_them() {
    let stage = Stage::new().await;
    let world = &stage.world;
    let pending = world.pending_device().await;
    let refused = pending.put_key_packages(world, &pending.key_packages(world, 1)).await;
    refused.expect_detail("forbidden", "not_admitted");
    pending.try_take(world, stage.recipient).await.expect_detail("forbidden", "not_admitted");
    // Another device's path is nothing that this one knows of.
    let path = format!("/v1/devices/{}/key-packages", stage.device.id);
    let upload = stage.steward.key_packages(world, 1);
    let answer = stage.steward.send(world, Call::json(Method::PUT, &path, &upload)).await;
    answer.expect_problem("not_found");
    // Senders look up by another door.
    let path = format!("/v1/recipients/{}/key-packages", stage.recipient);
    let body = json!({ "suite": 3, "category": crate::world::CATEGORY });
    world.post(&world.tenant.sender, &path, &body).await.expect_problem("missing_credentials");

    let secret = world.ticket().await;
    let declined = TestDevice::new(&world.tenant.id, &secret, world.now());
    assert_eq!(declined.claim(&world.http).await.status, 202);
    let close = format!("/v1/tickets/{}/close", secret.ticket_id());
    assert_eq!(world.post(&world.tenant.enroller, &close, &json!({})).await.status, 200);
    let refused = declined.put_key_packages(world, &declined.key_packages(world, 1)).await;
    refused.expect_problem("ticket_unavailable");
    declined.try_take(world, stage.recipient).await.expect_problem("ticket_unavailable");
}

#[tokio::test]
async fn a_look_up_needs_consent_and_a_suite_and_is_audited_either_way() {
    let mut stage = Stage::new().await;
    stage.device.upload_key_packages(&stage.world, 2).await;
    let world = &stage.world;
    let path = format!("/v1/recipients/{}/key-packages", stage.recipient);
    let ask = async |suite, category: &str| {
        let body = KeyPackageLookUp { suite, category: category.to_owned() };
        stage.steward.send(world, Call::json(Method::POST, &path, &body)).await
    };
    ask(3, "meals").await.expect_problem("consent_missing");
    ask(3, "").await.expect_detail("invalid_value", "category");
    ask(4, crate::world::CATEGORY).await.expect_detail("invalid_value", "suite");
    let withdrawn = consent(false, world.now().plus(1));
    let withdraw = consent_path(stage.recipient, crate::world::CATEGORY);
    assert!(world.put(&world.tenant.enroller, &withdraw, &withdrawn).await.status.is_success());
    stage.steward.try_take(world, stage.recipient).await.expect_problem("consent_missing");
    assert_eq!(stage.device.state(world).await.key_packages[0].one_time, 2, "nothing was taken");
    // Nobody, and somebody of another tenant, are alike.
    stage.steward.try_take(world, recipient()).await.expect_problem("not_found");

    let given = consent(true, world.now().plus(2));
    assert!(world.put(&world.tenant.enroller, &withdraw, &given).await.status.is_success());
    stage.take_one().await.unwrap();
    let tenant = stage.world.tenant.id.clone();
    stage.world.stop().await;
    let rows = stage.world.read_store().await.audit(&tenant);
    let outcomes = |act| {
        rows.iter().filter(|(_, row)| row.act == act).map(|(_, row)| row.outcome.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(outcomes(Act::KeyPackagesTaken), ["consent_missing", "consent_missing", "done"]);
    assert_eq!(outcomes(Act::KeyPackagesPut), ["done"]);
    let (_, put) = rows.iter().find(|(_, row)| row.act == Act::KeyPackagesPut).unwrap();
    assert_eq!(
        (put.who.clone(), put.objects["one_time"].as_str()),
        (format!("device:{}", stage.device.id), "2")
    );
    let (_, taken) = rows.iter().rfind(|(_, row)| row.act == Act::KeyPackagesTaken).unwrap();
    assert_eq!(taken.who, format!("device:{}", stage.steward.id));
    assert_eq!(taken.objects["recipient"], stage.recipient.to_string());
}

#[tokio::test]
async fn who_takes_too_many_is_refused_and_so_is_taking_too_many_of_one() {
    let settings = "[key_package_rates]\ncaller = { requests = 4, seconds = 3600 }\n\
                    recipient = { requests = 2, seconds = 3600 }\n";
    let stage = Stage::with(settings).await;
    let world = &stage.world;
    let refused = |answer: &crate::client::Answer, seconds: u32| {
        answer.expect_problem("rate_limited");
        let wait: u32 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=seconds).contains(&wait), "{wait}");
    };
    stage.device.upload_key_packages(world, 5).await;
    stage.take_one().await.unwrap();
    // A second steward meets the limit on the recipient.
    let second = world.enrolled_device(recipient(), 0).await;
    assert_eq!(second.try_take(world, stage.recipient).await.status, 200);
    for taker in [&stage.steward, &second] {
        refused(&taker.try_take(world, stage.recipient).await, 1800);
    }
    assert_eq!(stage.device.state(world).await.key_packages[0].one_time, 3, "who is refused takes nothing");
    // The first has two more for others, known or not.
    for _ in 0..2 {
        stage.steward.try_take(world, recipient()).await.expect_problem("not_found");
    }
    refused(&stage.steward.try_take(world, recipient()).await, 900);
    for whose in ["caller", "recipient"] {
        let count = if whose == "caller" { 1 } else { 2 };
        let line = format!("sealpost_rate_limited_total{{whose=\"key_package_{whose}\"}} {count}");
        assert!(world.metric(&line).await, "{line}");
    }
}

#[tokio::test]
async fn the_operator_sees_what_is_there_what_is_taken_and_what_is_missing() {
    let mut stage = Stage::new().await;
    let last_resort = Some(stage.device.last_resort(&stage.world));
    stage.put(&KeyPackageUpload { last_resort, ..stage.device.key_packages(&stage.world, 2) }).await;
    for _ in 0..3 {
        stage.take().await;
    }
    let call = stage.steward.key_package_call(stage.recipient, 0x4d);
    assert_eq!(stage.steward.send(&stage.world, call).await.status, 200);
    stage.put(&stage.device.key_packages(&stage.world, 4)).await;
    for line in [
        "sealpost_keyserver_key_packages_waiting{suite=\"classical\"} 4",
        "sealpost_keyserver_key_packages_waiting{suite=\"hybrid\"} 0",
        "sealpost_keyserver_key_packages_total{outcome=\"taken\",suite=\"classical\"} 2",
        "sealpost_keyserver_key_packages_total{outcome=\"last_resort\",suite=\"classical\"} 1",
        "sealpost_keyserver_key_packages_total{outcome=\"exhausted\",suite=\"hybrid\"} 1",
        "sealpost_keyserver_key_packages_uploaded_total{kind=\"one_time\",suite=\"classical\"} 6",
        "sealpost_keyserver_key_packages_uploaded_total{kind=\"last_resort\",suite=\"classical\"} 1",
        "sealpost_keyserver_key_package_look_ups_total{outcome=\"answered\"} 4",
    ] {
        assert!(stage.world.metric(line).await, "{line}");
    }
    stage.world.restart().await;
    let line = "sealpost_keyserver_key_packages_waiting{suite=\"classical\"} 4";
    assert!(stage.world.metric(line).await, "counted anew when it opens");
}

#[tokio::test]
async fn the_largest_upload_fits_and_a_larger_one_is_cut_off() {
    let stage = Stage::new().await;
    let (world, device) = (&stage.world, &stage.device);
    let hybrid = |is_last_resort| device.key_package_until(world, MlsSuite::Hybrid, 60, is_last_resort);
    let packages = (0..100).map(|_| hybrid(false)).collect();
    let upload = KeyPackageUpload { suite: 0x4d, packages, last_resort: Some(hybrid(true)), replace: false };
    assert_eq!(device.put_key_packages(world, &upload).await.status, 200);
    let path = format!("/v1/devices/{}/key-packages", device.id);
    let call = Call::new(Method::PUT, &path).raw_json(vec![b' '; 900_000]);
    device.send(world, call).await.expect_problem("body_too_large");
}
