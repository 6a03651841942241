//! GOAWAY in every way APNs and FCM were seen to send it, as it is on the wire.

use std::time::Duration;

use http::Method;
use sealpost_emulators::{ConnectionFault, GoAway, Outcome, Provider, Reception};
use serde_json::json;
use tokio::time::timeout;

use crate::apns::push;
use crate::client::{Fixture, receive, start};
use crate::frames::{Frames, GoAwaySeen, HEADERS, PING, SETTINGS, encode};

const SOON: Duration = Duration::from_secs(20);
const SHUTDOWN: &str = r#"{"reason":"Shutdown"}"#;

fn seen(last_stream: u32, error_code: u32, debug_data: &str) -> GoAwaySeen {
    GoAwaySeen { last_stream, error_code, debug_data: debug_data.to_owned() }
}

/// The GOAWAY frames, and the streams that were answered by 200, in their order.
fn goaways_and_answers(frames: &[crate::frames::Frame]) -> (Vec<GoAwaySeen>, Vec<u32>) {
    let goaways = frames.iter().filter_map(crate::frames::Frame::goaway).collect();
    let answers = frames.iter().filter(|frame| frame.is_200()).map(|frame| frame.stream).collect();
    (goaways, answers)
}

#[tokio::test]
async fn in_good_order_it_comes_twice_and_nothing_is_lost() {
    let fixture = Fixture::new().await;
    let token = fixture.provider_token(0);
    let mut frames = Frames::with_one_push(&fixture, push("aa", &token)).await;
    let (status, told) = fixture.control(Method::POST, "/goaway", json!({"provider": "apns"})).await;
    assert_eq!((status.as_u16(), told), (200, json!({"connections": 1})));
    let before = frames.read_to(|frame| frame.kind == PING).await;
    assert_eq!(goaways_and_answers(&before).0, [seen(0x7fff_ffff, 0, SHUTDOWN)]);
    // A request that was under way when the announcement came.
    frames.request(3, push("bb", &token)).await;
    frames.write(PING, 1, 0, &before.last().unwrap().payload).await;
    let after = frames.read_to_end().await;
    assert_eq!(goaways_and_answers(&after), (vec![seen(3, 0, SHUTDOWN)], vec![3]));
    assert_eq!(fixture.emulator.counts().apns.total, 2);
}

#[tokio::test]
async fn without_unprocessed_streams_what_is_in_flight_is_answered() {
    let fixture = Fixture::new().await;
    let token = fixture.provider_token(0);
    let mut frames = Frames::with_one_push(&fixture, push("aa", &token)).await;
    let slow = Outcome { token: Some("bb".into()), delay_ms: Some(200), ..Outcome::new(Provider::Apns, 200) };
    fixture.emulator.set_outcome(slow).unwrap();
    let last = Outcome { goaway: Some(GoAway::default()), ..Outcome::new(Provider::Apns, 200) };
    fixture.emulator.set_outcome(last).unwrap();
    let both = [encode(3, &push("bb", &token)), encode(5, &push("cc", &token))].concat();
    tokio::io::AsyncWriteExt::write_all(&mut frames.io, &both).await.unwrap();
    let after = frames.read_to_end().await;
    assert_eq!(goaways_and_answers(&after), (vec![seen(5, 0, SHUTDOWN)], vec![5, 3]));
    let counts = fixture.emulator.counts().apns;
    assert_eq!((counts.total, counts.unprocessed_streams), (3, 0));
}

#[tokio::test]
async fn unprocessed_streams_are_above_the_last_stream_id_and_not_recorded() {
    let fixture = Fixture::new().await;
    let token = fixture.provider_token(0);
    let mut frames = Frames::with_one_push(&fixture, push("aa", &token)).await;
    let outcomes = json!([
        {"provider": "apns", "token": "bb", "delay_ms": 100},
        {"provider": "apns", "token": "cc",
         "goaway_instead": {"error_code": 2, "debug_data": "{\"reason\":\"InternalError\"}"}},
    ]);
    assert_eq!(fixture.control(Method::POST, "/outcomes", outcomes).await.0, 200);
    let three = [(3, "bb"), (5, "cc"), (7, "dd")].map(|(id, device)| encode(id, &push(device, &token)));
    tokio::io::AsyncWriteExt::write_all(&mut frames.io, &three.concat()).await.unwrap();
    let after = frames.read_to_end().await;
    let (goaways, answers) = goaways_and_answers(&after);
    assert_eq!(goaways, [seen(3, 2, r#"{"reason":"InternalError"}"#)]);
    assert_eq!(answers, [3], "what was decided before is answered, and nothing else");
    assert!(after.iter().all(|frame| frame.stream <= 3), "not a word on the others: {after:?}");
    let counts = fixture.emulator.counts().apns;
    assert_eq!((counts.total, counts.unprocessed_streams), (2, 2));
    let devices: Vec<String> = fixture.emulator.pushes(0).into_iter().map(|push| push.token).collect();
    assert_eq!(devices, ["aa", "bb"], "who resends makes no duplicate");
}

#[tokio::test]
async fn a_client_learns_which_requests_it_may_send_again() {
    let fixture = Fixture::new().await;
    let token = fixture.provider_token(0);
    let mut client = fixture.apns().await;
    assert_eq!(client.send(push("aa", &token)).await.unwrap().status, 200);
    let instead = Outcome {
        goaway_instead: Some(GoAway::default()),
        count: Some(1),
        ..Outcome::new(Provider::Apns, 200)
    };
    fixture.emulator.set_outcome(instead).unwrap();
    let request = start(client.sender.clone(), push("bb", &token)).unwrap();
    let error = timeout(SOON, receive(request)).await.unwrap().unwrap_err();
    assert!(error.is_go_away() && error.is_remote(), "{error:?}");
    assert_eq!(error.reason(), Some(h2::Reason::NO_ERROR));
    assert_eq!(fixture.apns().await.send(push("bb", &token)).await.unwrap().status, 200);
    assert_eq!(fixture.emulator.counts().apns.total, 2);
}

#[tokio::test]
async fn two_in_a_row() {
    let fixture = Fixture::new().await;
    let token = fixture.provider_token(0);
    let mut frames = Frames::with_one_push(&fixture, push("aa", &token)).await;
    let goaway = GoAway { frames: 2, debug_data: Some("{}".to_owned()), ..GoAway::default() };
    let last = Outcome { goaway: Some(goaway), ..Outcome::new(Provider::Apns, 200) };
    fixture.emulator.set_outcome(last).unwrap();
    frames.request(3, push("bb", &token)).await;
    let after = frames.read_to_end().await;
    let expected = (vec![seen(0x7fff_ffff, 0, "{}"), seen(3, 0, "{}")], vec![3]);
    assert_eq!(goaways_and_answers(&after), expected);
    let first = after.iter().position(|frame| frame.goaway().is_some()).unwrap();
    assert!(after[first + 1].goaway().is_some(), "nothing comes between them");
}

#[tokio::test]
async fn an_idle_connection_is_ended_at_once() {
    let fixture = Fixture::new().await;
    let token = fixture.provider_token(0);
    let mut frames = Frames::with_one_push(&fixture, push("aa", &token)).await;
    let order = json!({"provider": "apns", "at_once": {"frames": 2, "error_code": 11}});
    assert_eq!(fixture.control(Method::POST, "/goaway", order).await.1, json!({"connections": 1}));
    // What comes afterwards is not processed.
    frames.read_to(|frame| frame.goaway().is_some_and(|goaway| goaway == seen(1, 11, SHUTDOWN))).await;
    frames.request(3, push("bb", &token)).await;
    assert_eq!(frames.read_to_end().await, [], "the emulator closes when the peer does not");
    let counts = fixture.emulator.counts().apns;
    assert_eq!((counts.total, counts.unprocessed_streams), (1, 1));
}

#[tokio::test]
async fn instead_of_settings() {
    let fixture = Fixture::new().await;
    let token = fixture.provider_token(0);
    let goaway = GoAway { frames: 2, ..GoAway::default() };
    let fault = ConnectionFault {
        provider: Provider::Apns,
        reception: Reception::GoawayInsteadOfSettings(goaway),
        count: Some(2),
    };
    fixture.emulator.set_connection_fault(fault).unwrap();
    let mut frames = Frames::connect(&fixture).await;
    frames.request(1, push("aa", &token)).await;
    let all = frames.read_to_end().await;
    let expected = [seen(0x7fff_ffff, 0, SHUTDOWN), seen(0, 0, SHUTDOWN)];
    assert_eq!(goaways_and_answers(&all), (expected.into(), Vec::new()));
    assert!(all.iter().all(|frame| frame.kind != SETTINGS && frame.kind != HEADERS));

    let mut client = fixture.apns().await;
    assert!(timeout(SOON, client.send(push("aa", &token))).await.unwrap().is_err());
    // The third connection is received as usual.
    assert_eq!(fixture.apns().await.send(push("aa", &token)).await.unwrap().status, 200);
    assert_eq!(fixture.emulator.counts().apns.total, 1);
}

#[tokio::test]
async fn fcm_says_that_there_were_too_many_streams() {
    let fixture = Fixture::new().await;
    let access_token = fixture.access_token().await;
    let mut client = fixture.fcm().await;
    let instead = json!({"provider": "fcm", "count": 1,
        "goaway_instead": {"error_code": 11, "debug_data": "exceeded_max_concurrent_streams"}});
    assert_eq!(fixture.control(Method::POST, "/outcomes", instead).await.0, 200);
    let message = crate::fcm::message("device");
    let error = client.send(crate::fcm::request(&access_token, &message)).await.unwrap_err();
    assert!(error.is_go_away(), "{error:?}");
    assert_eq!(error.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
    let answer = fixture.fcm().await.send(crate::fcm::request(&access_token, &message)).await.unwrap();
    assert_eq!((answer.status, fixture.emulator.counts().fcm.total), (200, 1));
}
