//! The hospital: the tenant's keys, a portal that lets phones in, and the sending system of its laboratory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use sealpost_device::Device;
use sealpost_sender::enroller::{Claim, Countersigned, Enroller, Ticket};
use sealpost_sender::identity::{CertifiedKey, EnrollerIdentityFile, SenderIdentityFile, StorageKey};
use sealpost_sender::{
    Alert, AlertStatus, MakeRng, Sender, SenderError, SenderOptions, SenderParts, Stage, make_private_folder,
    write_private,
};
use sealpost_wire::api::keyserver::Consent;
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::certificate::{Certificate, Purpose, Role};
use sealpost_wire::clock::Clock as _;
use sealpost_wire::delivery::DeliveryState;
use sealpost_wire::id::{CertificateId, DeviceId, RecipientId, SubjectId, TenantId};
use sealpost_wire::key::{RequestKey, SigningKey};
use sealpost_wire::member::MailboxStatement;
use sealpost_wire::ticket::EnrolmentLink;

use crate::clock::{SystemClock, system_clock, system_rng};
use crate::error::DemoError;

/// The demo's tenant.
pub(crate) const TENANT: &str = "st-mary";
/// The sending system.
pub(crate) const SENDER: &str = "laboratory";
/// Who lets phones in.
pub(crate) const ENROLLER: &str = "portal";

/// How long certificates are valid (seconds): a day.
const CERTIFICATE_SECONDS: u64 = 24 * 3600;
/// Clocks that differ a little must not refuse a new certificate (seconds).
const BACKDATED_SECONDS: u64 = 60;
/// How long the enroller lets the keyserver wait for a phone.
const CLAIM_WAIT: Duration = Duration::from_secs(20);
/// How long one question for events lets the relay wait.
const EVENTS_WAIT: Duration = Duration::from_secs(2);
/// The hospital's page that opens the app.
const PORTAL_PAGE: &str = "https://portal.st-mary.example/app";

/// The tenant root, and the folder that the `sealpost` command calls its home.
pub(crate) struct Tenant {
    id: TenantId,
    root: SigningKey,
    home: PathBuf,
}

/// The hospital's systems at work.
pub(crate) struct Hospital {
    enroller: Enroller,
    sender: Sender,
    /// Signs what the sending system says.
    send: CertifiedKey,
}

impl Tenant {
    /// A new tenant with its keys in `home`.
    pub(crate) fn create(home: &Path) -> Result<Self, DemoError> {
        let failed = |error: &dyn std::fmt::Display| DemoError::failed("cannot make the tenant", error);
        let id: TenantId = TENANT.parse().map_err(|error| failed(&error))?;
        make_private_folder(home).map_err(|error| failed(&error))?;
        let root = SigningKey::generate(system_rng().as_mut());
        Ok(Self { id, root, home: home.to_owned() })
    }

    /// The root's public key, as both servers' configurations have it.
    pub(crate) fn root_hex(&self) -> String {
        HEXLOWER.encode(self.root.verifying_key().as_bytes())
    }

    /// Certifies the hospital's systems for the servers at these URLs, and starts them.
    pub(crate) fn open(&self, keyserver: &str, relay: &str) -> Result<Hospital, DemoError> {
        let failed = |error: SenderError| DemoError::failed("cannot start the hospital's systems", error);
        self.write_root(keyserver, relay).and_then(|()| self.systems(keyserver, relay)).map_err(failed)
    }

    /// The root in the form that the `sealpost` command keeps it in.
    fn write_root(&self, keyserver: &str, relay: &str) -> Result<(), SenderError> {
        let root = serde_json::json!({
            "tenant": self.id,
            "seed": Base64Url(self.root.seed().to_vec()),
            "keyserver": keyserver,
            "relay": relay,
        });
        Ok(write_private(&self.home.join("root.json"), root.to_string().as_bytes())?)
    }

    fn systems(&self, keyserver: &str, relay: &str) -> Result<Hospital, SenderError> {
        let sender = SenderIdentityFile {
            tenant: self.id.clone(),
            root: self.root.verifying_key(),
            subject: name(SENDER)?,
            keyserver: keyserver.to_owned(),
            relay: relay.to_owned(),
            send: self.certify(SENDER, Purpose::Send, &[])?,
            request: self.certify(SENDER, Purpose::Request, &[Role::Sender])?,
            outbox_key: storage_key(),
        };
        let enroller = EnrollerIdentityFile {
            tenant: self.id.clone(),
            root: self.root.verifying_key(),
            subject: name(ENROLLER)?,
            keyserver: keyserver.to_owned(),
            relay: relay.to_owned(),
            enrol: self.certify(ENROLLER, Purpose::Enrol, &[])?,
            request: self.certify(ENROLLER, Purpose::Request, &[Role::Enroller, Role::Revoker])?,
            revoke: self.certify(ENROLLER, Purpose::Revoke, &[])?,
            ticket_key: storage_key(),
        };
        let senders = self.home.join("senders");
        let enrollers = self.home.join("enrollers");
        make_private_folder(&senders)?;
        make_private_folder(&enrollers)?;
        sender.write(&senders.join(format!("{SENDER}.json")))?;
        enroller.write(&enrollers.join(format!("{ENROLLER}.json")))?;
        let make_rng: MakeRng = Arc::new(system_rng);
        let parts = SenderParts {
            clock: system_clock(),
            rng: make_rng,
            roots: sealpost_sender::ServerRoots::public(),
        };
        let options = SenderOptions::default();
        let send = sender.send.clone();
        Ok(Hospital {
            enroller: Enroller::open(enroller, &enrollers.join(ENROLLER), parts.clone())?,
            sender: Sender::open(sender, &senders.join(SENDER), options, parts)?,
            send,
        })
    }

    fn certify(&self, subject: &str, purpose: Purpose, roles: &[Role]) -> Result<CertifiedKey, SenderError> {
        let mut rng = system_rng();
        let key = SigningKey::generate(rng.as_mut());
        let now = SystemClock.now();
        let certificate = Certificate {
            tenant: self.id.clone(),
            purpose,
            subject: name(subject)?,
            id: CertificateId::random(rng.as_mut()),
            key: RequestKey::Ed25519(key.verifying_key()),
            not_before: now.minus(BACKDATED_SECONDS),
            not_after: now.plus(CERTIFICATE_SECONDS),
            roles: roles.to_vec(),
        };
        Ok(CertifiedKey { certificate: certificate.sign(&self.root)?, key })
    }
}

impl Hospital {
    /// Records that `recipient` agrees to be told of a category.
    pub(crate) fn record_consent(&self, recipient: RecipientId, category: &str) -> Result<(), DemoError> {
        let consent = Consent {
            granted: true,
            given_at: SystemClock.now(),
            recorded_by: ENROLLER.to_owned(),
            method: "portal".to_owned(),
            document: None,
        };
        let recorded = self.enroller.put_consent(recipient, category, &consent);
        recorded.map_err(|error| DemoError::failed("cannot record the consent", error))
    }

    /// A ticket for a device of `recipient`, and the link that the portal shows.
    pub(crate) fn new_ticket(&self, recipient: RecipientId) -> Result<(Ticket, String), DemoError> {
        let made: Result<(Ticket, EnrolmentLink), _> = self.enroller.new_ticket(recipient);
        let (ticket, link) = made.map_err(|error| DemoError::failed("cannot make a ticket", error))?;
        Ok((ticket, link.to_url(PORTAL_PAGE)))
    }

    /// The sending system's word that `device` is its mailbox.
    pub(crate) fn mailbox_statement(&self, device: &Device) -> Result<Vec<u8>, DemoError> {
        let statement = MailboxStatement {
            tenant: device.tenant().clone(),
            device: device.id(),
            identity: device.identity(),
            issued: SystemClock.now(),
        };
        let signed = statement.sign(&self.send.key, &self.send.certificate);
        signed.map_err(|error| DemoError::failed("cannot sign a mailbox statement", error))
    }

    /// Tells both servers that a device is lost.
    pub(crate) fn revoke(&self, device: DeviceId) -> Result<(), DemoError> {
        let revoked = self.enroller.revoke(&[], &[device]);
        revoked.map(drop).map_err(|error| DemoError::failed("cannot revoke a phone", error))
    }

    /// The phone that claimed `ticket`.
    pub(crate) fn await_claim(&self, ticket: &Ticket) -> Result<Claim, DemoError> {
        let claim = self.enroller.claim(ticket.id, CLAIM_WAIT);
        let claim =
            claim.map_err(|error| DemoError::failed("cannot ask for the claims of a ticket", error))?;
        claim.ok_or_else(|| DemoError::Failed("no phone claimed its ticket".to_owned()))
    }

    /// Lets the phone in that claimed `ticket`, after the patient has compared its code.
    pub(crate) fn countersign(&self, ticket: &Ticket, code: &str) -> Result<Countersigned, DemoError> {
        self.enroller
            .countersign(ticket.id, code)
            .map_err(|error| DemoError::failed("cannot let a phone in", error))
    }

    /// Takes alerts into the outbox, seals them for each of the patient's phones, and sends them to the relay.
    pub(crate) fn send(&mut self, alerts: &[Alert], until: Instant) -> Result<(), DemoError> {
        let failed = |error| DemoError::failed("cannot send", error);
        for alert in alerts {
            self.sender.enqueue(alert).map_err(failed)?;
        }
        loop {
            self.sender.work().map_err(failed)?;
            let alerts = self.sender.alerts().map_err(failed)?;
            let submissions = alerts.iter().flat_map(|alert| &alert.submissions);
            if let Some(lost) = submissions.clone().find(|one| one.stage == Stage::Failed) {
                let why = lost.failure.as_deref().unwrap_or("unknown");
                return Err(DemoError::failed("an alert cannot be sent", why));
            }
            let mut waiting = submissions.filter(|one| one.stage != Stage::Accepted).peekable();
            let Some(first) = waiting.peek() else { return Ok(()) };
            let failure = first.failure.clone().unwrap_or_else(|| "no answer".to_owned());
            let due = self.sender.next_due_in_ms().map_err(failed)?;
            let due = Duration::from_millis(due.unwrap_or_default());
            if Instant::now() + due > until {
                return Err(DemoError::failed("the relay did not take an alert in time", failure));
            }
            std::thread::sleep(due);
        }
    }

    /// Follows the relay's events until every phone's receipt is in and verified, or until `until`. Returns when each
    /// receipt was seen to be verified (milliseconds since 1970).
    pub(crate) fn await_receipts(&mut self, until: Instant) -> Result<Vec<u64>, DemoError> {
        let failed = |error| DemoError::failed("cannot follow the relay's events", error);
        let mut verified_ms = Vec::new();
        while Instant::now() < until && !self.all_opened()? {
            self.sender.follow(EVENTS_WAIT).map_err(failed)?;
            let verified = self.alerts()?.iter().flat_map(verified_boxes).count();
            let now_ms = SystemClock.now_millis();
            verified_ms.resize(verified.max(verified_ms.len()), now_ms);
            // A box that could not be opened is sealed anew.
            self.sender.work().map_err(failed)?;
        }
        Ok(verified_ms)
    }

    /// Where the alerts are.
    pub(crate) fn alerts(&self) -> Result<Vec<AlertStatus>, DemoError> {
        self.sender.alerts().map_err(|error| DemoError::failed("cannot read the outbox", error))
    }

    fn all_opened(&self) -> Result<bool, DemoError> {
        Ok(self.alerts()?.iter().all(AlertStatus::is_opened))
    }
}

/// The boxes whose opening the device's own signature proves.
fn verified_boxes(alert: &AlertStatus) -> impl Iterator<Item = &sealpost_sender::BoxStatus> {
    alert
        .submissions
        .iter()
        .flat_map(|submission| &submission.boxes)
        .filter(|one| one.verified && is_opening(one.state))
}

const fn is_opening(state: DeliveryState) -> bool {
    matches!(state, DeliveryState::Opened | DeliveryState::Confirmed | DeliveryState::Declined)
}

fn name(text: &str) -> Result<SubjectId, SenderError> {
    text.parse().map_err(|_| sealpost_wire::error::FormatError::WrongValue("subject").into())
}

fn storage_key() -> StorageKey {
    let mut key = [0; 32];
    system_rng().fill_bytes(&mut key);
    StorageKey::new(key)
}
