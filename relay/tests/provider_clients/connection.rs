//! Connections that break, are full, or never come about. What broke other gateways is in `gateway_failures`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sealpost_relay::provider::{ApnsClient, Outcome, RetryClass};
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Barrier;

use crate::frames::Frames;
use crate::peer::{Action, Peer, answer};
use crate::setup::{apns, assert_all_accepted, push, push_at_once, retry_class, token};

#[tokio::test]
async fn cut_connection_is_replaced_and_the_push_keeps_its_id() {
    let peer =
        Peer::start(|request| if request.connection == 0 { Action::Cut } else { answer(200, "") }).await;
    let apns = apns(&peer.url, &json!({}));
    assert_all_accepted(&push_at_once(&apns.client, 1).await);
    let ids: Vec<_> = peer.received().iter().map(|request| request.header("apns-id").to_owned()).collect();
    assert_eq!(ids, ["01010101-0101-0101-0101-010101010101"; 2]);
}

#[tokio::test]
async fn connections_that_always_break_end_in_a_retry() {
    let peer = Peer::start(|_| Action::Cut).await;
    let apns = apns(&peer.url, &json!({ "backoff_first_ms": 1 }));
    let outcome = apns.client.push(&token(1), push(1)).await;
    assert_eq!(retry_class(&outcome), RetryClass::Connection);
    assert!((2..=4).contains(&peer.received().len()), "resent, and not for ever");
}

#[tokio::test]
async fn streams_that_are_refused_once_are_resent_and_always_end_in_a_retry() {
    let peer =
        Peer::start(|request| if request.number == 0 { Action::Refuse } else { answer(200, "") }).await;
    let once = apns(&peer.url, &json!({}));
    assert_all_accepted(&push_at_once(&once.client, 1).await);
    assert_eq!((peer.received().len(), peer.connections()), (2, 2));

    let peer = Peer::start(|_| Action::Refuse).await;
    let always = apns(&peer.url, &json!({ "backoff_first_ms": 1 }));
    let outcome = always.client.push(&token(1), push(1)).await;
    assert!(matches!(retry_class(&outcome), RetryClass::GoAway | RetryClass::Connection), "{outcome:?}");
    assert!(peer.received().len() <= 4);
}

#[tokio::test]
async fn a_reset_stream_is_the_callers_to_retry_and_the_connection_stays() {
    let peer = Peer::start(|request| if request.number == 1 { Action::Reset } else { answer(200, "") }).await;
    let apns = apns(&peer.url, &json!({}));
    assert_all_accepted(&[apns.client.push(&token(1), push(1)).await]);
    assert_eq!(retry_class(&apns.client.push(&token(2), push(2)).await), RetryClass::Connection);
    assert_all_accepted(&[apns.client.push(&token(3), push(3)).await]);
    assert_eq!(peer.connections(), 1);
}

#[tokio::test]
async fn a_connection_that_leaves_ping_unanswered_is_replaced() {
    let frames = Frames::bind().await;
    let apns = apns(&frames.url, &json!({ "ping_interval_ms": 50, "ping_timeout_ms": 50 }));
    let peer = tokio::spawn(async move {
        let mut first = frames.accept().await;
        first.settings(100).await;
        first.requests(1).await;
        // The second request is read at the end of the connection, never answered.
        assert_eq!(first.request().await, None);
        assert!(first.pings > 0);
        let mut second = frames.accept().await;
        second.settings(100).await;
        let stream = second.request().await.unwrap();
        second.accept_push(stream).await;
    });
    assert_all_accepted(&push_at_once(&apns.client, 1).await);
    peer.await.unwrap();
}

#[tokio::test]
async fn a_silent_connection_holds_up_no_more_than_it_took_and_is_left() {
    let peer = Peer::start(|request| {
        if request.connection == 0 && request.number > 0 { Action::Silence } else { answer(200, "") }
    })
    .await;
    let limits = json!({ "request_timeout_ms": 1000, "streams_per_connection_max": 2, "connections_max": 2 });
    let apns = apns(&peer.url, &limits);
    assert_all_accepted(&push_at_once(&apns.client, 1).await);
    // Two are taken by the silent one; the others do not wait for them.
    let outcomes = push_at_once(&apns.client, 20).await;
    let silent: Vec<_> =
        outcomes.iter().filter(|outcome| !matches!(outcome, Outcome::Accepted { .. })).collect();
    assert_eq!(silent.len(), 2, "{outcomes:?}");
    assert!(silent.iter().all(|outcome| retry_class(outcome) == RetryClass::NoAnswer), "{silent:?}");
    assert_eq!((apns.client.stats().open, peer.connections()), (2, 2));
    let third = apns.client.push(&token(1), push(1)).await;
    assert_eq!(retry_class(&third), RetryClass::NoAnswer, "the least loaded one was asked");
    assert_eq!(apns.client.stats().open, 1);
    assert_all_accepted(&push_at_once(&apns.client, 20).await);
}

#[tokio::test]
async fn pushes_without_a_stream_until_their_deadline_were_not_answered() {
    let peer = Peer::start(|_| Action::Silence).await;
    let limits = &json!({ "connections_max": 1, "request_timeout_ms": 300 });
    let apns = apns(&peer.url, limits);
    let outcomes = push_at_once(&apns.client, 5).await;
    assert!(outcomes.iter().all(|outcome| retry_class(outcome) == RetryClass::NoAnswer), "{outcomes:?}");
}

#[tokio::test]
async fn a_limit_that_rises_later_is_used_on_the_same_connection() {
    let frames = Frames::bind().await;
    let apns = apns(&frames.url, &json!({ "connections_max": 1 }));
    let peer = tokio::spawn(async move {
        let mut connection = frames.accept().await;
        connection.settings(1).await;
        // Nothing else comes until the first is answered.
        let first = connection.request().await.unwrap();
        connection.accept_push(first).await;
        connection.settings(50).await;
        // All others come without any further answer.
        for stream in connection.requests(49).await {
            connection.accept_push(stream).await;
        }
        connection.accept_all().await
    });
    assert_all_accepted(&push_at_once(&apns.client, 50).await);
    drop(apns);
    assert_eq!(peer.await.unwrap(), 0);
}

#[tokio::test]
async fn full_connections_open_further_ones_up_to_the_limit() {
    let all_are_full = Arc::new(Barrier::new(4));
    let frames = Frames::bind().await;
    let apns = apns(&frames.url, &json!({ "connections_max": 3 }));
    let barrier = Arc::clone(&all_are_full);
    let peer = tokio::spawn(async move {
        let mut answers = Vec::new();
        for _ in 0..3 {
            let mut connection = frames.accept().await;
            connection.settings(10).await;
            let barrier = Arc::clone(&barrier);
            answers.push(tokio::spawn(async move {
                let mut streams = connection.requests(10).await;
                // One answer shows that the connection works.
                connection.accept_push(streams.remove(0)).await;
                streams.push(connection.request().await.unwrap());
                barrier.wait().await;
                for stream in streams {
                    connection.accept_push(stream).await;
                }
                connection.accept_all().await
            }));
        }
        answers
    });
    let client = Arc::clone(&apns.client);
    let pushes = tokio::spawn(async move { push_at_once(&client, 40).await });
    let answers = peer.await.unwrap();
    all_are_full.wait().await;
    assert_eq!((apns.client.stats().in_flight, apns.client.stats().waiting), (30, 7));
    assert_all_accepted(&pushes.await.unwrap());
    assert_eq!(apns.client.stats().open, 3);
    drop(apns);
    let mut rest = 0;
    for answer in answers {
        rest += answer.await.unwrap();
    }
    assert_eq!(rest, 40 - 33);
}

#[tokio::test]
async fn no_server_fails_fast_and_recovers_when_it_is_back() {
    // Bound, and not listening yet: connects are refused, and nobody else takes the port.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let apns = apns(&format!("http://{address}"), &json!({ "backoff_first_ms": 200, "backoff_max_ms": 800 }));
    for outcome in push_at_once(&apns.client, 20).await {
        assert_eq!(retry_class(&outcome), RetryClass::Connection);
    }
    // The backoff is shared: while it lasts, nobody waits and nobody dials.
    let started = Instant::now();
    assert_eq!(retry_class(&apns.client.push(&token(1), push(1)).await), RetryClass::Connection);
    assert!(started.elapsed() < Duration::from_millis(400), "{:?}", started.elapsed());

    let listener = socket.listen(16).unwrap();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut http2 = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = http2.accept().await {
            respond.send_response(http::Response::new(()), true).unwrap();
        }
    });
    let recovered = tokio::time::timeout(Duration::from_secs(10), async {
        while !matches!(apns.client.push(&token(1), push(1)).await, Outcome::Accepted { .. }) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    recovered.await.expect("pushes succeed again");
    drop(apns);
    server.await.unwrap();
}

#[tokio::test]
async fn a_server_that_never_shakes_hands_hits_the_connect_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let held = tokio::spawn(async move {
        let mut held = Vec::new();
        while held.len() < 3 {
            held.push(listener.accept().await.unwrap());
        }
        held
    });
    let apns = apns(&endpoint, &json!({ "connect_timeout_ms": 50, "backoff_first_ms": 1 }));
    let outcome = apns.client.push(&token(1), push(1)).await;
    assert_eq!(retry_class(&outcome), RetryClass::Connection);
    assert!(outcome.detail().as_str().contains("50 ms"), "{outcome:?}");
    assert_eq!(held.await.unwrap().len(), 3);
}

#[tokio::test]
async fn an_untrusted_server_gets_no_push() {
    let emulated = crate::setup::emulated(|_| ()).await;
    let mut config = emulated.apns_config(&json!({ "backoff_first_ms": 1 }));
    config.root_ca_file = None;
    let client = ApnsClient::new(config, crate::setup::TestClock::at(crate::setup::START)).unwrap();
    let outcome = client.push(&token(1), push(1)).await;
    assert_eq!(retry_class(&outcome), RetryClass::Connection);
    assert!(outcome.detail().as_str().contains("TLS"), "{outcome:?}");
    assert_eq!(emulated.emulator.counts().apns.total, 0);
}

#[tokio::test]
async fn more_waiting_pushes_than_allowed_are_told_to_come_back() {
    let frames = Frames::bind().await;
    let limits = &json!({ "connections_max": 1, "waiting_max": 2, "request_timeout_ms": 300 });
    let apns = apns(&frames.url, limits);
    let peer = tokio::spawn(async move {
        let mut connection = frames.accept().await;
        connection.settings(1).await;
        connection.requests(1).await;
        while connection.request().await.is_some() {}
    });
    let outcomes = push_at_once(&apns.client, 6).await;
    let busy = outcomes.iter().filter(|outcome| retry_class(outcome) == RetryClass::Busy).count();
    assert!(busy >= 3, "{outcomes:?}");
    drop(apns);
    peer.await.unwrap();
}

#[tokio::test]
async fn a_push_that_is_dropped_gives_its_stream_back() {
    let peer =
        Peer::start(|request| if request.number == 0 { Action::Silence } else { answer(200, "") }).await;
    let apns = apns(&peer.url, &json!({ "connections_max": 1, "streams_per_connection_max": 1 }));
    let client = Arc::clone(&apns.client);
    let dropped = tokio::spawn(async move { client.push(&token(0), push(0)).await });
    while peer.received().is_empty() {
        tokio::task::yield_now().await;
    }
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());
    assert_all_accepted(&[apns.client.push(&token(1), push(1)).await]);
    assert_eq!(peer.connections(), 1);
}

#[tokio::test]
async fn connections_close_when_the_client_is_dropped() {
    let frames = Frames::bind().await;
    let apns = apns(&frames.url, &json!({}));
    let peer = tokio::spawn(async move {
        let mut connection = frames.accept().await;
        connection.settings(10).await;
        connection.accept_all().await
    });
    assert_all_accepted(&push_at_once(&apns.client, 3).await);
    drop(apns);
    assert_eq!(peer.await.unwrap(), 3);
}

#[test]
fn a_runtime_that_ends_in_the_middle_of_pushes_does_not_hang() {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for _ in 0..10 {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let peer = Peer::start(|_| Action::Silence).await;
                let apns = apns(&peer.url, &json!({ "streams_per_connection_max": 10 }));
                for n in 0..100 {
                    let client = Arc::clone(&apns.client);
                    tokio::spawn(async move { client.push(&token(n), push(1)).await });
                }
                while peer.received().len() < 10 {
                    tokio::task::yield_now().await;
                }
            });
            drop(runtime);
        }
        done.send(()).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(30)).expect("the runtime ends");
}
