//! What the keyserver counts. Labels are closed sets; tenants are those of the configuration.

use prometheus::{IntCounterVec, IntGaugeVec};
use sealpost_service::telemetry::{MetricError, Metrics};
use sealpost_wire::key_package::MlsSuite;

/// The keyserver's own metrics.
#[derive(Clone, Debug)]
pub struct KeyserverMetrics {
    /// Look-ups: `answered`, `consent_missing`, `not_found`, `failed`.
    pub look_ups: IntCounterVec,
    /// One-time prekeys that look-ups asked for: `taken`, `exhausted`.
    pub one_time_prekeys: IntCounterVec,
    /// Prekeys that devices uploaded, by kind: `signed`, `one_time`.
    pub prekeys_uploaded: IntCounterVec,
    /// Look-ups of key packages: `answered`, `consent_missing`, `not_found`, `failed`.
    pub key_package_look_ups: IntCounterVec,
    /// Key packages that look-ups asked for, by suite: `taken`, `last_resort`, `exhausted`.
    pub key_packages: IntCounterVec,
    /// Key packages that devices uploaded, by suite and kind: `one_time`, `last_resort`.
    pub key_packages_uploaded: IntCounterVec,
    /// One-time key packages that wait, by suite.
    pub key_packages_waiting: IntGaugeVec,
    /// Claims of tickets: `new`, `again`, `second`, `refused`.
    pub claims: IntCounterVec,
    /// Device sets: `new`, `again`, `conflict`, `refused`.
    pub device_sets: IntCounterVec,
    /// Rows that were forgotten: `ticket`, `batch`, `key_package_upload`, `assertion`.
    pub expired: IntCounterVec,
    /// Age of each tenant's newest status; -1 for a tenant that never put one.
    pub status_age: IntGaugeVec,
}

impl KeyserverMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// They are registered already.
    pub fn register(metrics: &Metrics) -> Result<Self, MetricError> {
        let outcome = ["outcome"];
        Ok(Self {
            look_ups: metrics.counters(
                "sealpost_keyserver_look_ups_total",
                "Look-ups of recipients, by what came of them.",
                &outcome,
            )?,
            one_time_prekeys: metrics.counters(
                "sealpost_keyserver_one_time_prekeys_total",
                "One-time prekeys that look-ups asked for: taken, or exhausted.",
                &outcome,
            )?,
            prekeys_uploaded: metrics.counters(
                "sealpost_keyserver_prekeys_uploaded_total",
                "Prekeys that devices uploaded.",
                &["kind"],
            )?,
            key_package_look_ups: metrics.counters(
                "sealpost_keyserver_key_package_look_ups_total",
                "Look-ups of recipients for a group, by what came of them.",
                &outcome,
            )?,
            key_packages: metrics.counters(
                "sealpost_keyserver_key_packages_total",
                "Key packages that look-ups asked for: taken, a last resort, or exhausted.",
                &["suite", "outcome"],
            )?,
            key_packages_uploaded: metrics.counters(
                "sealpost_keyserver_key_packages_uploaded_total",
                "Key packages that devices uploaded.",
                &["suite", "kind"],
            )?,
            key_packages_waiting: metrics.gauges(
                "sealpost_keyserver_key_packages_waiting",
                "One-time key packages that wait to be taken, of all devices.",
                &["suite"],
            )?,
            claims: metrics.counters(
                "sealpost_keyserver_ticket_claims_total",
                "Claims of tickets; a second one for a ticket means that its secret may have leaked.",
                &outcome,
            )?,
            device_sets: metrics.counters(
                "sealpost_keyserver_device_sets_total",
                "Device sets that were put, by what came of them.",
                &outcome,
            )?,
            expired: metrics.counters(
                "sealpost_keyserver_expired_total",
                "Rows that were forgotten because their time was over.",
                &["kind"],
            )?,
            status_age: metrics.gauges(
                "sealpost_tenant_status_age_seconds",
                "Age of the newest tenant status; -1 where there is none.",
                &["tenant"],
            )?,
        })
    }
}

/// A suite of MLS, as metrics name it.
#[must_use]
pub const fn suite_label(suite: MlsSuite) -> &'static str {
    match suite {
        MlsSuite::Classical => "classical",
        MlsSuite::Hybrid => "hybrid",
    }
}
