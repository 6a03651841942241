//! From a laboratory's message to two phones.

use std::time::Duration;

use sealpost_connector::alert::{Alert as Mapped, AlertOptions};
use sealpost_connector::hl7::{Message, ReadOptions};
use sealpost_connector::oru::Oru;
use sealpost_connector::patients::PatientMap;
use sealpost_device::{Answer, EnrolOptions, TakenBox};
use sealpost_sender::{Alert, Enqueued, SourceEvent};
use sealpost_tests::site::Site;
use sealpost_tests::tap::Verdict;
use sealpost_wire::delivery::DeliveryState;
use sealpost_wire::id::RecipientId;
use sealpost_wire::payload::Sensitivity;

use crate::{LIFETIME_SECONDS, alert, send, until, work_until};

const CRITICAL_POTASSIUM: &[u8] = include_bytes!("../../../data/hl7/critical-potassium.hl7");

#[test]
fn a_laboratory_result_reaches_both_phones_once() {
    let site = Site::start().unwrap();
    let recipient = site.recipient().unwrap();
    let phones = [(); 2].map(|()| site.enrol(recipient, &EnrolOptions::default()).unwrap());
    let (_, mut sender) = site.sender("laboratory").unwrap();

    let result = potassium(recipient);
    send(&mut sender, &result);
    // The message itself once more, as interfaces do.
    assert!(matches!(sender.enqueue(&result).unwrap(), Enqueued::Known(_)));
    assert_eq!(sender.alerts().unwrap().len(), 1);

    assert_pushed_to_each(&site, &phones.each_ref().map(|(handset, _)| handset.id.to_string()));
    for (_, mut phone) in phones {
        let taken = phone.sync(Duration::ZERO).unwrap().boxes;
        assert!(matches!(taken[..], [TakenBox::Opened(_)]), "{taken:?}");
        let shown = phone.present().unwrap();
        assert_eq!(shown.len(), 1);
        assert_eq!(shown[0].sender.as_str(), "laboratory");
        assert_eq!(shown[0].notification.texts, result.texts);
        assert_eq!(shown[0].notification.parts, result.parts);
        assert!(phone.present().unwrap().is_empty());
        assert!(phone.sync(Duration::ZERO).unwrap().boxes.is_empty());
        phone.answer(shown[0].notification.id, Answer::Confirm).unwrap();
        phone.sync(Duration::ZERO).unwrap();
    }
    let status = work_until(&mut sender, &result.source.key, |status| status.is_settled());
    assert_eq!(status.submissions.len(), 1);
    let boxes = &status.submissions[0].boxes;
    assert!(boxes.iter().all(|one| one.verified && one.state == DeliveryState::Confirmed), "{boxes:?}");
    site.stop().unwrap();
}

#[test]
fn a_lost_sync_answer_loses_nothing_and_shows_nothing_twice() {
    let site = Site::start().unwrap();
    let recipient = site.recipient().unwrap();
    let (_, mut phone) = site.enrol(recipient, &EnrolOptions::default()).unwrap();
    let (_, mut sender) = site.sender("laboratory").unwrap();
    send(&mut sender, &alert("one", recipient));

    // The answer with the box is lost, then the one to the receipt.
    for with_receipt in [false, true] {
        let mut swallowed = false;
        site.relay.tap().unwrap().observe(move |exchange| {
            if swallowed || exchange.path != "/v1/sync" || has_receipts(&exchange.request) != with_receipt {
                return Verdict::Pass;
            }
            swallowed = true;
            Verdict::Swallow
        });
        assert!(phone.sync(Duration::ZERO).unwrap_err().is_temporary());
    }
    let again = phone.sync(Duration::ZERO).unwrap();
    assert!(again.boxes.is_empty() && again.receipts_sent == 1, "{again:?}");
    assert_eq!(phone.present().unwrap().len(), 1);
    assert!(phone.present().unwrap().is_empty());
    work_until(&mut sender, "one", |status| status.is_opened());
    site.stop().unwrap();
}

#[test]
fn a_box_that_comes_again_is_the_same_message() {
    let site = Site::start().unwrap();
    let recipient = site.recipient().unwrap();
    let (_, mut phone) = site.enrol(recipient, &EnrolOptions::default()).unwrap();
    let (_, mut sender) = site.sender("laboratory").unwrap();
    send(&mut sender, &alert("one", recipient));

    // A relay that hands the first box over with the next two answers too.
    let mut first: Option<serde_json::Value> = None;
    let mut answers = 0;
    site.relay.tap().unwrap().observe(move |exchange| {
        if exchange.path == "/v1/sync" && exchange.status == 200 {
            let mut answer: serde_json::Value = serde_json::from_slice(&exchange.answer).unwrap();
            let boxes = first.get_or_insert_with(|| answer["boxes"].clone()).clone();
            answers += 1;
            if answers <= 3 {
                answer["boxes"] = boxes;
            }
            exchange.answer = serde_json::to_vec(&answer).unwrap();
        }
        Verdict::Pass
    });
    let taken = phone.sync(Duration::ZERO).unwrap().boxes;
    assert!(
        matches!(taken[..], [TakenBox::Opened(_), TakenBox::Duplicate(_), TakenBox::Duplicate(_)]),
        "{taken:?}"
    );
    assert_eq!(phone.present().unwrap().len(), 1);
    site.stop().unwrap();
}

fn has_receipts(request: &[u8]) -> bool {
    let request: serde_json::Value = serde_json::from_slice(request).unwrap();
    request["receipts"].as_array().is_some_and(|receipts| !receipts.is_empty())
}

/// The alert that the connector makes of the HL7 message, as the sender takes it.
fn potassium(recipient: RecipientId) -> Alert {
    let patients = format!(
        "[[patients]]\nauthority = \"NORTHSIDE\"\ntype = \"MR\"\nid = \"PX-30417\"\nrecipient = \"{recipient}\"\n"
    );
    let patients = PatientMap::from_toml(&patients).unwrap();
    let message = Message::parse(CRITICAL_POTASSIUM, &ReadOptions::default()).unwrap();
    let oru = Oru::from_message(&message).unwrap();
    let recipient = patients.resolve(&oru.patient).unwrap();
    let mapped = Mapped::from_oru(&oru, recipient, &AlertOptions::default()).unwrap().swap_remove(0);
    Alert {
        source: SourceEvent {
            key: format!("{}|{}", mapped.source_event.key, mapped.order),
            body: mapped.source_event.body_digest,
            subject: Some(mapped.order),
            as_of: mapped.observed_at,
        },
        recipient: mapped.recipient,
        category: mapped.category,
        priority: mapped.priority.into(),
        sensitivity: Sensitivity::Private,
        texts: mapped.texts,
        parts: mapped.part.into_iter().collect(),
        replies: Vec::new(),
        lifetime_seconds: LIFETIME_SECONDS,
    }
}

/// Waits until a provider was asked to wake each of the devices. The relay's tokens name them.
#[track_caller]
fn assert_pushed_to_each(site: &Site, devices: &[String]) {
    let url = format!("{}/pushes?limit=1000", site.providers.control_url);
    let pushed = until(|| {
        let pushes: serde_json::Value = ureq::get(&url).call().unwrap().body_mut().read_json().unwrap();
        let pushes = pushes["pushes"].as_array().unwrap();
        let accepted = |device: &String| {
            pushes.iter().any(|push| {
                push["status"] == 200 && push["token"].as_str().unwrap().starts_with(device.as_str())
            })
        };
        devices.iter().all(accepted).then_some(())
    });
    assert!(pushed.is_some(), "each device is woken");
}
