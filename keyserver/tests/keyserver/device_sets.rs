//! Device sets: who may change them, and how.

use sealpost_wire::api::keyserver::{DeviceSetBody, DeviceSetState};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::certificate::Purpose;
use sealpost_wire::key::SigningKey;
use sealpost_wire::record::DeviceRecord;
use sealpost_wire::status::{Revocation, TenantStatus};

use crate::device::TestDevice;
use crate::world::{Certified, World, certified, devices_path, recipient, rng};

#[tokio::test]
async fn of_two_enrollers_one_wins_and_the_other_tries_again() {
    let world = World::new().await;
    let recipient = recipient();
    let devices = [world.pending_device().await, world.pending_device().await];
    let [first, second] = &devices;
    // Both have drafted version 1 before either puts it.
    let (answer, other) = tokio::join!(world.admit(recipient, first), world.admit(recipient, second));
    let statuses = [answer.status.as_u16(), other.status.as_u16()];
    let loser = match statuses {
        [200, 409] => second,
        [409, 200] => first,
        both => panic!("{both:?}"),
    };
    assert_eq!(loser.state(&world).await.admission, None);
    let state: DeviceSetState = world.admit(recipient, loser).await.expect(200);
    assert_eq!(state.version, 2);
    for device in &devices {
        assert!(device.state(&world).await.admission.is_some());
    }
}

#[tokio::test]
async fn a_set_follows_the_stored_one() {
    let world = World::new().await;
    let recipient = recipient();
    let device = world.enrolled_device(recipient, 0).await;
    let good = world.draft(recipient).await;

    let mut skipped = good.clone();
    skipped.version += 1;
    let mut forked = good.clone();
    forked.previous = Some(sealpost_wire::id::Digest([7; 32]));
    let mut anew = good.clone();
    (anew.version, anew.previous, anew.issued) = (1, None, anew.issued.plus(1));
    for (name, draft) in [("a version skipped", skipped), ("another past", forked), ("begun anew", anew)] {
        let set = world.sign(draft);
        let answer = world.put_set(recipient, set, Vec::new()).await;
        assert_eq!(answer.problem().0, "version_conflict", "{name}");
    }

    let mut removed = good.clone();
    removed.records.clear();
    removed.revoked.push(device.id);
    let set = world.sign(removed);
    let put: DeviceSetState = world.put_set(recipient, set.clone(), Vec::new()).await.expect(200);
    assert_eq!((put.version, &put.set), (2, &set));
    let again: DeviceSetState = world.put_set(recipient, set.clone(), Vec::new()).await.expect(200);
    assert_eq!(again.version, 2, "the same set again");
    let stored: DeviceSetState = world.get(&world.tenant.sender, &devices_path(recipient)).await.expect(200);
    assert_eq!(stored.set, set);

    // No revoked device is forgotten, none comes back.
    let mut forgetful = world.draft(recipient).await;
    forgetful.revoked.clear();
    let set = world.sign(forgetful);
    world.put_set(recipient, set, Vec::new()).await.expect_problem("version_conflict");
    assert_eq!(device.state(&world).await.admission, None);
    let upload = device.batch(sealpost_wire::message::Suite::Classical, 1, world.now());
    device.put_prekeys(&world, &upload).await.expect_problem("revoked");
}

#[tokio::test]
async fn a_removed_device_that_was_not_revoked_cannot_come_back_either() {
    let world = World::new().await;
    let (one, other) = (recipient(), recipient());
    let device = world.enrolled_device(one, 1).await;
    let mut removed = world.draft(one).await;
    removed.records.clear();
    let set = world.sign(removed);
    assert_eq!(world.put_set(one, set, Vec::new()).await.status, 200);
    world.admit(one, &device).await.expect_detail("invalid_value", "claim_missing");
    world.admit(other, &device).await.expect_detail("invalid_value", "claim_missing");
    let state = device.state(&world).await;
    assert_eq!((state.admission, state.set.is_some()), (None, true), "it can see that it is out");
    world.consent(one, true).await;
    assert!(world.look_up(one).await.devices.is_empty());
}

#[tokio::test]
async fn what_is_added_must_have_claimed_and_be_admitted() {
    let world = World::new().await;
    let recipient = recipient();
    let enrol = world.tenant.enrol.clone();
    let device = world.pending_device().await;
    let put = async |admissions: Vec<Base64Url>,
                     change: fn(&mut sealpost_wire::device_set::DeviceSetDraft)| {
        let mut draft = world.draft(recipient).await;
        draft.records.push(device.record.clone());
        change(&mut draft);
        let set = world.sign(draft);
        world.put_set(recipient, set, admissions).await
    };
    let good = || device.admission(&enrol, world.now());
    put(Vec::new(), |_| {}).await.expect_detail("invalid_value", "admissions");
    put(vec![good(), good()], |_| {}).await.expect_detail("invalid_value", "admissions");
    let stranger = TestDevice::new(&world.tenant.id, &world.ticket().await, world.now());
    let foreign = stranger.admission(&enrol, world.now());
    put(vec![good(), foreign.clone()], |_| {}).await.expect_detail("invalid_value", "admissions");
    let old = device.admission(&enrol, world.now().minus(7200));
    put(vec![old], |_| {}).await.expect_detail("invalid_value", "issued");
    let early = device.admission(&enrol, world.now().plus(7200));
    put(vec![early], |_| {}).await.expect_detail("invalid_value", "issued");
    put(vec![good()], |draft| draft.issued = draft.issued.minus(7200))
        .await
        .expect_detail("invalid_value", "issued");
    let revoke = device.admission(&world.tenant.revoke, world.now());
    put(vec![revoke], |_| {}).await.expect_detail("invalid_structure", "wrong_purpose");
    put(vec![Base64Url(vec![0])], |_| {}).await.expect_problem("invalid_structure");
    put(vec![good(); 17], |_| {}).await.expect_detail("invalid_value", "admissions");

    // Without a claim, and with another record than the claim's.
    world.admit(recipient, &stranger).await.expect_detail("invalid_value", "claim_missing");
    let mut other_record = DeviceRecord::verify(&device.record).unwrap();
    other_record.relay = "https://other.example".to_owned();
    let impostor = TestDevice { record: other_record.sign(&device.identity).unwrap(), ..clone_of(&device) };
    world.admit(recipient, &impostor).await.expect_detail("invalid_value", "claim_missing");
    assert_eq!(put(vec![good()], |_| {}).await.status, 200);
    let mut draft = world.draft(recipient).await;
    draft.records = vec![impostor.record];
    let set = world.sign(draft);
    world.put_set(recipient, set, Vec::new()).await.expect_detail("invalid_value", "records");
}

#[tokio::test]
async fn only_enrol_keys_of_the_tenant_sign_sets() {
    let world = World::new().await;
    let (one, recipient) = (recipient(), recipient());
    let tenant = &world.tenant;
    let device = world.pending_device().await;
    let signed = async |signer: &Certified| {
        let mut draft = world.draft(recipient).await;
        draft.records.push(device.record.clone());
        let set = Base64Url(draft.sign(&signer.key, &signer.certificate).unwrap());
        world.put_set(recipient, set, vec![device.admission(&tenant.enrol, world.now())]).await
    };
    let own_root = SigningKey::generate(&mut rng());
    signed(&certified(&tenant.id, &own_root, Purpose::Enrol))
        .await
        .expect_detail("invalid_structure", "unknown_root");
    signed(&certified(&tenant.id, &tenant.root, Purpose::Send))
        .await
        .expect_detail("invalid_structure", "wrong_purpose");
    signed(&tenant.revoke).await.expect_detail("invalid_structure", "wrong_purpose");
    let of_other = certified(&world.other.id, &tenant.root, Purpose::Enrol);
    signed(&of_other).await.expect_detail("invalid_structure", "wrong_tenant");
    let crossed = Certified { key: tenant.revoke.key.clone(), certificate: tenant.enrol.certificate.clone() };
    signed(&crossed).await.expect_detail("invalid_structure", "bad_signature");

    let mut draft = world.draft(recipient).await;
    draft.records.push(device.record.clone());
    let set = world.sign(draft);
    let admissions = vec![device.admission(&tenant.enrol, world.now())];
    world.put_set(one, set.clone(), admissions.clone()).await.expect_detail("invalid_value", "recipient");
    let body = DeviceSetBody { set: set.clone(), admissions: admissions.clone() };
    let path = devices_path(recipient);
    world.put(&tenant.sender, &path, &body).await.expect_problem("forbidden");
    world.put(&tenant.revoker, &path, &body).await.expect_problem("forbidden");
    world.put(&world.other.enroller, &path, &body).await.expect_problem("invalid_structure");
    assert_eq!(world.put(&tenant.enroller, &path, &body).await.status, 200);
}

#[tokio::test]
async fn a_revoker_may_remove_and_nothing_else() {
    let world = World::new().await;
    let recipient = recipient();
    let (stays, goes) =
        (world.enrolled_device(recipient, 1).await, world.enrolled_device(recipient, 1).await);
    let revoke = &world.tenant.revoke;
    let mut draft = world.draft(recipient).await;
    draft.records.retain(|record| *record != goes.record);
    draft.revoked.push(goes.id);
    let body = |set: Vec<u8>, admissions| DeviceSetBody { set: Base64Url(set), admissions };
    let removal = body(draft.sign(&revoke.key, &revoke.certificate).unwrap(), Vec::new());
    let path = devices_path(recipient);
    let state: DeviceSetState = world.put(&world.tenant.revoker, &path, &removal).await.expect(200);
    assert_eq!(state.version, 3);

    // The enroller goes on from a set that a revoke key has signed.
    let newcomer = world.pending_device().await;
    let mut draft = world.draft(recipient).await;
    draft.records.push(newcomer.record.clone());
    let admission = newcomer.admission(&world.tenant.enrol, world.now());
    let by_revoker = body(draft.clone().sign(&revoke.key, &revoke.certificate).unwrap(), vec![admission]);
    let refused = world.put(&world.tenant.revoker, &path, &by_revoker).await;
    refused.expect_detail("invalid_structure", "wrong_purpose");
    let state: DeviceSetState = world.admit(recipient, &newcomer).await.expect(200);
    assert_eq!(state.version, 4);
    assert!(stays.state(&world).await.admission.is_some());
    assert_eq!(goes.state(&world).await.admission, None);
}

#[tokio::test]
async fn a_retired_enrol_key_signs_nothing_new_and_what_it_signed_stays() {
    let world = World::new().await;
    let recipient = recipient();
    let device = world.enrolled_device(recipient, 1).await;
    let tenant = &world.tenant;
    let status = TenantStatus {
        tenant: tenant.id.clone(),
        sequence: 1,
        issued: world.now(),
        revoked_keys: vec![(tenant.enrol.key.verifying_key().key_id(), Revocation::Retired)],
        revoked_devices: Vec::new(),
    };
    let status = status.sign(&tenant.revoke.key, &tenant.revoke.certificate).unwrap();
    assert_eq!(world.put_status(status).await.status, 200);
    let newcomer = world.pending_device().await;
    world.admit(recipient, &newcomer).await.expect_detail("invalid_structure", "key_revoked");
    assert!(device.state(&world).await.admission.is_some());
    world.consent(recipient, true).await;
    assert_eq!(world.look_up(recipient).await.devices.len(), 1);

    // Its successor confirms the device anew and lets the other one in.
    let successor = certified(&tenant.id, &tenant.root, Purpose::Enrol);
    let mut draft = world.draft(recipient).await;
    draft.records.push(newcomer.record.clone());
    let set = Base64Url(draft.sign(&successor.key, &successor.certificate).unwrap());
    let admissions = [&device, &newcomer].map(|one| one.admission(&successor, world.now()));
    assert_eq!(world.put_set(recipient, set, admissions.to_vec()).await.status, 200);
    assert_eq!(device.state(&world).await.admission, Some(admissions[0].clone()));
    assert_eq!(newcomer.state(&world).await.admission, Some(admissions[1].clone()));
}

#[tokio::test]
async fn a_compromised_enrol_key_does_not_lock_its_recipients_out() {
    let world = World::new().await;
    let recipient = recipient();
    let device = world.enrolled_device(recipient, 1).await;
    let tenant = &world.tenant;
    let status = tenant.status(1, world.now(), &[tenant.enrol.key.verifying_key().key_id()], &[]);
    assert_eq!(world.put_status(status).await.status, 200);
    let successor = certified(&tenant.id, &tenant.root, Purpose::Enrol);
    let draft = world.draft(recipient).await;
    let set = Base64Url(draft.sign(&successor.key, &successor.certificate).unwrap());
    let admission = device.admission(&successor, world.now());
    assert_eq!(world.put_set(recipient, set, vec![admission.clone()]).await.status, 200);
    assert_eq!(device.state(&world).await.admission, Some(admission));
}

fn clone_of(device: &TestDevice) -> TestDevice {
    TestDevice {
        tenant: device.tenant.clone(),
        id: device.id,
        identity: device.identity.clone(),
        request: device.request.clone(),
        record: device.record.clone(),
        secret: device.secret.clone(),
    }
}
