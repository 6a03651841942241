//! `sealpost`: administration, sending, and a device for the terminal.

mod arguments;
mod device;
mod edge;
mod error;
mod home;
mod output;
mod quarantine;
mod recipient;
mod send;
mod sender;
mod status;
mod tenant;
mod ticket;

use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use arguments::{Arguments, Command};
use error::CliError;
use home::Home;
use output::Output;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let filter = tracing_subscriber::EnvFilter::new(&arguments.log);
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
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
    let home = Home::new(arguments.home.clone());
    match &arguments.command {
        Command::Tenant(command) => tenant::run(command, &home, output),
        Command::Sender(command) => sender::run(command, &home, output),
        Command::Recipient(command) => recipient::run(command, output),
        Command::Consent(command) => recipient::consent(command, &home, output),
        Command::Ticket(command) => ticket::run(command, &home, output),
        Command::Device(command) => device::run(command, output),
        Command::Send(command) => send::run(command, &home, output),
        Command::Outbox(command) => send::outbox(command, &home, output),
        Command::Quarantine(command) => quarantine::run(command, &home, output),
        Command::Status(command) => status::run(command, &home, output),
    }
}

/// Help and version go to standard output with 0, mistakes to standard error with 2; with `--json` a mistake is an
/// object on standard output like any other failure.
fn usage(error: &clap::Error) -> ExitCode {
    let is_mistake = !matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if is_mistake && std::env::args().any(|argument| argument == "--json") {
        let first_line = error.to_string().lines().next().unwrap_or_default().to_owned();
        let error = CliError::Usage(first_line.trim_start_matches("error: ").to_owned());
        Output::new(true).error(&error);
        return ExitCode::from(error.exit_code());
    }
    // Nothing is left to do if the terminal is gone.
    let _printed = error.print();
    ExitCode::from(if is_mistake { 2 } else { 0 })
}
