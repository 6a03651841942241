//! The token endpoint: which assertions it takes, over HTTP/2 and HTTP/1.1.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use sealpost_emulators::{Outcome, Provider};
use serde_json::Value;

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
        ("invalid_grant", |claims| claims["aud"] = "https://oauth2.googleapis.com/token".into()),
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
