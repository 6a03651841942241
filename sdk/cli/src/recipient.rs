//! `sealpost recipient` and `sealpost consent`.

use sealpost_wire::api::keyserver::Consent;
use sealpost_wire::clock::Clock as _;
use sealpost_wire::id::{Digest, RecipientId};
use serde_json::json;

use crate::arguments::{ConsentCommand, RecipientCommand, Said};
use crate::edge::{self, SystemClock};
use crate::error::CliError;
use crate::home::Home;
use crate::output::Output;

pub(crate) fn run(command: &RecipientCommand, output: &Output) -> Result<(), CliError> {
    let RecipientCommand::New = command;
    let recipient = RecipientId::random(edge::rng().as_mut());
    output.say(recipient);
    output.result(&json!({"recipient": recipient}));
    Ok(())
}

pub(crate) fn consent(command: &ConsentCommand, home: &Home, output: &Output) -> Result<(), CliError> {
    let document = match &command.document {
        Some(path) => {
            let read = std::fs::read(path);
            let bytes = read.map_err(|error| CliError::File { path: path.display().to_string(), error })?;
            Some(Digest::of(&bytes))
        }
        None => None,
    };
    let granted = command.said == Said::Grant;
    let consent = Consent {
        granted,
        given_at: SystemClock.now(),
        recorded_by: command.by.clone(),
        method: command.method.clone(),
        document,
    };
    let enroller = home.enroller(command.enroller.as_deref())?;
    enroller.put_consent(command.recipient, &command.category, &consent)?;
    let said = if granted { "agrees to" } else { "does not agree to" };
    output.say(format_args!("Recorded: {} {said} {}.", command.recipient, command.category));
    output.result(&json!({"recipient": command.recipient, "category": command.category, "granted": granted}));
    Ok(())
}
