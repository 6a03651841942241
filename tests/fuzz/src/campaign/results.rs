//! What a campaign has reached, as it is kept and as it is printed.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Outcome;

/// What every target has reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Results {
    /// By the target's name.
    pub targets: BTreeMap<String, Reached>,
}

/// What a target has reached, in one session or in all of a campaign.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reached {
    /// Processor time of the program's process, as the system counts it.
    pub processor_ms: u64,
    /// Inputs run.
    pub executions: u64,
    /// Edges of the control flow that the corpus took at the start; nothing while that runs.
    pub coverage_at_start: Option<u64>,
    /// Edges taken by now.
    pub coverage: u64,
    /// Inputs at the start that reach what the others do not.
    pub units_at_start: Option<u64>,
    /// Such inputs by now.
    pub units: u64,
    /// Files of inputs that broke something.
    pub findings: Vec<PathBuf>,
}

impl Results {
    /// What the folder keeps: nothing where no campaign was.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else.
    pub fn read(folder: &Path) -> Outcome<Self> {
        match fs::read(folder.join(FILE)) {
            Ok(json) => Ok(serde_json::from_slice(&json)?),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps it in the folder.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write(&self, folder: &Path) -> Outcome<()> {
        let beside = folder.join("results.json.new");
        fs::write(&beside, serde_json::to_vec_pretty(self)?)?;
        Ok(fs::rename(beside, folder.join(FILE))?)
    }

    /// Files of all inputs that broke something, each with its target's name.
    pub fn findings(&self) -> impl Iterator<Item = (&str, &Path)> {
        let targets = self.targets.iter();
        targets.flat_map(|(name, reached)| {
            reached.findings.iter().map(move |finding| (name.as_str(), finding.as_path()))
        })
    }
}

impl Reached {
    /// Processor time spent.
    #[must_use]
    pub fn processor_time(&self) -> Duration {
        Duration::from_millis(self.processor_ms)
    }

    /// The head of the table whose rows are [`Self::row`].
    #[must_use]
    pub fn head() -> String {
        row("target", ["minutes", "executions", "coverage", "corpus", "findings"].map(str::to_owned))
    }

    /// A row of the table: minutes of processor time, inputs run, edges and inputs of the corpus (at the start and
    /// by now), findings.
    #[must_use]
    pub fn row(&self, name: &str) -> String {
        let minutes = format!("{:.1}", self.processor_time().as_secs_f64() / 60.0);
        let growth = |start: Option<u64>, now| {
            start.map_or_else(|| "-".to_owned(), |start| format!("{start} -> {now}"))
        };
        row(
            name,
            [
                minutes,
                self.executions.to_string(),
                growth(self.coverage_at_start, self.coverage),
                growth(self.units_at_start, self.units),
                self.findings.len().to_string(),
            ],
        )
    }

    /// This, and a session after it.
    pub(super) fn with(&self, session: &Self) -> Self {
        Self {
            processor_ms: self.processor_ms + session.processor_ms,
            executions: self.executions + session.executions,
            coverage_at_start: self.coverage_at_start.or(session.coverage_at_start),
            coverage: self.coverage.max(session.coverage),
            units_at_start: self.units_at_start.or(session.units_at_start),
            units: if session.units_at_start.is_some() { session.units } else { self.units },
            findings: [&self.findings[..], &session.findings].concat(),
        }
    }
}

impl fmt::Display for Results {
    /// As a table, with the sums below it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", Reached::head())?;
        for (name, reached) in &self.targets {
            writeln!(f, "{}", reached.row(name))?;
        }
        let spent: Duration = self.targets.values().map(Reached::processor_time).sum();
        let executions: u64 = self.targets.values().map(|reached| reached.executions).sum();
        write!(
            f,
            "{} targets, {:.1} minutes of processor time, {executions} executions, {} findings",
            self.targets.len(),
            spent.as_secs_f64() / 60.0,
            self.findings().count()
        )
    }
}

fn row(name: &str, [minutes, executions, coverage, corpus, findings]: [String; 5]) -> String {
    format!("{name:18} {minutes:>7} {executions:>11}  {coverage:>14}  {corpus:>12}  {findings:>8}")
}

const FILE: &str = "results.json";

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Reached {
        Reached {
            processor_ms: 90_000,
            executions: 1000,
            coverage_at_start: Some(412),
            coverage: 430,
            units_at_start: Some(7),
            units: 31,
            findings: Vec::new(),
        }
    }

    #[test]
    fn an_interrupted_campaign_goes_on_from_what_the_folder_keeps() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Results::read(folder.path()).unwrap(), Results::default());
        let first = Reached::default().with(&session());
        Results { targets: [("hl7".to_owned(), first)].into() }.write(folder.path()).unwrap();

        let kept = Results::read(folder.path()).unwrap().targets.remove("hl7").unwrap();
        let second = Reached {
            coverage_at_start: Some(430),
            coverage: 433,
            units_at_start: Some(31),
            units: 35,
            findings: vec!["hl7-crash-1".into()],
            ..session()
        };
        let both = kept.with(&second);
        assert_eq!((both.processor_ms, both.executions), (180_000, 2000));
        assert_eq!(
            both.row("hl7"),
            "hl7                    3.0        2000      412 -> 433       7 -> 35         1"
        );
        // A session that was cut off while it ran the corpus takes nothing away.
        let cut = kept.with(&Reached { processor_ms: 10, ..Reached::default() });
        assert_eq!((cut.coverage, cut.units), (430, 31));

        fs::write(folder.path().join(FILE), b"{\"targets\": {\"hl7\": {}}}").unwrap();
        assert!(Results::read(folder.path()).is_err(), "half a result is none");
    }

    #[test]
    fn the_table_ends_with_its_sums() {
        let found = Reached { findings: vec!["x".into()], ..session() };
        let results = Results { targets: [("hl7".to_owned(), session()), ("mllp".to_owned(), found)].into() };
        let table = results.to_string();
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines.len(), 4, "{table}");
        assert!(lines[..3].iter().all(|line| line.len() == lines[0].len()), "{table}");
        assert_eq!(lines[3], "2 targets, 3.0 minutes of processor time, 2000 executions, 1 findings");
        assert_eq!(results.findings().collect::<Vec<_>>(), [("mllp", Path::new("x"))]);
    }
}
