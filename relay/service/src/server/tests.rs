mod http2;
mod limits;
mod tls;

use std::future;

use http::StatusCode;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;
use crate::body::RawBody;
use crate::reload::Reload;

struct TestServer {
    address: SocketAddr,
    shutdown: Shutdown,
    reload: Reload,
    metrics: Metrics,
    /// Lets `/held` answer.
    release: Arc<Notify>,
    served: JoinHandle<Result<(), Unfinished>>,
}

impl TestServer {
    async fn start(options: HttpOptions) -> Self {
        Self::start_with(options, None).await
    }

    async fn start_with(options: HttpOptions, tls: Option<TlsOptions>) -> Self {
        let (metrics, reload) = (Metrics::new(), Reload::new());
        let (shutdown, release) = (Shutdown::new(), Arc::new(Notify::new()));
        let held = release.clone();
        let routes = Api::new()
            .get("/held", || async move { held.notified().await })
            .get("/never", future::pending::<StatusCode>)
            .post("/small", 10, |_body: RawBody| async { StatusCode::OK })
            .post("/body", 16, |RawBody(body): RawBody| async move { body });
        let operations = Operations {
            metrics: metrics.clone(),
            shutdown: shutdown.clone(),
            ready: Arc::new(|| true),
            refresh: Arc::new(|| {}),
            document: "{}",
        };
        let router = with_operations(routes, operations, &options).unwrap();
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (address, ending) = (listener.address(), shutdown.clone());
        let tls = tls.map(|tls| Tls::load(tls, &metrics).unwrap());
        if let Some(tls) = tls.clone() {
            tokio::spawn(tls.keep_current(reload.requests(), shutdown.clone()));
        }
        let server = Server::new(listener, router, options, tls, &metrics).unwrap();
        let served = tokio::spawn(async move { server.run(&ending).await });
        Self { address, shutdown, reload, metrics, release, served }
    }

    /// Waits until the metrics have this line.
    async fn shows(&self, line: &str) {
        while !self.metrics.render().lines().any(|found| found == line) {
            tokio::task::yield_now().await;
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// The answer to `request` on a connection of its own, until the server closes it.
    async fn ask(&self, request: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request).await.unwrap();
        rest(&mut stream).await
    }

    /// Waits until `count` requests run.
    async fn running(&self, count: usize) {
        let shown = format!("sealpost_http_requests_running {}", count + 1);
        while !self.ask(&close("/metrics")).await.contains(&shown) {
            tokio::task::yield_now().await;
        }
    }
}

async fn rest<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut bytes = Vec::new();
    // A connection that is reset has said what it had to say.
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

fn close(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").into_bytes()
}

fn quick() -> HttpOptions {
    HttpOptions { announce_seconds: 0, header_seconds_max: 1, ..HttpOptions::default() }
}

#[tokio::test]
async fn a_drain_lets_running_requests_finish() {
    let server = TestServer::start(quick()).await;
    let mut running = server.connect().await;
    running.write_all(b"GET /held HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    let mut idle = server.connect().await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    server.running(1).await;
    server.shutdown.begin();
    assert!(rest(&mut idle).await.starts_with("HTTP/1.1 200"), "closed once it is quiet");
    server.release.notify_one();
    assert!(rest(&mut running).await.starts_with("HTTP/1.1 200"));
    assert_eq!(server.served.await.unwrap(), Ok(()));
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_drain_does_not_wait_for_ever() {
    let server = TestServer::start(HttpOptions { drain_seconds: 0, ..quick() }).await;
    let mut running = server.connect().await;
    running.write_all(b"GET /never HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    server.running(1).await;
    server.shutdown.begin();
    assert_eq!(server.served.await.unwrap(), Err(Unfinished { unfinished: 1 }));
}

#[tokio::test]
async fn readiness_is_taken_back_before_the_listener_is_closed() {
    let server = TestServer::start(HttpOptions { announce_seconds: 3600, ..quick() }).await;
    assert!(server.ask(&close("/readyz")).await.starts_with("HTTP/1.1 200"));
    server.shutdown.begin();
    assert!(server.ask(&close("/readyz")).await.starts_with("HTTP/1.1 503"));
    assert!(server.ask(&close("/healthz")).await.starts_with("HTTP/1.1 200"));
    server.shutdown.hurry();
    let _ = server.served.await.unwrap();
}

#[tokio::test]
async fn connections_that_ask_nothing_are_closed() {
    let server = TestServer::start(quick()).await;
    for sent in [&b""[..], b"PRI * HT", b"GET /healthz HTTP/1.1\r\nhost: te", b"P"] {
        let answer = server.ask(sent).await;
        assert!(!answer.contains("200"), "{sent:?}: {answer}");
    }
}

#[tokio::test]
async fn headers_are_bounded() {
    let server = TestServer::start(quick()).await;
    let long = format!("GET /healthz HTTP/1.1\r\nhost: test\r\nx: {}\r\n\r\n", "x".repeat(20_000));
    assert!(server.ask(long.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let many = format!("GET /healthz HTTP/1.1\r\nhost: test\r\n{}\r\n", "x: y\r\n".repeat(100));
    assert!(server.ask(many.as_bytes()).await.starts_with("HTTP/1.1 431"));
    assert!(server.ask(b"nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400"));
}

/// Far more than socket buffers take: the client still writes when it is refused, and sees the answer.
#[tokio::test]
async fn a_large_body_that_is_refused_is_answered_and_not_reset() {
    let server = TestServer::start(quick()).await;
    let mut stream = server.connect().await;
    let head = "POST /small HTTP/1.1\r\nhost: test\r\ncontent-length: 6000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b'x'; 6_000_000]).await.unwrap();
    stream.write_all(&close("/healthz")).await.unwrap();
    let answers = rest(&mut stream).await;
    assert!(answers.starts_with("HTTP/1.1 413"), "{answers}");
    assert!(answers.contains("HTTP/1.1 200"), "the connection is of use after it: {answers}");

    // One that waits to be asked for its body is not asked.
    let waiting = head.replace("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n");
    let answer = server.ask(waiting.replace("/small", "/nowhere").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}

#[tokio::test]
async fn connections_and_requests_are_bounded() {
    let options = HttpOptions { connections_max: 2, requests_max: 1, ..HttpOptions::default() };
    let server = TestServer::start(options).await;
    let mut first = server.connect().await;
    first.write_all(b"GET /held HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    // The first takes the only place for a request; the probes are refused as any other.
    while !server.ask(&close("/healthz")).await.starts_with("HTTP/1.1 503") {
        tokio::task::yield_now().await;
    }
    let second = server.connect().await;
    let mut third = server.connect().await;
    third.write_all(&close("/healthz")).await.unwrap();
    server.release.notify_one();
    let mut answer = [0; 12];
    first.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    // Two are open; the third is served once one of them has gone.
    drop(second);
    assert!(rest(&mut third).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered() {
    let server = TestServer::start(HttpOptions { request_seconds_max: 1, ..quick() }).await;
    let answer = server.ask(&close("/never")).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("it took too long"), "{answer}");
}

#[tokio::test]
async fn http_2_is_served_with_prior_knowledge() {
    let server = TestServer::start(quick()).await;
    let stream = TokioIo::new(server.connect().await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = |path: &str| {
        let uri = format!("http://test{path}");
        http::Request::get(uri).body(String::new()).unwrap()
    };
    let held = sender.send_request(request("/held"));
    let quick = sender.clone().send_request(request("/healthz")).await.unwrap();
    assert_eq!((quick.status(), quick.version()), (StatusCode::OK, http::Version::HTTP_2));
    server.shutdown.begin();
    server.release.notify_one();
    assert_eq!(held.await.unwrap().status(), StatusCode::OK, "a drain lets it finish");
    drop(sender);
    assert_eq!(server.served.await.unwrap(), Ok(()));
    connection.await.unwrap().unwrap();
}

#[test]
fn limits_that_serve_nobody_are_refused() {
    assert!(HttpOptions::default().check().is_ok());
    for bad in [
        HttpOptions { connections_max: 0, ..HttpOptions::default() },
        HttpOptions { connections_max: usize::MAX, ..HttpOptions::default() },
        HttpOptions { header_bytes_max: 100, ..HttpOptions::default() },
        HttpOptions { request_seconds_max: 0, ..HttpOptions::default() },
    ] {
        assert!(bad.check().is_err(), "{bad:?}");
    }
}
