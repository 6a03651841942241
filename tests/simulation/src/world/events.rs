//! What happens in a history.

use std::rc::Rc;

use rand_core::Rng as _;
use sealpost_group::{CommitPlan, Groups};
use sealpost_wire::id::Digest;
use sealpost_wire::slot::{SlotCapability, SlotClaim};

use super::{Check, LAST_DAY, World};
use crate::client::{Memory, Wish};
use crate::faults::Fault;
use crate::hospital::{DAY, HOUR, LAB, MINUTE, NURSE};
use crate::relay::Submission;

/// How long a device is away (days), and in which steps the others live on.
const ABSENCE: u64 = 60;
const ABSENCE_STEP: u64 = 4;
/// The last day on which that begins: openmls would not take key packages that are made much later than it ends.
const ABSENCE_BEGINS_BY: u64 = 6;

impl World<'_> {
    pub(super) fn something_happens(&mut self) -> Check {
        let at = self.dice.index(self.machines.len());
        let of = self.any_circle();
        match self.dice.below(100) {
            0..36 => {
                let steps = 1 + self.dice.index(6);
                self.run(at, steps)
            }
            36..46 => self.run_all(),
            46..62 => {
                self.say(of, at);
                let steps = self.dice.index(3);
                self.run(at, steps)
            }
            62..70 => self.wait(),
            70..74 => self.race(of),
            74..79 => {
                self.somebody_wishes(of);
                Ok(())
            }
            79..85 => {
                self.machines[at].kill = Some(self.dice.below(4));
                self.run(at, 3)
            }
            85..89 => {
                self.copy(at);
                Ok(())
            }
            89..92 => self.restore(of, at),
            92..94 => self.steal(at),
            94..96 => self.switch(at),
            96..97 => self.revoke(at),
            97..98 => self.intrude(of, at),
            _ => {
                self.claim_from_outside(of, at);
                Ok(())
            }
        }
    }

    fn wait(&mut self) -> Check {
        let long = !self.calm && self.dice.percent(20);
        let seconds = match self.dice.below(4) {
            _ if long => self.dice.below(20 * DAY),
            0 => self.dice.below(12 * HOUR),
            1 => self.dice.below(3 * HOUR),
            _ => self.dice.below(20 * MINUTE),
        };
        let room = self.hospital.start.plus(LAST_DAY * DAY).0.saturating_sub(self.now.0);
        self.now = self.now.plus(seconds.min(room));
        self.note(|| format!("{seconds} seconds pass"));
        if !long {
            return Ok(());
        }
        if self.dice.percent(40) {
            let at = self.dice.index(self.machines.len());
            self.steal(at)?;
        }
        self.run_all()
    }

    /// Several members want to commit at once.
    fn race(&mut self, of: usize) -> Check {
        let members = self.inside(of);
        for at in &members {
            if self.dice.percent(60) {
                self.wish(of, *at, Wish::Update);
            }
        }
        for _ in 0..3 * members.len() {
            if !members.is_empty() {
                let at = members[self.dice.index(members.len())];
                self.run(at, 1)?;
            }
        }
        Ok(())
    }

    fn somebody_wishes(&mut self, of: usize) {
        let inside = self.inside(of);
        let other = self.hospital.device(self.dice.index(self.machines.len()));
        let stewards: Vec<_> = inside.iter().copied().filter(|at| *at == LAB || *at == NURSE).collect();
        let members: Vec<_> = inside.iter().copied().filter(|at| *at != LAB).collect();
        if stewards.is_empty() || members.is_empty() {
            return;
        }
        let steward = stewards[self.dice.index(stewards.len())];
        let member = members[self.dice.index(members.len())];
        match self.dice.below(10) {
            0..6 => self.wish(of, steward, Wish::Add(other)),
            6..8 if other != self.hospital.device(LAB) && other != self.hospital.device(steward) => {
                self.wish(of, steward, Wish::Remove(other));
            }
            8 if self.is_safe_without(member) => self.wish(of, member, Wish::Leave),
            _ => {}
        }
    }

    fn copy(&mut self, at: usize) {
        let readings = self.readings(at);
        let machine = &mut self.machines[at];
        machine.copy = Some((machine.tables.clone(), readings));
        self.note(|| format!("{at} is copied"));
    }

    /// An older copy of a device's store comes back.
    fn restore(&mut self, of: usize, at: usize) -> Check {
        if self.calm || !self.is_safe_without(at) {
            return Ok(());
        }
        let machine = &mut self.machines[at];
        let Some((tables, readings)) = machine.copy.take() else { return Ok(()) };
        machine.tables = tables;
        if self.fault == Some(Fault::RestoreUnnoticed) {
            machine.counter = machine.tables.generation;
        }
        self.tally.restored += 1;
        self.note(|| format!("{at} is restored"));
        self.restored(at, readings);
        self.run(at, 1)?;
        // Its person goes on as if nothing had happened.
        self.say(of, at);
        self.run(at, 4)
    }

    fn switch(&mut self, at: usize) -> Check {
        if self.calm {
            return Ok(());
        }
        let machine = &mut self.machines[at];
        machine.on = !machine.on;
        let on = machine.on;
        self.note(|| format!("{at} is switched {}", if on { "on" } else { "off" }));
        self.run(at, 4)
    }

    /// Somebody's device is off for 60 days while the others go on. What was sent to it in the first half of that
    /// time is gone when it comes back.
    pub(super) fn somebody_is_away(&mut self) -> Check {
        let at = self.scene.index(self.machines.len());
        let late = self.now > self.hospital.start.plus(ABSENCE_BEGINS_BY * DAY);
        if late || self.directory.is_revoked(self.hospital.device(at)) || !self.is_safe_without(at) {
            return Ok(());
        }
        self.machines[at].on = false;
        self.tally.absences += 1;
        self.note(|| format!("{at} is off for {ABSENCE} days"));
        for _ in 0..ABSENCE / ABSENCE_STEP {
            self.now = self.now.plus(ABSENCE_STEP * DAY);
            for of in 0..self.circles.len() {
                let inside = self.inside(of);
                if !inside.is_empty() {
                    let speaker = inside[self.scene.index(inside.len())];
                    self.say(of, speaker);
                }
            }
            self.run_all()?;
        }
        self.note(|| format!("{at} is on again"));
        self.machines[at].on = true;
        Ok(())
    }

    fn revoke(&mut self, at: usize) -> Check {
        let device = self.hospital.device(at);
        if at == LAB || self.directory.is_revoked(device) || !self.is_safe_without(at) {
            return Ok(());
        }
        self.directory.revoke(self.hospital, device, self.now);
        self.note(|| format!("{at} is revoked"));
        Ok(())
    }

    /// Somebody outside the tenant invites a device into a group of its own.
    fn intrude(&mut self, of: usize, at: usize) -> Check {
        let everything = self.hospital.trusting(self.intruder);
        let suite = self.scenery.suite(of);
        let Some(new) = self.directory.take(self.hospital, at, suite, self.now) else { return Ok(()) };
        let mut store = Memory::default();
        let mut rng = self.dice.split();
        let member = &self.intruder.devices[LAB].member;
        let mut groups = Groups::new(member, &everything, self.now, &mut store, &mut rng);
        let group = groups.create("Ward 3", &[], suite).map_err(|error| error.to_string())?;
        let plan = CommitPlan { add: vec![new], ..CommitPlan::default() };
        let staged = groups.stage_commit(group, &plan).map_err(|error| error.to_string())?;
        let boxes = staged.frames.into_iter().flat_map(|outgoing| {
            let frame = Rc::new(outgoing.frame);
            outgoing.to.into_iter().map(move |device| (device, frame.clone()))
        });
        let submission = Submission { id: [0xee; 16], claim: Some(staged.claim), boxes: boxes.collect() };
        self.relay.submit(member.device(), &submission, self.now, &mut self.dice);
        self.note(|| format!("an intruder invites {at}"));
        Ok(())
    }

    /// Somebody who is not in the group claims its slot, with a capability that is none.
    fn claim_from_outside(&mut self, of: usize, at: usize) {
        let device = self.hospital.device(at);
        let Some(state) = self.state(of, LAB) else { return };
        let Some(sequence) = self.relay.next_sequence(state.slot) else { return };
        if self.circles[of].ledger.is_member(device) {
            return;
        }
        let mut bytes = [0; 32];
        self.dice.fill_bytes(&mut bytes);
        let capability = Some(SlotCapability::from_bytes(bytes));
        let claim = SlotClaim { slot: state.slot, sequence, capability, next: Digest(bytes) };
        let mut id = [0; 16];
        self.dice.fill_bytes(&mut id);
        let submission = Submission { id, claim: Some(claim), boxes: vec![] };
        self.relay.submit(device, &submission, self.now, &mut self.dice);
    }

    fn steal(&mut self, at: usize) -> Check {
        // A device that runs has done its daily work.
        self.machines[at].on = true;
        self.machines[at].kill = None;
        self.run(at, 1)?;
        self.note(|| format!("the state of {at} is stolen"));
        self.stolen(at)
    }
}
