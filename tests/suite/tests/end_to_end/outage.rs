//! A server that is out.

use std::time::Duration;

use sealpost_device::{EnrolOptions, TakenBox};
use sealpost_sender::{Enqueued, SenderOptions};
use sealpost_tests::plan::Files;
use sealpost_tests::site::Site;

use crate::{alert, send, work_until};

#[test]
fn a_critical_alert_goes_out_while_the_keyserver_is_out() {
    let mut site = Site::start().unwrap();
    let recipient = site.recipient().unwrap();
    let (_, mut phone) = site.enrol(recipient, &EnrolOptions::default()).unwrap();
    let (_, mut sender) = site.sender("laboratory").unwrap();
    let before = send(&mut sender, &alert("before", recipient));
    assert!(!before.submissions[0].from_cache);

    site.keyserver.kill(Files::Kept).unwrap();
    // Two of them: a cached one-time prekey would be used twice.
    for key in ["first", "second"] {
        let status = send(&mut sender, &alert(key, recipient));
        assert!(status.submissions[0].from_cache, "{status:#?}");
    }
    let taken = phone.sync(Duration::ZERO).unwrap().boxes;
    assert_eq!(taken.len(), 3);
    assert!(taken.iter().all(|one| matches!(one, TakenBox::Opened(_))), "{taken:?}");
    work_until(&mut sender, "second", |status| status.is_opened());

    site.keyserver.start().unwrap();
    let after = send(&mut sender, &alert("after", recipient));
    assert!(!after.submissions[0].from_cache);
    site.stop().unwrap();
}

#[test]
fn an_alert_waits_in_the_outbox_while_both_servers_are_out() {
    let mut site = Site::start().unwrap();
    let recipient = site.recipient().unwrap();
    let (_, mut phone) = site.enrol(recipient, &EnrolOptions::default()).unwrap();
    let (identity, mut sender) = site.sender("laboratory").unwrap();
    site.keyserver.kill(Files::Kept).unwrap();
    site.relay.kill(Files::Kept).unwrap();
    assert!(matches!(sender.enqueue(&alert("one", recipient)).unwrap(), Enqueued::New(_)));
    assert_eq!(sender.work().unwrap().postponed, 1);
    drop(sender);

    site.keyserver.start().unwrap();
    site.relay.start().unwrap();
    let mut sender = site.open_sender(identity, SenderOptions::default()).unwrap();
    work_until(&mut sender, "one", |status| !status.is_under_way());
    assert!(matches!(phone.sync(Duration::ZERO).unwrap().boxes[..], [TakenBox::Opened(_)]));
    work_until(&mut sender, "one", |status| status.is_opened());
    site.stop().unwrap();
}
