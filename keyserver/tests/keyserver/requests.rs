//! Signed requests of devices, and bodies that are not what they should be.

use http::Method;
use sealpost_wire::message::Suite;
use serde_json::json;

use crate::client::Call;
use crate::device::TestDevice;
use crate::world::{World, recipient};

#[tokio::test]
async fn a_signed_request_is_let_in_once() {
    let world = World::new().await;
    let device = world.pending_device().await;
    let call = device.sign(&world.http, device.state_call(0), world.now());
    assert_eq!(world.http.send(call.clone()).await.status, 200);
    world.http.send(call.clone()).await.expect_problem("replayed");
    world.pass(60);
    world.http.send(call.clone()).await.expect_problem("replayed");
    world.pass(1);
    world.http.send(call).await.expect_problem("clock_skew");
}

#[tokio::test]
async fn a_request_from_before_a_restart_is_not_let_in_after_it() {
    let mut world = World::new().await;
    let device = world.pending_device().await;
    let base = world.http.base().to_owned();
    let call = device.sign(&world.http, device.state_call(0), world.now());
    assert_eq!(world.http.send(call.clone()).await.status, 200);
    world.restart_at(&base).await;
    let answer = world.http.send(call).await;
    answer.expect_problem("clock_skew");
    assert_eq!(answer.value()["server_time"], world.now().0);
    assert!(device.state(&world).await.admission.is_none(), "signed anew, it is good");
}

#[tokio::test]
async fn a_clock_that_is_off_is_told_the_time() {
    let world = World::new().await;
    let device = world.pending_device().await;
    for created in [world.now().minus(61), world.now().plus(61)] {
        let answer = world.http.send(device.sign(&world.http, device.state_call(0), created)).await;
        answer.expect_problem("clock_skew");
        assert_eq!(answer.value()["server_time"], world.now().0);
    }
    world.pass(100);
    for created in [world.now().minus(60), world.now().plus(60)] {
        let answer = world.http.send(device.sign(&world.http, device.state_call(0), created)).await;
        assert_eq!(answer.status, 200);
    }
}

#[tokio::test]
async fn what_was_not_signed_by_the_device_is_refused() {
    let world = World::new().await;
    let (device, other) = (world.pending_device().await, world.pending_device().await);
    let (http, now) = (&world.http, world.now());
    http.send(device.state_call(0)).await.expect_problem("missing_credentials");

    let stranger = TestDevice::new(&world.tenant.id, &device.secret, now);
    let impostor = TestDevice { id: device.id, ..stranger };
    http.send(impostor.sign(http, device.state_call(0), now)).await.expect_problem("invalid_credentials");
    let unknown = TestDevice::new(&world.tenant.id, &device.secret, now);
    http.send(unknown.sign(http, unknown.state_call(0), now)).await.expect_problem("invalid_credentials");
    let foreign = TestDevice {
        tenant: world.other.id.clone(),
        ..TestDevice::new(&world.tenant.id, &device.secret, now)
    };
    http.send(foreign.sign(http, foreign.state_call(0), now)).await.expect_problem("invalid_credentials");
    let nowhere = TestDevice { tenant: "nowhere".parse().unwrap(), ..foreign };
    http.send(nowhere.sign(http, nowhere.state_call(0), now)).await.expect_problem("invalid_credentials");
    // Known and well signed, but about another device.
    http.send(other.sign(http, device.state_call(0), now)).await.expect_problem("not_found");

    let mut moved = device.sign(http, device.state_call(0), now);
    moved.path = device.state_call(1).path;
    http.send(moved).await.expect_problem("invalid_credentials");
    let elsewhere = crate::client::Http::new("http://relay.example");
    http.send(device.sign(&elsewhere, device.state_call(0), now)).await.expect_problem("invalid_credentials");

    let path = format!("/v1/devices/{}/prekeys", device.id);
    let upload = device.batch(Suite::Classical, 1, now);
    let mut altered = device.sign(http, Call::json(Method::PUT, &path, &upload), now);
    altered.body.push(b' ');
    http.send(altered).await.expect_problem("invalid_credentials");
    let doubled = device.sign(http, Call::json(Method::PUT, &path, &upload), now);
    let digest = doubled.headers.iter().find(|(name, _)| *name == "content-digest").unwrap().1.clone();
    http.send(doubled.header("content-digest", digest)).await.expect_problem("invalid_credentials");
    let mut stripped = device.sign(http, Call::json(Method::PUT, &path, &upload), now);
    stripped.headers.retain(|(name, _)| *name != "signature");
    http.send(stripped).await.expect_problem("missing_credentials");
    assert_eq!(device.put_prekeys(&world, &upload).await.status, 200);
}

#[tokio::test]
async fn a_device_may_not_ask_without_end() {
    let world = World::new().await;
    let device = world.pending_device().await;
    let mut refused = None;
    for _ in 0..=200 {
        let answer = device.send(&world, device.state_call(0)).await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("a bound");
    refused.expect_problem("rate_limited");
    assert!(refused.headers.contains_key("retry-after"));
    world.pass(10);
    assert_eq!(device.send(&world, device.state_call(0)).await.status, 200, "it may go on");
}

#[tokio::test]
async fn malformed_bodies_and_parameters_are_refused() {
    let world = World::new().await;
    let recipient = recipient();
    let (sender, enroller) = (&world.tenant.sender, &world.tenant.enroller);
    let path = format!("/v1/recipients/{recipient}/look-up");
    let raw = async |body: &[u8]| {
        let call = Call::new(Method::POST, &path).raw_json(body.to_vec());
        world.call(sender, call).await
    };
    for (name, body) in [
        ("nothing", &b""[..]),
        ("half", br#"{"category":"lab","one_time":tr"#),
        ("more", br#"{"category":"lab","one_time":true} x"#),
        ("an unknown field", br#"{"category":"lab","one_time":true,"all":true}"#),
        ("a field twice", br#"{"category":"lab","category":"lab","one_time":true}"#),
        ("a missing field", br#"{"category":"lab"}"#),
        ("another type", br#"{"category":1,"one_time":true}"#),
        ("an array", b"[]"),
        ("no UTF-8", b"\xff\xfe"),
    ] {
        assert_eq!(raw(body).await.problem().0, "malformed_body", "{name}");
    }
    let deep = [b"[".repeat(10_000), b"]".repeat(10_000)].concat();
    raw(&deep[..16_000]).await.expect_problem("malformed_body");
    raw(&vec![b' '; 17_000]).await.expect_problem("body_too_large");
    let long = json!({ "category": "x".repeat(65), "one_time": true });
    world.post(sender, &path, &long).await.expect_detail("invalid_value", "category");
    let text = Call::json(Method::POST, &path, &json!({ "category": "lab", "one_time": true }));
    let text = Call { headers: Vec::new(), ..text }.header("content-type", "text/plain");
    world.call(sender, text).await.expect_problem("unsupported_media_type");

    for (method, path, code) in [
        (Method::GET, "/v1/recipients/xyz/devices".to_owned(), "malformed_parameter"),
        (
            Method::GET,
            format!("/v1/recipients/{}/devices", recipient.to_string().to_uppercase()),
            "malformed_parameter",
        ),
        (Method::GET, format!("/v1/tickets/{recipient}?wait=soon"), "malformed_parameter"),
        (Method::GET, format!("/v1/tickets/{recipient}?weight=1"), "malformed_parameter"),
        (Method::GET, format!("/v1/tickets/{recipient}?wait=-1"), "malformed_parameter"),
        (Method::DELETE, format!("/v1/recipients/{recipient}/devices"), "method_not_allowed"),
        (Method::GET, "/v1/nothing".to_owned(), "not_found"),
        (Method::GET, "/".to_owned(), "not_found"),
    ] {
        let answer = world.call(enroller, Call::new(method, &path)).await;
        assert_eq!(answer.problem().0, code, "{path}");
    }
}

#[tokio::test]
async fn large_bodies_are_cut_off_before_they_are_read() {
    let world = World::new().await;
    let path = format!("/v1/recipients/{}/devices", recipient());
    let body = vec![b'x'; 400_000];
    let call = Call::new(Method::PUT, &path).raw_json(body.clone());
    world.call(&world.tenant.enroller, call).await.expect_problem("body_too_large");
    let device = world.pending_device().await;
    let call = Call::new(Method::PUT, &format!("/v1/devices/{}/prekeys", device.id)).raw_json(body);
    device.send(&world, call).await.expect_problem("body_too_large");
    // The largest batch that the formats allow does fit.
    let hybrid =
        TestDevice::with_suites(&world.tenant.id, &world.ticket().await, world.now(), vec![Suite::Hybrid]);
    assert_eq!(hybrid.claim(&world.http).await.status, 202);
    let upload = hybrid.batch(Suite::Hybrid, 127, world.now());
    assert_eq!(hybrid.put_prekeys(&world, &upload).await.status, 200);
}
