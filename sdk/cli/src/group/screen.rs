//! What a device shows of its groups.

use sealpost_device::{
    ContentKind, Device, DeviceError, GroupMessage, GroupReport, GroupState, MemberEntry, MessageState,
    Standing,
};
use sealpost_wire::id::{DeviceId, GroupId};
use serde_json::{Value, json};

use crate::error::CliError;
use crate::group::suite_name;
use crate::output::{Output, plain, utc};

pub(super) fn list(device: &mut Device, output: &Output) -> Result<(), CliError> {
    let mut rows = vec![["GROUP", "LABEL", "STANDING", "MEMBERS", "MESSAGES", "NEW"].map(str::to_owned)];
    let mut listed = Vec::new();
    for group in device.groups()? {
        let members = roster(device, &group)?.len();
        let messages = device.group_messages(group.group)?;
        let new = messages.iter().filter(|message| !message.presented).count();
        rows.push([
            group.group.to_string(),
            plain(&group.label),
            standing(group.standing).to_owned(),
            members.to_string(),
            messages.len().to_string(),
            new.to_string(),
        ]);
        let mut row = group_json(&group);
        row["members"] = json!(members);
        row["messages"] = json!(messages.len());
        row["new"] = json!(new);
        listed.push(row);
    }
    if listed.is_empty() {
        output.say("This device is in no group.");
    } else {
        output.table(&rows);
    }
    output.result(&json!({"groups": listed}));
    Ok(())
}

pub(super) fn show(
    device: &mut Device,
    group: &GroupState,
    last: usize,
    output: &Output,
) -> Result<(), CliError> {
    let members = roster(device, group)?;
    let messages = device.group_messages(group.group)?;
    let newest = &messages[messages.len().saturating_sub(last)..];
    output.say(format_args!("group     {}", group.group));
    output.say(format_args!("label     {}", plain(&group.label)));
    output.say(format_args!("suite     {}", suite_name(group.suite)));
    let changing = if group.staged { ", a change of this device waits" } else { "" };
    output.say(format_args!("standing  {}{changing}\n", standing(group.standing)));
    let mut rows = vec![["DEVICE", "RECIPIENT", "MAILBOX OF", "ROLE", ""].map(str::to_owned)];
    for member in &members {
        let mark = match (member.device == device.id(), member.revoked) {
            (_, true) => "revoked",
            (true, false) => "this device",
            (false, false) => "",
        };
        rows.push([
            member.device.to_string(),
            member.recipient.map_or_else(String::new, |recipient| recipient.to_string()),
            member.sender.as_ref().map_or_else(String::new, ToString::to_string),
            if member.steward { "steward" } else { "member" }.to_owned(),
            mark.to_owned(),
        ]);
    }
    output.table(&rows);
    let shown = Conversation { own: device.id(), members: &members };
    for message in newest {
        output.say("");
        shown.say(message, output);
    }
    let mut result = group_json(group);
    result["members"] = members.iter().map(member_json).collect();
    result["messages"] = newest.iter().map(|message| shown.json(message)).collect();
    output.result(&result);
    Ok(())
}

/// Shows what was written to groups and not shown yet, and returns it for `--json`.
pub(crate) fn present(device: &mut Device, output: &Output) -> Result<Vec<Value>, CliError> {
    let mut shown = Vec::new();
    let mut known: Vec<(GroupId, String, Vec<MemberEntry>)> = Vec::new();
    for message in device.present_group_messages()? {
        if known.iter().all(|(group, ..)| *group != message.group) {
            // The message is handed over once: it is shown whether or not it can be said of whom.
            let groups = device.groups().unwrap_or_default();
            let state = groups.into_iter().find(|state| state.group == message.group);
            let members = state.as_ref().and_then(|state| roster(device, state).ok()).unwrap_or_default();
            known.push((message.group, state.map_or_else(String::new, |state| state.label), members));
        }
        let Some((group, label, members)) = known.iter().find(|(group, ..)| *group == message.group) else {
            continue;
        };
        let conversation = Conversation { own: device.id(), members };
        let label = if label.is_empty() { group.to_string() } else { plain(label) };
        output.say(format_args!("In {label}:"));
        conversation.say(&message, output);
        shown.push(conversation.json(&message));
    }
    Ok(shown)
}

/// What a sync has done for groups, as far as somebody should know it.
pub(crate) fn say_report(report: &GroupReport, output: &Output) {
    for (group, code) in &report.refused {
        output.say(format_args!("Group {group}: given up ({})", plain(code)));
    }
    if let Some(code) = &report.waiting {
        output.say(format_args!("Something waits for a later sync ({})", plain(code)));
    }
}

/// The same for `--json`.
pub(crate) fn report_json(report: &GroupReport) -> Value {
    let refused: Vec<_> =
        report.refused.iter().map(|(group, code)| json!({"group": group, "code": code})).collect();
    json!({
        "submitted": report.submitted, "lost": report.lost, "refused": refused, "waiting": report.waiting,
    })
}

pub(super) const fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::In => "in",
        Standing::Leaving => "leaving",
        Standing::Lost => "lost",
        Standing::Out => "out",
    }
}

pub(crate) const fn message_state(state: MessageState) -> &'static str {
    match state {
        MessageState::Received => "received",
        MessageState::Sending => "waiting",
        MessageState::Sent => "sent",
        MessageState::Failed => "failed",
    }
}

/// Who is in a group; nobody, to a device that is out of it.
fn roster(device: &mut Device, group: &GroupState) -> Result<Vec<MemberEntry>, DeviceError> {
    if group.standing == Standing::Out { Ok(Vec::new()) } else { device.group_members(group.group) }
}

/// Who a device's messages are from.
struct Conversation<'c> {
    own: DeviceId,
    members: &'c [MemberEntry],
}

impl Conversation<'_> {
    fn sender(&self, author: DeviceId) -> Option<&str> {
        let member = self.members.iter().find(|member| member.device == author)?;
        member.sender.as_ref().map(|sender| sender.as_str())
    }

    fn say(&self, message: &GroupMessage, output: &Output) {
        let GroupMessage { author, content, .. } = message;
        let who = match self.sender(*author) {
            _ if *author == self.own => "this device".to_owned(),
            Some(sender) => sender.to_owned(),
            None => author.to_string(),
        };
        let state = match message.state {
            MessageState::Received => String::new(),
            other => format!("  {}", message_state(other)),
        };
        output.say(format_args!("{}  {}  from {who}{state}", content.id, utc(message.received)));
        let about = content.about.map_or_else(String::new, |about| about.to_string());
        match content.kind {
            ContentKind::Text => {
                content.text.lines().for_each(|line| output.say(format_args!("  {}", plain(line))));
            }
            ContentKind::QuickReply => {
                output.say(format_args!("  answers {about}: {}", plain(&content.text)));
            }
            ContentKind::Confirmation => output.say(format_args!("  confirms {about}")),
        }
        for reply in &content.quick_replies {
            output.say(format_args!("  offers {}: {}", plain(&reply.code), plain(&reply.label)));
        }
    }

    fn json(&self, message: &GroupMessage) -> Value {
        let GroupMessage { group, author, content, .. } = message;
        let kind = match content.kind {
            ContentKind::Text => "text",
            ContentKind::QuickReply => "quick_reply",
            ContentKind::Confirmation => "confirmation",
        };
        let replies: Vec<_> = content
            .quick_replies
            .iter()
            .map(|reply| json!({"code": reply.code, "label": reply.label}))
            .collect();
        json!({
            "group": group, "message": content.id.to_string(), "author": author, "sender": self.sender(*author),
            "own": *author == self.own, "kind": kind, "text": content.text,
            "about": content.about.map(|about| about.to_string()), "quick_replies": replies,
            "created": content.created, "received": message.received, "presented": message.presented,
            "state": message_state(message.state),
        })
    }
}

fn group_json(group: &GroupState) -> Value {
    json!({
        "group": group.group, "label": group.label, "suite": suite_name(group.suite),
        "made_here": group.made_here, "standing": standing(group.standing), "changing": group.staged,
        "stewards": group.stewards,
    })
}

fn member_json(member: &MemberEntry) -> Value {
    json!({
        "device": member.device, "recipient": member.recipient, "sender": member.sender,
        "steward": member.steward, "revoked": member.revoked,
    })
}
