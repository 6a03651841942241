//! What is to be sent, and what comes in.

use sealpost_wire::id::{DeviceId, GroupId};
use sealpost_wire::payload::MlsFrame;
use sealpost_wire::slot::SlotClaim;

use crate::content::GroupContent;
use crate::error::Refusal;

/// A frame and the devices that it is for: each gets it in a box of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingFrame {
    /// Whom it is for.
    pub to: Vec<DeviceId>,
    /// The frame.
    pub frame: MlsFrame,
}

/// A commit that waits for the relay's word: the frames go out in one submission that makes the claim. If the relay
/// accepts it, the commit is merged; if the claim lost, it is discarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedCommit {
    /// The group.
    pub group: GroupId,
    /// The claim on the group's slot. If the relay answers that it does not know the slot (it forgets those that
    /// nobody has used for 400 days), the same claim without the capability makes it anew.
    pub claim: SlotClaim,
    /// The commit for the members, and a welcome for those who come in.
    pub frames: Vec<OutgoingFrame>,
}

/// Somebody who is to come into a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMember {
    /// The key package (RFC 9420 section 10), as the keyserver gave it.
    pub key_package: Vec<u8>,
    /// The newest device set of the recipient whose device it is.
    pub set: Vec<u8>,
}

/// What a commit is to do beside renewing this device's keys, which every commit does. Members that are revoked, and
/// those who asked to leave, go with it whatever the plan says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitPlan {
    /// Who comes in. For stewards.
    pub add: Vec<NewMember>,
    /// Who goes. For stewards, or of revoked members.
    pub remove: Vec<DeviceId>,
    /// The stewards from now on. For stewards.
    pub stewards: Option<Vec<DeviceId>>,
    /// The group's label from now on, at most 64 bytes. For stewards.
    pub label: Option<String>,
    /// Newer device sets of members, so that the others learn who they are or that they are revoked.
    pub sets: Vec<Vec<u8>>,
}

/// Why a commit is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitReason {
    /// A member is revoked.
    Revoked,
    /// A member asked to leave.
    Leaving,
    /// This device's own keys are to be renewed: a week old, or from a key package of last resort.
    Update,
}

/// A message that a member wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedMessage {
    /// The group.
    pub group: GroupId,
    /// The member that wrote it.
    pub author: DeviceId,
    /// The epoch that it was written in.
    pub epoch: u64,
    /// What it says.
    pub content: GroupContent,
}

/// How a group changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupChange {
    /// The group.
    pub group: GroupId,
    /// Who committed.
    pub by: DeviceId,
    /// The epoch that it is in now.
    pub epoch: u64,
    /// Who came in.
    pub added: Vec<DeviceId>,
    /// Who went.
    pub removed: Vec<DeviceId>,
    /// The author came back into the group, having lost its state.
    pub came_back: bool,
    /// A commit of this device was staged and has lost: it is forgotten, and is to be made again.
    pub lost_own: bool,
}

/// What has become of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Processed {
    /// A message.
    Message(Box<ReceivedMessage>),
    /// This device is in a group now: it was invited, or invited anew.
    Joined {
        /// The group.
        group: GroupId,
        /// The steward that invited it.
        by: DeviceId,
        /// The epoch that it came in with.
        epoch: u64,
    },
    /// The group has changed.
    Changed(Box<GroupChange>),
    /// A member asks to leave: somebody has to commit, and until then nobody writes.
    Asked {
        /// The group.
        group: GroupId,
        /// Who asks.
        by: DeviceId,
    },
    /// This device is out of the group. Messages of before that can still be read for a week.
    Removed {
        /// The group.
        group: GroupId,
        /// Who removed it.
        by: DeviceId,
    },
    /// It came before.
    Duplicate,
    /// It belongs to the epoch that the staged commit begins: merge or discard that first, then process it again.
    SettleStagedFirst,
    /// It belongs to an epoch whose commit has not come. Commits may come late: if it does not come soon, ask the
    /// others for the group info and come back in.
    NeedsRejoin {
        /// The group.
        group: GroupId,
        /// The epoch here.
        ours: u64,
        /// The message's epoch.
        theirs: u64,
    },
    /// A member has lost the group's state and asks for the group info.
    GroupInfoWanted {
        /// The group.
        group: GroupId,
        /// Who asks.
        by: DeviceId,
    },
    /// The group info has come: the way back in, if this device still needs it.
    GroupInfoOffered {
        /// The group.
        group: GroupId,
        /// Who offers it.
        by: DeviceId,
    },
    /// It says nothing here.
    Ignored(Ignored),
    /// It breaks a rule. Nothing was changed.
    Refused(Refusal),
}

/// Why a frame says nothing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// This device wrote it.
    Own,
    /// A group that this device does not know. Its welcome may come later: what comes before is to be kept for a while,
    /// and processed again when the device has joined.
    UnknownGroup,
    /// This device is out of the group. It may have been invited again, and the welcome come later: the same holds.
    NotMember,
    /// A commit or proposal of an epoch that is over.
    PastEpoch,
    /// A message whose keys are deleted: of an epoch too long ago, or too many messages of its author ago.
    TooOld,
    /// The author is not in the group.
    Stranger,
    /// A welcome to a group that this device is in, at or before its epoch.
    AlreadyIn,
}
