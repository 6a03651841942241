//! Many pushes at once: every one is answered, no stream is refused, nothing stalls.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sealpost_emulators::{GoAway, Outcome as Fault, Provider};
use sealpost_relay::provider::{Outcome, ProviderClient};
use serde_json::json;
use tokio::task::JoinSet;

use crate::setup::{Emulated, emulated, push, token};

/// Sends `count` pushes, `in_flight` at a time; how many were accepted.
async fn run(client: ProviderClient, count: usize, in_flight: usize) -> usize {
    let client = Arc::new(client);
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..in_flight {
        let (client, next) = (Arc::clone(&client), Arc::clone(&next));
        workers.spawn(async move {
            let mut accepted = 0;
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return accepted;
                }
                match client.push(&token(n), push(1)).await {
                    Outcome::Accepted { .. } => accepted += 1,
                    other => eprintln!("push {n}: {other:?}"),
                }
            }
        });
    }
    let all = tokio::time::timeout(Duration::from_secs(60), workers.join_all());
    all.await.expect("no stall").into_iter().sum()
}

async fn check(emulated: &Emulated, provider: Provider, client: ProviderClient, in_flight: usize) {
    assert_eq!(run(client, 2000, in_flight).await, 2000);
    let counts = emulated.emulator.counts();
    let counts = counts.of(provider);
    assert_eq!(counts.by_status.get(&200), Some(&2000), "each was sent once");
    assert_eq!(counts.refused_streams, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apns_answers_2000_pushes_at_100_and_at_500_in_flight() {
    for in_flight in [100, 500] {
        let emulated = emulated(|_| ()).await;
        let client = emulated.apns(&json!({})).into();
        check(&emulated, Provider::Apns, client, in_flight).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fcm_answers_2000_pushes_at_100_and_at_500_in_flight() {
    for in_flight in [100, 500] {
        let emulated = emulated(|_| ()).await;
        let client = emulated.fcm(&json!({})).into();
        check(&emulated, Provider::Fcm, client, in_flight).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_end_under_load_lose_nothing() {
    let emulated = Arc::new(emulated(|_| ()).await);
    let client = emulated.apns(&json!({ "backoff_first_ms": 1 })).into();
    let ender = Arc::clone(&emulated);
    let ending = tokio::spawn(async move {
        for round in 1..=5 {
            ender.emulator.wait_for_count(round * 300).await;
            ender.emulator.goaway(Provider::Apns, None);
        }
    });
    assert_eq!(run(client, 2000, 100).await, 2000);
    ending.await.unwrap();
    let counts = emulated.emulator.counts();
    assert!(counts.apns.connections_opened > 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_starved_under_load_are_replaced_and_lose_nothing() {
    let emulated = Arc::new(emulated(|_| ()).await);
    // One stream alone would take 10 seconds for all.
    let slow = Fault { delay_ms: Some(5), ..Fault::new(Provider::Apns, 200) };
    emulated.emulator.set_outcome(slow).unwrap();
    let limits = json!({ "backoff_first_ms": 1, "starved_after_ms": 50, "connections_max": 2 });
    let client = emulated.apns(&limits).into();
    let starver = Arc::clone(&emulated);
    let starving = tokio::spawn(async move {
        for round in 1..=4 {
            starver.emulator.wait_for_count(round * 300).await;
            assert!(starver.emulator.set_max_streams(Provider::Apns, 1) > 0);
        }
    });
    check(&emulated, Provider::Apns, client, 100).await;
    starving.await.unwrap();
    assert!(emulated.emulator.counts().apns.connections_opened > 2, "others took their place");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_drain_with_unprocessed_requests_under_load_lose_nothing() {
    let emulated = Arc::new(emulated(|_| ()).await);
    let client = emulated.fcm(&json!({ "backoff_first_ms": 1, "streams_per_connection_max": 20 })).into();
    let ender = Arc::clone(&emulated);
    let ending = tokio::spawn(async move {
        for round in 1..=5 {
            ender.emulator.wait_for_count(round * 300).await;
            ender.emulator.goaway_at_once(Provider::Fcm, GoAway { frames: 2, ..GoAway::default() }).unwrap();
        }
    });
    assert_eq!(run(client, 2000, 100).await, 2000);
    ending.await.unwrap();
    assert!(
        emulated.emulator.counts().fcm.connections_opened > 5,
        "several at a time, and others after them"
    );
}
