//! The keyserver over real sockets, as its clients see it.
#![allow(unreachable_pub, reason = "a test crate exports nothing")]

mod access;
mod client;
mod consents;
mod device;
mod device_sets;
mod enrolment;
mod key_packages;
mod operations;
mod peers;
mod prekeys;
mod rates;
mod requests;
mod status;
mod world;
