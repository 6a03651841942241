//! A device and what it reaches.

use sealpost_group::{GroupSuite, NewMember};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::DeviceId;
use sealpost_wire::trust::TenantTrust;

use crate::client::{Killed, NoAnswer, Outside, Store, Tables, Upload};
use crate::dice::Dice;
use crate::faults::Fault;
use crate::hospital::{Directory, Hospital};
use crate::ledger::Reading;
use crate::relay::{Answer, Relay, Submission, Waiting};

/// A device: what it keeps, and what is outside its store.
pub(crate) struct Machine {
    pub(crate) at: usize,
    pub(crate) on: bool,
    pub(crate) tables: Tables,
    pub(crate) trust: TenantTrust,
    pub(super) clock: DeviceClock,
    /// The generation counter outside the store.
    pub(super) counter: u64,
    pub(super) rng: Dice,
    /// An older copy of the store, and what could be read with it.
    pub(super) copy: Option<(Tables, Vec<Reading>)>,
    /// The process ends in the transaction after so many.
    pub(super) kill: Option<u64>,
    pub(super) tended: UnixTime,
}

/// A device's clock: how many seconds it is away from the servers'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeviceClock {
    Ahead(u64),
    Behind(u64),
}

impl DeviceClock {
    pub(super) const fn at(self, now: UnixTime) -> UnixTime {
        match self {
            Self::Ahead(seconds) => now.plus(seconds),
            Self::Behind(seconds) => now.minus(seconds),
        }
    }
}

/// A device's store, with its transactions.
pub(super) struct DeviceStore<'m> {
    pub(super) tables: &'m mut Tables,
    pub(super) counter: &'m mut u64,
    pub(super) kill: &'m mut Option<u64>,
    pub(super) fault: Option<Fault>,
}

impl Store for DeviceStore<'_> {
    fn tables(&self) -> &Tables {
        self.tables
    }

    fn commit(&mut self, mut tables: Tables) -> Result<(), Killed> {
        match self.kill {
            Some(0) => {
                *self.kill = None;
                if self.fault == Some(Fault::StateApartFromMessage) {
                    self.tables.messages = tables.messages;
                }
                return Err(Killed);
            }
            Some(left) => *left -= 1,
            None => {}
        }
        *self.counter = tables.generation.max(*self.counter);
        tables.generation = *self.counter;
        *self.tables = tables;
        Ok(())
    }

    fn is_older_copy(&self) -> bool {
        self.tables.generation < *self.counter
    }
}

/// The servers, as one device reaches them.
pub(super) struct Servers<'s> {
    pub(super) hospital: &'s Hospital,
    pub(super) directory: &'s mut Directory,
    pub(super) relay: &'s mut Relay,
    pub(super) dice: &'s mut Dice,
    pub(super) fault: Option<Fault>,
    pub(super) at: usize,
    pub(super) now: UnixTime,
}

impl Servers<'_> {
    fn device(&self) -> DeviceId {
        self.hospital.device(self.at)
    }

    fn is_cut(&mut self) -> bool {
        self.dice.percent(self.relay.weather.cut)
    }
}

impl Outside for Servers<'_> {
    fn submit(&mut self, submission: &Submission) -> Result<Answer, NoAnswer> {
        let device = self.device();
        if self.directory.is_revoked(device) {
            return Ok(Answer::Revoked);
        }
        if self.is_cut() {
            return Err(NoAnswer);
        }
        let answer = self.relay.submit(device, submission, self.now, self.dice);
        if self.fault == Some(Fault::MergedBeforeAcceptance) {
            return Ok(Answer::Accepted);
        }
        if self.is_cut() { Err(NoAnswer) } else { Ok(answer) }
    }

    fn waiting(&mut self) -> Option<Waiting> {
        let device = self.device();
        if self.directory.is_revoked(device) { None } else { self.relay.fetch(device, self.now, self.dice) }
    }

    fn acknowledge(&mut self, number: u64) {
        let device = self.device();
        if !self.is_cut() {
            self.relay.acknowledge(device, number);
        }
    }

    fn status(&mut self) -> Option<Vec<u8>> {
        let status = self.directory.status().map(<[u8]>::to_vec);
        status.filter(|_| self.fault != Some(Fault::RevokedStays))
    }

    fn own_set(&mut self) -> Option<Vec<u8>> {
        Some(self.hospital.devices[self.at].set.clone())
    }

    fn look_up(&mut self, device: DeviceId, suite: GroupSuite) -> Option<NewMember> {
        self.directory.take(self.hospital, self.hospital.place_of(device)?, suite, self.now)
    }

    fn key_packages_left(&mut self, suite: GroupSuite) -> Option<(usize, bool)> {
        let revoked = self.directory.is_revoked(self.device());
        (!revoked).then(|| self.directory.left(self.at, suite, self.now))
    }

    fn upload(&mut self, upload: &Upload) -> Result<(), NoAnswer> {
        if self.is_cut() {
            return Err(NoAnswer);
        }
        self.directory.put(self.at, upload, self.now);
        Ok(())
    }
}
