//! `PUT` and `GET /v1/messages/{id}`, signed by a device.

use std::time::Duration;

use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use sealpost_relay::store::Store;
use sealpost_service::audit;
use sealpost_wire::api::relay::{MessageStatus, Submission};
use sealpost_wire::certificate::Role;
use sealpost_wire::clock::{Clock as _, UnixTime};
use sealpost_wire::delivery::DeliveryState;
use sealpost_wire::id::TransportId;
use sealpost_wire::key::{P256SigningKey, RequestSigningKey};
use sealpost_wire::payload::Priority;
use sealpost_wire::problem::Problem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::{OPENED, Phone, new_id, submission};
use crate::world::World;

fn for_one(world: &World, phone: &Phone, content: &str) -> Submission {
    submission(&[phone.id], content, Priority::Normal, world.now().plus(600))
}

fn path_of(id: TransportId) -> String {
    format!("/v1/messages/{id}")
}

/// The head of a request as it travels, which announces a body of `length` bytes and asks whether to send it.
fn head_of(request: &Request<Full<bytes::Bytes>>, length: usize) -> Vec<u8> {
    let mut head =
        format!("PUT {} HTTP/1.1\r\nhost: relay\r\nexpect: 100-continue\r\n", request.uri().path());
    for (name, value) in request.headers() {
        head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
    }
    head.push_str(&format!("content-length: {length}\r\n\r\n"));
    head.into_bytes()
}

/// Sends the head of a request, and gives the first status line.
async fn announce(world: &World, head: &[u8]) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(world.http().url.trim_start_matches("http://")).await.unwrap();
    stream.write_all(head).await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    (stream, String::from_utf8(answer).unwrap())
}

fn put(phone: &Phone, id: TransportId, one: &Submission) -> Request<Full<bytes::Bytes>> {
    phone.signed(Method::PUT, &path_of(id), serde_json::to_vec(one).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_submits_to_another_and_follows_what_becomes_of_it() {
    let world = World::start().await;
    let (nurse, doctor, sender) = (world.phone().await, world.phone().await, world.sender().await);
    let (id, one) = (new_id(), for_one(&world, &doctor, "x"));
    let first = nurse.submit(id, &one).await.expect(StatusCode::ACCEPTED);
    let again = nurse.submit(id, &one).await.expect(StatusCode::ACCEPTED);
    assert_eq!(again.body, first.body, "signed anew, the same submission");
    world.emulator.next_push(&doctor.push_token, 0).await;

    let waiting = doctor.boxes().await;
    assert_eq!((waiting.len(), waiting[0].id), (1, id));
    assert_eq!(&*waiting[0].sender.text(), format!("device:{}", nurse.id));
    let opened = doctor.receipt_for(&waiting[0], OPENED);
    doctor.acknowledge(vec![opened.clone()]).await;
    let delivery = nurse.message(id).await.deliveries.remove(0);
    assert_eq!((delivery.device, delivery.state), (doctor.id, DeliveryState::Opened));
    assert_eq!(delivery.receipts, [sealpost_wire::base64url::Base64Url(opened)], "for the author to verify");

    for other in [&doctor, &world.phone().await] {
        assert_eq!(other.try_message(id).await.problem(), "not_found");
    }
    assert_eq!(sender.call(Method::GET, &path_of(id), None).await.problem(), "not_found");
    let unchanged = for_one(&world, &doctor, "y");
    assert_eq!(nurse.submit(id, &unchanged).await.problem(), "conflict");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_devices_submit_is_in_the_audit_and_not_in_the_senders_stream() {
    let world = World::start().await;
    let (nurse, doctor, sender) = (world.phone().await, world.phone().await, world.sender().await);
    let mine = world.send(&sender, &[&doctor]).await;
    let theirs = new_id();
    nurse.submit(theirs, &for_one(&world, &doctor, "x")).await.expect(StatusCode::ACCEPTED);
    for waiting in doctor.boxes().await {
        doctor.acknowledge(vec![doctor.receipt_for(&waiting, OPENED)]).await;
    }
    let events = sender.events_until(|event| event.to == DeliveryState::Opened).await;
    assert!(
        events.iter().all(|event| event.message == mine && event.sender.as_str() == "lab"),
        "{events:#?}"
    );
    let store = world.relay().store();
    let audit = Store::shared_keyspaces().audit;
    let rows = audit::rows(store.engine(), audit, &world.mary.id, 0, 1000).unwrap();
    let accepted = rows.into_iter().filter(|(_, row)| row.act == audit::Act::MessageAccepted);
    let accepted: Vec<_> = accepted.map(|(_, row)| (row.objects["message"].clone(), row.who)).collect();
    let expected =
        [(mine.to_string(), "client:lab".to_owned()), (theirs.to_string(), format!("device:{}", nurse.id))];
    assert_eq!(accepted, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_with_a_devices_name_and_the_device_are_two_authors() {
    let world = World::start().await;
    let (nurse, doctor) = (world.phone().await, world.phone().await);
    let namesake = world.client(&world.mary, &nurse.id.to_string(), &[Role::Sender]).await;
    let (id, by_nurse, by_namesake) =
        (new_id(), for_one(&world, &doctor, "a"), for_one(&world, &doctor, "b"));
    nurse.submit(id, &by_nurse).await.expect(StatusCode::ACCEPTED);
    namesake.accepted(id, &by_namesake).await;
    let boxes = doctor.boxes().await;
    let senders: Vec<_> = boxes.iter().map(|one| one.sender.to_string()).collect();
    assert_eq!(senders, [format!("device:{}", nurse.id), nurse.id.to_string()]);
    doctor.acknowledge(vec![doctor.receipt_for(&boxes[1], OPENED)]).await;
    assert_eq!(namesake.message(id).await.deliveries[0].state, DeliveryState::Opened);
    assert_ne!(nurse.message(id).await.deliveries[0].state, DeliveryState::Opened);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_not_submit_is_refused_by_name_and_nothing_is_stored() {
    let world = World::start().await;
    let (nurse, doctor, sender) = (world.phone().await, world.quiet_phone().await, world.sender().await);
    let lost = world.phone().await;
    let office = world.client(&world.mary, "office", &[Role::Revoker]).await;
    office.put_status(world.mary.status(1, world.now(), &[], &[lost.id])).await.expect(StatusCode::OK);
    let used = put(&nurse, new_id(), &for_one(&world, &doctor, "used"));
    world.http().send(used.clone()).await.expect(StatusCode::ACCEPTED);

    let engine = world.relay().store().engine().clone();
    let before = engine.logical_digest().unwrap();
    let (id, one) = (new_id(), for_one(&world, &doctor, "x"));
    let bytes = serde_json::to_vec(&one).unwrap();
    let changed = |change: &dyn Fn(&mut Phone)| {
        let mut phone = nurse.clone();
        change(&mut phone);
        put(&phone, id, &one)
    };
    let at = |seconds: i64| {
        let clock = world.clock.clone();
        let now = move || UnixTime(clock.now().0.saturating_add_signed(seconds));
        changed(&|phone: &mut Phone| phone.now = std::sync::Arc::new(now.clone()))
    };
    let with = |change: &dyn Fn(&mut Request<Full<bytes::Bytes>>)| {
        let mut request = put(&nurse, id, &one);
        change(&mut request);
        request
    };
    let stranger = || RequestSigningKey::P256(P256SigningKey::generate(&mut rng()));
    let unknown = world.new_phone(&world.mary);
    let refused = [
        ("a revoked device", put(&lost, id, &one), "revoked"),
        ("an unknown device", put(&unknown, id, &one), "invalid_credentials"),
        ("the same request again", used, "replayed"),
        ("an old signature", at(-61), "clock_skew"),
        ("a signature of tomorrow", at(86_400), "clock_skew"),
        ("another key", changed(&|phone| phone.request_key = stranger()), "invalid_credentials"),
        ("another tenant", changed(&|phone| phone.tenant = world.john.id.clone()), "invalid_credentials"),
        (
            "another relay",
            changed(&|phone| phone.authority = "other.example".to_owned()),
            "invalid_credentials",
        ),
        (
            "another id",
            with(&|request| *request.uri_mut() = at_uri(&world, &path_of(new_id()))),
            "invalid_credentials",
        ),
        (
            "another body",
            with(&|request| *request.body_mut() = Full::from(b"{}".to_vec())),
            "invalid_credentials",
        ),
        (
            "a longer body",
            with(&|request| {
                *request.body_mut() = Full::from([bytes.as_slice(), b" "].concat());
            }),
            "invalid_credentials",
        ),
        (
            "no signature",
            with(&|request| drop(request.headers_mut().remove("signature"))),
            "missing_credentials",
        ),
        (
            "no digest",
            with(&|request| drop(request.headers_mut().remove("content-digest"))),
            "missing_credentials",
        ),
        (
            "a token as well",
            with(&|request| {
                request.headers_mut().insert("authorization", sender.authorization());
            }),
            "invalid_credentials",
        ),
        (
            "nonsense as well",
            with(&|request| {
                request.headers_mut().insert("authorization", HeaderValue::from_static("Basic eDp5"));
            }),
            "invalid_credentials",
        ),
        (
            "another media type",
            with(&|request| {
                request.headers_mut().insert("content-type", HeaderValue::from_static("text/plain"));
            }),
            "unsupported_media_type",
        ),
    ];
    for (name, request, code) in refused {
        let answer = world.http().send(request).await;
        assert_eq!(answer.problem(), code, "{name}");
        if code == "clock_skew" {
            assert_eq!(answer.json::<Problem>().server_time, Some(world.now().0), "{name}");
        }
        assert!(engine.logical_digest().unwrap() == before, "{name}: something was stored");
    }
    assert_eq!(nurse.try_message(id).await.problem(), "not_found");
    assert_eq!(lost.try_message(id).await.problem(), "revoked");
    assert_eq!(doctor.boxes().await.len(), 1);
    nurse.submit(id, &one).await.expect(StatusCode::ACCEPTED);
}

/// A stranger is refused by its headers alone: its body, however large, is not asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_body_is_not_asked_for_and_that_of_a_device_revoked_meanwhile_is_refused() {
    let world = World::start().await;
    let (nurse, doctor) = (world.phone().await, world.phone().await);
    let mut stranger = nurse.clone();
    stranger.request_key = RequestSigningKey::P256(P256SigningKey::generate(&mut rng()));
    let one = for_one(&world, &doctor, "x");
    let (_, answer) = announce(&world, &head_of(&put(&stranger, new_id(), &one), 5_000_000)).await;
    assert_eq!(answer, "HTTP/1.1 401");

    let body = serde_json::to_vec(&one).unwrap();
    let (mut stream, answer) = announce(&world, &head_of(&put(&nurse, new_id(), &one), body.len())).await;
    assert_eq!(answer, "HTTP/1.1 100");
    let office = world.client(&world.mary, "office", &[Role::Revoker]).await;
    office.put_status(world.mary.status(1, world.now(), &[], &[nurse.id])).await.expect(StatusCode::OK);
    stream.write_all(&body).await.unwrap();
    let mut answer = vec![0; " Continue\r\n\r\nHTTP/1.1 403".len()];
    stream.read_exact(&mut answer).await.unwrap();
    assert!(answer.ends_with(b"HTTP/1.1 403"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(doctor.boxes().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn boxes_go_to_devices_of_the_same_tenant_alone() {
    let world = World::start().await;
    let (nurse, doctor) = (world.phone().await, world.phone().await);
    let foreign = world.new_phone(&world.john);
    let admission = world.admission(&world.john, &foreign);
    foreign.register(admission, None).await.expect(StatusCode::CREATED);
    let devices = [doctor.id, foreign.id];
    let one = submission(&devices, "x", Priority::Normal, world.now().plus(600));
    let answer: MessageStatus = nurse.submit(new_id(), &one).await.expect(StatusCode::ACCEPTED).json();
    for delivery in answer.deliveries {
        let expected = if delivery.device == doctor.id {
            (DeliveryState::Queued, None)
        } else {
            (DeliveryState::Failed, Some("unknown_device"))
        };
        assert_eq!((delivery.state, delivery.reason.as_deref()), expected);
    }
    assert_eq!((doctor.boxes().await.len(), foreign.boxes().await.len()), (1, 0));

    // Under the same id, in another hospital, it is another message.
    let id = new_id();
    nurse.submit(id, &for_one(&world, &doctor, "x")).await.expect(StatusCode::ACCEPTED);
    assert_eq!(foreign.try_message(id).await.problem(), "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_submits_within_its_allowance_and_by_a_status_that_is_fresh() {
    let lines =
        "rates = { device = { requests = 3, seconds = 3600 } }\nlimits = { status_age_seconds_max = 60 }";
    let world = World::start_with(lines).await;
    let (nurse, doctor) = (world.phone().await, world.phone().await);
    // Its registration was the first.
    for _ in 0..2 {
        nurse.submit(new_id(), &for_one(&world, &doctor, "x")).await.expect(StatusCode::ACCEPTED);
    }
    let refused = nurse.submit(new_id(), &for_one(&world, &doctor, "x")).await;
    assert_eq!(refused.problem(), "rate_limited");
    assert!(refused.retry_after.is_some());
    assert_eq!(doctor.boxes().await.len(), 2);

    let office = world.client(&world.mary, "office", &[Role::Revoker]).await;
    office.put_status(world.mary.status(1, world.now(), &[], &[])).await.expect(StatusCode::OK);
    world.pass(Duration::from_secs(61));
    let late = doctor.submit(new_id(), &for_one(&world, &nurse, "x")).await;
    assert_eq!(late.problem(), "status_stale");
}

/// Slow uploads of devices hold their own share of the room for submissions, and no sender's.
#[tokio::test(flavor = "multi_thread")]
async fn devices_leave_room_for_what_senders_submit() {
    let world = World::start_with("limits = { submission_bytes_in_flight_max = 12582912 }").await;
    let (nurse, doctor, sender) = (world.phone().await, world.phone().await, world.sender().await);
    let one = for_one(&world, &doctor, "x");
    let large = || head_of(&put(&nurse, new_id(), &one), 5_000_000);
    let (held, first) = announce(&world, &large()).await;
    assert_eq!(first, "HTTP/1.1 100");
    let (_, second) = announce(&world, &large()).await;
    assert_eq!(second, "HTTP/1.1 503", "the share of devices is taken");
    sender.accepted(new_id(), &one).await;
    drop(held);
    while announce(&world, &large()).await.1 != "HTTP/1.1 100" {}
}

fn at_uri(world: &World, path: &str) -> http::Uri {
    format!("{}{path}", world.http().url).parse().unwrap()
}

fn rng() -> sealpost_relay::SystemRng {
    rand_core::UnwrapErr(getrandom::SysRng)
}
