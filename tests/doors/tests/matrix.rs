//! Every operation of both documents, each call that is to be refused: the answer is a problem of the one
//! table that the document gives to the operation, and nothing is stored.

use sealpost_doors::matrix::Faults;
use sealpost_doors::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_refuses_what_is_wrong_and_stores_nothing() {
    refuses(Stage::relay().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keyserver_refuses_what_is_wrong_and_stores_nothing() {
    refuses(Stage::keyserver().await).await;
}

/// Codes that the state of a server brings about, at any operation.
const OF_THE_SERVER: [&str; 4] = ["internal", "unavailable", "out_of_space", "rate_limited"];

/// Codes that take a state which the stage does not have; each has its test with its server.
const OF_A_STATE: [(&str, &str); 11] = [
    ("events", "cursor_gone"),
    ("register", "version_conflict"),
    ("status", "not_found"),
    ("submit", "status_stale"),
    // The relay forgets a revoked device at once; one that waits in a sync is told.
    ("sync", "revoked"),
    ("claim", "conflict"),
    // A body that is cut off, where none is taken.
    ("device", "malformed_body"),
    ("device", "ticket_unavailable"),
    ("putPrekeys", "conflict"),
    ("putPrekeys", "invalid_value"),
    ("putPrekeys", "ticket_unavailable"),
];

async fn refuses(stage: Stage) {
    let faults = Faults::of(&stage).await;
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
