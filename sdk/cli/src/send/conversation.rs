//! Alerts of categories that go into groups, by the sender's mailbox.

use std::path::Path;

use sealpost_connector::policy::{SendPolicy, Transport};
use sealpost_device::{Device, GroupReply, GroupState, MessageId, MessageState, NewMessage, Standing};
use sealpost_sender::Alert;
use sealpost_wire::id::{Digest, GroupId, RecipientId};
use serde_json::{Value, json};

use crate::device::{self, Place};
use crate::error::CliError;
use crate::group::message_state;
use crate::home::Home;

/// The language whose text goes into a group, if there is one in it.
const LANGUAGE: &str = "en";
/// Separates what the id of a message is made of from what else is hashed.
const ID_DOMAIN: &str = "sealpost group message";

/// The way into groups, by the home's policy.
pub(super) struct Conversations<'h> {
    home: &'h Home,
    policy: SendPolicy,
    /// Opened when it is needed first.
    mailbox: Option<Device>,
}

/// What was written to a group.
pub(super) struct Said {
    group: GroupId,
    id: MessageId,
    /// The same event had come before.
    is_known: bool,
    pub(super) state: MessageState,
}

impl<'h> Conversations<'h> {
    pub(super) fn open(home: &'h Home) -> Result<Self, CliError> {
        let policy = SendPolicy::load(&home.folder().join("policy.toml"))?;
        Ok(Self { home, policy, mailbox: None })
    }

    /// Whether an alert goes into a group.
    pub(super) fn takes(&self, alert: &Alert) -> bool {
        self.policy.transport(&alert.category, alert.priority) == Transport::Group
    }

    /// Writes an alert to its recipient's group. The same event again is not written again.
    pub(super) fn write(&mut self, alert: &Alert) -> Result<Said, CliError> {
        let (text, quick_replies) = content_of(alert);
        let mailbox = self.mailbox()?;
        let group = group_of(mailbox, alert.recipient)?;
        let id = id_of(group, &alert.source.key);
        let before = written(mailbox, group, id)?;
        if before.as_ref().is_some_and(|(_, said)| *said != text) {
            let message = "the same event has come before, with another content";
            return Err(CliError::state("source_conflict", message));
        }
        mailbox.send_to_group_as(group, id, &NewMessage::Text { text, quick_replies })?;
        let state = written(mailbox, group, id)?.map_or(MessageState::Failed, |(state, _)| state);
        Ok(Said { group, id, is_known: before.is_some(), state })
    }

    fn mailbox(&mut self) -> Result<&mut Device, CliError> {
        let device = match self.mailbox.take() {
            Some(device) => device,
            None => {
                // The policy names one if any category goes into groups.
                let folder = self.policy.mailbox().unwrap_or_else(|| Path::new("mailbox"));
                let folder = self.home.folder().join(folder);
                device::open(Place { folder: &folder, ca_file: self.home.ca_file() })?
            }
        };
        Ok(self.mailbox.insert(device))
    }
}

impl Said {
    pub(super) fn json(&self, source: &str) -> Value {
        json!({
            "source": source, "group": self.group, "message": self.id.to_string(),
            "taken_in": if self.is_known { "known" } else { "new" }, "state": message_state(self.state),
        })
    }
}

/// The one group that the mailbox has made and in which it talks with a recipient. Into a group that somebody else has
/// made, and brought the mailbox into, nothing goes: who reads there is that one's choice.
fn group_of(mailbox: &mut Device, recipient: RecipientId) -> Result<GroupId, CliError> {
    let mut found = Vec::new();
    for GroupState { group, standing, made_here, .. } in mailbox.groups()? {
        if !made_here || standing == Standing::Out {
            continue;
        }
        let members = mailbox.group_members(group)?;
        if members.iter().any(|member| member.recipient == Some(recipient) && !member.revoked) {
            found.push(group);
        }
    }
    match found[..] {
        [group] => Ok(group),
        [] => {
            let message = format!(
                "{recipient} is in no group that the mailbox has made, and the policy sends the category to one: \
                 `sealpost group new`, `sealpost group add`"
            );
            Err(CliError::state("no_group", message))
        }
        _ => {
            let message = format!("{recipient} is in {} groups of the mailbox, not in one", found.len());
            Err(CliError::state("several_groups", message))
        }
    }
}

fn written(
    mailbox: &mut Device,
    group: GroupId,
    id: MessageId,
) -> Result<Option<(MessageState, String)>, CliError> {
    let own = mailbox.id();
    let messages = mailbox.group_messages(group)?;
    let found = messages.into_iter().find(|one| one.author == own && one.content.id == id);
    Ok(found.map(|one| (one.state, one.content.text)))
}

/// The same for the same event, and to others as good as random.
fn id_of(group: GroupId, source: &str) -> MessageId {
    let named = [ID_DOMAIN.as_bytes(), &[0], group.as_bytes(), source.as_bytes()].concat();
    let digest = Digest::of(&named);
    let (id, _) = digest.as_bytes().split_at(16);
    // Exactly 16 of 32 bytes.
    MessageId(id.try_into().unwrap_or_default())
}

/// Title, body and answers in one language: a conversation has no more.
fn content_of(alert: &Alert) -> (String, Vec<GroupReply>) {
    let text = alert.texts.get(LANGUAGE).or_else(|| alert.texts.values().next());
    let text = text.map_or_else(String::new, |text| format!("{}\n{}", text.title, text.body));
    let replies = alert.replies.iter().map(|reply| {
        let label = reply.labels.get(LANGUAGE).or_else(|| reply.labels.values().next());
        GroupReply { code: reply.code.clone(), label: label.unwrap_or(&reply.code).clone() }
    });
    (text, replies.collect())
}
