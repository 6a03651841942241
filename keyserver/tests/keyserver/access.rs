//! Who gets a token, and what a token opens.

use data_encoding::BASE64URL_NOPAD;
use http::Method;
use sealpost_wire::api::TokenResponse;
use sealpost_wire::assertion::AssertionClaims;
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::certificate::{Certificate, Purpose, Role};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::key::{RequestKey, RequestSigningKey, SignRequest as _, SigningKey};
use serde_json::{Value, json};

use crate::client::{Answer, Call};
use crate::world::{START, Tenant, TestClient, World, certificate, recipient, rng, token_call};

/// An assertion that a test can spoil.
struct Draft {
    header: Value,
    claims: Value,
    key: SigningKey,
}

impl Draft {
    /// A good one, for a new key that the tenant's root has certified.
    fn new(world: &World) -> Self {
        Self::certified(world, &world.tenant, |_| {}, &world.tenant.root)
    }

    fn certified(
        world: &World,
        tenant: &Tenant,
        change: impl FnOnce(&mut Certificate),
        root: &SigningKey,
    ) -> Self {
        let key = SigningKey::generate(&mut rng());
        let public = RequestKey::Ed25519(key.verifying_key());
        let subject = "lab".parse().unwrap();
        let mut draft = certificate(&tenant.id, Purpose::Request, &subject, public, vec![Role::Sender]);
        change(&mut draft);
        let client = format!("{}/lab", tenant.id);
        let claims = AssertionClaims {
            iss: client.clone(),
            sub: client,
            aud: format!("{}/v1/token", world.http.base()),
            iat: world.now().0,
            exp: world.now().0 + 300,
            jti: format!("{:x}", rand_core::Rng::next_u64(&mut rng())),
            sealpost_certificate: Base64Url(draft.sign(root).unwrap()),
        };
        let header = json!({ "alg": "EdDSA", "typ": "JWT", "kid": public.key_id().to_string() });
        Self { header, claims: serde_json::to_value(claims).unwrap(), key }
    }

    fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims[name] = value.into();
        self
    }

    fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header[name] = value.into();
        self
    }

    fn signed(self) -> String {
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let input = format!("{}.{}", part(&self.header), part(&self.claims));
        let signature = BASE64URL_NOPAD.encode(&self.key.sign(input.as_bytes()));
        format!("{input}.{signature}")
    }
}

#[track_caller]
fn expect_oauth_error(answer: &Answer, status: u16, error: &str, description: &str) {
    let value: Value = answer.expect(status);
    let said = value["error_description"].as_str().unwrap();
    assert_eq!(value["error"], error, "{said}");
    assert!(said.contains(description), "{said}");
}

#[tokio::test]
async fn a_certified_client_gets_a_token_for_its_roles() {
    let world = World::new().await;
    for (client, scope) in [(&world.tenant.sender, "sender"), (&world.tenant.enroller, "enroller")] {
        let answer = world.ask_for_token(&client.assertion(world.http.base(), world.now())).await;
        assert_eq!(answer.headers["cache-control"], "no-store");
        let token: TokenResponse = answer.expect(200);
        assert_eq!(
            (token.token_type.as_str(), token.expires_in, token.scope.as_str()),
            ("bearer", 300, scope)
        );
    }
}

#[tokio::test]
async fn forged_assertions_get_no_token() {
    let world = World::new().await;
    let now = world.now().0;
    let wrong_root = SigningKey::generate(&mut rng());
    let of_other = |tenant: &Tenant, root: &SigningKey| Draft::certified(&world, tenant, |_| {}, root);
    let changed =
        |change: fn(&mut Certificate)| Draft::certified(&world, &world.tenant, change, &world.tenant.root);
    let mut wrong_key = Draft::new(&world);
    wrong_key.key = SigningKey::generate(&mut rng());
    let nowhere = Tenant::new("nowhere");

    for (name, draft, description) in [
        ("a wrong root", of_other(&world.tenant, &wrong_root), "certificate"),
        ("another tenant's root", of_other(&world.tenant, &world.other.root), "certificate"),
        ("an unknown tenant", of_other(&nowhere, &nowhere.root), "tenant"),
        (
            "a certificate for another purpose",
            changed(|certificate| {
                certificate.purpose = Purpose::Send;
                certificate.roles.clear();
            }),
            "certificate",
        ),
        (
            "an expired certificate",
            changed(|certificate| certificate.not_after = START.minus(1)),
            "certificate",
        ),
        (
            "an early certificate",
            changed(|certificate| certificate.not_before = START.plus(1)),
            "certificate",
        ),
        ("another key", wrong_key, "signature"),
        ("another audience", Draft::new(&world).claim("aud", "https://relay.example/v1/token"), "audience"),
        ("another subject", Draft::new(&world).claim("sub", "st-mary/portal"), "another client"),
        ("another issuer", Draft::new(&world).claim("iss", "st-other/lab"), "another client"),
        ("another key id", Draft::new(&world).header("kid", "00".repeat(16)), "another client"),
        ("an expired one", Draft::new(&world).claim("iat", now - 400).claim("exp", now - 100), "time"),
        ("one from the future", Draft::new(&world).claim("iat", now + 100).claim("exp", now + 200), "time"),
        ("one that lives too long", Draft::new(&world).claim("exp", now + 301), "5 minutes"),
        ("one that ends before it begins", Draft::new(&world).claim("exp", now - 1), "time"),
        ("one without jti", Draft::new(&world).claim("jti", ""), "claims"),
        ("one with a huge jti", Draft::new(&world).claim("jti", "x".repeat(200)), "claims"),
        ("one with another algorithm", Draft::new(&world).header("alg", "ES256"), "algorithm"),
        ("one with a MAC", Draft::new(&world).header("alg", "HS256"), "algorithm"),
        ("one with none", Draft::new(&world).header("alg", "none"), "algorithm"),
    ] {
        let answer = world.ask_for_token(&draft.signed()).await;
        assert_eq!(answer.status, 401, "{name}");
        expect_oauth_error(&answer, 401, "invalid_client", description);
    }
    let unsigned = Draft::new(&world).header("alg", "none").signed();
    let unsigned = unsigned.rsplit_once('.').unwrap().0;
    expect_oauth_error(
        &world.ask_for_token(&format!("{unsigned}.")).await,
        401,
        "invalid_client",
        "algorithm",
    );
    for bad in ["", "a.b", "a.b.c.d", "x", &"x".repeat(5000)] {
        assert_eq!(world.ask_for_token(bad).await.status, 401, "{bad}");
    }
    assert_eq!(world.ask_for_token(&Draft::new(&world).signed()).await.status, 200, "the good one");
}

#[tokio::test]
async fn an_assertion_is_used_once_also_across_a_restart() {
    let mut world = World::with("[limits]\nexpiry_seconds = 1\n").await;
    let base = world.http.base().to_owned();
    let assertion = world.tenant.sender.assertion(&base, world.now());
    let (first, second) = tokio::join!(world.ask_for_token(&assertion), world.ask_for_token(&assertion));
    let mut statuses = [first.status.as_u16(), second.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 401]);
    // The audience is the old address, which is what a server behind a fixed public_url would have kept.
    world.restart_at(&base).await;
    let answer = world.ask_for_token(&assertion).await;
    expect_oauth_error(&answer, 401, "invalid_client", "used before");
    world.pass(299);
    let answer = world.ask_for_token(&assertion).await;
    expect_oauth_error(&answer, 401, "invalid_client", "used before");
}

#[tokio::test]
async fn token_requests_have_one_form() {
    let world = World::new().await;
    let assertion = || world.tenant.sender.assertion(world.http.base(), world.now());
    let spoiled = async |from: &str, to: &str| {
        let mut call = token_call(&assertion());
        call.body = String::from_utf8(call.body).unwrap().replace(from, to).into_bytes();
        world.http.send(call).await
    };
    let password = spoiled("client_credentials", "password").await;
    expect_oauth_error(&password, 400, "unsupported_grant_type", "client_credentials");
    expect_oauth_error(&spoiled("grant_type=", "grant=").await, 400, "invalid_request", "grant_type");
    expect_oauth_error(&spoiled("jwt-bearer", "saml2-bearer").await, 400, "invalid_request", "jwt-bearer");
    let twice = spoiled("grant_type=", "grant_type=x&grant_type=").await;
    expect_oauth_error(&twice, 400, "invalid_request", "twice");
    let more = spoiled("&client_assertion=", "&scope=sender+enroller&client_assertion=").await;
    expect_oauth_error(&more, 400, "invalid_scope", "roles");
    let narrow: TokenResponse =
        spoiled("&client_assertion=", "&scope=sender&client_assertion=").await.expect(200);
    assert_eq!(narrow.scope, "sender");
    let mut json = token_call(&assertion());
    json.headers = vec![("content-type", "application/json".to_owned())];
    expect_oauth_error(&world.http.send(json).await, 400, "invalid_request", "form");
    let mut large = token_call(&assertion());
    large.body.extend_from_slice(&vec![b'x'; 10_000]);
    world.http.send(large).await.expect_problem("body_too_large");
}

#[tokio::test]
async fn only_a_good_token_opens_a_route() {
    let world = World::new().await;
    let path = format!("/v1/recipients/{}/devices", recipient());
    let ask = async |headers: Vec<(&'static str, String)>| {
        world.http.send(Call { headers, ..Call::new(Method::GET, &path) }).await
    };
    let none = ask(Vec::new()).await;
    none.expect_problem("missing_credentials");
    assert!(none.headers.contains_key("www-authenticate"));

    let token = world.token(&world.tenant.sender).await;
    let bearer = |token: &str| vec![("authorization", format!("Bearer {token}"))];
    ask(bearer(&token)).await.expect_problem("not_found");
    ask(vec![("authorization", format!("bearer {token}"))]).await.expect_problem("not_found");
    let (payload, mac) = token.rsplit_once('.').unwrap();
    let (header, claims) = payload.split_once('.').unwrap();
    let decoded = BASE64URL_NOPAD.decode(claims.as_bytes()).unwrap();
    let more = String::from_utf8(decoded).unwrap().replace("\"sender\"", "\"enroller\"");
    assert!(more.contains("enroller"));
    let more = BASE64URL_NOPAD.encode(more.as_bytes());
    let none = BASE64URL_NOPAD.encode(br#"{"alg":"none","typ":"at+jwt"}"#);
    for bad in [
        String::new(),
        format!("{payload}."),
        format!("{header}.{more}.{mac}"),
        format!("{none}.{claims}."),
        format!("{none}.{claims}.{mac}"),
        format!("{payload}.{}", "A".repeat(43)),
        "x".repeat(4000),
    ] {
        ask(bearer(&bad)).await.expect_problem("invalid_credentials");
    }
    ask(vec![("authorization", format!("Basic {token}"))]).await.expect_problem("invalid_credentials");
    ask([bearer(&token), bearer(&token)].concat()).await.expect_problem("invalid_credentials");

    world.clock.advance(std::time::Duration::from_secs(300));
    ask(bearer(&token)).await.expect_problem("invalid_credentials");
}

#[tokio::test]
async fn a_token_never_outlives_its_certificate() {
    let world = World::new().await;
    let short = Draft::certified(
        &world,
        &world.tenant,
        |certificate| certificate.not_after = START.plus(20),
        &world.tenant.root,
    );
    let token: TokenResponse = world.ask_for_token(&short.signed()).await.expect(200);
    assert_eq!(token.expires_in, 20);
}

#[tokio::test]
async fn roles_and_tenants_are_kept_apart() {
    let world = World::new().await;
    let recipient = recipient();
    world.enrolled_device(recipient, 1).await;
    let (sender, revoker) = (&world.tenant.sender, &world.tenant.revoker);
    let ticket = format!("/v1/tickets/{}", "00".repeat(16));
    let look_up = format!("/v1/recipients/{recipient}/look-up");
    let body = json!({ "category": "lab-results", "one_time": false });
    world.get(sender, &ticket).await.expect_problem("forbidden");
    world.get(revoker, &ticket).await.expect_problem("forbidden");
    world.post(&world.tenant.enroller, &look_up, &body).await.expect_problem("forbidden");
    world.post(revoker, &look_up, &body).await.expect_problem("forbidden");
    // What another tenant has is nothing.
    let devices = format!("/v1/recipients/{recipient}/devices");
    world.get(&world.other.sender, &devices).await.expect_problem("not_found");
    world.post(&world.other.sender, &look_up, &body).await.expect_problem("not_found");
    let foreign = format!("/v1/tickets/{}", world.ticket().await.ticket_id());
    world.get(&world.other.enroller, &foreign).await.expect_problem("not_found");
}

#[tokio::test]
async fn a_revoked_request_key_is_out_at_once() {
    let world = World::new().await;
    let path = format!("/v1/recipients/{}/devices", recipient());
    world.get(&world.tenant.sender, &path).await.expect_problem("not_found");
    let key = world.tenant.sender.key.request_key().key_id();
    let status = world.tenant.status(1, world.now(), &[key], &[]);
    assert_eq!(world.put_status(status).await.status, 200);
    world.get(&world.tenant.sender, &path).await.expect_problem("revoked");
    let answer = world.ask_for_token(&world.tenant.sender.assertion(world.http.base(), world.now())).await;
    expect_oauth_error(&answer, 401, "invalid_client", "revoked");
    // Others of the tenant, and the same subject with a new key, go on.
    world.get(&world.tenant.enroller, &path).await.expect_problem("not_found");
    let key = RequestSigningKey::Ed25519(SigningKey::generate(&mut rng()));
    let renewed = TestClient::new(&world.tenant.id, &world.tenant.root, "lab", key, vec![Role::Sender]);
    world.get(&renewed, &path).await.expect_problem("not_found");
}

#[tokio::test]
async fn tokens_are_audited_and_never_stored() {
    let mut world = World::new().await;
    let client = &world.tenant.sender;
    let assertion = client.assertion(world.http.base(), world.now());
    let token: TokenResponse = world.ask_for_token(&assertion).await.expect(200);
    world.stop().await;
    let store = world.read_store().await;
    let jti = {
        let claims = assertion.split('.').nth(1).unwrap();
        let claims: AssertionClaims =
            serde_json::from_slice(&BASE64URL_NOPAD.decode(claims.as_bytes()).unwrap()).unwrap();
        claims.jti
    };
    for secret in [&token.access_token, &assertion, &jti] {
        assert!(!store.contains(secret.as_bytes()), "{secret}");
    }
    let audit = store.audit(&world.tenant.id);
    let row = &audit[0].1;
    assert_eq!((audit[0].0, row.who.as_str(), row.outcome.as_str()), (1, "client:lab", "done"));
    assert_eq!(UnixTime(row.time_ms / 1000), START);
    assert_eq!(row.objects["scope"], "sender");
}
