//! Failure 7: refusals that were taken for dead tokens.

use std::time::Duration;

use sealpost_emulators::{Outcome as Fault, Provider};
use sealpost_wire::api::relay::Event;
use sealpost_wire::delivery::DeliveryState;

use crate::world::World;
use crate::{android, pushed};

// notifiers src/server.rs; hapi 803; capgo 2209: any 4xx of FCM deleted the token of a live device.
#[tokio::test(flavor = "multi_thread")]
async fn no_refusal_of_fcm_but_unregistered_deletes_a_token() {
    let world = World::start_with("[push]\nnormal_retry_seconds_max = 1").await;
    let refusals = [
        (400, "INVALID_ARGUMENT"),
        (403, "SENDER_ID_MISMATCH"),
        (404, "NOT_FOUND"),
        (429, "QUOTA_EXCEEDED"),
        (418, "SOMETHING_NEW"),
    ];
    for (status, code) in refusals {
        let (sender, phone) = (world.sender().await, android(&world).await);
        let reason = Some(code.to_owned());
        world.emulator.set_outcome(Fault { reason, ..Fault::new(Provider::Fcm, status) }).unwrap();
        let id = world.send(&sender, &[&phone]).await;
        // The refusal is settled: the next attempt has a time.
        sender.events_until(|event| event.message == id && event.from == Some(event.to)).await;
        assert_eq!(sender.message(id).await.deliveries[0].state, DeliveryState::Queued);
        world.emulator.clear_outcomes();
        world.pass(Duration::from_secs(120));
        pushed(&world.sender().await, id, &phone).await;
    }

    let gone = android(&world).await;
    world.clock.advance(Duration::from_secs(1));
    world.emulator.kill_token(Provider::Fcm, &gone.push_token, None).unwrap();
    let sender = world.sender().await;
    let id = world.send(&sender, &[&gone]).await;
    let is_dead = |event: &Event| event.message == id && event.reason.as_deref() == Some("push_token_dead");
    sender.events_until(is_dead).await;
}
