//! Key packages: what an upload adds, and which one a look-up takes.
//!
//! One-time key packages of a device and suite have dense numbers, and wait in runs: numbers in a row that end at
//! one time. A look-up takes the lowest number of the run that ends first, so that no key package is given twice,
//! and neither taking nor counting searches the store. When there is none, the last resort is given, and stays.
//! References of all, taken or not, are remembered until they have ended: none comes back.

use std::ops::Range;

use sealpost_wire::api::keyserver::{FoundKeyPackage, KeyPackageCount, KeyPackageUpload, KeyPackagesFound};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{DeviceId, KeyPackageRef};
use sealpost_wire::key_package::{KeyPackageError, KeyPackageOwner, MlsSuite, SignedKeyPackage};
use sealpost_wire::limits::KEY_PACKAGES_PER_UPLOAD_MAX;
use serde::{Deserialize, Serialize};

use crate::look_up::{FoundPrekeys, answered};

/// Why an upload is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyPackageUploadError {
    /// A key package is not to be believed, or not valid now.
    #[error(transparent)]
    KeyPackage(#[from] KeyPackageError),
    /// A key package does not fit: of another suite, twice, for one time where the last resort is or the other way
    /// round; or there are none, or too many.
    #[error("the field {0} has a value that is not allowed")]
    Value(&'static str),
    /// A key package was uploaded before, with others.
    #[error("a key package was uploaded before")]
    Reused,
    /// The device has as many as are kept for it. Later, when some were used, it may upload more.
    #[error("as many key packages are stored as are kept for one device")]
    TooMany,
}

/// Limits on what is kept for one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPackageLimits {
    /// One-time key packages of one suite that wait to be taken.
    pub one_time_max: u64,
    /// References that are remembered, of taken ones too.
    pub remembered_max: u64,
}

/// An upload that is to be believed.
#[derive(Clone, Debug)]
pub struct NewKeyPackages {
    /// The suite of all of them.
    pub suite: MlsSuite,
    /// One-time key packages, those that end first in front.
    pub one_time: Vec<NewKeyPackage>,
    /// The last resort.
    pub last_resort: Option<NewKeyPackage>,
    /// Whether all earlier key packages of the suite are void.
    pub replace: bool,
}

/// A key package as it goes into the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKeyPackage {
    /// Its name.
    pub reference: KeyPackageRef,
    /// When it ends.
    pub until: UnixTime,
    /// The key package.
    pub bytes: Vec<u8>,
}

impl NewKeyPackages {
    /// Reads and verifies an upload of `owner`.
    ///
    /// # Errors
    /// See [`KeyPackageUploadError`].
    pub fn read(
        body: KeyPackageUpload,
        owner: &mut KeyPackageOwner<'_>,
        now: UnixTime,
    ) -> Result<Self, KeyPackageUploadError> {
        let suite = MlsSuite::from_code(body.suite).ok_or(KeyPackageUploadError::Value("suite"))?;
        let is_nothing = body.packages.is_empty() && body.last_resort.is_none();
        if is_nothing || body.packages.len() > KEY_PACKAGES_PER_UPLOAD_MAX {
            return Err(KeyPackageUploadError::Value("packages"));
        }
        let mut read = |bytes: Base64Url, is_last_resort: bool| {
            let package = SignedKeyPackage::read(bytes.as_ref())?;
            if package.suite() != suite {
                return Err(KeyPackageUploadError::Value("suite"));
            }
            if package.is_last_resort() != is_last_resort {
                return Err(KeyPackageUploadError::Value("last_resort"));
            }
            let package = *package.verify(owner, now)?.package();
            let (reference, until) = (package.reference(), package.lifetime().not_after);
            Ok(NewKeyPackage { reference, until, bytes: bytes.0 })
        };
        let one_time = body.packages.into_iter().map(|bytes| read(bytes, false));
        let mut one_time = one_time.collect::<Result<Vec<_>, _>>()?;
        let last_resort = body.last_resort.map(|bytes| read(bytes, true)).transpose()?;
        one_time.sort_by_key(|package| package.reference);
        if one_time.windows(2).any(|two| two[0].reference == two[1].reference) {
            return Err(KeyPackageUploadError::Value("packages"));
        }
        one_time.sort_by_key(|package| package.until);
        Ok(Self { suite, one_time, last_resort, replace: body.replace })
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &NewKeyPackage> {
        self.one_time.iter().chain(&self.last_resort)
    }

    /// When the last of them ends.
    #[must_use]
    pub fn until(&self) -> UnixTime {
        self.all().map(|package| package.until).max().unwrap_or_default()
    }
}

/// What is stored for a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPackageStock {
    /// The store's incarnation that the one-time key packages belong to: those of an earlier one may have been
    /// taken in the life that a restore has cut off.
    pub incarnation: u64,
    /// References that are remembered.
    pub remembered: u64,
    /// One for each suite that the device has uploaded any of.
    pub suites: Vec<KeyPackageSuiteStock>,
}

/// What is stored for one suite of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPackageSuiteStock {
    /// The suite, by its number.
    pub suite: u16,
    /// The number of the next one-time key package that is uploaded.
    pub next: u64,
    /// What waits, the run that ends first in front.
    pub runs: Vec<Run>,
    /// When the last resort ends, if there is one.
    pub last_resort_until: Option<UnixTime>,
}

/// One-time key packages with numbers in a row that end at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Their numbers.
    pub numbers: Range<u64>,
    /// When they end.
    pub until: UnixTime,
}

/// Rows of one suite that are to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Void {
    /// The suite, by its number.
    pub suite: u16,
    /// Numbers of one-time key packages.
    pub one_time: Vec<Range<u64>>,
    /// Whether the last resort goes.
    pub last_resort: bool,
}

/// Where the key packages of an upload go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// What makes room.
    pub void: Vec<Void>,
    /// The number of the first one-time key package; the others follow.
    pub first: u64,
    /// Whether its last resort is stored: one that ends later may be there.
    pub last_resort: bool,
}

/// What a look-up gets of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The one-time key package with this number; it goes.
    OneTime(u64),
    /// The last resort; it stays.
    LastResort,
}

impl KeyPackageStock {
    /// Nothing yet.
    #[must_use]
    pub const fn empty(incarnation: u64) -> Self {
        Self { incarnation, remembered: 0, suites: Vec::new() }
    }

    /// Takes note of the store's incarnation, and gives what a restore has voided.
    pub fn enter(&mut self, incarnation: u64) -> Vec<Void> {
        if self.incarnation == incarnation {
            return Vec::new();
        }
        self.incarnation = incarnation;
        self.suites.iter_mut().map(KeyPackageSuiteStock::void_one_time).collect()
    }

    /// Makes room for an upload, and says where it goes.
    ///
    /// # Errors
    /// [`KeyPackageUploadError::TooMany`].
    pub fn add(
        &mut self,
        new: &NewKeyPackages,
        limits: KeyPackageLimits,
        now: UnixTime,
    ) -> Result<Places, KeyPackageUploadError> {
        let code = new.suite.code();
        let at = self.suites.iter().position(|stock| stock.suite == code).unwrap_or_else(|| {
            self.suites.push(KeyPackageSuiteStock {
                suite: code,
                next: 0,
                runs: Vec::new(),
                last_resort_until: None,
            });
            self.suites.len() - 1
        });
        let stock = &mut self.suites[at];
        let void = if new.replace { stock.void_all() } else { stock.void_expired(now) };
        let waiting = stock.waiting().saturating_add(new.one_time.len() as u64);
        let remembered = self.remembered.saturating_add(new.all().count() as u64);
        if waiting > limits.one_time_max || remembered > limits.remembered_max {
            return Err(KeyPackageUploadError::TooMany);
        }
        self.remembered = remembered;
        let first = stock.next;
        for package in &new.one_time {
            stock.queue(package.until);
        }
        let last_resort = new.last_resort.as_ref().is_some_and(|package| stock.resort_to(package.until));
        Ok(Places { void: vec![void], first, last_resort })
    }

    /// Takes a key package for a look-up; gives what had ended besides.
    pub fn take(&mut self, suite: MlsSuite, now: UnixTime) -> (Option<Taken>, Option<Void>) {
        let Some(stock) = self.suites.iter_mut().find(|stock| stock.suite == suite.code()) else {
            return (None, None);
        };
        let void = stock.void_expired(now);
        let last_resort = stock.last_resort_until.map(|_| Taken::LastResort);
        let taken = stock.next_one_time().map(Taken::OneTime).or(last_resort);
        (taken, Some(void))
    }

    /// Gives what has ended.
    pub fn drop_expired(&mut self, now: UnixTime) -> Vec<Void> {
        self.suites.iter_mut().map(|stock| stock.void_expired(now)).collect()
    }

    /// Voids everything.
    pub fn clear(&mut self) -> Vec<Void> {
        self.suites.iter_mut().map(KeyPackageSuiteStock::void_all).collect()
    }

    /// How many are left, by suite.
    #[must_use]
    pub fn counts(&self, now: UnixTime) -> Vec<KeyPackageCount> {
        let count = |stock: &KeyPackageSuiteStock| KeyPackageCount {
            suite: stock.suite,
            one_time: u32::try_from(stock.waiting_at(now)).unwrap_or(u32::MAX),
            last_resort_until: stock.last_resort_until.filter(|until| *until > now),
        };
        self.suites.iter().map(count).collect()
    }

    /// Whether nothing waits and nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let is_empty =
            |stock: &KeyPackageSuiteStock| stock.runs.is_empty() && stock.last_resort_until.is_none();
        self.remembered == 0 && self.suites.iter().all(is_empty)
    }

    /// One-time key packages of a suite that wait, those that have ended a moment ago among them.
    #[must_use]
    pub fn waiting(&self, suite: MlsSuite) -> u64 {
        let stock = self.suites.iter().find(|stock| stock.suite == suite.code());
        stock.map_or(0, KeyPackageSuiteStock::waiting)
    }
}

impl KeyPackageSuiteStock {
    fn waiting(&self) -> u64 {
        self.runs.iter().map(Run::count).sum()
    }

    fn waiting_at(&self, now: UnixTime) -> u64 {
        self.runs.iter().filter(|run| run.until > now).map(Run::count).sum()
    }

    /// Puts one more behind those that end before it or with it.
    fn queue(&mut self, until: UnixTime) {
        let number = self.next;
        self.next += 1;
        let at = self.runs.partition_point(|run| run.until <= until);
        let before = at.checked_sub(1).and_then(|at| self.runs.get_mut(at));
        match before.filter(|run| run.until == until && run.numbers.end == number) {
            Some(run) => run.numbers.end += 1,
            None => self.runs.insert(at, Run { numbers: number..number + 1, until }),
        }
    }

    fn next_one_time(&mut self) -> Option<u64> {
        let run = self.runs.first_mut()?;
        let number = run.numbers.next()?;
        if run.numbers.is_empty() {
            self.runs.remove(0);
        }
        Some(number)
    }

    /// Notes a last resort, unless one that ends later is there: an upload that was delayed.
    fn resort_to(&mut self, until: UnixTime) -> bool {
        let is_later = self.last_resort_until.is_none_or(|known| known <= until);
        if is_later {
            self.last_resort_until = Some(until);
        }
        is_later
    }

    fn void_expired(&mut self, now: UnixTime) -> Void {
        let ended = self.runs.partition_point(|run| run.until <= now);
        let one_time = self.runs.drain(..ended).map(|run| run.numbers).collect();
        let last_resort = self.last_resort_until.take_if(|until| *until <= now).is_some();
        Void { suite: self.suite, one_time, last_resort }
    }

    fn void_one_time(&mut self) -> Void {
        let one_time = self.runs.drain(..).map(|run| run.numbers).collect();
        Void { suite: self.suite, one_time, last_resort: false }
    }

    fn void_all(&mut self) -> Void {
        let last_resort = self.last_resort_until.take().is_some();
        Void { last_resort, ..self.void_one_time() }
    }
}

impl Run {
    const fn count(&self) -> u64 {
        self.numbers.end.saturating_sub(self.numbers.start)
    }
}

impl Void {
    /// Whether nothing goes.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        self.one_time.is_empty() && !self.last_resort
    }
}

/// What a look-up of key packages came to.
#[derive(Debug)]
pub enum KeyPackageOutcome {
    /// The set, key packages and prekeys.
    Found(FoundKeyPackages),
    /// The recipient has not agreed to the category.
    ConsentMissing,
}

/// A recipient's set, with what this look-up gets of each of its devices.
#[derive(Debug)]
pub struct FoundKeyPackages {
    /// The set.
    pub set: Vec<u8>,
    /// Key packages by device, and whether each is a last resort.
    pub packages: Vec<(DeviceId, Vec<u8>, bool)>,
    /// Devices that have none left.
    pub exhausted: usize,
    /// Signed prekeys by device and suite.
    pub prekeys: Vec<FoundPrekeys>,
}

impl FoundKeyPackages {
    /// The answer.
    #[must_use]
    pub fn answer(self, status: Option<&[u8]>, now: UnixTime) -> KeyPackagesFound {
        let package =
            |(device, bytes, last_resort)| FoundKeyPackage { device, package: Base64Url(bytes), last_resort };
        KeyPackagesFound {
            set: Base64Url(self.set),
            status: status.map(|bytes| Base64Url(bytes.to_vec())),
            packages: self.packages.into_iter().map(package).collect(),
            prekeys: answered(self.prekeys),
            time: now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_000_000);
    const LIMITS: KeyPackageLimits = KeyPackageLimits { one_time_max: 6, remembered_max: 100 };
    const SUITE: MlsSuite = MlsSuite::Classical;

    /// One-time key packages that end after so many seconds, and perhaps a last resort.
    fn new(seconds: &[u64], last_resort: Option<u64>) -> NewKeyPackages {
        let package = |seconds: u64| NewKeyPackage {
            reference: KeyPackageRef([7; 32]),
            until: NOW.plus(seconds),
            bytes: Vec::new(),
        };
        let one_time = seconds.iter().copied().map(package).collect();
        NewKeyPackages { suite: SUITE, one_time, last_resort: last_resort.map(package), replace: false }
    }

    fn stock(uploads: &[&[u64]]) -> KeyPackageStock {
        let mut stock = KeyPackageStock::empty(1);
        for seconds in uploads {
            stock.add(&new(seconds, None), LIMITS, NOW).unwrap();
        }
        stock
    }

    fn take(stock: &mut KeyPackageStock, seconds: u64) -> Option<Taken> {
        stock.take(SUITE, NOW.plus(seconds)).0
    }

    #[test]
    fn what_ends_first_is_taken_first_and_each_once() {
        // The second upload ends before the first.
        let mut stock = stock(&[&[100, 100], &[50, 100]]);
        assert_eq!(stock.suites[0].runs.len(), 3);
        let taken = [(); 5].map(|()| take(&mut stock, 0));
        assert_eq!(
            taken,
            [Some(2), Some(0), Some(1), Some(3), None].map(|number| number.map(Taken::OneTime))
        );
        assert_eq!(stock.suites[0].next, 4, "no number comes back");
    }

    #[test]
    fn uploads_in_a_row_that_end_together_are_one_run() {
        let stock = stock(&[&[100, 100], &[100]]);
        assert_eq!(stock.suites[0].runs, [Run { numbers: 0..3, until: NOW.plus(100) }]);
    }

    #[test]
    fn the_last_resort_is_given_when_nothing_else_is_there_and_stays() {
        let mut stock = stock(&[&[100]]);
        assert!(stock.add(&new(&[], Some(300)), LIMITS, NOW).unwrap().last_resort);
        let taken = [(); 3].map(|()| take(&mut stock, 0));
        assert_eq!(taken, [Some(Taken::OneTime(0)), Some(Taken::LastResort), Some(Taken::LastResort)]);
        assert!(!stock.add(&new(&[], Some(200)), LIMITS, NOW).unwrap().last_resort, "ends earlier");
        assert_eq!(stock.counts(NOW)[0].last_resort_until, Some(NOW.plus(300)));
        assert_eq!(stock.counts(NOW.plus(300))[0].last_resort_until, None);
        let (taken, void) = stock.take(SUITE, NOW.plus(300));
        assert_eq!((taken, void.map(|void| void.last_resort)), (None, Some(true)));
        assert_eq!(stock.take(MlsSuite::Hybrid, NOW), (None, None));
    }

    #[test]
    fn what_has_ended_is_neither_given_nor_counted() {
        let mut stock = stock(&[&[10, 20, 30]]);
        assert_eq!(stock.counts(NOW.plus(20))[0].one_time, 1);
        let (taken, void) = stock.take(SUITE, NOW.plus(20));
        assert_eq!(taken, Some(Taken::OneTime(2)));
        assert_eq!(void.unwrap().one_time, [0..1, 1..2]);
        assert!(stock.drop_expired(NOW.plus(100)).iter().all(Void::is_nothing));
    }

    #[test]
    fn there_is_room_for_so_many_and_what_has_ended_makes_room() {
        let mut stock = stock(&[&[10; 4]]);
        let add = |stock: &mut KeyPackageStock, new, seconds| stock.add(&new, LIMITS, NOW.plus(seconds));
        assert_eq!(add(&mut stock, new(&[50; 3], None), 0), Err(KeyPackageUploadError::TooMany));
        assert!(add(&mut stock, new(&[50; 2], Some(50)), 0).is_ok(), "the last resort is not one of them");
        let places = add(&mut stock, new(&[50; 4], None), 10).unwrap();
        assert_eq!((places.first, places.void[0].one_time.iter().flat_map(Clone::clone).count()), (6, 4));
        let few = KeyPackageLimits { remembered_max: 11, ..LIMITS };
        assert_eq!(stock.remembered, 11);
        assert_eq!(stock.add(&new(&[60], None), few, NOW.plus(50)), Err(KeyPackageUploadError::TooMany));
    }

    #[test]
    fn replacing_voids_what_was_there_of_the_suite() {
        let mut stock = stock(&[&[10, 20]]);
        stock.add(&new(&[], Some(300)), LIMITS, NOW).unwrap();
        let places = stock.add(&NewKeyPackages { replace: true, ..new(&[30], None) }, LIMITS, NOW).unwrap();
        assert_eq!(places.void, [Void { suite: 3, one_time: vec![0..1, 1..2], last_resort: true }]);
        assert_eq!((stock.waiting(SUITE), stock.suites[0].last_resort_until), (1, None));
    }

    #[test]
    fn another_incarnation_voids_what_is_for_one_time() {
        let mut stock = stock(&[&[10, 20]]);
        stock.add(&new(&[], Some(300)), LIMITS, NOW).unwrap();
        assert!(stock.enter(1).is_empty());
        assert_eq!(stock.enter(2), [Void { suite: 3, one_time: vec![0..1, 1..2], last_resort: false }]);
        assert_eq!(take(&mut stock, 0), Some(Taken::LastResort));
        assert_eq!(stock.remembered, 3);
    }
}
