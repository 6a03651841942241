//! The gate of an app: closed while its credential fails, then open for one push at a time until one gets
//! through.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Lets an app's lanes push, or not.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    opened: Notify,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Open,
    /// The credential has failed. From this time on, one push at a time finds out whether it still does.
    Closed(Instant),
}

impl Gate {
    /// How many pushes of a lane may be in flight, of `max`.
    pub(super) fn limit(&self, max: usize) -> usize {
        match &*self.state() {
            State::Open => max,
            State::Closed(until) if *until <= Instant::now() => max.min(1),
            State::Closed(_) => 0,
        }
    }

    /// Whether the credential has failed and nothing got through since.
    pub(super) fn is_closed(&self) -> bool {
        matches!(&*self.state(), State::Closed(_))
    }

    /// The credential has failed: nothing is pushed for this long.
    pub(super) fn close(&self, pause: Duration) {
        let until = Instant::now() + pause.clamp(PAUSE_MIN, PAUSE_MAX);
        let mut state = self.state();
        *state = match &*state {
            State::Closed(before) => State::Closed(until.max(*before)),
            State::Open => State::Closed(until),
        };
    }

    /// The provider answered as it does to a credential that it accepts.
    pub(super) fn open(&self) {
        let mut state = self.state();
        if matches!(&*state, State::Closed(_)) {
            *state = State::Open;
            drop(state);
            self.opened.notify_waiters();
        }
    }

    /// Comes when a closed gate opens, or is to be tried.
    pub(super) async fn opens(&self) {
        let opened = self.opened.notified();
        let until = match &*self.state() {
            State::Open => return,
            State::Closed(until) => *until,
        };
        if until <= Instant::now() {
            return opened.await;
        }
        tokio::select! {
            () = opened => {}
            () = tokio::time::sleep_until(until) => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A state is replaced as a whole: a poisoned lock guards a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lane whose credential failed rests at least this long, whatever the client says.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// And at most this long: an operator who has mended it does not wait for hours.
const PAUSE_MAX: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_the_pause_one_push_tries_and_its_success_opens_the_gate() {
        let gate = Gate::default();
        assert_eq!(gate.limit(9), 9);
        gate.close(Duration::from_secs(5));
        assert_eq!(gate.limit(9), 0);
        gate.opens().await;
        assert_eq!((gate.limit(9), gate.is_closed()), (1, true));
        gate.close(Duration::from_secs(5));
        gate.close(Duration::from_secs(1));
        assert_eq!(gate.limit(9), 0, "the longer pause counts");
        gate.open();
        assert_eq!((gate.limit(9), gate.is_closed()), (9, false));
        gate.opens().await;
    }
}
