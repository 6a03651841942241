//! What goes out: boxes are sealed and durable before they are first sent, and what becomes of a commit is decided by
//! the relay's answer to the submission that claims the group's slot.
//!
//! ```text
//! accepted        merge the commit; what waited for it can go
//! slot_conflict   somebody else's commit has the epoch: discard, and wait for that commit
//! slot_unknown    the relay has forgotten the slot: the same claim without the capability makes it anew
//! slot_forbidden  the epoch here is not the group's: discard, and come back in
//! no answer       the same bytes again, later: the relay tells a repetition by its digest
//! ```

use std::time::Duration;

use sealpost_group::{GroupContent, GroupError, OutgoingFrame};
use sealpost_seal::{Envelope, seal_mls};
use sealpost_wire::api::relay::{MessageStatus, Submission, SubmittedBox};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{GroupId, TransportId};
use sealpost_wire::limits::BOXES_PER_MESSAGE_MAX;
use sealpost_wire::payload::Priority;
use sealpost_wire::prekey::VerifiedPrekey;
use sealpost_wire::record::DeviceRecord;
use sealpost_wire::slot::SlotClaim;
use zeroize::Zeroizing;

use crate::Device;
use crate::error::{DeviceError, HttpError};
use crate::groups::conversation::MessageState;
use crate::groups::rows::{NewOutgoing, OutgoingRow, Stage, Task};
use crate::groups::state::{Work, WorkError};
use crate::groups::{GroupReport, REJOIN_PATIENCE_SECONDS};
use crate::http::json;

/// A frame lives this long (seconds): 29 days, a day less than the relay and prekeys allow, for clocks that differ.
const FRAME_LIFETIME_SECONDS: u64 = 29 * 86_400;
/// A submission without an answer is repeated after 2, 4, 8 … seconds, at most this many.
const REPEAT_SECONDS_MAX: u64 = 3600;
/// A return into a group that has lost a race is tried again at once so often.
const PROMPT_ASKS_MAX: u32 = 3;
/// Bytes of boxes in one submission, before base64url: a relay on a thin line gets it in one request.
const SUBMISSION_BOX_BYTES_MAX: usize = 1024 * 1024;

/// What frames go out for.
#[derive(Clone, Default)]
pub(crate) struct Errand {
    /// The commit that they carry claims the group's slot.
    pub(crate) claim: Option<SlotClaim>,
    /// The plan that the commit carries out.
    pub(crate) plan: Option<i64>,
    /// The message that they carry.
    pub(crate) message: Option<[u8; 16]>,
}

/// What has become of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sealed {
    /// Boxes wait to be sent.
    Waiting,
    /// They are for nobody.
    ForNobody,
    /// Those that they are for cannot be reached.
    Unreached,
}

impl Work<'_> {
    /// Seals `frames` and stores the boxes, ready to be sent. `newcomers` are records of devices that are to come in.
    pub(crate) fn send_out(
        &mut self,
        group: GroupId,
        frames: &[OutgoingFrame],
        newcomers: Vec<DeviceRecord>,
        mut errand: Errand,
    ) -> Result<Sealed, WorkError> {
        if errand.claim.is_none() && frames.iter().all(|frame| frame.to.is_empty()) {
            return Ok(Sealed::ForNobody);
        }
        let mut records = match self.groups(|groups| groups.records(group)) {
            Err(DeviceError::Group(GroupError::UnknownGroup)) => Vec::new(),
            records => records?,
        };
        records.extend(newcomers);
        let expires_at = self.now.plus(FRAME_LIFETIME_SECONDS);
        let mut boxes: Vec<(&OutgoingFrame, VerifiedPrekey)> = Vec::new();
        for frame in frames {
            let prekeys = self.prekeys(&frame.to, &records, expires_at)?;
            boxes.extend(prekeys.into_iter().map(|prekey| (frame, prekey)));
        }
        // The relay orders commits by their claims: one that is for nobody, or that nobody can be reached with, claims
        // its place all the same.
        if boxes.is_empty()
            && errand.claim.is_some()
            && let Some(commit) = frames.first()
        {
            let prekeys = self.prekeys(&[self.device()], &records, expires_at)?;
            boxes.extend(prekeys.into_iter().map(|prekey| (commit, prekey)));
        }
        if boxes.is_empty() {
            return Ok(Sealed::Unreached);
        }
        let mut stage = if errand.claim.is_some() { Stage::Claims } else { Stage::Free };
        let mut boxes = boxes.into_iter().peekable();
        while boxes.peek().is_some() {
            let transport_id = TransportId::random(&mut *self.rng);
            let envelope = Envelope { tenant: self.trust.tenant().clone(), transport_id, expires_at };
            let mut submitted: Vec<SubmittedBox> = Vec::new();
            let mut bytes = 0;
            // A device that is in twice (removed and invited anew) gets its second box with the next submission.
            while let Some((frame, prekey)) = boxes.next_if(|(_, prekey)| {
                let device = prekey.record().device;
                submitted.len() < BOXES_PER_MESSAGE_MAX
                    && bytes < SUBMISSION_BOX_BYTES_MAX
                    && submitted.iter().all(|one| one.device != device)
            }) {
                let author = &self.own.author;
                let sealed = seal_mls(&frame.frame, &envelope, &prekey, author, self.now, &mut *self.rng)?;
                bytes += sealed.bytes.len();
                submitted.push(SubmittedBox { device: sealed.device, sealed: Base64Url(sealed.bytes) });
            }
            let slot = errand.claim.take();
            let submission = Submission { expires_at, priority: Priority::Normal, boxes: submitted, slot };
            let new = NewOutgoing {
                group,
                transport_id,
                stage,
                plan: errand.plan,
                message: errand.message,
                expires_at,
                submission: Zeroizing::new(json(&submission)?),
            };
            self.change.insert_outgoing(&new, &mut *self.rng)?;
            stage = if stage == Stage::Free { Stage::Free } else { Stage::AfterClaim };
        }
        Ok(Sealed::Waiting)
    }

    /// The relay has accepted a submission.
    pub(crate) fn accepted(&mut self, row: &OutgoingRow) -> Result<(), DeviceError> {
        self.change.delete_outgoing(row.id)?;
        if row.claims {
            // An invitation may have overtaken the answer: the commit that it ended is forgotten then.
            match self.groups(|groups| groups.merge_staged(row.group)) {
                Err(DeviceError::Group(GroupError::NothingStaged | GroupError::UnknownGroup)) => {}
                merged => {
                    merged?;
                }
            }
            self.change.release_after_claim(row.group)?;
            self.merged(row.group, row.plan)?;
        }
        self.settle_message(row, MessageState::Sent)
    }

    /// A commit of this device was merged.
    pub(crate) fn merged(&mut self, group: GroupId, plan: Option<i64>) -> Result<(), DeviceError> {
        self.change.mark_messages_stale(group)?;
        if let Some(plan) = plan {
            self.change.delete_plan(plan)?;
        }
        if self.change.task(group, Task::Rejoin, self.device())?.is_some_and(|(asks, _)| asks > 0) {
            // It has come back, and to where the others are.
            self.change.mark_held_asked(group)?;
        }
        for task in [Task::Rejoin, Task::Return, Task::Race, Task::Refusal] {
            self.change.delete_tasks(group, task)?;
        }
        self.take_held(group)
    }

    /// The claim of a submission has lost. The plan stays, and the group info is asked for at `rejoin_at` unless the
    /// commit that won comes before. Who was coming back cannot read that commit, and asks at once; but not again and
    /// again.
    fn lost(&mut self, row: &OutgoingRow, rejoin_at: UnixTime) -> Result<(), DeviceError> {
        let (group, own) = (row.group, self.device());
        let asked = self.change.task(group, Task::Rejoin, own)?;
        self.discard_claim(group)?;
        // What else was offered is of the epoch that is over.
        self.change.delete_tasks(group, Task::Return)?;
        match asked {
            Some((tries, _)) if tries < PROMPT_ASKS_MAX => {
                self.change.put_task(group, Task::Rejoin, own, self.now)?;
            }
            Some(_) => {}
            None => self.change.put_task(group, Task::Rejoin, own, rejoin_at)?,
        }
        self.pause_after_loss(group)
    }

    /// Forgets the staged commit and what would have been sent of it.
    fn discard_claim(&mut self, group: GroupId) -> Result<(), DeviceError> {
        self.change.drop_claim(group)?;
        match self.groups(|groups| groups.discard_staged(group)) {
            Err(DeviceError::Group(GroupError::NothingStaged | GroupError::UnknownGroup)) => Ok(()),
            discarded => discarded,
        }
    }

    /// A submission is given up.
    fn given_up(&mut self, row: &OutgoingRow) -> Result<(), DeviceError> {
        if row.claims {
            self.discard_claim(row.group)?;
            if let Some(plan) = row.plan {
                self.change.delete_plan(plan)?;
            }
        }
        self.change.delete_outgoing(row.id)?;
        self.settle_message(row, MessageState::Failed)
    }

    /// Encrypts the messages of a group that the relay does not have yet once more, in the present epoch, in their
    /// order: members keep the keys of a few past epochs only, and who has gone since is not to read them. What the
    /// relay did have all the same comes twice, and is shown once, by its id.
    fn write_anew(&mut self, group: GroupId) -> Result<(), WorkError> {
        for message in self.change.stale_messages(group)? {
            let author = self.device();
            let row = self.change.group_message(group, author, message)?;
            let content = GroupContent::read(&row.ok_or(DeviceError::Unreadable)?)?;
            let frame = self.groups(|groups| groups.send(group, &content))?;
            self.change.drop_outgoing_of(group, message)?;
            let errand = Errand { message: Some(message), ..Errand::default() };
            match self.send_out(group, &[frame], Vec::new(), errand)? {
                Sealed::Waiting => {}
                Sealed::ForNobody => {
                    self.change.set_message_state(group, author, message, MessageState::Sent)?;
                }
                Sealed::Unreached => return Err(DeviceError::NobodyReached.into()),
            }
        }
        Ok(())
    }

    fn settle_message(&mut self, row: &OutgoingRow, state: MessageState) -> Result<(), DeviceError> {
        let Some(message) = row.message else { return Ok(()) };
        if state == MessageState::Failed || !self.change.has_outgoing_of(row.group, message)? {
            self.change.set_message_state(row.group, self.device(), message, state)?;
        }
        Ok(())
    }
}

impl Device {
    /// Sends the next submission that can go. Returns whether there was one.
    pub(crate) fn send_next(&mut self, report: &mut GroupReport) -> Result<bool, DeviceError> {
        let now = self.clock.now();
        let Some(row) = self.store.next_outgoing(now)? else { return Ok(false) };
        if row.expires_at <= now {
            report.refused.push((row.group, "expired".to_owned()));
            self.settle(&row, |work| work.given_up(&row))?;
            return Ok(true);
        }
        if row.stale {
            let written = self.settle_work(&row, |work| work.write_anew(row.group));
            match written {
                Err(DeviceError::Group(error)) if !matches!(error, GroupError::Store(_)) => {
                    // Somebody is leaving, or this device is out: members that still have the epoch's keys read it.
                    tracing::debug!(code = error.code(), "messages of an epoch that is over go as they are");
                    self.settle(&row, |work| work.change.let_stale_messages_go(row.group))?;
                }
                Err(error) if error.is_temporary() => self.put_off(&row, &error, report)?,
                written => written?,
            }
            return Ok(true);
        }
        self.raise_generation()?;
        let path = format!("/v1/messages/{}", row.transport_id);
        let relay = self.enrolled.relay.clone();
        let body = row.submission.to_vec();
        let answer: Result<MessageStatus, DeviceError> = self.call("PUT", &relay, path, body, Duration::ZERO);
        match answer {
            Ok(_) => {
                report.submitted += 1;
                self.settle(&row, |work| work.accepted(&row))?;
            }
            Err(DeviceError::Http(HttpError::Refused { code, .. }))
                if row.claims && code == "slot_conflict" =>
            {
                report.lost += 1;
                let rejoin_at = now.plus(REJOIN_PATIENCE_SECONDS);
                self.settle(&row, |work| work.lost(&row, rejoin_at))?;
            }
            Err(DeviceError::Http(HttpError::Refused { code, .. }))
                if row.claims && code == "slot_unknown" =>
            {
                let submission = without_capability(&row)?;
                self.settle(&row, |work| work.change.replace_submission(&row, &submission, &mut *work.rng))?;
            }
            Err(DeviceError::Http(HttpError::Refused { code, .. }))
                if row.claims && code == "slot_forbidden" =>
            {
                report.refused.push((row.group, DeviceError::SlotForbidden.code().to_owned()));
                self.settle(&row, |work| work.lost(&row, now))?;
            }
            Err(error) if error.is_temporary() => self.put_off(&row, &error, report)?,
            Err(DeviceError::Http(error)) => {
                tracing::warn!(code = error.code(), "the relay does not take a message of a group");
                report.refused.push((row.group, error.code().to_owned()));
                self.settle(&row, |work| work.given_up(&row))?;
                if let Some(plan) = row.plan.filter(|_| row.claims) {
                    self.refused_plan = Some((plan, error.into()));
                }
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// The same again, later.
    fn put_off(
        &mut self,
        row: &OutgoingRow,
        error: &DeviceError,
        report: &mut GroupReport,
    ) -> Result<(), DeviceError> {
        let own = 2u64.saturating_pow(row.tries.saturating_add(1)).min(REPEAT_SECONDS_MAX);
        let asked = error.retry_after().map_or(0, |asked| asked.as_secs());
        let due = self.clock.now().plus(own.max(asked));
        report.waiting = Some(error.code().to_owned());
        self.settle(row, |work| work.change.delay_outgoing(row.id, due))
    }

    /// Puts down what the relay answered, unless another process has done so.
    pub(crate) fn settle(
        &mut self,
        row: &OutgoingRow,
        mut outcome: impl FnMut(&mut Work<'_>) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        self.settle_work(row, |work| Ok(outcome(work)?))
    }

    fn settle_work(
        &mut self,
        row: &OutgoingRow,
        mut outcome: impl FnMut(&mut Work<'_>) -> Result<(), WorkError>,
    ) -> Result<(), DeviceError> {
        self.group_work(|work| {
            if work.change.has_outgoing_row(row.id)? {
                outcome(work)?;
            }
            Ok(())
        })
    }
}

/// The same submission with a claim that makes the slot.
fn without_capability(row: &OutgoingRow) -> Result<Zeroizing<Vec<u8>>, DeviceError> {
    let mut submission: Submission =
        serde_json::from_slice(&row.submission).map_err(|_| DeviceError::Unreadable)?;
    if let Some(claim) = &mut submission.slot {
        claim.capability = None;
    }
    Ok(Zeroizing::new(json(&submission)?))
}
