//! Metrics in the Prometheus text format, named as `promtool check metrics` wants them.

use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder, core::Collector, process_collector::ProcessCollector,
};

/// What every metric of this project begins with.
const NAMESPACE: &str = "sealpost_";

/// Content type of [`Metrics::render`].
pub const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Endings that say a type or belong to the parts of a histogram.
const RESERVED_ENDINGS: &[&str] =
    &["_count", "_sum", "_bucket", "_counter", "_gauge", "_histogram", "_summary"];

/// Words of a name that are units, but not base units.
const OTHER_UNITS: &[&str] = &[
    "milliseconds",
    "microseconds",
    "nanoseconds",
    "minutes",
    "hours",
    "days",
    "ms",
    "us",
    "ns",
    "s",
    "kilobytes",
    "megabytes",
    "kib",
    "mib",
    "gib",
    "kb",
    "mb",
    "gb",
    "bits",
    "percent",
];

/// The metrics of one process, or of one test.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
}

/// Why a metric cannot be had. A mistake in the program: no retry helps.
#[derive(Debug, thiserror::Error)]
pub enum MetricError {
    /// The name or help text breaks a rule.
    #[error("metric {name}: {rule}")]
    Rule {
        /// Name of the metric.
        name: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// The registry refuses it: a name given twice, or labels that cannot be.
    #[error("metric {name}: {source}")]
    Registry {
        /// Name of the metric.
        name: String,
        /// What the registry says.
        source: prometheus::Error,
    },
}

impl Metrics {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self { registry: Registry::new() }
    }

    /// A registry with the metrics of this process: processor time, memory, open files, start.
    ///
    /// # Errors
    /// Never on Linux; elsewhere the process cannot be observed.
    pub fn for_process() -> Result<Self, MetricError> {
        let metrics = Self::new();
        metrics.register("process", ProcessCollector::for_self())?;
        Ok(metrics)
    }

    /// A counter; its name ends in `_total`.
    ///
    /// # Errors
    /// See [`MetricError`]; so for all kinds.
    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter, MetricError> {
        check(name, help, Kind::Counter)?;
        self.made(name, IntCounter::new(name, help))
    }

    /// Counters by label. Label values must come from a closed set: never ids, never what a client sent.
    ///
    /// # Errors
    /// See [`MetricError`].
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, MetricError> {
        check(name, help, Kind::Counter)?;
        self.made(name, IntCounterVec::new(Opts::new(name, help), labels))
    }

    /// A gauge of whole numbers.
    ///
    /// # Errors
    /// See [`MetricError`].
    pub fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, MetricError> {
        check(name, help, Kind::Other)?;
        self.made(name, IntGauge::new(name, help))
    }

    /// A gauge of fractions, such as seconds.
    ///
    /// # Errors
    /// See [`MetricError`].
    pub fn gauge_f64(&self, name: &str, help: &str) -> Result<Gauge, MetricError> {
        check(name, help, Kind::Other)?;
        self.made(name, Gauge::new(name, help))
    }

    /// Gauges of whole numbers by label.
    ///
    /// # Errors
    /// See [`MetricError`].
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, MetricError> {
        check(name, help, Kind::Other)?;
        self.made(name, IntGaugeVec::new(Opts::new(name, help), labels))
    }

    /// A histogram with the given upper bounds, ascending, in the unit of its name.
    ///
    /// # Errors
    /// See [`MetricError`].
    pub fn histogram(&self, name: &str, help: &str, bounds: &[f64]) -> Result<Histogram, MetricError> {
        check(name, help, Kind::Other)?;
        self.made(name, Histogram::with_opts(HistogramOpts::new(name, help).buckets(bounds.to_vec())))
    }

    /// Histograms by label.
    ///
    /// # Errors
    /// See [`MetricError`].
    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        bounds: &[f64],
    ) -> Result<HistogramVec, MetricError> {
        check(name, help, Kind::Other)?;
        self.made(name, HistogramVec::new(HistogramOpts::new(name, help).buckets(bounds.to_vec()), labels))
    }

    /// All metrics in the text format, version 0.0.4; serve it as [`METRICS_CONTENT_TYPE`].
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        // Fails only on a metric family without metrics or a writer that fails: a registry has none, a vector does not.
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::warn!(%error, "rendering the metrics failed");
        }
        String::from_utf8(text).unwrap_or_default()
    }

    fn made<C: Collector + Clone + 'static>(
        &self,
        name: &str,
        collector: prometheus::Result<C>,
    ) -> Result<C, MetricError> {
        let collector = collector.map_err(|source| MetricError::Registry { name: name.into(), source })?;
        self.register(name, collector.clone())?;
        Ok(collector)
    }

    fn register(&self, name: &str, collector: impl Collector + 'static) -> Result<(), MetricError> {
        let registered = self.registry.register(Box::new(collector));
        registered.map_err(|source| MetricError::Registry { name: name.into(), source })
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Other,
}

/// The rules of `promtool check metrics`, and that a name says whose it is.
fn check(name: &str, help: &str, kind: Kind) -> Result<(), MetricError> {
    let refuse = |rule| Err(MetricError::Rule { name: name.into(), rule });
    if !name.starts_with(NAMESPACE) {
        return refuse("the name does not begin with sealpost_");
    }
    if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
        return refuse("the name is not in lower case with underscores");
    }
    if name.ends_with("_total") != (kind == Kind::Counter) {
        return refuse("counters, and only they, end in _total");
    }
    if RESERVED_ENDINGS.iter().any(|ending| name.ends_with(ending)) {
        return refuse("the name ends in a word that is reserved");
    }
    if name.split('_').any(|word| OTHER_UNITS.contains(&word)) {
        return refuse("the unit is not a base unit (seconds, bytes)");
    }
    if help.trim().is_empty() {
        return refuse("there is no help text");
    }
    Ok(())
}
