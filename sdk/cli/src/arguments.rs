//! The command line.

mod device;
mod group;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sealpost_wire::id::{DeviceId, Digest, KeyId, RecipientId, SubjectId, TenantId, TicketId};
use tracing_subscriber::filter::LevelFilter;

pub(crate) use device::{DeviceCommand, DeviceFolder, DeviceSubcommand, PushArguments, Suites};
pub(crate) use group::{GroupCommand, GroupSubcommand, SuiteArgument};

const EXAMPLES: &str = "\
Examples:
  A hospital's keys, and a sending system:
    sealpost tenant init st-mary --keyserver https://keys.example --relay https://relay.example
    sealpost sender add laboratory

  Let a patient's phone in; the link and the QR code are for the patient's eyes only:
    sealpost ticket new --wait 300 --approve ask

  Send a lab result, and wait until the phone has signed that it opened it:
    sealpost send --hl7 result.hl7 --patients patients.toml --wait 60
    sealpost status

Exit codes: 0 done; 1 refused or failed; 2 the command line; 3 not now, the same command later may do.
With --json the last line of standard output is one JSON object, also for a failure.";

const INIT_EXAMPLES: &str = "\
Example:
  sealpost tenant init st-mary --keyserver https://keys.example --relay https://relay.example

The URLs are the servers' public_url: clients sign them, so they must be the ones that clients use.";

const TICKET_EXAMPLES: &str = "\
Examples:
  At the desk; somebody compares the code on the phone with the one here:
    sealpost ticket new --recipient RECIPIENT --consent lab-result --wait 5m
  In two steps:
    sealpost ticket new --no-qr
    sealpost ticket show TICKET --wait 5m
    sealpost ticket approve TICKET 12345678";

const MAILBOX_EXAMPLES: &str = "\
Example:
  sealpost ticket new --no-qr
  sealpost device --device mailbox enrol - < link.txt
  sealpost ticket approve TICKET CODE
  sealpost device --device mailbox register
  sealpost sender mailbox laboratory --device mailbox
  sealpost group --device mailbox new 'Ward 3'";

const SEND_EXAMPLES: &str = "\
Examples:
  sealpost send --hl7 result.hl7 --patients patients.toml --wait 60
  sealpost send --text 'Please call us' --recipient RECIPIENT --source visit-417 --priority critical

A message whose patient is not in the map, or that cannot be read, is held (`sealpost quarantine`) and nothing is sent.
Once the command has stored an alert it is in the outbox: with exit code 3, `sealpost outbox run` goes on with it.

A category goes into the group that the sender's mailbox has made for the recipient, where policy.toml says so:
  mailbox = \"mailbox\"
  [categories.care-team]
  transport = \"group\"
All members of the group read the text; it has normal priority, and there are no receipts. Nothing is sent where the
recipient is in no such group (`no_group`), or in several (`several_groups`). policy.toml is in the home.";

const QUARANTINE_EXAMPLES: &str = "\
Example:
  sealpost quarantine list
  sealpost quarantine release ID --to result.hl7
  sealpost send --hl7 result.hl7 --patients patients.toml";

/// End-to-end encrypted push notifications for health care: administration, sending, and a device for the terminal.
#[derive(Debug, Parser)]
#[command(name = "sealpost", version, after_help = EXAMPLES, propagate_version = true)]
pub(crate) struct Arguments {
    /// The folder with the tenant's keys, senders and outboxes
    #[arg(long, global = true, env = "SEALPOST_HOME", default_value = "sealpost-home", value_name = "DIR")]
    pub(crate) home: PathBuf,
    /// Root certificates (PEM): servers are believed by these alone, and not by the public ones
    #[arg(long, global = true, env = "SEALPOST_CA_FILE", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Print one JSON object as the last line of standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to log to standard error [default: warn for `outbox run`, else off]
    #[arg(long, global = true, value_enum, value_name = "LEVEL")]
    log: Option<LogLevel>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
}

impl Arguments {
    /// What is logged: a service says what it meets, any other command says it at its end.
    pub(crate) fn log(&self) -> LevelFilter {
        let is_service = matches!(self.command, Command::Outbox(OutboxCommand::Run { .. }));
        match self.log.unwrap_or(if is_service { LogLevel::Warn } else { LogLevel::Off }) {
            LogLevel::Off => LevelFilter::OFF,
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The hospital's own keys, and what it has revoked
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// Systems that send
    #[command(subcommand)]
    Sender(SenderCommand),
    /// Pseudonyms of patients and staff
    #[command(subcommand)]
    Recipient(RecipientCommand),
    /// What recipients agreed to
    #[command(subcommand)]
    Consent(ConsentCommand),
    /// Let devices in
    #[command(subcommand)]
    Ticket(TicketCommand),
    /// A device for the terminal
    Device(DeviceCommand),
    /// Conversations and care teams, of a device for the terminal
    #[command(after_help = group::EXAMPLES)]
    Group(GroupCommand),
    /// Send a lab result or a text
    #[command(after_help = SEND_EXAMPLES)]
    Send(SendCommand),
    /// What waits to be sent
    #[command(subcommand)]
    Outbox(OutboxCommand),
    /// Results that were not sent because something about them is not clear
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    /// Where alerts are, and what devices signed
    Status(StatusCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    /// Make a tenant: its root key, and an enroller that countersigns devices
    ///
    /// Prints the lines for the configuration of both servers. Keep root.json offline afterwards: it is needed again
    /// only to add senders and to renew certificates.
    #[command(after_help = INIT_EXAMPLES)]
    Init {
        /// The tenant's name: a-z, 0-9, '-' and '.'
        tenant: TenantId,
        /// The keyserver's URL
        #[arg(long, value_name = "URL")]
        keyserver: String,
        /// The relay's URL
        #[arg(long, value_name = "URL")]
        relay: String,
        /// How long the enroller's certificates are valid
        #[arg(long, default_value = "365", value_parser = clap::value_parser!(u32).range(1..=3650), value_name = "DAYS")]
        valid_days: u32,
    },
    /// Show the tenant, its servers, its keys and until when they are certified, and what is revoked
    Show,
    /// Make new certificates for the enroller's keys
    Renew {
        /// How long they are valid
        #[arg(long, default_value = "365", value_parser = clap::value_parser!(u32).range(1..=3650), value_name = "DAYS")]
        valid_days: u32,
        /// The enroller, if there are several
        #[arg(long, value_name = "NAME")]
        enroller: Option<String>,
    },
    /// Sign the list of what is revoked anew, and publish it at both servers
    ///
    /// Once something was revoked, servers refuse to work with a list older than their limit (a day by default): they
    /// could not tell whether it is being withheld from them. Run this every hour by a timer: deploy/ has one for systemd.
    Publish {
        /// The enroller that signs, if there are several
        #[arg(long, value_name = "NAME")]
        enroller: Option<String>,
    },
    /// Revoke devices and keys, at both servers at once
    ///
    /// Nothing takes a revocation back. From the first one on, `sealpost tenant publish` must run at least daily.
    Revoke {
        /// A device that is lost
        #[arg(long = "device", value_name = "DEVICE")]
        devices: Vec<DeviceId>,
        /// A key, by its id (`sealpost tenant show`)
        #[arg(long = "key", value_name = "KEY")]
        keys: Vec<KeyId>,
        /// All keys of a sending system
        #[arg(long = "sender", value_name = "NAME")]
        senders: Vec<String>,
        /// The keys are in other hands: what they signed counts no more
        #[arg(long)]
        compromised: bool,
        /// The enroller that signs, if there are several
        #[arg(long, value_name = "NAME")]
        enroller: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SenderCommand {
    /// Make the keys of a sending system
    Add {
        /// Its name: a-z, 0-9, '-' and '.'
        name: SubjectId,
        /// How long its certificates are valid
        #[arg(long, default_value = "365", value_parser = clap::value_parser!(u32).range(1..=3650), value_name = "DAYS")]
        valid_days: u32,
    },
    /// Make new certificates for a sending system's keys; its outbox stays
    Renew {
        /// Its name
        name: SubjectId,
        /// How long they are valid
        #[arg(long, default_value = "365", value_parser = clap::value_parser!(u32).range(1..=3650), value_name = "DAYS")]
        valid_days: u32,
    },
    /// Say that a device is a sending system's mailbox, by which it takes part in groups
    ///
    /// The device is enrolled like any other. Members of its groups see the sender's name, and a group is believed only
    /// if such a mailbox is among its stewards. In groups that it is in already, they see it from its next change on.
    #[command(after_help = MAILBOX_EXAMPLES)]
    Mailbox {
        /// The sender's name
        name: SubjectId,
        #[command(flatten)]
        place: DeviceFolder,
    },
    /// List the sending systems
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RecipientCommand {
    /// Print a new pseudonym: random, derived from nothing
    New,
    /// Take a device out: nothing more is sealed to it
    ///
    /// It still gets what was sent before. A device that is lost or stolen is stopped at once, at both servers, by
    /// `sealpost tenant revoke --device`.
    RemoveDevice {
        /// Whose device it is
        recipient: RecipientId,
        /// The device
        device: DeviceId,
        /// The enroller that signs, if there are several
        #[arg(long, value_name = "NAME")]
        enroller: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConsentCommand {
    /// Record that a recipient agrees to a category
    Grant(Said),
    /// Record that a recipient does not agree to a category, or no more
    Withdraw(Said),
    /// Show what a recipient said last about each category
    List {
        /// The recipient
        recipient: RecipientId,
        /// The enroller, if there are several
        #[arg(long, value_name = "NAME")]
        enroller: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Said {
    /// The recipient
    pub(crate) recipient: RecipientId,
    /// The category, e.g. lab-result
    pub(crate) category: String,
    /// Who recorded it
    #[arg(long, default_value = "sealpost", value_name = "WHO")]
    pub(crate) by: String,
    /// How it was given: portal, paper, device
    #[arg(long, default_value = "portal", value_name = "HOW")]
    pub(crate) method: String,
    /// The signed document; its SHA-256 is recorded
    #[arg(long, value_name = "FILE")]
    pub(crate) document: Option<PathBuf>,
    /// The enroller that records it, if there are several
    #[arg(long, value_name = "NAME")]
    pub(crate) enroller: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TicketCommand {
    /// Make a ticket: a link and a QR code that let one device in within 15 minutes
    ///
    /// The link holds a secret. Show it only where the patient is authenticated already. With --json and --wait, the link
    /// is a JSON object on a line of its own, before the wait begins.
    #[command(after_help = TICKET_EXAMPLES)]
    New {
        /// Whose device it lets in; a new pseudonym without it
        #[arg(long, value_name = "RECIPIENT")]
        recipient: Option<RecipientId>,
        /// The hospital's page that opens the app
        #[arg(long, default_value = "https://sealpost.example/enrol", value_name = "URL")]
        page: String,
        /// Print the link alone
        #[arg(long)]
        no_qr: bool,
        /// Wait this long for the device, and countersign it
        #[arg(long, value_parser = duration, value_name = "TIME")]
        wait: Option<Duration>,
        /// With --wait: whether somebody compares the code on phone and portal
        #[arg(long, value_enum, default_value = "ask")]
        approve: Approve,
        /// Record that the recipient agrees to this category (repeatable)
        #[arg(long, value_name = "CATEGORY")]
        consent: Vec<String>,
        /// The enroller, if there are several
        #[arg(long, value_name = "NAME")]
        enroller: Option<String>,
    },
    /// List the tickets that are open
    List {
        /// The enroller, if there are several
        #[arg(long, value_name = "NAME")]
        enroller: Option<String>,
    },
    /// Show which device claimed a ticket, and its code
    Show {
        /// The ticket
        ticket: TicketId,
        /// Wait this long for a device
        #[arg(long, value_parser = duration, default_value = "0s", value_name = "TIME")]
        wait: Duration,
        /// The enroller, if there are several
        #[arg(long, value_name = "NAME")]
        enroller: Option<String>,
    },
    /// Let the device in that claimed a ticket and shows this code
    Approve {
        /// The ticket
        ticket: TicketId,
        /// The eight digits on the device
        code: String,
        /// The enroller, if there are several
        #[arg(long, value_name = "NAME")]
        enroller: Option<String>,
    },
    /// Let nobody in with a ticket any more
    Close {
        /// The ticket
        ticket: TicketId,
        /// The enroller, if there are several
        #[arg(long, value_name = "NAME")]
        enroller: Option<String>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Approve {
    /// Ask on the terminal, with the code
    Ask,
    /// Countersign at once: the tenant's policy trusts the ticket alone
    Auto,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(crate) struct SendCommand {
    /// HL7 v2 results (ORU^R01), or `-` for one on standard input; the same message twice makes one alert
    #[arg(long, value_name = "FILE", group = "what", num_args = 1.., requires = "patients")]
    pub(crate) hl7: Vec<PathBuf>,
    /// Which patient is which recipient (TOML or JSON)
    #[arg(long, value_name = "FILE")]
    pub(crate) patients: Option<PathBuf>,
    /// A text
    #[arg(long, value_name = "BODY", group = "what", requires = "recipient")]
    pub(crate) text: Option<String>,
    /// The text's title
    #[arg(long, default_value = "New message", value_name = "TITLE")]
    pub(crate) title: String,
    /// Who is told
    #[arg(long, value_name = "RECIPIENT")]
    pub(crate) recipient: Option<RecipientId>,
    /// The text's category; a lab result has lab-result
    #[arg(long, default_value = "message", value_name = "CATEGORY")]
    pub(crate) category: String,
    /// How soon a text is delivered; a result's own flags decide for a result
    #[arg(long, value_enum, default_value = "normal")]
    pub(crate) priority: PriorityArgument,
    /// Names a text's event, so that the same one twice makes one alert; random without it
    #[arg(long, value_name = "KEY")]
    pub(crate) source: Option<String>,
    /// How long it is delivered (24h for what is critical, else 7d)
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub(crate) lifetime: Option<Duration>,
    /// What a locked screen shows
    #[arg(long, value_enum, default_value = "private")]
    pub(crate) sensitivity: SensitivityArgument,
    /// Also send training and test messages (MSH-11 other than P)
    #[arg(long)]
    pub(crate) allow_training: bool,
    /// Wait this long until every device has signed that it opened it
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub(crate) wait: Option<Duration>,
    /// The sending system, if there are several
    #[arg(long, value_name = "NAME")]
    pub(crate) sender: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PriorityArgument {
    /// Somebody must act now
    Critical,
    /// The patient waits for it
    Normal,
    /// When convenient
    Bulk,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SensitivityArgument {
    /// Title and text
    Normal,
    /// That there is a message, no more
    Private,
    /// That there is a message; the text only after the app has authenticated the person
    Restricted,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OutboxCommand {
    /// List what waits to be sent, and why
    List {
        /// The sending system, if there are several
        #[arg(long, value_name = "NAME")]
        sender: Option<String>,
    },
    /// Send what waits, and take in receipts, until SIGTERM or SIGINT
    ///
    /// For a service manager. It can be stopped at any moment: what it had not finished, it goes on with.
    Run {
        /// The sending system, if there are several
        #[arg(long, value_name = "NAME")]
        sender: Option<String>,
        /// End once nothing waits to be sent
        #[arg(long)]
        once: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineCommand {
    /// List what is held
    List,
    /// Print a held message to standard output
    Show {
        /// Its id
        id: Digest,
    },
    /// Hand out a held message, and hold it no more; send it again once what was not clear is
    #[command(after_help = QUARANTINE_EXAMPLES)]
    Release {
        /// Its id
        id: Digest,
        /// Write it to this new file, for its owner only; to standard output without it
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct StatusCommand {
    /// The sending system, if there are several
    #[arg(long, value_name = "NAME")]
    pub(crate) sender: Option<String>,
    /// Ask the relay first
    #[arg(long)]
    pub(crate) refresh: bool,
    /// Only the newest alerts
    #[arg(long, default_value = "20", value_name = "N")]
    pub(crate) last: usize,
    /// All alerts of the outbox
    #[arg(long, conflicts_with = "last")]
    pub(crate) all: bool,
}

/// Seconds, minutes, hours or days: `90s`, `15m`, `24h`, `7d`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "a number with s, m, h or d, as in 90s".to_owned())?;
    let factor = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("the unit is s, m, h or d".to_owned()),
    };
    number.checked_mul(factor).map(Duration::from_secs).ok_or_else(|| "too long".to_owned())
}
