//! Listening: HTTP/1.1 and HTTP/2 with prior knowledge on one port, limits on connections, and an end that
//! lets running requests finish.

mod api;
mod discard;
mod operations;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower::ServiceExt as _;

pub use self::api::{Api, Operation};
pub use self::operations::{Operations, common_operations, with_operations};
use crate::config::ConfigError;
use crate::shutdown::{Shutdown, Unfinished};

/// How HTTP is served; the `http` section of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpOptions {
    /// Connections at one time; more wait to be accepted.
    pub connections_max: usize,
    /// Requests at one time, waiting ones included; more are answered 503.
    pub requests_max: usize,
    /// Requests at one time on one HTTP/2 connection.
    pub streams_per_connection_max: u32,
    /// Bytes of a request's line and headers.
    pub header_bytes_max: u32,
    /// Headers of a request.
    pub headers_max: usize,
    /// Time for the headers of a request to come (seconds); also how long a quiet HTTP/1.1 connection is
    /// kept.
    pub header_seconds_max: u64,
    /// Time for a request to be answered (seconds); above the longest wait that a route offers.
    pub request_seconds_max: u64,
    /// Time between the PINGs that find dead HTTP/2 connections (seconds).
    pub ping_seconds: u64,
    /// After SIGTERM, time in which `/readyz` says 503 while new connections are still taken (seconds).
    pub announce_seconds: u64,
    /// After that, time for running requests to finish (seconds).
    pub drain_seconds: u64,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            requests_max: 8192,
            streams_per_connection_max: 256,
            header_bytes_max: 16 * 1024,
            headers_max: 64,
            header_seconds_max: 30,
            request_seconds_max: 75,
            ping_seconds: 30,
            announce_seconds: 1,
            drain_seconds: 20,
        }
    }
}

/// Smallest buffer that hyper reads HTTP/1.1 headers into.
const HEADER_BYTES_MIN: u32 = 8 * 1024;

impl HttpOptions {
    /// Refuses limits that would serve nobody.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let refuse = |what: &str| Err(ConfigError::Value(format!("http: {what}")));
        if self.connections_max == 0 || self.requests_max == 0 || self.streams_per_connection_max == 0 {
            return refuse("a limit of 0 would serve nobody");
        }
        if self.connections_max > Semaphore::MAX_PERMITS {
            return refuse("connections_max is too large");
        }
        if self.header_bytes_max < HEADER_BYTES_MIN || self.headers_max < 16 {
            return refuse("header_bytes_max is at least 8192, headers_max at least 16");
        }
        if self.header_seconds_max == 0 || self.request_seconds_max == 0 || self.ping_seconds == 0 {
            return refuse("a time of 0 would serve nobody");
        }
        Ok(())
    }
}

/// A bound listener.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds `address`; port 0 takes any free one.
    ///
    /// # Errors
    /// What the system says.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let tcp = TcpListener::bind(address).await?;
        let address = tcp.local_addr()?;
        Ok(Self { tcp, address })
    }

    /// The address with its real port.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells whoever started the process where it listens: one line of JSON, the only one on standard output.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn announce(&self) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{}", serde_json::json!({ "listening": self.address.to_string() }))?;
        stdout.flush()
    }
}

/// Serves `router` until `shutdown` begins, and then until running requests are answered.
///
/// # Errors
/// [`Unfinished`] when the drain took longer than [`HttpOptions::drain_seconds`], or was hurried.
pub async fn serve(
    listener: Listener,
    router: Router,
    options: &HttpOptions,
    shutdown: &Shutdown,
) -> Result<(), Unfinished> {
    let connection = Arc::new(Connection::new(router, options));
    let permits = Arc::new(Semaphore::new(options.connections_max));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let stop = stop_accepting(shutdown, Duration::from_secs(options.announce_seconds));
    tokio::pin!(stop);
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = async {
            // The semaphore is never closed; without a permit nothing is accepted.
            let permit = permits.clone().acquire_owned().await.ok();
            (permit, listener.tcp.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let work = shutdown.work();
                let serving = connection.clone().run(stream, graceful.watcher());
                connections.spawn(async move {
                    serving.await;
                    drop((permit, work));
                });
            }
            Err(error) => {
                // Out of file descriptors, most often: let some connections end.
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    tokio::select! {
        biased;
        () = graceful.shutdown() => Ok(()),
        drained = shutdown.drain(Duration::from_secs(options.drain_seconds)) => drained,
    }
}

/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

async fn stop_accepting(shutdown: &Shutdown, announce: Duration) {
    shutdown.begun().await;
    tokio::select! {
        () = tokio::time::sleep(announce) => {}
        () = shutdown.hurried() => {}
    }
}

/// How one connection is served.
struct Connection {
    router: Router,
    builder: auto::Builder<TokioExecutor>,
    first_request_within: Duration,
}

impl Connection {
    fn new(router: Router, options: &HttpOptions) -> Self {
        let header_time = Duration::from_secs(options.header_seconds_max);
        let header_bytes = usize::try_from(options.header_bytes_max).unwrap_or(usize::MAX);
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(header_time)
            .max_headers(options.headers_max)
            .max_buf_size(header_bytes);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(options.header_bytes_max)
            .max_concurrent_streams(options.streams_per_connection_max)
            .keep_alive_interval(Duration::from_secs(options.ping_seconds))
            .keep_alive_timeout(header_time);
        Self { router, builder, first_request_within: header_time }
    }

    async fn run(self: Arc<Self>, stream: TcpStream, graceful: hyper_util::server::graceful::Watcher) {
        // Small answers must not wait for the next packet of the client.
        let _ = stream.set_nodelay(true);
        let asked = Arc::new(AtomicBool::new(false));
        let noted = asked.clone();
        let service = self.router.clone().map_request(move |request: Request<Incoming>| {
            noted.store(true, Ordering::Relaxed);
            request
        });
        let served = self.builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let served = graceful.watch(served.into_owned());
        tokio::pin!(served);
        // Until it knows the version, hyper-util waits without end for the first bytes.
        let ended = tokio::select! {
            ended = &mut served => Some(ended),
            () = tokio::time::sleep(self.first_request_within) => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None if asked.load(Ordering::Relaxed) => served.await,
            None => return,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }
}

#[cfg(test)]
mod tests;
