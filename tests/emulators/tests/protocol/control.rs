//! The control interface, as curl would use it.

use std::time::{Duration, Instant};

use data_encoding::BASE64;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::apns::push;
use crate::client::Fixture;

#[tokio::test]
async fn it_describes_itself() {
    let fixture = Fixture::new().await;
    let (status, help) = fixture.control(Method::GET, "/", Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(help["where"]["apns"]["port"], fixture.emulator.apns_addr().port());
    assert!(help["requests"].as_object().unwrap().len() > 10);
}

#[tokio::test]
async fn outcomes_are_chosen_and_cleared() {
    let fixture = Fixture::new().await;
    let mut client = fixture.apns().await;
    let token = fixture.provider_token(0);
    let outcomes = json!([
        {"provider": "apns", "status": 429, "retry_after": "soon", "count": 1},
        {"provider": "apns", "token": "ee", "status": 410, "reason": "ExpiredToken", "timestamp_ms": 12},
    ]);
    assert_eq!(fixture.control(Method::POST, "/outcomes", outcomes).await.0, 200);
    let throttled = client.send(push("aa", &token)).await.unwrap();
    assert_eq!(throttled.refusal(), (429, "TooManyRequests"));
    assert_eq!(throttled.headers["retry-after"], "soon");
    assert_eq!(client.send(push("aa", &token)).await.unwrap().status, 200);
    let gone = client.send(push("ee", &token)).await.unwrap();
    assert_eq!(gone.json, json!({"reason": "ExpiredToken", "timestamp": 12}));
    assert_eq!(fixture.control(Method::DELETE, "/outcomes", Value::Null).await.0, 200);
    assert_eq!(client.send(push("ee", &token)).await.unwrap().status, 200);

    let dead = json!({"provider": "apns", "token": "dd", "timestamp_ms": 5});
    assert_eq!(fixture.control(Method::POST, "/dead", dead).await.1["timestamp_ms"], 5);
    assert_eq!(client.send(push("dd", &token)).await.unwrap().refusal(), (410, "Unregistered"));
    assert_eq!(fixture.control(Method::DELETE, "/dead", Value::Null).await.0, 200);
    let registration = json!({"token": "dd", "topic": "org.example.other"});
    assert_eq!(fixture.control(Method::POST, "/tokens", registration).await.0, 200);
    assert_eq!(client.send(push("dd", &token)).await.unwrap().refusal().1, "DeviceTokenNotForTopic");

    let shift = json!({"shift_ms": 4_000_000});
    assert_eq!(fixture.control(Method::POST, "/clock", shift).await.0, 200);
    assert_eq!(client.send(push("aa", &token)).await.unwrap().refusal().1, "ExpiredProviderToken");
}

#[tokio::test]
async fn a_delayed_answer_comes_late() {
    let fixture = Fixture::new().await;
    let mut client = fixture.apns().await;
    let token = fixture.provider_token(0);
    let delay = json!({"provider": "apns", "delay_ms": 150});
    assert_eq!(fixture.control(Method::POST, "/outcomes", delay).await.0, 200);
    let started = Instant::now();
    assert_eq!(client.send(push("aa", &token)).await.unwrap().status, 200);
    assert!(started.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn pushes_are_read_by_long_polls() {
    let fixture = Fixture::new().await;
    let mut client = fixture.apns().await;
    let token = fixture.provider_token(0);
    let (_, nothing) = fixture.control(Method::GET, "/pushes", Value::Null).await;
    assert_eq!(nothing, json!({"pushes": [], "last": 0, "oldest": 0}));

    let poll = fixture.control(Method::GET, "/pushes?after=1&wait_ms=60000&token=bb", Value::Null);
    let sends = async {
        for device in ["aa", "cc", "bb"] {
            assert_eq!(client.send(push(device, &token)).await.unwrap().status, 200);
        }
    };
    let ((_, page), ()) = tokio::join!(poll, sends);
    assert_eq!(page["pushes"].as_array().unwrap().len(), 1);
    let recorded = &page["pushes"][0];
    assert_eq!((&recorded["sequence"], &recorded["token"]), (&json!(3), &json!("bb")));
    assert_eq!((&recorded["provider"], &recorded["status"]), (&json!("apns"), &json!(200)));
    assert_eq!(recorded["headers"]["apns-push-type"], "alert");
    assert!(recorded["headers"].get("authorization").is_none());
    let body = BASE64.decode(recorded["body"].as_str().unwrap().as_bytes()).unwrap();
    assert_eq!(body, push("bb", &token).into_body());

    let (_, page) = fixture.control(Method::GET, "/pushes?limit=2&provider=apns", Value::Null).await;
    assert_eq!((page["pushes"].as_array().unwrap().len(), &page["last"]), (2, &json!(3)));
    let started = Instant::now();
    let (_, page) = fixture.control(Method::GET, "/pushes?after=3&wait_ms=80", Value::Null).await;
    assert_eq!(page["pushes"], json!([]));
    assert!(started.elapsed() >= Duration::from_millis(80));
}

#[tokio::test]
async fn counting_goes_on_without_records_and_starts_anew_after_a_reset() {
    let fixture = Fixture::new().await;
    let mut client = fixture.apns().await;
    let token = fixture.provider_token(0);
    assert_eq!(fixture.control(Method::POST, "/record", json!({"bodies": false})).await.0, 200);
    assert_eq!(client.send(push("aa", &token)).await.unwrap().status, 200);
    assert_eq!(client.send(push("x", &token)).await.unwrap().status, 400);
    let (_, counts) = fixture.control(Method::GET, "/counts", Value::Null).await;
    assert_eq!(counts["apns"]["by_status"], json!({"200": 1, "400": 1}));
    assert_eq!(counts["apns"]["by_reason"], json!({"BadDeviceToken": 1}));
    assert_eq!(counts["apns"]["connections_open"], 1);
    let (_, page) = fixture.control(Method::GET, "/pushes", Value::Null).await;
    assert_eq!(page, json!({"pushes": [], "last": 2, "oldest": 0}));

    assert_eq!(fixture.control(Method::POST, "/reset", Value::Null).await.0, 200);
    assert_eq!(fixture.control(Method::POST, "/record", json!({"bodies": true})).await.0, 200);
    assert_eq!(client.send(push("aa", &token)).await.unwrap().status, 200);
    let (_, page) = fixture.control(Method::GET, "/pushes", Value::Null).await;
    assert_eq!(page["pushes"][0]["sequence"], 1);
    assert_eq!(fixture.emulator.counts().apns.total, 1);
}

#[tokio::test]
async fn goaway_is_told_to_every_connection() {
    let fixture = Fixture::new().await;
    let token = fixture.provider_token(0);
    let mut clients = [fixture.apns().await, fixture.apns().await];
    for client in &mut clients {
        assert_eq!(client.send(push("aa", &token)).await.unwrap().status, 200);
    }
    let (_, told) = fixture.control(Method::POST, "/goaway", json!({"provider": "apns"})).await;
    assert_eq!(told, json!({"connections": 2}));
    for client in clients {
        tokio::time::timeout(Duration::from_secs(20), client.ended).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn nonsense_is_refused_with_a_reason() {
    let fixture = Fixture::new().await;
    let cases = [
        (Method::POST, "/outcomes", json!({"provider": "apns", "status": 42}), 400),
        (Method::POST, "/outcomes", json!({"provider": "sms"}), 400),
        (Method::POST, "/outcomes", json!({"provider": "apns", "sttaus": 503}), 400),
        (Method::POST, "/outcomes", Value::Null, 400),
        (Method::POST, "/dead", json!({"provider": "oauth", "token": "t"}), 400),
        (Method::POST, "/dead", json!({"provider": "apns"}), 400),
        (Method::POST, "/goaway", json!({"provider": "oauth"}), 400),
        (Method::POST, "/goaway", json!({"provider": "apns", "at_once": {"frames": 0}}), 400),
        (Method::POST, "/goaway", json!({"provider": "apns", "debug_data": "x".repeat(20_000)}), 400),
        (Method::POST, "/outcomes", json!({"provider": "apns", "no_answer": true, "half_answer": true}), 400),
        (Method::POST, "/outcomes", json!({"provider": "fcm", "status": 429, "details": "all"}), 400),
        (Method::POST, "/connections", json!({"provider": "oauth", "reception": "reset"}), 400),
        (Method::POST, "/connections", json!({"provider": "apns", "reception": "politely"}), 400),
        (Method::POST, "/connections", json!({"provider": "apns", "reception": "reset", "count": 0}), 400),
        (Method::POST, "/cut", json!({"provider": "oauth"}), 400),
        (Method::POST, "/reading", json!({"provider": "apns", "reading": {"bytes_per_second": 1}}), 400),
        (Method::POST, "/max-streams", json!({"provider": "apns", "max_streams": -1}), 400),
        (Method::POST, "/token-updates", json!({"scope": "world"}), 400),
        (Method::POST, "/date", json!({"provider": "apns"}), 400),
        (Method::POST, "/record", json!({}), 400),
        (Method::POST, "/clock", json!({"shift_ms": "1h"}), 400),
        (Method::GET, "/pushes?after=x", Value::Null, 400),
        (Method::GET, "/pushes?wait=5", Value::Null, 400),
        (Method::GET, "/pushes?provider=sms", Value::Null, 400),
        (Method::GET, "/nowhere", Value::Null, 404),
        (Method::PUT, "/outcomes", json!({}), 404),
    ];
    for (method, path, body, expected) in cases {
        let (status, answer) = fixture.control(method, path, body.clone()).await;
        assert_eq!(status, expected, "{path} {body}");
        assert!(!answer["error"].as_str().unwrap().is_empty());
    }
}
