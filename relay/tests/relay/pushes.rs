//! Stubs, as Apple and Google see them.

use std::collections::HashSet;
use std::time::Duration;

use http::StatusCode;
use sealpost_emulators::{Outcome, Provider, Push};
use sealpost_wire::delivery::DeliveryState;
use sealpost_wire::payload::Priority;

use crate::client::{OPENED, Phone, Sender};
use crate::world::World;

/// Waits until the device's delivery of a message is in a state.
async fn reach(sender: &Sender, id: sealpost_wire::id::TransportId, phone: &Phone, state: DeliveryState) {
    let reached = |event: &sealpost_wire::api::relay::Event| {
        event.message == id && event.device == phone.id && event.to == state
    };
    sender.events_until(reached).await;
}

fn header<'p>(push: &'p Push, name: &str) -> Option<&'p str> {
    push.headers.iter().find(|(header, _)| *header == name).map(|(_, value)| value.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stub_tells_two_messages_apart_by_nothing() {
    let world = World::start().await;
    let (sender, phone, other) = (world.sender().await, world.phone().await, world.phone().await);
    let first = world.send(&sender, &[&phone, &other]).await;
    world.emulator.wait_for_count(2).await;
    reach(&sender, first, &phone, DeliveryState::Pushed).await;
    let second = world.send(&sender, &[&phone]).await;
    world.emulator.wait_for_count(3).await;

    let pushes = world.emulator.pushes(0);
    let stub = pushes[0].body.clone();
    let text = std::str::from_utf8(&stub).unwrap();
    assert!(text.contains("New message") && text.contains("Open the app to read it."), "{text}");
    for push in &pushes {
        assert_eq!((push.provider, push.status), (Provider::Apns, Some(200)));
        assert_eq!(push.body, stub, "the same bytes for every message");
        let shown = format!("{:?} {}", push.headers, String::from_utf8_lossy(&push.body));
        for id in [first.to_string(), second.to_string(), phone.id.to_string(), "lab".to_owned()] {
            assert!(!shown.contains(&id), "{shown}");
        }
        assert_eq!(header(push, "apns-collapse-id"), None);
        let expiration: u64 = header(push, "apns-expiration").unwrap().parse().unwrap();
        assert_eq!(expiration % 3600, 0, "whole hours: two devices of a message are not linked by it");
    }
    let ids: HashSet<_> = pushes.iter().map(|push| header(push, "apns-id").unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_fetched_is_pushed_again_on_its_schedule_and_what_is_opened_is_not() {
    let world = World::start().await;
    let (sender, phone) = (world.sender().await, world.phone().await);
    let id = world.send_as(&sender, &[&phone], Priority::Critical).await;
    world.emulator.next_push(&phone.push_token, 0).await;
    reach(&sender, id, &phone, DeliveryState::Pushed).await;
    world.pass(Duration::from_secs(30));
    world.emulator.wait_for_count(2).await;
    while world.relay().store().next_due(&world.lane(Priority::Critical)) == Some(0) {
        tokio::task::yield_now().await;
    }
    let waiting = phone.boxes().await.remove(0);
    phone.acknowledge(vec![phone.receipt_for(&waiting, OPENED)]).await;
    world.pass(Duration::from_secs(86_400));
    let (sender, marker) = (world.sender().await, world.phone().await);
    world.send_as(&sender, &[&marker], Priority::Critical).await;
    world.emulator.next_push(&marker.push_token, 0).await;
    let to_phone = |push: &&Push| push.token == phone.push_token;
    assert_eq!(world.emulator.pushes(0).iter().filter(to_phone).count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_token_is_dropped_and_the_message_waits_for_the_next_one() {
    let world = World::start().await;
    let (sender, mut phone) = (world.sender().await, world.phone().await);
    world.clock.advance(Duration::from_secs(1));
    world.emulator.kill_token(Provider::Apns, &phone.push_token, None).unwrap();
    let id = world.send(&sender, &[&phone]).await;
    let told = |event: &sealpost_wire::api::relay::Event| event.reason.as_deref() == Some("push_token_dead");
    sender.events_until(told).await;
    assert_eq!(sender.message(id).await.deliveries[0].state, DeliveryState::Queued);
    world.send(&sender, &[&phone]).await;
    assert_eq!(phone.boxes().await.len(), 2, "the mailbox is as before");

    phone.push_token = "ab".repeat(32);
    let admission = world.admission(&world.mary, &phone);
    phone.register(admission, Some("ios")).await.expect(StatusCode::OK);
    world.emulator.next_push(&phone.push_token, 0).await;
    reach(&sender, id, &phone, DeliveryState::Pushed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_died_before_it_was_registered_is_kept() {
    let world = World::start().await;
    let (sender, phone) = (world.sender().await, world.phone().await);
    let earlier = sealpost_wire::clock::Clock::now_millis(&world.clock) - 60_000;
    world.emulator.kill_token(Provider::Apns, &phone.push_token, Some(earlier)).unwrap();
    let id = world.send(&sender, &[&phone]).await;
    world.emulator.next_push(&phone.push_token, 0).await;
    world.emulator.revive_tokens();
    while world.relay().store().next_due(&world.lane(Priority::Normal)).is_none_or(|due| due == 0) {
        tokio::task::yield_now().await;
    }
    world.pass(Duration::from_secs(900));
    let sender = world.sender().await;
    reach(&sender, id, &phone, DeliveryState::Pushed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_fails_and_comes_back_gets_every_stub_with_the_same_id() {
    let world = World::start().await;
    let (sender, phone) = (world.sender().await, world.phone().await);
    let fails = Outcome { count: Some(2), ..Outcome::new(Provider::Apns, 503) };
    world.emulator.set_outcome(fails).unwrap();
    let id = world.send(&sender, &[&phone]).await;
    world.emulator.wait_for_count(1).await;
    assert_eq!(sender.message(id).await.deliveries[0].state, DeliveryState::Queued);
    for count in 2..=3 {
        // Until the failure is settled, there is nothing to wait for.
        while world.relay().store().next_due(&world.lane(Priority::Normal)).is_none_or(|due| due == 0) {
            tokio::task::yield_now().await;
        }
        world.pass(Duration::from_secs(120));
        world.emulator.wait_for_count(count).await;
    }
    reach(&world.sender().await, id, &phone, DeliveryState::Pushed).await;
    let pushes = world.emulator.pushes(0);
    let ids: HashSet<_> = pushes.iter().map(|push| header(push, "apns-id").unwrap()).collect();
    assert_eq!((pushes.len(), ids.len()), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_credential_stops_its_own_app_alone_until_it_works() {
    let world = World::start().await;
    let (sender, apple, google) = (world.sender().await, world.phone().await, world.new_phone(&world.mary));
    let admission = world.admission(&world.mary, &google);
    google.register(admission, Some("android")).await.expect(StatusCode::CREATED);
    let reason = Some("InvalidProviderToken".to_owned());
    world.emulator.set_outcome(Outcome { reason, ..Outcome::new(Provider::Apns, 403) }).unwrap();
    let stopped = world.send_as(&sender, &[&apple], Priority::Critical).await;
    world.emulator.next_push(&apple.push_token, 0).await;
    let fine = world.send_as(&sender, &[&google], Priority::Critical).await;
    world.emulator.next_push(&google.push_token, 0).await;
    reach(&sender, fine, &google, DeliveryState::Pushed).await;
    assert_eq!(sender.message(stopped).await.deliveries[0].state, DeliveryState::Queued);
    let text = world.http().get("/metrics").await.body;
    let text = std::str::from_utf8(&text).unwrap();
    assert!(text.contains("sealpost_relay_push_paused{app=\"ios\"} 1"), "{text}");
    assert!(text.contains("sealpost_relay_push_paused{app=\"android\"} 0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_a_push_that_was_never_answered_is_due_again() {
    let mut world = World::start().await;
    let (sender, mut phone) = (world.sender().await, world.phone().await);
    world.emulator.set_outcome(Outcome { count: Some(1), ..Outcome::new(Provider::Apns, 503) }).unwrap();
    let id = world.send(&sender, &[&phone]).await;
    world.emulator.wait_for_count(1).await;
    world.restart().await;
    phone.http = world.http();
    assert_eq!(phone.boxes().await[0].id, id, "the box is still there");
    world.pass(Duration::from_secs(120));
    world.emulator.wait_for_count(2).await;
    reach(&world.sender().await, id, &phone, DeliveryState::Pushed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_wait_without_a_token_are_pushed_once_there_is_one() {
    let world = World::start().await;
    let (sender, phone) = (world.sender().await, world.new_phone(&world.mary));
    let admission = world.admission(&world.mary, &phone);
    phone.register(admission.clone(), None).await.expect(StatusCode::CREATED);
    let id = world.send(&sender, &[&phone]).await;
    assert_eq!(phone.boxes().await.len(), 1);
    phone.register(admission, Some("ios")).await.expect(StatusCode::OK);
    world.emulator.next_push(&phone.push_token, 0).await;
    reach(&sender, id, &phone, DeliveryState::Pushed).await;
}
