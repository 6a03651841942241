//! Failures 1 to 3: GOAWAY, starved connections, requests without an answer.

use std::time::{Duration, Instant};

use sealpost_emulators::Provider;
use sealpost_relay::provider::RetryClass;
use serde_json::json;
use tokio::sync::oneshot;

use crate::frames::Frames;
use crate::peer::{Action, Peer, answer};
use crate::setup::{apns, assert_all_accepted, push, push_at_once, retry_class, token};
use crate::world::World;
use crate::{android, pushed};

// 1. pushy 865, 874, 567, 831; node-apn 140, 685: sends in flight at a GOAWAY were dropped, or every later one
// failed until the process was restarted.

#[tokio::test]
async fn sends_are_not_lost_after_goaway() {
    let frames = Frames::bind().await;
    let apns = apns(&frames.url, &json!({}));
    let peer = tokio::spawn(async move {
        let mut first = frames.accept().await;
        first.settings(100).await;
        let streams = first.requests(10).await;
        first.goaway(streams[2]).await;
        for stream in &streams[..3] {
            first.accept_push(*stream).await;
        }
        let mut second = frames.accept().await;
        second.settings(100).await;
        for stream in second.requests(7).await {
            second.accept_push(stream).await;
        }
        // The first connection has nothing more to carry.
        assert_eq!(first.request().await, None);
        second.accept_all().await
    });
    assert_all_accepted(&push_at_once(&apns.client, 10).await);
    drop(apns);
    assert_eq!(peer.await.unwrap(), 0, "a push was sent twice");
}

#[tokio::test]
async fn sends_are_not_lost_after_two_goaways_in_a_row() {
    let frames = Frames::bind().await;
    let apns = apns(&frames.url, &json!({}));
    let peer = tokio::spawn(async move {
        let mut first = frames.accept().await;
        first.settings(100).await;
        let streams = first.requests(5).await;
        first.goaway(0x7fff_ffff).await;
        first.goaway(streams[0]).await;
        first.accept_push(streams[0]).await;
        let mut second = frames.accept().await;
        second.settings(100).await;
        second.accept_all().await
    });
    assert_all_accepted(&push_at_once(&apns.client, 5).await);
    drop(apns);
    assert_eq!(peer.await.unwrap(), 4);
}

#[tokio::test]
async fn sends_are_not_lost_when_goaway_comes_instead_of_settings() {
    let frames = Frames::bind().await;
    let apns = apns(&frames.url, &json!({}));
    let peer = tokio::spawn(async move {
        frames.accept().await.goaway(0).await;
        let mut second = frames.accept().await;
        second.settings(100).await;
        second.accept_all().await
    });
    assert_all_accepted(&push_at_once(&apns.client, 3).await);
    drop(apns);
    assert_eq!(peer.await.unwrap(), 3);
}

#[tokio::test]
async fn later_sends_do_not_fail_until_a_restart_after_goaway() {
    let frames = Frames::bind().await;
    let apns = apns(&frames.url, &json!({}));
    let peer = tokio::spawn(async move {
        for _ in 0..5 {
            let mut connection = frames.accept().await;
            connection.settings(100).await;
            let stream = connection.request().await.unwrap();
            connection.accept_push(stream).await;
            connection.goaway(stream).await;
        }
    });
    for _ in 0..5 {
        assert_all_accepted(&push_at_once(&apns.client, 1).await);
    }
    peer.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_pushes_on_after_goaway_of_both_providers() {
    let world = World::start().await;
    let (sender, phones) = (world.sender().await, [world.phone().await, android(&world).await]);
    for round in 1..=4 {
        for phone in &phones {
            let id = world.send(&sender, &[phone]).await;
            pushed(&sender, id, phone).await;
        }
        for provider in [Provider::Apns, Provider::Fcm] {
            assert!(world.emulator.goaway(provider, None) > 0, "round {round}");
        }
    }
    let counts = world.emulator.counts();
    assert!(counts.apns.connections_opened >= 4 && counts.fcm.connections_opened >= 4);
}

// 2. pushy 732: after one rejection the server allowed one stream, and pushes were delayed by 700 seconds.

#[tokio::test]
async fn one_stream_after_a_rejection_does_not_delay_sends() {
    let frames = Frames::bind().await;
    let apns = apns(&frames.url, &json!({ "starved_after_ms": 100, "connections_max": 1 }));
    let (limited, is_limited) = oneshot::channel();
    let peer = tokio::spawn(async move {
        let mut first = frames.accept().await;
        first.settings(100).await;
        let stream = first.request().await.unwrap();
        first.accept_push(stream).await;
        // As APNs does after some refusals: one stream, from now on.
        first.settings(1).await;
        first.settings_acknowledged().await;
        limited.send(()).unwrap();
        let held = first.request().await.unwrap();
        let mut second = frames.accept().await;
        second.settings(100).await;
        let second = tokio::spawn(second.accept_all());
        first.accept_push(held).await;
        assert_eq!(first.request().await, None, "the starved connection is left");
        second.await.unwrap()
    });
    assert_all_accepted(&push_at_once(&apns.client, 1).await);
    is_limited.await.unwrap();
    assert_all_accepted(&push_at_once(&apns.client, 20).await);
    drop(apns);
    assert_eq!(peer.await.unwrap(), 19);
}

// 3. pushy 816: some requests are never answered; the sender waited for ever.

#[tokio::test]
async fn a_request_that_apns_never_answers_has_its_own_deadline() {
    let silent = format!("{:064x}", 3);
    let peer = Peer::start(
        move |request| {
            if request.path.ends_with(&silent) { Action::Silence } else { answer(200, "") }
        },
    )
    .await;
    let apns = apns(&peer.url, &json!({ "request_timeout_ms": 400 }));
    let started = Instant::now();
    let outcomes = push_at_once(&apns.client, 8).await;
    let is_accepted = |outcome: &&_| matches!(outcome, sealpost_relay::provider::Outcome::Accepted { .. });
    let unanswered: Vec<_> = outcomes.iter().filter(|outcome| !is_accepted(outcome)).collect();
    assert_eq!(unanswered.len(), 1);
    assert_eq!(retry_class(unanswered[0]), RetryClass::NoAnswer);
    assert!(started.elapsed() >= Duration::from_millis(400));
    assert_eq!(peer.connections(), 1, "one silent request is no reason to leave");
    assert_eq!(apns.client.stats().in_flight, 0);
}

#[tokio::test]
async fn a_connection_that_answers_nothing_any_more_is_replaced() {
    let peer = Peer::start(|request| {
        if request.connection == 0 && request.number > 0 { Action::Silence } else { answer(200, "") }
    })
    .await;
    let apns = apns(&peer.url, &json!({ "request_timeout_ms": 100 }));
    assert_all_accepted(&[apns.client.push(&token(0), push(0)).await]);
    let mut outcomes = Vec::new();
    for n in 1..=4 {
        outcomes.push(apns.client.push(&token(n), push(1)).await);
    }
    assert_all_accepted(&outcomes[3..]);
    assert_eq!(peer.connections(), 2);
}
