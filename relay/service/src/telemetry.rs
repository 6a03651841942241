//! Logs and metrics.

mod logs;
mod metrics;

pub use logs::{LEVEL_VARIABLE, LogError, LogFormat, LogOptions, init_logs};
pub use metrics::{METRICS_CONTENT_TYPE, MetricError, Metrics};
