//! `sealpost`: administration, sending, and a device for the terminal.

mod arguments;
mod device;
mod edge;
mod error;
mod group;
mod home;
mod outbox;
mod output;
mod quarantine;
mod recipient;
mod send;
mod sender;
mod status;
mod stop;
mod tenant;
mod ticket;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use arguments::{Arguments, Command};
use error::CliError;
use home::Home;
use output::Output;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    // Of this project's crates alone: what an HTTP client logs could hold a token.
    let filter = Targets::new().with_target("sealpost", arguments.log());
    let colours = std::io::stderr().is_terminal();
    let layer = tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(std::io::stderr);
    tracing_subscriber::registry().with(layer).with(filter).init();
    let output = Output::new(arguments.json);
    match run(&arguments, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(arguments: &Arguments, output: &Output) -> Result<(), CliError> {
    let ca_file = arguments.ca_file.clone();
    let home = Home::new(arguments.home.clone(), ca_file.clone());
    match &arguments.command {
        Command::Tenant(command) => tenant::run(command, &home, output),
        Command::Sender(command) => sender::run(command, &home, output),
        Command::Recipient(command) => recipient::run(command, &home, output),
        Command::Consent(command) => recipient::consent(command, &home, output),
        Command::Ticket(command) => ticket::run(command, &home, output),
        Command::Device(command) => device::run(command, ca_file.as_deref(), output),
        Command::Group(command) => group::run(command, ca_file.as_deref(), output),
        Command::Send(command) => send::run(command, &home, output),
        Command::Outbox(command) => outbox::run(command, &home, output),
        Command::Quarantine(command) => quarantine::run(command, &home, output),
        Command::Status(command) => status::run(command, &home, output),
    }
}

/// Help and version go to standard output with 0, mistakes to standard error with 2; with `--json` a mistake is an
/// object on standard output like any other failure.
fn usage(error: &clap::Error) -> ExitCode {
    let is_mistake = !matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if is_mistake && std::env::args().any(|argument| argument == "--json") {
        let text = error.to_string();
        let what: Vec<_> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
        let error = CliError::Usage(what.join(" ").trim_start_matches("error: ").to_owned());
        Output::new(true).error(&error);
        return ExitCode::from(error.exit_code());
    }
    // Nothing is left to do if the terminal is gone.
    let _printed = error.print();
    ExitCode::from(if is_mistake { 2 } else { 0 })
}
