//! The keyserver: tenants' enrolments, device sets, prekeys, key packages and consents.
//!
//! # In scope
//! Tickets and claims, countersigned device sets changed by compare-and-swap, prekeys of which each one-time
//! key is handed out once, key packages of MLS likewise, consent checked at look-up, tenant statuses, access
//! tokens.
//!
//! # Out of scope
//! Messages, push tokens, and every private key: what is stored here is public or a hash, and whatever a
//! sender or device takes from here it verifies against the tenant's root.
//!
//! # One way through
//! A request goes from `routes` to a decision (`ticket`, `device_set`, `prekey`, `key_package`, `consent`: no I/O), which
//! the store runs in one transaction, and its result becomes the answer.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod config;
pub mod consent;
pub mod device;
pub mod device_set;
pub mod key_package;
pub mod keyserver;
pub mod look_up;
pub mod metrics;
pub mod prekey;
pub mod routes;
pub mod store;
pub mod ticket;

mod bell;
