//! `sealpost sender`.

use sealpost_sender::identity::SenderIdentityFile;
use sealpost_wire::certificate::{Purpose, Role};
use serde_json::json;

use crate::arguments::SenderCommand;
use crate::error::CliError;
use crate::home::{Home, Kind};
use crate::output::Output;
use crate::tenant::{certify, storage_key};

pub(crate) fn run(command: &SenderCommand, home: &Home, output: &Output) -> Result<(), CliError> {
    match command {
        SenderCommand::Add { name, valid_days } => {
            let root = home.root()?;
            let path = home.key_file(Kind::Sender, name.as_str())?;
            if path.exists() {
                let message = format!("there is a sender {name} already: {}", path.display());
                return Err(CliError::state("sender_exists", message));
            }
            let sender = SenderIdentityFile {
                tenant: root.tenant.clone(),
                root: root.key.verifying_key(),
                subject: name.clone(),
                keyserver: root.keyserver.clone(),
                relay: root.relay.clone(),
                send: certify(&root, name, Purpose::Send, &[], *valid_days)?,
                request: certify(&root, name, Purpose::Request, &[Role::Sender], *valid_days)?,
                outbox_key: storage_key(),
            };
            sender.write(&path)?;
            output.say(format_args!("Made sender {name}: its keys are in {}.", path.display()));
            output.result(&json!({"sender": name, "keys": path}));
        }
        SenderCommand::List => {
            let names = home.names(Kind::Sender);
            names.iter().for_each(|name| output.say(name));
            output.result(&json!({"senders": names}));
        }
    }
    Ok(())
}
