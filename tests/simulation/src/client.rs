//! What a device does with groups: the loop around [`Groups`], one bounded step after another.
//!
//! Every step is one transaction of the store, or one request and the transaction that takes in its answer. Nothing is
//! remembered between steps but what the store holds, so that a process can end between any two of them. What goes out
//! is durable before it is first sent, and comes out of the store byte by byte the same when it is sent again.
//!
//! - A commit is staged, submitted, and merged when the relay has taken it; if another one won, it is discarded, the
//!   winner is processed, and what it was for is staged anew.
//! - A frame that cannot be used yet is kept, and tried again after every change.
//! - A device whose store is an older copy, that misses a commit, or that loses again and again without seeing a winner,
//!   asks for the group info and comes back by external commit. Who does not know the group any more asks the stewards,
//!   who invite it anew.

mod outside;
mod tables;
mod transaction;

use std::rc::Rc;

use sealpost_group::{GroupError, GroupSuite, Member, MessageId, OutgoingFrame, Processed};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{DeviceId, GroupId};
use sealpost_wire::payload::MlsFrame;
use sealpost_wire::trust::TenantTrust;

pub(crate) use outside::{Killed, NoAnswer, Outside, Store};
pub(crate) use tables::{Memory, Tables, Upload, Wish};

use crate::dice::Dice;
use crate::hospital::DAY;
use crate::relay::Answer;
use tables::{GRACE_SECONDS, Held};
use transaction::Transaction;

/// Frames that cannot be used are kept this long (seconds).
const HELD_SECONDS_MAX: u64 = 7 * DAY;
/// Fewer key packages than this at the keyserver: more are made.
const KEY_PACKAGES_LEFT_MIN: usize = 2;
const KEY_PACKAGES_MADE: usize = 3;
/// How often a device asks for the way back in before it gives up.
const ASKS_MAX: u32 = 40;

/// Why a step was not finished.
#[derive(Debug)]
pub(crate) enum Stopped {
    Killed,
    Group(GroupError),
}

impl From<Killed> for Stopped {
    fn from(Killed: Killed) -> Self {
        Self::Killed
    }
}

impl From<GroupError> for Stopped {
    fn from(error: GroupError) -> Self {
        Self::Group(error)
    }
}

/// What a step has done, and what the store holds now.
#[derive(Debug)]
pub(crate) enum Done {
    Nothing,
    /// Something between the device and its servers.
    Housekeeping,
    /// The store was an older copy.
    Restored,
    /// A message was encrypted.
    Wrote {
        id: MessageId,
        frame: OutgoingFrame,
    },
    /// A commit was staged.
    Staged,
    /// The relay has decided on a commit.
    Settled {
        group: GroupId,
        won: bool,
        came_back: bool,
    },
    /// A frame was processed.
    Received {
        author: DeviceId,
        frame: Rc<MlsFrame>,
        processed: Processed,
    },
    /// Held frames were given up.
    GaveUp(Vec<Rc<MlsFrame>>),
}

/// A device's process.
pub(crate) struct Client<'c> {
    pub(crate) member: &'c Member,
    pub(crate) trust: &'c mut TenantTrust,
    pub(crate) now: UnixTime,
    /// The suites of groups that it may be invited to.
    pub(crate) suites: &'c [GroupSuite],
    pub(crate) rng: &'c mut Dice,
    pub(crate) store: &'c mut dyn Store,
    pub(crate) outside: &'c mut dyn Outside,
}

/// One kind of thing that there may be to do.
type Part<'c> = fn(&mut Client<'c>) -> Result<Done, Stopped>;

impl<'c> Client<'c> {
    /// Does the next thing that is to be done.
    pub(crate) fn step(&mut self) -> Result<Done, Stopped> {
        if self.store.is_older_copy() {
            return self.transaction(|tx| tx.take_copy());
        }
        self.take_status()?;
        let parts: [Part<'c>; 8] = [
            Self::submit,
            Self::receive,
            Self::try_held,
            Self::come_back,
            Self::commit,
            Self::leave,
            Self::write,
            Self::stock_key_packages,
        ];
        for part in parts {
            let done = part(self)?;
            if !matches!(done, Done::Nothing) {
                return Ok(done);
            }
        }
        Ok(Done::Nothing)
    }

    /// To be called daily.
    pub(crate) fn tend(&mut self) -> Result<(), Stopped> {
        self.transaction(|tx| {
            tx.groups().forget_old_epochs()?;
            tx.groups().forget_old_key_packages()
        })
    }

    pub(crate) fn transaction<T>(
        &mut self,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, GroupError>,
    ) -> Result<T, Stopped> {
        let mut tx = self.begin();
        let value = work(&mut tx)?;
        let mut tables = tx.tables;
        tables.generation += 1;
        self.store.commit(tables)?;
        Ok(value)
    }

    /// What a transaction would say that is not committed.
    fn look<T>(
        &mut self,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, GroupError>,
    ) -> Result<T, Stopped> {
        Ok(work(&mut self.begin())?)
    }

    fn begin(&mut self) -> Transaction<'_> {
        Transaction {
            tables: self.store.tables().clone(),
            member: self.member,
            trust: self.trust,
            now: self.now,
            rng: self.rng,
        }
    }

    fn take_status(&mut self) -> Result<(), Stopped> {
        let newest = self.outside.status();
        if newest.is_none() || newest == self.store.tables().status {
            return Ok(());
        }
        if newest.as_deref().is_some_and(|status| self.trust.accept_status(status, self.now).is_ok()) {
            self.transaction(|tx| {
                tx.tables.status = newest;
                tx.tables.changes += 1;
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Sends what is due, and takes in the answer.
    fn submit(&mut self) -> Result<Done, Stopped> {
        let now = self.now;
        let due = self.store.tables().outbox.iter().find(|outgoing| outgoing.due <= now).cloned();
        let Some(outgoing) = due else { return Ok(Done::Nothing) };
        let (id, group) = (outgoing.submission.id, outgoing.group);
        let answer = self.outside.submit(&outgoing.submission);
        self.transaction(|tx| match answer {
            Err(NoAnswer) => {
                let pause = tx.pause(outgoing.tries);
                if let Some(kept) = tx.tables.outbox.iter_mut().find(|kept| kept.submission.id == id) {
                    kept.tries += 1;
                    kept.due = now.plus(pause);
                }
                Ok(Done::Housekeeping)
            }
            Ok(Answer::Unknown) => {
                // The relay has forgotten the slot: the claim makes it anew.
                for kept in tx.tables.outbox.iter_mut().filter(|kept| kept.submission.id == id) {
                    kept.submission.claim.iter_mut().for_each(|claim| claim.capability = None);
                }
                Ok(Done::Housekeeping)
            }
            Ok(answer) => {
                tx.tables.outbox.retain(|kept| kept.submission.id != id);
                if outgoing.submission.claim.is_none() {
                    return Ok(Done::Housekeeping);
                }
                // An invitation may have overtaken the answer: the commit that it ended is forgotten then.
                let won = answer == Answer::Accepted && tx.groups().state(group)?.staged;
                if won {
                    tx.win(group)?;
                } else if answer != Answer::Accepted {
                    tx.lose(group)?;
                }
                Ok(Done::Settled { group, won, came_back: outgoing.came_back })
            }
        })
    }

    /// Processes a box that has come. It is acknowledged when what became of it is durable.
    fn receive(&mut self) -> Result<Done, Stopped> {
        let Some(waiting) = self.outside.waiting() else { return Ok(Done::Nothing) };
        let own_set = self.outside.own_set();
        let (author, frame) = (waiting.author, waiting.frame.clone());
        let processed = self.transaction(|tx| tx.take(author, &frame, tx.now, own_set.as_deref()))?;
        self.outside.acknowledge(waiting.number);
        Ok(Done::Received { author, frame, processed })
    }

    /// Tries a frame again that could not be used when it came.
    fn try_held(&mut self) -> Result<Done, Stopped> {
        let now = self.now;
        let tables = self.store.tables();
        let over = |held: &Held| held.came.plus(HELD_SECONDS_MAX) <= now;
        if tables.held.iter().any(over) {
            return self.transaction(|tx| {
                let (given_up, kept): (Vec<_>, _) = tx.tables.held.drain(..).partition(over);
                tx.tables.held = kept;
                Ok(Done::GaveUp(given_up.into_iter().map(|held| held.frame).collect()))
            });
        }
        let Some(at) = tables.held.iter().position(|held| held.tried != tables.changes) else {
            return Ok(Done::Nothing);
        };
        self.transaction(|tx| {
            let held = tx.tables.held.remove(at);
            let processed = tx.take(held.author, &held.frame, held.came, None)?;
            if let Some(again) = tx.tables.held.iter_mut().find(|again| again.frame == held.frame) {
                again.since = held.since;
            }
            Ok(Done::Received { author: held.author, frame: held.frame, processed })
        })
    }

    /// Asks for the way back into a group whose state is lost or left behind.
    fn come_back(&mut self) -> Result<Done, Stopped> {
        let now = self.now;
        let tables = self.store.tables();
        let unknown = tables.strangers.iter().find(|(_, stranger)| {
            stranger.due <= now && stranger.since.plus(GRACE_SECONDS) <= now && stranger.asks < ASKS_MAX
        });
        if let Some(group) = unknown.map(|(group, _)| *group) {
            return self.transaction(|tx| Ok(tx.ask_to_be_invited(group)));
        }
        let behind = self.look(|tx| tx.groups().list())?.into_iter().find(|group| {
            let tables = self.store.tables();
            let plan = tables.plan_of(*group);
            plan.ask_due <= now
                && plan.asks < ASKS_MAX
                && !tables.has_claim(*group)
                && tables.is_behind(*group, now)
        });
        match behind {
            Some(group) => self.transaction(|tx| tx.ask_to_rejoin(group)),
            None => Ok(Done::Nothing),
        }
    }

    /// Stages a commit if there is one to make.
    fn commit(&mut self) -> Result<Done, Stopped> {
        for group in self.look(|tx| tx.groups().list())? {
            if !self.look(|tx| tx.may_commit(group))? {
                continue;
            }
            let Some(intention) = self.look(|tx| tx.intention(group))? else {
                self.transaction(|tx| {
                    tx.looked(group);
                    Ok(())
                })?;
                continue;
            };
            let suite = self.look(|tx| tx.groups().state(group))?.suite;
            let mut coming = Vec::new();
            for device in intention.coming {
                let Some(new) = self.outside.look_up(device, suite) else {
                    return self.transaction(|tx| {
                        let vain = [Wish::Add(device), Wish::InviteAnew(device)];
                        tx.tables.wishes.retain(|(of, wish)| *of != group || !vain.contains(wish));
                        Ok(Done::Housekeeping)
                    });
                };
                coming.push(new);
            }
            return self.transaction(|tx| tx.stage(group, coming, intention.leaving));
        }
        Ok(Done::Nothing)
    }

    /// Asks the others to let this device go.
    fn leave(&mut self) -> Result<Done, Stopped> {
        let tables = self.store.tables();
        let wishes = tables.wishes.iter().filter(|(_, wish)| *wish == Wish::Leave).map(|(group, _)| *group);
        let wished: Vec<_> = wishes.filter(|group| !tables.has_claim(*group)).collect();
        for group in wished {
            if self.look(|tx| tx.is_ready(group))? {
                return self.transaction(|tx| {
                    let frame = tx.groups().leave(group)?;
                    tx.post(group, None, vec![frame]);
                    Ok(Done::Housekeeping)
                });
            }
        }
        Ok(Done::Nothing)
    }

    /// Encrypts a message that waits to be written: the first one whose group this device has not fallen behind in.
    fn write(&mut self) -> Result<Done, Stopped> {
        let tables = self.store.tables();
        let next = tables.drafts.iter().enumerate().find(|(_, (of, _))| !tables.is_behind(*of, self.now));
        let Some((at, (group, content))) = next.map(|(at, draft)| (at, draft.clone())) else {
            return Ok(Done::Nothing);
        };
        let written = self.transaction(|tx| {
            let frame = tx.groups().send(group, &content)?;
            tx.tables.drafts.remove(at);
            tx.post(group, None, vec![frame.clone()]);
            Ok(Done::Wrote { id: content.id, frame })
        });
        match written {
            Err(Stopped::Group(GroupError::CommitFirst)) => {
                if self.store.tables().plans.get(&group).is_some_and(|plan| plan.blocked) {
                    return Ok(Done::Nothing);
                }
                self.transaction(|tx| {
                    tx.tables.plans.entry(group).or_default().blocked = true;
                    Ok(Done::Housekeeping)
                })
            }
            Err(Stopped::Group(GroupError::NotMember | GroupError::UnknownGroup | GroupError::Leaving)) => {
                self.transaction(|tx| {
                    tx.tables.drafts.remove(at);
                    Ok(Done::Housekeeping)
                })
            }
            written => written,
        }
    }

    /// Keeps enough key packages at the keyserver.
    fn stock_key_packages(&mut self) -> Result<Done, Stopped> {
        if let Some(upload) = self.store.tables().upload.clone() {
            return match self.outside.upload(&upload) {
                Err(NoAnswer) => Ok(Done::Nothing),
                Ok(()) => self.transaction(|tx| {
                    tx.tables.upload = None;
                    Ok(Done::Housekeeping)
                }),
            };
        }
        for suite in self.suites.iter().copied() {
            let replace = self.store.tables().replace_key_packages.contains(&suite);
            let Some((left, last)) = self.outside.key_packages_left(suite) else { return Ok(Done::Nothing) };
            if left >= KEY_PACKAGES_LEFT_MIN && last && !replace {
                continue;
            }
            return self.transaction(|tx| {
                let one_time = tx.groups().make_key_packages(KEY_PACKAGES_MADE, suite, false)?;
                let last_resort = match last && !replace {
                    true => None,
                    false => tx.groups().make_key_packages(1, suite, true)?.pop(),
                };
                tx.tables.upload = Some(Upload { suite, one_time, last_resort, replace });
                tx.tables.replace_key_packages.retain(|other| *other != suite);
                Ok(Done::Housekeeping)
            });
        }
        Ok(Done::Nothing)
    }
}
