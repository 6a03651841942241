//! Submissions, receipts, expiry, events.

use super::*;
use DeliveryState::{Confirmed, Expired, Failed, Fetched, Opened, Queued, Revoked};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_waits_for_its_devices_and_the_others_fail_alone() {
    let world = World::new();
    world.register(1).await;
    world.register(2).await;
    let mut accepting = world.accepting(1, &[1, 2, 3], Priority::Normal);
    accepting.boxes[1].revoked = true;
    let Accepted::New(answer) = world.store.accept(accepting).await.unwrap() else { panic!() };
    let states: Vec<_> = answer.deliveries.iter().map(|one| (one.state, one.reason.as_deref())).collect();
    assert_eq!(states, [(Queued, None), (Failed, Some("revoked_device")), (Failed, Some("unknown_device"))]);
    assert_eq!(world.status(1), answer);
    let boxes = world.boxes(1);
    assert_eq!(boxes.len(), 1);
    assert_eq!(boxes[0].sealed.0, [1, 1, 0xee]);
    assert_eq!((boxes[0].id, &boxes[0].sender), (message(1), &lab()));
    assert_eq!(world.boxes(2).len(), 0);
    assert_eq!(world.told(), [Queued, Failed, Failed]);
    assert_eq!(world.store.message(&tenant(), &"other".parse().unwrap(), message(1)).unwrap(), None);
    assert_eq!(world.store.message(&"st-john".parse().unwrap(), &lab(), message(1)).unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_submission_again_is_the_same_answer_whatever_happened_since() {
    let world = World::new();
    world.register(1).await;
    let accepting = world.accepting(1, &[1, 9], Priority::Normal);
    let racing: Vec<_> = (0..64)
        .map(|_| {
            let (store, accepting) = (world.store.clone(), accepting.clone());
            tokio::spawn(async move { store.accept(accepting).await.unwrap() })
        })
        .collect();
    let (mut new, mut duplicates) = (Vec::new(), Vec::new());
    for one in racing {
        match one.await.unwrap() {
            Accepted::New(answer) => new.push(answer),
            Accepted::Duplicate(answer) => duplicates.push(answer),
            other => panic!("the content is the same: {other:?}"),
        }
    }
    assert_eq!((new.len(), duplicates.len()), (1, 63));
    assert!(duplicates.iter().all(|answer| *answer == new[0]));
    assert_eq!(world.boxes(1).len(), 1);

    assert_eq!(world.say(1, 1, OPENED).await, ReceiptOutcome::Accepted);
    let again = world.store.accept(accepting.clone()).await.unwrap();
    assert_eq!(again, Accepted::Duplicate(new[0].clone()));
    let other = Accepting { digest: Digest::of(b"other"), ..accepting };
    assert_eq!(world.store.accept(other).await.unwrap(), Accepted::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_advance_a_delivery_and_its_box_goes_when_it_was_opened() {
    let world = World::new();
    world.register(1).await;
    world.accept(1, &[1], Priority::Normal).await;
    assert_eq!(world.say(1, 1, ReceiptStatement::Fetched).await, ReceiptOutcome::Accepted);
    assert_eq!((world.state(1, 1), world.boxes(1).len()), (Fetched, 1));
    assert_eq!(world.say(1, 1, ReceiptStatement::Fetched).await, ReceiptOutcome::Duplicate);
    assert_eq!(world.say(1, 1, OPENED).await, ReceiptOutcome::Accepted);
    assert_eq!((world.state(1, 1), world.boxes(1).len()), (Opened, 0));
    assert_eq!(world.say(1, 1, OPENED).await, ReceiptOutcome::Duplicate);
    assert_eq!(world.say(1, 1, ReceiptStatement::Fetched).await, ReceiptOutcome::Duplicate);
    assert_eq!(world.say(1, 1, CONFIRMED).await, ReceiptOutcome::Accepted);
    let declined = ReceiptStatement::Declined(PrekeyKind::OneTime);
    assert_eq!(world.say(1, 1, declined.clone()).await, ReceiptOutcome::Late);
    assert_eq!(world.say(1, 1, declined).await, ReceiptOutcome::Duplicate);

    assert_eq!(world.told(), [Queued, Fetched, Opened, Confirmed, Confirmed]);
    let status = world.status(1);
    assert_eq!(status.deliveries[0].state, Confirmed);
    let receipts = &status.deliveries[0].receipts;
    assert_eq!(receipts.len(), 4);
    for (receipt, event) in receipts.iter().zip(&world.events()[1..]) {
        assert_eq!(Some(receipt), event.receipt.as_ref());
    }
    assert!(world.events()[4].late);
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_of_others_and_for_other_boxes_are_unknown() {
    let world = World::new();
    world.register(1).await;
    world.register(2).await;
    world.accept(1, &[1], Priority::Normal).await;
    assert_eq!(world.say(2, 1, OPENED).await, ReceiptOutcome::Unknown, "no such message");
    assert_eq!(world.say(1, 2, OPENED).await, ReceiptOutcome::Unknown, "not this device's");
    let mut other_box = world.receipt(1, 1, OPENED);
    other_box.receipt.sealed = Digest::of(b"another box");
    let both = vec![other_box, world.receipt(1, 1, OPENED)];
    assert_eq!(world.acknowledge(1, both).await, [ReceiptOutcome::Unknown, ReceiptOutcome::Accepted]);
}

#[tokio::test(flavor = "multi_thread")]
async fn boxes_come_in_pages_and_a_large_one_blocks_none() {
    let world = World::new();
    world.register(1).await;
    for id in 1..=5 {
        let mut accepting = world.accepting(id, &[1], Priority::Normal);
        if id == 2 {
            accepting.boxes[0].value = BoxValue::new(&[7; 200_000]);
        }
        assert!(matches!(world.store.accept(accepting).await.unwrap(), Accepted::New(_)));
    }
    let page = |after, boxes_max, bytes_max| {
        let page = BoxPage { after, boxes_max, bytes_max, now: UnixTime(START_MS / 1000) };
        let (boxes, more) = world.store.waiting_boxes(&tenant(), device(1), page).unwrap();
        (boxes.iter().map(|one| one.cursor).collect::<Vec<_>>(), more)
    };
    assert_eq!(page(0, 64, 1000), (vec![1], true), "the large one does not fit");
    assert_eq!(page(1, 64, 1000), (vec![2], true), "and goes alone");
    assert_eq!(page(2, 64, 1000), (vec![3, 4, 5], false));
    assert_eq!(page(0, 2, 1 << 20), (vec![1, 2], true));
    assert_eq!(page(5, 2, 1000), (vec![], false));
    assert_eq!(page(u64::MAX, 2, 1000), (vec![], false));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_opened_expires_and_a_later_receipt_changes_nothing() {
    let mut world = World::new();
    world.register(1).await;
    world.register(2).await;
    world.accept(1, &[1, 2], Priority::Normal).await;
    assert_eq!(world.say(1, 1, OPENED).await, ReceiptOutcome::Accepted);
    world.now_ms += 24 * HOUR_MS - 1000;
    world.expire().await;
    assert_eq!(world.state(1, 2), Queued);
    world.now_ms += 1000;
    assert_eq!(world.boxes(2).len(), 0, "not given once its time is over");
    world.expire().await;
    assert_eq!((world.state(1, 1), world.state(1, 2)), (Opened, Expired));
    assert_eq!(world.lease(Priority::Normal).len(), 0, "nothing is left to push");
    assert_eq!(world.say(1, 2, OPENED).await, ReceiptOutcome::Late);
    assert_eq!(world.say(1, 1, CONFIRMED).await, ReceiptOutcome::Late, "opened was its end");
    assert_eq!((world.state(1, 1), world.state(1, 2)), (Opened, Expired));

    world.now_ms += 7 * 24 * HOUR_MS;
    world.expire().await;
    assert_eq!(world.store.message(&tenant(), &lab(), message(1)).unwrap(), None, "forgotten");
    assert_eq!(world.say(1, 2, OPENED).await, ReceiptOutcome::Unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_comes_before_the_expiry_is_noticed_is_late_all_the_same() {
    let mut world = World::new();
    world.register(1).await;
    world.accept(1, &[1], Priority::Normal).await;
    world.now_ms += 24 * HOUR_MS;
    assert_eq!(world.say(1, 1, OPENED).await, ReceiptOutcome::Late);
    assert_eq!(world.told(), [Queued, Expired, Expired]);
    world.expire().await;
    assert_eq!(world.told().len(), 3, "it had expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_mailbox_takes_no_more_until_something_was_opened() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path());
    options.limits.mailbox_boxes_max = 2;
    let store = tokio::task::block_in_place(|| Store::open(options, &Metrics::new()).unwrap().0);
    let world = World { _folder: folder, store, now_ms: START_MS };
    world.register(1).await;
    world.accept(1, &[1], Priority::Normal).await;
    world.accept(2, &[1], Priority::Normal).await;
    let full = world.accept(3, &[1], Priority::Normal).await;
    assert_eq!(full.deliveries[0].reason.as_deref(), Some("mailbox_full"));
    world.say(1, 1, OPENED).await;
    assert_eq!(world.accept(4, &[1], Priority::Normal).await.deliveries[0].state, Queued);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_loses_its_mailbox_in_the_transaction_of_the_status() {
    let world = World::new();
    world.register(1).await;
    world.register(2).await;
    world.accept(1, &[1, 2], Priority::Normal).await;
    let status = sealpost_wire::status::TenantStatus {
        tenant: tenant(),
        sequence: 1,
        issued: UnixTime(1),
        revoked_keys: Vec::new(),
        revoked_devices: vec![device(1), device(9)],
    };
    let clock = sealpost_service::clock::ManualClock::at(UnixTime(START_MS / 1000));
    let follow = world.store.revoke_devices(&tenant(), Arc::new(clock));
    let written = world.store.engine().write("put_status", move |view| {
        follow(view, &status);
        Ok::<_, Damaged>(())
    });
    written.await.unwrap().unwrap();
    assert_eq!((world.state(1, 1), world.state(1, 2)), (Revoked, Queued));
    assert_eq!((world.boxes(1).len(), world.boxes(2).len()), (0, 1));
    assert_eq!(world.store.device(&tenant(), device(1)).unwrap().unwrap().push, None);
    let leased: Vec<_> = world.lease(Priority::Normal).iter().map(|lease| lease.device).collect();
    assert_eq!(leased, [device(2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_events_go_and_a_cursor_before_them_is_told_so() {
    let mut world = World::new();
    world.register(1).await;
    for id in 1..=4 {
        world.accept(id, &[1], Priority::Normal).await;
        world.now_ms += HOUR_MS;
    }
    let trim = |before_ms, max| {
        let store = world.store.clone();
        async move { store.trim_events(&tenant(), before_ms, max).await.unwrap() }
    };
    assert_eq!(trim(START_MS + 3 * HOUR_MS, 2).await, 2);
    assert_eq!(trim(START_MS + 3 * HOUR_MS, 2).await, 1);
    assert_eq!(trim(START_MS + 3 * HOUR_MS, 2).await, 0);
    assert!(matches!(world.store.events(&tenant(), 2, 10).unwrap(), EventsAnswer::Gone { oldest: 4 }));
    let EventsAnswer::Page(page) = world.store.events(&tenant(), 3, 10).unwrap() else { panic!() };
    assert_eq!((page.events.len(), page.next, page.last), (1, 4, 4));
    assert_eq!(page.events[0].message, message(4));
    let EventsAnswer::Page(none) = world.store.events(&tenant(), 9, 10).unwrap() else { panic!() };
    assert_eq!((none.events.len(), none.next, none.last), (0, 9, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_a_box_or_an_event_is_woken() {
    let world = World::new();
    world.register(1).await;
    let waiter = world.store.mailbox_waiter(&tenant(), device(1)).unwrap();
    let mut last = world.store.last_event(&tenant()).unwrap();
    let grown = waiter.grown();
    world.accept(1, &[1], Priority::Normal).await;
    grown.await;
    last.changed().await.unwrap();
    assert_eq!(*last.borrow(), 1);
    assert_eq!(world.store.waiting_devices(), 1);
    drop(waiter);
    assert_eq!(world.store.waiting_devices(), 0);
}
