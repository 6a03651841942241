//! What the relay's doors tell about themselves. Labels are closed sets and configured names.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use sealpost_service::telemetry::{MetricError, Metrics};
use sealpost_wire::api::relay::ReceiptOutcome;

use crate::store::SlotRefusal;

/// Bucket bounds for the time of a submission.
const ACCEPT_SECONDS: &[f64] =
    &[0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];

/// Counters of the doors, and gauges that are set when they are asked for.
pub(crate) struct DoorMetrics {
    submissions: IntCounterVec,
    slot_claims: IntCounterVec,
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
        let slot_claims = metrics.counters(
            "sealpost_relay_slot_claims_total",
            "Claims of submissions on slots, by what became of them.",
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
            (&submissions, ["new", "duplicate", "conflict", "slot_refused"].as_slice()),
            (&slot_claims, &CLAIMS.map(ClaimOutcome::label)),
            (&receipts, &RECEIPTS.map(receipt_label)),
            (&registrations, &["new", "renewed", "refused"]),
        ] {
            outcomes.iter().for_each(|outcome| counters.with_label_values(&[*outcome]).inc_by(0));
        }
        Ok(Self {
            submissions,
            slot_claims,
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

    /// A submission was `new`, `duplicate`, `conflict` or `slot_refused`.
    pub(crate) fn submission(&self, outcome: &str) {
        self.submissions.with_label_values(&[outcome]).inc();
    }

    pub(crate) fn slot_claim(&self, outcome: ClaimOutcome) {
        self.slot_claims.with_label_values(&[outcome.label()]).inc();
    }

    /// A registration was `new`, `renewed` or `refused`.
    pub(crate) fn registration(&self, outcome: &str) {
        self.registrations.with_label_values(&[outcome]).inc();
    }

    pub(crate) fn receipt(&self, outcome: ReceiptOutcome) {
        self.receipts.with_label_values(&[receipt_label(outcome)]).inc();
    }
}

/// What became of a claim on a slot.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ClaimOutcome {
    /// It made the slot.
    Made,
    /// It won the slot's next place.
    Won,
    /// It did not win.
    Refused(SlotRefusal),
}

impl ClaimOutcome {
    const fn label(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::Won => "won",
            Self::Refused(SlotRefusal::Conflict) => "conflict",
            Self::Refused(SlotRefusal::Unknown) => "unknown",
            Self::Refused(SlotRefusal::Forbidden) => "forbidden",
            Self::Refused(SlotRefusal::Full) => "full",
        }
    }
}

const CLAIMS: [ClaimOutcome; 6] = [
    ClaimOutcome::Made,
    ClaimOutcome::Won,
    ClaimOutcome::Refused(SlotRefusal::Conflict),
    ClaimOutcome::Refused(SlotRefusal::Unknown),
    ClaimOutcome::Refused(SlotRefusal::Forbidden),
    ClaimOutcome::Refused(SlotRefusal::Full),
];

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
