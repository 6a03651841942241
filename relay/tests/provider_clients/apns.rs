//! APNs: what is sent, and what becomes of each answer.

use std::time::Duration;

use sealpost_emulators::{Outcome as Fault, Provider, RetryAfter};
use sealpost_relay::provider::{
    CredentialFault, Outcome, Push, PushPriority, PushToken, RejectedFault, RetryClass,
};
use serde_json::json;

use crate::peer::{Peer, answer, answer_after};
use crate::setup::{START, apns, emulated, push, system_now, token};

#[tokio::test]
async fn request_is_what_apple_documents() {
    let peer = Peer::start(|_| answer(200, "")).await;
    let apns = apns(&peer.url, &json!({}));
    apns.client.push(&PushToken::new("00fc13ad").unwrap(), push(0xab)).await;
    let normal = Push { priority: PushPriority::Normal, expires_at: u64::MAX, push_id: [0; 16] };
    apns.client.push(&PushToken::new("00fc13ad").unwrap(), normal).await;

    let [high, normal] = &peer.received()[..] else { panic!("two requests") };
    assert_eq!(high.path, "/3/device/00fc13ad");
    assert_eq!(high.header("apns-topic"), "org.example.sealpost");
    assert_eq!(high.header("apns-push-type"), "alert");
    assert_eq!(high.header("apns-priority"), "10");
    assert_eq!(high.header("apns-expiration"), (START + 3600).to_string());
    assert_eq!(high.header("apns-id"), "abababab-abab-abab-abab-abababababab");
    assert!(high.header("authorization").starts_with("bearer ey"));
    assert!(!high.headers.contains_key("apns-collapse-id"));
    assert_eq!(normal.header("apns-priority"), "5");
    assert_eq!(normal.header("apns-expiration"), (START + 30 * 86_400).to_string(), "30 days are the most");
}

#[tokio::test]
async fn emulator_accepts_pushes_and_all_bodies_are_the_same_bytes() {
    let emulated = emulated(|_| ()).await;
    let client = emulated.apns(&json!({}));
    for n in 0..20 {
        let priority = if n % 2 == 0 { PushPriority::High } else { PushPriority::Normal };
        let push = Push { priority, expires_at: system_now() + u64::from(n) * 60, push_id: [n; 16] };
        let Outcome::Accepted { provider_id } = client.push(&token(usize::from(n)), push).await else {
            panic!("push {n} was not accepted")
        };
        let digits = format!("{n:02x}");
        assert!(provider_id.as_str().starts_with(&digits.repeat(4)), "{provider_id}");
    }
    let pushes = emulated.emulator.pushes(0);
    assert_eq!(pushes.len(), 20);
    assert!(pushes.iter().all(|push| push.body == pushes[0].body && push.status == Some(200)));
    let body: serde_json::Value = serde_json::from_slice(&pushes[0].body).unwrap();
    assert_eq!(body["aps"]["mutable-content"], 1);
    assert_eq!(body["aps"]["alert"]["body"], "New message");
}

#[tokio::test]
async fn dead_token_carries_the_moment_of_its_death() {
    let emulated = emulated(|_| ()).await;
    let client = emulated.apns(&json!({}));
    emulated.emulator.kill_token(Provider::Apns, token(1).expose(), Some(1_700_000_000_123)).unwrap();
    match client.push(&token(1), push(1)).await {
        Outcome::DeadToken { since_ms: Some(1_700_000_000_123), detail } => {
            assert_eq!(detail.as_str(), "410 Unregistered");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(client.push(&token(2), push(2)).await, Outcome::Accepted { .. }));
}

#[tokio::test]
async fn token_of_another_app_or_environment_is_bad_and_not_dead() {
    let emulated = emulated(|_| ()).await;
    let client = emulated.apns(&json!({}));
    emulated.emulator.register_token(token(1).expose(), "org.example.other");
    assert!(matches!(client.push(&token(1), push(1)).await, Outcome::BadToken { .. }));
    let fault = Fault { reason: Some("BadDeviceToken".into()), ..Fault::new(Provider::Apns, 400) };
    emulated.emulator.set_outcome(fault).unwrap();
    assert!(matches!(client.push(&token(2), push(2)).await, Outcome::BadToken { .. }));
    // What is no hexadecimal token does not even go out.
    let sent = emulated.emulator.counts().apns.total;
    let token = PushToken::new("dQw4:not-apns").unwrap();
    assert!(matches!(client.push(&token, push(3)).await, Outcome::BadToken { .. }));
    assert_eq!(emulated.emulator.counts().apns.total, sent);
}

#[tokio::test]
async fn each_retry_class_comes_with_its_wait() {
    let emulated = emulated(|_| ()).await;
    let client = emulated.apns(&json!({}));
    let cases = [
        (429, "TooManyRequests", None, RetryClass::Throttled, 60),
        (429, "TooManyProviderTokenUpdates", None, RetryClass::TokenUpdates, 60),
        (500, "InternalServerError", None, RetryClass::Server, 5),
        (503, "ServiceUnavailable", None, RetryClass::Server, 5),
        (503, "ServiceUnavailable", Some(90), RetryClass::Server, 90),
        (429, "TooManyRequests", Some(7), RetryClass::Throttled, 7),
    ];
    for (status, reason, told_s, expected, wait_s) in cases {
        emulated.emulator.clear_outcomes();
        let retry_after = told_s.map(RetryAfter::Seconds);
        let fault = Fault { reason: Some(reason.into()), retry_after, ..Fault::new(Provider::Apns, status) };
        emulated.emulator.set_outcome(fault).unwrap();
        match client.push(&token(1), push(1)).await {
            Outcome::Retry { after, class, detail } => {
                assert_eq!((class, detail.as_str()), (expected, &*format!("{status} {reason}")));
                assert_eq!(after, Duration::from_secs(wait_s), "{reason}");
            }
            other => panic!("{reason}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn refusals_of_the_request_and_of_the_credential_are_told_apart() {
    let emulated = emulated(|_| ()).await;
    let client = emulated.apns(&json!({}));
    let outcome = async |status, reason: &str| {
        emulated.emulator.clear_outcomes();
        let fault = Fault { reason: Some(reason.into()), ..Fault::new(Provider::Apns, status) };
        emulated.emulator.set_outcome(fault).unwrap();
        client.push(&token(1), push(1)).await
    };
    let rejected = |outcome| match outcome {
        Outcome::Rejected { fault, .. } => fault,
        other => panic!("{other:?}"),
    };
    assert_eq!(rejected(outcome(413, "PayloadTooLarge").await), RejectedFault::PayloadTooLarge);
    assert_eq!(rejected(outcome(400, "BadTopic").await), RejectedFault::Topic);
    assert_eq!(rejected(outcome(400, "BadExpirationDate").await), RejectedFault::Request);
    assert_eq!(rejected(outcome(418, "Teapot").await), RejectedFault::Unknown);
    let credential = |outcome| match outcome {
        Outcome::Credential { fault, .. } => fault,
        other => panic!("{other:?}"),
    };
    assert_eq!(credential(outcome(403, "InvalidProviderToken").await), CredentialFault::ProviderToken);
    assert_eq!(credential(outcome(403, "BadEnvironmentKeyInToken").await), CredentialFault::ProviderToken);
    assert_eq!(credential(outcome(403, "Forbidden").await), CredentialFault::Forbidden);
}

#[tokio::test]
async fn expired_provider_token_is_signed_anew_once_and_the_push_resent() {
    let peer = Peer::start(|request| match request.number {
        0 => answer(403, r#"{"reason":"ExpiredProviderToken"}"#),
        _ => answer(200, ""),
    })
    .await;
    let apns = apns(&peer.url, &json!({}));
    assert!(matches!(apns.client.push(&token(1), push(1)).await, Outcome::Accepted { .. }));
    let [first, second] = &peer.received()[..] else { panic!("sent twice") };
    assert_ne!(first.header("authorization"), second.header("authorization"));
    assert_eq!(first.header("apns-id"), second.header("apns-id"));
    apns.client.push(&token(2), push(2)).await;
    assert_eq!(peer.received()[2].header("authorization"), second.header("authorization"));
}

#[tokio::test]
async fn provider_token_is_not_signed_again_within_20_minutes_however_often_it_is_refused() {
    let peer = Peer::start(|_| answer(403, r#"{"reason":"ExpiredProviderToken"}"#)).await;
    let apns = apns(&peer.url, &json!({}));
    let tokens_seen = || {
        let mut tokens: Vec<_> =
            peer.received().iter().map(|request| request.header("authorization").to_owned()).collect();
        tokens.sort();
        tokens.dedup();
        tokens.len()
    };
    for n in 0..10 {
        let outcome = apns.client.push(&token(1), push(n)).await;
        let expired = CredentialFault::ExpiredProviderToken;
        assert!(matches!(outcome, Outcome::Credential { fault, .. } if fault == expired), "{outcome:?}");
    }
    assert_eq!((tokens_seen(), peer.received().len()), (2, 11));
    apns.clock.set(START + 1200);
    apns.client.push(&token(1), push(1)).await;
    assert_eq!(tokens_seen(), 3);
}

#[tokio::test]
async fn shutdown_of_a_server_moves_on_to_another_connection() {
    let peer = Peer::start(|request| match request.connection {
        0 => answer_after(503, "1", r#"{"reason":"Shutdown"}"#),
        _ => answer(200, ""),
    })
    .await;
    let apns = apns(&peer.url, &json!({}));
    let outcome = apns.client.push(&token(1), push(1)).await;
    assert!(matches!(outcome, Outcome::Retry { class: RetryClass::Server, .. }), "{outcome:?}");
    assert!(matches!(apns.client.push(&token(1), push(1)).await, Outcome::Accepted { .. }));
}

#[tokio::test]
async fn a_body_that_is_not_apples_is_bounded_and_harmless() {
    let bodies = ["", "{", "[1]", r#"{"reason":7}"#, "<html>", &"x".repeat(100_000)].map(str::to_owned);
    let count = bodies.len();
    let peer = Peer::start(move |request| answer(410, &bodies[request.number])).await;
    let apns = apns(&peer.url, &json!({}));
    for _ in 0..count {
        let outcome = apns.client.push(&token(1), push(1)).await;
        assert!(matches!(outcome, Outcome::Rejected { fault: RejectedFault::Unknown, .. }), "{outcome:?}");
        assert_eq!(outcome.detail().as_str(), "410");
    }
}

#[tokio::test]
async fn nothing_that_is_shown_contains_a_token() {
    let secret = token(0xdead_beef);
    let reason = secret.expose().to_owned();
    let peer = Peer::start(move |_| answer(400, &format!(r#"{{"reason":"{reason}"}}"#))).await;
    let apns = apns(&peer.url, &json!({}));
    let outcome = apns.client.push(&secret, push(1)).await;
    let shown = format!("{outcome:?} {:?} {secret:?}", apns.client);
    assert!(!shown.contains("deadbeef"), "{shown}");
    assert!(!shown.contains(peer.received()[0].header("authorization")));
}
