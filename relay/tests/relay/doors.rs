//! Who may ask what.

use http::{Method, StatusCode};
use sealpost_wire::certificate::Role;
use sealpost_wire::payload::Priority;

use crate::client::{ApiClient, new_id, submission};
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn each_route_asks_for_its_role() {
    let world = World::start().await;
    let phone = world.phone().await;
    let office = world.client(&world.mary, "office", &[Role::Revoker]).await;
    let enroller = world.client(&world.mary, "portal", &[Role::Enroller]).await;
    let one = submission(&[phone.id], "x", Priority::Normal, world.now().plus(600));
    for client in [&office, &enroller] {
        assert_eq!(client.submit(new_id(), &one).await.problem(), "forbidden");
        let path = format!("/v1/messages/{}", new_id());
        assert_eq!(client.call(Method::GET, &path, None).await.problem(), "forbidden");
        assert_eq!(client.call(Method::GET, "/v1/events", None).await.problem(), "forbidden");
    }
    let sender = world.sender().await;
    let status = world.mary.status(1, world.now(), &[], &[]);
    assert_eq!(sender.put_status(status.clone()).await.problem(), "forbidden");
    assert_eq!(sender.call(Method::GET, "/v1/status", None).await.problem(), "not_found");
    office.put_status(status).await.expect(StatusCode::OK);
    sender.call(Method::GET, "/v1/status", None).await.expect(StatusCode::OK);
    let older = world.mary.status(0, world.now(), &[], &[]);
    assert_eq!(office.put_status(older).await.problem(), "invalid_structure");
    let foreign = world.john.status(9, world.now(), &[], &[]);
    assert_eq!(office.put_status(foreign).await.problem(), "invalid_structure");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_senders_token_is_of_no_use_from_then_on() {
    let world = World::start().await;
    let phone = world.phone().await;
    let key = world.mary.key("lab", &[Role::Sender], world.now());
    let assertion = world.mary.assertion(&key, world.now());
    let sender = ApiClient::with_assertion(world.http(), &assertion).await;
    let one = submission(&[phone.id], "x", Priority::Normal, world.now().plus(600));
    sender.accepted(new_id(), &one).await;
    let office = world.client(&world.mary, "office", &[Role::Revoker]).await;
    office.put_status(world.mary.status(1, world.now(), &[key.id()], &[])).await.expect(StatusCode::OK);
    assert_eq!(sender.submit(new_id(), &one).await.problem(), "revoked");
    let again = world.http().token(&world.mary.assertion(&key, world.now())).await;
    assert_eq!(again.status, StatusCode::UNAUTHORIZED);
    world.sender().await.accepted(new_id(), &one).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assertion_is_used_once_even_over_a_restart_and_by_its_own_tenant() {
    let mut world = World::start().await;
    let key = world.mary.key("lab", &[Role::Sender], world.now());
    let assertion = world.mary.assertion(&key, world.now());
    world.http().token(&assertion).await.expect(StatusCode::OK);
    world.restart().await;
    let answer = world.http().token(&assertion).await.expect(StatusCode::UNAUTHORIZED);
    assert!(std::str::from_utf8(&answer.body).unwrap().contains("invalid_client"));
    let foreign = world.john.assertion(&key, world.now());
    assert_eq!(world.http().token(&foreign).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused_and_unknown_paths_are_problems() {
    let world = World::start().await;
    let http = world.http();
    assert_eq!(http.get("/v1/events").await.problem(), "missing_credentials");
    let forged = http.request(Method::GET, "/v1/events").header("authorization", "Bearer forged");
    assert_eq!(http.send(forged.body(Default::default()).unwrap()).await.problem(), "invalid_credentials");
    assert_eq!(http.get("/v1/nothing").await.problem(), "not_found");
    assert_eq!(http.get("/v1/sync").await.problem(), "method_not_allowed");
    assert_eq!(http.get("/healthz").await.status, StatusCode::OK);
    assert_eq!(http.get("/readyz").await.status, StatusCode::OK);
}
