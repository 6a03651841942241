//! What FCM takes and refuses.

use bytes::Bytes;
use http::{HeaderValue, Method, Request};
use sealpost_emulators::{Outcome, Provider, RetryAfter};
use serde_json::{Value, json};

use crate::client::{Answer, Client, Fixture};

const FCM_ERROR: &str = "type.googleapis.com/google.firebase.fcm.v1.FcmError";
const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";
const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";

fn message(token: &str) -> Value {
    json!({"message": {
        "token": token,
        "data": {"kind": "sync"},
        "android": {"priority": "HIGH", "ttl": "3600s", "direct_boot_ok": true},
    }})
}

fn request(access_token: &str, body: &Value) -> Request<Bytes> {
    Request::post("https://localhost/v1/projects/sealpost-emulated/messages:send")
        .header("authorization", format!("Bearer {access_token}"))
        .header("content-type", "application/json")
        .body(Bytes::from(body.to_string()))
        .unwrap()
}

/// The entry of `error.details` with a type.
fn detail<'a>(answer: &'a Answer, kind: &str) -> Option<&'a Value> {
    answer.json["error"]["details"].as_array()?.iter().find(|detail| detail["@type"] == kind)
}

async fn send(client: &mut Client, request: Request<Bytes>) -> Answer {
    let answer = client.send(request).await.unwrap();
    if answer.status != 200 {
        assert_eq!(answer.json["error"]["code"], answer.status);
    }
    answer
}

#[tokio::test]
async fn a_good_message_gets_a_name() {
    let fixture = Fixture::new().await;
    let access_token = fixture.access_token().await;
    let mut client = fixture.fcm().await;
    for number in 1..=2 {
        let answer = send(&mut client, request(&access_token, &message("device"))).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json, json!({"name": format!("projects/sealpost-emulated/messages/{number}")}));
    }
    let recorded = fixture.emulator.next_push("device", 1).await;
    assert_eq!((recorded.sequence, recorded.provider, recorded.status), (2, Provider::Fcm, Some(200)));
    assert_eq!(recorded.body, message("device").to_string());
    assert!(!format!("{recorded:?}").contains(&access_token));
}

#[tokio::test]
async fn bad_messages_are_invalid_arguments() {
    type Change = fn(&mut Value);
    // Field that the answer names, whether FCM itself refused it, and the change.
    let cases: [(&str, bool, Change); 19] = [
        ("message", true, |body| *body = json!({})),
        ("", false, |body| body["mesage"] = 1.into()),
        ("message", false, |body| body["message"] = "text".into()),
        ("message", false, |body| body["message"]["colour"] = "red".into()),
        ("message", true, |body| {
            body["message"].as_object_mut().unwrap().remove("token");
        }),
        ("message", false, |body| body["message"]["topic"] = "news".into()),
        ("message.token", false, |body| body["message"]["token"] = 5.into()),
        ("message.token", true, |body| body["message"]["token"] = "".into()),
        ("message.token", true, |body| body["message"]["token"] = "a b".into()),
        ("message.data", false, |body| body["message"]["data"]["n"] = 5.into()),
        ("message.data", true, |body| body["message"]["data"]["from"] = "x".into()),
        ("message.data", true, |body| body["message"]["data"]["gcm"] = "x".into()),
        ("message.data", true, |body| body["message"]["data"]["google.x"] = "x".into()),
        ("message.data", true, |body| body["message"]["data"]["x"] = "x".repeat(4096).into()),
        ("message.android.priority", false, |body| body["message"]["android"]["priority"] = "URGENT".into()),
        ("message.android.ttl", false, |body| body["message"]["android"]["ttl"] = "3600".into()),
        ("message.android.ttl", true, |body| body["message"]["android"]["ttl"] = "2419201s".into()),
        ("message.android.direct_boot_ok", false, |body| {
            body["message"]["android"]["direct_boot_ok"] = "yes".into();
        }),
        ("message.android", false, |body| body["message"]["android"]["tll"] = "1s".into()),
    ];
    let fixture = Fixture::new().await;
    let access_token = fixture.access_token().await;
    let mut client = fixture.fcm().await;
    for (index, (field, by_fcm, change)) in cases.into_iter().enumerate() {
        let mut body = message("device");
        change(&mut body);
        let answer = send(&mut client, request(&access_token, &body)).await;
        assert_eq!(answer.status, 400, "case {index}");
        assert_eq!(answer.json["error"]["status"], "INVALID_ARGUMENT");
        let violations = &detail(&answer, BAD_REQUEST).unwrap()["fieldViolations"];
        assert_eq!(violations[0]["field"], field, "case {index}");
        let code = detail(&answer, FCM_ERROR).map(|detail| detail["errorCode"].as_str().unwrap());
        assert_eq!(code, by_fcm.then_some("INVALID_ARGUMENT"), "case {index}");
    }

    let mut not_json = request(&access_token, &message("device"));
    *not_json.body_mut() = Bytes::from_static(b"{\"message\":");
    assert_eq!(send(&mut client, not_json).await.status, 400);
    let mut form = request(&access_token, &message("device"));
    form.headers_mut().insert("content-type", HeaderValue::from_static("text/plain"));
    assert_eq!(send(&mut client, form).await.status, 400);

    let mut at_the_limit = message("device");
    at_the_limit["message"]["data"] = json!({"k": "x".repeat(4095)});
    at_the_limit["message"]["android"] = json!({"ttl": "2419200s", "priority": "NORMAL"});
    assert_eq!(send(&mut client, request(&access_token, &at_the_limit)).await.status, 200);
}

#[tokio::test]
async fn access_tokens_are_checked() {
    let fixture = Fixture::new().await;
    let mut client = fixture.fcm().await;
    let mut without = request("", &message("device"));
    without.headers_mut().remove("authorization");
    let answer = send(&mut client, without).await;
    assert_eq!((answer.status, &answer.json["error"]["status"]), (401, &json!("UNAUTHENTICATED")));
    assert_eq!(detail(&answer, ERROR_INFO).unwrap()["reason"], "CREDENTIALS_MISSING");

    let expired = |answer: &Answer| {
        assert_eq!((answer.status, &answer.json["error"]["status"]), (401, &json!("UNAUTHENTICATED")));
        assert_eq!(detail(answer, ERROR_INFO).unwrap()["reason"], "ACCESS_TOKEN_EXPIRED");
        assert!(answer.headers.contains_key("www-authenticate"));
    };
    expired(&send(&mut client, request("ya29.unknown", &message("device"))).await);

    let access_token = fixture.access_token().await;
    assert_eq!(send(&mut client, request(&access_token, &message("device"))).await.status, 200);
    fixture.emulator.shift_clock(3_600_000);
    expired(&send(&mut client, request(&access_token, &message("device"))).await);
    fixture.emulator.shift_clock(0);
    assert_eq!(send(&mut client, request(&access_token, &message("device"))).await.status, 200);
    fixture.emulator.revoke_access_tokens();
    expired(&send(&mut client, request(&access_token, &message("device"))).await);
}

#[tokio::test]
async fn other_paths_and_projects_are_refused() {
    let fixture = Fixture::new().await;
    let access_token = fixture.access_token().await;
    let mut client = fixture.fcm().await;
    let with_path = |path: &str| {
        let mut request = request(&access_token, &message("device"));
        *request.uri_mut() = format!("https://localhost{path}").parse().unwrap();
        request
    };
    for path in ["/", "/fcm/send", "/v1/projects//messages:send", "/v1/projects/a/b/messages:send"] {
        let answer = send(&mut client, with_path(path)).await;
        assert_eq!((answer.status, &answer.json["error"]["status"]), (404, &json!("NOT_FOUND")), "{path}");
    }
    let answer = send(&mut client, with_path("/v1/projects/other/messages:send")).await;
    assert_eq!((answer.status, &answer.json["error"]["status"]), (403, &json!("PERMISSION_DENIED")));
    let mut get = request(&access_token, &message("device"));
    *get.method_mut() = Method::GET;
    assert_eq!(send(&mut client, get).await.status, 404);
}

#[tokio::test]
async fn chosen_errors_look_like_those_of_fcm() {
    let fixture = Fixture::new().await;
    let access_token = fixture.access_token().await;
    let mut client = fixture.fcm().await;
    let cases = [
        (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        (401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"),
        (403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"),
        (404, "NOT_FOUND", "UNREGISTERED"),
        (429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"),
        (500, "INTERNAL", "INTERNAL"),
        (503, "UNAVAILABLE", "UNAVAILABLE"),
    ];
    for (status, canonical, code) in cases {
        let outcome = Outcome {
            retry_after: Some(RetryAfter::Seconds(7)),
            count: Some(1),
            ..Outcome::new(Provider::Fcm, status)
        };
        fixture.emulator.set_outcome(outcome).unwrap();
        let answer = send(&mut client, request(&access_token, &message("device"))).await;
        assert_eq!((answer.status, &answer.json["error"]["status"]), (status, &json!(canonical)));
        assert_eq!(detail(&answer, FCM_ERROR).unwrap()["errorCode"], code);
        assert_eq!(answer.headers["retry-after"], "7");
    }
    fixture.emulator.kill_token(Provider::Fcm, "device", None).unwrap();
    let answer = send(&mut client, request(&access_token, &message("device"))).await;
    assert_eq!(
        (answer.status, &detail(&answer, FCM_ERROR).unwrap()["errorCode"]),
        (404, &json!("UNREGISTERED"))
    );
    assert_eq!(send(&mut client, request(&access_token, &message("other"))).await.status, 200);
}
