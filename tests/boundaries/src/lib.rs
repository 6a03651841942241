//! The project's outer rules, as questions to what Cargo knows: which crate may use which, what may be linked at all,
//! under which licences, and with which known faults.

pub mod advisories;
pub mod graph;
pub mod licences;
