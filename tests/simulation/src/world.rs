//! One history: devices, relay and keyserver, what happens to them, and how it ends.

mod events;
mod machine;
mod scenery;

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sealpost_group::{ContentKind, GroupContent, GroupState, Groups, MessageId, Standing};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{GroupId, SlotId};
use serde::Serialize;

use crate::client::{Client, Done, Memory, Stopped, Tables, Wish};
use crate::dice::Dice;
use crate::faults::Fault;
use crate::hospital::{DAY, Directory, HOUR, Hospital, LAB, MINUTE, NURSE, PHONE};
use crate::ledger::Ledger;
use crate::relay::{Relay, Weather};
use machine::{DeviceStore, Machine, Servers};
pub use scenery::Scenery;

/// Things that happen in a history of one group, and as many more for every other group.
const EVENTS: u64 = 60;
const EVENTS_PER_GROUP: u64 = 30;
/// The last day on which something happens: openmls would not take key packages that are made much later.
const LAST_DAY: u64 = 60;
/// Steps of one device without a pause before it counts as going round in circles.
const STEPS_MAX: usize = 2000;
/// Rounds after the network has healed before somebody counts as stuck.
const ROUNDS_MAX: u64 = 110;

/// What goes wrong in a history, told to people.
pub(crate) type Check = Result<(), String>;

/// One history, which follows from what is here.
#[derive(Clone, Copy, Debug)]
pub struct History {
    /// What happens, and when.
    pub seed: u64,
    /// Where.
    pub scenery: Scenery,
    /// A mistake in one of the parts around the groups, which is to be found.
    pub fault: Option<Fault>,
}

impl History {
    /// The history of a seed: its scenery follows from the seed too.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self { seed, scenery: Scenery::of(seed), fault: None }
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}, {}", self.seed, self.scenery)
    }
}

/// What the histories have shown together.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tally {
    /// Histories that have ended well.
    pub histories: u64,
    /// Those of them with a group of the hybrid suite.
    pub hybrid: u64,
    /// Those with several groups of the same devices.
    pub several: u64,
    /// Those in which the devices' clocks are minutes apart.
    pub skewed: u64,
    /// Devices that were off for 60 days.
    pub absences: u64,
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
        self.histories += other.histories;
        self.hybrid += other.hybrid;
        self.several += other.several;
        self.skewed += other.skewed;
        self.absences += other.absences;
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

/// One of the groups, and what is true of it.
pub(crate) struct Circle {
    pub(crate) group: GroupId,
    pub(crate) slot: SlotId,
    pub(crate) ledger: Ledger,
}

pub(crate) struct World<'h> {
    pub(crate) hospital: &'h Hospital,
    intruder: &'h Hospital,
    pub(crate) fault: Option<Fault>,
    scenery: Scenery,
    pub(crate) calm: bool,
    pub(crate) dice: Dice,
    /// What the scenery asks for is drawn from here, so that `dice` does not shift.
    pub(crate) scene: Dice,
    /// The time of the servers.
    pub(crate) now: UnixTime,
    pub(crate) relay: Relay,
    pub(crate) directory: Directory,
    pub(crate) machines: Vec<Machine>,
    pub(crate) circles: Vec<Circle>,
    pub(crate) tally: Tally,
    trace: Option<Vec<String>>,
}

/// Runs a history. Returns what it has shown.
///
/// # Errors
/// What is wrong, told to people.
pub fn run(hospital: &Hospital, intruder: &Hospital, history: History) -> Result<Tally, String> {
    let live = || {
        let mut world = World::new(hospital, intruder, history);
        let ended = world.live();
        ended.map(|()| world.tally.clone()).map_err(|wrong| {
            let trace = world.trace.map(|lines| lines.join("\n")).unwrap_or_default();
            format!("{history}: {wrong}\n{trace}")
        })
    };
    catch_unwind(AssertUnwindSafe(live)).unwrap_or_else(|_| Err(format!("{history}: a panic")))
}

impl<'h> World<'h> {
    fn new(hospital: &'h Hospital, intruder: &'h Hospital, history: History) -> Self {
        let History { seed, scenery, fault } = history;
        let mut dice = Dice::new(seed);
        let mut scene = scenery.dice(seed);
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
            clock: scenery.clock(&mut scene),
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
            scenery,
            calm,
            now: hospital.start,
            relay: Relay::new(fault, Weather::FAIR),
            directory: Directory::default(),
            machines,
            circles: Vec::new(),
            tally: scenery.tally(),
            trace: std::env::var_os("SEALPOST_TRACE").map(|_| Vec::new()),
            scene,
            dice,
        }
    }

    fn live(&mut self) -> Check {
        self.begin()?;
        self.relay.weather = if self.calm { Weather::CALM } else { Weather::STORM };
        let events = EVENTS + EVENTS_PER_GROUP * (self.circles.len() as u64 - 1);
        let absence = self.scenery.absence.then(|| self.scene.below(events / 4));
        for event in 0..events {
            self.something_happens()?;
            if absence == Some(event) {
                self.somebody_is_away()?;
            }
        }
        self.end()
    }

    /// Groups of the laboratory: with a nurse and the patient's phone, or somebody else.
    fn begin(&mut self) -> Check {
        for at in 0..self.machines.len() {
            self.run(at, STEPS_MAX)?;
        }
        let nurse = self.hospital.device(NURSE);
        for of in 0..self.scenery.groups {
            let (suite, label) = (self.scenery.suite(of), format!("Ward {}", 3 + of));
            let group = self.with_groups(LAB, |groups| groups.create(&label, &[nurse], suite))?;
            let slot = self.with_groups(LAB, |groups| groups.state(group))?.slot;
            self.circles.push(Circle { group, slot, ledger: Ledger::default() });
            self.entered(of, LAB, true)?;
            let guest = if of == 0 { PHONE } else { PHONE + self.scene.index(self.machines.len() - PHONE) };
            self.wish(of, LAB, Wish::Add(nurse));
            self.wish(of, LAB, Wish::Add(self.hospital.device(guest)));
            self.run_all()?;
        }
        Ok(())
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
            for of in 0..self.circles.len() {
                for at in self.inside(of) {
                    self.say(of, at);
                }
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
        for of in 0..self.circles.len() {
            for at in 0..self.machines.len() {
                if let Some(unsettled) = self.unsettled_at(of, at) {
                    return Some(unsettled);
                }
            }
        }
        None
    }

    fn unsettled_at(&mut self, of: usize, at: usize) -> Option<String> {
        let device = self.hospital.device(at);
        let state = self.state(of, at);
        let Circle { group, ledger, .. } = &self.circles[of];
        let member = ledger.is_member(device);
        if self.directory.is_revoked(device) {
            return member.then(|| format!("{at} is revoked and in the group"));
        }
        let waits = !self.relay.is_empty(device);
        let tables = &self.machines[at].tables;
        let held = tables.held.iter().any(|held| held.frame.group == *group);
        if member && state.as_ref().is_none_or(|state| state.standing != Standing::In || state.staged) {
            return Some(format!("{at} is a member and its state is {state:?}"));
        }
        let here = state.as_ref().map(|state| (state.epoch, state.authenticator));
        if member && here != ledger.newest() {
            return Some(format!("{at} is at {here:?}, the group at {:?}", ledger.newest()));
        }
        let concerns = |of: GroupId| of == *group || self.circle_of(of).is_none();
        let submits = tables.outbox.iter().filter(|outgoing| concerns(outgoing.group)).count();
        let writes = tables.drafts.iter().any(|(drafted, _)| drafted == group);
        if waits || member && (held || submits > 0 || writes) {
            return Some(format!("{at} has {waits} waiting, {held} held, {submits} to submit"));
        }
        if member && tables.wishes.iter().any(|(wished, _)| wished == group) {
            return Some(format!("{at} wishes {:?}", tables.wishes));
        }
        None
    }

    /// Whether all groups can go on if this device's state is gone: in each another one is where the newest commit is.
    fn is_safe_without(&mut self, at: usize) -> bool {
        (0..self.circles.len()).all(|of| {
            let others: Vec<_> = self.inside(of).into_iter().filter(|other| *other != at).collect();
            let newest = self.circles[of].ledger.frontier();
            others.into_iter().any(|other| {
                let state = self.state(of, other);
                state.is_some_and(|state| state.standing == Standing::In && state.epoch == newest)
            })
        })
    }

    /// The members of a circle that are not revoked.
    fn inside(&self, of: usize) -> Vec<usize> {
        let inside = |at: &usize| {
            let device = self.hospital.device(*at);
            self.circles[of].ledger.is_member(device) && !self.directory.is_revoked(device)
        };
        (0..self.machines.len()).filter(inside).collect()
    }

    /// The circle of a group, if it is one of this history's.
    pub(crate) fn circle_of(&self, group: GroupId) -> Option<usize> {
        self.circles.iter().position(|circle| circle.group == group)
    }

    /// Some circle.
    fn any_circle(&mut self) -> usize {
        if self.circles.len() > 1 { self.scene.index(self.circles.len()) } else { 0 }
    }

    /// What a device takes the time for.
    pub(crate) fn clock_of(&self, at: usize) -> UnixTime {
        self.machines[at].clock.at(self.now)
    }

    fn say(&mut self, of: usize, at: usize) {
        if self.state(of, at).is_none_or(|state| state.standing == Standing::Out) {
            return;
        }
        let (group, created) = (self.circles[of].group, self.clock_of(at));
        let machine = &mut self.machines[at];
        let content = GroupContent {
            id: MessageId::random(&mut machine.rng),
            created,
            kind: ContentKind::Text,
            text: "How is the patient?".into(),
            about: None,
            quick_replies: vec![],
        };
        machine.tables.drafts.push_back((group, content));
    }

    fn wish(&mut self, of: usize, at: usize, wish: Wish) {
        let group = self.circles[of].group;
        let wishes = &mut self.machines[at].tables.wishes;
        if !wishes.contains(&(group, wish)) {
            wishes.push((group, wish));
        }
        self.note(|| format!("{at} wishes {wish:?} in circle {of}"));
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
        let (clock, suites) = (self.clock_of(at), self.scenery.suites());
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
            now: clock,
            suites,
            rng: &mut machine.rng,
            store: &mut store,
            outside: &mut servers,
        };
        let daily = machine.tended.plus(DAY) <= clock && self.fault != Some(Fault::PastEpochsKept);
        let done = if daily {
            client.tend().map(|()| {
                machine.tended = clock;
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
        let clock = self.clock_of(at);
        let machine = &mut self.machines[at];
        let member = &self.hospital.devices[at].member;
        let store = &mut machine.tables.groups;
        let mut groups = Groups::new(member, &machine.trust, clock, store, &mut machine.rng);
        work(&mut groups).map_err(|error| error.to_string())
    }

    /// How a group looks to a device, if it knows the group.
    pub(crate) fn state(&mut self, of: usize, at: usize) -> Option<GroupState> {
        let group = self.circles[of].group;
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
