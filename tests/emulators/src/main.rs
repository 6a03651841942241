//! `sealpost-emulators`: APNs and FCM on this machine, until interrupted.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sealpost_emulators::{ApnsKey, Emulator, Options, StartError, TokenUpdateScope};

/// Emulators of APNs and FCM HTTP v1, with TLS and HTTP/2.
///
/// Certificates, credentials and emulators.json are written to a folder; point a gateway at them. GET / at
/// the control address says how to choose outcomes and read what was received.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Folder for certificates, credentials and emulators.json; keys found in it are kept.
    #[arg(long)]
    dir: PathBuf,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    listen: IpAddr,
    /// Further host name of the server certificate (repeatable).
    #[arg(long = "name")]
    names: Vec<String>,
    /// Port of APNs; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    apns_port: u16,
    /// Port of FCM and its token endpoint; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    fcm_port: u16,
    /// Port of the control interface; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    control_port: u16,
    /// APNs team id.
    #[arg(long)]
    team_id: Option<String>,
    /// APNs key id.
    #[arg(long)]
    key_id: Option<String>,
    /// APNs topic (repeatable).
    #[arg(long = "topic")]
    topics: Vec<String>,
    /// Firebase project id.
    #[arg(long)]
    project_id: Option<String>,
    /// Concurrent streams of an APNs connection, once it has shown a valid token.
    #[arg(long)]
    apns_max_streams: Option<u32>,
    /// Concurrent streams of an FCM connection.
    #[arg(long)]
    fcm_max_streams: Option<u32>,
    /// Refuse provider tokens that change too often over all connections of a team, not within each.
    #[arg(long)]
    one_token_per_team: bool,
    /// Count requests without keeping them.
    #[arg(long)]
    count_only: bool,
    /// Threads to run on.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
    /// Print where everything is as one JSON object, on the last line of standard output.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match arguments.threads {
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        threads => {
            tokio::runtime::Builder::new_multi_thread().worker_threads(threads.into()).enable_all().build()
        }
    };
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(run(arguments)),
        Err(error) => Err(error.into()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sealpost-emulators: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    // Before anybody is told that we are there: whoever reads it may signal at once.
    let interrupted = interruption()?;
    let json = arguments.json;
    let emulator = start(arguments).await?;
    let manifest = emulator.manifest();
    if json {
        println!("{}", serde_json::to_string(manifest)?);
    } else {
        println!("APNs     {}", manifest.apns.url);
        println!("FCM      {}", manifest.fcm.url);
        println!("control  {}", manifest.control_url);
        println!("trust    {}", manifest.ca_file.display());
        let apns = &manifest.apns;
        println!("APNs key {} (key {}, team {})", apns.key_file.display(), apns.key_id, apns.team_id);
        println!("topics   {}", apns.topics.join(", "));
        println!("FCM key  {}", manifest.fcm.service_account_file.display());
    }
    interrupted.await;
    emulator.stop().await;
    Ok(())
}

async fn start(arguments: Arguments) -> Result<Emulator, StartError> {
    let mut options = Options::new(arguments.dir);
    options.listen = arguments.listen;
    options.extra_names = arguments.names;
    options.apns_port = arguments.apns_port;
    options.fcm_port = arguments.fcm_port;
    options.control_port = arguments.control_port;
    options.record_bodies = !arguments.count_only;
    if let Some(key) = options.apns_keys.pop() {
        options.apns_keys.push(ApnsKey {
            team_id: arguments.team_id.unwrap_or(key.team_id),
            key_id: arguments.key_id.unwrap_or(key.key_id),
            topics: if arguments.topics.is_empty() { key.topics } else { arguments.topics },
        });
    }
    if let Some(project_id) = arguments.project_id {
        options.project_id = project_id;
    }
    if let Some(max_streams) = arguments.apns_max_streams {
        options.apns_max_streams = max_streams;
    }
    if let Some(max_streams) = arguments.fcm_max_streams {
        options.fcm_max_streams = max_streams;
    }
    if arguments.one_token_per_team {
        options.token_update_scope = TokenUpdateScope::Team;
    }
    Emulator::start(options).await
}

/// Resolves at ctrl-c or SIGTERM.
#[cfg(unix)]
fn interruption() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Resolves at ctrl-c.
#[cfg(not(unix))]
fn interruption() -> std::io::Result<impl Future<Output = ()>> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}
