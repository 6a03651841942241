//! MAX_CONCURRENT_STREAMS over the life of a connection, and streams that are reset.

use h2::Reason;
use http::Method;
use sealpost_emulators::{Outcome, Provider};
use serde_json::json;

use crate::apns::push;
use crate::client::Fixture;
use crate::frames::{Frames, RST_STREAM, encode};

const REFUSED_STREAM: [u8; 4] = 7_u32.to_be_bytes();

#[tokio::test]
async fn one_before_the_first_valid_token_on_the_wire() {
    let fixture = Fixture::with(|options| options.apns_max_streams = 500).await;
    let token = fixture.provider_token(0);
    let mut frames = Frames::connect(&fixture).await;
    assert_eq!(
        frames.next().await.unwrap().max_streams(),
        Some(1),
        "the first frame says 1 and nothing else"
    );
    frames.request(1, push("aa", "bad")).await;
    frames.request(3, push("aa", &token)).await;
    let seen = frames.read_to(|frame| frame.is_200()).await;
    let raised: Vec<(usize, u32)> = seen
        .iter()
        .enumerate()
        .filter_map(|(index, frame)| frame.max_streams().map(|max_streams| (index, max_streams)))
        .collect();
    let refusal = seen.iter().position(|frame| frame.stream == 1).unwrap();
    assert!(matches!(raised[..], [(index, 500)] if index > refusal), "{seen:?}");
}

#[tokio::test]
async fn it_shrinks_to_one_after_a_rejection_and_comes_back() {
    let fixture = Fixture::new().await;
    let token = fixture.provider_token(0);
    let mut frames = Frames::with_one_push(&fixture, push("aa", &token)).await;
    frames.acknowledge_settings().await;
    frames.acknowledge_settings().await;
    frames.acknowledge_settings().await;
    let rejection = json!({"provider": "apns", "status": 400, "max_streams": 1, "count": 1});
    assert_eq!(fixture.control(Method::POST, "/outcomes", rejection).await.0, 200);
    frames.request(3, push("bb", &token)).await;
    let seen = frames.read_to(|frame| frame.max_streams() == Some(1)).await;
    assert!(seen.len() <= 3, "it comes with the answer: {seen:?}");
    frames.acknowledge_settings().await;

    // Of two at once, the second is refused unprocessed; one after the other they are taken.
    let slow = Outcome { token: Some("cc".into()), delay_ms: Some(50), ..Outcome::new(Provider::Apns, 200) };
    fixture.emulator.set_outcome(slow).unwrap();
    let two = [encode(5, &push("cc", &token)), encode(7, &push("dd", &token))].concat();
    tokio::io::AsyncWriteExt::write_all(&mut frames.io, &two).await.unwrap();
    let seen = frames.read_to(|frame| frame.is_200()).await;
    let reset = seen.iter().find(|frame| frame.kind == RST_STREAM).unwrap();
    assert_eq!((reset.stream, &reset.payload[..]), (7, &REFUSED_STREAM[..]));
    assert_eq!(seen.last().unwrap().stream, 5);

    // Back to many.
    let back = json!({"provider": "apns", "max_streams": 1000});
    assert_eq!(fixture.control(Method::POST, "/max-streams", back).await.1, json!({"connections": 1}));
    frames.read_to(|frame| frame.max_streams() == Some(1000)).await;
    let two = [encode(9, &push("cc", &token)), encode(11, &push("dd", &token))].concat();
    tokio::io::AsyncWriteExt::write_all(&mut frames.io, &two).await.unwrap();
    let seen = frames.read_to(|frame| frame.is_200() && frame.stream == 9).await;
    assert!(seen.iter().any(|frame| frame.is_200() && frame.stream == 11));
    assert_eq!(fixture.emulator.counts().apns.refused_streams, 1);
}

#[tokio::test]
async fn streams_that_are_open_when_it_shrinks_are_served() {
    let fixture = Fixture::new().await;
    let token = fixture.provider_token(0);
    let mut client = fixture.apns().await;
    assert_eq!(client.send(push("aa", &token)).await.unwrap().status, 200);
    let slow = Outcome { delay_ms: Some(200), ..Outcome::new(Provider::Apns, 200) };
    fixture.emulator.set_outcome(slow).unwrap();
    let open: Vec<_> =
        (0..10).map(|_| crate::client::start(client.sender.clone(), push("bb", &token)).unwrap()).collect();
    fixture.emulator.wait_for_count(11).await;
    assert_eq!(fixture.emulator.set_max_streams(Provider::Apns, 1), 1);
    for stream in open {
        assert_eq!(crate::client::receive(stream).await.unwrap().status, 200);
    }
    assert_eq!(client.sender.current_max_send_streams(), 1);
    assert_eq!(fixture.emulator.set_max_streams(Provider::Fcm, 1), 0, "only those of the provider");
}

#[tokio::test]
async fn a_stream_is_reset_and_the_connection_goes_on() {
    let fixture = Fixture::new().await;
    let token = fixture.provider_token(0);
    let mut client = fixture.apns().await;
    for code in [Reason::REFUSED_STREAM, Reason::INTERNAL_ERROR, Reason::ENHANCE_YOUR_CALM] {
        let reset =
            Outcome { reset_stream: Some(code.into()), count: Some(1), ..Outcome::new(Provider::Apns, 200) };
        fixture.emulator.set_outcome(reset).unwrap();
        let error = client.send(push("aa", &token)).await.unwrap_err();
        assert!(error.is_reset() && error.is_remote(), "{error:?}");
        assert_eq!(error.reason(), Some(code));
        assert_eq!(client.send(push("aa", &token)).await.unwrap().status, 200);
    }
    assert_eq!(fixture.emulator.counts().apns.by_reason["reset_stream"], 3);
    assert_eq!(fixture.emulator.counts().apns.connections_opened, 1);
}
