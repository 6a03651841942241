//! What this device keeps of a group beside the state of openmls.

use sealpost_wire::clock::UnixTime;
use sealpost_wire::device_set::DeviceSet;
use sealpost_wire::error::TrustError;
use sealpost_wire::id::{DeviceId, Digest, RecipientId};
use sealpost_wire::trust::TenantTrust;
use serde::{Deserialize, Serialize};

use crate::credential::Row;
use crate::error::Refusal;
use crate::limits::{PAST_EPOCH_SECONDS_MAX, PAST_EPOCHS_MAX, SETS_PER_FRAME_MAX};
use crate::suite::GroupSuite;

/// A group's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// This device has made the group, and was never brought into it by another since.
    pub(crate) made_here: bool,
    /// How often this device has come into the group, the first time being 1.
    pub(crate) incarnation: u32,
    /// The incarnation before, while its last messages can still be read.
    pub(crate) former: Option<Former>,
    pub(crate) suite: GroupSuite,
    /// The epoch that this device is in, or the last one that it was in.
    pub(crate) epoch: u64,
    /// The first epoch of this incarnation.
    pub(crate) first_epoch: u64,
    /// Since when the device has been out, if it is.
    pub(crate) left: Option<UnixTime>,
    /// The device has asked to leave in this epoch.
    pub(crate) leaving: bool,
    /// The state is an old one that came back: nothing may be written with it, for its keys have been used.
    pub(crate) lost: bool,
    /// When the device renewed its leaf; 0 if that is due at once.
    pub(crate) updated: UnixTime,
    /// Epochs that are over and whose keys are kept: which, and when it ended. Oldest first.
    pub(crate) past: Vec<(u64, UnixTime)>,
    /// The newest device set of each recipient that was seen in the group.
    pub(crate) sets: Vec<SeenSet>,
    /// Signed sets that revoke members: the evidence for their removal.
    pub(crate) evidence: Vec<Evidence>,
    /// The commit that waits for the relay's word.
    pub(crate) staged: Option<Staged>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Former {
    pub(crate) incarnation: u32,
    pub(crate) epoch: u64,
    pub(crate) since: UnixTime,
    /// Its epochs that were over before, as in [`Record::past`].
    pub(crate) past: Vec<(u64, UnixTime)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SeenSet {
    pub(crate) recipient: RecipientId,
    pub(crate) version: u64,
    pub(crate) digest: Digest,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Evidence {
    pub(crate) recipient: RecipientId,
    pub(crate) set: Vec<u8>,
    pub(crate) revoked: Vec<DeviceId>,
}

/// A commit of this device that the relay has not answered for yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Staged {
    /// The epoch that the commit ends.
    pub(crate) base: u64,
    /// For a return by external commit: the incarnation that it makes.
    pub(crate) rejoin: Option<u32>,
    /// Who is in once it is merged.
    pub(crate) rows: Vec<Row>,
    /// The device sets that it carries.
    pub(crate) sets: Vec<SeenSet>,
}

impl Former {
    /// [`Record::expire_past`], for the incarnation before.
    pub(crate) fn expire_past(&mut self, now: UnixTime) -> Option<usize> {
        expire(&mut self.past, now)
    }
}

impl Record {
    pub(crate) const fn new(incarnation: u32, suite: GroupSuite, epoch: u64, updated: UnixTime) -> Self {
        Self {
            made_here: false,
            incarnation,
            former: None,
            suite,
            epoch,
            first_epoch: epoch,
            left: None,
            leaving: false,
            lost: false,
            updated,
            past: Vec::new(),
            sets: Vec::new(),
            evidence: Vec::new(),
            staged: None,
        }
    }

    /// The incarnation that can read an application message of `epoch`.
    pub(crate) fn reader_of(&self, epoch: u64) -> u32 {
        match &self.former {
            Some(former) if epoch < self.first_epoch && epoch <= former.epoch => former.incarnation,
            _ => self.incarnation,
        }
    }

    /// The device is in `epoch` now.
    pub(crate) fn enter(&mut self, epoch: u64, now: UnixTime) {
        self.past.push((self.epoch, now));
        if self.past.len() > PAST_EPOCHS_MAX {
            self.past.remove(0);
        }
        self.epoch = epoch;
        self.leaving = false;
        self.staged = None;
    }

    /// How many past epochs are still to be kept at `now`, if that is fewer than there are; the others are
    /// forgotten here.
    pub(crate) fn expire_past(&mut self, now: UnixTime) -> Option<usize> {
        expire(&mut self.past, now)
    }

    /// Whether a set that was seen revokes `device`.
    pub(crate) fn revoked_by_set(&self, device: DeviceId) -> bool {
        self.evidence.iter().any(|evidence| evidence.revoked.contains(&device))
    }

    /// Takes in the device sets of a frame: verified, none older than one that was seen.
    ///
    /// A removal may be signed by a revoke key, which adds nobody: a newcomer's admission is checked by itself, so a
    /// set is believed from either kind of key.
    pub(crate) fn take_sets(
        &mut self,
        sets: &[Vec<u8>],
        members: &[Row],
        trust: &TenantTrust,
    ) -> Result<Vec<DeviceSet>, Refusal> {
        if sets.len() > SETS_PER_FRAME_MAX {
            return Err(Refusal::TooLarge);
        }
        let mut verified = Vec::with_capacity(sets.len());
        for bytes in sets {
            let claimed = DeviceSet::verified_before(bytes).map_err(Refusal::Set)?;
            let (set, _) = DeviceSet::verify(bytes, trust, Some(&claimed)).map_err(Refusal::Set)?;
            self.see(&set)?;
            let revoked: Vec<_> = set
                .revoked
                .iter()
                .copied()
                .filter(|out| members.iter().any(|row| row.device == *out))
                .collect();
            self.evidence.retain(|evidence| evidence.recipient != set.recipient);
            if !revoked.is_empty() {
                self.evidence.push(Evidence { recipient: set.recipient, set: bytes.clone(), revoked });
            }
            verified.push(set);
        }
        Ok(verified)
    }

    fn see(&mut self, set: &DeviceSet) -> Result<(), Refusal> {
        let seen = SeenSet { recipient: set.recipient, version: set.version, digest: set.digest };
        match self.sets.iter_mut().find(|known| known.recipient == set.recipient) {
            Some(known) if set.version < known.version => return Err(Refusal::SetRollback),
            Some(known) if set.version == known.version && set.digest != known.digest => {
                return Err(Refusal::Set(TrustError::Rollback));
            }
            Some(known) => *known = seen,
            None => self.sets.push(seen),
        }
        Ok(())
    }

    /// Takes over what a commit that is merged now had taken in.
    pub(crate) fn see_all(&mut self, sets: &[SeenSet]) {
        for seen in sets {
            match self.sets.iter_mut().find(|known| known.recipient == seen.recipient) {
                Some(known) if known.version < seen.version => *known = *seen,
                Some(_) => {}
                None => self.sets.push(*seen),
            }
        }
    }

    /// Who has gone needs no evidence any more.
    pub(crate) fn forget_evidence_of_others(&mut self, members: &[Row]) {
        for evidence in &mut self.evidence {
            evidence.revoked.retain(|out| members.iter().any(|row| row.device == *out));
        }
        self.evidence.retain(|evidence| !evidence.revoked.is_empty());
    }
}

fn expire(past: &mut Vec<(u64, UnixTime)>, now: UnixTime) -> Option<usize> {
    let before = past.len();
    past.retain(|(_, ended)| ended.plus(PAST_EPOCH_SECONDS_MAX) > now);
    (past.len() < before).then_some(past.len())
}
