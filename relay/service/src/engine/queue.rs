//! The commands that wait: bounded, taken by the writer as many at a time as there are.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{EngineError, command::Job};

/// Many callers, one writer. A full queue refuses at once; it never makes a caller wait.
pub(super) struct CommandQueue {
    state: Mutex<State>,
    arrival: Condvar,
    len_max: usize,
}

struct State {
    waiting: VecDeque<Box<dyn Job>>,
    /// Why nothing is taken any more.
    closed: Option<EngineError>,
    /// How many commands the sleeping writer waits for; 0 while it works: a wake-up is a system call, and under
    /// load there is none.
    wake_at: usize,
}

/// For how many commands the writer waits, and how long at the most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linger {
    pub(super) enough: usize,
    pub(super) at_most: Duration,
}

impl CommandQueue {
    pub(super) fn new(len_max: usize) -> Self {
        let state = State { waiting: VecDeque::new(), closed: None, wake_at: 0 };
        Self { state: Mutex::new(state), arrival: Condvar::new(), len_max }
    }

    pub(super) fn push(&self, job: Box<dyn Job>) -> Result<(), EngineError> {
        let mut state = self.state();
        if let Some(reason) = &state.closed {
            return Err(reason.clone());
        }
        if state.waiting.len() >= self.len_max {
            return Err(EngineError::Busy);
        }
        state.waiting.push_back(job);
        let wake = state.wake_at > 0 && state.waiting.len() >= state.wake_at;
        if wake {
            state.wake_at = 0;
        }
        drop(state);
        if wake {
            self.arrival.notify_one();
        }
        Ok(())
    }

    /// Moves up to `count_max` commands to the end of `taken`. If `taken` is empty it waits for the first one, and
    /// lingers for more. False when the queue is closed and both are empty.
    pub(super) fn take(
        &self,
        taken: &mut VecDeque<Box<dyn Job>>,
        count_max: usize,
        linger: Option<Linger>,
    ) -> bool {
        let mut state = self.state();
        while taken.is_empty() && state.waiting.is_empty() {
            if state.closed.is_some() {
                return false;
            }
            state.wake_at = 1;
            state = self.arrival.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(Linger { enough, at_most }) = linger.filter(|_| taken.is_empty()) {
            state.wake_at = enough;
            let is_short = |state: &mut State| state.closed.is_none() && state.waiting.len() < enough;
            let waited = self.arrival.wait_timeout_while(state, at_most, is_short);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            state.wake_at = 0;
        }
        if taken.is_empty() && state.waiting.len() <= count_max {
            std::mem::swap(taken, &mut state.waiting);
        } else {
            let count = state.waiting.len().min(count_max.saturating_sub(taken.len()));
            taken.extend(state.waiting.drain(..count));
        }
        true
    }

    /// Takes no more commands; those that wait stay. The first reason given is the one that callers see.
    pub(super) fn close(&self, reason: EngineError) {
        let mut state = self.state();
        state.closed.get_or_insert(reason);
        state.wake_at = 0;
        drop(state);
        self.arrival.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().closed.is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.state().waiting.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics between two changes of the state, so a poisoned lock still guards a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
