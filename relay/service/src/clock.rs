//! The clock of the system, one that never goes back, and one that tests move.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sealpost_wire::clock::{Clock, UnixTime};

/// The time of day of the machine. It may jump, and go back: see [`MonotonicClock`].
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place where a server reads the time of day")]
    fn now_millis(&self) -> u64 {
        // A machine set to before 1970 reads as the epoch.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
    }
}

/// A clock that stands still while the one under it is behind what it has shown: replay windows and expiries
/// that were decided once stay decided when an operator or NTP sets the time back.
///
/// It keeps the largest reading in memory only. [`MonotonicClock::starting_at`] carries one over a restart.
#[derive(Debug, Default)]
pub struct MonotonicClock<C> {
    inner: C,
    shown_millis_max: AtomicU64,
}

impl<C: Clock> MonotonicClock<C> {
    /// Over `inner`, from what it shows now.
    pub const fn new(inner: C) -> Self {
        Self::starting_at(inner, 0)
    }

    /// Over `inner`, and never before `floor_millis`, milliseconds since the Unix epoch.
    pub const fn starting_at(inner: C, floor_millis: u64) -> Self {
        Self { inner, shown_millis_max: AtomicU64::new(floor_millis) }
    }

    /// How far the clock under this one is behind what was shown; zero when it is not.
    pub fn behind(&self) -> Duration {
        let shown = self.shown_millis_max.load(Ordering::Relaxed);
        Duration::from_millis(shown.saturating_sub(self.inner.now_millis()))
    }
}

impl<C: Clock> Clock for MonotonicClock<C> {
    fn now_millis(&self) -> u64 {
        let now = self.inner.now_millis();
        // Relaxed: each reading orders with the others through this one value.
        self.shown_millis_max.fetch_max(now, Ordering::Relaxed).max(now)
    }
}

/// A clock that shows what a test last set; its clones share the reading. It never goes back.
#[derive(Clone, Debug, Default)]
pub struct ManualClock {
    millis: Arc<AtomicU64>,
}

impl ManualClock {
    /// A clock that shows `time`.
    #[must_use]
    pub fn at(time: UnixTime) -> Self {
        Self { millis: Arc::new(AtomicU64::new(time.0.saturating_mul(1000))) }
    }

    /// Moves the clock on by `duration`, to the millisecond.
    pub fn advance(&self, duration: Duration) {
        self.millis.fetch_add(millis(duration), Ordering::Relaxed);
    }

    /// Moves the clock on to `time`; a time that has passed changes nothing.
    pub fn advance_to(&self, time: UnixTime) {
        self.millis.fetch_max(time.0.saturating_mul(1000), Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now_millis(&self) -> u64 {
        self.millis.load(Ordering::Relaxed)
    }
}

/// Whole milliseconds, at most the largest number: 584 million years.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that can be set back, as that of a machine can.
    #[derive(Default)]
    struct Settable(AtomicU64);

    impl Clock for &Settable {
        fn now_millis(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn the_system_clock_shows_this_century() {
        let now = SystemClock.now();
        assert!(now > UnixTime(1_700_000_000) && now < UnixTime(4_100_000_000), "{now:?}");
    }

    #[test]
    fn a_monotonic_clock_stands_still_until_the_one_under_it_has_caught_up() {
        let machine = Settable(AtomicU64::new(10_000));
        let clock = MonotonicClock::new(&machine);
        assert_eq!(clock.now_millis(), 10_000);
        machine.0.store(4_000, Ordering::Relaxed);
        assert_eq!(clock.now_millis(), 10_000);
        assert_eq!(clock.now(), UnixTime(10));
        assert_eq!(clock.behind(), Duration::from_secs(6));
        machine.0.store(10_500, Ordering::Relaxed);
        assert_eq!(clock.now_millis(), 10_500);
        assert_eq!(clock.behind(), Duration::ZERO);
    }

    #[test]
    fn a_monotonic_clock_starts_where_the_last_one_ended() {
        let machine = Settable(AtomicU64::new(10_000));
        assert_eq!(MonotonicClock::starting_at(&machine, 20_000).now_millis(), 20_000);
        assert_eq!(MonotonicClock::starting_at(&machine, 5_000).now_millis(), 10_000);
    }

    #[test]
    fn a_manual_clock_moves_only_forward_and_for_all_its_clones() {
        let clock = ManualClock::at(UnixTime(100));
        let other = clock.clone();
        clock.advance(Duration::from_millis(1_500));
        assert_eq!(other.now_millis(), 101_500);
        clock.advance_to(UnixTime(50));
        assert_eq!(other.now_millis(), 101_500);
        clock.advance_to(UnixTime(200));
        assert_eq!(other.now(), UnixTime(200));
    }
}
