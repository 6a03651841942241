//! Devices and keys that the tenant takes back.

use std::time::Duration;

use sealpost_device::{EnrolOptions, TakenBox};
use sealpost_sender::{SenderError, Stage};
use sealpost_tests::site::Site;
use sealpost_wire::delivery::DeliveryState;
use sealpost_wire::status::Revocation;

use crate::{alert, send, until, work_until};

#[test]
fn a_revoked_device_gets_nothing_more() {
    let site = Site::start().unwrap();
    let recipient = site.recipient().unwrap();
    let (_, mut kept) = site.enrol(recipient, &EnrolOptions::default()).unwrap();
    let (stolen_handset, mut stolen) = site.enrol(recipient, &EnrolOptions::default()).unwrap();
    let (_, mut sender) = site.sender("laboratory").unwrap();
    // Sealed for both while the relay cannot be reached, and sent after the theft was reported.
    let relay = site.relay.tap().unwrap();
    relay.observe(|exchange| {
        match exchange.path.starts_with("/v1/messages/") || exchange.path == "/v1/token" {
            true => sealpost_tests::tap::Verdict::Swallow,
            false => sealpost_tests::tap::Verdict::Pass,
        }
    });
    sender.enqueue(&alert("sealed", recipient)).unwrap();
    let sealed = until(|| {
        sender.work().unwrap();
        (sender.alerts().unwrap()[0].submissions[0].stage == Stage::Sealed).then_some(())
    });
    assert!(sealed.is_some(), "it is sealed and cannot be sent");
    relay.observe(|_| sealpost_tests::tap::Verdict::Pass);
    site.enroller.revoke(&[], &[stolen_handset.id]).unwrap();

    let status = work_until(&mut sender, "sealed", |status| !status.is_under_way());
    let failed = |device| {
        let mut boxes = status.submissions[0].boxes.iter();
        boxes.any(|one| {
            one.device == device
                && one.state == DeliveryState::Failed
                && one.reason.as_deref() == Some("revoked_device")
        })
    };
    assert!(failed(stolen_handset.id) && !failed(kept.id()), "{status:#?}");
    // What comes later is not even sealed to it.
    let later = send(&mut sender, &alert("later", recipient));
    let devices: Vec<_> = later.submissions[0].boxes.iter().map(|one| one.device).collect();
    assert_eq!(devices, [kept.id()]);

    let refused = stolen.sync(Duration::ZERO).unwrap_err();
    assert!(refused.to_string().contains("revoked"), "{refused}");
    assert!(stolen.messages().unwrap().is_empty());
    assert_eq!(kept.sync(Duration::ZERO).unwrap().boxes.len(), 2);
    site.stop().unwrap();
}

#[test]
fn a_device_that_is_taken_out_keeps_what_it_was_sent_and_gets_nothing_more() {
    let site = Site::start().unwrap();
    let recipient = site.recipient().unwrap();
    let (_, mut kept) = site.enrol(recipient, &EnrolOptions::default()).unwrap();
    let (_, mut sold) = site.enrol(recipient, &EnrolOptions::default()).unwrap();
    let (_, mut sender) = site.sender("laboratory").unwrap();
    send(&mut sender, &alert("before", recipient));
    let version = site.enroller.remove_device(recipient, sold.id()).unwrap();
    assert_eq!(version, 3, "two devices came before");
    let twice = site.enroller.remove_device(recipient, sold.id()).unwrap_err();
    assert_eq!(twice.code(), "unknown_device");
    let stranger = site.recipient().unwrap();
    assert_eq!(site.enroller.remove_device(stranger, kept.id()).unwrap_err().code(), "unknown_device");

    let after = send(&mut sender, &alert("after", recipient));
    let devices: Vec<_> = after.submissions[0].boxes.iter().map(|one| one.device).collect();
    assert_eq!(devices, [kept.id()]);
    assert_eq!(sold.sync(Duration::ZERO).unwrap().boxes.len(), 1, "what was sent before");
    assert_eq!(kept.sync(Duration::ZERO).unwrap().boxes.len(), 2);
    site.stop().unwrap();
}

#[test]
fn a_sender_whose_keys_were_stolen_is_refused_by_the_relay_and_by_the_device() {
    let site = Site::start().unwrap();
    let recipient = site.recipient().unwrap();
    let (_, mut phone) = site.enrol(recipient, &EnrolOptions::default()).unwrap();
    let (identity, mut stolen) = site.sender("meals").unwrap();
    // It waits at the relay when the theft is noticed.
    send(&mut stolen, &alert("forged", recipient));
    let keys = [&identity.send, &identity.request].map(|pair| pair.key.verifying_key().key_id());
    site.enroller.revoke(&keys.map(|key| (key, Revocation::Compromised)), &[]).unwrap();

    // Its access token is still young.
    let client = site.client(&site.tenant.relay, &identity);
    assert!(client.get("/v1/events").is_err(), "no new token");
    let followed = stolen.follow(Duration::ZERO).unwrap_err();
    assert!(matches!(&followed, SenderError::Http(error) if error.code() == "revoked"), "{followed}");
    let taken = phone.sync(Duration::ZERO).unwrap().boxes;
    assert!(matches!(&taken[..], [TakenBox::Unopenable(_, why)] if why == "key_revoked"), "{taken:?}");
    assert!(phone.present().unwrap().is_empty());

    // Others are not concerned.
    let (_, mut sender) = site.sender("laboratory").unwrap();
    send(&mut sender, &alert("true", recipient));
    assert!(matches!(phone.sync(Duration::ZERO).unwrap().boxes[..], [TakenBox::Opened(_)]));
    site.stop().unwrap();
}
