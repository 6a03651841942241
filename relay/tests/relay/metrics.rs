//! `/metrics` tells about the relay, and about nobody.

use std::collections::BTreeSet;

use sealpost_relay::push_token::SealedPushToken;
use sealpost_relay::store::{Device, PushTarget, Registering};
use sealpost_service::audit::{Act, Actor, Entry};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::DeviceId;
use sealpost_wire::key::{RequestKey, SigningKey};

use crate::world::World;

/// The series, without their values.
fn series(text: &str) -> BTreeSet<String> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples.filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series.to_owned()).collect()
}

async fn shown(world: &World) -> String {
    let body = world.http().get("/metrics").await.body;
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_devices_add_no_series() {
    let world = World::start().await;
    let (sender, phone) = (world.sender().await, world.phone().await);
    world.send(&sender, &[&phone]).await;
    world.emulator.wait_for_count(1).await;
    sender.events_until(|event| event.to == sealpost_wire::delivery::DeliveryState::Pushed).await;
    shown(&world).await;
    let before = series(&shown(&world).await);

    let store = world.relay().store().clone();
    let app = store.app(&world.mary.id, "ios").unwrap();
    let key = SigningKey::from_seed(&[1; 32]).verifying_key();
    let mut registering = Vec::new();
    for number in 0..10_000_u32 {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let push = PushTarget {
            app,
            registered_ms: 1,
            refused: false,
            token: SealedPushToken::from_bytes(id.to_vec()),
        };
        let row = Device {
            identity_key: key,
            request_key: RequestKey::Ed25519(key),
            created: UnixTime(1),
            push: Some(push),
        };
        let device = DeviceId(id);
        let one = Registering {
            tenant: world.mary.id.clone(),
            device,
            row,
            same_token: false,
            now_ms: 1,
            audit: Entry::new(1, Act::DeviceRegistered, &Actor::Device(device), &[], "done"),
        };
        let store = store.clone();
        registering.push(tokio::spawn(async move { store.register_device(one).await.unwrap() }));
        if registering.len() == 1000 {
            for one in registering.drain(..) {
                one.await.unwrap();
            }
        }
    }
    world.send(&sender, &[&phone]).await;
    let after = series(&shown(&world).await);
    let new: Vec<_> = after.difference(&before).filter(|name| !name.contains("register_device")).collect();
    assert_eq!(new, Vec::<&String>::new());
    assert!(after.len() < 1000, "{} series", after.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_follow_the_rules_and_values_name_nobody() {
    let world = World::start().await;
    let (sender, phone) = (world.sender().await, world.phone().await);
    let id = world.send(&sender, &[&phone]).await;
    phone.boxes().await;
    let text = shown(&world).await;
    for secret in [id.to_string(), phone.id.to_string(), phone.push_token.clone()] {
        assert!(!text.contains(&secret));
    }
    let mut helped = BTreeSet::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(!help.trim().is_empty(), "{name}");
            helped.insert(name.to_owned());
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(helped.contains(name), "{name} has no help");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} {kind}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        }
    }
    for expected in [
        "sealpost_relay_submissions_total",
        "sealpost_relay_accept_seconds",
        "sealpost_relay_receipts_total",
        "sealpost_relay_delivery_changes_total",
        "sealpost_relay_waiting_deliveries",
        "sealpost_relay_waiting_devices",
        "sealpost_relay_pushes_in_flight",
        "sealpost_relay_push_jobs_ready",
        "sealpost_relay_push_oldest_due_seconds",
        "sealpost_store_queue_commands",
        "sealpost_http_requests_total",
    ] {
        assert!(helped.contains(expected), "{expected}");
    }
}
