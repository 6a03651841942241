//! `sealpost quarantine`: results that were not sent because something about them is not clear.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use sealpost_connector::quarantine::Quarantine;
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::id::Digest;
use serde_json::json;

use crate::arguments::QuarantineCommand;
use crate::error::CliError;
use crate::home::Home;
use crate::output::{Output, utc};

/// The quarantine of a home.
pub(crate) fn open(home: &Home) -> Result<Quarantine, CliError> {
    sealpost_sender::make_private_folder(home.folder())?;
    Ok(Quarantine::open(home.folder().join("quarantine"))?)
}

pub(crate) fn run(command: &QuarantineCommand, home: &Home, output: &Output) -> Result<(), CliError> {
    let quarantine = open(home)?;
    match command {
        QuarantineCommand::List => list(&quarantine, output),
        QuarantineCommand::Show { id } => hand_out(*id, &quarantine.read(*id)?, None, output),
        QuarantineCommand::Release { id, to } => {
            // It is held until its copy is safe.
            hand_out(*id, &quarantine.read(*id)?, to.as_deref(), output)?;
            quarantine.release(*id)?;
            Ok(())
        }
    }
}

fn list(quarantine: &Quarantine, output: &Output) -> Result<(), CliError> {
    let entries = quarantine.list()?;
    let mut rows = vec![["MESSAGE", "REASON", "RECEIVED", "BYTES"].map(str::to_owned)];
    let mut held = Vec::new();
    for entry in &entries {
        let reason = entry.reason.as_ref().map_or("unknown", |reason| reason.code());
        let received = entry.received.map_or_else(|| "unknown".to_owned(), utc);
        rows.push([entry.id.to_string(), reason.to_owned(), received, entry.bytes.to_string()]);
        held.push(
            json!({"id": entry.id, "reason": reason, "bytes": entry.bytes, "received": entry.received}),
        );
    }
    if entries.is_empty() {
        output.say("No message is held.");
    } else {
        output.table(&rows);
    }
    output.result(&json!({"held": held}));
    Ok(())
}

/// Into a new file, or to standard output: as it came for a person, as base64url in JSON, since it may be no text.
fn hand_out(id: Digest, message: &[u8], to: Option<&Path>, output: &Output) -> Result<(), CliError> {
    match to {
        Some(path) => {
            write_new(path, message).map_err(|error| CliError::file(path, error))?;
            output.say(format_args!("Written to {}.", path.display()));
            output.result(&json!({"id": id, "file": path}));
        }
        None if output.is_json() => output.result(&json!({"id": id, "message": Base64Url(message.to_vec())})),
        None => {
            let mut stdout = std::io::stdout().lock();
            let written = stdout.write_all(message).and_then(|()| stdout.flush());
            written.map_err(|error| CliError::File { path: "standard output".to_owned(), error })?;
        }
    }
    Ok(())
}

/// A file that was not there before, for its owner only; durable when this returns.
fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
