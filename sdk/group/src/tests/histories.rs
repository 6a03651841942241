//! Histories that follow from a seed: members come, go, commit at once, write, are restored from copies, and their
//! boxes come late, twice and in any order. At the end all who are in agree.

use std::collections::VecDeque;

use rand_core::Rng as _;
use sealpost_wire::id::DeviceId;
use sealpost_wire::payload::MlsFrame;

use super::world::{Dice, Memory, World};
use crate::{CommitPlan, GroupError, Ignored, OutgoingFrame, Processed, Standing};

const DEVICES: usize = 5;
const STEPS: usize = 70;
const SEEDS: u64 = 12;

type Boxes = VecDeque<(DeviceId, MlsFrame)>;

struct History {
    world: World,
    boxes: Vec<Boxes>,
    copies: Vec<Option<Memory>>,
    restored: [bool; DEVICES],
    /// Who has asked for the group info, and not come back yet.
    asked: [bool; DEVICES],
    dice: Dice,
    messages: usize,
}

#[test]
fn all_who_are_in_agree_in_the_end() {
    let mut messages = 0;
    for seed in 0..SEEDS {
        let mut history = History::new(seed);
        for _ in 0..STEPS {
            history.step();
        }
        history.settle();
        messages += history.messages;
    }
    assert!(messages > 100, "{messages} messages were read");
}

impl History {
    fn new(seed: u64) -> Self {
        let mut world = World::new(&["m1", "m2"]);
        for name in 3..DEVICES {
            let device = world.tenant.device(&format!("m{name}"));
            world.devices.push(device);
        }
        Self {
            world,
            boxes: vec![Boxes::new(); DEVICES],
            copies: vec![None; DEVICES],
            restored: [false; DEVICES],
            asked: [false; DEVICES],
            dice: Dice::new(&format!("history {seed}")),
            messages: 0,
        }
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.dice.next_u64() % end as u64).unwrap()
    }

    fn standing(&mut self, at: usize) -> Option<Standing> {
        let group = self.world.group;
        match self.world.devices[at].groups().state(group) {
            Ok(state) => Some(state.standing),
            Err(GroupError::UnknownGroup | GroupError::NotMember) => None,
            Err(error) => panic!("{error:?}"),
        }
    }

    fn post(&mut self, by: usize, frames: &[OutgoingFrame]) {
        let author = self.world.devices[by].id();
        for outgoing in frames {
            for (at, device) in self.world.devices.iter().enumerate() {
                if outgoing.to.contains(&device.id()) {
                    self.boxes[at].push_back((author, outgoing.frame.clone()));
                }
            }
        }
    }

    fn step(&mut self) {
        let at = self.below(DEVICES);
        match self.below(12) {
            0..=4 => self.receive(at),
            5 | 6 => self.write(at),
            7 => self.commit(at, &CommitPlan::default()),
            8 => self.invite(at),
            9 if at != 0 => self.remove(at),
            10 => self.race(at),
            11 if at != 0 => self.copy_or_restore(at),
            _ => self.receive(at),
        }
    }

    /// One of the oldest boxes, sometimes twice.
    fn receive(&mut self, at: usize) {
        if self.boxes[at].is_empty() {
            return;
        }
        let pick = self.below(self.boxes[at].len().min(4));
        let (author, frame) = self.boxes[at].remove(pick).unwrap();
        if self.below(5) == 0 {
            self.boxes[at].push_back((author, frame.clone()));
        }
        if self.process(at, author, &frame) {
            self.boxes[at].push_back((author, frame));
        }
    }

    /// Whether the box is to come again.
    fn process(&mut self, at: usize, author: DeviceId, frame: &MlsFrame) -> bool {
        let group = self.world.group;
        match self.world.devices[at].process(author, frame) {
            Processed::Message(_) => {
                self.messages += 1;
                false
            }
            Processed::NeedsRejoin { .. }
            | Processed::SettleStagedFirst
            | Processed::Ignored(Ignored::UnknownGroup | Ignored::NotMember) => true,
            Processed::GroupInfoWanted { by, .. } => {
                if let Ok(info) = self.world.devices[at].groups().group_info(group, by) {
                    self.post(at, &[info]);
                }
                false
            }
            Processed::GroupInfoOffered { by, .. } => {
                if self.asked[at] {
                    self.rejoin(at, by, frame);
                }
                false
            }
            Processed::Refused(refusal) => refusal.may_pass_later(),
            _ => false,
        }
    }

    fn write(&mut self, at: usize) {
        let group = self.world.group;
        let device = &mut self.world.devices[at];
        let content = super::world::text_of(&mut device.dice, device.now, "hello");
        if let Ok(said) = device.groups().send(group, &content) {
            self.post(at, &[said]);
        }
    }

    fn commit(&mut self, at: usize, plan: &CommitPlan) {
        let group = self.world.group;
        let Ok(staged) = self.world.devices[at].groups().stage_commit(group, plan) else { return };
        if self.world.slot.claim(&staged.claim) {
            self.world.devices[at].groups().merge_staged(group).unwrap();
            self.post(at, &staged.frames);
        } else {
            self.world.devices[at].groups().discard_staged(group).unwrap();
        }
    }

    /// The steward invites somebody who is not in, as far as it knows.
    fn invite(&mut self, at: usize) {
        let (group, who) = (self.world.group, self.world.devices[at].id());
        if self.world.devices[0].in_group(group).contains(&who) {
            return;
        }
        let suite = self.world.suite();
        let add = vec![self.world.devices[at].invited(suite)];
        self.commit(0, &CommitPlan { add, ..CommitPlan::default() });
    }

    fn remove(&mut self, at: usize) {
        let remove = vec![self.world.devices[at].id()];
        self.commit(0, &CommitPlan { remove, ..CommitPlan::default() });
    }

    /// Two commit at once: one of them wins, if both know the newest epoch.
    fn race(&mut self, at: usize) {
        let group = self.world.group;
        let other = (at + 1) % DEVICES;
        let staged: Vec<_> = [at, other]
            .into_iter()
            .filter_map(|at| {
                let staged = self.world.devices[at].groups().stage_commit(group, &CommitPlan::default());
                staged.ok().map(|staged| (at, staged))
            })
            .collect();
        let mut won = 0;
        for (at, staged) in staged {
            if self.world.slot.claim(&staged.claim) {
                won += 1;
                self.world.devices[at].groups().merge_staged(group).unwrap();
                self.post(at, &staged.frames);
            } else {
                // The loser hears of the winner before or after it forgets its own.
                if self.below(2) == 0 {
                    self.receive(at);
                }
                match self.world.devices[at].groups().discard_staged(group) {
                    Ok(()) | Err(GroupError::NothingStaged) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
        assert!(won <= 1);
    }

    fn copy_or_restore(&mut self, at: usize) {
        match self.copies[at].take() {
            None => self.copies[at] = Some(self.world.devices[at].store.clone()),
            Some(copy) => {
                self.world.devices[at].store = copy;
                self.world.devices[at].groups().mark_restored().unwrap();
                self.restored[at] = true;
            }
        }
    }

    fn rejoin(&mut self, at: usize, by: DeviceId, info: &MlsFrame) {
        let group = self.world.group;
        let Ok(staged) = self.world.devices[at].groups().rejoin(by, info, None) else { return };
        if self.world.slot.claim(&staged.claim) {
            self.world.devices[at].groups().merge_staged(group).unwrap();
            self.asked[at] = false;
            self.post(at, &staged.frames);
        } else {
            self.world.devices[at].groups().discard_staged(group).unwrap();
        }
    }

    fn is_known(&mut self, at: usize) -> bool {
        let (group, who) = (self.world.group, self.world.devices[at].id());
        self.world.devices[0].in_group(group).contains(&who)
    }

    fn deliver_all(&mut self) {
        for at in 0..DEVICES {
            for _ in 0..self.boxes[at].len() {
                let (author, frame) = self.boxes[at].pop_front().unwrap();
                if self.process(at, author, &frame) {
                    self.boxes[at].push_back((author, frame));
                }
            }
        }
    }

    /// Every box comes, and who is behind comes back. Then all who are in hear each other.
    fn settle(&mut self) {
        let group = self.world.group;
        for round in 0.. {
            assert!(round < 20, "they do not come to rest");
            for _ in 0..4 {
                self.deliver_all();
            }
            // The steward is never restored: it is always in.
            let newest = self.world.devices[0].epoch(group);
            let mut behind = 0;
            for at in 1..DEVICES {
                let is_behind = match self.standing(at) {
                    Some(Standing::In) => self.world.devices[at].epoch(group) != newest,
                    Some(Standing::Lost) => true,
                    _ => false,
                };
                // Who was removed and has not heard of it (the commit came before the copy that was restored) asks
                // for nothing that it would be given.
                let is_behind = is_behind && self.is_known(at);
                if is_behind {
                    behind += 1;
                    self.asked[at] = true;
                    let asks = self.world.devices[at].groups().ask_to_rejoin(group).unwrap();
                    self.post(at, &[asks]);
                }
            }
            if behind == 0 {
                break;
            }
        }
        let members = self.world.devices[0].in_group(group);
        let mut inside = Vec::new();
        for at in 0..DEVICES {
            if members.contains(&self.world.devices[at].id()) {
                match self.standing(at) {
                    Some(Standing::In) => inside.push(at),
                    // What it came in by was not in the copy, or its welcome came after its key packages were
                    // deleted: it would have to be invited anew.
                    standing => assert!(self.restored[at], "{at} is {standing:?}"),
                }
            }
        }
        let state = self.world.devices[0].groups().state(group).unwrap();
        for at in &inside {
            let theirs = self.world.devices[*at].groups().state(group).unwrap();
            assert_eq!((theirs.epoch, theirs.authenticator), (state.epoch, state.authenticator), "{at}");
        }
        for by in &inside {
            let said = self.world.devices[*by].say(group, "in the end");
            let author = self.world.devices[*by].id();
            for at in inside.iter().filter(|at| *at != by) {
                let outcome = self.world.devices[*at].process(author, &said.frame);
                assert!(matches!(outcome, Processed::Message(_)), "{by} to {at}: {outcome:?}");
            }
        }
    }
}
