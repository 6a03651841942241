//! `cargo demo`: a lab result on its way from a hospital to a patient's two phones, with both servers and emulators of
//! Apple's and Google's push services as processes of their own; then the search for its plaintext everywhere outside the
//! phones. With `--mls` a care team talks instead (`care`).
//!
//! The flow of a result is in `scenario`: `result` (the message, with canaries) → `hospital` (seals and sends) → relay → emulators →
//! `phone` (opens) → receipts → `report` (the search).

mod canary;
mod care;
mod clock;
mod emulators;
mod error;
mod hospital;
mod phone;
mod plant;
mod pocket;
mod process;
mod programs;
mod report;
mod result;
mod running;
mod scenario;
mod screen;
mod search;
mod site;

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use serde::Serialize;
use tempfile::TempDir;

use crate::canary::Canary;
use crate::care::{CareReport, CareTeam, Script};
use crate::error::DemoError;
use crate::plant::{Encoding, Place, Planted};
use crate::process::Processes;
use crate::programs::Programs;
use crate::report::{Needle, Report, Search, Searched};
use crate::result::LabResult;
use crate::scenario::{Delivery, Scenario};
use crate::screen::say;
use crate::site::Site;

/// Sends a lab result from a hospital to a patient's two phones, sealed, through a keyserver, a relay and emulators of
/// Apple's and Google's push services; shows who saw what; and searches everything outside the phones for the plaintext.
///
/// Every content field of the result gets a random canary, which is looked for as it is, in hexadecimal, in UTF-16 and in
/// base64, in files, in every row of the stores, in logs, metrics and pushes.
///
/// With --mls, a care team talks in a group (MLS, RFC 9420): a patient, a nurse, a doctor on call and the laboratory's
/// mailbox. The doctor's phone is lost and revoked, and reads nothing of what is written later.
///
/// Exit code 0: everything that it shows is so, and no plaintext was found. 1: something did not work or is not so, or
/// plaintext was found. 2: something that you have to provide is missing.
#[derive(Parser, Debug)]
#[command(name = "cargo demo", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// The result to send: an HL7 v2 message of type ORU^R01, with any line ends, byte order mark and character set. Its
    /// patient is taken for the demo's. Without it, a sample with a critical potassium is sent.
    #[arg(long, value_name = "FILE")]
    hl7: Option<PathBuf>,
    /// Show a care team that talks in a group, and whose doctor's phone is revoked, instead of a result.
    #[arg(long, conflicts_with_all = ["hl7", "stay"])]
    mls: bool,
    /// Print the result as one JSON object on the last line; {"error": …} if there is none.
    #[arg(long)]
    json: bool,
    /// Keep everything running, and print commands to try; Ctrl-C goes on to the search.
    #[arg(long)]
    stay: bool,
    /// Run in this folder, which must be empty or missing, and keep it.
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Keep the temporary folder of the run, and say where it is.
    #[arg(long)]
    keep: bool,
    /// Put a canary where it must not be, written in this way, to see that the search finds it; several are separated by
    /// commas. The exit code is 0 if all were found, and nothing else.
    #[arg(long, value_name = "ENCODING", value_delimiter = ',')]
    plant: Vec<Encoding>,
    /// Where the canary is put.
    #[arg(long, value_name = "PLACE", value_delimiter = ',', default_value = "log", requires = "plant")]
    plant_in: Vec<Place>,
    /// Use the programs in this folder instead of building them.
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
enum Part {
    /// Be one of the phones: the demo starts itself so.
    #[command(hide = true)]
    Phone(phone::PhoneArguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse_from(given(std::env::args_os()));
    if let Some(Part::Phone(arguments)) = &arguments.part {
        return phone::run(arguments);
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    let ended = run(&arguments, &interrupted);
    while interrupted.load(Ordering::SeqCst) {
        // Whatever did not work is a consequence; the program ends as soon as all is cleaned up.
        std::thread::park();
    }
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error}");
            if arguments.json {
                say(&serde_json::json!({ "error": error.to_string() }).to_string());
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// The arguments as they are meant: `cargo demo` stands for a command with a `--` already, and
/// `cargo demo -- --mls` brings another. Nothing of the demo's stands behind one.
fn given(arguments: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    arguments.filter(|argument| argument != "--")
}

fn run(arguments: &Arguments, interrupted: &Arc<AtomicBool>) -> Result<bool, DemoError> {
    // What is cheap to refuse is refused before anything is built.
    let result = if arguments.mls { None } else { Some(LabResult::read(arguments.hl7.as_deref())?) };
    let programs = match &arguments.programs {
        Some(folder) => Programs::find(folder, arguments.stay)?,
        None => Programs::build(arguments.stay)?,
    };
    let started = Instant::now();
    let folder = Folder::create(arguments)?;
    let guard = Guard::new(&folder, arguments.stay, interrupted)?;
    let in_all = || u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let Some(result) = result else {
        let script = Script::new();
        let shown = CareTeam::show(&folder.site, &guard.processes, &programs, &script)?;
        let group = Needle { name: "the group's id", bytes: shown.group.as_bytes() };
        let searched = search(arguments, &folder.site, script.canaries(), &[group])?;
        let report = CareReport::new(shown, script.canaries(), searched, in_all(), folder.kept_path());
        report.print();
        tell(arguments, &folder, &report)?;
        return Ok(report.is_good());
    };
    let delivery = show_delivery(arguments, &folder, &guard, &programs, &result)?;
    let searched = search(arguments, &folder.site, &result.canaries, &[])?;
    let report = Report::new(&delivery, &result.canaries, searched, in_all(), folder.kept_path());
    report.print();
    tell(arguments, &folder, &report)?;
    Ok(report.is_good())
}

/// Sends a result, and lets it all stay if somebody wants to try more.
fn show_delivery(
    arguments: &Arguments,
    folder: &Folder,
    guard: &Guard,
    programs: &Programs,
    result: &LabResult,
) -> Result<Delivery, DemoError> {
    let site = &folder.site;
    fs::write(site.input().join("result.hl7"), &result.bytes)
        .map_err(|error| DemoError::missing(site.input().display(), error))?;
    let mut scenario = Scenario::start(site, &guard.processes, programs)?;
    say("");
    let delivery = scenario.deliver(result)?;
    if arguments.stay {
        scenario.print_commands(result)?;
        scenario.stay(result, &guard.told);
    }
    scenario.end()?;
    Ok(delivery)
}

/// Plants what is to be planted, and searches everything outside the phones for the canaries and for `others`.
fn search(
    arguments: &Arguments,
    site: &Site,
    canaries: &[Canary],
    others: &[Needle<'_>],
) -> Result<Searched, DemoError> {
    let planted = Planted::all(&arguments.plant, &arguments.plant_in);
    for one in &planted {
        one.plant(site, canaries).map_err(|error| DemoError::failed("cannot plant a canary", error))?;
    }
    say(&format!(
        "\nSearching everything outside the phones for {} canaries: as they are, in hex, UTF-16 and base64",
        canaries.len()
    ));
    let needles: Vec<_> = canaries.iter().map(Canary::needle).chain(others.iter().copied()).collect();
    let search = Search::run(site, &needles)?;
    search.print();
    say("");
    Ok(Searched::new(&search, planted))
}

/// Says where everything is, and the result as one JSON object, if that is wanted.
fn tell(arguments: &Arguments, folder: &Folder, report: &impl Serialize) -> Result<(), DemoError> {
    if let Some(kept) = folder.kept_path() {
        say(&format!("      everything is in {}", kept.display()));
    }
    if arguments.json {
        let line = serde_json::to_string(report);
        say(&line.map_err(|error| DemoError::failed("the result has no JSON form", error))?);
    }
    Ok(())
}

/// The folder of the run; a temporary one goes with the program.
struct Folder {
    site: Site,
    temporary: Arc<Mutex<Option<TempDir>>>,
    is_kept: bool,
}

impl Folder {
    fn create(arguments: &Arguments) -> Result<Self, DemoError> {
        let make = || {
            let made = tempfile::Builder::new().prefix("sealpost-demo-").tempdir();
            made.map_err(|error| DemoError::missing("cannot make a temporary folder", error))
        };
        let (path, temporary) = match &arguments.dir {
            Some(path) => (path.clone(), None),
            None if arguments.keep => (make()?.keep(), None),
            None => {
                let folder = make()?;
                (folder.path().to_owned(), Some(folder))
            }
        };
        let is_kept = temporary.is_none();
        Ok(Self { site: Site::create(&path)?, temporary: Arc::new(Mutex::new(temporary)), is_kept })
    }

    fn kept_path(&self) -> Option<PathBuf> {
        self.is_kept.then(|| self.site.root().to_owned())
    }
}

impl Drop for Folder {
    /// The other holder, who cleans up after an interruption, lives as long as the program.
    fn drop(&mut self) {
        drop(self.temporary.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Ends all processes however the demo ends.
struct Guard {
    processes: Processes,
    /// Someone who let the demo stay has interrupted it.
    told: Receiver<()>,
}

impl Guard {
    fn new(folder: &Folder, stays: bool, interrupted: &Arc<AtomicBool>) -> Result<Self, DemoError> {
        let processes = Processes::new();
        let interrupted = Arc::clone(interrupted);
        let (sender, told) = channel();
        let mut sender = Some(sender).filter(|_| stays);
        let (to_end, temporary) = (processes.clone(), Arc::clone(&folder.temporary));
        process::on_interruption(move |signal| {
            // The first one ends the stay, if there is one; any other ends the demo.
            if sender.take().is_some_and(|sender| sender.send(()).is_ok()) {
                return;
            }
            interrupted.store(true, Ordering::SeqCst);
            to_end.kill_all();
            if let Some(folder) = temporary.lock().unwrap_or_else(PoisonError::into_inner).take() {
                remove(folder);
            }
            std::process::exit(128 + signal);
        })
        .map_err(|error| DemoError::failed("cannot watch for interruptions", error))?;
        Ok(Self { processes, told })
    }
}

/// Removes a folder that another thread may still write into: again, until it stays away.
fn remove(folder: TempDir) {
    let path = folder.path().to_owned();
    drop(folder);
    for _ in 0..REMOVALS_MAX {
        std::thread::sleep(REMOVAL_PAUSE);
        if !path.exists() {
            return;
        }
        let _ = fs::remove_dir_all(&path);
    }
}

/// How often a folder is removed again, and the pause before it.
const REMOVALS_MAX: usize = 5;
const REMOVAL_PAUSE: Duration = Duration::from_millis(20);

impl Drop for Guard {
    fn drop(&mut self) {
        self.processes.kill_all();
    }
}
