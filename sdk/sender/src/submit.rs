//! From the outbox to the relay: look up, seal, commit, send.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand_core::CryptoRng;
use sealpost_seal::{Envelope, SealedBox, SenderIdentity, seal};
use sealpost_wire::api::relay::{MessageStatus, Submission, SubmittedBox};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::delivery::DeliveryState;
use sealpost_wire::id::TransportId;
use sealpost_wire::key::VerifyingKey;

use crate::directory::{Directory, Question, look_up};
use crate::error::SenderError;
use crate::http::Call;
use crate::outbox::{BoxNews, ToSeal, ToSend};
use crate::{Party, Sender};

/// Submissions that one step takes up.
const STEP_MAX: usize = 64;
/// The wait after the first failure; it doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// The longest wait between two tries.
const BACKOFF_MAX: Duration = Duration::from_secs(120);

/// What a step of work did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkReport {
    /// Submissions sealed.
    pub sealed: usize,
    /// Submissions that the relay accepted.
    pub accepted: usize,
    /// Submissions put off.
    pub postponed: usize,
    /// Submissions given up.
    pub failed: usize,
}

struct Sealed {
    transport_id: TransportId,
    boxes: Vec<(VerifyingKey, SealedBox)>,
    directory: Directory,
}

impl Sender {
    /// Seals and sends what is due, some of it: call again while the report says that something was done.
    ///
    /// # Errors
    /// Storage errors. What a server refuses is kept with the submission.
    pub fn work(&mut self) -> Result<WorkReport, SenderError> {
        let mut report = WorkReport::default();
        self.seal_due(&mut report)?;
        self.send_due(&mut report)?;
        Ok(report)
    }

    fn seal_due(&mut self, report: &mut WorkReport) -> Result<(), SenderError> {
        let due = self.outbox.due_to_seal(self.party.parts.clock.now_millis(), STEP_MAX)?;
        let mut tasks = Vec::with_capacity(due.len());
        for one in due {
            let seen = self.outbox.directory(one.recipient, &self.party.trust)?;
            tasks.push((one, seen));
        }
        let party = &self.party;
        let outcomes =
            party.in_parallel(&tasks, |(one, seen), rng| party.seal_one(one, seen.as_deref(), rng));
        for ((one, _), outcome) in tasks.iter().zip(outcomes) {
            match outcome {
                Ok(sealed) => {
                    if let Some(status) = &sealed.directory.status {
                        self.take_status(status)?;
                    }
                    if !sealed.directory.from_cache {
                        let now = self.party.parts.clock.now();
                        self.outbox.set_directory(one.recipient, &sealed.directory.cacheable, now)?;
                    }
                    let from_cache = sealed.directory.from_cache;
                    self.outbox.sealed(one.id, sealed.transport_id, &sealed.boxes, from_cache)?;
                    report.sealed += 1;
                }
                Err(error) => self.put_off(one.id, one.attempts, one.expires_at, &error, report)?,
            }
        }
        Ok(())
    }

    fn send_due(&mut self, report: &mut WorkReport) -> Result<(), SenderError> {
        let due = self.outbox.due_to_send(self.party.parts.clock.now_millis(), STEP_MAX)?;
        let party = &self.party;
        let outcomes = party.in_parallel(&due, |one, rng| party.send_one(one, rng));
        for (one, outcome) in due.iter().zip(outcomes) {
            match outcome {
                Ok(status) => {
                    let news: Vec<_> = status
                        .deliveries
                        .into_iter()
                        .map(|delivery| BoxNews {
                            transport_id: one.transport_id,
                            device: delivery.device,
                            state: said_by_the_relay(delivery.state),
                            reason: delivery.reason,
                            verified: false,
                            device_time: None,
                        })
                        .collect();
                    let now_ms = self.party.parts.clock.now_millis();
                    self.outbox.accepted(one.id, one.transport_id, &news, now_ms)?;
                    report.accepted += 1;
                }
                Err(error) => self.put_off(one.id, one.attempts, one.expires_at, &error, report)?,
            }
        }
        Ok(())
    }

    /// Waits longer after each failure; gives up on what no retry can help, and at the alert's end.
    fn put_off(
        &mut self,
        submission: i64,
        attempts: u32,
        expires_at: sealpost_wire::clock::UnixTime,
        error: &SenderError,
        report: &mut WorkReport,
    ) -> Result<(), SenderError> {
        let code = error.code().to_owned();
        let look_up_may_help = matches!(error, SenderError::Seal(error) if error.look_up_may_help());
        if self.party.parts.clock.now() >= expires_at {
            tracing::error!(submission, %code, "an alert expired before it could be sent");
            report.failed += 1;
            return self.outbox.failed(submission, &code);
        }
        if !error.is_temporary() && !look_up_may_help {
            tracing::error!(submission, %code, "an alert cannot be sent");
            report.failed += 1;
            return self.outbox.failed(submission, &code);
        }
        let doubled = BACKOFF_FIRST.saturating_mul(1 << attempts.min(16)).min(BACKOFF_MAX);
        let wait = error.retry_after().unwrap_or_default().max(self.party.jittered(doubled));
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(submission, %code, wait_ms, "an alert is put off");
        report.postponed += 1;
        let due_ms = self.party.parts.clock.now_millis().saturating_add(wait_ms);
        self.outbox.postponed(submission, &code, due_ms)
    }

    pub(crate) fn take_status(&mut self, status: &[u8]) -> Result<(), SenderError> {
        match self.party.trust.accept_status(status, self.party.parts.clock.now()) {
            Ok(true) => self.outbox.set_status(status),
            Ok(false) => Ok(()),
            Err(error) => {
                tracing::warn!(code = error.code(), "a tenant status was refused");
                Ok(())
            }
        }
    }
}

impl Party {
    fn seal_one(
        &self,
        one: &ToSeal,
        seen: Option<&crate::directory::Seen>,
        rng: &mut dyn CryptoRng,
    ) -> Result<Sealed, SenderError> {
        let now = self.parts.clock.now();
        let question =
            Question { recipient: one.recipient, category: &one.category, expires_at: one.expires_at, seen };
        let policy = &self.options.directory;
        let directory = look_up(&question, &self.keyserver, &self.trust, policy, now, rng)?;
        let send = &self.identity.send;
        let identity =
            SenderIdentity::new(send.key.clone(), send.certificate.clone(), policy.seal, &self.trust, now)?;
        let envelope = Envelope {
            tenant: self.identity.tenant.clone(),
            transport_id: TransportId::random(rng),
            expires_at: one.expires_at,
        };
        let mut boxes = Vec::new();
        for prekey in &directory.prekeys {
            let record = prekey.record();
            if one.only_device.is_none_or(|device| device == record.device) {
                let sealed = seal(&one.notification, &envelope, prekey, &identity, now, rng)?;
                boxes.push((record.identity_key, sealed));
            }
        }
        if boxes.is_empty() {
            return Err(SenderError::NoDevices);
        }
        debug_assert_eq!(directory.set.recipient, one.recipient, "a set of someone else was believed");
        Ok(Sealed { transport_id: envelope.transport_id, boxes, directory })
    }

    fn send_one(&self, one: &ToSend, rng: &mut dyn CryptoRng) -> Result<MessageStatus, SenderError> {
        let boxes = one.boxes.iter();
        let boxes =
            boxes.map(|(device, sealed)| SubmittedBox { device: *device, sealed: Base64Url(sealed.clone()) });
        let (expires_at, priority) = (one.expires_at, one.priority);
        let submission = Submission { expires_at, priority, boxes: boxes.collect(), slot: None };
        let call = Call::put(format!("/v1/messages/{}", one.transport_id), &submission)?;
        Ok(self.relay.call(&call, self.parts.clock.now(), rng)?)
    }

    /// Between half of `wait` and all of it, so that senders do not come back all at once.
    fn jittered(&self, wait: Duration) -> Duration {
        let mut bytes = [0; 4];
        (self.parts.rng)().fill_bytes(&mut bytes);
        let share = f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX);
        wait.mul_f64(0.5 + share / 2.0)
    }

    /// Runs `run` over `tasks` on at most `connections` threads; outcomes in the order of the tasks.
    fn in_parallel<T: Sync, R: Send>(
        &self,
        tasks: &[T],
        run: impl Fn(&T, &mut dyn CryptoRng) -> R + Sync,
    ) -> Vec<R> {
        let next = AtomicUsize::new(0);
        let threads = self.options.connections.clamp(1, tasks.len().max(1));
        let take_tasks = || {
            let mut rng = (self.parts.rng)();
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(task) = tasks.get(index) else { return done };
                done.push((index, run(task, rng.as_mut())));
            }
        };
        let mut outcomes: Vec<(usize, R)> = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(take_tasks)).collect();
            let mut outcomes = take_tasks();
            for other in others {
                match other.join() {
                    Ok(done) => outcomes.extend(done),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            outcomes
        });
        outcomes.sort_unstable_by_key(|(index, _)| *index);
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }
}

/// What the relay may say on its own. That a device has opened a message takes the device's signature.
pub(crate) const fn said_by_the_relay(state: DeliveryState) -> DeliveryState {
    match state {
        DeliveryState::Fetched
        | DeliveryState::Opened
        | DeliveryState::Confirmed
        | DeliveryState::Declined
        | DeliveryState::Unopenable => DeliveryState::Pushed,
        other => other,
    }
}
