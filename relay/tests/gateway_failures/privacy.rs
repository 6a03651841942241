//! Failures 9 and 11: tokens in logs, and stubs that tell which messages belong together.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::sync::Arc;

use http::StatusCode;
use sealpost_emulators::{Outcome as Fault, Provider};
use sealpost_service::clock::SystemClock;
use sealpost_wire::certificate::Role;
use sealpost_wire::clock::Clock as _;
use sealpost_wire::payload::Priority;
use serde_json::Value;

use crate::client::{ApiClient, Http, Phone, new_id, submission};
use crate::world::World;
use crate::{android, pushed};

// 9. notifiers; autopush src/routers/apns/router.rs: device tokens and payloads were logged.
#[tokio::test(flavor = "multi_thread")]
async fn no_token_and_no_payload_is_logged_at_any_level() {
    let world = World::stopped("").await;
    let mut child = Command::new(env!("CARGO_BIN_EXE_sealpost-relay"))
        .arg("--config")
        .arg(world.config())
        .env("SEALPOST_LOG", "trace")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let reading = std::thread::spawn(move || {
        let mut log = Vec::new();
        stderr.read_to_end(&mut log).unwrap();
        log
    });
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let line: Value = serde_json::from_str(&line).unwrap();
    let http = Http::new(&format!("http://{}", line["listening"].as_str().unwrap()));

    let now = SystemClock.now();
    let key = world.mary.key("lab", &[Role::Sender], now);
    let assertion = world.mary.assertion(&key, now);
    let sender = ApiClient::with_assertion(http.clone(), &assertion).await;
    let mut secrets = vec![assertion, "a secret text".to_owned()];
    let refusals = [
        ("ios", Provider::Apns, 400, "BadTopic"),
        ("ios", Provider::Apns, 410, "Unregistered"),
        ("android", Provider::Fcm, 400, "INVALID_ARGUMENT"),
        ("android", Provider::Fcm, 404, "UNREGISTERED"),
    ];
    for (number, (app, provider, status, reason)) in (0x51..).zip(refusals) {
        // Not within the second in which the relay started.
        let mut phone = Phone::new(number, &world.mary.id, &http, Arc::new(|| SystemClock.now().plus(1)));
        phone.authority = "relay.example".to_owned();
        let admission = world.admission(&world.mary, &phone);
        phone.register(admission, Some(app)).await.expect(StatusCode::CREATED);
        secrets.push(phone.push_token.clone());
        for fails in [false, true] {
            if fails {
                let fault = Fault { reason: Some(reason.to_owned()), ..Fault::new(provider, status) };
                world.emulator.set_outcome(fault).unwrap();
            }
            let before = world.emulator.counts().apns.total + world.emulator.counts().fcm.total;
            let one = submission(&[phone.id], "a secret text", Priority::Normal, now.plus(600));
            sender.accepted(new_id(), &one).await;
            world.emulator.wait_for_count(before + 1).await;
        }
        world.emulator.clear_outcomes();
    }
    for push in world.emulator.pushes(0) {
        let authorization = push.headers.iter().find(|(name, _)| *name == "authorization");
        secrets.extend(authorization.and_then(|(_, value)| value.split(' ').nth(1)).map(str::to_owned));
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(child.wait().unwrap().success());
    let log = reading.join().unwrap();
    let log = String::from_utf8_lossy(&log);
    assert!(log.contains("TRACE") && log.contains("a push failed"), "the log says what happens");
    for secret in secrets {
        assert!(!log.contains(&secret), "{}", log.lines().find(|line| line.contains(&secret)).unwrap());
    }
}

// 11. A collapse id or a thread id per conversation lets Apple and Google link its messages.
#[tokio::test(flavor = "multi_thread")]
async fn no_collapse_id_and_no_thread_id_links_two_messages() {
    let world = World::start().await;
    let (sender, apple, google) = (world.sender().await, world.phone().await, android(&world).await);
    for phone in [&apple, &google] {
        for _ in 0..3 {
            let id = world.send(&sender, &[phone]).await;
            pushed(&sender, id, phone).await;
            let waiting = phone.boxes().await.remove(0);
            phone.acknowledge(vec![phone.receipt_for(&waiting, crate::client::OPENED)]).await;
        }
    }
    let pushes = world.emulator.pushes(0);
    for provider in [Provider::Apns, Provider::Fcm] {
        let pushes: Vec<_> = pushes.iter().filter(|push| push.provider == provider).collect();
        assert_eq!(pushes.len(), 3);
        assert_eq!(pushes.iter().map(|push| &push.body).collect::<HashSet<_>>().len(), 1, "the same bytes");
        let body: Value = serde_json::from_slice(&pushes[0].body).unwrap();
        let text = body.to_string();
        for linking in ["collapse", "thread-id", "tag", "analytics_label", "target-content-id"] {
            assert!(!text.contains(linking), "{text}");
        }
        let headers = pushes.iter().flat_map(|push| push.headers.iter());
        assert!(!headers.clone().any(|(name, _)| name.contains("collapse")));
        // All that differs is the id of each push, which is random.
        let changing: HashSet<_> = headers.filter(|(name, _)| *name == "apns-id").collect();
        assert_eq!(changing.len(), if provider == Provider::Apns { 3 } else { 0 });
    }
}
