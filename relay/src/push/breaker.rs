//! A circuit breaker: open while what it guards fails, then half open for one push at a time until one gets through.
//!
//! ```text
//! closed --failures in a row--> open --pause--> half open --success--> closed
//!                                 ^---- failure -----'
//! ```
//! An app has one for its credential, and each of its lanes has one for the provider. While one is open, jobs wait in
//! the store, and no attempt of theirs is spent.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::provider::backoff;

/// Lets pushes begin, or not.
#[derive(Debug)]
pub(super) struct Breaker {
    guarded: Guarded,
    state: Mutex<State>,
    closed: Notify,
}

/// What a breaker guards: how it opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Guarded {
    /// Failures in a row that open it.
    failures_max: u32,
    /// The longest pause that is asked for and believed.
    asked_max: Duration,
    /// Whether each push that fails when it is half open doubles the pause, up to [`DOUBLED_PAUSE_MAX`].
    doubles: bool,
}

/// Whether a breaker lets pushes begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BreakerState {
    /// All of them.
    Closed,
    /// None.
    Open,
    /// One at a time.
    HalfOpen,
}

#[derive(Debug)]
enum State {
    Closed {
        /// When it closed: what began before says nothing of what made it close.
        since: Instant,
        /// Failures since the last success.
        failures: u32,
    },
    Open {
        /// When it opened, or was found to be rightly open: what began before says nothing new.
        since: Instant,
        until: Instant,
        /// Pauses in a row.
        pauses: u32,
    },
}

impl Breaker {
    /// For the credential of an app: a single refusal opens it, since every push will fail alike. The client says how
    /// long it pauses; it backs off by itself.
    pub(super) fn of_credential() -> Self {
        Self::new(Guarded { failures_max: 1, asked_max: CREDENTIAL_PAUSE_MAX, doubles: false })
    }

    /// For the provider, as one lane sees it.
    pub(super) fn of_provider() -> Self {
        Self::new(Guarded { failures_max: PROVIDER_FAILURES_MAX, asked_max: Duration::MAX, doubles: true })
    }

    fn new(guarded: Guarded) -> Self {
        let state = State::Closed { since: Instant::now(), failures: 0 };
        Self { guarded, state: Mutex::new(state), closed: Notify::new() }
    }

    /// How many pushes of a lane may be in flight, of `max`.
    pub(super) fn limit(&self, max: usize) -> usize {
        match self.state() {
            BreakerState::Closed => max,
            BreakerState::HalfOpen => max.min(1),
            BreakerState::Open => 0,
        }
    }

    /// How long nothing may begin; nothing while it is closed.
    pub(super) fn pause_left(&self) -> Option<Duration> {
        match &*self.lock() {
            State::Closed { .. } => None,
            State::Open { until, .. } => Some(until.saturating_duration_since(Instant::now())),
        }
    }

    /// Whether it lets pushes begin.
    pub(super) fn state(&self) -> BreakerState {
        match &*self.lock() {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { until, .. } if *until <= Instant::now() => BreakerState::HalfOpen,
            State::Open { .. } => BreakerState::Open,
        }
    }

    /// A push that began at `began` has failed, and the next one is to come no sooner than `asked` if this opens the
    /// breaker, or finds it rightly open. Returns the pause if it does. `jitter` is uniformly random.
    pub(super) fn failed(&self, began: Instant, asked: Duration, jitter: u32) -> Option<Duration> {
        let now = Instant::now();
        let first = asked.min(self.guarded.asked_max).max(PAUSE_MIN);
        let mut state = self.lock();
        let pauses = match &mut *state {
            State::Closed { since, .. } if began < *since => return None,
            State::Closed { failures, .. } => {
                *failures = failures.saturating_add(1);
                if *failures < self.guarded.failures_max {
                    return None;
                }
                1
            }
            // It was in flight when the breaker opened: the provider may still ask for a longer pause.
            State::Open { since, until, .. } if began <= *since => {
                *until = (*until).max(now + first);
                return None;
            }
            State::Open { pauses, .. } => pauses.saturating_add(1),
        };
        let pause = match self.guarded.doubles {
            true => backoff::delay(first, DOUBLED_PAUSE_MAX, pauses, jitter),
            false => first,
        };
        *state = State::Open { since: now, until: now + pause, pauses };
        Some(pause)
    }

    /// A push got an answer that shows that what is guarded works, or it is another one now. Returns whether this closed the
    /// breaker.
    pub(super) fn succeeded(&self) -> bool {
        let mut state = self.lock();
        if let State::Closed { failures, .. } = &mut *state {
            *failures = 0;
            return false;
        }
        *state = State::Closed { since: Instant::now(), failures: 0 };
        drop(state);
        self.closed.notify_waiters();
        true
    }

    /// Comes when an open breaker is half open, and when a half open one closes.
    pub(super) async fn changed(&self) {
        let closed = self.closed.notified();
        let until = match &*self.lock() {
            State::Closed { .. } => return,
            State::Open { until, .. } => *until,
        };
        if until <= Instant::now() {
            return closed.await;
        }
        tokio::select! {
            () = closed => {}
            () = tokio::time::sleep_until(until) => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A state is replaced as a whole: a poisoned lock guards a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BreakerState {
    pub(super) const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// Its metric label.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// Failures in a row after which a lane spares its provider. Below what is in flight of a busy lane, so that a provider
/// that is gone costs one attempt of each push in flight and no more; above what a provider's hiccup takes.
const PROVIDER_FAILURES_MAX: u32 = 10;
/// No pause is shorter, whatever the client says.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// While a provider is down, a lane asks at least this often whether it is back, unless the provider named a later time.
const DOUBLED_PAUSE_MAX: Duration = Duration::from_secs(60);
/// And while a credential fails, whatever the provider says: an operator who has mended it does not wait for hours.
const CREDENTIAL_PAUSE_MAX: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;
    use BreakerState::{Closed, HalfOpen, Open};

    const SECOND: Duration = Duration::from_secs(1);

    fn fail(breaker: &Breaker, asked: Duration) -> Option<Duration> {
        breaker.failed(Instant::now(), asked, 0)
    }

    #[tokio::test(start_paused = true)]
    async fn one_refusal_of_the_credential_opens_it_and_after_the_pause_one_push_tries() {
        let breaker = Breaker::of_credential();
        assert_eq!((breaker.limit(9), breaker.state()), (9, Closed));
        assert_eq!(breaker.pause_left(), None);
        assert_eq!(fail(&breaker, SECOND * 5), Some(SECOND * 5));
        assert_eq!((breaker.limit(9), breaker.state(), breaker.pause_left()), (0, Open, Some(SECOND * 5)));
        breaker.changed().await;
        assert_eq!((breaker.limit(9), breaker.state()), (1, HalfOpen));
        assert_eq!(breaker.pause_left(), Some(Duration::ZERO));
        assert!(breaker.succeeded());
        assert_eq!((breaker.limit(9), breaker.state()), (9, Closed));
        breaker.changed().await;
        let hours = SECOND * 7200;
        assert_eq!(fail(&breaker, hours), Some(CREDENTIAL_PAUSE_MAX), "an operator does not wait for hours");
    }

    #[tokio::test(start_paused = true)]
    async fn only_failures_of_the_provider_in_a_row_open_a_lane() {
        let breaker = Breaker::of_provider();
        for _ in 0..3 {
            for _ in 1..PROVIDER_FAILURES_MAX {
                assert_eq!(fail(&breaker, SECOND), None);
            }
            assert_eq!(breaker.state(), Closed);
            assert!(!breaker.succeeded());
        }
        for _ in 1..PROVIDER_FAILURES_MAX {
            fail(&breaker, SECOND);
        }
        assert_eq!(fail(&breaker, SECOND), Some(SECOND));
        assert_eq!(breaker.limit(9), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn each_probe_that_fails_doubles_the_pause_and_what_was_in_flight_before_does_not() {
        let breaker = Breaker::of_provider();
        let before = Instant::now();
        for _ in 0..PROVIDER_FAILURES_MAX {
            fail(&breaker, SECOND);
        }
        for _ in 0..100 {
            assert_eq!(breaker.failed(before, SECOND, 0), None);
        }
        let mut pauses = Vec::new();
        for _ in 0..8 {
            breaker.changed().await;
            assert_eq!(breaker.limit(9), 1);
            tokio::time::advance(SECOND).await;
            pauses.extend(fail(&breaker, SECOND).map(|pause| pause.as_secs()));
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60]);
        breaker.changed().await;
        let probe = Instant::now();
        tokio::time::advance(SECOND).await;
        assert_eq!(breaker.failed(probe, SECOND * 900, 0), Some(SECOND * 900), "the provider asked for it");
        let jittered = breaker.failed(Instant::now() + SECOND, SECOND, u32::MAX);
        assert_eq!(jittered, Some(Duration::from_secs(75)), "lanes do not come back together");
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_word_of_the_provider_makes_the_pause_longer_and_none_makes_it_shorter() {
        let breaker = Breaker::of_provider();
        let before = Instant::now();
        for _ in 0..PROVIDER_FAILURES_MAX {
            fail(&breaker, SECOND * 10);
        }
        breaker.failed(before, SECOND, 0);
        tokio::time::advance(SECOND * 5).await;
        assert_eq!(breaker.state(), Open);
        breaker.failed(before, SECOND * 100, 0);
        tokio::time::advance(SECOND * 99).await;
        assert_eq!(breaker.state(), Open);
        tokio::time::advance(SECOND).await;
        assert_eq!(breaker.state(), HalfOpen);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_to_what_was_in_flight_closes_it_at_once() {
        let breaker = Breaker::of_credential();
        fail(&breaker, SECOND * 300);
        let (waited, ()) = tokio::join!(
            async {
                let began = Instant::now();
                breaker.changed().await;
                began.elapsed()
            },
            async {
                assert!(breaker.succeeded());
            }
        );
        assert_eq!((waited, breaker.limit(9)), (Duration::ZERO, 9));
    }

    #[tokio::test(start_paused = true)]
    async fn what_began_under_a_credential_that_was_replaced_does_not_open_it_again() {
        let breaker = Breaker::of_credential();
        let before = Instant::now();
        tokio::time::advance(SECOND).await;
        fail(&breaker, SECOND * 300);
        assert!(breaker.succeeded());
        assert_eq!(breaker.failed(before, SECOND * 300, 0), None);
        assert_eq!(breaker.state(), Closed);
        assert!(fail(&breaker, SECOND * 300).is_some());
    }
}
