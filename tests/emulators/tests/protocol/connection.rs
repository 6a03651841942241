//! What happens to connections: stream limits, GOAWAY, silence, cuts, restarts.

use std::time::Duration;

use h2::Reason;
use sealpost_emulators::{ApnsKey, Emulator, Options, Outcome, Provider};
use tokio::time::timeout;

use crate::apns::push;
use crate::client::{Client, Fixture, receive, start, tls};

/// Long enough for anything that happens at all.
const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn one_stream_until_a_token_was_good_then_many() {
    let fixture = Fixture::with(|options| options.apns_max_streams = 700).await;
    let mut client = fixture.apns().await;
    let token = fixture.provider_token(0);
    let refused = client.send(push("aa", "bad")).await.unwrap();
    assert_eq!(refused.status, 403);
    assert_eq!(client.sender.current_max_send_streams(), 1);
    assert_eq!(client.send(push("aa", &token)).await.unwrap().status, 200);
    // The new limit is on its way with the answer or before it.
    timeout(SOON, async {
        while client.sender.current_max_send_streams() != 700 {
            assert_eq!(client.send(push("aa", &token)).await.unwrap().status, 200);
        }
    })
    .await
    .unwrap();
    let streams: Vec<_> =
        (0..500).map(|_| start(client.sender.clone(), push("aa", &token)).unwrap()).collect();
    for stream in streams {
        assert_eq!(receive(stream).await.unwrap().status, 200);
    }
    assert_eq!(fixture.emulator.counts().apns.refused_streams, 0);
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_and_not_processed() {
    let fixture = Fixture::new().await;
    let token = fixture.provider_token(0);
    // A client that does not wait for the server's SETTINGS.
    let mut builder = h2::client::Builder::new();
    builder.initial_max_send_streams(10);
    let mut client = Client::connect_with(fixture.emulator.apns_addr(), fixture.manifest(), builder).await;
    // The first stream stays open, as its body is not there yet.
    let (head, body) = push("aa", &token).into_parts();
    let (first, mut first_body) =
        client.sender.send_request(http::Request::from_parts(head, ()), false).unwrap();
    let second = start(client.sender.clone(), push("bb", &token)).unwrap();
    let error = timeout(SOON, receive(second)).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::REFUSED_STREAM));
    first_body.send_data(body, true).unwrap();
    assert_eq!(receive(first).await.unwrap().status, 200);
    let counts = fixture.emulator.counts().apns;
    assert_eq!((counts.total, counts.refused_streams), (1, 1));
}

#[tokio::test]
async fn a_body_may_come_in_pieces() {
    let fixture = Fixture::new().await;
    let token = fixture.provider_token(0);
    let mut client = fixture.apns().await;
    let (head, body) = push("aa", &token).into_parts();
    let (response, mut stream) =
        client.sender.send_request(http::Request::from_parts(head, ()), false).unwrap();
    for byte in &body[..] {
        stream.send_data(bytes::Bytes::copy_from_slice(&[*byte]), false).unwrap();
    }
    stream.send_data(bytes::Bytes::new(), true).unwrap();
    assert_eq!(receive(response).await.unwrap().status, 200);
    assert_eq!(fixture.emulator.pushes(0)[0].body, body);
}

#[tokio::test]
async fn goaway_serves_what_is_in_flight_and_closes() {
    let fixture = Fixture::new().await;
    let mut client = fixture.apns().await;
    let token = fixture.provider_token(0);
    assert_eq!(client.send(push("aa", &token)).await.unwrap().status, 200);
    let slow = Outcome { delay_ms: Some(300), ..Outcome::new(Provider::Apns, 200) };
    fixture.emulator.set_outcome(slow).unwrap();
    let in_flight = start(client.sender.clone(), push("bb", &token)).unwrap();
    fixture.emulator.wait_for_count(2).await;
    assert_eq!(fixture.emulator.goaway(Provider::Fcm, None), 0);
    assert_eq!(fixture.emulator.goaway(Provider::Apns, None), 1);
    assert_eq!(receive(in_flight).await.unwrap().status, 200);
    timeout(SOON, client.ended).await.unwrap().unwrap().unwrap();
    assert!(client.sender.ready().await.is_err(), "the connection takes no more requests");
}

#[tokio::test]
async fn an_unanswered_request_stays_open_and_harms_no_other() {
    let fixture = Fixture::new().await;
    let mut client = fixture.apns().await;
    let token = fixture.provider_token(0);
    assert_eq!(client.send(push("aa", &token)).await.unwrap().status, 200);
    let silence =
        Outcome { token: Some("dead".into()), no_answer: true, ..Outcome::new(Provider::Apns, 200) };
    fixture.emulator.set_outcome(silence).unwrap();
    let unanswered = start(client.sender.clone(), push("dead", &token)).unwrap();
    fixture.emulator.wait_for_count(2).await;
    let mut unanswered = std::pin::pin!(receive(unanswered));
    for _ in 0..20 {
        assert_eq!(client.send(push("aa", &token)).await.unwrap().status, 200);
    }
    assert!(timeout(Duration::from_millis(50), unanswered.as_mut()).await.is_err());
    let recorded = fixture.emulator.pushes(1);
    assert_eq!((recorded[0].status, recorded[0].reason.as_deref()), (None, Some("no_answer")));
}

#[tokio::test]
async fn a_cut_connection_says_nothing() {
    let fixture = Fixture::new().await;
    let mut client = fixture.apns().await;
    let token = fixture.provider_token(0);
    assert_eq!(client.send(push("aa", &token)).await.unwrap().status, 200);
    let cut = Outcome { cut_connection: true, count: Some(1), ..Outcome::new(Provider::Apns, 200) };
    fixture.emulator.set_outcome(cut).unwrap();
    let error = timeout(SOON, client.send(push("aa", &token))).await.unwrap().unwrap_err();
    assert!(error.is_io() && !error.is_go_away(), "{error:?}");
    assert_eq!(fixture.emulator.counts().apns.by_reason["cut_connection"], 1);
    assert_eq!(fixture.apns().await.send(push("aa", &token)).await.unwrap().status, 200);
}

#[tokio::test]
async fn apns_speaks_http_2_only_and_under_its_own_name() {
    let fixture = Fixture::new().await;
    let refused = tls(fixture.emulator.apns_addr(), fixture.manifest(), &[b"http/1.1"]).await;
    assert!(refused.is_err(), "no protocol in common");
    // Without any offer HTTP/2 is understood.
    let silent = tls(fixture.emulator.apns_addr(), fixture.manifest(), &[]).await.unwrap();
    let (sender, connection) = h2::client::handshake(silent).await.unwrap();
    tokio::spawn(connection);
    let request = start(sender.ready().await.unwrap(), push("aa", &fixture.provider_token(0))).unwrap();
    assert_eq!(receive(request).await.unwrap().status, 200);
}

#[tokio::test]
async fn stopping_ends_connections_and_frees_the_ports() {
    let fixture = Fixture::new().await;
    let mut client = fixture.apns().await;
    let token = fixture.provider_token(0);
    assert_eq!(client.send(push("aa", &token)).await.unwrap().status, 200);
    let address = fixture.emulator.apns_addr();
    timeout(SOON, fixture.emulator.stop()).await.unwrap();
    timeout(SOON, client.ended).await.unwrap().unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_restart_in_the_same_folder_keeps_trust_and_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let first = Emulator::start(Options::new(dir.path())).await.unwrap();
    let manifest = first.manifest().clone();
    let files = ["ca.pem", "apns-key.p8"].map(|name| std::fs::read(dir.path().join(name)).unwrap());
    let account = std::fs::read(dir.path().join("fcm-service-account.json")).unwrap();
    first.stop().await;
    let options =
        Options { apns_port: manifest.apns.port, fcm_port: manifest.fcm.port, ..Options::new(dir.path()) };
    let second = Emulator::start(options).await.unwrap();
    assert_eq!(["ca.pem", "apns-key.p8"].map(|name| std::fs::read(dir.path().join(name)).unwrap()), files);
    assert_eq!(std::fs::read(dir.path().join("fcm-service-account.json")).unwrap(), account);
    let mut client = Client::connect(second.apns_addr(), &manifest).await;
    let apns = &manifest.apns;
    let token =
        crate::client::provider_token(&apns.key_file, &apns.key_id, &apns.team_id, crate::client::now_s());
    assert_eq!(client.send(push("aa", &token)).await.unwrap().status, 200);
    second.stop().await;

    std::fs::write(dir.path().join("apns-key.p8"), "no key").unwrap();
    let error = Emulator::start(Options::new(dir.path())).await.unwrap_err();
    assert!(error.to_string().contains("apns-key.p8"), "{error}");
    let no_key = Options { apns_keys: Vec::<ApnsKey>::new(), ..Options::new(dir.path()) };
    assert!(Emulator::start(no_key).await.is_err());
}
