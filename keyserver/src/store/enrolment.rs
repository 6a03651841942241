//! Tickets, claims and device sets in the store.

use std::time::Duration;

use sealpost_service::audit::{self, Entry};
use sealpost_service::engine::View;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{DeviceId, RecipientId, TenantId, TicketId};

use super::row::{Due, SetRow, VERSION};
use super::{AUDIT, BellKey, DEVICE_SETS, DEVICES, EXPIRY, Put, STOCKS, Store, StoreError, TICKETS, row};
use crate::bell::{Bells, Looked};
use crate::device::{Device, Standing};
use crate::device_set::SetChange;
use crate::prekey::Stock;
use crate::ticket::{Claim, ClaimRequest, Claimed, Ticket, TicketError};

impl Store {
    /// Makes a ticket, which is forgotten with its claims `keep_seconds` after it expired.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when another ticket has the id.
    pub async fn put_ticket(
        &self,
        tenant: &TenantId,
        id: TicketId,
        ticket: Ticket,
        keep_seconds: u64,
        entry: Entry,
    ) -> Result<Put, StoreError> {
        let tenant = tenant.clone();
        let decided = self.engine.write("put_ticket", move |view| {
            let key = row::ticket(&tenant, id);
            match row::find::<Ticket>(view, TICKETS, &key)? {
                Some(known) if known.is_same(&ticket) => return Ok(Put::Again),
                Some(_) => return Err(StoreError::Conflict),
                None => {}
            }
            let forgotten_at = ticket.expires_at.plus(keep_seconds);
            view.put(EXPIRY, Due::Ticket(id).key(&tenant, forgotten_at), [VERSION]);
            row::put(view, TICKETS, key, &ticket)?;
            audit::append(view, AUDIT, &tenant, &entry);
            Ok(Put::New)
        });
        decided.await?
    }

    /// Claims a ticket for a device, which waits from then on for an enroller.
    ///
    /// # Errors
    /// [`StoreError::Ticket`]; [`TicketError::WrongToken`] also when there is no such ticket;
    /// [`StoreError::Conflict`] when a device has the id.
    pub async fn claim_ticket(
        &self,
        tenant: &TenantId,
        claim: ClaimRequest,
        now: UnixTime,
        entry: Entry,
    ) -> Result<Claimed, StoreError> {
        let (tenant, bells, incarnation) = (tenant.clone(), self.bells.clone(), self.incarnation);
        let decided = self.engine.write("claim_ticket", move |view| {
            let (id, device) = (claim.record.ticket, claim.record.device);
            let ticket_key = row::ticket(&tenant, id);
            let ticket: Option<Ticket> = row::find(view, TICKETS, &ticket_key)?;
            let mut ticket = ticket.ok_or(TicketError::WrongToken)?;
            let claimed = ticket.claim(&claim.token, device, &claim.enrolment, now)?;
            if claimed == Claimed::Again {
                return Ok(claimed);
            }
            let device_key = row::device(&tenant, device);
            if view.contains(DEVICES, &device_key) {
                return Err(StoreError::Conflict);
            }
            row::put(view, TICKETS, ticket_key, &ticket)?;
            row::put(view, STOCKS, device_key.clone(), &Stock::empty(&claim.record.suites, incarnation))?;
            row::put(view, DEVICES, device_key, &Device::pending(&claim.record, claim.record_bytes))?;
            audit::append(view, AUDIT, &tenant, &entry);
            ring(view, &bells, BellKey::Ticket(tenant, id));
            Ok(claimed)
        });
        decided.await?
    }

    /// Closes a ticket: nobody may claim it any more, and its claims are declined.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn close_ticket(
        &self,
        tenant: &TenantId,
        id: TicketId,
        entry: Entry,
    ) -> Result<Put, StoreError> {
        let (tenant, bells) = (tenant.clone(), self.bells.clone());
        let decided = self.engine.write("close_ticket", move |view| {
            let ticket: Option<Ticket> = row::find(view, TICKETS, &row::ticket(&tenant, id))?;
            let ticket = ticket.ok_or(StoreError::NotFound)?;
            if ticket.closed {
                return Ok(Put::Again);
            }
            close(view, &bells, &tenant, id, ticket, None)?;
            audit::append(view, AUDIT, &tenant, &entry);
            Ok(Put::New)
        });
        decided.await?
    }

    /// Puts a device set in the place of the one that it was judged against: admits what it adds, closes
    /// their tickets, removes what it leaves out.
    ///
    /// # Errors
    /// [`StoreError::VersionConflict`] when another set is stored, [`StoreError::ClaimMissing`].
    pub async fn put_device_set(
        &self,
        tenant: &TenantId,
        change: SetChange,
        now: UnixTime,
        entry: Entry,
    ) -> Result<Put, StoreError> {
        let (tenant, bells) = (tenant.clone(), self.bells.clone());
        let decided = self.engine.write("put_device_set", move |view| {
            let key = row::recipient(&tenant, change.recipient);
            let stored = view.get(DEVICE_SETS, &key);
            let stored = stored.as_deref().map(SetRow::read).transpose()?.map(|set| set.digest);
            if stored == Some(change.digest) {
                return Ok(Put::Again);
            }
            if stored != change.previous {
                return Err(StoreError::VersionConflict);
            }
            let mut members = Members { view, bells: &bells, tenant: &tenant, recipient: change.recipient };
            for added in change.added {
                members.admit(added.device, &added.record, added.admission)?;
            }
            for (device, admission) in change.readmitted {
                members.readmit(device, admission)?;
            }
            for device in change.removed {
                members.remove(device, now)?;
            }
            let set = SetRow {
                version: change.version,
                digest: change.digest,
                devices: change.devices,
                bytes: &change.bytes,
            };
            view.put(DEVICE_SETS, key, set.to_value());
            audit::append(view, AUDIT, &tenant, &entry);
            Ok(Put::New)
        });
        decided.await?
    }

    /// A ticket, once it was claimed or closed; as it is when `longest` is over or at `end`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn wait_for_claim(
        &self,
        tenant: &TenantId,
        id: TicketId,
        longest: Duration,
        end: impl Future<Output = ()>,
    ) -> Result<Ticket, StoreError> {
        let look = || {
            let ticket = self.ticket(tenant, id)?;
            Ok(if ticket.is_news() { Looked::Found(ticket) } else { Looked::Nothing(ticket) })
        };
        self.bells.wait(BellKey::Ticket(tenant.clone(), id), longest, end, look).await
    }

    /// A device, once it does not wait for an enroller any more; as it is when `longest` is over or at `end`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn wait_for_admission(
        &self,
        tenant: &TenantId,
        id: DeviceId,
        longest: Duration,
        end: impl Future<Output = ()>,
    ) -> Result<Device, StoreError> {
        let look = || {
            let device = self.device(tenant, id)?;
            let waits = device.standing == Standing::Pending;
            Ok(if waits { Looked::Nothing(device) } else { Looked::Found(device) })
        };
        self.bells.wait(BellKey::Device(tenant.clone(), id), longest, end, look).await
    }
}

/// The devices of a set that changes.
struct Members<'c> {
    view: &'c mut View,
    bells: &'c Bells<BellKey>,
    tenant: &'c TenantId,
    recipient: RecipientId,
}

impl Members<'_> {
    fn admit(
        &mut self,
        id: DeviceId,
        record: &[u8],
        admission: sealpost_wire::base64url::Base64Url,
    ) -> Result<(), StoreError> {
        let device = self.find(id)?.filter(|device| device.record.as_ref() == record);
        let device = device.filter(|device| device.standing == Standing::Pending);
        let mut device = device.ok_or(StoreError::ClaimMissing)?;
        device.standing = Standing::Admitted { recipient: self.recipient, admission };
        // A ticket is used once: its other claims are declined, so that none of them can be admitted after
        // this one.
        let ticket: Option<Ticket> = row::find(self.view, TICKETS, &row::ticket(self.tenant, device.ticket))?;
        if let Some(ticket) = ticket {
            close(self.view, self.bells, self.tenant, device.ticket, ticket, Some(id))?;
        }
        self.put(id, &device)
    }

    fn readmit(
        &mut self,
        id: DeviceId,
        admission: sealpost_wire::base64url::Base64Url,
    ) -> Result<(), StoreError> {
        let device = self.find(id)?.filter(|device| device.recipient() == Some(self.recipient));
        let mut device = device.ok_or(StoreError::Damaged(DEVICES.name()))?;
        device.standing = Standing::Admitted { recipient: self.recipient, admission };
        self.put(id, &device)
    }

    fn remove(&mut self, id: DeviceId, now: UnixTime) -> Result<(), StoreError> {
        let Some(mut device) = self.find(id)? else { return Ok(()) };
        device.standing = Standing::Removed { recipient: self.recipient };
        self.view.put(EXPIRY, Due::Removed(id).key(self.tenant, now), [VERSION]);
        self.put(id, &device)
    }

    fn find(&self, id: DeviceId) -> Result<Option<Device>, StoreError> {
        row::find(self.view, DEVICES, &row::device(self.tenant, id))
    }

    fn put(&mut self, id: DeviceId, device: &Device) -> Result<(), StoreError> {
        row::put(self.view, DEVICES, row::device(self.tenant, id), device)?;
        ring(self.view, self.bells, BellKey::Device(self.tenant.clone(), id));
        Ok(())
    }
}

/// Closes a ticket and declines its claims, but for `admitted`.
fn close(
    view: &mut View,
    bells: &Bells<BellKey>,
    tenant: &TenantId,
    id: TicketId,
    mut ticket: Ticket,
    admitted: Option<DeviceId>,
) -> Result<(), StoreError> {
    let mut claims = ticket.close();
    claims.retain(|claim| Some(claim.device) != admitted);
    for Claim { device, .. } in &claims {
        let key = row::device(tenant, *device);
        if let Some(mut declined) = row::find::<Device>(view, DEVICES, &key)?
            && declined.standing == Standing::Pending
        {
            declined.standing = Standing::Declined;
            row::put(view, DEVICES, key, &declined)?;
            ring(view, bells, BellKey::Device(tenant.clone(), *device));
        }
    }
    // Their devices are told so until the ticket is forgotten.
    ticket.declined = claims.into_iter().map(|claim| claim.device).collect();
    row::put(view, TICKETS, row::ticket(tenant, id), &ticket)?;
    ring(view, bells, BellKey::Ticket(tenant.clone(), id));
    Ok(())
}

fn ring(view: &mut View, bells: &Bells<BellKey>, key: BellKey) {
    let bells = bells.clone();
    view.after_commit(move || bells.ring(&key));
}
