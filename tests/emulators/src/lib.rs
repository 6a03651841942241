//! Emulators of the Apple Push Notification service and of Firebase Cloud Messaging (HTTP v1).
//!
//! They listen on real sockets with TLS and HTTP/2, check what the real ones check and answer as they answer.
//! A fault table, steered from a control port, decides what happens to requests that pass the checks. All are
//! recorded.
//!
//! **In scope:** request checks, provider tokens, OAuth access tokens, stream limits that change, GOAWAY with
//! and without requests that are not processed, dead tokens, chosen answers (whole, half, rubbish), delays,
//! silence, cut and reset connections, peers that stop reading, and connections that are received in bad ways.
//!
//! **Out of scope:** delivery to a phone, quotas that are counted, notification storage, certificate-based
//! authentication.
//!
//! Architecture invariant: this crate depends on no other Sealpost crate, so that an error in the product
//! cannot hide in the thing that tests it.
//!
//! A request flows `connection` (HTTP/2) → `apns` or `fcm` (protocol checks) → `faults` (chosen outcome) →
//! `record` → answer. `wire` sits under the HTTP/2 library and owns what that library cannot do:
//! SETTINGS that change during a connection, GOAWAY with debug data and any last-stream-id. `socket` sits under
//! TLS and reads as slowly as told.
//!
//! ```no_run
//! # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
//! use sealpost_emulators::{Emulator, Options, Outcome, Provider};
//!
//! let emulator = Emulator::start(Options::new("/tmp/emulators")).await?;
//! emulator.set_outcome(Outcome { count: Some(2), ..Outcome::new(Provider::Apns, 503) })?;
//! // … point a gateway at emulator.apns_addr(), with the files in /tmp/emulators …
//! emulator.wait_for_count(3).await;
//! emulator.stop().await;
//! # Ok(())
//! # }
//! ```

mod apns;
mod clock;
mod connection;
mod control;
mod credentials;
mod emulator;
mod entropy;
mod faults;
mod fcm;
mod fcm_message;
mod http1;
mod jws;
mod listener;
mod oauth;
mod options;
mod outcome;
mod provider_token;
mod record;
mod socket;
mod tls;
mod wire;
mod world;

pub use clock::{Clock, SystemClock};
pub use credentials::{ApnsFacts, FcmFacts, Manifest};
pub use emulator::{Emulator, StartError};
pub use options::{ApnsKey, Options, TokenUpdateScope};
pub use outcome::{ConnectionFault, Details, GoAway, Outcome, OutcomeError, Reading, Reception, RetryAfter};
pub use record::{Counts, ProviderCounts, Push};
pub use world::Provider;
