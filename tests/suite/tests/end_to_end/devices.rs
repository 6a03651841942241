//! Devices of every kind, and devices that lost something.

use std::fs;
use std::path::Path;
use std::time::Duration;

use sealpost_device::{Device, EnrolOptions, RequestKeyKind, TakenBox};
use sealpost_sender::SenderError;
use sealpost_tests::site::{Site, device_parts};
use sealpost_wire::message::Suite;

use crate::{alert, send, work_until};

#[test]
fn devices_with_a_p256_request_key_and_with_the_classical_suite_alone_open_what_is_sent() {
    let site = Site::start().unwrap();
    let recipient = site.recipient().unwrap();
    let secure_element = EnrolOptions { request_key: RequestKeyKind::P256, ..EnrolOptions::default() };
    let old_phone = EnrolOptions { suites: vec![Suite::Classical], ..EnrolOptions::default() };
    let both = EnrolOptions { suites: vec![Suite::Hybrid, Suite::Classical], ..EnrolOptions::default() };
    let devices = [secure_element, old_phone, both].map(|options| site.enrol(recipient, &options).unwrap());
    let (_, mut sender) = site.sender("laboratory").unwrap();
    let status = send(&mut sender, &alert("one", recipient));
    assert_eq!(status.submissions[0].boxes.len(), 3);
    for (_, mut device) in devices {
        let taken = device.sync(Duration::ZERO).unwrap().boxes;
        assert!(matches!(taken[..], [TakenBox::Opened(_)]), "{taken:?}");
    }
    work_until(&mut sender, "one", |status| status.is_opened());
    site.stop().unwrap();
}

#[test]
fn a_device_whose_state_was_rolled_back_gets_its_message_sealed_anew() {
    let site = Site::start().unwrap();
    let recipient = site.recipient().unwrap();
    let (handset, mut device) = site.enrol(recipient, &EnrolOptions::default()).unwrap();
    let (_, mut sender) = site.sender("laboratory").unwrap();
    let (state, backup) = (handset.folder.join("state"), handset.folder.join("backup"));
    drop(device);
    copy(&state, &backup);

    device = handset.open().unwrap();
    send(&mut sender, &alert("before", recipient));
    assert!(matches!(device.sync(Duration::ZERO).unwrap().boxes[..], [TakenBox::Opened(_)]));
    drop(device);
    // Somebody puts the backup back. What the platform keeps, the generation counter, is not in it.
    copy(&backup, &state);
    send(&mut sender, &alert("after", recipient));

    device = handset.open().unwrap();
    let taken = device.sync(Duration::ZERO).unwrap().boxes;
    assert!(matches!(&taken[..], [TakenBox::Unopenable(_, why)] if why == "unknown_prekey"), "{taken:?}");
    device.maintain_prekeys().unwrap();
    let status =
        work_until(&mut sender, "after", |status| status.submissions.len() == 2 && !status.is_under_way());
    let transports: Vec<_> = status.submissions.iter().map(|one| one.transport_id).collect();
    assert_ne!(transports[0], transports[1], "nothing is sealed twice under one transport id");
    assert!(matches!(device.sync(Duration::ZERO).unwrap().boxes[..], [TakenBox::Opened(_)]));
    let shown = device.present().unwrap();
    assert_eq!(shown.len(), 1);
    assert_eq!(shown[0].notification.id, status.notification);
    work_until(&mut sender, "after", |status| status.is_opened());
    site.stop().unwrap();
}

#[test]
fn a_ticket_whose_secret_leaked_lets_nobody_in() {
    let site = Site::start().unwrap();
    let recipient = site.recipient().unwrap();
    let (ticket, link) = site.enroller.new_ticket(recipient).unwrap();
    let mut devices = ["patient", "thief"].map(|who| {
        let folder = site.path(who);
        let parts = device_parts(&folder).unwrap();
        Device::enrol(&folder.join("state"), &link, &EnrolOptions::default(), parts).unwrap()
    });
    let codes = devices.each_ref().map(|device| device.code().unwrap());
    assert_ne!(codes[0], codes[1]);
    let refused = site.enroller.countersign(ticket.id, &codes[0]).unwrap_err();
    assert!(matches!(refused, SenderError::TicketLeaked), "{refused}");
    assert!(site.enroller.countersign(ticket.id, &codes[0]).is_err());
    for device in &mut devices {
        assert!(!device.await_admission(Duration::ZERO).unwrap_or(false));
        assert!(device.register(None).is_err());
    }
    site.stop().unwrap();
}

/// Replaces the files of `to` by those of `from`.
fn copy(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).unwrap();
    }
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
