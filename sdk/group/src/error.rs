//! Why an operation was not done, and why something that came in is refused. Codes are stable; texts are not.

use std::error::Error;

use sealpost_wire::error::{FormatError, TrustError};
use sealpost_wire::id::DeviceId;

use crate::storage::StorageError;

/// Why an operation was not done. Nothing of it is in the store.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// The caller's store failed. A retry can help.
    #[error("the store failed: {0}")]
    Store(Box<dyn Error + Send + Sync>),
    /// What the store holds is not what was put there. A retry cannot help; coming back into the group can.
    #[error("the stored state cannot be read")]
    Unreadable,
    /// No such group is in the store.
    #[error("an unknown group")]
    UnknownGroup,
    /// This device is not in the group any more.
    #[error("not in the group any more")]
    NotMember,
    /// This device has asked to leave: it commits and writes nothing any more.
    #[error("about to leave the group")]
    Leaving,
    /// The state is an old one that came back from a copy: it reads, and writes nothing until the device has come back
    /// into the group.
    #[error("the state is an old one: come back into the group first")]
    Lost,
    /// A commit is staged: it must be merged or discarded first.
    #[error("a commit is staged")]
    CommitStaged,
    /// No commit is staged.
    #[error("no commit is staged")]
    NothingStaged,
    /// Somebody has asked to leave: a commit must be made before anything is sent (RFC 9420 section 12.4).
    #[error("somebody is about to leave: commit first")]
    CommitFirst,
    /// A device that is to be removed is not in the group.
    #[error("device {0} is not in the group")]
    NoSuchMember(DeviceId),
    /// More groups than one member keeps, or more key packages.
    #[error("more than a member keeps")]
    TooMany,
    /// A value or size that the format does not allow.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// This device's own credential must not be believed.
    #[error("the own credential: {0}")]
    Credential(TrustError),
    /// The group's suite, or the one asked for, is not one that this device can use.
    #[error("a suite that this device cannot use")]
    Suite,
    /// The other members would refuse it.
    #[error("the group refuses it: {0}")]
    Refused(#[from] Refusal),
    /// openmls refused what should have been possible: a fault of this program.
    #[error("openmls: {0}")]
    Library(String),
}

impl GroupError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Store(_) => "store_failed",
            Self::Unreadable => "state_unreadable",
            Self::UnknownGroup => "unknown_group",
            Self::NotMember => "not_member",
            Self::Leaving => "leaving",
            Self::Lost => "state_lost",
            Self::CommitStaged => "commit_staged",
            Self::NothingStaged => "nothing_staged",
            Self::CommitFirst => "commit_first",
            Self::NoSuchMember(_) => "no_such_member",
            Self::TooMany => "too_many",
            Self::Format(error) => error.code(),
            Self::Credential(error) => error.code(),
            Self::Suite => "unsupported_suite",
            Self::Refused(refusal) => refusal.code(),
            Self::Library(_) => "library",
        }
    }

    pub(crate) fn library(error: &dyn std::fmt::Display) -> Self {
        Self::Library(error.to_string())
    }
}

impl From<StorageError> for GroupError {
    fn from(_: StorageError) -> Self {
        // A failure of the caller's store is told from an unreadable value where the operation ends.
        Self::Unreadable
    }
}

/// Why something that came in is refused. The group stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not the bytes of what the frame says they are.
    #[error("malformed")]
    Malformed,
    /// More bytes, or more of something, than there may be.
    #[error("more than there may be")]
    TooLarge,
    /// The message belongs to another group than the frame says.
    #[error("another group's")]
    WrongGroup,
    /// The message was written by another device than the one that signed the frame.
    #[error("another author's")]
    WrongAuthor,
    /// It cannot be decrypted, or does not verify: garbage, or the group has forked.
    #[error("it does not decrypt or verify")]
    Undecryptable,
    /// Too far ahead of the author's messages that came before.
    #[error("too far ahead")]
    TooFarAhead,
    /// A commit or welcome that MLS does not allow.
    #[error("not a valid commit or welcome")]
    Invalid,
    /// A commit takes up a proposal that has not come yet. It may pass later.
    #[error("a proposal is missing")]
    ProposalMissing,
    /// A kind of proposal or message that has no place in these groups.
    #[error("a kind of proposal that has no place here")]
    ProposalKind,
    /// A commit that does not renew its author's keys.
    #[error("a commit without a path")]
    NoPath,
    /// Another suite, capabilities other than those of these groups, or an unknown extension.
    #[error("an unexpected suite, capability or extension")]
    Unsupported,
    /// A key package that is not valid now, or for longer than one may be.
    #[error("a lifetime that is over, not begun or too long")]
    Lifetime,
    /// A credential that must not be believed.
    #[error("a credential: {0}")]
    Credential(TrustError),
    /// A leaf whose signature key is not its device's identity key.
    #[error("a leaf with another signature key than its device's")]
    WrongKey,
    /// A leaf that changes to another device.
    #[error("a leaf that changes to another device")]
    DeviceChanged,
    /// A device that is in the group already, or twice in one commit.
    #[error("a device twice")]
    DuplicateDevice,
    /// Somebody comes in without the device set that names the device.
    #[error("no device set names the device")]
    NotInSet,
    /// A device set that must not be believed.
    #[error("a device set: {0}")]
    Set(TrustError),
    /// A device set that is older than one that was seen before.
    #[error("a device set older than one that was seen before")]
    SetRollback,
    /// The author is not in the group.
    #[error("the author is not in the group")]
    NotMember,
    /// Only a steward may do this.
    #[error("only a steward may do this")]
    NotSteward,
    /// Somebody who is no steward removes a member that is not revoked, as far as is known here. It may pass with a
    /// newer status.
    #[error("the removed member is not known to be revoked")]
    NotRevoked,
    /// More members than a group may have.
    #[error("too many members")]
    TooManyMembers,
    /// No steward is a mailbox of a sender of the tenant.
    #[error("no sender of the tenant is a steward")]
    NotAnchored,
    /// The key package that a welcome was made for is gone or was never here.
    #[error("no key package for the welcome")]
    NoKeyPackage,
    /// A welcome or group info for an epoch that is over here.
    #[error("older than what is here")]
    Stale,
}

impl Refusal {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::WrongGroup => "wrong_group",
            Self::WrongAuthor => "wrong_author",
            Self::Undecryptable => "undecryptable",
            Self::TooFarAhead => "too_far_ahead",
            Self::Invalid => "invalid_commit",
            Self::ProposalMissing => "proposal_missing",
            Self::ProposalKind => "proposal_kind",
            Self::NoPath => "no_path",
            Self::Unsupported => "unsupported",
            Self::Lifetime => "lifetime",
            Self::Credential(error) | Self::Set(error) => error.code(),
            Self::WrongKey => "wrong_key",
            Self::DeviceChanged => "device_changed",
            Self::DuplicateDevice => "duplicate_device",
            Self::NotInSet => "not_in_set",
            Self::SetRollback => "set_rollback",
            Self::NotMember => "not_member",
            Self::NotSteward => "not_steward",
            Self::NotRevoked => "not_revoked",
            Self::TooManyMembers => "too_many_members",
            Self::NotAnchored => "not_anchored",
            Self::NoKeyPackage => "no_key_package",
            Self::Stale => "stale",
        }
    }

    /// Whether the same bytes may pass later: after what is missing has come, or with a newer tenant status.
    #[must_use]
    pub const fn may_pass_later(&self) -> bool {
        matches!(self, Self::ProposalMissing | Self::NotRevoked | Self::TooFarAhead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_page_has_every_code() {
        let page = include_str!("../FORMAT.md");
        let all = [
            Refusal::Malformed,
            Refusal::TooLarge,
            Refusal::WrongGroup,
            Refusal::WrongAuthor,
            Refusal::Undecryptable,
            Refusal::TooFarAhead,
            Refusal::Invalid,
            Refusal::ProposalMissing,
            Refusal::ProposalKind,
            Refusal::NoPath,
            Refusal::Unsupported,
            Refusal::Lifetime,
            Refusal::WrongKey,
            Refusal::DeviceChanged,
            Refusal::DuplicateDevice,
            Refusal::NotInSet,
            Refusal::SetRollback,
            Refusal::NotMember,
            Refusal::NotSteward,
            Refusal::NotRevoked,
            Refusal::TooManyMembers,
            Refusal::NotAnchored,
            Refusal::NoKeyPackage,
            Refusal::Stale,
        ];
        let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(rows.len(), all.len());
        for refusal in all {
            let head = format!("| `{}` |", refusal.code());
            let row = rows.iter().find(|row| row.starts_with(&head));
            let row = row.unwrap_or_else(|| panic!("{head} is not there"));
            assert_eq!(row.ends_with("| no |"), !refusal.may_pass_later(), "{row}");
        }
    }
}
