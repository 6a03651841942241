//! `sealpost-keyserver`: enrolments, device sets, prekeys, key packages and consents of its tenants.

use std::io::{self, BufWriter};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sealpost_keyserver::config::Config;
use sealpost_keyserver::keyserver::{KeyserverError, OpenKeyserver};
use sealpost_keyserver::store::dump;
use sealpost_service::clock::SystemClock;
use sealpost_service::reload::Reload;
use sealpost_service::shutdown::Shutdown;
use sealpost_service::telemetry::init_logs;

/// The Sealpost keyserver. It hands out public keys that a hospital has countersigned; it has none that opens
/// a message.
///
/// Once it listens, it prints one line of JSON to standard output: {"listening":"ADDRESS"}. Logs go to
/// standard error. SIGTERM drains: /readyz answers 503, running requests finish, the store is closed. A
/// second one hurries. SIGHUP reads the TLS files anew.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file (TOML); deploy/keyserver.toml is a sample with every key.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Check the configuration and end: 0 when it is good.
    #[arg(long)]
    check: bool,
    /// The store was restored from a copy: one-time prekeys and key packages in it may have been handed out
    /// since, drop them. Devices upload new ones.
    #[arg(long)]
    restored: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print every row of the store, decoded, one JSON object a line:
    /// {"keyspace":…,"key":hex,"value":base64}.
    ///
    /// Refused while a keyserver has the store.
    Dump,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sealpost-keyserver: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let path = arguments.config.as_ref().ok_or("--config FILE is needed; --help tells more")?;
    let config = Config::load(path)?;
    if arguments.check {
        return Ok(());
    }
    if let Some(Command::Dump) = arguments.command {
        return Ok(dump(&config.data, BufWriter::new(io::stdout().lock()))?);
    }
    init_logs(&config.log)?;
    let shutdown = Shutdown::on_signals()?;
    let reload = Reload::on_signal()?;
    let keyserver = OpenKeyserver::open(config, arguments.restored, shutdown, &reload, SystemClock).await?;
    keyserver.listener().announce().map_err(KeyserverError::from)?;
    keyserver.serve().await;
    Ok(())
}
