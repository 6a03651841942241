//! One HTTP/2 connection: its limits, and the task that keeps it going.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use h2::{Ping, PingPong};
use serde::Deserialize;
use tokio::time::{Instant, Sleep};

use super::ProviderError;
use super::endpoint::{DialError, Dialer, Transport};
use super::outcome::Detail;
use super::pool::{LinkId, Pool};

/// Limits of a client's connections. The defaults suit both providers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionConfig {
    /// The most connections to the provider, 1 to 64. More than one is opened only when those there are have no
    /// free stream.
    pub connections_max: usize,
    /// The most requests in flight on one connection, 1 to 10 000; the provider's own limit applies too.
    pub streams_per_connection_max: usize,
    /// The most pushes that wait for a free stream; further ones are told to come back
    /// ([`super::RetryClass::Busy`]).
    pub waiting_max: usize,
    /// The time for name, TCP and TLS, in milliseconds.
    pub connect_timeout_ms: u64,
    /// The time for one push, everything included, in milliseconds.
    pub request_timeout_ms: u64,
    /// How often a PING asks whether the connection is alive, in milliseconds.
    pub ping_interval_ms: u64,
    /// How long the answer to a PING may take before the connection counts as dead, in milliseconds.
    pub ping_timeout_ms: u64,
    /// The wait after the first failed connect, in milliseconds; doubled at each further one.
    pub backoff_first_ms: u64,
    /// The longest wait between connects, in milliseconds.
    pub backoff_max_ms: u64,
    /// How long a provider may hold a connection to one stream, while pushes wait, before it is replaced, in
    /// milliseconds.
    pub starved_after_ms: u64,
}

impl Default for ConnectionConfig {
    fn default() -> Self {
        Self {
            connections_max: 8,
            streams_per_connection_max: 1000,
            waiting_max: 10_000,
            connect_timeout_ms: 5_000,
            request_timeout_ms: 10_000,
            ping_interval_ms: 60_000,
            ping_timeout_ms: 10_000,
            backoff_first_ms: 250,
            backoff_max_ms: 30_000,
            starved_after_ms: 5_000,
        }
    }
}

impl ConnectionConfig {
    pub(super) fn validate(&self) -> Result<(), ProviderError> {
        let check = |valid: bool, field, why| {
            if valid { Ok(()) } else { Err(ProviderError::Config { field, why }) }
        };
        check((1..=64).contains(&self.connections_max), "connection.connections_max", "is 1 to 64")?;
        let streams = 1..=10_000;
        check(
            streams.contains(&self.streams_per_connection_max),
            "connection.streams_per_connection_max",
            "is 1 to 10000",
        )?;
        check(self.waiting_max >= 1, "connection.waiting_max", "is at least 1")?;
        let times = [
            (self.connect_timeout_ms, "connection.connect_timeout_ms"),
            (self.request_timeout_ms, "connection.request_timeout_ms"),
            (self.ping_interval_ms, "connection.ping_interval_ms"),
            (self.ping_timeout_ms, "connection.ping_timeout_ms"),
            (self.backoff_first_ms, "connection.backoff_first_ms"),
            (self.backoff_max_ms, "connection.backoff_max_ms"),
            (self.starved_after_ms, "connection.starved_after_ms"),
        ];
        for (value, field) in times {
            check((1..=TIME_MS_MAX).contains(&value), field, "is 1 ms to 1 hour")?;
        }
        Ok(())
    }

    pub(super) const fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(super) const fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    pub(super) const fn starved_after(&self) -> Duration {
        Duration::from_millis(self.starved_after_ms)
    }
}

/// The state of a client's connections at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionStats {
    /// Connections that take requests.
    pub open: usize,
    /// Requests that wait for an answer on them.
    pub in_flight: usize,
    /// Pushes that wait for a free stream.
    pub waiting: usize,
}

/// Opens one HTTP/2 connection. The server's SETTINGS are not awaited: GOAWAY can come in their place.
pub(super) async fn open(dialer: &Dialer) -> Result<(SendRequest<Bytes>, Connection<Transport>), DialError> {
    let (transport, _http2) = dialer.dial().await?;
    let handshake = h2::client::Builder::new()
        .enable_push(false)
        .initial_max_send_streams(INITIAL_STREAMS)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .handshake(transport)
        .await?;
    Ok(handshake)
}

/// Keeps a connection going until it ends, and tells the pool what it can carry.
pub(super) async fn drive(
    mut connection: Connection<Transport>,
    pool: Weak<Pool>,
    link: LinkId,
    config: ConnectionConfig,
) {
    let ping_pong = connection.ping_pong();
    let mut heart = Heart::new(ping_pong, &config);
    let mut driver = Driver { connection, limit: INITIAL_STREAMS, pool: pool.clone(), link };
    let why = std::future::poll_fn(|cx| {
        if let Poll::Ready(why) = driver.poll(cx) {
            return Poll::Ready(why);
        }
        heart.poll(cx, &driver)
    })
    .await;
    if let Some(pool) = pool.upgrade() {
        tracing::debug!(link = link.0, why = why.as_str(), "provider connection closed");
        pool.close(link, &why);
    }
}

struct Driver {
    connection: Connection<Transport>,
    limit: usize,
    pool: Weak<Pool>,
    link: LinkId,
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Detail> {
        if let Poll::Ready(end) = Pin::new(&mut self.connection).poll(cx) {
            return Poll::Ready(match end {
                Ok(()) => Detail::new("closed"),
                Err(error) => Detail::new(&error.to_string()),
            });
        }
        let limit = self.connection.max_concurrent_send_streams();
        if limit != self.limit {
            self.limit = limit;
            if let Some(pool) = self.pool.upgrade() {
                pool.limit(self.link, limit);
            }
        }
        Poll::Pending
    }
}

/// PING and the look at a starved connection, on one timer.
struct Heart {
    ping_pong: Option<PingPong>,
    awaiting_pong: bool,
    timer: Pin<Box<Sleep>>,
    next_ping: Instant,
    ping_interval: Duration,
    ping_timeout: Duration,
    starved_after: Duration,
}

impl Heart {
    fn new(ping_pong: Option<PingPong>, config: &ConnectionConfig) -> Self {
        let ping_interval = Duration::from_millis(config.ping_interval_ms);
        let next_ping = Instant::now() + ping_interval;
        let first = next_ping.min(Instant::now() + config.starved_after());
        Self {
            ping_pong,
            awaiting_pong: false,
            timer: Box::pin(tokio::time::sleep_until(first)),
            next_ping,
            ping_interval,
            ping_timeout: Duration::from_millis(config.ping_timeout_ms),
            starved_after: config.starved_after(),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, driver: &Driver) -> Poll<Detail> {
        if self.awaiting_pong
            && let Some(Poll::Ready(pong)) = self.ping_pong.as_mut().map(|pings| pings.poll_pong(cx))
        {
            if pong.is_err() {
                return Poll::Ready(Detail::new("closed during a PING"));
            }
            self.awaiting_pong = false;
            self.next_ping = Instant::now() + self.ping_interval;
            self.timer.as_mut().reset(self.next_ping);
        }
        if driver.limit <= STARVED_STREAMS {
            let look_at = Instant::now() + self.starved_after;
            if self.timer.deadline() > look_at {
                self.timer.as_mut().reset(look_at);
            }
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if now >= self.next_ping {
                if self.awaiting_pong {
                    return Poll::Ready(Detail::new("no answer to a PING"));
                }
                if let Some(pings) = &mut self.ping_pong {
                    self.awaiting_pong = pings.send_ping(Ping::opaque()).is_ok();
                    // Registers this task for the answer.
                    let _not_yet = pings.poll_pong(cx);
                }
                self.next_ping =
                    now + if self.awaiting_pong { self.ping_timeout } else { self.ping_interval };
            }
            let mut next = self.next_ping;
            if driver.limit <= STARVED_STREAMS {
                if let Some(pool) = driver.pool.upgrade() {
                    pool.review();
                }
                next = next.min(now + self.starved_after);
            }
            self.timer.as_mut().reset(next);
        }
        Poll::Pending
    }
}

/// A connection that carries no more than this is starved. APNs allows one stream until the first push with a
/// valid token succeeded, and goes back to it after some refusals.
pub(super) const STARVED_STREAMS: usize = 1;

/// The streams a connection is used for before the server's SETTINGS are there.
pub(super) const INITIAL_STREAMS: usize = 1;

const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
const HEADER_LIST_BYTES_MAX: u32 = 16 << 10;
const TIME_MS_MAX: u64 = 3_600_000;
