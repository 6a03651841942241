//! Groups of devices that talk to each other: MLS (RFC 9420), over openmls.
//!
//! # In scope
//! Creating and joining groups, committing, sending, receiving, leaving and coming back; who may do what in a group;
//! the state of it all behind [`GroupStore`], inside the caller's transaction; the content of messages. No type of
//! openmls is in the public interface.
//!
//! # Out of scope
//! Input and output: frames go out and come in by the caller (`sealpost-device`), who seals them in boxes, submits
//! them with the claim on the group's slot, verifies who signed a frame that came, and keeps messages. Key packages of
//! others come from the keyserver, by the caller.
//!
//! # Rules
//! - A member is a device that the tenant has admitted. Its leaf's signature key is its identity key.
//! - *Stewards* add members, remove them and name stewards. Anybody renews its own keys, leaves, comes back into its
//!   own place, and removes who is revoked.
//! - A group is believed only if a steward is the mailbox of a sender of the tenant.
//! - A commit is merged by its author only when the relay has taken it ([`Groups::merge_staged`]); somebody else's,
//!   processed before, means that it has lost.
//! - Every commit renews its author's keys, and removes who is revoked or asked to leave.
//!
//! ```
//! # use sealpost_group::{CommitPlan, GroupError, GroupStore, GroupSuite, Groups, NewMember, Processed};
//! # use sealpost_wire::{id::DeviceId, payload::MlsFrame};
//! # fn example<S: GroupStore>(
//! #     mut groups: Groups<'_, S>, nurse: NewMember, author: DeviceId, incoming: &MlsFrame,
//! # ) -> Result<(), GroupError> {
//! let group = groups.create("Ward 3", &[], GroupSuite::Classical)?;
//! let staged = groups.stage_commit(group, &CommitPlan { add: vec![nurse], ..CommitPlan::default() })?;
//! // The caller commits its transaction, seals staged.frames, submits them with staged.claim; then
//! groups.merge_staged(group)?;
//! // and for every frame that comes:
//! if let Processed::Message(message) = groups.process(author, incoming)? {
//!     println!("{} wrote {:?}", message.author, message.content.id);
//! }
//! # Ok(())
//! # }
//! ```
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod limits;

mod commit;
mod content;
mod context;
mod credential;
mod crypto;
mod epochs;
mod error;
mod frame;
mod group;
mod join;
mod key_package;
mod member;
mod operation;
mod policy;
mod provider;
mod receive;
mod record;
mod rejoin;
mod roster;
mod storage;
mod store;
mod suite;
#[cfg(test)]
mod tests;

pub use content::{ContentKind, GroupContent, GroupReply, MessageId};
pub use error::{GroupError, Refusal};
pub use frame::{
    CommitPlan, CommitReason, GroupChange, Ignored, NewMember, OutgoingFrame, Processed, ReceivedMessage,
    StagedCommit,
};
pub use group::{GroupState, Groups, MemberEntry, Standing};
pub use key_package::KeyPackagesKept;
pub use member::Member;
pub use store::{GroupStore, KEY_BYTES_MAX};
pub use suite::GroupSuite;
