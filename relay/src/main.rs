//! The relay's program.

use std::io::{self, BufWriter};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use getrandom::SysRng;
use rand_core::UnwrapErr;
use sealpost_relay::config::Config;
use sealpost_relay::relay::{BoundRelay, Edge};
use sealpost_relay::store::dump;
use sealpost_service::clock::SystemClock;
use sealpost_service::reload::Reload;
use sealpost_service::shutdown::Shutdown;
use sealpost_service::telemetry::{Metrics, init_logs};

/// Accepts sealed messages, stores them, and wakes devices through APNs and FCM.
///
/// Once it listens, it prints one line to standard output: {"listening":"HOST:PORT"}. It logs to standard
/// error. SIGTERM or SIGINT lets running requests finish and then ends it; a second one does not wait. At
/// SIGHUP it reads the files that its configuration names anew.
#[derive(Debug, Parser)]
#[command(name = "sealpost-relay", version)]
struct Arguments {
    /// The configuration file (TOML); deploy/relay.toml shows every key.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Check the configuration and end.
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print every row of the store, decoded, one JSON object a line:
    /// {"keyspace":…,"key":hex,"value":base64}.
    ///
    /// Refused while a relay has the store.
    Dump,
}

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sealpost-relay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let path = arguments.config.as_ref().ok_or("--config FILE is needed; --help tells more")?;
    let config = Config::load(path)?;
    if arguments.check {
        eprintln!("sealpost-relay: the configuration is valid");
        return Ok(());
    }
    match arguments.command {
        Some(Command::Dump) => Ok(dump(&config.store_options(), BufWriter::new(io::stdout().lock()))?),
        None => {
            init_logs(&config.log)?;
            tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(config))
        }
    }
}

async fn serve(config: Config) -> Result<(), Failure> {
    let edge = Edge {
        clock: Arc::new(SystemClock),
        rng: UnwrapErr(SysRng),
        metrics: Metrics::for_process()?,
        shutdown: Shutdown::on_signals()?,
        reload: Reload::on_signal()?,
    };
    let bound = BoundRelay::bind(config, edge).await?;
    bound.listener().announce()?;
    bound.serve().await?.ended().await?;
    Ok(())
}
