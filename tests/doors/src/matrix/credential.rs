//! Missing, expired, replayed and forged credentials, and those of somebody else.

use sealpost_wire::id::{DeviceId, TenantId};
use sealpost_wire::key::{P256SigningKey, RequestSigningKey};
use sealpost_wire::limits::REQUEST_WINDOW_SECONDS;
use sealpost_wire::problem::ProblemCode;

use super::Case;
use crate::call::Call;
use crate::document::{Operation, Security};
use crate::hospital::{Phone, rng};
use crate::stage::{ROLES, Stage, role};

/// More than the longest token that is looked at.
const LONG_TOKEN_BYTES: usize = 2000;

/// Access tokens.
pub(super) fn bearer(stage: &Stage, operation: &Operation) -> Vec<Case> {
    let bare = || stage.bare(operation);
    let token = &stage.tokens[role(operation)];
    let authorization = |value: String| bare().header("authorization", value);
    let query = if bare().path.contains('?') { '&' } else { '?' };
    let in_query = Call { path: format!("{}{query}access_token={token}", bare().path), ..bare() };
    let client = stage.mary.client("lab", &ROLES.map(|(role, _)| role), stage.now());
    let assertion = stage.mary.assertion(&client, &stage.server.base, stage.now());

    let signed = |call| stage.phone.sign(&stage.server.base, call, stage.now());
    let mut missing = vec![("no token", bare()), ("a token in the query", in_query)];
    let mut invalid = Vec::new();
    if operation.other_security == Some(Security::Device) {
        invalid.push(("a token and a device's signature", signed(bare()).bearer(token)));
        invalid.push(("no token and a device's signature", signed(authorization(String::new()))));
    } else {
        missing.push(("a device's signature", signed(bare())));
    }
    let missing = missing.into_iter();
    let missing = missing.map(|(name, call)| Case::new(name, call, ProblemCode::MissingCredentials));
    invalid.extend([
        ("another scheme", authorization("Basic c3QtbWFyeTpsYWI=".to_owned())),
        ("an empty token", authorization("Bearer ".to_owned())),
        ("a token without a scheme", authorization(token.clone())),
        ("two tokens", bare().bearer(token).bearer(token)),
        ("a long token", bare().bearer(&"x".repeat(LONG_TOKEN_BYTES))),
        ("half a token", bare().bearer(&token[..token.len() / 2])),
        ("another header", bare().bearer(&altered(token, 0))),
        ("other claims", bare().bearer(&altered(token, 1))),
        ("a forged MAC", bare().bearer(&altered(token, 2))),
        ("an unauthenticated token", bare().bearer(&unauthenticated(token))),
        ("an assertion instead of a token", bare().bearer(&assertion)),
        ("an expired token", bare().bearer(&stage.expired_tokens[role(operation)])),
        ("a token of another server", bare().bearer(&stage.strange_token)),
    ]);
    let invalid = invalid.into_iter();
    let invalid = invalid.map(|(name, call)| Case::new(name, call, ProblemCode::InvalidCredentials));
    let revoked = Case::new("a revoked client", bare().bearer(&stage.revoked_token), ProblemCode::Revoked);
    let others = ROLES
        .iter()
        .filter(|(_, name)| !operation.roles.is_empty() && !operation.roles.iter().any(|role| role == name));
    let others = others.map(|(_, name)| {
        let call = bare().bearer(&stage.tokens[name]);
        Case::new(format!("the role {name}"), call, ProblemCode::Forbidden)
    });
    missing.chain(invalid).chain([revoked]).chain(others).collect()
}

/// Signatures of devices.
pub(super) fn device(stage: &Stage, operation: &Operation) -> Vec<Case> {
    let bare = || stage.bare(operation);
    let (base, now, phone) = (&stage.server.base, stage.now(), &stage.phone);
    let signed = || phone.sign(base, bare(), now);
    let by = |phone: &Phone| phone.sign(base, bare(), now);
    let mut cases = vec![Case::new("no signature", bare(), ProblemCode::MissingCredentials)];
    if operation.other_security != Some(Security::Bearer) {
        let call = bare().bearer(&stage.tokens["sender"]);
        cases.push(Case::new("a token", call, ProblemCode::MissingCredentials));
    }
    for name in ["content-digest", "signature-input", "signature"] {
        let code = ProblemCode::MissingCredentials;
        cases.push(Case::new(format!("without {name}"), signed().without(name), code));
        let value = signed().value(name).to_owned();
        let code = ProblemCode::InvalidCredentials;
        cases.push(Case::new(format!("{name} twice"), signed().header(name, value), code));
        let nonsense = signed().without(name).header(name, "nonsense");
        cases.push(Case::new(format!("{name} of nonsense"), nonsense, code));
        let long = signed().without(name).header(name, "x".repeat(LONG_TOKEN_BYTES));
        cases.push(Case::new(format!("a long {name}"), long, code));
    }

    let key = || RequestSigningKey::P256(P256SigningKey::generate(&mut rng()));
    let nowhere: TenantId = "nowhere".parse().expect("a tenant");
    let other_query = Call { path: format!("{}?after=1", bare().path), ..bare() };
    let invalid = [
        ("another key", by(&Phone { request: key(), ..phone.clone() })),
        ("an unknown device", by(&Phone { id: DeviceId::random(&mut rng()), ..phone.clone() })),
        ("an unknown tenant", by(&Phone { tenant: nowhere, ..phone.clone() })),
        ("a signature for another server", phone.sign("http://relay.example", bare(), now)),
        ("a signature of another method", Call { method: bare().method, ..other_method(stage, bare()) }),
        ("a signature of another query", Call { path: bare().path, ..phone.sign(base, other_query, now) }),
    ];
    let invalid = invalid.map(|(name, call)| Case::new(name, call, ProblemCode::InvalidCredentials));
    cases.extend(invalid);
    if operation.body.is_some() {
        let call = Call { body: other_body(bare()), ..signed() };
        cases.push(Case::new("a signature of another body", call, ProblemCode::InvalidCredentials));
    }
    // Where the key comes with an admission, that is another tenant's first.
    let other_tenant = by(&Phone { tenant: stage.john.id.clone(), ..phone.clone() });
    let codes = [ProblemCode::InvalidCredentials, ProblemCode::InvalidStructure];
    cases.push(Case::one_of("another tenant", other_tenant, &codes));
    // The relay has forgotten it with its mailbox.
    let codes = [ProblemCode::Revoked, ProblemCode::InvalidCredentials];
    cases.push(Case::one_of("a revoked device", by(&stage.lost_phone), &codes));
    for (name, created) in [
        ("an old signature", now.minus(REQUEST_WINDOW_SECONDS + 1)),
        ("an early signature", now.plus(REQUEST_WINDOW_SECONDS + 1)),
    ] {
        cases.push(Case::new(name, phone.sign(base, bare(), created), ProblemCode::ClockSkew));
    }
    let again = signed();
    let replayed = Case::new("the same request again", again.clone(), ProblemCode::Replayed);
    cases.push(Case { first: Some(again), ..replayed });
    cases
}

/// One part of a token with another letter in its middle.
fn altered(token: &str, part: usize) -> String {
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let text = &mut parts[part];
    let middle = text.len() / 2;
    let letter = if text.as_bytes()[middle] == b'A' { "B" } else { "A" };
    text.replace_range(middle..=middle, letter);
    parts.join(".")
}

/// The claims of a token under `{"alg":"none","typ":"JWT"}`.
fn unauthenticated(token: &str) -> String {
    let claims = token.split('.').nth(1).expect("claims");
    format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{claims}.")
}

fn other_method(stage: &Stage, call: Call) -> Call {
    let other = if call.method == http::Method::GET { http::Method::PUT } else { http::Method::GET };
    stage.phone.sign(&stage.server.base, Call { method: other, ..call }, stage.now())
}

/// The body with white space behind it, which the JSON would bear.
fn other_body(call: Call) -> Vec<u8> {
    [call.body, b" ".to_vec()].concat()
}
