//! Counts of deliveries, kept in memory as they change.

use prometheus::{IntCounter, IntGauge};
use sealpost_service::telemetry::{MetricError, Metrics};
use sealpost_wire::delivery::DeliveryState;

/// States of deliveries.
pub(super) struct StoreMetrics {
    /// Changes into each state, in the order of [`DeliveryState::ALL`].
    changes: Vec<IntCounter>,
    /// Deliveries whose box waits, by state, in the same order as far as boxes are kept.
    waiting: Vec<IntGauge>,
}

impl StoreMetrics {
    pub(super) fn register(metrics: &Metrics) -> Result<Self, MetricError> {
        let changes = metrics.counters(
            "sealpost_relay_delivery_changes_total",
            "Changes of deliveries, by the state that they came into.",
            &["state"],
        )?;
        let waiting = metrics.gauges(
            "sealpost_relay_waiting_deliveries",
            "Deliveries whose box the relay keeps, by state.",
            &["state"],
        )?;
        let keeping = DeliveryState::ALL.into_iter().filter(|state| state.keeps_box());
        Ok(Self {
            changes: DeliveryState::ALL.map(|state| changes.with_label_values(&[state.name()])).into(),
            waiting: keeping.map(|state| waiting.with_label_values(&[state.name()])).collect(),
        })
    }

    /// A delivery came from one state into another.
    pub(super) fn changed(&self, from: Option<DeliveryState>, to: DeliveryState) {
        if let Some(counter) = self.changes.get(usize::from(to.code())) {
            counter.inc();
        }
        if let Some(gauge) = from.and_then(|from| self.waiting(from)) {
            gauge.dec();
        }
        if let Some(gauge) = self.waiting(to) {
            gauge.inc();
        }
    }

    /// Deliveries that were there when the store was opened.
    pub(super) fn found(&self, state: DeliveryState, count: i64) {
        if let Some(gauge) = self.waiting(state) {
            gauge.add(count);
        }
    }

    /// The states that keep a box come first, and their numbers are dense.
    fn waiting(&self, state: DeliveryState) -> Option<&IntGauge> {
        self.waiting.get(usize::from(state.code()))
    }
}
