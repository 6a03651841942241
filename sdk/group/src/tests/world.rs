//! A tenant with its keys, devices with stores that keep or lose a transaction, and the relay's slot.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng};
use sealpost_wire::admission::Admission;
use sealpost_wire::certificate::{Certificate, Purpose};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::device_set::DeviceSetDraft;
use sealpost_wire::id::{CertificateId, DeviceId, Digest, GroupId, RecipientId, TenantId, TicketId};
use sealpost_wire::key::{RequestKey, SigningKey};
use sealpost_wire::member::{MailboxStatement, MemberCredential};
use sealpost_wire::message::Suite;
use sealpost_wire::payload::MlsFrame;
use sealpost_wire::record::DeviceRecord;
use sealpost_wire::slot::SlotClaim;
use sealpost_wire::status::{Revocation, TenantStatus};
use sealpost_wire::trust::TenantTrust;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{
    CommitPlan, ContentKind, GroupContent, GroupError, GroupStore, GroupSuite, Groups, Member, MessageId,
    NewMember, OutgoingFrame, Processed, StagedCommit,
};

pub(super) const DAY: u64 = 86_400;

/// A stream of bytes that follows from a name.
pub(super) struct Dice {
    seed: [u8; 32],
    drawn: u64,
}

impl Dice {
    pub(super) fn new(name: &str) -> Self {
        Self { seed: Sha256::digest(name).into(), drawn: 0 }
    }
}

impl TryRng for Dice {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes).map(|()| u32::from_be_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes).map(|()| u64::from_be_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        for part in to.chunks_mut(32) {
            let block =
                Sha256::new().chain_update(self.seed).chain_update(self.drawn.to_be_bytes()).finalize();
            self.drawn += 1;
            part.iter_mut().zip(block).for_each(|(to, from)| *to = from);
        }
        Ok(())
    }
}

impl TryCryptoRng for Dice {}

/// A store in memory. A transaction is a copy that takes the store's place when it is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory(pub(super) BTreeMap<Vec<u8>, Vec<u8>>);

impl GroupStore for Memory {
    type Error = Infallible;

    fn read(&self, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, Infallible> {
        assert!(key.len() <= crate::KEY_BYTES_MAX, "a key of {} bytes", key.len());
        Ok(self.0.get(key).cloned().map(Zeroizing::new))
    }

    fn write(&mut self, key: Vec<u8>, value: Zeroizing<Vec<u8>>) -> Result<(), Infallible> {
        assert!(key.len() <= crate::KEY_BYTES_MAX, "a key of {} bytes", key.len());
        self.0.insert(key, value.to_vec());
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), Infallible> {
        self.0.remove(key);
        Ok(())
    }
}

/// A store that fails at one of its calls: `left` of them go well before it.
pub(super) struct Failing<'m> {
    pub(super) memory: &'m mut Memory,
    pub(super) left: Cell<usize>,
}

/// The store failed.
#[derive(Debug, thiserror::Error)]
#[error("the disk is full")]
pub(super) struct Full;

impl Failing<'_> {
    fn call(&self) -> Result<(), Full> {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        if left == 0 { Err(Full) } else { Ok(()) }
    }
}

impl GroupStore for Failing<'_> {
    type Error = Full;

    fn read(&self, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, Full> {
        self.call()?;
        Ok(self.memory.0.get(key).cloned().map(Zeroizing::new))
    }

    fn write(&mut self, key: Vec<u8>, value: Zeroizing<Vec<u8>>) -> Result<(), Full> {
        self.call()?;
        self.memory.0.insert(key, value.to_vec());
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), Full> {
        self.call()?;
        self.memory.0.remove(key);
        Ok(())
    }
}

/// The hospital's keys, and what a party believes of it.
pub(super) struct Tenant {
    pub(super) trust: TenantTrust,
    pub(super) now: UnixTime,
    enroller: (SigningKey, Vec<u8>),
    revoker: (SigningKey, Vec<u8>),
    sender: (SigningKey, Vec<u8>),
    revoked: (Vec<DeviceId>, u64),
}

impl Tenant {
    pub(super) fn new() -> Self {
        // openmls compares the lifetimes of key packages with the clock of the system, whatever clock is passed.
        #[allow(clippy::disallowed_methods, reason = "so the tests' clock begins there")]
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let now = UnixTime(now);
        let tenant: TenantId = "st-mary".parse().unwrap();
        let root = key("root");
        let certified = |purpose, subject: &str| {
            let key = key(subject);
            let certificate = Certificate {
                tenant: tenant.clone(),
                purpose,
                subject: subject.parse().unwrap(),
                id: CertificateId(id(subject)),
                key: RequestKey::Ed25519(key.verifying_key()),
                not_before: now.minus(400 * DAY),
                not_after: now.plus(400 * DAY),
                roles: vec![],
            };
            let certificate = certificate.sign(&root).unwrap();
            (key, certificate)
        };
        Self {
            trust: TenantTrust::new(tenant.clone(), vec![root.verifying_key()]),
            now,
            enroller: certified(Purpose::Enrol, "portal"),
            revoker: certified(Purpose::Revoke, "security"),
            sender: certified(Purpose::Send, "lab"),
            revoked: (vec![], 0),
        }
    }

    /// A device of a recipient of its own.
    pub(super) fn device(&self, name: &str) -> Device {
        self.device_of(name, name, false, &[Suite::Hybrid, Suite::Classical])
    }

    /// The laboratory's own device.
    pub(super) fn mailbox(&self, name: &str) -> Device {
        self.device_of(name, name, true, &[Suite::Hybrid, Suite::Classical])
    }

    pub(super) fn device_of(&self, name: &str, recipient: &str, mailbox: bool, suites: &[Suite]) -> Device {
        let identity = key(name);
        let record = DeviceRecord {
            tenant: self.trust.tenant().clone(),
            ticket: TicketId(id(&format!("ticket of {name}"))),
            device: DeviceId(id(name)),
            identity_key: identity.verifying_key(),
            request_key: RequestKey::Ed25519(key(&format!("requests of {name}")).verifying_key()),
            suites: suites.to_vec(),
            relay: "https://relay.example".into(),
            created: self.now.minus(DAY),
        };
        let device = record.device;
        let record = record.sign(&identity).unwrap();
        let (key, certificate) = &self.enroller;
        let admission = Admission::sign(self.trust.tenant(), &record, self.now.minus(DAY), key, certificate);
        let statement = mailbox.then(|| {
            let statement = MailboxStatement {
                tenant: self.trust.tenant().clone(),
                device,
                identity: identity.verifying_key().digest(),
                issued: self.now.minus(DAY),
            };
            statement.sign(&self.sender.0, &self.sender.1).unwrap()
        });
        let credential = MemberCredential { admission, statement };
        Device {
            member: Member::new(identity, &credential, &self.trust).unwrap(),
            trust: self.trust.clone(),
            now: self.now,
            recipient: RecipientId(id(recipient)),
            set: self.set(recipient, 1, None, vec![record.clone()], vec![]),
            record,
            store: Memory::default(),
            dice: Dice::new(name),
        }
    }

    /// A device set of a recipient.
    pub(super) fn set(
        &self,
        recipient: &str,
        version: u64,
        previous: Option<&[u8]>,
        records: Vec<Vec<u8>>,
        revoked: Vec<DeviceId>,
    ) -> Vec<u8> {
        let draft = DeviceSetDraft {
            tenant: self.trust.tenant().clone(),
            recipient: RecipientId(id(recipient)),
            version,
            previous: previous.map(Digest::of),
            records,
            revoked,
            issued: self.now,
        };
        draft.sign(&self.enroller.0, &self.enroller.1).unwrap()
    }

    /// The same set, signed by the revoke key.
    pub(super) fn removal(&self, recipient: &str, version: u64, previous: &[u8], out: DeviceId) -> Vec<u8> {
        let draft = DeviceSetDraft {
            tenant: self.trust.tenant().clone(),
            recipient: RecipientId(id(recipient)),
            version,
            previous: Some(Digest::of(previous)),
            records: vec![],
            revoked: vec![out],
            issued: self.now,
        };
        draft.sign(&self.revoker.0, &self.revoker.1).unwrap()
    }

    /// Revokes a device: a new status, as everybody will get it.
    pub(super) fn revoke(&mut self, device: DeviceId) -> Vec<u8> {
        self.revoked.0.push(device);
        self.revoked.0.sort_unstable();
        self.status(vec![])
    }

    /// The enrol key is in other hands.
    pub(super) fn lose_enrol_key(&mut self) -> Vec<u8> {
        let key = self.enroller.0.verifying_key().key_id();
        self.status(vec![(key, Revocation::Compromised)])
    }

    fn status(&mut self, revoked_keys: Vec<(sealpost_wire::id::KeyId, Revocation)>) -> Vec<u8> {
        self.revoked.1 += 1;
        let status = TenantStatus {
            tenant: self.trust.tenant().clone(),
            sequence: self.revoked.1,
            issued: self.now,
            revoked_keys,
            revoked_devices: self.revoked.0.clone(),
        };
        status.sign(&self.revoker.0, &self.revoker.1).unwrap()
    }
}

/// A device with its store.
pub(super) struct Device {
    pub(super) member: Member,
    pub(super) trust: TenantTrust,
    pub(super) now: UnixTime,
    pub(super) recipient: RecipientId,
    pub(super) record: Vec<u8>,
    pub(super) set: Vec<u8>,
    pub(super) store: Memory,
    pub(super) dice: Dice,
}

impl Device {
    pub(super) fn id(&self) -> DeviceId {
        self.member.device()
    }

    /// A transaction that is committed.
    pub(super) fn groups(&mut self) -> Groups<'_, Memory> {
        Groups::new(&self.member, &self.trust, self.now, &mut self.store, &mut self.dice)
    }

    pub(super) fn accept(&mut self, status: &[u8]) {
        self.trust.accept_status(status, self.now).unwrap();
    }

    /// A key package and the set, as the keyserver would give them.
    pub(super) fn invited(&mut self, suite: GroupSuite) -> NewMember {
        let key_package = self.groups().make_key_packages(1, suite, false).unwrap().remove(0);
        NewMember { key_package, set: self.set.clone() }
    }

    pub(super) fn process(&mut self, author: DeviceId, frame: &MlsFrame) -> Processed {
        self.groups().process(author, frame).unwrap()
    }

    pub(super) fn say(&mut self, group: GroupId, text: &str) -> OutgoingFrame {
        let content = text_of(&mut self.dice, self.now, text);
        self.groups().send(group, &content).unwrap()
    }

    pub(super) fn stage(&mut self, group: GroupId, plan: &CommitPlan) -> StagedCommit {
        self.groups().stage_commit(group, plan).unwrap()
    }

    pub(super) fn epoch(&mut self, group: GroupId) -> u64 {
        self.groups().state(group).unwrap().epoch
    }

    pub(super) fn in_group(&mut self, group: GroupId) -> Vec<DeviceId> {
        let mut members: Vec<_> =
            self.groups().members(group).unwrap().into_iter().map(|entry| entry.device).collect();
        members.sort_unstable();
        members
    }

    pub(super) fn refused(&mut self, group: GroupId, plan: &CommitPlan) -> &'static str {
        let before = self.store.clone();
        let error: GroupError = self.groups().stage_commit(group, plan).unwrap_err();
        assert_eq!(self.store, before, "an operation that fails leaves nothing");
        error.code()
    }
}

pub(super) fn text_of(dice: &mut Dice, now: UnixTime, text: &str) -> GroupContent {
    GroupContent {
        id: MessageId::random(dice),
        created: now,
        kind: ContentKind::Text,
        text: text.into(),
        about: None,
        quick_replies: vec![],
    }
}

/// The relay's part: one slot.
#[derive(Default)]
pub(super) struct Slot(Option<(u64, Digest)>);

impl Slot {
    /// Whether the claim wins.
    pub(super) fn claim(&mut self, claim: &SlotClaim) -> bool {
        let wins = match (&self.0, &claim.capability) {
            (None, None) => true,
            (Some((next, asked)), Some(shown)) => *next == claim.sequence && shown.opens(asked),
            _ => false,
        };
        if wins {
            self.0 = Some((claim.next_sequence().unwrap(), claim.next));
        }
        wins
    }
}

/// A group of devices behind one relay that loses nothing.
pub(super) struct World {
    pub(super) tenant: Tenant,
    pub(super) group: GroupId,
    pub(super) slot: Slot,
    pub(super) devices: Vec<Device>,
}

impl World {
    /// A group of the laboratory's mailbox, the steward, and devices with these names.
    pub(super) fn new(names: &[&str]) -> Self {
        Self::with_suite(names, GroupSuite::Classical)
    }

    pub(super) fn with_suite(names: &[&str], suite: GroupSuite) -> Self {
        let tenant = Tenant::new();
        let mut lab = tenant.mailbox("lab system");
        let group = lab.groups().create("Ward 3", &[], suite).unwrap();
        let mut world = Self { group, slot: Slot::default(), devices: vec![lab], tenant };
        let newcomers: Vec<_> = names.iter().map(|name| world.tenant.device(name)).collect();
        if !newcomers.is_empty() {
            world.invite(newcomers);
        }
        world
    }

    pub(super) fn suite(&mut self) -> GroupSuite {
        let group = self.group;
        self.devices[0].groups().state(group).unwrap().suite
    }

    /// The steward invites devices; everybody hears of it.
    pub(super) fn invite(&mut self, mut newcomers: Vec<Device>) {
        let suite = self.suite();
        let add = newcomers.iter_mut().map(|device| device.invited(suite)).collect();
        let first = self.devices.len();
        self.devices.append(&mut newcomers);
        self.commit(0, &CommitPlan { add, ..CommitPlan::default() });
        for at in first..self.devices.len() {
            let group = self.group;
            assert_eq!(self.devices[at].epoch(group), self.devices[0].epoch(group));
        }
    }

    /// A commit that wins and that everybody processes. Returns what became of it at each device.
    pub(super) fn commit(&mut self, by: usize, plan: &CommitPlan) -> Vec<Processed> {
        let group = self.group;
        let staged = self.devices[by].stage(group, plan);
        assert!(self.slot.claim(&staged.claim), "the claim loses");
        self.devices[by].groups().merge_staged(group).unwrap();
        self.deliver(by, &staged.frames)
    }

    /// Brings frames to those they are for, in order.
    pub(super) fn deliver(&mut self, by: usize, frames: &[OutgoingFrame]) -> Vec<Processed> {
        let author = self.devices[by].id();
        let mut outcomes = Vec::new();
        for outgoing in frames {
            for device in &mut self.devices {
                if outgoing.to.contains(&device.id()) {
                    outcomes.push(device.process(author, &outgoing.frame));
                }
            }
        }
        outcomes
    }

    /// Everybody named is in the same epoch and state, and hears everybody.
    pub(super) fn assert_agreed(&mut self, members: &[usize]) {
        let group = self.group;
        let states: Vec<_> = members
            .iter()
            .map(|at| {
                let state = self.devices[*at].groups().state(group).unwrap();
                (state.epoch, state.authenticator)
            })
            .collect();
        assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "{states:?}");
        for by in members {
            let said = self.devices[*by].say(group, "Does everybody hear this?");
            let mut to: Vec<_> =
                members.iter().filter(|at| *at != by).map(|at| self.devices[*at].id()).collect();
            to.sort_unstable();
            assert_eq!(said.to, to);
            for outcome in self.deliver(*by, &[said]) {
                assert!(matches!(outcome, Processed::Message(_)), "{outcome:?}");
            }
        }
    }
}

pub(super) fn key(name: &str) -> SigningKey {
    SigningKey::from_seed(&Sha256::digest(name).into())
}

fn id(name: &str) -> [u8; 16] {
    Sha256::digest(name)[..16].try_into().unwrap()
}

impl Device {
    /// What would become of a frame, in a transaction that is dropped.
    pub(super) fn clone_process(&mut self, author: DeviceId, frame: &MlsFrame) -> Processed {
        let before = self.store.clone();
        let outcome = self.process(author, frame);
        self.store = before;
        outcome
    }
}
