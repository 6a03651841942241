//! Listening: HTTP/1.1 and HTTP/2 on one port, over TLS where it is configured, limits on connections, and an
//! end that lets running requests finish.

mod api;
mod connection;
mod discard;
mod operations;
mod peer;
mod tls;

use std::fmt;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use prometheus::IntGauge;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

pub use self::api::{Api, Operation};
use self::connection::{ConnectionMetrics, Connections};
pub use self::operations::{Operations, common_operations, with_operations};
use self::peer::Places;
pub use self::peer::{Network, NetworkError, Peer};
pub use self::tls::{Tls, TlsError, TlsOptions};
use crate::config::ConfigError;
use crate::shutdown::{Shutdown, Unfinished};
use crate::telemetry::{MetricError, Metrics};

/// How HTTP is served; the `http` section of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpOptions {
    /// Connections at one time; more wait to be accepted.
    pub connections_max: usize,
    /// Connections at one time from one address (IPv6: from one /64 network); more are closed. Proxies have no
    /// such limit.
    pub connections_per_peer_max: usize,
    /// Addresses and networks of reverse proxies in front of the server. What they write into
    /// `X-Forwarded-For` is whom limits by address count a request for.
    pub proxies: Vec<Network>,
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
    /// Time for the body of a request to come (seconds).
    pub body_seconds_max: u64,
    /// How long a quiet HTTP/2 connection is kept (seconds).
    pub idle_seconds_max: u64,
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
            connections_per_peer_max: 1024,
            proxies: Vec::new(),
            requests_max: 8192,
            streams_per_connection_max: 256,
            header_bytes_max: 16 * 1024,
            headers_max: 64,
            header_seconds_max: 30,
            body_seconds_max: 20,
            idle_seconds_max: 120,
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
        let limits = [self.connections_max, self.connections_per_peer_max, self.requests_max];
        if limits.contains(&0) || self.streams_per_connection_max == 0 {
            return refuse("a limit of 0 would serve nobody");
        }
        if self.connections_max > Semaphore::MAX_PERMITS {
            return refuse("connections_max is too large");
        }
        if self.header_bytes_max < HEADER_BYTES_MIN || self.headers_max < 16 {
            return refuse("header_bytes_max is at least 8192, headers_max at least 16");
        }
        let read = [self.header_seconds_max, self.body_seconds_max];
        let kept = [self.request_seconds_max, self.ping_seconds, self.idle_seconds_max];
        if read.contains(&0) || kept.contains(&0) {
            return refuse("a time of 0 would serve nobody");
        }
        if self.body_seconds_max >= self.request_seconds_max {
            return refuse("body_seconds_max is below request_seconds_max");
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

/// A listener, what is served on it, and how.
pub struct Server {
    listener: Listener,
    connections: Arc<Connections>,
    places: Arc<Places>,
    options: HttpOptions,
    metrics: ConnectionMetrics,
}

impl Server {
    /// A server of `router`; over TLS where `tls` says how.
    ///
    /// # Errors
    /// The metrics are registered already.
    pub fn new(
        listener: Listener,
        router: Router,
        options: HttpOptions,
        tls: Option<Tls>,
        metrics: &Metrics,
    ) -> Result<Self, MetricError> {
        Ok(Self {
            listener,
            connections: Arc::new(Connections::new(router, &options, tls)),
            places: Places::new(options.connections_per_peer_max),
            metrics: ConnectionMetrics::register(metrics)?,
            options,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Serves until `shutdown` begins, and then until running requests are answered.
    ///
    /// # Errors
    /// [`Unfinished`] when the drain took longer than [`HttpOptions::drain_seconds`], or was hurried.
    pub async fn run(self, shutdown: &Shutdown) -> Result<(), Unfinished> {
        let permits = Arc::new(Semaphore::new(self.options.connections_max));
        let closing = watch::Sender::new(false);
        let mut running = JoinSet::new();
        let stop = stop_accepting(shutdown, Duration::from_secs(self.options.announce_seconds));
        tokio::pin!(stop);
        loop {
            while running.try_join_next().is_some() {}
            let accepted = async {
                // The semaphore is never closed; without a permit nothing is accepted.
                let permit = permits.clone().acquire_owned().await.ok();
                (permit, self.listener.tcp.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                biased;
                () = &mut stop => break,
                accepted = accepted => accepted,
            };
            let (stream, address) = match accepted {
                Ok((stream, address)) => (stream, address.ip()),
                Err(error) => {
                    // Out of file descriptors, most often: let some connections end.
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let is_proxy = self.options.proxies.iter().any(|proxy| proxy.contains(address));
            let place = if is_proxy { None } else { self.places.take(Peer::of(address)) };
            if place.is_none() && !is_proxy {
                self.metrics.refused.with_label_values(&["peer"]).inc();
                continue;
            }
            let (connections, closing) = (self.connections.clone(), closing.subscribe());
            let (work, open) = (shutdown.work(), OpenConnection::new(&self.metrics.open));
            running.spawn(async move {
                connections.run(stream, address, closing).await;
                drop((permit, place, work, open));
            });
        }
        drop(self.listener);
        closing.send_replace(true);
        let ended = async { while running.join_next().await.is_some() {} };
        tokio::select! {
            biased;
            () = ended => Ok(()),
            drained = shutdown.drain(Duration::from_secs(self.options.drain_seconds)) => drained,
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("listener", &self.listener).finish_non_exhaustive()
    }
}

/// Counts a connection as open until it is dropped, also when it is cut off.
struct OpenConnection(IntGauge);

impl OpenConnection {
    fn new(open: &IntGauge) -> Self {
        open.inc();
        Self(open.clone())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
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

#[cfg(test)]
mod tests;
