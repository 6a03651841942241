//! Invitations: who is to come into a group, and who asks to be invited because it is taken for a member and is none.

use std::time::Duration;

use sealpost_group::{OutgoingFrame, Standing};
use sealpost_wire::api::keyserver::{DevicePrekeys, FoundKeyPackage, KeyPackageLookUp, KeyPackagesFound};
use sealpost_wire::device_set::DeviceSet;
use sealpost_wire::error::TrustError;
use sealpost_wire::id::{DeviceId, GroupId, RecipientId};
use sealpost_wire::payload::{MlsFrame, MlsKind};
use sealpost_wire::trust::TenantTrust;

use crate::Device;
use crate::error::DeviceError;
use crate::groups::Progress;
use crate::groups::commits::{Plan, PlannedMember, doubled};
use crate::groups::rows::{Task, TaskRow};
use crate::groups::state::Work;
use crate::groups::transport::Errand;
use crate::http::json;

/// An invitation is asked for again after 2, 4, 8 … minutes, at most this many seconds: a day.
const ASK_SECONDS_MAX: u64 = 86_400;
/// How often one author is asked for an invitation.
const ASKS_MAX: u32 = 8;
/// Authors that are to be asked for invitations, of all groups.
const ASKED_MAX: usize = 64;
/// A member that has asked for the way back so often within a day is invited anew.
const CALLS_BEFORE_INVITING: u32 = 3;
/// Calls that are further apart than this (seconds) are not counted together.
const CALLS_APART_SECONDS_MAX: u64 = 86_400;

impl Device {
    /// Invites the devices of `recipient` that are not in the group, for a purpose of `category`, to which the
    /// recipient has agreed.
    ///
    /// # Errors
    /// [`DeviceError::NobodyToInvite`]; what the group refuses (this device is no steward); server, trust and storage
    /// errors.
    pub fn invite(
        &mut self,
        group: GroupId,
        recipient: RecipientId,
        category: &str,
    ) -> Result<(Vec<DeviceId>, Progress), DeviceError> {
        let found = self.look_up_key_packages(group, recipient, category)?;
        let planned = self.group_work(|work| {
            let set = work.take_found(group, recipient, &found)?;
            work.change.put_invited(group, recipient, category)?;
            let members = work.groups(|groups| groups.members(group))?;
            let is_in = |device: DeviceId| members.iter().any(|member| member.device == device);
            let new =
                found.packages.iter().filter(|new| set.device(new.device).is_some() && !is_in(new.device));
            let add: Vec<_> = new.map(|new| planned(new, &found)).collect();
            if add.is_empty() {
                return Ok(None);
            }
            let devices: Vec<_> = add.iter().map(|new| new.device).collect();
            Ok(Some((devices, work.plan(group, &Plan { add, ..Plan::default() })?)))
        })?;
        let (devices, plan) = planned.ok_or(DeviceError::NobodyToInvite)?;
        Ok((devices, self.carry_out(group, plan)?))
    }

    /// Plans to invite a member anew that cannot come back by itself. Returns whether anything was done, as the others
    /// here do.
    pub(crate) fn invite_anew(&mut self, group: GroupId, peer: DeviceId) -> Result<bool, DeviceError> {
        let known = self.group_work(|work| {
            let members = work.groups(|groups| groups.members(group))?;
            let member = members.iter().find(|member| member.device == peer && !member.revoked);
            let recipient = member.and_then(|member| member.recipient);
            let category = recipient.map(|recipient| work.change.invited(group, recipient)).transpose()?;
            let known = recipient.zip(category.flatten());
            if known.is_none() {
                // Somebody else has invited it, and knows for what.
                work.change.delete_task(group, Task::Invite, peer)?;
            }
            Ok(known)
        })?;
        let Some((recipient, category)) = known else { return Ok(true) };
        let found = self.look_up_key_packages(group, recipient, &category);
        if found.as_ref().is_err_and(DeviceError::is_temporary) {
            return found.map(|_| false);
        }
        self.group_work(|work| {
            work.change.delete_task(group, Task::Invite, peer)?;
            let Ok(found) = &found else { return Ok(()) };
            work.take_found(group, recipient, found)?;
            let add = found.packages.iter().filter(|new| new.device == peer);
            let add: Vec<_> = add.map(|new| planned(new, found)).collect();
            if !add.is_empty() {
                work.plan(group, &Plan { add, remove: vec![peer], ..Plan::default() })?;
            }
            Ok(())
        })?;
        Ok(true)
    }

    /// Asks somebody who takes this device for a member to invite it anew: a steward will.
    pub(crate) fn ask_for_invitation(&mut self, task: &TaskRow) -> Result<bool, DeviceError> {
        // An invitation would be sealed to what is burnt.
        if self.store.burnt()? || !self.store.pending_uploads()?.is_empty() {
            return Ok(false);
        }
        let (group, peer) = (task.group, task.peer);
        self.group_work(|work| {
            if work.is_in(group)? || task.tries >= ASKS_MAX {
                work.change.delete_task(group, Task::Ask, peer)?;
                return Ok(());
            }
            let (created, kind) = (work.now, MlsKind::RejoinRequest);
            let frame = MlsFrame { created, kind, group, body: Vec::new(), sets: Vec::new() };
            let records = work.change.author_records(&[peer])?;
            work.send_out(group, &[OutgoingFrame { to: vec![peer], frame }], records, Errand::default())?;
            let due = work.now.plus(doubled(task.tries, ASK_SECONDS_MAX));
            work.change.count_task(group, Task::Ask, peer, due)?;
            Ok(())
        })?;
        Ok(true)
    }

    fn look_up_key_packages(
        &mut self,
        group: GroupId,
        recipient: RecipientId,
        category: &str,
    ) -> Result<KeyPackagesFound, DeviceError> {
        let suite = self.read_groups(|work| work.groups(|groups| groups.state(group)))?.suite.code();
        let body = json(&KeyPackageLookUp { suite, category: category.to_owned() })?;
        let path = format!("/v1/recipients/{recipient}/key-packages");
        let keyserver = self.enrolled.keyserver.clone();
        let found: KeyPackagesFound = self.call("POST", &keyserver, path, body, Duration::ZERO)?;
        if let Some(status) = &found.status {
            self.take_status(status.as_ref())?;
        }
        Ok(found)
    }
}

impl Work<'_> {
    /// Takes in what a look-up has found: who is revoked by the set goes with the next commit, and the prekeys are for
    /// the boxes. Returns the set.
    fn take_found(
        &mut self,
        group: GroupId,
        recipient: RecipientId,
        found: &KeyPackagesFound,
    ) -> Result<DeviceSet, DeviceError> {
        let set = verified_set(found.set.as_ref(), self.trust)?;
        if set.recipient != recipient {
            return Err(TrustError::WrongDevice.into());
        }
        self.groups(|groups| groups.note_sets(group, std::slice::from_ref(&found.set.0)))?;
        for device in &set.devices {
            let device = device.record.device;
            let prekeys = found.prekeys.iter().filter(|prekeys| prekeys.device == device).cloned();
            self.change.put_peer(device, &prekeys.collect::<Vec<DevicePrekeys>>(), self.now)?;
        }
        Ok(set)
    }

    /// Notes that `author` takes this device for a member of a group that it is not in: it is to be asked at `due`.
    pub(crate) fn is_taken_for_a_member(
        &mut self,
        group: GroupId,
        author: DeviceId,
        due_in: u64,
    ) -> Result<(), DeviceError> {
        if self.change.count_tasks(Task::Ask)? < ASKED_MAX {
            self.change.put_task_once(group, Task::Ask, author, self.now.plus(due_in))?;
        }
        Ok(())
    }

    /// A member has lost the group's state: it gets the group info, and if that does not help, an invitation.
    pub(crate) fn take_call(&mut self, group: GroupId, by: DeviceId) -> Result<(), DeviceError> {
        let last = self.change.task(group, Task::Call, by)?;
        if last.is_some_and(|(_, last)| last.plus(CALLS_APART_SECONDS_MAX) < self.now) {
            self.change.delete_task(group, Task::Call, by)?;
        }
        let calls = self.change.count_task(group, Task::Call, by, self.now)?;
        let own = self.device();
        let is_steward = match self.groups(|groups| groups.state(group)) {
            Ok(state) => state.stewards.contains(&own),
            Err(error) if error.is_storage() => return Err(error),
            Err(_) => false,
        };
        if calls >= CALLS_BEFORE_INVITING && is_steward {
            self.change.delete_task(group, Task::Call, by)?;
            self.change.put_task(group, Task::Invite, by, self.now)?;
        }
        self.change.put_task(group, Task::Answer, by, self.now)
    }

    fn is_in(&mut self, group: GroupId) -> Result<bool, DeviceError> {
        let known = self.groups(|groups| groups.list())?.contains(&group);
        match known.then(|| self.groups(|groups| groups.state(group))) {
            None => Ok(false),
            Some(Ok(state)) => Ok(state.standing != Standing::Out),
            Some(Err(error)) if error.is_storage() => Err(error),
            Some(Err(_)) => Ok(false),
        }
    }
}

/// Reads a device set, verified. A removal may be signed by a revoke key, which adds nobody: a newcomer's admission is
/// checked by itself, so a set is believed from either kind of key.
pub(crate) fn verified_set(bytes: &[u8], trust: &TenantTrust) -> Result<DeviceSet, TrustError> {
    let claimed = DeviceSet::verified_before(bytes)?;
    Ok(DeviceSet::verify(bytes, trust, Some(&claimed))?.0)
}

fn planned(new: &FoundKeyPackage, found: &KeyPackagesFound) -> PlannedMember {
    PlannedMember { device: new.device, key_package: new.package.clone(), set: found.set.clone() }
}
