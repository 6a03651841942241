//! The whole of Sealpost, from a hospital's event to a patient's device and back, over real servers.

mod command_line;
mod delivery;
mod devices;
mod duplicates;
mod groups;
mod lies;
mod metrics;
mod outage;
mod revocation;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sealpost_sender::{Alert, AlertStatus, Enqueued, Sender, SourceEvent};
use sealpost_tests::site::CATEGORY;
use sealpost_wire::id::{Digest, RecipientId};
use sealpost_wire::payload::{Priority, Sensitivity, Text};

/// How long anything may take that takes milliseconds on a machine with nothing else to do.
const DEADLINE: Duration = Duration::from_secs(60);
const LIFETIME_SECONDS: u64 = 3600;

/// An alert of the source event `key`.
fn alert(key: &str, recipient: RecipientId) -> Alert {
    let text = Text { title: "New result".to_owned(), body: format!("Result {key}: 6.9 mmol/L.") };
    Alert {
        source: SourceEvent {
            key: key.to_owned(),
            body: Digest::of(key.as_bytes()),
            subject: None,
            as_of: None,
        },
        recipient,
        category: CATEGORY.to_owned(),
        priority: Priority::Critical,
        sensitivity: Sensitivity::Private,
        texts: BTreeMap::from([("en".to_owned(), text)]),
        parts: Vec::new(),
        replies: Vec::new(),
        lifetime_seconds: LIFETIME_SECONDS,
    }
}

/// Hands `alert` to the sender and works until the relay has it.
#[track_caller]
fn send(sender: &mut Sender, alert: &Alert) -> AlertStatus {
    assert!(matches!(sender.enqueue(alert).unwrap(), Enqueued::New(_)));
    work_until(sender, &alert.source.key, |status| !status.is_under_way())
}

/// Works and follows until the alert of `key` is as it should be.
#[track_caller]
fn work_until(sender: &mut Sender, key: &str, mut enough: impl FnMut(&AlertStatus) -> bool) -> AlertStatus {
    let mut last = None;
    let reached = until(|| {
        sender.work().unwrap();
        // The relay may be away just now.
        let _followed = sender.follow(Duration::ZERO);
        let status = sender.alerts().unwrap().into_iter().find(|status| status.source == key).unwrap();
        last = Some(status.clone());
        enough(&status).then_some(status)
    });
    reached.unwrap_or_else(|| panic!("it never came to that: {last:#?}"))
}

/// Tries until there is something.
fn until<T>(mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + DEADLINE;
    while Instant::now() < deadline {
        if let Some(got) = attempt() {
            return Some(got);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None
}
