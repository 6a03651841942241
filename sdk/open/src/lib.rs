//! Opens a sealed message with a device's prekey: HPKE (RFC 9180), then the author's signature and chain.
//!
//! # In scope
//! Private prekeys, decryption, every check that a message must pass before a device believes it, and the
//! rule by which replays are told. The bytes are described in `FORMAT.md` of `sealpost-wire`.
//!
//! # Out of scope
//! Where keys and messages are kept, and when keys are deleted (`sealpost-device`); what an MLS frame carries
//! (`sealpost-group`); sealing (`sealpost-seal`).
//!
//! ```
//! # use sealpost_open::{OpenError, PrekeyPrivate, ReplayGuard, ReplayKey, open};
//! # use sealpost_wire::{clock::UnixTime, context::MessageContext, payload::Frame, trust::TenantTrust};
//! # fn example(
//! #     sealed: &[u8], context: &MessageContext, key: &PrekeyPrivate, trust: &TenantTrust, replays: &mut ReplayGuard,
//! #     clock: UnixTime,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! let now = replays.time(clock);
//! let message = open(sealed, context, key, trust, now)?;
//! replays.admit(ReplayKey::new(context, &message), context.expires_at)?;
//! match message.frame {
//!     Frame::Notification(_notification) => {} // a sender's
//!     Frame::Mls(_frame) => {}                 // of another device: for the group that it names
//! }
//! # Ok(())
//! # }
//! ```
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod decryption;
mod error;
mod message;
mod prekey;
mod replay;

pub use error::OpenError;
pub use message::open;
pub use prekey::PrekeyPrivate;
pub use replay::{ReplayError, ReplayGuard, ReplayKey, remember_until};
