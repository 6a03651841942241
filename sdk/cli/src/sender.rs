//! `sealpost sender`.

use sealpost_sender::identity::SenderIdentityFile;
use sealpost_wire::certificate::{Purpose, Role};
use sealpost_wire::clock::Clock as _;
use sealpost_wire::id::SubjectId;
use sealpost_wire::member::MailboxStatement;
use serde_json::json;

use crate::arguments::SenderCommand;
use crate::device::{self, Place};
use crate::edge::SystemClock;
use crate::error::CliError;
use crate::home::{Home, Kind};
use crate::output::{Output, utc};
use crate::tenant::{Issuer, certified_until, new_key, storage_key};

pub(crate) fn run(command: &SenderCommand, home: &Home, output: &Output) -> Result<(), CliError> {
    match command {
        SenderCommand::Add { name, valid_days } => {
            let root = home.root()?;
            let path = home.key_file(Kind::Sender, name.as_str())?;
            if path.exists() {
                let message = format!("there is a sender {name} already: {}", path.display());
                return Err(CliError::state("sender_exists", message));
            }
            let issuer = Issuer::new(&root, name, *valid_days);
            let sender = SenderIdentityFile {
                tenant: root.tenant.clone(),
                root: root.key.verifying_key(),
                subject: name.clone(),
                keyserver: root.keyserver.clone(),
                relay: root.relay.clone(),
                send: issuer.certify(new_key(), Purpose::Send, &[])?,
                request: issuer.certify(new_key(), Purpose::Request, &[Role::Sender])?,
                outbox_key: storage_key(),
            };
            sender.write(&path)?;
            output.say(format_args!("Made sender {name}: its keys are in {}.", path.display()));
            output.result(&json!({"sender": name, "keys": path, "valid_until": issuer.until()}));
        }
        SenderCommand::Renew { name, valid_days } => {
            let root = home.root()?;
            let path = home.key_file(Kind::Sender, &home.only(Kind::Sender, Some(name.as_str()))?)?;
            let mut sender = SenderIdentityFile::read(&path)?;
            let issuer = Issuer::new(&root, name, *valid_days);
            sender.send = issuer.certify(sender.send.key, Purpose::Send, &[])?;
            sender.request = issuer.certify(sender.request.key, Purpose::Request, &[Role::Sender])?;
            sender.write(&path)?;
            output.say(format_args!("The certificates of {name} are valid until {}.", utc(issuer.until())));
            output.result(&json!({"sender": name, "keys": path, "valid_until": issuer.until()}));
        }
        SenderCommand::Mailbox { name, place } => {
            mailbox(name, Place { folder: &place.device, ca_file: home.ca_file() }, home, output)?;
        }
        SenderCommand::List => {
            let mut rows = vec![["SENDER".to_owned(), "CERTIFIED UNTIL".to_owned()]];
            let mut senders = Vec::new();
            for (name, file) in home.sender_files()? {
                let until = certified_until(&file.send, file.root)?;
                senders.push(json!({"sender": name, "valid_until": until}));
                rows.push([name, utc(until)]);
            }
            if senders.is_empty() {
                output.say("There is no sender: make one with `sealpost sender add NAME`.");
            } else {
                output.table(&rows);
            }
            output.result(&json!({"senders": senders}));
        }
    }
    Ok(())
}

fn mailbox(name: &SubjectId, place: Place<'_>, home: &Home, output: &Output) -> Result<(), CliError> {
    let path = home.key_file(Kind::Sender, &home.only(Kind::Sender, Some(name.as_str()))?)?;
    let sender = SenderIdentityFile::read(&path)?;
    let mut device = device::open(place)?;
    if *device.tenant() != sender.tenant {
        let message =
            format!("the device is one of tenant {}, and {name} is of {}", device.tenant(), sender.tenant);
        return Err(CliError::state("wrong_tenant", message));
    }
    let statement = MailboxStatement {
        tenant: sender.tenant.clone(),
        device: device.id(),
        identity: device.identity(),
        issued: SystemClock.now(),
    };
    let statement = statement.sign(&sender.send.key, &sender.send.certificate)?;
    device.set_mailbox_statement(&statement)?;
    // The key packages that others invite it by are to show it.
    let shown = if device.is_admitted() { device.maintain_prekeys().map(drop) } else { Ok(()) };
    shown.map_err(|error| CliError::Partly {
        code: error.code().to_owned(),
        message: format!("the statement is stored and shown from the next sync on: {error}"),
        temporary: error.is_temporary(),
        done: json!({"sender": name, "device": device.id(), "stored": true}),
    })?;
    output.say(format_args!("Device {} is the mailbox of {name}.", device.id()));
    output.result(&json!({"sender": name, "device": device.id()}));
    Ok(())
}
