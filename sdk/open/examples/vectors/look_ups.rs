//! What a sender does with the answer to a look-up.

use sealpost_wire::api::keyserver::DevicePrekeys;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::message::Suite;
use sealpost_wire::prekey::{PrekeyKind, PrekeyLeaf, ProvenPrekey, sign_batch};
use serde_json::{Value, json};

use crate::sealed::hex;
use crate::world::{self, DAY, Device, NOW};

pub(crate) fn cases() -> Vec<Value> {
    let (phone, tablet, pager) = (world::phone(), world::tablet(), world::pager());
    let both = |device: &Device, suite: Suite| offer(device, suite, true, true);
    let hybrid = both(&phone, Suite::Hybrid);
    let classical = both(&phone, Suite::Classical);
    let id =
        |device: &Device, suite: Suite, kind: PrekeyKind| Ok(device.private(suite, kind).id().to_string());
    let case = Case::new;
    let signed = PrekeyKind::Signed;
    vec![
        case(
            &phone,
            "hybrid before classical",
            "both suites are offered, both kinds",
            &[classical.clone(), hybrid.clone()],
        )
        .gives(id(&phone, Suite::Hybrid, PrekeyKind::OneTime)),
        case(
            &phone,
            "the signed prekey",
            "no one-time prekey is left",
            &[offer(&phone, Suite::Hybrid, true, false)],
        )
        .gives(id(&phone, Suite::Hybrid, signed)),
        case(
            &pager,
            "a classical device",
            "the record lists no hybrid suite",
            &[both(&pager, Suite::Classical)],
        )
        .gives(id(&pager, Suite::Classical, PrekeyKind::OneTime)),
        case(
            &phone,
            "downgrade by omission",
            "the record lists the hybrid suite, and only classical prekeys come back",
            std::slice::from_ref(&classical),
        )
        .gives(Err("downgrade")),
        case(
            &phone,
            "downgrade by an empty offer",
            "the hybrid suite is named, with no prekey in it",
            &[offer(&phone, Suite::Hybrid, false, false), classical.clone()],
        )
        .gives(Err("downgrade")),
        case(
            &phone,
            "downgrade by silence",
            "nothing comes back for the device",
            &[both(&tablet, Suite::Hybrid)],
        )
        .gives(Err("downgrade")),
        case(
            &phone,
            "downgrade by a false name",
            "a classical prekey is offered as a hybrid one",
            &[DevicePrekeys { suite: Suite::Hybrid, ..classical.clone() }],
        )
        .gives(Err("prekey_mismatch")),
        case(
            &phone,
            "classical by policy",
            "only classical prekeys come back, and the tenant's policy allows it",
            std::slice::from_ref(&classical),
        )
        .policy("allow-classical", "preferred")
        .gives(id(&phone, Suite::Classical, PrekeyKind::OneTime)),
        case(
            &phone,
            "hybrid though classical is allowed",
            "the policy allows classical, and hybrid is there",
            &[classical.clone(), hybrid.clone()],
        )
        .policy("allow-classical", "preferred")
        .gives(id(&phone, Suite::Hybrid, PrekeyKind::OneTime)),
        case(&pager, "nothing for a classical device", "nothing comes back", &[]).gives(Err("no_prekey")),
        case(
            &phone,
            "one-time or not at all",
            "the policy insists on a one-time prekey, and there is none",
            &[offer(&phone, Suite::Hybrid, true, false)],
        )
        .policy("require-hybrid", "required")
        .gives(Err("no_one_time_prekey")),
        case(
            &phone,
            "a signed prekey for a one-time one",
            "the signed prekey is offered as a one-time one",
            &[DevicePrekeys { one_time: hybrid.signed.clone(), ..hybrid.clone() }],
        )
        .gives(Err("prekey_mismatch")),
        case(
            &phone,
            "another device's prekey",
            "the tablet's prekeys are offered as the phone's",
            &[DevicePrekeys { device: phone.id, ..both(&tablet, Suite::Hybrid) }],
        )
        .gives(Err("bad_signature")),
        case(&phone, "a flipped bit in the leaf", "the last byte of the key is changed", &[flipped(&hybrid)])
            .gives(Err("prekey_mismatch")),
        case(&phone, "the wrong place in the batch", "the index is another leaf's", &[misplaced(&hybrid)])
            .gives(Err("prekey_mismatch")),
        case(
            &phone,
            "a suite that the record does not list",
            "a hybrid prekey for a device whose record lists none",
            &[unlisted(&pager)],
        )
        .record(&pager)
        .policy("allow-classical", "preferred")
        .gives(Err("no_prekey")),
        case(
            &phone,
            "past seal_until",
            "the signed prekey is too old to seal to",
            &[offer(&phone, Suite::Hybrid, true, false)],
        )
        .times(NOW.plus(20 * DAY + 1), NOW.plus(21 * DAY))
        .gives(Err("prekey_expired")),
        case(
            &phone,
            "at seal_until",
            "the last second in which it may be sealed to",
            &[offer(&phone, Suite::Hybrid, true, false)],
        )
        .times(NOW.plus(20 * DAY), NOW.plus(50 * DAY))
        .gives(id(&phone, Suite::Hybrid, signed)),
        case(
            &phone,
            "past open_until",
            "the message would outlive the prekey",
            std::slice::from_ref(&hybrid),
        )
        .times(NOW.plus(20 * DAY), NOW.plus(50 * DAY + 1))
        .gives(Err("expires_after_prekey")),
        case(
            &phone,
            "an old one-time prekey",
            "the one-time prekey has expired; the signed one has not",
            &[stale_one_time(&phone)],
        )
        .gives(id(&phone, Suite::Hybrid, signed)),
    ]
}

struct Case {
    name: &'static str,
    what: &'static str,
    record: Vec<u8>,
    look_up: Vec<DevicePrekeys>,
    policy: [&'static str; 2],
    now: UnixTime,
    expires_at: UnixTime,
}

impl Case {
    fn new(device: &Device, name: &'static str, what: &'static str, look_up: &[DevicePrekeys]) -> Self {
        Self {
            name,
            what,
            record: device.record_bytes.clone(),
            look_up: look_up.to_vec(),
            policy: ["require-hybrid", "preferred"],
            now: NOW,
            expires_at: NOW.plus(DAY),
        }
    }

    fn record(mut self, device: &Device) -> Self {
        self.record = device.record_bytes.clone();
        self
    }

    fn policy(mut self, suites: &'static str, one_time: &'static str) -> Self {
        self.policy = [suites, one_time];
        self
    }

    fn times(mut self, now: UnixTime, expires_at: UnixTime) -> Self {
        (self.now, self.expires_at) = (now, expires_at);
        self
    }

    fn gives(self, outcome: Result<String, &'static str>) -> Value {
        let (code, prekey_id) = match outcome {
            Ok(prekey_id) => (None, Some(prekey_id)),
            Err(code) => (Some(code), None),
        };
        json!({
            "name": self.name,
            "what": self.what,
            "record": hex(&self.record),
            "look_up": self.look_up,
            "suites": self.policy[0],
            "one_time": self.policy[1],
            "now": self.now.0,
            "expires_at": self.expires_at.0,
            "code": code,
            "prekey_id": prekey_id,
        })
    }
}

fn offer(device: &Device, suite: Suite, signed: bool, one_time: bool) -> DevicePrekeys {
    let proven = |kind: PrekeyKind, there: bool| there.then(|| device.proven(suite, kind));
    DevicePrekeys {
        device: device.id,
        suite,
        signed: proven(PrekeyKind::Signed, signed),
        one_time: proven(PrekeyKind::OneTime, one_time),
    }
}

fn flipped(offer: &DevicePrekeys) -> DevicePrekeys {
    let mut offer = offer.clone();
    let leaf = &mut offer.one_time.as_mut().unwrap().leaf.0;
    // The key ends 12 bytes before the leaf: two times with their labels follow.
    let at = leaf.len() - 13;
    leaf[at] ^= 1;
    offer
}

fn misplaced(offer: &DevicePrekeys) -> DevicePrekeys {
    let mut offer = offer.clone();
    offer.one_time.as_mut().unwrap().index = 0;
    offer
}

/// A hybrid prekey in a proper batch of a device that does not list the suite.
pub(crate) fn unlisted(device: &Device) -> DevicePrekeys {
    let key = world::phone().private(Suite::Hybrid, PrekeyKind::Signed).public_key();
    let leaf = PrekeyLeaf { key, suite: Suite::Hybrid, ..device.prekeys[0].1.clone() };
    DevicePrekeys {
        device: device.id,
        suite: Suite::Hybrid,
        signed: Some(alone(device, &leaf)),
        one_time: None,
    }
}

fn stale_one_time(device: &Device) -> DevicePrekeys {
    let mut offer = offer(device, Suite::Hybrid, true, false);
    let leaf = PrekeyLeaf {
        kind: PrekeyKind::OneTime,
        seal_until: NOW.minus(1),
        ..device.verified(Suite::Hybrid, PrekeyKind::OneTime).leaf().clone()
    };
    offer.one_time = Some(alone(device, &leaf));
    offer
}

/// A leaf in a batch of its own.
pub(crate) fn alone(device: &Device, leaf: &PrekeyLeaf) -> ProvenPrekey {
    let leaf = leaf.to_bytes();
    let leaves = [leaf.clone()];
    let batch =
        sign_batch(&device.record.tenant, device.id, &leaves, NOW.minus(2 * DAY), &device.identity).unwrap();
    ProvenPrekey { leaf: leaf.into(), index: 0, path: Vec::new(), batch: batch.into() }
}
