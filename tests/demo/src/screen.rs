//! What a person reads while the demo runs.

use std::io::{self, Write as _};

/// Columns that the text of an entry may have before it is wrapped.
const TEXT_COLUMNS: usize = 92;
/// Columns before the text: time, party.
const MARGIN_COLUMNS: usize = 22;

/// Prints a line. Nobody who reads no more stops the demo from cleaning up.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// What happened during the demo, by whom and when.
#[derive(Default)]
pub(crate) struct Timeline {
    entries: Vec<(u64, String, String)>,
}

impl Timeline {
    /// Adds what `who` did at a time (milliseconds since 1970).
    pub(crate) fn add(&mut self, at_ms: u64, who: &str, what: impl Into<String>) {
        self.entries.push((at_ms, who.to_owned(), what.into()));
    }

    /// The entries in the order in which they happened, times in milliseconds behind the first.
    pub(crate) fn lines(mut self) -> Vec<String> {
        self.entries.sort_by_key(|(at_ms, ..)| *at_ms);
        let start = self.entries.first().map_or(0, |(at_ms, ..)| *at_ms);
        let mut lines = Vec::new();
        for (at_ms, who, what) in &self.entries {
            let mut margin = format!("{:>6} ms  {who:<11}  ", at_ms - start);
            for line in what.lines().flat_map(|line| wrapped(line, TEXT_COLUMNS)) {
                lines.push(format!("{margin}{line}").trim_end().to_owned());
                margin = " ".repeat(MARGIN_COLUMNS);
            }
        }
        lines
    }
}

/// A number with its digits in groups of three.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 phone`, `2 phones`.
pub(crate) fn counted(number: usize, singular: &str, plural: &str) -> String {
    if number == 1 { format!("1 {singular}") } else { format!("{} {plural}", grouped(number as u64)) }
}

/// A line cut into lines of at most `columns` characters, between words where there are some. All are indented as the
/// first one is.
fn wrapped(line: &str, columns: usize) -> Vec<String> {
    let text = line.trim_start_matches(' ');
    let indent = " ".repeat(line.len() - text.len());
    let columns = columns.saturating_sub(indent.len()).max(1);
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        let last = lines.len() - 1;
        let used = lines[last].chars().count();
        if used + usize::from(used > 0) + word.len() <= columns {
            if used > 0 {
                lines[last].push(' ');
            }
        } else if used > 0 {
            lines.push(String::new());
        }
        while word.len() > columns {
            let rest = word.split_off(columns);
            let last = lines.len() - 1;
            lines[last].extend(word);
            lines.push(String::new());
            word = rest;
        }
        let last = lines.len() - 1;
        lines[last].extend(word);
    }
    lines.into_iter().map(|line| format!("{indent}{line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_is_sorted_and_counts_from_its_first_entry() {
        let mut timeline = Timeline::default();
        timeline.add(1_050, "Apple", "stub");
        timeline.add(1_000, "hospital", "sends\ntwo lines");
        assert_eq!(
            timeline.lines(),
            [
                "     0 ms  hospital     sends",
                "                      two lines",
                "    50 ms  Apple        stub"
            ]
        );
        assert!(Timeline::default().lines().is_empty());
    }

    #[test]
    fn long_lines_are_cut_between_words_where_they_can_be() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrapped("a bcdefgh", 4), ["a", "bcde", "fgh"]);
        assert_eq!(wrapped("", 4), [""]);
        assert_eq!(wrapped("  one two", 5), ["  one", "  two"]);
        assert_eq!(wrapped("äöü äöü", 3), ["äöü", "äöü"]);
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, expected) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), expected);
        }
        assert_eq!(counted(1, "phone", "phones"), "1 phone");
        assert_eq!(counted(2, "phone", "phones"), "2 phones");
    }
}
