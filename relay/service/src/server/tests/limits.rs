//! Connections that ask for too much, or too slowly.

use super::*;

#[tokio::test]
async fn an_address_has_so_many_connections_and_no_more() {
    let server = TestServer::start(HttpOptions { connections_per_peer_max: 2, ..quick() }).await;
    let mut first = server.connect().await;
    let _second = server.connect().await;
    first.write_all(b"GET /healthz HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    first.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    assert_eq!(rest(&mut server.connect().await).await, "", "closed unserved");
    server.shows("sealpost_http_connections_refused_total{reason=\"peer\"} 1").await;
    drop(first);
    // Its place is free once the server has seen that it is gone.
    while !server.ask(&close("/healthz")).await.starts_with("HTTP/1.1 200") {}
}

#[tokio::test]
async fn a_proxy_has_as_many_connections_as_it_likes() {
    let proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let server = TestServer::start(HttpOptions { connections_per_peer_max: 1, proxies, ..quick() }).await;
    let _held = [server.connect().await, server.connect().await];
    assert!(server.ask(&close("/healthz")).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_body_that_trickles_is_not_waited_for() {
    let server = TestServer::start(HttpOptions { body_seconds_max: 1, ..quick() }).await;
    let whole = b"POST /body HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: 4\r\n\r\nbody";
    let answer = server.ask(whole).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("body"), "{answer}");
    let answer = server.ask(&whole[..whole.len() - 1]).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("request_timeout"), "{answer}");
}

#[tokio::test]
async fn a_quiet_connection_is_closed_after_its_last_answer() {
    let server = TestServer::start(quick()).await;
    let answer = server.ask(b"GET /healthz HTTP/1.1\r\nhost: test\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_connection_with_a_running_request_is_not_quiet() {
    let server = TestServer::start(HttpOptions { idle_seconds_max: 1, ..quick() }).await;
    let mut running = server.connect().await;
    running.write_all(b"GET /held HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    server.running(1).await;
    // Another connection has come, has been quiet and has gone meanwhile.
    assert!(server.ask(b"GET /healthz HTTP/1.1\r\nhost: test\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    server.release.notify_one();
    assert!(rest(&mut running).await.starts_with("HTTP/1.1 200"));
}
