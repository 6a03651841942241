//! What comes in: a frame is processed, its plaintext stored and the ratchet advanced in the transaction that deletes
//! the prekey of its box and queues the receipt.
//!
//! A frame that cannot be used yet is kept, and processed again when the group has moved on. To the relay it is opened
//! all the same: it is stored here.

use sealpost_group::{GroupError, Ignored, Processed, Refusal, Standing};
use sealpost_wire::admission::Admission;
use sealpost_wire::id::{DeviceId, GroupId};
use sealpost_wire::payload::{MlsFrame, MlsKind};

use crate::error::DeviceError;
use crate::groups::conversation::MessageState;
use crate::groups::rows::{GroupMessageRow, HeldLimits, Task};
use crate::groups::state::Work;
use crate::groups::stored_frame::{read_frame, write_frame};
use crate::groups::{GroupEvent, REJOIN_PATIENCE_SECONDS};

/// Frames that are kept for later. No author can displace what others wrote.
const HELD_LIMITS: HeldLimits = HeldLimits { of_author: 128, of_all: 512 };
/// A frame is kept for later this long (seconds): 7 days, after which the keys of its epoch are gone too.
pub(crate) const HELD_SECONDS_MAX: u64 = 7 * 86_400;

impl Work<'_> {
    /// Takes in a frame of the device that `author` admits, which has signed it.
    pub(crate) fn take_frame(
        &mut self,
        author: &Admission,
        frame: &MlsFrame,
    ) -> Result<GroupEvent, DeviceError> {
        let device = author.record.device;
        let outcome = self.process(device, frame, Word::New)?;
        if outcome.is_to_be_asked() {
            self.change.put_author(device, &author.record_bytes, self.now)?;
        }
        match outcome {
            Outcome::Done { event, moved } => {
                if moved {
                    self.take_held(frame.group)?;
                }
                Ok(event)
            }
            Outcome::Later => {
                let bytes = write_frame(frame)?;
                let limits = (self.now, HELD_LIMITS);
                self.change.hold_frame(frame.group, device, &bytes, limits, &mut *self.rng)?;
                Ok(GroupEvent::Kept)
            }
        }
    }

    /// Processes the frames that were kept, as long as one of them moves the group on.
    pub(crate) fn take_held(&mut self, group: GroupId) -> Result<(), DeviceError> {
        // Each round that goes on has used up a frame.
        for _ in 0..=HELD_LIMITS.of_all {
            let mut on = false;
            for held in self.change.held_frames(group)? {
                let frame = read_frame(&held.frame)?;
                let word = if held.asked { Word::Known } else { Word::New };
                if let Outcome::Done { moved, .. } = self.process(held.author, &frame, word)? {
                    self.change.delete_held(held.id)?;
                    on |= moved;
                }
                if on {
                    break;
                }
            }
            if !on {
                return Ok(());
            }
        }
        Ok(())
    }

    fn process(&mut self, author: DeviceId, frame: &MlsFrame, word: Word) -> Result<Outcome, DeviceError> {
        let group = frame.group;
        let done = |event| Ok(Outcome::Done { event, moved: false });
        let moved = |event| Ok(Outcome::Done { event, moved: true });
        let processed = match self.groups(|groups| groups.process(author, frame)) {
            Ok(processed) => processed,
            Err(DeviceError::Group(GroupError::Store(error))) => return Err(GroupError::Store(error).into()),
            // The state or the library does not let it be processed: it must not stop what comes behind it.
            Err(DeviceError::Group(error)) => {
                tracing::warn!(code = error.code(), "a frame of a group cannot be processed");
                self.expect_commit(group)?;
                return done(GroupEvent::Nothing(error.code()));
            }
            Err(error) => return Err(error),
        };
        match processed {
            Processed::Message(message) => {
                let id = message.content.id;
                if self.change.has_group_message(group, message.author, id.0)? {
                    // Its author could not know that the relay had it, and has written it anew in another epoch.
                    return done(GroupEvent::Nothing("repeated"));
                }
                let content = message.content.to_bytes()?;
                let row = GroupMessageRow {
                    group,
                    author: message.author,
                    id: id.0,
                    received: self.now,
                    presented: false,
                    state: MessageState::Received,
                    content,
                };
                self.change.put_group_message(&row, &mut *self.rng)?;
                done(GroupEvent::Message { author: message.author, id })
            }
            Processed::Joined { by, .. } => {
                self.change.drop_claim(group)?;
                self.change.mark_messages_stale(group)?;
                for task in [Task::Rejoin, Task::Return, Task::Ask, Task::Leave, Task::Race, Task::Refusal] {
                    self.change.delete_tasks(group, task)?;
                }
                moved(GroupEvent::Joined { by })
            }
            Processed::Changed(change) => {
                if change.came_back {
                    // Its state was lost, and its prekeys may have been.
                    self.change.forget_peer(change.by)?;
                    self.change.delete_task(group, Task::Call, change.by)?;
                    self.change.delete_task(group, Task::Invite, change.by)?;
                }
                if change.lost_own {
                    self.change.drop_claim(group)?;
                }
                self.change.mark_messages_stale(group)?;
                if self.groups(|groups| groups.state(group))?.standing != Standing::Lost {
                    self.change.delete_tasks(group, Task::Rejoin)?;
                    self.change.delete_tasks(group, Task::Return)?;
                }
                self.change.delete_tasks(group, Task::Refusal)?;
                moved(GroupEvent::Changed { by: change.by, added: change.added, removed: change.removed })
            }
            Processed::Asked { by, .. } => done(GroupEvent::Leaving { device: by }),
            Processed::Removed { by, .. } => {
                self.change.forget_group_work(group)?;
                done(GroupEvent::Removed { by })
            }
            Processed::Duplicate => done(GroupEvent::Nothing("duplicate")),
            Processed::SettleStagedFirst => Ok(Outcome::Later),
            Processed::NeedsRejoin { .. } => {
                if word == Word::New {
                    self.expect_commit(group)?;
                }
                Ok(Outcome::Later)
            }
            Processed::GroupInfoWanted { by, .. } => {
                self.change.forget_peer(by)?;
                self.take_call(group, by)?;
                done(GroupEvent::InfoWanted { by })
            }
            Processed::GroupInfoOffered { by, .. } => {
                // Nobody is brought back who has not asked.
                if self.change.has_task(group, Task::Rejoin)? {
                    let bytes = write_frame(frame)?;
                    self.change.put_return(group, by, &bytes, &mut *self.rng)?;
                }
                done(GroupEvent::InfoOffered { by })
            }
            // Others take this device for a member. Its welcome may come later, or is lost.
            Processed::Ignored(Ignored::UnknownGroup | Ignored::NotMember)
                if frame.kind == MlsKind::Message =>
            {
                self.is_taken_for_a_member(group, author, REJOIN_PATIENCE_SECONDS)?;
                Ok(Outcome::Later)
            }
            // Somebody has invited it anew, by a key package that is gone: it is not where the group is.
            Processed::Ignored(ignored @ Ignored::AlreadyIn) => {
                self.expect_commit(group)?;
                done(GroupEvent::Nothing(ignored_code(ignored)))
            }
            Processed::Ignored(ignored) => done(GroupEvent::Nothing(ignored_code(ignored))),
            Processed::Refused(refusal) if refusal.may_pass_later() => {
                // What it lacks may be lost: the others go on without this device then.
                if word == Word::New {
                    self.expect_commit(group)?;
                }
                Ok(Outcome::Later)
            }
            Processed::Refused(refusal) => {
                tracing::warn!(code = refusal.code(), "a frame of a group is refused");
                match refusal {
                    Refusal::NoKeyPackage => self.is_taken_for_a_member(group, author, 0)?,
                    // The group has forked, or somebody writes garbage: the group info tells.
                    Refusal::Undecryptable if frame.kind == MlsKind::Message => self.expect_commit(group)?,
                    _ => {}
                }
                done(GroupEvent::Nothing(refusal.code()))
            }
        }
    }

    /// A commit should come soon; if it does not, the group info is asked for.
    fn expect_commit(&mut self, group: GroupId) -> Result<(), DeviceError> {
        let known = self.groups(|groups| groups.list())?.contains(&group);
        if known
            && self.groups(|groups| groups.state(group)).is_ok_and(|state| state.standing != Standing::Out)
        {
            let due = self.now.plus(REJOIN_PATIENCE_SECONDS);
            self.change.put_task_once(group, Task::Rejoin, self.device(), due)?;
        }
        Ok(())
    }
}

/// Which epoch a frame is of is its author's word. It may be a lie: for one frame, a device comes back into the group
/// once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    New,
    Known,
}

enum Outcome {
    /// It is used up; `moved` if other frames may pass now.
    Done { event: GroupEvent, moved: bool },
    /// It may pass later.
    Later,
}

impl Outcome {
    /// Whether its author may have to be asked for the way in: others may know better than this device who is a member.
    fn is_to_be_asked(&self) -> bool {
        match self {
            Self::Later => true,
            Self::Done { event, .. } => *event == GroupEvent::Nothing(Refusal::NoKeyPackage.code()),
        }
    }
}

const fn ignored_code(ignored: Ignored) -> &'static str {
    match ignored {
        Ignored::Own => "own",
        Ignored::UnknownGroup => "unknown_group",
        Ignored::NotMember => "not_member",
        Ignored::PastEpoch => "past_epoch",
        Ignored::TooOld => "too_old",
        Ignored::Stranger => "stranger",
        Ignored::AlreadyIn => "already_in",
    }
}
