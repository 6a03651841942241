//! What broke other gateways and must not break this one: eleven failures from their issue trackers, each as a
//! test named after it, over sockets.

mod black_hole;
mod bounds;
mod connections;
mod credentials;
mod durability;
mod privacy;
mod tokens;

#[path = "../relay/client.rs"]
#[allow(dead_code, reason = "shared with the tests of the relay's doors")]
mod client;
#[path = "../provider_clients/frames.rs"]
#[allow(dead_code, reason = "shared with the tests of the provider clients")]
mod frames;
#[path = "../provider_clients/peer.rs"]
#[allow(dead_code, reason = "shared with the tests of the provider clients")]
mod peer;
#[path = "../provider_clients/setup.rs"]
#[allow(dead_code, reason = "shared with the tests of the provider clients")]
mod setup;
#[path = "../relay/world.rs"]
#[allow(dead_code, reason = "shared with the tests of the relay's doors")]
mod world;

use http::StatusCode;
use sealpost_wire::api::relay::Event;
use sealpost_wire::delivery::DeliveryState;
use sealpost_wire::id::TransportId;

use self::client::{Phone, Sender};
use self::world::World;

/// Waits until the device's delivery of a message has been pushed.
async fn pushed(sender: &Sender, id: TransportId, phone: &Phone) {
    let is_pushed =
        |event: &Event| (event.message, event.device, event.to) == (id, phone.id, DeliveryState::Pushed);
    sender.events_until(is_pushed).await;
}

/// A phone of St Mary's that is reached through FCM.
async fn android(world: &World) -> Phone {
    let phone = world.new_phone(&world.mary);
    let admission = world.admission(&world.mary, &phone);
    phone.register(admission, Some("android")).await.expect(StatusCode::CREATED);
    phone
}
