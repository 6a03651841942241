//! Every operation of both documents, each call that is to be refused: the answer is a problem of the one
//! table that the document gives to the operation, and nothing is stored.

use std::panic::{AssertUnwindSafe, catch_unwind};

use sealpost_doors::document::Document;
use sealpost_doors::matrix::{Faults, cases};
use sealpost_doors::stage::Stage;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_refuses_what_is_wrong_and_stores_nothing() {
    refuses(Stage::relay().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keyserver_refuses_what_is_wrong_and_stores_nothing() {
    refuses(Stage::keyserver().await).await;
}

/// Without this, the calls of the matrix could be refused for something else than what is wrong with them.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_caller_is_answered_as_described() {
    for stage in [Stage::relay().await, Stage::keyserver().await] {
        let operations = stage.document.operations();
        for operation in operations.iter().flat_map(|operation| operation.ways()) {
            let call = stage.let_in(&operation, stage.bare(&operation));
            let answer = call.send(&stage.server.base).await;
            assert!(answer.status.is_success(), "{}: {answer:?}", operation.id);
            let described = &operation.responses[answer.status.as_str()]["content"];
            let media = answer.headers.get("content-type").map(|value| value.to_str().expect("text"));
            let media = media.map(|value| value.split(';').next().expect("a type"));
            let is_described = media.map_or(described.is_null(), |media| described[media].is_object());
            assert!(is_described, "{}: {media:?}", operation.id);
        }
        stage.server.end().await;
    }
}

/// The matrix, on a document that says less than the server does.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_described_is_found() {
    let mut stage = Stage::keyserver().await;
    let mut document: Value = serde_json::from_str(sealpost_keyserver::routes::DOCUMENT).expect("JSON");
    document["paths"]["/v1/status"]["put"]["x-problem-codes"] = json!(["malformed_body"]);
    // An operation without credentials that takes a body: nobody has said how it refuses.
    let mut extra = document["paths"]["/v1/tickets/{ticket}/claims"].clone();
    extra["post"]["operationId"] = json!("extra");
    document["paths"]["/v1/tickets/{ticket}/extra"] = extra;
    stage.document = Document::read(&document.to_string());

    let operation = stage.operation("putStatus");
    let faults = Faults::of(&stage, &operation).await.faults;
    assert!(faults.iter().any(|fault| fault.contains("forbidden is not described")), "{faults:#?}");
    let extra = stage.operation("extra");
    assert!(catch_unwind(AssertUnwindSafe(|| cases(&stage, &extra))).is_err());
}

/// Codes that the state of a server, or a slow connection, brings about at any operation.
const OF_THE_SERVER: [&str; 5] =
    ["internal", "unavailable", "out_of_space", "rate_limited", "request_timeout"];

/// Codes that take a state which the stage does not have; each has its test with its server.
const OF_A_STATE: [(&str, &str); 15] = [
    ("events", "cursor_gone"),
    // A body that is cut off, where none is taken.
    ("message", "malformed_body"),
    ("register", "version_conflict"),
    ("status", "not_found"),
    ("submit", "status_stale"),
    // The relay forgets a revoked device at once; one that waits in a sync is told.
    ("sync", "revoked"),
    ("claim", "conflict"),
    ("device", "malformed_body"),
    ("device", "ticket_unavailable"),
    ("putPrekeys", "conflict"),
    ("putPrekeys", "invalid_value"),
    ("putPrekeys", "ticket_unavailable"),
    ("putKeyPackages", "ticket_unavailable"),
    ("lookUpKeyPackages", "ticket_unavailable"),
    ("lookUpPeers", "ticket_unavailable"),
];

async fn refuses(stage: Stage) {
    let mut faults = Faults::default();
    for operation in stage.document.operations() {
        faults.extend(Faults::of(&stage, &operation).await);
    }
    assert!(faults.faults.is_empty(), "{} cases, faults:\n{}", faults.cases, faults.faults.join("\n"));
    let mut unseen = Vec::new();
    for operation in stage.document.operations() {
        let seen = faults.seen.get(&operation.id).cloned().unwrap_or_default();
        let left = operation.codes.difference(&seen).filter(|code| {
            !OF_THE_SERVER.contains(&code.as_str()) && !OF_A_STATE.contains(&(&operation.id, code.as_str()))
        });
        unseen.extend(left.map(|code| format!("{}: {code}", operation.id)));
    }
    assert!(unseen.is_empty(), "described, and never answered: {unseen:#?}");
    stage.server.end().await;
}
