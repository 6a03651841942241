//! The emulators, driven over TLS as a gateway would drive them.

mod apns;
mod binary;
mod client;
mod connection;
mod control;
mod fcm;
mod frames;
mod goaway;
mod oauth;
mod sockets;
mod streams;

/// An error in the product must not hide in what tests it.
#[test]
fn the_emulators_use_no_product_crate() {
    let manifest = include_str!("../../Cargo.toml");
    let (_, dependencies) = manifest.split_once("[dependencies]").unwrap();
    assert!(!dependencies.contains("sealpost"));
}
