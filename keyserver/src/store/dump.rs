//! Every row of a store, for whoever wants to see for themselves what a keyserver keeps.

use std::io::{self, Write};
use std::path::Path;

use data_encoding::{BASE64, HEXLOWER};
use sealpost_service::engine::{Engine, EngineError, OpenError};
use sealpost_service::telemetry::Metrics;
use serde::Serialize;

use super::options;

/// Why a dump ended early. A store in use is free once its keyserver has ended.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The store could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] EngineError),
    /// The rows could not be written out.
    #[error("writing the rows: {0}")]
    Write(#[from] io::Error),
}

/// Writes every row of the store in `folder`, decompressed, as one JSON object a line: `keyspace`, `key` in
/// hexadecimal, `value` in base64.
///
/// # Errors
/// See [`DumpError`]; in particular while a keyserver has the store.
pub fn dump(folder: &Path, mut out: impl Write) -> Result<(), DumpError> {
    let engine = Engine::open(options(folder), &Metrics::new())?;
    let mut written = Ok(());
    engine.dump(|keyspace, key, value| {
        if written.is_ok() {
            let row = Row { keyspace, key: HEXLOWER.encode(key), value: BASE64.encode(value) };
            let line = serde_json::to_writer(&mut out, &row).map_err(io::Error::from);
            written = line.and_then(|()| out.write_all(b"\n"));
        }
    })?;
    written?;
    Ok(out.flush()?)
}

#[derive(Serialize)]
struct Row<'a> {
    keyspace: &'a str,
    key: String,
    value: String,
}
