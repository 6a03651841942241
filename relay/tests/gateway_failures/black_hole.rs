//! Failures 3, 4 and 6 together: one provider accepts everything and answers nothing, for as long as the test runs.

use std::time::Duration;

use sealpost_emulators::{ConnectionFault, Emulator, Outcome as Fault, Provider, Reception};
use sealpost_wire::delivery::DeliveryState;
use sealpost_wire::limits::BOXES_PER_MESSAGE_MAX;
use sealpost_wire::payload::Priority;

use crate::bounds::register;
use crate::client::{Sender, new_id, submission};
use crate::world::World;
use crate::{android, pushed};

const IN_FLIGHT_MAX: usize = 20;
const CONNECTIONS_MAX: usize = 3;
const DEVICES: u32 = 600;

/// A relay that gives a provider half a second, and has a black hole where Apple should be.
async fn world(swallow: impl FnOnce(&Emulator)) -> World {
    let mut world = World::stopped(&format!("[push]\nnormal_in_flight_max = {IN_FLIGHT_MAX}")).await;
    let limits = format!(
        "connections_max = {CONNECTIONS_MAX}\nconnect_timeout_ms = 500\nrequest_timeout_ms = 500\nbackoff_first_ms"
    );
    world.reconfigure("backoff_first_ms", &limits);
    swallow(&world.emulator);
    world.start_relay().await;
    world
}

/// Pushes of every priority to a phone that Google reaches, one after the other.
async fn push_by_the_other(world: &World, sender: &Sender, count: usize) {
    let phone = &android(world).await;
    for priority in Priority::ALL {
        for _ in 0..count {
            let id = world.send_as(sender, &[phone], priority).await;
            pushed(sender, id, phone).await;
            let waiting = phone.boxes().await.remove(0);
            phone.acknowledge(vec![phone.receipt_for(&waiting, crate::client::OPENED)]).await;
        }
    }
}

async fn gauge(world: &World, series: &str) -> usize {
    let body = world.http().get("/metrics").await.body;
    let text = std::str::from_utf8(&body).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series}")).parse().unwrap()
}

/// What the relay has taken for the black hole lies in the store: little of it is in memory, and little was tried.
async fn check_that_it_is_bounded(world: &World) {
    let app = world.relay().store().app(&world.mary.id, "ios").unwrap();
    let lane = world.relay().store().lane_state(app, Priority::Normal, u64::MAX);
    assert!(lane.held <= usize::try_from(DEVICES).unwrap(), "{lane:?}");
    let in_flight = "sealpost_relay_pushes_in_flight{app=\"ios\",priority=\"normal\"}";
    assert!(gauge(world, in_flight).await <= IN_FLIGHT_MAX);
    assert!(gauge(world, "sealpost_relay_provider_connections{app=\"ios\"}").await <= CONNECTIONS_MAX);
    let opened = "sealpost_relay_push_breaker_opened_total{app=\"ios\",priority=\"normal\"}";
    let pauses = gauge(world, opened).await;
    assert!(pauses >= 1, "the lane does not pause");

    let (sender, mut after, mut notes) = (world.sender().await, 0, 0);
    loop {
        let page = sender.events(after, 0).await;
        if page.events.is_empty() {
            break;
        }
        notes += page.events.iter().filter(|event| event.from == Some(event.to)).count();
        after = page.next;
    }
    // What was in flight when the lane paused (a push that ends makes room for another until then), and a probe each.
    assert!((10..=2 * IN_FLIGHT_MAX + pauses).contains(&notes), "{notes} attempts failed, {pauses} pauses");
}

async fn one_provider_swallows_everything(swallow: impl FnOnce(&Emulator)) {
    let world = world(swallow).await;
    let sender = world.sender().await;
    let devices = register(&world, DEVICES).await;
    let until = world.now().plus(86_400);
    let mut held = Vec::new();
    for some in devices.chunks(BOXES_PER_MESSAGE_MAX) {
        let id = new_id();
        sender.accepted(id, &submission(some, "x", Priority::Normal, until)).await;
        held.push(id);
    }
    let opened = "sealpost_relay_push_breaker_opened_total{app=\"ios\",priority=\"normal\"}";
    push_by_the_other(&world, &sender, 5).await;
    while gauge(&world, opened).await == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    push_by_the_other(&world, &sender, 10).await;
    check_that_it_is_bounded(&world).await;
    for id in held {
        let status = sender.message(id).await;
        assert!(status.deliveries.iter().all(|delivery| delivery.state == DeliveryState::Queued));
    }
    assert_eq!(world.emulator.counts().apns.by_status.get(&200), None);

    // Once it answers again, everything gets there.
    world.emulator.clear_outcomes();
    world.emulator.clear_connection_faults();
    world.emulator.cut_connections(Provider::Apns, true);
    let probed = world.now();
    while world.emulator.counts().apns.by_status.get(&200).is_none_or(|count| *count < u64::from(DEVICES)) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.pass(Duration::from_secs(1));
        assert!(world.now().0 - probed.0 < 900, "pushes are missing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_never_shakes_hands_holds_up_nothing_of_the_other() {
    one_provider_swallows_everything(|emulator| {
        let (provider, reception) = (Provider::Apns, Reception::NoHandshake);
        emulator.set_connection_fault(ConnectionFault { provider, reception, count: None }).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_says_nothing_after_the_handshake_holds_up_nothing_of_the_other() {
    one_provider_swallows_everything(|emulator| {
        let (provider, reception) = (Provider::Apns, Reception::NoSettings);
        emulator.set_connection_fault(ConnectionFault { provider, reception, count: None }).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_takes_requests_and_answers_none_holds_up_nothing_of_the_other() {
    one_provider_swallows_everything(|emulator| {
        let silent = Fault { no_answer: true, ..Fault::new(Provider::Apns, 200) };
        emulator.set_outcome(silent).unwrap();
    })
    .await;
}
