//! The keyserver's store: one method for each change of state, each of them one transaction with its audit
//! row.
//!
//! Changes are decided on the store's one writer thread, against everything that was decided before: two of
//! them never race. Reads see the last durable state.

mod consents;
mod dump;
mod enrolment;
mod expiry;
mod key_packages;
mod prekeys;
mod row;

use std::path::Path;
use std::sync::Arc;

use axum::response::Response;
use http::HeaderMap;
use sealpost_service::access::{self, Authority};
use sealpost_service::audit::{self, Actor, AuditRow};
use sealpost_service::engine::{Engine, EngineError, Keyspace, OpenError, Options};
use sealpost_service::problem::Refusal;
use sealpost_service::shared_rows::SharedKeyspaces;
use sealpost_service::telemetry::Metrics;
use sealpost_service::tenants::{self, RestoreError, Tenant, Tenants};
use sealpost_wire::api::keyserver::{Consent, PrekeyCount};
use sealpost_wire::clock::{Clock, UnixTime};
use sealpost_wire::id::{DeviceId, RecipientId, TenantId, TicketId};

use self::key_packages::Waiting;
use self::row::{SetRow, json};
use crate::bell::Bells;
use crate::consent::{Category, ConsentError};
use crate::device::Device;
use crate::key_package::{KeyPackageStock, KeyPackageUploadError};
use crate::prekey::{Stock, UploadError};
use crate::ticket::{Ticket, TicketError};

pub use self::dump::{DumpError, dump};
pub use self::expiry::Expired;
pub use self::key_packages::KeyPackageRequest;
pub use self::prekeys::LookUpRequest;

/// Version of what the rows contain, all together. 2 knows key packages.
const STORE_VERSION: u8 = 2;
/// The oldest version whose rows all mean the same in this one: such a store is raised when it is opened.
const STORE_VERSION_OLDEST: u8 = 1;

const TICKETS: Keyspace = Keyspace::rows(0, "tickets");
const DEVICES: Keyspace = Keyspace::rows(1, "devices");
const DEVICE_SETS: Keyspace = Keyspace::rows(2, "device_sets");
const STOCKS: Keyspace = Keyspace::rows(3, "stocks");
const PREKEYS: Keyspace = Keyspace::bulk(4, "prekeys");
const BATCHES: Keyspace = Keyspace::rows(5, "batches");
const PREKEY_IDS: Keyspace = Keyspace::rows(6, "prekey_ids");
const CONSENTS: Keyspace = Keyspace::rows(7, "consents");
const EXPIRY: Keyspace = Keyspace::rows(8, "expiry");
const ASSERTIONS: Keyspace = Keyspace::rows(9, "assertions");
const STATUSES: Keyspace = Keyspace::rows(10, "statuses");
const AUDIT: Keyspace = Keyspace::rows(11, "audit");
const KEY_PACKAGE_STOCKS: Keyspace = Keyspace::rows(12, "key_package_stocks");
const KEY_PACKAGES: Keyspace = Keyspace::bulk(13, "key_packages");
const KEY_PACKAGE_REFS: Keyspace = Keyspace::rows(14, "key_package_refs");
const KEY_PACKAGE_UPLOADS: Keyspace = Keyspace::rows(15, "key_package_uploads");

static KEYSPACES: [Keyspace; 16] = [
    TICKETS,
    DEVICES,
    DEVICE_SETS,
    STOCKS,
    PREKEYS,
    BATCHES,
    PREKEY_IDS,
    CONSENTS,
    EXPIRY,
    ASSERTIONS,
    STATUSES,
    AUDIT,
    KEY_PACKAGE_STOCKS,
    KEY_PACKAGES,
    KEY_PACKAGE_REFS,
    KEY_PACKAGE_UPLOADS,
];

const SHARED: SharedKeyspaces = SharedKeyspaces { assertions: ASSERTIONS, statuses: STATUSES, audit: AUDIT };

/// Why a change was not made, or a read gave nothing. Whether a retry can help is said by [`Refusal`], which
/// it becomes.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such row.
    #[error("there is no such row")]
    NotFound,
    /// The id is there with another content.
    #[error("the id is there with another content")]
    Conflict,
    /// Another change came first. Reading again and deciding anew helps.
    #[error("the version has moved on")]
    VersionConflict,
    /// A device that was to be added has no claim with this record that waits.
    #[error("an added device has no claim that waits")]
    ClaimMissing,
    /// As many rows are there as one recipient may have.
    #[error("too many {0}")]
    Full(&'static str),
    /// See [`TicketError`].
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// See [`UploadError`].
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// See [`KeyPackageUploadError`].
    #[error(transparent)]
    KeyPackages(#[from] KeyPackageUploadError),
    /// See [`ConsentError`].
    #[error(transparent)]
    Consent(#[from] ConsentError),
    /// A row that this program cannot have written. No retry helps.
    #[error("a row of {0} is damaged")]
    Damaged(&'static str),
    /// What the engine says.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Whether a change made something new, or found it made already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is new.
    New,
    /// It was there, with the same content.
    Again,
}

/// The store.
#[derive(Debug)]
pub struct Store {
    engine: Engine,
    incarnation: u64,
    bells: Bells<BellKey>,
    waiting: Arc<Waiting>,
}

/// What requests wait for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum BellKey {
    Ticket(TenantId, TicketId),
    Device(TenantId, DeviceId),
}

impl Store {
    /// Opens or creates the store in `folder`. With `restored`, it is marked as restored from a copy first:
    /// one-time prekeys and one-time key packages that are in it may have been handed out since, and are void.
    ///
    /// # Errors
    /// See [`OpenError`]; a store that cannot be marked as restored is reported as one that cannot be opened.
    pub async fn open(folder: &Path, restored: bool, metrics: &Metrics) -> Result<Self, OpenError> {
        let engine = Engine::open(options(folder), metrics)?;
        let marking = |error: EngineError| OpenError::Io {
            what: "reading the store's incarnation",
            source: std::io::Error::other(error),
        };
        if restored {
            match engine.raise_incarnation().await.map_err(marking)? {
                Ok(incarnation) => tracing::warn!(incarnation, "restored: what was for one use is void"),
                Err(never) => match never {},
            }
        }
        let incarnation = engine.incarnation().map_err(marking)?;
        let waiting = Arc::new(Waiting::default());
        for row in engine.snapshot().range(KEY_PACKAGE_STOCKS, ..) {
            let (_, value) = row.map_err(marking)?;
            // One that is damaged is told when its device is asked for.
            if let Ok(mut stock) = json::<KeyPackageStock>(&value, KEY_PACKAGE_STOCKS) {
                stock.enter(incarnation);
                waiting.count(&stock);
            }
        }
        Ok(Self { engine, incarnation, bells: Bells::new(), waiting })
    }

    /// The engine under it.
    #[must_use]
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Which life of the store this is.
    #[must_use]
    pub const fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Whether changes are taken.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.engine.is_closed()
    }

    /// Commits and answers what waits, and closes. Blocks until it is done.
    pub fn shutdown(&self) {
        self.engine.shutdown();
    }

    /// Brings the tenants' stored statuses into force, at start.
    ///
    /// # Errors
    /// See [`RestoreError`].
    pub fn restore_statuses(&self, tenants: &Tenants, now: UnixTime) -> Result<(), RestoreError> {
        tenants::restore_statuses(&self.engine, STATUSES, tenants, now)
    }

    /// The newest time that the store has seen (milliseconds): a clock must not start before it.
    ///
    /// # Errors
    /// [`EngineError::Read`].
    pub fn last_time_millis(&self, tenants: &Tenants) -> Result<u64, EngineError> {
        tenants.iter().try_fold(0, |last, tenant| {
            Ok(audit::last_time_millis(&self.engine, AUDIT, tenant.id())?.max(last))
        })
    }

    /// Takes in a tenant status.
    ///
    /// # Errors
    /// See [`tenants::put_status`].
    pub async fn put_status(
        &self,
        tenant: &Arc<Tenant>,
        bytes: &[u8],
        who: &Actor,
        clock: &dyn Clock,
    ) -> Result<(), Refusal> {
        // Revoked devices stay in their sets until an enroller removes them; look-ups leave them out.
        tenants::put_status(&self.engine, SHARED, tenant, bytes, who, clock, |_, _| {}).await
    }

    /// Uses a client assertion up and answers with an access token.
    pub async fn claim_jti(&self, authority: &Authority, headers: &HeaderMap, body: &[u8]) -> Response {
        access::answer_token_request(authority, &self.engine, SHARED, headers, body).await
    }

    /// A ticket.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; so for all reads.
    pub fn ticket(&self, tenant: &TenantId, ticket: TicketId) -> Result<Ticket, StoreError> {
        self.read(TICKETS, &row::ticket(tenant, ticket))
    }

    /// A device.
    ///
    /// # Errors
    /// See [`Store::ticket`].
    pub fn device(&self, tenant: &TenantId, device: DeviceId) -> Result<Device, StoreError> {
        self.read(DEVICES, &row::device(tenant, device))
    }

    /// A recipient's device set, as it was signed.
    ///
    /// # Errors
    /// See [`Store::ticket`].
    pub fn device_set(
        &self,
        tenant: &TenantId,
        recipient: RecipientId,
    ) -> Result<(u64, Vec<u8>), StoreError> {
        let value = self.engine.get(DEVICE_SETS, row::recipient(tenant, recipient))?;
        let value = value.ok_or(StoreError::NotFound)?;
        let set = SetRow::read(&value)?;
        Ok((set.version, set.bytes.to_vec()))
    }

    /// How many prekeys of a device are left.
    ///
    /// # Errors
    /// See [`Store::ticket`].
    pub fn prekey_counts(
        &self,
        tenant: &TenantId,
        device: DeviceId,
        now: UnixTime,
    ) -> Result<Vec<PrekeyCount>, StoreError> {
        let mut stock: Stock = self.read(STOCKS, &row::device(tenant, device))?;
        stock.enter(self.incarnation);
        Ok(stock.counts(now))
    }

    /// What a recipient said last about a category.
    ///
    /// # Errors
    /// See [`Store::ticket`].
    pub fn consent(
        &self,
        tenant: &TenantId,
        recipient: RecipientId,
        category: &Category,
    ) -> Result<Consent, StoreError> {
        self.read(CONSENTS, &row::consent(tenant, recipient, category.as_str()))
    }

    /// What a recipient has agreed to, by category.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] and what the engine says.
    pub fn consents(
        &self,
        tenant: &TenantId,
        recipient: RecipientId,
    ) -> Result<Vec<(String, Consent)>, StoreError> {
        let prefix = row::recipient(tenant, recipient);
        let rows = self.engine.snapshot().prefix(CONSENTS, &prefix);
        rows.map(|row| {
            let (key, value) = row?;
            let category = std::str::from_utf8(key.get(prefix.len()..).unwrap_or_default());
            let category = category.map_err(|_| StoreError::Damaged(CONSENTS.name()))?;
            Ok((category.to_owned(), json(&value, CONSENTS)?))
        })
        .collect()
    }

    /// The tenant's audit rows above a sequence.
    ///
    /// # Errors
    /// [`EngineError::Read`].
    pub fn audit_rows(
        &self,
        tenant: &TenantId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, AuditRow)>, EngineError> {
        audit::rows(&self.engine, AUDIT, tenant, after, limit)
    }

    /// Shows every row to `visit` as (keyspace, key, value): for exports, and for looking for what must not
    /// be there.
    ///
    /// # Errors
    /// [`EngineError::Read`].
    pub fn dump(&self, visit: impl FnMut(&'static str, &[u8], &[u8])) -> Result<(), EngineError> {
        self.engine.dump(visit)
    }

    fn read<T: serde::de::DeserializeOwned>(&self, keyspace: Keyspace, key: &[u8]) -> Result<T, StoreError> {
        let value = self.engine.get(keyspace, key)?.ok_or(StoreError::NotFound)?;
        json(&value, keyspace)
    }
}

/// How the store in `folder` is opened.
fn options(folder: &Path) -> Options {
    let options = Options::new(folder, &KEYSPACES, STORE_VERSION);
    Options { oldest_version: Some(STORE_VERSION_OLDEST), ..options }
}
