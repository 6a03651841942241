//! Which prekey of a look-up is sealed to.
//!
//! Leaving something out is the one lie that a keyserver could tell without forging: a device that opens the
//! hybrid suite and for which only classical prekeys come back is an error here, never a reason to seal
//! classically.

use sealpost_wire::api::keyserver::DevicePrekeys;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::error::TrustError;
use sealpost_wire::message::Suite;
use sealpost_wire::prekey::{PrekeyKind, PrekeyLeaf, ProvenPrekey, VerifiedPrekey};
use sealpost_wire::record::DeviceRecord;

use crate::error::SealError;

/// What a tenant asks of the suite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SuitePolicy {
    /// Hybrid wherever the device's record lists it.
    #[default]
    RequireHybrid,
    /// Hybrid where a hybrid prekey is offered, classical otherwise. Who can withhold prekeys can then bring
    /// about the classical suite.
    AllowClassical,
}

/// What a tenant asks of the kind of prekey.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OneTimePolicy {
    /// One-time where there is one, else the signed prekey.
    #[default]
    Preferred,
    /// One-time or not at all.
    Required,
}

/// What a tenant asks of the prekeys that its senders seal to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SealPolicy {
    /// The suite.
    pub suites: SuitePolicy,
    /// The kind.
    pub one_time: OneTimePolicy,
}

impl SealPolicy {
    /// Whether a message for the device of `record` may be sealed to `leaf`.
    pub(crate) fn check(self, record: &DeviceRecord, leaf: &PrekeyLeaf) -> Result<(), SealError> {
        if leaf.suite != Suite::Hybrid && self.wants_hybrid(record) {
            return Err(SealError::Downgrade);
        }
        if leaf.kind != PrekeyKind::OneTime && self.one_time == OneTimePolicy::Required {
            return Err(SealError::NoOneTimePrekey);
        }
        Ok(())
    }

    fn wants_hybrid(self, record: &DeviceRecord) -> bool {
        self.suites == SuitePolicy::RequireHybrid && record.suites.contains(&Suite::Hybrid)
    }
}

/// Chooses and verifies the prekey for the device of `record` out of what a look-up returned (prekeys of
/// other devices in it are passed over): the hybrid suite before the classical one, a one-time prekey before
/// the signed one, and only one that the device keeps until `expires_at`. `record` comes out of a verified
/// device set.
///
/// # Errors
/// [`SealError::Downgrade`] when the record lists the hybrid suite and no hybrid prekey came back, unless
/// `policy` allows it. A prekey that does not verify is an error even if another would do: the device did not
/// make it.
pub fn choose_prekey(
    record: &DeviceRecord,
    looked_up: &[DevicePrekeys],
    policy: &SealPolicy,
    expires_at: UnixTime,
    now: UnixTime,
) -> Result<VerifiedPrekey, SealError> {
    let offer = |suite: Suite| {
        looked_up
            .iter()
            .filter(|offer| record.suites.contains(&suite) && offer.device == record.device)
            .find(|offer| offer.suite == suite && (offer.signed.is_some() || offer.one_time.is_some()))
    };
    let offer = match offer(Suite::Hybrid) {
        Some(hybrid) => hybrid,
        None if policy.wants_hybrid(record) => return Err(SealError::Downgrade),
        None => offer(Suite::Classical).ok_or(SealError::NoPrekey)?,
    };
    let verify = |proven: &ProvenPrekey, kind: PrekeyKind| {
        let prekey = VerifiedPrekey::verify(proven, record, now)?;
        let leaf = prekey.leaf();
        if leaf.suite != offer.suite || leaf.kind != kind {
            return Err(TrustError::PrekeyMismatch.into());
        }
        if leaf.open_until < expires_at {
            return Err(SealError::ExpiresAfterPrekey);
        }
        Ok(prekey)
    };
    let one_time = offer.one_time.as_ref().map(|proven| verify(proven, PrekeyKind::OneTime));
    match (one_time, &offer.signed) {
        (Some(Ok(prekey)), _) => Ok(prekey),
        // An old one-time prekey is no lie: the signed one will do, if the policy lets it.
        (
            Some(Err(error @ (SealError::Trust(TrustError::PrekeyExpired) | SealError::ExpiresAfterPrekey))),
            signed,
        ) => match signed {
            Some(signed) if policy.one_time == OneTimePolicy::Preferred => verify(signed, PrekeyKind::Signed),
            _ => Err(error),
        },
        (Some(Err(error)), _) => Err(error),
        (None, _) if policy.one_time == OneTimePolicy::Required => Err(SealError::NoOneTimePrekey),
        (None, Some(signed)) => verify(signed, PrekeyKind::Signed),
        (None, None) => Err(SealError::NoPrekey),
    }
}
