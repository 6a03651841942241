//! Coming into a group by invitation.

use openmls::group::{MlsGroup, ProcessedWelcome, StagedWelcome, WelcomeError};
use openmls::prelude::MlsMessageBodyIn;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::DeviceId;
use sealpost_wire::payload::MlsFrame;

use crate::context::Context;
use crate::credential::{self, Row};
use crate::error::{GroupError, Refusal};
use crate::frame::{Ignored, Processed};
use crate::limits::MEMBERS_MAX;
use crate::operation::{Operation, join_config};
use crate::policy;
use crate::receive::parse;
use crate::record::{Former, Record};
use crate::storage::StorageError;
use crate::store::GroupStore;
use crate::suite::GroupSuite;

impl<S: GroupStore> Operation<'_, S> {
    pub(crate) fn process_welcome(
        &self,
        author: DeviceId,
        frame: &MlsFrame,
    ) -> Result<Processed, GroupError> {
        let before = self.find_record(frame.group)?;
        let MlsMessageBodyIn::Welcome(welcome) = parse(&frame.body)? else {
            return Err(Refusal::Malformed.into());
        };
        let incarnation = next_incarnation(before.as_ref());
        self.provider.storage.set_incarnation(incarnation);
        let welcome = ProcessedWelcome::new_from_welcome(&self.provider, &join_config(), welcome);
        let welcome = match welcome {
            Ok(welcome) => welcome,
            // Of one's own groups, one is invited to once: the key package is gone because it was used.
            Err(WelcomeError::NoMatchingKeyPackage) if before.as_ref().is_some_and(|r| r.left.is_none()) => {
                return Ok(Processed::Ignored(Ignored::AlreadyIn));
            }
            Err(error) => return Err(refused_welcome(&error)),
        };
        let info = welcome.unverified_group_info();
        if info.group_id().as_slice() != frame.group.as_bytes() {
            return Err(Refusal::WrongGroup.into());
        }
        let suite = GroupSuite::from_mls(info.ciphersuite()).ok_or(Refusal::Unsupported)?;
        let epoch = info.epoch().as_u64();
        if !welcome.psks().is_empty() {
            return Err(Refusal::ProposalKind.into());
        }
        if let Some(before) = &before
            && epoch <= before.epoch
        {
            return if before.left.is_none() {
                Ok(Processed::Ignored(Ignored::AlreadyIn))
            } else {
                Err(Refusal::Stale.into())
            };
        }
        let package = welcome.own_key_package().cloned().ok_or(Refusal::NoKeyPackage)?;
        let staged = openmls::group::JoinBuilder::new(&self.provider, welcome)
            .skip_lifetime_validation()
            .replace_old_group()
            .build()
            .map_err(|error| refused_welcome(&error))?;
        let inviter = inviter(&staged)?;
        let mls = staged.into_group(&self.provider).map_err(|error| refused_welcome(&error))?;

        let mut record = Record::new(incarnation, suite, epoch, self.now);
        if let Some(before) = &before {
            record.sets.clone_from(&before.sets);
        }
        let rows = self.known_rows(&mls, &mut record, &frame.sets)?;
        let context = Context::of(mls.extensions()).map_err(GroupError::Refused)?;
        let by = rows.iter().find(|row| row.device == inviter).ok_or(Refusal::Invalid)?;
        if inviter != author {
            return Err(Refusal::WrongAuthor.into());
        }
        if let Some(error) = by.void(self.trust) {
            return Err(Refusal::Credential(error).into());
        }
        if !context.is_steward(inviter) {
            return Err(Refusal::NotSteward.into());
        }
        if !policy::is_anchored(&context, &rows) {
            return Err(Refusal::NotAnchored.into());
        }

        if self.used_key_package(&package)? {
            // Others may have been invited with the same key: it is to be replaced at once.
            record.updated = UnixTime(0);
        }
        if let Some(mut before) = before {
            self.drop_former(frame.group, &mut before)?;
            if let Some(staged) = before.staged.as_ref().and_then(|staged| staged.rejoin) {
                self.delete_incarnation(frame.group, staged)?;
            }
            record.former = Some(Former {
                incarnation: before.incarnation,
                epoch: before.epoch,
                since: before.left.unwrap_or(self.now),
                past: before.past,
            });
        }
        self.add_to_list(frame.group)?;
        self.save_rows(frame.group, incarnation, &rows)?;
        self.save_record(frame.group, &record)?;
        Ok(Processed::Joined { group: frame.group, by: author, epoch })
    }

    /// The members of a tree that this device has not seen grow: everybody is checked, nobody is in twice, and this
    /// device is in it.
    pub(crate) fn known_rows(
        &self,
        mls: &MlsGroup,
        record: &mut Record,
        sets: &[Vec<u8>],
    ) -> Result<Vec<Row>, GroupError> {
        let mut rows: Vec<Row> = Vec::new();
        for member in mls.members() {
            if rows.len() == MEMBERS_MAX {
                return Err(Refusal::TooManyMembers.into());
            }
            let row = credential::known_member(&member.credential, &member.signature_key, self.trust)
                .map_err(GroupError::Refused)?;
            if rows.iter().any(|known| known.device == row.device) {
                return Err(Refusal::DuplicateDevice.into());
            }
            rows.push(row);
        }
        if !rows.iter().any(|row| row.device == self.member.device() && self.member.is_key(&row.key)) {
            return Err(Refusal::WrongKey.into());
        }
        for set in record.take_sets(sets, &rows, self.trust)? {
            for row in rows.iter_mut().filter(|row| set.device(row.device).is_some()) {
                row.recipient = Some(set.recipient);
            }
        }
        Ok(rows)
    }
}

/// The incarnation after those that there are.
pub(crate) fn next_incarnation(record: Option<&Record>) -> u32 {
    record.map_or(1, |record| {
        let staged = record.staged.as_ref().and_then(|staged| staged.rejoin);
        record.incarnation.max(staged.unwrap_or_default()) + 1
    })
}

/// Who signed the group info of a welcome.
fn inviter(staged: &StagedWelcome) -> Result<DeviceId, GroupError> {
    let leaf = staged.welcome_sender().map_err(|_| Refusal::Invalid)?;
    credential::device_of(leaf.credential()).map_err(GroupError::Refused)
}

fn refused_welcome(error: &WelcomeError<StorageError>) -> GroupError {
    match error {
        WelcomeError::StorageError(_) => GroupError::Unreadable,
        WelcomeError::NoMatchingKeyPackage => Refusal::NoKeyPackage.into(),
        WelcomeError::UnsupportedCiphersuite(_)
        | WelcomeError::CiphersuiteMismatch
        | WelcomeError::UnsupportedExtensions => Refusal::Unsupported.into(),
        WelcomeError::GroupSecrets(_)
        | WelcomeError::GroupInfo(_)
        | WelcomeError::ConfirmationTagMismatch => Refusal::Undecryptable.into(),
        _ => Refusal::Invalid.into(),
    }
}
