//! Who may do what in a group. Pure functions, used alike for what this device is about to commit and for what others
//! committed.

use std::collections::BTreeSet;

use sealpost_wire::id::DeviceId;

use crate::context::Context;
use crate::credential::Row;
use crate::error::Refusal;
use crate::limits::MEMBERS_MAX;

/// What a commit does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deed {
    /// Whose commit it is.
    pub(crate) committer: DeviceId,
    /// It comes from outside the group: its author comes back in.
    pub(crate) external: bool,
    /// Who comes in, the author of an external commit left aside.
    pub(crate) added: Vec<Row>,
    pub(crate) removed: Vec<Removal>,
    /// The group's context, if the commit changes it.
    pub(crate) context: Option<Context>,
    /// The author as its renewed leaf shows it.
    pub(crate) renewed: Option<Row>,
}

/// A member that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Removal {
    pub(crate) device: DeviceId,
    /// The member itself has asked for it.
    pub(crate) asked: bool,
    /// The member is revoked, as far as is known here.
    pub(crate) revoked: bool,
}

impl Deed {
    /// Whether the group's rules allow it. `members` are those before the commit.
    pub(crate) fn check(&self, context: &Context, members: &[Row]) -> Result<(), Refusal> {
        let is_member = |device| members.iter().any(|row| row.device == device);
        let steward = context.is_steward(self.committer) && !self.external;
        if !is_member(self.committer) {
            return Err(Refusal::NotMember);
        }
        if self.external && (!self.added.is_empty() || self.context.is_some()) {
            return Err(Refusal::ProposalKind);
        }
        if self.external && !matches!(self.removed[..], [Removal { device, .. }] if device == self.committer)
        {
            return Err(Refusal::DeviceChanged);
        }
        let mut gone = BTreeSet::new();
        for removal in &self.removed {
            if !gone.insert(removal.device) {
                return Err(Refusal::DuplicateDevice);
            }
            if !self.external && !steward && !removal.asked && !removal.revoked {
                return Err(Refusal::NotRevoked);
            }
        }
        if (!self.added.is_empty() || self.context.is_some()) && !steward {
            return Err(Refusal::NotSteward);
        }
        let mut coming = BTreeSet::new();
        for row in &self.added {
            let stays = is_member(row.device) && !gone.contains(&row.device);
            if stays || !coming.insert(row.device) {
                return Err(Refusal::DuplicateDevice);
            }
        }
        let after = members.len() + self.added.len() + usize::from(self.external);
        if after.saturating_sub(self.removed.len()) > MEMBERS_MAX {
            return Err(Refusal::TooManyMembers);
        }
        match &self.context {
            // The slot is the group's for life.
            Some(new) if new.slot != context.slot || new.sequence_offset != context.sequence_offset => {
                Err(Refusal::Unsupported)
            }
            _ => Ok(()),
        }
    }

    /// The members after the commit.
    pub(crate) fn apply(&self, members: &[Row]) -> Vec<Row> {
        let goes =
            |row: &Row| !self.external && self.removed.iter().any(|removal| removal.device == row.device);
        let now = |row: &Row| match &self.renewed {
            Some(renewed) if renewed.device == row.device => {
                Row { recipient: row.recipient, ..renewed.clone() }
            }
            _ => row.clone(),
        };
        members.iter().filter(|row| !goes(row)).map(now).chain(self.added.iter().cloned()).collect()
    }

    /// Who goes, as the caller is told. Who comes back goes nowhere.
    pub(crate) fn gone(&self) -> Vec<DeviceId> {
        if self.external { Vec::new() } else { self.removed.iter().map(|removal| removal.device).collect() }
    }
}

/// Whether a sender of the tenant stands for the group: one of the stewards is its mailbox.
pub(crate) fn is_anchored(context: &Context, members: &[Row]) -> bool {
    members.iter().any(|row| row.sender.is_some() && context.is_steward(row.device))
}

#[cfg(test)]
mod tests {
    use sealpost_wire::id::SlotId;

    use super::*;

    const STEWARD: DeviceId = DeviceId([1; 16]);
    const PATIENT: DeviceId = DeviceId([2; 16]);
    const NURSE: DeviceId = DeviceId([3; 16]);
    const STRANGER: DeviceId = DeviceId([9; 16]);

    fn row(device: DeviceId) -> Row {
        Row { device, key: [device.0[0]; 32], recipient: None, sender: None, admitted_by: None }
    }

    fn members() -> Vec<Row> {
        [STEWARD, PATIENT, NURSE].map(row).to_vec()
    }

    fn context() -> Context {
        Context::new(vec![STEWARD], "Ward 3".into(), SlotId([0; 16]), 0).unwrap()
    }

    fn by(committer: DeviceId) -> Deed {
        Deed { committer, external: false, added: vec![], removed: vec![], context: None, renewed: None }
    }

    const fn removal(device: DeviceId) -> Removal {
        Removal { device, asked: false, revoked: false }
    }

    fn check(deed: &Deed) -> Result<(), Refusal> {
        deed.check(&context(), &members())
    }

    #[test]
    fn anybody_renews_its_keys_and_nobody_else_may() {
        assert_eq!(check(&by(PATIENT)), Ok(()));
        assert_eq!(check(&by(STRANGER)), Err(Refusal::NotMember));
    }

    #[test]
    fn stewards_add_and_others_do_not() {
        let added = vec![row(STRANGER)];
        assert_eq!(check(&Deed { added: added.clone(), ..by(STEWARD) }), Ok(()));
        assert_eq!(check(&Deed { added, ..by(PATIENT) }), Err(Refusal::NotSteward));
    }

    #[test]
    fn a_device_is_in_once() {
        let again = Deed { added: vec![row(NURSE)], ..by(STEWARD) };
        assert_eq!(check(&again), Err(Refusal::DuplicateDevice));
        let twice = Deed { added: vec![row(STRANGER), row(STRANGER)], ..by(STEWARD) };
        assert_eq!(check(&twice), Err(Refusal::DuplicateDevice));
        let replaced = Deed { removed: vec![removal(NURSE)], ..again };
        assert_eq!(check(&replaced), Ok(()));
        let gone_twice = Deed { removed: vec![removal(NURSE), removal(NURSE)], ..by(STEWARD) };
        assert_eq!(check(&gone_twice), Err(Refusal::DuplicateDevice));
    }

    #[test]
    fn others_are_removed_by_stewards_or_once_revoked_or_when_they_ask() {
        let by_patient = |removal| Deed { removed: vec![removal], ..by(PATIENT) };
        assert_eq!(check(&Deed { removed: vec![removal(NURSE)], ..by(STEWARD) }), Ok(()));
        assert_eq!(check(&by_patient(removal(NURSE))), Err(Refusal::NotRevoked));
        assert_eq!(check(&by_patient(Removal { revoked: true, ..removal(NURSE) })), Ok(()));
        assert_eq!(check(&by_patient(Removal { asked: true, ..removal(NURSE) })), Ok(()));
    }

    #[test]
    fn who_comes_from_outside_takes_its_own_place_and_no_more() {
        let back = Deed { external: true, removed: vec![removal(PATIENT)], ..by(PATIENT) };
        assert_eq!(check(&back), Ok(()));
        assert_eq!(back.apply(&members()), members());
        assert_eq!(back.gone(), []);
        let steward = Deed { external: true, removed: vec![removal(STEWARD)], ..by(STEWARD) };
        assert_eq!(check(&steward), Ok(()));
        assert_eq!(check(&Deed { removed: vec![], ..back.clone() }), Err(Refusal::DeviceChanged));
        assert_eq!(
            check(&Deed { removed: vec![removal(NURSE)], ..back.clone() }),
            Err(Refusal::DeviceChanged)
        );
        assert_eq!(check(&Deed { committer: STRANGER, ..back.clone() }), Err(Refusal::NotMember));
        assert_eq!(check(&Deed { added: vec![row(STRANGER)], ..steward }), Err(Refusal::ProposalKind));
        assert_eq!(check(&Deed { context: Some(context()), ..back }), Err(Refusal::ProposalKind));
    }

    #[test]
    fn stewards_change_the_context_and_the_slot_stays() {
        let with = |committer, context| Deed { context: Some(context), ..by(committer) };
        let handed_over = Context { stewards: vec![NURSE], ..context() };
        assert_eq!(check(&with(STEWARD, handed_over.clone())), Ok(()));
        assert_eq!(check(&with(NURSE, handed_over)), Err(Refusal::NotSteward));
        let moved = Context { slot: SlotId([1; 16]), ..context() };
        assert_eq!(check(&with(STEWARD, moved)), Err(Refusal::Unsupported));
        let shifted = Context { sequence_offset: 1, ..context() };
        assert_eq!(check(&with(STEWARD, shifted)), Err(Refusal::Unsupported));
    }

    #[test]
    fn a_group_has_its_size() {
        let device = |n: u16| {
            let mut id = [0; 16];
            id[..2].copy_from_slice(&n.to_be_bytes());
            DeviceId(id)
        };
        let newcomers = |count: u16| (0x1000..0x1000 + count).map(|n| row(device(n))).collect();
        let fits = Deed { added: newcomers(497), ..by(STEWARD) };
        assert_eq!(check(&fits), Ok(()));
        let over = Deed { added: newcomers(498), ..by(STEWARD) };
        assert_eq!(check(&over), Err(Refusal::TooManyMembers));
        assert_eq!(check(&Deed { removed: vec![removal(NURSE)], ..over }), Ok(()));
    }

    #[test]
    fn a_sender_anchors_the_group() {
        let mut members = members();
        assert!(!is_anchored(&context(), &members));
        members[1].sender = Some("lab".parse().unwrap());
        assert!(!is_anchored(&context(), &members), "a mailbox that is no steward");
        members[0].sender = Some("lab".parse().unwrap());
        assert!(is_anchored(&context(), &members));
    }
}
