//! Groups: conversations and care teams over MLS (RFC 9420).
//!
//! # In scope
//! The state of groups in the device's store, in one transaction with the messages; boxes for their members; commits in
//! the order of the group's slot at the relay; key packages and invitations; the way back after a lost epoch.
//!
//! # Out of scope
//! Who may do what in a group, and MLS itself (`sealpost-group`).
//!
//! What is asked for is durable when a call returns. A call goes as far as the relay lets it; the rest is done by
//! [`Device::sync`], across crashes too.

pub(crate) mod commits;
pub(crate) mod conversation;
mod invitation;
mod key_packages;
mod peers;
mod receive;
mod recovery;
pub(crate) mod rows;
pub(crate) mod state;
mod stored_frame;
mod transport;

use std::time::Duration;

use sealpost_group::{GroupError, GroupState, GroupSuite, MemberEntry, MessageId, Standing};
use sealpost_wire::id::{DeviceId, GroupId};
use sealpost_wire::member::MailboxStatement;
use sealpost_wire::record::Enrolment;

use crate::error::DeviceError;
use crate::groups::commits::{NotStaged, Plan, Staging};
use crate::groups::key_packages::VOID;
use crate::groups::receive::HELD_SECONDS_MAX;
use crate::groups::rows::Task;
use crate::groups::transport::Errand;
use crate::{Device, SyncReport};

/// The stored mailbox statement.
pub(crate) const STATEMENT: &str = "mailbox_statement";
/// A commit that should have come is waited for this long (seconds) before the group info is asked for.
pub(crate) const REJOIN_PATIENCE_SECONDS: u64 = 120;
/// Steps of one call: submissions, commits, answers.
const STEPS_MAX: usize = 1000;
/// Races for one epoch that one call takes part in; the next sync goes on.
const RACES_MAX: usize = 8;
/// What expires in groups is looked for this often (seconds).
const SWEEP_SECONDS: u64 = 86_400;
/// The code of an error without an answer: what else there is to send waits too.
const UNREACHABLE: &str = "unreachable";
/// The counter of the last sweep (seconds).
const SWEPT: &str = "groups_swept";
/// The counter of the tenant status with which kept frames were tried last.
const RETRIED: &str = "groups_retried";

/// What a frame of a group brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupEvent {
    /// A message of a member.
    Message {
        /// Who wrote it.
        author: DeviceId,
        /// Its id.
        id: MessageId,
    },
    /// This device is in the group now.
    Joined {
        /// Who invited it.
        by: DeviceId,
    },
    /// Members have changed, or have renewed their keys.
    Changed {
        /// Who committed.
        by: DeviceId,
        /// Who came in.
        added: Vec<DeviceId>,
        /// Who went.
        removed: Vec<DeviceId>,
    },
    /// A member asks to leave.
    Leaving {
        /// Who.
        device: DeviceId,
    },
    /// This device is out of the group.
    Removed {
        /// Who removed it.
        by: DeviceId,
    },
    /// A member has lost the epoch and asks for the group info; this or the next sync answers.
    InfoWanted {
        /// Who.
        by: DeviceId,
    },
    /// A member gives the group info.
    InfoOffered {
        /// Who.
        by: DeviceId,
    },
    /// It cannot be used yet, and is kept until it can.
    Kept,
    /// It changes nothing here, with the reason's code.
    Nothing(&'static str),
}

impl GroupEvent {
    /// The event's stable name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Message { .. } => "message",
            Self::Joined { .. } => "joined",
            Self::Changed { .. } => "changed",
            Self::Leaving { .. } => "leaving",
            Self::Removed { .. } => "removed",
            Self::InfoWanted { .. } => "info_wanted",
            Self::InfoOffered { .. } => "info_offered",
            Self::Kept => "kept",
            Self::Nothing(code) => code,
        }
    }
}

/// What was done for groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupReport {
    /// Submissions that the relay has accepted.
    pub submitted: usize,
    /// Commits that came second; they are made again.
    pub lost: usize,
    /// What was given up, with the code.
    pub refused: Vec<(GroupId, String)>,
    /// Why something waits for a later sync.
    pub waiting: Option<String>,
}

/// How far a change of a group came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is done.
    Done,
    /// It is durable, and the next syncs go on with it: the relay cannot be reached, or the commit that came first has
    /// not arrived yet.
    Waiting,
}

impl Device {
    /// Makes a group of suite 0x0003 whose only member is this device. `stewards` may add and remove others, and so may
    /// this device. Others take an invitation only if a steward is the mailbox of a sender.
    ///
    /// # Errors
    /// The device is not admitted; a label of more than 64 bytes, more than 64 stewards or too many groups; storage
    /// errors.
    pub fn create_group(&mut self, label: &str, stewards: &[DeviceId]) -> Result<GroupId, DeviceError> {
        self.create_group_of(label, stewards, GroupSuite::Classical)
    }

    /// [`Self::create_group`] with another suite. A group keeps its suite for life.
    ///
    /// # Errors
    /// As there, and a suite that this device cannot use.
    pub fn create_group_of(
        &mut self,
        label: &str,
        stewards: &[DeviceId],
        suite: GroupSuite,
    ) -> Result<GroupId, DeviceError> {
        self.group_work(|work| Ok(work.groups(|groups| groups.create(label, stewards, suite))?))
    }

    /// Removes devices from the group.
    ///
    /// # Errors
    /// What the group refuses (this device is no steward); storage errors.
    pub fn remove(&mut self, group: GroupId, devices: &[DeviceId]) -> Result<Progress, DeviceError> {
        self.change_group(group, &Plan { remove: devices.to_vec(), ..Plan::default() })
    }

    /// Names the stewards from now on, this device among them or not: a steward who wants to leave names others first.
    ///
    /// # Errors
    /// No steward, or more than 64; what the group refuses (this device is no steward); storage errors.
    pub fn set_stewards(&mut self, group: GroupId, stewards: &[DeviceId]) -> Result<Progress, DeviceError> {
        let mut stewards = stewards.to_vec();
        stewards.sort_unstable();
        stewards.dedup();
        self.change_group(group, &Plan { stewards: Some(stewards), ..Plan::default() })
    }

    /// Gives the group another label.
    ///
    /// # Errors
    /// A label of more than 64 bytes; what the group refuses (this device is no steward); storage errors.
    pub fn rename_group(&mut self, group: GroupId, label: &str) -> Result<Progress, DeviceError> {
        self.change_group(group, &Plan { label: Some(label.to_owned()), ..Plan::default() })
    }

    /// Asks the others to let this device go, again with each sync if commits come that have not heard of it. Until one
    /// of them has committed that it reads what comes, and writes nothing. Who is alone in a group forgets it.
    ///
    /// # Errors
    /// The device is out or about to leave already; storage errors.
    pub fn leave(&mut self, group: GroupId) -> Result<(), DeviceError> {
        self.group_work(|work| {
            let (state, members) =
                work.groups(|groups| Ok((groups.state(group)?, groups.members(group)?.len())))?;
            match state.standing {
                Standing::Out => return Err(GroupError::NotMember.into()),
                Standing::Leaving => return Err(GroupError::Leaving.into()),
                Standing::In | Standing::Lost => {}
            }
            if members == 1 {
                work.groups(|groups| groups.forget(group))?;
                work.change.forget_group_work(group)?;
                return Ok(());
            }
            Ok(work.change.put_task(group, Task::Leave, work.device(), work.now)?)
        })?;
        self.work_on_groups()?;
        Ok(())
    }

    /// The groups of this device, those included that it has been out of for less than a week.
    ///
    /// # Errors
    /// The device is not admitted; storage errors.
    pub fn groups(&mut self) -> Result<Vec<GroupState>, DeviceError> {
        self.read_groups(|work| {
            let mut states = Vec::new();
            for group in work.groups(|groups| groups.list())? {
                match work.groups(|groups| groups.state(group)) {
                    Ok(state) => states.push(state),
                    // A week after it went nothing is kept of it.
                    Err(DeviceError::Group(GroupError::NotMember)) => {}
                    Err(error) if error.is_storage() => return Err(error),
                    Err(error) => tracing::warn!(%group, code = error.code(), "a group cannot be read"),
                }
            }
            Ok(states)
        })
    }

    /// The members of a group, this device included.
    ///
    /// # Errors
    /// The device does not know the group; storage errors.
    pub fn group_members(&mut self, group: GroupId) -> Result<Vec<MemberEntry>, DeviceError> {
        self.read_groups(|work| work.groups(|groups| groups.members(group)))
    }

    /// Takes a sender's statement that this device is its mailbox: it is shown with new key packages, in new groups,
    /// and in the others from this device's next commit on.
    ///
    /// # Errors
    /// The statement is not one of a sender of this tenant about this device; storage errors.
    pub fn set_mailbox_statement(&mut self, statement: &[u8]) -> Result<(), DeviceError> {
        let _held = self.lock.hold()?;
        let enrolment = Enrolment::read(&self.enrolled.enrolment)?;
        MailboxStatement::verify(statement, &self.trust()?, enrolment.record())?;
        let rng = self.rng.as_mut();
        self.store.change(|change| {
            change.set_meta(STATEMENT, statement, rng)?;
            change.set_counter(VOID, 1)
        })
    }

    /// Does what is due for groups, one bounded step after the other.
    pub(crate) fn work_on_groups(&mut self) -> Result<GroupReport, DeviceError> {
        let mut report = GroupReport::default();
        if let Err(error) = self.own_member(&self.trust()?) {
            // Not admitted yet, or revoked: it is a member of nothing.
            report.waiting = self.is_admitted().then(|| error.code().to_owned());
            return Ok(report);
        }
        self.sweep_groups()?;
        self.retry_held()?;
        for _ in 0..STEPS_MAX {
            let worked = self.send_next(&mut report)? || self.next_step(&mut report)?;
            if !worked || report.waiting.as_deref() == Some(UNREACHABLE) {
                break;
            }
        }
        Ok(report)
    }

    /// Works and takes in what comes, until it is `done`, the relay is away, or others keep coming first.
    pub(crate) fn settle_groups(
        &mut self,
        mut done: impl FnMut(&mut Self) -> Result<bool, DeviceError>,
    ) -> Result<Progress, DeviceError> {
        for _ in 0..RACES_MAX {
            let report = self.work_on_groups()?;
            if done(self)? {
                return Ok(Progress::Done);
            }
            if report.waiting.is_some() {
                break;
            }
            // The commit that came first is in the mailbox, or soon will be.
            let mut synced = SyncReport::default();
            match self.sync_boxes(Duration::from_secs(1), &mut synced) {
                Err(error) if error.is_temporary() => break,
                other => other?,
            }
        }
        Ok(Progress::Waiting)
    }

    fn change_group(&mut self, group: GroupId, plan: &Plan) -> Result<Progress, DeviceError> {
        let plan = self.group_work(|work| Ok(work.plan(group, plan)?))?;
        self.carry_out(group, plan)
    }

    /// The next step that is no submission. Returns whether there was one.
    pub(crate) fn next_step(&mut self, report: &mut GroupReport) -> Result<bool, DeviceError> {
        let now = self.clock.now();
        for task in self.store.group_tasks()?.into_iter().filter(|task| task.due <= now) {
            let step = match task.task {
                Task::Answer => self.answer_with_group_info(task.group, task.peer),
                Task::Return => self.come_back(task.group, task.peer),
                Task::Rejoin => self.ask_for_group_info(&task),
                Task::Ask => self.ask_for_invitation(&task),
                Task::Invite => self.invite_anew(task.group, task.peer),
                Task::Leave => self.ask_to_leave(task.group),
                Task::Call | Task::Race | Task::Refusal => Ok(false),
            };
            match step {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => drop(noted(task.group, error, report)?),
            }
        }
        for group in self.read_groups(|work| work.groups_to_commit())? {
            match self.stage_next_commit(group) {
                Ok(Staging::Staged) => return Ok(true),
                Ok(Staging::Nothing) => {}
                Err(NotStaged { plan, error }) => {
                    let error = noted(group, error, report)?;
                    // Whoever has asked for it is told, if it is this process.
                    self.refused_plan = plan.map(|plan| (plan, error)).or(self.refused_plan.take());
                }
            }
        }
        Ok(false)
    }

    /// Asks the others to let this device go, once it can.
    fn ask_to_leave(&mut self, group: GroupId) -> Result<bool, DeviceError> {
        self.group_work(|work| {
            let state = work.groups(|groups| groups.state(group))?;
            if state.standing == Standing::Out {
                work.change.delete_tasks(group, Task::Leave)?;
            }
            if state.standing != Standing::In || state.staged || work.change.has_task(group, Task::Rejoin)? {
                return Ok(false);
            }
            let frame = work.groups(|groups| groups.leave(group))?;
            work.send_out(group, &[frame], Vec::new(), Errand::default())?;
            Ok(true)
        })
    }

    /// Deletes, daily, what groups keep for a while only.
    fn sweep_groups(&mut self) -> Result<(), DeviceError> {
        let now = self.clock.now();
        let swept = self.store.counter(SWEPT)?.cast_unsigned();
        if swept + SWEEP_SECONDS > now.0 {
            return Ok(());
        }
        self.group_work(|work| {
            work.groups(|groups| match groups.forget_old_epochs() {
                Err(error) if !matches!(error, GroupError::Store(_)) => {
                    tracing::warn!(code = error.code(), "a group cannot be read");
                    Ok(())
                }
                done => done,
            })?;
            work.groups(|groups| groups.forget_old_key_packages())?;
            work.change.forget_held(work.now.minus(HELD_SECONDS_MAX))?;
            work.forget_strangers()?;
            Ok(work.change.set_counter(SWEPT, work.now.0.cast_signed())?)
        })?;
        self.refresh_peers()
    }

    /// Tries frames again that could not be used, when the tenant's status is newer: it may be what they lacked.
    fn retry_held(&mut self) -> Result<(), DeviceError> {
        let trust = self.trust()?;
        let sequence = trust.status().map_or(0, |status| status.sequence).cast_signed();
        if self.store.counter(RETRIED)? == sequence {
            return Ok(());
        }
        self.group_work(|work| {
            for group in work.change.groups_with_held()? {
                work.take_held(group)?;
            }
            Ok(work.change.set_counter(RETRIED, sequence)?)
        })
    }
}

/// What keeps one group waiting does not keep the others; a storage that fails does.
fn noted(group: GroupId, error: DeviceError, report: &mut GroupReport) -> Result<DeviceError, DeviceError> {
    if error.is_storage() {
        return Err(error);
    }
    if error.is_temporary() {
        report.waiting = Some(error.code().to_owned());
    } else {
        tracing::warn!(%group, code = error.code(), "a step of a group failed");
        report.refused.push((group, error.code().to_owned()));
    }
    Ok(error)
}
