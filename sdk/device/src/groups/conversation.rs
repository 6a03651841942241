//! The messages of a group.

use sealpost_group::{ContentKind, GroupContent, GroupError, GroupReply, MessageId};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{DeviceId, GroupId};

use crate::Device;
use crate::error::DeviceError;
use crate::groups::rows::GroupMessageRow;
use crate::groups::state::WorkError;
use crate::groups::transport::{Errand, Sealed};

/// Commits that are made before a message goes out, while others leave the group.
const COMMITS_BEFORE_MESSAGE_MAX: usize = 3;

/// What a person writes to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewMessage {
    /// A text, and the answers that it offers.
    Text {
        /// The text: 1 byte to 16 KiB.
        text: String,
        /// At most 8, each code once.
        quick_replies: Vec<GroupReply>,
    },
    /// One of the answers that a message offers.
    QuickReply {
        /// The message.
        about: MessageId,
        /// The answer's code.
        code: String,
    },
    /// A person's word that a message was seen and understood.
    Confirmation {
        /// The message.
        about: MessageId,
    },
}

/// Where a message of a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageState {
    /// Another member wrote it.
    Received = 0,
    /// This device wrote it, and the relay does not have all of it yet.
    Sending = 1,
    /// The relay has it for every member.
    Sent = 2,
    /// It was not sent, or not to everybody: refused by the relay, or written in a state that was put back since.
    Failed = 3,
}

impl MessageState {
    pub(crate) const fn of(code: i64) -> Self {
        match code {
            0 => Self::Received,
            1 => Self::Sending,
            2 => Self::Sent,
            _ => Self::Failed,
        }
    }
}

/// A message of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMessage {
    /// The group.
    pub group: GroupId,
    /// The device that wrote it; this one too.
    pub author: DeviceId,
    /// When this device read or wrote it.
    pub received: UnixTime,
    /// Whether it was handed over for showing.
    pub presented: bool,
    /// Where it is.
    pub state: MessageState,
    /// What it says.
    pub content: GroupContent,
}

impl Device {
    /// Writes to a group. The message is durable when this returns; if the relay cannot be reached, the next sync
    /// sends it.
    ///
    /// # Errors
    /// The device is out of the group, or has lost its epoch and is on its way back; a content that the format does
    /// not allow; [`DeviceError::NobodyReached`], [`DeviceError::GroupIsChanging`]; storage errors.
    pub fn send_to_group(&mut self, group: GroupId, message: &NewMessage) -> Result<MessageId, DeviceError> {
        let id = MessageId::random(self.rng.as_mut());
        self.send_to_group_as(group, id, message)?;
        Ok(id)
    }

    /// [`Self::send_to_group`] under an id that the caller has chosen. What this device has written to the group under
    /// it before stands, and is not written again.
    ///
    /// # Errors
    /// As there.
    pub fn send_to_group_as(
        &mut self,
        group: GroupId,
        id: MessageId,
        message: &NewMessage,
    ) -> Result<(), DeviceError> {
        for _ in 0..COMMITS_BEFORE_MESSAGE_MAX {
            match self.write(group, id, message) {
                Err(DeviceError::Group(GroupError::CommitFirst)) => self.commit_now(group)?,
                written => {
                    written?;
                    self.work_on_groups()?;
                    return Ok(());
                }
            }
        }
        Err(DeviceError::GroupIsChanging)
    }

    /// The messages of a group, oldest first, those of this device included.
    ///
    /// # Errors
    /// Storage errors.
    pub fn group_messages(&mut self, group: GroupId) -> Result<Vec<GroupMessage>, DeviceError> {
        let rows = self.store.change(|change| change.group_messages(Some(group), false))?;
        rows.iter().map(GroupMessage::of).collect()
    }

    /// Messages of all groups that were not handed over yet, oldest first. Each is handed over once, also across
    /// crashes: it counts as presented before the caller sees it, and stays in [`Self::group_messages`].
    ///
    /// # Errors
    /// Storage errors.
    pub fn present_group_messages(&mut self) -> Result<Vec<GroupMessage>, DeviceError> {
        let _held = self.lock.hold()?;
        let rows = self.store.change(|change| {
            let rows = change.group_messages(None, true)?;
            change.mark_group_messages_presented()?;
            Ok(rows)
        })?;
        rows.iter().map(GroupMessage::of).collect()
    }

    pub(crate) fn write(
        &mut self,
        group: GroupId,
        id: MessageId,
        message: &NewMessage,
    ) -> Result<(), DeviceError> {
        self.group_work(|work| {
            if work.change.has_group_message(group, work.device(), id.0)? {
                return Ok(());
            }
            let content = message.content(id, work.now);
            let frame = work.groups(|groups| groups.send(group, &content))?;
            let errand = Errand { message: Some(id.0), ..Errand::default() };
            let state = match work.send_out(group, &[frame], Vec::new(), errand)? {
                Sealed::Waiting => MessageState::Sending,
                Sealed::ForNobody => MessageState::Sent,
                Sealed::Unreached => return Err(WorkError::Device(DeviceError::NobodyReached)),
            };
            let row = GroupMessageRow {
                group,
                author: work.device(),
                id: id.0,
                received: work.now,
                presented: true,
                state,
                content: content.to_bytes()?,
            };
            work.change.put_group_message(&row, &mut *work.rng)?;
            Ok(())
        })
    }
}

impl NewMessage {
    fn content(&self, id: MessageId, created: UnixTime) -> GroupContent {
        let (kind, text, about, quick_replies) = match self.clone() {
            Self::Text { text, quick_replies } => (ContentKind::Text, text, None, quick_replies),
            Self::QuickReply { about, code } => (ContentKind::QuickReply, code, Some(about), Vec::new()),
            Self::Confirmation { about } => {
                (ContentKind::Confirmation, String::new(), Some(about), Vec::new())
            }
        };
        GroupContent { id, created, kind, text, about, quick_replies }
    }
}

impl GroupMessage {
    fn of(row: &GroupMessageRow) -> Result<Self, DeviceError> {
        Ok(Self {
            group: row.group,
            author: row.author,
            received: row.received,
            presented: row.presented,
            state: row.state,
            content: GroupContent::read(&row.content)?,
        })
    }
}
