//! One connection: its handshake, its requests, and when it has to go.
//!
//! ```text
//! accepted -> (TLS handshake, bounded) -> first request, bounded -> requests -> quiet for too long -> closed
//! ```
//! A quiet connection is told that it ends, so that no request is lost; one that does not heed it is cut.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::Request;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use prometheus::{IntCounterVec, IntGauge};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tower::ServiceExt as _;

use super::HttpOptions;
use super::peer::{Network, Peer};
use super::tls::Tls;
use crate::body::BodyTime;
use crate::problem::{ProblemCode, Refusal};
use crate::telemetry::{MetricError, Metrics};

/// Streams of an HTTP/2 connection that its client has reset before they were looked at; one more ends the
/// connection (rapid reset, CVE-2023-44487).
const RESET_STREAMS_MAX: usize = 20;
/// Streams of an HTTP/2 connection that were reset here for a fault of its client; one more ends it.
const FAULTY_STREAMS_MAX: usize = 256;
/// Bytes of one answer that wait for an HTTP/2 client to read them.
const SEND_BUFFER_BYTES_MAX: usize = 256 * 1024;

/// How connections are served.
pub(super) struct Connections {
    router: Router,
    builder: auto::Builder<TokioExecutor>,
    tls: Option<Tls>,
    proxies: Vec<Network>,
    headers_max: usize,
    header_time: Duration,
    idle_time: Duration,
    body_time: BodyTime,
}

impl Connections {
    pub(super) fn new(router: Router, options: &HttpOptions, tls: Option<Tls>) -> Self {
        let header_time = Duration::from_secs(options.header_seconds_max);
        let header_bytes = usize::try_from(options.header_bytes_max).unwrap_or(usize::MAX);
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(header_time)
            .max_headers(options.headers_max)
            .max_buf_size(header_bytes);
        // h2 derives from the size of the headers how many CONTINUATION frames they may have.
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(options.header_bytes_max)
            .max_concurrent_streams(options.streams_per_connection_max)
            .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
            .max_local_error_reset_streams(FAULTY_STREAMS_MAX)
            .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
            .keep_alive_interval(Duration::from_secs(options.ping_seconds))
            .keep_alive_timeout(header_time);
        Self {
            router,
            builder,
            tls,
            proxies: options.proxies.clone(),
            headers_max: options.headers_max,
            header_time,
            idle_time: Duration::from_secs(options.idle_seconds_max),
            body_time: BodyTime(Duration::from_secs(options.body_seconds_max)),
        }
    }

    /// Serves the connection until it ends; once `closing` says so, until its running requests are answered.
    pub(super) async fn run(&self, stream: TcpStream, address: IpAddr, mut closing: watch::Receiver<bool>) {
        // Small answers must not wait for the next packet of the client.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return self.serve(stream, address, closing).await };
        let secured = tokio::select! {
            secured = tls.accept(stream) => secured,
            _ = closing.wait_for(|closing| *closing) => None,
        };
        if let Some(stream) = secured {
            self.serve(stream, address, closing).await;
        }
    }

    async fn serve<S>(&self, stream: S, address: IpAddr, mut closing: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let activity = Arc::new(Activity::new());
        let service = service_fn(|request| self.answer(request, address, &activity));
        let mut served = pin!(self.builder.serve_connection(TokioIo::new(stream), service));
        let mut look = pin!(tokio::time::sleep(self.header_time));
        let mut ending = false;
        loop {
            tokio::select! {
                biased;
                ended = &mut served => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection ended early");
                    }
                    return;
                }
                _ = closing.wait_for(|closing| *closing), if !ending => {
                    ending = true;
                    served.as_mut().graceful_shutdown();
                }
                () = &mut look => match activity.quiet_for() {
                    None => look.as_mut().reset(Instant::now() + self.idle_time),
                    // Until it knows the version, hyper-util waits without end for the first bytes.
                    Some(_) if !activity.has_asked() => return,
                    Some(quiet) if quiet < self.idle_time => {
                        look.as_mut().reset(Instant::now() + (self.idle_time - quiet));
                    }
                    Some(quiet) if quiet < self.idle_time + self.header_time => {
                        ending = true;
                        served.as_mut().graceful_shutdown();
                        look.as_mut().reset(Instant::now() + (self.idle_time + self.header_time - quiet));
                    }
                    // Neither asks, nor reads what it was answered, nor goes.
                    Some(_) => return,
                },
            }
        }
    }

    /// The answer to one request. What its route needs to know of the connection travels in its extensions.
    fn answer(
        &self,
        mut request: Request<Incoming>,
        address: IpAddr,
        activity: &Arc<Activity>,
    ) -> impl Future<Output = Result<Response, Infallible>> + Send + use<> {
        let running = activity.begin();
        // HTTP/1.1 has refused it already; HTTP/2 bounds the bytes only.
        let answered = if request.headers().len() > self.headers_max {
            Err(Refusal::new(ProblemCode::HeadersTooLarge).into_response())
        } else {
            let peer = Peer::of_request(address, request.headers(), &self.proxies);
            request.extensions_mut().insert(peer);
            request.extensions_mut().insert(self.body_time);
            Ok(self.router.clone().oneshot(request))
        };
        async move {
            let response = match answered {
                Ok(answer) => match answer.await {
                    Ok(response) => response,
                    Err(never) => match never {},
                },
                Err(response) => response,
            };
            Ok(response.map(|body| Body::new(Tracked { body, _running: running })))
        }
    }
}

/// When a connection was last of use.
struct Activity {
    began: Instant,
    asked: AtomicBool,
    running: AtomicUsize,
    /// Milliseconds since `began`.
    last_ms: AtomicU64,
}

/// A request whose answer has not been handed over yet.
struct Running(Arc<Activity>);

impl Activity {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            asked: AtomicBool::new(false),
            running: AtomicUsize::new(0),
            last_ms: AtomicU64::new(0),
        }
    }

    fn begin(self: &Arc<Self>) -> Running {
        self.asked.store(true, Ordering::Relaxed);
        self.running.fetch_add(1, Ordering::Relaxed);
        Running(self.clone())
    }

    fn has_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Nothing while a request runs.
    fn quiet_for(&self) -> Option<Duration> {
        if self.running.load(Ordering::Acquire) > 0 {
            return None;
        }
        let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        Some(self.began.elapsed().saturating_sub(last))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last_ms.store(now, Ordering::Relaxed);
        // Release: whoever sees none running also sees when the last one ended.
        self.0.running.fetch_sub(1, Ordering::Release);
    }
}

/// The body of an answer; its request runs until the last of it is handed over.
struct Tracked {
    body: Body,
    _running: Running,
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What a listener tells of its connections.
pub(super) struct ConnectionMetrics {
    /// Connections that are open.
    pub(super) open: IntGauge,
    /// Connections that were not served: `peer` has as many as it may.
    pub(super) refused: IntCounterVec,
}

impl ConnectionMetrics {
    pub(super) fn register(metrics: &Metrics) -> Result<Self, MetricError> {
        let refused = metrics.counters(
            "sealpost_http_connections_refused_total",
            "Connections that were closed unserved, because their address has as many as it may.",
            &["reason"],
        )?;
        refused.with_label_values(&["peer"]).inc_by(0);
        let open = metrics.gauge("sealpost_http_connections", "Connections that are open.")?;
        Ok(Self { open, refused })
    }
}
