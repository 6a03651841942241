//! The search of everything that the demo left behind, and the result of the demo.

use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Serialize;

use crate::canary::Canary;
use crate::error::DemoError;
use crate::plant::Planted;
use crate::pocket::MODELS;
use crate::scenario::Delivery;
use crate::screen::{grouped, say};
use crate::search::{Area, Finding, Form, Searcher};
use crate::site::{Site, UNSEARCHED};

/// Findings that are printed one by one.
const FINDINGS_SHOWN: usize = 20;

/// Something that must not be found.
#[derive(Clone, Copy)]
pub(crate) struct Needle<'n> {
    /// What it is called in the result.
    pub(crate) name: &'n str,
    /// Its bytes.
    pub(crate) bytes: &'n [u8],
}

/// What was searched, by the folders of the run.
pub(crate) struct Search {
    /// What was looked for.
    names: Vec<String>,
    areas: Vec<(String, Area)>,
}

impl Search {
    /// Searches everything in the folder of the run but what the patient and the hospital themselves have.
    pub(crate) fn run(site: &Site, needles: &[Needle<'_>]) -> Result<Self, DemoError> {
        let failed = |error: &dyn std::fmt::Display| DemoError::failed("the search", error);
        let searcher = Searcher::new(needles.iter().map(|needle| needle.bytes));
        let searcher = searcher.map_err(|error| failed(&error))?;
        let mut areas = Vec::new();
        for name in folders(site.root()).map_err(|error| failed(&error))? {
            let mut area = Area::default();
            let searched = area.search_path(&searcher, site.root(), &site.root().join(&name), &UNSEARCHED);
            searched.map_err(|error| failed(&error))?;
            areas.push((name, area));
        }
        Ok(Self { names: needles.iter().map(|needle| needle.name.to_owned()).collect(), areas })
    }

    /// Everything that was found.
    pub(crate) fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.areas.iter().flat_map(|(_, area)| &area.findings)
    }

    /// Prints a table of what was searched, and the findings.
    pub(crate) fn print(&self) {
        say(&format!("  {:<34} {:>7} {:>9} {:>13} {:>7}", "where", "files", "values", "bytes", "found"));
        let row = |name: &str, numbers: [u64; 4]| {
            let [files, values, bytes, found] = numbers.map(grouped);
            say(&format!("  {name:<34} {files:>7} {values:>9} {bytes:>13} {found:>7}"));
        };
        for (name, area) in &self.areas {
            row(described(name), area.numbers());
        }
        row("in all", self.totals());
        for finding in self.findings().take(FINDINGS_SHOWN) {
            let Leak { field, form, place, offset } = self.leak(finding);
            say(&format!("  FOUND: {field}, as {form:?}, in {place}, {offset} bytes in"));
        }
    }

    fn leak(&self, finding: &Finding) -> Leak {
        let Finding { text, form, place, offset } = finding;
        let field = self.names.get(*text).cloned().unwrap_or_default();
        Leak { field, form: *form, place: place.clone(), offset: *offset }
    }

    /// Files, values, bytes and findings.
    pub(crate) fn totals(&self) -> [u64; 4] {
        self.areas.iter().fold([0; 4], |sum, (_, area)| {
            let mut sum = sum.into_iter().zip(area.numbers()).map(|(sum, number)| sum + number);
            std::array::from_fn(|_| sum.next().unwrap_or_default())
        })
    }
}

impl Area {
    fn numbers(&self) -> [u64; 4] {
        [self.files, self.values, self.bytes, self.findings.len() as u64]
    }
}

/// What is in the folder of the run, but what is not searched at all.
fn folders(root: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| !UNSEARCHED.contains(&name.as_str()));
    names.sort_unstable();
    Ok(names)
}

/// What a folder of the run holds, for a person.
fn described(folder: &str) -> &str {
    match folder {
        "relay" => "relay: its files",
        "keyserver" => "keyserver: its files",
        "dumps" => "both servers: every stored row",
        "hospital" => "hospital: outbox and keys",
        "logs" => "logs and output of all processes",
        "metrics" => "metrics of both servers",
        "pushes" => "what Apple and Google were sent",
        "providers" => "the emulators' files",
        other => other,
    }
}

/// Whether something is as it should be.
pub(crate) const fn verdict(good: bool) -> &'static str {
    if good { "OK  " } else { "FAIL" }
}

/// A finding, as the result tells it.
#[derive(Serialize)]
struct Leak {
    /// The field whose canary it is.
    field: String,
    form: Form,
    place: String,
    offset: u64,
}

/// What the search says, in a result.
#[derive(Serialize)]
pub(crate) struct Searched {
    /// How often a canary was found outside the phones.
    plaintext_found_outside_devices: usize,
    searched_files: u64,
    searched_values: u64,
    searched_bytes: u64,
    findings: Vec<Leak>,
    /// Canaries that were put where they must not be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    planted: Vec<Planted>,
    /// How many of them were found, each in the form in which it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    planted_found: Option<usize>,
    /// Findings that nothing was planted for.
    #[serde(skip)]
    unexplained: usize,
}

impl Searched {
    /// What `search` found of `planted`, and beside it.
    pub(crate) fn new(search: &Search, planted: Vec<Planted>) -> Self {
        let [searched_files, searched_values, searched_bytes, _] = search.totals();
        let findings: Vec<&Finding> = search.findings().collect();
        Self {
            plaintext_found_outside_devices: findings.len(),
            searched_files,
            searched_values,
            searched_bytes,
            planted_found: (!planted.is_empty()).then(|| {
                planted.iter().filter(|one| findings.iter().any(|finding| one.is_found_by(finding))).count()
            }),
            unexplained: findings
                .iter()
                .filter(|finding| !planted.iter().any(|one| one.explains(finding)))
                .count(),
            planted,
            findings: findings.iter().map(|finding| search.leak(finding)).collect(),
        }
    }

    /// Whether all that was planted was found, and nothing else.
    pub(crate) fn is_as_expected(&self) -> bool {
        self.unexplained == 0 && self.planted_found.unwrap_or_default() == self.planted.len()
    }

    /// What was found, in words.
    pub(crate) fn said(&self) -> String {
        match (self.planted_found, self.plaintext_found_outside_devices) {
            (Some(planted), _) => format!(
                "{planted} of {} planted canaries found; plaintext found {} times beside them",
                self.planted.len(),
                self.unexplained
            ),
            (None, 0) => "no plaintext found outside the phones".to_owned(),
            (None, found) => format!("plaintext FOUND {found} times outside the phones"),
        }
    }
}

/// The result of the demo: the last line of standard output with `--json`.
#[derive(Serialize)]
pub(crate) struct Report {
    /// Phones that opened every message.
    opened: usize,
    /// Phones that there were.
    devices: usize,
    /// From the relay's 202 until the last phone had opened the message.
    milliseconds_accept_to_opened: Option<u64>,
    /// Messages that were sent: one for each order of the result.
    messages: usize,
    /// Receipts that the sender verified.
    receipts_verified: usize,
    /// Fields that had a canary.
    canaries: usize,
    /// Canaries that every phone had in what it opened.
    canaries_on_devices: usize,
    #[serde(flatten)]
    searched: Searched,
    /// From the start, after the programs were built, to the end.
    milliseconds_in_all: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    folder: Option<PathBuf>,
}

impl Report {
    /// The result of a delivery and a search.
    pub(crate) fn new(
        delivery: &Delivery,
        canaries: &[Canary],
        searched: Searched,
        milliseconds_in_all: u64,
        folder: Option<PathBuf>,
    ) -> Self {
        let everywhere =
            |canary: &&Canary| delivery.opened_texts.iter().all(|text| text.contains(&canary.text));
        Self {
            opened: delivery.opened,
            devices: MODELS.len(),
            milliseconds_accept_to_opened: delivery.milliseconds_accept_to_opened,
            messages: delivery.messages,
            receipts_verified: delivery.receipts_verified,
            canaries: canaries.len(),
            canaries_on_devices: canaries.iter().filter(everywhere).count(),
            searched,
            milliseconds_in_all,
            folder,
        }
    }

    /// Whether the demo showed what it is there to show.
    pub(crate) fn is_good(&self) -> bool {
        self.is_delivered() && self.is_search_good()
    }

    /// Prints the result for a person.
    pub(crate) fn print(&self) {
        let devices = self.devices;
        let within = self.milliseconds_accept_to_opened;
        let within =
            within.map_or_else(String::new, |ms| format!(", {ms} ms after the relay had accepted it"));
        say(&format!(
            "{}  opened on {} of {devices} phones{within}; {} of {} receipts verified",
            verdict(self.is_delivered()),
            self.opened,
            self.receipts_verified,
            devices * self.messages,
        ));
        say(&format!(
            "{}  {}; {} of {} canaries reached every phone{}",
            verdict(self.is_search_good()),
            self.searched.said(),
            self.canaries_on_devices,
            self.canaries,
            if self.canaries_on_devices < self.canaries {
                ", the others never left the hospital"
            } else {
                ""
            },
        ));
    }

    fn is_delivered(&self) -> bool {
        self.opened == self.devices && self.receipts_verified >= self.devices * self.messages
    }

    /// A search for what never was on the way would prove nothing.
    fn is_search_good(&self) -> bool {
        self.searched.is_as_expected() && self.canaries_on_devices > 0
    }
}
