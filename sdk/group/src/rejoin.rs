//! Coming back into a group whose state was lost or left behind: by an external commit (RFC 9420 section 12.4.3.2)
//! that takes the place of one's own old leaf.
//!
//! The member asks ([`Groups::ask_to_rejoin`]); one who has the state gives the group info and the slot's capability
//! ([`Groups::group_info`]); the member stages its commit ([`Groups::rejoin`]), submits it, and merges or discards it
//! like any other.

use openmls::group::{ExternalCommitBuilder, ExternalCommitBuilderError, PastEpochDeletion};
use openmls::prelude::{LeafNodeParameters, MlsMessageBodyIn};
use sealpost_wire::id::{DeviceId, GroupId};
use sealpost_wire::payload::{GroupInfoBody, MlsFrame, MlsKind};

use crate::commit::claim;
use crate::context::Context;
use crate::error::{GroupError, Refusal};
use crate::frame::{OutgoingFrame, StagedCommit};
use crate::group::{Groups, Standing};
use crate::join::next_incarnation;
use crate::limits::BODY_BYTES_MAX;
use crate::operation::{Loaded, Operation, join_config};
use crate::policy;
use crate::receive::parse;
use crate::record::{Record, Staged};
use crate::storage::StorageError;
use crate::store::GroupStore;
use crate::suite::GroupSuite;

impl<S: GroupStore> Groups<'_, S> {
    /// Asks the others for the group info. The caller may send it to a few of them first, and should send it to the
    /// authors of what it could not read too: they may have come in since, and those known here may have gone.
    ///
    /// # Errors
    /// [`GroupError::UnknownGroup`]; the device is out of the group.
    pub fn ask_to_rejoin(&mut self, group: GroupId) -> Result<OutgoingFrame, GroupError> {
        self.operate(|operation| {
            let record = operation.record(group)?;
            if record.left.is_some() {
                return Err(GroupError::NotMember);
            }
            let rows = operation.rows(group, record.incarnation)?;
            let others = rows.iter().filter(|row| row.void(operation.trust).is_none());
            let own = operation.member.device();
            let to = others.map(|row| row.device).filter(|device| *device != own).collect();
            Ok(operation.frame(group, to, MlsKind::RejoinRequest, Vec::new(), Vec::new()))
        })
    }

    /// The group info for a member that has lost the group's state, with the capability of the slot in this epoch.
    ///
    /// # Errors
    /// `to` is not in the group ([`GroupError::NoSuchMember`]) or is revoked; this device is out.
    pub fn group_info(&mut self, group: GroupId, to: DeviceId) -> Result<OutgoingFrame, GroupError> {
        self.operate(|operation| operation.group_info(group, to))
    }

    /// Stages the return into a group by what the member `author` gave. The commit replaces this device's old leaf;
    /// the old state stays until it is merged, and its last messages can be read for a week after.
    ///
    /// `set` is the newest device set of the device's recipient, where the device has it.
    ///
    /// # Errors
    /// A commit is staged; the device is out of the group; what came must not be believed, or is older than the state
    /// here ([`GroupError::Refused`]).
    pub fn rejoin(
        &mut self,
        author: DeviceId,
        frame: &MlsFrame,
        set: Option<&[u8]>,
    ) -> Result<StagedCommit, GroupError> {
        self.operate(|operation| operation.rejoin(author, frame, set))
    }
}

impl<S: GroupStore> Operation<'_, S> {
    fn group_info(&self, group: GroupId, to: DeviceId) -> Result<OutgoingFrame, GroupError> {
        let loaded = self.load(group)?;
        match loaded.standing() {
            Standing::In | Standing::Leaving => {}
            Standing::Lost => return Err(GroupError::Lost),
            Standing::Out => return Err(GroupError::NotMember),
        }
        let row = loaded.row_of_device(to).ok_or(GroupError::NoSuchMember(to))?;
        if loaded.is_revoked(row, self.trust) {
            return Err(Refusal::Credential(sealpost_wire::error::TrustError::DeviceRevoked).into());
        }
        let info = loaded
            .mls
            .export_group_info(&self.provider.crypto, self.member, true)
            .map_err(|error| GroupError::library(&error))?;
        let capability = Self::capability(group, |label, context, length| {
            loaded.mls.export_secret(&self.provider.crypto, label, context, length)
        })?;
        let group_info = info.to_bytes().map_err(|error| GroupError::library(&error))?;
        let body = GroupInfoBody { group_info, capability }.to_bytes();
        crate::commit::check_body(&body)?;
        Ok(self.frame(group, vec![to], MlsKind::GroupInfo, body.to_vec(), Vec::new()))
    }

    fn rejoin(
        &self,
        author: DeviceId,
        frame: &MlsFrame,
        set: Option<&[u8]>,
    ) -> Result<StagedCommit, GroupError> {
        if frame.kind != MlsKind::GroupInfo || frame.body.len() > BODY_BYTES_MAX {
            return Err(Refusal::Malformed.into());
        }
        let group = frame.group;
        let record = self.record(group)?;
        if record.left.is_some() {
            return Err(GroupError::NotMember);
        }
        if record.staged.is_some() {
            return Err(GroupError::CommitStaged);
        }
        let known = self.rows(group, record.incarnation)?;
        let before = match self.load(group) {
            Ok(loaded) => Some(loaded.context),
            Err(GroupError::Unreadable) => None,
            Err(error) => return Err(error),
        };
        // The author need not have been in when this device last was: all that it knows may have gone since. It must be
        // in the tree that it gives, and show the group's own slot: its claim wins only with the capability that the
        // members have.
        if before.is_none() && !known.iter().any(|row| row.device == author) {
            return Err(Refusal::NotMember.into());
        }
        let body = GroupInfoBody::read(&frame.body).map_err(|_| Refusal::Malformed)?;
        let MlsMessageBodyIn::GroupInfo(info) = parse(&body.group_info)? else {
            return Err(Refusal::Malformed.into());
        };
        if info.group_id().as_slice() != group.as_bytes() {
            return Err(Refusal::WrongGroup.into());
        }
        if GroupSuite::from_mls(info.ciphersuite()) != Some(record.suite) {
            return Err(Refusal::Unsupported.into());
        }
        let base = info.epoch().as_u64();
        if base < record.epoch {
            return Err(Refusal::Stale.into());
        }

        let incarnation = next_incarnation(Some(&record));
        self.provider.storage.set_incarnation(incarnation);
        let parameters = LeafNodeParameters::builder().with_capabilities(self.member.capabilities()).build();
        let (mut mls, bundle) = ExternalCommitBuilder::new()
            .with_config(join_config())
            .skip_lifetime_validation()
            .build_group(&self.provider, info, self.member.credential())
            .map_err(|error| refused_info(&error))?
            .leaf_node_parameters(parameters)
            .load_psks(&self.provider.storage)
            .map_err(|error| GroupError::library(&error))?
            .create_group_info(false)
            .build(&self.provider.crypto, &self.provider.crypto, self.member, |_| true)
            .map_err(|_| Refusal::Invalid)?
            .finalize(&self.provider)
            .map_err(|_| Refusal::Invalid)?;

        // openmls keeps the epoch that was never entered as a past one, with keys that are all zeros.
        mls.delete_past_epoch_secrets(&self.provider, PastEpochDeletion::delete_all())
            .map_err(|error| GroupError::library(&error))?;

        // What the group info says of the group is not believed because a member said it.
        let mut next = Record::new(incarnation, record.suite, base + 1, self.now);
        next.sets.clone_from(&record.sets);
        let sets: Vec<_> = set.map(<[u8]>::to_vec).into_iter().collect();
        let mut rows = self.known_rows(&mls, &mut next, &sets)?;
        for row in &mut rows {
            let before = known.iter().find(|known| known.key == row.key && known.device == row.device);
            row.recipient = row.recipient.or_else(|| before.and_then(|before| before.recipient));
        }
        let loaded = Loaded::new(group, incarnation, next, rows, mls)?;
        if loaded.row_of_device(author).is_none_or(|row| row.void(self.trust).is_some()) {
            return Err(Refusal::NotMember.into());
        }
        let slot_of = |context: &Context| (context.slot, context.sequence_offset);
        if before.is_some_and(|before| slot_of(&before) != slot_of(&loaded.context)) {
            return Err(Refusal::WrongGroup.into());
        }
        if !policy::is_anchored(&loaded.context, &loaded.rows) {
            return Err(Refusal::NotAnchored.into());
        }
        let capability = Self::capability(group, |label, context, length| {
            loaded.mls.export_secret(&self.provider.crypto, label, context, length)
        })?;
        let claim = claim(&loaded.context, base, Some(body.capability), &capability)?;
        let (commit, _, _) = bundle.into_messages();
        let body = commit.to_bytes().map_err(|error| GroupError::library(&error))?;
        let frame = self.frame_of_commit(&loaded, body, sets)?;
        let staged = Staged { base, rejoin: Some(incarnation), rows: loaded.rows, sets: loaded.record.sets };
        self.save_record(group, &Record { staged: Some(staged), ..record })?;
        Ok(StagedCommit { group, claim, frames: vec![frame] })
    }
}

fn refused_info(error: &ExternalCommitBuilderError<StorageError>) -> GroupError {
    match error {
        ExternalCommitBuilderError::StorageError(_) => GroupError::Unreadable,
        ExternalCommitBuilderError::UnsupportedCiphersuite(_) => Refusal::Unsupported.into(),
        _ => Refusal::Invalid.into(),
    }
}
