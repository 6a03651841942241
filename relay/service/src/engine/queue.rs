//! The commands that wait: bounded, taken by the writer as many at a time as there are.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard},
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
    /// Whether the writer sleeps: a wake-up is a system call, and under load there is none.
    writer_waits: bool,
}

impl CommandQueue {
    pub(super) fn new(len_max: usize) -> Self {
        let state = State { waiting: VecDeque::new(), closed: None, writer_waits: false };
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
        let wake = std::mem::take(&mut state.writer_waits);
        drop(state);
        if wake {
            self.arrival.notify_one();
        }
        Ok(())
    }

    /// Moves up to `count_max` commands to the end of `taken`, waiting for the first if `taken` is empty.
    /// False when the queue is closed and both are empty.
    pub(super) fn take(&self, taken: &mut VecDeque<Box<dyn Job>>, count_max: usize) -> bool {
        let mut state = self.state();
        while taken.is_empty() && state.waiting.is_empty() {
            if state.closed.is_some() {
                return false;
            }
            state.writer_waits = true;
            state = self.arrival.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
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
        state.writer_waits = false;
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
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
