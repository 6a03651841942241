use getrandom::SysRng;
use http::HeaderValue;
use rand_core::UnwrapErr;
use sealpost_wire::assertion::{client_id, sign};
use sealpost_wire::certificate::{Certificate, Purpose};
use sealpost_wire::id::{CertificateId, TenantId};
use sealpost_wire::key::{RequestSigningKey, SignRequest as _, SigningKey};

use super::*;
use crate::clock::ManualClock;
use crate::rates::RateOptions;

const START: UnixTime = UnixTime(1_800_000_000);

struct World {
    clock: ManualClock,
    authority: Authority,
    tenant: TenantId,
    root: SigningKey,
}

impl World {
    fn new(url: &str, key: [u8; 32]) -> Self {
        let tenant: TenantId = "st-mary".parse().unwrap();
        let root = SigningKey::from_seed(&[1; 32]);
        let tenants = Arc::new(Tenants::new([(tenant.clone(), vec![root.verifying_key()])]));
        let clock = ManualClock::at(START);
        let url = PublicUrl::parse(url).unwrap();
        let key = SecretKey::from_bytes(key);
        let metrics = Metrics::new();
        let rates = Arc::new(Rates::new(&RateOptions::default(), [&tenant], &metrics).unwrap());
        let shown: Arc<dyn Clock> = Arc::new(clock.clone());
        let authority = Authority::new(tenants, shown, &url, &key, rates, &metrics).unwrap();
        Self { clock, authority, tenant, root }
    }

    fn assertion(&self) -> VerifiedAssertion {
        let key = RequestSigningKey::Ed25519(SigningKey::from_seed(&[2; 32]));
        let subject = "lab".parse().unwrap();
        let certificate = Certificate {
            tenant: self.tenant.clone(),
            purpose: Purpose::Request,
            id: CertificateId([3; 16]),
            key: key.request_key(),
            not_before: START.minus(10),
            not_after: START.plus(86_400),
            roles: vec![Role::Sender, Role::Enroller],
            subject,
        };
        let id = client_id(&self.tenant, &certificate.subject);
        let certificate = certificate.sign(&self.root).unwrap();
        let audience = &self.authority.audience;
        let signed = sign(&id, audience, &certificate, &key, self.clock.now(), &mut UnwrapErr(SysRng));
        VerifiedAssertion::verify(&signed, audience, &self.authority.tenants, self.clock.now()).unwrap()
    }

    fn token(&self, roles: Roles) -> HeaderMap {
        let expires_at = self.clock.now().plus(300);
        let token = self.authority.key.issue(&self.assertion(), roles, expires_at).unwrap();
        bearer_of(&token)
    }
}

fn bearer_of(token: &str) -> HeaderMap {
    let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
    HeaderMap::from_iter([(header::AUTHORIZATION, value)])
}

#[test]
fn a_token_gives_its_roles_until_it_ends_also_from_the_cache() {
    let world = World::new("https://keys.example", [9; 32]);
    let headers = world.token(Roles::of(&[Role::Sender]));
    for _ in 0..2 {
        let access = world.authority.authenticate(&headers).unwrap();
        assert_eq!((access.subject().as_str(), access.tenant().id()), ("lab", &world.tenant));
        assert_eq!(access.require(&[Role::Sender]), Ok(()));
        assert_eq!(access.require(&[Role::Enroller, Role::Sender]), Ok(()));
        assert_eq!(access.require(&[Role::Enroller]).unwrap_err().code(), ProblemCode::Forbidden);
    }
    assert_eq!(world.authority.cache.len(), 1);
    world.clock.advance_to(START.plus(299));
    assert!(world.authority.authenticate(&headers).is_ok());
    world.clock.advance_to(START.plus(300));
    let expired = world.authority.authenticate(&headers).unwrap_err();
    assert_eq!(expired.code(), ProblemCode::InvalidCredentials);
}

#[test]
fn a_token_opens_the_server_that_made_it_and_no_other() {
    let world = World::new("https://keys.example", [9; 32]);
    let headers = world.token(Roles::of(&[Role::Sender]));
    for other in [World::new("https://keys.example", [8; 32]), World::new("https://relay.example", [9; 32])] {
        let refused = other.authority.authenticate(&headers).unwrap_err();
        assert_eq!(refused.code(), ProblemCode::InvalidCredentials);
        assert_eq!(other.authority.cache.len(), 0, "what is refused is not remembered");
    }
}

#[test]
fn the_cache_is_bounded_and_keeps_what_is_in_use() {
    let world = World::new("https://keys.example", [9; 32]);
    let access = world.authority.authenticate(&world.token(Roles::of(&[Role::Sender]))).unwrap();
    let cache = TokenCache::new(100);
    let hash = |number: u32| token_hash(&number.to_string());
    cache.insert(hash(0), access.clone());
    for number in 1..1000 {
        cache.insert(hash(number), access.clone());
        assert!(cache.find(&hash(0)).is_some(), "in use, at {number}");
        assert!(cache.len() <= 100);
    }
    assert!(cache.find(&hash(1)).is_none());
    assert!(cache.find(&hash(999)).is_some());
}

#[test]
fn roles_have_one_text_form() {
    let both = Roles::of(&[Role::Enroller, Role::Sender]);
    assert_eq!(both.to_string(), "sender enroller");
    assert_eq!(Roles::named("enroller sender"), Some(both));
    assert!(Roles::of(&[Role::Sender]).is_within(both));
    assert!(!both.is_within(Roles::of(&[Role::Sender])));
    for bad in ["", "Sender", "sender  enroller", " sender", "root", "sender,enroller"] {
        assert_eq!(Roles::named(bad), None, "{bad:?}");
    }
}
