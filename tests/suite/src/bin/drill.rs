//! `cargo drill`: kills, power cuts, fuzzing and histories of groups on demand.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand};
use getrandom::SysRng;
use getrandom::rand_core::{Rng as _, UnwrapErr};
use sealpost_fuzz::campaign::{self, Campaign, Reached, Results};
use sealpost_fuzz::{TARGETS, Target};
use sealpost_simulation::{History, Hospital, Tally};
use sealpost_tests::Outcome;
use sealpost_tests::drill::{DrillOptions, Report, run};
use sealpost_tests::plan::{Files, Strike, Victim};
use serde::Serialize;

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
    /// Fuzz the decoders with libFuzzer, guided by coverage: needs a C++ compiler, and Linux.
    ///
    /// Each target runs until it has spent its minutes of processor time, or has a finding. New inputs go to
    /// target/fuzz/corpus, findings to target/fuzz/findings, what libFuzzer says to target/fuzz/logs. Interrupt it
    /// whenever you like, and take it up again with --resume.
    Fuzz(Fuzz),
    /// Let groups live through histories that follow from seeds: members come, go, race, write, are killed, restored,
    /// stolen and away, messages are lost, late and doubled. At the end everybody must be in the same epoch and have
    /// what could reach it. Relay and keyserver are models; no time passes.
    ///
    /// With SEALPOST_TRACE in the environment, a history that goes wrong is told step by step.
    Groups(Groups),
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

#[derive(Args)]
struct Fuzz {
    /// Minutes for each target: of processor time, which the system counts for the fuzzer's process, and not of
    /// the clock. On a busy machine it takes longer and looks as hard.
    #[arg(long, default_value_t = 10.0, value_parser = minutes)]
    minutes: f64,
    /// Which target (repeatable); all without it.
    #[arg(long = "target", value_name = "NAME", value_parser = targets())]
    targets: Vec<Target>,
    /// How many targets run side by side.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Go on with a campaign that was interrupted, with the program that it began with: the time that a target has
    /// spent counts.
    #[arg(long)]
    resume: bool,
    /// Only print what the targets have reached so far.
    #[arg(long, conflicts_with_all = ["resume", "input"])]
    results: bool,
    /// Only run this input, of the one target that is named.
    #[arg(long, value_name = "FILE", requires = "targets", conflicts_with = "resume")]
    input: Option<PathBuf>,
}

#[derive(Args)]
struct Groups {
    /// Histories.
    #[arg(long, default_value_t = 1000)]
    count: u64,
    /// The seed of the first one, which the others follow; random without it.
    #[arg(long)]
    seed: Option<u64>,
    /// Print the result as one JSON object, on the last line.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let held = match Arguments::parse().drill {
        Drill::Kills(kills) => drill(&kills).map(|report| report.broken.is_empty()),
        Drill::Fuzz(options) => fuzz(&options),
        Drill::Groups(options) => groups(&options),
    };
    match held {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
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
        "{} kills, {} alerts, {} accepted, {} opened, {} duplicates, {} one-time prekeys, {} said in a group, {:.1} s",
        report.kills,
        report.alerts,
        report.accepted,
        report.opened,
        report.duplicates,
        report.prekeys,
        report.said,
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

/// Returns whether nothing was found.
fn fuzz(options: &Fuzz) -> Outcome<bool> {
    // Beside the folder of the profile that this program was built with.
    let own = std::env::current_exe()?;
    let folder = own.ancestors().nth(2).ok_or("this program is in no folder of Cargo's")?.join("fuzz");
    let targets = if options.targets.is_empty() { TARGETS.to_vec() } else { options.targets.clone() };
    if let Some(input) = &options.input {
        let [target] = &targets[..] else { return Err("an input is for one target".into()) };
        return Ok(campaign::reproduce(&folder, target, input)?.success());
    }
    let results = if options.results {
        Results::read(&folder)?
    } else {
        let campaign =
            if options.resume { Campaign::resume(&folder)? } else { Campaign::begin(&folder, &targets)? };
        let processor_time = Duration::from_secs_f64(options.minutes * 60.0);
        println!("{}", Reached::head());
        let tell = |name: &str, reached: &Reached| println!("{}", reached.row(name));
        campaign.run(&targets, processor_time, options.jobs, &tell)?;
        println!();
        campaign.results()
    };
    println!("{results}");
    for (name, finding) in results.findings() {
        let finding = finding.display();
        println!("FINDING: {finding}");
        println!("  again: cargo drill fuzz --target {name} --input {finding}");
        println!("  once mended, it goes to tests/fuzz/corpus/{name}, so that it does not come back");
    }
    Ok(results.findings().next().is_none())
}

/// What the histories have shown.
#[derive(Serialize)]
struct Histories {
    seed: u64,
    count: u64,
    seconds: f64,
    #[serde(flatten)]
    tally: Tally,
    /// What went wrong, and in which history.
    broken: Vec<String>,
}

/// Returns whether nothing went wrong.
fn groups(options: &Groups) -> Outcome<bool> {
    /// After so many histories a line says how far it is.
    const TELL_EVERY: u64 = 500;
    let seed = options.seed.unwrap_or_else(|| UnwrapErr(SysRng).next_u64());
    println!("seed = {seed}");
    let (hospital, intruder) = (Hospital::st_mary(), Hospital::of_an_intruder());
    let begun = Instant::now();
    let (mut tally, mut broken) = (Tally::default(), Vec::new());
    for number in 0..options.count {
        let seed = seed.wrapping_add(number);
        match sealpost_simulation::run(&hospital, &intruder, History::of(seed)) {
            Ok(shown) => tally.add(&shown),
            Err(wrong) => {
                println!("BROKEN: {wrong}");
                println!("  again: SEALPOST_TRACE=1 cargo drill groups --count 1 --seed {seed}");
                broken.push(wrong.lines().next().unwrap_or_default().to_owned());
            }
        }
        if (number + 1) % TELL_EVERY == 0 {
            println!("{:6} histories, {} broken", number + 1, broken.len());
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{} histories, {} broken: {} hybrid, {} of several groups, {} with clocks apart, {} devices away for 60 days; \
         {} messages written, {} opened, {} excused; {} kills, {} old copies, {} returns; {seconds:.1} s",
        options.count,
        broken.len(),
        tally.hybrid,
        tally.several,
        tally.skewed,
        tally.absences,
        tally.written,
        tally.opened,
        tally.excused.values().sum::<u64>(),
        tally.kills,
        tally.restored,
        tally.came_back
    );
    let held = broken.is_empty();
    if options.json {
        let histories = Histories { seed, count: options.count, seconds, tally, broken };
        println!("{}", serde_json::to_string(&histories)?);
    }
    Ok(held)
}

fn targets() -> impl clap::builder::TypedValueParser<Value = Target> {
    let names = PossibleValuesParser::new(TARGETS.map(|target| target.name));
    names.try_map(|name| Target::named(&name).ok_or("no such target"))
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|error: std::num::ParseFloatError| error.to_string())?;
    // A month: more is a slip, and no duration could be too long.
    if minutes > 0.0 && minutes <= 43_200.0 { Ok(minutes) } else { Err("more than 0, at most 43200".into()) }
}
