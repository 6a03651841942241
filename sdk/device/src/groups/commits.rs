//! Commits of this device: planned by the caller or due by themselves, staged, and made anew when they lose.

use sealpost_group::{CommitPlan, CommitReason, GroupError, NewMember, OutgoingFrame, Standing};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::id::{DeviceId, GroupId};
use sealpost_wire::record::DeviceRecord;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::Device;
use crate::error::DeviceError;
use crate::groups::Progress;
use crate::groups::invitation::verified_set;
use crate::groups::rows::Task;
use crate::groups::state::{Work, WorkError};
use crate::groups::transport::{Errand, Sealed};
use crate::http::json;

/// After a commit that was due by itself is refused, the next one is made after 2, 4, 8 … minutes, at most this many
/// seconds: a day.
const REFUSAL_SECONDS_MAX: u64 = 86_400;
/// So many lost races in a row cost no pause.
const LOSSES_WITHOUT_PAUSE: u32 = 2;
/// The pause after more of them is at most 2 to this (seconds).
const PAUSE_BITS_MAX: u32 = 6;

/// What a commit is to do, kept until one has done it.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) add: Vec<PlannedMember>,
    pub(crate) remove: Vec<DeviceId>,
    pub(crate) stewards: Option<Vec<DeviceId>>,
    pub(crate) label: Option<String>,
}

/// A device that is to come in.
#[derive(Serialize, Deserialize)]
pub(crate) struct PlannedMember {
    pub(crate) device: DeviceId,
    pub(crate) key_package: Base64Url,
    pub(crate) set: Base64Url,
}

impl Plan {
    const fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty() && self.stewards.is_none() && self.label.is_none()
    }
}

/// A commit that could not be staged.
#[derive(Debug)]
pub(crate) struct NotStaged {
    /// The plan that was given up for it.
    pub(crate) plan: Option<i64>,
    pub(crate) error: DeviceError,
}

impl From<DeviceError> for NotStaged {
    fn from(error: DeviceError) -> Self {
        Self { plan: None, error }
    }
}

/// What a group waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Staging {
    /// A commit is on its way.
    Staged,
    /// There is nothing to commit, or not now.
    Nothing,
}

impl Work<'_> {
    /// Notes a plan.
    pub(crate) fn plan(&mut self, group: GroupId, plan: &Plan) -> Result<i64, DeviceError> {
        let bytes = Zeroizing::new(json(plan)?);
        self.change.insert_plan(group, &bytes, &mut *self.rng)
    }

    /// The groups in which there is something to commit now.
    pub(crate) fn groups_to_commit(&mut self) -> Result<Vec<GroupId>, DeviceError> {
        let mut ready = Vec::new();
        for group in self.groups(|groups| groups.list())? {
            match self.is_commit_wanted(group) {
                Ok(true) => ready.push(group),
                // Of a group that the device has been out of for a week nothing is kept.
                Ok(false) | Err(DeviceError::Group(GroupError::NotMember)) => {}
                Err(error) if error.is_storage() => return Err(error),
                Err(error) => tracing::warn!(%group, code = error.code(), "a group cannot be read"),
            }
        }
        Ok(ready)
    }

    fn is_commit_wanted(&mut self, group: GroupId) -> Result<bool, DeviceError> {
        if !self.may_commit(group)? {
            return Ok(false);
        }
        Ok(self.change.next_plan(group)?.is_some() || self.commit_due(group)?.is_some())
    }

    /// Whether the device is in the group, has no commit on its way, and waits for nobody else's.
    fn may_commit(&mut self, group: GroupId) -> Result<bool, DeviceError> {
        let state = self.groups(|groups| groups.state(group))?;
        // Whoever has lost an epoch waits for the commit that won it.
        let waits = self.change.has_task(group, Task::Rejoin)? || self.is_paused(group, Task::Race)?;
        Ok(state.standing == Standing::In && !state.staged && !waits)
    }

    /// Why a commit is due by itself, if one is.
    fn commit_due(&mut self, group: GroupId) -> Result<Option<CommitReason>, DeviceError> {
        if self.is_paused(group, Task::Refusal)? {
            return Ok(None);
        }
        self.groups(|groups| groups.commit_due(group))
    }

    fn is_paused(&self, group: GroupId, task: Task) -> Result<bool, DeviceError> {
        let pause = self.change.task(group, task, self.device())?;
        Ok(pause.is_some_and(|(_, due)| due > self.now))
    }

    /// Stages the next commit of a group: of its oldest plan, or one that is due by itself. `tried` becomes the plan
    /// that it was about.
    fn stage_next(&mut self, group: GroupId, tried: &mut Option<i64>) -> Result<Staging, WorkError> {
        *tried = None;
        if !self.may_commit(group)? {
            return Ok(Staging::Nothing);
        }
        while let Some((id, bytes)) = self.change.next_plan(group)? {
            let plan: Plan = serde_json::from_slice(&bytes).map_err(|_| DeviceError::Unreadable)?;
            let plan = self.still_to_do(group, plan)?;
            if plan.is_empty() {
                self.change.delete_plan(id)?;
                continue;
            }
            *tried = Some(id);
            return self.stage(group, &plan, Some(id));
        }
        match self.commit_due(group)? {
            Some(CommitReason::Revoked | CommitReason::Leaving | CommitReason::Update) => {
                self.stage(group, &Plan::default(), None)
            }
            None => Ok(Staging::Nothing),
        }
    }

    /// What of a plan others have not done in the meantime.
    fn still_to_do(&mut self, group: GroupId, mut plan: Plan) -> Result<Plan, DeviceError> {
        let (state, members) = self.groups(|groups| Ok((groups.state(group)?, groups.members(group)?)))?;
        let is_in = |device: DeviceId| members.iter().any(|member| member.device == device);
        // Who is to be invited anew and has gone since is not invited any more.
        plan.add.retain(|new| is_in(new.device) == plan.remove.contains(&new.device));
        plan.remove.retain(|device| is_in(*device));
        plan.label = plan.label.filter(|label| *label != state.label);
        plan.stewards = plan.stewards.filter(|stewards| *stewards != state.stewards);
        Ok(plan)
    }

    fn stage(&mut self, group: GroupId, plan: &Plan, id: Option<i64>) -> Result<Staging, WorkError> {
        let new = |new: &PlannedMember| NewMember {
            key_package: new.key_package.0.clone(),
            set: new.set.0.clone(),
        };
        let commit = CommitPlan {
            add: plan.add.iter().map(new).collect(),
            remove: plan.remove.clone(),
            stewards: plan.stewards.clone(),
            label: plan.label.clone(),
            ..CommitPlan::default()
        };
        let staged = self.groups(|groups| groups.stage_commit(group, &commit))?;
        let newcomers = self.records_of(plan)?;
        let errand = Errand { claim: Some(staged.claim), plan: id, ..Errand::default() };
        self.send_staged(group, &staged.frames, newcomers, errand)?;
        Ok(Staging::Staged)
    }

    /// Seals a staged commit. It always goes to somebody: if to nobody else, to this device itself.
    pub(crate) fn send_staged(
        &mut self,
        group: GroupId,
        frames: &[OutgoingFrame],
        newcomers: Vec<DeviceRecord>,
        errand: Errand,
    ) -> Result<(), WorkError> {
        match self.send_out(group, frames, newcomers, errand)? {
            Sealed::Waiting => Ok(()),
            Sealed::ForNobody | Sealed::Unreached => Err(DeviceError::NobodyReached.into()),
        }
    }

    /// The records of those who are to come in, out of their device sets.
    fn records_of(&self, plan: &Plan) -> Result<Vec<DeviceRecord>, DeviceError> {
        let mut records = Vec::with_capacity(plan.add.len());
        for new in &plan.add {
            let set = verified_set(new.set.as_ref(), self.trust)?;
            records.extend(set.device(new.device).map(|device| device.record.clone()));
        }
        Ok(records)
    }

    /// Keeps the group from committing for a while that is longer, and more a matter of chance, with each lost race.
    pub(crate) fn pause_after_loss(&mut self, group: GroupId) -> Result<(), DeviceError> {
        let own = self.device();
        let losses = self.change.count_task(group, Task::Race, own, self.now)?;
        if losses > LOSSES_WITHOUT_PAUSE {
            let bits = (losses - LOSSES_WITHOUT_PAUSE).min(PAUSE_BITS_MAX);
            let mut chance = [0; 1];
            self.rng.fill_bytes(&mut chance);
            let pause = u64::from(chance[0]) % (1 << bits);
            self.change.put_off_task(group, Task::Race, self.now.plus(pause))?;
        }
        Ok(())
    }
}

impl Device {
    /// Carries a plan out as far as the relay lets it.
    pub(crate) fn carry_out(&mut self, group: GroupId, plan: i64) -> Result<Progress, DeviceError> {
        self.refused_plan = None;
        let progress = self.settle_groups(|device| Ok(!device.store.has_plan(plan)?))?;
        if let Some((refused, error)) = self.refused_plan.take()
            && refused == plan
        {
            return Err(error);
        }
        let standing = self.read_groups(|work| work.groups(|groups| groups.state(group)))?.standing;
        // Somebody has removed this device, and its plans are void.
        if standing == Standing::Out { Err(GroupError::NotMember.into()) } else { Ok(progress) }
    }

    /// Stages the next commit of a group. What the group refuses is given up.
    pub(crate) fn stage_next_commit(&mut self, group: GroupId) -> Result<Staging, NotStaged> {
        let mut tried = None;
        let error = match self.group_work(|work| work.stage_next(group, &mut tried)) {
            Ok(staging) => return Ok(staging),
            Err(error) => error,
        };
        if error.is_storage() || error.is_temporary() {
            return Err(error.into());
        }
        self.group_work(|work| {
            if let Some(plan) = tried {
                return Ok(work.change.delete_plan(plan)?);
            }
            let own = work.device();
            let tries = work.change.task(group, Task::Refusal, own)?.map_or(0, |(tries, _)| tries);
            let due = work.now.plus(doubled(tries, REFUSAL_SECONDS_MAX));
            work.change.count_task(group, Task::Refusal, own, due)?;
            Ok(())
        })?;
        Err(NotStaged { plan: tried, error })
    }

    /// Commits what keeps messages from being written.
    pub(crate) fn commit_now(&mut self, group: GroupId) -> Result<(), DeviceError> {
        self.settle_groups(|device| {
            Ok(device.read_groups(|work| work.groups(|groups| groups.commit_due(group)))?.is_none())
        })?;
        Ok(())
    }
}

/// 2, 4, 8 … minutes after so many tries, at most `most` (seconds).
pub(crate) fn doubled(tries: u32, most: u64) -> u64 {
    2u64.saturating_pow(tries.saturating_add(1)).saturating_mul(60).min(most)
}
