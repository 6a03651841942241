//! What senders, auditors and operators see of pushes that fail.

use std::time::{Duration, Instant};

use http::StatusCode;
use sealpost_emulators::{Outcome, Provider, RetryAfter};
use sealpost_relay::store::Store;
use sealpost_service::audit::{self, Act, AuditRow};
use sealpost_wire::api::relay::Event;
use sealpost_wire::delivery::{DeliveryState, PushFailure};
use sealpost_wire::payload::Priority;

use crate::client::{Phone, Sender};
use crate::world::World;

const NORMAL: Priority = Priority::Normal;

/// Waits for the time of the next attempt, and lets it pass.
async fn pass_the_backoff(world: &World) {
    while world.relay().store().next_due(&world.lane(NORMAL)).is_none_or(|due| due == 0) {
        tokio::task::yield_now().await;
    }
    world.pass(Duration::from_secs(5000));
}

/// Reads events as they come until there are `count` notes of failed attempts.
async fn notes(sender: &Sender, count: usize) -> Vec<Event> {
    let (mut notes, mut after) = (Vec::new(), 0);
    while notes.len() < count {
        let page = sender.events(after, 10).await;
        assert!(!page.events.is_empty(), "no further event came; so far {notes:#?}");
        after = page.next;
        notes.extend(page.events.into_iter().filter(|event| event.from == Some(event.to)));
    }
    notes
}

/// The rows of the audit about stubs.
fn audited(world: &World) -> Vec<AuditRow> {
    let (store, keyspace) = (world.relay().store(), Store::shared_keyspaces().audit);
    let rows = audit::rows(store.engine(), keyspace, &world.mary.id, 0, 10_000).unwrap();
    rows.into_iter().map(|(_, row)| row).filter(|row| row.act == Act::Pushed).collect()
}

async fn metric(world: &World, series: &str) -> Option<String> {
    let body = world.http().get("/metrics").await.body;
    let text = std::str::from_utf8(&body).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failed_attempt_is_in_the_events_and_in_the_audit() {
    let world = World::start().await;
    let (sender, phone) = (world.sender().await, world.phone().await);
    let apns = |status| Outcome::new(Provider::Apns, status);
    let failures = [
        (apns(503), PushFailure::ProviderError),
        (apns(429), PushFailure::Throttled),
        (Outcome { reset_stream: Some(2), ..apns(200) }, PushFailure::NoConnection),
        (Outcome { reason: Some("BadTopic".into()), ..apns(400) }, PushFailure::Rejected),
    ];
    world.emulator.set_outcome(failures[0].0.clone()).unwrap();
    let id = world.send(&sender, &[&phone]).await;
    let mut expected = Vec::new();
    for (fault, failure) in failures {
        if !expected.is_empty() {
            world.emulator.clear_outcomes();
            world.emulator.set_outcome(fault).unwrap();
            pass_the_backoff(&world).await;
        }
        expected.push(failure.code());
        let notes = notes(&world.sender().await, expected.len()).await;
        let told: Vec<_> = notes.iter().map(|event| event.reason.as_deref().unwrap()).collect();
        assert_eq!(told, expected);
        for event in &notes {
            assert_eq!((event.message, event.device, event.to), (id, phone.id, DeliveryState::Queued));
            assert_eq!((event.late, &event.receipt), (false, &None));
        }
    }
    world.emulator.clear_outcomes();
    pass_the_backoff(&world).await;
    world.sender().await.events_until(|event| event.to == DeliveryState::Pushed).await;

    let rows = audited(&world);
    let outcomes: Vec<_> = rows.iter().map(|row| row.outcome.as_str()).collect();
    expected.push("done");
    assert_eq!(outcomes, expected);
    for row in &rows {
        assert_eq!((row.who.as_str(), row.objects["app"].as_str()), ("server", "ios"));
        assert_eq!(row.objects["devices"], phone.id.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_fails_is_noted_once_for_each_attempt_and_not_for_what_waits() {
    let world = World::start().await;
    let (sender, phones) = (world.sender().await, [world.phone().await, world.phone().await]);
    let reason = Some("InvalidProviderToken".to_owned());
    world.emulator.set_outcome(Outcome { reason, ..Outcome::new(Provider::Apns, 403) }).unwrap();
    let first = world.send(&sender, &[&phones[0]]).await;
    let notes = notes(&sender, 1).await;
    assert_eq!((notes[0].message, notes[0].reason.as_deref()), (first, Some("push_credential")));
    // The lanes pause for minutes: nothing else is attempted.
    let second = world.send(&sender, &[&phones[1]]).await;
    sender.events_until(|event| event.message == second).await;
    assert_eq!(world.emulator.counts().apns.total, 1);
    let page = sender.events(0, 0).await;
    assert_eq!(page.events.iter().filter(|event| event.from == Some(event.to)).count(), 1);
    assert_eq!(audited(&world).len(), 1);
}

/// A provider that fails opens the breaker of the lane after this many pushes in a row.
const FAILURES_MAX: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_fails_pauses_its_lane_and_spends_no_attempts_until_it_answers() {
    let world = World::start().await;
    let sender = world.sender().await;
    let state = |state: &str| {
        format!("sealpost_relay_push_breaker{{app=\"ios\",priority=\"normal\",state=\"{state}\"}}")
    };
    let opened = "sealpost_relay_push_breaker_opened_total{app=\"ios\",priority=\"normal\"}";
    assert_eq!(metric(&world, &state("closed")).await.as_deref(), Some("1"));
    let android = world.new_phone(&world.mary);
    let admission = world.admission(&world.mary, &android);
    android.register(admission, Some("android")).await.expect(StatusCode::CREATED);

    let retry_after = Some(RetryAfter::Seconds(1));
    world.emulator.set_outcome(Outcome { retry_after, ..Outcome::new(Provider::Apns, 503) }).unwrap();
    let mut phones = Vec::new();
    for _ in 0..FAILURES_MAX {
        phones.push(world.phone().await);
    }
    let late = [world.phone().await, world.phone().await, world.phone().await];
    let began = Instant::now();
    let first = world.send(&sender, &phones.iter().collect::<Vec<&Phone>>()).await;
    notes(&sender, FAILURES_MAX).await;
    assert_eq!(metric(&world, opened).await.as_deref(), Some("1"));

    // What comes now waits in the store, while other apps go their ways.
    let second = world.send(&sender, &late.iter().collect::<Vec<&Phone>>()).await;
    let other = world.send(&sender, &[&android]).await;
    sender.events_until(|event| event.message == other && event.to == DeliveryState::Pushed).await;
    // After the time that the provider named one push asks how it is.
    assert_eq!(notes(&sender, FAILURES_MAX + 1).await.len(), FAILURES_MAX + 1);
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(metric(&world, opened).await.as_deref(), Some("2"));
    assert_eq!(metric(&world, &state("closed")).await.as_deref(), Some("0"));
    assert_eq!(world.emulator.counts().apns.total, u64::try_from(FAILURES_MAX + 1).unwrap());

    world.emulator.clear_outcomes();
    sender.events_until(|event| event.message == second && event.to == DeliveryState::Pushed).await;
    assert!(began.elapsed() >= Duration::from_secs(3), "the second pause is longer: {:?}", began.elapsed());
    while metric(&world, &state("closed")).await.as_deref() != Some("1") {
        tokio::task::yield_now().await;
    }
    world.pass(Duration::from_secs(60));
    let sender = world.sender().await;
    for (id, phones) in [(first, phones.as_slice()), (second, &late)] {
        for phone in phones {
            let is_pushed = |event: &Event| {
                (event.message, event.device, event.to) == (id, phone.id, DeliveryState::Pushed)
            };
            sender.events_until(is_pushed).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_tokens_and_of_requests_do_not_pause_a_lane() {
    let world = World::start().await;
    let sender = world.sender().await;
    let opened = "sealpost_relay_push_breaker_opened_total{app=\"ios\",priority=\"normal\"}";
    let refusals = [(400, "BadTopic"), (400, "BadDeviceToken"), (429, "TooManyRequests")];
    for (round, (status, reason)) in refusals.into_iter().enumerate() {
        let fault = Outcome { reason: Some(reason.to_owned()), ..Outcome::new(Provider::Apns, status) };
        world.emulator.set_outcome(fault).unwrap();
        let mut phones = Vec::new();
        for _ in 0..FAILURES_MAX + 2 {
            phones.push(world.phone().await);
        }
        world.send(&sender, &phones.iter().collect::<Vec<&Phone>>()).await;
        notes(&sender, (round + 1) * phones.len()).await;
        world.emulator.clear_outcomes();
    }
    assert_eq!(metric(&world, opened).await.as_deref(), Some("0"));
}
