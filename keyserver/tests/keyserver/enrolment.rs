//! Tickets and claims, up to a device that can be sealed to.

use http::Method;
use sealpost_wire::admission::Admission;
use sealpost_wire::api::keyserver::{CloseBody, TicketBody, TicketState};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::device_set::DeviceSet;
use sealpost_wire::id::TicketId;
use sealpost_wire::message::Suite;
use sealpost_wire::prekey::{PrekeyKind, VerifiedPrekey};
use sealpost_wire::record::Enrolment;
use sealpost_wire::ticket::TicketSecret;
use sealpost_wire::trust::TenantTrust;

use crate::client::Call;
use crate::device::TestDevice;
use crate::world::{World, recipient, rng};

fn ticket_path(ticket: TicketId) -> String {
    format!("/v1/tickets/{ticket}")
}

#[tokio::test]
async fn a_device_enrols_and_a_sender_gets_prekeys_that_verify() {
    let world = World::new().await;
    let (tenant, recipient) = (&world.tenant, recipient());
    let secret = world.ticket().await;
    let ticket = secret.ticket_id();

    let suites = vec![Suite::Hybrid, Suite::Classical];
    let device = TestDevice::with_suites(&tenant.id, &secret, world.now(), suites);
    assert_eq!(device.claim(&world.http).await.status, 202);
    for suite in [Suite::Hybrid, Suite::Classical] {
        let upload = device.batch(suite, 3, world.now());
        assert_eq!(device.put_prekeys(&world, &upload).await.status, 200, "while it waits");
    }
    assert_eq!(device.state(&world).await.admission, None);

    // The enroller sees the claim, and that it was made with the ticket's secret.
    let state: TicketState = world.get(&tenant.enroller, &ticket_path(ticket)).await.expect(200);
    assert!(!state.closed);
    assert_eq!(state.enrolments.len(), 1);
    let enrolment = Enrolment::read(state.enrolments[0].as_ref()).unwrap();
    assert_eq!(enrolment.verify_binding(&secret.binding_key()), Ok(()));
    assert_eq!(enrolment.record_bytes(), device.record);

    assert_eq!(world.admit(recipient, &device).await.status, 200);
    let state: TicketState = world.get(&tenant.enroller, &ticket_path(ticket)).await.expect(200);
    assert!(state.closed && state.enrolments.is_empty(), "a ticket is used once");

    // The device finds its admission and set, and what is left of its prekeys.
    let mut trust = TenantTrust::new(tenant.id.clone(), vec![tenant.root.verifying_key()]);
    let state = device.state(&world).await;
    let admission = Admission::verify(state.admission.unwrap().as_ref(), &trust).unwrap();
    assert_eq!(admission.record.device, device.id);
    let (set, _) = DeviceSet::verify(state.set.unwrap().as_ref(), &trust, None).unwrap();
    assert_eq!(set.version, 1);
    assert_eq!(
        state.prekeys.iter().map(|count| (count.suite, count.one_time)).collect::<Vec<_>>(),
        [(Suite::Hybrid, 3), (Suite::Classical, 3)]
    );
    assert!(state.prekeys.iter().all(|count| count.signed_until.is_some()));

    // The sender believes nothing but the tenant's root.
    world.put_status(tenant.status(1, world.now(), &[], &[])).await.expect::<serde_json::Value>(200);
    world.consent(recipient, true).await;
    let found = world.look_up(recipient).await;
    assert_eq!(trust.accept_status(found.status.unwrap().as_ref(), found.time), Ok(true));
    let (set, _) = DeviceSet::verify(found.set.as_ref(), &trust, None).unwrap();
    let record = &set.device(device.id).unwrap().record;
    assert_eq!(found.devices.len(), 2, "one for each suite");
    for prekeys in found.devices {
        let signed = VerifiedPrekey::verify(&prekeys.signed.unwrap(), record, found.time).unwrap();
        assert_eq!((signed.leaf().suite, signed.leaf().kind), (prekeys.suite, PrekeyKind::Signed));
        let one_time = VerifiedPrekey::verify(&prekeys.one_time.unwrap(), record, found.time).unwrap();
        assert_eq!((one_time.leaf().suite, one_time.leaf().kind), (prekeys.suite, PrekeyKind::OneTime));
    }
}

#[tokio::test]
async fn prekeys_are_handed_out_only_for_devices_in_the_set() {
    let world = World::new().await;
    let recipient = recipient();
    let inside = world.enrolled_device(recipient, 1).await;
    let waiting = world.pending_device().await;
    waiting.upload(&world, 5).await;
    world.consent(recipient, true).await;
    let found = world.look_up(recipient).await;
    assert_eq!(found.devices.iter().map(|found| found.device).collect::<Vec<_>>(), [inside.id]);
}

#[tokio::test]
async fn two_claims_of_one_ticket_are_both_shown_and_only_one_can_win() {
    let world = World::new().await;
    let (tenant, recipient) = (&world.tenant, recipient());
    let secret = world.ticket().await;
    let [first, second] = [(); 2].map(|()| TestDevice::new(&tenant.id, &secret, world.now()));
    assert_eq!(first.claim(&world.http).await.status, 202);
    assert_eq!(second.claim(&world.http).await.status, 202);
    assert_eq!(second.claim(&world.http).await.status, 202, "the same again is the same answer");
    let state: TicketState = world.get(&tenant.enroller, &ticket_path(secret.ticket_id())).await.expect(200);
    assert_eq!(state.enrolments, [Base64Url(first.enrolment()), Base64Url(second.enrolment())]);

    assert_eq!(world.admit(recipient, &first).await.status, 200);
    let refused = world.admit(recipient, &second).await;
    refused.expect_detail("invalid_value", "claim_missing");
    second.send(&world, second.state_call(0)).await.expect_problem("ticket_unavailable");
    assert!(first.state(&world).await.admission.is_some());
}

#[tokio::test]
async fn one_set_cannot_admit_both_claims_of_a_ticket() {
    let world = World::new().await;
    let (secret, recipient) = (world.ticket().await, recipient());
    let devices = [(); 2].map(|()| TestDevice::new(&world.tenant.id, &secret, world.now()));
    let mut draft = world.draft(recipient).await;
    let mut admissions = Vec::new();
    for device in &devices {
        assert_eq!(device.claim(&world.http).await.status, 202);
        draft.records.push(device.record.clone());
        admissions.push(device.admission(&world.tenant.enrol, world.now()));
    }
    let set = world.sign(draft);
    world.put_set(recipient, set, admissions).await.expect_detail("invalid_value", "claim_missing");
    for device in &devices {
        assert_eq!(device.state(&world).await.admission, None, "nothing of it was done");
    }
}

#[tokio::test]
async fn a_ticket_takes_at_most_four_enrolments() {
    let world = World::new().await;
    let secret = world.ticket().await;
    for _ in 0..4 {
        let device = TestDevice::new(&world.tenant.id, &secret, world.now());
        assert_eq!(device.claim(&world.http).await.status, 202);
    }
    let fifth = TestDevice::new(&world.tenant.id, &secret, world.now());
    fifth.claim(&world.http).await.expect_problem("ticket_unavailable");
}

#[tokio::test]
async fn closed_and_expired_tickets_are_gone() {
    let world = World::new().await;
    let tenant = &world.tenant;
    let closed = world.ticket().await;
    let early = TestDevice::new(&tenant.id, &closed, world.now());
    assert_eq!(early.claim(&world.http).await.status, 202);
    let path = format!("{}/close", ticket_path(closed.ticket_id()));
    let state: TicketState = world.post(&tenant.enroller, &path, &CloseBody {}).await.expect(200);
    assert!(state.closed && state.enrolments.is_empty());
    world.post(&tenant.enroller, &path, &CloseBody {}).await.expect::<TicketState>(200);
    let late = TestDevice::new(&tenant.id, &closed, world.now());
    late.claim(&world.http).await.expect_problem("ticket_unavailable");
    early.claim(&world.http).await.expect_problem("ticket_unavailable");
    early.send(&world, early.state_call(0)).await.expect_problem("ticket_unavailable");
    let upload = early.batch(Suite::Classical, 1, world.now());
    early.put_prekeys(&world, &upload).await.expect_problem("ticket_unavailable");

    let expiring = world.ticket().await;
    let in_time = TestDevice::new(&tenant.id, &expiring, world.now());
    world.pass(900);
    assert_eq!(in_time.claim(&world.http).await.status, 202, "up to its last second");
    world.pass(1);
    let late = TestDevice::new(&tenant.id, &expiring, world.now());
    late.claim(&world.http).await.expect_problem("ticket_unavailable");
    assert_eq!(world.admit(recipient(), &in_time).await.status, 200, "claimed in time, countersigned later");
}

#[tokio::test]
async fn a_ticket_is_made_once_and_for_a_short_time() {
    let world = World::new().await;
    let secret = TicketSecret::generate(&mut rng());
    let expires_at = world.now().plus(900);
    assert_eq!(world.put_ticket(&secret, expires_at).await.status, 201);
    let again: TicketState = world.put_ticket(&secret, expires_at).await.expect(200);
    assert_eq!((again.ticket, again.expires_at), (secret.ticket_id(), expires_at));
    world.put_ticket(&secret, expires_at.minus(1)).await.expect_problem("conflict");
    let other = TicketSecret::generate(&mut rng());
    let body = TicketBody { claim_digest: other.claim_token().digest(), expires_at };
    let path = ticket_path(secret.ticket_id());
    world.put(&world.tenant.enroller, &path, &body).await.expect_problem("conflict");
    world.put_ticket(&other, world.now()).await.expect_problem("invalid_expiry");
    world.put_ticket(&other, world.now().plus(1000)).await.expect_problem("invalid_expiry");
}

#[tokio::test]
async fn a_claim_needs_the_token_and_an_enrolment_for_this_ticket() {
    let world = World::new().await;
    let (secret, stranger) = (world.ticket().await, TicketSecret::generate(&mut rng()));
    let device = TestDevice::new(&world.tenant.id, &secret, world.now());
    let path = format!("{}/claims", ticket_path(secret.ticket_id()));
    let claim = async |body| world.http.send(Call::json(Method::POST, &path, &body)).await;

    let mut body = device.claim_body();
    body.claim_token = Base64Url(stranger.claim_token().expose().to_vec());
    claim(body).await.expect_problem("invalid_credentials");
    let mut body = device.claim_body();
    body.claim_token.0.pop();
    claim(body).await.expect_problem("invalid_credentials");

    let elsewhere = TestDevice::new(&world.tenant.id, &stranger, world.now());
    let mut body = device.claim_body();
    body.enrolment = Base64Url(elsewhere.enrolment());
    claim(body).await.expect_problem("invalid_structure");
    let mut body = device.claim_body();
    let at = body.enrolment.0.len() / 2;
    body.enrolment.0[at] ^= 1;
    claim(body).await.expect_problem("invalid_structure");

    // A ticket that nobody made, and one of another tenant, are told as a wrong token is.
    elsewhere.claim(&world.http).await.expect_problem("invalid_credentials");
    let foreign = TestDevice::new(&world.other.id, &secret, world.now());
    foreign.claim(&world.http).await.expect_problem("invalid_credentials");
    let nowhere = TestDevice::new(&"nowhere".parse().unwrap(), &secret, world.now());
    nowhere.claim(&world.http).await.expect_problem("invalid_credentials");
    assert_eq!(device.claim(&world.http).await.status, 202, "none of it has used the ticket up");
}

#[tokio::test]
async fn a_device_id_is_claimed_once() {
    let world = World::new().await;
    let first = world.pending_device().await;
    let secret = world.ticket().await;
    let mut second = TestDevice::new(&world.tenant.id, &secret, world.now());
    let mut record = sealpost_wire::record::DeviceRecord::verify(&second.record).unwrap();
    record.device = first.id;
    second.record = record.sign(&second.identity).unwrap();
    second.claim(&world.http).await.expect_problem("conflict");
}

#[tokio::test]
async fn waiting_ends_when_what_is_waited_for_comes() {
    let world = World::new().await;
    let (tenant, recipient) = (&world.tenant, recipient());
    let secret = world.ticket().await;
    let device = TestDevice::new(&tenant.id, &secret, world.now());
    let path = format!("{}?wait=60", ticket_path(secret.ticket_id()));
    // Both began before the change, or it would not have to be waited for: the runtime of a test has one
    // thread, and whichever request comes first, the answer is the same.
    let (state, claimed) = tokio::join!(world.get(&tenant.enroller, &path), device.claim(&world.http));
    assert_eq!(claimed.status, 202);
    let state: TicketState = state.expect(200);
    assert_eq!(state.enrolments.len(), 1);

    let waiting = device.send(&world, device.state_call(60));
    let (state, admitted) = tokio::join!(waiting, world.admit(recipient, &device));
    assert_eq!(admitted.status, 200);
    let state: sealpost_wire::api::keyserver::DeviceState = state.expect(200);
    assert!(state.admission.is_some());
}

#[tokio::test]
async fn what_waits_too_long_is_forgotten() {
    let world = World::with("[limits]\nexpiry_seconds = 1\nticket_kept_seconds = 3600\n").await;
    let device = world.pending_device().await;
    device.upload(&world, 2).await;
    let path = ticket_path(device.secret.ticket_id());
    world.pass(900 + 3600 + 1);
    // Expiry runs every second of real time; the answer changes when it has run.
    while world.get(&world.tenant.enroller, &path).await.status == 200 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    world.get(&world.tenant.enroller, &path).await.expect_problem("not_found");
    device.send(&world, device.state_call(0)).await.expect_problem("invalid_credentials");
    world.admit(recipient(), &device).await.expect_detail("invalid_value", "claim_missing");
}
