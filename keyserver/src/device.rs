//! Devices as the keyserver knows them: from their claim to their removal.
//!
//! ```text
//! pending --(in a countersigned set)--> admitted --(not in it any more)--> removed
//!    \--(ticket closed without it)--> declined
//! ```

use sealpost_wire::base64url::Base64Url;
use sealpost_wire::id::{RecipientId, TicketId};
use sealpost_wire::key::{RequestKey, VerifyingKey};
use sealpost_wire::message::Suite;
use sealpost_wire::record::DeviceRecord;
use serde::{Deserialize, Serialize};

/// A device as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Its record.
    pub record: Base64Url,
    /// The ticket that it claimed.
    pub ticket: TicketId,
    /// What authenticates its requests, taken out of the record so that no signature is verified for each of
    /// them.
    pub request_key: Base64Url,
    /// What signs its prekeys.
    pub identity_key: Base64Url,
    /// The suites that it opens, best first.
    pub suites: Vec<Suite>,
    /// Where it stands.
    pub standing: Standing,
}

/// Where a device stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It has claimed a ticket and waits for an enroller.
    Pending,
    /// It is in a recipient's set.
    Admitted {
        /// Whose set.
        recipient: RecipientId,
        /// What it shows the relay.
        admission: Base64Url,
    },
    /// Its ticket was closed without it.
    Declined,
    /// It was in a recipient's set and is not any more. Its id never comes back.
    Removed {
        /// Whose set.
        recipient: RecipientId,
    },
}

impl Device {
    /// The device of a claim.
    #[must_use]
    pub fn pending(record: &DeviceRecord, bytes: Vec<u8>) -> Self {
        Self {
            record: Base64Url(bytes),
            ticket: record.ticket,
            request_key: Base64Url(record.request_key.as_bytes().to_vec()),
            identity_key: Base64Url(record.identity_key.as_bytes().to_vec()),
            suites: record.suites.clone(),
            standing: Standing::Pending,
        }
    }

    /// What authenticates its requests.
    #[must_use]
    pub fn request_key(&self) -> Option<RequestKey> {
        let bytes = self.request_key.as_ref();
        match <[u8; 33]>::try_from(bytes) {
            Ok(point) => Some(RequestKey::P256(point)),
            Err(_) => verifying_key(bytes).map(RequestKey::Ed25519),
        }
    }

    /// What signs its prekeys.
    #[must_use]
    pub fn identity_key(&self) -> Option<VerifyingKey> {
        verifying_key(self.identity_key.as_ref())
    }

    /// The recipient whose set it is in.
    #[must_use]
    pub const fn recipient(&self) -> Option<RecipientId> {
        match &self.standing {
            Standing::Admitted { recipient, .. } => Some(*recipient),
            Standing::Pending | Standing::Declined | Standing::Removed { .. } => None,
        }
    }
}

fn verifying_key(bytes: &[u8]) -> Option<VerifyingKey> {
    VerifyingKey::from_bytes(bytes.try_into().ok()?).ok()
}
