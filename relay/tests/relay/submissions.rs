//! `PUT` and `GET /v1/messages/{id}`.

use http::{Method, StatusCode};
use sealpost_wire::api::relay::{MessageStatus, Submission};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::certificate::Role;
use sealpost_wire::delivery::DeliveryState;
use sealpost_wire::payload::Priority;

use tokio::io::AsyncReadExt as _;

use crate::client::{Answer, OPENED, new_id, submission};
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_message_is_there_after_a_restart_and_the_same_again_is_the_same_answer() {
    let mut world = World::start().await;
    let (sender, phone) = (world.sender().await, world.phone().await);
    let (id, one) = (new_id(), submission(&[phone.id], "x", Priority::Normal, world.now().plus(600)));
    let first = sender.submit(id, &one).await.expect(StatusCode::ACCEPTED);
    world.restart().await;
    let (sender, mut phone) = (world.sender().await, phone);
    phone.http = world.http();
    assert_eq!(phone.boxes().await[0].sealed, one.boxes[0].sealed);
    assert_eq!(sender.submit(id, &one).await.expect(StatusCode::ACCEPTED).body, first.body);
    let waiting = phone.boxes().await.remove(0);
    phone.acknowledge(vec![phone.receipt_for(&waiting, OPENED)]).await;
    assert_eq!(sender.submit(id, &one).await.body, first.body, "opened since");
    world.pass(std::time::Duration::from_secs(601));
    let sender = world.sender().await;
    assert_eq!(sender.submit(id, &one).await.expect(StatusCode::ACCEPTED).body, first.body, "over since");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_message_64_times_at_once_is_one_message_and_one_answer() {
    let world = World::start().await;
    let (sender, phone) = (world.sender().await, world.phone().await);
    let (id, one) = (new_id(), submission(&[phone.id], "x", Priority::Bulk, world.now().plus(600)));
    let racing: Vec<_> = (0..64)
        .map(|_| {
            let (sender, one) = (sender.clone(), one.clone());
            tokio::spawn(async move { sender.submit(id, &one).await.expect(StatusCode::ACCEPTED).body })
        })
        .collect();
    let mut bodies = Vec::new();
    for answer in racing {
        bodies.push(answer.await.unwrap());
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    assert_eq!(phone.boxes().await.len(), 1);
    let page = sender.events(0, 0).await;
    assert_eq!(page.events.iter().filter(|event| event.to == DeliveryState::Queued).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_content_under_the_same_id_is_a_conflict_and_ids_are_each_senders_own() {
    let world = World::start().await;
    let (sender, phone) = (world.sender().await, world.phone().await);
    let (id, one) = (new_id(), submission(&[phone.id], "x", Priority::Normal, world.now().plus(600)));
    sender.accepted(id, &one).await;
    for other in [
        Submission { priority: Priority::Critical, ..one.clone() },
        Submission { expires_at: one.expires_at.plus(1), ..one.clone() },
        submission(&[phone.id], "y", Priority::Normal, one.expires_at),
    ] {
        assert_eq!(sender.submit(id, &other).await.problem(), "conflict");
    }
    let radiology = world.client(&world.mary, "radiology", &[Role::Sender]).await;
    let missing = radiology.call(Method::GET, &format!("/v1/messages/{id}"), None).await;
    assert_eq!(missing.problem(), "not_found");
    radiology.accepted(id, &submission(&[phone.id], "y", Priority::Normal, one.expires_at)).await;
    let boxes = phone.boxes().await;
    let senders: Vec<_> = boxes.iter().map(|one| one.sender.text()).collect();
    assert_eq!(senders, ["lab", "radiology"]);
    // A receipt names no sender; the box it is about tells which message it is.
    phone.acknowledge(vec![phone.receipt_for(&boxes[1], OPENED)]).await;
    assert_eq!(radiology.message(id).await.deliveries[0].state, DeliveryState::Opened);
    assert_ne!(sender.message(id).await.deliveries[0].state, DeliveryState::Opened);
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_that_cannot_get_it_fail_alone_and_another_tenants_is_like_an_unknown_one() {
    let world = World::start().await;
    let (sender, phone) = (world.sender().await, world.phone().await);
    let revoked = world.phone().await;
    let foreign = world.new_phone(&world.john);
    let admission = world.admission(&world.john, &foreign);
    foreign.register(admission, None).await.expect(StatusCode::CREATED);
    let unknown = world.new_phone(&world.mary);
    let status = world.mary.status(1, world.now(), &[], &[revoked.id]);
    let office = world.client(&world.mary, "office", &[Role::Revoker]).await;
    office.put_status(status).await.expect(StatusCode::OK);

    let mut devices = [phone.id, revoked.id, foreign.id, unknown.id];
    devices.sort_unstable();
    let one = submission(&devices, "x", Priority::Normal, world.now().plus(600));
    let answer = sender.accepted(new_id(), &one).await;
    assert_eq!(answer.deliveries.iter().map(|one| one.device).collect::<Vec<_>>(), devices);
    for delivery in answer.deliveries {
        let expected = match delivery.device {
            device if device == phone.id => (DeliveryState::Queued, None),
            device if device == revoked.id => (DeliveryState::Failed, Some("revoked_device")),
            _ => (DeliveryState::Failed, Some("unknown_device")),
        };
        assert_eq!((delivery.state, delivery.reason.as_deref()), expected);
    }
    assert_eq!(phone.boxes().await.len(), 1);
    assert_eq!(foreign.boxes().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_submissions_are_refused_by_name() {
    let world = World::start().await;
    let (sender, phone) = (world.sender().await, world.phone().await);
    let good = submission(&[phone.id], "x", Priority::Normal, world.now().plus(600));
    let path = format!("/v1/messages/{}", new_id());
    let refused = async |one: Submission| sender.put(&path, &one).await.problem();
    let expiring = |expires_at| Submission { expires_at, ..good.clone() };
    assert_eq!(refused(expiring(world.now())).await, "invalid_expiry");
    assert_eq!(refused(expiring(world.now().plus(31 * 86_400))).await, "invalid_expiry");
    assert_eq!(refused(Submission { boxes: Vec::new(), ..good.clone() }).await, "invalid_value");
    let twice = submission(&[phone.id, phone.id], "x", Priority::Normal, good.expires_at);
    assert_eq!(refused(twice).await, "invalid_value");
    let many: Vec<_> = (0..17).map(|_| world.new_phone(&world.mary).id).collect();
    assert_eq!(refused(submission(&many, "x", Priority::Normal, good.expires_at)).await, "invalid_value");
    let mut unsealed = good.clone();
    unsealed.boxes[0].sealed = Base64Url(b"plain text".to_vec());
    assert_eq!(refused(unsealed).await, "invalid_structure");
    let mut trailing = good.clone();
    trailing.boxes[0].sealed.0.push(0);
    assert_eq!(refused(trailing).await, "invalid_structure");
    let mut large = good.clone();
    large.boxes[0].sealed = Base64Url(crate::client::sealed(&[0; 256 * 1024]));
    assert_eq!(refused(large).await, "invalid_structure");

    let json = serde_json::to_string(&good).unwrap();
    let raw = async |body: String| sender.call(Method::PUT, &path, Some(body.into_bytes())).await.problem();
    assert_eq!(raw(json.replacen('{', "{\"colour\":1,", 1)).await, "malformed_body");
    assert_eq!(raw(json[..json.len() - 1].to_owned()).await, "malformed_body");
    assert_eq!(raw(format!("{json} {{}}")).await, "malformed_body");
    assert_eq!(raw(json.replace("\"normal\"", "\"urgent\"")).await, "malformed_body");
    assert_eq!(raw(String::new()).await, "malformed_body");
    let padded = json.replacen("\"sealed\":\"", "\"sealed\":\"=", 1);
    assert_eq!(raw(padded).await, "malformed_body");
    let mut large = sender.announce(&path, 7 * 1024 * 1024).await;
    let mut answer = String::new();
    large.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"), "{answer}");
    for bad in ["short", &"zz".repeat(16), &"AB".repeat(16)] {
        let answer = sender.put(&format!("/v1/messages/{bad}"), &good).await;
        assert_eq!(answer.problem(), "malformed_parameter", "{bad}");
    }
    assert_eq!(phone.boxes().await.len(), 0, "nothing of it was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_mailbox_fails_and_a_small_status_age_stops_submissions() {
    let limits = "limits = { mailbox_boxes_max = 1, status_age_seconds_max = 60 }";
    let world = World::start_with(limits).await;
    let (sender, phone) = (world.sender().await, world.phone().await);
    world.send(&sender, &[&phone]).await;
    let one = submission(&[phone.id], "x", Priority::Normal, world.now().plus(600));
    let full: MessageStatus = sender.accepted(new_id(), &one).await;
    assert_eq!(full.deliveries[0].reason.as_deref(), Some("mailbox_full"));

    let office = world.client(&world.mary, "office", &[Role::Revoker]).await;
    let status = |sequence| world.mary.status(sequence, world.now(), &[], &[]);
    office.put_status(status(1)).await.expect(StatusCode::OK);
    world.pass(std::time::Duration::from_secs(61));
    assert_eq!(sender.submit(new_id(), &one).await.problem(), "status_stale");
    office.put_status(status(1)).await.expect(StatusCode::OK);
    sender.accepted(new_id(), &one).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn submissions_that_do_not_fit_into_memory_are_told_to_come_again() {
    let world = World::start_with("limits = { submission_bytes_in_flight_max = 6291456 }").await;
    let (sender, phone) = (world.sender().await, world.phone().await);
    let one = submission(&[phone.id], "x", Priority::Normal, world.now().plus(600));
    let slow = sender.announce(&format!("/v1/messages/{}", new_id()), 5_500_000).await;
    let large = submission(&[phone.id], &"x".repeat(250_000), Priority::Normal, world.now().plus(600));
    let mut boxes = large.boxes.clone();
    boxes.extend((0..3).map(|_| {
        let mut one = large.boxes[0].clone();
        one.device = world.new_phone(&world.mary).id;
        one
    }));
    let large = Submission { boxes, ..large };
    let refused = loop {
        // The slow one's head may still be on its way.
        let answer = sender.try_submit(new_id(), &large).await;
        if let Some(answer) = answer.filter(|answer| answer.status != StatusCode::ACCEPTED) {
            break answer;
        }
    };
    assert_eq!((refused.problem().as_str(), refused.retry_after.as_deref()), ("unavailable", Some("1")));
    // By a connection of its own: that of a refused body is closed.
    let sender = world.sender().await;
    sender.accepted(new_id(), &one).await;
    drop(slow);
    let is_accepted = |answer: Answer| answer.status == StatusCode::ACCEPTED;
    while !sender.try_submit(new_id(), &large).await.is_some_and(is_accepted) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_takes_nothing_new_and_still_lets_devices_acknowledge() {
    let mut world = World::start().await;
    let (sender, mut phone) = (world.sender().await, world.phone().await);
    world.send(&sender, &[&phone]).await;
    world.emulator.wait_for_count(1).await;
    world.reconfigure("reserve_free_bytes = 0", "reserve_free_bytes = 1000000000000000000");
    let one = submission(&[phone.id], "x", Priority::Normal, world.now().plus(600));
    let mut old = sender.clone();
    world.restart().await;
    (phone.http, old.http) = (world.http(), world.http());
    let refused = old.submit(new_id(), &one).await;
    assert_eq!(
        (refused.status, refused.problem().as_str()),
        (StatusCode::INSUFFICIENT_STORAGE, "out_of_space")
    );
    let waiting = phone.boxes().await.remove(0);
    let outcomes = phone.acknowledge(vec![phone.receipt_for(&waiting, OPENED)]).await;
    assert_eq!(outcomes, [sealpost_wire::api::relay::ReceiptOutcome::Accepted]);
}
