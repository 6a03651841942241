//! What an outcome does: decided from the outcome and the job alone.

use std::time::Duration;

use sealpost_wire::delivery::PushFailure;

use crate::provider::{Outcome, RetryClass, backoff};
use crate::store::PushResult;

/// What is to be done about a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is settled, by a provider that accepts the credential.
    Settle(PushResult),
    /// It is tried again after this long.
    Retry { after: Duration, why: PushFailure },
    /// Nothing of the app is pushed for this long; the push is as due as before.
    Stop { after: Duration, why: PushFailure },
}

/// What an outcome says of the provider, whatever it says of the push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// It answers, and it accepts the credential.
    Works,
    /// Every push may fail like this one. It wants to be left alone for this long.
    Fails(Duration),
    /// Nothing.
    Unknown,
}

/// What came before an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Earlier {
    /// How often the push has failed in a row.
    pub(super) failures: u8,
    /// How long the lane pauses from now on because its provider fails; nothing while it does not.
    pub(super) pause_left: Option<Duration>,
}

/// The verdict on an outcome. `jitter` is uniformly random.
pub(super) fn verdict(outcome: &Outcome, earlier: Earlier, retry_max: Duration, jitter: u32) -> Verdict {
    let attempts = u32::from(earlier.failures).saturating_add(1);
    let Some(why) = outcome.failure() else { return Verdict::Settle(PushResult::Pushed) };
    match outcome {
        Outcome::Accepted { .. } => Verdict::Settle(PushResult::Pushed),
        Outcome::DeadToken { since_ms, .. } => Verdict::Settle(PushResult::Dead { since_ms: *since_ms }),
        Outcome::BadToken { .. } => Verdict::Settle(PushResult::Refused),
        Outcome::Retry { after, .. } => {
            let wait = backoff::delay((*after).max(RETRY_MIN), retry_max, attempts, jitter);
            // What failed with its provider is due when the lane goes on: the lane has backed off for all of it.
            let pause = earlier.pause_left.filter(|_| matches!(health(outcome), Health::Fails(_)));
            Verdict::Retry { after: pause.map_or(wait, |pause| pause.min(wait)), why }
        }
        Outcome::Credential { after, .. } => Verdict::Stop { after: *after, why },
        // Ours to mend, in the configuration: the messages stay queued meanwhile.
        Outcome::Rejected { .. } => {
            Verdict::Retry { after: backoff::delay(retry_max, retry_max, 1, jitter), why }
        }
    }
}

/// What an outcome says of the provider.
pub(super) const fn health(outcome: &Outcome) -> Health {
    match outcome {
        Outcome::Accepted { .. } | Outcome::DeadToken { .. } | Outcome::Rejected { .. } => Health::Works,
        Outcome::Retry { after, class, .. } => match class {
            RetryClass::Throttled => Health::Works,
            RetryClass::Quota
            | RetryClass::TokenUpdates
            | RetryClass::Server
            | RetryClass::NoAnswer
            | RetryClass::GoAway
            | RetryClass::Connection => Health::Fails(*after),
            RetryClass::Busy => Health::Unknown,
        },
        // A token may be refused without asking the provider. The credential has a breaker of its own.
        Outcome::BadToken { .. } | Outcome::Credential { .. } => Health::Unknown,
    }
}

/// The least wait after the first failure, whatever the client says: each attempt is a write of the store.
const RETRY_MIN: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::{CredentialFault, Detail, RejectedFault, RetryClass};

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn each_outcome_has_its_own_end() {
        let detail = Detail::new("said");
        let verdict = |outcome, failures| verdict(&outcome, Earlier { failures, pause_left: None }, HOUR, 0);
        let accepted = Outcome::Accepted { provider_id: detail.clone() };
        assert_eq!(verdict(accepted, 0), Verdict::Settle(PushResult::Pushed));
        let dead = Outcome::DeadToken { since_ms: Some(5), detail: detail.clone() };
        assert_eq!(verdict(dead, 0), Verdict::Settle(PushResult::Dead { since_ms: Some(5) }));
        let bad = Outcome::BadToken { detail: detail.clone() };
        assert_eq!(verdict(bad, 0), Verdict::Settle(PushResult::Refused));
        let (after, class) = (Duration::from_secs(10), RetryClass::Server);
        let retried = |after| Verdict::Retry { after, why: PushFailure::ProviderError };
        let retry = Outcome::Retry { after, class, detail: detail.clone() };
        assert_eq!(verdict(retry.clone(), 0), retried(after));
        assert_eq!(verdict(retry.clone(), 2), retried(after * 4));
        assert_eq!(verdict(retry, 255), retried(HOUR));
        let again = Outcome::Retry { after: Duration::ZERO, class, detail: detail.clone() };
        assert_eq!(verdict(again, 0), retried(RETRY_MIN));
        let fault = CredentialFault::ProviderToken;
        let credential = Outcome::Credential { fault, after, detail: detail.clone() };
        assert_eq!(verdict(credential, 3), Verdict::Stop { after, why: PushFailure::Credential });
        let rejected = Outcome::Rejected { fault: RejectedFault::Topic, detail };
        assert_eq!(verdict(rejected, 0), Verdict::Retry { after: HOUR, why: PushFailure::Rejected });
    }

    #[test]
    fn what_failed_with_its_provider_does_not_wait_longer_than_the_lane() {
        let after = Duration::from_secs(10);
        let wait = |class, pause_left| {
            let outcome = Outcome::Retry { after, class, detail: Detail::new("said") };
            match verdict(&outcome, Earlier { failures: 20, pause_left }, HOUR, 0) {
                Verdict::Retry { after, .. } => after,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(wait(RetryClass::NoAnswer, None), HOUR);
        assert_eq!(wait(RetryClass::NoAnswer, Some(after)), after);
        assert_eq!(wait(RetryClass::NoAnswer, Some(HOUR * 2)), HOUR, "no longer than by itself either");
        assert_eq!(wait(RetryClass::Throttled, Some(after)), HOUR, "the device's own matter");
    }

    #[test]
    fn a_provider_that_answers_works_and_one_that_does_not_fails() {
        let (after, detail) = (Duration::from_secs(7), Detail::new("said"));
        let retry = |class| health(&Outcome::Retry { after, class, detail: detail.clone() });
        for class in [
            RetryClass::Quota,
            RetryClass::TokenUpdates,
            RetryClass::Server,
            RetryClass::NoAnswer,
            RetryClass::GoAway,
            RetryClass::Connection,
        ] {
            assert_eq!(retry(class), Health::Fails(after), "{class:?}");
        }
        assert_eq!(retry(RetryClass::Throttled), Health::Works, "of one device");
        assert_eq!(retry(RetryClass::Busy), Health::Unknown);
        assert_eq!(health(&Outcome::DeadToken { since_ms: None, detail: detail.clone() }), Health::Works);
        assert_eq!(health(&Outcome::BadToken { detail }), Health::Unknown);
    }
}
