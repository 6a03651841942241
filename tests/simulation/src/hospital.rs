//! A tenant with its keys and devices, and the model of the keyserver: device sets, tenant status, key packages.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use sealpost_group::limits::KEY_PACKAGE_LIFETIME_SECONDS;
use sealpost_group::{GroupSuite, Member, NewMember};
use sealpost_wire::admission::Admission;
use sealpost_wire::certificate::{Certificate, Purpose};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::device_set::DeviceSetDraft;
use sealpost_wire::id::{CertificateId, DeviceId, Digest, RecipientId, TenantId, TicketId};
use sealpost_wire::key::{RequestKey, SigningKey, VerifyingKey};
use sealpost_wire::member::{MailboxStatement, MemberCredential};
use sealpost_wire::message::Suite;
use sealpost_wire::record::DeviceRecord;
use sealpost_wire::status::TenantStatus;
use sealpost_wire::trust::TenantTrust;
use sha2::{Digest as _, Sha256};

use crate::client::Upload;

pub(crate) const MINUTE: u64 = 60;
pub(crate) const HOUR: u64 = 3600;
pub(crate) const DAY: u64 = 86_400;

/// The devices: their names, and whose they are. The first is the mailbox of a sender.
const DEVICES: [(&str, &str); 6] = [
    ("lab system", "lab system"),
    ("nurse", "nurse"),
    ("patient's phone", "patient"),
    ("patient's tablet", "patient"),
    ("doctor", "doctor"),
    ("daughter", "daughter"),
];
/// The mailbox of the laboratory: the steward that made the group.
pub(crate) const LAB: usize = 0;
/// The second steward.
pub(crate) const NURSE: usize = 1;
/// The first of those who are no stewards.
pub(crate) const PHONE: usize = 2;

/// Bytes that are expensive to make and are the same in every history.
pub struct Hospital {
    /// When histories begin.
    pub(crate) start: UnixTime,
    pub(crate) trust: TenantTrust,
    pub(crate) devices: Vec<Identity>,
    root: VerifyingKey,
    revoker: Certified,
}

/// A device's identity.
pub(crate) struct Identity {
    pub(crate) member: Member,
    pub(crate) set: Vec<u8>,
}

struct Certified {
    key: SigningKey,
    certificate: Vec<u8>,
}

impl Hospital {
    /// The hospital of all histories.
    #[must_use]
    pub fn st_mary() -> Self {
        Self::with_root("root")
    }

    /// A hospital that says it is the same tenant, and is not.
    #[must_use]
    pub fn of_an_intruder() -> Self {
        Self::with_root("intruder's root")
    }

    fn with_root(root: &str) -> Self {
        // openmls compares the lifetimes of key packages with the clock of the system, whatever clock is passed: those
        // that are made in the 82 days around it are good there, so histories are laid around it.
        #[allow(clippy::disallowed_methods, reason = "so the histories' clock begins there")]
        let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / DAY * DAY;
        let start = UnixTime(today).minus(55 * DAY);
        let tenant: TenantId = "st-mary".parse().unwrap();
        let root = key(root);
        let trust = TenantTrust::new(tenant.clone(), vec![root.verifying_key()]);
        let certified = |purpose, subject: &str| {
            let key = key(&format!("{subject} under {:?}", root.verifying_key().key_id()));
            let certificate = Certificate {
                tenant: tenant.clone(),
                purpose,
                subject: subject.parse().unwrap(),
                id: CertificateId(id(subject)),
                key: RequestKey::Ed25519(key.verifying_key()),
                not_before: start.minus(100 * DAY),
                not_after: start.plus(300 * DAY),
                roles: vec![],
            };
            let certificate = certificate.sign(&root).unwrap();
            Certified { key, certificate }
        };
        let enroller = certified(Purpose::Enrol, "portal");
        let sender = certified(Purpose::Send, "lab");
        let created = start.minus(DAY);
        let name_of = |name: &str| format!("{name} under {:?}", root.verifying_key().key_id());
        let record_of = |name: &str| {
            let identity = key(&name_of(name));
            let record = DeviceRecord {
                tenant: tenant.clone(),
                ticket: TicketId(id(&format!("ticket of {name}"))),
                device: DeviceId(id(&name_of(name))),
                identity_key: identity.verifying_key(),
                request_key: RequestKey::Ed25519(key(&format!("requests of {name}")).verifying_key()),
                suites: vec![Suite::Hybrid, Suite::Classical],
                relay: "https://relay.example".into(),
                created,
            };
            (record.device, record.sign(&identity).unwrap(), identity)
        };
        let set_of = |recipient: &str| {
            let records = DEVICES.iter().filter(|(_, owner)| *owner == recipient);
            let mut records: Vec<_> = records.map(|(name, _)| record_of(name)).collect();
            records.sort_by_key(|(device, ..)| *device);
            let draft = DeviceSetDraft {
                tenant: tenant.clone(),
                recipient: RecipientId(id(recipient)),
                version: 1,
                previous: None,
                records: records.into_iter().map(|(_, record, _)| record).collect(),
                revoked: vec![],
                issued: created,
            };
            draft.sign(&enroller.key, &enroller.certificate).unwrap()
        };
        let device = |(at, (name, recipient)): (usize, &(&'static str, &'static str))| {
            let (device, record, identity) = record_of(name);
            let admission = Admission::sign(&tenant, &record, created, &enroller.key, &enroller.certificate);
            let statement = (at == LAB).then(|| {
                let identity = identity.verifying_key().digest();
                let statement =
                    MailboxStatement { tenant: tenant.clone(), device, identity, issued: created };
                statement.sign(&sender.key, &sender.certificate).unwrap()
            });
            let credential = MemberCredential { admission, statement };
            let member = Member::new(identity, &credential, &trust).unwrap();
            Identity { member, set: set_of(recipient) }
        };
        let devices = DEVICES.iter().enumerate().map(device).collect();
        Self {
            start,
            devices,
            revoker: certified(Purpose::Revoke, "security"),
            root: root.verifying_key(),
            trust,
        }
    }

    pub(crate) fn device(&self, at: usize) -> DeviceId {
        self.devices[at].member.device()
    }

    pub(crate) fn place_of(&self, device: DeviceId) -> Option<usize> {
        self.devices.iter().position(|known| known.member.device() == device)
    }

    /// The two roots together: what a device believes that checks no evidence.
    pub(crate) fn trusting(&self, intruder: &Self) -> TenantTrust {
        TenantTrust::new(self.trust.tenant().clone(), vec![self.root, intruder.root])
    }
}

/// The keyserver of one history.
#[derive(Default)]
pub(crate) struct Directory {
    /// By device and suite.
    shelves: BTreeMap<(usize, u16), Shelf>,
    revoked: Vec<DeviceId>,
    status: Option<Vec<u8>>,
}

#[derive(Default)]
struct Shelf {
    one_time: VecDeque<(Vec<u8>, UnixTime)>,
    last_resort: Option<(Vec<u8>, UnixTime)>,
    known: BTreeSet<Digest>,
}

impl Directory {
    /// Takes in key packages; the same ones again are taken once.
    pub(crate) fn put(&mut self, at: usize, upload: &Upload, now: UnixTime) {
        let shelf = self.shelf(at, upload.suite);
        if upload.replace {
            shelf.one_time.clear();
            shelf.last_resort = None;
        }
        for package in &upload.one_time {
            if shelf.known.insert(Digest::of(package)) {
                shelf.one_time.push_back((package.clone(), now));
            }
        }
        if let Some(package) = &upload.last_resort {
            shelf.last_resort = Some((package.clone(), now));
        }
    }

    /// One key package, never the same twice but for the last resort.
    pub(crate) fn take(
        &mut self,
        hospital: &Hospital,
        at: usize,
        suite: GroupSuite,
        now: UnixTime,
    ) -> Option<NewMember> {
        if self.is_revoked(hospital.device(at)) {
            return None;
        }
        let shelf = self.fresh(at, suite, now);
        let (key_package, _) = shelf.one_time.pop_front().or_else(|| shelf.last_resort.clone())?;
        Some(NewMember { key_package, set: hospital.devices[at].set.clone() })
    }

    /// What is left: how many, and whether there is a last resort.
    pub(crate) fn left(&mut self, at: usize, suite: GroupSuite, now: UnixTime) -> (usize, bool) {
        let shelf = self.fresh(at, suite, now);
        (shelf.one_time.len(), shelf.last_resort.is_some())
    }

    /// A shelf without what has expired.
    fn fresh(&mut self, at: usize, suite: GroupSuite, now: UnixTime) -> &mut Shelf {
        let good = |made: &UnixTime| now < made.plus(KEY_PACKAGE_LIFETIME_SECONDS).minus(DAY);
        let shelf = self.shelf(at, suite);
        shelf.one_time.retain(|(_, made)| good(made));
        shelf.last_resort = shelf.last_resort.take().filter(|(_, made)| good(made));
        shelf
    }

    fn shelf(&mut self, at: usize, suite: GroupSuite) -> &mut Shelf {
        self.shelves.entry((at, suite.code())).or_default()
    }

    pub(crate) fn revoke(&mut self, hospital: &Hospital, device: DeviceId, now: UnixTime) {
        self.revoked.push(device);
        self.revoked.sort_unstable();
        let status = TenantStatus {
            tenant: hospital.trust.tenant().clone(),
            sequence: self.revoked.len() as u64,
            issued: now,
            revoked_keys: vec![],
            revoked_devices: self.revoked.clone(),
        };
        self.status = Some(status.sign(&hospital.revoker.key, &hospital.revoker.certificate).unwrap());
    }

    pub(crate) fn is_revoked(&self, device: DeviceId) -> bool {
        self.revoked.contains(&device)
    }

    pub(crate) fn status(&self) -> Option<&[u8]> {
        self.status.as_deref()
    }
}

fn key(name: &str) -> SigningKey {
    SigningKey::from_seed(&Sha256::digest(name).into())
}

fn id(name: &str) -> [u8; 16] {
    Sha256::digest(name)[..16].try_into().unwrap()
}
