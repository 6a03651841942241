//! Groups under everything that happens: histories that follow from a seed, over one clock, one model of the relay and
//! one of the keyserver, with devices that are killed, restored from old copies, switched off, revoked and stolen.
//!
//! # In scope
//! The histories, what happens in them, and what must hold at their end; faults that they must find.
//!
//! # Out of scope
//! Boxes, sockets and files: the frames of `sealpost-group` go as they are. What cannot be made here (a key, a signed
//! set) ends the history by a panic.

mod client;
mod dice;
mod faults;
mod hospital;
mod ledger;
mod relay;
mod world;

pub use faults::Fault;
pub use hospital::Hospital;
pub use world::{History, Scenery, Tally, run};
