//! The OpenAPI documents say what the servers are: routes, sizes, bodies, codes.

use std::collections::BTreeSet;

use sealpost_doors::document::Document;
use sealpost_doors::shape::{Shape, check, shape};
use sealpost_service::server::Operation;
use sealpost_wire::api::{StatusBody, TokenRequest, TokenResponse, keyserver, relay};
use sealpost_wire::prekey::ProvenPrekey;
use sealpost_wire::problem::{Problem, ProblemCode};
use sealpost_wire::slot::SlotClaim;
use serde_json::Value;

/// Bodies that no type of the contract stands for.
const WITHOUT_TYPE: [&str; 2] = ["OAuthError", "Done"];

fn common_shapes() -> Vec<Shape> {
    vec![
        shape::<Problem>("Problem"),
        shape::<StatusBody>("StatusBody"),
        shape::<TokenResponse>("TokenResponse"),
    ]
}

fn relay_shapes() -> Vec<Shape> {
    let own = vec![
        shape::<relay::SubmittedBox>("SubmittedBox"),
        shape::<relay::Submission>("Submission"),
        shape::<SlotClaim>("SlotClaim"),
        shape::<relay::DeliveryStatus>("DeliveryStatus"),
        shape::<relay::MessageStatus>("MessageStatus"),
        shape::<relay::Event>("Event"),
        shape::<relay::EventPage>("EventPage"),
        shape::<relay::PushRegistration>("PushRegistration"),
        shape::<relay::DeviceRegistration>("DeviceRegistration"),
        shape::<relay::DeviceRegistered>("DeviceRegistered"),
        shape::<relay::SyncRequest>("SyncRequest"),
        shape::<relay::WaitingBox>("WaitingBox"),
        shape::<relay::SyncResponse>("SyncResponse"),
    ];
    [common_shapes(), own].concat()
}

fn keyserver_shapes() -> Vec<Shape> {
    let own = vec![
        shape::<keyserver::TicketBody>("TicketBody"),
        shape::<keyserver::TicketState>("TicketState"),
        shape::<keyserver::ClaimBody>("ClaimBody"),
        shape::<keyserver::CloseBody>("CloseBody"),
        shape::<keyserver::DeviceSetBody>("DeviceSetBody"),
        shape::<keyserver::DeviceSetState>("DeviceSetState"),
        shape::<keyserver::PrekeyCount>("PrekeyCount"),
        shape::<keyserver::DeviceState>("DeviceState"),
        shape::<keyserver::PrekeyUpload>("PrekeyUpload"),
        shape::<keyserver::PrekeysStored>("PrekeysStored"),
        shape::<keyserver::LookUp>("LookUp"),
        shape::<ProvenPrekey>("ProvenPrekey"),
        shape::<keyserver::DevicePrekeys>("DevicePrekeys"),
        shape::<keyserver::LookedUp>("LookedUp"),
        shape::<keyserver::KeyPackageCount>("KeyPackageCount"),
        shape::<keyserver::KeyPackageUpload>("KeyPackageUpload"),
        shape::<keyserver::KeyPackagesStored>("KeyPackagesStored"),
        shape::<keyserver::KeyPackageLookUp>("KeyPackageLookUp"),
        shape::<keyserver::FoundKeyPackage>("FoundKeyPackage"),
        shape::<keyserver::KeyPackagesFound>("KeyPackagesFound"),
        shape::<keyserver::PeerLookUp>("PeerLookUp"),
        shape::<keyserver::PeerPrekey>("PeerPrekey"),
        shape::<keyserver::Peer>("Peer"),
        shape::<keyserver::PeersFound>("PeersFound"),
        shape::<keyserver::Consent>("Consent"),
        shape::<keyserver::ConsentList>("ConsentList"),
    ];
    [common_shapes(), own].concat()
}

#[test]
fn the_relays_document_is_in_step() {
    in_step(sealpost_relay::routes::DOCUMENT, &sealpost_relay::routes::operations(), &relay_shapes());
}

#[test]
fn the_keyservers_document_is_in_step() {
    let operations = sealpost_keyserver::routes::operations();
    in_step(sealpost_keyserver::routes::DOCUMENT, &operations, &keyserver_shapes());
}

fn in_step(text: &str, routes: &[Operation], shapes: &[Shape]) {
    let document = Document::read(text);
    let operations = document.operations();
    let line = |method: &http::Method, path: &str, bytes| format!("{method} {path}, {bytes} bytes");
    let described: BTreeSet<_> =
        operations.iter().map(|one| line(&one.method, &one.path, one.body_bytes_max)).collect();
    let routed: BTreeSet<_> =
        routes.iter().map(|one| line(&one.method, one.path, one.body_bytes_max)).collect();
    assert_eq!(described, routed, "the document, and the router");

    let ids: BTreeSet<_> = operations.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids.len(), operations.len(), "operation ids are unique");
    for operation in &operations {
        operation.check_codes();
        operation.check_parameters();
    }

    let token = serde_json::from_value::<TokenRequest>(document.schema("TokenRequest")["example"].clone());
    assert!(token.is_ok(), "{token:?}");
    let with_type: BTreeSet<_> = shapes.iter().map(|(name, _)| *name).chain(["TokenRequest"]).collect();
    let all: BTreeSet<_> = with_type.into_iter().chain(WITHOUT_TYPE).collect();
    let undescribed: Vec<_> = document.schemas().into_iter().filter(|name| !all.contains(name)).collect();
    assert!(undescribed.is_empty(), "no type is compared with {undescribed:?}");
    for one in shapes {
        check(*one, document.schema(one.0));
    }
    let codes = document.schema("Problem")["properties"]["code"]["enum"].clone();
    let codes: BTreeSet<String> = serde_json::from_value(codes).expect("codes");
    assert_eq!(codes, ProblemCode::ALL.iter().map(|code| code.code().to_owned()).collect());
}

/// The checks above, on documents that say something else than the code.
#[test]
fn a_document_out_of_step_is_found() {
    let text = sealpost_relay::routes::DOCUMENT;
    let changed = |change: fn(&mut Value)| {
        let mut value: Value = serde_json::from_str(text).expect("the document is JSON");
        change(&mut value);
        let text = value.to_string();
        std::panic::catch_unwind(|| {
            in_step(&text, &sealpost_relay::routes::operations(), &relay_shapes());
        })
    };
    assert!(changed(|_| {}).is_ok());
    let faults: [fn(&mut Value); 7] = [
        |value| drop(value["paths"].as_object_mut().and_then(|paths| paths.remove("/v1/sync"))),
        |value| value["paths"]["/v1/extra"] = value["paths"]["/healthz"].clone(),
        |value| value["paths"]["/v1/sync"]["post"]["x-body-bytes-max"] = 1.into(),
        |value| value["paths"]["/v1/sync"]["post"]["x-problem-codes"] = serde_json::json!(["internal"]),
        |value| value["components"]["schemas"]["SyncRequest"]["required"] = serde_json::json!(["after"]),
        |value| {
            let schema = &mut value["components"]["schemas"]["Submission"];
            drop(schema.as_object_mut().and_then(|schema| schema.remove("additionalProperties")));
        },
        |value| {
            let example = &mut value["components"]["schemas"]["Event"]["example"];
            drop(example.as_object_mut().and_then(|example| example.remove("late")));
        },
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        assert!(changed(fault).is_err(), "fault {number} goes unnoticed");
    }
}
