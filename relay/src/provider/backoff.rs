//! Exponential backoff with jitter.

use std::time::Duration;

/// The wait before attempt `failures` + 1, after `failures` failures in a row: `first` doubled at each, at most
/// `max`, plus up to a quarter of it by `jitter` (uniformly random), so that what failed together does not come
/// back together. The jitter only adds: a wait that a provider asked for is never shortened.
#[must_use]
pub fn delay(first: Duration, max: Duration, failures: u32, jitter: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(DOUBLINGS_MAX);
    let wait = first.saturating_mul(1 << doublings).min(max.max(first));
    wait.saturating_add((wait / 4).mul_f64(f64::from(jitter) / f64::from(u32::MAX)))
}

/// Randomness for the waits of the clients' own connections. The outcomes carry none: their waits are the caller's.
#[expect(
    clippy::disallowed_methods,
    reason = "spreads reconnects over time; no key and no decision depends on it"
)]
pub(super) fn jitter() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness there is no jitter; the wait is as long as asked for.
    let _no_jitter = getrandom::fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}

const DOUBLINGS_MAX: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_limit_and_never_waits_less_than_asked() {
        let (first, max) = (Duration::from_secs(10), Duration::from_secs(60));
        let waits: Vec<u64> = (1..=5).map(|n| delay(first, max, n, 0).as_secs()).collect();
        assert_eq!(waits, [10, 20, 40, 60, 60]);
        assert_eq!(delay(first, max, 0, 0), first);
        assert_eq!(delay(first, max, 1, u32::MAX), Duration::from_millis(12_500));
        assert_eq!(delay(first, Duration::from_secs(1), 9, 0), first, "a wait that was asked for");
        assert!(delay(Duration::MAX, Duration::MAX, u32::MAX, u32::MAX) >= max);
    }
}
