//! What is true of a history, kept beside it, and what must hold.
//!
//! **Reachable.** A message that the relay has taken is reachable for a device that its author sent it to, unless
//! 1. its box was lost for good, or was not fetched for 30 days;
//! 2. the device was not in the message's epoch when it processed it: it has passed the epoch over by coming in later
//!    (invited, or back by external commit), or has given up waiting for the epoch's commit after 7 days;
//! 3. the epoch was over at the device by more than 5 epochs or by 7 days;
//! 4. 20 newer messages of the author in that epoch had been opened;
//! 5. the device had learnt that the author is revoked;
//! 6. an older copy of the device's store, or of the author's before the relay had the message, took the place of the
//!    one that held it.
//!
//! Whatever is reachable is opened, once. The conditions 2 to 4 are judged by a model of its own at the moment when the
//! device processes the box, so that a message is never excused because it was not opened.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use sealpost_group::limits::{OUT_OF_ORDER_MAX, PAST_EPOCH_SECONDS_MAX, PAST_EPOCHS_MAX};
use sealpost_group::{Groups, Ignored, MessageId, OutgoingFrame, Processed};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{DeviceId, Digest};
use sealpost_wire::payload::{MlsFrame, MlsKind};
use sealpost_wire::trust::TenantTrust;

use crate::client::{Done, Memory};
use crate::hospital::{DAY, Hospital};
use crate::relay::Accepted;
use crate::world::{Check, Circle, World};

/// Which epochs a device can read, by its own history.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reading {
    /// The epochs since it came in, and when each ended for it.
    current: Vec<Epoch>,
    /// Those before it came in anew.
    former: Vec<Epoch>,
}

#[derive(Clone, Copy, Debug)]
struct Epoch {
    number: u64,
    ended: Option<UnixTime>,
}

impl Reading {
    fn enter(&mut self, number: u64, anew: bool, now: UnixTime) {
        self.end(now);
        if anew {
            self.former = std::mem::take(&mut self.current);
        }
        self.current.push(Epoch { number, ended: None });
    }

    fn end(&mut self, now: UnixTime) {
        if let Some(last) = self.current.last_mut() {
            last.ended.get_or_insert(now);
        }
    }

    fn reads(&self, number: u64, now: UnixTime) -> bool {
        [&self.current, &self.former].into_iter().any(|epochs| {
            let mut newest_first = epochs.iter().rev().enumerate();
            newest_first.any(|(ago, epoch)| {
                let fresh = epoch.ended.is_none_or(|ended| now < ended.plus(PAST_EPOCH_SECONDS_MAX));
                epoch.number == number && ago <= PAST_EPOCHS_MAX && fresh
            })
        })
    }

    /// Epochs whose keys must be gone: over for a week and a day.
    fn long_over(&self, now: UnixTime) -> impl Iterator<Item = u64> {
        let over = move |epoch: &&Epoch| {
            epoch.ended.is_some_and(|ended| ended.plus(PAST_EPOCH_SECONDS_MAX + DAY) < now)
        };
        self.current.iter().chain(&self.former).filter(over).map(|epoch| epoch.number)
    }
}

/// A message that somebody has encrypted.
struct Letter {
    id: MessageId,
    author: usize,
    epoch: u64,
    /// The author's messages in this epoch before it.
    generation: u32,
    frame: Rc<MlsFrame>,
    to: Vec<DeviceId>,
    accepted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Waiting,
    Opened,
    Excused(&'static str),
}

/// A copy of a member's state as it entered an epoch, which hears every message of that epoch.
struct Observer {
    at: usize,
    epoch: u64,
    groups: Memory,
}

/// Somebody who has stolen a device's state, hears everything, and follows the group as far as it can.
struct Thief {
    owner: usize,
    since: u64,
    groups: Memory,
    trust: TenantTrust,
    /// From this epoch on it may open nothing: its owner has updated.
    healed: Option<u64>,
}

struct Claimed {
    by: usize,
    since: u64,
}

/// What is true.
#[derive(Default)]
pub(crate) struct Ledger {
    letters: Vec<Letter>,
    by_body: BTreeMap<Digest, usize>,
    fates: BTreeMap<(usize, usize), Fate>,
    readings: BTreeMap<usize, Reading>,
    authenticators: BTreeMap<u64, Digest>,
    rosters: BTreeMap<u64, BTreeSet<DeviceId>>,
    observers: Vec<Observer>,
    thieves: Vec<Thief>,
    claims: BTreeMap<[u8; 16], Claimed>,
    /// What each device has processed to an end.
    used: BTreeMap<usize, BTreeSet<Digest>>,
    first_sequence: Option<u64>,
    frontier: u64,
    ticks: u64,
}

impl Ledger {
    pub(crate) fn reading(&mut self, at: usize) -> &mut Reading {
        self.readings.entry(at).or_default()
    }

    /// The epoch that the newest accepted commit begins.
    pub(crate) const fn frontier(&self) -> u64 {
        self.frontier
    }

    /// The newest epoch that somebody is in, and its authenticator.
    pub(crate) fn newest(&self) -> Option<(u64, Digest)> {
        self.authenticators.last_key_value().map(|(epoch, authenticator)| (*epoch, *authenticator))
    }

    pub(crate) fn is_member(&self, device: DeviceId) -> bool {
        self.rosters.last_key_value().is_some_and(|(_, roster)| roster.contains(&device))
    }

    fn letter_of(&self, frame: &MlsFrame) -> Option<usize> {
        self.by_body.get(&Digest::of(&frame.body)).copied()
    }
}

impl World<'_> {
    /// Looks at what a step has done.
    pub(crate) fn after(&mut self, at: usize, done: Done) -> Check {
        let outbox = &self.machines[at].tables.outbox;
        for Circle { group, ledger, .. } in &mut self.circles {
            ledger.ticks += 1;
            let since = ledger.ticks;
            let claims = outbox.iter().filter(|out| out.group == *group && out.submission.claim.is_some());
            for outgoing in claims {
                ledger.claims.entry(outgoing.submission.id).or_insert(Claimed { by: at, since });
            }
        }
        match done {
            Done::Wrote { id, frame } => match self.circle_of(frame.frame.group) {
                Some(of) => self.wrote(of, at, id, frame),
                None => Ok(()),
            },
            Done::Settled { group, won: true, came_back } => match self.circle_of(group) {
                Some(of) => {
                    self.tally.came_back += u64::from(came_back);
                    self.entered(of, at, came_back)
                }
                None => Ok(()),
            },
            Done::Received { author, frame, processed } => match self.circle_of(frame.group) {
                Some(of) => self.received(of, at, author, &frame, &processed),
                None => Ok(()),
            },
            Done::GaveUp(frames) => {
                for frame in frames {
                    self.excuse(at, &frame, "its epoch never came");
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A device is in an epoch now: the same for all who are in it.
    pub(crate) fn entered(&mut self, of: usize, at: usize, anew: bool) -> Check {
        let (group, now) = (self.circles[of].group, self.clock_of(at));
        let state = self.with_groups(at, |groups| groups.state(group))?;
        let members = self.with_groups(at, |groups| groups.members(group))?;
        let roster: BTreeSet<_> = members.into_iter().map(|entry| entry.device).collect();
        let ledger = &mut self.circles[of].ledger;
        let authenticator = *ledger.authenticators.entry(state.epoch).or_insert(state.authenticator);
        if authenticator != state.authenticator {
            return Err(format!("{at} is in a fork of epoch {}", state.epoch));
        }
        if *ledger.rosters.entry(state.epoch).or_insert_with(|| roster.clone()) != roster {
            return Err(format!("{at} counts other members in epoch {}", state.epoch));
        }
        ledger.reading(at).enter(state.epoch, anew, now);
        if ledger.observers.iter().filter(|observer| observer.epoch == state.epoch).count() < 2 {
            let groups = self.machines[at].tables.groups.clone();
            ledger.observers.push(Observer { at, epoch: state.epoch, groups });
        }
        self.tally.epochs = self.tally.epochs.max(state.epoch);
        Ok(())
    }

    /// A message was encrypted: at a place where none was before, for those who are in and nobody else.
    fn wrote(&mut self, of: usize, at: usize, id: MessageId, outgoing: OutgoingFrame) -> Check {
        let Some(state) = self.state(of, at) else { return Ok(()) };
        let ledger = &mut self.circles[of].ledger;
        let OutgoingFrame { to, frame } = outgoing;
        let frame = Rc::new(frame);
        let epoch = state.epoch;
        let earlier = ledger.letters.iter().filter(|letter| (letter.author, letter.epoch) == (at, epoch));
        let generation = u32::try_from(earlier.count()).unwrap();
        let author = self.hospital.device(at);
        let observer =
            ledger.observers.iter_mut().find(|observer| observer.epoch == epoch && observer.at != at);
        if let Some(observer) = observer {
            let trust = &self.hospital.trust;
            let hears =
                process(self.hospital, observer.at, trust, self.now, &mut observer.groups, author, &frame);
            if matches!(hears, Processed::Duplicate) {
                return Err(format!("{at} has used one key of epoch {epoch} for two messages"));
            }
        }
        let letter = ledger.letters.len();
        for device in &to {
            let reader = self.hospital.place_of(*device).ok_or("a message for a stranger")?;
            ledger.fates.insert((letter, reader), Fate::Waiting);
        }
        ledger.by_body.insert(Digest::of(&frame.body), letter);
        ledger.letters.push(Letter { id, author: at, epoch, generation, frame, to, accepted: false });
        self.tally.written += 1;
        self.nobody_else_opens(of, letter)
    }

    /// Those who are not in the message's epoch open nothing, whatever they hear.
    fn nobody_else_opens(&self, of: usize, letter: usize) -> Check {
        let ledger = &self.circles[of].ledger;
        let Letter { author, epoch, frame, .. } = &ledger.letters[letter];
        let Some(roster) = ledger.rosters.get(epoch) else { return Ok(()) };
        for machine in &self.machines {
            let device = self.hospital.device(machine.at);
            if roster.contains(&device) || machine.at == *author {
                continue;
            }
            let mut groups = machine.tables.groups.clone();
            let (author, now) = (self.hospital.device(*author), self.clock_of(machine.at));
            let hears = process(self.hospital, machine.at, &machine.trust, now, &mut groups, author, frame);
            if matches!(hears, Processed::Message(_)) {
                return Err(format!("{} opens a message of epoch {epoch}, which it was not in", machine.at));
            }
        }
        Ok(())
    }

    fn received(
        &mut self,
        of: usize,
        at: usize,
        author: DeviceId,
        frame: &Rc<MlsFrame>,
        processed: &Processed,
    ) -> Check {
        let (body, now) = (Digest::of(&frame.body), self.clock_of(at));
        match processed {
            Processed::Message(_) | Processed::Asked { .. } => {
                self.circles[of].ledger.used.entry(at).or_default().insert(body);
            }
            Processed::Changed(_) => self.entered(of, at, false)?,
            Processed::Joined { .. } => self.entered(of, at, true)?,
            Processed::Removed { .. } => self.circles[of].ledger.reading(at).end(now),
            Processed::Duplicate if !self.circles[of].ledger.used.entry(at).or_default().contains(&body) => {
                return Err(format!("{at} has read another message with the same key"));
            }
            _ => {}
        }
        if matches!(processed, Processed::Joined { .. })
            && self.directory.is_revoked(author)
            && self.machines[at].trust.check_device(author).is_err()
        {
            return Err(format!("{at} has come in by a revoked steward"));
        }
        let ledger = &mut self.circles[of].ledger;
        let Some(letter) = ledger.letter_of(frame) else { return Ok(()) };
        let later = match processed {
            Processed::SettleStagedFirst | Processed::NeedsRejoin { .. } => true,
            Processed::Refused(refusal) => refusal.may_pass_later(),
            Processed::Ignored(Ignored::NotMember) => {
                let epoch = ledger.letters[letter].epoch;
                !ledger.reading(at).reads(epoch, now)
            }
            processed => *processed == Processed::Ignored(Ignored::UnknownGroup),
        };
        if later {
            return Ok(());
        }
        match (processed, ledger.fates.get(&(letter, at)).copied()) {
            (Processed::Message(_), Some(Fate::Opened)) => Err(format!("{at} has opened a message twice")),
            (Processed::Message(_), _) => {
                ledger.fates.insert((letter, at), Fate::Opened);
                Ok(())
            }
            (processed, Some(Fate::Waiting)) => self.unread(of, at, letter, processed),
            _ => Ok(()),
        }
    }

    /// A device has not opened a message. There must be a reason.
    fn unread(&mut self, of: usize, at: usize, letter: usize, processed: &Processed) -> Check {
        let now = self.clock_of(at);
        let ledger = &mut self.circles[of].ledger;
        let Letter { author, epoch, generation, .. } = ledger.letters[letter];
        let newest = ledger.letters.iter().enumerate().filter(|(number, other)| {
            (other.author, other.epoch) == (author, epoch)
                && ledger.fates.get(&(*number, at)) == Some(&Fate::Opened)
        });
        let newest = newest.map(|(_, other)| other.generation).max();
        let reason = if self.machines[at].trust.check_device(self.hospital.device(author)).is_err() {
            "its author is revoked"
        } else if newest.is_some_and(|newest| generation + OUT_OF_ORDER_MAX <= newest) {
            "too many newer messages"
        } else if !ledger.reading(at).reads(epoch, now) {
            "not in its epoch, or too long ago"
        } else {
            return Err(format!("{at} could have opened a message of epoch {epoch}: {processed:?}"));
        };
        ledger.fates.insert((letter, at), Fate::Excused(reason));
        Ok(())
    }

    fn excuse(&mut self, at: usize, frame: &MlsFrame, reason: &'static str) {
        let Some(of) = self.circle_of(frame.group) else { return };
        let ledger = &mut self.circles[of].ledger;
        let Some(letter) = ledger.letter_of(frame) else { return };
        if let Some(fate) = ledger.fates.get_mut(&(letter, at)).filter(|fate| **fate == Fate::Waiting) {
            *fate = Fate::Excused(reason);
        }
    }

    /// Looks at what the relay has taken, and at what will never come.
    pub(crate) fn watch_the_relay(&mut self) -> Check {
        for accepted in std::mem::take(&mut self.relay.accepted) {
            for of in 0..self.circles.len() {
                self.taken(of, &accepted)?;
            }
        }
        for (device, frame, how) in std::mem::take(&mut self.relay.gone) {
            if let Some(at) = self.hospital.place_of(device)
                && !self.relay.holds(device, &frame)
            {
                self.excuse(at, &frame, how);
            }
        }
        Ok(())
    }

    /// The relay has taken a submission: what of it is the circle's.
    fn taken(&mut self, of: usize, accepted: &Accepted) -> Check {
        let Accepted { author, submission } = accepted;
        let Circle { group, slot, ledger } = &mut self.circles[of];
        let frames = submission.boxes.iter().map(|(_, frame)| frame).filter(|frame| frame.group == *group);
        let mut frames: Vec<_> = frames.cloned().collect();
        frames.dedup();
        let claim = submission.claim.as_ref().filter(|claim| claim.slot == *slot);
        if let Some(claim) = claim.filter(|_| !frames.is_empty() || ledger.frontier == 0) {
            let first = *ledger.first_sequence.get_or_insert(claim.sequence);
            ledger.frontier = ledger.frontier.max(claim.sequence.wrapping_sub(first) + 1);
            let healed = Some(claim.sequence.wrapping_sub(first) + 1);
            if let Some(claimed) = ledger.claims.get(&submission.id) {
                for thief in &mut ledger.thieves {
                    if thief.owner == claimed.by && thief.since < claimed.since {
                        thief.healed = thief.healed.or(healed);
                    }
                }
            }
        }
        for frame in &frames {
            let ledger = &mut self.circles[of].ledger;
            if let Some(letter) = ledger.letter_of(frame) {
                ledger.letters[letter].accepted = true;
            }
            self.overheard(of, *author, frame)?;
        }
        Ok(())
    }

    /// The thieves hear everything that goes over the wire.
    fn overheard(&mut self, of: usize, author: DeviceId, frame: &Rc<MlsFrame>) -> Check {
        if frame.kind != MlsKind::Message {
            return Ok(());
        }
        let ledger = &mut self.circles[of].ledger;
        let epoch = ledger.letter_of(frame).map(|letter| ledger.letters[letter].epoch);
        let (hospital, now) = (self.hospital, self.now);
        for thief in &mut ledger.thieves {
            let Thief { owner, groups, trust, .. } = thief;
            let mut hears = process(hospital, *owner, trust, now, groups, author, frame);
            if hears == Processed::SettleStagedFirst {
                let mut rng = crate::dice::Dice::new(0);
                let member = &hospital.devices[*owner].member;
                let mut theirs = Groups::new(member, trust, now, groups, &mut rng);
                if theirs.merge_staged(frame.group).is_ok() {
                    hears = process(hospital, *owner, trust, now, groups, author, frame);
                }
            }
            let opens = matches!(hears, Processed::Message(_));
            if let (true, Some(healed), Some(epoch)) = (opens, thief.healed, epoch)
                && epoch >= healed
            {
                let owner = thief.owner;
                return Err(format!("what was stolen from {owner} opens epoch {epoch}, healed in {healed}"));
            }
        }
        Ok(())
    }

    /// Somebody copies a device's state: keys of epochs that have been over for more than a week are not in it.
    pub(crate) fn stolen(&mut self, at: usize) -> Check {
        let now = self.clock_of(at);
        let machine = &self.machines[at];
        for Circle { ledger, .. } in &mut self.circles {
            let long_over: BTreeSet<_> = ledger.reading(at).long_over(now).collect();
            for letter in ledger.letters.iter().filter(|letter| long_over.contains(&letter.epoch)) {
                let mut groups = machine.tables.groups.clone();
                let author = self.hospital.device(letter.author);
                let trust = &self.hospital.trust;
                let hears = process(self.hospital, at, trust, now, &mut groups, author, &letter.frame);
                if matches!(hears, Processed::Message(_)) {
                    return Err(format!("{at} has kept the keys of epoch {}", letter.epoch));
                }
            }
            if ledger.thieves.len() < 4 {
                ledger.thieves.push(Thief {
                    owner: at,
                    since: ledger.ticks,
                    groups: machine.tables.groups.clone(),
                    trust: machine.trust.clone(),
                    healed: None,
                });
            }
        }
        Ok(())
    }

    /// What could be read with a device's store as it is.
    pub(crate) fn readings(&mut self, at: usize) -> Vec<Reading> {
        self.circles.iter_mut().map(|circle| circle.ledger.reading(at).clone()).collect()
    }

    /// An older copy has taken the place of a device's store: what only the newer one held is gone.
    pub(crate) fn restored(&mut self, at: usize, readings: Vec<Reading>) {
        const REASON: &str = "an older copy came back";
        let device = self.hospital.device(at);
        let tables = &self.machines[at].tables;
        for (Circle { ledger, .. }, reading) in self.circles.iter_mut().zip(readings) {
            *ledger.reading(at) = reading;
            for (number, letter) in ledger.letters.iter().enumerate() {
                if letter.author == at && !letter.accepted {
                    let goes_out = |(_, frame): &(DeviceId, Rc<MlsFrame>)| *frame == letter.frame;
                    if !tables.outbox.iter().any(|outgoing| outgoing.submission.boxes.iter().any(goes_out)) {
                        for device in &letter.to {
                            let reader = self.hospital.place_of(*device).unwrap_or(at);
                            ledger.fates.insert((number, reader), Fate::Excused(REASON));
                        }
                    }
                }
                let Some(fate) = ledger.fates.get_mut(&(number, at)) else { continue };
                let kept = tables.messages.iter().any(|message| message.content.id == letter.id);
                let comes = !letter.accepted
                    || self.relay.holds(device, &letter.frame)
                    || tables.held.iter().any(|held| held.frame == letter.frame);
                *fate = match *fate {
                    Fate::Opened | Fate::Waiting if kept => Fate::Opened,
                    Fate::Opened | Fate::Waiting if comes => Fate::Waiting,
                    Fate::Opened | Fate::Waiting => Fate::Excused(REASON),
                    excused @ Fate::Excused(_) => excused,
                };
            }
        }
    }

    /// Everybody has what is reachable, once; nobody has what is not; nobody is in another group.
    pub(crate) fn check_the_end(&mut self) -> Check {
        for at in 0..self.machines.len() {
            let groups = self.with_groups(at, |groups| groups.list())?;
            if groups.iter().any(|group| self.circle_of(*group).is_none()) {
                return Err(format!("{at} is in the group of an intruder"));
            }
            let mut had = BTreeSet::new();
            for message in &self.machines[at].tables.messages {
                if !had.insert(message.content.id) {
                    return Err(format!("{at} has a message twice"));
                }
            }
            for of in 0..self.circles.len() {
                self.check_letters(of, at, &had)?;
            }
        }
        for of in 0..self.circles.len() {
            for letter in 0..self.circles[of].ledger.letters.len() {
                self.nobody_else_opens(of, letter)?;
            }
        }
        Ok(())
    }

    /// A device that has these messages has all that it should have of a circle.
    fn check_letters(&mut self, of: usize, at: usize, had: &BTreeSet<MessageId>) -> Check {
        let ledger = &self.circles[of].ledger;
        let revoked = self.directory.is_revoked(self.hospital.device(at));
        let member = ledger.is_member(self.hospital.device(at));
        let tables = &self.machines[at].tables;
        let held = |frame: &Rc<MlsFrame>| tables.held.iter().any(|held| held.frame == *frame);
        for (number, letter) in ledger.letters.iter().enumerate() {
            match ledger.fates.get(&(number, at)) {
                Some(Fate::Opened) if !had.contains(&letter.id) => {
                    return Err(format!("{at} has lost a message that it had opened"));
                }
                Some(Fate::Opened) => self.tally.opened += 1,
                Some(Fate::Excused(reason)) => *self.tally.excused.entry(reason).or_default() += 1,
                Some(Fate::Waiting) if revoked || !member && held(&letter.frame) => {}
                Some(Fate::Waiting) => {
                    let Letter { author, epoch, accepted, .. } = letter;
                    // Who is out may still be trying to send what it wrote before.
                    if *accepted || ledger.is_member(self.hospital.device(*author)) {
                        return Err(format!("{at} never got a message of {author} in epoch {epoch}"));
                    }
                }
                None => {}
            }
        }
        Ok(())
    }
}

/// What a state makes of a frame.
fn process(
    hospital: &Hospital,
    at: usize,
    trust: &TenantTrust,
    now: UnixTime,
    store: &mut Memory,
    author: DeviceId,
    frame: &MlsFrame,
) -> Processed {
    let mut rng = crate::dice::Dice::new(0);
    let mut groups = Groups::new(&hospital.devices[at].member, trust, now, store, &mut rng);
    groups.process(author, frame).unwrap_or(Processed::Ignored(Ignored::NotMember))
}
