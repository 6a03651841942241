//! The provider clients against sockets: emulators that behave as Apple and Google do, and peers that do not.

mod apns;
mod connection;
mod fcm;
mod followed;
#[allow(dead_code, reason = "shared with the tests of what broke other gateways")]
mod frames;
mod load;
mod peer;
mod proxy;
mod setup;
