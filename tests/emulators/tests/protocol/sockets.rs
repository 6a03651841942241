//! Below HTTP: resets, peers that stop reading, windows that do not open, silence.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use http::Method;
use sealpost_emulators::{ConnectionFault, Outcome, Provider, Reading, Reception};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::apns::push;
use crate::client::{Fixture, receive, start, tls};
use crate::frames::{DATA, END_STREAM, Frames, PING, WINDOW_UPDATE, encode};

/// Long enough for anything that happens at all.
const SOON: Duration = Duration::from_secs(20);
/// Long enough to see that nothing happens.
const WHILE: Duration = Duration::from_millis(300);
const MORE_THAN_BUFFERS_HOLD: usize = 256 * 1024 * 1024;

fn reception(reception: Reception, count: u32) -> ConnectionFault {
    ConnectionFault { provider: Provider::Apns, reception, count: Some(count) }
}

/// What a read says when there will be nothing more.
async fn end_of(io: &mut (impl tokio::io::AsyncRead + Unpin)) -> Result<(), ErrorKind> {
    let mut rest = Vec::new();
    timeout(SOON, io.read_to_end(&mut rest)).await.unwrap().map(drop).map_err(|error| error.kind())
}

#[tokio::test]
async fn a_request_has_its_connection_reset() {
    let fixture = Fixture::new().await;
    let token = fixture.provider_token(0);
    let mut frames = Frames::with_one_push(&fixture, push("aa", &token)).await;
    let reset = json!({"provider": "apns", "reset_connection": true, "count": 1});
    assert_eq!(fixture.control(Method::POST, "/outcomes", reset).await.0, 200);
    frames.request(3, push("bb", &token)).await;
    assert_eq!(end_of(&mut frames.io).await, Err(ErrorKind::ConnectionReset));
    assert_eq!(fixture.emulator.counts().apns.by_reason["reset_connection"], 1);
    assert_eq!(fixture.emulator.pushes(1)[0].status, None);
}

#[tokio::test]
async fn open_connections_are_closed_or_reset() {
    let fixture = Fixture::new().await;
    let token = fixture.provider_token(0);
    let mut frames = Frames::with_one_push(&fixture, push("aa", &token)).await;
    let reset = json!({"provider": "apns", "reset": true});
    assert_eq!(fixture.control(Method::POST, "/cut", reset).await.1, json!({"connections": 1}));
    assert_eq!(end_of(&mut frames.io).await, Err(ErrorKind::ConnectionReset));

    let mut frames = Frames::with_one_push(&fixture, push("aa", &token)).await;
    assert_eq!(fixture.emulator.cut_connections(Provider::Apns, false), 1);
    // Without TLS' own goodbye, as a process that was killed.
    assert_eq!(end_of(&mut frames.io).await, Err(ErrorKind::UnexpectedEof));
}

#[tokio::test]
async fn a_connection_is_reset_before_tls() {
    let fixture = Fixture::new().await;
    fixture.emulator.set_connection_fault(reception(Reception::Reset, 1)).unwrap();
    let mut tcp = TcpStream::connect(fixture.emulator.apns_addr()).await.unwrap();
    assert_eq!(end_of(&mut tcp).await, Err(ErrorKind::ConnectionReset));
    assert_eq!(fixture.apns().await.send(push("aa", &fixture.provider_token(0))).await.unwrap().status, 200);
}

#[tokio::test]
async fn the_handshake_is_never_answered() {
    let fixture = Fixture::new().await;
    let fault = json!({"provider": "apns", "reception": "no_handshake", "count": 1});
    assert_eq!(fixture.control(Method::POST, "/connections", fault).await.0, 200);
    let address = fixture.emulator.apns_addr();
    assert!(timeout(WHILE, tls(address, fixture.manifest(), &[b"h2"])).await.is_err());
    let push = push("aa", &fixture.provider_token(0));
    assert_eq!(fixture.apns().await.send(push).await.unwrap().status, 200);
    assert_eq!(fixture.emulator.counts().apns.connections_opened, 1, "one was never opened");
}

#[tokio::test]
async fn http_2_never_begins() {
    let fixture = Fixture::new().await;
    let token = fixture.provider_token(0);
    fixture.emulator.set_connection_fault(reception(Reception::NoSettings, 2)).unwrap();
    let mut frames = Frames::connect(&fixture).await;
    frames.request(1, push("aa", &token)).await;
    let mut byte = [0];
    assert!(timeout(WHILE, frames.io.read(&mut byte)).await.is_err(), "not a byte");
    assert_eq!(fixture.emulator.cut_connections(Provider::Apns, false), 1);
    assert!(end_of(&mut frames.io).await.is_err());

    // Faults that were not used up are forgotten.
    assert_eq!(fixture.control(Method::DELETE, "/connections", json!(null)).await.0, 200);
    assert_eq!(fixture.apns().await.send(push("aa", &token)).await.unwrap().status, 200);
    assert_eq!(fixture.emulator.counts().apns.total, 1);
}

#[tokio::test]
async fn a_peer_that_stops_reading_fills_the_buffers_and_then_blocks() {
    let fixture = Fixture::new().await;
    let token = fixture.provider_token(0);
    let mut frames = Frames::with_one_push(&fixture, push("aa", &token)).await;
    assert_eq!(fixture.emulator.set_reading(Provider::Apns, Reading::Stopped).unwrap(), 1);
    // Frames of an unknown type are ignored (RFC 9113, section 5.5) and flow only as TCP lets them.
    let unknown = [&[0, 0x40, 0, 0x20, 0, 0, 0, 0, 0][..], &[0; 16 * 1024]].concat();
    let mut written = 0;
    // Until a write has to wait: the buffers of two systems are full.
    while let Ok(count) = timeout(WHILE, frames.io.write(&unknown[written % unknown.len()..])).await {
        written += count.unwrap();
        assert!(written < MORE_THAN_BUFFERS_HOLD, "{written} bytes were taken");
    }
    assert_eq!(fixture.emulator.set_reading(Provider::Apns, Reading::Usual).unwrap(), 1);
    let rest = &unknown[written % unknown.len()..];
    timeout(SOON, frames.io.write_all(rest)).await.unwrap().unwrap();
    frames.write(PING, 0, 0, &[7; 8]).await;
    frames.read_to(|frame| frame.kind == PING && frame.payload == [7; 8]).await;
}

#[tokio::test]
async fn a_slow_reader_takes_its_time() {
    let fixture = Fixture::new().await;
    let token = fixture.provider_token(0);
    let mut frames = Frames::with_one_push(&fixture, push("aa", &token)).await;
    let slow = json!({"provider": "apns", "reading": {"bytes_per_second": 2000}});
    assert_eq!(fixture.control(Method::POST, "/reading", slow).await.1, json!({"connections": 1}));
    let request = encode(3, &push("bb", &token));
    // A tick of a tenth of a second before each part, of which the first may have been due.
    let at_least = Duration::from_secs_f64(f64::from(u32::try_from(request.len()).unwrap()) / 2000.0 - 0.1);
    let started = Instant::now();
    frames.io.write_all(&request).await.unwrap();
    frames.read_to(|frame| frame.is_200() && frame.stream == 3).await;
    assert!(started.elapsed() >= at_least, "{:?} for {} bytes", started.elapsed(), request.len());
    let usual = json!({"provider": "apns", "reading": "usual"});
    assert_eq!(fixture.control(Method::POST, "/reading", usual).await.0, 200);
    frames.request(5, push("cc", &token)).await;
    frames.read_to(|frame| frame.is_200() && frame.stream == 5).await;
}

#[tokio::test]
async fn a_window_that_never_opens_holds_the_body_back() {
    let fixture = Fixture::new().await;
    let token = fixture.provider_token(0);
    fixture.emulator.set_connection_fault(reception(Reception::Window(0), 1)).unwrap();
    let client = fixture.apns().await;
    // Settings must have come before the first body, or its first bytes go out.
    let (head, body) = push("aa", &token).into_parts();
    let mut sender = client.sender.clone().ready().await.unwrap();
    let (response, mut stream) = sender.send_request(http::Request::from_parts(head, ()), false).unwrap();
    stream.reserve_capacity(body.len());
    let mut response = std::pin::pin!(response);
    assert!(timeout(WHILE, response.as_mut()).await.is_err());
    stream.send_data(body, true).unwrap();
    assert!(timeout(WHILE, response.as_mut()).await.is_err(), "the body is not on its way");
    assert_eq!(fixture.emulator.counts().apns.total, 0);
}

#[tokio::test]
async fn a_small_window_opens_a_little_at_a_time() {
    let fixture = Fixture::new().await;
    let token = fixture.provider_token(0);
    fixture.emulator.set_connection_fault(reception(Reception::Window(16), 2)).unwrap();
    let mut client = fixture.apns().await;
    assert_eq!(client.send(push("aa", &token)).await.unwrap().status, 200);

    let mut frames = Frames::connect(&fixture).await;
    frames.read_to(|frame| frame.payload.windows(6).any(|setting| setting == [0, 4, 0, 0, 0, 16])).await;
    // The first SETTINGS frame was about streams, this one about the window; each holds once acknowledged.
    frames.acknowledge_settings().await;
    frames.acknowledge_settings().await;
    let (head, body) = push("bb", &token).into_parts();
    let whole = encode(1, &http::Request::from_parts(head, bytes::Bytes::new()));
    // Headers, and of the empty DATA frame nothing.
    frames.io.write_all(&whole[..whole.len() - 9]).await.unwrap();
    let parts = body.chunks_exact(16);
    let rest = parts.remainder();
    for part in parts {
        frames.write(DATA, 0, 1, part).await;
        frames.read_to(|frame| frame.kind == WINDOW_UPDATE && frame.stream == 1).await;
    }
    frames.write(DATA, END_STREAM, 1, rest).await;
    frames.read_to(|frame| frame.is_200()).await;
}

#[tokio::test]
async fn half_an_answer_is_all_there_is() {
    let fixture = Fixture::new().await;
    let token = fixture.provider_token(0);
    let mut client = fixture.apns().await;
    let half = Outcome { token: Some("bb".into()), half_answer: true, ..Outcome::new(Provider::Apns, 503) };
    fixture.emulator.set_outcome(half).unwrap();
    let request = start(client.sender.clone(), push("bb", &token)).unwrap();
    let response = timeout(SOON, request).await.unwrap().unwrap();
    assert_eq!(response.status(), 503);
    let mut body = response.into_body();
    let part = timeout(SOON, body.data()).await.unwrap().unwrap().unwrap();
    let whole = r#"{"reason":"ServiceUnavailable"}"#;
    assert_eq!(part, whole[..whole.len() / 2]);
    assert!(timeout(WHILE, body.data()).await.is_err(), "neither more, nor an end");
    assert_eq!(client.send(push("aa", &token)).await.unwrap().status, 200);
    let recorded = fixture.emulator.pushes(0);
    assert_eq!((recorded[0].status, recorded[0].reason.as_deref()), (Some(503), Some("half_answer")));
    // Not for ever: the connection can be ended.
    drop(body);
    let silent = start(client.sender.clone(), push("bb", &token)).unwrap();
    fixture.emulator.wait_for_count(3).await;
    assert_eq!(fixture.emulator.cut_connections(Provider::Apns, true), 1);
    assert!(timeout(SOON, receive(silent)).await.unwrap().is_err());
}
