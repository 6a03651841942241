//! What a caller can choose before the emulators start.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, SystemClock};

/// Everything that is fixed while the emulators run.
#[derive(Clone)]
pub struct Options {
    /// Folder for certificates, credentials and `emulators.json`; made when absent. Keys found in it are used
    /// again, so a gateway keeps working when the emulators restart.
    pub dir: PathBuf,
    /// Address to listen on; 127.0.0.1 unless told otherwise.
    pub listen: IpAddr,
    /// Names the server certificate carries besides `localhost` and 127.0.0.1.
    pub extra_names: Vec<String>,
    /// Port of the APNs emulator; 0 takes a free one.
    pub apns_port: u16,
    /// Port of the FCM emulator and its token endpoint; 0 takes a free one.
    pub fcm_port: u16,
    /// Port of the control interface; 0 takes a free one.
    pub control_port: u16,
    /// Signing keys that APNs knows. The first one's private half is written to `apns-key.p8`, the others' to
    /// `apns-key-<key id>.p8`.
    pub apns_keys: Vec<ApnsKey>,
    /// Concurrent streams that APNs allows once a connection has shown a valid provider token; before that,
    /// 1.
    pub apns_max_streams: u32,
    /// Over what a provider token may change only every 20 minutes.
    pub token_update_scope: TokenUpdateScope,
    /// Firebase project id.
    pub project_id: String,
    /// Concurrent streams that FCM allows on a connection.
    pub fcm_max_streams: u32,
    /// How long an access token of the emulated token endpoint lives.
    pub access_token_ttl: Duration,
    /// False: requests are counted, but neither headers nor bodies are kept.
    pub record_bodies: bool,
    /// Source of time.
    pub clock: Arc<dyn Clock>,
}

/// A signing key that the emulated APNs accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApnsKey {
    /// `iss` of the provider token (ten characters at Apple).
    pub team_id: String,
    /// `kid` of the provider token (ten characters at Apple).
    pub key_id: String,
    /// Bundle ids that the team may push to.
    pub topics: Vec<String>,
}

/// Where the emulator looks for provider tokens that change too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenUpdateScope {
    /// Within one connection: a process that was restarted may come with a new token.
    Connection,
    /// Over all connections of a team: every node of a gateway must share one token.
    Team,
}

impl Options {
    /// Defaults: free ports on 127.0.0.1, one team with one key and the topic `org.example.sealpost`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            extra_names: Vec::new(),
            apns_port: 0,
            fcm_port: 0,
            control_port: 0,
            apns_keys: vec![ApnsKey {
                team_id: "SEALTEAM01".to_owned(),
                key_id: "SEALKEY001".to_owned(),
                topics: vec!["org.example.sealpost".to_owned()],
            }],
            apns_max_streams: 1000,
            token_update_scope: TokenUpdateScope::Connection,
            project_id: "sealpost-emulated".to_owned(),
            fcm_max_streams: 100,
            access_token_ttl: Duration::from_secs(3599),
            record_bodies: true,
            clock: Arc::new(SystemClock),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("dir", &self.dir)
            .field("apns_keys", &self.apns_keys)
            .field("project_id", &self.project_id)
            .finish_non_exhaustive()
    }
}
