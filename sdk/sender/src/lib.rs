//! The sender's half of Sealpost, for the systems inside a hospital.
//!
//! # In scope
//! Look-up and verification of devices, sealing, a durable outbox, submission, verified receipts; and the enroller, which
//! makes tickets and countersigns devices.
//!
//! # Out of scope
//! Where alerts come from: the connector reads HL7 and FHIR and calls [`Sender::enqueue`].
//!
//! Everything blocks; the caller owns the threads. [`Sender::enqueue`] is durable when it returns: only then is an event
//! acknowledged to its source. [`Sender::work`] and [`Sender::follow`] can be stopped at any moment.

pub mod directory;
pub mod enroller;
pub mod identity;

mod alert;
mod error;
mod follow;
mod http;
mod outbox;
mod private_file;
mod roots;
mod submit;
mod vault;

use std::path::Path;
use std::sync::Arc;

use rand_core::CryptoRng;
use sealpost_wire::clock::Clock;
use sealpost_wire::trust::TenantTrust;

pub use alert::{Alert, AlertStatus, BoxStatus, Enqueued, SourceEvent, Stage, SubmissionStatus};
pub use error::{HttpError, SenderError};
pub use follow::FollowReport;
pub use private_file::{PrivateFileError, make_private_folder, read_private, write_private};
pub use roots::{RootsError, ServerRoots};
pub use submit::WorkReport;

use directory::DirectoryPolicy;
use http::Server;
use identity::SenderIdentityFile;
use outbox::Outbox;

/// Makes a source of randomness, one for each thread.
pub type MakeRng = Arc<dyn Fn() -> Box<dyn CryptoRng + Send> + Send + Sync>;

/// What a sender or an enroller is built on.
#[derive(Clone)]
pub struct SenderParts {
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: MakeRng,
    /// Who vouches for the servers' certificates.
    pub roots: ServerRoots,
}

/// How a sender works.
#[derive(Clone, Debug)]
pub struct SenderOptions {
    /// What device sets and prekeys it accepts.
    pub directory: DirectoryPolicy,
    /// Requests that it has under way at most.
    pub connections: usize,
    /// How often a box that a device could not open is sealed anew.
    pub reseals_max: u32,
}

impl Default for SenderOptions {
    fn default() -> Self {
        Self { directory: DirectoryPolicy::default(), connections: 8, reseals_max: 3 }
    }
}

/// A sending system of a tenant.
pub struct Sender {
    outbox: Outbox,
    party: Party,
}

/// A sender without its outbox: what its threads share while they seal and send.
struct Party {
    identity: SenderIdentityFile,
    options: SenderOptions,
    trust: TenantTrust,
    keyserver: Server,
    relay: Server,
    parts: SenderParts,
}

impl Sender {
    /// The sender of `identity`, with its outbox in `folder`.
    ///
    /// # Errors
    /// Storage errors; a tenant status in the outbox that does not verify.
    pub fn open(
        identity: SenderIdentityFile,
        folder: &Path,
        options: SenderOptions,
        parts: SenderParts,
    ) -> Result<Self, SenderError> {
        let outbox = Outbox::open(folder, &identity.outbox_key)?;
        let mut trust = TenantTrust::new(identity.tenant.clone(), vec![identity.root]);
        if let Some(status) = outbox.status()? {
            trust.accept_status(&status, parts.clock.now())?;
        }
        let client = identity.client();
        let keyserver = Server::new(&identity.keyserver, client.clone(), &parts.roots);
        let relay = Server::new(&identity.relay, client, &parts.roots);
        Ok(Self { outbox, party: Party { identity, options, trust, keyserver, relay, parts } })
    }

    /// Takes an alert into the outbox: it is durable when this returns. The same source event with the same content is
    /// the same alert.
    ///
    /// # Errors
    /// [`SenderError::SourceConflict`] for a source event that came before with other content; values that the format does
    /// not allow; storage errors.
    pub fn enqueue(&mut self, alert: &Alert) -> Result<Enqueued, SenderError> {
        let mut rng = (self.party.parts.rng)();
        self.outbox.enqueue(alert, self.party.parts.clock.as_ref(), rng.as_mut())
    }

    /// Where every alert of the outbox is, newest last.
    pub fn alerts(&self) -> Result<Vec<AlertStatus>, SenderError> {
        self.outbox.alerts()
    }

    /// Where the alert of the source event with this key is.
    pub fn alert(&self, source: &str) -> Result<Option<AlertStatus>, SenderError> {
        self.outbox.alert(source)
    }

    /// How many milliseconds until something is due; nothing when the outbox has nothing to do.
    pub fn next_due_in_ms(&self) -> Result<Option<u64>, SenderError> {
        let now = self.party.parts.clock.now_millis();
        Ok(self.outbox.next_due_ms()?.map(|due| due.saturating_sub(now)))
    }
}
