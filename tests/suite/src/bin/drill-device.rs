//! A device that syncs without end, for drills: it says `shown NOTIFICATION REVISION` for each that it hands
//! over.
//!
//! Arguments: the folder of its state, the folder of its platform. It ends when its standard input does.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use sealpost_device::{Device, DeviceError};
use sealpost_tests::Outcome;
use sealpost_tests::say::{end_with_stdin, log_to_stderr, say};
use sealpost_tests::site::device_parts;

/// How long the relay keeps a sync open.
const WAIT: Duration = Duration::from_secs(2);
/// How often prekeys are refilled.
const PREKEYS_EVERY: Duration = Duration::from_millis(1500);
/// The wait after a server was away.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

fn main() -> Outcome<()> {
    log_to_stderr();
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("the device's folder is missing")?);
    let mut device = Device::open(&folder.join("state"), device_parts(&folder)?)?;
    say("ready")?;
    end_with_stdin();
    let mut prekeys_at = Instant::now();
    loop {
        if prekeys_at <= Instant::now() {
            unless_away(device.maintain_prekeys())?;
            prekeys_at = Instant::now() + PREKEYS_EVERY;
        }
        let synced = unless_away(device.sync(WAIT))?;
        // What came before a server went away is shown too.
        for message in device.present()? {
            say(&format!("shown {} {}", message.notification.id, message.notification.revision))?;
        }
        if synced.is_none() {
            std::thread::sleep(AGAIN_AFTER);
        }
    }
}

/// Nothing when a server was away, or answered what a server that was killed may answer.
fn unless_away<T>(result: Result<T, DeviceError>) -> Outcome<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(DeviceError::Http(error)) => {
            eprintln!("drill-device: {error}");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}
