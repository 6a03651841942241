//! What pushing tells about itself. Labels are the configured apps and closed sets.

use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use sealpost_service::telemetry::{MetricError, Metrics};
use sealpost_wire::payload::Priority;

use super::breaker::BreakerState;
use crate::provider::{FollowedClient, Outcome};
use crate::store::LaneState;

/// Bucket bounds for the time a provider takes.
const PUSH_SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Bucket bounds for the time from due to accepted.
const DELAY_SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0];

pub(super) struct PushMetrics {
    pushes: IntCounterVec,
    seconds: HistogramVec,
    delay: HistogramVec,
    in_flight: IntGaugeVec,
    ready: IntGaugeVec,
    oldest: IntGaugeVec,
    paused: IntGaugeVec,
    breaker: IntGaugeVec,
    breaker_opened: IntCounterVec,
    connections: IntGaugeVec,
    clock_ahead: IntGaugeVec,
    refused: IntGaugeVec,
    reloads: ReloadMetrics,
}

impl PushMetrics {
    pub(super) fn register(metrics: &Metrics) -> Result<Self, MetricError> {
        Ok(Self {
            pushes: metrics.counters(
                "sealpost_relay_pushes_total",
                "Stubs that providers answered, by what they said.",
                &["app", "priority", "outcome", "reason"],
            )?,
            seconds: metrics.histograms(
                "sealpost_relay_push_seconds",
                "Time that a provider took for a stub, retries of the client included.",
                &["app"],
                PUSH_SECONDS,
            )?,
            delay: metrics.histograms(
                "sealpost_relay_push_delay_seconds",
                "Time from a due push to its acceptance by the provider.",
                &["app", "priority"],
                DELAY_SECONDS,
            )?,
            in_flight: metrics.gauges(
                "sealpost_relay_pushes_in_flight",
                "Stubs that providers have not answered yet.",
                &["app", "priority"],
            )?,
            ready: metrics.gauges(
                "sealpost_relay_push_jobs_ready",
                "Due pushes that wait in memory for their lane's worker.",
                &["app", "priority"],
            )?,
            oldest: metrics.gauges(
                "sealpost_relay_push_oldest_due_seconds",
                "How long the oldest due push of a lane has waited, in whole seconds.",
                &["app", "priority"],
            )?,
            paused: metrics.gauges(
                "sealpost_relay_push_paused",
                "1 while an app's credential fails and its lanes pause.",
                &["app"],
            )?,
            breaker: metrics.gauges(
                "sealpost_relay_push_breaker",
                "1 for the state of a lane's circuit breaker: closed lets pushes through.",
                &["app", "priority", "state"],
            )?,
            breaker_opened: metrics.counters(
                "sealpost_relay_push_breaker_opened_total",
                "Pauses of a lane because its provider failed.",
                &["app", "priority"],
            )?,
            connections: metrics.gauges(
                "sealpost_relay_provider_connections",
                "Open connections to the provider of an app.",
                &["app"],
            )?,
            clock_ahead: metrics.gauges(
                "sealpost_relay_provider_clock_ahead_seconds",
                "How far the clock of an app's provider is ahead of this machine's; absent until it tells.",
                &["app"],
            )?,
            refused: metrics.gauges(
                "sealpost_relay_provider_files_refused",
                "1 while an app's files make no client of its provider, and the one before them serves.",
                &["app"],
            )?,
            reloads: ReloadMetrics(metrics.counters(
                "sealpost_relay_provider_reloads_total",
                "Changes of an app's files that were taken over (replaced) or not (refused).",
                &["app", "outcome"],
            )?),
        })
    }

    /// The metrics of changed files.
    pub(super) fn reloads(&self) -> ReloadMetrics {
        self.reloads.clone()
    }

    /// The metrics of one lane.
    pub(super) fn lane(&self, app: &str, priority: Priority) -> LaneMetrics {
        let labels = [app, priority.name()];
        // Shown from the start, as far as it will always come.
        self.pushes.with_label_values(&[app, priority.name(), "accepted", ""]).inc_by(0);
        LaneMetrics {
            app: app.to_owned(),
            priority,
            pushes: self.pushes.clone(),
            seconds: self.seconds.with_label_values(&[app]),
            delay: self.delay.with_label_values(&labels),
            in_flight: self.in_flight.with_label_values(&labels),
            ready: self.ready.with_label_values(&labels),
            oldest: self.oldest.with_label_values(&labels),
            breaker: BreakerState::ALL
                .map(|state| self.breaker.with_label_values(&[app, priority.name(), state.label()])),
            breaker_opened: self.breaker_opened.with_label_values(&labels),
        }
    }

    pub(super) fn refresh_app(&self, app: &str, is_paused: bool, client: &FollowedClient) {
        let (stats, clock_ahead_s) = (client.stats(), client.clock_ahead_s());
        self.refused.with_label_values(&[app]).set(i64::from(client.is_refused()));
        self.paused.with_label_values(&[app]).set(i64::from(is_paused));
        let connections = i64::try_from(stats.open).unwrap_or(i64::MAX);
        self.connections.with_label_values(&[app]).set(connections);
        if let Some(ahead_s) = clock_ahead_s {
            self.clock_ahead.with_label_values(&[app]).set(ahead_s);
        }
    }
}

/// The metrics of changed files.
#[derive(Clone)]
pub(super) struct ReloadMetrics(IntCounterVec);

impl ReloadMetrics {
    pub(super) fn replaced(&self, app: &str) {
        self.0.with_label_values(&[app, "replaced"]).inc();
    }

    pub(super) fn refused(&self, app: &str) {
        self.0.with_label_values(&[app, "refused"]).inc();
    }
}

/// The metrics of one lane.
pub(super) struct LaneMetrics {
    app: String,
    priority: Priority,
    pushes: IntCounterVec,
    seconds: Histogram,
    delay: Histogram,
    in_flight: IntGauge,
    ready: IntGauge,
    oldest: IntGauge,
    /// In the order of [`BreakerState::ALL`].
    breaker: [IntGauge; 3],
    breaker_opened: IntCounter,
}

impl LaneMetrics {
    pub(super) fn answered(&self, outcome: &Outcome, took: Duration) {
        let labels = [self.app.as_str(), self.priority.name(), outcome.label(), outcome.reason_label()];
        self.pushes.with_label_values(&labels).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    pub(super) fn delay(&self, delay: Duration) {
        self.delay.observe(delay.as_secs_f64());
    }

    pub(super) fn in_flight(&self, count: usize) {
        self.in_flight.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(super) fn breaker(&self, state: BreakerState) {
        for (gauge, shown) in self.breaker.iter().zip(BreakerState::ALL) {
            gauge.set(i64::from(shown == state));
        }
    }

    pub(super) fn breaker_opened(&self) {
        self.breaker_opened.inc();
    }

    pub(super) fn refresh(&self, state: LaneState, now_ms: u64) {
        self.ready.set(i64::try_from(state.ready).unwrap_or(i64::MAX));
        let waited = state.oldest_due_ms.map_or(0, |due| now_ms.saturating_sub(due));
        self.oldest.set(i64::try_from(waited / 1000).unwrap_or(i64::MAX));
    }
}
