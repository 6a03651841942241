//! What the documents do not say: credentials and signed structures in bodies that are somebody else's, for
//! another purpose, or over.

use http::Method;
use sealpost_wire::api::keyserver::{
    ClaimBody, Consent, KeyPackageLookUp, KeyPackageUpload, LookUp, PeerLookUp, TicketBody,
};
use sealpost_wire::api::relay::{DeviceRegistration, Submission, SubmittedBox, SyncRequest};
use sealpost_wire::assertion::{self, ASSERTION_TYPE, GRANT_TYPE};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::certificate::{Purpose, Role};
use sealpost_wire::id::{DeviceId, Digest, SlotId, TicketId, TransportId};
use sealpost_wire::key::SigningKey;
use sealpost_wire::limits::{PEERS_PER_LOOK_UP_MAX, RECEIPTS_PER_SYNC_MAX, SLOT_SEQUENCE_MAX};
use sealpost_wire::payload::Priority;
use sealpost_wire::problem::ProblemCode;
use sealpost_wire::slot::{SlotCapability, SlotClaim};
use sealpost_wire::ticket::TicketSecret;
use serde::Serialize;

use super::{Case, with_json};
use crate::call::Call;
use crate::document::{Operation, Security};
use crate::hospital::{Hospital, Phone, rng, token_call};
use crate::stage::{Stage, key_packages, prekeys, sealed};

/// The cases of an operation, by its id.
///
/// # Panics
/// An operation that knows its caller by the body alone is not here.
pub(super) fn cases(stage: &Stage, operation: &Operation) -> Vec<Case> {
    match operation.id.as_str() {
        "requestToken" => token(stage),
        "putStatus" => status(stage, operation),
        "submit" => submission(stage, operation),
        "register" => registration(stage, operation),
        "sync" => sync(stage, operation),
        "putTicket" => ticket(stage, operation),
        "claim" => claim(stage, operation),
        "putPrekeys" => prekey(stage, operation),
        "putKeyPackages" => key_package(stage, operation),
        "lookUpKeyPackages" => key_package_look_up(stage, operation),
        "lookUpPeers" => peers(stage, operation),
        "putDevices" => device_set(stage, operation),
        "lookUp" => look_up(stage, operation),
        "putConsent" => consent(stage, operation),
        other => {
            let takes_nothing = operation.body.is_none() && operation.parameters.is_empty();
            let is_open = operation.security == Security::None;
            assert!(
                !is_open || takes_nothing,
                "{other} knows its caller by the body: say here how it refuses"
            );
            Vec::new()
        }
    }
}

/// RFC 7523 section 3: signature, issuer, audience, time, once; RFC 6749 section 5.2 for the rest.
fn token(stage: &Stage) -> Vec<Case> {
    let (mary, john, base, now) = (&stage.mary, &stage.john, &stage.server.base, stage.now());
    let client = mary.client("lab", &[Role::Sender], now);
    let assertion = || mary.assertion(&client, base, now);
    let forged = |name: &str| {
        // The names of one client, the key of another.
        let id = assertion::client_id(&mary.id, &name.parse().expect("a subject"));
        let (audience, key) = (format!("{base}/v1/token"), mary.client(name, &[Role::Sender], now).key);
        assertion::sign(&id, &audience, &client.certificate, &key, now, &mut rng())
    };
    let of_purpose = |purpose| {
        let client = mary.client_for(purpose, "lab", &[], now);
        mary.assertion(&client, base, now)
    };
    let without_signature = assertion().rsplit_once('.').expect("a signature").0.to_owned() + ".";
    let later = mary.client("lab", &[Role::Sender], now.plus(10_000));
    let refused = [
        ("no JWT", "nonsense".to_owned()),
        ("a JWT without a signature", without_signature),
        ("an assertion by another key", forged("lab")),
        ("an assertion in another's name", forged("ward")),
        (
            "an assertion under another tenant's certificate",
            mary.assertion(&john.client("lab", &[Role::Sender], now), base, now),
        ),
        ("an assertion of another tenant in the name of this", john.assertion(&client, base, now)),
        (
            "an assertion of an unknown tenant",
            Hospital::new("nowhere", now).assertion_of_new("lab", base, now),
        ),
        ("an assertion for another server", mary.assertion(&client, "http://relay.example", now)),
        ("an assertion that is over", mary.assertion(&client, base, now.minus(400))),
        ("an assertion from the future", mary.assertion(&client, base, now.plus(400))),
        ("a certificate that does not hold yet", mary.assertion(&later, base, now)),
        ("a certificate to send", of_purpose(Purpose::Send)),
        ("a certificate to enrol", of_purpose(Purpose::Enrol)),
        ("a certificate to revoke", of_purpose(Purpose::Revoke)),
        ("a revoked key", mary.assertion(stage.former(), base, now)),
    ];
    let mut cases: Vec<_> = refused
        .into_iter()
        .map(|(name, assertion)| Case::oauth(name, token_call(&assertion), "invalid_client"))
        .collect();
    let used = token_call(&assertion());
    let replayed = Case::oauth("an assertion that was used", used.clone(), "invalid_client");
    cases.push(Case { first: Some(used), ..replayed });
    cases.extend(forms(&assertion()));
    cases
}

/// Token requests that are not the form they should be.
fn forms(assertion: &str) -> Vec<Case> {
    let kind = ASSERTION_TYPE.replace(':', "%3A");
    let right = token_call(assertion);
    let text = String::from_utf8(right.body.clone()).expect("text");
    let with = |body: String| Call { body: body.into_bytes(), ..right.clone() };
    let json = right.clone().without("content-type").header("content-type", "application/json");
    let field =
        |name: &str| text.split('&').filter(|one| !one.starts_with(name)).collect::<Vec<_>>().join("&");
    let malformed = [
        ("no content type", right.clone().without("content-type")),
        ("JSON", json),
        ("an empty form", with(String::new())),
        ("half a form", with(text[..text.len() / 2].replace("client_assertion=", "client="))),
        ("no grant type", with(field("grant_type="))),
        ("no assertion type", with(field("client_assertion_type="))),
        ("no assertion", with(field("client_assertion="))),
        ("another assertion type", with(text.replace(&kind, "jwt"))),
        ("an assertion twice", with(format!("{text}&client_assertion=x"))),
        ("a grant type twice", with(format!("{text}&grant_type={GRANT_TYPE}"))),
    ];
    let malformed = malformed.map(|(name, call)| Case::oauth(name, call, "invalid_request"));
    let grant = with(text.replace(GRANT_TYPE, "password"));
    let scopes = ["sender revoker", "revoker", "root", "", "sender  sender", "%00"];
    let scopes = scopes.map(|scope| {
        let call = with(format!("{text}&scope={}", scope.replace(' ', "+")));
        Case::oauth(format!("the scope {scope:?}"), call, "invalid_scope")
    });
    let grant = Case::oauth("another grant type", grant, "unsupported_grant_type");
    malformed.into_iter().chain([grant]).chain(scopes).collect()
}

fn status(stage: &Stage, operation: &Operation) -> Vec<Case> {
    let (mary, john) = (&stage.mary, &stage.john);
    let other_root = Hospital::new(mary.id.as_str(), stage.now());
    let bodies = [
        ("a status signed by a key to enrol", stage.status(mary, &mary.enrol)),
        ("another tenant's status", stage.status(john, &john.revoke)),
        ("a status signed by another tenant's key", stage.status(mary, &john.revoke)),
        ("a status under another root", stage.status(mary, &other_root.revoke)),
        ("another status of the same number", stage.status_at(stage.now().minus(3600))),
    ];
    bodies.map(|(name, body)| invalid(stage, operation, name, &body)).into()
}

fn submission(stage: &Stage, operation: &Operation) -> Vec<Case> {
    let one = |sealed: Vec<u8>| SubmittedBox { device: stage.phone.id, sealed: Base64Url(sealed) };
    let of = |boxes: Vec<SubmittedBox>, seconds: i64| Submission {
        expires_at: if seconds < 0 {
            stage.now().minus(seconds.unsigned_abs())
        } else {
            stage.now().plus(seconds.unsigned_abs())
        },
        priority: Priority::Normal,
        boxes,
        slot: None,
    };
    let mut torn = sealed();
    torn.truncate(torn.len() / 2);
    let bodies = [
        ("another content under the same id", of(vec![one(sealed())], 3600), ProblemCode::Conflict),
        ("a message that is over", of(vec![one(sealed())], -1), ProblemCode::InvalidExpiry),
        ("a message that lives too long", of(vec![one(sealed())], 32 * 86_400), ProblemCode::InvalidExpiry),
        ("a device twice", of(vec![one(sealed()), one(sealed())], 3600), ProblemCode::InvalidValue),
        ("half a box", of(vec![one(torn)], 3600), ProblemCode::InvalidStructure),
        (
            "a box with more behind it",
            of(vec![one([sealed(), vec![0]].concat())], 3600),
            ProblemCode::InvalidStructure,
        ),
        ("a box of nothing", of(vec![one(Vec::new())], 3600), ProblemCode::InvalidStructure),
    ];
    let mut cases: Vec<_> = bodies.map(|(name, body, code)| with(stage, operation, name, &body, code)).into();
    cases.extend(claims(stage, operation, &of(vec![one(sealed())], 3600)));
    cases
}

/// Claims on the slot that the stage has made, under ids of their own.
fn claims(stage: &Stage, operation: &Operation, submission: &Submission) -> Vec<Case> {
    let made = stage.slot_claim();
    let (sequence, shown) = (made.sequence + 1, Some(stage.slot_capability()));
    let right = SlotClaim { sequence, capability: shown, next: Digest([1; 32]), ..made };
    let forged = Some(SlotCapability::from_bytes([8; 32]));
    let stale = SlotClaim { sequence: sequence - 1, ..right.clone() };
    let cases = [
        ("a stale claim", stale.clone(), ProblemCode::SlotConflict),
        (
            "a stale claim that shows nothing",
            SlotClaim { capability: None, ..stale },
            ProblemCode::SlotConflict,
        ),
        (
            "a claim that is ahead",
            SlotClaim { sequence: sequence + 1, ..right.clone() },
            ProblemCode::SlotConflict,
        ),
        (
            "a forged capability",
            SlotClaim { capability: forged, ..right.clone() },
            ProblemCode::SlotForbidden,
        ),
        ("no capability", SlotClaim { capability: None, ..right.clone() }, ProblemCode::SlotForbidden),
        (
            "a claim on an unknown slot",
            SlotClaim { slot: SlotId::random(&mut rng()), ..right.clone() },
            ProblemCode::SlotUnknown,
        ),
        (
            "a sequence above the highest",
            SlotClaim { sequence: SLOT_SEQUENCE_MAX + 1, ..right.clone() },
            ProblemCode::InvalidValue,
        ),
    ];
    let with_claim = |claim: serde_json::Value| {
        let path = format!("/v1/messages/{}", TransportId::random(&mut rng()));
        let mut body = serde_json::to_value(submission).expect("a body");
        body["slot"] = claim;
        let call = Call::new(Method::PUT, &path).body("application/json", json(&body));
        stage.let_in(operation, call)
    };
    let value = |claim: &SlotClaim| serde_json::to_value(claim).expect("a claim");
    let mut refused: Vec<_> = cases
        .into_iter()
        .map(|(name, claim, code)| Case::new(name, with_claim(value(&claim)), code))
        .collect();
    let malformed = [
        ("slot", serde_json::json!("0")),
        ("sequence", serde_json::json!(-1)),
        ("sequence", serde_json::json!("1")),
        ("capability", serde_json::json!("AA")),
        ("capability", serde_json::json!([0])),
        ("next", serde_json::json!("00")),
        ("next", serde_json::Value::Null),
        ("more", serde_json::json!(1)),
    ];
    for (field, fault) in malformed {
        let mut claim = value(&right);
        claim[field] = fault;
        let name = format!("a claim with {field} of {}", claim[field]);
        refused.push(Case::new(name, with_claim(claim), ProblemCode::MalformedBody));
    }
    refused
}

fn registration(stage: &Stage, operation: &Operation) -> Vec<Case> {
    let admitted = |hospital: &Hospital, phone: &Phone, base: &str, signer| {
        let record = phone.record(base, TicketId([3; 16]), stage.now());
        let admission = Base64Url(hospital.admit(&record, stage.now(), signer));
        DeviceRegistration { admission, push: None }
    };
    let (mary, john, phone, base) = (&stage.mary, &stage.john, &stage.phone, &stage.server.base);
    let thief = Phone { identity: stage.second_phone.identity.clone(), ..phone.clone() };
    let own = admitted(mary, phone, base, &mary.enrol);
    let path = format!("/v1/devices/{}", stage.second_phone.id);
    let elsewhere = Call::new(Method::PUT, &path).body("application/json", json(&own));
    let cases = [
        (
            "an admission by a key to revoke",
            admitted(mary, phone, base, &mary.revoke),
            ProblemCode::InvalidStructure,
        ),
        (
            "an admission by another tenant",
            admitted(mary, phone, base, &john.enrol),
            ProblemCode::InvalidStructure,
        ),
        (
            "another device's admission",
            admitted(mary, &stage.second_phone, base, &mary.enrol),
            ProblemCode::InvalidCredentials,
        ),
        (
            "a revoked device's admission",
            admitted(mary, &stage.lost_phone, base, &mary.enrol),
            ProblemCode::Revoked,
        ),
        (
            "another identity under the same id",
            admitted(mary, &thief, base, &mary.enrol),
            ProblemCode::Conflict,
        ),
        (
            "an admission to another relay",
            admitted(mary, phone, "https://relay.example", &mary.enrol),
            ProblemCode::InvalidValue,
        ),
    ];
    let mut cases: Vec<_> =
        cases.into_iter().map(|(name, body, code)| with(stage, operation, name, &body, code)).collect();
    let call = stage.let_in(operation, elsewhere);
    cases.push(Case::new("another device in the path", call, ProblemCode::InvalidValue));
    cases
}

fn sync(stage: &Stage, operation: &Operation) -> Vec<Case> {
    let receipts = vec![Base64Url(vec![0]); RECEIPTS_PER_SYNC_MAX + 1];
    let body = SyncRequest { receipts, ..SyncRequest::default() };
    vec![with(stage, operation, "too many receipts", &body, ProblemCode::InvalidValue)]
}

fn ticket(stage: &Stage, operation: &Operation) -> Vec<Case> {
    let secret = TicketSecret::generate(&mut rng());
    let of = |expires_at| TicketBody { claim_digest: secret.claim_token().digest(), expires_at };
    let now = stage.now();
    vec![
        with(stage, operation, "another content under the same id", &of(now.plus(60)), ProblemCode::Conflict),
        with(stage, operation, "a ticket that is over", &of(now), ProblemCode::InvalidExpiry),
        with(
            stage,
            operation,
            "a ticket that lives too long",
            &of(now.plus(3600)),
            ProblemCode::InvalidExpiry,
        ),
    ]
}

/// The claim token is the credential.
fn claim(stage: &Stage, operation: &Operation) -> Vec<Case> {
    let known = stage.known_claim();
    let unknown = TicketSecret::generate(&mut rng());
    let at = |ticket: TicketId, body: &ClaimBody| {
        let path = format!("/v1/tickets/{ticket}/claims");
        Call::new(Method::POST, &path).body("application/json", json(body))
    };
    let here = |body: &ClaimBody| with_json(stage, operation, &serde_json::to_value(body).expect("a body"));
    let token = |bytes: &[u8]| ClaimBody { claim_token: Base64Url(bytes.to_vec()), ..known.clone() };
    let torn = &known.enrolment.0[..known.enrolment.0.len() / 2];
    let torn = ClaimBody { enrolment: Base64Url(torn.to_vec()), ..known.clone() };
    let other = Hospital::new("nowhere", stage.now()).phone();
    let invalid = ProblemCode::InvalidCredentials;
    let by = |phone: &Phone, secret: &TicketSecret| at(secret.ticket_id(), &stage.claim(phone, secret));
    let cases = [
        ("another claim token", here(&token(&[7; 32])), invalid),
        ("half a claim token", here(&token(&[7; 16])), invalid),
        ("no claim token", here(&token(&[])), invalid),
        ("an unknown ticket", by(&stage.mary.phone(), &unknown), invalid),
        ("another tenant's device", by(&stage.john.phone(), &stage.closed_ticket), invalid),
        ("an unknown tenant's device", by(&other, &stage.closed_ticket), invalid),
        ("a closed ticket", by(&stage.mary.phone(), &stage.closed_ticket), ProblemCode::TicketUnavailable),
        ("a revoked device", by(&stage.lost_phone, &unknown), ProblemCode::Revoked),
        ("half an enrolment", here(&torn), ProblemCode::InvalidStructure),
        ("another ticket's enrolment", at(unknown.ticket_id(), &known), ProblemCode::InvalidStructure),
    ];
    cases.into_iter().map(|(name, call, code)| Case::new(name, call, code)).collect()
}

fn prekey(stage: &Stage, operation: &Operation) -> Vec<Case> {
    let now = stage.now();
    let thief = Phone { identity: stage.second_phone.identity.clone(), ..stage.phone.clone() };
    let mut torn = prekeys(&stage.phone, now);
    torn.leaves[0].0.pop();
    let bodies = [
        ("another device's prekeys", prekeys(&stage.second_phone, now)),
        ("prekeys signed by another key", prekeys(&thief, now)),
        ("another tenant's prekeys", prekeys(&stage.foreign_phone, now)),
        ("a prekey that is not of its batch", torn),
    ];
    let mut cases: Vec<_> = bodies.map(|(name, body)| invalid(stage, operation, name, &body)).into();
    let old = prekeys(&stage.phone, now.minus(200 * 86_400));
    cases.push(with(stage, operation, "prekeys that are over", &old, ProblemCode::InvalidExpiry));
    cases
}

fn key_package(stage: &Stage, operation: &Operation) -> Vec<Case> {
    let (mary, john, phone, now) = (&stage.mary, &stage.john, &stage.phone, stage.now());
    let of = |phone: &Phone| key_packages(phone, mary, &mary.enrol, now);
    let thief = Phone { identity: stage.second_phone.identity.clone(), ..phone.clone() };
    let changed = |change: fn(&mut Vec<u8>)| {
        let mut body = of(phone);
        body.packages.iter_mut().for_each(|package| change(&mut package.0));
        body
    };
    let bodies = [
        ("another device's key packages", of(&stage.second_phone)),
        ("key packages of another identity", of(&thief)),
        ("another tenant's key packages", key_packages(&stage.foreign_phone, john, &john.enrol, now)),
        ("an admission by another tenant", key_packages(phone, mary, &john.enrol, now)),
        ("an admission by a key to revoke", key_packages(phone, mary, &mary.revoke, now)),
        ("half a key package", changed(|package| package.truncate(package.len() / 2))),
        ("a key package with more behind it", changed(|package| package.push(0))),
        ("a key package with another signature", changed(|package| *package.last_mut().expect("bytes") ^= 1)),
        ("a key package of nothing", changed(Vec::clear)),
    ];
    let mut cases: Vec<_> = bodies.map(|(name, body)| invalid(stage, operation, name, &body)).into();
    let old = key_packages(phone, mary, &mary.enrol, now.minus(61 * 86_400));
    cases.push(with(stage, operation, "key packages that are over", &old, ProblemCode::InvalidExpiry));
    let good = of(phone);
    let twice = [good.packages.clone(), good.packages.clone()].concat();
    let last_resort = good.last_resort.clone().into_iter().collect();
    let values = [
        ("no suite", KeyPackageUpload { suite: 0, ..good.clone() }),
        ("another suite", KeyPackageUpload { suite: 0x4d, ..good.clone() }),
        ("no key packages", KeyPackageUpload { packages: Vec::new(), last_resort: None, ..good.clone() }),
        ("a key package twice", KeyPackageUpload { packages: twice, ..good.clone() }),
        ("a last resort to be used once", KeyPackageUpload { packages: last_resort, ..good.clone() }),
        (
            "a last resort that is none",
            KeyPackageUpload { last_resort: good.packages.first().cloned(), ..good.clone() },
        ),
    ];
    let code = ProblemCode::InvalidValue;
    cases.extend(values.map(|(name, body)| with(stage, operation, name, &body, code)));
    let known = stage.known_key_packages().packages;
    let mixed = KeyPackageUpload { packages: [known, good.packages.clone()].concat(), ..good };
    cases.push(with(stage, operation, "a known key package with others", &mixed, ProblemCode::Conflict));
    cases.push(waiting(stage, operation));
    cases
}

fn key_package_look_up(stage: &Stage, operation: &Operation) -> Vec<Case> {
    let of = |suite, category: &str| KeyPackageLookUp { suite, category: category.to_owned() };
    let code = ProblemCode::ConsentMissing;
    let audited = with(stage, operation, "a category without consent", &of(3, "meals"), code);
    vec![
        Case { expected: super::Expected::Audited(code), ..audited },
        with(stage, operation, "no category", &of(3, ""), ProblemCode::InvalidValue),
        with(stage, operation, "an unknown suite", &of(2, "lab-results"), ProblemCode::InvalidValue),
        waiting(stage, operation),
    ]
}

fn peers(stage: &Stage, operation: &Operation) -> Vec<Case> {
    let many = (0..=PEERS_PER_LOOK_UP_MAX).map(|_| DeviceId::random(&mut rng())).collect();
    let twice = vec![stage.second_phone.id; 2];
    let of = |devices: Vec<DeviceId>| PeerLookUp { devices };
    vec![
        with(stage, operation, "too many devices", &of(many), ProblemCode::InvalidValue),
        with(stage, operation, "a device twice", &of(twice), ProblemCode::InvalidValue),
        waiting(stage, operation),
    ]
}

/// A device that waits for an enroller is no member of anything.
fn waiting(stage: &Stage, operation: &Operation) -> Case {
    let (own, waiting) = (stage.phone.id.to_string(), &stage.second_phone);
    let bare = stage.bare(operation);
    let call = Call { path: bare.path.replace(&own, &waiting.id.to_string()), ..bare };
    let call = waiting.sign(&stage.server.base, call, stage.now());
    Case::new("a device that waits for its admission", call, ProblemCode::Forbidden)
}

fn device_set(stage: &Stage, operation: &Operation) -> Vec<Case> {
    let (mary, john) = (&stage.mary, &stage.john);
    let record = |phone: &Phone| phone.record("https://relay.example", TicketId([3; 16]), stage.now());
    let (own, foreign) = (record(&stage.second_phone), record(&stage.foreign_phone));
    let other_root = Hospital::new(mary.id.as_str(), stage.now());
    let set = |record: &[u8], hospital: &Hospital, signer: &(SigningKey, Vec<u8>)| {
        stage.device_set(stage.recipient, record, hospital, signer)
    };
    let bodies = [
        ("a set signed by a key to revoke", set(&own, mary, &mary.revoke)),
        ("another tenant's set", set(&foreign, john, &john.enrol)),
        ("a set signed by another tenant's key", set(&own, mary, &john.enrol)),
        ("a set under another root", set(&own, mary, &other_root.enrol)),
    ];
    let mut cases: Vec<_> = bodies.map(|(name, body)| invalid(stage, operation, name, &body)).into();
    let first_again = set(&own, mary, &mary.enrol);
    let code = ProblemCode::VersionConflict;
    cases.push(with(stage, operation, "another set of the same version", &first_again, code));
    cases
}

/// A refusal that is audited: who asked for what the recipient has not agreed to.
fn look_up(stage: &Stage, operation: &Operation) -> Vec<Case> {
    let of = |category: &str| LookUp { category: category.to_owned(), one_time: true };
    let code = ProblemCode::ConsentMissing;
    let audited = with(stage, operation, "a category without consent", &of("meals"), code);
    vec![
        Case { expected: super::Expected::Audited(code), ..audited },
        with(stage, operation, "no category", &of(""), ProblemCode::InvalidValue),
        with(stage, operation, "a category of other letters", &of("lab results"), ProblemCode::InvalidValue),
    ]
}

fn consent(stage: &Stage, operation: &Operation) -> Vec<Case> {
    let of = |method: &str, given_at| Consent {
        granted: true,
        given_at,
        recorded_by: "portal".to_owned(),
        method: method.to_owned(),
        document: None,
    };
    let now = stage.now();
    vec![
        with(stage, operation, "an older consent", &of("portal", now.minus(3600)), ProblemCode::Conflict),
        with(
            stage,
            operation,
            "a consent from the future",
            &of("portal", now.plus(600)),
            ProblemCode::InvalidValue,
        ),
        with(stage, operation, "a control character", &of("por\u{1}tal", now), ProblemCode::InvalidValue),
    ]
}

fn invalid<T: Serialize>(stage: &Stage, operation: &Operation, name: &str, body: &T) -> Case {
    with(stage, operation, name, body, ProblemCode::InvalidStructure)
}

fn with<T: Serialize>(stage: &Stage, operation: &Operation, name: &str, body: &T, code: ProblemCode) -> Case {
    let body = serde_json::to_value(body).expect("a body");
    Case::new(name, with_json(stage, operation, &body), code)
}

fn json<T: Serialize>(body: &T) -> Vec<u8> {
    serde_json::to_vec(body).expect("a body")
}
