//! The push providers: two thin clients of APNs and FCM over HTTP/2, which wake a device with a constant
//! stub.
//!
//! In scope: connections that are kept, replaced and bounded; the credentials of each provider, made once and
//! renewed in time; one request and its answer, turned into an [`Outcome`].
//!
//! Out of scope: which device is due, how often a stub is sent again, and what an outcome does to a token.
//! Those are decisions of the push worker, and they need the store.
//!
//! A client belongs to one app at one provider. Nothing is shared between clients but, where the operator's
//! configuration says the same APNs team and key twice, the provider token ([`ApnsTokens`]): a credential
//! that fails, or a provider that is down, stops its own client alone.

pub mod answer;
mod apns;
mod apns_answer;
mod apns_token;
pub mod backoff;
mod connection;
mod endpoint;
mod exchange;
mod fcm;
mod fcm_answer;
mod followed;
mod oauth;
mod outcome;
mod pool;
mod proxy;
mod skew;
mod stub;
mod token;

use std::time::Duration;

pub use apns::{ApnsClient, ApnsConfig, ApnsEnvironment};
pub use apns_token::ApnsTokens;
pub use connection::{ConnectionConfig, ConnectionStats};
pub use endpoint::EndpointError;
pub use fcm::{FcmClient, FcmConfig};
pub use followed::{Followed, FollowedClient, Look};
pub use outcome::{CredentialFault, Detail, Outcome, RejectedFault, RetryClass};
pub use proxy::ProxyUrl;
pub use stub::StubConfig;
pub use token::{PushToken, PushTokenError};

/// One push to one device: what differs between two pushes of an app. The body never does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Push {
    /// How urgently the provider wakes the device.
    pub priority: PushPriority,
    /// When the provider may stop trying, in seconds since the Unix epoch. The providers' own limits (30 days,
    /// 28 days) are applied. The provider sees it: derive it from the push job, not from one message, where
    /// two devices of one message should not be linked.
    pub expires_at: u64,
    /// Identifies this push to the provider (`apns-id`), random, the same again at each retry.
    pub push_id: [u8; 16],
}

/// How urgently a provider wakes the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PushPriority {
    /// At once: `apns-priority: 10`, Android `HIGH`. Must lead to something visible.
    High,
    /// When it suits the device's power: `apns-priority: 5`, Android `NORMAL`.
    Normal,
}

/// Which provider a client speaks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Provider {
    /// Apple Push Notification service.
    Apns,
    /// Firebase Cloud Messaging.
    Fcm,
}

impl Provider {
    /// The name used in metrics, logs and stored tokens.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Apns => "apns",
            Self::Fcm => "fcm",
        }
    }
}

/// A client of either provider.
#[derive(Debug)]
pub enum ProviderClient {
    /// A client of APNs.
    Apns(ApnsClient),
    /// A client of FCM.
    Fcm(FcmClient),
}

impl ProviderClient {
    /// Sends the app's stub to one device and waits for the provider's word, at most the configured
    /// `request_timeout_ms`. Never fails: what went wrong is an [`Outcome`]. Dropping the future cancels the
    /// push.
    pub async fn push(&self, token: &PushToken, push: Push) -> Outcome {
        match self {
            Self::Apns(client) => client.push(token, push).await,
            Self::Fcm(client) => client.push(token, push).await,
        }
    }

    /// Which provider this is.
    #[must_use]
    pub const fn provider(&self) -> Provider {
        match self {
            Self::Apns(_) => Provider::Apns,
            Self::Fcm(_) => Provider::Fcm,
        }
    }

    /// The connections' present state, for metrics.
    #[must_use]
    pub fn stats(&self) -> ConnectionStats {
        match self {
            Self::Apns(client) => client.stats(),
            Self::Fcm(client) => client.stats(),
        }
    }

    /// Seconds that the provider's clock is ahead of this machine's, as far as its answers have told.
    #[must_use]
    pub fn clock_ahead_s(&self) -> Option<i64> {
        match self {
            Self::Apns(client) => client.clock_ahead_s(),
            Self::Fcm(client) => client.clock_ahead_s(),
        }
    }
}

impl From<ApnsClient> for ProviderClient {
    fn from(client: ApnsClient) -> Self {
        Self::Apns(client)
    }
}

impl From<FcmClient> for ProviderClient {
    fn from(client: FcmClient) -> Self {
        Self::Fcm(client)
    }
}

/// Why a provider client cannot be made. None of these is helped by a retry: the configuration must change.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// A file that the configuration names cannot be read.
    #[error("cannot read {what} {path}: {source}")]
    File {
        /// What the file is for.
        what: &'static str,
        /// The file's path.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// A credential cannot be used. The text never contains it.
    #[error("{what} is not usable: {why}")]
    Credential {
        /// Which credential.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A value in the configuration is out of its range.
    #[error("{field}: {why}")]
    Config {
        /// The configuration's field.
        field: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An address in the configuration cannot be used.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
}

/// At most this much of an answer's `Retry-After` is believed.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Reads a configured file.
fn read_file(
    what: &'static str,
    path: &std::path::Path,
) -> Result<zeroize::Zeroizing<Vec<u8>>, ProviderError> {
    std::fs::read(path).map(zeroize::Zeroizing::new).map_err(|source| ProviderError::File {
        what,
        path: path.display().to_string(),
        source,
    })
}
