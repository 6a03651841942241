//! Bells: they wake requests that wait for a change.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// One bell for each key that somebody waits at.
#[derive(Debug)]
pub(crate) struct Bells<K> {
    waiting: Arc<Mutex<HashMap<K, Waiting>>>,
}

#[derive(Debug)]
struct Waiting {
    bell: Arc<Notify>,
    listeners: usize,
}

impl<K> Clone for Bells<K> {
    fn clone(&self) -> Self {
        Self { waiting: self.waiting.clone() }
    }
}

impl<K: Clone + Eq + Hash> Bells<K> {
    pub(crate) fn new() -> Self {
        Self { waiting: Arc::default() }
    }

    /// Wakes everybody who waits at `key`.
    pub(crate) fn ring(&self, key: &K) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = waiting.get(key) {
            waiting.bell.notify_waiters();
        }
    }

    /// Asks `look` until it finds something, whenever the bell of `key` rings, for at most `longest`, or
    /// until `end`. The last look is the answer then, whatever it found.
    pub(crate) async fn wait<T, E>(
        &self,
        key: K,
        longest: Duration,
        end: impl Future<Output = ()>,
        mut look: impl FnMut() -> Result<Looked<T>, E>,
    ) -> Result<T, E> {
        let deadline = Instant::now() + longest;
        let listener = self.listen(key);
        tokio::pin!(end);
        loop {
            // Listens before it looks, so that no change falls in between.
            let rung = listener.bell.notified();
            tokio::pin!(rung);
            rung.as_mut().enable();
            let seen = match look()? {
                Looked::Found(found) => return Ok(found),
                Looked::Nothing(seen) => seen,
            };
            tokio::select! {
                biased;
                () = &mut end => return Ok(seen),
                rung = timeout_at(deadline, rung) => if rung.is_err() {
                    return Ok(seen);
                },
            }
        }
    }

    fn listen(&self, key: K) -> Listener<K> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = waiting.entry(key.clone());
        let entry = entry.or_insert_with(|| Waiting { bell: Arc::default(), listeners: 0 });
        entry.listeners += 1;
        Listener { bells: self.clone(), key, bell: entry.bell.clone() }
    }
}

/// What a look found.
pub(crate) enum Looked<T> {
    /// What is waited for.
    Found(T),
    /// Not that; the answer when the time is over.
    Nothing(T),
}

struct Listener<K: Eq + Hash> {
    bells: Bells<K>,
    key: K,
    bell: Arc<Notify>,
}

impl<K: Eq + Hash> Drop for Listener<K> {
    fn drop(&mut self) {
        let mut waiting = self.bells.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = waiting.get_mut(&self.key) {
            entry.listeners -= 1;
            if entry.listeners == 0 {
                waiting.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn look(state: &Mutex<u32>) -> Result<Looked<u32>, ()> {
        let state = *state.lock().unwrap();
        Ok(if state > 0 { Looked::Found(state) } else { Looked::Nothing(state) })
    }

    #[tokio::test]
    async fn a_change_wakes_who_waits_and_leaves_no_bell_behind() {
        let (bells, state) = (Bells::new(), Arc::new(Mutex::new(0)));
        let waiting = tokio::spawn({
            let (bells, state) = (bells.clone(), state.clone());
            async move { bells.wait(7_u8, LONG, std::future::pending(), || look(&state)).await }
        });
        while bells.waiting.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        bells.ring(&7);
        *state.lock().unwrap() = 5;
        bells.ring(&8);
        bells.ring(&7);
        assert_eq!(waiting.await.unwrap(), Ok(5));
        assert!(bells.waiting.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_wait_ends_with_its_time_and_with_the_server() {
        let (bells, state) = (Bells::new(), Mutex::new(0));
        let never = std::future::pending::<()>;
        assert_eq!(bells.wait(1_u8, Duration::ZERO, never(), || look(&state)).await, Ok(0));
        assert_eq!(bells.wait(1_u8, LONG, std::future::ready(()), || look(&state)).await, Ok(0));
        *state.lock().unwrap() = 1;
        assert_eq!(bells.wait(1_u8, LONG, never(), || look(&state)).await, Ok(1));
    }
}
