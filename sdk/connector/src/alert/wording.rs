//! What a patient reads.

use sealpost_wire::payload::Text;

use super::{Priority, Report, severity};
use crate::oru::{AbnormalFlag, Observation, OrderStatus, ResultStatus, Value};

/// Results that a body lists; the rest is counted.
const LISTED_MAX: usize = 10;
/// Characters of a test's name.
const NAME_CHARS_MAX: usize = 80;
/// Characters of a value.
const VALUE_CHARS_MAX: usize = 120;
/// Characters of a unit.
const UNIT_CHARS_MAX: usize = 24;
/// Characters of a reference range.
const RANGE_CHARS_MAX: usize = 40;

/// Title and body in English. `attached` tells whether the whole report goes along.
pub(super) fn english(report: &Report<'_>, attached: bool) -> Text {
    let mut lines = Vec::new();
    let priority = report.observations().map(severity).max().unwrap_or(Priority::Normal);
    let listed = listed(report);
    if report.observations().any(|observation| corrects(observation.status)) || corrected_order(report) {
        lines.push("This corrects a result that you were sent before.".to_owned());
    }
    if report.observations().any(|observation| observation.status == ResultStatus::Wrong) {
        // Whose result it was, and of what, is not this patient's business.
        lines.push(
            "A result that you were sent before is not yours or was wrong. Please disregard it.".to_owned(),
        );
    }
    lines.extend(listed.iter().take(LISTED_MAX).map(|observation| line(observation)));
    if listed.is_empty() && !report.retracts() {
        lines.extend(report.orders.iter().take(LISTED_MAX).map(|order| {
            let name = shown(order.service.display(), NAME_CHARS_MAX);
            let name = if name.is_empty() { "Your test".to_owned() } else { name };
            match order.status {
                OrderStatus::Cancelled => format!("{name}: cancelled, there will be no result."),
                OrderStatus::Pending => format!("{name}: in progress, no result yet."),
                _ => format!("{name}: no results were included. Your care team can tell you more."),
            }
        }));
    }
    match (listed.len().saturating_sub(LISTED_MAX), attached) {
        (0, true) => {}
        (0, false) => lines.push("Your care team has the full report.".to_owned()),
        (more, true) => lines.push(format!("{more} more in the full report.")),
        (more, false) => lines.push(format!("{more} more. Your care team has the full report.")),
    }
    if report.is_preliminary() {
        lines.push("Preliminary results may still change.".to_owned());
    }
    if priority == Priority::Critical {
        lines.push(
            "This needs attention soon. Please call your care team now. If you feel very unwell, call your \
             local emergency number."
                .to_owned(),
        );
    }
    Text { title: title(report, &listed, priority).to_owned(), body: lines.join("\n") }
}

/// The title may show on a locked screen: it names neither test nor value.
fn title(report: &Report<'_>, listed: &[&Observation], priority: Priority) -> &'static str {
    let every = |test: fn(ResultStatus) -> bool| {
        report.observations().next().is_some()
            && report.observations().all(|observation| test(observation.status))
    };
    if priority == Priority::Critical {
        return if report.revises() { "Urgent: changed lab result" } else { "Urgent lab result" };
    }
    if every(ResultStatus::retracts) {
        "Lab result withdrawn"
    } else if report.revises() {
        "Changed lab result"
    } else if every(|status| status == ResultStatus::Cancelled)
        || listed.is_empty() && report.orders.iter().all(|order| order.status == OrderStatus::Cancelled)
    {
        "Lab test not completed"
    } else if !report.observations().any(|observation| observation.status.has_value()) {
        "News about your lab test"
    } else if report.is_preliminary() {
        "Preliminary lab result"
    } else {
        "New lab result"
    }
}

fn corrects(status: ResultStatus) -> bool {
    matches!(status, ResultStatus::Corrected | ResultStatus::Amended)
}

fn corrected_order(report: &Report<'_>) -> bool {
    report.orders.iter().any(|order| order.status.revises())
}

/// What the body lists: the most urgent first, otherwise in the message's order.
fn listed<'o>(report: &Report<'o>) -> Vec<&'o Observation> {
    use ResultStatus as Status;
    let mut listed: Vec<_> = report
        .observations()
        .filter(|observation| {
            !matches!(observation.status, Status::Wrong | Status::NotAsked | Status::OrderDetail)
        })
        .collect();
    listed.sort_by_key(|observation| std::cmp::Reverse(severity(observation)));
    listed
}

/// `Potassium: 6.9 mmol/L, critically high (reference range 3.5-5.1)`
fn line(observation: &Observation) -> String {
    let name = shown(observation.code.display(), NAME_CHARS_MAX);
    let name = if name.is_empty() { "Result".to_owned() } else { name };
    let status = observation.status;
    let fixed = match status {
        ResultStatus::Deleted => Some("withdrawn. Please disregard what you were sent before."),
        ResultStatus::Cancelled => Some("could not be completed."),
        ResultStatus::Pending => Some("in progress, no result yet."),
        ResultStatus::Unstated => Some("not confirmed yet. Please ask your care team."),
        ResultStatus::NowFinal if observation.value == Value::Absent => {
            Some("the result that you were sent before is now final.")
        }
        _ => None,
    };
    if let Some(fixed) = fixed {
        return format!("{name}: {fixed}");
    }
    let mut line = format!("{name}: {}", value(observation));
    let flags: Vec<&str> = observation.flags.iter().filter_map(flag).collect();
    for note in flags.into_iter().chain(status_note(status)) {
        line.push_str(", ");
        line.push_str(note);
    }
    if let Some(range) = &observation.reference_range {
        line.push_str(&format!(" (reference range {})", shown(range, RANGE_CHARS_MAX)));
    }
    line
}

fn status_note(status: ResultStatus) -> Option<&'static str> {
    match status {
        ResultStatus::Preliminary | ResultStatus::Partial => Some("preliminary"),
        ResultStatus::Unverified => Some("preliminary, not yet verified"),
        ResultStatus::Corrected | ResultStatus::Amended => Some("corrected"),
        ResultStatus::NowFinal => Some("now final"),
        _ => None,
    }
}

/// The value and its unit as a person writes them.
fn value(observation: &Observation) -> String {
    let text = match &observation.value {
        Value::Absent => return "no value was reported".to_owned(),
        Value::Document => return "a document, which your care team can show you".to_owned(),
        Value::Quantity { comparator, number } => {
            format!("{}{}", comparator.map_or("", |comparator| comparator.as_str()), number.as_str())
        }
        Value::Coded(coded) => coded.display().to_owned(),
        Value::Time(time) => time.fhir_date_time(),
        Value::Text(text) => text.clone(),
    };
    let mut text = shown(&text, VALUE_CHARS_MAX);
    if let Some(unit) = &observation.unit {
        let unit = shown(unit.short(), UNIT_CHARS_MAX);
        if unit != "%" {
            text.push(' ');
        }
        text.push_str(&unit);
    }
    text
}

/// A flag in words. Those that say nothing to a patient without their doctor are left out; FHIR carries them.
fn flag(flag: &AbnormalFlag) -> Option<&'static str> {
    use AbnormalFlag as Flag;
    Some(match flag {
        Flag::Low => "low",
        Flag::High => "high",
        Flag::CriticallyLow => "critically low",
        Flag::CriticallyHigh => "critically high",
        Flag::BelowScale => "below what can be measured",
        Flag::AboveScale => "above what can be measured",
        Flag::Normal => "normal",
        Flag::Abnormal => "abnormal",
        Flag::CriticallyAbnormal => "critically abnormal",
        Flag::SignificantlyLow => "clearly low",
        Flag::SignificantlyHigh => "clearly high",
        Flag::Risen => "risen since last time",
        Flag::Fallen => "fallen since last time",
        Flag::Better => "better than last time",
        Flag::Worse => "worse than last time",
        Flag::Positive => "positive",
        Flag::Negative => "negative",
        Flag::Susceptible | Flag::Intermediate | Flag::Resistant | Flag::Other(_) => return None,
    })
}

/// A text of the message on one line, without characters that control or reorder what is shown, at most
/// `limit` characters long.
fn shown(text: &str, limit: usize) -> String {
    let plain: String = text
        .chars()
        .map(|c| if c.is_whitespace() || c.is_control() { ' ' } else { c })
        .filter(|c| !reorders(*c))
        .collect();
    let line = plain.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    if line.chars().count() <= limit {
        return line;
    }
    let mut cut: String = line.chars().take(limit.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// Marks of the bidirectional algorithm (UAX 9): a value between them would read backwards.
const fn reorders(c: char) -> bool {
    matches!(c, '\u{200E}' | '\u{200F}' | '\u{061C}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_text_is_one_bounded_line() {
        for (text, expected) in [
            ("Potassium", "Potassium"),
            ("  a \r\n\t b\u{7}c ", "a b c"),
            ("5\u{202E}6.9", "56.9"),
            ("0123456789", "0123456789"),
            ("0123456789a", "012345678…"),
            ("ääääääääääää", "äääääääää…"),
            ("\n", ""),
        ] {
            assert_eq!(shown(text, 10), expected);
        }
    }
}
