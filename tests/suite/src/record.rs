//! What was seen while a drill ran: on the wire, and in what the programs said.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sealpost_wire::api::keyserver::LookedUp;
use sealpost_wire::api::relay::{MessageStatus, SyncResponse};
use sealpost_wire::delivery::DeliveryState;
use sealpost_wire::id::{DeviceId, PrekeyId, TransportId};
use sealpost_wire::prekey::PrekeyLeaf;

use crate::plan::Victim;
use crate::tap::Exchange;

/// What a device has shown: a notification by id and revision, or a message of a group by id.
pub type Shown = (DeviceId, String);

/// Everything that was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Source events that the sender said it has.
    pub queued: BTreeSet<String>,
    /// Source events that the sender refused, with the code.
    pub refused: Vec<String>,
    /// Messages that the relay answered with 202, and the devices that it took boxes for.
    pub accepted: BTreeMap<TransportId, BTreeSet<DeviceId>>,
    /// One-time prekeys that the keyserver gave out, in the order of its answers.
    pub prekeys: Vec<PrekeyId>,
    /// Categories that the keyserver said it has a consent for.
    pub consents: BTreeSet<String>,
    /// What devices have shown, in the order in which they said so.
    pub shown: Vec<Shown>,
    /// Messages that devices said they wrote to their group, by id.
    pub said: BTreeMap<String, DeviceId>,
    /// Messages of their group that devices said they have.
    pub read: BTreeSet<(DeviceId, String)>,
    /// Devices that got two messages made with one key.
    pub used: BTreeSet<DeviceId>,
    exchanges: BTreeMap<Victim, u64>,
}

impl Seen {
    /// How much `victim` has done so far.
    #[must_use]
    pub fn exchanges(&self, victim: Victim) -> u64 {
        self.exchanges.get(&victim).copied().unwrap_or(0)
    }

    fn count(&mut self, victim: Victim) {
        *self.exchanges.entry(victim).or_default() += 1;
    }
}

/// The record of a drill; threads add to it and wait for what comes.
#[derive(Debug, Default)]
pub struct Record {
    seen: Mutex<Seen>,
    changed: Condvar,
}

impl Record {
    /// What was seen so far.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `enough`, at most until `deadline`. Returns whether it came.
    pub fn wait_for(&self, deadline: Instant, mut enough: impl FnMut(&Seen) -> bool) -> bool {
        let mut seen = self.seen();
        loop {
            if enough(&seen) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return false;
            }
            (seen, _) = self.changed.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// An exchange with the keyserver.
    pub fn keyserver_answered(&self, exchange: &Exchange) {
        if let Some((_, category)) = exchange.path.split_once("/consent/") {
            if exchange.method == "PUT" && matches!(exchange.status, 200..=299) {
                self.change(|seen| {
                    seen.consents.insert(category.to_owned());
                });
            }
            return;
        }
        if exchange.status != 200 || !exchange.path.ends_with("/look-up") {
            return;
        }
        let Ok(answer) = serde_json::from_slice::<LookedUp>(&exchange.answer) else { return };
        let prekeys = answer.devices.iter().filter_map(|device| device.one_time.as_ref());
        let prekeys = prekeys.filter_map(|prekey| PrekeyLeaf::read(prekey.leaf.as_ref()).ok());
        self.change(|seen| {
            seen.prekeys.extend(prekeys.map(|leaf| leaf.id()));
            seen.count(Victim::Keyserver);
        });
    }

    /// An exchange with the relay.
    pub fn relay_answered(&self, exchange: &Exchange) {
        if exchange.status == 202 {
            // What devices write to their group is looked for by what it says.
            if exchange.signed {
                self.change(|seen| seen.count(Victim::Relay));
                return;
            }
            let Ok(answer) = serde_json::from_slice::<MessageStatus>(&exchange.answer) else { return };
            let taken = answer.deliveries.iter().filter(|one| one.state != DeliveryState::Failed);
            self.change(|seen| {
                seen.accepted.insert(answer.id, taken.map(|one| one.device).collect());
                seen.count(Victim::Relay);
                seen.count(Victim::Sender);
            });
        } else if exchange.status == 200 && exchange.path == "/v1/sync" {
            let Ok(answer) = serde_json::from_slice::<SyncResponse>(&exchange.answer) else { return };
            if !answer.boxes.is_empty() || !answer.receipts.is_empty() {
                self.change(|seen| {
                    seen.count(Victim::Relay);
                    seen.count(Victim::Device);
                });
            }
        }
    }

    /// A line that the sender said.
    pub fn sender_said(&self, line: &str) {
        self.change(|seen| match line.split_once(' ') {
            Some(("queued", key)) => {
                seen.queued.insert(key.to_owned());
                seen.count(Victim::Sender);
            }
            _ => seen.refused.push(line.to_owned()),
        });
    }

    /// A line that a device said.
    pub fn device_said(&self, device: DeviceId, line: &str) {
        self.change(|seen| match line.split_once(' ') {
            Some(("shown", what)) => seen.shown.push((device, what.to_owned())),
            Some(("said", message)) => drop(seen.said.insert(message.to_owned(), device)),
            Some(("read", message)) => drop(seen.read.insert((device, message.to_owned()))),
            Some(("used", _)) => drop(seen.used.insert(device)),
            _ => {}
        });
    }

    fn change(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen());
        self.changed.notify_all();
    }
}
