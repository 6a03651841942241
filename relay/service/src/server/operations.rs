//! What every server has around its own routes: `/healthz`, `/readyz`, `/metrics`, measured and bounded
//! requests.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, Method, StatusCode, header};
use prometheus::{HistogramVec, IntCounterVec, IntGauge};

use super::HttpOptions;
use super::api::{Api, Operation};
use super::discard::discard_rest;
use crate::problem::{ProblemCode, Refusal};
use crate::shutdown::Shutdown;
use crate::telemetry::{METRICS_CONTENT_TYPE, MetricError, Metrics};

/// Bucket bounds for the time of a request; long polls take up to a minute.
const REQUEST_SECONDS: &[f64] =
    &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 75.0];

/// What the common routes need to know of a server.
#[derive(Clone)]
pub struct Operations {
    /// The metrics that `/metrics` shows.
    pub metrics: Metrics,
    /// Says when the server drains.
    pub shutdown: Shutdown,
    /// Whether the server can do its work; asked by `/readyz`.
    pub ready: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Runs before the metrics are shown: sets gauges that change by themselves, such as ages.
    pub refresh: Arc<dyn Fn() + Send + Sync>,
    /// The OpenAPI document (JSON) that describes the routes, these ones included.
    pub document: &'static str,
}

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operations").field("shutdown", &self.shutdown).finish_non_exhaustive()
    }
}

/// A server's routes with the common ones beside them, and around all of them: a bound on requests at one
/// time, a bound on their time, request metrics, and problems instead of empty 404 and 405 answers.
///
/// # Errors
/// The metrics are registered already.
pub fn with_operations(
    routes: Api,
    operations: Operations,
    options: &HttpOptions,
) -> Result<Router, MetricError> {
    let observer = Arc::new(Observer::register(&operations.metrics, options)?);
    Ok(routes
        .merge(common().with_state(operations))
        .into_router()
        .fallback(|| async { Refusal::new(ProblemCode::NotFound) })
        .method_not_allowed_fallback(|| async { Refusal::new(ProblemCode::MethodNotAllowed) })
        .layer(middleware::from_fn_with_state(observer, observe))
        .layer(middleware::from_fn(discard_rest)))
}

/// The list of the routes that every server has.
#[must_use]
pub fn common_operations() -> Vec<Operation> {
    common().operations().to_vec()
}

fn common() -> Api<Operations> {
    Api::new()
        .get("/healthz", || async { StatusCode::OK })
        .get("/readyz", ready)
        .get("/metrics", metrics)
        .get("/openapi.json", document)
}

async fn ready(State(operations): State<Operations>) -> StatusCode {
    if !operations.shutdown.is_draining() && (operations.ready)() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

async fn metrics(State(operations): State<Operations>) -> Response {
    (operations.refresh)();
    ([(header::CONTENT_TYPE, METRICS_CONTENT_TYPE)], operations.metrics.render()).into_response()
}

async fn document(State(operations): State<Operations>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], operations.document).into_response()
}

/// Measures requests and bounds them.
struct Observer {
    requests: IntCounterVec,
    seconds: HistogramVec,
    running_shown: IntGauge,
    running: AtomicUsize,
    running_max: usize,
    time_max: Duration,
}

impl Observer {
    fn register(metrics: &Metrics, options: &HttpOptions) -> Result<Self, MetricError> {
        Ok(Self {
            requests: metrics.counters(
                "sealpost_http_requests_total",
                "Requests that were answered.",
                &["route", "method", "status"],
            )?,
            seconds: metrics.histograms(
                "sealpost_http_request_seconds",
                "Time from the headers of a request to the headers of its answer.",
                &["route"],
                REQUEST_SECONDS,
            )?,
            running_shown: metrics
                .gauge("sealpost_http_requests_running", "Requests that run or wait now.")?,
            running: AtomicUsize::new(0),
            running_max: options.requests_max,
            time_max: Duration::from_secs(options.request_seconds_max),
        })
    }

    fn begin(self: &Arc<Self>) -> Option<Running> {
        let running = Running(self.clone());
        self.running_shown.inc();
        (self.running.fetch_add(1, Ordering::Relaxed) < self.running_max).then_some(running)
    }
}

/// Counts a request as running until it is dropped, also when its client goes away.
struct Running(Arc<Observer>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
        self.0.running_shown.dec();
    }
}

async fn observe(State(observer): State<Arc<Observer>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = method_label(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = match observer.begin() {
        None => Refusal::new(ProblemCode::Unavailable).retry_after(1).into_response(),
        Some(_running) => match tokio::time::timeout(observer.time_max, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Refusal::new(ProblemCode::Unavailable).detail("it took too long").into_response(),
        },
    };
    // The path's pattern, never the path: label values are a closed set.
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    observer.requests.with_label_values(&[route, method, response.status().as_str()]).inc();
    observer.seconds.with_label_values(&[route]).observe(began.elapsed().as_secs_f64());
    hardened(response)
}

/// Nothing here is a page, or for a cache: the answers are about one caller.
fn hardened(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "PUT" => "PUT",
        "POST" => "POST",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        _ => "other",
    }
}
