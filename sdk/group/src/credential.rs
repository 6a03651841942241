//! Leaves and credentials: the one place where it is decided who a leaf of the tree is.

use openmls::credentials::{Credential, CredentialType};
use openmls::extensions::ExtensionType;
use openmls::prelude::{LeafNode, ProtocolVersion};
use sealpost_wire::admission::Admission;
use sealpost_wire::error::TrustError;
use sealpost_wire::id::{DeviceId, KeyId, RecipientId, SubjectId};
use sealpost_wire::member::MemberCredential;
use sealpost_wire::record::DeviceRecord;
use sealpost_wire::status::Revocation;
use sealpost_wire::trust::TenantTrust;
use serde::{Deserialize, Serialize};

use crate::context::EXTENSION_TYPE;
use crate::error::Refusal;
use crate::suite::GroupSuite;

/// A member as this device knows it, kept beside the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) device: DeviceId,
    /// The identity key, which is the leaf's signature key: what finds the member in the tree.
    pub(crate) key: [u8; 32],
    /// Whose device it is, if a device set said so.
    pub(crate) recipient: Option<RecipientId>,
    /// The sender whose mailbox it is.
    pub(crate) sender: Option<SubjectId>,
    /// The enrol key that admitted it; none if the member was void already when it was first seen.
    pub(crate) admitted_by: Option<KeyId>,
}

impl Row {
    /// Why the member must go, if it must: the tenant has revoked the device, or the key that admitted it is in other
    /// hands.
    pub(crate) fn void(&self, trust: &TenantTrust) -> Option<TrustError> {
        if let Err(error) = trust.check_device(self.device) {
            return Some(error);
        }
        let Some(signer) = self.admitted_by else { return Some(TrustError::KeyRevoked) };
        match trust.status().and_then(|status| status.revocation(signer)) {
            Some(Revocation::Compromised) => Some(TrustError::KeyRevoked),
            Some(Revocation::Retired) | None => None,
        }
    }
}

/// The member behind a leaf that comes into the tree: a newcomer's, or one that its owner renews. Everything is
/// checked: chain, tenant, status, key, suite, capabilities.
pub(crate) fn verify_leaf(leaf: &LeafNode, suite: GroupSuite, trust: &TenantTrust) -> Result<Row, Refusal> {
    let row = verify_credential(leaf.credential(), leaf.signature_key().as_slice(), Some(suite), trust)?;
    let capabilities = leaf.capabilities();
    let able = capabilities.versions().contains(&ProtocolVersion::Mls10)
        && capabilities.ciphersuites().iter().any(|known| known.value() == suite.code())
        && capabilities.extensions().contains(&ExtensionType::Unknown(EXTENSION_TYPE))
        && capabilities.credentials().contains(&CredentialType::Basic);
    if !able || leaf.extensions().iter().next().is_some() {
        return Err(Refusal::Unsupported);
    }
    Ok(row)
}

/// The member behind a leaf that is in a tree already. One that is revoked since is taken in, for whoever commits
/// next removes it.
pub(crate) fn known_member(credential: &Credential, key: &[u8], trust: &TenantTrust) -> Result<Row, Refusal> {
    match verify_credential(credential, key, None, trust) {
        Err(Refusal::Credential(TrustError::DeviceRevoked | TrustError::KeyRevoked)) => {
            let record = claimed_record(credential)?;
            if record.identity_key.as_bytes() != key {
                return Err(Refusal::WrongKey);
            }
            let key = *record.identity_key.as_bytes();
            Ok(Row { device: record.device, key, recipient: None, sender: None, admitted_by: None })
        }
        verified => verified,
    }
}

/// The device that a credential names, whatever has become of it: for telling whose message one is.
pub(crate) fn device_of(credential: &Credential) -> Result<DeviceId, Refusal> {
    claimed_record(credential).map(|record| record.device)
}

fn verify_credential(
    credential: &Credential,
    key: &[u8],
    suite: Option<GroupSuite>,
    trust: &TenantTrust,
) -> Result<Row, Refusal> {
    let member = read(credential)?.verify(trust).map_err(Refusal::Credential)?;
    let record = member.record();
    if record.identity_key.as_bytes() != key {
        return Err(Refusal::WrongKey);
    }
    if suite.is_some_and(|suite| !suite.fits(&record.suites)) {
        return Err(Refusal::Unsupported);
    }
    Ok(Row {
        device: record.device,
        key: *record.identity_key.as_bytes(),
        recipient: None,
        sender: member.sender.clone(),
        admitted_by: Some(member.admission.signer),
    })
}

fn read(credential: &Credential) -> Result<MemberCredential, Refusal> {
    if credential.credential_type() != CredentialType::Basic {
        return Err(Refusal::Unsupported);
    }
    let read = MemberCredential::read(credential.serialized_content());
    read.map_err(|error| Refusal::Credential(error.into()))
}

/// The record in a credential: signed by the key that it names, its admission not believed.
pub(crate) fn claimed_record(credential: &Credential) -> Result<DeviceRecord, Refusal> {
    Admission::claimed_record(&read(credential)?.admission).map_err(Refusal::Credential)
}
