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
        // Fails only on a metric family without metrics or a writer that fails: a registry has none, a vector
        // does not.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rule<T>(made: &Result<T, MetricError>) -> &'static str {
        match made {
            Err(MetricError::Rule { rule, .. }) => rule,
            Err(MetricError::Registry { .. }) => "the registry",
            Ok(_) => "none",
        }
    }

    #[test]
    fn names_and_help_that_promtool_would_refuse_are_refused() {
        let metrics = Metrics::new();
        assert!(rule(&metrics.counter("relay_pushes_total", "Pushes.")).contains("sealpost_"));
        assert!(rule(&metrics.counter("sealpost_Pushes_total", "Pushes.")).contains("lower case"));
        assert!(rule(&metrics.counter("sealpost_pushes", "Pushes.")).contains("_total"));
        assert!(rule(&metrics.gauge("sealpost_queue_total", "Queue.")).contains("_total"));
        assert!(rule(&metrics.gauge("sealpost_queue_count", "Queue.")).contains("reserved"));
        assert!(rule(&metrics.histogram("sealpost_push_ms", "Time.", &[1.0])).contains("base unit"));
        assert!(rule(&metrics.gauge_f64("sealpost_uptime_hours", "Time.")).contains("base unit"));
        assert!(rule(&metrics.gauges("sealpost_queue_jobs", " ", &["lane"])).contains("help"));
        assert_eq!(metrics.render(), "", "nothing was registered");
    }

    #[test]
    fn a_name_is_given_once() {
        let metrics = Metrics::new();
        assert_eq!(rule(&metrics.counter("sealpost_pushes_total", "Pushes.")), "none");
        assert_eq!(rule(&metrics.counter("sealpost_pushes_total", "Pushes.")), "the registry");
    }

    #[test]
    fn what_was_counted_is_rendered_with_its_help_and_type() {
        let metrics = Metrics::new();
        let pushes = metrics.counters("sealpost_pushes_total", "Pushes by provider.", &["provider"]).unwrap();
        pushes.with_label_values(&["apns"]).inc_by(3);
        let bounds = &[0.01, 0.1];
        let seconds = metrics.histograms("sealpost_push_seconds", "Time.", &["provider"], bounds).unwrap();
        seconds.with_label_values(&["fcm"]).observe(0.05);
        let text = metrics.render();
        for line in [
            "# HELP sealpost_pushes_total Pushes by provider.",
            "# TYPE sealpost_pushes_total counter",
            "sealpost_pushes_total{provider=\"apns\"} 3",
            "sealpost_push_seconds_bucket{provider=\"fcm\",le=\"0.01\"} 0",
            "sealpost_push_seconds_bucket{provider=\"fcm\",le=\"0.1\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_process_shows_its_memory_and_time() {
        let text = Metrics::for_process().unwrap().render();
        for name in ["process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"] {
            assert!(text.contains(name), "{name} is not in\n{text}");
        }
    }
}
