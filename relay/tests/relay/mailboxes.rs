//! `PUT /v1/devices/{device}` and `POST /v1/sync`.

use std::time::Duration;

use http::{Method, StatusCode};
use sealpost_wire::api::relay::{ReceiptOutcome, SyncRequest};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::certificate::Role;
use sealpost_wire::delivery::DeliveryState;
use sealpost_wire::key::SigningKey;
use sealpost_wire::payload::Priority;
use sealpost_wire::prekey::PrekeyKind;
use sealpost_wire::problem::Problem;
use sealpost_wire::receipt::ReceiptStatement;

use crate::client::{OPENED, new_id, submission};
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_box_comes_with_every_sync_until_it_is_acknowledged() {
    let world = World::start().await;
    let (sender, phone) = (world.sender().await, world.phone().await);
    let id = world.send(&sender, &[&phone]).await;
    // The first answer is lost.
    phone.boxes().await;
    let waiting = phone.boxes().await.remove(0);
    assert_eq!((waiting.id, &*waiting.sender.text()), (id, "lab"));
    assert_eq!(sender.message(id).await.deliveries[0].receipts.len(), 0, "sending it is not enough");

    let fetched = phone.receipt_for(&waiting, ReceiptStatement::Fetched);
    assert_eq!(phone.acknowledge(vec![fetched.clone()]).await, [ReceiptOutcome::Accepted]);
    assert_eq!(phone.boxes().await.len(), 1, "fetched is not opened");
    let opened = phone.receipt_for(&waiting, OPENED);
    let receipts = vec![Base64Url(opened.clone())];
    let answer = phone.sync(&SyncRequest { receipts, ..SyncRequest::default() }).await;
    assert_eq!((answer.receipts, answer.boxes.len()), (vec![ReceiptOutcome::Accepted], 0));
    let delivery = sender.message(id).await.deliveries.remove(0);
    assert_eq!(delivery.state, DeliveryState::Opened);
    assert_eq!(delivery.receipts, [Base64Url(fetched), Base64Url(opened)], "for the sender to verify");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_receipt_has_its_own_outcome() {
    let world = World::start().await;
    let (sender, phone, other) = (world.sender().await, world.phone().await, world.phone().await);
    world.send(&sender, &[&phone, &other]).await;
    let (mine, theirs) = (phone.boxes().await.remove(0), other.boxes().await.remove(0));
    let mut forged = phone.receipt_for(&mine, OPENED);
    *forged.last_mut().unwrap() ^= 1;
    let mut impostor = phone.clone();
    impostor.identity = SigningKey::from_seed(&[1; 32]);
    let confirmed = ReceiptStatement::Confirmed(PrekeyKind::OneTime);
    let declined = ReceiptStatement::Declined(PrekeyKind::OneTime);
    let receipts = vec![
        phone.receipt_for(&mine, OPENED),
        phone.receipt_for(&mine, OPENED),
        forged,
        impostor.receipt_for(&mine, OPENED),
        other.receipt_for(&theirs, OPENED),
        phone.receipt_for(&theirs, OPENED),
        phone.receipt(new_id(), b"never sealed", OPENED),
        b"not a receipt".to_vec(),
        phone.receipt_for(&mine, confirmed),
        phone.receipt_for(&mine, declined),
    ];
    use ReceiptOutcome::{Accepted, Duplicate, Invalid, Late, Unknown};
    let expected =
        [Accepted, Duplicate, Invalid, Invalid, Invalid, Unknown, Unknown, Invalid, Accepted, Late];
    assert_eq!(phone.acknowledge(receipts).await, expected);
    assert_eq!(other.boxes().await.len(), 1, "untouched");

    let many = vec![Base64Url(vec![0; 512]); 129];
    let answer = phone.try_sync(&SyncRequest { receipts: many, ..SyncRequest::default() }).await;
    assert_eq!(answer.problem(), "invalid_value");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_waits_is_answered_when_a_box_comes() {
    let world = World::start().await;
    let (sender, phone) = (world.sender().await, world.phone().await);
    let waiting = {
        let phone = phone.clone();
        tokio::spawn(async move { phone.sync(&SyncRequest { wait: 30, ..SyncRequest::default() }).await })
    };
    while world.relay().store().waiting_devices() == 0 {
        tokio::task::yield_now().await;
    }
    let id = world.send(&sender, &[&phone]).await;
    assert_eq!(waiting.await.unwrap().boxes[0].id, id);
    assert_eq!(world.relay().store().waiting_devices(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_box_blocks_none_behind_it() {
    let world = World::start().await;
    let (sender, phone) = (world.sender().await, world.phone().await);
    for content in [&[1; 100][..], &[2; 200_000], &[3; 200_000], &[4; 200_000], &[5; 100]] {
        let mut one = submission(&[phone.id], "x", Priority::Normal, world.now().plus(600));
        one.boxes[0].sealed = Base64Url(crate::client::sealed(content));
        sender.accepted(new_id(), &one).await;
    }
    let first = phone.sync(&SyncRequest::default()).await;
    assert_eq!((first.boxes.len(), first.more), (3, true));
    let after = first.boxes[2].cursor;
    let second = phone.sync(&SyncRequest { after, ..SyncRequest::default() }).await;
    assert_eq!((second.boxes.len(), second.more), (2, false));
    let limited = phone.sync(&SyncRequest { limit: Some(1), ..SyncRequest::default() }).await;
    assert_eq!((limited.boxes.len(), limited.more), (1, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_admitted_device_registers_and_only_for_itself() {
    let world = World::start().await;
    let phone = world.new_phone(&world.mary);
    let admission = world.admission(&world.mary, &phone);
    phone.register(admission.clone(), Some("ios")).await.expect(StatusCode::CREATED);
    phone.register(admission.clone(), Some("ios")).await.expect(StatusCode::OK);

    let foreign = world.john.admit(&phone.record(crate::world::PUBLIC_URL), world.now());
    assert_eq!(phone.register(foreign, None).await.problem(), "invalid_structure");
    let elsewhere = world.mary.admit(&phone.record("https://other.example"), world.now());
    assert_eq!(phone.register(elsewhere, None).await.problem(), "invalid_value");
    assert_eq!(phone.register(admission.clone(), Some("web")).await.problem(), "invalid_value");
    let mut token = phone.clone();
    token.push_token = "with \"quotes\"".to_owned();
    assert_eq!(token.register(admission.clone(), Some("ios")).await.problem(), "invalid_value");

    let thief = world.new_phone(&world.mary);
    assert_eq!(thief.register(admission.clone(), None).await.problem(), "invalid_credentials");
    let mut copied = thief.clone();
    copied.id = phone.id;
    assert_eq!(copied.register(admission.clone(), None).await.problem(), "invalid_credentials");
    // Admitted by its tenant, but the id is taken.
    let taken = world.admission(&world.mary, &copied);
    assert_eq!(copied.register(taken, None).await.problem(), "conflict");
    let path = format!("/v1/devices/{}", thief.id);
    let body = format!(r#"{{"admission":"{}"}}"#, sealpost_wire::base64url::encode(&admission));
    let misplaced = phone.call(Method::PUT, &path, body.into_bytes()).await;
    assert_eq!(misplaced.problem(), "invalid_value");
    let large = phone.call(Method::PUT, &path, vec![b' '; 8192]).await;
    assert_eq!(large.problem(), "body_too_large");
    assert_eq!(thief.try_sync(&SyncRequest::default()).await.problem(), "invalid_credentials");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_let_in_once_even_if_the_relay_restarts_within_its_second() {
    let mut world = World::start().await;
    let phone = world.phone().await;
    let mut request = phone.signed(Method::POST, "/v1/sync", b"{}".to_vec());
    phone.http.send(request.clone()).await.expect(StatusCode::OK);
    assert_eq!(phone.http.send(request.clone()).await.problem(), "replayed");
    world.restart().await;
    *request.uri_mut() = format!("{}/v1/sync", world.http().url).parse().unwrap();
    let problem: Problem = world.http().send(request).await.json();
    let told = (problem.code.as_str(), problem.server_time);
    assert_eq!(told, ("clock_skew", Some(world.now().0)), "signed anew by this time, it is let in");
}

#[tokio::test(flavor = "multi_thread")]
async fn skewed_and_foreign_requests_are_refused() {
    let world = World::start().await;
    let phone = world.phone().await;
    let mut skewed = phone.clone();
    let clock = world.clock.clone();
    skewed.now = std::sync::Arc::new(move || sealpost_wire::clock::Clock::now(&clock).minus(3600));
    let answer = skewed.try_sync(&SyncRequest::default()).await;
    let problem: Problem = answer.json();
    assert_eq!((problem.code.as_str(), problem.server_time), ("clock_skew", Some(world.now().0)));
    let mut elsewhere = phone.clone();
    elsewhere.authority = "other.example".to_owned();
    assert_eq!(elsewhere.try_sync(&SyncRequest::default()).await.problem(), "invalid_credentials");
    let mut foreign = phone.clone();
    foreign.tenant = world.john.id.clone();
    assert_eq!(foreign.try_sync(&SyncRequest::default()).await.problem(), "invalid_credentials");
    let mut nowhere = phone.clone();
    nowhere.tenant = "nowhere".parse().unwrap();
    assert_eq!(nowhere.try_sync(&SyncRequest::default()).await.problem(), "invalid_credentials");
    let unsigned = phone.http.request(Method::POST, "/v1/sync").header("content-type", "application/json");
    let unsigned = phone.http.send(unsigned.body("{}".into()).unwrap()).await;
    assert_eq!(unsigned.problem(), "missing_credentials");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_is_out_at_once() {
    let world = World::start().await;
    let (sender, phone, other) = (world.sender().await, world.phone().await, world.phone().await);
    let id = world.send(&sender, &[&phone, &other]).await;
    let waiting = {
        let phone = phone.clone();
        phone.boxes().await;
        let after = phone.boxes().await[0].cursor;
        tokio::spawn(async move {
            phone.try_sync(&SyncRequest { after, wait: 30, ..SyncRequest::default() }).await
        })
    };
    while world.relay().store().waiting_devices() == 0 {
        tokio::task::yield_now().await;
    }
    let office = world.client(&world.mary, "office", &[Role::Revoker]).await;
    office.put_status(world.mary.status(1, world.now(), &[], &[phone.id])).await.expect(StatusCode::OK);
    assert_eq!(phone.try_sync(&SyncRequest::default()).await.problem(), "revoked");
    let admission = world.admission(&world.mary, &phone);
    assert_eq!(phone.register(admission, Some("ios")).await.problem(), "revoked");
    for delivery in sender.message(id).await.deliveries {
        assert_eq!(delivery.state == DeliveryState::Revoked, delivery.device == phone.id, "{delivery:?}");
    }
    assert_eq!(other.boxes().await.len(), 1);
    let status = other.sync(&SyncRequest::default()).await.status;
    assert!(status.is_some(), "others hear of it");
    assert_eq!(waiting.await.unwrap().problem(), "revoked", "the one that waited, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_opened_in_time_expires_and_later_receipts_are_events() {
    let world = World::start().await;
    let (sender, phone) = (world.sender().await, world.phone().await);
    let id = world.send(&sender, &[&phone]).await;
    let waiting = phone.boxes().await.remove(0);
    world.pass(Duration::from_secs(86_400));
    assert_eq!(phone.boxes().await.len(), 0);
    let sender = world.sender().await;
    let events = sender.events_until(|event| event.to == DeliveryState::Expired).await;
    let late = phone.acknowledge(vec![phone.receipt_for(&waiting, OPENED)]).await;
    assert_eq!(late, [ReceiptOutcome::Late]);
    let after = u64::try_from(events.len()).unwrap();
    let page = sender.events(after, 0).await;
    assert_eq!((page.events.len(), page.events[0].late), (1, true));
    assert_eq!(page.events[0].to, DeliveryState::Expired, "the outcome stands");
    assert_eq!(sender.message(id).await.deliveries[0].state, DeliveryState::Expired);
}
