//! `sealpost recipient` and `sealpost consent`.

use std::path::Path;

use sealpost_wire::api::keyserver::Consent;
use sealpost_wire::clock::Clock as _;
use sealpost_wire::id::{Digest, RecipientId};
use serde_json::json;

use crate::arguments::{ConsentCommand, RecipientCommand, Said};
use crate::edge::{self, SystemClock};
use crate::error::CliError;
use crate::home::Home;
use crate::output::{Output, plain, utc};

/// Bytes of a consent document.
const DOCUMENT_BYTES_MAX: usize = 64 * 1024 * 1024;

pub(crate) fn run(command: &RecipientCommand, home: &Home, output: &Output) -> Result<(), CliError> {
    match command {
        RecipientCommand::New => {
            let recipient = RecipientId::random(edge::rng().as_mut());
            output.say(recipient);
            output.result(&json!({"recipient": recipient}));
        }
        RecipientCommand::RemoveDevice { recipient, device, enroller } => {
            let version = home.enroller(enroller.as_deref())?.remove_device(*recipient, *device)?;
            output.say(format_args!("Device {device} is out: version {version} of the set of {recipient}."));
            output.result(&json!({"recipient": recipient, "device": device, "version": version}));
        }
    }
    Ok(())
}

pub(crate) fn consent(command: &ConsentCommand, home: &Home, output: &Output) -> Result<(), CliError> {
    match command {
        ConsentCommand::Grant(said) => record(said, true, home, output),
        ConsentCommand::Withdraw(said) => record(said, false, home, output),
        ConsentCommand::List { recipient, enroller } => {
            let list = home.enroller(enroller.as_deref())?.consents(*recipient)?;
            let mut rows = vec![["CATEGORY", "CONSENT", "SINCE", "RECORDED BY", "HOW"].map(str::to_owned)];
            for (category, consent) in &list.consents {
                let word = if consent.granted { "granted" } else { "withdrawn" };
                let (by, how) = (plain(&consent.recorded_by), plain(&consent.method));
                rows.push([plain(category), word.to_owned(), utc(consent.given_at), by, how]);
            }
            if list.consents.is_empty() {
                output.say("Nothing was recorded for this recipient.");
            } else {
                output.table(&rows);
            }
            output.result(&json!({"recipient": recipient, "consents": list.consents}));
            Ok(())
        }
    }
}

fn record(said: &Said, granted: bool, home: &Home, output: &Output) -> Result<(), CliError> {
    let consent = Consent {
        granted,
        given_at: SystemClock.now(),
        recorded_by: said.by.clone(),
        method: said.method.clone(),
        document: said.document.as_deref().map(digest).transpose()?,
    };
    home.enroller(said.enroller.as_deref())?.put_consent(said.recipient, &said.category, &consent)?;
    let word = if granted { "agrees to" } else { "does not agree to" };
    output.say(format_args!("Recorded: {} {word} {}.", said.recipient, said.category));
    output.result(&json!({"recipient": said.recipient, "category": said.category, "granted": granted}));
    Ok(())
}

fn digest(document: &Path) -> Result<Digest, CliError> {
    let bytes = edge::read(document, DOCUMENT_BYTES_MAX)?;
    if bytes.len() > DOCUMENT_BYTES_MAX {
        let message = format!("{}: more than {DOCUMENT_BYTES_MAX} bytes", document.display());
        return Err(CliError::state("too_large", message));
    }
    Ok(Digest::of(&bytes))
}
