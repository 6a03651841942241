//! The relay over real sockets: senders and devices on one side, emulated push providers on the other.

mod client;
mod device_submissions;
mod doors;
mod event_streams;
mod files;
mod life;
mod linkage;
mod mailboxes;
mod metrics;
mod process;
mod push_failures;
mod pushes;
mod rates;
mod slots;
mod submissions;
mod tls;
mod world;
