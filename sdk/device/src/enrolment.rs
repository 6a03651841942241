//! Enrolment: from a link to an admitted device.
//!
//! The steps can be repeated after any interruption: keys are durable before the ticket is claimed with them, and the
//! same claim twice is the same claim.

use std::path::Path;
use std::time::Duration;

use rand_core::CryptoRng;
use sealpost_wire::admission::Admission;
use sealpost_wire::api::keyserver::{ClaimBody, DeviceState};
use sealpost_wire::api::relay::{DeviceRegistered, DeviceRegistration, PushRegistration};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{DeviceId, Digest, TenantId};
use sealpost_wire::key::{P256SigningKey, RequestSigningKey, SignRequest as _, SigningKey, VerifyingKey};
use sealpost_wire::message::Suite;
use sealpost_wire::record::{DeviceRecord, enrol};
use sealpost_wire::ticket::{EnrolmentLink, TicketSecret};
use sealpost_wire::trust::TenantTrust;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::DeviceError;
use crate::http::{Call, Signer, json};
use crate::store::Store;
use crate::{Device, DeviceParts, ProcessLock};

const META: &str = "enrolled";

/// What kind of key authenticates the device's requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestKeyKind {
    /// Ed25519.
    #[default]
    Ed25519,
    /// P-256, as secure elements have it.
    P256,
}

/// How a device enrols.
#[derive(Clone, Debug)]
pub struct EnrolOptions {
    /// The suites that it opens, best first.
    pub suites: Vec<Suite>,
    /// Its request key.
    pub request_key: RequestKeyKind,
}

impl Default for EnrolOptions {
    fn default() -> Self {
        Self { suites: vec![Suite::Hybrid], request_key: RequestKeyKind::Ed25519 }
    }
}

/// Who the device is: keys, servers, what the tenant signed.
pub(crate) struct Enrolled {
    pub(crate) tenant: TenantId,
    pub(crate) device: DeviceId,
    pub(crate) keyserver: String,
    pub(crate) relay: String,
    pub(crate) root: VerifyingKey,
    pub(crate) identity: SigningKey,
    pub(crate) request: RequestSigningKey,
    pub(crate) suites: Vec<Suite>,
    pub(crate) enrolment: Vec<u8>,
    /// Until the tenant has countersigned.
    pub(crate) ticket: Option<TicketSecret>,
    pub(crate) admission: Option<Vec<u8>>,
}

impl Device {
    /// Enrols a new device in `folder` with the ticket of `link`: makes its keys, claims the ticket, uploads prekeys.
    ///
    /// The device is of use once the tenant has countersigned it: see [`Self::code`] and [`Self::await_admission`].
    /// After an interruption the same call goes on where it stopped; with a new link it starts over, as long as the tenant
    /// has not countersigned.
    ///
    /// # Errors
    /// [`DeviceError::AlreadyEnrolled`] when the folder holds an admitted device; storage, platform and server errors.
    pub fn enrol(
        folder: &Path,
        link: &EnrolmentLink,
        options: &EnrolOptions,
        mut parts: DeviceParts,
    ) -> Result<Self, DeviceError> {
        let lock = ProcessLock::new(folder)?;
        let held = lock.hold()?;
        let mut store = Store::open(folder, parts.platform.as_ref())?;
        let enrolled = match Enrolled::load(&store)? {
            Some(there) if there.admission.is_some() => return Err(DeviceError::AlreadyEnrolled),
            Some(there)
                if there.ticket.as_ref().is_some_and(|ticket| ticket.expose() == link.secret.expose()) =>
            {
                there
            }
            // None, or one whose ticket came to nothing.
            _ => {
                let enrolled = Enrolled::generate(link, options, parts.clock.now(), parts.rng.as_mut())?;
                store.forget_prekeys()?;
                enrolled.save(&mut store, parts.rng.as_mut())?;
                enrolled
            }
        };
        drop(held);
        let mut device = Self::assemble(enrolled, store, lock, parts)?;
        device.claim()?;
        device.maintain_prekeys()?;
        Ok(device)
    }

    /// The code that the patient compares on phone and portal, while the enrolment waits.
    #[must_use]
    pub fn code(&self) -> Option<String> {
        let ticket = self.enrolled.ticket.as_ref()?;
        Some(ticket.binding_key().code(&self.enrolled.enrolment))
    }

    /// Whether the tenant has countersigned the device.
    #[must_use]
    pub const fn is_admitted(&self) -> bool {
        self.enrolled.admission.is_some()
    }

    /// Asks the keyserver whether the tenant has countersigned the device, and lets it wait up to `wait` (whole seconds,
    /// at most 60). Returns whether it has.
    pub fn await_admission(&mut self, wait: Duration) -> Result<bool, DeviceError> {
        if self.is_admitted() {
            return Ok(true);
        }
        let state = self.keyserver_state(wait)?;
        let Some(Base64Url(admission)) = state.admission else { return Ok(false) };
        let admitted = Admission::verify(&admission, &self.trust()?)?;
        if admitted.record.device != self.enrolled.device
            || admitted.record.identity_key != self.enrolled.identity.verifying_key()
        {
            return Err(sealpost_wire::error::TrustError::WrongDevice.into());
        }
        self.enrolled.admission = Some(admission);
        // The ticket has done its work.
        self.enrolled.ticket = None;
        self.enrolled.save(&mut self.store, self.rng.as_mut())?;
        Ok(true)
    }

    /// Makes the device's mailbox at the relay and says where its pushes go, or renews that.
    ///
    /// # Errors
    /// [`DeviceError::NotAdmitted`] before the tenant has countersigned; server errors.
    pub fn register(&mut self, push: Option<PushRegistration>) -> Result<DeviceRegistered, DeviceError> {
        let admission = self.enrolled.admission.clone().ok_or(DeviceError::NotAdmitted)?;
        let body = DeviceRegistration { admission: Base64Url(admission), push };
        let relay = self.enrolled.relay.clone();
        self.call(
            "PUT",
            &relay,
            format!("/v1/devices/{}", self.enrolled.device),
            json(&body)?,
            Duration::ZERO,
        )
    }

    /// What the device believes of its tenant: the root from its link, and the newest status it has seen.
    pub(crate) fn trust(&self) -> Result<TenantTrust, DeviceError> {
        let mut trust = TenantTrust::new(self.enrolled.tenant.clone(), vec![self.enrolled.root]);
        if let Some(status) = self.store.meta("status")? {
            trust.accept_status(&status, self.clock.now())?;
        }
        Ok(trust)
    }

    pub(crate) fn keyserver_state(&mut self, wait: Duration) -> Result<DeviceState, DeviceError> {
        let path = format!("/v1/devices/{}?wait={}", self.enrolled.device, wait.as_secs());
        let keyserver = self.enrolled.keyserver.clone();
        let state: DeviceState = self.call("GET", &keyserver, path, Vec::new(), wait)?;
        if let Some(status) = &state.status {
            self.take_status(status.as_ref())?;
        }
        Ok(state)
    }

    /// A request that the device signs.
    pub(crate) fn call<T: serde::de::DeserializeOwned>(
        &mut self,
        method: &'static str,
        server: &str,
        path: String,
        body: Vec<u8>,
        wait: Duration,
    ) -> Result<T, DeviceError> {
        let signer = Signer {
            tenant: &self.enrolled.tenant,
            device: self.enrolled.device,
            key: &self.enrolled.request,
        };
        let offset = self.http.offset_seconds();
        let call = Call { method, server, path, body, wait };
        let answer = self.http.signed(&call, &signer, self.clock.reading(), self.rng.as_mut());
        if self.http.offset_seconds() != offset {
            let offset = self.http.offset_seconds();
            self.store.change(|change| change.set_counter("clock_offset", offset))?;
        }
        Ok(answer?)
    }

    fn claim(&mut self) -> Result<(), DeviceError> {
        let Some(ticket) = &self.enrolled.ticket else { return Ok(()) };
        let body = ClaimBody {
            claim_token: Base64Url(ticket.claim_token().expose().to_vec()),
            enrolment: Base64Url(self.enrolled.enrolment.clone()),
        };
        let call = Call {
            method: "POST",
            server: &self.enrolled.keyserver,
            path: format!("/v1/tickets/{}/claims", ticket.ticket_id()),
            body: json(&body)?,
            wait: Duration::ZERO,
        };
        let _claimed: serde_json::Value = self.http.unsigned(&call, self.rng.as_mut())?;
        Ok(())
    }
}

impl Enrolled {
    fn generate(
        link: &EnrolmentLink,
        options: &EnrolOptions,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, DeviceError> {
        let identity = SigningKey::generate(rng);
        let request = match options.request_key {
            RequestKeyKind::Ed25519 => RequestSigningKey::Ed25519(SigningKey::generate(rng)),
            RequestKeyKind::P256 => RequestSigningKey::P256(P256SigningKey::generate(rng)),
        };
        let record = DeviceRecord {
            tenant: link.tenant.clone(),
            ticket: link.secret.ticket_id(),
            device: DeviceId::random(rng),
            identity_key: identity.verifying_key(),
            request_key: request.request_key(),
            suites: options.suites.clone(),
            relay: link.relay.clone(),
            created: now,
        };
        let enrolment = enrol(&record.sign(&identity)?, &link.secret.binding_key());
        Ok(Self {
            tenant: link.tenant.clone(),
            device: record.device,
            keyserver: link.keyserver.clone(),
            relay: link.relay.clone(),
            root: link.root,
            identity,
            request,
            suites: options.suites.clone(),
            enrolment,
            ticket: Some(link.secret.clone()),
            admission: None,
        })
    }

    /// SHA-256 of the identity key, as contexts name it.
    pub(crate) fn identity_digest(&self) -> Digest {
        self.identity.verifying_key().digest()
    }

    pub(crate) fn load(store: &Store) -> Result<Option<Self>, DeviceError> {
        let Some(stored) = store.meta(META)? else { return Ok(None) };
        let stored: Stored = serde_json::from_slice(&stored).map_err(|_| DeviceError::Unreadable)?;
        Ok(Some(stored.into_enrolled()?))
    }

    pub(crate) fn save(&self, store: &mut Store, rng: &mut dyn CryptoRng) -> Result<(), DeviceError> {
        let stored = serde_json::to_vec(&Stored::of(self)).map_err(|_| DeviceError::Unreadable)?;
        let stored = Zeroizing::new(stored);
        store.change(|change| change.set_meta(META, &stored, rng))
    }
}

/// The form in which it is sealed into the database.
#[derive(Serialize, Deserialize)]
struct Stored {
    tenant: TenantId,
    device: DeviceId,
    keyserver: String,
    relay: String,
    root: Base64Url,
    identity: Base64Url,
    request_is_p256: bool,
    request: Base64Url,
    suites: Vec<Suite>,
    enrolment: Base64Url,
    ticket: Option<Base64Url>,
    admission: Option<Base64Url>,
}

impl Stored {
    fn of(enrolled: &Enrolled) -> Self {
        let (request_is_p256, request) = match &enrolled.request {
            RequestSigningKey::Ed25519(key) => (false, key.seed().to_vec()),
            RequestSigningKey::P256(key) => (true, key.to_bytes().to_vec()),
        };
        Self {
            tenant: enrolled.tenant.clone(),
            device: enrolled.device,
            keyserver: enrolled.keyserver.clone(),
            relay: enrolled.relay.clone(),
            root: Base64Url(enrolled.root.as_bytes().to_vec()),
            identity: Base64Url(enrolled.identity.seed().to_vec()),
            request_is_p256,
            request: Base64Url(request),
            suites: enrolled.suites.clone(),
            enrolment: Base64Url(enrolled.enrolment.clone()),
            ticket: enrolled.ticket.as_ref().map(|ticket| Base64Url(ticket.expose().to_vec())),
            admission: enrolled.admission.clone().map(Base64Url),
        }
    }

    fn into_enrolled(self) -> Result<Enrolled, DeviceError> {
        let key = |bytes: &Base64Url| {
            <[u8; 32]>::try_from(bytes.as_ref()).map(Zeroizing::new).map_err(|_| DeviceError::Unreadable)
        };
        let request = match self.request_is_p256 {
            false => RequestSigningKey::Ed25519(SigningKey::from_seed(&*key(&self.request)?)),
            true => RequestSigningKey::P256(P256SigningKey::from_bytes(&*key(&self.request)?)?),
        };
        Ok(Enrolled {
            root: VerifyingKey::from_bytes(&*key(&self.root)?)?,
            identity: SigningKey::from_seed(&*key(&self.identity)?),
            ticket: self
                .ticket
                .as_ref()
                .map(|bytes| key(bytes).map(|key| TicketSecret::from_bytes(*key)))
                .transpose()?,
            tenant: self.tenant,
            device: self.device,
            keyserver: self.keyserver,
            relay: self.relay,
            request,
            suites: self.suites,
            enrolment: self.enrolment.0,
            admission: self.admission.map(|bytes| bytes.0),
        })
    }
}
