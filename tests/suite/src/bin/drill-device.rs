//! A device that syncs without end, for drills. It says `shown WHAT` for each notification and each message of a group
//! that it hands over.
//!
//! If it is in a group, it writes to it, `said MESSAGE` when a message is durable; a steward changes the group meanwhile.
//! It says `read MESSAGE` for each message of others that it has, once more after a start, and `used GROUP` when
//! another member has used a key twice.
//!
//! Arguments: the folder of its state, the folder of its platform. It ends when its standard input does.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use sealpost_device::{
    Device, DeviceError, GroupError, GroupEvent, GroupMessage, MessageState, NewMessage, Standing,
    SyncReport, TakenBox,
};
use sealpost_tests::Outcome;
use sealpost_tests::say::{end_with_stdin, log_to_stderr, say};
use sealpost_tests::site::device_parts;
use sealpost_wire::id::GroupId;

/// How long the relay keeps a sync open.
const WAIT: Duration = Duration::from_secs(2);
/// The same for a device that has something to write.
const WAIT_OF_TALKERS: Duration = Duration::from_secs(1);
/// How often prekeys are refilled.
const PREKEYS_EVERY: Duration = Duration::from_millis(1500);
/// The wait after a server was away.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// How often something is written to a group.
const WRITE_EVERY: Duration = Duration::from_millis(400);
/// How often a steward changes a group.
const CHANGE_EVERY: Duration = Duration::from_millis(1500);

fn main() -> Outcome<()> {
    log_to_stderr();
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("the device's folder is missing")?);
    let mut device = Device::open(&folder.join("state"), device_parts(&folder)?)?;
    say("ready")?;
    end_with_stdin();
    let mut talk = Talk::of(&mut device)?;
    let mut prekeys_at = Instant::now();
    loop {
        if prekeys_at <= Instant::now() {
            unless_away(device.maintain_prekeys())?;
            prekeys_at = Instant::now() + PREKEYS_EVERY;
        }
        let wait = if talk.is_some() { WAIT_OF_TALKERS } else { WAIT };
        let synced = unless_away(device.sync(wait))?;
        // What came before a server went away is shown too.
        for message in device.present()? {
            say(&format!("shown {} {}", message.notification.id, message.notification.revision))?;
        }
        for message in device.present_group_messages()? {
            say(&format!("shown {}", message.content.id))?;
            say_read(&message)?;
        }
        if let Some(talk) = &mut talk {
            talk.go_on(&mut device, synced.as_ref())?;
        }
        if synced.is_none() {
            std::thread::sleep(AGAIN_AFTER);
        }
    }
}

/// What the device does in its group.
struct Talk {
    group: GroupId,
    is_steward: bool,
    write_at: Instant,
    change_at: Instant,
    number: u64,
}

impl Talk {
    /// In the group that the device is in, if it is in one.
    fn of(device: &mut Device) -> Outcome<Option<Self>> {
        let Some(state) = device.groups()?.into_iter().find(|state| state.standing == Standing::In) else {
            return Ok(None);
        };
        device.group_messages(state.group)?.iter().try_for_each(say_read)?;
        let (write_at, change_at) = (Instant::now(), Instant::now() + CHANGE_EVERY);
        let is_steward = state.stewards.contains(&device.id());
        Ok(Some(Self { group: state.group, is_steward, write_at, change_at, number: 0 }))
    }

    fn go_on(&mut self, device: &mut Device, synced: Option<&SyncReport>) -> Outcome<()> {
        let boxes = synced.into_iter().flat_map(|report| &report.boxes);
        for taken in boxes {
            // The same box again has another outcome: this is another box, made with a key that was used before.
            if let TakenBox::Group(group, GroupEvent::Nothing("duplicate")) = taken {
                say(&format!("used {group}"))?;
            }
        }
        if self.write_at <= Instant::now() {
            self.number += 1;
            let message = NewMessage::Text {
                text: format!("{} {}", std::process::id(), self.number),
                quick_replies: Vec::new(),
            };
            if let Some(id) = unless_away(device.send_to_group(self.group, &message))? {
                say(&format!("said {id}"))?;
            }
            self.write_at = Instant::now() + WRITE_EVERY;
        }
        if self.is_steward && self.change_at <= Instant::now() {
            self.number += 1;
            let label = format!("Ward {} {}", std::process::id(), self.number);
            unless_away(device.rename_group(self.group, &label))?;
            self.change_at = Instant::now() + CHANGE_EVERY;
        }
        Ok(())
    }
}

fn say_read(message: &GroupMessage) -> Outcome<()> {
    if message.state == MessageState::Received {
        say(&format!("read {}", message.content.id))?;
    }
    Ok(())
}

/// Nothing when a server was away, or answered what a server that was killed may answer, or when the group is changing.
fn unless_away<T>(result: Result<T, DeviceError>) -> Outcome<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(
            error @ (DeviceError::Http(_)
            | DeviceError::GroupIsChanging
            | DeviceError::NobodyReached
            | DeviceError::Group(GroupError::Lost | GroupError::NotMember)),
        ) => {
            eprintln!("drill-device: {error}");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}
