//! One operation: what it reads and writes of a group.

use std::cell::RefCell;
use std::collections::BTreeSet;

use openmls::group::{MlsGroup, MlsGroupJoinConfig, PURE_CIPHERTEXT_WIRE_FORMAT_POLICY};
use openmls::prelude::{LeafNodeIndex, Lifetime, Proposal, SenderRatchetConfiguration};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::error::TrustError;
use sealpost_wire::id::{DeviceId, GroupId};
use sealpost_wire::payload::{MlsFrame, MlsKind};
use sealpost_wire::slot::SlotCapability;
use sealpost_wire::trust::TenantTrust;
use zeroize::Zeroizing;

use crate::context::Context;
use crate::credential::Row;
use crate::error::{GroupError, Refusal};
use crate::frame::OutgoingFrame;
use crate::group::Standing;
use crate::limits::{
    FORWARD_DISTANCE_MAX, GROUPS_MAX, KEY_PACKAGE_BACKDATE_SECONDS, KEY_PACKAGE_LIFETIME_SECONDS,
    OUT_OF_ORDER_MAX, PADDING_BYTES, PAST_EPOCHS_MAX,
};
use crate::member::Member;
use crate::provider::Provider;
use crate::record::Record;
use crate::storage::Kind;
use crate::store::GroupStore;

/// The exporter label of a slot's capability (RFC 9420 section 8.5); the context is the group id.
const CAPABILITY_LABEL: &str = "sealpost slot capability";

/// One operation.
pub(crate) struct Operation<'o, S: GroupStore> {
    pub(crate) member: &'o Member,
    pub(crate) trust: &'o TenantTrust,
    pub(crate) now: UnixTime,
    pub(crate) provider: Provider<'o, S>,
    /// The group that the operation before left as the store has it, and then the one that this operation leaves so.
    pub(crate) open: RefCell<Option<Box<Loaded>>>,
}

/// A group that was read for one operation. It is large, and goes from hand to hand: it is boxed.
pub(crate) struct Loaded {
    pub(crate) id: GroupId,
    pub(crate) incarnation: u32,
    /// This operation is done with it and has left it as the store has it.
    pub(crate) kept: bool,
    pub(crate) record: Record,
    pub(crate) rows: Vec<Row>,
    pub(crate) mls: MlsGroup,
    pub(crate) context: Context,
}

impl<S: GroupStore> Operation<'_, S> {
    pub(crate) fn list(&self) -> Result<Vec<GroupId>, GroupError> {
        Ok(self.provider.storage.load(Kind::Groups, &())?.unwrap_or_default())
    }

    pub(crate) fn add_to_list(&self, group: GroupId) -> Result<(), GroupError> {
        let mut groups = self.list()?;
        if groups.contains(&group) {
            return Ok(());
        }
        if groups.len() >= GROUPS_MAX {
            return Err(GroupError::TooMany);
        }
        groups.push(group);
        Ok(self.provider.storage.save(Kind::Groups, &(), &groups)?)
    }

    pub(crate) fn find_record(&self, group: GroupId) -> Result<Option<Record>, GroupError> {
        if let Some(open) = self.open.borrow().as_ref().filter(|open| open.id == group) {
            return Ok(Some(open.record.clone()));
        }
        Ok(self.provider.storage.load(Kind::Record, &group)?)
    }

    pub(crate) fn record(&self, group: GroupId) -> Result<Record, GroupError> {
        self.find_record(group)?.ok_or(GroupError::UnknownGroup)
    }

    /// The operation is done with a group whose newest state it has written: the next one need not read it again.
    pub(crate) fn keep(&self, mut loaded: Box<Loaded>) {
        loaded.kept = true;
        *self.open.borrow_mut() = Some(loaded);
    }

    pub(crate) fn save_record(&self, group: GroupId, record: &Record) -> Result<(), GroupError> {
        self.open.take();
        Ok(self.provider.storage.save(Kind::Record, &group, record)?)
    }

    pub(crate) fn rows(&self, group: GroupId, incarnation: u32) -> Result<Vec<Row>, GroupError> {
        let rows = self.provider.storage.load(Kind::Members, &(group, incarnation))?;
        rows.ok_or(GroupError::Unreadable)
    }

    pub(crate) fn save_rows(&self, group: GroupId, incarnation: u32, rows: &[Row]) -> Result<(), GroupError> {
        self.open.take();
        Ok(self.provider.storage.save(Kind::Members, &(group, incarnation), &rows)?)
    }

    /// The group in its newest incarnation.
    pub(crate) fn load(&self, group: GroupId) -> Result<Box<Loaded>, GroupError> {
        let newest = |open: &mut Box<Loaded>| open.id == group && open.incarnation == open.record.incarnation;
        if let Some(mut open) = self.open.borrow_mut().take_if(newest) {
            self.provider.storage.set_incarnation(open.incarnation);
            open.kept = false;
            return Ok(open);
        }
        let record = self.record(group)?;
        let incarnation = record.incarnation;
        self.load_as(group, record, incarnation)
    }

    pub(crate) fn load_as(
        &self,
        group: GroupId,
        record: Record,
        incarnation: u32,
    ) -> Result<Box<Loaded>, GroupError> {
        self.provider.storage.set_incarnation(incarnation);
        // What an operation does not keep is read again by the next one: it may have changed it.
        if let Some(mut open) = self.open.take()
            && open.id == group
            && open.incarnation == incarnation
        {
            open.record = record;
            open.kept = false;
            return Ok(open);
        }
        let mls = self.load_mls(group, incarnation)?.ok_or(GroupError::NotMember)?;
        let rows = self.rows(group, incarnation)?;
        let loaded =
            Loaded::new(group, incarnation, record, rows, mls).map_err(|_| GroupError::Unreadable)?;
        Ok(Box::new(loaded))
    }

    pub(crate) fn load_mls(&self, group: GroupId, incarnation: u32) -> Result<Option<MlsGroup>, GroupError> {
        self.provider.storage.set_incarnation(incarnation);
        Ok(MlsGroup::load(&self.provider.storage, &mls_id(group))?)
    }

    /// Deletes what openmls has stored of an incarnation, and its members.
    pub(crate) fn delete_incarnation(&self, group: GroupId, incarnation: u32) -> Result<(), GroupError> {
        self.open.take();
        if let Some(mut mls) = self.load_mls(group, incarnation)? {
            mls.delete(&self.provider.storage)?;
        }
        Ok(self.provider.storage.remove(Kind::Members, &(group, incarnation))?)
    }

    pub(crate) fn frame(
        &self,
        group: GroupId,
        to: Vec<DeviceId>,
        kind: MlsKind,
        body: Vec<u8>,
        sets: Vec<Vec<u8>>,
    ) -> OutgoingFrame {
        OutgoingFrame { to, frame: MlsFrame { created: self.now, kind, group, body, sets } }
    }

    /// The capability of the group's slot in the epoch that `export` exports from.
    pub(crate) fn capability<E: std::fmt::Display>(
        group: GroupId,
        export: impl FnOnce(&str, &[u8], usize) -> Result<Vec<u8>, E>,
    ) -> Result<SlotCapability, GroupError> {
        let secret = export(CAPABILITY_LABEL, group.as_bytes(), 32).map(Zeroizing::new);
        let secret = secret.map_err(|error| GroupError::library(&error))?;
        let bytes = secret.as_slice().try_into().map_err(|_| GroupError::Unreadable)?;
        Ok(SlotCapability::from_bytes(bytes))
    }
}

impl Loaded {
    pub(crate) fn new(
        id: GroupId,
        incarnation: u32,
        record: Record,
        rows: Vec<Row>,
        mls: MlsGroup,
    ) -> Result<Self, Refusal> {
        let context = Context::of(mls.extensions())?;
        Ok(Self { id, incarnation, kept: false, record, rows, mls, context })
    }

    pub(crate) fn standing(&self) -> Standing {
        if self.record.left.is_some() {
            Standing::Out
        } else if self.record.lost {
            Standing::Lost
        } else if self.record.leaving {
            Standing::Leaving
        } else {
            Standing::In
        }
    }

    pub(crate) fn must_be_in(&self) -> Result<(), GroupError> {
        match self.standing() {
            Standing::In => Ok(()),
            Standing::Leaving => Err(GroupError::Leaving),
            Standing::Lost => Err(GroupError::Lost),
            Standing::Out => Err(GroupError::NotMember),
        }
    }

    /// The others, revoked ones left aside: whom a frame for the group goes to.
    pub(crate) fn others<S: GroupStore>(&self, operation: &Operation<'_, S>) -> Vec<DeviceId> {
        let mut to: Vec<_> = self
            .rows
            .iter()
            .filter(|row| !self.is_revoked(row, operation.trust))
            .map(|row| row.device)
            .filter(|device| *device != operation.member.device())
            .collect();
        to.sort_unstable();
        to
    }

    pub(crate) fn is_revoked(&self, row: &Row, trust: &TenantTrust) -> bool {
        self.revocation(row, trust).is_some()
    }

    /// Why a member is not believed any more, if it is not.
    pub(crate) fn revocation(&self, row: &Row, trust: &TenantTrust) -> Option<TrustError> {
        let by_set = self.record.revoked_by_set(row.device).then_some(TrustError::DeviceRevoked);
        row.void(trust).or(by_set)
    }

    pub(crate) fn row_of_device(&self, device: DeviceId) -> Option<&Row> {
        self.rows.iter().find(|row| row.device == device)
    }

    /// The member at a leaf of the tree.
    pub(crate) fn row_at(&self, leaf: LeafNodeIndex) -> Result<&Row, Refusal> {
        let key = self.mls.public_group().leaf(leaf).map(|leaf| leaf.signature_key().as_slice());
        let row = self.rows.iter().find(|row| key == Some(&row.key[..]));
        row.ok_or(Refusal::Invalid)
    }

    /// The place of a member in the tree.
    pub(crate) fn leaf_of(&self, device: DeviceId) -> Option<LeafNodeIndex> {
        let row = self.row_of_device(device)?;
        self.mls.members().find(|member| member.signature_key == row.key).map(|member| member.index)
    }

    /// Members who asked to leave, by their places in the tree.
    pub(crate) fn asked(&self) -> BTreeSet<u32> {
        let removals = self.mls.pending_proposals().filter_map(|queued| match queued.proposal() {
            Proposal::Remove(remove) => Some(remove.removed().u32()),
            _ => None,
        });
        removals.collect()
    }
}

/// How a group runs here, whoever made it.
pub(crate) fn join_config() -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
        .padding_size(PADDING_BYTES)
        .max_past_epochs(PAST_EPOCHS_MAX)
        .number_of_resumption_psks(0)
        .use_ratchet_tree_extension(true)
        .sender_ratchet_configuration(ratchets())
        .build()
}

pub(crate) fn ratchets() -> SenderRatchetConfiguration {
    SenderRatchetConfiguration::new(OUT_OF_ORDER_MAX, FORWARD_DISTANCE_MAX)
}

/// The lifetime of a leaf that is made at `now`.
pub(crate) fn lifetime(now: UnixTime) -> Lifetime {
    Lifetime::init(now.minus(KEY_PACKAGE_BACKDATE_SECONDS).0, now.plus(KEY_PACKAGE_LIFETIME_SECONDS).0)
}

pub(crate) fn mls_id(group: GroupId) -> openmls::group::GroupId {
    openmls::group::GroupId::from_slice(group.as_bytes())
}
