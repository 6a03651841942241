//! The token endpoint: which assertions it takes, over HTTP/2 and HTTP/1.1.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use sealpost_emulators::{Outcome, Provider};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Fixture, grant, now_s, tls};

#[tokio::test]
async fn an_assertion_is_exchanged_for_an_access_token() {
    let fixture = Fixture::new().await;
    let answer = fixture.fcm().await.post_form(&grant(&fixture.assertion(|_| {}))).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json["token_type"], "Bearer");
    assert_eq!(answer.json["expires_in"], 3599);
    assert!(answer.json["access_token"].as_str().unwrap().len() > 40);
    assert_eq!(fixture.emulator.counts().oauth.by_status[&200], 1);
}

/// Google's own libraries do not look at the key file for this.
#[tokio::test]
async fn an_assertion_may_be_addressed_to_google() {
    let fixture = Fixture::new().await;
    let google = fixture.assertion(|claims| claims["aud"] = "https://oauth2.googleapis.com/token".into());
    assert_eq!(fixture.fcm().await.post_form(&grant(&google)).await.status, 200);
}

#[tokio::test]
async fn http_1_1_does_as_well() {
    let fixture = Fixture::new().await;
    let tls = tls(fixture.emulator.fcm_addr(), fixture.manifest(), &[b"http/1.1"]).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("/token")
        .header("host", "localhost")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from(grant(&fixture.assertion(|_| {})))));
    let response = sender.send_request(request.unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert!(answer["access_token"].is_string());
}

#[tokio::test]
async fn bad_assertions_are_refused() {
    let fixture = Fixture::new().await;
    let mut client = fixture.fcm().await;
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 9] = [
        ("invalid_grant", |claims| claims["iss"] = "somebody@example.org".into()),
        ("invalid_grant", |claims| claims["aud"] = "https://login.example.org/token".into()),
        ("invalid_grant", |claims| claims["exp"] = (now_s() + 3700).into()),
        ("invalid_grant", |claims| claims["exp"] = (now_s() - 120).into()),
        ("invalid_grant", |claims| {
            claims["iat"] = (now_s() - 7200).into();
            claims["exp"] = (now_s() - 3600).into();
        }),
        ("invalid_grant", |claims| {
            claims["iat"] = (now_s() + 600).into();
            claims["exp"] = (now_s() + 1200).into();
        }),
        ("invalid_grant", |claims| *claims = serde_json::json!({"iss": claims["iss"]})),
        ("invalid_scope", |claims| claims["scope"] = "https://www.googleapis.com/auth/drive".into()),
        ("invalid_scope", |claims| claims["scope"] = "".into()),
    ];
    for (index, (error, change)) in cases.into_iter().enumerate() {
        let answer = client.post_form(&grant(&fixture.assertion(change))).await;
        assert_eq!((answer.status, answer.json["error"].as_str()), (400, Some(error)), "case {index}");
    }

    let good = fixture.assertion(|_| {});
    let (input, _) = good.rsplit_once('.').unwrap();
    let (_, other_signature) = fixture
        .assertion(|claims| claims["jti"] = 1.into())
        .rsplit_once('.')
        .map(|(_, signature)| ((), signature.to_owned()))
        .unwrap();
    let forms = [
        (grant(&format!("{input}.{other_signature}")), "invalid_grant"),
        (grant("nonsense"), "invalid_grant"),
        (format!("grant_type=password&assertion={good}"), "unsupported_grant_type"),
        (format!("assertion={good}"), "invalid_request"),
        (grant("").replace("&assertion=", ""), "invalid_request"),
    ];
    for (form, error) in forms {
        let answer = client.post_form(&form).await;
        assert_eq!((answer.status, answer.json["error"].as_str()), (400, Some(error)), "{form}");
    }
    let not_a_form = Request::post("https://localhost/token").body(Bytes::from(grant(&good))).unwrap();
    assert_eq!(client.send(not_a_form).await.unwrap().json["error"], "invalid_request");
    let get = Request::get("https://localhost/token").body(Bytes::new()).unwrap();
    assert_eq!(client.send(get).await.unwrap().status, 405);
}

#[tokio::test]
async fn the_token_endpoint_can_be_out_of_order() {
    let fixture = Fixture::new().await;
    let mut client = fixture.fcm().await;
    let outage = Outcome { count: Some(1), ..Outcome::new(Provider::Oauth, 503) };
    fixture.emulator.set_outcome(outage).unwrap();
    let form = grant(&fixture.assertion(|_| {}));
    assert_eq!(client.post_form(&form).await.status, 503);
    assert_eq!(client.post_form(&form).await.status, 200);
}

/// An HTTP/1.1 exchange with the token endpoint; everything that comes until the end, or until nothing comes.
async fn over_http1(fixture: &Fixture, form: &str) -> (String, bool) {
    let mut tls = tls(fixture.emulator.fcm_addr(), fixture.manifest(), &[b"http/1.1"]).await.unwrap();
    let request = format!(
        "POST /token HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-www-form-urlencoded\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{form}",
        form.len()
    );
    tls.write_all(request.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    // A TLS connection that is closed without its goodbye ends in an error: the end all the same.
    let ended = tokio::time::timeout(WHILE, tls.read_to_end(&mut seen)).await.is_ok();
    (String::from_utf8(seen).unwrap(), ended)
}

/// Long enough to see that nothing happens.
const WHILE: Duration = Duration::from_millis(500);

#[tokio::test]
async fn the_token_endpoint_can_fail_in_every_way() {
    let fixture = Fixture::new().await;
    let mut client = fixture.fcm().await;
    let form = grant(&fixture.assertion(|_| {}));
    let choose = async |outcome: Value| {
        assert_eq!(fixture.control(Method::POST, "/outcomes", outcome).await.0, 200);
    };

    // Failing.
    choose(json!({"provider": "oauth", "status": 400, "reason": "invalid_grant", "count": 1})).await;
    let answer = client.post_form(&form).await;
    assert_eq!((answer.status, answer.json["error"].as_str()), (400, Some("invalid_grant")));
    choose(json!({"provider": "oauth", "status": 429, "retry_after": 5, "count": 1})).await;
    let answer = client.post_form(&form).await;
    assert_eq!((answer.status, &answer.headers["retry-after"]), (429, &"5".parse().unwrap()));

    // Rubbish: each is 200 and no answer of RFC 6749, section 5.1.
    let long = format!("{{\"access_token\":\"{}\"}}", "x".repeat(100_000));
    for body in ["<html>sign in</html>", "{\"access_token\":", "{}", "[]", "null", "", &long] {
        choose(json!({"provider": "oauth", "body": body, "count": 1})).await;
        let request = Request::post("https://localhost/token")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Bytes::copy_from_slice(form.as_bytes()));
        let response = crate::client::start(client.sender.clone(), request.unwrap()).unwrap().await.unwrap();
        assert_eq!(response.status(), 200);
        let mut received = Vec::new();
        let mut stream = response.into_body();
        while let Some(data) = stream.data().await {
            let data = data.unwrap();
            stream.flow_control().release_capacity(data.len()).unwrap();
            received.extend_from_slice(&data);
        }
        assert_eq!(received, body.as_bytes());
    }

    // Slow.
    choose(json!({"provider": "oauth", "delay_ms": 150, "count": 1})).await;
    let started = Instant::now();
    assert_eq!(client.post_form(&form).await.status, 200);
    assert!(started.elapsed() >= Duration::from_millis(150));

    // Cut, reset, half and silent, as HTTP/1.1 clients see it.
    choose(json!({"provider": "oauth", "cut_connection": true, "count": 1})).await;
    assert_eq!(over_http1(&fixture, &form).await, (String::new(), true));
    choose(json!({"provider": "oauth", "reset_connection": true, "count": 1})).await;
    assert_eq!(over_http1(&fixture, &form).await, (String::new(), true));
    choose(json!({"provider": "oauth", "half_answer": true, "count": 1})).await;
    let (half, ended) = over_http1(&fixture, &form).await;
    assert!(half.starts_with("HTTP/1.1 200 OK\r\n") && !half.ends_with('}') && !ended, "{half}");
    choose(json!({"provider": "oauth", "no_answer": true, "count": 1})).await;
    assert_eq!(over_http1(&fixture, &form).await, (String::new(), false));

    assert_eq!(client.post_form(&form).await.status, 200);
    let reasons = fixture.emulator.counts().oauth.by_reason;
    for reason in ["invalid_grant", "cut_connection", "reset_connection", "half_answer", "no_answer"] {
        assert!(reasons.contains_key(reason), "{reason} is missing in {reasons:?}");
    }
}
