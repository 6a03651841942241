//! Callers that ask too often.

use http::Method;
use sealpost_service::audit::Act;
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::ticket::TicketSecret;

use crate::client::{Answer, Call};
use crate::world::{World, recipient, rng};

/// Refused for its rate, and told a time within `seconds`.
#[track_caller]
fn assert_refused(answer: &Answer, seconds: u32) {
    answer.expect_problem("rate_limited");
    assert_eq!(answer.status, 429);
    let wait: u32 = answer.headers["retry-after"].to_str().unwrap().parse().expect("whole seconds");
    assert!((1..=seconds).contains(&wait), "{wait}");
}

#[tokio::test]
async fn who_guesses_tickets_is_refused_after_a_few() {
    let world = World::with("[rates]\nstranger = { requests = 3, seconds = 3600 }\n").await;
    let guess = || {
        let path = format!("/v1/tickets/{}/claims", TicketSecret::generate(&mut rng()).ticket_id());
        let body =
            serde_json::json!({ "claim_token": Base64Url(vec![0; 32]), "enrolment": Base64Url(vec![0; 8]) });
        world.http.send(Call::json(Method::POST, &path, &body))
    };
    for _ in 0..3 {
        assert_ne!(guess().await.status, 429);
    }
    assert_refused(&guess().await, 1200);
    assert_refused(&world.ask_for_token("forged").await, 1200);
}

#[tokio::test]
async fn a_sender_that_looks_up_too_often_is_refused_and_takes_no_prekey() {
    // The enroller has as much: what follows costs it four requests.
    let mut world = World::with("[rates]\nclient = { requests = 4, seconds = 3600 }\n").await;
    let recipient = recipient();
    world.enrolled_device(recipient, 8).await;
    world.consent(recipient, true).await;
    for _ in 0..4 {
        world.look_up(recipient).await;
    }
    assert_refused(&world.try_look_up(recipient, true).await, 900);
    let tenant = world.tenant.id.clone();
    world.stop().await;
    let rows = world.read_store().await.audit(&tenant);
    assert_eq!(rows.iter().filter(|(_, row)| row.act == Act::LookedUp).count(), 4);
}
