use std::collections::BTreeMap;

use getrandom::SysRng;
use rand_core::UnwrapErr;
use sealpost_wire::id::PrekeyId;
use sealpost_wire::key::SigningKey;
use sealpost_wire::message::Suite;
use sealpost_wire::payload::{Sensitivity, Text};
use sealpost_wire::prekey::PrekeyKind;
use tempfile::TempDir;

use super::*;
use crate::alert::SourceEvent;

struct At(u64);

impl Clock for At {
    fn now_millis(&self) -> u64 {
        self.0 * 1000
    }
}

const NOW: u64 = 1_800_000_000;
const RESEALS_MAX: u32 = 2;
const SECRET: &str = "potassium 6.9 mmol/L";
const RECIPIENT: RecipientId = RecipientId([1; 16]);
const DEVICE: DeviceId = DeviceId([2; 16]);

fn key() -> StorageKey {
    StorageKey::new([7; 32])
}

fn outbox() -> (TempDir, Outbox) {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(folder.path(), &key()).unwrap();
    (folder, outbox)
}

fn alert(source: &str) -> Alert {
    Alert {
        source: SourceEvent { key: source.to_owned(), body: Digest::of(b"body"), subject: None, as_of: None },
        recipient: RECIPIENT,
        category: "lab-result".to_owned(),
        priority: Priority::Normal,
        sensitivity: Sensitivity::Private,
        texts: BTreeMap::from([(
            "en".to_owned(),
            Text { title: "New lab result".to_owned(), body: SECRET.to_owned() },
        )]),
        parts: Vec::new(),
        replies: Vec::new(),
        lifetime_seconds: 3600,
    }
}

fn about(source: &str, subject: &str, as_of: Option<u64>) -> Alert {
    let mut alert = alert(source);
    alert.source.subject = Some(subject.to_owned());
    alert.source.as_of = as_of.map(UnixTime);
    alert
}

fn put(outbox: &mut Outbox, alert: &Alert) -> Result<Enqueued, SenderError> {
    outbox.enqueue(alert, &At(NOW), &mut UnwrapErr(SysRng))
}

fn new(outbox: &mut Outbox, alert: &Alert) -> NotificationId {
    match put(outbox, alert).unwrap() {
        Enqueued::New(id) => id,
        other => panic!("not new: {other:?}"),
    }
}

fn due(outbox: &Outbox) -> Vec<ToSeal> {
    outbox.due_to_seal(NOW * 1000, 100).unwrap()
}

fn sealed_box(bytes: &[u8]) -> (VerifyingKey, SealedBox) {
    let sealed = SealedBox {
        device: DEVICE,
        bytes: bytes.to_vec(),
        digest: Digest::of(bytes),
        prekey: PrekeyId([3; 16]),
        kind: PrekeyKind::OneTime,
        suite: Suite::Hybrid,
    };
    (SigningKey::from_seed(&[9; 32]).verifying_key(), sealed)
}

/// An alert whose one box was sent under `id` and accepted.
fn accepted(outbox: &mut Outbox, id: TransportId) {
    let waiting = due(outbox).remove(0);
    outbox.sealed(waiting.id, id, &[sealed_box(b"box")], false).unwrap();
    outbox.accepted(waiting.id, id, &[says(id, DeliveryState::Queued, false)], NOW * 1000).unwrap();
}

fn says(transport_id: TransportId, state: DeliveryState, verified: bool) -> BoxNews {
    BoxNews { transport_id, device: DEVICE, state, reason: None, verified, device_time: None }
}

fn hear(outbox: &mut Outbox, id: TransportId, state: DeliveryState, verified: bool) -> (DeliveryState, bool) {
    outbox.take_news(&[says(id, state, verified)], None, RESEALS_MAX).unwrap();
    let sent = outbox.sent_box(id, DEVICE).unwrap().unwrap();
    (sent.state, sent.verified)
}

#[test]
fn a_push_that_failed_says_why_a_box_waits_until_it_waits_no_more() {
    let (_folder, mut outbox) = outbox();
    new(&mut outbox, &alert("a"));
    let id = TransportId([8; 16]);
    accepted(&mut outbox, id);
    let shown = |outbox: &Outbox| {
        let status = outbox.alert("a").unwrap().unwrap();
        let one = &status.submissions[0].boxes[0];
        (one.state, one.reason.clone())
    };
    assert_eq!(shown(&outbox), (DeliveryState::Queued, None));
    for code in ["push_provider_error", "push_no_answer"] {
        let note = || BoxNews { reason: Some(code.to_owned()), ..says(id, DeliveryState::Queued, false) };
        outbox.take_news(&[note(), note()], None, RESEALS_MAX).unwrap();
        assert_eq!(shown(&outbox), (DeliveryState::Queued, Some(code.to_owned())));
    }
    hear(&mut outbox, id, DeliveryState::Pushed, false);
    assert_eq!(shown(&outbox), (DeliveryState::Pushed, None));
    let note = |state| BoxNews { reason: Some("push_no_answer".to_owned()), ..says(id, state, false) };
    outbox.take_news(&[note(DeliveryState::Pushed)], None, RESEALS_MAX).unwrap();
    assert_eq!(shown(&outbox), (DeliveryState::Pushed, None), "a stub was accepted all the same");
    hear(&mut outbox, id, DeliveryState::Opened, true);
    outbox.take_news(&[note(DeliveryState::Queued)], None, RESEALS_MAX).unwrap();
    assert_eq!(shown(&outbox), (DeliveryState::Opened, None), "the device's word stands");
}

#[test]
fn the_same_event_makes_one_alert() {
    let (folder, mut outbox) = outbox();
    let id = new(&mut outbox, &alert("a"));
    assert_eq!(put(&mut outbox, &alert("a")).unwrap(), Enqueued::Known(id));
    assert_ne!(new(&mut outbox, &alert("b")), id);
    assert_eq!(due(&outbox).len(), 2);
    drop(outbox);
    let mut again = Outbox::open(folder.path(), &key()).unwrap();
    assert_eq!(put(&mut again, &alert("a")).unwrap(), Enqueued::Known(id), "it does not outlive the process");
}

#[test]
fn another_content_under_a_used_key_is_a_conflict() {
    let (_folder, mut outbox) = outbox();
    new(&mut outbox, &alert("a"));
    let mut other = alert("a");
    other.source.body = Digest::of(b"other");
    let refused = put(&mut outbox, &other).unwrap_err();
    assert!(matches!(&refused, SenderError::SourceConflict(key) if key == "a"), "{refused}");
    assert!(!refused.is_temporary());
    assert_eq!(due(&outbox).len(), 1);
}

#[test]
fn an_older_event_never_replaces_a_newer_one() {
    let (_folder, mut outbox) = outbox();
    let id = new(&mut outbox, &about("a", "order-1", Some(200)));
    assert_eq!(put(&mut outbox, &about("b", "order-1", Some(199))).unwrap(), Enqueued::Outdated(id));
    assert_eq!(due(&outbox).len(), 1);
    // Without a time it counts as new, and does not make the outbox forget the time that it knows.
    assert_eq!(new(&mut outbox, &about("c", "order-1", None)), id);
    assert_eq!(put(&mut outbox, &about("d", "order-1", Some(150))).unwrap(), Enqueued::Outdated(id));
    assert_eq!(new(&mut outbox, &about("e", "order-1", Some(200))), id);
}

#[test]
fn corrections_are_revisions_of_one_notification() {
    let (_folder, mut outbox) = outbox();
    let id = new(&mut outbox, &about("a", "order-1", Some(100)));
    assert_eq!(new(&mut outbox, &about("b", "order-1", Some(101))), id);
    assert_ne!(new(&mut outbox, &about("c", "order-2", Some(101))), id);
    let mut someone_else = about("d", "order-1", Some(102));
    someone_else.recipient = RecipientId([8; 16]);
    assert_ne!(new(&mut outbox, &someone_else), id, "two recipients share a notification");
    let of = |id| due(&outbox).into_iter().map(|one| one.notification).filter(move |one| one.id == id);
    let revisions: Vec<_> = of(id).map(|notification| notification.revision).collect();
    assert_eq!(revisions, [1, 2]);
}

#[test]
fn what_could_never_be_sealed_is_refused_at_once() {
    let (_folder, mut outbox) = outbox();
    let mut no_text = alert("a");
    no_text.texts.clear();
    let mut no_key = alert("");
    let mut long_key = alert("k");
    long_key.source.key = "k".repeat(SOURCE_BYTES_MAX + 1);
    for bad in [&mut no_text, &mut no_key, &mut long_key] {
        let refused = put(&mut outbox, bad).unwrap_err();
        assert!(matches!(refused, SenderError::Format(_)), "{refused}");
    }
    assert_eq!(outbox.alerts().unwrap().len(), 0);
    // A refused event leaves nothing behind: its correction is the first revision.
    let mut bad = about("b", "order-1", Some(5));
    bad.category = "x".repeat(100);
    assert!(put(&mut outbox, &bad).is_err());
    new(&mut outbox, &about("b", "order-1", Some(4)));
    assert_eq!(due(&outbox)[0].notification.revision, 1);
}

#[test]
fn the_most_urgent_goes_first() {
    let (_folder, mut outbox) = outbox();
    for (key, priority) in [("b", Priority::Bulk), ("n", Priority::Normal), ("c", Priority::Critical)] {
        new(&mut outbox, &Alert { priority, ..alert(key) });
    }
    let order: Vec<_> = due(&outbox).into_iter().map(|one| one.notification.priority).collect();
    assert_eq!(order, [Priority::Critical, Priority::Normal, Priority::Bulk]);
}

#[test]
fn what_is_put_off_comes_back_when_it_is_due() {
    let (_folder, mut outbox) = outbox();
    new(&mut outbox, &alert("a"));
    let id = due(&outbox)[0].id;
    outbox.postponed(id, "unreachable", NOW * 1000 + 500).unwrap();
    assert!(due(&outbox).is_empty());
    assert_eq!(outbox.next_due_ms().unwrap(), Some(NOW * 1000 + 500));
    let later = outbox.due_to_seal(NOW * 1000 + 500, 100).unwrap();
    assert_eq!((later.len(), later[0].attempts), (1, 1));
    outbox.failed(id, "consent_missing").unwrap();
    assert_eq!(outbox.next_due_ms().unwrap(), None);
    let status = outbox.alert("a").unwrap().unwrap();
    assert_eq!(status.submissions[0].stage, Stage::Failed);
    assert_eq!(status.submissions[0].failure.as_deref(), Some("consent_missing"));
    // Over is over.
    outbox.postponed(id, "unreachable", 0).unwrap();
    assert!(due(&outbox).is_empty());
}

#[test]
fn a_submission_is_sealed_once() {
    let (_folder, mut outbox) = outbox();
    new(&mut outbox, &alert("a"));
    let (waiting, first, second) = (due(&outbox).remove(0), TransportId([4; 16]), TransportId([5; 16]));
    outbox.sealed(waiting.id, first, &[sealed_box(b"first")], false).unwrap();
    // Another process had looked it up at the same time.
    outbox.sealed(waiting.id, second, &[sealed_box(b"second")], false).unwrap();
    let to_send = outbox.due_to_send(NOW * 1000, 100).unwrap();
    assert_eq!(to_send.len(), 1);
    assert_eq!((to_send[0].transport_id, &to_send[0].boxes), (first, &vec![(DEVICE, b"first".to_vec())]));
    assert!(outbox.sent_box(second, DEVICE).unwrap().is_none());
    // Sealed bytes are the relay's own once it has accepted them.
    outbox.accepted(waiting.id, first, &[], NOW * 1000).unwrap();
    assert!(outbox.due_to_send(u64::MAX >> 1, 100).unwrap().is_empty());
    assert!(outbox.sealed_boxes(first).unwrap().is_empty());
}

#[test]
fn what_a_device_signed_stands_against_what_the_relay_says() {
    use DeliveryState::{Confirmed, Expired, Fetched, Opened, Pushed, Queued, Unopenable};
    let (_folder, mut outbox) = outbox();
    let id = TransportId([4; 16]);
    new(&mut outbox, &alert("a"));
    accepted(&mut outbox, id);
    assert_eq!(hear(&mut outbox, id, Pushed, false), (Pushed, false));
    assert_eq!(hear(&mut outbox, id, Fetched, true), (Fetched, true));
    assert_eq!(hear(&mut outbox, id, Opened, true), (Opened, true));
    // Late, or false: neither changes what the device signed.
    for state in [Queued, Pushed, Expired, Confirmed] {
        assert_eq!(hear(&mut outbox, id, state, false), (Opened, true), "{state:?}");
    }
    assert_eq!(hear(&mut outbox, id, Unopenable, true), (Opened, true), "it was opened before");
    assert_eq!(hear(&mut outbox, id, Confirmed, true), (Confirmed, true));
    assert_eq!(hear(&mut outbox, id, Opened, true), (Confirmed, true));
    assert!(outbox.alert("a").unwrap().unwrap().is_opened());
}

#[test]
fn a_signature_counts_even_after_the_relay_gave_up() {
    use DeliveryState::{Expired, Opened};
    let (_folder, mut outbox) = outbox();
    let id = TransportId([4; 16]);
    new(&mut outbox, &alert("a"));
    accepted(&mut outbox, id);
    assert_eq!(hear(&mut outbox, id, Expired, false), (Expired, false));
    let status = outbox.alert("a").unwrap().unwrap();
    assert!(status.is_settled() && !status.is_opened());
    assert!(outbox.unsettled().unwrap().is_empty());
    assert_eq!(hear(&mut outbox, id, Opened, true), (Opened, true));
    assert!(outbox.alert("a").unwrap().unwrap().is_opened());
}

#[test]
fn the_first_word_of_a_box_may_be_any() {
    let (_folder, mut outbox) = outbox();
    let id = TransportId([4; 16]);
    new(&mut outbox, &alert("a"));
    let waiting = due(&outbox).remove(0);
    outbox.sealed(waiting.id, id, &[sealed_box(b"box")], false).unwrap();
    // The answer to the first try was lost; the second one's comes after a push.
    let pushed = says(id, DeliveryState::Pushed, false);
    outbox.accepted(waiting.id, id, &[pushed], NOW * 1000).unwrap();
    assert_eq!(outbox.sent_box(id, DEVICE).unwrap().unwrap().state, DeliveryState::Pushed);
    assert_eq!(outbox.unsettled().unwrap(), [id]);
}

#[test]
fn a_box_that_cannot_be_opened_is_sealed_anew_so_many_times() {
    let (_folder, mut outbox) = outbox();
    new(&mut outbox, &alert("a"));
    for round in 0..=RESEALS_MAX {
        let id = TransportId([10 + u8::try_from(round).unwrap(); 16]);
        let waiting = due(&outbox);
        assert_eq!(waiting.len(), 1, "round {round}");
        assert_eq!(waiting[0].only_device, (round > 0).then_some(DEVICE));
        accepted(&mut outbox, id);
        // The relay's word for it is not enough.
        hear(&mut outbox, id, DeliveryState::Unopenable, false);
        assert!(due(&outbox).is_empty());
        hear(&mut outbox, id, DeliveryState::Unopenable, true);
        hear(&mut outbox, id, DeliveryState::Unopenable, true);
        let status = outbox.alert("a").unwrap().unwrap();
        assert!(!status.is_opened(), "a box that is sealed anew counts as opened");
        assert_eq!(status.is_settled(), round == RESEALS_MAX);
    }
    assert!(due(&outbox).is_empty(), "the bound does not hold");
}

#[test]
fn an_alert_is_opened_when_the_box_sealed_anew_is() {
    let (_folder, mut outbox) = outbox();
    new(&mut outbox, &alert("a"));
    let (first, second) = (TransportId([4; 16]), TransportId([5; 16]));
    accepted(&mut outbox, first);
    hear(&mut outbox, first, DeliveryState::Unopenable, true);
    accepted(&mut outbox, second);
    hear(&mut outbox, second, DeliveryState::Opened, true);
    let status = outbox.alert("a").unwrap().unwrap();
    assert!(status.is_opened());
    assert_eq!(status.newest_boxes().len(), 1);
}

#[test]
fn nothing_readable_lies_in_the_database() {
    let (folder, mut outbox) = outbox();
    new(&mut outbox, &alert("a"));
    drop(outbox);
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()));
    }
    let other = Outbox::open(folder.path(), &StorageKey::new([8; 32])).unwrap();
    assert!(matches!(other.due_to_seal(NOW * 1000, 1), Err(SenderError::Unreadable)));
}

#[test]
fn an_outbox_of_a_newer_version_is_refused() {
    let (folder, outbox) = outbox();
    outbox.connection.pragma_update(None, "user_version", VERSION + 1).unwrap();
    drop(outbox);
    let refused = Outbox::open(folder.path(), &key()).err().unwrap();
    assert!(matches!(refused, SenderError::NewerOutbox(found) if found == VERSION + 1), "{refused}");
}
