//! The command line of `sealpost device`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use sealpost_wire::id::NotificationId;

use super::duration;

const ENROL_EXAMPLES: &str = "\
Examples:
  sealpost device enrol - --wait 5m < link.txt
  sealpost device --device phone-2 enrol - --suite both --p256 < link.txt

Other users of a machine see the arguments of its programs: give the link on standard input.";

#[derive(Debug, Args)]
pub(crate) struct DeviceFolder {
    /// The folder with the device's keys and messages
    #[arg(
        long,
        global = true,
        env = "SEALPOST_DEVICE",
        default_value = "sealpost-device",
        value_name = "DIR"
    )]
    pub(crate) device: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct DeviceCommand {
    #[command(flatten)]
    pub(crate) place: DeviceFolder,
    #[command(subcommand)]
    pub(crate) command: DeviceSubcommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeviceSubcommand {
    /// Enrol with the link of a ticket, and print the code to compare
    ///
    /// With --json and --wait, the code is a JSON object on a line of its own, before the wait begins.
    #[command(after_help = ENROL_EXAMPLES)]
    Enrol {
        /// The link; `-` reads it from standard input, where other users of this machine do not see its secret
        link: String,
        /// The suites that the device opens
        #[arg(long, value_enum, default_value = "hybrid")]
        suite: Suites,
        /// A P-256 request key, as secure elements have it
        #[arg(long)]
        p256: bool,
        /// Wait this long to be countersigned, and make the mailbox
        #[arg(long, value_parser = duration, default_value = "0s", value_name = "TIME")]
        wait: Duration,
        #[command(flatten)]
        push: PushArguments,
    },
    /// Make the mailbox at the relay once countersigned, or say where pushes go from now on
    Register {
        #[command(flatten)]
        push: PushArguments,
    },
    /// Fetch, open and acknowledge what waits; show what is new
    Sync {
        /// Let the relay wait this long for a message
        #[arg(long, value_parser = duration, default_value = "0s", value_name = "TIME")]
        wait: Duration,
        /// Like a notification extension: consume prekeys, make none
        #[arg(long)]
        extension: bool,
    },
    /// Show the newest messages on the device
    Show {
        /// All of them
        #[arg(long)]
        all: bool,
    },
    /// Say that a person agrees to a message, or declines; sent at once
    Confirm {
        /// The message
        notification: NotificationId,
        /// They decline
        #[arg(long)]
        decline: bool,
    },
    /// Show who the device is and how many prekeys are left
    Status,
}

#[derive(Debug, Args)]
pub(crate) struct PushArguments {
    /// The app, by the name in the relay's configuration
    #[arg(long, value_name = "APP", requires = "token")]
    pub(crate) app: Option<String>,
    /// The push token from Apple or Google
    #[arg(long, value_name = "TOKEN", requires = "app", allow_hyphen_values = true)]
    pub(crate) token: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suites {
    /// X-Wing: ML-KEM-768 and X25519
    Hybrid,
    /// X25519 alone
    Classical,
    /// Both, hybrid first
    Both,
}
