//! Clinical events of a hospital's systems, read and turned into alerts for patients.
//!
//! # In scope
//! MLLP frames and an HL7 v2 reader, both over bytes, the result message ORU^R01, the map from patient
//! identifiers to recipient pseudonyms, the quarantine of what must not be sent, the mapping of a result to
//! an [`alert::Alert`], and the policy of how each category travels.
//!
//! # Out of scope
//! Sealing and submitting: the alert is handed to the sender. Everything here is a pure function of its input
//! except [`quarantine`], which writes files.
//!
//! # From bytes to alerts
//! ```
//! use sealpost_connector::alert::{Alert, AlertOptions, Priority};
//! use sealpost_connector::hl7::{Message, ReadOptions};
//! use sealpost_connector::oru::Oru;
//! use sealpost_connector::patients::PatientMap;
//!
//! # let bytes = include_bytes!("../../../tests/data/hl7/critical-potassium.hl7");
//! let patients = PatientMap::from_toml(
//!     r#"
//!     [[patients]]
//!     authority = "NORTHSIDE"
//!     type = "MR"
//!     id = "PX-30417"
//!     recipient = "7f3c0d52a98e41b6b0d4f1e2c3a59687"
//!     "#,
//! )?;
//! let message = Message::parse(bytes, &ReadOptions::default())?;
//! let oru = Oru::from_message(&message)?;
//! let recipient = patients.resolve(&oru.patient)?; // an error here is a reason for the quarantine
//! let alerts = Alert::from_oru(&oru, recipient, &AlertOptions::default())?;
//! assert_eq!(alerts[0].priority, Priority::Critical);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Values that identify a patient are left out of every `Debug` and of every error of this crate.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

/// `Debug` that names the type and shows nothing: what holds patient data must not reach a log by accident.
macro_rules! debug_without_content {
    ($($name:ty),*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}

pub mod alert;
pub mod hl7;
pub mod mllp;
pub mod oru;
pub mod patients;
pub mod policy;
pub mod quarantine;
