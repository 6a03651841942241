//! The relay: it accepts sealed messages, stores them, and wakes devices.
//!
//! # In scope
//! Submissions, the slots that order them, mailboxes, sync and receipts, expiry, events, and constant stubs
//! pushed through APNs and FCM.
//!
//! # Out of scope
//! What a message says: this crate links none that takes a device's decryption key, and a test proves it.
//!
//! # One way through
//! ```text
//! routes -> submit, sync, device, message, events, status -> store (one write for each change) -> answer
//!                                                              | after each commit
//!                                                              v
//!                                    push (a worker for each app and priority) -> provider -> store
//! ```

mod author;
mod device;
mod event_stream;
mod events;
mod id_list;
mod message;
mod metrics;
mod status;
mod submit;
mod sweep;
mod sync;

pub mod config;
pub mod provider;
pub mod push;
pub mod push_token;
pub mod relay;
pub mod routes;
pub mod store;

/// The randomness of the operating system, made at the program's edge and passed in.
pub type SystemRng = rand_core::UnwrapErr<getrandom::SysRng>;
