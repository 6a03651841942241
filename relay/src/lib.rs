//! The relay: it accepts sealed messages, stores them, and wakes devices. It links no crate that takes a device's
//! decryption key.

pub mod provider;
pub mod push_token;
pub mod store;
