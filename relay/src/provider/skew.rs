//! How far a provider's clock is ahead of this machine's, measured from the `date` header of its answers
//! (RFC 9110, section 6.6.1).
//!
//! A `date` is cut to whole seconds and was written somewhere between the request and its answer:
//!
//! ```text
//! sent ------ date written ------ received      (our clock)
//! date - received  <=  skew  <  date + 1 s - sent
//! ```
//! So each answer bounds the skew. A value within the bounds is kept: it does not wander with every answer.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicI64, Ordering};

use http::{HeaderMap, header};

/// The measured skew of one provider. Shared by what reads its answers and what signs for it.
#[derive(Debug)]
pub(super) struct Skew {
    /// Milliseconds that the provider's clock is ahead; `UNKNOWN` before the first `date`.
    ahead_ms: AtomicI64,
}

impl Skew {
    pub(super) const fn new() -> Self {
        Self { ahead_ms: AtomicI64::new(UNKNOWN) }
    }

    /// Takes note of an answer. `sent_ms` and `received_ms`: our clock before the request and after the
    /// answer, in epoch milliseconds.
    pub(super) fn observe(&self, headers: &HeaderMap, sent_ms: u64, received_ms: u64) {
        let Some(bounds) = date_ms(headers).and_then(|date_ms| bounds(date_ms, sent_ms, received_ms)) else {
            return;
        };
        if !bounds.contains(&self.ahead_ms.load(Ordering::Relaxed)) {
            self.ahead_ms.store(bounds.start().midpoint(*bounds.end()), Ordering::Relaxed);
        }
    }

    /// What the provider's clock shows when ours shows `ours`, in seconds since the Unix epoch. Without a
    /// measurement: the same.
    pub(super) fn theirs(&self, ours: u64) -> u64 {
        match self.ahead_ms.load(Ordering::Relaxed) {
            UNKNOWN => ours,
            ahead_ms => ours.saturating_add_signed(ahead_ms / 1000),
        }
    }

    /// Whole seconds that the provider's clock is ahead of ours; nothing before the first measurement. Less
    /// than one is none: a `date` does not tell more.
    pub(super) fn ahead_s(&self) -> Option<i64> {
        match self.ahead_ms.load(Ordering::Relaxed) {
            UNKNOWN => None,
            ahead_ms => Some(ahead_ms / 1000),
        }
    }
}

fn date_ms(headers: &HeaderMap) -> Option<u64> {
    let date = headers.get(header::DATE)?.to_str().ok()?;
    let since_epoch = httpdate::parse_http_date(date).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    u64::try_from(since_epoch.as_millis()).ok()
}

/// Between what the skew is. Nothing from an answer that was long under way, which says too little, nor when
/// the clock was set back meanwhile.
fn bounds(date_ms: u64, sent_ms: u64, received_ms: u64) -> Option<RangeInclusive<i64>> {
    let took_ms = received_ms.checked_sub(sent_ms)?;
    let date_ms = i64::try_from(date_ms).ok()?;
    let least = date_ms.checked_sub(i64::try_from(received_ms).ok()?)?;
    let most = date_ms.checked_add(DATE_RESOLUTION_MS)?.checked_sub(i64::try_from(sent_ms).ok()?)?;
    (took_ms <= ROUND_TRIP_MS_MAX).then_some(least..=most)
}

const UNKNOWN: i64 = i64::MIN;
const DATE_RESOLUTION_MS: i64 = 1000;
const ROUND_TRIP_MS_MAX: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// 1994-11-06T08:49:37Z.
    const DATE_MS: u64 = 784_111_777_000;

    fn dated(date: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::DATE, date.parse().unwrap())])
    }

    /// The skew after answers with the same `date`, each sent and received so much after it by our clock.
    fn measured(answers: &[(i64, i64)]) -> Option<i64> {
        let skew = Skew::new();
        for (sent_ms, received_ms) in answers {
            let ours = |after_ms: i64| DATE_MS.checked_add_signed(after_ms).unwrap();
            let headers = dated("Sun, 06 Nov 1994 08:49:37 GMT");
            skew.observe(&headers, ours(*sent_ms), ours(*received_ms));
        }
        skew.ahead_s()
    }

    #[test]
    fn skew_is_what_the_date_leaves_possible() {
        assert_eq!(measured(&[]), None);
        assert_eq!(measured(&[(500, 510)]), Some(0));
        assert_eq!(measured(&[(240_000, 240_100)]), Some(-239), "ours is ahead");
        assert_eq!(measured(&[(-240_000, -239_900)]), Some(240), "theirs is ahead");
    }

    #[test]
    fn a_value_within_the_bounds_is_kept_and_another_is_replaced() {
        assert_eq!(measured(&[(500, 510), (0, 10), (980, 990)]), Some(0), "all of them fit");
        assert_eq!(measured(&[(500, 510), (60_000, 60_010)]), Some(-59), "our clock was set ahead");
    }

    #[test]
    fn what_says_nothing_changes_nothing() {
        assert_eq!(measured(&[(0, 10_001)]), None, "too long under way");
        assert_eq!(measured(&[(0, -1)]), None, "set back meanwhile");
        let skew = Skew::new();
        for date in ["", "soon", "0", "Sun, 06 Nov 1994 08:49:37 PST"] {
            skew.observe(&dated(date), DATE_MS, DATE_MS);
        }
        skew.observe(&HeaderMap::new(), DATE_MS, DATE_MS);
        skew.observe(&dated("Sun, 06 Nov 1994 08:49:37 GMT"), u64::MAX, u64::MAX);
        assert_eq!((skew.ahead_s(), skew.theirs(7)), (None, 7));
    }

    #[test]
    fn their_time_is_ours_and_the_skew() {
        let skew = Skew::new();
        skew.observe(&dated("Sun, 06 Nov 1994 08:49:37 GMT"), DATE_MS - 60_500, DATE_MS - 60_500);
        assert_eq!(skew.theirs(1_000), 1_061);
        assert_eq!(skew.theirs(u64::MAX), u64::MAX);
    }
}
