//! Seals a notification of a sender, or an MLS frame of a device, to one device: a COSE_Sign1 by its author inside
//! a COSE_Encrypt0 by HPKE (RFC 9180).
//!
//! # In scope
//! The choice of a prekey, the checks that a sealed message must pass at its device, padding and encryption.
//! The bytes are described in `FORMAT.md` of `sealpost-wire`.
//!
//! # Out of scope
//! Look-ups, storage, submission (`sealpost-sender`); opening (`sealpost-open`). HPKE is used in base mode
//! only: the author is authenticated by the signature inside, which stays hidden and cannot be made by a
//! holder of the device's key.
//!
//! ```no_run
//! # use sealpost_seal::{Envelope, SealError, SenderIdentity, choose_prekey, seal};
//! # use sealpost_wire::{api::keyserver::DevicePrekeys, clock::UnixTime, payload::Notification, record::DeviceRecord};
//! # fn example(
//! #     sender: &SenderIdentity, record: &DeviceRecord, looked_up: &[DevicePrekeys], notification: &Notification,
//! #     envelope: &Envelope, now: UnixTime, rng: &mut impl rand_core::CryptoRng,
//! # ) -> Result<(), SealError> {
//! let prekey = choose_prekey(record, looked_up, sender.policy(), envelope.expires_at, now)?;
//! let sealed = seal(notification, envelope, &prekey, sender, now, rng)?;
//! assert_eq!(sealed.device, record.device);
//! # Ok(())
//! # }
//! ```
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod choice;
mod encryption;
mod error;
mod identity;
mod sealed_box;

pub use choice::{OneTimePolicy, SealPolicy, SuitePolicy, choose_prekey};
pub use error::SealError;
pub use identity::{DeviceAuthor, SenderIdentity};
pub use sealed_box::{Envelope, SealedBox, seal, seal_mls};
