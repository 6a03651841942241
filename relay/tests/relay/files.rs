//! What push providers need beside pushes: files that change while the relay runs, and the right time.

use std::time::Duration;

use crate::world::World;

/// Waits until a metric of the iOS app has this value.
async fn metric_becomes(world: &World, name: &str, value: &str) {
    let line = format!("{name} {value}");
    let shown = async {
        loop {
            let body = world.http().get("/metrics").await.body;
            if String::from_utf8(body.to_vec()).unwrap().lines().any(|shown| shown == line) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), shown).await.is_ok(), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_cannot_be_used_is_told_and_the_one_before_serves() {
    let world = World::start().await;
    let (sender, phone) = (world.sender().await, world.phone().await);
    world.send(&sender, &[&phone]).await;
    world.emulator.wait_for_count(1).await;
    let refused = r#"sealpost_relay_provider_files_refused{app="ios"}"#;
    metric_becomes(&world, refused, "0").await;

    let key_file = &world.emulator.manifest().apns.key_file;
    let key = std::fs::read(key_file).unwrap();
    std::fs::write(key_file, "no key").unwrap();
    world.reload.ask();
    metric_becomes(&world, refused, "1").await;
    metric_becomes(&world, r#"sealpost_relay_provider_reloads_total{app="ios",outcome="refused"}"#, "1")
        .await;
    let other = world.phone().await;
    world.send(&sender, &[&other]).await;
    world.emulator.wait_for_count(2).await;
    assert_eq!(world.emulator.counts().apns.by_status[&200], 2);

    std::fs::write(key_file, key).unwrap();
    world.reload.ask();
    metric_becomes(&world, refused, "0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_is_shown_for_each_app_whose_provider_tells() {
    let world = World::start().await;
    world.emulator.shift_clock(-240_000);
    let (sender, ios, android) = (world.sender().await, world.phone().await, world.new_phone(&world.mary));
    let admission = world.admission(&world.mary, &android);
    android.register(admission, Some("android")).await.expect(http::StatusCode::CREATED);
    world.send(&sender, &[&ios, &android]).await;
    world.emulator.wait_for_count(2).await;
    metric_becomes(&world, r#"sealpost_relay_provider_clock_ahead_seconds{app="android"}"#, "-239").await;
    // The emulated APNs does not say what time it is.
    let shown = String::from_utf8(world.http().get("/metrics").await.body.to_vec()).unwrap();
    assert!(!shown.contains(r#"clock_ahead_seconds{app="ios"}"#), "{shown}");
    let counts = world.emulator.counts();
    assert_eq!((counts.apns.by_status[&200], counts.fcm.by_status[&200]), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_credential_lets_a_paused_app_push_at_once() {
    let world = World::stopped("").await;
    let account_file = &world.emulator.manifest().fcm.service_account_file;
    let good = std::fs::read_to_string(account_file).unwrap();
    let email = serde_json::from_str::<serde_json::Value>(&good).unwrap()["client_email"].clone();
    std::fs::write(account_file, good.replace(email.as_str().unwrap(), "revoked@example.org")).unwrap();
    let mut world = world;
    world.start_relay().await;
    let (sender, phone) = (world.sender().await, world.new_phone(&world.mary));
    let admission = world.admission(&world.mary, &phone);
    phone.register(admission, Some("android")).await.expect(http::StatusCode::CREATED);
    world.send(&sender, &[&phone]).await;
    metric_becomes(&world, r#"sealpost_relay_push_paused{app="android"}"#, "1").await;

    std::fs::write(&world.emulator.manifest().fcm.service_account_file, good).unwrap();
    world.reload.ask();
    tokio::time::timeout(Duration::from_secs(60), world.emulator.wait_for_count(1)).await.unwrap();
    metric_becomes(&world, r#"sealpost_relay_push_paused{app="android"}"#, "0").await;
}
