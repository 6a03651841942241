//! Failure 4: queues without a bound.

use sealpost_emulators::{Outcome, Provider};
use sealpost_relay::push_token::PushTokenKey;
use sealpost_relay::store::{Device, PushTarget, Registering};
use sealpost_service::audit::{Act, Actor, Entry};
use sealpost_service::config::SecretKey;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::DeviceId;
use sealpost_wire::key::{RequestKey, SigningKey};
use sealpost_wire::limits::BOXES_PER_MESSAGE_MAX;
use sealpost_wire::payload::Priority;

use crate::client::{new_id, submission};
use crate::world::World;

/// More devices than jobs of one lane wait in memory.
const DEVICES: u32 = 4400;
const IN_FLIGHT_MAX: usize = 10;
/// Jobs that one lane keeps in memory.
const READY_MAX: usize = 4096;

/// Registers so many phones in the store itself.
pub(crate) async fn register(world: &World, count: u32) -> Vec<DeviceId> {
    let store = world.relay().store();
    let app = store.app(&world.mary.id, "ios").unwrap();
    let secret = SecretKey::read(&world.folder.path().join("push.key")).unwrap();
    let sealing = PushTokenKey::new(&secret).unwrap();
    let key = SigningKey::from_seed(&[1; 32]).verifying_key();
    let mut registering = Vec::new();
    let mut devices = Vec::new();
    for number in 0..count {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let device = DeviceId(id);
        let token = sealpost_relay::provider::PushToken::new(format!("{number:064x}")).unwrap();
        let rng = &mut rand_core::UnwrapErr(getrandom::SysRng);
        let token = sealing.seal(&token, &world.mary.id, device, app, rng).unwrap();
        let row = Device {
            identity_key: key,
            request_key: RequestKey::Ed25519(key),
            created: UnixTime(1),
            push: Some(PushTarget { app, registered_ms: 1, refused: false, token }),
        };
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
        devices.push(device);
    }
    for one in registering {
        one.await.unwrap();
    }
    devices
}

// pushy 857, 867: 738 000 pushes piled up in memory while the server did not answer.
#[tokio::test(flavor = "multi_thread")]
async fn queues_do_not_grow_while_a_provider_does_not_answer() {
    let world = World::start_with(&format!("[push]\nnormal_in_flight_max = {IN_FLIGHT_MAX}")).await;
    let devices = register(&world, DEVICES).await;
    let silent = Outcome { no_answer: true, ..Outcome::new(Provider::Apns, 200) };
    world.emulator.set_outcome(silent).unwrap();
    let (sender, until) = (world.sender().await, world.now().plus(86_400));
    let mut submitting = tokio::task::JoinSet::new();
    for some in devices.chunks(BOXES_PER_MESSAGE_MAX) {
        let (sender, submission) = (sender.clone(), submission(some, "x", Priority::Normal, until));
        submitting.spawn(async move { sender.accepted(new_id(), &submission).await });
        if submitting.len() >= 16 {
            submitting.join_next().await;
        }
    }
    submitting.join_all().await;
    world.emulator.wait_for_count(u64::try_from(IN_FLIGHT_MAX).unwrap()).await;

    let app = world.relay().store().app(&world.mary.id, "ios").unwrap();
    let lane = world.relay().store().lane_state(app, Priority::Normal, u64::MAX);
    assert!(lane.ready <= READY_MAX, "{lane:?}");
    assert!(lane.held <= READY_MAX + IN_FLIGHT_MAX, "{lane:?}");
    let text = world.http().get("/metrics").await.body;
    let in_flight =
        format!("sealpost_relay_pushes_in_flight{{app=\"ios\",priority=\"normal\"}} {IN_FLIGHT_MAX}");
    assert!(std::str::from_utf8(&text).unwrap().contains(&in_flight), "no more than that are open");
}
