//! What a device keeps.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::rc::Rc;

use sealpost_group::{GroupContent, GroupStore, GroupSuite, ReceivedMessage};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{DeviceId, GroupId};
use sealpost_wire::payload::MlsFrame;
use zeroize::Zeroizing;

use crate::hospital::HOUR;
use crate::relay::Submission;

/// A missing commit is waited for this long (seconds) before the device asks for the way back in.
pub(super) const GRACE_SECONDS: u64 = HOUR;

/// Everything that a device keeps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
    /// What the groups keep.
    pub(crate) groups: Memory,
    /// Counts transactions; the same number outside the store tells an older copy.
    pub(crate) generation: u64,
    pub(crate) outbox: VecDeque<Outgoing>,
    pub(crate) held: Vec<Held>,
    pub(crate) messages: Vec<ReceivedMessage>,
    pub(crate) drafts: VecDeque<(GroupId, GroupContent)>,
    pub(crate) wishes: Vec<(GroupId, Wish)>,
    /// Counts whatever may make a held frame useful.
    pub(super) changes: u64,
    pub(super) plans: BTreeMap<GroupId, Plan>,
    /// Groups that others take this device for a member of, and that it knows nothing of.
    pub(super) strangers: BTreeMap<GroupId, Stranger>,
    /// How often members have asked for the way back in since they were last in.
    pub(super) calls: BTreeMap<(GroupId, DeviceId), u32>,
    /// Groups whose state is an older copy: the device has to come back into them.
    pub(super) lost: BTreeSet<GroupId>,
    /// Groups that the device is out of.
    pub(super) out: BTreeSet<GroupId>,
    pub(super) status: Option<Vec<u8>>,
    pub(super) upload: Option<Upload>,
    /// Suites whose key packages at the keyserver are of a store that is gone.
    pub(super) replace_key_packages: Vec<GroupSuite>,
}

/// The groups' values. A transaction is a copy that takes the store's place when it is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory(BTreeMap<Vec<u8>, Rc<[u8]>>);

impl GroupStore for Memory {
    type Error = Infallible;

    fn read(&self, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, Infallible> {
        Ok(self.0.get(key).map(|value| Zeroizing::new(value.to_vec())))
    }

    fn write(&mut self, key: Vec<u8>, value: Zeroizing<Vec<u8>>) -> Result<(), Infallible> {
        self.0.insert(key, value.as_slice().into());
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), Infallible> {
        self.0.remove(key);
        Ok(())
    }
}

/// A submission that has no answer yet.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) submission: Submission,
    pub(crate) group: GroupId,
    /// It brings this device back into the group.
    pub(super) came_back: bool,
    pub(super) tries: u32,
    pub(super) due: UnixTime,
}

/// A frame that cannot be used yet.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) author: DeviceId,
    pub(crate) frame: Rc<MlsFrame>,
    pub(super) came: UnixTime,
    /// Since when nothing has happened that could have helped.
    pub(super) since: UnixTime,
    pub(super) tried: u64,
}

/// What a person wants of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Add(DeviceId),
    Remove(DeviceId),
    /// A member that cannot come back by itself.
    InviteAnew(DeviceId),
    Update,
    Leave,
}

/// When to try again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Plan {
    pub(super) tries: u32,
    pub(super) due: UnixTime,
    /// Since when claims lose and no winner comes.
    pub(super) stuck: Option<UnixTime>,
    pub(super) asks: u32,
    pub(super) ask_due: UnixTime,
    /// The last look at whether a commit is due: at which count of changes, and when.
    pub(super) looked: Option<(u64, UnixTime)>,
    /// Something cannot be written before a commit is made.
    pub(super) blocked: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Stranger {
    pub(super) authors: BTreeSet<DeviceId>,
    pub(super) since: UnixTime,
    pub(super) asks: u32,
    pub(super) due: UnixTime,
}

/// Key packages on their way to the keyserver.
#[derive(Clone, Debug)]
pub(crate) struct Upload {
    pub(crate) suite: GroupSuite,
    pub(crate) one_time: Vec<Vec<u8>>,
    pub(crate) last_resort: Option<Vec<u8>>,
    /// Those that are there are good for nothing any more.
    pub(crate) replace: bool,
}

impl Tables {
    pub(super) fn has_claim(&self, group: GroupId) -> bool {
        self.outbox.iter().any(|outgoing| outgoing.group == group && outgoing.submission.claim.is_some())
    }

    pub(super) fn plan_of(&self, group: GroupId) -> Plan {
        self.plans.get(&group).copied().unwrap_or_default()
    }

    /// Whether the group has gone on without this device.
    pub(super) fn is_behind(&self, group: GroupId, now: UnixTime) -> bool {
        let plan = self.plan_of(group);
        let over = |since: UnixTime| since.plus(GRACE_SECONDS) <= now;
        if self.out.contains(&group) {
            return false;
        }
        self.lost.contains(&group)
            || (plan.tries > 1 && plan.stuck.is_some_and(over))
            || self.held.iter().any(|held| held.frame.group == group && over(held.since))
    }
}
