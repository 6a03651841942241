//! Throughput, latency and memory of Sealpost beside limits, measured in the same run.
//!
//! A figure alone says little on a machine that is slow today: where a row has a limit, it is a ratio to a
//! program that ran right beside it, on the same cores and the same disk, and that does the least that any
//! program with the same promises has to do. The system under test, the release build of the relay in a
//! process of its own, has one core; load and the emulators of the push services have the other.
//!
//! ```text
//! cargo budget                         all rows, three runs of each
//! cargo budget --row accept --runs 5   one row
//! cargo budget --quick                 does every row work? Its figures mean nothing
//! cargo budget --json --check          for a program: JSON on the last line, failing where a budget does
//! cargo budget --row group-sizes --picture groups.svg
//! ```
//!
//! # How it is measured
//! - Every message goes to a device of its own, in a real box of about 2.3 KB; devices are registered through
//!   the relay's interface before the clock starts. Every push is counted at the emulator: what a relay
//!   merged, lost or sent twice would show as an error, not as speed.
//! - Each run has a relay, a store and a tenant's devices of its own; the clock starts when the relay has
//!   become quiet. Rows about stores with a past share one such store, and use devices of it that no other
//!   run used.
//! - Latencies count from the time at which a message was to be sent, whether or not the load was late.
//! - The store must be on a disk: a RAM file system is refused. TLS is on towards the emulators and off
//!   towards the relay, which an operator puts behind a proxy of his own.
//! - The rows of groups have no relay: they measure what a member does, on one core, with its state in memory and
//!   read from there for every transaction.

pub mod cast;
pub mod circle;
pub mod client;
pub mod cores;
pub mod disk;
pub mod error;
pub mod limits;
pub mod load;
pub mod member_memory;
pub mod message;
pub mod picture;
pub mod program;
pub mod report;
pub mod rows;
pub mod scene;
pub mod stock;
