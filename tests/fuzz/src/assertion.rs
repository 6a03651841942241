//! Client assertions, at the token endpoint of either server.

use sealpost_service::access::VerifiedAssertion;
use sealpost_wire::assertion::AssertionClaims;
use sealpost_wire::base64url::{decode, encode};

use crate::world::{NOW, world};

pub(crate) const AUDIENCE: &str = "https://relay.example/v1/token";

/// Input: a JWT; or its header and its claims on a line each, which are then signed by the request key.
pub(crate) fn client_assertion(input: &[u8]) {
    let world = world();
    let Ok(text) = std::str::from_utf8(input) else { return };
    let jwt = match text.split_once('\n') {
        Some((header, claims)) => {
            let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
            format!("{signed}.{}", encode(&world.request.key.sign(signed.as_bytes())))
        }
        None => text.to_owned(),
    };
    let Ok(verified) = VerifiedAssertion::verify(&jwt, AUDIENCE, &world.tenants, NOW) else { return };
    assert_eq!(verified.tenant().id(), &world.tenant);
    assert_eq!(verified.key(), world.request.key.verifying_key().key_id());
    let claims = jwt.split('.').nth(1).and_then(decode).expect("a JWT has claims");
    let claims: AssertionClaims = serde_json::from_slice(&claims).expect("they were verified");
    assert_eq!((claims.aud.as_str(), &claims.iss), (AUDIENCE, &claims.sub));
    assert_eq!(claims.iss, format!("{}/{}", world.tenant, verified.subject()));
    assert_eq!(claims.sealpost_certificate.as_ref(), world.request.certificate);
    assert!(claims.exp.abs_diff(NOW.0) <= 360 && claims.iat <= claims.exp);
}
