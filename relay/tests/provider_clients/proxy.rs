//! HTTP proxies: what they are told, what they are not, and what becomes of their answers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealpost_relay::provider::{ApnsClient, FcmClient, Outcome, ProxyUrl, RetryClass};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::setup::{Emulated, TestClock, emulated, push, system_now, token};

const USER: &str = "relay";
const PASSWORD: &str = "p@ss:word/1";
/// `relay:p@ss:word/1`.
const BASIC: &str = "Basic cmVsYXk6cEBzczp3b3JkLzE=";

/// What a proxy does with a request for a tunnel.
#[derive(Clone, Copy)]
enum Manner {
    /// Opens it for who has the password.
    Usual,
    /// Answers this and closes.
    Says(&'static str),
    Silent,
}

/// A proxy, which notes the heads of the requests it gets.
struct TestProxy {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl TestProxy {
    async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, manner, Arc::clone(&noted)));
            }
        });
        Self { port, heads }
    }

    fn url(&self, user: &str, password: &str) -> ProxyUrl {
        ProxyUrl::new(format!("http://{user}:{password}@localhost:{}", self.port))
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// Ends with the connection.
async fn serve(mut stream: TcpStream, manner: Manner, noted: Arc<Mutex<Vec<String>>>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    noted.lock().unwrap().push(head.clone());
    match manner {
        Manner::Says(answer) => stream.write_all(answer.as_bytes()).await,
        Manner::Silent => stream.read_u8().await.map(drop),
        Manner::Usual
            if !head.to_lowercase().contains(&format!("proxy-authorization: {BASIC}\r\n").to_lowercase()) =>
        {
            stream.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n").await
        }
        Manner::Usual => {
            let target = head.split(' ').nth(1).unwrap();
            let mut server = TcpStream::connect(target).await?;
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
            tokio::io::copy_bidirectional(&mut stream, &mut server).await.map(drop)
        }
    }
}

fn apns(emulated: &Emulated, proxy: ProxyUrl) -> ApnsClient {
    let mut config = emulated.apns_config(&json!({ "backoff_first_ms": 1, "connect_timeout_ms": 2000 }));
    config.proxy = Some(proxy);
    ApnsClient::new(config, TestClock::at(system_now())).unwrap()
}

#[tokio::test]
async fn pushes_to_both_providers_go_through_the_proxy() {
    let emulated = emulated(|_| ()).await;
    let proxy = TestProxy::start(Manner::Usual).await;
    let url = proxy.url(USER, "p%40ss%3Aword%2F1");
    let client = apns(&emulated, url.clone());
    for n in 0..3 {
        let outcome = client.push(&token(n), push(1)).await;
        assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
    }
    let manifest = emulated.emulator.manifest();
    let target = format!("localhost:{}", manifest.apns.port);
    let [head] = &proxy.heads()[..] else { panic!("one connection: {:?}", proxy.heads().len()) };
    assert!(head.starts_with(&format!("CONNECT {target} HTTP/1.1\r\n")), "{head}");
    assert!(head.to_lowercase().contains(&format!("host: {target}\r\n")), "{head}");

    // The access token is fetched the same way.
    let mut config = emulated.fcm_config(&json!({}));
    config.proxy = Some(url);
    let client = FcmClient::new(config, TestClock::at(system_now())).unwrap();
    let outcome = client.push(&token(1), push(1)).await;
    assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
    let to_google = format!("CONNECT localhost:{} ", manifest.fcm.port);
    let heads = proxy.heads();
    assert_eq!(heads[1..].iter().filter(|head| head.starts_with(&to_google)).count(), 2);
    assert_eq!(heads.len(), 3);
}

/// Why there is no connection through a proxy of this manner.
async fn failure(manner: Manner, password: &str) -> String {
    let emulated = emulated(|_| ()).await;
    let proxy = TestProxy::start(manner).await;
    let client = apns(&emulated, proxy.url(USER, password));
    let outcome = client.push(&token(1), push(1)).await;
    let Outcome::Retry { class: RetryClass::Connection, detail, .. } = &outcome else {
        panic!("{outcome:?}")
    };
    assert!(!proxy.heads().is_empty());
    assert_eq!(emulated.emulator.counts().apns.connections_opened, 0);
    let shown = format!("{outcome:?} {client:?}");
    for secret in [password, PASSWORD, BASIC.split(' ').nth(1).unwrap()] {
        assert!(!shown.contains(secret), "{shown}");
    }
    detail.as_str().to_owned()
}

#[tokio::test]
async fn a_wrong_password_is_told_and_not_shown() {
    assert!(failure(Manner::Usual, "wrong-one").await.contains("407"));
}

#[tokio::test]
async fn a_proxy_that_opens_no_tunnel_is_a_failed_connection() {
    let bad_gateway = "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n";
    assert!(failure(Manner::Says(bad_gateway), "x1x1").await.contains("502"));
    for rubbish in ["", "SSH-2.0-OpenSSH_9.6\r\n\r\n", "HTTP/1.1 200", "HTTP/1.1 2000 OK\r\n\r\n"] {
        assert!(failure(Manner::Says(rubbish), "x1x1").await.starts_with("proxy: "), "{rubbish:?}");
    }
    let endless: &'static str = Box::leak(format!("HTTP/1.1 200 {}", "x".repeat(100_000)).into_boxed_str());
    assert!(failure(Manner::Says(endless), "x1x1").await.starts_with("proxy: "));
    assert!(failure(Manner::Silent, "x1x1").await.contains("2000 ms"));
}

#[tokio::test]
async fn the_provider_is_verified_through_the_tunnel_all_the_same() {
    let emulated = emulated(|_| ()).await;
    let proxy = TestProxy::start(Manner::Usual).await;
    let mut config = emulated.apns_config(&json!({ "backoff_first_ms": 1 }));
    config.root_ca_file = None;
    config.proxy = Some(proxy.url(USER, "p%40ss%3Aword%2F1"));
    let client = ApnsClient::new(config, TestClock::at(system_now())).unwrap();
    let outcome = client.push(&token(1), push(1)).await;
    assert!(outcome.detail().as_str().contains("TLS"), "{outcome:?}");
    assert_eq!(emulated.emulator.counts().apns.total, 0);
}

#[tokio::test]
async fn a_proxy_that_comes_back_is_used_again() {
    let emulated = emulated(|_| ()).await;
    let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = reserved.local_addr().unwrap().port();
    let client = apns(&emulated, ProxyUrl::new(format!("http://localhost:{port}")));
    drop(reserved);
    assert!(matches!(client.push(&token(1), push(1)).await, Outcome::Retry { .. }));
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let target = String::from_utf8(head).unwrap().split(' ').nth(1).unwrap().to_owned();
            let mut server = TcpStream::connect(target).await.unwrap();
            stream.write_all(b"HTTP/1.0 200 OK\r\nvia: x\r\n\r\n").await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut server).await });
        }
    });
    let accepted =
        async { while !matches!(client.push(&token(1), push(1)).await, Outcome::Accepted { .. }) {} };
    tokio::time::timeout(Duration::from_secs(20), accepted).await.unwrap();
}
