//! The fault table: what happens to a request that has passed the protocol checks, and to a new connection.
//!
//! It knows nothing of the protocols: it says which outcome applies to which token, how often, and which
//! tokens are dead. How an outcome looks on the wire is the provider's business.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::outcome::{ConnectionFault, Outcome, OutcomeError, Reception};
use crate::world::{Provider, lock};

/// What the fault table says about a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing: answer as usual.
    Usual,
    /// The token is dead since this moment, in epoch milliseconds.
    Dead(u64),
    /// A chosen outcome.
    Chosen(Box<Outcome>),
}

/// Outcomes, dead tokens, and what awaits new connections.
#[derive(Default)]
pub(crate) struct FaultTable {
    /// False while the table is empty, so that the usual request takes no lock.
    armed: AtomicBool,
    rules: Mutex<Rules>,
}

#[derive(Default)]
struct Rules {
    /// By provider and token ("" for all): used up from the front.
    outcomes: HashMap<(Provider, String), VecDeque<Outcome>>,
    /// Number of outcomes in all queues.
    outcome_count: usize,
    dead: HashMap<(Provider, String), u64>,
}

/// What awaits the next connections of a provider: used up from the front.
#[derive(Default)]
pub(crate) struct ConnectionFaults {
    queues: Mutex<HashMap<Provider, VecDeque<ConnectionFault>>>,
}

impl ConnectionFaults {
    /// Adds a fault. Faults of a provider apply one after the other; one without a count lasts until cleared,
    /// or until the next one replaces it.
    pub(crate) fn add(&self, fault: ConnectionFault) -> Result<(), OutcomeError> {
        fault.check()?;
        let mut queues = lock(&self.queues);
        let queue = queues.entry(fault.provider).or_default();
        if queue.back().is_some_and(|last| last.count.is_none()) {
            queue.pop_back();
        }
        if queue.len() >= MAX_CONNECTION_FAULTS {
            return Err(OutcomeError::Full);
        }
        queue.push_back(fault);
        Ok(())
    }

    /// New connections are received as usual again.
    pub(crate) fn clear(&self) {
        lock(&self.queues).clear();
    }

    /// How the next connection is received; uses up one of a counted fault.
    pub(crate) fn take(&self, provider: Provider) -> Option<Reception> {
        let mut queues = lock(&self.queues);
        let queue = queues.get_mut(&provider)?;
        let fault = queue.front_mut()?;
        let reception = fault.reception.clone();
        if let Some(left) = &mut fault.count {
            *left -= 1;
            if *left == 0 {
                queue.pop_front();
            }
        }
        Some(reception)
    }
}

impl FaultTable {
    /// Adds an outcome. Outcomes for the same provider and token apply one after the other; one without a
    /// count lasts until cleared, or until the next one for the same provider and token replaces it.
    pub(crate) fn add(&self, outcome: Outcome) -> Result<(), OutcomeError> {
        outcome.check()?;
        let mut rules = lock(&self.rules);
        if rules.outcome_count >= MAX_RULES {
            return Err(OutcomeError::Full);
        }
        let key = (outcome.provider, outcome.token.clone().unwrap_or_default());
        let queue = rules.outcomes.entry(key).or_default();
        let replaces = queue.back().is_some_and(|last| last.count.is_none());
        if replaces {
            queue.pop_back();
        }
        queue.push_back(outcome);
        if !replaces {
            rules.outcome_count += 1;
        }
        self.armed.store(true, Ordering::Release);
        Ok(())
    }

    /// Forgets all outcomes; dead tokens stay dead.
    pub(crate) fn clear_outcomes(&self) {
        let mut rules = lock(&self.rules);
        rules.outcomes.clear();
        rules.outcome_count = 0;
        self.armed.store(!rules.dead.is_empty(), Ordering::Release);
    }

    /// Declares a token dead since a moment (epoch milliseconds).
    pub(crate) fn kill(&self, provider: Provider, token: &str, since_ms: u64) -> Result<(), OutcomeError> {
        let mut rules = lock(&self.rules);
        if rules.dead.len() >= MAX_RULES {
            return Err(OutcomeError::Full);
        }
        rules.dead.insert((provider, token.to_owned()), since_ms);
        self.armed.store(true, Ordering::Release);
        Ok(())
    }

    /// All tokens live again.
    pub(crate) fn clear_dead(&self) {
        let mut rules = lock(&self.rules);
        rules.dead.clear();
        self.armed.store(rules.outcome_count > 0, Ordering::Release);
    }

    /// What happens to a request for this token; uses up one of a counted outcome.
    pub(crate) fn judge(&self, provider: Provider, token: &str) -> Verdict {
        if !self.armed.load(Ordering::Acquire) {
            return Verdict::Usual;
        }
        let mut rules = lock(&self.rules);
        let outcome = rules.take(provider, token).or_else(|| rules.take(provider, ""));
        if let Some(outcome) = outcome {
            return Verdict::Chosen(Box::new(outcome));
        }
        match rules.dead.get(&(provider, token.to_owned())) {
            Some(since_ms) => Verdict::Dead(*since_ms),
            None => Verdict::Usual,
        }
    }
}

impl Rules {
    fn take(&mut self, provider: Provider, token: &str) -> Option<Outcome> {
        let queue = self.outcomes.get_mut(&(provider, token.to_owned()))?;
        let outcome = queue.front_mut()?;
        let taken = outcome.clone();
        if let Some(left) = &mut outcome.count {
            *left -= 1;
            if *left == 0 {
                queue.pop_front();
                self.outcome_count -= 1;
            }
        }
        Some(taken)
    }
}

const MAX_RULES: usize = 200_000;
const MAX_CONNECTION_FAULTS: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(table: &FaultTable, token: &str) -> Option<u16> {
        match table.judge(Provider::Apns, token) {
            Verdict::Chosen(outcome) => Some(outcome.status),
            _ => None,
        }
    }

    #[test]
    fn outcomes_apply_in_order_and_a_token_goes_before_all() {
        let table = FaultTable::default();
        assert_eq!(chosen(&table, "aa"), None);
        table.add(Outcome { count: Some(2), ..Outcome::new(Provider::Apns, 503) }).unwrap();
        table.add(Outcome::new(Provider::Apns, 429)).unwrap();
        table.add(Outcome::new(Provider::Apns, 500)).unwrap();
        let only_bb =
            Outcome { token: Some("bb".into()), count: Some(1), ..Outcome::new(Provider::Apns, 400) };
        table.add(only_bb).unwrap();
        assert_eq!(chosen(&table, "bb"), Some(400));
        assert_eq!(chosen(&table, "bb"), Some(503));
        assert_eq!(chosen(&table, "aa"), Some(503));
        assert_eq!(chosen(&table, "aa"), Some(500));
        assert_eq!(chosen(&table, "aa"), Some(500));
        assert_eq!(table.judge(Provider::Fcm, "aa"), Verdict::Usual);
        table.kill(Provider::Apns, "aa", 7).unwrap();
        table.clear_outcomes();
        assert_eq!(table.judge(Provider::Apns, "aa"), Verdict::Dead(7));
        table.clear_dead();
        assert_eq!(table.judge(Provider::Apns, "aa"), Verdict::Usual);
    }

    #[test]
    fn connections_use_faults_up_in_order() {
        let faults = ConnectionFaults::default();
        let fault = |reception, count| ConnectionFault { provider: Provider::Apns, reception, count };
        faults.add(fault(Reception::Reset, Some(1))).unwrap();
        faults.add(fault(Reception::NoSettings, None)).unwrap();
        faults.add(fault(Reception::NoHandshake, None)).unwrap();
        assert_eq!(faults.take(Provider::Fcm), None);
        assert_eq!(faults.take(Provider::Apns), Some(Reception::Reset));
        assert_eq!(faults.take(Provider::Apns), Some(Reception::NoHandshake));
        assert_eq!(faults.take(Provider::Apns), Some(Reception::NoHandshake));
        faults.clear();
        assert_eq!(faults.take(Provider::Apns), None);
    }
}
