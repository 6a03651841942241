//! What every connection shares: time, the fault table, the record, and the connections themselves.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::clock::ShiftedClock;
use crate::faults::{ConnectionFaults, FaultTable};
use crate::outcome::{GoAway, Reading};
use crate::record::Recorder;

/// Who is being emulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// Apple Push Notification service.
    Apns,
    /// Firebase Cloud Messaging, HTTP v1.
    Fcm,
    /// Google's OAuth 2.0 token endpoint (served on the FCM port).
    Oauth,
}

/// State shared by all listeners.
pub(crate) struct World {
    pub(crate) clock: ShiftedClock,
    pub(crate) faults: FaultTable,
    pub(crate) connection_faults: ConnectionFaults,
    pub(crate) dates: Dates,
    pub(crate) record: Recorder,
    pub(crate) connections: Connections,
}

/// An order from the control port to one open connection.
#[derive(Debug, Clone)]
pub(crate) enum Command {
    /// Announce the end by GOAWAY and serve what is in flight. The text becomes the frame's debug data.
    GoAway { debug_data: Option<String> },
    /// Announce the end at once: what is not decided by now is not processed.
    Leave(GoAway),
    /// End without a word: closed, or reset.
    Cut { reset: bool },
    /// Announce a new MAX_CONCURRENT_STREAMS.
    MaxStreams(u32),
    /// Read like this from now on.
    Reading(Reading),
}

/// Which providers send a `date` header with their answers.
pub(crate) struct Dates {
    apns: AtomicBool,
    google: AtomicBool,
}

impl Dates {
    pub(crate) fn of(&self, provider: Provider) -> bool {
        self.flag(provider).load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, provider: Provider, sent: bool) {
        self.flag(provider).store(sent, Ordering::Relaxed);
    }

    fn flag(&self, provider: Provider) -> &AtomicBool {
        match provider {
            Provider::Apns => &self.apns,
            Provider::Fcm | Provider::Oauth => &self.google,
        }
    }
}

impl Default for Dates {
    /// As the real ones do: Google's front end sends it, APNs does not.
    fn default() -> Self {
        Self { apns: AtomicBool::new(false), google: AtomicBool::new(true) }
    }
}

/// The open connections, each reachable by commands.
#[derive(Default)]
pub(crate) struct Connections {
    inner: Mutex<Registry>,
}

#[derive(Default)]
struct Registry {
    next_id: u64,
    open: HashMap<u64, (Provider, mpsc::UnboundedSender<Command>)>,
}

impl Connections {
    /// Registers a connection; it is forgotten when the guard drops. The command queue needs no bound: it is
    /// filled by hand, one command per control request.
    pub(crate) fn register(
        &self,
        provider: Provider,
    ) -> (ConnectionGuard<'_>, mpsc::UnboundedReceiver<Command>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut registry = lock(&self.inner);
        registry.next_id += 1;
        let id = registry.next_id;
        registry.open.insert(id, (provider, sender));
        (ConnectionGuard { connections: self, id }, receiver)
    }

    /// Sends a command to every connection of a provider; returns how many there were.
    pub(crate) fn command(&self, provider: Provider, command: &Command) -> usize {
        let registry = lock(&self.inner);
        let of_provider = registry.open.values().filter(|(kind, _)| *kind == provider);
        of_provider.filter(|(_, sender)| sender.send(command.clone()).is_ok()).count()
    }

    /// How many connections of a provider are open.
    pub(crate) fn open(&self, provider: Provider) -> usize {
        lock(&self.inner).open.values().filter(|(kind, _)| *kind == provider).count()
    }
}

/// Keeps a connection in the registry.
pub(crate) struct ConnectionGuard<'a> {
    connections: &'a Connections,
    id: u64,
}

impl Drop for ConnectionGuard<'_> {
    fn drop(&mut self) {
        lock(&self.connections.inner).open.remove(&self.id);
    }
}

/// Locks, also after a panic elsewhere: every critical section in this crate leaves its data whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
