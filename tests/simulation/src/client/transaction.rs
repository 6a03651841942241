//! What a device's transactions do.

use std::collections::BTreeSet;
use std::rc::Rc;

use rand_core::Rng as _;
use sealpost_group::{
    CommitPlan, GroupError, GroupState, Groups, Ignored, Member, NewMember, OutgoingFrame, Processed,
    Refusal, StagedCommit, Standing,
};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{DeviceId, GroupId};
use sealpost_wire::payload::{MlsFrame, MlsKind};
use sealpost_wire::slot::SlotClaim;
use sealpost_wire::trust::TenantTrust;

use super::Done;
use super::tables::{Held, Memory, Outgoing, Plan, Stranger, Tables, Wish};
use crate::dice::Dice;
use crate::hospital::{HOUR, MINUTE};
use crate::relay::Submission;

/// The longest pause between two tries (seconds).
const PAUSE_SECONDS_MAX: u64 = 2 * HOUR;
/// A member that has asked so often is invited anew.
const CALLS_BEFORE_INVITING: u32 = 3;

/// A transaction.
pub(crate) struct Transaction<'t> {
    pub(crate) tables: Tables,
    pub(super) member: &'t Member,
    pub(super) trust: &'t TenantTrust,
    pub(super) now: UnixTime,
    pub(super) rng: &'t mut Dice,
}

/// A commit that is to be made.
pub(super) struct Intention {
    pub(super) coming: Vec<DeviceId>,
    pub(super) leaving: Vec<DeviceId>,
}

impl Transaction<'_> {
    pub(crate) fn groups(&mut self) -> Groups<'_, Memory> {
        Groups::new(self.member, self.trust, self.now, &mut self.tables.groups, self.rng)
    }

    /// The store is an older copy of itself: whatever it holds has been used.
    pub(super) fn take_copy(&mut self) -> Result<Done, GroupError> {
        let lost = self.groups().mark_restored()?;
        self.tables.lost.extend(lost);
        // What was written before goes out as the same bytes, which does no harm; a claim would be merged by nobody.
        self.tables.outbox.retain(|outgoing| outgoing.submission.claim.is_none());
        self.tables.drafts.clear();
        self.tables.upload = None;
        self.tables.replace_key_packages = self.member.suites().to_vec();
        self.tables.plans.clear();
        self.tables.changes += 1;
        Ok(Done::Restored)
    }

    /// Processes a frame and does what its outcome asks for.
    pub(super) fn take(
        &mut self,
        author: DeviceId,
        frame: &Rc<MlsFrame>,
        came: UnixTime,
        own_set: Option<&[u8]>,
    ) -> Result<Processed, GroupError> {
        let processed = self.groups().process(author, frame)?;
        let group = frame.group;
        match &processed {
            Processed::Message(message) => self.tables.messages.push((**message).clone()),
            Processed::Joined { .. } => {
                self.tables.strangers.remove(&group);
                self.tables.out.remove(&group);
                self.tables.lost.remove(&group);
                self.moved(group);
            }
            Processed::Changed(change) => {
                if change.came_back {
                    self.tables.calls.remove(&(group, change.by));
                }
                self.moved(group);
                self.forget_what_came_true(group)?;
            }
            Processed::Removed { .. } => {
                self.tables.out.insert(group);
                self.tables.wishes.retain(|(wished, _)| *wished != group);
                self.tables.drafts.retain(|(drafted, _)| *drafted != group);
                self.tables.plans.remove(&group);
                self.tables.lost.remove(&group);
                self.tables.changes += 1;
            }
            Processed::Asked { .. } => self.tables.changes += 1,
            Processed::GroupInfoWanted { by, .. } => self.answer_call(group, *by)?,
            Processed::GroupInfoOffered { .. } => self.take_offer(author, frame, own_set)?,
            Processed::Refused(Refusal::NoKeyPackage) => self.is_taken_for_a_member(group, author),
            // Others take it for a member: it has been invited, and the welcome is lost or cannot be opened.
            Processed::Ignored(Ignored::UnknownGroup | Ignored::NotMember)
                if frame.kind == MlsKind::Message =>
            {
                self.is_taken_for_a_member(group, author);
                self.hold(author, frame, came);
            }
            Processed::SettleStagedFirst | Processed::NeedsRejoin { .. } => self.hold(author, frame, came),
            Processed::Refused(refusal) if refusal.may_pass_later() => self.hold(author, frame, came),
            _ => {}
        }
        Ok(processed)
    }

    pub(super) fn hold(&mut self, author: DeviceId, frame: &Rc<MlsFrame>, came: UnixTime) {
        if self.tables.held.iter().all(|held| held.frame != *frame) {
            let tried = self.tables.changes;
            self.tables.held.push(Held { author, frame: frame.clone(), came, since: self.now, tried });
        }
    }

    pub(super) fn is_taken_for_a_member(&mut self, group: GroupId, author: DeviceId) {
        let now = self.now;
        let stranger = self.tables.strangers.entry(group);
        stranger.or_insert_with(|| Stranger { since: now, ..Stranger::default() }).authors.insert(author);
    }

    /// The group is in another epoch.
    pub(super) fn moved(&mut self, group: GroupId) {
        self.tables.changes += 1;
        let now = self.now;
        for held in self.tables.held.iter_mut().filter(|held| held.frame.group == group) {
            held.since = now;
        }
        let plan = self.tables.plans.entry(group).or_default();
        *plan = Plan { tries: plan.tries, ..Plan::default() };
    }

    /// The relay has taken the commit.
    pub(super) fn win(&mut self, group: GroupId) -> Result<(), GroupError> {
        self.groups().merge_staged(group)?;
        self.moved(group);
        self.tables.plans.remove(&group);
        self.tables.lost.remove(&group);
        let done = |wish: &Wish| matches!(wish, Wish::Update | Wish::InviteAnew(_));
        self.tables.wishes.retain(|(of, wish)| *of != group || !done(wish));
        self.forget_what_came_true(group)
    }

    pub(super) fn forget_what_came_true(&mut self, group: GroupId) -> Result<(), GroupError> {
        let members: BTreeSet<_> = self.groups().members(group)?.iter().map(|entry| entry.device).collect();
        self.tables.wishes.retain(|(of, wish)| match wish {
            Wish::Add(device) => *of != group || !members.contains(device),
            Wish::Remove(device) => *of != group || members.contains(device),
            Wish::InviteAnew(_) | Wish::Update | Wish::Leave => true,
        });
        Ok(())
    }

    /// The relay has not taken the commit.
    pub(super) fn lose(&mut self, group: GroupId) -> Result<(), GroupError> {
        let state = self.groups().state(group)?;
        if state.staged {
            self.groups().discard_staged(group)?;
        }
        self.tables.changes += 1;
        let tries = self.tables.plans.entry(group).or_default().tries;
        let pause = self.pause(tries);
        let now = self.now;
        let plan = self.tables.plans.entry(group).or_default();
        plan.tries += 1;
        plan.due = now.plus(pause);
        plan.stuck.get_or_insert(now);
        Ok(())
    }

    /// How long to wait before the next try: twice as long each time, and a little by chance.
    pub(super) fn pause(&mut self, tries: u32) -> u64 {
        let longest = (MINUTE << tries.min(10)).min(PAUSE_SECONDS_MAX);
        longest / 2 + self.rng.next_u64() % longest
    }

    pub(super) fn ask_to_rejoin(&mut self, group: GroupId) -> Result<Done, GroupError> {
        let mut frame = self.groups().ask_to_rejoin(group)?;
        // Those that it knows may have gone: who writes what cannot be read is in.
        frame
            .to
            .extend(self.tables.held.iter().filter(|held| held.frame.group == group).map(|held| held.author));
        frame.to.sort_unstable();
        frame.to.dedup();
        self.post(group, None, vec![frame]);
        let asks = self.tables.plans.entry(group).or_default().asks;
        let pause = self.pause(asks + 4);
        let plan = self.tables.plans.entry(group).or_default();
        plan.asks += 1;
        plan.ask_due = self.now.plus(pause);
        Ok(Done::Housekeeping)
    }

    /// Asks the members that are known: one of them may be a steward.
    pub(super) fn ask_to_be_invited(&mut self, group: GroupId) -> Done {
        let asks = self.tables.strangers.get(&group).map_or(0, |stranger| stranger.asks);
        let pause = self.pause(asks + 4);
        let Some(stranger) = self.tables.strangers.get_mut(&group) else { return Done::Nothing };
        stranger.asks += 1;
        stranger.due = self.now.plus(pause);
        let to = stranger.authors.iter().copied().collect();
        let (kind, created) = (MlsKind::RejoinRequest, self.now);
        let frame = MlsFrame { created, kind, group, body: Vec::new(), sets: Vec::new() };
        self.post(group, None, vec![OutgoingFrame { to, frame }]);
        Done::Housekeeping
    }

    /// Somebody has lost the group's state: the group info, and if that does not help, an invitation.
    pub(super) fn answer_call(&mut self, group: GroupId, by: DeviceId) -> Result<(), GroupError> {
        let calls = self.tables.calls.entry((group, by)).or_default();
        *calls += 1;
        let own = self.member.device();
        if *calls >= CALLS_BEFORE_INVITING && self.groups().state(group)?.stewards.contains(&own) {
            self.tables.calls.remove(&(group, by));
            self.wish(group, Wish::InviteAnew(by));
        }
        if self.tables.is_behind(group, self.now) {
            return Ok(());
        }
        match self.groups().group_info(group, by) {
            Ok(frame) => self.post(group, None, vec![frame]),
            Err(GroupError::Lost | GroupError::NoSuchMember(_) | GroupError::Refused(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The way back in, if it is needed.
    pub(super) fn take_offer(
        &mut self,
        author: DeviceId,
        frame: &MlsFrame,
        own_set: Option<&[u8]>,
    ) -> Result<(), GroupError> {
        if self.tables.has_claim(frame.group) || !self.tables.is_behind(frame.group, self.now) {
            return Ok(());
        }
        match self.groups().rejoin(author, frame, own_set) {
            Ok(staged) => {
                self.post_commit(staged);
                self.tables.outbox.back_mut().into_iter().for_each(|outgoing| outgoing.came_back = true);
                Ok(())
            }
            // Another one may be better.
            Err(GroupError::Refused(_) | GroupError::CommitStaged) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn may_commit(&mut self, group: GroupId) -> Result<bool, GroupError> {
        let plan = self.tables.plan_of(group);
        let looked = plan.looked.is_some_and(|(changes, at)| {
            changes == self.tables.changes && self.now < at.plus(HOUR) && !plan.blocked
        });
        let wished = self.tables.wishes.iter().any(|(of, wish)| *of == group && *wish != Wish::Leave);
        if plan.due > self.now || self.tables.has_claim(group) || (looked && !wished) {
            return Ok(false);
        }
        if self.tables.is_behind(group, self.now) {
            return Ok(false);
        }
        self.is_ready(group)
    }

    /// Whether the device is in the group and has no commit staged. Of a group that it left a week ago nothing is kept.
    pub(super) fn is_ready(&mut self, group: GroupId) -> Result<bool, GroupError> {
        match self.groups().state(group) {
            Ok(GroupState { standing, staged, .. }) => Ok(standing == Standing::In && !staged),
            // Out of it, or its invitation has not come yet.
            Err(GroupError::NotMember | GroupError::UnknownGroup) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What a commit would do now, if one is to be made.
    pub(super) fn intention(&mut self, group: GroupId) -> Result<Option<Intention>, GroupError> {
        let members: BTreeSet<_> = self.groups().members(group)?.iter().map(|entry| entry.device).collect();
        let mut intention = Intention { coming: Vec::new(), leaving: Vec::new() };
        let mut wanted = false;
        for (_, wish) in self.tables.wishes.iter().filter(|(of, _)| *of == group) {
            match wish {
                Wish::Add(device) if !members.contains(device) => intention.coming.push(*device),
                Wish::Remove(device) if members.contains(device) => intention.leaving.push(*device),
                Wish::InviteAnew(device) if members.contains(device) => {
                    intention.coming.push(*device);
                    intention.leaving.push(*device);
                }
                _ => {}
            }
            wanted |= *wish != Wish::Leave;
        }
        let due = wanted || self.groups().commit_due(group)?.is_some();
        Ok(due.then_some(intention))
    }

    pub(super) fn stage(
        &mut self,
        group: GroupId,
        add: Vec<NewMember>,
        remove: Vec<DeviceId>,
    ) -> Result<Done, GroupError> {
        self.looked(group);
        self.tables.plans.entry(group).or_default().blocked = false;
        match self.groups().stage_commit(group, &CommitPlan { add, remove, ..CommitPlan::default() }) {
            Ok(staged) => {
                self.post_commit(staged);
                Ok(Done::Staged)
            }
            // The others would refuse it: what was wished for cannot be.
            Err(GroupError::Refused(_)) => {
                self.tables.wishes.retain(|(of, wish)| *of != group || *wish == Wish::Leave);
                let pause = self.pause(self.tables.plan_of(group).tries);
                let due = self.now.plus(pause);
                let plan = self.tables.plans.entry(group).or_default();
                plan.tries += 1;
                plan.due = due;
                Ok(Done::Housekeeping)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn looked(&mut self, group: GroupId) {
        let looked = (self.tables.changes, self.now);
        self.tables.plans.entry(group).or_default().looked = Some(looked);
    }

    pub(crate) fn wish(&mut self, group: GroupId, wish: Wish) {
        if !self.tables.wishes.contains(&(group, wish)) {
            self.tables.wishes.push((group, wish));
        }
    }

    pub(super) fn post_commit(&mut self, staged: StagedCommit) {
        self.post(staged.group, Some(staged.claim), staged.frames);
    }

    pub(super) fn post(&mut self, group: GroupId, claim: Option<SlotClaim>, frames: Vec<OutgoingFrame>) {
        let mut boxes = Vec::new();
        for OutgoingFrame { to, frame } in frames {
            let frame = Rc::new(frame);
            boxes.extend(to.into_iter().map(|device| (device, frame.clone())));
        }
        if boxes.is_empty() && claim.is_none() {
            return;
        }
        let mut id = [0; 16];
        self.rng.fill_bytes(&mut id);
        let submission = Submission { id, claim, boxes };
        self.tables.outbox.push_back(Outgoing {
            submission,
            group,
            came_back: false,
            tries: 0,
            due: self.now,
        });
    }
}
