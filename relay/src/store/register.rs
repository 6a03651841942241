//! Devices register, and are put out of use.

use std::sync::Arc;

use sealpost_service::audit::{Act, Actor, Entry, Object};
use sealpost_service::engine::View;
use sealpost_wire::delivery::DeliveryState;
use sealpost_wire::id::{DeviceId, TenantId};

use super::change::{Cause, Change};
use super::device_row::{Device, PushTarget};
use super::key::{self, DEVICES, TENANTS};
use super::settle::waiting;
use super::tenant_row::TenantRow;
use super::{AppId, Damaged, Store, StoreError};

/// A device that its tenant has admitted.
#[derive(Clone, Debug)]
pub struct Registering {
    /// The tenant.
    pub tenant: TenantId,
    /// The device.
    pub device: DeviceId,
    /// Its keys, and where its stubs go.
    pub row: Device,
    /// Whether the push token is the one that it has given before.
    pub same_token: bool,
    /// Now (milliseconds).
    pub now_ms: u64,
    /// The row for the audit.
    pub audit: Entry,
}

/// What became of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    /// It is durable; before, there was no such device.
    New,
    /// It is durable, in place of an earlier one.
    Renewed,
    /// Another identity key has this device id.
    OtherIdentity,
    /// A newer record of the device was registered already.
    Outdated,
}

impl Store {
    /// The registration of a device, as of the last durable write.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn device(&self, tenant: &TenantId, device: DeviceId) -> Result<Option<Device>, StoreError> {
        let value = self.engine.get(DEVICES, key::device(self.home(tenant)?, device))?;
        Ok(value.map(|value| Device::decode(&value).ok_or(Damaged(DEVICES.name()))).transpose()?)
    }

    /// Registers a device: makes its mailbox, or renews its push token.
    ///
    /// # Errors
    /// [`StoreError`]; the same may be tried again.
    pub async fn register_device(&self, registering: Registering) -> Result<Registered, StoreError> {
        let (shared, home) = (self.shared.clone(), self.home(&registering.tenant)?);
        let decide = move |view: &mut View| {
            let Registering { tenant, device, row, same_token, now_ms, audit } = registering;
            let mut change = Change::new(view, tenant, home, now_ms);
            let before = change.device(device)?;
            if let Some(before) = &before {
                if before.identity_key != row.identity_key {
                    return Ok(Registered::OtherIdentity);
                }
                if before.created > row.created {
                    return Ok(Registered::Outdated);
                }
            }
            let was_used =
                before.as_ref().and_then(|before| before.push.as_ref()).is_some_and(|push| !push.refused);
            let mut open = match change.mailbox(device)? {
                Some(open) => open,
                None => Change::new_mailbox(device, number_device(&mut change)?),
            };
            let app = row.push.as_ref().map(|push: &PushTarget| push.app);
            open.mailbox.redirect(app, !(same_token && was_used), now_ms);
            change.put_device(device, &row);
            change.close(open);
            change.audit(&audit);
            change.finish(&shared);
            Ok(if before.is_some() { Registered::Renewed } else { Registered::New })
        };
        self.write("register_device", decide).await
    }

    /// What a tenant status does to devices that it revokes, for the transaction that stores the status:
    /// their messages come to an end, their push tokens go.
    pub fn revoke_devices(
        &self,
        tenant: &TenantId,
        clock: Arc<dyn sealpost_wire::clock::Clock>,
    ) -> impl Fn(&mut View, &sealpost_wire::status::TenantStatus) + Clone + Send + 'static {
        let (shared, tenant, home) = (self.shared.clone(), tenant.clone(), self.home(tenant).ok());
        move |view, status| {
            // A tenant without a home has no devices.
            let Some(home) = home else { return };
            for device in &status.revoked_devices {
                let mut change = Change::new(view, tenant.clone(), home, clock.now_millis());
                match revoke(&mut change, *device) {
                    Ok(true) => change.finish(&shared),
                    Ok(false) => {}
                    // The device is refused by the status all the same.
                    Err(error) => {
                        tracing::error!(%error, %device, "a revoked device's mailbox cannot be read");
                    }
                }
            }
        }
    }
}

/// The number of a new device.
fn number_device(change: &mut Change<'_>) -> Result<u64, Damaged> {
    let key = key::tenant(&change.tenant);
    let row = change.view.get(TENANTS, &key).and_then(|value| TenantRow::decode(&value));
    let row = row.ok_or(Damaged(TENANTS.name()))?;
    let number = row.devices + 1;
    change.view.put(TENANTS, key, TenantRow { devices: number, ..row }.encode());
    Ok(number)
}

/// Empties a device's mailbox for good. Whether there was anything to do.
fn revoke(change: &mut Change<'_>, device: DeviceId) -> Result<bool, Damaged> {
    let Some(mut open) = change.mailbox(device)? else { return Ok(false) };
    let row = change.device(device)?;
    let has_token = row.as_ref().is_some_and(|row| row.push.is_some());
    if open.mailbox.waiting == 0 && !has_token {
        return Ok(false);
    }
    let found = waiting(change, open.mailbox.number, open.mailbox.waiting_from, open.mailbox.next_cursor)?;
    for (cursor, delivery) in found {
        let Some(mut message) = change.message(delivery.message, &delivery.author)? else { continue };
        let end = message.deliveries.iter_mut().find(|end| end.device == device && end.cursor == cursor);
        let Some(end) = end else { continue };
        change.end_waiting(&mut open, &delivery, end, DeliveryState::Revoked, Cause::default())?;
        change.put_message(delivery.message, &message);
    }
    if let Some(mut row) = row {
        row.push = None;
        change.put_device(device, &row);
    }
    open.mailbox.redirect(None::<AppId>, false, change.now_ms);
    change.close(open);
    let objects: [Object<'_>; 1] = [("device", &device)];
    change.audit(&Entry::new(change.now_ms, Act::DeviceRevoked, &Actor::Server, &objects, "done"));
    Ok(true)
}
