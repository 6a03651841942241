//! `cargo drill`: kills and power cuts on demand.

use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use getrandom::SysRng;
use getrandom::rand_core::{Rng as _, UnwrapErr};
use sealpost_tests::Outcome;
use sealpost_tests::drill::{DrillOptions, Report, run};
use sealpost_tests::plan::{Files, Strike, Victim};

/// Drills of Sealpost's promises on this machine.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    drill: Drill,
}

#[derive(Subcommand)]
enum Drill {
    /// Kill programs (SIGKILL) under load at random moments, and check that nothing was lost or came twice.
    Kills(Kills),
}

#[derive(Args)]
struct Kills {
    /// Kills of each victim.
    #[arg(long, default_value_t = 8)]
    count: usize,
    /// Whom to kill (repeatable); everybody without it.
    #[arg(long = "victim")]
    victims: Vec<Victim>,
    /// Chooses the order and the moments; random without it.
    #[arg(long)]
    seed: Option<u64>,
    /// Cut the power at each kill: files go back to their last-synced bytes.
    #[arg(long)]
    cuts: bool,
    /// Print the result as one JSON object, on the last line.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let Drill::Kills(kills) = Arguments::parse().drill;
    match drill(&kills) {
        Ok(report) if report.broken.is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("drill: {error}");
            ExitCode::FAILURE
        }
    }
}

fn drill(kills: &Kills) -> Outcome<Report> {
    build()?;
    let all: &[Victim] = if kills.cuts { &Victim::CUT } else { &Victim::ALL };
    let victims = if kills.victims.is_empty() { all.to_vec() } else { kills.victims.clone() };
    let seed = kills.seed.unwrap_or_else(|| UnwrapErr(SysRng).next_u64());
    println!("seed = {seed}");
    let options = DrillOptions { seed, victims, count: kills.count, cuts: kills.cuts };
    let report = run(&options, &mut tell)?;
    for broken in &report.broken {
        println!("BROKEN: {broken}");
    }
    eprint!("{}", report.logs);
    println!(
        "{} kills, {} alerts, {} accepted, {} opened, {} duplicates, {} one-time prekeys, {:.1} s",
        report.kills,
        report.alerts,
        report.accepted,
        report.opened,
        report.duplicates,
        report.prekeys,
        report.seconds
    );
    if kills.json {
        println!("{}", serde_json::to_string(&report)?);
    }
    Ok(report)
}

fn tell(number: usize, strike: &Strike, back_after: Duration) {
    let what = match strike.files {
        Files::Kept => "kill",
        Files::Cut => "cut",
        Files::Torn(_) => "torn cut",
    };
    println!(
        "{number:4}  {what:8}  {:9}  after {:2} exchanges and {:5.1} ms, back in {:4} ms",
        strike.victim,
        strike.exchanges,
        strike.pause.as_secs_f64() * 1000.0,
        back_after.as_millis()
    );
}

/// The programs that are to be killed, as the sources say: `cargo run` has built this one only.
fn build() -> Outcome<()> {
    let Some(cargo) = std::env::var_os("CARGO") else { return Ok(()) };
    let packages = ["sealpost-relay", "sealpost-keyserver", "sealpost-emulators", "sealpost-tests"];
    let packages = packages.iter().flat_map(|package| ["-p", package]);
    let status = Command::new(cargo).args(["build", "--quiet", "--bins"]).args(packages).status()?;
    if status.success() { Ok(()) } else { Err("the programs could not be built".into()) }
}
