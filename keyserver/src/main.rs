//! `sealpost-keyserver`: enrolments, device sets, prekeys and consents of its tenants.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sealpost_keyserver::config::Config;
use sealpost_keyserver::keyserver::{KeyserverError, OpenKeyserver};
use sealpost_service::shutdown::Shutdown;
use sealpost_service::telemetry::init_logs;

/// The Sealpost keyserver. It hands out public keys that a hospital has countersigned; it has none that opens a message.
///
/// Once it listens, it prints one line of JSON to standard output: {"listening":"ADDRESS"}. Logs go to standard error.
/// SIGTERM drains: /readyz answers 503, running requests finish, the store is closed. A second one hurries.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file (TOML); deploy/keyserver.toml is a sample with every key.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration and end: 0 when it is good.
    #[arg(long)]
    check: bool,
    /// The store was restored from a copy: one-time prekeys in it may have been handed out since, drop them. Devices
    /// upload new ones.
    #[arg(long)]
    restored: bool,
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
    let config = Config::load(&arguments.config)?;
    if arguments.check {
        return Ok(());
    }
    init_logs(&config.log)?;
    let shutdown = Shutdown::on_signals()?;
    let keyserver = OpenKeyserver::open(config, arguments.restored, shutdown).await?;
    keyserver.listener().announce().map_err(KeyserverError::from)?;
    keyserver.serve().await;
    Ok(())
}
