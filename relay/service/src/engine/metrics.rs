//! What an engine tells about itself.

use prometheus::{Histogram, IntCounterVec, IntGauge};

use super::EngineError;
use crate::telemetry::{MetricError, Metrics};

/// Bucket bounds for commands in a group.
const GROUP_COMMANDS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// Bucket bounds for bytes in a group.
const GROUP_BYTES: &[f64] = &[1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0];

/// Bucket bounds for a commit: a good disk syncs in 0.1 ms, a bad one in 50.
const COMMIT_SECONDS: &[f64] =
    &[0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0];

pub(super) struct EngineMetrics {
    pub(super) commands: IntCounterVec,
    refused: IntCounterVec,
    pub(super) group_commands: Histogram,
    pub(super) group_bytes: Histogram,
    pub(super) commit_seconds: Histogram,
    pub(super) queue_commands: IntGauge,
    pub(super) free_bytes: IntGauge,
}

impl EngineMetrics {
    pub(super) fn register(metrics: &Metrics) -> Result<Self, MetricError> {
        Ok(Self {
            commands: metrics.counters(
                "sealpost_store_commands_total",
                "Commands that the store has run: done, declined by their own rules, or failed.",
                &["command", "outcome"],
            )?,
            refused: metrics.counters(
                "sealpost_store_refused_total",
                "Commands that the store has not run.",
                &["reason"],
            )?,
            group_commands: metrics.histogram(
                "sealpost_store_group_commands",
                "Commands that shared one commit.",
                GROUP_COMMANDS,
            )?,
            group_bytes: metrics.histogram(
                "sealpost_store_group_bytes",
                "Bytes of keys and values in one commit.",
                GROUP_BYTES,
            )?,
            commit_seconds: metrics.histogram(
                "sealpost_store_commit_seconds",
                "Time from a decided group to a durable and visible one.",
                COMMIT_SECONDS,
            )?,
            queue_commands: metrics
                .gauge("sealpost_store_queue_commands", "Commands that waited when the store last looked.")?,
            free_bytes: metrics
                .gauge("sealpost_store_free_bytes", "Free bytes of the file system that holds the store.")?,
        })
    }

    pub(super) fn refused(&self, error: &EngineError) {
        let reason = match error {
            EngineError::Busy => "busy",
            EngineError::NoSpace => "no_space",
            EngineError::Stopped => "stopped",
            EngineError::Panicked(_) | EngineError::Read(_) | EngineError::Failed(_) => "failed",
        };
        self.refused.with_label_values(&[reason]).inc();
    }
}
