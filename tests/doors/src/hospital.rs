//! A hospital with its keys, its clients and its phones.

use getrandom::SysRng;
use http::Method;
use rand_core::UnwrapErr;
use sealpost_wire::admission::Admission;
use sealpost_wire::api::TokenResponse;
use sealpost_wire::assertion::{self, ASSERTION_TYPE, GRANT_TYPE};
use sealpost_wire::certificate::{Certificate, Purpose, Role};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::http_signature::{self, RequestParts};
use sealpost_wire::id::{CertificateId, DeviceId, KeyId, SubjectId, TenantId, TicketId};
use sealpost_wire::key::{P256SigningKey, RequestKey, RequestSigningKey, SignRequest as _, SigningKey};
use sealpost_wire::message::Suite;
use sealpost_wire::record::DeviceRecord;
use sealpost_wire::status::{Revocation, TenantStatus};

use crate::call::Call;

/// Randomness.
#[must_use]
pub const fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

/// A hospital's keys.
#[derive(Clone, Debug)]
pub struct Hospital {
    /// The tenant.
    pub id: TenantId,
    /// The root of its keys.
    pub root: SigningKey,
    /// The key that countersigns devices, with its certificate.
    pub enrol: (SigningKey, Vec<u8>),
    /// The key that revokes, with its certificate.
    pub revoke: (SigningKey, Vec<u8>),
}

/// A key of a client, with its certificate.
#[derive(Clone, Debug)]
pub struct ClientKey {
    /// The client.
    pub subject: SubjectId,
    /// The key.
    pub key: RequestSigningKey,
    /// The certificate.
    pub certificate: Vec<u8>,
}

/// A device that signs requests.
#[derive(Clone, Debug)]
pub struct Phone {
    /// The tenant that it says it is of.
    pub tenant: TenantId,
    /// The device.
    pub id: DeviceId,
    /// Its identity key.
    pub identity: SigningKey,
    /// Its request key.
    pub request: RequestSigningKey,
}

impl Hospital {
    /// A new hospital.
    ///
    /// # Panics
    /// `name` is no tenant's.
    #[must_use]
    pub fn new(name: &str, now: UnixTime) -> Self {
        let id: TenantId = name.parse().expect("a tenant");
        let root = SigningKey::generate(&mut rng());
        let certified = |purpose| {
            let key = SigningKey::generate(&mut rng());
            let public = RequestKey::Ed25519(key.verifying_key());
            let certificate = certificate(&id, "office", purpose, public, &[], now);
            (key, certificate.sign(&root).expect("a certificate"))
        };
        let (enrol, revoke) = (certified(Purpose::Enrol), certified(Purpose::Revoke));
        Self { id, root, enrol, revoke }
    }

    /// A `request` key with these roles.
    #[must_use]
    pub fn client(&self, subject: &str, roles: &[Role], now: UnixTime) -> ClientKey {
        self.client_for(Purpose::Request, subject, roles, now)
    }

    /// A key for `purpose`.
    ///
    /// # Panics
    /// `subject` is no subject's.
    #[must_use]
    pub fn client_for(&self, purpose: Purpose, subject: &str, roles: &[Role], now: UnixTime) -> ClientKey {
        let key = RequestSigningKey::Ed25519(SigningKey::generate(&mut rng()));
        let certificate = certificate(&self.id, subject, purpose, key.request_key(), roles, now);
        let certificate = certificate.sign(&self.root).expect("a certificate");
        ClientKey { subject: subject.parse().expect("a subject"), key, certificate }
    }

    /// An assertion of a client for the server at `base`.
    #[must_use]
    pub fn assertion(&self, client: &ClientKey, base: &str, now: UnixTime) -> String {
        let (id, audience) = (assertion::client_id(&self.id, &client.subject), format!("{base}/v1/token"));
        assertion::sign(&id, &audience, &client.certificate, &client.key, now, &mut rng())
    }

    /// An assertion of a new client for the server at `base`.
    #[must_use]
    pub fn assertion_of_new(&self, subject: &str, base: &str, now: UnixTime) -> String {
        self.assertion(&self.client(subject, &[Role::Sender], now), base, now)
    }

    /// A new access token of the server at `base`, for a new client.
    pub async fn token(&self, base: &str, subject: &str, roles: &[Role], now: UnixTime) -> String {
        self.token_of(&self.client(subject, roles, now), base, now).await
    }

    /// A new access token of the server at `base`.
    pub async fn token_of(&self, client: &ClientKey, base: &str, now: UnixTime) -> String {
        let answer = token_call(&self.assertion(client, base, now)).send(base).await;
        answer.expect(200).json::<TokenResponse>().access_token
    }

    /// The admission of a device, by a key with its certificate.
    #[must_use]
    pub fn admit(&self, record: &[u8], now: UnixTime, signer: &(SigningKey, Vec<u8>)) -> Vec<u8> {
        Admission::sign(&self.id, record, now, &signer.0, &signer.1)
    }

    /// The first status, which revokes a key and a device; signed by `signer`, a key with its certificate.
    ///
    /// # Panics
    /// It cannot be signed.
    #[must_use]
    pub fn status(
        &self,
        issued: UnixTime,
        revoked: (KeyId, DeviceId),
        signer: &(SigningKey, Vec<u8>),
    ) -> Vec<u8> {
        let status = TenantStatus {
            tenant: self.id.clone(),
            sequence: 1,
            issued,
            revoked_keys: vec![(revoked.0, Revocation::Compromised)],
            revoked_devices: vec![revoked.1],
        };
        status.sign(&signer.0, &signer.1).expect("a status")
    }

    /// A new device.
    #[must_use]
    pub fn phone(&self) -> Phone {
        Phone {
            tenant: self.id.clone(),
            id: DeviceId::random(&mut rng()),
            identity: SigningKey::generate(&mut rng()),
            request: RequestSigningKey::P256(P256SigningKey::generate(&mut rng())),
        }
    }
}

impl Phone {
    /// Its record, for a relay and a ticket.
    ///
    /// # Panics
    /// It cannot be signed.
    #[must_use]
    pub fn record(&self, relay: &str, ticket: TicketId, created: UnixTime) -> Vec<u8> {
        let record = DeviceRecord {
            tenant: self.tenant.clone(),
            ticket,
            device: self.id,
            identity_key: self.identity.verifying_key(),
            request_key: self.request.request_key(),
            suites: vec![Suite::Classical],
            relay: relay.to_owned(),
            created,
        };
        record.sign(&self.identity).expect("a record")
    }

    /// The call, signed for the server at `base`.
    #[must_use]
    pub fn sign(&self, base: &str, call: Call, created: UnixTime) -> Call {
        let (path, query) = match call.path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (call.path.as_str(), None),
        };
        let parts = RequestParts {
            method: call.method.as_str(),
            authority: base.trim_start_matches("http://"),
            path,
            query,
            body: &call.body,
        };
        let signed = http_signature::sign(&parts, &self.tenant, self.id, &self.request, created, &mut rng());
        call.header("content-digest", signed.content_digest)
            .header("signature-input", signed.signature_input)
            .header("signature", signed.signature)
    }
}

/// A token request with an assertion.
#[must_use]
pub fn token_call(assertion: &str) -> Call {
    let kind = ASSERTION_TYPE.replace(':', "%3A");
    let form = format!("grant_type={GRANT_TYPE}&client_assertion_type={kind}&client_assertion={assertion}");
    Call::new(Method::POST, "/v1/token").body("application/x-www-form-urlencoded", form)
}

fn certificate(
    tenant: &TenantId,
    subject: &str,
    purpose: Purpose,
    key: RequestKey,
    roles: &[Role],
    now: UnixTime,
) -> Certificate {
    Certificate {
        tenant: tenant.clone(),
        purpose,
        subject: subject.parse().expect("a subject"),
        id: CertificateId::random(&mut rng()),
        key,
        not_before: now.minus(3600),
        not_after: now.plus(365 * 86_400),
        roles: roles.to_vec(),
    }
}
