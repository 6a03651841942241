//! What an outcome does: decided from the outcome and the job alone.

use std::time::Duration;

use crate::provider::{Outcome, backoff};
use crate::store::PushResult;

/// What is to be done about a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is settled, by a provider that accepts the credential.
    Settle(PushResult),
    /// It is tried again after this long.
    Retry(Duration),
    /// Nothing of the app is pushed for this long; the push is as due as before.
    Stop(Duration),
}

/// The verdict on an outcome, after `failures` earlier ones in a row. `jitter` is uniformly random.
pub(super) fn verdict(outcome: &Outcome, failures: u8, retry_max: Duration, jitter: u32) -> Verdict {
    let attempts = u32::from(failures).saturating_add(1);
    match outcome {
        Outcome::Accepted { .. } => Verdict::Settle(PushResult::Pushed),
        Outcome::DeadToken { since_ms, .. } => Verdict::Settle(PushResult::Dead { since_ms: *since_ms }),
        Outcome::BadToken { .. } => Verdict::Settle(PushResult::Refused),
        Outcome::Retry { after, .. } => {
            let first = (*after).max(RETRY_MIN);
            Verdict::Retry(backoff::delay(first, retry_max, attempts, jitter))
        }
        Outcome::Credential { after, .. } => Verdict::Stop(*after),
        // Ours to mend, in the configuration: the messages stay queued meanwhile.
        Outcome::Rejected { .. } => Verdict::Retry(backoff::delay(retry_max, retry_max, 1, jitter)),
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
        let verdict = |outcome, failures| verdict(&outcome, failures, HOUR, 0);
        let accepted = Outcome::Accepted { provider_id: detail.clone() };
        assert_eq!(verdict(accepted, 0), Verdict::Settle(PushResult::Pushed));
        let dead = Outcome::DeadToken { since_ms: Some(5), detail: detail.clone() };
        assert_eq!(verdict(dead, 0), Verdict::Settle(PushResult::Dead { since_ms: Some(5) }));
        let bad = Outcome::BadToken { detail: detail.clone() };
        assert_eq!(verdict(bad, 0), Verdict::Settle(PushResult::Refused));
        let (after, class) = (Duration::from_secs(10), RetryClass::Server);
        let retry = Outcome::Retry { after, class, detail: detail.clone() };
        assert_eq!(verdict(retry.clone(), 0), Verdict::Retry(after));
        assert_eq!(verdict(retry.clone(), 2), Verdict::Retry(after * 4));
        assert_eq!(verdict(retry, 255), Verdict::Retry(HOUR));
        let again = Outcome::Retry { after: Duration::ZERO, class, detail: detail.clone() };
        assert_eq!(verdict(again, 0), Verdict::Retry(RETRY_MIN));
        let fault = CredentialFault::ProviderToken;
        let credential = Outcome::Credential { fault, after, detail: detail.clone() };
        assert_eq!(verdict(credential, 3), Verdict::Stop(after));
        let rejected = Outcome::Rejected { fault: RejectedFault::Topic, detail };
        assert_eq!(verdict(rejected, 0), Verdict::Retry(HOUR));
    }
}
