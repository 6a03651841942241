//! The contract of Sealpost: what crosses a wire or is signed, byte for byte.
//!
//! # In scope
//! Identifiers, signed structures and their verification, the outer form of a sealed message and the bytes
//! that it is bound to, delivery states, request and response bodies of both servers, request signatures,
//! problem codes, limits. `FORMAT.md` beside this crate describes the same bytes for implementers in other
//! languages.
//!
//! # Out of scope
//! Input and output, storage, and any key that opens a message: encryption lives in `sealpost-seal`,
//! decryption in `sealpost-open`. The servers link this crate and neither of those.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod admission;
pub mod api;
pub mod assertion;
pub mod author;
pub mod base64url;
pub mod certificate;
pub mod clock;
pub mod context;
pub mod delivery;
pub mod device_set;
pub mod error;
pub mod http_signature;
pub mod id;
pub mod key;
pub mod key_package;
pub mod limits;
pub mod member;
pub mod merkle;
pub mod message;
pub mod order;
pub mod padding;
pub mod payload;
pub mod prekey;
pub mod problem;
pub mod receipt;
pub mod record;
pub mod slot;
pub mod status;
pub mod ticket;
pub mod trust;

mod cbor;
mod sign1;
