//! What libFuzzer says, line by line.
//!
//! ```text
//! #2      INITED cov: 412 ft: 413 corp: 1/86b exec/s: 0 rss: 53Mb
//! #1803   NEW    cov: 415 ft: 421 corp: 2/91b lim: 86 exec/s: 0 rss: 54Mb L: 5/86 MS: 1 EraseBytes-
//! artifact_prefix='findings/hl7-'; Test unit written to findings/hl7-crash-da39a3ee
//! stat::number_of_executed_units: 120311
//! ```

use std::path::PathBuf;

/// A line that tells something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Where it stands.
    Progress(Progress),
    /// Inputs run, at the end.
    Executions(u64),
    /// An input was kept, because of what it did.
    Finding(PathBuf),
}

/// Where libFuzzer stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Inputs run.
    pub(super) executions: u64,
    /// Edges of the control flow that an input has taken.
    pub(super) coverage: u64,
    /// Inputs that reach what the others do not.
    pub(super) units: u64,
    /// Whether it has just run what was there at the start.
    pub(super) is_initial: bool,
}

impl Line {
    pub(super) fn read(line: &str) -> Option<Self> {
        if let Some(executions) = line.strip_prefix("stat::number_of_executed_units:") {
            return Some(Self::Executions(executions.trim().parse().ok()?));
        }
        if let Some((_, path)) = line.split_once("Test unit written to ") {
            // An input that took long, and came to its end: the clock's word on a busy machine.
            return (!path.contains("slow-unit-")).then(|| Self::Finding(path.trim().into()));
        }
        let mut words = line.strip_prefix('#')?.split_whitespace();
        let executions = words.next()?.parse().ok()?;
        let is_initial = words.next()? == "INITED";
        let mut progress = Progress { executions, is_initial, ..Progress::default() };
        let mut is_whole = false;
        while let Some(word) = words.next() {
            match word {
                "cov:" => progress.coverage = words.next()?.parse().ok()?,
                "corp:" => {
                    progress.units = words.next()?.split('/').next()?.parse().ok()?;
                    is_whole = true;
                }
                _ => {}
            }
        }
        // The word about a signal comes in the middle of a line.
        is_whole.then_some(Self::Progress(progress))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_is_read() {
        let progress = |executions, coverage, units, is_initial| {
            Some(Line::Progress(Progress { executions, coverage, units, is_initial }))
        };
        for (line, read) in [
            ("#2\tINITED cov: 412 ft: 413 corp: 1/86b exec/s: 0 rss: 53Mb", progress(2, 412, 1, true)),
            (
                "#1803\tNEW    cov: 415 ft: 421 corp: 2/91b lim: 86 exec/s: 0 rss: 54Mb L: 5/86 MS: 1 EraseBytes-",
                progress(1803, 415, 2, false),
            ),
            ("#65536\tpulse  corp: 1/1b lim: 652 exec/s: 32768 rss: 54Mb", progress(65536, 0, 1, false)),
            ("stat::number_of_executed_units: 120311", Some(Line::Executions(120_311))),
            (
                "artifact_prefix='f/hl7-'; Test unit written to f/hl7-crash-da39",
                Some(Line::Finding("f/hl7-crash-da39".into())),
            ),
            ("artifact_prefix='f/hl7-'; Test unit written to f/hl7-slow-unit-da39", None),
            ("INFO: Running with entropic power schedule (0xFF, 100).", None),
            ("stat::peak_rss_mb:              60", None),
            ("#1601275\tREDUCE cov: 1187 ft: 7312INFO: signal received, trying to exit gracefully", None),
            ("#", None),
            ("#12", None),
            ("", None),
        ] {
            assert_eq!(Line::read(line), read, "{line}");
        }
    }
}
