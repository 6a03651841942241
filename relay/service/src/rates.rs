//! How often one caller may ask: a client or a device that has shown who it is, all of a tenant together, and an
//! address where nobody has shown anything yet.
//!
//! Each has an allowance that comes back evenly (the generic cell rate algorithm). It goes by the machine's
//! monotonic clock: a time of day that is set back must not lock callers out. A request beyond it is refused
//! before it has any effect.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::extract::FromRequestParts;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use http::request::Parts;
use prometheus::IntCounterVec;
use sealpost_wire::id::{DeviceId, SubjectId, TenantId};
use serde::Deserialize;

use crate::access::HasAuthority;
use crate::config::ConfigError;
use crate::problem::{ProblemCode, Refusal};
use crate::server::Peer;
use crate::telemetry::{MetricError, Metrics};

/// An allowance: so many requests at once, which come back evenly over a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Requests at once.
    pub requests: NonZeroU32,
    /// Seconds after which all of them are allowed again.
    pub seconds: NonZeroU32,
}

impl Rate {
    /// So many requests in so many seconds, for constants.
    ///
    /// # Panics
    /// One of them is 0.
    #[must_use]
    pub const fn of(requests: u32, seconds: u32) -> Self {
        match (NonZeroU32::new(requests), NonZeroU32::new(seconds)) {
            (Some(requests), Some(seconds)) => Self { requests, seconds },
            _ => panic!("an allowance of nothing"),
        }
    }

    /// Refuses an allowance that cannot be kept.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn check(self) -> Result<(), ConfigError> {
        let refusal = || ConfigError::Value("rates: no more than a request in a nanosecond".to_owned());
        self.quota().map(|_| ()).ok_or_else(refusal)
    }

    /// One in a nanosecond where the configuration was not checked: more than any server answers.
    fn quota_or_all(self) -> Quota {
        self.quota().unwrap_or(Quota::per_second(self.requests))
    }

    /// Nothing when one request would come back in no time.
    fn quota(self) -> Option<Quota> {
        let one = Duration::from_secs(self.seconds.get().into()) / self.requests.get();
        Some(Quota::with_period(one)?.allow_burst(self.requests))
    }
}

/// Allowances; the `rates` section of a configuration. The defaults are above what one server can do for one
/// caller; where tenants share a server, lower ones keep them from each other's way.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateOptions {
    /// Of a client with an access token: one subject of a tenant.
    pub client: Rate,
    /// Of a device that signs its requests.
    pub device: Rate,
    /// Of all clients and devices of a tenant together.
    pub tenant: Rate,
    /// Of an address (IPv6: a /64 network), where tokens are fetched and tickets claimed.
    pub stranger: Rate,
}

impl Default for RateOptions {
    fn default() -> Self {
        const CLIENT: Rate = Rate::of(100_000, 4);
        const DEVICE: Rate = Rate::of(200, 10);
        const TENANT: Rate = Rate::of(200_000, 4);
        const STRANGER: Rate = Rate::of(3_000, 60);
        Self { client: CLIENT, device: DEVICE, tenant: TENANT, stranger: STRANGER }
    }
}

impl RateOptions {
    /// Refuses allowances that cannot be kept.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn check(&self) -> Result<(), ConfigError> {
        [self.client, self.device, self.tenant, self.stranger].into_iter().try_for_each(Rate::check)
    }
}

/// What callers have left of their allowances.
pub struct Rates {
    clients: Keyed,
    devices: Keyed,
    tenants: HashMap<TenantId, DefaultDirectRateLimiter>,
    strangers: Keyed,
    refused: IntCounterVec,
}

impl Rates {
    /// The allowances of `options`, for `tenants`.
    ///
    /// # Errors
    /// The metrics are registered already.
    pub fn new<'t>(
        options: &RateOptions,
        tenants: impl IntoIterator<Item = &'t TenantId>,
        metrics: &Metrics,
    ) -> Result<Self, MetricError> {
        let refused = metrics.counters(
            "sealpost_rate_limited_total",
            "Requests that were refused because their caller had asked too often, by whose allowance was used up.",
            &["whose"],
        )?;
        for whose in ["client", "device", "tenant", "stranger"] {
            refused.with_label_values(&[whose]).inc_by(0);
        }
        let tenant = |id: &TenantId| (id.clone(), RateLimiter::direct(options.tenant.quota_or_all()));
        Ok(Self {
            clients: Keyed::new(options.client.quota_or_all()),
            devices: Keyed::new(options.device.quota_or_all()),
            tenants: tenants.into_iter().map(tenant).collect(),
            strangers: Keyed::new(options.stranger.quota_or_all()),
            refused,
        })
    }

    /// Allowances of one server's own, beside those of every request: for what is scarce there. `whose` names
    /// them in the metrics.
    #[must_use]
    pub fn allowances(&self, whose: &'static str, rate: Rate) -> Allowances {
        self.refused.with_label_values(&[whose]).inc_by(0);
        Allowances { whose, left: Keyed::new(rate.quota_or_all()), refused: self.refused.clone() }
    }

    /// Takes a request off the allowances of a client and its tenant.
    ///
    /// # Errors
    /// [`ProblemCode::RateLimited`].
    pub fn client(&self, tenant: &TenantId, subject: &SubjectId) -> Result<(), Refusal> {
        self.clients.take((tenant, subject)).map_err(|wait| self.refuse("client", wait))?;
        self.tenant(tenant)
    }

    /// Takes a request off the allowances of a device and its tenant.
    ///
    /// # Errors
    /// [`ProblemCode::RateLimited`].
    pub fn device(&self, tenant: &TenantId, device: DeviceId) -> Result<(), Refusal> {
        self.devices.take((tenant, device)).map_err(|wait| self.refuse("device", wait))?;
        self.tenant(tenant)
    }

    /// Takes a request off the allowance of an address.
    ///
    /// # Errors
    /// [`ProblemCode::RateLimited`].
    pub fn stranger(&self, peer: Peer) -> Result<(), Refusal> {
        self.strangers.take(peer).map_err(|wait| self.refuse("stranger", wait))
    }

    fn tenant(&self, tenant: &TenantId) -> Result<(), Refusal> {
        // Callers are of a tenant that is served here, or they were refused before.
        let Some(limiter) = self.tenants.get(tenant) else { return Ok(()) };
        limiter
            .check()
            .map_err(|until| self.refuse("tenant", until.wait_time_from(DefaultClock::default().now())))
    }

    fn refuse(&self, whose: &str, wait: Duration) -> Refusal {
        refuse(&self.refused, whose, wait)
    }
}

/// Allowances of one server's own; see [`Rates::allowances`].
pub struct Allowances {
    whose: &'static str,
    left: Keyed,
    refused: IntCounterVec,
}

impl Allowances {
    /// Takes one off the allowance of `whose`.
    ///
    /// # Errors
    /// [`ProblemCode::RateLimited`].
    pub fn take(&self, whose: impl Hash) -> Result<(), Refusal> {
        self.left.take(whose).map_err(|wait| refuse(&self.refused, self.whose, wait))
    }
}

impl fmt::Debug for Allowances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allowances").field("whose", &self.whose).finish_non_exhaustive()
    }
}

fn refuse(refused: &IntCounterVec, whose: &str, wait: Duration) -> Refusal {
    refused.with_label_values(&[whose]).inc();
    Refusal::new(ProblemCode::RateLimited).retry_after(whole_seconds(wait))
}

impl fmt::Debug for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rates").finish_non_exhaustive()
    }
}

/// Rounded up: whoever comes after it is not refused for coming too early (RFC 9110 section 10.2.3).
fn whole_seconds(wait: Duration) -> u32 {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX).max(1)
}

/// The caller of a route where nobody has shown who asks. Taking it takes a request off the allowance of its
/// address.
#[derive(Clone, Copy, Debug)]
pub struct Stranger(());

impl<S: HasAuthority> FromRequestParts<S> for Stranger {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let peer = parts.extensions.get().copied().unwrap_or_default();
        state.authority().rates().stranger(peer).map(Self)
    }
}

/// Requests between two looks for callers whose whole allowance has come back.
const SWEEP_EVERY: u32 = 4096;
/// Callers that are remembered, give or take [`SWEEP_EVERY`]. When more of them asked a moment ago, all are
/// forgotten: their number is what has to be stood up to then, not one of them.
const CALLERS_MAX: usize = 131_072;

/// Allowances by caller. One whose allowance is whole again is forgotten: it is as if it had never asked.
///
/// A caller is remembered by a hash under a key of this process: small, and nobody can choose to share another one's
/// allowance.
struct Keyed {
    limiter: ArcSwap<DefaultKeyedRateLimiter<u64>>,
    hash: RandomState,
    quota: Quota,
    requests: AtomicU32,
    callers_max: usize,
}

impl Keyed {
    fn new(quota: Quota) -> Self {
        let limiter = ArcSwap::from_pointee(RateLimiter::keyed(quota));
        let (hash, requests) = (RandomState::new(), AtomicU32::new(0));
        Self { limiter, hash, quota, requests, callers_max: CALLERS_MAX }
    }

    /// Takes a request off the allowance of `caller`; else, how long until it may ask again.
    fn take(&self, caller: impl Hash) -> Result<(), Duration> {
        if self.requests.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            self.sweep();
        }
        let taken = self.limiter.load().check_key(&self.hash.hash_one(caller));
        taken.map_err(|until| until.wait_time_from(DefaultClock::default().now()))
    }

    fn sweep(&self) {
        let limiter = self.limiter.load();
        limiter.retain_recent();
        if limiter.len() > self.callers_max {
            self.limiter.store(Arc::new(RateLimiter::keyed(self.quota)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(requests: u32, seconds: u32) -> Rate {
        Rate::of(requests, seconds)
    }

    fn options(client: Rate, tenant: Rate) -> RateOptions {
        RateOptions { client, device: client, tenant, stranger: client }
    }

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    fn retry_after(refusal: &Refusal) -> u32 {
        use axum::response::IntoResponse as _;
        assert_eq!(refusal.code(), ProblemCode::RateLimited);
        let response = refusal.clone().into_response();
        response.headers()[http::header::RETRY_AFTER].to_str().unwrap().parse().unwrap()
    }

    #[test]
    fn callers_do_not_use_up_each_others_allowance() {
        let (mary, john) = (tenant("st-mary"), tenant("st-john"));
        let metrics = Metrics::new();
        let rates = Rates::new(&options(rate(2, 3600), rate(100, 3600)), [&mary, &john], &metrics).unwrap();
        let (lab, ward) = ("lab".parse().unwrap(), "ward".parse().unwrap());
        for _ in 0..2 {
            assert_eq!(rates.client(&mary, &lab), Ok(()));
            assert_eq!(rates.device(&mary, DeviceId([1; 16])), Ok(()));
            assert_eq!(rates.stranger(Peer::default()), Ok(()));
        }
        let waits = [
            rates.client(&mary, &lab).unwrap_err(),
            rates.device(&mary, DeviceId([1; 16])).unwrap_err(),
            rates.stranger(Peer::default()).unwrap_err(),
        ];
        // One of two comes back in half an hour.
        assert!(waits.iter().all(|wait| (1790..=1800).contains(&retry_after(wait))), "{waits:?}");
        assert_eq!(rates.client(&mary, &ward), Ok(()));
        assert_eq!(rates.client(&john, &lab), Ok(()), "another tenant's");
        assert_eq!(rates.device(&john, DeviceId([1; 16])), Ok(()));
        assert_eq!(rates.stranger(Peer::of([192, 0, 2, 1].into())), Ok(()));
        for whose in ["client", "device", "stranger"] {
            let line = format!("sealpost_rate_limited_total{{whose=\"{whose}\"}} 1");
            assert!(metrics.render().contains(&line), "{line}");
        }
    }

    #[test]
    fn a_tenant_has_one_allowance_for_all_its_callers() {
        let (mary, john) = (tenant("st-mary"), tenant("st-john"));
        let options = options(rate(100, 3600), rate(2, 3600));
        let rates = Rates::new(&options, [&mary, &john], &Metrics::new()).unwrap();
        assert_eq!(rates.client(&mary, &"lab".parse().unwrap()), Ok(()));
        assert_eq!(rates.device(&mary, DeviceId([1; 16])), Ok(()));
        let wait = rates.client(&mary, &"ward".parse().unwrap()).unwrap_err();
        assert!((1790..=1800).contains(&retry_after(&wait)));
        assert_eq!(rates.client(&john, &"lab".parse().unwrap()), Ok(()));
    }

    #[test]
    fn a_server_has_allowances_of_its_own() {
        let metrics = Metrics::new();
        let rates = Rates::new(&RateOptions::default(), &[], &metrics).unwrap();
        let (few, many) = (rates.allowances("few", rate(1, 3600)), rates.allowances("many", rate(2, 3600)));
        assert!(metrics.render().contains("sealpost_rate_limited_total{whose=\"few\"} 0"));
        assert_eq!((few.take(1), many.take(1)), (Ok(()), Ok(())));
        assert!((3590..=3600).contains(&retry_after(&few.take(1).unwrap_err())));
        assert_eq!((few.take(2), many.take(1)), (Ok(()), Ok(())));
        assert!(metrics.render().contains("sealpost_rate_limited_total{whose=\"few\"} 1"));
    }

    #[test]
    fn an_allowance_comes_back() {
        let keyed = Keyed::new(rate(1000, 1).quota().unwrap());
        (0..1000).for_each(|_| keyed.take(1).unwrap_or_default());
        // Whatever this machine does meanwhile, after the wait that was told one request is allowed.
        while let Err(wait) = keyed.take(1) {
            assert!(wait <= Duration::from_millis(1));
            std::thread::yield_now();
        }
    }

    #[test]
    fn callers_are_forgotten_when_they_have_their_allowance_back_and_when_they_are_too_many() {
        let mut keyed = Keyed::new(rate(1_000_000, 1).quota().unwrap());
        (0..SWEEP_EVERY - 1).for_each(|caller| keyed.take(caller).unwrap());
        // A microsecond after it has asked, a caller is as good as new.
        while !keyed.limiter.load().is_empty() {
            keyed.sweep();
        }
        keyed.callers_max = 10;
        keyed.quota = rate(1, 3600).quota().unwrap();
        keyed.limiter = ArcSwap::from_pointee(RateLimiter::keyed(keyed.quota));
        keyed.requests = AtomicU32::new(0);
        (0..SWEEP_EVERY - 1).for_each(|caller| keyed.take(caller).unwrap());
        assert!(keyed.take(0).is_ok(), "more than can be told apart: all were forgotten");
        assert_eq!(keyed.limiter.load().len(), 1);
    }

    #[test]
    fn waits_are_rounded_up() {
        for (wait_ms, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (59_999, 60)] {
            assert_eq!(whole_seconds(Duration::from_millis(wait_ms)), seconds);
        }
    }

    #[test]
    fn allowances_that_cannot_be_kept_are_refused() {
        assert!(RateOptions::default().check().is_ok());
        let fast = RateOptions { device: rate(2_000_000_000, 1), ..RateOptions::default() };
        assert!(fast.check().is_err());
        for bad in
            ["client = { requests = 0, seconds = 1 }", "client = { requests = 1, seconds = 0 }", "other = 1"]
        {
            assert!(toml::from_str::<RateOptions>(bad).is_err(), "{bad}");
        }
    }
}
