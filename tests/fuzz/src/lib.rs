//! Fuzz targets: one for every decoder that takes bytes from strangers.
//!
//! # In scope
//! A target is a function of bytes that checks what must hold of them: what is read is written back as the same
//! bytes, what is refused is refused within bounds, no bytes are two things. It panics where that does not hold.
//! Signatures would stop a fuzzer at the door: so a target signs what it is given, by the right key, and the
//! reader behind the door is reached.
//!
//! # Out of scope
//! How inputs are found: `tests/corpus.rs` runs the corpus and plain mutations of it, without coverage feedback, in
//! every run of the tests; a [`campaign`] has libFuzzer look for new ones, on demand.

mod assertion;
mod bodies;
mod clinical;
mod cose;
mod key_package;
mod provider;
mod request;
mod sealed;
mod signed;
mod world;

pub mod campaign;
pub mod seeds;

use std::path::{Path, PathBuf};

/// A decoder under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of its folder in the corpus.
    pub name: &'static str,
    /// Checks what must hold of any bytes.
    pub check: fn(&[u8]),
    /// Longer inputs find nothing new (bytes).
    pub input_bytes_max: usize,
}

/// All of them.
pub const TARGETS: [Target; 26] = [
    Target { name: "admission", check: signed::admission, input_bytes_max: 1024 },
    Target { name: "apns_answer", check: provider::apns_answer, input_bytes_max: 512 },
    Target { name: "certificate", check: signed::certificate, input_bytes_max: 400 },
    Target { name: "client_assertion", check: assertion::client_assertion, input_bytes_max: 2048 },
    Target { name: "device_record", check: signed::device_record, input_bytes_max: 1024 },
    Target { name: "device_set", check: signed::device_set, input_bytes_max: 4096 },
    Target { name: "enrolment_link", check: signed::enrolment_link, input_bytes_max: 1024 },
    Target { name: "envelope", check: signed::envelope, input_bytes_max: 2048 },
    Target { name: "fcm_answer", check: provider::fcm_answer, input_bytes_max: 1024 },
    Target { name: "hl7", check: clinical::hl7, input_bytes_max: 4096 },
    Target { name: "key_package", check: key_package::key_package, input_bytes_max: 4096 },
    Target { name: "keyserver_bodies", check: bodies::keyserver, input_bytes_max: 4096 },
    Target { name: "mailbox_statement", check: signed::mailbox_statement, input_bytes_max: 512 },
    Target { name: "member_credential", check: signed::member_credential, input_bytes_max: 3136 },
    Target { name: "mllp", check: clinical::mllp, input_bytes_max: 1024 },
    Target { name: "mls_frame", check: sealed::mls_frame, input_bytes_max: 4096 },
    Target { name: "notification", check: sealed::notification, input_bytes_max: 4096 },
    Target { name: "padding", check: sealed::padding, input_bytes_max: 2048 },
    Target { name: "prekeys", check: signed::prekeys, input_bytes_max: 4096 },
    Target { name: "receipt", check: signed::receipt, input_bytes_max: 512 },
    Target { name: "relay_bodies", check: bodies::relay, input_bytes_max: 4096 },
    Target { name: "request_signature", check: request::request_signature, input_bytes_max: 2048 },
    Target { name: "sealed", check: sealed::sealed, input_bytes_max: 4096 },
    Target { name: "tenant_status", check: signed::tenant_status, input_bytes_max: 1024 },
    Target { name: "token_answer", check: provider::token_answer, input_bytes_max: 512 },
    Target { name: "wipe_order", check: signed::wipe_order, input_bytes_max: 512 },
];

impl Target {
    /// The target with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        TARGETS.into_iter().find(|target| target.name == name)
    }

    /// Where its inputs are kept: those that reach what others do not, and those that once found something.
    #[must_use]
    pub fn corpus(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(self.name)
    }
}
