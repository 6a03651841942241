//! The device's half of Sealpost, for an app and its notification extension.
//!
//! # In scope
//! Enrolment, push registration, sync, opening, dedupe, acknowledgement, prekeys, groups, and the encrypted state behind
//! them.
//!
//! # Out of scope
//! Showing anything, and waiting for pushes: an app calls [`Device::sync`] when its stub arrives and shows what
//! [`Device::present`] hands over.
//!
//! Everything blocks and nothing runs in the background: the caller owns the threads, and an extension that is killed at
//! any moment has lost nothing that the relay does not still hold.

mod clock;
mod enrolment;
mod error;
mod groups;
mod http;
mod inbox;
mod platform;
mod prekeys;
mod roots;
mod store;
mod sync;
mod vault;

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::Arc;

use rand_core::CryptoRng;
use sealpost_wire::clock::Clock;
use sealpost_wire::id::{DeviceId, Digest, TenantId};

pub use enrolment::{EnrolOptions, RequestKeyKind};
pub use error::{DeviceError, HttpError};
pub use groups::conversation::{GroupMessage, MessageState, NewMessage};
pub use groups::{GroupEvent, GroupReport, Progress};
pub use inbox::{Answer, InboxMessage};
pub use platform::{FilePlatform, Platform, PlatformError, WrappingKey};
pub use prekeys::PrekeyReport;
pub use roots::{RootsError, ServerRoots};
pub use sealpost_group::{
    ContentKind, GroupContent, GroupError, GroupReply, GroupState, GroupSuite, MemberEntry, MessageId,
    Standing,
};
pub use sync::{SyncReport, TakenBox};

use clock::SteadyClock;
use enrolment::Enrolled;
use http::Http;
use store::Store;

/// What a device is built on.
pub struct DeviceParts {
    /// Where the wrapping key and the generation counter live.
    pub platform: Arc<dyn Platform>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: Box<dyn CryptoRng + Send>,
    /// Who vouches for the servers' certificates.
    pub roots: ServerRoots,
}

/// An enrolled device.
pub struct Device {
    enrolled: Enrolled,
    store: Store,
    http: Http,
    platform: Arc<dyn Platform>,
    clock: SteadyClock,
    rng: Box<dyn CryptoRng + Send>,
    lock: ProcessLock,
    /// A change of a group that was given up, for the call that has asked for it.
    refused_plan: Option<(i64, DeviceError)>,
}

impl Device {
    /// The device whose state is in `folder`.
    ///
    /// # Errors
    /// [`DeviceError::NotEnrolled`] when there is none; storage and platform errors.
    pub fn open(folder: &Path, parts: DeviceParts) -> Result<Self, DeviceError> {
        let lock = ProcessLock::new(folder)?;
        let held = lock.hold()?;
        let store = Store::open(folder, parts.platform.as_ref())?;
        let enrolled = Enrolled::load(&store)?.ok_or(DeviceError::NotEnrolled)?;
        drop(held);
        Self::assemble(enrolled, store, lock, parts)
    }

    /// The device's id.
    #[must_use]
    pub const fn id(&self) -> DeviceId {
        self.enrolled.device
    }

    /// SHA-256 of the device's identity key, as a mailbox statement names it.
    #[must_use]
    pub fn identity(&self) -> Digest {
        self.enrolled.identity_digest()
    }

    /// The tenant.
    #[must_use]
    pub const fn tenant(&self) -> &TenantId {
        &self.enrolled.tenant
    }

    /// The keyserver's URL.
    #[must_use]
    pub fn keyserver(&self) -> &str {
        &self.enrolled.keyserver
    }

    /// The relay's URL.
    #[must_use]
    pub fn relay(&self) -> &str {
        &self.enrolled.relay
    }

    fn assemble(
        enrolled: Enrolled,
        store: Store,
        lock: ProcessLock,
        parts: DeviceParts,
    ) -> Result<Self, DeviceError> {
        let clock = SteadyClock::new(parts.clock, store.latest_time()?);
        let http = Http::new(store.clock_offset()?, &parts.roots);
        let platform = parts.platform;
        let mut device =
            Self { enrolled, store, http, platform, clock, rng: parts.rng, lock, refused_plan: None };
        device.burn_after_rollback()?;
        Ok(device)
    }

    /// A state older than the counter outside it was put back: its prekeys may have been used already, and the keys of
    /// its groups.
    fn burn_after_rollback(&mut self) -> Result<(), DeviceError> {
        let held = self.lock.hold()?;
        let (stored, counted) = (self.store.generation()?, self.platform.generation()?);
        if stored >= counted {
            drop(held);
            return self.raise_generation();
        }
        // The counter in the state is set last: a kill before that leaves an old state, which is burnt once more.
        self.store.burn_prekeys()?;
        if self.is_admitted() {
            drop(held);
            self.recover_groups(counted)?;
        } else {
            self.store.set_generation(counted)?;
        }
        tracing::warn!(device = %self.enrolled.device, "the state was rolled back; its prekeys are burnt");
        Ok(())
    }

    /// Raises the counter outside the state to the state's. A process that ended between a commit and this has left it
    /// behind, and what was committed must not leave the device before: an older copy could not be told from it.
    pub(crate) fn raise_generation(&self) -> Result<(), DeviceError> {
        let _held = self.lock.hold()?;
        let stored = self.store.generation()?;
        if stored > self.platform.generation()? {
            self.platform.set_generation(stored)?;
        }
        Ok(())
    }
}

/// One process at a time changes the state: the app, or its notification extension.
struct ProcessLock(Arc<File>);

/// The lock, held until dropped.
struct Held(Arc<File>);

impl ProcessLock {
    fn new(folder: &Path) -> Result<Self, DeviceError> {
        platform::make_private_folder(folder)?;
        let path = folder.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        file.map(|file| Self(Arc::new(file))).map_err(|error| PlatformError::Io(error).into())
    }

    fn hold(&self) -> Result<Held, DeviceError> {
        self.0.lock().map_err(PlatformError::Io)?;
        Ok(Held(Arc::clone(&self.0)))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The lock also goes with the file when the process ends.
        let _released = self.0.unlock();
    }
}

#[cfg(test)]
mod tests;
