//! The way back into a group whose epoch was lost: ask for the group info, come back by an external commit; and the
//! other side of it, the answer to those who ask.

use sealpost_group::{GroupError, Standing};
use sealpost_wire::id::{DeviceId, GroupId};

use crate::Device;
use crate::error::DeviceError;
use crate::groups::REJOIN_PATIENCE_SECONDS;
use crate::groups::commits::doubled;
use crate::groups::key_packages::VOID;
use crate::groups::rows::{Task, TaskRow};
use crate::groups::stored_frame::read_frame;
use crate::groups::transport::Errand;

/// Members that are asked for the group info at once; the next ones when none of them answers.
const ASKED_AT_ONCE: usize = 3;
/// The group info is asked for again after 2, 4, 8 … minutes, at most this many seconds: a day.
const ASK_SECONDS_MAX: u64 = 86_400;

impl Device {
    /// Gives `peer` the group info. What cannot be given is not owed any more; who misses a commit itself would lead
    /// others astray, and answers later. Returns whether anything was done, as the others here do.
    pub(crate) fn answer_with_group_info(
        &mut self,
        group: GroupId,
        peer: DeviceId,
    ) -> Result<bool, DeviceError> {
        self.group_work(|work| {
            if work.change.has_task(group, Task::Rejoin)? {
                return Ok(false);
            }
            work.change.delete_task(group, Task::Answer, peer)?;
            match work.groups(|groups| groups.group_info(group, peer)) {
                Ok(frame) => {
                    work.send_out(group, &[frame], Vec::new(), Errand::default())?;
                }
                Err(error) => may_be(error)?,
            }
            Ok(true)
        })
    }

    /// Asks some members for the group info, and those who wrote what this device could not read: they may have come in
    /// since, and the members known here may have gone.
    pub(crate) fn ask_for_group_info(&mut self, task: &TaskRow) -> Result<bool, DeviceError> {
        let group = task.group;
        // The answer would be sealed to a prekey that is burnt.
        if self.store.burnt()? || !self.store.pending_uploads()?.is_empty() {
            return Ok(false);
        }
        self.group_work(|work| {
            let mut frame = match work.groups(|groups| groups.ask_to_rejoin(group)) {
                Ok(frame) => frame,
                Err(error) => {
                    work.change.delete_tasks(group, Task::Rejoin)?;
                    may_be(error)?;
                    return Ok(true);
                }
            };
            if !frame.to.is_empty() {
                let from = task.tries as usize * ASKED_AT_ONCE % frame.to.len();
                frame.to.rotate_left(from);
                frame.to.truncate(ASKED_AT_ONCE);
            }
            let authors = work.change.held_authors(group, ASKED_AT_ONCE)?;
            let records = work.change.author_records(&authors)?;
            frame.to.extend(authors);
            frame.to.sort_unstable();
            frame.to.dedup();
            work.send_out(group, &[frame], records, Errand::default())?;
            let due = work.now.plus(doubled(task.tries, ASK_SECONDS_MAX));
            work.change.count_task(group, Task::Rejoin, work.device(), due)?;
            Ok(true)
        })
    }

    /// Comes back into the group by the group info that `peer` gave. A commit that is on its way is settled first.
    pub(crate) fn come_back(&mut self, group: GroupId, peer: DeviceId) -> Result<bool, DeviceError> {
        self.group_work(|work| {
            let Some(frame) = work.change.return_frame(group, peer)? else { return Ok(false) };
            if !work.change.has_task(group, Task::Rejoin)? {
                // The commit that was missing has come.
                work.change.delete_tasks(group, Task::Return)?;
                return Ok(true);
            }
            let frame = read_frame(&frame)?;
            let staged = match work.groups(|groups| groups.rejoin(peer, &frame, None)) {
                Err(DeviceError::Group(GroupError::CommitStaged)) => return Ok(false),
                staged => staged,
            };
            work.change.delete_task(group, Task::Return, peer)?;
            let staged = match staged {
                Ok(staged) => staged,
                Err(error) => {
                    may_be(error)?;
                    return Ok(true);
                }
            };
            let errand = Errand { claim: Some(staged.claim), ..Errand::default() };
            work.send_staged(group, &staged.frames, Vec::new(), errand)?;
            // If it loses or nothing comes of it, others are asked.
            let due = work.now.plus(REJOIN_PATIENCE_SECONDS);
            work.change.put_off_task(group, Task::Rejoin, due)?;
            Ok(true)
        })
    }

    /// Asks for the way back into every group after an older copy of the state was put back. `counted` is the counter
    /// outside it.
    pub(crate) fn recover_groups(&mut self, counted: u64) -> Result<(), DeviceError> {
        self.group_work(|work| {
            work.change.set_counter("generation", counted.cast_signed())?;
            work.change.forget_unsent()?;
            for group in work.groups(|groups| groups.mark_restored())? {
                work.change.put_task(group, Task::Rejoin, work.device(), work.now)?;
            }
            work.change.set_counter(VOID, 1)?;
            Ok(())
        })
    }

    /// Comes back into a group at the caller's wish: its epoch seems lost.
    ///
    /// # Errors
    /// The device does not know the group or is out of it; storage and server errors.
    pub fn rejoin(&mut self, group: GroupId) -> Result<(), DeviceError> {
        self.group_work(|work| {
            if work.groups(|groups| groups.state(group))?.standing == Standing::Out {
                return Err(DeviceError::from(GroupError::NotMember).into());
            }
            work.change.put_task(group, Task::Rejoin, work.device(), work.now)?;
            Ok(())
        })?;
        self.work_on_groups()?;
        Ok(())
    }
}

/// What a group refuses is no failure of the device's; its store's failure is.
fn may_be(error: DeviceError) -> Result<(), DeviceError> {
    match error {
        DeviceError::Group(GroupError::Store(_)) => Err(error),
        DeviceError::Group(error) => {
            tracing::warn!(code = error.code(), "a step of a group's recovery is left out");
            Ok(())
        }
        error => Err(error),
    }
}
