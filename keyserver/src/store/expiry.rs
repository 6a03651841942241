//! What the store forgets, in small steps.

use sealpost_service::access::expire_jtis;
use sealpost_service::engine::{Space, View};
use sealpost_service::store_key::{after_tenant, tenant_key};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{DeviceId, TenantId};

use super::key_packages::KeyPackages;
use super::prekeys::Shelf;
use super::row::{BatchRow, Due, KeyPackageUploadRow};
use super::{
    ASSERTIONS, BATCHES, DEVICES, EXPIRY, KEY_PACKAGE_REFS, KEY_PACKAGE_UPLOADS, PREKEY_IDS, Store,
    StoreError, TICKETS, row,
};
use crate::device::{Device, Standing};
use crate::ticket::Ticket;

/// Rows that are due, of one step. One of them may stand for several hundred prekeys or key packages.
const DUE_PER_STEP_MAX: usize = 16;
/// Used assertions that one step forgets.
const ASSERTIONS_PER_STEP_MAX: usize = 256;

/// What one step of expiry did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Tickets that were forgotten.
    pub tickets: u64,
    /// Batches of prekeys that were forgotten.
    pub batches: u64,
    /// Uploads of key packages that were forgotten.
    pub key_package_uploads: u64,
    /// Client assertions that were forgotten.
    pub assertions: u64,
    /// Whether more is due.
    pub more: bool,
}

impl Store {
    /// Forgets what is over, one step of it: used assertions that could not be shown again, tickets and what
    /// claimed them, prekeys that nothing may be sealed to or opened with, key packages that have ended.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn expire(&self, tenant: &TenantId, now: UnixTime) -> Result<Expired, StoreError> {
        let (tenant, incarnation, waiting) = (tenant.clone(), self.incarnation, self.waiting.clone());
        let decided = self.engine.write_with("expire", Space::Frees, move |view| {
            let start = tenant_key(&tenant, &[]);
            let end = tenant_key(&tenant, &[&now.0.to_be_bytes()]);
            let due = view.range(EXPIRY, start.as_slice()..end.as_slice()).take(DUE_PER_STEP_MAX);
            let due: Vec<_> = due.map(|(key, _)| key).collect();
            let assertions = expire_jtis(view, ASSERTIONS, &tenant, now, ASSERTIONS_PER_STEP_MAX);
            let mut expired = Expired {
                assertions: assertions as u64,
                more: due.len() == DUE_PER_STEP_MAX || assertions == ASSERTIONS_PER_STEP_MAX,
                ..Expired::default()
            };
            for key in due {
                match after_tenant(&key, &tenant).and_then(Due::read) {
                    Some(Due::Ticket(id)) => {
                        let key = row::ticket(&tenant, id);
                        if let Some(ticket) = row::find::<Ticket>(view, TICKETS, &key)? {
                            forget_claims(view, &tenant, &ticket, incarnation)?;
                        }
                        view.remove(TICKETS, key);
                        expired.tickets += 1;
                    }
                    Some(Due::OneTime(device)) => {
                        if let Some(mut shelf) = shelf(view, &tenant, device, incarnation)? {
                            shelf.drop_expired(now)?;
                        }
                    }
                    Some(Due::Batch(device, batch)) => {
                        let key = row::batch(&tenant, device, &batch);
                        if let Some(value) = view.take(BATCHES, key) {
                            let ids = BatchRow::read(&value)?.ids;
                            for id in &ids {
                                view.remove(PREKEY_IDS, row::prekey_id(&tenant, device, *id));
                            }
                            if let Some(mut shelf) = shelf(view, &tenant, device, incarnation)? {
                                shelf.forget(ids.len() as u64)?;
                            }
                        }
                        expired.batches += 1;
                    }
                    Some(Due::Removed(device)) => {
                        if let Some(shelf) = shelf(view, &tenant, device, incarnation)? {
                            shelf.close();
                        }
                        KeyPackages::open(view, &tenant, device, incarnation, &waiting)?.close();
                    }
                    Some(Due::KeyPackages(device, upload)) => {
                        let key = row::batch(&tenant, device, &upload);
                        if let Some(value) = view.take(KEY_PACKAGE_UPLOADS, key) {
                            let references = KeyPackageUploadRow::read(&value)?;
                            for reference in &references {
                                view.remove(
                                    KEY_PACKAGE_REFS,
                                    row::key_package_ref(&tenant, device, *reference),
                                );
                            }
                            let mut packages =
                                KeyPackages::open(view, &tenant, device, incarnation, &waiting)?;
                            packages.forget(references.len() as u64, now)?;
                        }
                        expired.key_package_uploads += 1;
                    }
                    None => {}
                }
                view.remove(EXPIRY, key);
            }
            Ok::<_, StoreError>(expired)
        });
        decided.await?
    }
}

/// Forgets the devices that claimed a ticket and were not admitted.
fn forget_claims(
    view: &mut View,
    tenant: &TenantId,
    ticket: &Ticket,
    incarnation: u64,
) -> Result<(), StoreError> {
    let claimed = ticket.claims.iter().map(|claim| claim.device);
    for id in claimed.chain(ticket.declined.iter().copied()) {
        let key = row::device(tenant, id);
        let Some(device) = row::find::<Device>(view, DEVICES, &key)? else { continue };
        if matches!(device.standing, Standing::Pending | Standing::Declined) {
            if let Some(shelf) = shelf(view, tenant, id, incarnation)? {
                shelf.close();
            }
            view.remove(DEVICES, key);
        }
    }
    Ok(())
}

/// The prekeys of a device, unless they are gone.
fn shelf<'c>(
    view: &'c mut View,
    tenant: &'c TenantId,
    device: DeviceId,
    incarnation: u64,
) -> Result<Option<Shelf<'c>>, StoreError> {
    match Shelf::open(view, tenant, device, incarnation) {
        Ok(shelf) => Ok(Some(shelf)),
        Err(StoreError::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}
