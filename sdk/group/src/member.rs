//! This device as a member of groups.

use std::fmt;

use openmls::credentials::{BasicCredential, CredentialWithKey};
use openmls::extensions::ExtensionType;
use openmls::prelude::{Capabilities, CredentialType, ProtocolVersion};
use openmls_traits::signatures::{Signer, SignerError};
use openmls_traits::types::SignatureScheme;
use sealpost_wire::id::{DeviceId, SubjectId, TenantId};
use sealpost_wire::key::SigningKey;
use sealpost_wire::member::MemberCredential;
use sealpost_wire::trust::TenantTrust;

use crate::context::EXTENSION_TYPE;
use crate::error::GroupError;
use crate::suite::GroupSuite;

/// Who this device is in every group: its identity key, which is the signature key of its leaves, and the credential
/// that it shows.
#[derive(Clone)]
pub struct Member {
    key: SigningKey,
    credential: Vec<u8>,
    tenant: TenantId,
    device: DeviceId,
    sender: Option<SubjectId>,
    suites: Vec<GroupSuite>,
}

impl Member {
    /// The member with this identity key and credential.
    ///
    /// # Errors
    /// The credential must not be believed, or is about another key ([`GroupError::Credential`]).
    pub fn new(
        key: SigningKey,
        credential: &MemberCredential,
        trust: &TenantTrust,
    ) -> Result<Self, GroupError> {
        let member = credential.verify(trust).map_err(GroupError::Credential)?;
        let record = member.record();
        if record.identity_key != key.verifying_key() {
            return Err(GroupError::Credential(sealpost_wire::error::TrustError::WrongDevice));
        }
        let suites = GroupSuite::ALL.into_iter().filter(|suite| suite.fits(&record.suites)).collect();
        Ok(Self {
            key,
            credential: credential.to_bytes(),
            tenant: record.tenant.clone(),
            device: record.device,
            sender: member.sender.clone(),
            suites,
        })
    }

    /// The device.
    #[must_use]
    pub const fn device(&self) -> DeviceId {
        self.device
    }

    /// The tenant.
    #[must_use]
    pub const fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// The sender whose mailbox this device is, if it is one.
    #[must_use]
    pub const fn sender(&self) -> Option<&SubjectId> {
        self.sender.as_ref()
    }

    /// The suites of the groups that the device can be in.
    #[must_use]
    pub fn suites(&self) -> &[GroupSuite] {
        &self.suites
    }

    pub(crate) fn supports(&self, suite: GroupSuite) -> bool {
        self.suites.contains(&suite)
    }

    pub(crate) fn is_key(&self, key: &[u8]) -> bool {
        self.key.verifying_key().as_bytes() == key
    }

    pub(crate) fn credential(&self) -> CredentialWithKey {
        CredentialWithKey {
            credential: BasicCredential::new(self.credential.clone()).into(),
            signature_key: self.key.verifying_key().as_bytes().to_vec().into(),
        }
    }

    /// What a leaf of this device says it can do.
    pub(crate) fn capabilities(&self) -> Capabilities {
        let suites: Vec<_> = self.suites.iter().map(|suite| suite.mls()).collect();
        Capabilities::new(
            Some(&[ProtocolVersion::Mls10]),
            Some(&suites),
            Some(&[ExtensionType::Unknown(EXTENSION_TYPE), ExtensionType::LastResort]),
            Some(&[]),
            Some(&[CredentialType::Basic]),
        )
    }
}

impl Signer for Member {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        Ok(self.key.sign(payload).to_vec())
    }

    fn signature_scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("tenant", &self.tenant)
            .field("device", &self.device)
            .field("sender", &self.sender)
            .finish_non_exhaustive()
    }
}
