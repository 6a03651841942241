//! Messages that devices submit: whose they are, what is told about them, and what they leave for senders.

use super::*;
use DeliveryState::{Expired, Fetched, Opened, Queued};

/// Device 9, which submits.
fn phone() -> AuthorName {
    device(9).into()
}

fn by_phone(world: &World, id: u8, devices: &[u8]) -> Accepting {
    world.accepting_by(phone(), id, devices, Priority::Normal)
}

fn state_of(world: &World, author: &AuthorName, id: u8) -> Option<DeliveryState> {
    let status = world.store.message(&tenant(), author, message(id)).unwrap()?;
    Some(status.deliveries[0].state)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_by_a_sender_by_a_device_and_by_a_sender_named_like_it_is_three_messages() {
    let world = World::new();
    world.register(1).await;
    let namesake: AuthorName = device(9).to_string().parse().unwrap();
    for (count, author) in [lab(), phone(), namesake.clone()].into_iter().enumerate() {
        let mut accepting = world.accepting_by(author.clone(), 7, &[1], Priority::Normal);
        // Each seals anew, so that no two boxes are alike.
        accepting.boxes[0].digest = Digest::of(author.text().as_bytes());
        let Accepted::New(answer) = world.store.accept(accepting.clone()).await.unwrap() else { panic!() };
        assert_eq!(world.store.accept(accepting.clone()).await.unwrap(), Accepted::Duplicate(answer));
        let other = Accepting { digest: Digest::of(b"other"), ..accepting };
        assert_eq!(world.store.accept(other).await.unwrap(), Accepted::Conflict);
        assert_eq!(world.boxes(1).len(), count + 1);
        assert_eq!(world.boxes(1)[count].sender, author);
    }
    let mut opened = world.receipt_for(&phone(), 7, 1, OPENED);
    opened.receipt.sealed = Digest::of(phone().text().as_bytes());
    assert_eq!(world.acknowledge(1, vec![opened]).await, [ReceiptOutcome::Accepted]);
    let states = [lab(), phone(), namesake].map(|author| state_of(&world, &author, 7));
    assert_eq!(states, [Some(Queued), Some(Opened), Some(Queued)]);
    assert_eq!(state_of(&world, &device(8).into(), 7), None, "another device's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_asks_for_its_messages_and_the_senders_stream_stays_theirs_and_dense() {
    let mut world = World::new();
    world.register(1).await;
    world.accept(1, &[1], Priority::Normal).await;
    assert!(matches!(world.store.accept(by_phone(&world, 2, &[1])).await.unwrap(), Accepted::New(_)));
    world.accept(3, &[1], Priority::Normal).await;
    let fetched = world.receipt_for(&phone(), 2, 1, ReceiptStatement::Fetched);
    let opened = world.receipt_for(&phone(), 2, 1, OPENED);
    // In one write with one of a sender's message.
    let both = vec![fetched.clone(), world.receipt(3, 1, ReceiptStatement::Fetched), opened.clone()];
    assert_eq!(world.acknowledge(1, both).await, [ReceiptOutcome::Accepted; 3]);

    // `events` checks that they are dense.
    let told: Vec<_> = world.events().into_iter().map(|event| (event.message, event.to)).collect();
    assert_eq!(told, [(message(1), Queued), (message(3), Queued), (message(3), Fetched)]);
    let status = world.store.message(&tenant(), &phone(), message(2)).unwrap().unwrap();
    let receipts: Vec<&[u8]> = status.deliveries[0].receipts.iter().map(|one| one.as_ref()).collect();
    assert_eq!(receipts, [fetched.bytes.as_slice(), &opened.bytes]);

    world.now_ms += HOUR_MS;
    let mut world = world.restarted();
    assert!(matches!(world.store.accept(by_phone(&world, 4, &[1])).await.unwrap(), Accepted::New(_)));
    assert_eq!(world.events().len(), 3);
    world.now_ms += 24 * HOUR_MS;
    world.expire().await;
    assert_eq!(state_of(&world, &phone(), 4), Some(Expired));
    assert_eq!(world.told().last(), Some(&Expired), "of the senders' messages");
    world.now_ms += 7 * 24 * HOUR_MS;
    world.expire().await;
    assert_eq!([2, 4].map(|id| state_of(&world, &phone(), id)), [None, None], "forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_both_kinds_are_trimmed_and_messages_of_one_second_are_each_forgotten() {
    let mut world = World::new();
    world.register(1).await;
    // Both are the first of their series, and have the same deadline.
    world.accept(1, &[1], Priority::Normal).await;
    assert!(matches!(world.store.accept(by_phone(&world, 1, &[1])).await.unwrap(), Accepted::New(_)));
    let fetched = world.receipt_for(&phone(), 1, 1, ReceiptStatement::Fetched);
    world.acknowledge(1, vec![fetched]).await;
    world.now_ms += 1000;
    world.accept(2, &[1], Priority::Normal).await;
    assert!(matches!(world.store.accept(by_phone(&world, 2, &[1])).await.unwrap(), Accepted::New(_)));
    let trim = |max| {
        let store = world.store.clone();
        async move { store.trim_events(&tenant(), START_MS + 1, max).await.unwrap() }
    };
    assert_eq!([trim(1).await, trim(9).await, trim(9).await], [1, 2, 0]);
    let status = world.store.message(&tenant(), &phone(), message(1)).unwrap().unwrap();
    assert_eq!((status.deliveries[0].state, status.deliveries[0].receipts.len()), (Fetched, 0));
    assert!(matches!(world.store.events(&tenant(), 0, 10).unwrap(), EventsAnswer::Gone { oldest: 2 }));
    world.now_ms += 24 * HOUR_MS;
    world.expire().await;
    for (author, id) in [(lab(), 1), (phone(), 1), (lab(), 2), (phone(), 2)] {
        assert_eq!(state_of(&world, &author, id), Some(Expired), "{author} {id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_fill_half_of_a_mailbox_and_senders_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path());
    options.limits.mailbox_boxes_max = 4;
    let store = tokio::task::block_in_place(|| Store::open(options, &Metrics::new()).unwrap().0);
    let world = World { _folder: folder, store, now_ms: START_MS };
    world.register(1).await;
    let reason = |accepted| match accepted {
        Accepted::New(status) => status.deliveries[0].reason.clone(),
        other => panic!("{other:?}"),
    };
    for id in 1..=2 {
        assert_eq!(reason(world.store.accept(by_phone(&world, id, &[1])).await.unwrap()), None);
    }
    let other = world.accepting_by(device(8).into(), 3, &[1], Priority::Critical);
    assert_eq!(reason(world.store.accept(other).await.unwrap()).as_deref(), Some("mailbox_full"));
    for id in 4..=5 {
        assert_eq!(world.accept(id, &[1], Priority::Bulk).await.deliveries[0].state, Queued);
    }
    let full = world.accept(6, &[1], Priority::Bulk).await;
    assert_eq!(full.deliveries[0].reason.as_deref(), Some("mailbox_full"));
}

/// A store of the version before devices were authors: its rows mean what they meant, and the program that
/// wrote it does not open it any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_the_version_before_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let before = || {
        let mut options = options(folder.path());
        options.engine.version = STORE_VERSION_OLDEST;
        options
    };
    let open_with = |options| tokio::task::block_in_place(|| Store::open(options, &Metrics::new()));
    let world = World {
        store: open_with(before()).unwrap().0,
        _folder: tempfile::tempdir().unwrap(),
        now_ms: START_MS,
    };
    world.register(1).await;
    world.accept(1, &[1], Priority::Normal).await;
    world.store.engine().shutdown();
    drop(world);

    let store = open(folder.path());
    let world = World { store, _folder: tempfile::tempdir().unwrap(), now_ms: START_MS };
    assert_eq!((world.state(1, 1), world.boxes(1)[0].sender.clone()), (Queued, lab()));
    assert!(matches!(world.store.accept(by_phone(&world, 1, &[1])).await.unwrap(), Accepted::New(_)));
    world.store.engine().shutdown();
    drop(world);
    let refused = open_with(before()).map(|_| ());
    assert!(matches!(refused, Err(StoreOpenError::Engine(OpenError::NewerStore { .. }))), "{refused:?}");
}
