//! The keyserver's routes. Each names who may ask, parses, hands over to a decision and the store, and
//! answers.

mod clients;
mod devices;
mod enrolment;
mod key_packages;
mod recipients;
mod signed;

use std::fmt::Display;
use std::sync::Arc;

use sealpost_service::access::{Authority, HasAuthority, TOKEN_BODY_BYTES_MAX};
use sealpost_service::problem::{ProblemCode, Refusal};
use sealpost_service::server::{Api, Operation, common_operations};
use sealpost_service::tenants::STATUS_BODY_BYTES_MAX;
use sealpost_wire::key_package::KeyPackageError;
use sealpost_wire::limits::{
    ADMISSION_BYTES_MAX, DEVICE_SET_BYTES_MAX, DEVICES_PER_SET_MAX, KEY_PACKAGE_BYTES_MAX,
    KEY_PACKAGES_PER_UPLOAD_MAX, PREKEY_BATCH_BYTES_MAX, PREKEY_LEAF_BYTES_MAX, PREKEYS_PER_BATCH_MAX,
};
use serde::{Deserialize, Serialize};

use crate::config::WAIT_SECONDS_MAX;
use crate::consent::ConsentError;
use crate::device_set::SetError;
use crate::key_package::KeyPackageUploadError;
use crate::keyserver::Keyserver;
use crate::prekey::UploadError;
use crate::store::StoreError;
use crate::ticket::TicketError;

/// Bytes of JSON around the base64url of what a body carries.
const JSON_BYTES: usize = 4096;
/// Bytes of the body of a ticket, of its claim and of its end, of look-ups and of a consent.
const SMALL_BODY_BYTES_MAX: usize = 16 * 1024;
/// Bytes of the body of a prekey upload.
const PREKEYS_BODY_BYTES_MAX: usize = base64url_bytes(PREKEY_LEAF_BYTES_MAX) * PREKEYS_PER_BATCH_MAX
    + base64url_bytes(PREKEY_BATCH_BYTES_MAX)
    + JSON_BYTES;
/// Bytes of the body of an upload of key packages; a last resort may come with them.
const KEY_PACKAGES_BODY_BYTES_MAX: usize =
    base64url_bytes(KEY_PACKAGE_BYTES_MAX) * (KEY_PACKAGES_PER_UPLOAD_MAX + 1) + JSON_BYTES;
/// Bytes of the body of a device set.
const DEVICE_SET_BODY_BYTES_MAX: usize = base64url_bytes(DEVICE_SET_BYTES_MAX)
    + base64url_bytes(ADMISSION_BYTES_MAX) * DEVICES_PER_SET_MAX
    + JSON_BYTES;

/// The OpenAPI document of the keyserver: `keyserver/openapi.json`.
pub const DOCUMENT: &str = include_str!("../openapi.json");

/// The list of the keyserver's routes, which [`DOCUMENT`] describes.
#[must_use]
pub fn operations() -> Vec<Operation> {
    [api().operations(), &common_operations()].concat()
}

/// All of them, each with the size of its body.
pub(crate) fn api() -> Api<Arc<Keyserver>> {
    let recipient_devices = "/v1/recipients/{recipient}/devices";
    let recipient_consent = "/v1/recipients/{recipient}/consent/{category}";
    Api::new()
        .post("/v1/token", TOKEN_BODY_BYTES_MAX, clients::token)
        .put("/v1/status", STATUS_BODY_BYTES_MAX, clients::put_status)
        .get("/v1/status", clients::status)
        .put("/v1/tickets/{ticket}", SMALL_BODY_BYTES_MAX, enrolment::put_ticket)
        .get("/v1/tickets/{ticket}", enrolment::ticket)
        .post("/v1/tickets/{ticket}/claims", SMALL_BODY_BYTES_MAX, enrolment::claim)
        .post("/v1/tickets/{ticket}/close", SMALL_BODY_BYTES_MAX, enrolment::close)
        .get("/v1/devices/{device}", devices::state)
        .put("/v1/devices/{device}/prekeys", PREKEYS_BODY_BYTES_MAX, devices::put_prekeys)
        .put("/v1/devices/{device}/key-packages", KEY_PACKAGES_BODY_BYTES_MAX, key_packages::put_key_packages)
        .post("/v1/devices/{device}/peers", SMALL_BODY_BYTES_MAX, key_packages::peers)
        .put(recipient_devices, DEVICE_SET_BODY_BYTES_MAX, recipients::put_devices)
        .get(recipient_devices, recipients::devices)
        .post("/v1/recipients/{recipient}/look-up", SMALL_BODY_BYTES_MAX, recipients::look_up)
        .post("/v1/recipients/{recipient}/key-packages", SMALL_BODY_BYTES_MAX, key_packages::look_up)
        .get("/v1/recipients/{recipient}/consent", recipients::consents)
        .put(recipient_consent, SMALL_BODY_BYTES_MAX, recipients::put_consent)
        .get(recipient_consent, recipients::consent)
}

impl HasAuthority for Keyserver {
    fn authority(&self) -> &Authority {
        &self.authority
    }
}

/// `?wait=`: stay connected this long (seconds) for a change.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wait {
    #[serde(default)]
    wait: u64,
}

impl Wait {
    /// The wait; more than a minute counts as a minute.
    fn longest(self) -> std::time::Duration {
        std::time::Duration::from_secs(self.wait.min(WAIT_SECONDS_MAX))
    }
}

/// The answer where there is nothing to say: `{}`.
#[derive(Clone, Copy, Debug, Serialize)]
struct Done {}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound => ProblemCode::NotFound.into(),
            StoreError::Conflict => ProblemCode::Conflict.into(),
            StoreError::VersionConflict => ProblemCode::VersionConflict.into(),
            StoreError::ClaimMissing => Self::new(ProblemCode::InvalidValue).detail("claim_missing"),
            StoreError::Full(what) => Self::new(ProblemCode::InvalidValue).detail(format!("too many {what}")),
            StoreError::Ticket(error) => error.into(),
            StoreError::Upload(error) => error.into(),
            StoreError::KeyPackages(error) => error.into(),
            StoreError::Consent(error) => error.into(),
            StoreError::Damaged(keyspace) => {
                tracing::error!(keyspace, "a row is damaged");
                ProblemCode::Internal.into()
            }
            StoreError::Engine(error) => error.into(),
        }
    }
}

impl From<TicketError> for Refusal {
    fn from(error: TicketError) -> Self {
        match error {
            TicketError::Expiry => ProblemCode::InvalidExpiry.into(),
            TicketError::WrongToken => ProblemCode::InvalidCredentials.into(),
            TicketError::Unavailable => ProblemCode::TicketUnavailable.into(),
        }
    }
}

impl From<UploadError> for Refusal {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Trust(error) => error.into(),
            UploadError::Expiry => ProblemCode::InvalidExpiry.into(),
            UploadError::Value(field) => Self::new(ProblemCode::InvalidValue).detail(field),
            UploadError::Reused => Self::new(ProblemCode::Conflict).detail("prekey_reused"),
            UploadError::TooMany => Self::new(ProblemCode::InvalidValue).detail("too_many_prekeys"),
        }
    }
}

impl From<KeyPackageUploadError> for Refusal {
    fn from(error: KeyPackageUploadError) -> Self {
        match error {
            KeyPackageUploadError::KeyPackage(
                error @ (KeyPackageError::WrongLifetime
                | KeyPackageError::NotYetValid
                | KeyPackageError::Expired),
            ) => Self::new(ProblemCode::InvalidExpiry).detail(error.code()),
            KeyPackageUploadError::KeyPackage(error) => {
                Self::new(ProblemCode::InvalidStructure).detail(error.code())
            }
            KeyPackageUploadError::Value(field) => Self::new(ProblemCode::InvalidValue).detail(field),
            KeyPackageUploadError::Reused => Self::new(ProblemCode::Conflict).detail("key_package_reused"),
            KeyPackageUploadError::TooMany => {
                Self::new(ProblemCode::InvalidValue).detail("too_many_key_packages")
            }
        }
    }
}

impl From<ConsentError> for Refusal {
    fn from(error: ConsentError) -> Self {
        match error {
            ConsentError::Value(field) => Self::new(ProblemCode::InvalidValue).detail(field),
            ConsentError::Superseded => Self::new(ProblemCode::Conflict).detail("superseded"),
        }
    }
}

impl From<SetError> for Refusal {
    fn from(error: SetError) -> Self {
        match error {
            SetError::Trust(error) => error.into(),
            SetError::VersionConflict => ProblemCode::VersionConflict.into(),
            SetError::Value(field) => Self::new(ProblemCode::InvalidValue).detail(field),
            SetError::AddsDevices => ProblemCode::Forbidden.into(),
        }
    }
}

/// Ids, separated by spaces, for the audit.
struct Listed<T>(Vec<T>);

impl<T: Display> Display for Listed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut separator = "";
        for id in &self.0 {
            write!(f, "{separator}{id}")?;
            separator = " ";
        }
        Ok(())
    }
}

const fn base64url_bytes(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}
