//! Devices that take part in groups, and the stores of their groups.

use std::collections::BTreeMap;
use std::convert::Infallible;

use sealpost_group::{GroupError, GroupStore, GroupSuite, Groups, Member, NewMember, Processed};
use sealpost_wire::admission::Admission;
use sealpost_wire::device_set::DeviceSetDraft;
use sealpost_wire::id::{DeviceId, RecipientId, TicketId};
use sealpost_wire::key::{RequestKey, SigningKey};
use sealpost_wire::member::{MailboxStatement, MemberCredential};
use sealpost_wire::message::Suite;
use sealpost_wire::payload::MlsFrame;
use sealpost_wire::record::DeviceRecord;
use zeroize::Zeroizing;

use super::{Certified, Hospital, RELAY_URL, system_rng};
use crate::error::BenchError;

/// A device that takes part in groups.
#[derive(Clone)]
pub struct Participant {
    key: SigningKey,
    credential: MemberCredential,
    member: Member,
    set: Vec<u8>,
    store: Memory,
}

impl Hospital {
    /// A new device, the only one of its recipient; or the mailbox of the sending system.
    ///
    /// # Errors
    /// [`BenchError::Cast`].
    pub fn participant(&self, mailbox: bool) -> Result<Participant, BenchError> {
        let mut rng = system_rng();
        let key = SigningKey::generate(&mut rng);
        let record = DeviceRecord {
            tenant: self.tenant.clone(),
            ticket: TicketId([1; 16]),
            device: DeviceId::random(&mut rng),
            identity_key: key.verifying_key(),
            request_key: RequestKey::Ed25519(key.verifying_key()),
            suites: vec![Suite::Hybrid, Suite::Classical],
            relay: RELAY_URL.to_owned(),
            created: self.now,
        };
        let signed = record.sign(&key).map_err(BenchError::cast("a record"))?;
        let Certified { key: enroller, certificate } = &self.enrol;
        let admission = Admission::sign(&self.tenant, &signed, self.now, enroller, certificate);
        let statement = MailboxStatement {
            tenant: self.tenant.clone(),
            device: record.device,
            identity: key.verifying_key().digest(),
            issued: self.now,
        };
        let statement = mailbox.then(|| statement.sign(&self.send.key, &self.send.certificate)).transpose();
        let statement = statement.map_err(BenchError::cast("a mailbox statement"))?;
        let set = DeviceSetDraft {
            tenant: self.tenant.clone(),
            recipient: RecipientId::random(&mut rng),
            version: 1,
            previous: None,
            records: vec![signed],
            revoked: Vec::new(),
            issued: self.now,
        };
        let set = set.sign(enroller, certificate).map_err(BenchError::cast("a device set"))?;
        let credential = MemberCredential { admission, statement };
        let member = Member::new(key.clone(), &credential, &self.trust);
        let member = member.map_err(BenchError::cast("a member"))?;
        Ok(Participant { key, credential, member, set, store: Memory::default() })
    }
}

impl Participant {
    /// The device.
    #[must_use]
    pub const fn device(&self) -> DeviceId {
        self.member.device()
    }

    /// Its identity key.
    #[must_use]
    pub const fn key(&self) -> &SigningKey {
        &self.key
    }

    /// What it shows of itself in a group.
    #[must_use]
    pub const fn credential(&self) -> &MemberCredential {
        &self.credential
    }

    /// Its groups' state.
    #[must_use]
    pub const fn store(&self) -> &Memory {
        &self.store
    }

    /// Its groups, in one transaction.
    ///
    /// # Errors
    /// [`BenchError::Cast`].
    pub fn groups<T>(
        &mut self,
        hospital: &Hospital,
        work: impl FnOnce(&mut Groups<'_, Memory>) -> Result<T, GroupError>,
    ) -> Result<T, BenchError> {
        let mut rng = system_rng();
        let mut groups = Groups::new(&self.member, &hospital.trust, hospital.now, &mut self.store, &mut rng);
        work(&mut groups).map_err(BenchError::cast("an operation of a group"))
    }

    /// A key package of its own with what a steward needs beside it.
    ///
    /// # Errors
    /// [`BenchError::Cast`].
    pub fn invitable(&mut self, hospital: &Hospital, suite: GroupSuite) -> Result<NewMember, BenchError> {
        let mut packages = self.groups(hospital, |groups| groups.make_key_packages(1, suite, false))?;
        Ok(NewMember { key_package: packages.pop().unwrap_or_default(), set: self.set.clone() })
    }

    /// Processes a commit or welcome by `author`, which must change or begin its group.
    ///
    /// # Errors
    /// [`BenchError::Cast`]; [`BenchError::Miscounted`] if it does neither.
    pub fn follow(
        &mut self,
        hospital: &Hospital,
        author: DeviceId,
        frame: &MlsFrame,
    ) -> Result<(), BenchError> {
        match self.groups(hospital, |groups| groups.process(author, frame))? {
            Processed::Changed(_) | Processed::Joined { .. } | Processed::Removed { .. } => Ok(()),
            other => Err(BenchError::Miscounted(format!("a commit or welcome came to {other:?}"))),
        }
    }
}

/// A store in memory.
#[derive(Clone, Debug, Default)]
pub struct Memory(BTreeMap<Vec<u8>, Vec<u8>>);

impl Memory {
    /// Bytes of all keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.values().map(|(key, value)| key.len() + value.len()).sum()
    }

    /// What it holds.
    pub fn values(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))
    }
}

impl GroupStore for Memory {
    type Error = Infallible;

    fn read(&self, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, Infallible> {
        Ok(self.0.get(key).cloned().map(Zeroizing::new))
    }

    fn write(&mut self, key: Vec<u8>, mut value: Zeroizing<Vec<u8>>) -> Result<(), Infallible> {
        self.0.insert(key, std::mem::take(&mut *value));
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), Infallible> {
        self.0.remove(key);
        Ok(())
    }
}
