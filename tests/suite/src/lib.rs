//! Sealpost as it runs: real programs, real files, real sockets, and what is promised when they die.
//!
//! # In scope
//! A [`site::Site`] of keyserver, relay, provider emulators, senders and devices, each a process of its own;
//! a [`tap::Tap`] before each server that sees, and if asked falsifies, what passes; the [`drill`]: load,
//! SIGKILL and power cuts at random moments, and the [`promises`] that are checked after it.
//!
//! # Out of scope
//! What one crate promises alone: its own tests are there for it.

pub mod client;
pub mod drill;
pub mod plan;
pub mod process;
pub mod program;
pub mod promises;
pub mod record;
pub mod say;
pub mod site;
pub mod tap;
pub mod tenant;

/// What goes wrong here ends a test or a drill: the text says what, nobody handles it.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
