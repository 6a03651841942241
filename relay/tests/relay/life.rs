//! `GET /v1/events`, and many messages at once.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use http::Method;
use sealpost_wire::certificate::Role;
use sealpost_wire::delivery::DeliveryState;
use sealpost_wire::payload::Priority;

use crate::client::{OPENED, new_id, submission};
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn events_wait_for_the_next_one_and_are_each_tenants_own() {
    let world = World::start().await;
    let (sender, phone) = (world.sender().await, world.phone().await);
    assert_eq!(sender.events(0, 0).await.events, []);
    let waiting = {
        let sender = sender.clone();
        tokio::spawn(async move { sender.events(0, 30).await })
    };
    let id = world.send(&sender, &[&phone]).await;
    let page = waiting.await.unwrap();
    assert_eq!((page.events[0].id, page.events[0].message, page.events[0].from), (1, id, None));
    assert_eq!(page.events[0].to, DeliveryState::Queued);

    let john = world.client(&world.john, "lab", &[Role::Sender]).await;
    assert_eq!(john.events(0, 0).await.events, []);
    let none = sender.call(Method::GET, "/v1/events?after=0&limit=0", None).await;
    assert_eq!(none.problem(), "invalid_value");
    for query in ["after=x", "after=-1", "colour=1", "wait=99999"] {
        let answer = sender.call(Method::GET, &format!("/v1/events?{query}"), None).await;
        assert_eq!(answer.problem(), "malformed_parameter", "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_not_kept_are_gone() {
    let world = World::start_with("limits = { events_retention_seconds = 60 }").await;
    let (sender, phone) = (world.sender().await, world.phone().await);
    let reached = |to| move |event: &sealpost_wire::api::relay::Event| event.to == to;
    world.send(&sender, &[&phone]).await;
    let kept = sender.events_until(reached(DeliveryState::Pushed)).await.len();
    world.pass(Duration::from_secs(61));
    let gone = loop {
        let answer = sender.call(Method::GET, "/v1/events?after=0", None).await;
        if answer.status != http::StatusCode::OK {
            break answer;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(gone.problem(), "cursor_gone");
    let stream = sender.stream("/v1/events?after=0", None).await;
    assert_eq!(stream.status(), http::StatusCode::GONE, "a stream is told so too");
    let oldest = format!("the oldest event is {}", kept + 1);
    assert_eq!(gone.json::<sealpost_wire::problem::Problem>().detail, Some(oldest));
    world.send(&sender, &[&phone]).await;
    let page = sender.events(u64::try_from(kept).unwrap(), 0).await;
    assert_eq!(page.events[0].id, u64::try_from(kept).unwrap() + 1, "numbers go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_messages_to_many_devices_each_arrive_once() {
    let world = World::start().await;
    let sender = world.sender().await;
    let mut phones = Vec::new();
    for _ in 0..8 {
        phones.push(world.phone().await);
    }
    let mut sending = Vec::new();
    for number in 0..200_usize {
        let (sender, device) = (sender.clone(), phones[number % phones.len()].id);
        let priority = Priority::ALL[number % 3];
        let one = submission(&[device], &number.to_string(), priority, world.now().plus(600));
        sending.push(tokio::spawn(async move {
            let id = new_id();
            sender.accepted(id, &one).await;
            (id, device)
        }));
    }
    let mut sent = HashMap::new();
    for one in sending {
        let (id, device) = one.await.unwrap();
        sent.insert(id, device);
    }
    for phone in &phones {
        world.emulator.next_push(&phone.push_token, 0).await;
        let boxes = phone.boxes().await;
        let ids: HashSet<_> = boxes.iter().map(|one| one.id).collect();
        let expected: HashSet<_> =
            sent.iter().filter(|(_, device)| **device == phone.id).map(|(id, _)| *id).collect();
        assert_eq!((boxes.len(), ids), (25, expected));
        assert!(boxes.is_sorted_by_key(|one| one.cursor));
        let receipts = boxes.iter().map(|one| phone.receipt_for(one, OPENED)).collect();
        phone.acknowledge(receipts).await;
        assert_eq!(phone.boxes().await.len(), 0);
    }
    let page = sender.events(0, 0).await;
    let opened = page.events.iter().filter(|event| event.to == DeliveryState::Opened).count();
    assert_eq!(opened, 200);
    let text = world.http().get("/metrics").await.body;
    let text = std::str::from_utf8(&text).unwrap();
    for state in ["queued", "pushed", "fetched"] {
        let waiting = format!("sealpost_relay_waiting_deliveries{{state=\"{state}\"}} 0");
        assert!(text.contains(&waiting), "{waiting}");
    }
    assert!(text.contains("sealpost_relay_submissions_total{outcome=\"new\"} 200"));
}
