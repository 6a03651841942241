//! What comes in from other members.

use openmls::framing::errors::MessageDecryptionError;
use openmls::framing::errors::SecretTreeError;
use openmls::group::{
    MlsGroupStateError, ProcessMessageError, QueuedProposal, StageCommitError,
    StagedCommit as MlsStagedCommit, ValidationError,
};
use openmls::prelude::{
    ContentType, KeyPackageVerifyError, MlsMessageBodyIn, MlsMessageIn, ProcessedMessageContent, Proposal,
    ProtocolMessage, Sender,
};
use sealpost_wire::id::{DeviceId, GroupId};
use sealpost_wire::payload::{MlsFrame, MlsKind};
use tls_codec::Deserialize as _;

use crate::content::GroupContent;
use crate::credential;
use crate::error::{GroupError, Refusal};
use crate::frame::{GroupChange, Ignored, Processed, ReceivedMessage};
use crate::group::Groups;
use crate::limits::{BODY_BYTES_MAX, SETS_PER_FRAME_MAX};
use crate::operation::{Loaded, Operation};
use crate::record::Record;
use crate::storage::StorageError;
use crate::store::GroupStore;

impl<S: GroupStore> Groups<'_, S> {
    /// Processes a frame that came in a box, whose signature by the device `author` was verified. What the frame
    /// makes of the group and the deletion of the keys that it was read with are in the transaction when this
    /// returns; the caller adds the message that it returns.
    ///
    /// # Errors
    /// The store, or an own state that cannot be read. What is wrong with the frame is no error but an outcome.
    pub fn process(&mut self, author: DeviceId, frame: &MlsFrame) -> Result<Processed, GroupError> {
        match self.operate(|operation| operation.process(author, frame)) {
            Err(GroupError::Refused(refusal)) => Ok(Processed::Refused(refusal)),
            processed => processed,
        }
    }
}

impl<S: GroupStore> Operation<'_, S> {
    fn process(&self, author: DeviceId, frame: &MlsFrame) -> Result<Processed, GroupError> {
        if frame.body.len() > BODY_BYTES_MAX || frame.sets.len() > SETS_PER_FRAME_MAX {
            return Err(Refusal::TooLarge.into());
        }
        if author == self.member.device() {
            return Ok(Processed::Ignored(Ignored::Own));
        }
        if let Err(error) = self.trust.check_device(author) {
            return Err(Refusal::Credential(error).into());
        }
        match frame.kind {
            MlsKind::Message => self.process_message(author, frame),
            MlsKind::Welcome => self.process_welcome(author, frame),
            MlsKind::RejoinRequest => {
                self.process_talk(author, frame, |group, by| Processed::GroupInfoWanted { group, by })
            }
            MlsKind::GroupInfo => {
                self.process_talk(author, frame, |group, by| Processed::GroupInfoOffered { group, by })
            }
        }
    }

    /// What members ask of each other outside the group's epochs.
    fn process_talk(
        &self,
        author: DeviceId,
        frame: &MlsFrame,
        outcome: impl FnOnce(GroupId, DeviceId) -> Processed,
    ) -> Result<Processed, GroupError> {
        let Some(record) = self.find_record(frame.group)? else {
            return Ok(Processed::Ignored(Ignored::UnknownGroup));
        };
        if record.left.is_some() {
            return Ok(Processed::Ignored(Ignored::NotMember));
        }
        let rows = self.rows(frame.group, record.incarnation)?;
        let known = rows.iter().any(|row| row.device == author && row.void(self.trust).is_none());
        // Who gives the group info may have come in after this device had lost the group's state.
        if known || frame.kind == MlsKind::GroupInfo {
            Ok(outcome(frame.group, author))
        } else {
            Ok(Processed::Ignored(Ignored::Stranger))
        }
    }

    fn process_message(&self, author: DeviceId, frame: &MlsFrame) -> Result<Processed, GroupError> {
        let Some(record) = self.find_record(frame.group)? else {
            return Ok(Processed::Ignored(Ignored::UnknownGroup));
        };
        let message = match parse(&frame.body)? {
            MlsMessageBodyIn::PrivateMessage(message) => ProtocolMessage::from(message),
            MlsMessageBodyIn::PublicMessage(message) => ProtocolMessage::from(message),
            _ => return Err(Refusal::Malformed.into()),
        };
        if message.group_id().as_slice() != frame.group.as_bytes() {
            return Err(Refusal::WrongGroup.into());
        }
        let theirs = message.epoch().as_u64();
        let application = message.content_type() == ContentType::Application;
        if let Some(ignored) = out_of_time(&record, theirs, application) {
            return Ok(ignored);
        }
        if theirs > record.epoch {
            let staged = record.staged.as_ref().is_some_and(|staged| theirs == staged.base + 1);
            return Ok(if staged {
                Processed::SettleStagedFirst
            } else {
                Processed::NeedsRejoin { group: frame.group, ours: record.epoch, theirs }
            });
        }
        let incarnation = if application { record.reader_of(theirs) } else { record.incarnation };
        let mut loaded = match self.load_as(frame.group, record, incarnation) {
            // It has been out for so long that nothing is kept.
            Err(GroupError::NotMember) => return Ok(Processed::Ignored(Ignored::NotMember)),
            loaded => loaded?,
        };
        let processed = match loaded.mls.process_message(&self.provider, message) {
            Ok(processed) => processed,
            Err(error) => return not_processed(&error),
        };
        let sender = processed.sender().clone();
        let claimed = match &sender {
            // Who is in now was verified when it came in, and its leaf's key has just verified the message. Of an
            // epoch that is over only the tree is kept.
            Sender::Member(leaf)
                if incarnation == loaded.record.incarnation && theirs == loaded.record.epoch =>
            {
                loaded.row_at(*leaf).map(|row| row.device)
            }
            Sender::Member(_) | Sender::NewMemberCommit => credential::device_of(processed.credential()),
            Sender::External(_) | Sender::NewMemberProposal => Err(Refusal::ProposalKind),
        };
        let content = processed.into_content();
        if matches!(content, ProcessedMessageContent::OwnPrivateMessage) {
            return Ok(Processed::Ignored(Ignored::Own));
        }
        if claimed.map_err(GroupError::Refused)? != author {
            return Err(Refusal::WrongAuthor.into());
        }
        if let Some(error) = loaded.row_of_device(author).and_then(|row| loaded.revocation(row, self.trust)) {
            return Err(Refusal::Credential(error).into());
        }
        match content {
            ProcessedMessageContent::ApplicationMessage(message) => {
                let bytes = zeroize::Zeroizing::new(message.into_bytes());
                let content = GroupContent::read(&bytes).map_err(|_| Refusal::Malformed)?;
                let message = ReceivedMessage { group: frame.group, author, epoch: theirs, content };
                self.keep(loaded);
                Ok(Processed::Message(Box::new(message)))
            }
            ProcessedMessageContent::ProposalMessage(proposal) => {
                self.take_proposal(&mut loaded, author, *proposal)
            }
            ProcessedMessageContent::StagedCommitMessage(staged) => {
                self.take_commit(loaded, author, &sender, *staged, &frame.sets)
            }
            ProcessedMessageContent::OwnPendingCommit | ProcessedMessageContent::OwnPrivateMessage => {
                Ok(Processed::Ignored(Ignored::Own))
            }
            ProcessedMessageContent::ExternalJoinProposalMessage(_) => Err(Refusal::ProposalKind.into()),
        }
    }

    /// The one proposal that members make: to be let go.
    fn take_proposal(
        &self,
        loaded: &mut Loaded,
        author: DeviceId,
        proposal: QueuedProposal,
    ) -> Result<Processed, GroupError> {
        let removed = match (proposal.proposal(), proposal.sender()) {
            (Proposal::Remove(remove), Sender::Member(sender)) if remove.removed() == *sender => *sender,
            _ => return Err(Refusal::ProposalKind.into()),
        };
        if loaded.asked().contains(&removed.u32()) {
            return Ok(Processed::Duplicate);
        }
        loaded.mls.store_pending_proposal(&self.provider.storage, proposal)?;
        Ok(Processed::Asked { group: loaded.id, by: author })
    }

    fn take_commit(
        &self,
        mut loaded: Box<Loaded>,
        author: DeviceId,
        sender: &Sender,
        staged: MlsStagedCommit,
        sets: &[Vec<u8>],
    ) -> Result<Processed, GroupError> {
        let group = loaded.id;
        let sets = loaded.record.take_sets(sets, &loaded.rows, self.trust)?;
        let deed = self.deed(&loaded, &staged, sender, &sets)?;
        if deed.committer != author {
            return Err(Refusal::WrongAuthor.into());
        }
        deed.check(&loaded.context, &loaded.rows)?;
        let lost_own = self.drop_staged(&mut loaded)?;
        if staged.self_removed() {
            // The state stays in the epoch before: it reads that epoch's late messages for a while, and nothing
            // that comes later.
            loaded.record.left = Some(self.now);
            if let Some(rejoin) = loaded.record.staged.take().and_then(|staged| staged.rejoin) {
                self.delete_incarnation(group, rejoin)?;
            }
            self.save_record(group, &loaded.record)?;
            return Ok(Processed::Removed { group, by: author });
        }
        let mut rows = deed.apply(&loaded.rows);
        for set in &sets {
            for row in rows.iter_mut().filter(|row| set.device(row.device).is_some()) {
                row.recipient = Some(set.recipient);
            }
        }
        loaded
            .mls
            .merge_staged_commit(&self.provider, staged)
            .map_err(|error| GroupError::library(&error))?;
        let epoch = loaded.mls.epoch().as_u64();
        let rejoin = loaded.record.staged.take().filter(|staged| staged.rejoin.is_some());
        loaded.record.enter(epoch, self.now);
        loaded.record.staged = rejoin;
        let incarnation = loaded.record.incarnation;
        let mut record = self.expire(&mut loaded)?;
        record.forget_evidence_of_others(&rows);
        self.save_rows(group, incarnation, &rows)?;
        self.save_record(group, &record)?;
        Ok(Processed::Changed(Box::new(GroupChange {
            group,
            by: author,
            epoch,
            added: deed.added.iter().map(|row| row.device).collect(),
            removed: deed.gone(),
            came_back: deed.external,
            lost_own,
        })))
    }

    /// A commit of somebody else ends the epoch that a staged one would have ended: that one has lost. A return into
    /// the group that begins at a later epoch has not.
    fn drop_staged(&self, loaded: &mut Loaded) -> Result<bool, GroupError> {
        let Some(staged) = &loaded.record.staged else { return Ok(false) };
        if staged.base > loaded.record.epoch {
            return Ok(false);
        }
        match staged.rejoin {
            Some(incarnation) => {
                self.delete_incarnation(loaded.id, incarnation)?;
                self.provider.storage.set_incarnation(loaded.record.incarnation);
            }
            None => loaded.mls.clear_pending_commit(&self.provider.storage)?,
        }
        loaded.record.staged = None;
        Ok(true)
    }
}

/// What says nothing because of its epoch.
fn out_of_time(record: &Record, theirs: u64, application: bool) -> Option<Processed> {
    if record.left.is_some() && (!application || theirs > record.epoch) {
        return Some(Processed::Ignored(Ignored::NotMember));
    }
    (!application && theirs < record.epoch).then_some(Processed::Ignored(Ignored::PastEpoch))
}

/// Reads an MLS message: all of the bytes and no more.
pub(crate) fn parse(body: &[u8]) -> Result<MlsMessageBodyIn, GroupError> {
    let message = MlsMessageIn::tls_deserialize_exact(body).map_err(|_| Refusal::Malformed)?;
    Ok(message.extract())
}

/// The outcome of a message that openmls did not process.
fn not_processed(error: &ProcessMessageError<StorageError>) -> Result<Processed, GroupError> {
    use MessageDecryptionError as Decryption;
    let refusal = match error {
        ProcessMessageError::StorageError(_) => return Err(GroupError::Unreadable),
        ProcessMessageError::GroupStateError(MlsGroupStateError::UseAfterEviction) => {
            return Ok(Processed::Ignored(Ignored::NotMember));
        }
        ProcessMessageError::ValidationError(error) => match error {
            ValidationError::NoPastEpochData => return Ok(Processed::Ignored(Ignored::TooOld)),
            ValidationError::UnableToDecrypt(Decryption::SecretTreeError(error)) => match error {
                SecretTreeError::SecretReuseError => return Ok(Processed::Duplicate),
                SecretTreeError::TooDistantInThePast => return Ok(Processed::Ignored(Ignored::TooOld)),
                SecretTreeError::TooDistantInTheFuture => Refusal::TooFarAhead,
                _ => Refusal::Undecryptable,
            },
            ValidationError::UnableToDecrypt(Decryption::MalformedContent) => Refusal::Malformed,
            ValidationError::KeyPackageVerifyError(KeyPackageVerifyError::LifetimeError(_)) => {
                Refusal::Lifetime
            }
            ValidationError::UnableToDecrypt(_)
            | ValidationError::InvalidSignature
            | ValidationError::InvalidMembershipTag
            | ValidationError::InvalidLeafNodeSignature => Refusal::Undecryptable,
            ValidationError::WrongGroupId => Refusal::WrongGroup,
            _ => Refusal::Invalid,
        },
        ProcessMessageError::InvalidCommit(error) => match error {
            StageCommitError::MissingProposal => Refusal::ProposalMissing,
            StageCommitError::ConfirmationTagMismatch => Refusal::Undecryptable,
            StageCommitError::OwnCommitMismatch => return Ok(Processed::Ignored(Ignored::Own)),
            _ => Refusal::Invalid,
        },
        _ => Refusal::Invalid,
    };
    Err(refusal.into())
}
