//! The rule by which replays are told.
//!
//! A message is the same when tenant, author and transport id are the same: whoever holds the box can hand it
//! out again, to the same prekey, and it would open again. The device remembers what it has opened until the
//! message would be refused as expired anyway, on a clock that never goes back: otherwise a clock set back
//! would let a forgotten message in a second time.

use std::collections::BTreeMap;

use sealpost_wire::author::AuthorName;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::context::MessageContext;
use sealpost_wire::id::{TenantId, TransportId};
use sealpost_wire::limits::CLOCK_SKEW_SECONDS_MAX;
use sealpost_wire::payload::VerifiedMessage;

/// What makes two messages the same message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplayKey {
    /// The tenant.
    pub tenant: TenantId,
    /// Who wrote it.
    pub author: AuthorName,
    /// The submission.
    pub transport_id: TransportId,
}

impl ReplayKey {
    /// The key of a message that was opened with `context`.
    #[must_use]
    pub fn new(context: &MessageContext, message: &VerifiedMessage) -> Self {
        Self {
            tenant: context.tenant.clone(),
            author: message.author.name(),
            transport_id: context.transport_id,
        }
    }
}

/// The last moment (seconds) at which a message with this expiry still opens, and so until when it is
/// remembered.
#[must_use]
pub const fn remember_until(expires_at: UnixTime) -> UnixTime {
    expires_at.plus(CLOCK_SKEW_SECONDS_MAX)
}

/// Why a message that opened is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// It was taken in before. A retry cannot help; the device repeats the receipt that it gave then.
    #[error("the message was opened before")]
    Replayed,
    /// There is no room to remember it. It helps to wait until others have expired.
    #[error("no room to remember another message")]
    Full,
}

impl ReplayError {
    /// The stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Replayed => "replayed",
            Self::Full => "replay_guard_full",
        }
    }
}

/// Remembers in memory what was opened. A device that lives on keeps the same rows in its store, in the
/// transaction that stores the message, and the clock's highest reading with them.
#[derive(Clone, Debug)]
pub struct ReplayGuard {
    seen: BTreeMap<ReplayKey, UnixTime>,
    latest: UnixTime,
    capacity: usize,
}

impl ReplayGuard {
    /// A guard that remembers at most `capacity` messages, and whose clock starts at `latest`.
    #[must_use]
    pub const fn new(capacity: usize, latest: UnixTime) -> Self {
        Self { seen: BTreeMap::new(), latest, capacity }
    }

    /// The time to open at: `now`, or the latest reading there was if the clock went back.
    pub fn time(&mut self, now: UnixTime) -> UnixTime {
        self.latest = self.latest.max(now);
        self.latest
    }

    /// Takes in a message that opened at the latest [`Self::time`], once.
    pub fn admit(&mut self, key: ReplayKey, expires_at: UnixTime) -> Result<(), ReplayError> {
        let latest = self.latest;
        self.seen.retain(|_, until| *until >= latest);
        if self.seen.contains_key(&key) {
            return Err(ReplayError::Replayed);
        }
        if self.seen.len() >= self.capacity {
            return Err(ReplayError::Full);
        }
        self.seen.insert(key, remember_until(expires_at));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sealpost_wire::id::DeviceId;

    use super::*;

    fn key(n: u8) -> ReplayKey {
        ReplayKey {
            tenant: "st-mary".parse().unwrap(),
            author: "lab".parse().unwrap(),
            transport_id: TransportId([n; 16]),
        }
    }

    #[test]
    fn a_message_is_taken_in_once_until_it_would_be_refused_as_expired() {
        let mut guard = ReplayGuard::new(8, UnixTime(1000));
        let expiry = UnixTime(2000);
        assert_eq!(guard.admit(key(1), expiry), Ok(()));
        assert_eq!(guard.admit(key(1), expiry), Err(ReplayError::Replayed));
        assert_eq!(guard.time(UnixTime(2300)), UnixTime(2300));
        assert_eq!(guard.admit(key(1), expiry), Err(ReplayError::Replayed), "it still opens in this second");
        // One second later it would not open, and the guard may forget it.
        assert_eq!(guard.time(UnixTime(2301)), remember_until(expiry).plus(1));
        assert_eq!(guard.admit(key(1), expiry), Ok(()));
    }

    #[test]
    fn the_clock_never_goes_back() {
        let mut guard = ReplayGuard::new(8, UnixTime(0));
        assert_eq!(guard.time(UnixTime(5000)), UnixTime(5000));
        assert_eq!(guard.time(UnixTime(10)), UnixTime(5000));
    }

    #[test]
    fn another_author_tenant_or_id_is_another_message() {
        let mut guard = ReplayGuard::new(8, UnixTime(0));
        let expiry = UnixTime(9);
        assert_eq!(guard.admit(key(1), expiry), Ok(()));
        for other in [
            key(2),
            ReplayKey { author: "pharmacy".parse().unwrap(), ..key(1) },
            ReplayKey { author: AuthorName::Device(DeviceId([1; 16])), ..key(1) },
            ReplayKey { tenant: "st-john".parse().unwrap(), ..key(1) },
        ] {
            assert_eq!(guard.admit(other, expiry), Ok(()));
        }
    }

    #[test]
    fn a_full_guard_refuses_instead_of_forgetting() {
        let mut guard = ReplayGuard::new(1, UnixTime(0));
        assert_eq!(guard.admit(key(1), UnixTime(100)), Ok(()));
        assert_eq!(guard.admit(key(2), UnixTime(100)), Err(ReplayError::Full));
        guard.time(UnixTime(401));
        assert_eq!(guard.admit(key(2), UnixTime(900)), Ok(()));
    }
}
