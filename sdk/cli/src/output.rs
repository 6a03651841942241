//! What a command says: text for a person, or one JSON object on the last line.

use std::fmt::Display;
use std::io::Write;

use sealpost_wire::clock::UnixTime;
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::CliError;

/// Where a command's words go.
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) const fn new(json: bool) -> Self {
        Self { json }
    }

    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// A line for a person; nothing with `--json`.
    pub(crate) fn say(&self, line: impl Display) {
        if !self.json {
            write(&mut std::io::stdout(), &line);
        }
    }

    /// Rows in columns, for a person; the first row is the heading.
    pub(crate) fn table<const N: usize>(&self, rows: &[[String; N]]) {
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; N] = std::array::from_fn(width);
        for row in rows {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            self.say(cells.collect::<Vec<_>>().join("  ").trim_end());
        }
    }

    /// With `--json`, what a script needs while the command still waits: an object on a line of its own.
    pub(crate) fn meanwhile(&self, so_far: &Value) {
        self.result(so_far);
    }

    /// The command's result: the last line with `--json`, nothing otherwise.
    pub(crate) fn result<T: Serialize>(&self, result: &T) {
        if self.json {
            write(&mut std::io::stdout(), &json!(result));
        }
    }

    /// Why the command failed, and what it did all the same.
    pub(crate) fn error(&self, error: &CliError) {
        if self.json {
            let mut said = error.done().cloned().unwrap_or_else(|| json!({}));
            said["error"] = json!({"code": error.code(), "message": error.to_string()});
            write(&mut std::io::stdout(), &said);
        } else {
            write(&mut std::io::stderr(), &format_args!("sealpost: {error}"));
        }
    }
}

/// Writes a line, now. Nobody may be left to read it (`sealpost status | head -1`): what the command does is no less done.
fn write(to: &mut dyn Write, line: &dyn Display) {
    let _written = writeln!(to, "{line}").and_then(|()| to.flush());
}

/// A text from elsewhere, for a terminal: without what would move its cursor or change its colours.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|one| if one.is_control() { ' ' } else { one }).collect()
}

/// A time, as RFC 3339 writes it in UTC.
pub(crate) fn utc(time: UnixTime) -> String {
    let (days, seconds) = (time.0 / 86_400, time.0 % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The date that is `days` after 1970-01-01. Years are counted from March, so that the leap day is a year's last; 400 of
/// them have 146 097 days.
const fn civil(days: u64) -> (u64, u64, u64) {
    let since_march_0 = days.saturating_add(719_468);
    let (era, of_era) = (since_march_0 / 146_097, since_march_0 % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    if month < 10 { (era * 400 + year, month + 3, day) } else { (era * 400 + year + 1, month - 9, day) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_164_799, "2024-02-28T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_735_689_600, "2025-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(UnixTime(seconds)), text);
        }
    }

    #[test]
    fn a_text_from_elsewhere_leaves_the_terminal_alone() {
        assert_eq!(plain("a\u{1b}[31mb\r\u{7}c ä"), "a [31mb  c ä");
    }
}
