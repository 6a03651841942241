//! Processes are killed in the middle of their work, their folder loses what was not synced, and what is left
//! is compared with what was promised. Each process is this test executable again, at [`victim::victim`].

mod edits;
mod files;
mod stores;
mod strangers;
mod victim;
