//! One history: devices, relay and keyserver on one clock, what happens to them, and how it ends.

mod events;
mod machine;

use std::collections::BTreeMap;

use sealpost_group::{ContentKind, GroupContent, GroupState, GroupSuite, Groups, MessageId, Standing};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::GroupId;

use crate::client::{Client, Done, Memory, Stopped, Tables, Wish};
use crate::dice::Dice;
use crate::faults::Fault;
use crate::hospital::{DAY, Directory, HOUR, Hospital, LAB, MINUTE, NURSE};
use crate::ledger::Ledger;
use crate::relay::{Relay, Weather};
use machine::{DeviceStore, Machine, Servers};

/// Things that happen in one history.
const EVENTS: u64 = 60;
/// The last day on which something happens: openmls would not take key packages that are made much later.
const LAST_DAY: u64 = 60;
/// Steps of one device without a pause before it counts as going round in circles.
const STEPS_MAX: usize = 400;
/// Rounds after the network has healed before somebody counts as stuck.
const ROUNDS_MAX: u64 = 110;

/// What goes wrong in a history, told to people.
pub(crate) type Check = Result<(), String>;

/// What the histories have shown together.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Messages written.
    pub written: u64,
    /// Times that a device opened a message.
    pub opened: u64,
    /// Times that a device could not, by the reason that there was.
    pub excused: BTreeMap<&'static str, u64>,
    /// Epochs of the groups.
    pub epochs: u64,
    /// Returns by external commit.
    pub came_back: u64,
    /// Processes killed.
    pub kills: u64,
    /// Older copies of a store that came back.
    pub restored: u64,
}

impl Tally {
    /// Adds what another history has shown.
    pub fn add(&mut self, other: &Self) {
        self.written += other.written;
        self.opened += other.opened;
        self.epochs += other.epochs;
        self.came_back += other.came_back;
        self.kills += other.kills;
        self.restored += other.restored;
        for (reason, count) in &other.excused {
            *self.excused.entry(reason).or_default() += count;
        }
    }
}

pub(crate) struct World<'h> {
    pub(crate) hospital: &'h Hospital,
    intruder: &'h Hospital,
    pub(crate) fault: Option<Fault>,
    pub(crate) calm: bool,
    pub(crate) dice: Dice,
    pub(crate) now: UnixTime,
    pub(crate) relay: Relay,
    pub(crate) directory: Directory,
    pub(crate) machines: Vec<Machine>,
    pub(crate) group: GroupId,
    pub(crate) ledger: Ledger,
    pub(crate) tally: Tally,
    trace: Option<Vec<String>>,
}

/// Runs the history of `seed`, with a fault in one of the parts around the group if one is given. Returns what it has
/// shown.
///
/// # Errors
/// What is wrong, told to people.
pub fn run(
    hospital: &Hospital,
    intruder: &Hospital,
    seed: u64,
    fault: Option<Fault>,
) -> Result<Tally, String> {
    let mut world = World::new(hospital, intruder, seed, fault);
    let ended = world.live();
    ended.map(|()| world.tally.clone()).map_err(|wrong| {
        let trace = world.trace.map(|lines| lines.join("\n")).unwrap_or_default();
        format!("seed {seed}: {wrong}\n{trace}")
    })
}

impl<'h> World<'h> {
    fn new(hospital: &'h Hospital, intruder: &'h Hospital, seed: u64, fault: Option<Fault>) -> Self {
        let mut dice = Dice::new(seed);
        let calm = seed.is_multiple_of(4);
        let believed = match fault {
            Some(Fault::EvidenceUnchecked) => hospital.trusting(intruder),
            _ => hospital.trust.clone(),
        };
        let machine = |at| Machine {
            at,
            on: true,
            tables: Tables::default(),
            trust: believed.clone(),
            counter: 0,
            rng: dice.split(),
            copy: None,
            kill: None,
            tended: hospital.start,
        };
        let machines = (0..hospital.devices.len()).map(machine).collect();
        Self {
            hospital,
            intruder,
            fault,
            calm,
            now: hospital.start,
            relay: Relay::new(fault, Weather::FAIR),
            directory: Directory::new(hospital),
            machines,
            group: GroupId([0; 32]),
            ledger: Ledger::default(),
            tally: Tally::default(),
            trace: std::env::var_os("SEALPOST_TRACE").map(|_| Vec::new()),
            dice,
        }
    }

    fn live(&mut self) -> Check {
        self.begin()?;
        self.relay.weather = if self.calm { Weather::CALM } else { Weather::STORM };
        for _ in 0..EVENTS {
            self.something_happens()?;
        }
        self.end()
    }

    /// A group of the laboratory, a nurse and the patient's phone.
    fn begin(&mut self) -> Check {
        for at in 0..self.machines.len() {
            self.run(at, STEPS_MAX)?;
        }
        let nurse = self.hospital.device(NURSE);
        let phone = self.hospital.device(2);
        let group =
            self.with_groups(LAB, |groups| groups.create("Ward 3", &[nurse], GroupSuite::Classical))?;
        self.group = group;
        self.entered(LAB, true)?;
        self.wish(LAB, Wish::Add(nurse));
        self.wish(LAB, Wish::Add(phone));
        self.run_all()
    }

    /// The network heals, everybody is on and nobody is killed any more: soon all is well.
    fn end(&mut self) -> Check {
        self.note(|| "the network heals".into());
        self.relay.heal(self.now);
        for machine in &mut self.machines {
            machine.on = true;
            machine.kill = None;
        }
        // A word from everybody shows who has missed a commit; then one that everybody must have.
        for last in [false, true] {
            for at in self.inside() {
                self.say(at);
            }
            let mut rounds = 0;
            loop {
                self.run_all()?;
                let unsettled = self.unsettled();
                if unsettled.is_none() {
                    break;
                }
                if rounds == ROUNDS_MAX {
                    return Err(format!("somebody is stuck: {}", unsettled.unwrap_or_default()));
                }
                self.now = self.now.plus(if rounds < 60 { 10 * MINUTE } else { 4 * HOUR });
                rounds += 1;
            }
            if last {
                self.check_the_end()?;
            }
        }
        Ok(())
    }

    /// Who has still something to do.
    fn unsettled(&mut self) -> Option<String> {
        for at in 0..self.machines.len() {
            let device = self.hospital.device(at);
            if self.directory.is_revoked(device) {
                if self.ledger.is_member(device) {
                    return Some(format!("{at} is revoked and in the group"));
                }
                continue;
            }
            let waits = !self.relay.is_empty(device);
            let state = self.state(at);
            let tables = &self.machines[at].tables;
            let group = self.group;
            let held = tables.held.iter().any(|held| held.frame.group == group);
            let member = self.ledger.is_member(device);
            if member && state.as_ref().is_none_or(|state| state.standing != Standing::In || state.staged) {
                return Some(format!("{at} is a member and its state is {state:?}"));
            }
            let here = state.as_ref().map(|state| (state.epoch, state.authenticator));
            if member && here != self.ledger.newest() {
                return Some(format!("{at} is at {here:?}, the group at {:?}", self.ledger.newest()));
            }
            if waits || member && (held || !tables.outbox.is_empty() || !tables.drafts.is_empty()) {
                return Some(format!("{at} has {waits} waiting, {held} held, {:?}", tables.outbox.len()));
            }
            if member && !tables.wishes.is_empty() {
                return Some(format!("{at} wishes {:?}", tables.wishes));
            }
        }
        None
    }

    /// Whether the group can go on if this device's state is gone: another one is where the newest commit is.
    fn is_safe_without(&mut self, at: usize) -> bool {
        let newest = self.ledger.frontier();
        let others: Vec<_> = self.inside().into_iter().filter(|other| *other != at).collect();
        others.into_iter().any(|other| {
            self.state(other).is_some_and(|state| state.standing == Standing::In && state.epoch == newest)
        })
    }

    /// The members that are not revoked.
    fn inside(&self) -> Vec<usize> {
        let inside = |at: &usize| {
            let device = self.hospital.device(*at);
            self.ledger.is_member(device) && !self.directory.is_revoked(device)
        };
        (0..self.machines.len()).filter(inside).collect()
    }

    fn say(&mut self, at: usize) {
        if self.state(at).is_none_or(|state| state.standing == Standing::Out) {
            return;
        }
        let machine = &mut self.machines[at];
        let content = GroupContent {
            id: MessageId::random(&mut machine.rng),
            created: self.now,
            kind: ContentKind::Text,
            text: "How is the patient?".into(),
            about: None,
            quick_replies: vec![],
        };
        machine.tables.drafts.push_back((self.group, content));
    }

    fn wish(&mut self, at: usize, wish: Wish) {
        let group = self.group;
        let wishes = &mut self.machines[at].tables.wishes;
        if !wishes.contains(&(group, wish)) {
            wishes.push((group, wish));
        }
        self.note(|| format!("{at} wishes {wish:?}"));
    }

    fn run_all(&mut self) -> Check {
        for _ in 0..3 {
            for at in 0..self.machines.len() {
                self.run(at, STEPS_MAX)?;
            }
        }
        Ok(())
    }

    /// Lets a device do so many steps, if there is so much to do.
    fn run(&mut self, at: usize, steps: usize) -> Check {
        for _ in 0..steps {
            if !self.machines[at].on || !self.step(at)? {
                return Ok(());
            }
        }
        if steps < STEPS_MAX { Ok(()) } else { Err(format!("{at} goes round in circles")) }
    }

    /// One step of a device. Returns whether there was something to do.
    fn step(&mut self, at: usize) -> Result<bool, String> {
        let machine = &mut self.machines[at];
        let mut store = DeviceStore {
            tables: &mut machine.tables,
            counter: &mut machine.counter,
            kill: &mut machine.kill,
            fault: self.fault,
        };
        let mut servers = Servers {
            hospital: self.hospital,
            directory: &mut self.directory,
            relay: &mut self.relay,
            dice: &mut self.dice,
            fault: self.fault,
            at,
            now: self.now,
        };
        let mut client = Client {
            member: &self.hospital.devices[at].member,
            trust: &mut machine.trust,
            now: self.now,
            rng: &mut machine.rng,
            store: &mut store,
            outside: &mut servers,
        };
        let daily = machine.tended.plus(DAY) <= self.now && self.fault != Some(Fault::PastEpochsKept);
        let done = if daily {
            client.tend().map(|()| {
                machine.tended = self.now;
                Done::Housekeeping
            })
        } else {
            client.step()
        };
        let done = match done {
            Ok(done) => done,
            Err(Stopped::Killed) => {
                self.tally.kills += 1;
                self.note(|| format!("{at} is killed"));
                self.watch_the_relay()?;
                return Ok(true);
            }
            Err(Stopped::Group(error)) => return Err(format!("{at} cannot go on: {error}")),
        };
        self.note(|| format!("{at}: {done:?}"));
        let busy = !matches!(done, Done::Nothing);
        self.after(at, done)?;
        self.watch_the_relay()?;
        Ok(busy)
    }

    /// A device's groups, in a transaction that is committed.
    pub(crate) fn with_groups<T>(
        &mut self,
        at: usize,
        work: impl FnOnce(&mut Groups<'_, Memory>) -> Result<T, sealpost_group::GroupError>,
    ) -> Result<T, String> {
        let machine = &mut self.machines[at];
        let member = &self.hospital.devices[at].member;
        let store = &mut machine.tables.groups;
        let mut groups = Groups::new(member, &machine.trust, self.now, store, &mut machine.rng);
        work(&mut groups).map_err(|error| error.to_string())
    }

    /// How the group looks to a device, if it knows the group.
    pub(crate) fn state(&mut self, at: usize) -> Option<GroupState> {
        let group = self.group;
        self.with_groups(at, |groups| groups.state(group)).ok()
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        let now = self.now.0 - self.hospital.start.0;
        if let Some(trace) = &mut self.trace {
            let mut line = line();
            line.truncate(400);
            trace.push(format!("{:>3}d {:>5}s  {line}", now / DAY, now % DAY));
        }
    }
}
