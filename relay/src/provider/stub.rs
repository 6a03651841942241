//! The stub: what a push shows. The same bytes for every message of an app, so that the provider can tell no two
//! messages apart. It is made once, from the app's configuration.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::ProviderError;

/// What an app's stub shows until the app's notification extension replaces it. It must be presentable as it is:
/// the extension may be killed, or the device may be locked before its first unlock.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StubConfig {
    /// The title, shown where the app has no text for `title_loc_key`. None by default.
    pub title: Option<String>,
    /// The text, shown where the app has no text for `loc_key`. `New message` by default.
    pub body: String,
    /// The key of the title in the app's own string files, so that it appears in the device's language.
    pub title_loc_key: Option<String>,
    /// The key of the text in the app's own string files.
    pub loc_key: Option<String>,
    /// The sound's name; `default` by default, none by an empty string.
    pub sound: String,
}

impl Default for StubConfig {
    fn default() -> Self {
        Self {
            title: None,
            body: "New message".to_owned(),
            title_loc_key: None,
            loc_key: None,
            sound: "default".to_owned(),
        }
    }
}

/// The APNs body of an app.
///
/// # Errors
/// Texts that are empty or too long for a push (4096 bytes in all).
pub(super) fn apns_stub(config: &StubConfig) -> Result<Bytes, ProviderError> {
    if config.body.is_empty() {
        return Err(ProviderError::Config {
            field: "stub.body",
            why: "must be presentable as it is: not empty",
        });
    }
    let stub = ApnsStub {
        aps: Aps {
            alert: Alert {
                title: config.title.as_deref(),
                body: &config.body,
                title_loc_key: config.title_loc_key.as_deref(),
                loc_key: config.loc_key.as_deref(),
            },
            mutable_content: 1,
            sound: Some(config.sound.as_str()).filter(|sound| !sound.is_empty()),
        },
        sealpost: SYNC,
    };
    let body = serde_json::to_vec(&stub)
        .map_err(|_| ProviderError::Config { field: "stub", why: "cannot be written as JSON" })?;
    if body.len() > STUB_BYTES_MAX {
        return Err(ProviderError::Config { field: "stub", why: "longer than the 4096 bytes of a push" });
    }
    Ok(body.into())
}

/// What a stub asks of the SDK in every push: sync your inbox. APNs keeps one push per app while a device is
/// offline, so a stub can never mean "fetch exactly message N".
pub(super) const SYNC: &str = "sync";

/// The longest APNs body, in bytes.
const STUB_BYTES_MAX: usize = 4096;

#[derive(Serialize)]
struct ApnsStub<'a> {
    aps: Aps<'a>,
    sealpost: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Aps<'a> {
    alert: Alert<'a>,
    mutable_content: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    sound: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Alert<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    body: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    title_loc_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    loc_key: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stub_is_presentable_and_wakes_the_extension() {
        let stub = apns_stub(&StubConfig::default()).unwrap();
        let expected = r#"{"aps":{"alert":{"body":"New message"},"mutable-content":1,"sound":"default"},"sealpost":"sync"}"#;
        assert_eq!(std::str::from_utf8(&stub).unwrap(), expected);
    }

    #[test]
    fn localised_stub_carries_keys_and_texts() {
        let config = r#"{"title":"Klinik","title_loc_key":"PUSH_TITLE","loc_key":"PUSH_BODY","sound":""}"#;
        let stub = apns_stub(&serde_json::from_str(config).unwrap()).unwrap();
        let stub: serde_json::Value = serde_json::from_slice(&stub).unwrap();
        assert_eq!(stub["aps"]["alert"]["title-loc-key"], "PUSH_TITLE");
        assert_eq!(stub["aps"]["alert"]["loc-key"], "PUSH_BODY");
        assert_eq!(stub["aps"]["alert"]["title"], "Klinik");
        assert!(stub["aps"].get("sound").is_none());
    }

    #[test]
    fn unpresentable_or_oversized_stubs_are_refused() {
        let empty = StubConfig { body: String::new(), ..StubConfig::default() };
        assert!(apns_stub(&empty).is_err());
        let long = StubConfig { body: "x".repeat(4096), ..StubConfig::default() };
        assert!(apns_stub(&long).is_err());
        assert!(serde_json::from_str::<StubConfig>(r#"{"bodi":"x"}"#).is_err());
    }
}
