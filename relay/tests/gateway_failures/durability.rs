//! Failures 8 and 10: retries that were taken for duplicates, and answers that waited for Apple or Google.

use std::time::Duration;

use sealpost_emulators::{Outcome as Fault, Provider};
use sealpost_wire::delivery::DeliveryState;
use sealpost_wire::payload::Priority;

use crate::client::{new_id, submission};
use crate::world::World;
use crate::{android, pushed};

// 8. WalletConnect push-server src/handlers/push_message.rs: the row that finds duplicates was written before the
// send, so that the retry of a send that had failed was swallowed.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_after_a_failed_send_is_not_swallowed_as_a_duplicate() {
    let world = World::start().await;
    let (sender, phone) = (world.sender().await, world.phone().await);
    world.emulator.set_outcome(Fault { count: Some(1), ..Fault::new(Provider::Apns, 503) }).unwrap();
    let (id, until) = (new_id(), world.now().plus(86_400));
    let same = submission(&[phone.id], "once", Priority::Normal, until);
    sender.accepted(id, &same).await;
    world.emulator.wait_for_count(1).await;
    // The sender did not hear the answer, and submits again: the same message, which is pushed all the same.
    sender.accepted(id, &same).await;
    sender.events_until(|event| event.reason.as_deref() == Some("push_provider_error")).await;
    world.pass(Duration::from_secs(60));
    world.emulator.wait_for_count(2).await;
    pushed(&world.sender().await, id, &phone).await;
    assert_eq!(phone.boxes().await.len(), 1);
}

// 10. autopush, sygnal, air: the request path called Apple or Google before the message was durable.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_durable_before_apple_or_google_is_called() {
    let mut world = World::stopped("").await;
    world.reconfigure("backoff_first_ms", "request_timeout_ms = 500\nbackoff_first_ms");
    world.reconfigure("[store]", "[apps.connection]\nrequest_timeout_ms = 500\n[store]");
    world.start_relay().await;
    let (sender, phones) = (world.sender().await, [world.phone().await, android(&world).await]);
    for provider in [Provider::Apns, Provider::Fcm] {
        let silent = Fault { no_answer: true, ..Fault::new(provider, 200) };
        world.emulator.set_outcome(silent).unwrap();
    }
    let mut accepted = Vec::new();
    for phone in &phones {
        // Answered, although the provider answers nothing.
        let id = world.send(&sender, &[phone]).await;
        assert_eq!(sender.message(id).await.deliveries[0].state, DeliveryState::Queued);
        accepted.push(id);
    }
    world.emulator.wait_for_count(2).await;
    world.emulator.clear_outcomes();
    world.restart().await;
    world.pass(Duration::from_secs(60));
    let sender = world.sender().await;
    for (mut phone, id) in phones.into_iter().zip(accepted) {
        phone.http = world.http();
        assert_eq!(phone.boxes().await[0].id, id);
        pushed(&sender, id, &phone).await;
    }
}
