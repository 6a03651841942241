//! Nobody learns from an answer whether an id of somebody else is there: to a stranger, known and unknown ids
//! are the same in status, headers and body, the id itself apart.

use std::collections::BTreeMap;

use http::Method;
use rand_core::Rng as _;
use sealpost_doors::call::{Answer, Call};
use sealpost_doors::document::{Operation, Security};
use sealpost_doors::hospital::{Phone, rng};
use sealpost_doors::stage::{Stage, json_call, role};
use sealpost_wire::api::keyserver::ClaimBody;
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::certificate::Role;
use sealpost_wire::id::DeviceId;
use sealpost_wire::key::{P256SigningKey, RequestSigningKey};
use sealpost_wire::ticket::TicketSecret;

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_messages_and_devices_are_like_unknown_ones() {
    let stage = Stage::relay().await;
    another_tenants_ids_are_like_unknown_ones(&stage, &["submit", "message", "register"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_tickets_recipients_and_devices_are_like_unknown_ones() {
    let stage = Stage::keyserver().await;
    let operations = [
        "putTicket",
        "ticket",
        "close",
        "device",
        "putPrekeys",
        "putKeyPackages",
        "lookUpPeers",
        "lookUpKeyPackages",
        "putDevices",
        "devices",
        "lookUp",
        "consents",
        "putConsent",
        "consent",
    ];
    another_tenants_ids_are_like_unknown_ones(&stage, &operations).await;
}

/// Every operation of the document with an id in its path, asked by the other hospital.
async fn another_tenants_ids_are_like_unknown_ones(stage: &Stage, named: &[&str]) {
    let mut asked = Vec::new();
    // What is put becomes the other hospital's own, so that reading comes first.
    let (reading, writing): (Vec<_>, Vec<_>) =
        stage.document.operations().into_iter().partition(|one| one.method == Method::GET);
    for operation in reading.iter().chain(&writing) {
        let has_id = operation.parameters.iter().any(|one| one["in"] == "path");
        if !has_id || operation.security == Security::None {
            continue;
        }
        let before = stage.server.rows(&stage.mary.id);
        for way in operation.ways() {
            let mut answers = Vec::new();
            for ids in [stage.ids(), fresh(&stage.ids())] {
                let call = renamed(stage.bare(&way), &stage.ids(), &ids);
                let call = match way.security {
                    Security::Bearer => call.bearer(&stage.foreign_tokens[role(&way)]),
                    Security::Device | Security::None => {
                        stage.foreign_phone.sign(&stage.server.base, call, stage.now())
                    }
                };
                answers.push(seen(&call.send(&stage.server.base).await, &ids));
            }
            assert_eq!(answers[0], answers[1], "{} ({:?}): known, and unknown", way.id, way.security);
        }
        assert_eq!(stage.server.rows(&stage.mary.id), before, "{}", operation.id);
        asked.push(operation.id.clone());
    }
    asked.sort_unstable();
    let mut named = named.to_vec();
    named.sort_unstable();
    assert_eq!(asked, named, "the operations with an id");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_authors_message_is_like_an_unknown_one() {
    let stage = Stage::relay().await;
    let base = &stage.server.base;
    let token = stage.mary.token(base, "ward", &[Role::Sender], stage.now()).await;
    let operation = stage.operation("message");
    let mut answers = Vec::new();
    for ids in [stage.ids(), fresh(&stage.ids())] {
        let call = || renamed(stage.bare(&operation), &stage.ids(), &ids);
        let by_phone = stage.second_phone.sign(base, call(), stage.now());
        for call in [call().bearer(&token), by_phone] {
            answers.push(seen(&call.send(base).await.expect(404), &ids));
        }
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_device_of_the_same_tenant_is_like_an_unknown_one() {
    let stage = Stage::keyserver().await;
    for id in ["device", "putPrekeys", "putKeyPackages", "lookUpPeers"] {
        let operation = stage.operation(id);
        let mut answers = Vec::new();
        for ids in [stage.ids(), fresh(&stage.ids())] {
            let call = renamed(stage.bare(&operation), &stage.ids(), &ids);
            let call = stage.second_phone.sign(&stage.server.base, call, stage.now());
            answers.push(seen(&call.send(&stage.server.base).await.expect(404), &ids));
        }
        assert_eq!(answers[0], answers[1], "{id}");
    }
}

/// Who cannot sign for a device does not learn whether it, or its tenant, is known.
#[tokio::test(flavor = "multi_thread")]
async fn signers_that_are_not_known_are_like_wrong_ones() {
    for stage in [Stage::relay().await, Stage::keyserver().await] {
        let phone = &stage.phone;
        let key = RequestSigningKey::P256(P256SigningKey::generate(&mut rng()));
        let wrong = Phone { request: key, ..phone.clone() };
        let signers = [
            Phone { id: DeviceId::random(&mut rng()), ..wrong.clone() },
            Phone { tenant: "nowhere".parse().unwrap(), ..phone.clone() },
            Phone { id: stage.foreign_phone.id, ..wrong.clone() },
        ];
        let operations = stage.document.operations();
        let ways = operations.iter().flat_map(|operation| operation.ways());
        for operation in ways.filter(|one| one.security == Security::Device) {
            let operation = &operation;
            let expected = signed(&stage, operation, &wrong).await;
            for signer in &signers {
                assert_eq!(signed(&stage, operation, signer).await, expected, "{}", operation.id);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_claim_token_every_ticket_is_like_an_unknown_one() {
    let stage = Stage::keyserver().await;
    let operation = stage.operation("claim");
    let known = ClaimBody { claim_token: Base64Url(vec![7; 32]), ..stage.known_claim() };
    let unknown = TicketSecret::generate(&mut rng());
    let (mary, john) = (stage.mary.phone(), stage.john.phone());
    let closed = stage.closed_ticket.ticket_id();
    let at =
        |ticket, body: &ClaimBody| json_call(Method::POST, &format!("/v1/tickets/{ticket}/claims"), body);
    let wrong = |phone: &Phone, secret| {
        let claim = stage.claim(phone, secret);
        ClaimBody { claim_token: Base64Url(vec![7; 32]), ..claim }
    };
    let calls = [
        at(unknown.ticket_id(), &stage.claim(&mary, &unknown)),
        at(closed, &wrong(&mary, &stage.closed_ticket)),
        at(closed, &stage.claim(&john, &stage.closed_ticket)),
        Call { path: stage.path(&operation), ..at(closed, &known) },
    ];
    let mut answers = Vec::new();
    for call in calls {
        answers.push(seen(&call.send(&stage.server.base).await.expect(401), &BTreeMap::new()));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
}

async fn signed(stage: &Stage, operation: &Operation, signer: &Phone) -> String {
    let call = signer.sign(&stage.server.base, stage.bare(operation), stage.now());
    seen(&call.send(&stage.server.base).await.expect(401), &BTreeMap::new())
}

/// Random ids under the same names. A category is no id.
fn fresh(ids: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let random = |(name, id): (&String, &String)| {
        let mut bytes = [0; 16];
        rng().fill_bytes(&mut bytes);
        let random = DeviceId(bytes).to_string();
        (name.clone(), if name == "category" { id.clone() } else { random })
    };
    ids.iter().map(random).collect()
}

/// The call with other ids in path and body.
fn renamed(call: Call, from: &BTreeMap<String, String>, to: &BTreeMap<String, String>) -> Call {
    let rename = |text: String| from.iter().fold(text, |text, (name, id)| text.replace(id, &to[name]));
    let body = rename(String::from_utf8(call.body).expect("text"));
    Call { path: rename(call.path), body: body.into_bytes(), ..call }
}

/// What a caller sees of an answer, without the ids that it sent.
fn seen(answer: &Answer, ids: &BTreeMap<String, String>) -> String {
    let mut headers = answer.headers.clone();
    headers.remove("date");
    let body = String::from_utf8(answer.body.to_vec()).expect("text");
    let body = ids.iter().fold(body, |text, (name, id)| text.replace(id, name));
    format!("{} {headers:?} {body}", answer.status)
}
