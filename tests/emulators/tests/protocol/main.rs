//! The emulators, driven over TLS as a gateway would drive them.

mod apns;
mod binary;
mod client;
mod connection;
mod control;
mod fcm;
mod oauth;

/// An error in the product must not hide in what tests it.
#[test]
fn the_emulators_use_no_product_crate() {
    let manifest = include_str!("../../Cargo.toml");
    let (_, dependencies) = manifest.split_once("[dependencies]").unwrap();
    assert!(!dependencies.contains("sealpost"));
}
