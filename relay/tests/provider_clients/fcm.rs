//! FCM: what is sent, what becomes of each answer, and where the access token comes from.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sealpost_emulators::{Outcome as Fault, Provider, RetryAfter};
use sealpost_relay::provider::{CredentialFault, Outcome, Push, PushPriority, RejectedFault, RetryClass};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::peer::{Peer, TokenEndpoint, answer, grant};
use crate::setup::{START, TestClock, emulated, fcm, push, system_now, token};

const SENT: &str = r#"{"name":"projects/test-project/messages/0:1%2f"}"#;

#[tokio::test]
async fn request_is_what_google_documents() {
    let oauth = TokenEndpoint::granting(3600).await;
    let peer = Peer::start(|_| answer(200, SENT)).await;
    let fcm = fcm(&peer.url, &oauth.uri, &json!({}));
    let Outcome::Accepted { provider_id } = fcm.client.push(&token(1), push(1)).await else { panic!() };
    assert_eq!(provider_id.as_str(), "0:1%2f");
    let request = &peer.received()[0];
    assert_eq!(request.path, "/v1/projects/test-project/messages:send");
    assert_eq!(request.header("authorization"), "Bearer access-0");
    assert_eq!(request.header("content-type"), "application/json");
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let expected = json!({ "message": {
        "token": token(1).expose(),
        "data": { "sealpost": "sync" },
        "android": { "priority": "HIGH" },
    }});
    assert_eq!(body, expected);
}

#[tokio::test]
async fn emulator_accepts_pushes_and_the_stub_is_always_the_same() {
    let emulated = emulated(|_| ()).await;
    let client = emulated.fcm(&json!({}));
    for n in 0..20 {
        let push = Push { priority: PushPriority::High, expires_at: system_now() + 600, push_id: [n; 16] };
        let outcome = client.push(&token(usize::from(n)), push).await;
        assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
    }
    let stubs: Vec<Value> = emulated
        .emulator
        .pushes(0)
        .iter()
        .map(|push| serde_json::from_slice::<Value>(&push.body).unwrap()["message"]["data"].clone())
        .collect();
    assert_eq!(stubs.len(), 20);
    assert!(stubs.iter().all(|stub| *stub == json!({ "sealpost": "sync" })));
    assert_eq!(emulated.emulator.counts().oauth.total, 1);
}

#[tokio::test]
async fn a_clock_that_is_off_is_found_by_the_first_refusal_of_an_assertion() {
    for ahead_s in [-4000, 1500] {
        let emulated = emulated(|_| ()).await;
        let clock = TestClock::at(system_now().checked_add_signed(ahead_s).unwrap());
        let client = emulated.fcm_at(&json!({}), clock);
        assert_eq!(client.clock_ahead_s(), None);
        let outcome = client.push(&token(1), push(1)).await;
        assert!(matches!(outcome, Outcome::Accepted { .. }), "{ahead_s} s: {outcome:?}");
        let told = client.clock_ahead_s().unwrap();
        assert!(told.abs_diff(-ahead_s) <= 30, "{told} s");
        assert_eq!(emulated.emulator.counts().oauth.by_reason["invalid_grant"], 1);
    }
}

#[tokio::test]
async fn only_unregistered_is_dead() {
    let emulated = emulated(|_| ()).await;
    let client = emulated.fcm(&json!({}));
    emulated.emulator.kill_token(Provider::Fcm, token(1).expose(), None).unwrap();
    let outcome = client.push(&token(1), push(1)).await;
    assert!(matches!(outcome, Outcome::DeadToken { since_ms: None, .. }), "{outcome:?}");
    for (status, code) in [(400, "INVALID_ARGUMENT"), (403, "SENDER_ID_MISMATCH"), (404, "SOMETHING_ELSE")] {
        let fault = Fault { reason: Some(code.into()), ..Fault::new(Provider::Fcm, status) };
        emulated.emulator.set_outcome(fault).unwrap();
        let outcome = client.push(&token(2), push(2)).await;
        assert!(matches!(outcome, Outcome::Rejected { .. }), "{code}: {outcome:?}");
    }
}

#[tokio::test]
async fn each_retry_class_comes_with_its_wait() {
    let emulated = emulated(|_| ()).await;
    let client = emulated.fcm(&json!({}));
    let cases = [
        (429, "QUOTA_EXCEEDED", None, RetryClass::Quota, 60),
        (429, "QUOTA_EXCEEDED", Some(12), RetryClass::Quota, 12),
        (500, "INTERNAL", None, RetryClass::Server, 10),
        (503, "UNAVAILABLE", None, RetryClass::Server, 10),
        (503, "UNAVAILABLE", Some(33), RetryClass::Server, 33),
    ];
    for (status, code, told_s, expected, wait_s) in cases {
        emulated.emulator.clear_outcomes();
        let retry_after = told_s.map(RetryAfter::Seconds);
        let fault = Fault { reason: Some(code.into()), retry_after, ..Fault::new(Provider::Fcm, status) };
        emulated.emulator.set_outcome(fault).unwrap();
        match client.push(&token(1), push(1)).await {
            Outcome::Retry { after, class, .. } => {
                assert_eq!(class, expected);
                assert_eq!(after, Duration::from_secs(wait_s), "{code}");
            }
            other => panic!("{code}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn third_party_and_sender_faults_are_told_apart() {
    let emulated = emulated(|_| ()).await;
    let client = emulated.fcm(&json!({}));
    let outcome = async |status, code: &str| {
        emulated.emulator.clear_outcomes();
        let fault = Fault { reason: Some(code.into()), ..Fault::new(Provider::Fcm, status) };
        emulated.emulator.set_outcome(fault).unwrap();
        client.push(&token(1), push(1)).await
    };
    let third_party = outcome(401, "THIRD_PARTY_AUTH_ERROR").await;
    assert!(matches!(third_party, Outcome::Credential { fault: CredentialFault::ThirdPartyAuth, .. }));
    let sender = outcome(403, "SENDER_ID_MISMATCH").await;
    assert!(matches!(sender, Outcome::Rejected { fault: RejectedFault::SenderId, .. }));
    assert_eq!(emulated.emulator.counts().oauth.total, 1, "no reason to fetch another access token");
}

#[tokio::test]
async fn a_revoked_access_token_is_replaced_once_and_the_push_resent() {
    let emulated = emulated(|_| ()).await;
    let client = emulated.fcm(&json!({}));
    assert!(matches!(client.push(&token(1), push(1)).await, Outcome::Accepted { .. }));
    emulated.emulator.revoke_access_tokens();
    assert!(matches!(client.push(&token(1), push(1)).await, Outcome::Accepted { .. }));
    assert_eq!(emulated.emulator.counts().oauth.total, 2);
}

#[tokio::test]
async fn access_tokens_that_are_always_refused_do_not_flood_the_token_endpoint() {
    let oauth = TokenEndpoint::granting(3600).await;
    let peer = Peer::start(|_| answer(401, r#"{"error":{"code":401,"status":"UNAUTHENTICATED"}}"#)).await;
    let fcm = fcm(&peer.url, &oauth.uri, &json!({}));
    let mut pushes = JoinSet::new();
    for n in 0..50 {
        let client = Arc::clone(&fcm.client);
        pushes.spawn(async move { client.push(&token(n), push(1)).await });
    }
    for outcome in pushes.join_all().await {
        let access_token = CredentialFault::AccessToken;
        assert!(matches!(outcome, Outcome::Credential { fault, .. } if fault == access_token), "{outcome:?}");
    }
    assert_eq!(oauth.requests(), 2);
}

#[tokio::test]
async fn one_fetch_serves_all_pushes_and_outlives_the_one_that_began_it() {
    let oauth = TokenEndpoint::granting(3600).await;
    let peer = Peer::start(|_| answer(200, SENT)).await;
    let fcm = fcm(&peer.url, &oauth.uri, &json!({}));
    let mut pushes = JoinSet::new();
    for n in 0..100 {
        let client = Arc::clone(&fcm.client);
        pushes.spawn(async move { client.push(&token(n), push(1)).await });
    }
    let outcomes = pushes.join_all().await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Accepted { .. })));
    assert_eq!(oauth.requests(), 1);
}

#[tokio::test]
async fn access_token_is_refreshed_ahead_of_its_expiry_without_holding_up_pushes() {
    let may_answer = Arc::new(AtomicBool::new(true));
    let answers = Arc::clone(&may_answer);
    let oauth = TokenEndpoint::start(move |n| answers.load(Ordering::SeqCst).then(|| grant(n, 3600))).await;
    let peer = Peer::start(|_| answer(200, SENT)).await;
    let fcm = fcm(&peer.url, &oauth.uri, &json!({ "request_timeout_ms": 2000 }));
    let used = async || {
        let outcome = fcm.client.push(&token(1), push(1)).await;
        assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
        peer.received().last().unwrap().header("authorization").to_owned()
    };
    assert_eq!(used().await, "Bearer access-0");
    fcm.clock.set(START + 2900);
    assert_eq!(used().await, "Bearer access-0");
    assert_eq!(oauth.requests(), 1);
    // Ten minutes before the end a fetch begins. It does not matter that it hangs.
    may_answer.store(false, Ordering::SeqCst);
    fcm.clock.set(START + 3100);
    assert_eq!(used().await, "Bearer access-0");
    while oauth.requests() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(used().await, "Bearer access-0");
}

#[tokio::test]
async fn an_expired_access_token_is_never_sent() {
    let oauth = TokenEndpoint::granting(3600).await;
    let peer = Peer::start(|_| answer(200, SENT)).await;
    let fcm = fcm(&peer.url, &oauth.uri, &json!({}));
    fcm.client.push(&token(1), push(1)).await;
    fcm.clock.set(START + 3600);
    fcm.client.push(&token(1), push(1)).await;
    assert_eq!(peer.received()[1].header("authorization"), "Bearer access-1");
}

#[tokio::test]
async fn a_failing_token_endpoint_stops_this_client_and_is_not_hammered() {
    let is_up = Arc::new(AtomicBool::new(false));
    let up = Arc::clone(&is_up);
    let oauth = TokenEndpoint::start(move |n| {
        let failure = http::Response::builder().status(503).body(String::new()).unwrap();
        Some(if up.load(Ordering::SeqCst) { grant(n, 3600) } else { failure })
    })
    .await;
    let peer = Peer::start(|_| answer(200, SENT)).await;
    let fcm = fcm(&peer.url, &oauth.uri, &json!({}));
    for n in 0..20 {
        match fcm.client.push(&token(n), push(1)).await {
            Outcome::Credential { fault: CredentialFault::TokenEndpoint, detail, .. } => {
                assert_eq!(detail.as_str(), "503 token");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(oauth.requests(), 1, "one failure stands for the second it lasts");
    assert!(peer.received().is_empty());
    is_up.store(true, Ordering::SeqCst);
    let recovered = tokio::time::timeout(Duration::from_secs(10), async {
        while !matches!(fcm.client.push(&token(1), push(1)).await, Outcome::Accepted { .. }) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    recovered.await.expect("pushes succeed again");
}

#[tokio::test]
async fn a_refused_service_account_says_so() {
    let oauth = TokenEndpoint::start(|_| {
        let body = r#"{"error":"invalid_grant","error_description":"Invalid JWT Signature."}"#;
        Some(http::Response::builder().status(400).body(body.to_owned()).unwrap())
    })
    .await;
    let fcm = fcm("http://127.0.0.1:9", &oauth.uri, &json!({}));
    match fcm.client.push(&token(1), push(1)).await {
        Outcome::Credential { fault: CredentialFault::TokenRefused, after, detail } => {
            assert_eq!(detail.as_str(), "400 token invalid_grant");
            assert!(after >= Duration::from_secs(60));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn answers_of_the_token_endpoint_that_are_no_tokens_are_faults() {
    let bodies = [
        "",
        "{}",
        r#"{"access_token":"a","expires_in":3600,"token_type":"mac"}"#,
        r#"{"access_token":"a\nb","expires_in":3600,"token_type":"Bearer"}"#,
        r#"{"access_token":"a","expires_in":-1,"token_type":"Bearer"}"#,
        &"x".repeat(100_000),
    ]
    .map(str::to_owned);
    for body in bodies {
        let shown: String = body.chars().take(40).collect();
        let oauth = TokenEndpoint::start(move |_| Some(http::Response::new(body.clone()))).await;
        let fcm = fcm("http://127.0.0.1:9", &oauth.uri, &json!({}));
        let outcome = fcm.client.push(&token(1), push(1)).await;
        let endpoint = CredentialFault::TokenEndpoint;
        assert!(
            matches!(outcome, Outcome::Credential { fault, .. } if fault == endpoint),
            "{shown}: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn a_silent_token_endpoint_hits_the_deadline_of_the_push() {
    let oauth = TokenEndpoint::start(|_| None).await;
    let fcm = fcm("http://127.0.0.1:9", &oauth.uri, &json!({ "request_timeout_ms": 200 }));
    let started = Instant::now();
    let outcome = fcm.client.push(&token(1), push(1)).await;
    assert!(
        matches!(outcome, Outcome::Credential { fault: CredentialFault::TokenEndpoint, .. }),
        "{outcome:?}"
    );
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn emulator_answers_that_never_come_and_connections_that_break_are_survived() {
    let emulated = emulated(|_| ()).await;
    let client = emulated.fcm_at(&json!({ "request_timeout_ms": 500 }), TestClock::at(system_now()));
    let fault = Fault { cut_connection: true, count: Some(1), ..Fault::new(Provider::Fcm, 200) };
    emulated.emulator.set_outcome(fault).unwrap();
    assert!(matches!(client.push(&token(1), push(1)).await, Outcome::Accepted { .. }));
    let fault = Fault { no_answer: true, count: Some(1), ..Fault::new(Provider::Fcm, 200) };
    emulated.emulator.set_outcome(fault).unwrap();
    let outcome = client.push(&token(1), push(1)).await;
    assert!(matches!(outcome, Outcome::Retry { class: RetryClass::NoAnswer, .. }), "{outcome:?}");
    let fault = Fault {
        retry_after: Some(RetryAfter::Text("soon".into())),
        count: Some(1),
        ..Fault::new(Provider::Fcm, 429)
    };
    emulated.emulator.set_outcome(fault).unwrap();
    let outcome = client.push(&token(1), push(1)).await;
    assert!(
        matches!(outcome, Outcome::Retry { after, .. } if after >= Duration::from_secs(60)),
        "{outcome:?}"
    );
    assert!(matches!(client.push(&token(1), push(1)).await, Outcome::Accepted { .. }));
}
