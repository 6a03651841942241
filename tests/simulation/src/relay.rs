//! The model of the relay: mailboxes that keep a box until it is acknowledged or 30 days old, and the compare-and-swap
//! on slots.

use std::collections::BTreeMap;
use std::rc::Rc;

use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{DeviceId, Digest, SlotId};
use sealpost_wire::payload::{MlsFrame, MlsKind};
use sealpost_wire::slot::SlotClaim;

use crate::dice::Dice;
use crate::faults::Fault;
use crate::hospital::{DAY, HOUR, MINUTE};

/// A message lives this long (seconds).
pub(crate) const BOX_SECONDS_MAX: u64 = 30 * DAY;

/// What is submitted: boxes for devices, with or without a claim on a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Submission {
    /// The transport id.
    pub(crate) id: [u8; 16],
    pub(crate) claim: Option<SlotClaim>,
    pub(crate) boxes: Vec<(DeviceId, Rc<MlsFrame>)>,
}

/// What the relay says to a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// 202.
    Accepted,
    /// 409 `slot_conflict`: the claim has another sequence than the slot.
    Conflict,
    /// 409 `slot_unknown`: a capability for a slot that is not there.
    Unknown,
    /// 403 `slot_forbidden`: not the slot's capability.
    Forbidden,
    /// 409: another submission with this id.
    Mismatch,
    /// 401: the author is revoked.
    Revoked,
}

/// A box that waits for a device.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) number: u64,
    pub(crate) author: DeviceId,
    pub(crate) frame: Rc<MlsFrame>,
    accepted: UnixTime,
    due: UnixTime,
}

/// How badly the network and the relay do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Boxes of a hundred that are lost for good.
    pub(crate) lost: u64,
    /// Boxes of a hundred that come twice.
    pub(crate) twice: u64,
    /// Boxes of a hundred that come late, by up to a day.
    pub(crate) late: u64,
    /// Requests of a hundred that never arrive, and as many answers.
    pub(crate) cut: u64,
}

impl Weather {
    pub(crate) const FAIR: Self = Self { lost: 0, twice: 0, late: 0, cut: 0 };
    pub(crate) const CALM: Self = Self { lost: 0, twice: 5, late: 10, cut: 5 };
    pub(crate) const STORM: Self = Self { lost: 4, twice: 10, late: 20, cut: 15 };
}

/// What was accepted, for those who watch.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    pub(crate) author: DeviceId,
    pub(crate) submission: Submission,
}

/// The relay of one history.
pub(crate) struct Relay {
    fault: Option<Fault>,
    pub(crate) weather: Weather,
    known: BTreeMap<(DeviceId, [u8; 16]), Submission>,
    slots: BTreeMap<SlotId, (u64, Digest)>,
    mailboxes: BTreeMap<DeviceId, Vec<Waiting>>,
    numbered: u64,
    /// What was accepted and nobody has looked at yet.
    pub(crate) accepted: Vec<Accepted>,
    /// What will never come: lost or expired.
    pub(crate) gone: Vec<(DeviceId, Rc<MlsFrame>, &'static str)>,
}

impl Relay {
    pub(crate) const fn new(fault: Option<Fault>, weather: Weather) -> Self {
        Self {
            fault,
            weather,
            known: BTreeMap::new(),
            slots: BTreeMap::new(),
            mailboxes: BTreeMap::new(),
            numbered: 0,
            accepted: Vec::new(),
            gone: Vec::new(),
        }
    }

    /// One decision: the claim, the boxes, the answer. Of what is refused nothing is kept.
    pub(crate) fn submit(
        &mut self,
        author: DeviceId,
        submission: &Submission,
        now: UnixTime,
        dice: &mut Dice,
    ) -> Answer {
        let key = (author, submission.id);
        match self.known.get(&key) {
            Some(known) if known == submission && self.fault != Some(Fault::DuplicateUnrecognised) => {
                return Answer::Accepted;
            }
            Some(known) if known != submission => return Answer::Mismatch,
            _ => {}
        }
        if let Some(claim) = &submission.claim {
            if let Err(answer) = self.decide(claim) {
                return answer;
            }
            self.slots.insert(self.slot_of(claim), (claim.next_sequence().unwrap(), claim.next));
        }
        self.known.insert(key, submission.clone());
        for (device, frame) in &submission.boxes {
            self.put(author, *device, frame, now, dice);
        }
        self.accepted.push(Accepted { author, submission: submission.clone() });
        Answer::Accepted
    }

    fn slot_of(&self, claim: &SlotClaim) -> SlotId {
        if self.fault == Some(Fault::SlotsMixed) { SlotId([0; 16]) } else { claim.slot }
    }

    fn decide(&self, claim: &SlotClaim) -> Result<(), Answer> {
        let fault = self.fault;
        match (self.slots.get(&self.slot_of(claim)), &claim.capability) {
            (None, None) => Ok(()),
            (None, Some(_)) => Err(Answer::Unknown),
            (Some((next, _)), _) if *next != claim.sequence && fault != Some(Fault::SequenceUnchecked) => {
                Err(Answer::Conflict)
            }
            (Some(_), _) if fault == Some(Fault::CapabilityUnchecked) => Ok(()),
            (Some((next, _)), _) if *next != claim.sequence => Ok(()),
            (Some((_, asked)), Some(shown)) if shown.opens(asked) => Ok(()),
            (Some(_), _) => Err(Answer::Forbidden),
        }
    }

    fn put(
        &mut self,
        author: DeviceId,
        device: DeviceId,
        frame: &Rc<MlsFrame>,
        now: UnixTime,
        dice: &mut Dice,
    ) {
        if self.fault == Some(Fault::CallsUnheard) && frame.kind == MlsKind::RejoinRequest {
            return;
        }
        if dice.percent(self.weather.lost) {
            self.gone.push((device, frame.clone(), "lost"));
            return;
        }
        let copies = 1 + u64::from(dice.percent(self.weather.twice));
        for _ in 0..copies {
            let late = match dice.percent(self.weather.late) {
                true if dice.percent(50) => dice.below(20 * MINUTE),
                true => dice.below(24 * HOUR),
                false => 0,
            };
            self.numbered += 1;
            let waiting = Waiting {
                number: self.numbered,
                author,
                frame: frame.clone(),
                accepted: now,
                due: now.plus(late),
            };
            self.mailboxes.entry(device).or_default().push(waiting);
        }
    }

    /// A box that waits for `device`, in any order.
    pub(crate) fn fetch(&mut self, device: DeviceId, now: UnixTime, dice: &mut Dice) -> Option<Waiting> {
        let mailbox = self.mailboxes.get_mut(&device)?;
        let (good, old): (Vec<_>, Vec<_>) =
            mailbox.drain(..).partition(|waiting| now < waiting.accepted.plus(BOX_SECONDS_MAX));
        *mailbox = good;
        for waiting in old {
            self.gone.push((device, waiting.frame, "expired"));
        }
        let due: Vec<_> = mailbox.iter().filter(|waiting| waiting.due <= now).collect();
        if due.is_empty() {
            return None;
        }
        // Mostly in order: chaos in every fetch would leave no time for anything else.
        let at = if self.weather.late > 0 && dice.percent(25) { dice.index(due.len()) } else { 0 };
        Some(due[at].clone())
    }

    pub(crate) fn acknowledge(&mut self, device: DeviceId, number: u64) {
        if let Some(mailbox) = self.mailboxes.get_mut(&device) {
            mailbox.retain(|waiting| waiting.number != number);
        }
    }

    /// Whether a box with this frame still waits for `device`.
    pub(crate) fn holds(&self, device: DeviceId, frame: &MlsFrame) -> bool {
        let mailbox = self.mailboxes.get(&device);
        mailbox.is_some_and(|boxes| boxes.iter().any(|waiting| *waiting.frame == *frame))
    }

    pub(crate) fn is_empty(&self, device: DeviceId) -> bool {
        self.mailboxes.get(&device).is_none_or(Vec::is_empty)
    }

    /// Everything comes now.
    pub(crate) fn heal(&mut self, now: UnixTime) {
        self.weather = Weather::FAIR;
        for waiting in self.mailboxes.values_mut().flatten() {
            waiting.due = waiting.due.min(now);
        }
    }

    /// The slot's next sequence, as who watches it would guess it.
    pub(crate) fn next_sequence(&self, slot: SlotId) -> Option<u64> {
        self.slots.get(&slot).map(|(next, _)| *next)
    }
}
