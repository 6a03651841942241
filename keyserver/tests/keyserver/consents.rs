//! Consents, and what they allow.

use sealpost_wire::api::keyserver::{Consent, ConsentList};

use crate::world::{CATEGORY, World, consent, consent_path, recipient};

#[tokio::test]
async fn a_look_up_needs_consent_for_its_category() {
    let world = World::new().await;
    let recipient = recipient();
    world.enrolled_device(recipient, 3).await;
    world.try_look_up(recipient, true).await.expect_problem("consent_missing");
    let other = consent_path(recipient, "appointments");
    world.put(&world.tenant.enroller, &other, &consent(true, world.now())).await.expect::<Consent>(201);
    world.try_look_up(recipient, true).await.expect_problem("consent_missing");
    world.consent(recipient, true).await;
    assert_eq!(world.look_up(recipient).await.devices.len(), 1);

    // Withdrawn, and a late repetition of the agreement does not bring it back.
    let agreed = consent(true, world.now());
    world.pass(10);
    world.consent(recipient, false).await;
    world.try_look_up(recipient, true).await.expect_problem("consent_missing");
    let path = consent_path(recipient, CATEGORY);
    let late = world.put(&world.tenant.enroller, &path, &agreed).await;
    late.expect_detail("conflict", "superseded");
    world.try_look_up(recipient, true).await.expect_problem("consent_missing");

    let stored: Consent = world.get(&world.tenant.enroller, &path).await.expect(200);
    assert!(!stored.granted);
    let list = format!("/v1/recipients/{recipient}/consent");
    let list: ConsentList = world.get(&world.tenant.enroller, &list).await.expect(200);
    assert_eq!(list.consents.keys().collect::<Vec<_>>(), ["appointments", CATEGORY]);

    // Refused look-ups took nothing.
    world.pass(10);
    world.consent(recipient, true).await;
    assert!(world.look_up(recipient).await.devices[0].one_time.is_some());
    assert!(world.look_up(recipient).await.devices[0].one_time.is_some());
    assert!(world.look_up(recipient).await.devices[0].one_time.is_none());
}

#[tokio::test]
async fn a_tenant_may_be_opt_out() {
    let world = World::with_policy("", "opt-out").await;
    let recipient = recipient();
    world.enrolled_device(recipient, 1).await;
    assert_eq!(world.look_up(recipient).await.devices.len(), 1);
    world.consent(recipient, false).await;
    world.try_look_up(recipient, true).await.expect_problem("consent_missing");
}

#[tokio::test]
async fn consents_are_checked_and_bounded() {
    let world = World::new().await;
    let recipient = recipient();
    let put = async |path: &str, body: &Consent| world.put(&world.tenant.enroller, path, body).await;
    let path = consent_path(recipient, CATEGORY);
    put(&path, &consent(true, world.now().plus(1000))).await.expect_detail("invalid_value", "given_at");
    let long = Consent { method: "x".repeat(65), ..consent(true, world.now()) };
    put(&path, &long).await.expect_detail("invalid_value", "method");
    let bad = consent_path(recipient, "a%20b");
    put(&bad, &consent(true, world.now())).await.expect_detail("invalid_value", "category");
    let unknown = consent_path(recipient, "never-recorded");
    world.get(&world.tenant.enroller, &unknown).await.expect_problem("not_found");

    for number in 0..256 {
        let path = consent_path(recipient, &format!("category-{number}"));
        assert_eq!(put(&path, &consent(true, world.now())).await.status, 201);
    }
    let one_more = put(&path, &consent(true, world.now())).await;
    one_more.expect_detail("invalid_value", "too many categories");
    let known = consent_path(recipient, "category-0");
    assert_eq!(put(&known, &consent(false, world.now())).await.status, 200);
}

#[tokio::test]
async fn consents_are_the_enrollers_and_the_tenants_own() {
    let world = World::new().await;
    let recipient = recipient();
    world.consent(recipient, true).await;
    let path = consent_path(recipient, CATEGORY);
    world.put(&world.tenant.sender, &path, &consent(true, world.now())).await.expect_problem("forbidden");
    world.get(&world.tenant.sender, &path).await.expect_problem("forbidden");
    world.get(&world.other.enroller, &path).await.expect_problem("not_found");
    let list = format!("/v1/recipients/{recipient}/consent");
    let list: ConsentList = world.get(&world.other.enroller, &list).await.expect(200);
    assert!(list.consents.is_empty());
}
