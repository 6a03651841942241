//! The rows of the budget.

pub mod accept;
pub mod crypto;
pub mod group_messages;
pub mod group_sizes;
pub mod isolation;
pub mod latency;
pub mod life;
pub mod memory;
pub mod provider_client;
pub mod restart;
pub mod settled;
pub mod sync;
pub mod waiting;

use sealpost_group::GroupSuite;
use sealpost_wire::message::Suite;

use crate::error::BenchError;
use crate::report::Row;
use crate::scene::Stage;

use self::crypto::Half;

/// Messages that go before the clock starts, to devices of their own: connections, tokens and caches are
/// there then.
const WARM_UP: usize = 500;

/// How long and how often rows run.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Runs, each beside one of the limit where there is one.
    pub runs: usize,
    /// Messages of a run, other than a row's own number.
    pub messages: Option<usize>,
    /// Only to see that it works.
    pub quick: bool,
}

impl Effort {
    /// Messages of a run of a row that has `usual` ones.
    fn messages(&self, usual: usize) -> usize {
        const QUICK: usize = 300;
        self.messages.unwrap_or(if self.quick { QUICK } else { usual }).max(1)
    }
}

/// A row by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Name {
    /// Accept durably and push.
    Accept,
    /// PUT to 202, and PUT to stub.
    Latency,
    /// Accept, push, sync, opened.
    Life,
    /// Sync returning one message.
    Sync,
    /// Seal, hybrid suite.
    SealHybrid,
    /// Seal, classical suite.
    SealClassical,
    /// Open, hybrid suite.
    OpenHybrid,
    /// Open, classical suite.
    OpenClassical,
    /// Messages of a group, encrypted.
    GroupEncrypt,
    /// Messages of a group, decrypted.
    GroupDecrypt,
    /// Changes of groups of up to 500 members.
    GroupSizes,
    /// The same with the hybrid suite.
    GroupSizesHybrid,
    /// Resident memory of the relay.
    Memory,
    /// The client of APNs.
    Client,
    /// One provider never answers; the other one's pushes.
    Isolation,
    /// Accept and push while a million messages wait.
    Waiting,
    /// Killed and started again over a million waiting messages.
    Restart,
    /// Leases after five million messages.
    Settled,
}

impl Name {
    /// Measures the row.
    ///
    /// # Errors
    /// See [`BenchError`].
    pub fn measure(self, stage: &mut Stage, effort: Effort) -> Result<Row, BenchError> {
        match self {
            Self::Accept => accept::row(stage, effort),
            Self::Latency => latency::row(stage, effort),
            Self::Life => life::row(stage, effort),
            Self::Sync => sync::row(stage, effort),
            Self::SealHybrid => crypto::row("seal-hybrid", Half::Seal, Suite::Hybrid, stage, effort),
            Self::SealClassical => crypto::row("seal-classical", Half::Seal, Suite::Classical, stage, effort),
            Self::OpenHybrid => crypto::row("open-hybrid", Half::Open, Suite::Hybrid, stage, effort),
            Self::OpenClassical => crypto::row("open-classical", Half::Open, Suite::Classical, stage, effort),
            Self::GroupEncrypt => {
                group_messages::row("group-encrypt", group_messages::Half::Encrypt, stage, effort)
            }
            Self::GroupDecrypt => {
                group_messages::row("group-decrypt", group_messages::Half::Decrypt, stage, effort)
            }
            Self::GroupSizes => group_sizes::row("group-sizes", GroupSuite::Classical, stage, effort),
            Self::GroupSizesHybrid => {
                group_sizes::row("group-sizes-hybrid", GroupSuite::Hybrid, stage, effort)
            }
            Self::Memory => memory::row(stage, effort),
            Self::Client => provider_client::row(stage, effort),
            Self::Isolation => isolation::row(stage, effort),
            Self::Waiting => waiting::row(stage, effort),
            Self::Restart => restart::row(stage, effort),
            Self::Settled => settled::row(stage, effort),
        }
    }
}
