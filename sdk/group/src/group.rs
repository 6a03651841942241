//! The groups of one device, during one transaction of its store.

use std::cell::RefCell;

use openmls::group::{MlsGroup, MlsGroupCreateConfig, PURE_CIPHERTEXT_WIRE_FORMAT_POLICY};
use openmls::prelude::Member as MlsMember;
use rand_core::CryptoRng;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{DeviceId, Digest, GroupId, RecipientId, SlotId, SubjectId};
use sealpost_wire::payload::MlsKind;
use sealpost_wire::trust::TenantTrust;

use crate::content::GroupContent;
use crate::context::Context;
use crate::credential;
use crate::error::GroupError;
use crate::frame::{CommitReason, OutgoingFrame};
use crate::limits::{PADDING_BYTES, PAST_EPOCHS_MAX, SEQUENCE_OFFSET_BELOW, UPDATE_SECONDS};
use crate::member::Member;
use crate::operation::{Loaded, Operation, lifetime, mls_id, ratchets};
use crate::provider::Provider;
use crate::record::Record;
use crate::storage::{self, Kind};
use crate::store::GroupStore;
use crate::suite::GroupSuite;

/// The groups of one device, during one transaction of its store.
///
/// It borrows the store for as long as it lives: what it remembers from one operation to the next (the group that was
/// read or written to last) is gone with the transaction, and cannot get ahead of the store.
pub struct Groups<'t, S: GroupStore> {
    member: &'t Member,
    trust: &'t TenantTrust,
    now: UnixTime,
    store: &'t mut S,
    rng: &'t mut (dyn CryptoRng + Send),
    open: Option<Box<Loaded>>,
}

/// How a device stands in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is in.
    In,
    /// It has asked to leave, and nobody has committed that yet.
    Leaving,
    /// Its state is an old one that came back from a copy: it has to come back into the group.
    Lost,
    /// It is out.
    Out,
}

/// A group, as its device sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupState {
    /// The group.
    pub group: GroupId,
    /// What people call it.
    pub label: String,
    /// This device has made it, and was never brought into it by another since: what it is for, nobody else has said.
    pub made_here: bool,
    /// Its suite.
    pub suite: GroupSuite,
    /// Its epoch; for a device that is out, the last one that it was in.
    pub epoch: u64,
    /// SHA-256 of the epoch authenticator (RFC 9420 section 8.7): members that agree on epoch and state have the
    /// same one; the same epoch with another one is a fork.
    pub authenticator: Digest,
    /// Who may add and remove, sorted. Some may not be members any more.
    pub stewards: Vec<DeviceId>,
    /// The slot that orders its commits.
    pub slot: SlotId,
    /// How this device stands in it.
    pub standing: Standing,
    /// A commit of this device waits for the relay's word.
    pub staged: bool,
    /// When this device renewed its own keys; 0 if that is due at once.
    pub updated: UnixTime,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberEntry {
    /// The device.
    pub device: DeviceId,
    /// Whose device it is, where a device set has said so: of those that came in after this device.
    pub recipient: Option<RecipientId>,
    /// The sender whose mailbox it is.
    pub sender: Option<SubjectId>,
    /// It may add and remove others.
    pub steward: bool,
    /// It is revoked: whoever commits next removes it.
    pub revoked: bool,
}

impl<'t, S: GroupStore> Groups<'t, S> {
    /// The groups of `member`: with what it believes of the tenant (and the newest status), the time of day, its store
    /// inside a transaction, and the source of every random byte.
    pub const fn new(
        member: &'t Member,
        trust: &'t TenantTrust,
        now: UnixTime,
        store: &'t mut S,
        rng: &'t mut (dyn CryptoRng + Send),
    ) -> Self {
        Self { member, trust, now, store, rng, open: None }
    }

    /// Makes a group whose only member is this device. `stewards` may add and remove others; this device is one of
    /// them whether it is named or not.
    ///
    /// # Errors
    /// A label of more than 64 bytes, more than 64 stewards, a suite that this device cannot use, or too many groups.
    pub fn create(
        &mut self,
        label: &str,
        stewards: &[DeviceId],
        suite: GroupSuite,
    ) -> Result<GroupId, GroupError> {
        self.operate(|operation| operation.create(label, stewards, suite))
    }

    /// The groups that the store holds, those that the device is out of included.
    ///
    /// # Errors
    /// The store.
    pub fn list(&mut self) -> Result<Vec<GroupId>, GroupError> {
        self.operate(|operation| operation.list())
    }

    /// A group's state.
    ///
    /// # Errors
    /// [`GroupError::UnknownGroup`], or the store.
    pub fn state(&mut self, group: GroupId) -> Result<GroupState, GroupError> {
        self.operate(|operation| operation.load(group)?.state())
    }

    /// The members of a group, this device included, by their place in the tree.
    ///
    /// # Errors
    /// [`GroupError::UnknownGroup`], or the store.
    pub fn members(&mut self, group: GroupId) -> Result<Vec<MemberEntry>, GroupError> {
        self.operate(|operation| operation.load(group)?.entries(operation.trust))
    }

    /// Why this device should commit now, if it should.
    ///
    /// # Errors
    /// [`GroupError::UnknownGroup`], or the store.
    pub fn commit_due(&mut self, group: GroupId) -> Result<Option<CommitReason>, GroupError> {
        self.operate(|operation| Ok(operation.commit_due(operation.load(group)?.as_ref())))
    }

    /// Writes `content` to the group.
    ///
    /// # Errors
    /// The device is out or about to leave; somebody else is about to leave ([`GroupError::CommitFirst`]); a content
    /// that the format does not allow.
    pub fn send(&mut self, group: GroupId, content: &GroupContent) -> Result<OutgoingFrame, GroupError> {
        self.operate(|operation| operation.send(group, content))
    }

    /// Asks the others to let this device go: one of them has to commit it. Until then it reads what comes, and
    /// writes nothing. Stewards should hand over first. A commit by somebody who had not heard of it leaves the device
    /// in ([`Standing::In`]): it has to ask again. A device that is alone in a group forgets it ([`Self::forget`]).
    ///
    /// # Errors
    /// The device is out or about to leave already; a commit is staged.
    pub fn leave(&mut self, group: GroupId) -> Result<OutgoingFrame, GroupError> {
        self.operate(|operation| operation.leave(group))
    }

    /// Takes in newer device sets of a group's members, as the keyserver gives them: who is revoked in one goes with
    /// the next commit.
    ///
    /// # Errors
    /// A set that must not be believed or is older than one that was seen.
    pub fn note_sets(&mut self, group: GroupId, sets: &[Vec<u8>]) -> Result<(), GroupError> {
        self.operate(|operation| {
            let mut record = operation.record(group)?;
            let mut rows = operation.rows(group, record.incarnation)?;
            let verified = record.take_sets(sets, &rows, operation.trust)?;
            for set in &verified {
                for row in rows.iter_mut().filter(|row| set.device(row.device).is_some()) {
                    row.recipient = Some(set.recipient);
                }
            }
            operation.save_rows(group, record.incarnation, &rows)?;
            operation.save_record(group, &record)
        })
    }

    /// To be called when the store is found to be an older copy of itself (by a counter outside it): keys that it
    /// holds have been used. Staged commits are forgotten, key packages are deleted, and nothing is written to a group
    /// until the device has come back into it. Returns the groups that it has to come back into.
    ///
    /// # Errors
    /// The store.
    pub fn mark_restored(&mut self) -> Result<Vec<GroupId>, GroupError> {
        self.operate(|operation| operation.mark_restored())
    }

    /// Deletes the keys of epochs that have been over for a week, in every group, and all that is left of groups that
    /// the device has been out of for that long but their names. To be called daily.
    ///
    /// # Errors
    /// The store; or what is wrong with the first group that cannot be read, when all others are done.
    pub fn forget_old_epochs(&mut self) -> Result<(), GroupError> {
        let mut done = Ok(());
        for group in self.list()? {
            match self.operate(|operation| operation.forget_old_epochs(group)) {
                Err(error @ GroupError::Store(_)) => return Err(error),
                Err(error) if done.is_ok() => done = Err(error),
                _ => {}
            }
        }
        done
    }

    /// Deletes everything about a group at once: for a wipe, or when a person deletes a conversation that the device
    /// is out of.
    ///
    /// # Errors
    /// The store.
    pub fn forget(&mut self, group: GroupId) -> Result<(), GroupError> {
        self.operate(|operation| operation.forget(group))
    }

    /// Runs one operation: all of it is written to the caller's transaction, or nothing.
    pub(crate) fn operate<T>(
        &mut self,
        work: impl FnOnce(&Operation<'_, S>) -> Result<T, GroupError>,
    ) -> Result<T, GroupError> {
        let operation = Operation {
            member: self.member,
            trust: self.trust,
            now: self.now,
            provider: Provider::new(&*self.store, &mut *self.rng),
            open: RefCell::new(self.open.take().map(|mut open| {
                open.kept = false;
                open
            })),
        };
        let done = work(&operation);
        let Operation { provider, open, .. } = operation;
        if let Some(error) = provider.storage.take_failure() {
            return Err(GroupError::Store(error));
        }
        let value = done?;
        storage::apply(provider.storage.into_changes(), self.store)
            .map_err(|error| GroupError::Store(Box::new(error)))?;
        self.open = open.into_inner().filter(|loaded| loaded.kept);
        Ok(value)
    }
}

impl<S: GroupStore> Operation<'_, S> {
    fn create(&self, label: &str, stewards: &[DeviceId], suite: GroupSuite) -> Result<GroupId, GroupError> {
        if !self.member.supports(suite) {
            return Err(GroupError::Suite);
        }
        let mut id = GroupId([0; 32]);
        self.provider.crypto.fill(&mut id.0);
        let mut slot = SlotId([0; 16]);
        self.provider.crypto.fill(&mut slot.0);
        let mut offset = [0; 8];
        self.provider.crypto.fill(&mut offset);
        let offset = u64::from_be_bytes(offset) % SEQUENCE_OFFSET_BELOW;
        let stewards = stewards.iter().copied().chain([self.member.device()]).collect();
        let context = Context::new(stewards, label.to_owned(), slot, offset)?;

        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(suite.mls())
            .capabilities(self.member.capabilities())
            .lifetime(lifetime(self.now))
            .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
            .padding_size(PADDING_BYTES)
            .max_past_epochs(PAST_EPOCHS_MAX)
            .number_of_resumption_psks(0)
            .use_ratchet_tree_extension(true)
            .sender_ratchet_configuration(ratchets())
            .with_group_context_extensions(context.extensions()?)
            .build();
        let record = Record { made_here: true, ..Record::new(1, suite, 0, self.now) };
        self.provider.storage.set_incarnation(record.incarnation);
        let mls = MlsGroup::new_with_group_id(
            &self.provider,
            self.member,
            &config,
            mls_id(id),
            self.member.credential(),
        )
        .map_err(|error| GroupError::library(&error))?;
        let leaf = mls.own_leaf_node().ok_or_else(|| GroupError::Library("no own leaf".into()))?;
        let row = credential::verify_leaf(leaf, suite, self.trust).map_err(GroupError::Refused)?;
        self.add_to_list(id)?;
        self.save_rows(id, record.incarnation, &[row])?;
        self.save_record(id, &record)?;
        Ok(id)
    }

    fn send(&self, group: GroupId, content: &GroupContent) -> Result<OutgoingFrame, GroupError> {
        let plaintext = content.to_bytes()?;
        let mut loaded = self.load(group)?;
        loaded.must_be_in()?;
        if loaded.mls.has_pending_proposals() {
            return Err(GroupError::CommitFirst);
        }
        let message = loaded
            .mls
            .create_message(&self.provider, self.member, &plaintext)
            .map_err(|error| GroupError::library(&error))?;
        let body = message.to_bytes().map_err(|error| GroupError::library(&error))?;
        let to = loaded.others(self);
        self.keep(loaded);
        Ok(self.frame(group, to, MlsKind::Message, body, Vec::new()))
    }

    fn leave(&self, group: GroupId) -> Result<OutgoingFrame, GroupError> {
        let mut loaded = self.load(group)?;
        loaded.must_be_in()?;
        if loaded.record.staged.is_some() {
            return Err(GroupError::CommitStaged);
        }
        let message = loaded
            .mls
            .leave_group(&self.provider, self.member)
            .map_err(|error| GroupError::library(&error))?;
        let body = message.to_bytes().map_err(|error| GroupError::library(&error))?;
        loaded.record.leaving = true;
        self.save_record(group, &loaded.record)?;
        Ok(self.frame(group, loaded.others(self), MlsKind::Message, body, Vec::new()))
    }

    pub(crate) fn commit_due(&self, loaded: &Loaded) -> Option<CommitReason> {
        if loaded.standing() != Standing::In {
            return None;
        }
        if loaded
            .rows
            .iter()
            .any(|row| loaded.is_revoked(row, self.trust) && row.device != self.member.device())
        {
            Some(CommitReason::Revoked)
        } else if loaded.mls.has_pending_proposals() {
            Some(CommitReason::Leaving)
        } else if loaded.record.updated.plus(UPDATE_SECONDS) <= self.now {
            Some(CommitReason::Update)
        } else {
            None
        }
    }

    fn mark_restored(&self) -> Result<Vec<GroupId>, GroupError> {
        self.forget_all_key_packages()?;
        let mut lost = Vec::new();
        for group in self.list()? {
            if self.record(group)?.staged.is_some() {
                self.discard_staged(group)?;
            }
            let mut record = self.record(group)?;
            if record.left.is_none() {
                record.lost = true;
                self.save_record(group, &record)?;
                lost.push(group);
            }
        }
        Ok(lost)
    }

    fn forget(&self, group: GroupId) -> Result<(), GroupError> {
        let record = self.record(group)?;
        let rejoin = record.staged.as_ref().and_then(|staged| staged.rejoin);
        for incarnation in
            [Some(record.incarnation), record.former.as_ref().map(|former| former.incarnation), rejoin]
                .into_iter()
                .flatten()
        {
            self.delete_incarnation(group, incarnation)?;
        }
        self.provider.storage.remove(Kind::Record, &group)?;
        let mut groups = self.list()?;
        groups.retain(|known| *known != group);
        Ok(self.provider.storage.save(Kind::Groups, &(), &groups)?)
    }
}

impl Loaded {
    fn state(&self) -> Result<GroupState, GroupError> {
        Ok(GroupState {
            group: self.id,
            label: self.context.label.clone(),
            made_here: self.record.made_here,
            suite: self.record.suite,
            epoch: self.record.epoch,
            authenticator: Digest::of(self.mls.epoch_authenticator().as_slice()),
            stewards: self.context.stewards.clone(),
            slot: self.context.slot,
            standing: self.standing(),
            staged: self.record.staged.is_some(),
            updated: self.record.updated,
        })
    }

    fn entries(&self, trust: &TenantTrust) -> Result<Vec<MemberEntry>, GroupError> {
        let entry = |member: MlsMember| {
            let row = self.rows.iter().find(|row| row.key[..] == member.signature_key);
            let row = row.ok_or(GroupError::Unreadable)?;
            Ok(MemberEntry {
                device: row.device,
                recipient: row.recipient,
                sender: row.sender.clone(),
                steward: self.context.is_steward(row.device),
                revoked: self.is_revoked(row, trust),
            })
        };
        self.mls.members().map(entry).collect()
    }
}
