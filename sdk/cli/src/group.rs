//! `sealpost group`: conversations and care teams, of a device for the terminal.

mod screen;

use std::path::Path;

use sealpost_device::{
    Device, DeviceError, GroupState, GroupSuite, MemberEntry, MessageId, MessageState, NewMessage, Progress,
    Standing,
};
use sealpost_wire::id::{DeviceId, RecipientId};
use serde_json::{Value, json};

use crate::arguments::{GroupCommand, GroupSubcommand, SuiteArgument};
use crate::device::{self, Place};
use crate::edge;
use crate::error::CliError;
use crate::output::{Output, plain};

pub(crate) use screen::{message_state, present, report_json, say_report};

/// The fewest digits of a group's id that name it.
const ID_DIGITS_MIN: usize = 6;
/// Bytes of a text on standard input: more than a message holds, for the device to refuse.
const TEXT_BYTES_MAX: usize = 64 * 1024;

pub(crate) fn run(command: &GroupCommand, ca_file: Option<&Path>, output: &Output) -> Result<(), CliError> {
    let device = &mut device::open(Place { folder: &command.place.device, ca_file })?;
    match &command.command {
        GroupSubcommand::New { label, stewards, suite } => new(device, label, stewards, *suite, output),
        GroupSubcommand::Add { group, recipients, category } => {
            let group = named(device, group)?;
            add(device, &group, recipients, category, output)
        }
        GroupSubcommand::Remove { group, members } => {
            let group = named(device, group)?;
            remove(device, &group, members, output)
        }
        GroupSubcommand::Stewards { group, stewards } => {
            let group = named(device, group)?.group;
            let progress = device.set_stewards(group, stewards)?;
            let said = format!("The stewards are now: {}.", joined(stewards));
            changed(progress, &said, json!({"group": group, "stewards": stewards}), output)
        }
        GroupSubcommand::Rename { group, label } => {
            let group = named(device, group)?.group;
            let progress = device.rename_group(group, label)?;
            changed(progress, "Renamed.", json!({"group": group, "label": label}), output)
        }
        GroupSubcommand::Send { group, text, offers } => {
            let group = named(device, group)?;
            let text = if text == "-" { read_text()? } else { text.clone() };
            write(device, &group, &NewMessage::Text { text, quick_replies: offers.clone() }, output)
        }
        GroupSubcommand::Reply { group, message, code } => {
            let group = named(device, group)?;
            check_offered(device, &group, *message, code)?;
            write(device, &group, &NewMessage::QuickReply { about: *message, code: code.clone() }, output)
        }
        GroupSubcommand::Confirm { group, message } => {
            let group = named(device, group)?;
            let messages = device.group_messages(group.group)?;
            if !messages.iter().any(|one| one.content.id == *message) {
                return Err(DeviceError::UnknownMessage.into());
            }
            write(device, &group, &NewMessage::Confirmation { about: *message }, output)
        }
        GroupSubcommand::List => screen::list(device, output),
        GroupSubcommand::Show { group, last, all } => {
            let group = named(device, group)?;
            screen::show(device, &group, if *all { usize::MAX } else { *last }, output)
        }
        GroupSubcommand::Leave { group } => {
            let group = named(device, group)?;
            device.leave(group.group)?;
            output.say("Asked the others to let this device go.");
            say_standing(device, &group, output)
        }
        GroupSubcommand::Rejoin { group } => {
            let group = named(device, group)?;
            device.rejoin(group.group)?;
            output
                .say("Asked for the way back; `sealpost device sync` takes it as soon as a member answers.");
            say_standing(device, &group, output)
        }
    }
}

/// The group with this id, with an id that begins so, or with this label. A whole id names one group, whatever others are
/// called: labels are what stewards make them.
fn named(device: &mut Device, name: &str) -> Result<GroupState, CliError> {
    let mut groups = device.groups()?;
    if let Some(place) = groups.iter().position(|known| known.group.to_string() == name) {
        return Ok(groups.swap_remove(place));
    }
    let is_beginning =
        name.len() >= ID_DIGITS_MIN && name.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    groups.retain(|known| known.label == name || (is_beginning && known.group.to_string().starts_with(name)));
    match groups.len() {
        0 => {
            let message = format!("this device knows no group {}: see `sealpost group list`", plain(name));
            Err(CliError::state("unknown_group", message))
        }
        1 => Ok(groups.remove(0)),
        _ => {
            let ids: Vec<_> = groups.iter().map(|known| known.group.to_string()).collect();
            Err(CliError::Usage(format!(
                "several groups are called so; name one by its id: {}",
                ids.join(", ")
            )))
        }
    }
}

fn new(
    device: &mut Device,
    label: &str,
    stewards: &[DeviceId],
    suite: SuiteArgument,
    output: &Output,
) -> Result<(), CliError> {
    let suite = match suite {
        SuiteArgument::Classical => GroupSuite::Classical,
        SuiteArgument::Hybrid => GroupSuite::Hybrid,
    };
    let group = device.create_group_of(label, stewards, suite)?;
    let is_mailbox = device.group_members(group)?.iter().any(|member| member.sender.is_some());
    output.say(format_args!("Made group {group}."));
    if !is_mailbox {
        output.say(
            "This device is no sender's mailbox: others come in only once a steward is one \
             (`sealpost sender mailbox`, --steward).",
        );
    }
    output.result(&json!({
        "group": group, "label": label, "suite": suite_name(suite), "stewards": stewards, "mailbox": is_mailbox,
    }));
    Ok(())
}

fn add(
    device: &mut Device,
    group: &GroupState,
    recipients: &[RecipientId],
    category: &str,
    output: &Output,
) -> Result<(), CliError> {
    let (mut added, mut progress) = (Vec::new(), Progress::Done);
    let done = |added: &[DeviceId]| json!({"group": group.group, "added": added});
    for recipient in recipients {
        match device.invite(group.group, *recipient, category) {
            Ok((devices, how_far)) => {
                added.extend(devices);
                progress = if how_far == Progress::Waiting { how_far } else { progress };
            }
            // The same command again goes on where it stopped.
            Err(DeviceError::NobodyToInvite) if is_in(device, group, *recipient)? => {}
            Err(error) if added.is_empty() => return Err(error.into()),
            // Those before it are in, or will be.
            Err(error) => {
                return Err(CliError::Partly {
                    code: error.code().to_owned(),
                    message: format!("{recipient} was not added, nor who comes after: {error}"),
                    temporary: error.is_temporary(),
                    done: done(&added),
                });
            }
        }
    }
    let said = match added.is_empty() {
        true => "All their devices are in the group already.".to_owned(),
        false => format!("Added: {}.", joined(&added)),
    };
    changed(progress, &said, done(&added), output)
}

fn is_in(device: &mut Device, group: &GroupState, recipient: RecipientId) -> Result<bool, DeviceError> {
    Ok(device.group_members(group.group)?.iter().any(|member| member.recipient == Some(recipient)))
}

fn remove(
    device: &mut Device,
    group: &GroupState,
    members: &[[u8; 16]],
    output: &Output,
) -> Result<(), CliError> {
    let roster = device.group_members(group.group)?;
    let mut devices = Vec::new();
    for id in members {
        let meant = |member: &&MemberEntry| {
            member.device == DeviceId(*id) || member.recipient == Some(RecipientId(*id))
        };
        let before = devices.len();
        devices.extend(roster.iter().filter(meant).map(|member| member.device));
        if devices.len() == before {
            let message = format!("{} is no member, and no member's recipient", DeviceId(*id));
            return Err(CliError::state("no_such_member", message));
        }
    }
    devices.sort_unstable();
    devices.dedup();
    let progress = device.remove(group.group, &devices)?;
    let said = format!("Removed: {}.", joined(&devices));
    changed(progress, &said, json!({"group": group.group, "removed": devices}), output)
}

/// How far a change of the group came. It is durable in any case.
fn changed(progress: Progress, said: &str, done: Value, output: &Output) -> Result<(), CliError> {
    if progress == Progress::Waiting {
        return Err(CliError::Partly {
            code: "not_yet".to_owned(),
            message: "it is stored, and not the group's yet: `sealpost device sync` goes on".to_owned(),
            temporary: true,
            done,
        });
    }
    output.say(said);
    output.result(&done);
    Ok(())
}

fn joined(devices: &[DeviceId]) -> String {
    devices.iter().map(DeviceId::to_string).collect::<Vec<_>>().join(", ")
}

fn write(
    device: &mut Device,
    group: &GroupState,
    message: &NewMessage,
    output: &Output,
) -> Result<(), CliError> {
    let id = device.send_to_group(group.group, message)?;
    let own = device.id();
    let messages = device.group_messages(group.group)?;
    let written = messages.iter().find(|one| one.author == own && one.content.id == id);
    let state = written.map_or(MessageState::Failed, |one| one.state);
    let done = json!({"group": group.group, "message": id.to_string(), "state": message_state(state)});
    let (code, message, temporary) = match state {
        MessageState::Sent | MessageState::Received => {
            output.say(format_args!("Sent: {id}."));
            output.result(&done);
            return Ok(());
        }
        MessageState::Sending => {
            ("not_yet", "it is stored, and not sent yet: `sealpost device sync` sends it", true)
        }
        MessageState::Failed => {
            ("not_sent", "the relay does not take it: it was not sent to everybody", false)
        }
    };
    Err(CliError::Partly { code: code.to_owned(), message: message.to_owned(), temporary, done })
}

/// A reply that no message offers would say nothing to those who read it.
fn check_offered(
    device: &mut Device,
    group: &GroupState,
    message: MessageId,
    code: &str,
) -> Result<(), CliError> {
    let messages = device.group_messages(group.group)?;
    let asked = messages.iter().find(|one| one.content.id == message).ok_or(DeviceError::UnknownMessage)?;
    let offered: Vec<_> = asked.content.quick_replies.iter().map(|reply| reply.code.as_str()).collect();
    if offered.contains(&code) {
        return Ok(());
    }
    let offered = if offered.is_empty() { "no answers".to_owned() } else { plain(&offered.join(", ")) };
    Err(CliError::state("unknown_reply", format!("the message offers {offered}")))
}

fn say_standing(device: &mut Device, group: &GroupState, output: &Output) -> Result<(), CliError> {
    let groups = device.groups()?;
    let standing =
        groups.iter().find(|known| known.group == group.group).map_or(Standing::Out, |known| known.standing);
    output.result(&json!({"group": group.group, "standing": screen::standing(standing)}));
    Ok(())
}

fn read_text() -> Result<String, CliError> {
    let bytes = edge::read(Path::new("-"), TEXT_BYTES_MAX)?;
    let text = String::from_utf8(bytes);
    let text = text.map_err(|_| CliError::state("malformed_text", "the text is not UTF-8"))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

const fn suite_name(suite: GroupSuite) -> &'static str {
    match suite {
        GroupSuite::Classical => "classical",
        GroupSuite::Hybrid => "hybrid",
    }
}
