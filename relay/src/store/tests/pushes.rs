//! Push jobs: leased, settled, pushed again.

use super::*;
use DeliveryState::{Pushed, Queued};

const PUSHED: PushResult = PushResult::Pushed;

#[tokio::test(flavor = "multi_thread")]
async fn several_messages_are_one_stub_and_it_is_pushed_again_until_they_are_opened() {
    let mut world = World::new();
    world.register(1).await;
    world.accept(1, &[1], Priority::Normal).await;
    world.accept(2, &[1], Priority::Normal).await;
    let leases = world.lease(Priority::Normal);
    assert_eq!(leases.len(), 1);
    assert_eq!((leases[0].through, leases[0].token.as_bytes()), (2, b"token".as_slice()));
    assert_eq!(world.lease(Priority::Normal).len(), 0, "leased once");
    world.settle(Priority::Normal, &leases[0], PUSHED).await;
    assert_eq!((world.state(1, 1), world.state(2, 1)), (Pushed, Pushed));

    let due = world.store.next_due(&world.lane(Priority::Normal)).unwrap();
    assert_eq!(due, START_MS + 900_000);
    world.now_ms = due;
    let again = world.lease(Priority::Normal);
    assert_eq!(again.len(), 1);
    world.settle(Priority::Normal, &again[0], PUSHED).await;
    assert_eq!(world.told(), [Queued, Queued, Pushed, Pushed], "the second stub changes no state");

    world.say(1, 1, OPENED).await;
    world.now_ms += 6 * HOUR_MS;
    assert_eq!(world.lease(Priority::Normal).len(), 1, "one is left");
    world.say(2, 1, OPENED).await;
    world.now_ms += 6 * HOUR_MS;
    assert_eq!(world.lease(Priority::Normal).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_during_a_push_gets_a_stub_of_its_own() {
    let world = World::new();
    world.register(1).await;
    world.accept(1, &[1], Priority::Normal).await;
    let lease = world.lease(Priority::Normal).remove(0);
    world.accept(2, &[1], Priority::Normal).await;
    assert_eq!(world.lease(Priority::Normal).len(), 0, "the device's push is in flight");
    world.settle(Priority::Normal, &lease, PUSHED).await;
    assert_eq!((world.state(1, 1), world.state(2, 1)), (Pushed, Queued));
    let second = world.lease(Priority::Normal).remove(0);
    assert_eq!(second.through, 2);
    world.settle(Priority::Normal, &second, PUSHED).await;
    assert_eq!(world.state(2, 1), Pushed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_critical_message_moves_the_device_to_its_lane() {
    let world = World::new();
    world.register(1).await;
    world.accept(1, &[1], Priority::Bulk).await;
    world.accept(2, &[1], Priority::Critical).await;
    assert_eq!(world.lease(Priority::Bulk).len(), 0);
    let lease = world.lease(Priority::Critical).remove(0);
    world.settle(Priority::Critical, &lease, PUSHED).await;
    assert_eq!((world.state(1, 1), world.state(2, 1)), (Pushed, Pushed), "one stub for both");
    world.say(2, 1, OPENED).await;
    assert_eq!(world.store.next_due(&world.lane(Priority::Bulk)), Some(START_MS + 30_000), "bulk is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_failed_is_tried_again_when_it_was_said_with_the_same_id() {
    let mut world = World::new();
    world.register(1).await;
    world.accept(1, &[1], Priority::Normal).await;
    let lease = world.lease(Priority::Normal).remove(0);
    assert_eq!((lease.failures, lease.push_id), (0, None));
    let retry =
        PushResult::Retry { due_ms: START_MS + 5_000, push_id: [7; 16], why: PushFailure::ProviderError };
    world.settle(Priority::Normal, &lease, retry).await;
    assert_eq!(world.state(1, 1), Queued);
    world.now_ms += 4_999;
    assert_eq!(world.lease(Priority::Normal).len(), 0);
    world.now_ms += 1;
    let lease = world.lease(Priority::Normal).remove(0);
    assert_eq!((lease.failures, lease.push_id), (1, Some([7; 16])));
    world.settle(Priority::Normal, &lease, PUSHED).await;
    assert_eq!(world.state(1, 1), Pushed);
}

/// Which messages were told that an attempt failed, and why.
fn notes(world: &World) -> Vec<(u8, DeliveryState, String)> {
    let notes = world.events().into_iter().filter(|event| event.from == Some(event.to));
    notes.map(|event| (event.message.as_bytes()[0], event.to, event.reason.unwrap())).collect()
}

const FAILED: PushResult =
    PushResult::Retry { due_ms: START_MS + 5_000, push_id: [7; 16], why: PushFailure::ProviderError };

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_fails_is_noted_once_at_each_message_that_it_stood_for() {
    let mut world = World::new();
    world.register(1).await;
    world.accept(1, &[1], Priority::Normal).await;
    let lease = world.lease(Priority::Normal).remove(0);
    world.settle(Priority::Normal, &lease, PUSHED).await;
    world.accept(2, &[1], Priority::Normal).await;
    let lease = world.lease(Priority::Normal).remove(0);
    world.accept(3, &[1], Priority::Normal).await;
    world.settle(Priority::Normal, &lease, FAILED).await;
    let code = || "push_provider_error".to_owned();
    assert_eq!(notes(&world), [(1, Pushed, code()), (2, Queued, code())], "the third came later");
    assert_eq!((world.state(1, 1), world.state(2, 1)), (Pushed, Queued));

    world.say(1, 1, OPENED).await;
    world.now_ms += 5_000;
    let lease = world.lease(Priority::Normal).remove(0);
    let why = PushFailure::NoAnswer;
    let again = PushResult::Retry { due_ms: world.now_ms + 10_000, push_id: [7; 16], why };
    world.settle(Priority::Normal, &lease, again).await;
    let code = || "push_no_answer".to_owned();
    assert_eq!(notes(&world)[2..], [(2, Queued, code()), (3, Queued, code())], "what was opened is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_was_not_attempted_is_not_noted() {
    let world = World::new();
    world.register(1).await;
    world.accept(1, &[1], Priority::Normal).await;
    let leases = world.lease(Priority::Normal);
    world.store.give_back(&world.lane(Priority::Normal), &leases);
    assert_eq!(notes(&world), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_the_credential_stopped_is_noted_and_as_due_as_before() {
    let world = World::new();
    world.register(1).await;
    world.accept(1, &[1], Priority::Normal).await;
    for count in 1..=3 {
        let lease = world.lease(Priority::Normal).remove(0);
        assert_eq!((lease.due_ms, lease.failures), (START_MS, 0));
        let stopped = PushResult::Stopped { why: PushFailure::Credential };
        world.settle(Priority::Normal, &lease, stopped).await;
        assert_eq!(notes(&world), vec![(1, Queued, "push_credential".to_owned()); count]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_messages_in_a_mailbox_the_newest_are_told() {
    let world = World::new();
    world.register(1).await;
    for id in 1..=20 {
        world.accept(id, &[1], Priority::Normal).await;
    }
    let lease = world.lease(Priority::Normal).remove(0);
    world.settle(Priority::Normal, &lease, FAILED).await;
    let told: Vec<_> = notes(&world).into_iter().map(|(message, ..)| message).collect();
    assert_eq!(told, (13..=20).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_down_for_a_day_does_not_fill_the_store() {
    let mut world = World::new();
    world.register(1).await;
    world.accept(1, &[1], Priority::Normal).await;
    // As the worker does it alone with its provider, with the shortest first wait there is and ten minutes at most.
    let (first, max) = (Duration::from_millis(500), Duration::from_secs(600));
    let end_ms = START_MS + 23 * HOUR_MS;
    while let Some(lease) = world.lease(Priority::Normal).pop() {
        let wait = crate::provider::backoff::delay(first, max, u32::from(lease.failures) + 1, 0);
        let due_ms = world.now_ms + u64::try_from(wait.as_millis()).unwrap();
        let retry = PushResult::Retry { due_ms, push_id: [7; 16], why: PushFailure::NoConnection };
        world.settle(Priority::Normal, &lease, retry).await;
        if due_ms > end_ms {
            break;
        }
        world.now_ms = due_ms;
    }
    let day = notes(&world).len();
    assert_eq!(day, 12 + 136, "12 in the first quarter of an hour, and one in ten minutes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_was_given_back_is_due_again_at_once() {
    let world = World::new();
    world.register(1).await;
    world.accept(1, &[1], Priority::Normal).await;
    let leases = world.lease(Priority::Normal);
    world.store.give_back(&world.lane(Priority::Normal), &leases);
    assert_eq!(world.lease(Priority::Normal).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_token_leaves_messages_queued_and_a_new_one_is_pushed_to() {
    let mut world = World::new();
    world.register(1).await;
    world.accept(1, &[1], Priority::Normal).await;
    let lease = world.lease(Priority::Normal).remove(0);
    world.settle(Priority::Normal, &lease, PUSHED).await;
    world.accept(2, &[1], Priority::Normal).await;
    let lease = world.lease(Priority::Normal).remove(0);
    let dead = PushResult::Dead { since_ms: Some(START_MS) };
    world.settle(Priority::Normal, &lease, dead).await;
    assert_eq!((world.state(1, 1), world.state(2, 1)), (Queued, Queued));
    assert_eq!(world.store.device(&tenant(), device(1)).unwrap().unwrap().push, None);
    let reasons: Vec<_> = world.events().into_iter().filter_map(|event| event.reason).collect();
    assert_eq!(reasons, ["push_token_dead", "push_token_dead"]);
    world.now_ms += 24 * HOUR_MS - 1;
    assert_eq!(world.lease(Priority::Normal).len(), 0, "nothing to push to");

    let row = world.row(1, Some(b"new token"));
    assert_eq!(world.register_row(1, row, false).await, Registered::Renewed);
    let lease = world.lease(Priority::Normal).remove(0);
    assert_eq!(lease.token.as_bytes(), b"new token");
    world.settle(Priority::Normal, &lease, PUSHED).await;
    assert_eq!((world.state(1, 1), world.state(2, 1)), (Pushed, Pushed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_registered_after_it_died_is_alive() {
    let mut world = World::new();
    world.register(1).await;
    world.accept(1, &[1], Priority::Normal).await;
    let old = world.lease(Priority::Normal).remove(0);
    let earlier = PushResult::Dead { since_ms: Some(START_MS - 1) };
    world.settle(Priority::Normal, &old, earlier).await;
    assert!(world.store.device(&tenant(), device(1)).unwrap().unwrap().push.is_some());
    assert_eq!(notes(&world), [(1, Queued, "push_answer_outdated".to_owned())]);
    // The token was registered anew while the push was in flight.
    world.now_ms += 900_000;
    let old = world.lease(Priority::Normal).remove(0);
    let row = world.row(1, Some(b"new token"));
    world.register_row(1, row, false).await;
    world.settle(Priority::Normal, &old, PushResult::Dead { since_ms: None }).await;
    assert!(world.store.device(&tenant(), device(1)).unwrap().unwrap().push.is_some());
    assert_eq!(world.lease(Priority::Normal).remove(0).token.as_bytes(), b"new token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_rests_until_the_device_registers_again() {
    let mut world = World::new();
    world.register(1).await;
    world.accept(1, &[1], Priority::Normal).await;
    let lease = world.lease(Priority::Normal).remove(0);
    world.settle(Priority::Normal, &lease, PushResult::Refused).await;
    world.now_ms += HOUR_MS;
    world.accept(2, &[1], Priority::Critical).await;
    assert_eq!(world.lease(Priority::Normal).len() + world.lease(Priority::Critical).len(), 0);
    let row = world.row(1, Some(b"token"));
    world.register_row(1, row, true).await;
    assert_eq!(world.lease(Priority::Critical).len(), 1, "the same token, given again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_id_belongs_to_one_identity_and_an_older_record_does_not_come_back() {
    let world = World::new();
    world.register(1).await;
    let mut other = world.row(2, None);
    assert_eq!(world.register_row(1, other.clone(), false).await, Registered::OtherIdentity);
    other = Device { created: UnixTime(5), ..world.row(1, None) };
    assert_eq!(world.register_row(1, other.clone(), false).await, Registered::Renewed);
    other.created = UnixTime(4);
    assert_eq!(world.register_row(1, other, false).await, Registered::Outdated);
    world.accept(1, &[1], Priority::Normal).await;
    assert_eq!(world.lease(Priority::Normal).len(), 0, "it took its push token back");
    assert_eq!(world.boxes(1).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_boxes_wait_and_leased_pushes_are_due_again() {
    let world = World::new();
    for number in 1..=3 {
        world.register(number).await;
    }
    world.accept(1, &[1, 2], Priority::Normal).await;
    world.accept(2, &[3], Priority::Critical).await;
    let leases = world.lease(Priority::Normal);
    assert_eq!(leases.len(), 2);
    world.settle(Priority::Normal, &leases[0], PUSHED).await;
    let pushed = leases[0].device;

    let mut world = world.restarted();
    let due: Vec<_> = world.lease(Priority::Normal).iter().map(|lease| lease.device).collect();
    assert_eq!(due, [leases[1].device], "the one that was settled is not due yet");
    assert_eq!(world.lease(Priority::Critical).len(), 1);
    assert_eq!((world.boxes(1).len(), world.boxes(2).len(), world.boxes(3).len()), (1, 1, 1));
    assert_eq!(world.told().len(), 4);
    world.now_ms += 900_000;
    let due: Vec<_> = world.lease(Priority::Normal).iter().map(|lease| lease.device).collect();
    assert_eq!(due, [pushed], "the other lease is still held");
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_keep_their_numbers_when_the_configuration_changes() {
    let folder = tempfile::tempdir().unwrap();
    let open = |apps: &[&str]| {
        let mut options = options(folder.path());
        options.apps = apps.iter().map(|name| (tenant(), (*name).to_owned())).collect();
        let store = tokio::task::block_in_place(|| Store::open(options, &Metrics::new()).unwrap().0);
        let numbers: Vec<_> = apps.iter().map(|name| store.app(&tenant(), name).unwrap().0).collect();
        store.engine().shutdown();
        numbers
    };
    assert_eq!(open(&["ios", "android"]), [1, 2]);
    assert_eq!(open(&["web", "android"]), [3, 2]);
    assert_eq!(open(&["android", "ios", "web"]), [2, 1, 3]);
}
