//! Logs and metrics.

mod logs;
mod metrics;

pub use logs::{LogError, LogFormat, LogOptions, LEVEL_VARIABLE, init_logs};
pub use metrics::{METRICS_CONTENT_TYPE, MetricError, Metrics};
