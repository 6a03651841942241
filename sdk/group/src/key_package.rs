//! Key packages: this device's own, and those of devices that are to come in.
//!
//! Lifetimes are judged here by the clock that is passed. openmls judges those of key packages a second time, by the
//! clock of the system, when one is read and when a commit that uses one is read; it cannot be told not to. That is why
//! lifetimes begin weeks before they are made, and end weeks after.

use openmls::extensions::ExtensionType;
use openmls::prelude::{
    KeyPackage, KeyPackageIn, KeyPackageRef, KeyPackageVerifyError, Lifetime, ProtocolVersion,
};
use openmls_traits::storage::StorageProvider as _;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::limits::{CLOCK_SKEW_SECONDS_MAX, KEY_PACKAGE_BYTES_MAX, MESSAGE_LIFETIME_SECONDS_MAX};
use serde::{Deserialize, Serialize};
use tls_codec::{Deserialize as _, Serialize as _};

use crate::crypto::Crypto;
use crate::error::{GroupError, Refusal};
use crate::group::Groups;
use crate::limits::{KEY_PACKAGES_KEPT_MAX, KEY_PACKAGES_PER_BATCH_MAX, LIFETIME_RANGE_SECONDS_MAX};
use crate::operation::{Operation, lifetime};
use crate::storage::Kind;
use crate::store::GroupStore;
use crate::suite::GroupSuite;

/// A key package whose private keys are kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    reference: KeyPackageRef,
    suite: GroupSuite,
    last_resort: bool,
    not_after: UnixTime,
}

/// Key packages of this device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPackagesKept {
    /// The suite.
    pub suite: GroupSuite,
    /// Those that can be used once.
    pub one_time: usize,
    /// Until when the newest one of last resort is valid, if there is one.
    pub last_resort_until: Option<UnixTime>,
}

impl<S: GroupStore> Groups<'_, S> {
    /// Makes `count` key packages for the keyserver; their private keys are in the store. Each is good for one
    /// invitation, but for those of last resort, which are good until they end.
    ///
    /// # Errors
    /// More than 100, a suite that the device cannot use, or more than 1000 kept.
    pub fn make_key_packages(
        &mut self,
        count: usize,
        suite: GroupSuite,
        last_resort: bool,
    ) -> Result<Vec<Vec<u8>>, GroupError> {
        self.operate(|operation| operation.make_key_packages(count, suite, last_resort))
    }

    /// How many key packages are kept.
    ///
    /// # Errors
    /// The store.
    pub fn key_packages_kept(&mut self) -> Result<Vec<KeyPackagesKept>, GroupError> {
        self.operate(|operation| {
            let kept = operation.kept()?;
            let of = |suite: &GroupSuite| {
                let suite = *suite;
                let of_suite = kept.iter().filter(move |kept| kept.suite == suite);
                let last_resorts = of_suite.clone().filter(|kept| kept.last_resort);
                KeyPackagesKept {
                    suite,
                    one_time: of_suite.filter(|kept| !kept.last_resort).count(),
                    last_resort_until: last_resorts.map(|kept| kept.not_after).max(),
                }
            };
            Ok(operation.member.suites().iter().map(of).collect())
        })
    }

    /// Deletes the private keys of key packages whose last invitations must have come: their lifetime is over, and
    /// that of a message that was sent at its end too. To be called daily.
    ///
    /// # Errors
    /// The store.
    pub fn forget_old_key_packages(&mut self) -> Result<(), GroupError> {
        self.operate(|operation| operation.forget_old_key_packages())
    }
}

impl<S: GroupStore> Operation<'_, S> {
    fn make_key_packages(
        &self,
        count: usize,
        suite: GroupSuite,
        last_resort: bool,
    ) -> Result<Vec<Vec<u8>>, GroupError> {
        if !self.member.supports(suite) {
            return Err(GroupError::Suite);
        }
        let mut kept = self.kept()?;
        if count > KEY_PACKAGES_PER_BATCH_MAX || kept.len() + count > KEY_PACKAGES_KEPT_MAX {
            return Err(GroupError::TooMany);
        }
        let mut made = Vec::with_capacity(count);
        for _ in 0..count {
            let builder = KeyPackage::builder()
                .key_package_lifetime(lifetime(self.now))
                .leaf_node_capabilities(self.member.capabilities());
            let builder = if last_resort { builder.mark_as_last_resort() } else { builder };
            let bundle = builder
                .build(suite.mls(), &self.provider, self.member, self.member.credential())
                .map_err(|error| GroupError::library(&error))?;
            let package = bundle.key_package();
            kept.push(Kept {
                reference: package
                    .hash_ref(&self.provider.crypto)
                    .map_err(|error| GroupError::library(&error))?,
                suite,
                last_resort,
                not_after: UnixTime(package.life_time().not_after()),
            });
            let bytes = package.tls_serialize_detached().map_err(|error| GroupError::library(&error))?;
            made.push(bytes);
        }
        self.save_kept(&kept)?;
        Ok(made)
    }

    /// A key package was used up, if it was not one of last resort. Returns whether it was.
    pub(crate) fn used_key_package(&self, package: &KeyPackage) -> Result<bool, GroupError> {
        let reference =
            package.hash_ref(&self.provider.crypto).map_err(|error| GroupError::library(&error))?;
        if package.last_resort() {
            return Ok(true);
        }
        let mut kept = self.kept()?;
        kept.retain(|kept| kept.reference != reference);
        self.save_kept(&kept)?;
        Ok(false)
    }

    fn forget_old_key_packages(&self) -> Result<(), GroupError> {
        let (kept, over): (Vec<_>, Vec<_>) = self
            .kept()?
            .into_iter()
            .partition(|kept| kept.not_after.plus(MESSAGE_LIFETIME_SECONDS_MAX) > self.now);
        if over.is_empty() {
            return Ok(());
        }
        for package in over {
            self.provider.storage.delete_key_package(&package.reference)?;
        }
        self.save_kept(&kept)
    }

    pub(crate) fn forget_all_key_packages(&self) -> Result<(), GroupError> {
        for package in self.kept()? {
            self.provider.storage.delete_key_package(&package.reference)?;
        }
        self.save_kept(&[])
    }

    fn kept(&self) -> Result<Vec<Kept>, GroupError> {
        Ok(self.provider.storage.load(Kind::KeyPackageIndex, &())?.unwrap_or_default())
    }

    fn save_kept(&self, kept: &[Kept]) -> Result<(), GroupError> {
        Ok(self.provider.storage.save(Kind::KeyPackageIndex, &(), &kept)?)
    }
}

/// Reads a key package that is to be used at `now`, and verifies its signatures.
pub(crate) fn read(
    bytes: &[u8],
    suite: GroupSuite,
    now: UnixTime,
    crypto: &Crypto<'_>,
) -> Result<KeyPackage, Refusal> {
    if bytes.len() > KEY_PACKAGE_BYTES_MAX {
        return Err(Refusal::TooLarge);
    }
    let package = KeyPackageIn::tls_deserialize_exact(bytes).map_err(|_| Refusal::Malformed)?;
    let package = package.validate(crypto, ProtocolVersion::Mls10).map_err(|error| match error {
        KeyPackageVerifyError::LifetimeError(_) => Refusal::Lifetime,
        KeyPackageVerifyError::InvalidSignature | KeyPackageVerifyError::InvalidLeafNodeSignature => {
            Refusal::Undecryptable
        }
        _ => Refusal::Invalid,
    })?;
    check(&package, suite, now)?;
    if package.life_time().not_after() <= now.0 { Err(Refusal::Lifetime) } else { Ok(package) }
}

/// Whether a key package is one of this suite whose lifetime is, or was when it was used, a good one. A commit may be
/// read long after it was made.
pub(crate) fn check(package: &KeyPackage, suite: GroupSuite, now: UnixTime) -> Result<(), Refusal> {
    if package.ciphersuite() != suite.mls()
        || package.extensions().iter().any(|known| known.extension_type() != ExtensionType::LastResort)
    {
        return Err(Refusal::Unsupported);
    }
    check_lifetime(package.life_time(), now)
}

fn check_lifetime(lifetime: &Lifetime, now: UnixTime) -> Result<(), Refusal> {
    let (from, until) = (UnixTime(lifetime.not_before()), UnixTime(lifetime.not_after()));
    let range = until.0.checked_sub(from.0).ok_or(Refusal::Lifetime)?;
    let over = until.plus(MESSAGE_LIFETIME_SECONDS_MAX) <= now;
    if range > LIFETIME_RANGE_SECONDS_MAX || from > now.plus(CLOCK_SKEW_SECONDS_MAX) || over {
        return Err(Refusal::Lifetime);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);
    const DAY: u64 = 86_400;

    #[test]
    fn lifetimes_are_bounded_and_judged_by_the_clock_that_is_passed() {
        let check = |from: u64, until: u64| check_lifetime(&Lifetime::init(from, until), NOW);
        assert_eq!(check(NOW.0 - 3600, NOW.0 + 84 * DAY), Ok(()));
        assert_eq!(check(NOW.0 - 3601, NOW.0 + 84 * DAY), Err(Refusal::Lifetime), "a second too long");
        assert_eq!(check(NOW.0 + 300, NOW.0 + DAY), Ok(()), "a clock that is 5 minutes ahead");
        assert_eq!(check(NOW.0 + 301, NOW.0 + DAY), Err(Refusal::Lifetime));
        assert_eq!(check(NOW.0 - 60 * DAY, NOW.0 - 30 * DAY + 1), Ok(()), "a commit that waited");
        assert_eq!(check(NOW.0 - 60 * DAY, NOW.0 - 30 * DAY), Err(Refusal::Lifetime));
        assert_eq!(check(NOW.0 + 1, NOW.0), Err(Refusal::Lifetime), "it ends before it begins");
        assert_eq!(check(0, u64::MAX), Err(Refusal::Lifetime));
    }
}
