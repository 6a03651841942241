//! What the relay's doors tell about themselves. Labels are closed sets and configured names.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use sealpost_service::telemetry::{MetricError, Metrics};
use sealpost_wire::api::relay::ReceiptOutcome;

/// Bucket bounds for the time of a submission.
const ACCEPT_SECONDS: &[f64] =
    &[0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];

/// Counters of the doors, and gauges that are set when they are asked for.
pub(crate) struct DoorMetrics {
    submissions: IntCounterVec,
    /// From the whole body to a durable answer.
    pub(crate) accept_seconds: Histogram,
    receipts: IntCounterVec,
    /// Boxes handed out, each time.
    pub(crate) boxes: IntCounter,
    registrations: IntCounterVec,
    /// Devices that wait for a box.
    pub(crate) waiting_devices: IntGauge,
    /// Streams of events that are open.
    pub(crate) event_streams: IntGauge,
    /// Bytes of the store's files.
    pub(crate) store_bytes: IntGauge,
    /// Age of the newest status, by tenant.
    pub(crate) status_age: IntGaugeVec,
}

impl DoorMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Result<Self, MetricError> {
        let submissions = metrics.counters(
            "sealpost_relay_submissions_total",
            "Submissions that were answered by the store.",
            &["outcome"],
        )?;
        let receipts = metrics.counters(
            "sealpost_relay_receipts_total",
            "Receipts of devices, by what became of them.",
            &["outcome"],
        )?;
        let registrations = metrics.counters(
            "sealpost_relay_registrations_total",
            "Registrations of devices, by what became of them.",
            &["outcome"],
        )?;
        // Shown from the start, so that a first occurrence is a change and not a new series.
        for (counters, outcomes) in [
            (&submissions, ["new", "duplicate", "conflict"].as_slice()),
            (&receipts, &RECEIPTS.map(receipt_label)),
            (&registrations, &["new", "renewed", "refused"]),
        ] {
            outcomes.iter().for_each(|outcome| counters.with_label_values(&[*outcome]).inc_by(0));
        }
        Ok(Self {
            submissions,
            receipts,
            registrations,
            accept_seconds: metrics.histogram(
                "sealpost_relay_accept_seconds",
                "Time from the whole body of a submission to its durable answer.",
                ACCEPT_SECONDS,
            )?,
            boxes: metrics
                .counter("sealpost_relay_boxes_handed_out_total", "Boxes that devices were given.")?,
            waiting_devices: metrics
                .gauge("sealpost_relay_waiting_devices", "Devices that are connected and wait for a box.")?,
            event_streams: metrics
                .gauge("sealpost_relay_event_streams", "Streams of events that are open.")?,
            store_bytes: metrics.gauge("sealpost_relay_store_bytes", "Bytes of the store's files.")?,
            status_age: metrics.gauges(
                "sealpost_relay_status_age_seconds",
                "Age of a tenant's newest status; absent for a tenant that never put one.",
                &["tenant"],
            )?,
        })
    }

    /// A submission was `new`, `duplicate` or `conflict`.
    pub(crate) fn submission(&self, outcome: &str) {
        self.submissions.with_label_values(&[outcome]).inc();
    }

    /// A registration was `new`, `renewed` or `refused`.
    pub(crate) fn registration(&self, outcome: &str) {
        self.registrations.with_label_values(&[outcome]).inc();
    }

    pub(crate) fn receipt(&self, outcome: ReceiptOutcome) {
        self.receipts.with_label_values(&[receipt_label(outcome)]).inc();
    }
}

const RECEIPTS: [ReceiptOutcome; 5] = [
    ReceiptOutcome::Accepted,
    ReceiptOutcome::Duplicate,
    ReceiptOutcome::Late,
    ReceiptOutcome::Unknown,
    ReceiptOutcome::Invalid,
];

const fn receipt_label(outcome: ReceiptOutcome) -> &'static str {
    match outcome {
        ReceiptOutcome::Accepted => "accepted",
        ReceiptOutcome::Duplicate => "duplicate",
        ReceiptOutcome::Late => "late",
        ReceiptOutcome::Unknown => "unknown",
        ReceiptOutcome::Invalid => "invalid",
    }
}
