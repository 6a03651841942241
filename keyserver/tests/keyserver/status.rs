//! The tenant status: who may put it, and what it puts out of use.

use sealpost_wire::api::StatusBody;
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::certificate::Purpose;

use crate::world::{World, certified, recipient};

#[tokio::test]
async fn a_status_only_goes_forward_and_survives_a_restart() {
    let mut world = World::new().await;
    let tenant = &world.tenant;
    world.get(&tenant.sender, "/v1/status").await.expect_problem("not_found");
    let device = sealpost_wire::id::DeviceId([1; 16]);
    let first = tenant.status(1, world.now(), &[], &[]);
    let second = tenant.status(2, world.now(), &[], &[device]);
    assert_eq!(world.put_status(first.clone()).await.status, 200);
    assert_eq!(world.put_status(second.clone()).await.status, 200);
    assert_eq!(world.put_status(second.clone()).await.status, 200, "the same again");
    world.put_status(first.clone()).await.expect_detail("invalid_structure", "rollback");
    let shrunk = tenant.status(2, world.now(), &[], &[]);
    world.put_status(shrunk).await.expect_detail("invalid_structure", "rollback");
    world.restart().await;
    world.put_status(first).await.expect_detail("invalid_structure", "rollback");
    let stored: StatusBody = world.get(&world.tenant.sender, "/v1/status").await.expect(200);
    assert_eq!(stored.status, Base64Url(second));
    let reissued = world.tenant.status(2, world.now(), &[], &[device]);
    assert_eq!(world.put_status(reissued).await.status, 200);
}

#[tokio::test]
async fn only_the_tenants_own_revoker_puts_a_status() {
    let world = World::new().await;
    let tenant = &world.tenant;
    let good = tenant.status(1, world.now(), &[], &[]);
    let body = StatusBody { status: Base64Url(good.clone()) };
    world.put(&tenant.sender, "/v1/status", &body).await.expect_problem("forbidden");
    world.put(&world.other.revoker, "/v1/status", &body).await.expect_problem("invalid_structure");
    let foreign = world.other.status(1, world.now(), &[], &[]);
    world.put_status(foreign).await.expect_detail("invalid_structure", "unknown_root");
    let mut by_enroller = crate::world::Tenant::new("st-mary");
    by_enroller.revoke = certified(&tenant.id, &tenant.root, Purpose::Enrol);
    let status = by_enroller.status(1, world.now(), &[], &[]);
    world.put_status(status).await.expect_detail("invalid_structure", "wrong_purpose");
    let future = tenant.status(1, world.now().plus(1000), &[], &[]);
    world.put_status(future).await.expect_problem("invalid_structure");
    assert_eq!(world.put_status(good).await.status, 200);
    world.get(&world.other.sender, "/v1/status").await.expect_problem("not_found");
}

#[tokio::test]
async fn a_revoked_device_is_out_everywhere() {
    let world = World::new().await;
    let recipient = recipient();
    let (stolen, kept) =
        (world.enrolled_device(recipient, 2).await, world.enrolled_device(recipient, 2).await);
    let waiting = world.pending_device().await;
    world.consent(recipient, true).await;
    let status = world.tenant.status(1, world.now(), &[], &[stolen.id, waiting.id]);
    assert_eq!(world.put_status(status).await.status, 200);

    let found = world.look_up(recipient).await;
    assert_eq!(found.devices.iter().map(|found| found.device).collect::<Vec<_>>(), [kept.id]);
    stolen.send(&world, stolen.state_call(0)).await.expect_problem("revoked");
    let upload = stolen.batch(sealpost_wire::message::Suite::Classical, 1, world.now());
    stolen.put_prekeys(&world, &upload).await.expect_problem("revoked");
    world.admit(recipient, &waiting).await.expect_detail("invalid_structure", "device_revoked");
    waiting.claim(&world.http).await.expect_problem("revoked");
}

#[tokio::test]
async fn statuses_put_at_once_end_with_the_newest() {
    let world = World::new().await;
    let tenant = &world.tenant;
    let statuses: Vec<_> = (1..=8).map(|sequence| tenant.status(sequence, world.now(), &[], &[])).collect();
    let newest = Base64Url(statuses[7].clone());
    world.token(&tenant.revoker).await;
    let puts = statuses.into_iter().map(|status| world.put_status(status));
    for answer in join_all(puts).await {
        assert!(answer.status == 200 || answer.problem().1.as_deref() == Some("rollback"));
    }
    let stored: StatusBody = world.get(&tenant.sender, "/v1/status").await.expect(200);
    assert_eq!(stored.status, newest);
}

async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut waits = false;
        for (future, output) in &mut running {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(done) => *output = Some(done),
                    std::task::Poll::Pending => waits = true,
                }
            }
        }
        if waits { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    running.into_iter().filter_map(|(_, output)| output).collect()
}
