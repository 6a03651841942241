//! Runs `tests/vectors/sealed.json`, and checks that the files of vectors are what the generator makes.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER;
use sealpost_open::{PrekeyPrivate, ReplayGuard, ReplayKey, open};
use sealpost_seal::{OneTimePolicy, SealPolicy, SuitePolicy, choose_prekey};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::context::MessageContext;
use sealpost_wire::key::VerifyingKey;
use sealpost_wire::message::{SealedMessage, Suite};
use sealpost_wire::payload::VerifiedMessage;
use sealpost_wire::record::DeviceRecord;
use sealpost_wire::trust::TenantTrust;
use serde_json::Value;

#[path = "../examples/vectors/chains.rs"]
mod chains;
#[path = "../examples/vectors/device_sets.rs"]
mod device_sets;
#[path = "../examples/vectors/device_structures.rs"]
mod device_structures;
#[path = "../examples/vectors/exchanges.rs"]
mod exchanges;
#[path = "../examples/vectors/forge.rs"]
mod forge;
#[path = "../examples/vectors/look_ups.rs"]
mod look_ups;
#[path = "../examples/vectors/members.rs"]
mod members;
#[path = "../examples/vectors/mls_frames.rs"]
mod mls_frames;
#[path = "../examples/vectors/negative.rs"]
mod negative;
#[path = "../examples/vectors/outer_forms.rs"]
mod outer_forms;
#[path = "../examples/vectors/payloads.rs"]
mod payloads;
#[path = "../examples/vectors/positive.rs"]
mod positive;
#[path = "../examples/vectors/sealed.rs"]
mod sealed;
#[path = "../examples/vectors/structures.rs"]
mod structures;
#[path = "../examples/vectors/tenant_structures.rs"]
mod tenant_structures;
#[path = "../examples/vectors/world.rs"]
mod world;

/// Room for every message that one sequence of the file opens.
const REPLAYS: usize = 16;

#[test]
fn the_files_are_what_the_generator_makes() {
    let regenerate = "differs: run `cargo run -p sealpost-open --example vectors`";
    assert!(file() == sealed::vectors(), "tests/vectors/sealed.json {regenerate}");
    let file_of_structures: Value =
        serde_json::from_str(include_str!("../../../tests/vectors/structures.json")).unwrap();
    assert!(file_of_structures == structures::vectors(), "tests/vectors/structures.json {regenerate}");
}

#[test]
fn every_message_opens_or_is_refused_with_its_code() {
    let file = file();
    let mut wrong = Vec::new();
    for case in list(&file["open"]) {
        let outcome = open_case(&file, case, UnixTime(number(&case["now"])));
        let outcome = outcome.map(|message| {
            let author = message.author.name().to_string();
            sealed::message_json(&author, &message.frame)
        });
        let expected = case["code"].as_str().map_or_else(|| Ok(case["message"].clone()), Err);
        if outcome != expected {
            wrong.push(format!("{}: {outcome:?}, not {expected:?}", case["name"]));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_sequence_is_answered_with_its_codes() {
    let file = file();
    for sequence in list(&file["replay"]) {
        let mut guard = ReplayGuard::new(REPLAYS, UnixTime(0));
        for (index, step) in list(&sequence["steps"]).iter().enumerate() {
            let case = list(&file["open"]).iter().find(|case| case["name"] == step["open"]).unwrap();
            let now = guard.time(UnixTime(number(&step["now"])));
            let outcome = open_case(&file, case, now).and_then(|message| {
                let context = context(&case["context"]);
                let key = ReplayKey::new(&context, &message);
                guard.admit(key, context.expires_at).map_err(|error| error.code())
            });
            assert_eq!(outcome.err(), step["code"].as_str(), "{}, step {index}", sequence["name"]);
        }
    }
}

#[test]
fn every_look_up_gives_its_prekey_or_its_code() {
    let file = file();
    for case in list(&file["look_up"]) {
        let record = DeviceRecord::verify(&hex(&case["record"])).unwrap();
        let look_up: Vec<_> = serde_json::from_value(case["look_up"].clone()).unwrap();
        let policy = SealPolicy {
            suites: match text(&case["suites"]) {
                "require-hybrid" => SuitePolicy::RequireHybrid,
                _ => SuitePolicy::AllowClassical,
            },
            one_time: match text(&case["one_time"]) {
                "preferred" => OneTimePolicy::Preferred,
                _ => OneTimePolicy::Required,
            },
        };
        let expires_at = UnixTime(number(&case["expires_at"]));
        let outcome = choose_prekey(&record, &look_up, &policy, expires_at, UnixTime(number(&case["now"])));
        let outcome = outcome.map(|prekey| prekey.leaf().id().to_string()).map_err(|error| error.code());
        let expected = match case["code"].as_str() {
            Some(code) => Err(code),
            None => Ok(text(&case["prekey_id"]).to_owned()),
        };
        assert_eq!(outcome, expected, "{}", case["name"]);
    }
}

#[test]
fn there_are_enough_of_them_and_each_has_a_name_of_its_own() {
    let file = file();
    let cases = list(&file["open"]);
    let names: BTreeSet<_> = cases.iter().map(|case| text(&case["name"])).collect();
    assert_eq!(names.len(), cases.len());
    let mut counts = BTreeMap::new();
    for case in cases {
        let suite = text(&case["name"]).split('/').next().unwrap();
        *counts.entry((suite, case["code"].is_null())).or_insert(0) += 1;
    }
    for suite in ["hybrid", "classical"] {
        assert!(counts[&(suite, true)] >= 5, "{counts:?}");
        assert!(counts[&(suite, false)] >= 25, "{counts:?}");
    }
}

#[test]
fn any_change_of_a_byte_is_refused() {
    let file = file();
    for suite in ["hybrid", "classical"] {
        let name = format!("{suite}/one language");
        let case = list(&file["open"]).iter().find(|case| case["name"] == name).unwrap();
        let sealed = hex(&case["sealed"]);
        let message = SealedMessage::read(&sealed).unwrap();
        let opaque = message.encapsulated_key.len() + message.ciphertext.len();
        // Every byte that can be read from outside, and some of the others.
        let readable = sealed.len() - opaque;
        for at in (0..sealed.len()).filter(|at| at % 97 == 0 || *at < readable) {
            for bit in [1, 0x20, 0x80] {
                let mut changed = sealed.clone();
                changed[at] ^= bit;
                let outcome = open_bytes(&file, case, &changed, UnixTime(number(&case["now"])));
                assert!(outcome.is_err(), "byte {at}, bit {bit}");
            }
        }
    }
}

fn file() -> Value {
    serde_json::from_str(include_str!("../../../tests/vectors/sealed.json")).unwrap()
}

fn open_case(file: &Value, case: &Value, now: UnixTime) -> Result<VerifiedMessage, &'static str> {
    let sealed = match &case["sealed"] {
        Value::String(_) => hex(&case["sealed"]),
        repeated => vec![hex(&repeated["byte"])[0]; usize::try_from(number(&repeated["times"])).unwrap()],
    };
    open_bytes(file, case, &sealed, now)
}

fn open_bytes(
    file: &Value,
    case: &Value,
    sealed: &[u8],
    now: UnixTime,
) -> Result<VerifiedMessage, &'static str> {
    let key = &file["keys"][text(&case["key"])];
    let suite: Suite = serde_json::from_value(key["suite"].clone()).unwrap();
    let seed = hex(&key["seed"]).try_into().unwrap();
    let private = PrekeyPrivate::restore(suite, text(&key["prekey_id"]).parse().unwrap(), seed);

    let trust = &file["trusts"][text(&case["trust"])];
    let roots = list(&trust["roots"])
        .iter()
        .map(|root| VerifyingKey::from_bytes(&hex(root).try_into().unwrap()).unwrap())
        .collect();
    let mut tenant = TenantTrust::new(text(&trust["tenant"]).parse().unwrap(), roots);
    if trust["status"].is_string() {
        tenant.accept_status(&hex(&trust["status"]), now).unwrap();
    }
    open(sealed, &context(&case["context"]), &private, &tenant, now).map_err(|error| error.code())
}

fn context(value: &Value) -> MessageContext {
    MessageContext {
        tenant: text(&value["tenant"]).parse().unwrap(),
        transport_id: text(&value["transport_id"]).parse().unwrap(),
        device: text(&value["device"]).parse().unwrap(),
        identity: text(&value["identity"]).parse().unwrap(),
        expires_at: UnixTime(number(&value["expires_at"])),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn hex(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(text(value).as_bytes()).unwrap()
}
