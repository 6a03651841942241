//! Throughput, latency and memory of Sealpost beside limits and peers, measured in the same run.
//!
//! A figure alone says little on a machine that is slow today: each row is a ratio to a limit that ran right beside it,
//! on the same cores and the same disk. The system under test has one core; load and emulator have the other.

pub mod cores;
pub mod disk;
pub mod limits;
pub mod report;
pub mod rows;
pub mod scene;
