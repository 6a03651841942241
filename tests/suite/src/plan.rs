//! The plan of a drill: who is struck when. The same seed makes the same plan.

use std::fmt;
use std::time::Duration;

use sealpost_power::dice::Dice;
use serde::Serialize;

/// A strike comes after at most this many exchanges of its victim since the one before.
const EXCHANGES_MAX: u64 = 30;
/// And at most this long (microseconds) after that, so that it falls into the middle of something.
const PAUSE_MICROSECONDS_MAX: u64 = 20_000;

/// A program that is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Victim {
    /// The relay.
    Relay,
    /// The keyserver.
    Keyserver,
    /// The sender, with its outbox.
    Sender,
    /// One of the devices.
    Device,
}

impl Victim {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Relay, Self::Keyserver, Self::Sender, Self::Device];
    /// Those whose power is cut too.
    pub const CUT: [Self; 4] = Self::ALL;
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Relay => "relay",
            Self::Keyserver => "keyserver",
            Self::Sender => "sender",
            Self::Device => "device",
        })
    }
}

/// What is done to a victim's files once it is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Files {
    /// Nothing: the page cache survives the process.
    Kept,
    /// They have their last-synced bytes.
    Cut,
    /// They have their last-synced bytes, and of what was written since some pages, by this seed.
    Torn(u64),
}

/// One strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Strike {
    /// Who is killed.
    pub victim: Victim,
    /// Which device, if it is one: any number, to be taken modulo the count of devices.
    pub device: u64,
    /// After how many exchanges of the victim.
    pub exchanges: u64,
    /// And how long after that.
    pub pause: Duration,
    /// What becomes of its files.
    pub files: Files,
}

/// `count` strikes for each of `victims`, in an order and at moments that `seed` chooses.
#[must_use]
pub fn strikes(seed: u64, victims: &[Victim], count: usize, cuts: bool) -> Vec<Strike> {
    let mut dice = Dice::seeded(seed);
    let mut order: Vec<Victim> = victims.iter().flat_map(|victim| vec![*victim; count]).collect();
    for last in (1..order.len()).rev() {
        let other = dice.below(last as u64 + 1);
        order.swap(last, usize::try_from(other).unwrap_or(last));
    }
    let strike = |victim| {
        let (device, exchanges) = (dice.roll(), 1 + dice.below(EXCHANGES_MAX));
        let pause = Duration::from_micros(dice.below(PAUSE_MICROSECONDS_MAX));
        let (torn, tear) = (dice.coin(), dice.roll());
        let files = match cuts {
            false => Files::Kept,
            true if torn => Files::Torn(tear),
            true => Files::Cut,
        };
        Strike { victim, device, exchanges, pause, files }
    };
    order.into_iter().map(strike).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_one_plan_in_which_everybody_has_their_turns() {
        let plan = strikes(7, &Victim::ALL, 8, false);
        assert_eq!(plan, strikes(7, &Victim::ALL, 8, false));
        assert_ne!(plan, strikes(8, &Victim::ALL, 8, false));
        for victim in Victim::ALL {
            assert_eq!(plan.iter().filter(|strike| strike.victim == victim).count(), 8);
        }
        assert!(plan.iter().all(|strike| strike.files == Files::Kept));
        let cuts = strikes(7, &Victim::CUT, 4, true);
        assert!(cuts.iter().any(|strike| strike.files == Files::Cut));
        assert!(cuts.iter().any(|strike| matches!(strike.files, Files::Torn(_))));
    }
}
