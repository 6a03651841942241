//! A group of devices, of any size, and those of its members that a measurement needs.
//!
//! A large group is not made of members that all follow each other, which would take hours: of those who come in, only
//! every second one lives on to renew its keys once and is then forgotten. That is enough for the tree to be what the
//! members' own updates make of it: every node above the leaves has a key (RFC 9420 section 7.4), so that a commit
//! goes to as many as it has levels. In a group that was filled and has renewed nothing, a commit goes to everybody.

use sealpost_group::{CommitPlan, GroupSuite, NewMember, OutgoingFrame, StagedCommit};
use sealpost_wire::id::{DeviceId, GroupId};
use sealpost_wire::payload::{MlsFrame, MlsKind};

use crate::cast::{Hospital, Participant};
use crate::error::BenchError;

/// A group.
pub struct Circle<'h> {
    hospital: &'h Hospital,
    suite: GroupSuite,
    group: GroupId,
    /// The steward that made it, and has followed everything since.
    pub steward: Participant,
    /// The first member that came in, and has followed everything since; none while the steward is alone.
    pub reader: Option<Participant>,
    members: usize,
    last: DeviceId,
}

impl<'h> Circle<'h> {
    /// A group whose steward is alone.
    ///
    /// # Errors
    /// [`BenchError::Cast`].
    pub fn new(hospital: &'h Hospital, suite: GroupSuite) -> Result<Self, BenchError> {
        let mut steward = hospital.participant(true)?;
        let group = steward.groups(hospital, |groups| groups.create(LABEL, &[], suite))?;
        let last = steward.device();
        Ok(Self { hospital, suite, group, steward, reader: None, members: 1, last })
    }

    /// The group.
    #[must_use]
    pub const fn group(&self) -> GroupId {
        self.group
    }

    /// The device that came in last.
    #[must_use]
    pub const fn last(&self) -> DeviceId {
        self.last
    }

    /// Lets new devices in, two at a time, until there are `members`.
    ///
    /// # Errors
    /// [`BenchError::Cast`], [`BenchError::Miscounted`].
    pub fn grow(&mut self, members: usize) -> Result<(), BenchError> {
        while self.members < members {
            self.admit((members - self.members).min(2))?;
        }
        Ok(())
    }

    /// The steward renews its keys so often, and the reader follows: what is kept of past epochs is there.
    ///
    /// # Errors
    /// [`BenchError::Cast`], [`BenchError::Miscounted`].
    pub fn renew(&mut self, times: usize) -> Result<(), BenchError> {
        for _ in 0..times {
            let staged = commit(&mut self.steward, self.hospital, self.group, &CommitPlan::default())?;
            if let Some(reader) = &mut self.reader {
                reader.follow(self.hospital, self.steward.device(), commit_of(&staged)?)?;
            }
        }
        Ok(())
    }

    /// A device that could come in, and what the steward needs of it.
    ///
    /// # Errors
    /// [`BenchError::Cast`].
    pub fn guest(&self) -> Result<(Participant, NewMember), BenchError> {
        guest(self.hospital, self.suite)
    }

    fn admit(&mut self, count: usize) -> Result<(), BenchError> {
        let (hospital, group) = (self.hospital, self.group);
        let guests = (0..count).map(|_| self.guest()).collect::<Result<Vec<_>, _>>()?;
        let (mut guests, add): (Vec<_>, Vec<_>) = guests.into_iter().unzip();
        self.last = guests.last().map_or(self.last, Participant::device);
        self.members += count;
        let by = self.steward.device();
        let staged =
            commit(&mut self.steward, hospital, group, &CommitPlan { add, ..CommitPlan::default() })?;
        if let Some(reader) = &mut self.reader {
            reader.follow(hospital, by, commit_of(&staged)?)?;
        }
        let mut first = guests.swap_remove(0);
        first.follow(hospital, by, welcome_of(&staged)?)?;
        let renewed = commit(&mut first, hospital, group, &CommitPlan::default())?;
        self.steward.follow(hospital, first.device(), commit_of(&renewed)?)?;
        match &mut self.reader {
            Some(reader) => reader.follow(hospital, first.device(), commit_of(&renewed)?)?,
            None => self.reader = Some(first),
        }
        Ok(())
    }
}

/// What people call the groups.
pub const LABEL: &str = "Ward 3";

/// A device that could come into a group, and what its steward needs of it.
///
/// # Errors
/// [`BenchError::Cast`].
pub fn guest(hospital: &Hospital, suite: GroupSuite) -> Result<(Participant, NewMember), BenchError> {
    let mut guest = hospital.participant(false)?;
    let invitation = guest.invitable(hospital, suite)?;
    Ok((guest, invitation))
}

/// Stages a commit and merges it, as if the relay had taken it: two transactions.
///
/// # Errors
/// [`BenchError::Cast`].
pub fn commit(
    author: &mut Participant,
    hospital: &Hospital,
    group: GroupId,
    plan: &CommitPlan,
) -> Result<StagedCommit, BenchError> {
    let staged = author.groups(hospital, |groups| groups.stage_commit(group, plan))?;
    author.groups(hospital, |groups| groups.merge_staged(group))?;
    Ok(staged)
}

/// The commit itself.
///
/// # Errors
/// [`BenchError::Miscounted`]: it has none.
pub fn commit_of(staged: &StagedCommit) -> Result<&MlsFrame, BenchError> {
    frame_of(staged, MlsKind::Message).ok_or_else(|| BenchError::Miscounted("no commit was made".into()))
}

/// The welcome for those who come in.
///
/// # Errors
/// [`BenchError::Miscounted`]: nobody does.
pub fn welcome_of(staged: &StagedCommit) -> Result<&MlsFrame, BenchError> {
    frame_of(staged, MlsKind::Welcome).ok_or_else(|| BenchError::Miscounted("no welcome was made".into()))
}

fn frame_of(staged: &StagedCommit, kind: MlsKind) -> Option<&MlsFrame> {
    staged.frames.iter().map(|OutgoingFrame { frame, .. }| frame).find(|frame| frame.kind == kind)
}

/// Bytes of what a frame carries: the MLS message, and the device sets beside it.
#[must_use]
pub fn bytes_of(frame: &MlsFrame) -> usize {
    frame.body.len() + frame.sets.iter().map(Vec::len).sum::<usize>()
}
