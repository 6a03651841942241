//! Callers that ask too often.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use sealpost_wire::certificate::Role;
use sealpost_wire::payload::Priority;

use crate::client::{Answer, new_id, submission};
use crate::world::World;

/// Refused for its rate, and told a time within `seconds`.
#[track_caller]
fn assert_refused(answer: &Answer, seconds: u32) {
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (429, "rate_limited"));
    let wait: u32 = answer.retry_after.as_ref().unwrap().parse().expect("whole seconds");
    assert!((1..=seconds).contains(&wait), "{wait}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_asks_too_often_is_refused_and_leaves_no_trace() {
    let world = World::start_with("rates = { client = { requests = 3, seconds = 3600 } }").await;
    let (sender, phone) = (world.sender().await, world.phone().await);
    let one = submission(&[phone.id], "x", Priority::Normal, world.now().plus(600));
    let mut accepted = BTreeSet::new();
    for _ in 0..3 {
        let id = new_id();
        sender.accepted(id, &one).await;
        accepted.insert(id);
    }
    assert_refused(&sender.submit(new_id(), &one).await, 1200);
    assert_refused(&sender.call(Method::GET, "/v1/status", None).await, 1200);
    let ward = world.client(&world.mary, "ward", &[Role::Sender]).await;
    let events = ward.events(0, 0).await.events;
    assert_eq!(events.iter().map(|event| event.message).collect::<BTreeSet<_>>(), accepted);
    assert_eq!(phone.boxes().await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_asks_too_often_is_refused() {
    let world = World::start_with("rates = { device = { requests = 3, seconds = 3600 } }").await;
    let (phone, other) = (world.phone().await, world.phone().await);
    for _ in 0..2 {
        phone.boxes().await;
    }
    assert_refused(&phone.try_sync(&Default::default()).await, 1200);
    other.boxes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_does_not_ask_at_the_cost_of_another() {
    let world = World::start_with("rates = { tenant = { requests = 3, seconds = 3600 } }").await;
    let (sender, phone) = (world.sender().await, world.phone().await);
    for _ in 0..2 {
        sender.events(0, 0).await;
    }
    assert_refused(&sender.call(Method::GET, "/v1/events", None).await, 1200);
    assert_refused(&phone.try_sync(&Default::default()).await, 1200);
    let stranger = world.client(&world.john, "lab", &[Role::Sender]).await;
    stranger.events(0, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_tokens_too_often_is_refused_whoever_it_says_it_is() {
    let world = World::start_with("rates = { stranger = { requests = 3, seconds = 3600 } }").await;
    for _ in 0..2 {
        world.http().token("forged").await.expect(StatusCode::UNAUTHORIZED);
    }
    let key = world.mary.key("lab", &[Role::Sender], world.now());
    let assertion = world.mary.assertion(&key, world.now());
    world.http().token(&assertion).await.expect(StatusCode::OK);
    let next = world.mary.assertion(&key, world.now());
    assert_refused(&world.http().token(&next).await, 1200);
    assert_eq!(world.http().get("/healthz").await.status, StatusCode::OK);
    let line = "sealpost_rate_limited_total{whose=\"stranger\"} 1";
    assert!(world.metrics.render().contains(line));
}
