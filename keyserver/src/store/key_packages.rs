//! Key packages in the store: uploads, look-ups that take them, and where peers can be reached.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use sealpost_service::audit::{self, Entry};
use sealpost_service::engine::View;
use sealpost_service::store_key::{content, versioned};
use sealpost_service::tenants::TenantState;
use sealpost_wire::api::keyserver::KeyPackageCount;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{DeviceId, Digest, RecipientId, TenantId};
use sealpost_wire::key_package::MlsSuite;

use super::prekeys::{Shelf, consented_set};
use super::row::{Due, KeyPackageUploadRow, VERSION};
use super::{
    AUDIT, DEVICES, EXPIRY, KEY_PACKAGE_REFS, KEY_PACKAGE_STOCKS, KEY_PACKAGE_UPLOADS, KEY_PACKAGES, Store,
    StoreError, row,
};
use crate::consent::{Category, ConsentPolicy};
use crate::device::Device;
use crate::key_package::{
    FoundKeyPackages, KeyPackageLimits, KeyPackageOutcome, KeyPackageStock, KeyPackageUploadError,
    NewKeyPackages, Taken, Void,
};
use crate::look_up::FoundPeer;

/// A look-up of key packages, with all that it is decided by.
#[derive(Debug)]
pub struct KeyPackageRequest {
    /// Whose.
    pub recipient: RecipientId,
    /// The suite of the group.
    pub suite: MlsSuite,
    /// What the group is for.
    pub category: Category,
    /// What a missing consent means.
    pub policy: ConsentPolicy,
    /// The tenant's revocations.
    pub state: Arc<TenantState>,
    /// The audit row of an answer.
    pub answered: Entry,
    /// The audit row of a refusal for want of consent.
    pub refused: Entry,
}

impl Store {
    /// Stores an upload, and says how many key packages the device has then. The same ones again change nothing.
    ///
    /// # Errors
    /// [`StoreError::KeyPackages`]; [`StoreError::NotFound`] when the device is in no set any more.
    pub async fn put_key_packages(
        &self,
        tenant: &TenantId,
        device: DeviceId,
        new: NewKeyPackages,
        limits: KeyPackageLimits,
        now: UnixTime,
        entry: Entry,
    ) -> Result<Vec<KeyPackageCount>, StoreError> {
        let (tenant, incarnation, waiting) = (tenant.clone(), self.incarnation, self.waiting.clone());
        let decided = self.engine.write("put_key_packages", move |view| {
            let known: Option<Device> = row::find(view, DEVICES, &row::device(&tenant, device))?;
            if known.is_none_or(|known| known.recipient().is_none()) {
                return Err(StoreError::NotFound);
            }
            let mut packages = KeyPackages::open(view, &tenant, device, incarnation, &waiting)?;
            if packages.add(&new, limits, now)? {
                audit::append(packages.view, AUDIT, &tenant, &entry);
            }
            Ok(packages.stock.counts(now))
        });
        decided.await?
    }

    /// Looks a recipient up for a group: the set, and for each of its devices that is not revoked a key package
    /// and the signed prekeys.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the recipient has no set.
    pub async fn look_up_key_packages(
        &self,
        tenant: &TenantId,
        request: KeyPackageRequest,
        now: UnixTime,
    ) -> Result<KeyPackageOutcome, StoreError> {
        let (tenant, incarnation, waiting) = (tenant.clone(), self.incarnation, self.waiting.clone());
        let decided = self.engine.write("look_up_key_packages", move |view| {
            let KeyPackageRequest { recipient, category, policy, .. } = &request;
            let Some(set) = consented_set(view, &tenant, *recipient, category, *policy)? else {
                audit::append(view, AUDIT, &tenant, &request.refused);
                return Ok(KeyPackageOutcome::ConsentMissing);
            };
            let mut found =
                FoundKeyPackages { set: set.bytes, packages: Vec::new(), exhausted: 0, prekeys: Vec::new() };
            for device in set.devices {
                if request.state.trust.check_device(device).is_err() {
                    continue;
                }
                Shelf::open(view, &tenant, device, incarnation)?.take(false, now, &mut found.prekeys)?;
                let mut packages = KeyPackages::open(view, &tenant, device, incarnation, &waiting)?;
                match packages.take(request.suite, now)? {
                    Some((package, last_resort)) => found.packages.push((device, package, last_resort)),
                    None => found.exhausted += 1,
                }
            }
            audit::append(view, AUDIT, &tenant, &request.answered);
            Ok(KeyPackageOutcome::Found(found))
        });
        decided.await?
    }

    /// The signed prekeys of those of `devices` that are in a set and not revoked.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn look_up_peers(
        &self,
        tenant: &TenantId,
        devices: Vec<DeviceId>,
        state: Arc<TenantState>,
        now: UnixTime,
        entry: Entry,
    ) -> Result<Vec<FoundPeer>, StoreError> {
        let (tenant, incarnation) = (tenant.clone(), self.incarnation);
        let decided = self.engine.write("look_up_peers", move |view| {
            let mut peers = Vec::new();
            for id in devices {
                let device: Option<Device> = row::find(view, DEVICES, &row::device(&tenant, id))?;
                let is_admitted = device.is_some_and(|device| device.recipient().is_some());
                if is_admitted && state.trust.check_device(id).is_ok() {
                    let mut prekeys = Vec::new();
                    Shelf::open(view, &tenant, id, incarnation)?.take(false, now, &mut prekeys)?;
                    peers.push(FoundPeer { device: id, prekeys });
                }
            }
            audit::append(view, AUDIT, &tenant, &entry);
            Ok(peers)
        });
        decided.await?
    }

    /// How many key packages of a device are left; nothing for one that has never uploaded any.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] and what the engine says.
    pub fn key_package_counts(
        &self,
        tenant: &TenantId,
        device: DeviceId,
        now: UnixTime,
    ) -> Result<Vec<KeyPackageCount>, StoreError> {
        match self.read::<KeyPackageStock>(KEY_PACKAGE_STOCKS, &row::device(tenant, device)) {
            Ok(mut stock) => {
                stock.enter(self.incarnation);
                Ok(stock.counts(now))
            }
            Err(StoreError::NotFound) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// One-time key packages of a suite that wait, of all devices.
    #[must_use]
    pub fn key_packages_waiting(&self, suite: MlsSuite) -> i64 {
        self.waiting.of(suite)
    }
}

/// One-time key packages that wait in the store, of all devices. Counted when the store is opened, and from then
/// on with each commit.
#[derive(Debug, Default)]
pub(super) struct Waiting([AtomicI64; MlsSuite::ALL.len()]);

impl Waiting {
    /// Adds those of a device.
    pub(super) fn count(&self, stock: &KeyPackageStock) {
        for (count, suite) in self.0.iter().zip(MlsSuite::ALL) {
            count.fetch_add(signed(stock.waiting(suite)), Ordering::Relaxed);
        }
    }

    fn of(&self, suite: MlsSuite) -> i64 {
        let counts = self.0.iter().zip(MlsSuite::ALL);
        counts.filter(|(_, known)| *known == suite).map(|(count, _)| count.load(Ordering::Relaxed)).sum()
    }

    fn add(&self, changes: [i64; MlsSuite::ALL.len()]) {
        for (count, change) in self.0.iter().zip(changes) {
            count.fetch_add(change, Ordering::Relaxed);
        }
    }
}

/// The key packages of one device, within a command.
pub(super) struct KeyPackages<'c> {
    view: &'c mut View,
    tenant: &'c TenantId,
    device: DeviceId,
    waiting: &'c Arc<Waiting>,
    stock: KeyPackageStock,
    /// As it was when it was last saved, without what a restore has voided.
    saved: [i64; MlsSuite::ALL.len()],
}

impl<'c> KeyPackages<'c> {
    pub(super) fn open(
        view: &'c mut View,
        tenant: &'c TenantId,
        device: DeviceId,
        incarnation: u64,
        waiting: &'c Arc<Waiting>,
    ) -> Result<Self, StoreError> {
        let stock: Option<KeyPackageStock> =
            row::find(view, KEY_PACKAGE_STOCKS, &row::device(tenant, device))?;
        let mut stock = stock.unwrap_or_else(|| KeyPackageStock::empty(incarnation));
        let void = stock.enter(incarnation);
        let mut packages = Self { view, tenant, device, waiting, saved: levels(&stock), stock };
        if !void.is_empty() {
            packages.discard(&void);
            packages.save()?;
        }
        Ok(packages)
    }

    /// Adds an upload; says whether it was new.
    fn add(
        &mut self,
        new: &NewKeyPackages,
        limits: KeyPackageLimits,
        now: UnixTime,
    ) -> Result<bool, StoreError> {
        let (tenant, device) = (self.tenant, self.device);
        let known = |reference| row::key_package_ref(tenant, device, reference);
        let is_known = |reference| self.view.contains(KEY_PACKAGE_REFS, known(reference));
        let again = new.all().filter(|package| is_known(package.reference)).count();
        if again > 0 {
            let is_same = again == new.all().count();
            return if is_same { Ok(false) } else { Err(KeyPackageUploadError::Reused.into()) };
        }
        let places = self.stock.add(new, limits, now)?;
        self.discard(&places.void);
        let suite = new.suite.code();
        for (number, package) in (places.first..).zip(&new.one_time) {
            let key = row::key_package(tenant, device, suite, number);
            self.view.put(KEY_PACKAGES, key, versioned(VERSION, &package.bytes));
        }
        if let Some(package) = new.last_resort.as_ref().filter(|_| places.last_resort) {
            let key = row::last_resort(tenant, device, suite);
            self.view.put(KEY_PACKAGES, key, versioned(VERSION, &package.bytes));
        }
        for package in new.all() {
            self.view.put(KEY_PACKAGE_REFS, known(package.reference), [VERSION]);
        }
        let value = KeyPackageUploadRow::value(new.all().map(|package| package.reference));
        // Named by what it holds, which no other upload does.
        let upload = row::batch_name(&Digest::of(&value));
        self.view.put(KEY_PACKAGE_UPLOADS, row::batch(tenant, device, &upload), value);
        let due = Due::KeyPackages(device, upload).key(tenant, new.until());
        self.view.put(EXPIRY, due, [VERSION]);
        self.save()?;
        Ok(true)
    }

    /// Takes what a look-up gets: a key package, and whether it is the last resort.
    fn take(&mut self, suite: MlsSuite, now: UnixTime) -> Result<Option<(Vec<u8>, bool)>, StoreError> {
        let (taken, void) = self.stock.take(suite, now);
        let void: Vec<Void> = void.into_iter().collect();
        self.discard(&void);
        let changed = matches!(taken, Some(Taken::OneTime(_))) || !void.iter().all(Void::is_nothing);
        if changed {
            self.save()?;
        }
        let (tenant, device, code) = (self.tenant, self.device, suite.code());
        let (value, last_resort) = match taken {
            None => return Ok(None),
            Some(Taken::OneTime(number)) => {
                (self.view.take(KEY_PACKAGES, row::key_package(tenant, device, code, number)), false)
            }
            Some(Taken::LastResort) => {
                (self.view.get(KEY_PACKAGES, row::last_resort(tenant, device, code)), true)
            }
        };
        let package = value.as_deref().and_then(|value| content(value, VERSION));
        let package = package.ok_or(StoreError::Damaged(KEY_PACKAGES.name()))?;
        Ok(Some((package.to_vec(), last_resort)))
    }

    /// Forgets an upload and its references, and what has ended.
    pub(super) fn forget(&mut self, references: u64, now: UnixTime) -> Result<(), StoreError> {
        self.stock.remembered = self.stock.remembered.saturating_sub(references);
        let void = self.stock.drop_expired(now);
        self.discard(&void);
        self.save()
    }

    /// Drops all key packages and the stock itself.
    pub(super) fn close(mut self) {
        let void = self.stock.clear();
        self.discard(&void);
        self.recount();
        self.view.remove(KEY_PACKAGE_STOCKS, row::device(self.tenant, self.device));
    }

    fn discard(&mut self, void: &[Void]) {
        for Void { suite, one_time, last_resort } in void {
            for number in one_time.iter().cloned().flatten() {
                self.view.remove(KEY_PACKAGES, row::key_package(self.tenant, self.device, *suite, number));
            }
            if *last_resort {
                self.view.remove(KEY_PACKAGES, row::last_resort(self.tenant, self.device, *suite));
            }
        }
    }

    fn save(&mut self) -> Result<(), StoreError> {
        self.recount();
        let key = row::device(self.tenant, self.device);
        // Nothing is left of a device that was removed, or has long uploaded nothing.
        if self.stock.is_empty() {
            self.view.remove(KEY_PACKAGE_STOCKS, key);
            return Ok(());
        }
        row::put(self.view, KEY_PACKAGE_STOCKS, key, &self.stock)
    }

    /// Brings what waits in the whole store up to date, once the command is durable.
    fn recount(&mut self) {
        let (before, now) = (self.saved, levels(&self.stock));
        self.saved = now;
        let waiting = self.waiting.clone();
        let mut changes = now;
        changes.iter_mut().zip(before).for_each(|(change, before)| *change -= before);
        self.view.after_commit(move || waiting.add(changes));
    }
}

fn levels(stock: &KeyPackageStock) -> [i64; MlsSuite::ALL.len()] {
    MlsSuite::ALL.map(|suite| signed(stock.waiting(suite)))
}

/// A device has a few hundred at most.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
