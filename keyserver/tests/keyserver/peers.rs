//! Peers: where members of a device's groups can be reached.

use http::Method;
use sealpost_service::audit::Act;
use sealpost_wire::api::keyserver::{PeerLookUp, PeersFound};
use sealpost_wire::id::DeviceId;
use sealpost_wire::prekey::{PrekeyKind, VerifiedPrekey};
use sealpost_wire::record::DeviceRecord;

use crate::client::{Answer, Call};
use crate::device::TestDevice;
use crate::world::{World, recipient, rng};

async fn ask(world: &World, device: &TestDevice, peers: &[DeviceId]) -> Answer {
    let body = PeerLookUp { devices: peers.to_vec() };
    let path = format!("/v1/devices/{}/peers", device.id);
    device.send(world, Call::json(Method::POST, &path, &body)).await
}

#[tokio::test]
async fn a_device_gets_signed_prekeys_of_the_others_and_nothing_of_those_it_may_not_reach() {
    let mut world = World::new().await;
    let (asking, peer) =
        (world.enrolled_device(recipient(), 0).await, world.enrolled_device(recipient(), 3).await);
    let gone = recipient();
    let removed = world.enrolled_device(gone, 1).await;
    let mut draft = world.draft(gone).await;
    draft.records.clear();
    let set = world.sign(draft);
    assert_eq!(world.put_set(gone, set, Vec::new()).await.status, 200);
    let revoked = world.enrolled_device(recipient(), 1).await;
    world
        .put_status(world.tenant.status(1, world.now(), &[], &[revoked.id]))
        .await
        .expect::<serde_json::Value>(200);
    let pending = world.pending_device().await;
    pending.upload(&world, 1).await;
    let unknown = DeviceId::random(&mut rng());

    let asked = [unknown, peer.id, removed.id, revoked.id, pending.id, asking.id];
    let found: PeersFound = ask(&world, &asking, &asked).await.expect(200);
    assert_eq!(found.peers.iter().map(|peer| peer.device).collect::<Vec<_>>(), [peer.id, asking.id]);
    assert_eq!((found.time, found.status.is_some()), (world.now(), true));
    let record = DeviceRecord::verify(&peer.record).unwrap();
    let [prekey] = &found.peers[0].prekeys[..] else { panic!("{found:?}") };
    let verified = VerifiedPrekey::verify(&prekey.signed, &record, found.time).unwrap();
    assert_eq!((verified.leaf().suite, verified.leaf().kind), (prekey.suite, PrekeyKind::Signed));
    assert_eq!(peer.state(&world).await.prekeys[0].one_time, 3, "no one-time prekey was taken");

    // A peer whose signed prekeys have ended is known, and cannot be sealed to.
    world.pass(61 * 86_400);
    let found: PeersFound = ask(&world, &asking, &[peer.id]).await.expect(200);
    assert!(found.peers[0].prekeys.is_empty());
    let nobody: PeersFound = ask(&world, &asking, &[]).await.expect(200);
    assert!(nobody.peers.is_empty());

    let tenant = world.tenant.id.clone();
    world.stop().await;
    let rows = world.read_store().await.audit(&tenant);
    let (_, row) = rows.iter().find(|(_, row)| row.act == Act::PeersLookedUp).unwrap();
    assert_eq!(row.who, format!("device:{}", asking.id));
    assert_eq!(row.objects["devices"], asked.map(|id| id.to_string()).join(" "));
}

#[tokio::test]
async fn a_look_up_of_peers_is_bounded_and_only_for_devices_in_a_set() {
    let world = World::new().await;
    let device = world.enrolled_device(recipient(), 0).await;
    let many: Vec<_> = (0..65).map(|_| DeviceId::random(&mut rng())).collect();
    ask(&world, &device, &many).await.expect_detail("invalid_value", "devices");
    assert_eq!(ask(&world, &device, &many[..64]).await.status, 200);
    ask(&world, &device, &[many[0], many[1], many[0]]).await.expect_detail("invalid_value", "devices");
    let pending = world.pending_device().await;
    ask(&world, &pending, &many[..1]).await.expect_detail("forbidden", "not_admitted");
    // In another device's name.
    let path = format!("/v1/devices/{}/peers", device.id);
    let other = world.enrolled_device(recipient(), 0).await;
    let call = Call::json(Method::POST, &path, &PeerLookUp { devices: Vec::new() });
    other.send(&world, call).await.expect_problem("not_found");
}
