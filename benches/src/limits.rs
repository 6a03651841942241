//! What runs beside a row: the least that any program with the same promises has to do.

pub mod append_log;
pub mod bare_crypto;
pub mod bare_mls;
pub mod durable_push;
pub mod raw_h2;
