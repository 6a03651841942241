//! The same submission many times at once.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::time::Duration;

use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;
use sealpost_device::EnrolOptions;
use sealpost_tests::site::Site;
use sealpost_tests::tenant::now;
use sealpost_wire::api::relay::{Event, Submission, SubmittedBox};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::id::{PrekeyId, TransportId};
use sealpost_wire::message::{SealedHeader, Suite};
use sealpost_wire::payload::Priority;

/// Requests that race, and rounds of the race.
const RACERS: usize = 16;
const ROUNDS: usize = 5;

#[test]
fn duplicates_that_race_are_one_message_with_one_answer() {
    let site = Site::start().unwrap();
    let recipient = site.recipient().unwrap();
    let (handset, mut device) = site.enrol(recipient, &EnrolOptions::default()).unwrap();
    let identity = site.tenant.sender("laboratory").unwrap();
    let client = site.client(&site.tenant.relay, &identity);
    // A token for all racers, so that they start together.
    client.get("/v1/events").unwrap();

    for round in 0..ROUNDS {
        let header = SealedHeader::new(Suite::Classical, PrekeyId([7; 16]));
        let sealed = header.finish(&[9; 32], &[u8::try_from(round).unwrap(); 1040]);
        let submission = Submission {
            expires_at: now().plus(600),
            priority: Priority::Normal,
            boxes: vec![SubmittedBox { device: handset.id, sealed: Base64Url(sealed) }],
            slot: None,
        };
        let id = TransportId::random(&mut UnwrapErr(SysRng));
        let path = format!("/v1/messages/{id}");
        let start = Barrier::new(RACERS);
        let answers: Vec<_> = std::thread::scope(|scope| {
            let race = || {
                start.wait();
                client.call("PUT", &path, Some(&submission)).unwrap()
            };
            let racers: Vec<_> = (0..RACERS).map(|_| scope.spawn(race)).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        assert!(answers.iter().all(|answer| answer.status == 202), "{answers:?}");
        let accepted: BTreeSet<_> =
            answers.iter().map(|answer| answer.body["accepted_at"].as_u64()).collect();
        assert_eq!(accepted.len(), 1, "one of them was accepted, the others are told of it");

        let taken = device.sync(Duration::ZERO).unwrap().boxes;
        assert_eq!(taken.len(), 1, "{taken:?}");
        let events = client.get("/v1/events?after=0&limit=1000").unwrap().body;
        let events: Vec<Event> = serde_json::from_value(events["events"].clone()).unwrap();
        let first = events.iter().filter(|event| event.message == id && event.from.is_none());
        assert_eq!(first.count(), 1, "one delivery began: {events:#?}");

        let other = Submission { priority: Priority::Bulk, ..submission };
        let answer = client.call("PUT", &path, Some(&other)).unwrap();
        assert_eq!((answer.status, answer.body["code"].as_str()), (409, Some("conflict")));
    }
    site.stop().unwrap();
}
