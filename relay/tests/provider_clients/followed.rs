//! Credentials and root certificates that change while a client is at work.

use std::path::Path;
use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use sealpost_emulators::{Outcome as Fault, Provider};
use sealpost_relay::provider::{
    ApnsClient, ApnsConfig, CredentialFault, FcmClient, FcmConfig, Followed, FollowedClient, Look, Outcome,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::peer::{Peer, answer};
use crate::setup::{START, TestClock, emulated, push, system_now, token};

fn followed_apns(config: &ApnsConfig, now: u64) -> FollowedClient {
    let (files, config, clock) = (config.files(), config.clone(), TestClock::at(now));
    FollowedClient::new(files, move || ApnsClient::new(config.clone(), clock.clone()).map(Into::into))
        .unwrap()
}

fn followed_fcm(config: &FcmConfig) -> FollowedClient {
    let (files, config, clock) = (config.files(), config.clone(), TestClock::at(system_now()));
    FollowedClient::new(files, move || FcmClient::new(config.clone(), clock.clone()).map(Into::into)).unwrap()
}

async fn assert_accepted(client: &FollowedClient) {
    let outcome = client.push(&token(1), push(1)).await;
    assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
}

/// Puts a new file in the place of another at once, as tools do.
fn replace(file: &Path, content: impl AsRef<[u8]>) {
    let new = file.with_extension("new");
    std::fs::write(&new, content).unwrap();
    std::fs::rename(new, file).unwrap();
}

fn signing_key() -> String {
    rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem()
}

/// The key's id in the provider token of the last request.
fn key_id(peer: &Peer) -> String {
    let requests = peer.received();
    let token = requests.last().unwrap().header("authorization").strip_prefix("bearer ").unwrap();
    let header = BASE64URL_NOPAD.decode(token.split('.').next().unwrap().as_bytes()).unwrap();
    serde_json::from_slice::<Value>(&header).unwrap()["kid"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_link_to_another_key_changes_key_and_id() {
    let peer = Peer::start(|_| answer(200, "")).await;
    let dir = TempDir::new().unwrap();
    let link = dir.path().join("apns.p8");
    for id in ["FIRSTKEY01", "SECONDKEY2"] {
        std::fs::write(dir.path().join(format!("AuthKey_{id}.p8")), signing_key()).unwrap();
    }
    std::os::unix::fs::symlink("AuthKey_FIRSTKEY01.p8", &link).unwrap();
    let config: ApnsConfig = serde_json::from_value(json!({
        "topic": "org.example.sealpost", "team_id": "TEAM000001", "key_file": link, "endpoint": peer.url,
    }))
    .unwrap();
    let client = followed_apns(&config, START);
    assert_accepted(&client).await;
    assert_eq!(key_id(&peer), "FIRSTKEY01");
    assert_eq!(client.follow(Look::Regular).unwrap(), Followed::Same);
    assert_eq!(client.follow(Look::Asked).unwrap(), Followed::Same, "nothing has changed");

    let new_link = dir.path().join("new");
    std::os::unix::fs::symlink("AuthKey_SECONDKEY2.p8", &new_link).unwrap();
    std::fs::rename(new_link, &link).unwrap();
    assert_eq!(client.follow(Look::Regular).unwrap(), Followed::Replaced);
    assert_accepted(&client).await;
    assert_eq!(key_id(&peer), "SECONDKEY2");
    assert_eq!(peer.connections(), 2, "a connection belongs to the key it began with");

    // A link to what is no key changes nothing, and is told once.
    std::fs::remove_file(&link).unwrap();
    assert!(client.follow(Look::Regular).is_err());
    assert_eq!(client.follow(Look::Regular).unwrap(), Followed::Same);
    assert!(client.follow(Look::Asked).is_err(), "who asks is told again");
    assert!(client.is_refused());
    assert_accepted(&client).await;
    assert_eq!((key_id(&peer).as_str(), peer.connections()), ("SECONDKEY2", 2));
}

#[tokio::test]
async fn root_certificates_are_followed_and_bad_ones_change_nothing() {
    let (emulated, other) = (emulated(|_| ()).await, emulated(|_| ()).await);
    let dir = TempDir::new().unwrap();
    let ca_file = dir.path().join("ca.pem");
    let right = std::fs::read(&emulated.emulator.manifest().ca_file).unwrap();
    std::fs::copy(&other.emulator.manifest().ca_file, &ca_file).unwrap();
    let mut config = emulated.apns_config(&json!({ "backoff_first_ms": 1 }));
    config.root_ca_file = Some(ca_file.clone());
    let client = followed_apns(&config, system_now());
    let outcome = client.push(&token(1), push(1)).await;
    assert!(outcome.detail().as_str().contains("TLS"), "{outcome:?}");

    replace(&ca_file, &right);
    assert_eq!(client.follow(Look::Regular).unwrap(), Followed::Replaced);
    assert_accepted(&client).await;
    for bad in [&b""[..], b"nothing", &right[..right.len() / 2]] {
        replace(&ca_file, bad);
        let error = client.follow(Look::Regular).unwrap_err();
        assert!(error.to_string().contains("ca.pem"), "{error}");
        assert!(client.is_refused());
        assert_accepted(&client).await;
    }
    assert_eq!(emulated.emulator.counts().apns.connections_opened, 1, "the connection was kept");
    replace(&ca_file, &right);
    assert_eq!(client.follow(Look::Regular).unwrap(), Followed::Same);
    assert!(!client.is_refused());
}

#[tokio::test]
async fn a_service_account_that_google_refuses_is_replaced_by_a_good_one() {
    let emulated = emulated(|_| ()).await;
    let mut config = emulated.fcm_config(&json!({}));
    let good = std::fs::read_to_string(&config.service_account_file).unwrap();
    let dir = TempDir::new().unwrap();
    config.service_account_file = dir.path().join("account.json");
    let mut revoked: Value = serde_json::from_str(&good).unwrap();
    revoked["client_email"] = "revoked@example.org".into();
    std::fs::write(&config.service_account_file, revoked.to_string()).unwrap();
    let client = followed_fcm(&config);
    let outcome = client.push(&token(1), push(1)).await;
    assert!(
        matches!(outcome, Outcome::Credential { fault: CredentialFault::TokenRefused, .. }),
        "{outcome:?}"
    );

    // Half written: what was there goes on.
    replace(&config.service_account_file, &good[..good.len() / 2]);
    let error = client.follow(Look::Regular).unwrap_err();
    assert!(!format!("{error:?}").contains("PRIVATE KEY"), "{error:?}");
    replace(&config.service_account_file, &good);
    assert_eq!(client.follow(Look::Regular).unwrap(), Followed::Replaced);
    assert_accepted(&client).await;
}

#[tokio::test]
async fn a_push_that_is_under_way_ends_on_the_client_it_began_with() {
    let emulated = emulated(|_| ()).await;
    let mut config = emulated.apns_config(&json!({}));
    let dir = TempDir::new().unwrap();
    let ca_file = dir.path().join("ca.pem");
    let right = std::fs::read_to_string(&emulated.emulator.manifest().ca_file).unwrap();
    std::fs::write(&ca_file, &right).unwrap();
    config.root_ca_file = Some(ca_file.clone());
    let client = Arc::new(followed_apns(&config, system_now()));
    let slow = Fault { delay_ms: Some(300), count: Some(1), ..Fault::new(Provider::Apns, 200) };
    emulated.emulator.set_outcome(slow).unwrap();
    let under_way = tokio::spawn({
        let client = Arc::clone(&client);
        async move { client.push(&token(1), push(1)).await }
    });
    emulated.emulator.wait_for_count(1).await;
    replace(&ca_file, format!("{right}\n{right}"));
    assert_eq!(client.follow(Look::Asked).unwrap(), Followed::Replaced);
    assert_accepted(&client).await;
    assert!(matches!(under_way.await.unwrap(), Outcome::Accepted { .. }));
    let counts = emulated.emulator.counts().apns;
    assert_eq!((counts.total, counts.connections_opened), (2, 2));
}
