//! JSON bodies: of requests, read by the servers, and of answers, read by senders and devices.

use std::fmt::Debug;

use sealpost_service::body::parse_json;
use sealpost_wire::api::keyserver::{
    ClaimBody, CloseBody, Consent, ConsentList, DeviceSetBody, DeviceSetState, DeviceState, KeyPackageLookUp,
    KeyPackageUpload, KeyPackagesFound, KeyPackagesStored, LookUp, LookedUp, PeerLookUp, PeersFound,
    PrekeyUpload, PrekeysStored, TicketBody, TicketState,
};
use sealpost_wire::api::relay::{
    DeviceRegistered, DeviceRegistration, EventPage, MessageStatus, Submission, SyncRequest, SyncResponse,
};
use sealpost_wire::api::{StatusBody, TokenRequest, TokenResponse};
use sealpost_wire::problem::{Problem, ProblemCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Characters of a refusal, printed with all that it holds. A body's own words come to at most 40 of them.
const REFUSAL_CHARS_MAX: usize = 400;

/// Input: which body of the relay, and its JSON.
pub(crate) fn relay(input: &[u8]) {
    let Some((which, json)) = input.split_first() else { return };
    match which % 10 {
        0 => {
            if let Some(submission) = body::<Submission>(json) {
                let mut turned = submission.clone();
                turned.boxes.reverse();
                let stays = submission.boxes.iter().all(|one| {
                    submission.boxes.iter().filter(|other| other.device == one.device).count() == 1
                });
                assert!(!stays || turned.digest() == submission.digest(), "the order of boxes is nothing");
                let unclaimed = Submission { slot: None, ..submission.clone() };
                let same = unclaimed.digest() == submission.digest();
                assert_eq!(same, submission.slot.is_none(), "a claim is something");
            }
        }
        1 => drop(body::<DeviceRegistration>(json)),
        2 => drop(body::<SyncRequest>(json)),
        3 => drop(body::<StatusBody>(json)),
        4 => drop(body::<MessageStatus>(json)),
        5 => drop(body::<SyncResponse>(json)),
        6 => drop(body::<EventPage>(json)),
        7 => drop(body::<DeviceRegistered>(json)),
        8 => drop(body::<TokenResponse>(json)),
        _ => drop(body::<Problem>(json)),
    }
}

/// Input: which body of the keyserver, and its JSON.
pub(crate) fn keyserver(input: &[u8]) {
    let Some((which, json)) = input.split_first() else { return };
    match which % 20 {
        0 => drop(body::<TicketBody>(json)),
        1 => drop(body::<ClaimBody>(json)),
        2 => drop(body::<CloseBody>(json)),
        3 => drop(body::<DeviceSetBody>(json)),
        4 => drop(body::<PrekeyUpload>(json)),
        5 => drop(body::<LookUp>(json)),
        6 => drop(body::<Consent>(json)),
        7 => drop(body::<TicketState>(json)),
        8 => drop(body::<DeviceSetState>(json)),
        9 => drop(body::<DeviceState>(json)),
        10 => drop(body::<PrekeysStored>(json)),
        11 => drop(body::<LookedUp>(json)),
        12 => drop(body::<ConsentList>(json)),
        13 => drop(body::<TokenRequest>(json)),
        14 => drop(body::<KeyPackageUpload>(json)),
        15 => drop(body::<KeyPackagesStored>(json)),
        16 => drop(body::<KeyPackageLookUp>(json)),
        17 => drop(body::<KeyPackagesFound>(json)),
        18 => drop(body::<PeerLookUp>(json)),
        _ => drop(body::<PeersFound>(json)),
    }
}

/// A body as a server reads it. One that is read is written in one form.
fn body<T: DeserializeOwned + Serialize + Debug>(json: &[u8]) -> Option<T> {
    match parse_json::<T>(json) {
        Ok(body) => {
            let written = serde_json::to_string(&body).expect("it has a form in JSON");
            let again: T = serde_json::from_str(&written).expect("it was written a moment ago");
            assert_eq!(serde_json::to_string(&again).ok(), Some(written));
            Some(body)
        }
        Err(refusal) => {
            assert_eq!(refusal.code(), ProblemCode::MalformedBody);
            let shown = format!("{refusal:?}");
            assert!(shown.chars().count() <= REFUSAL_CHARS_MAX, "{shown}");
            None
        }
    }
}
