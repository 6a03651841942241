//! The emulators of Apple's and Google's push services, as the demo uses them: what they know, and what they saw.

use std::path::PathBuf;
use std::time::Duration;

use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, de};
use ureq::Agent;

/// How long one question waits for a push; then it is asked again.
const WAIT: Duration = Duration::from_secs(50);
/// How long an answer may take beyond that.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// What the emulators say when they have started.
#[derive(Debug, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) ca_file: PathBuf,
    pub(crate) apns: Apns,
    pub(crate) fcm: Fcm,
    pub(crate) control_url: String,
}

/// What a client of the APNs emulator needs.
#[derive(Debug, Deserialize)]
pub(crate) struct Apns {
    pub(crate) url: String,
    pub(crate) team_id: String,
    pub(crate) key_id: String,
    pub(crate) key_file: PathBuf,
    pub(crate) topics: Vec<String>,
}

/// What a client of the FCM emulator needs.
#[derive(Debug, Deserialize)]
pub(crate) struct Fcm {
    pub(crate) url: String,
    pub(crate) service_account_file: PathBuf,
}

/// One push, as the emulators received it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Push {
    pub(crate) sequence: u64,
    pub(crate) provider: Provider,
    pub(crate) token: String,
    pub(crate) received_ms: u64,
    pub(crate) headers: serde_json::Map<String, serde_json::Value>,
    #[serde(deserialize_with = "base64")]
    pub(crate) body: Vec<u8>,
    pub(crate) status: Option<u16>,
    pub(crate) reason: Option<String>,
}

/// Who received a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Provider {
    /// Apple.
    Apns,
    /// Google.
    Fcm,
}

#[derive(Deserialize)]
struct Page {
    pushes: Vec<Push>,
}

/// The emulators' control interface.
pub(crate) struct Control {
    url: String,
    agent: Agent,
}

impl Control {
    /// The interface at `url`.
    pub(crate) fn new(url: &str) -> Self {
        let config = Agent::config_builder().timeout_global(Some(WAIT + ANSWER_DEADLINE)).build();
        Self { url: url.to_owned(), agent: config.new_agent() }
    }

    /// The pushes to `token` behind number `after`, as soon as there are some; none after a while.
    pub(crate) fn await_pushes(&self, token: &str, after: u64) -> Result<Vec<Push>, ureq::Error> {
        let (after, wait_ms) = (after.to_string(), WAIT.as_millis().to_string());
        self.pushes(&[("token", token), ("after", &after), ("wait_ms", &wait_ms)])
    }

    /// All pushes so far.
    pub(crate) fn all_pushes(&self) -> Result<Vec<Push>, ureq::Error> {
        let mut pushes: Vec<Push> = Vec::new();
        loop {
            let after = pushes.last().map_or(0, |push| push.sequence).to_string();
            let page = self.pushes(&[("after", &after)])?;
            if page.is_empty() {
                return Ok(pushes);
            }
            pushes.extend(page);
        }
    }

    fn pushes(&self, query: &[(&str, &str)]) -> Result<Vec<Push>, ureq::Error> {
        let request = self.agent.get(format!("{}/pushes", self.url)).query_pairs(query.iter().copied());
        let page: Page = request.call()?.body_mut().read_json()?;
        Ok(page.pushes)
    }
}

fn base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    BASE64.decode(String::deserialize(deserializer)?.as_bytes()).map_err(de::Error::custom)
}
