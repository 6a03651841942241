//! A relay that lies to a sender.

use std::time::Duration;

use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;
use sealpost_device::EnrolOptions;
use sealpost_sender::Stage;
use sealpost_tests::site::Site;
use sealpost_tests::tap::{Exchange, Verdict};
use sealpost_wire::api::relay::{Event, EventPage};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::delivery::DeliveryState;
use sealpost_wire::id::Digest;
use sealpost_wire::key::SigningKey;
use sealpost_wire::prekey::PrekeyKind;
use sealpost_wire::receipt::{Receipt, ReceiptStatement};

use crate::{alert, send};

#[test]
fn receipts_that_the_device_did_not_sign_prove_nothing() {
    let site = Site::start().unwrap();
    let recipient = site.recipient().unwrap();
    let _enrolled = site.enrol(recipient, &EnrolOptions::default()).unwrap();
    let (_, mut sender) = site.sender("laboratory").unwrap();

    // For every event, the relay says that the device has opened the message: by its own word, and by a
    // receipt of its own making.
    let forger = SigningKey::generate(&mut UnwrapErr(SysRng));
    let tenant = site.tenant.id.clone();
    site.relay.tap().unwrap().observe(move |exchange| {
        rewrite_events(exchange, |event| {
            let receipt = Receipt {
                tenant: tenant.clone(),
                transport_id: event.message,
                device: event.device,
                sealed: Digest([0; 32]),
                statement: ReceiptStatement::Opened(PrekeyKind::OneTime),
                time: sealpost_tests::tenant::now(),
            };
            let by_word = Event { to: DeliveryState::Opened, receipt: None, ..event.clone() };
            let by_receipt = Event { receipt: Some(Base64Url(receipt.sign(&forger))), ..by_word.clone() };
            vec![by_word, by_receipt]
        });
        Verdict::Pass
    });
    let sent = alert("one", recipient);
    assert!(sender.enqueue(&sent).is_ok());
    let mut refused = 0;
    let status = loop {
        sender.work().unwrap();
        refused += sender.follow(Duration::from_secs(1)).unwrap().refused;
        let status = sender.alerts().unwrap().swap_remove(0);
        if refused > 0 && status.submissions[0].stage == Stage::Accepted {
            break status;
        }
    };
    assert!(!status.is_opened(), "{status:#?}");
    let boxes = &status.submissions[0].boxes;
    assert!(boxes.iter().all(|one| !one.verified && one.state != DeliveryState::Opened), "{boxes:?}");
    site.stop().unwrap();
}

#[test]
fn a_receipt_about_another_box_proves_nothing() {
    let site = Site::start().unwrap();
    let recipient = site.recipient().unwrap();
    let (_, mut device) = site.enrol(recipient, &EnrolOptions::default()).unwrap();
    let (_, mut sender) = site.sender("laboratory").unwrap();
    let one = send(&mut sender, &alert("one", recipient));
    let two = send(&mut sender, &alert("two", recipient));
    assert_eq!(device.sync(Duration::ZERO).unwrap().boxes.len(), 2);

    // The device's true receipts, under the other message's id.
    let (first, second) =
        (one.submissions[0].transport_id.unwrap(), two.submissions[0].transport_id.unwrap());
    site.relay.tap().unwrap().observe(move |exchange| {
        rewrite_events(exchange, |event| {
            let message = if event.message == first { second } else { first };
            vec![Event { message, ..event.clone() }]
        });
        Verdict::Pass
    });
    let mut refused = 0;
    while refused < 2 {
        refused += sender.follow(Duration::from_secs(1)).unwrap().refused;
    }
    assert!(sender.alerts().unwrap().iter().all(|status| !status.is_opened()));
    site.stop().unwrap();
}

fn rewrite_events(exchange: &mut Exchange, rewrite: impl Fn(&Event) -> Vec<Event>) {
    if exchange.path.starts_with("/v1/events") && exchange.status == 200 {
        let mut page: EventPage = serde_json::from_slice(&exchange.answer).unwrap();
        page.events = page.events.iter().flat_map(rewrite).collect();
        exchange.answer = serde_json::to_vec(&page).unwrap();
    }
}
