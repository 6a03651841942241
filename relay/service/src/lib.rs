//! What both Sealpost servers share.
//!
//! # In scope
//! The embedded store engine, logs and metrics, shutdown, the clock of the system.
//!
//! # Out of scope
//! What the rows of a store mean, and every route: those belong to the relay and to the keyserver.

pub mod clock;
pub mod engine;
pub mod free_space;
pub mod shutdown;
pub mod telemetry;
