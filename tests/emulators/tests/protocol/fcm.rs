//! What FCM takes and refuses.

use bytes::Bytes;
use http::{HeaderValue, Method, Request};
use sealpost_emulators::{Outcome, Provider, RetryAfter};
use serde_json::{Value, json};

use crate::client::{Answer, Client, Fixture};

const FCM_ERROR: &str = "type.googleapis.com/google.firebase.fcm.v1.FcmError";
const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";
const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";

pub(crate) fn message(token: &str) -> Value {
    json!({"message": {
        "token": token,
        "data": {"kind": "sync"},
        "android": {"priority": "HIGH", "ttl": "3600s", "direct_boot_ok": true},
    }})
}

pub(crate) fn request(access_token: &str, body: &Value) -> Request<Bytes> {
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

const QUOTA_FAILURE: &str = "type.googleapis.com/google.rpc.QuotaFailure";

/// The types of the details, and what of them a client has to read.
#[tokio::test]
async fn details_come_in_every_form_and_not_at_all() {
    let fixture = Fixture::new().await;
    let access_token = fixture.access_token().await;
    let mut client = fixture.fcm().await;
    let mut chosen = async |outcome: Value| {
        assert_eq!(fixture.control(Method::POST, "/outcomes", outcome).await.0, 200);
        send(&mut client, request(&access_token, &message("device"))).await
    };
    for (status, canonical) in [
        (400, "INVALID_ARGUMENT"),
        (401, "UNAUTHENTICATED"),
        (403, "PERMISSION_DENIED"),
        (404, "NOT_FOUND"),
        (429, "RESOURCE_EXHAUSTED"),
        (500, "INTERNAL"),
        (503, "UNAVAILABLE"),
    ] {
        let outcome = json!({"provider": "fcm", "status": status, "details": "none", "count": 1});
        let answer = chosen(outcome).await;
        assert_eq!((answer.status, &answer.json["error"]["status"]), (status, &json!(canonical)));
        assert!(answer.json["error"].get("details").is_none(), "{}", answer.json);
    }
    for (status, reason) in [(403, "SERVICE_DISABLED"), (429, "RATE_LIMIT_EXCEEDED"), (503, "SOMETHING_NEW")]
    {
        let outcome = json!({"provider": "fcm", "status": status, "reason": reason, "details": "error_info",
                             "count": 1});
        let answer = chosen(outcome).await;
        let info = detail(&answer, ERROR_INFO).unwrap();
        assert_eq!(
            (answer.status, &info["reason"], &info["domain"]),
            (status, &json!(reason), &json!("googleapis.com"))
        );
        assert!(detail(&answer, FCM_ERROR).is_none());
    }
    let quota = json!({"provider": "fcm", "status": 429, "details": "quota_failure", "retry_after": 60,
                       "count": 1});
    let answer = chosen(quota).await;
    assert_eq!(answer.headers["retry-after"], "60");
    assert_eq!(detail(&answer, FCM_ERROR).unwrap()["errorCode"], "QUOTA_EXCEEDED");
    let subject = &detail(&answer, QUOTA_FAILURE).unwrap()["violations"][0]["subject"];
    assert_eq!(subject, "project:sealpost-emulated");
    let bad = json!({"provider": "fcm", "status": 400, "details": "bad_request", "count": 1});
    let answer = chosen(bad).await;
    assert_eq!(detail(&answer, BAD_REQUEST).unwrap()["fieldViolations"][0]["field"], "message.token");
    assert!(detail(&answer, FCM_ERROR).is_none());
    let counts = fixture.emulator.counts().fcm;
    assert_eq!((counts.by_reason["QUOTA_EXCEEDED"], counts.by_reason["SOMETHING_NEW"]), (2, 1));
}

#[tokio::test]
async fn a_401_comes_once_or_for_ever() {
    let fixture = Fixture::new().await;
    let access_token = fixture.access_token().await;
    let mut client = fixture.fcm().await;
    let once = json!({"provider": "fcm", "status": 401, "reason": "ACCESS_TOKEN_EXPIRED", "count": 1});
    assert_eq!(fixture.control(Method::POST, "/outcomes", once).await.0, 200);
    let answer = send(&mut client, request(&access_token, &message("device"))).await;
    assert_eq!((answer.status, &answer.json["error"]["status"]), (401, &json!("UNAUTHENTICATED")));
    assert_eq!(detail(&answer, ERROR_INFO).unwrap()["reason"], "ACCESS_TOKEN_EXPIRED");
    assert!(answer.headers.contains_key("www-authenticate"));
    let answer = send(&mut client, request(&access_token, &message("device"))).await;
    assert_eq!(answer.status, 200, "the token is as good as before");

    let for_ever =
        Outcome { reason: Some("ACCESS_TOKEN_EXPIRED".into()), ..Outcome::new(Provider::Fcm, 401) };
    fixture.emulator.set_outcome(for_ever).unwrap();
    for _ in 0..3 {
        let fresh = fixture.access_token().await;
        assert_eq!(send(&mut client, request(&fresh, &message("device"))).await.status, 401);
    }
    assert_eq!(fixture.emulator.counts().fcm.by_reason["ACCESS_TOKEN_EXPIRED"], 4);
}

#[tokio::test]
async fn fcm_can_be_silent_cut_and_answer_rubbish() {
    let fixture = Fixture::new().await;
    let access_token = fixture.access_token().await;
    let mut client = fixture.fcm().await;
    let rubbish = json!([
        {"provider": "fcm", "status": 502, "body": "<html>502 Bad Gateway</html>", "count": 1},
        {"provider": "fcm", "status": 200, "body": "{\"name\":", "count": 1},
        {"provider": "fcm", "no_answer": true, "count": 1},
        {"provider": "fcm", "cut_connection": true, "count": 1},
    ]);
    assert_eq!(fixture.control(Method::POST, "/outcomes", rubbish).await.0, 200);
    for (status, content_type, body) in [
        (502, "text/html; charset=UTF-8", "<html>502 Bad Gateway</html>"),
        (200, "application/json; charset=UTF-8", "{\"name\":"),
    ] {
        let request = request(&access_token, &message("device"));
        let response = crate::client::start(client.sender.clone(), request).unwrap().await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["content-type"], content_type);
        assert!(response.headers().contains_key("date"), "Google sends it always");
        assert_eq!(response.into_body().data().await.unwrap().unwrap(), body);
    }
    let silent =
        crate::client::start(client.sender.clone(), request(&access_token, &message("device"))).unwrap();
    fixture.emulator.wait_for_count(3).await;
    let cut = client.send(request(&access_token, &message("device"))).await.unwrap_err();
    assert!(cut.is_io(), "{cut:?}");
    assert!(crate::client::receive(silent).await.is_err(), "it never was answered");
    let counts = fixture.emulator.counts().fcm;
    assert_eq!((counts.by_reason["no_answer"], counts.by_reason["cut_connection"]), (1, 1));
}
