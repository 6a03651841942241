//! `sealpost status`: where alerts are.

use std::time::Duration;

use sealpost_sender::{AlertStatus, Stage};
use serde_json::json;

use crate::arguments::StatusCommand;
use crate::error::CliError;
use crate::home::Home;
use crate::output::Output;

pub(crate) fn run(command: &StatusCommand, home: &Home, output: &Output) -> Result<(), CliError> {
    let mut sender = home.sender(command.sender.as_deref())?;
    if command.refresh {
        while sender.follow(Duration::ZERO)?.events > 0 {}
    }
    let alerts = sender.alerts()?;
    let newest = &alerts[alerts.len().saturating_sub(command.last)..];
    for alert in newest {
        say(alert, output);
    }
    if alerts.is_empty() {
        output.say("Nothing was sent yet.");
    }
    output.result(&json!({"alerts": newest}));
    Ok(())
}

/// One alert, for a person.
pub(crate) fn say(alert: &AlertStatus, output: &Output) {
    output.say(format_args!("{}  revision {}  from {}", alert.notification, alert.revision, alert.source));
    for submission in &alert.submissions {
        let failure = submission.failure.as_deref().map(|code| format!(" ({code})")).unwrap_or_default();
        let stage = match submission.stage {
            Stage::Waiting => "waits to be sealed",
            Stage::Sealed => "sealed, not yet accepted",
            Stage::Accepted => "accepted: durable at the relay",
            Stage::Failed => "will not be sent",
        };
        let cached = if submission.from_cache { ", sealed from the cache" } else { "" };
        output.say(format_args!("  {stage}{failure}{cached}"));
        for one in &submission.boxes {
            let reason = one.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
            let proof = match (one.verified, one.device_time) {
                (true, Some(time)) => format!("signed by the device at {}", time.0),
                (true, None) => "signed by the device".to_owned(),
                (false, _) => "as the relay says".to_owned(),
            };
            output.say(format_args!("    {}  {}{reason}, {proof}", one.device, one.state.name()));
        }
    }
}
