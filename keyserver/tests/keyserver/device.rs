//! A device as it talks to the keyserver.

use http::Method;
use sealpost_wire::admission::Admission;
use sealpost_wire::api::keyserver::{
    ClaimBody, DeviceState, KeyPackageLookUp, KeyPackageUpload, KeyPackagesFound, KeyPackagesStored,
    PrekeyUpload, PrekeysStored,
};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::http_signature::{self, RequestParts};
use sealpost_wire::id::{DeviceId, RecipientId, TenantId};
use sealpost_wire::key::{P256SigningKey, RequestSigningKey, SignRequest as _, SigningKey};
use sealpost_wire::key_package::{KeyPackageDraft, Lifetime, MlsSuite};
use sealpost_wire::member::MemberCredential;
use sealpost_wire::message::Suite;
use sealpost_wire::prekey::{PrekeyKind, PrekeyLeaf, sign_batch};
use sealpost_wire::record::{DeviceRecord, enrol};
use sealpost_wire::ticket::TicketSecret;

use crate::client::{Answer, Call, Http};
use crate::world::{CATEGORY, Certified, World, rng};

pub struct TestDevice {
    pub tenant: TenantId,
    pub id: DeviceId,
    pub identity: SigningKey,
    pub request: RequestSigningKey,
    pub record: Vec<u8>,
    pub secret: TicketSecret,
}

impl TestDevice {
    pub fn new(tenant: &TenantId, secret: &TicketSecret, created: UnixTime) -> Self {
        Self::with_suites(tenant, secret, created, vec![Suite::Classical])
    }

    pub fn with_suites(
        tenant: &TenantId,
        secret: &TicketSecret,
        created: UnixTime,
        suites: Vec<Suite>,
    ) -> Self {
        let identity = SigningKey::generate(&mut rng());
        let request = RequestSigningKey::P256(P256SigningKey::generate(&mut rng()));
        let id = DeviceId::random(&mut rng());
        let record = DeviceRecord {
            tenant: tenant.clone(),
            ticket: secret.ticket_id(),
            device: id,
            identity_key: identity.verifying_key(),
            request_key: request.request_key(),
            suites,
            relay: "https://relay.example".to_owned(),
            created,
        };
        let record = record.sign(&identity).unwrap();
        Self { tenant: tenant.clone(), id, identity, request, record, secret: secret.clone() }
    }

    pub fn claim_body(&self) -> ClaimBody {
        ClaimBody {
            claim_token: Base64Url(self.secret.claim_token().expose().to_vec()),
            enrolment: Base64Url(self.enrolment()),
        }
    }

    pub fn enrolment(&self) -> Vec<u8> {
        enrol(&self.record, &self.secret.binding_key())
    }

    pub async fn claim(&self, http: &Http) -> Answer {
        let path = format!("/v1/tickets/{}/claims", self.secret.ticket_id());
        http.send(Call::json(Method::POST, &path, &self.claim_body())).await
    }

    pub fn admission(&self, enrol: &Certified, issued: UnixTime) -> Base64Url {
        Base64Url(Admission::sign(&self.tenant, &self.record, issued, &enrol.key, &enrol.certificate))
    }

    /// The call with the headers of its signature.
    pub fn sign(&self, http: &Http, call: Call, created: UnixTime) -> Call {
        let (path, query) = match call.path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (call.path.as_str(), None),
        };
        let parts = RequestParts {
            method: call.method.as_str(),
            authority: http.base().strip_prefix("http://").unwrap(),
            path,
            query,
            body: &call.body,
        };
        let signed = http_signature::sign(&parts, &self.tenant, self.id, &self.request, created, &mut rng());
        call.header("content-digest", signed.content_digest)
            .header("signature-input", signed.signature_input)
            .header("signature", signed.signature)
    }

    pub async fn send(&self, world: &World, call: Call) -> Answer {
        world.http.send(self.sign(&world.http, call, world.now())).await
    }

    pub fn state_call(&self, wait: u64) -> Call {
        Call::new(Method::GET, &format!("/v1/devices/{}?wait={wait}", self.id))
    }

    pub async fn state(&self, world: &World) -> DeviceState {
        self.send(world, self.state_call(0)).await.expect(200)
    }

    pub fn leaf(&self, suite: Suite, kind: PrekeyKind, now: UnixTime) -> PrekeyLeaf {
        let mut key = vec![0; suite.public_key_bytes()];
        rand_core::Rng::fill_bytes(&mut rng(), &mut key);
        let seal_until = now.plus(60 * 86_400);
        PrekeyLeaf { device: self.id, suite, kind, key, seal_until, open_until: seal_until.plus(30 * 86_400) }
    }

    pub fn upload_of(&self, leaves: &[PrekeyLeaf], created: UnixTime) -> PrekeyUpload {
        let leaves: Vec<_> = leaves.iter().map(PrekeyLeaf::to_bytes).collect();
        let batch = sign_batch(&self.tenant, self.id, &leaves, created, &self.identity).unwrap();
        PrekeyUpload {
            batch: Base64Url(batch),
            leaves: leaves.into_iter().map(Base64Url).collect(),
            replace: false,
        }
    }

    /// A signed prekey and `one_time` others, of one suite.
    pub fn batch(&self, suite: Suite, one_time: usize, now: UnixTime) -> PrekeyUpload {
        let mut leaves = vec![self.leaf(suite, PrekeyKind::Signed, now)];
        leaves.extend((0..one_time).map(|_| self.leaf(suite, PrekeyKind::OneTime, now)));
        self.upload_of(&leaves, now)
    }

    pub async fn put_prekeys(&self, world: &World, upload: &PrekeyUpload) -> Answer {
        let path = format!("/v1/devices/{}/prekeys", self.id);
        self.send(world, Call::json(Method::PUT, &path, upload)).await
    }

    pub async fn upload(&self, world: &World, one_time: usize) -> PrekeysStored {
        let upload = self.batch(Suite::Classical, one_time, world.now());
        self.put_prekeys(world, &upload).await.expect(200)
    }

    /// A key package of a suite that ends after so many seconds.
    pub fn key_package_until(
        &self,
        world: &World,
        suite: MlsSuite,
        seconds: u64,
        is_last_resort: bool,
    ) -> Base64Url {
        let key = || {
            let mut key = vec![0; suite.public_key_bytes()];
            rand_core::Rng::fill_bytes(&mut rng(), &mut key);
            key
        };
        let now = world.now();
        let draft = KeyPackageDraft {
            suite,
            init_key: key(),
            encryption_key: key(),
            credential: credential(&self.admission(&world.tenant.enrol, now)),
            lifetime: Lifetime { not_before: now.minus(3600), not_after: now.plus(seconds) },
            is_last_resort,
        };
        Base64Url(draft.sign(&self.identity))
    }

    pub fn key_package(&self, world: &World) -> Base64Url {
        self.key_package_until(world, MlsSuite::Classical, 28 * 86_400, false)
    }

    pub fn last_resort(&self, world: &World) -> Base64Url {
        self.key_package_until(world, MlsSuite::Classical, 28 * 86_400, true)
    }

    /// So many one-time key packages.
    pub fn key_packages(&self, world: &World, one_time: usize) -> KeyPackageUpload {
        let packages = (0..one_time).map(|_| self.key_package(world)).collect();
        KeyPackageUpload { suite: 3, packages, last_resort: None, replace: false }
    }

    pub async fn put_key_packages(&self, world: &World, upload: &KeyPackageUpload) -> Answer {
        let path = format!("/v1/devices/{}/key-packages", self.id);
        self.send(world, Call::json(Method::PUT, &path, upload)).await
    }

    pub async fn upload_key_packages(&self, world: &World, one_time: usize) -> KeyPackagesStored {
        self.put_key_packages(world, &self.key_packages(world, one_time)).await.expect(200)
    }

    pub fn key_package_call(&self, recipient: RecipientId, suite: u16) -> Call {
        let body = KeyPackageLookUp { suite, category: CATEGORY.to_owned() };
        Call::json(Method::POST, &format!("/v1/recipients/{recipient}/key-packages"), &body)
    }

    pub async fn try_take(&self, world: &World, recipient: RecipientId) -> Answer {
        self.send(world, self.key_package_call(recipient, 3)).await
    }

    pub async fn take(&self, world: &World, recipient: RecipientId) -> KeyPackagesFound {
        self.try_take(world, recipient).await.expect(200)
    }
}

/// A member credential with this admission.
pub fn credential(admission: &Base64Url) -> Vec<u8> {
    MemberCredential { admission: admission.0.clone(), statement: None }.to_bytes()
}
