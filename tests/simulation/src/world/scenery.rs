//! Where a history happens: what is so from its beginning to its end.

use std::fmt;

use sealpost_group::GroupSuite;

use super::Tally;
use super::machine::DeviceClock;
use crate::dice::Dice;
use crate::hospital::MINUTE;

/// A device's clock is at most this far from the servers' (seconds): less than what is refused (300).
const SKEW_SECONDS_MAX: u64 = 4 * MINUTE;
/// Groups of one history.
const GROUPS_MAX: usize = 3;

/// Where a history happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenery {
    /// The first group has the hybrid suite, and every second one after it.
    pub hybrid: bool,
    /// Groups of the same devices, at least one.
    pub groups: usize,
    /// The devices' clocks are minutes away from the servers'.
    pub skewed: bool,
    /// One device is off for 60 days.
    pub absence: bool,
}

impl Scenery {
    /// One group of the classical suite, clocks that agree, nobody away for long.
    pub const PLAIN: Self = Self { hybrid: false, groups: 1, skewed: false, absence: false };

    /// The scenery of a seed's history.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice::new(!seed);
        Self {
            hybrid: dice.percent(25),
            groups: if dice.percent(30) { 2 + dice.index(GROUPS_MAX - 1) } else { 1 },
            skewed: dice.percent(50),
            absence: dice.percent(20),
        }
    }

    /// Where what the scenery leaves open comes from.
    pub(super) fn dice(self, seed: u64) -> Dice {
        Dice::new(!seed).split()
    }

    /// The suite of a group.
    pub(super) const fn suite(self, of: usize) -> GroupSuite {
        if self.hybrid && of.is_multiple_of(2) { GroupSuite::Hybrid } else { GroupSuite::Classical }
    }

    /// The suites of all groups.
    pub(super) const fn suites(self) -> &'static [GroupSuite] {
        match (self.hybrid, self.groups) {
            (false, _) => &[GroupSuite::Classical],
            (true, 1) => &[GroupSuite::Hybrid],
            (true, _) => &[GroupSuite::Classical, GroupSuite::Hybrid],
        }
    }

    pub(super) fn clock(self, dice: &mut Dice) -> DeviceClock {
        let seconds = if self.skewed { dice.below(SKEW_SECONDS_MAX + 1) } else { 0 };
        if dice.percent(50) { DeviceClock::Ahead(seconds) } else { DeviceClock::Behind(seconds) }
    }

    /// What a history in this scenery adds to a tally before anything has happened.
    pub(super) fn tally(self) -> Tally {
        Tally {
            histories: 1,
            hybrid: u64::from(self.hybrid),
            several: u64::from(self.groups > 1),
            skewed: u64::from(self.skewed),
            ..Tally::default()
        }
    }
}

impl fmt::Display for Scenery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "groups: {}", self.groups)?;
        let special = [
            (self.hybrid, "hybrid suite"),
            (self.skewed, "clocks minutes apart"),
            (self.absence, "a device away for 60 days"),
        ];
        special.iter().filter(|(there, _)| *there).try_for_each(|(_, what)| write!(f, ", {what}"))
    }
}
