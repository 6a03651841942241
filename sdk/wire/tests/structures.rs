//! Runs `tests/vectors/structures.json`: every signed structure but the sealed message, taken or refused with
//! its code.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER;
use sealpost_wire::admission::Admission;
use sealpost_wire::api::relay::Submission;
use sealpost_wire::assertion::AssertionClaims;
use sealpost_wire::base64url::{self, Base64Url};
use sealpost_wire::certificate::Purpose;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::device_set::DeviceSet;
use sealpost_wire::http_signature::{RequestParts, SignatureHeaders, SignedRequest};
use sealpost_wire::id::DeviceId;
use sealpost_wire::key::{RequestKey, VerifyingKey};
use sealpost_wire::member::{MailboxStatement, MemberCredential};
use sealpost_wire::merkle;
use sealpost_wire::order::WipeOrder;
use sealpost_wire::prekey::{PrekeyBatch, PrekeyLeaf, ProvenPrekey, VerifiedPrekey};
use sealpost_wire::receipt::{ReceiptStatement, SignedReceipt};
use sealpost_wire::record::{DeviceRecord, Enrolment};
use sealpost_wire::ticket::TicketSecret;
use sealpost_wire::trust::TenantTrust;
use serde_json::{Value, json};

/// What a structure says, or the code of the error that refuses it.
type Read = Result<Value, &'static str>;

#[test]
fn every_structure_is_read_or_refused_with_its_code() {
    let file: Value = serde_json::from_str(include_str!("../../../tests/vectors/structures.json")).unwrap();
    let mut wrong = Vec::new();
    let (mut names, mut counts) = (BTreeSet::new(), BTreeMap::new());
    for structure in file["structures"].as_array().unwrap() {
        let (kind, given) = (text(&structure["kind"]), &structure["given"]);
        let read = match kind {
            "certificate" => certificate(&file, given),
            "status" => status(&file, given),
            "wipe" => wipe(&file, given),
            "admission" => admission(&file, given),
            "mailbox" => mailbox(&file, given),
            "member" => member(&file, given),
            "device_set" => device_set(&file, given),
            "ticket" => Ok(ticket(given)),
            "record" => record(given),
            "enrolment" => enrolment(given),
            "prekey_leaf" => prekey_leaf(given),
            "prekey_batch" => prekey_batch(given),
            "prekey" => prekey(given),
            "tree" => Ok(tree(given)),
            "receipt" => receipt(given),
            "request" => request(given),
            "assertion" => assertion(&file, given),
            "submission" => Ok(submission(given)),
            other => panic!("no such kind: {other}"),
        };
        let expected = match structure["code"].as_str() {
            Some(code) => Err(code),
            None => Ok(structure["read"].clone()),
        };
        if read != expected {
            wrong.push(format!("{}: {read:?}, not {expected:?}", structure["name"]));
        }
        assert!(names.insert(text(&structure["name"]).to_owned()), "{} twice", structure["name"]);
        *counts.entry(kind.to_owned()).or_insert(0) += 1;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(counts.len(), 18, "{counts:?}");
}

fn trust(file: &Value, given: &Value) -> TenantTrust {
    let trust = &file["trusts"][text(&given["trust"])];
    let roots = trust["roots"].as_array().unwrap().iter().map(verifying_key).collect();
    let mut tenant = TenantTrust::new(text(&trust["tenant"]).parse().unwrap(), roots);
    if trust["status"].is_string() {
        tenant.accept_status(&hex(&trust["status"]), UnixTime(1_800_000_000)).unwrap();
    }
    tenant
}

fn certificate(file: &Value, given: &Value) -> Read {
    let purpose = match text(&given["purpose"]) {
        "send" => Purpose::Send,
        "request" => Purpose::Request,
        "enrol" => Purpose::Enrol,
        _ => Purpose::Revoke,
    };
    let certificate = trust(file, given)
        .certificate(&hex(&given["bytes"]), purpose, time(&given["time"]))
        .map_err(|error| error.code())?;
    Ok(json!({
        "tenant": certificate.tenant,
        "purpose": given["purpose"],
        "subject": certificate.subject,
        "id": certificate.id,
        "key": key_json(&certificate.key),
        "key_id": certificate.key.key_id(),
        "not_before": certificate.not_before,
        "not_after": certificate.not_after,
        "roles": certificate.roles,
    }))
}

fn status(file: &Value, given: &Value) -> Read {
    let mut trust = trust(file, given);
    let changed =
        trust.accept_status(&hex(&given["bytes"]), time(&given["now"])).map_err(|error| error.code())?;
    let status = trust.status().unwrap();
    Ok(json!({
        "sequence": status.sequence,
        "issued": status.issued,
        "revoked_keys": status.revoked_keys,
        "revoked_devices": status.revoked_devices,
        "changed": changed,
    }))
}

fn wipe(file: &Value, given: &Value) -> Read {
    let (device, identity) =
        (text(&given["device"]).parse().unwrap(), text(&given["identity"]).parse().unwrap());
    let order = WipeOrder::verify(&hex(&given["bytes"]), &trust(file, given), device, identity)
        .map_err(|error| error.code())?;
    Ok(json!({ "id": order.id, "issued": order.issued }))
}

fn admission(file: &Value, given: &Value) -> Read {
    let admission =
        Admission::verify(&hex(&given["bytes"]), &trust(file, given)).map_err(|error| error.code())?;
    Ok(json!({
        "device": admission.record.device,
        "issued": admission.issued,
        "identity_key": HEXLOWER.encode(admission.record.identity_key.as_bytes()),
    }))
}

fn mailbox(file: &Value, given: &Value) -> Read {
    let record = DeviceRecord::verify(&hex(&given["record"])).unwrap();
    let (statement, certificate) =
        MailboxStatement::verify(&hex(&given["bytes"]), &trust(file, given), &record)
            .map_err(|error| error.code())?;
    Ok(json!({ "sender": certificate.subject, "device": statement.device, "issued": statement.issued }))
}

fn member(file: &Value, given: &Value) -> Read {
    let bytes = hex(&given["bytes"]);
    let credential = MemberCredential::read(&bytes).map_err(|error| error.code())?;
    assert_eq!(credential.to_bytes(), bytes);
    let member = credential.verify(&trust(file, given)).map_err(|error| error.code())?;
    Ok(json!({
        "device": member.record().device,
        "identity_key": HEXLOWER.encode(member.record().identity_key.as_bytes()),
        "sender": member.sender,
    }))
}

fn device_set(file: &Value, given: &Value) -> Read {
    let trust = trust(file, given);
    // The previous set was verified when it came; it may have been a removal of its own.
    let previous = given["previous"].is_string().then(|| {
        let bytes = hex(&given["previous"]);
        match DeviceSet::verify(&bytes, &trust, None) {
            Ok((set, _)) => set,
            Err(_) => removal(file, &trust, &bytes),
        }
    });
    let (set, signer) =
        DeviceSet::verify(&hex(&given["bytes"]), &trust, previous.as_ref()).map_err(|error| error.code())?;
    let devices: Vec<_> = set.devices.iter().map(|device| device.record.device).collect();
    assert!(devices.iter().all(|device| set.device(*device).is_some()));
    Ok(json!({
        "recipient": set.recipient,
        "version": set.version,
        "digest": set.digest,
        "devices": devices,
        "revoked": set.revoked,
        "issued": set.issued,
        "signer": signer.subject,
        "follows": set.follows(previous.as_ref()),
    }))
}

/// The set in `bytes`, which is valid only after the set before it: that is in the file too.
fn removal(file: &Value, trust: &TenantTrust, bytes: &[u8]) -> DeviceSet {
    file["structures"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|structure| structure["kind"] == "device_set" && structure["given"]["previous"].is_string())
        .find_map(|structure| {
            let (before, _) = DeviceSet::verify(&hex(&structure["given"]["previous"]), trust, None).ok()?;
            DeviceSet::verify(bytes, trust, Some(&before)).ok()
        })
        .unwrap()
        .0
}

fn ticket(given: &Value) -> Value {
    let secret = TicketSecret::from_bytes(array(&given["secret"]));
    json!({
        "ticket": secret.ticket_id(),
        "claim_token": HEXLOWER.encode(secret.claim_token().expose()),
        "claim_digest": secret.claim_token().digest(),
    })
}

fn record(given: &Value) -> Read {
    let record = DeviceRecord::verify(&hex(&given["bytes"])).map_err(|error| error.code())?;
    Ok(json!({
        "tenant": record.tenant,
        "ticket": record.ticket,
        "device": record.device,
        "identity_key": HEXLOWER.encode(record.identity_key.as_bytes()),
        "request_key": key_json(&record.request_key),
        "suites": record.suites,
        "relay": record.relay,
        "created": record.created,
    }))
}

fn enrolment(given: &Value) -> Read {
    let bytes = hex(&given["bytes"]);
    let binding = TicketSecret::from_bytes(array(&given["ticket_secret"])).binding_key();
    let enrolment = Enrolment::read(&bytes).map_err(|error| error.code())?;
    enrolment.verify_binding(&binding).map_err(|error| error.code())?;
    Ok(json!({
        "device": enrolment.record().device,
        "record_digest": enrolment.record_digest(),
        "code": binding.code(&bytes),
    }))
}

fn prekey_leaf(given: &Value) -> Read {
    let bytes = hex(&given["bytes"]);
    let leaf = PrekeyLeaf::read(&bytes).map_err(|error| error.code())?;
    assert_eq!(leaf.to_bytes(), bytes);
    Ok(json!({
        "device": leaf.device,
        "prekey_id": leaf.id(),
        "suite": leaf.suite,
        "kind": leaf.kind,
        "key": HEXLOWER.encode(&leaf.key),
        "seal_until": leaf.seal_until,
        "open_until": leaf.open_until,
    }))
}

fn prekey_batch(given: &Value) -> Read {
    let record = DeviceRecord::verify(&hex(&given["record"])).unwrap();
    let leaves: Vec<_> =
        given["leaves"].as_array().unwrap().iter().map(|leaf| Base64Url(hex(leaf))).collect();
    let batch =
        PrekeyBatch::verify(&hex(&given["bytes"]), &record.tenant, record.device, &record.identity_key)
            .map_err(|error| error.code())?;
    let read = batch.verify_leaves(&leaves, record.device).map_err(|error| error.code())?;
    assert_eq!(read.len(), leaves.len());
    Ok(json!({ "root": batch.root, "size": batch.size, "created": batch.created }))
}

fn prekey(given: &Value) -> Read {
    let record = DeviceRecord::verify(&hex(&given["record"])).unwrap();
    let proven: ProvenPrekey = serde_json::from_value(given["proven"].clone()).unwrap();
    let prekey =
        VerifiedPrekey::verify(&proven, &record, time(&given["now"])).map_err(|error| error.code())?;
    Ok(json!({ "prekey_id": prekey.leaf().id() }))
}

fn tree(given: &Value) -> Value {
    let leaves: Vec<_> = given["leaves"].as_array().unwrap().iter().map(hex).collect();
    let root = merkle::root(&leaves);
    let paths: Vec<_> = (0..leaves.len()).map(|index| merkle::path(&leaves, index).unwrap()).collect();
    for (index, path) in paths.iter().enumerate() {
        assert!(merkle::verify(&leaves[index], index as u64, leaves.len() as u64, path, &root));
    }
    json!({ "root": root, "paths": paths })
}

fn receipt(given: &Value) -> Read {
    let bytes = hex(&given["bytes"]);
    let device: DeviceId = text(&given["device"]).parse().unwrap();
    let tenant = text(&given["tenant"]).parse().unwrap();
    let receipt = SignedReceipt::read(&bytes)
        .map_err(|error| error.code())?
        .verify(&tenant, device, &verifying_key(&given["identity_key"]))
        .map_err(|error| error.code())?;
    let (kind, reason) = match &receipt.statement {
        ReceiptStatement::Fetched => (None, None),
        ReceiptStatement::Unopenable(reason) => (None, Some(reason)),
        ReceiptStatement::Opened(kind)
        | ReceiptStatement::Confirmed(kind)
        | ReceiptStatement::Declined(kind) => (Some(kind), None),
    };
    Ok(json!({
        "transport_id": receipt.transport_id,
        "sealed": receipt.sealed,
        "state": receipt.statement.state(),
        "kind": kind,
        "reason": reason,
        "time": receipt.time,
    }))
}

fn request(given: &Value) -> Read {
    let parts = RequestParts {
        method: text(&given["method"]),
        authority: text(&given["authority"]),
        path: text(&given["path"]),
        query: given["query"].as_str(),
        body: text(&given["body"]).as_bytes(),
    };
    let header = |name: &str| text(&given[name]).to_owned();
    let headers = SignatureHeaders {
        content_digest: header("content_digest"),
        signature_input: header("signature_input"),
        signature: header("signature"),
    };
    let key = match given["key"]["alg"].as_i64() {
        Some(-19) => RequestKey::Ed25519(verifying_key(&given["key"]["key"])),
        _ => RequestKey::P256(array(&given["key"]["key"])),
    };
    let request = SignedRequest::read(&parts, &headers).map_err(|error| error.code())?;
    request.verify(&key, time(&given["now"])).map_err(|error| error.code())?;
    Ok(json!({ "tenant": request.tenant, "device": request.device, "created": request.created }))
}

fn assertion(file: &Value, given: &Value) -> Read {
    let jwt = text(&given["jwt"]);
    let (signed, signature) = jwt.rsplit_once('.').unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let header: Value = serde_json::from_slice(&base64url::decode(header).unwrap()).unwrap();
    let claims: AssertionClaims = serde_json::from_slice(&base64url::decode(claims).unwrap()).unwrap();
    let now = time(&given["now"]);
    let certificate = trust(file, given)
        .certificate(claims.sealpost_certificate.as_ref(), Purpose::Request, now)
        .map_err(|error| error.code())?;
    let signature = base64url::decode(signature).unwrap().try_into().unwrap();
    certificate.key.verify(signed.as_bytes(), &signature).map_err(|error| error.code())?;
    assert_eq!(header["kid"], json!(certificate.key.key_id()));
    assert_eq!((claims.iss.as_str(), claims.aud.as_str()), (claims.sub.as_str(), text(&given["audience"])));
    assert_eq!(claims.iat, now.0);
    Ok(json!({ "client": claims.iss, "roles": certificate.roles, "exp": claims.exp }))
}

fn submission(given: &Value) -> Value {
    let submission: Submission = serde_json::from_value(given["submission"].clone()).unwrap();
    json!({ "digest": submission.digest() })
}

fn key_json(key: &RequestKey) -> Value {
    let alg = if matches!(key, RequestKey::Ed25519(_)) { -19 } else { -9 };
    json!({ "alg": alg, "key": HEXLOWER.encode(key.as_bytes()) })
}

fn verifying_key(value: &Value) -> VerifyingKey {
    VerifyingKey::from_bytes(&array(value)).unwrap()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    hex(value).try_into().unwrap()
}

fn time(value: &Value) -> UnixTime {
    UnixTime(value.as_u64().unwrap())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn hex(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(text(value).as_bytes()).unwrap()
}
