//! `GET /v1/events` as server-sent events, read as a browser's `EventSource` reads them.

use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sealpost_wire::api::relay::{Event, EventPage};
use sealpost_wire::certificate::Role;
use sealpost_wire::payload::Priority;
use tokio::net::TcpStream;

use crate::client::{ApiClient, Sender, new_id, submission};
use crate::world::World;

/// What a line, or the lines up to an empty one, say (WHATWG HTML, section 9.2.6).
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Event { id: u64, event: Box<Event> },
    Retry(u64),
    Nothing,
}

/// A reader of a stream.
struct Reader {
    body: Incoming,
    text: String,
}

impl Reader {
    async fn open(sender: &Sender, path: &str, last: Option<&str>) -> Self {
        let response = sender.stream(path, last).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let mut reader = Self { body: response.into_body(), text: String::new() };
        assert_eq!(reader.next().await, Some(Said::Retry(2000)));
        reader
    }

    /// What comes next; nothing at the end of the stream.
    async fn next(&mut self) -> Option<Said> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let said = said(block);
                self.text = rest.to_owned();
                return Some(said);
            }
            let frame = self.body.frame().await?.ok()?;
            self.text.push_str(std::str::from_utf8(frame.data_ref()?).unwrap());
        }
    }

    /// The next event, whatever signs of life come before it.
    async fn event(&mut self) -> (u64, Event) {
        loop {
            match self.next().await.expect("the stream goes on") {
                Said::Event { id, event } => return (id, *event),
                Said::Retry(_) | Said::Nothing => {}
            }
        }
    }

    /// Reads what there is until the stream ends.
    async fn ended(mut self) {
        while self.next().await.is_some() {}
    }
}

fn said(block: &str) -> Said {
    let (mut id, mut data, mut retry) = (None, String::new(), None);
    for line in block.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => id = Some(value.parse().unwrap()),
            "data" => data.push_str(value),
            "retry" => retry = Some(value.parse().unwrap()),
            "" => {}
            other => panic!("the field {other:?}"),
        }
    }
    match (id, retry) {
        (Some(id), None) => Said::Event { id, event: serde_json::from_str(&data).unwrap() },
        (None, Some(retry)) => Said::Retry(retry),
        (None, None) => Said::Nothing,
        both => panic!("{both:?}"),
    }
}

/// A relay whose streams show every second that they are there.
async fn world() -> World {
    World::start_with("limits = { events_heartbeat_seconds = 1 }").await
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_as_they_happen_and_go_on_behind_the_last_one_that_was_read() {
    let world = world().await;
    let (sender, phone) = (world.sender().await, world.phone().await);
    let mut reader = Reader::open(&sender, "/v1/events", None).await;
    let message = world.send(&sender, &[&phone]).await;
    let mut streamed = Vec::new();
    while streamed.len() < 2 {
        let (id, event) = reader.event().await;
        assert_eq!((event.id, event.message), (id, message));
        streamed.push(event);
    }
    assert_eq!(sender.events(0, 0).await.events[..2], streamed[..], "as in the JSON answer");
    drop(reader);

    let mut again = Reader::open(&sender, "/v1/events?after=0", Some("1")).await;
    assert_eq!(again.event().await.1, streamed[1], "the header counts, not the query");
    let mut behind = Reader::open(&sender, "/v1/events?after=1", None).await;
    assert_eq!(behind.event().await.1, streamed[1]);

    // And a page alike.
    let page: EventPage = sender.events_behind("1").await.expect(StatusCode::OK).json();
    assert_eq!(page.events[0], streamed[1]);
    assert_eq!(sender.events_behind("-1").await.problem(), "malformed_parameter");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_shows_that_it_is_there_and_ends_with_its_token() {
    let world = world().await;
    let sender = world.sender().await;
    let mut reader = Reader::open(&sender, "/v1/events", None).await;
    assert_eq!(reader.next().await, Some(Said::Nothing));
    world.clock.advance(Duration::from_secs(301));
    reader.ended().await;
    assert_eq!(sender.call(Method::GET, "/v1/events", None).await.problem(), "invalid_credentials");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_its_reader_is_revoked() {
    let world = world().await;
    let key = world.mary.key("lab", &[Role::Sender], world.now());
    let sender = ApiClient::with_assertion(world.http(), &world.mary.assertion(&key, world.now())).await;
    let reader = Reader::open(&sender, "/v1/events", None).await;
    let office = world.client(&world.mary, "office", &[Role::Revoker]).await;
    office.put_status(world.mary.status(1, world.now(), &[key.id()], &[])).await.expect(StatusCode::OK);
    reader.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_the_relay_drains() {
    let mut world = World::start().await;
    let sender = world.sender().await;
    let reader = Reader::open(&sender, "/v1/events", None).await;
    tokio::join!(world.stop_relay(), reader.ended());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_refused_like_a_page() {
    let world = World::start().await;
    let sender = world.sender().await;
    for last in ["x", "-1", "1.5", ""] {
        assert_eq!(sender.stream("/v1/events", Some(last)).await.status(), StatusCode::BAD_REQUEST, "{last}");
    }
    let portal = world.client(&world.mary, "portal", &[Role::Enroller]).await;
    assert_eq!(portal.stream("/v1/events", None).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(sender.stream("/v1/events?beyond=1", None).await.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_has_so_many_streams_and_no_more() {
    let world = World::start_with("limits = { event_streams_per_tenant_max = 1 }").await;
    let sender = world.sender().await;
    let reader = Reader::open(&sender, "/v1/events", None).await;
    let refused = sender.stream("/v1/events", None).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers().contains_key("retry-after"));
    let stranger = world.client(&world.john, "lab", &[Role::Sender]).await;
    Reader::open(&stranger, "/v1/events", None).await;
    drop(reader);
    // Its place is free once the relay has seen that nobody reads.
    while sender.stream("/v1/events", None).await.status() == StatusCode::TOO_MANY_REQUESTS {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read_is_let_go() {
    let world = World::start_with("limits = { events_reader_seconds_max = 1 }").await;
    let sender = world.sender().await;
    let mut phones = Vec::new();
    for _ in 0..16 {
        phones.push(world.phone().await.id);
    }
    for _ in 0..40 {
        let one = submission(&phones, "x", Priority::Bulk, world.now().plus(600));
        sender.accepted(new_id(), &one).await;
    }
    // A client that takes 1000 bytes and no more, and is there all the time.
    let stream = TokioIo::new(TcpStream::connect(world.relay().address()).await.unwrap());
    let mut client = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut stalled, connection) = client.initial_stream_window_size(1000).handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let answer = stalled.send_request(sender.stream_request("/v1/events", None)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    for open in [1, 0] {
        let shown = format!("sealpost_relay_event_streams {open}");
        while !world.metrics.render().lines().any(|line| line == shown) {
            tokio::task::yield_now().await;
        }
    }
    assert!(!connection.is_finished());
    assert_eq!(Reader::open(&sender, "/v1/events", None).await.event().await.0, 1, "others go on");
}
