//! A device's mailbox: its cursors, what waits in it, and its push job. Decisions only; the rows are written
//! by [`super::change`].
//!
//! ```text
//! version | device number | next cursor | waiting from | queued from | waiting (4) | wanting (3 x 4) | latest expiry | app (2)
//!         | 0, or: 1 | priority | due ms | step | failures | 0, or: 1 | push id (16)
//! ```

use sealpost_wire::clock::UnixTime;
use sealpost_wire::payload::Priority;

use super::AppId;
use super::codec::{Decoder, Encoder};
use super::schedule::Schedules;

/// A mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mailbox {
    /// The number of the device, as its deliveries and jobs name it.
    pub(super) number: u64,
    /// The cursor of the next box, from 1.
    pub(super) next_cursor: u64,
    /// No box waits below this cursor.
    pub(super) waiting_from: u64,
    /// No delivery below this cursor is queued: all have been pushed, or are over.
    pub(super) queued_from: u64,
    /// Boxes that wait.
    pub(super) waiting: u32,
    /// Of them, those that are not fetched: a push is (again) due. By priority, most urgent first.
    pub(super) wanting: [u32; 3],
    /// When the last of the boxes that came since the mailbox was empty expires.
    pub(super) latest_expiry: UnixTime,
    /// Where stubs go; nothing without a live push token.
    pub(super) app: Option<AppId>,
    /// There is one exactly when there is an app and something wants a push.
    pub(super) job: Option<PushJob>,
}

/// When the next stub is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PushJob {
    /// That of the most urgent message that wants a push.
    pub(super) priority: Priority,
    pub(super) due_ms: u64,
    /// How many stubs were accepted since the last message came.
    pub(super) step: u8,
    /// How many attempts failed in a row.
    pub(super) failures: u8,
    /// The id of the push that failed, for the next attempt.
    pub(super) push_id: Option<[u8; 16]>,
}

impl PushJob {
    const fn new(priority: Priority, due_ms: u64) -> Self {
        Self { priority, due_ms, step: 0, failures: 0, push_id: None }
    }
}

impl Mailbox {
    /// The empty mailbox of a device.
    pub(super) const fn new(number: u64) -> Self {
        Self {
            number,
            next_cursor: 1,
            waiting_from: 1,
            queued_from: 1,
            waiting: 0,
            wanting: [0; 3],
            latest_expiry: UnixTime(0),
            app: None,
            job: None,
        }
    }

    /// Takes in a box, and gives its cursor.
    pub(super) fn accept(&mut self, priority: Priority, expires_at: UnixTime, now_ms: u64) -> u64 {
        let cursor = self.next_cursor;
        if self.waiting == 0 {
            (self.waiting_from, self.latest_expiry) = (cursor, UnixTime(0));
        }
        if self.wanting == [0; 3] {
            self.queued_from = cursor;
        }
        self.next_cursor += 1;
        self.waiting += 1;
        self.latest_expiry = self.latest_expiry.max(expires_at);
        *self.wanting_mut(priority) += 1;
        if self.app.is_some() {
            match &mut self.job {
                None => self.job = Some(PushJob::new(priority, now_ms)),
                Some(job) if priority.code() < job.priority.code() => *job = PushJob::new(priority, now_ms),
                // Between two stubs that were accepted: the new message does not wait for the second.
                Some(job) if job.failures == 0 => (job.step, job.due_ms) = (0, job.due_ms.min(now_ms)),
                // The provider asked for a pause, or is down.
                Some(_) => {}
            }
        }
        cursor
    }

    /// A delivery stops to want a push: it was fetched, or is over.
    pub(super) fn unwant(&mut self, priority: Priority) {
        let wanting = self.wanting_mut(priority);
        *wanting = wanting.saturating_sub(1);
        self.reprioritize();
    }

    /// A box is gone.
    pub(super) fn remove(&mut self, cursor: u64) {
        self.waiting = self.waiting.saturating_sub(1);
        if self.waiting == 0 {
            self.waiting_from = self.next_cursor;
        } else if cursor == self.waiting_from {
            self.waiting_from += 1;
        }
    }

    /// A stub was accepted for everything up to `through`. `newer` says whether something came since that is
    /// queued.
    pub(super) fn pushed(&mut self, through: u64, newer: bool, now_ms: u64, schedules: &Schedules) {
        self.queued_from = self.queued_from.max(through.saturating_add(1));
        if let Some(job) = &mut self.job {
            (job.failures, job.push_id) = (0, None);
            if newer {
                (job.step, job.due_ms) = (0, now_ms);
            } else {
                job.due_ms = now_ms.saturating_add(schedules.delay_ms(job.priority, job.step));
                job.step = job.step.saturating_add(1);
            }
        }
    }

    /// An attempt has failed; the next one is due at `due_ms`.
    pub(super) fn failed(&mut self, due_ms: u64, push_id: [u8; 16]) {
        if let Some(job) = &mut self.job {
            job.failures = job.failures.saturating_add(1);
            (job.due_ms, job.push_id) = (due_ms, Some(push_id));
        }
    }

    /// The device gave a push token, or the one it had is gone. With `again`, what waits is pushed now.
    pub(super) fn redirect(&mut self, app: Option<AppId>, again: bool, now_ms: u64) {
        let moved = self.app != app;
        self.app = app;
        match (app, self.most_urgent()) {
            (Some(_), Some(priority)) if moved || again || self.job.is_none() => {
                self.job = Some(PushJob::new(priority, now_ms));
            }
            (Some(_), Some(_)) => {}
            _ => self.job = None,
        }
    }

    /// Everything that waits is queued again: nothing that was pushed has arrived.
    pub(super) const fn requeue(&mut self) {
        self.queued_from = self.waiting_from;
    }

    /// The priority of the most urgent message that wants a push.
    pub(super) fn most_urgent(&self) -> Option<Priority> {
        Priority::ALL
            .into_iter()
            .zip(self.wanting)
            .find(|(_, count)| *count > 0)
            .map(|(priority, _)| priority)
    }

    fn reprioritize(&mut self) {
        match (self.most_urgent(), &mut self.job) {
            (Some(priority), Some(job)) => job.priority = priority,
            (None, job) => *job = None,
            (Some(_), None) => {}
        }
    }

    const fn wanting_mut(&mut self, priority: Priority) -> &mut u32 {
        let [critical, normal, bulk] = &mut self.wanting;
        match priority {
            Priority::Critical => critical,
            Priority::Normal => normal,
            Priority::Bulk => bulk,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut row = Encoder::new(88);
        row.u64(self.number)
            .u64(self.next_cursor)
            .u64(self.waiting_from)
            .u64(self.queued_from)
            .u32(self.waiting);
        self.wanting.iter().for_each(|count| {
            row.u32(*count);
        });
        row.u64(self.latest_expiry.0).u16(self.app.map_or(0, |app| app.0));
        match &self.job {
            None => {
                row.u8(0);
            }
            Some(job) => {
                row.u8(1).u8(job.priority.code()).u64(job.due_ms).u8(job.step).u8(job.failures);
                match &job.push_id {
                    None => row.u8(0),
                    Some(push_id) => row.u8(1).bytes(push_id),
                };
            }
        }
        row.finish()
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let mut row = Decoder::new(value)?;
        let mut mailbox = Self {
            number: row.u64()?,
            next_cursor: row.u64()?,
            waiting_from: row.u64()?,
            queued_from: row.u64()?,
            waiting: row.u32()?,
            wanting: [row.u32()?, row.u32()?, row.u32()?],
            latest_expiry: UnixTime(row.u64()?),
            app: Some(AppId(row.u16()?)).filter(|app| app.0 > 0),
            job: None,
        };
        if row.u8()? != 0 {
            mailbox.job = Some(PushJob {
                priority: row.priority()?,
                due_ms: row.u64()?,
                step: row.u8()?,
                failures: row.u8()?,
                push_id: if row.u8()? == 0 { None } else { Some(row.array()?) },
            });
        }
        row.end(mailbox)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: UnixTime = UnixTime(9_000);

    fn reachable() -> Mailbox {
        Mailbox { app: Some(AppId(1)), ..Mailbox::new(1) }
    }

    fn due(mailbox: &Mailbox) -> Option<(Priority, u64, u8)> {
        mailbox.job.as_ref().map(|job| (job.priority, job.due_ms, job.step))
    }

    #[test]
    fn several_messages_are_one_job_and_the_most_urgent_decides() {
        let mut mailbox = reachable();
        assert_eq!(mailbox.accept(Priority::Bulk, LATER, 100), 1);
        assert_eq!(mailbox.accept(Priority::Bulk, LATER, 200), 2);
        assert_eq!(due(&mailbox), Some((Priority::Bulk, 100, 0)));
        assert_eq!(mailbox.accept(Priority::Critical, LATER, 300), 3);
        assert_eq!(due(&mailbox), Some((Priority::Critical, 300, 0)));
        mailbox.accept(Priority::Normal, LATER, 400);
        assert_eq!(due(&mailbox), Some((Priority::Critical, 300, 0)));
        mailbox.unwant(Priority::Critical);
        assert_eq!(due(&mailbox), Some((Priority::Normal, 300, 0)));
    }

    #[test]
    fn a_new_message_does_not_wait_for_the_next_round_but_for_a_provider_that_asked_for_a_pause() {
        let (mut mailbox, schedules) = (reachable(), Schedules::default());
        mailbox.accept(Priority::Normal, LATER, 100);
        mailbox.pushed(1, false, 200, &schedules);
        assert_eq!(due(&mailbox), Some((Priority::Normal, 200 + 900_000, 1)));
        mailbox.accept(Priority::Normal, LATER, 300);
        assert_eq!(due(&mailbox), Some((Priority::Normal, 300, 0)));
        mailbox.failed(60_000, [7; 16]);
        mailbox.accept(Priority::Normal, LATER, 400);
        assert_eq!(due(&mailbox), Some((Priority::Normal, 60_000, 0)));
        assert_eq!(mailbox.job.as_ref().unwrap().push_id, Some([7; 16]));
        mailbox.accept(Priority::Critical, LATER, 500);
        assert_eq!(due(&mailbox), Some((Priority::Critical, 500, 0)));
    }

    #[test]
    fn what_came_during_a_push_is_pushed_again_at_once() {
        let mut mailbox = reachable();
        mailbox.accept(Priority::Normal, LATER, 100);
        mailbox.accept(Priority::Normal, LATER, 150);
        mailbox.pushed(1, true, 200, &Schedules::default());
        assert_eq!(due(&mailbox), Some((Priority::Normal, 200, 0)));
        assert_eq!(mailbox.queued_from, 2);
    }

    #[test]
    fn nothing_is_due_without_a_token_or_without_a_message() {
        let mut mailbox = Mailbox::new(1);
        mailbox.accept(Priority::Normal, LATER, 100);
        assert_eq!(mailbox.job, None);
        mailbox.redirect(Some(AppId(4)), false, 200);
        assert_eq!(due(&mailbox), Some((Priority::Normal, 200, 0)));
        mailbox.redirect(Some(AppId(4)), false, 300);
        assert_eq!(due(&mailbox), Some((Priority::Normal, 200, 0)), "the same token changes nothing");
        mailbox.redirect(None, false, 300);
        assert_eq!(mailbox.job, None);
        mailbox.redirect(Some(AppId(4)), true, 400);
        mailbox.unwant(Priority::Normal);
        assert_eq!(mailbox.job, None);
    }

    #[test]
    fn cursors_move_past_what_is_gone() {
        let mut mailbox = reachable();
        for at in 1..=3 {
            mailbox.accept(Priority::Normal, LATER, at);
        }
        mailbox.remove(2);
        assert_eq!((mailbox.waiting_from, mailbox.waiting), (1, 2));
        mailbox.remove(1);
        assert_eq!((mailbox.waiting_from, mailbox.waiting), (2, 1));
        mailbox.remove(3);
        assert_eq!((mailbox.waiting_from, mailbox.waiting), (4, 0));
    }

    #[test]
    fn a_mailbox_is_read_as_it_was_written() {
        let mut mailbox = reachable();
        assert_eq!(Mailbox::decode(&mailbox.encode()), Some(mailbox.clone()));
        mailbox.accept(Priority::Critical, LATER, 5);
        mailbox.failed(77, [3; 16]);
        let value = mailbox.encode();
        assert_eq!(Mailbox::decode(&value), Some(mailbox));
        assert_eq!(Mailbox::decode(&value[..value.len() - 1]), None);
        assert_eq!(Mailbox::decode(&[value.as_slice(), &[0]].concat()), None);
    }
}
