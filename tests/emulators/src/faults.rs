//! The fault table: what happens to a request that has passed the protocol checks.
//!
//! It knows nothing of the protocols: it says which outcome applies to which token, how often, and which
//! tokens are dead. How an outcome looks on the wire is the provider's business.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::world::{Provider, lock};

/// A chosen outcome for requests to a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// Which emulator it is for.
    pub provider: Provider,
    /// The device token it is for; absent: every token. A rule for one token goes before a rule for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// HTTP status of the answer, 200 when absent.
    #[serde(default = "status_ok")]
    pub status: u16,
    /// APNs `reason`, FCM `errorCode`, OAuth `error`; absent: the usual one of the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Value of a `retry-after` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<RetryAfter>,
    /// APNs 410: `timestamp` of the body, in epoch milliseconds; absent: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp_ms: Option<u64>,
    /// How long the answer is held back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// The request is taken and never answered.
    #[serde(default)]
    pub no_answer: bool,
    /// The connection is closed without an answer, and without a GOAWAY.
    #[serde(default)]
    pub cut_connection: bool,
    /// How many requests it applies to; absent: until cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

/// `retry-after`: seconds, or any text (an HTTP date, or rubbish).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RetryAfter {
    /// Delay in seconds.
    Seconds(u64),
    /// The header's value as it is.
    Text(String),
}

/// Why an outcome was not taken. Asking again does not help.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OutcomeError {
    /// Not a final HTTP status.
    #[error("status {0} is not between 200 and 599")]
    Status(u16),
    /// Longer than ten minutes.
    #[error("delay_ms is more than {MAX_DELAY_MS}")]
    Delay,
    /// A count of nothing.
    #[error("count is 0: leave it out, or say how many requests it is for")]
    Count,
    /// Not a header value.
    #[error("retry_after cannot be a header value")]
    RetryAfter,
    /// OAuth requests carry no device token.
    #[error("an outcome for oauth cannot name a token")]
    Token,
    /// Too many rules.
    #[error("more than {MAX_RULES} outcomes; clear some first")]
    Full,
}

impl Outcome {
    /// An outcome for every token, until cleared.
    pub fn new(provider: Provider, status: u16) -> Self {
        Self {
            provider,
            token: None,
            status,
            reason: None,
            retry_after: None,
            timestamp_ms: None,
            delay_ms: None,
            no_answer: false,
            cut_connection: false,
            count: None,
        }
    }

    pub(crate) fn delay(&self) -> Option<Duration> {
        self.delay_ms.filter(|delay| *delay > 0).map(Duration::from_millis)
    }

    fn check(&self) -> Result<(), OutcomeError> {
        if !(200..=599).contains(&self.status) {
            return Err(OutcomeError::Status(self.status));
        }
        if self.delay_ms.is_some_and(|delay| delay > MAX_DELAY_MS) {
            return Err(OutcomeError::Delay);
        }
        if self.count == Some(0) {
            return Err(OutcomeError::Count);
        }
        if let Some(RetryAfter::Text(text)) = &self.retry_after
            && http::HeaderValue::from_str(text).is_err()
        {
            return Err(OutcomeError::RetryAfter);
        }
        if self.provider == Provider::Oauth && self.token.is_some() {
            return Err(OutcomeError::Token);
        }
        Ok(())
    }
}

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

/// Outcomes and dead tokens.
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

fn status_ok() -> u16 {
    200
}

const MAX_RULES: usize = 200_000;
const MAX_DELAY_MS: u64 = 600_000;

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
    fn outcomes_that_make_no_sense_are_refused() {
        let table = FaultTable::default();
        let base = Outcome::new(Provider::Fcm, 503);
        let refusals = [
            (Outcome { status: 101, ..base.clone() }, OutcomeError::Status(101)),
            (Outcome { count: Some(0), ..base.clone() }, OutcomeError::Count),
            (Outcome { delay_ms: Some(MAX_DELAY_MS + 1), ..base.clone() }, OutcomeError::Delay),
            (
                Outcome { retry_after: Some(RetryAfter::Text("\n".into())), ..base.clone() },
                OutcomeError::RetryAfter,
            ),
            (Outcome { provider: Provider::Oauth, token: Some("t".into()), ..base }, OutcomeError::Token),
        ];
        for (outcome, error) in refusals {
            assert_eq!(table.add(outcome), Err(error));
        }
    }
}
