//! `sealpost quarantine`: results that were not sent because something about them is not clear.

use std::io::Write as _;

use sealpost_connector::quarantine::Quarantine;
use serde_json::json;

use crate::arguments::QuarantineCommand;
use crate::error::CliError;
use crate::home::Home;
use crate::output::Output;

/// The quarantine of a home.
pub(crate) fn open(home: &Home) -> Result<Quarantine, CliError> {
    Ok(Quarantine::open(home.folder().join("quarantine"))?)
}

pub(crate) fn run(command: &QuarantineCommand, home: &Home, output: &Output) -> Result<(), CliError> {
    let quarantine = open(home)?;
    match command {
        QuarantineCommand::List => {
            let entries = quarantine.list()?;
            let mut rows = Vec::new();
            for entry in &entries {
                let reason = entry.reason.as_ref().map_or("unknown", |reason| reason.code());
                let received = entry.received.map_or(0, |time| time.0);
                output
                    .say(format_args!("{}  {reason}  {} bytes  received {received}", entry.id, entry.bytes));
                rows.push(json!({"id": entry.id, "reason": reason, "bytes": entry.bytes, "received": entry.received}));
            }
            output.result(&json!({"held": rows}));
            Ok(())
        }
        QuarantineCommand::Show { id } => print(&quarantine.read(*id)?),
        QuarantineCommand::Release { id } => print(&quarantine.release(*id)?),
    }
}

fn print(message: &[u8]) -> Result<(), CliError> {
    let written = std::io::stdout().write_all(message);
    written.map_err(|error| CliError::File { path: "standard output".to_owned(), error })
}
