//! The command line of `sealpost group`.

use clap::{Args, Subcommand, ValueEnum};
use data_encoding::HEXLOWER;
use sealpost_device::{GroupReply, MessageId};
use sealpost_wire::id::{DeviceId, RecipientId};

use super::DeviceFolder;

pub(super) const EXAMPLES: &str = "\
Examples:
  A care team, made by the laboratory's mailbox; the nurse's phone may add and remove, too:
    sealpost group --device mailbox new 'Ward 3' --steward DEVICE
    sealpost group --device mailbox add 'Ward 3' RECIPIENT RECIPIENT --category care-team
    sealpost group --device mailbox send 'Ward 3' 'Can somebody come?' --offer 'yes=On my way' --offer 'no=I cannot'

  A member of it:
    sealpost device --device phone sync
    sealpost group --device phone show 'Ward 3'
    sealpost group --device phone reply 'Ward 3' MESSAGE yes

A group is named by its id, by the beginning of its id, or by its label.
What a command has stored goes out at once, or with exit code 3 by the next `sealpost device sync`.";

const NEW_EXAMPLES: &str = "\
Examples:
  sealpost group --device mailbox new 'Ward 3'
  sealpost group --device mailbox new 'Ward 3' --steward DEVICE --suite hybrid

Others take an invitation only if a steward is the mailbox of a sender (`sealpost sender mailbox`).";

const ADD_EXAMPLES: &str = "\
Example:
  sealpost group add 'Ward 3' RECIPIENT --category care-team

The recipient must have agreed to the category (`sealpost consent grant`), and their device must have uploaded key
packages, which `sealpost device sync` does.";

const SEND_EXAMPLES: &str = "\
Examples:
  sealpost group send 'Ward 3' - < text.txt
  sealpost group send 'Ward 3' 'Can somebody come?' --offer 'yes=On my way' --offer 'no=I cannot'

Other users of a machine see the arguments of its programs: give a text on standard input.
With exit code 3 the message is stored, and `sealpost device sync` sends it; the same command again would write another.";

const REPLY_EXAMPLES: &str = "\
Example:
  sealpost group show 'Ward 3'
  sealpost group reply 'Ward 3' MESSAGE yes";

#[derive(Debug, Args)]
pub(crate) struct GroupCommand {
    #[command(flatten)]
    pub(crate) place: DeviceFolder,
    #[command(subcommand)]
    pub(crate) command: GroupSubcommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GroupSubcommand {
    /// Make a group, with this device alone in it
    #[command(after_help = NEW_EXAMPLES)]
    New {
        /// What people call it: at most 64 bytes, for members alone to read
        label: String,
        /// A device that may add and remove others, as this one may (repeatable); it has to be added all the same
        #[arg(long = "steward", value_name = "DEVICE")]
        stewards: Vec<DeviceId>,
        /// What the group's keys are agreed with, for the group's whole life
        #[arg(long, value_enum, default_value = "classical")]
        suite: SuiteArgument,
    },
    /// Add all devices of recipients
    ///
    /// They read what is written from then on.
    #[command(after_help = ADD_EXAMPLES)]
    Add {
        /// The group
        group: String,
        /// Whose devices come in
        #[arg(required = true, value_name = "RECIPIENT")]
        recipients: Vec<RecipientId>,
        /// What for: a category to which the recipients have agreed
        #[arg(long, default_value = "message", value_name = "CATEGORY")]
        category: String,
    },
    /// Remove devices, or all devices of recipients
    ///
    /// They read nothing of what is written from then on. A device that is lost or stolen is revoked (`sealpost tenant
    /// revoke --device`): then whoever commits next removes it from every group.
    Remove {
        /// The group
        group: String,
        /// A member's device, or the recipient whose devices go
        #[arg(required = true, value_name = "MEMBER", value_parser = member)]
        members: Vec<[u8; 16]>,
    },
    /// Name the devices that may add and remove others, in the place of those that may now
    ///
    /// One of them has to be the mailbox of a sender: without one, nobody takes an invitation.
    Stewards {
        /// The group
        group: String,
        /// The devices
        #[arg(required = true, value_name = "DEVICE")]
        stewards: Vec<DeviceId>,
    },
    /// Give a group another label
    Rename {
        /// The group
        group: String,
        /// What people call it from now on: at most 64 bytes
        label: String,
    },
    /// Write a text to a group
    #[command(after_help = SEND_EXAMPLES)]
    Send {
        /// The group
        group: String,
        /// The text; `-` reads it from standard input
        text: String,
        /// An answer that the text offers: its code, and what a person sees (repeatable)
        #[arg(long = "offer", value_name = "CODE=LABEL", value_parser = offer)]
        offers: Vec<GroupReply>,
    },
    /// Give one of the answers that a message offers
    #[command(after_help = REPLY_EXAMPLES)]
    Reply {
        /// The group
        group: String,
        /// The message
        #[arg(value_parser = message)]
        message: MessageId,
        /// The answer's code
        code: String,
    },
    /// Say that a person has seen and understood a message
    Confirm {
        /// The group
        group: String,
        /// The message
        #[arg(value_parser = message)]
        message: MessageId,
    },
    /// List the groups of the device
    List,
    /// Show a group's members and newest messages, as far as they are on the device
    Show {
        /// The group
        group: String,
        /// Only the newest messages
        #[arg(long, default_value = "20", value_name = "N")]
        last: usize,
        /// All messages
        #[arg(long, conflicts_with = "last")]
        all: bool,
    },
    /// Ask the others to let the device go; until one of them has done so it reads on, and writes nothing
    Leave {
        /// The group
        group: String,
    },
    /// Come back into a group whose changes this device has missed
    ///
    /// `sealpost device sync` notices that, and does so by itself within minutes. This does not wait.
    Rejoin {
        /// The group
        group: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SuiteArgument {
    /// X25519 alone
    Classical,
    /// X-Wing: ML-KEM-768 and X25519; only for devices that open hybrid boxes, and with a provisional number
    Hybrid,
}

fn message(text: &str) -> Result<MessageId, String> {
    member(text).map(MessageId)
}

fn member(text: &str) -> Result<[u8; 16], String> {
    let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| "an id has 32 lowercase hexadecimal digits".to_owned())
}

fn offer(text: &str) -> Result<GroupReply, String> {
    let (code, label) = text.split_once('=').ok_or("a code and what is shown, as in yes=On my way")?;
    if code.is_empty() || label.is_empty() {
        return Err("neither the code nor what is shown may be empty".to_owned());
    }
    Ok(GroupReply { code: code.to_owned(), label: label.to_owned() })
}
