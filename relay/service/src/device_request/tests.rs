use getrandom::SysRng;
use rand_core::UnwrapErr;
use sealpost_wire::http_signature::sign;
use sealpost_wire::id::{DeviceId, TenantId};
use sealpost_wire::key::{RequestSigningKey, SignRequest as _, SigningKey};

use super::*;
use crate::rates::RateOptions;
use crate::tenants::Tenants;

const START: UnixTime = UnixTime(1_800_000_000);

struct World {
    door: DeviceDoor,
    tenants: Tenants,
    tenant: TenantId,
    key: RequestSigningKey,
}

impl World {
    fn new() -> Self {
        let tenant: TenantId = "st-mary".parse().unwrap();
        let root = SigningKey::from_seed(&[1; 32]).verifying_key();
        let url = PublicUrl::parse("https://relay.example").unwrap();
        let metrics = Metrics::new();
        // No bound but the door's own.
        let device = RateOptions::default().client;
        let options = RateOptions { device, ..RateOptions::default() };
        let rates = Rates::new(&options, [&tenant], &metrics).unwrap();
        Self {
            door: DeviceDoor::new(&url, START, Arc::new(rates), &metrics).unwrap(),
            tenants: Tenants::new([(tenant.clone(), vec![root])]),
            tenant,
            key: RequestSigningKey::Ed25519(SigningKey::from_seed(&[2; 32])),
        }
    }

    fn headers(&self, device: u8, created: UnixTime) -> HeaderMap {
        let parts = RequestParts {
            method: "POST",
            authority: "relay.example",
            path: "/v1/sync",
            query: Some("a=b"),
            body: b"{}",
        };
        let device = DeviceId([device; 16]);
        let signed = sign(&parts, &self.tenant, device, &self.key, created, &mut UnwrapErr(SysRng));
        let mut headers = HeaderMap::new();
        headers.insert("content-digest", signed.content_digest.parse().unwrap());
        headers.insert("signature-input", signed.signature_input.parse().unwrap());
        headers.insert("signature", signed.signature.parse().unwrap());
        headers
    }

    fn ask(&self, headers: &HeaderMap, now: UnixTime) -> Result<(), Refusal> {
        let uri = Uri::from_static("/v1/sync?a=b");
        let request = self.door.read(&Method::POST, &uri, headers, b"{}")?;
        let tenant = self.tenants.tenant(&self.tenant).unwrap();
        self.door.admit(&request, tenant, Some(&self.key.request_key()), now)
    }
}

fn code(answer: Result<(), Refusal>) -> ProblemCode {
    answer.unwrap_err().code()
}

#[test]
fn a_request_is_let_in_once_for_as_long_as_its_signature_lasts() {
    let world = World::new();
    let created = START.plus(100);
    let headers = world.headers(1, created);
    assert_eq!(world.ask(&headers, created), Ok(()));
    for later in [0, 10, 59, 60] {
        // Others come in between and turn the window.
        let other = world.headers(2, created.plus(later));
        assert_eq!(world.ask(&other, created.plus(later)), Ok(()));
        assert_eq!(code(world.ask(&headers, created.plus(later))), ProblemCode::Replayed, "{later}");
    }
    assert_eq!(code(world.ask(&headers, created.plus(61))), ProblemCode::ClockSkew);
}

#[test]
fn a_request_from_the_future_is_remembered_until_its_window_ends() {
    let world = World::new();
    let now = START.plus(100);
    let headers = world.headers(1, now.plus(60));
    assert_eq!(world.ask(&headers, now), Ok(()));
    for later in [30, 60, 119, 120] {
        assert_eq!(code(world.ask(&headers, now.plus(later))), ProblemCode::Replayed, "{later}");
    }
}

#[test]
fn nothing_signed_before_the_door_opened_is_let_in_and_the_time_to_sign_with_is_told() {
    let world = World::new();
    for (created, now) in [(START.minus(30), START), (START.minus(1), START.minus(1))] {
        let refused = world.ask(&world.headers(1, created), now).unwrap_err();
        assert_eq!(refused, Refusal::new(ProblemCode::ClockSkew).server_time(START));
    }
    assert_eq!(world.ask(&world.headers(1, START), START.minus(1)), Ok(()));
}

#[test]
fn one_device_is_bounded_and_others_are_not() {
    let world = World::new();
    let now = START.plus(100);
    let asked = (0..1000).find(|_| world.ask(&world.headers(1, now), now).is_err());
    assert_eq!(asked, Some(200));
    assert_eq!(code(world.ask(&world.headers(1, now), now)), ProblemCode::RateLimited);
    assert_eq!(world.ask(&world.headers(2, now), now), Ok(()));
    assert_eq!(world.ask(&world.headers(1, now.plus(10)), now.plus(10)), Ok(()));
}

#[test]
fn what_is_over_is_forgotten() {
    let world = World::new();
    for minute in 1..50 {
        let now = START.plus(minute * 60);
        for device in 0..20 {
            assert_eq!(world.ask(&world.headers(device, now), now), Ok(()));
        }
        assert!(world.door.nonces.lock().unwrap().len() <= 60, "three minutes at most are in the window");
    }
    world.door.forget(START.plus(50 * 60 + 120));
    assert_eq!(world.door.nonces.lock().unwrap().len(), 0, "also when nobody asks any more");
}

#[test]
fn an_unknown_device_is_told_what_a_wrong_key_is() {
    let world = World::new();
    let now = START.plus(100);
    let uri = Uri::from_static("/v1/sync?a=b");
    let request = world.door.read(&Method::POST, &uri, &world.headers(1, now), b"{}").unwrap();
    let tenant = world.tenants.tenant(&world.tenant).unwrap();
    let other = RequestSigningKey::Ed25519(SigningKey::from_seed(&[3; 32])).request_key();
    let wrong = world.door.admit(&request, tenant, Some(&other), now).unwrap_err();
    let unknown = world.door.admit(&request, tenant, None, now).unwrap_err();
    assert_eq!(wrong, unknown);
    // Refused requests are not remembered: nobody can use up another one's nonce.
    assert_eq!(world.door.nonces.lock().unwrap().len(), 0);
}

#[test]
fn a_signature_header_is_there_once() {
    let world = World::new();
    let now = START.plus(100);
    let good = world.headers(1, now);
    for name in ["content-digest", "signature-input", "signature"] {
        let mut without = good.clone();
        without.remove(name);
        assert_eq!(code(world.ask(&without, now)), ProblemCode::MissingCredentials, "{name}");
        let mut twice = good.clone();
        twice.append(name, good[name].clone());
        assert_eq!(code(world.ask(&twice, now)), ProblemCode::InvalidCredentials, "{name}");
    }
    assert_eq!(world.ask(&good, now), Ok(()));
}
