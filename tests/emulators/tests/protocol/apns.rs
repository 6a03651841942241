//! Every reason for which APNs refuses a push, and the ways to get one accepted.

use bytes::Bytes;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use http::{HeaderValue, Request};
use sealpost_emulators::{ApnsKey, Provider, TokenUpdateScope};
use serde_json::json;

use crate::client::{Client, Fixture, provider_token};

const TOKEN: &str = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0";
const TOPIC: &str = "org.example.sealpost";
const ID: &str = "123e4567-e89b-12d3-a456-4266554400a0";
const BODY: &str = r#"{"aps":{"alert":{"title":"New message"},"mutable-content":1}}"#;

/// A request as it should be.
pub(crate) fn push(token: &str, provider_token: &str) -> Request<Bytes> {
    Request::post(format!("https://localhost/3/device/{token}"))
        .header("authorization", format!("bearer {provider_token}"))
        .header("apns-topic", TOPIC)
        .header("apns-push-type", "alert")
        .header("apns-priority", "10")
        .header("apns-expiration", "1893456000")
        .header("apns-id", ID)
        .body(Bytes::from_static(BODY.as_bytes()))
        .unwrap()
}

fn set(request: &mut Request<Bytes>, name: &'static str, value: &str) {
    request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
}

async fn send(client: &mut Client, request: Request<Bytes>) -> (u16, String) {
    let answer = client.send(request).await.unwrap();
    assert!(answer.headers.contains_key("apns-id"), "every answer names the push");
    if answer.status == 200 {
        assert!(answer.json.is_null(), "a success has no body");
        return (200, String::new());
    }
    let (status, reason) = answer.refusal();
    (status, reason.to_owned())
}

#[tokio::test]
async fn a_good_push_is_accepted_and_its_id_echoed() {
    let fixture = Fixture::new().await;
    let mut client = fixture.apns().await;
    let token = fixture.provider_token(0);
    let answer = client.send(push(TOKEN, &token)).await.unwrap();
    assert_eq!((answer.status, answer.headers["apns-id"].to_str().unwrap()), (200, ID));
    assert!(answer.json.is_null());

    let mut without_id = push(TOKEN, &token);
    without_id.headers_mut().remove("apns-id");
    let answer = client.send(without_id).await.unwrap();
    assert_eq!((answer.status, answer.headers["apns-id"].len()), (200, 36));

    let recorded = fixture.emulator.pushes(0);
    assert_eq!(recorded.len(), 2);
    assert_eq!(recorded[0].token, TOKEN);
    assert_eq!(recorded[0].body, BODY);
    assert_eq!(recorded[0].status, Some(200));
    assert!(recorded[0].headers.contains(&("apns-topic", TOPIC.to_owned())));
    let text = format!("{recorded:?}");
    assert!(!text.contains(&token), "provider tokens are not recorded");
}

/// What is changed in a good request, and what comes of it.
#[tokio::test]
async fn each_mistake_has_its_reason() {
    type Change = Box<dyn Fn(&mut Request<Bytes>)>;
    let header =
        |name: &'static str, value: &'static str| -> Change { Box::new(move |r| set(r, name, value)) };
    let remove = |name: &'static str| -> Change {
        Box::new(move |r| {
            r.headers_mut().remove(name);
        })
    };
    let path = |path: &'static str| -> Change { Box::new(move |r| *r.uri_mut() = path.parse().unwrap()) };
    let body = |text: String| -> Change { Box::new(move |r| *r.body_mut() = Bytes::from(text.clone())) };
    let padded = |size: usize| format!(r#"{{"aps":{{}},"x":"{}"}}"#, "x".repeat(size - 17));

    let cases: Vec<(u16, &str, Change)> = vec![
        (405, "MethodNotAllowed", Box::new(|r| *r.method_mut() = http::Method::PUT)),
        (404, "BadPath", path("https://localhost/3/devices/aa")),
        (404, "BadPath", path("https://localhost/3/device/aa/bb")),
        (404, "BadPath", path("https://localhost/3/device/aa?x=1")),
        (400, "MissingDeviceToken", path("https://localhost/3/device/")),
        (400, "BadDeviceToken", path("https://localhost/3/device/xyz0")),
        (400, "BadDeviceToken", path("https://localhost/3/device/abc")),
        (
            400,
            "DuplicateHeaders",
            Box::new(|r| {
                r.headers_mut().append("apns-id", HeaderValue::from_static(ID));
            }),
        ),
        (400, "MissingTopic", remove("apns-topic")),
        (400, "TopicDisallowed", header("apns-topic", "com.example.other")),
        (400, "TopicDisallowed", header("apns-topic", "org.example.sealpost.voip")),
        (400, "TopicDisallowed", header("apns-push-type", "voip")),
        (400, "InvalidPushType", header("apns-push-type", "shout")),
        (400, "InvalidPushType", remove("apns-push-type")),
        (400, "BadPriority", header("apns-priority", "7")),
        (400, "BadPriority", header("apns-push-type", "background")),
        (400, "BadExpirationDate", header("apns-expiration", "tomorrow")),
        (400, "BadExpirationDate", header("apns-expiration", "-1")),
        (400, "BadExpirationDate", header("apns-expiration", "+5")),
        (400, "BadMessageId", header("apns-id", "42")),
        (400, "BadCollapseId", Box::new(|r| set(r, "apns-collapse-id", &"c".repeat(65)))),
        (400, "PayloadEmpty", body(String::new())),
        (400, "PayloadEmpty", body("{}".to_owned())),
        (400, "PayloadEmpty", body(r#"{"aps":1}"#.to_owned())),
        (400, "PayloadEmpty", body(r#"["aps"]"#.to_owned())),
        (400, "PayloadEmpty", body(format!("{BODY}x"))),
        (413, "PayloadTooLarge", body(padded(4097))),
        (413, "PayloadTooLarge", body("x".repeat(100_000))),
        (403, "MissingProviderToken", remove("authorization")),
        (403, "MissingProviderToken", header("authorization", "basic abc")),
        (403, "InvalidProviderToken", header("authorization", "bearer abc")),
        (403, "InvalidProviderToken", header("authorization", "bearer a.b.c")),
        // And what is right.
        (200, "", Box::new(|_| {})),
        (200, "", body(padded(4096))),
        (200, "", remove("apns-priority")),
        (200, "", remove("apns-expiration")),
        (200, "", header("apns-expiration", "0")),
        (200, "", header("apns-priority", "1")),
        (200, "", Box::new(|r| set(r, "apns-collapse-id", &"c".repeat(64)))),
        (
            200,
            "",
            Box::new(|r| {
                set(r, "apns-push-type", "background");
                set(r, "apns-priority", "5");
            }),
        ),
        (
            200,
            "",
            Box::new(move |r| {
                set(r, "apns-push-type", "voip");
                set(r, "apns-topic", "org.example.sealpost.voip");
                *r.body_mut() = Bytes::from(padded(5120));
            }),
        ),
    ];

    let fixture = Fixture::new().await;
    let mut client = fixture.apns().await;
    let token = fixture.provider_token(0);
    let count = cases.len();
    for (index, (status, reason, change)) in cases.into_iter().enumerate() {
        let mut request = push(TOKEN, &token);
        change(&mut request);
        assert_eq!(send(&mut client, request).await, (status, reason.to_owned()), "case {index}");
    }
    let counts = fixture.emulator.counts().apns;
    assert_eq!((counts.total, counts.connections_opened), (count as u64, 1), "one connection did for all");
    assert_eq!(counts.by_reason["PayloadEmpty"], 5);
}

#[tokio::test]
async fn a_token_registered_elsewhere_is_not_for_the_topic() {
    let fixture = Fixture::new().await;
    let mut client = fixture.apns().await;
    let token = fixture.provider_token(0);
    fixture.emulator.register_token("aabb", "org.example.other");
    fixture.emulator.register_token("ccdd", TOPIC);
    let (status, reason) = send(&mut client, push("AABB", &token)).await;
    assert_eq!((status, &*reason), (400, "DeviceTokenNotForTopic"));
    assert_eq!(send(&mut client, push("ccdd", &token)).await.0, 200);
}

#[tokio::test]
async fn provider_tokens_have_an_age() {
    let fixture = Fixture::new().await;
    for (age_s, expected) in [(3500, 200), (3700, 403), (-30, 200), (-300, 403)] {
        let mut client = fixture.apns().await;
        let (status, reason) = send(&mut client, push(TOKEN, &fixture.provider_token(age_s))).await;
        assert_eq!(status, expected, "{age_s}");
        assert!(status == 200 || reason == "ExpiredProviderToken");
    }
    // A token that was good expires on the connection it is known on.
    let mut client = fixture.apns().await;
    let token = fixture.provider_token(0);
    assert_eq!(send(&mut client, push(TOKEN, &token)).await.0, 200);
    fixture.emulator.shift_clock(3_700_000);
    assert_eq!(send(&mut client, push(TOKEN, &token)).await.1, "ExpiredProviderToken");
    assert_eq!(send(&mut client, push(TOKEN, &fixture.provider_token(-3700))).await.0, 200);
}

#[tokio::test]
async fn provider_tokens_are_verified() {
    let fixture = Fixture::new().await;
    let apns = &fixture.manifest().apns;
    let now = crate::client::now_s();
    let other_dir = tempfile::tempdir().unwrap();
    let other_key = other_dir.path().join("key.pem");
    std::fs::write(&other_key, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let bad = [
        provider_token(&other_key, &apns.key_id, &apns.team_id, now),
        provider_token(&apns.key_file, "OTHERKEY01", &apns.team_id, now),
        provider_token(&apns.key_file, &apns.key_id, "OTHERTEAM1", now),
    ];
    for token in bad {
        let mut client = fixture.apns().await;
        assert_eq!(send(&mut client, push(TOKEN, &token)).await, (403, "InvalidProviderToken".to_owned()));
    }
}

#[tokio::test]
async fn base64_may_be_padded_and_the_scheme_in_any_case() {
    let fixture = Fixture::new().await;
    let apns = &fixture.manifest().apns;
    let encode = |json: serde_json::Value| BASE64.encode(json.to_string().as_bytes());
    let input = format!(
        "{}.{}",
        encode(json!({"alg": "ES256", "kid": apns.key_id, "typ": "JWT"})),
        encode(json!({"iss": apns.team_id, "iat": crate::client::now_s()})),
    );
    assert!(input.contains('='), "the sample is padded");
    let key = jsonwebtoken::EncodingKey::from_ec_pem(&std::fs::read(&apns.key_file).unwrap()).unwrap();
    let signature =
        jsonwebtoken::crypto::sign(input.as_bytes(), &key, jsonwebtoken::Algorithm::ES256).unwrap();
    let signature = BASE64.encode(&BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap());
    for scheme in ["bearer", "Bearer", "BEARER"] {
        let mut request = push(TOKEN, "");
        set(&mut request, "authorization", &format!("{scheme} {input}.{signature}"));
        let mut client = fixture.apns().await;
        assert_eq!(send(&mut client, request).await.0, 200, "{scheme}");
    }
}

#[tokio::test]
async fn tokens_that_change_too_often_are_refused() {
    let fixture = Fixture::new().await;
    let mut client = fixture.apns().await;
    let oldest = fixture.provider_token(1300);
    let old = fixture.provider_token(600);
    let new = fixture.provider_token(0);
    assert_eq!(send(&mut client, push(TOKEN, &oldest)).await.0, 200);
    let (status, reason) = send(&mut client, push(TOKEN, &old)).await;
    assert_eq!((status, &*reason), (429, "TooManyProviderTokenUpdates"));
    assert_eq!(send(&mut client, push(TOKEN, &new)).await.0, 200);
    // A request that was under way with the token before.
    assert_eq!(send(&mut client, push(TOKEN, &oldest)).await.0, 200);
    // The same age, signed again.
    assert_eq!(send(&mut client, push(TOKEN, &fixture.provider_token(0))).await.0, 429);
    // A new connection starts anew.
    let mut client = fixture.apns().await;
    assert_eq!(send(&mut client, push(TOKEN, &fixture.provider_token(0))).await.0, 200);
}

#[tokio::test]
async fn a_team_can_be_made_to_share_one_token() {
    let fixture = Fixture::with(|options| options.token_update_scope = TokenUpdateScope::Team).await;
    let shared = fixture.provider_token(0);
    for _ in 0..2 {
        assert_eq!(send(&mut fixture.apns().await, push(TOKEN, &shared)).await.0, 200);
    }
    let own = fixture.provider_token(10);
    assert_eq!(send(&mut fixture.apns().await, push(TOKEN, &own)).await.0, 429);
}

/// 20 minutes between the times of issue of two tokens are enough, a second less is not, on whatever
/// connection.
#[tokio::test]
async fn a_team_may_change_its_token_every_20_minutes() {
    let fixture = Fixture::new().await;
    let scope = json!({"scope": "team"});
    assert_eq!(fixture.control(http::Method::POST, "/token-updates", scope).await.0, 200);
    let (apns, now) = (&fixture.manifest().apns, crate::client::now_s());
    let tokens = [2400, 1201, 1200, 1, 0]
        .map(|age_s| provider_token(&apns.key_file, &apns.key_id, &apns.team_id, now - age_s));
    let mut answers = Vec::new();
    for token in &tokens {
        answers.push(send(&mut fixture.apns().await, push(TOKEN, token)).await);
    }
    let accepted = (200, String::new());
    let too_many = (429, "TooManyProviderTokenUpdates".to_owned());
    assert_eq!(answers, [&accepted, &too_many, &accepted, &too_many, &accepted].map(Clone::clone));
    // The refusal does not count as a change, and the tokens before may still be under way.
    assert_eq!(send(&mut fixture.apns().await, push(TOKEN, &tokens[2])).await, accepted);
    // Told to look at connections alone, a new one may come with what it likes.
    fixture.emulator.set_token_update_scope(TokenUpdateScope::Connection);
    assert_eq!(send(&mut fixture.apns().await, push(TOKEN, &tokens[1])).await, accepted);
}

#[tokio::test]
async fn every_refusal_can_be_chosen() {
    let fixture = Fixture::new().await;
    let mut client = fixture.apns().await;
    let token = fixture.provider_token(0);
    let cases = [
        (403, "BadCertificate"),
        (403, "BadCertificateEnvironment"),
        (403, "ExpiredProviderToken"),
        (403, "Forbidden"),
        (403, "InvalidProviderToken"),
        (403, "MissingProviderToken"),
        (403, "UnrelatedKeyIdInToken"),
        (403, "BadEnvironmentKeyIdInToken"),
        (403, "BadEnvironmentKeyInToken"),
        (400, "BadDeviceToken"),
        (400, "DeviceTokenNotForTopic"),
        (400, "IdleTimeout"),
        (413, "PayloadTooLarge"),
        (429, "TooManyRequests"),
        (429, "TooManyProviderTokenUpdates"),
        (500, "InternalServerError"),
        (503, "ServiceUnavailable"),
        (503, "Shutdown"),
    ];
    for (status, reason) in cases {
        let outcome = json!({"provider": "apns", "status": status, "reason": reason, "count": 1});
        assert_eq!(fixture.control(http::Method::POST, "/outcomes", outcome).await.0, 200);
        let answer = client.send(push(TOKEN, &token)).await.unwrap();
        assert_eq!((answer.status, answer.json), (status, json!({ "reason": reason })));
        assert_eq!(answer.headers["apns-id"], ID);
        assert!(!answer.headers.contains_key("retry-after"));
    }
    // The usual reason of a status, and with it when to come again.
    for (status, reason) in [
        (403, "Forbidden"),
        (429, "TooManyRequests"),
        (500, "InternalServerError"),
        (503, "ServiceUnavailable"),
    ] {
        let outcome = json!({"provider": "apns", "status": status, "retry_after": 30, "count": 1});
        assert_eq!(fixture.control(http::Method::POST, "/outcomes", outcome).await.0, 200);
        let answer = client.send(push(TOKEN, &token)).await.unwrap();
        assert_eq!(answer.refusal(), (status, reason));
        assert_eq!(answer.headers["retry-after"], "30");
    }
    let date = "Fri, 31 Dec 2027 23:59:59 GMT";
    let outcome =
        json!({"provider": "apns", "status": 503, "retry_after": date, "body": "<html>", "count": 1});
    assert_eq!(fixture.control(http::Method::POST, "/outcomes", outcome).await.0, 200);
    let response = crate::client::start(client.sender.clone(), push(TOKEN, &token)).unwrap().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["retry-after"]),
        (503, &date.parse().unwrap())
    );
    assert_eq!(response.headers()["content-type"], "text/html; charset=UTF-8");
    assert_eq!(response.into_body().data().await.unwrap().unwrap(), "<html>");
}

/// A gateway forgets the token in the first case only: the second timestamp is before its registration.
#[tokio::test]
async fn a_410_says_to_the_millisecond_since_when() {
    let fixture = Fixture::new().await;
    let mut client = fixture.apns().await;
    let token = fixture.provider_token(0);
    let registered_ms = u64::try_from(crate::client::now_s()).unwrap() * 1000;
    for (since_ms, reason) in [
        (registered_ms + 1, "Unregistered"),
        (registered_ms - 1, "Unregistered"),
        (registered_ms + 1, "ExpiredToken"),
    ] {
        let outcome = json!({"provider": "apns", "status": 410, "reason": reason, "timestamp_ms": since_ms,
                             "count": 1});
        assert_eq!(fixture.control(http::Method::POST, "/outcomes", outcome).await.0, 200);
        let answer = client.send(push(TOKEN, &token)).await.unwrap();
        assert_eq!((answer.status, answer.json), (410, json!({"reason": reason, "timestamp": since_ms})));
    }
    // Without a moment of its own it is the emulators' present one.
    fixture.emulator.shift_clock(-60_000);
    fixture.emulator.kill_token(Provider::Apns, "dead", None).unwrap();
    let since_ms = client.send(push("dead", &token)).await.unwrap().json["timestamp"].as_u64().unwrap();
    assert!(since_ms < registered_ms && since_ms + 120_000 > registered_ms, "{since_ms}");
}

#[tokio::test]
async fn a_date_is_sent_only_when_told_so_and_follows_the_clock() {
    let fixture = Fixture::new().await;
    let mut client = fixture.apns().await;
    let token = fixture.provider_token(0);
    assert!(!client.send(push(TOKEN, &token)).await.unwrap().headers.contains_key("date"));
    let send_date = json!({"provider": "apns", "send": true});
    assert_eq!(fixture.control(http::Method::POST, "/date", send_date).await.0, 200);
    fixture.emulator.shift_clock(-600_000);
    let answer = client.send(push(TOKEN, &token)).await.unwrap();
    let date = httpdate::parse_http_date(answer.headers["date"].to_str().unwrap()).unwrap();
    let date = date.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let behind = crate::client::now_s() - i64::try_from(date).unwrap();
    assert!((600..620).contains(&behind), "{behind} s behind");
    assert_eq!(answer.refusal(), (403, "ExpiredProviderToken"), "its token is from the future there");
}

#[tokio::test]
async fn a_connection_belongs_to_the_team_that_came_first() {
    let extra = [
        ApnsKey { team_id: "SEALTEAM01".into(), key_id: "SECONDKEY1".into(), topics: vec![TOPIC.into()] },
        ApnsKey { team_id: "OTHERTEAM1".into(), key_id: "OTHERKEY01".into(), topics: vec![TOPIC.into()] },
    ];
    let fixture = Fixture::with(|options| options.apns_keys.extend(extra)).await;
    let dir = fixture.manifest().ca_file.parent().unwrap();
    let now = crate::client::now_s();
    let second = provider_token(&dir.join("apns-key-SECONDKEY1.p8"), "SECONDKEY1", "SEALTEAM01", now);
    let other = provider_token(&dir.join("apns-key-OTHERKEY01.p8"), "OTHERKEY01", "OTHERTEAM1", now);
    for token in [&second, &other] {
        assert_eq!(send(&mut fixture.apns().await, push(TOKEN, token)).await.0, 200);
    }
    let mut client = fixture.apns().await;
    assert_eq!(send(&mut client, push(TOKEN, &fixture.provider_token(0))).await.0, 200);
    assert_eq!(send(&mut client, push(TOKEN, &second)).await.1, "UnrelatedKeyIdInToken");
    assert_eq!(send(&mut client, push(TOKEN, &other)).await.1, "InvalidProviderToken");
}

#[tokio::test]
async fn a_dead_token_is_gone_since_a_moment() {
    let fixture = Fixture::new().await;
    let mut client = fixture.apns().await;
    let token = fixture.provider_token(0);
    fixture.emulator.kill_token(Provider::Apns, "dead", Some(1_700_000_000_123)).unwrap();
    let answer = client.send(push("dead", &token)).await.unwrap();
    assert_eq!(answer.status, 410);
    assert_eq!(answer.json, json!({"reason": "Unregistered", "timestamp": 1_700_000_000_123_u64}));
    assert_eq!(send(&mut client, push("beef", &token)).await.0, 200);
    fixture.emulator.revive_tokens();
    assert_eq!(send(&mut client, push("dead", &token)).await.0, 200);
}
