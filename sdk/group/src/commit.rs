//! Commits of this device: staged, submitted by the caller, then merged or discarded.

use openmls::extensions::Extensions;
use openmls::group::{GroupContext, StagedCommit as MlsStagedCommit};
use openmls::prelude::{KeyPackage, LeafNodeIndex, LeafNodeParameters, Proposal, Sender};
use sealpost_wire::id::{DeviceId, GroupId};
use sealpost_wire::payload::MlsKind;
use sealpost_wire::slot::{SlotCapability, SlotClaim};

use crate::context::Context;
use crate::credential;
use crate::error::{GroupError, Refusal};
use crate::frame::{CommitPlan, OutgoingFrame, StagedCommit};
use crate::group::Groups;
use crate::limits::{ADDS_PER_COMMIT_MAX, BODY_BYTES_MAX, SETS_PER_FRAME_MAX};
use crate::operation::{Loaded, Operation};
use crate::policy::{Deed, Removal};
use crate::record::{Former, Staged};
use crate::store::GroupStore;

impl<S: GroupStore> Groups<'_, S> {
    /// Makes a commit of `plan` and stages it. The caller puts its frames and its claim into one submission, and then
    /// calls [`Self::merge_staged`] or [`Self::discard_staged`]; whatever the frames need (boxes for everybody, within
    /// their sizes) is to be ready before that submission.
    ///
    /// # Errors
    /// A commit is staged already; the device is out or about to leave; what the others would refuse
    /// ([`GroupError::Refused`]).
    pub fn stage_commit(&mut self, group: GroupId, plan: &CommitPlan) -> Result<StagedCommit, GroupError> {
        self.operate(|operation| operation.stage_commit(group, plan))
    }

    /// Merges the staged commit: the relay has accepted it. Returns the epoch that the group is in now.
    ///
    /// # Errors
    /// [`GroupError::NothingStaged`], or the store.
    pub fn merge_staged(&mut self, group: GroupId) -> Result<u64, GroupError> {
        self.operate(|operation| operation.merge_staged(group))
    }

    /// Forgets the staged commit: its claim has lost, or it was never submitted. Never call it while the answer of a
    /// submission is open: a commit that others merge and its author has forgotten is an epoch lost.
    ///
    /// # Errors
    /// [`GroupError::NothingStaged`], or the store.
    pub fn discard_staged(&mut self, group: GroupId) -> Result<(), GroupError> {
        self.operate(|operation| operation.discard_staged(group))
    }
}

impl<S: GroupStore> Operation<'_, S> {
    fn stage_commit(&self, group: GroupId, plan: &CommitPlan) -> Result<StagedCommit, GroupError> {
        let mut loaded = self.load(group)?;
        loaded.must_be_in()?;
        if loaded.record.staged.is_some() {
            return Err(GroupError::CommitStaged);
        }
        if plan.add.len() > ADDS_PER_COMMIT_MAX {
            return Err(Refusal::TooLarge.into());
        }
        let new_context = self.new_context(&loaded, plan)?;

        // The sets are taken in for good only when the commit is merged: the others have not seen them before.
        let record_before = loaded.record.clone();
        let mut sets: Vec<_> = plan.sets.clone();
        sets.extend(plan.add.iter().map(|new| new.set.clone()));
        sets.sort_unstable();
        sets.dedup();
        if sets.len() > SETS_PER_FRAME_MAX {
            return Err(Refusal::TooLarge.into());
        }
        // Who is revoked by a set goes with it; what has no room goes with the next commit.
        for evidence in &loaded.record.evidence {
            if sets.len() < SETS_PER_FRAME_MAX && !sets.contains(&evidence.set) {
                sets.push(evidence.set.clone());
            }
        }
        let verified = loaded.record.take_sets(&sets, &loaded.rows, self.trust)?;
        let key_packages = self.key_packages_of(&loaded, plan)?;
        let removals = self.removals(&loaded, &plan.remove, &sets)?;

        let parameters = LeafNodeParameters::builder()
            .with_credential_with_key(self.member.credential())
            .with_capabilities(self.member.capabilities())
            .build();
        let builder = loaded.mls.commit_builder();
        let builder = builder
            .force_self_update(true)
            .leaf_node_parameters(parameters)
            .propose_adds(key_packages)
            .propose_removals(removals);
        let builder = match &new_context {
            Some(extensions) => builder
                .propose_group_context_extensions(extensions.clone())
                .map_err(|error| GroupError::library(&error))?,
            None => builder,
        };
        let bundle = builder
            .load_psks(&self.provider.storage)
            .map_err(|error| GroupError::library(&error))?
            .create_group_info(false)
            .build(&self.provider.crypto, &self.provider.crypto, self.member, |_| true)
            .map_err(|error| refused_commit(&error))?
            .stage_commit(&self.provider)
            .map_err(|error| GroupError::library(&error))?;

        let staged = loaded.mls.pending_commit().ok_or(GroupError::NothingStaged)?;
        let sender = Sender::Member(loaded.mls.own_leaf_index());
        let deed = self.deed(&loaded, staged, &sender, &verified).map_err(GroupError::Refused)?;
        deed.check(&loaded.context, &loaded.rows).map_err(GroupError::Refused)?;
        let next = Self::capability(group, |label, context, length| {
            staged.export_secret(&self.provider.crypto, label, context, length)
        })?;
        let capability = self.own_capability(&loaded)?;
        let claim = claim(&loaded.context, loaded.record.epoch, capability, &next)?;

        let rows = deed.apply(&loaded.rows);
        let (commit, welcome, _) = bundle.into_messages();
        let body = commit.to_bytes().map_err(|error| GroupError::library(&error))?;
        check_body(&body)?;
        // Those who go hear of it too, but for those whose boxes nobody takes any more.
        let to = loaded.others(self);
        let mut frames = vec![self.frame(group, to, MlsKind::Message, body, sets.clone())];
        if let Some(welcome) = welcome {
            let body = welcome.to_bytes().map_err(|error| GroupError::library(&error))?;
            check_body(&body)?;
            let to = deed.added.iter().map(|row| row.device).collect();
            frames.push(self.frame(group, to, MlsKind::Welcome, body, sets));
        }
        let staged = Staged { base: loaded.record.epoch, rejoin: None, rows, sets: loaded.record.sets };
        self.save_record(group, &crate::record::Record { staged: Some(staged), ..record_before })?;
        Ok(StagedCommit { group, claim, frames })
    }

    fn merge_staged(&self, group: GroupId) -> Result<u64, GroupError> {
        let mut record = self.record(group)?;
        let staged = record.staged.take().ok_or(GroupError::NothingStaged)?;
        match staged.rejoin {
            None => {
                let incarnation = record.incarnation;
                let mut loaded = self.load_as(group, record, incarnation)?;
                loaded
                    .mls
                    .merge_pending_commit(&self.provider)
                    .map_err(|error| GroupError::library(&error))?;
                loaded.record.enter(loaded.mls.epoch().as_u64(), self.now);
                loaded.record.updated = self.now;
                record = self.expire(&mut loaded)?;
                self.save_rows(group, incarnation, &staged.rows)?;
            }
            Some(incarnation) => {
                self.drop_former(group, &mut record)?;
                record.former = Some(Former {
                    incarnation: record.incarnation,
                    epoch: record.epoch,
                    since: self.now,
                    past: std::mem::take(&mut record.past),
                });
                record.incarnation = incarnation;
                record.epoch = staged.base + 1;
                record.first_epoch = record.epoch;
                record.left = None;
                record.leaving = false;
                record.lost = false;
                record.updated = self.now;
                self.save_rows(group, incarnation, &staged.rows)?;
            }
        }
        record.see_all(&staged.sets);
        record.forget_evidence_of_others(&staged.rows);
        self.save_record(group, &record)?;
        Ok(record.epoch)
    }

    pub(crate) fn discard_staged(&self, group: GroupId) -> Result<(), GroupError> {
        let mut record = self.record(group)?;
        let staged = record.staged.take().ok_or(GroupError::NothingStaged)?;
        match staged.rejoin {
            Some(incarnation) => self.delete_incarnation(group, incarnation)?,
            None => {
                let incarnation = record.incarnation;
                let mut loaded = self.load_as(group, record, incarnation)?;
                loaded.mls.clear_pending_commit(&self.provider.storage)?;
                record = loaded.record;
            }
        }
        self.save_record(group, &record)
    }

    /// What a commit does, every newcomer and every renewed leaf checked. `sets` are those that came with it.
    pub(crate) fn deed(
        &self,
        loaded: &Loaded,
        staged: &MlsStagedCommit,
        sender: &Sender,
        sets: &[sealpost_wire::device_set::DeviceSet],
    ) -> Result<Deed, Refusal> {
        let leaf = staged.update_path_leaf_node().ok_or(Refusal::NoPath)?;
        let renewed = credential::verify_leaf(leaf, loaded.record.suite, self.trust)?;
        let external = match sender {
            Sender::Member(at) => {
                let before = loaded.row_at(*at)?;
                if (before.device, before.key) != (renewed.device, renewed.key) {
                    return Err(Refusal::DeviceChanged);
                }
                false
            }
            Sender::NewMemberCommit => {
                let before = loaded.row_of_device(renewed.device).ok_or(Refusal::NotMember)?;
                if before.key != renewed.key {
                    return Err(Refusal::DeviceChanged);
                }
                true
            }
            Sender::External(_) | Sender::NewMemberProposal => return Err(Refusal::ProposalKind),
        };
        if loaded.record.revoked_by_set(renewed.device) {
            return Err(Refusal::Credential(sealpost_wire::error::TrustError::DeviceRevoked));
        }
        let mut deed = Deed {
            committer: renewed.device,
            external,
            added: Vec::new(),
            removed: Vec::new(),
            context: None,
            renewed: Some(renewed),
        };
        for queued in staged.queued_proposals() {
            match queued.proposal() {
                Proposal::Add(add) => deed.added.push(self.newcomer(loaded, add.key_package(), sets)?),
                Proposal::Remove(remove) => {
                    let row = loaded.row_at(remove.removed())?;
                    deed.removed.push(Removal {
                        device: row.device,
                        asked: *queued.sender() == Sender::Member(remove.removed()),
                        revoked: loaded.is_revoked(row, self.trust),
                    });
                }
                Proposal::GroupContextExtensions(change) => {
                    deed.context = Some(Context::of(change.extensions())?);
                }
                Proposal::ExternalInit(_) if external => {}
                _ => return Err(Refusal::ProposalKind),
            }
        }
        let after = Context::of(staged.group_context().extensions())?;
        if after != *deed.context.as_ref().unwrap_or(&loaded.context) {
            return Err(Refusal::Unsupported);
        }
        Ok(deed)
    }

    fn newcomer(
        &self,
        loaded: &Loaded,
        package: &KeyPackage,
        sets: &[sealpost_wire::device_set::DeviceSet],
    ) -> Result<credential::Row, Refusal> {
        crate::key_package::check(package, loaded.record.suite, self.now)?;
        let mut row = credential::verify_leaf(package.leaf_node(), loaded.record.suite, self.trust)?;
        let named = |set: &&sealpost_wire::device_set::DeviceSet| {
            set.device(row.device).is_some_and(|known| known.record.identity_key.as_bytes() == &row.key)
        };
        let set = sets.iter().find(named).ok_or(Refusal::NotInSet)?;
        if sets.iter().any(|set| set.revoked.binary_search(&row.device).is_ok()) {
            return Err(Refusal::Credential(sealpost_wire::error::TrustError::DeviceRevoked));
        }
        row.recipient = Some(set.recipient);
        Ok(row)
    }

    fn key_packages_of(&self, loaded: &Loaded, plan: &CommitPlan) -> Result<Vec<KeyPackage>, GroupError> {
        let read = |new: &crate::frame::NewMember| {
            crate::key_package::read(&new.key_package, loaded.record.suite, self.now, &self.provider.crypto)
        };
        Ok(plan.add.iter().map(read).collect::<Result<_, Refusal>>()?)
    }

    /// The places of those who go: those named, and whoever is revoked. Who has asked goes by that proposal.
    fn removals(
        &self,
        loaded: &Loaded,
        named: &[DeviceId],
        sets: &[Vec<u8>],
    ) -> Result<Vec<LeafNodeIndex>, GroupError> {
        let own = self.member.device();
        if named.contains(&own) {
            // Nobody commits its own removal (RFC 9420 section 12.2): who wants to go asks to leave.
            return Err(Refusal::Invalid.into());
        }
        let shown: Vec<_> =
            loaded.record.evidence.iter().filter(|evidence| sets.contains(&evidence.set)).collect();
        let revoked = loaded.rows.iter().filter(|row| {
            row.void(self.trust).is_some()
                || shown.iter().any(|evidence| evidence.revoked.contains(&row.device))
        });
        let mut going: Vec<_> = named.iter().copied().chain(revoked.map(|row| row.device)).collect();
        going.retain(|device| *device != own);
        going.sort_unstable();
        going.dedup();
        let asked = loaded.asked();
        let mut places = Vec::new();
        for device in going {
            let place = loaded.leaf_of(device).ok_or(GroupError::NoSuchMember(device))?;
            if !asked.contains(&place.u32()) {
                places.push(place);
            }
        }
        Ok(places)
    }

    fn new_context(
        &self,
        loaded: &Loaded,
        plan: &CommitPlan,
    ) -> Result<Option<Extensions<GroupContext>>, GroupError> {
        let old = &loaded.context;
        let context = Context::new(
            plan.stewards.clone().unwrap_or_else(|| old.stewards.clone()),
            plan.label.clone().unwrap_or_else(|| old.label.clone()),
            old.slot,
            old.sequence_offset,
        )?;
        Ok(if context == *old { None } else { Some(context.extensions()?) })
    }

    /// The capability of the epoch that the group is in. The first commit makes the slot, and shows none.
    fn own_capability(&self, loaded: &Loaded) -> Result<Option<SlotCapability>, GroupError> {
        if loaded.record.epoch == 0 {
            return Ok(None);
        }
        Self::capability(loaded.id, |label, context, length| {
            loaded.mls.export_secret(&self.provider.crypto, label, context, length)
        })
        .map(Some)
    }

    pub(crate) fn frame_of_commit(
        &self,
        loaded: &Loaded,
        body: Vec<u8>,
        sets: Vec<Vec<u8>>,
    ) -> Result<OutgoingFrame, GroupError> {
        check_body(&body)?;
        Ok(self.frame(loaded.id, loaded.others(self), MlsKind::Message, body, sets))
    }
}

/// The claim that the commit of `epoch` makes.
pub(crate) fn claim(
    context: &Context,
    epoch: u64,
    capability: Option<SlotCapability>,
    next: &SlotCapability,
) -> Result<SlotClaim, GroupError> {
    let sequence = context.sequence(epoch).ok_or(GroupError::Refused(Refusal::TooLarge))?;
    Ok(SlotClaim { slot: context.slot, sequence, capability, next: next.digest() })
}

pub(crate) fn check_body(body: &[u8]) -> Result<(), GroupError> {
    if body.len() > BODY_BYTES_MAX { Err(Refusal::TooLarge.into()) } else { Ok(()) }
}

/// What openmls does not let this device commit, the others would not take either.
fn refused_commit(error: &openmls::group::CreateCommitError) -> GroupError {
    use openmls::group::CreateCommitError as Error;
    match error {
        Error::ProposalValidationError(_) | Error::LeafNodeValidation(_) => Refusal::Invalid.into(),
        error => GroupError::library(error),
    }
}
