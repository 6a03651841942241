//! What both Sealpost servers share.
//!
//! # In scope
//! The embedded store engine, logs and metrics, shutdown, reload, the clock of the system; listening, problems,
//! bodies and parameters; tenants and their statuses, access tokens, signed requests of devices, rates, audit rows;
//! configuration files.
//!
//! # Out of scope
//! What the other rows of a store mean, and the routes: those belong to the relay and to the keyserver.

pub mod access;
pub mod audit;
pub mod body;
pub mod clock;
pub mod config;
pub mod device_request;
pub mod engine;
pub mod free_space;
pub mod parameter;
pub mod problem;
pub mod rates;
pub mod reload;
pub mod server;
pub mod shared_rows;
pub mod shutdown;
pub mod store_key;
pub mod telemetry;
pub mod tenants;
