//! Failures 5 and 6: provider tokens that change too often, and a credential that stops the other provider.

use std::sync::Arc;

use sealpost_emulators::{Outcome as Fault, Provider, TokenUpdateScope};
use sealpost_relay::provider::{ApnsClient, ApnsTokens, Outcome};
use sealpost_wire::delivery::DeliveryState;
use sealpost_wire::payload::Priority;
use serde_json::json;

use crate::peer::{Peer, answer};
use crate::setup::{START, TestClock, apns, emulated, push, system_now, token};
use crate::world::World;
use crate::{android, pushed};

// 5. PyAPNs2 76, 85; apns2 44; pushy 811; node-apn 590: a token for each topic, each pod or each timer tick ends in
// 429 TooManyProviderTokenUpdates.

#[tokio::test]
async fn a_token_is_not_signed_per_topic_per_pod_or_per_restart() {
    let emulated = emulated(|options| options.token_update_scope = TokenUpdateScope::Team).await;
    // A pool of nodes, each restarted: every one has its own signer.
    for n in 0..6 {
        let client = emulated.apns(&json!({}));
        assert!(matches!(client.push(&token(n), push(1)).await, Outcome::Accepted { .. }));
    }
    let tokens = ApnsTokens::default();
    for (n, topic) in emulated.emulator.manifest().apns.topics.clone().into_iter().enumerate() {
        let mut config = emulated.apns_config(&json!({}));
        config.topic = topic;
        let client = ApnsClient::with_tokens(config, &tokens, TestClock::at(system_now())).unwrap();
        assert!(matches!(client.push(&token(n), push(1)).await, Outcome::Accepted { .. }));
    }
}

#[tokio::test]
async fn a_token_changes_by_its_time_of_issue_and_not_by_a_timer() {
    let peer = Peer::start(|_| answer(200, "")).await;
    let apns = apns(&peer.url, &json!({}));
    let mut changes = Vec::new();
    let mut last = String::new();
    for minute in 0..180 {
        apns.clock.set(START + minute * 60);
        apns.client.push(&token(1), push(1)).await;
        let present = peer.received().last().unwrap().header("authorization").to_owned();
        if present != last {
            changes.push(minute);
            last = present;
        }
    }
    assert!(changes.windows(2).all(|pair| (20..60).contains(&(pair[1] - pair[0]))), "{changes:?}");
    assert!(changes.len() > 2);
}

#[tokio::test]
async fn a_clock_that_is_off_stays_within_apns_window() {
    // How far our clock is ahead of APNs', whether its answers are dated, and how often it may find a token expired.
    for (ahead_s, is_dated, refusals_max) in
        [(-280, false, 0), (280, false, 0), (-1500, true, 1), (1500, true, 1)]
    {
        let emulated = emulated(|options| options.token_update_scope = TokenUpdateScope::Team).await;
        emulated.emulator.send_date(Provider::Apns, is_dated);
        let clock = TestClock::at(0);
        let client = ApnsClient::new(emulated.apns_config(&json!({})), clock.clone()).unwrap();
        let theirs = system_now();
        for minute in (0..240).step_by(4) {
            let (passed_s, passed_ms) = (minute * 60, i64::try_from(minute).unwrap() * 60_000);
            emulated.emulator.shift_clock(passed_ms);
            clock.set((theirs + passed_s).checked_add_signed(ahead_s).unwrap());
            let outcome = client.push(&token(1), push(1)).await;
            assert!(matches!(outcome, Outcome::Accepted { .. }), "{ahead_s} s, minute {minute}: {outcome:?}");
        }
        let counts = emulated.emulator.counts().apns;
        let refusals: u64 = counts.by_reason.values().sum();
        assert!(refusals <= refusals_max, "{ahead_s} s: {:?}", counts.by_reason);
        let told = client.clock_ahead_s().map(|theirs_ahead_s| theirs_ahead_s.abs_diff(-ahead_s) <= 30);
        assert_eq!(told, is_dated.then_some(true), "{:?}", client.clock_ahead_s());
    }
}

// 6. sygnal 104, 116, 117: an expired certificate or key of one provider stalled the queue of the other.

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_key_of_one_provider_does_not_stall_the_other() {
    let refusals =
        [(Provider::Apns, 403, "InvalidProviderToken"), (Provider::Fcm, 401, "THIRD_PARTY_AUTH_ERROR")];
    for (provider, status, reason) in refusals {
        let world = World::start().await;
        let (sender, apple, google) = (world.sender().await, world.phone().await, android(&world).await);
        let (stopped, fine) = if provider == Provider::Apns { (&apple, &google) } else { (&google, &apple) };
        let fault = Fault { reason: Some(reason.to_owned()), ..Fault::new(provider, status) };
        world.emulator.set_outcome(fault).unwrap();
        let waits = world.send_as(&sender, &[stopped], Priority::Critical).await;
        world.emulator.next_push(&stopped.push_token, 0).await;
        for priority in Priority::ALL {
            let id = world.send_as(&sender, &[fine], priority).await;
            pushed(&sender, id, fine).await;
        }
        assert_eq!(sender.message(waits).await.deliveries[0].state, DeliveryState::Queued);
    }
}

#[tokio::test]
async fn a_key_that_apple_does_not_know_stops_its_own_client_alone() {
    let emulated = emulated(|_| ()).await;
    let good = Arc::new(emulated.apns(&json!({})));
    let mut config = emulated.apns_config(&json!({}));
    config.key_id = Some("OTHERKEY01".into());
    let bad = ApnsClient::new(config, TestClock::at(system_now())).unwrap();
    assert!(matches!(bad.push(&token(1), push(1)).await, Outcome::Credential { .. }));
    assert!(matches!(good.push(&token(1), push(1)).await, Outcome::Accepted { .. }));
}
