//! Prekeys in the store: uploads, and look-ups that take them.

use std::sync::Arc;

use sealpost_service::audit::{self, Entry};
use sealpost_service::engine::View;
use sealpost_service::store_key::{content, versioned};
use sealpost_service::tenants::TenantState;
use sealpost_wire::api::keyserver::{Consent, PrekeyCount};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{DeviceId, RecipientId, TenantId};
use sealpost_wire::message::Suite;
use sealpost_wire::prekey::PrekeyKind;

use super::row::{BatchRow, Due, SetRow, VERSION};
use super::{
    AUDIT, BATCHES, CONSENTS, DEVICE_SETS, EXPIRY, PREKEY_IDS, PREKEYS, STOCKS, Store, StoreError, row,
};
use crate::consent::{Category, ConsentPolicy};
use crate::look_up::{Found, FoundPrekey, FoundPrekeys, LookUpOutcome};
use crate::prekey::{Place, PrekeyLimits, PrekeyRow, Stock, SuiteStock, Upload, UploadError};

/// A look-up, with all that it is decided by.
#[derive(Debug)]
pub struct LookUpRequest {
    /// Whose prekeys.
    pub recipient: RecipientId,
    /// What is to be sent.
    pub category: Category,
    /// What a missing consent means.
    pub policy: ConsentPolicy,
    /// Whether one-time prekeys are to be taken.
    pub one_time: bool,
    /// The tenant's revocations.
    pub state: Arc<TenantState>,
    /// The audit row of an answer.
    pub answered: Entry,
    /// The audit row of a refusal for want of consent.
    pub refused: Entry,
}

impl Store {
    /// Stores an upload, and says how many prekeys the device has then. The same batch again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Upload`].
    pub async fn put_prekeys(
        &self,
        tenant: &TenantId,
        device: DeviceId,
        upload: Upload,
        limits: PrekeyLimits,
        now: UnixTime,
        entry: Entry,
    ) -> Result<Vec<PrekeyCount>, StoreError> {
        let (tenant, incarnation) = (tenant.clone(), self.incarnation);
        let decided = self.engine.write("put_prekeys", move |view| {
            let mut shelf = Shelf::open(view, &tenant, device, incarnation)?;
            if shelf.add(&upload, limits)? {
                audit::append(shelf.view, AUDIT, &tenant, &entry);
            }
            Ok(shelf.stock.counts(now))
        });
        decided.await?
    }

    /// Looks a recipient up: the set, and for each of its devices that is not revoked the signed prekeys and,
    /// if asked for, one-time prekeys that nobody else gets.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the recipient has no set.
    pub async fn look_up(
        &self,
        tenant: &TenantId,
        request: LookUpRequest,
        now: UnixTime,
    ) -> Result<LookUpOutcome, StoreError> {
        let (tenant, incarnation) = (tenant.clone(), self.incarnation);
        let decided = self.engine.write("look_up", move |view| {
            let LookUpRequest { recipient, category, policy, .. } = &request;
            let Some(set) = consented_set(view, &tenant, *recipient, category, *policy)? else {
                audit::append(view, AUDIT, &tenant, &request.refused);
                return Ok(LookUpOutcome::ConsentMissing);
            };
            let mut devices = Vec::new();
            for device in set.devices {
                if request.state.trust.check_device(device).is_ok() {
                    let mut shelf = Shelf::open(view, &tenant, device, incarnation)?;
                    shelf.take(request.one_time, now, &mut devices)?;
                }
            }
            audit::append(view, AUDIT, &tenant, &request.answered);
            Ok(LookUpOutcome::Found(Found { set: set.bytes, devices }))
        });
        decided.await?
    }
}

/// A recipient's set, as far as a look-up needs it.
pub(super) struct LookedUpSet {
    pub(super) bytes: Vec<u8>,
    pub(super) devices: Vec<DeviceId>,
}

/// The set of a recipient, if they have agreed to the category.
pub(super) fn consented_set(
    view: &View,
    tenant: &TenantId,
    recipient: RecipientId,
    category: &Category,
    policy: ConsentPolicy,
) -> Result<Option<LookedUpSet>, StoreError> {
    let set = view.get(DEVICE_SETS, row::recipient(tenant, recipient)).ok_or(StoreError::NotFound)?;
    let set = SetRow::read(&set)?;
    let consent: Option<Consent> =
        row::find(view, CONSENTS, &row::consent(tenant, recipient, category.as_str()))?;
    let is_allowed = policy.allows(consent.as_ref());
    Ok(is_allowed.then(|| LookedUpSet { bytes: set.bytes.to_vec(), devices: set.devices }))
}

/// The prekeys of one device, within a command.
pub(super) struct Shelf<'c> {
    view: &'c mut View,
    tenant: &'c TenantId,
    device: DeviceId,
    stock: Stock,
}

impl<'c> Shelf<'c> {
    pub(super) fn open(
        view: &'c mut View,
        tenant: &'c TenantId,
        device: DeviceId,
        incarnation: u64,
    ) -> Result<Self, StoreError> {
        let stock: Option<Stock> = row::find(view, STOCKS, &row::device(tenant, device))?;
        let stock = stock.ok_or(StoreError::NotFound)?;
        let mut shelf = Self { view, tenant, device, stock };
        let void = shelf.stock.enter(incarnation);
        if !void.is_empty() {
            shelf.discard(void);
            shelf.save()?;
        }
        Ok(shelf)
    }

    /// Adds an upload; says whether it was new.
    fn add(&mut self, upload: &Upload, limits: PrekeyLimits) -> Result<bool, StoreError> {
        let batch = row::batch_name(&upload.batch_id);
        let batch_key = row::batch(self.tenant, self.device, &batch);
        if self.view.contains(BATCHES, &batch_key) {
            return Ok(false);
        }
        if upload.replace {
            self.clear();
        }
        let places = self.stock.add(upload, limits)?;
        for (prekey, place) in upload.prekeys.iter().zip(places) {
            let id = row::prekey_id(self.tenant, self.device, prekey.id);
            if self.view.contains(PREKEY_IDS, &id) {
                return Err(UploadError::Reused.into());
            }
            self.view.put(PREKEY_IDS, id, [VERSION]);
            let key = match place {
                Place::Queue(number) => row::one_time(self.tenant, self.device, prekey.suite, number),
                Place::Signed => row::signed(self.tenant, self.device, prekey.suite),
                Place::Superseded => continue,
            };
            self.view.put(PREKEYS, key, versioned(VERSION, &PrekeyRow::new(prekey, batch).to_bytes()));
        }
        let ids = upload.prekeys.iter().map(|prekey| prekey.id);
        self.view.put(BATCHES, batch_key, BatchRow::value(ids, &upload.batch));
        let one_time = upload.prekeys.iter().filter(|prekey| prekey.kind == PrekeyKind::OneTime);
        if let Some(last) = one_time.map(|prekey| prekey.seal_until).max() {
            self.view.put(EXPIRY, Due::OneTime(self.device).key(self.tenant, last), [VERSION]);
        }
        let forgotten = Due::Batch(self.device, batch).key(self.tenant, upload.open_until);
        self.view.put(EXPIRY, forgotten, [VERSION]);
        self.save()?;
        Ok(true)
    }

    /// Takes what a look-up gets, for each suite.
    pub(super) fn take(
        &mut self,
        one_time: bool,
        now: UnixTime,
        found: &mut Vec<FoundPrekeys>,
    ) -> Result<(), StoreError> {
        let mut changed = false;
        for at in 0..self.stock.suites.len() {
            let stock = &self.stock.suites[at];
            let (suite, signed) = (stock.suite, stock.signed);
            let signed = match signed {
                Some(signed) if signed.seal_until > now => {
                    let key = row::signed(self.tenant, self.device, suite);
                    Some(self.prekey(&key)?)
                }
                _ => None,
            };
            let number = if one_time && stock.head < stock.tail {
                changed = true;
                self.next(at, now)
            } else {
                None
            };
            let one_time = match number {
                Some(number) => {
                    let key = row::one_time(self.tenant, self.device, suite, number);
                    let prekey = self.prekey(&key)?;
                    self.view.remove(PREKEYS, key);
                    Some(prekey)
                }
                None => None,
            };
            found.push(FoundPrekeys { device: self.device, suite, signed, one_time });
        }
        if changed { self.save() } else { Ok(()) }
    }

    /// Passes over one-time prekeys that may be sealed to no longer.
    pub(super) fn drop_expired(&mut self, now: UnixTime) -> Result<(), StoreError> {
        for at in 0..self.stock.suites.len() {
            while let SuiteStock { suite, head, tail, .. } = self.stock.suites[at]
                && head < tail
                && self.seal_until(suite, head).is_none_or(|until| until <= now)
            {
                self.view.remove(PREKEYS, row::one_time(self.tenant, self.device, suite, head));
                self.stock.suites[at].head += 1;
            }
        }
        self.save()
    }

    /// Forgets a batch and its ids.
    pub(super) fn forget(&mut self, ids: u64) -> Result<(), StoreError> {
        self.stock.remembered = self.stock.remembered.saturating_sub(ids);
        self.save()
    }

    /// Drops all prekeys and the stock itself.
    pub(super) fn close(mut self) {
        self.clear();
        self.view.remove(STOCKS, row::device(self.tenant, self.device));
    }

    fn clear(&mut self) {
        let void = self.stock.clear();
        for (suite, _) in &void {
            self.view.remove(PREKEYS, row::signed(self.tenant, self.device, *suite));
        }
        self.discard(void);
    }

    fn discard(&mut self, void: Vec<(Suite, std::ops::Range<u64>)>) {
        for (suite, numbers) in void {
            for number in numbers {
                self.view.remove(PREKEYS, row::one_time(self.tenant, self.device, suite, number));
            }
        }
    }

    /// The number of the next one-time prekey that may still be sealed to.
    fn next(&mut self, at: usize, now: UnixTime) -> Option<u64> {
        let mut stock = self.stock.suites[at].clone();
        let taken = stock.take(now, |number| self.seal_until(stock_suite(&self.stock, at), number));
        let suite = stock.suite;
        self.stock.suites[at] = stock;
        for number in taken.expired {
            self.view.remove(PREKEYS, row::one_time(self.tenant, self.device, suite, number));
        }
        taken.number
    }

    fn seal_until(&self, suite: Suite, number: u64) -> Option<UnixTime> {
        let value = self.view.get(PREKEYS, row::one_time(self.tenant, self.device, suite, number))?;
        PrekeyRow::seal_until_of(content(&value, VERSION)?)
    }

    fn prekey(&self, key: &[u8]) -> Result<FoundPrekey, StoreError> {
        let damaged = || StoreError::Damaged(PREKEYS.name());
        let value = self.view.get(PREKEYS, key).ok_or_else(damaged)?;
        let row = content(&value, VERSION).and_then(PrekeyRow::read).ok_or_else(damaged)?;
        let batch = self.view.get(BATCHES, row::batch(self.tenant, self.device, &row.batch));
        let batch = BatchRow::read(&batch.ok_or_else(damaged)?)?.batch;
        Ok(FoundPrekey { row, batch })
    }

    fn save(&mut self) -> Result<(), StoreError> {
        row::put(self.view, STOCKS, row::device(self.tenant, self.device), &self.stock)
    }
}

fn stock_suite(stock: &Stock, at: usize) -> Suite {
    stock.suites[at].suite
}
