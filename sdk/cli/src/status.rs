//! `sealpost status`: where alerts are.

use std::time::Duration;

use sealpost_sender::{AlertStatus, BoxStatus, Stage, SubmissionStatus};
use serde_json::json;

use crate::arguments::StatusCommand;
use crate::error::CliError;
use crate::home::Home;
use crate::output::{Output, plain, utc};

pub(crate) fn run(command: &StatusCommand, home: &Home, output: &Output) -> Result<(), CliError> {
    let mut sender = home.sender(command.sender.as_deref())?;
    if command.refresh {
        while sender.follow(Duration::ZERO)?.events > 0 {}
    }
    let alerts = sender.alerts()?;
    let count = if command.all { alerts.len() } else { command.last };
    let newest = &alerts[alerts.len().saturating_sub(count)..];
    if alerts.is_empty() {
        output.say("Nothing was sent yet.");
    } else {
        say(newest, output);
    }
    let rows: Vec<_> =
        newest.iter().map(|alert| json!({"alert": alert, "opened": alert.is_opened()})).collect();
    output.result(
        &json!({"alerts": newest, "opened": rows.iter().filter(|row| row["opened"] == true).count()}),
    );
    Ok(())
}

/// A table of alerts, one row for each device of each submission.
pub(crate) fn say(alerts: &[AlertStatus], output: &Output) {
    let heading = ["NOTIFICATION", "TAKEN IN", "SUBMISSION", "DEVICE", "STATE", "PROOF", "SOURCE"];
    let mut rows = vec![heading.map(str::to_owned)];
    for alert in alerts {
        let revision = if alert.revision > 1 { format!(" r{}", alert.revision) } else { String::new() };
        let mut first =
            [format!("{}{revision}", alert.notification), utc(alert.created), plain(&alert.source)];
        for submission in &alert.submissions {
            let mut stage = stage(submission);
            if submission.boxes.is_empty() {
                rows.push(row(&mut first, &mut stage, None));
            }
            for one in &submission.boxes {
                rows.push(row(&mut first, &mut stage, Some((one, submission.stage))));
            }
        }
    }
    output.table(&rows);
}

/// What was said in the row above is not said again.
fn row(first: &mut [String; 3], stage: &mut String, one: Option<(&BoxStatus, Stage)>) -> [String; 7] {
    let [notification, created, source] = std::mem::take(first);
    let (device, state, proof) = one.map_or_else(Default::default, |(one, stage)| {
        if stage != Stage::Accepted {
            // The relay has said nothing of it.
            return (one.device.to_string(), String::new(), String::new());
        }
        let reason = one.reason.as_deref().map(|code| format!(" ({})", plain(code))).unwrap_or_default();
        let proof = match (one.verified, one.device_time) {
            (true, Some(time)) => format!("device's signature, {}", utc(time)),
            (true, None) => "device's signature".to_owned(),
            (false, _) => "relay's word".to_owned(),
        };
        (one.device.to_string(), format!("{}{reason}", one.state.name()), proof)
    });
    [notification, created, std::mem::take(stage), device, state, proof, source]
}

fn stage(submission: &SubmissionStatus) -> String {
    let stage = match submission.stage {
        Stage::Waiting => "to be sealed",
        Stage::Sealed => "to be sent",
        Stage::Accepted => "accepted",
        Stage::Failed => "given up",
    };
    let cached = if submission.from_cache { ", from the cache" } else { "" };
    let failure = submission.failure.as_deref().map(|code| format!(": {}", plain(code))).unwrap_or_default();
    format!("{stage}{cached}{failure}")
}
