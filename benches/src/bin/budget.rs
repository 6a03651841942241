//! `cargo budget`: measures the rows of the budget and says which hold. See the library for how.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum as _};
use sealpost_benches::error::BenchError;
use sealpost_benches::report::{self, Row};
use sealpost_benches::rows::{Effort, Name};
use sealpost_benches::scene::{Stage, end_relays_on_signals};
use sealpost_benches::{cores, disk, member_memory, program};
use serde::Serialize;

/// Beside what Cargo builds: on the same disk as the repository, and out of its history.
const DEFAULT_FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/budget");

/// Measures throughput, latency and memory beside limits that run on the same cores and the same disk.
///
/// Needs two cores that nothing else uses. Builds the release of the relay first.
#[derive(Parser)]
#[command(name = "cargo budget")]
struct Options {
    /// Only this row; may be given several times.
    #[arg(long = "row", value_name = "NAME")]
    rows: Vec<Name>,
    /// Runs of each row; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Messages of a run, instead of each row's own number.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    messages: Option<u32>,
    /// Folder for the stores, on a disk; a RAM file system is refused [default: the repository's target/budget].
    #[arg(long, default_value = DEFAULT_FOLDER, hide_default_value = true)]
    dir: PathBuf,
    /// One object on the last line of the output.
    #[arg(long)]
    json: bool,
    /// One run of few messages for each row: whether it works, not how fast it is.
    #[arg(long)]
    quick: bool,
    /// Fails where a budget falls short.
    #[arg(long)]
    check: bool,
    /// A relay that was built before, instead of building it.
    #[arg(long, value_name = "FILE")]
    relay: Option<PathBuf>,
    /// Draws what the row group-sizes finds, as SVG.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// The process whose memory that row measures: takes the commit that is in the folder.
    #[arg(long, value_name = "FOLDER", hide = true, exclusive = true)]
    take_commit: Option<PathBuf>,
}

/// What was found, for programs.
#[derive(Serialize)]
struct Report {
    rows: Vec<Row>,
    machine: Machine,
}

#[derive(Serialize)]
struct Machine {
    cores: usize,
    file_system: String,
    fdatasync_ms: f64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match &options.take_commit {
        Some(folder) => member_memory::take_commit(folder).map(|()| true),
        None => run(&options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cargo budget: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all was measured, and held where that was asked for.
fn run(options: &Options) -> Result<bool, BenchError> {
    end_relays_on_signals()?;
    std::fs::create_dir_all(&options.dir).map_err(failed("making the folder"))?;
    let folder = options.dir.canonicalize().map_err(failed("finding the folder"))?;
    let disk = disk::look(&folder)?;
    let machine = Machine {
        cores: cores::count(),
        file_system: disk.file_system.clone(),
        fdatasync_ms: disk.fdatasync_ms,
    };
    println!(
        "{} cores, {}, fdatasync of 4 KiB {:.2} ms\n",
        machine.cores, machine.file_system, machine.fdatasync_ms
    );
    let program = match &options.relay {
        Some(program) => program.canonicalize().map_err(failed("finding the relay"))?,
        None => program::build_relay()?,
    };
    let mut stage = Stage::new(program, folder, disk.file_system)?;
    stage.picture.clone_from(&options.picture);
    let runs = if options.quick { 1 } else { options.runs };
    let messages = options.messages.and_then(|count| usize::try_from(count).ok());
    let effort = Effort { runs: runs.into(), messages, quick: options.quick };

    let all = Name::value_variants().iter().copied();
    let names: Vec<Name> =
        all.filter(|name| options.rows.is_empty() || options.rows.contains(name)).collect();
    let mut rows = Vec::with_capacity(names.len());
    let mut complete = true;
    for name in names {
        match name.measure(&mut stage, effort) {
            Ok(row) => {
                report::print(&row);
                rows.push(row);
            }
            Err(error) => {
                complete = false;
                let name =
                    name.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
                eprintln!("{name}: not measured: {error}\n");
            }
        }
    }
    let holds = rows.iter().all(|row| row.holds);
    if options.json {
        println!("{}", serde_json::to_string(&Report { rows, machine })?);
    }
    Ok(complete && (holds || !options.check))
}

fn failed(what: &'static str) -> impl FnOnce(std::io::Error) -> BenchError {
    move |source| BenchError::Io { what, source }
}
