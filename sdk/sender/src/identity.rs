//! Who a sender or an enroller is: keys and certificates in one file that only its owner may read.

use std::path::Path;

use sealpost_wire::assertion::client_id;
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::id::{SubjectId, TenantId};
use sealpost_wire::key::{RequestSigningKey, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::http::Client;
use crate::private_file::{PrivateFileError, read_private, write_private};

pub use crate::vault::StorageKey;

/// A signing key and the certificate for it.
#[derive(Clone, Debug)]
pub struct CertifiedKey {
    /// The key.
    pub key: SigningKey,
    /// The certificate's bytes.
    pub certificate: Vec<u8>,
}

/// A sending system.
#[derive(Clone, Debug)]
pub struct SenderIdentityFile {
    /// The tenant.
    pub tenant: TenantId,
    /// The tenant's root.
    pub root: VerifyingKey,
    /// The sender's name in its certificates.
    pub subject: SubjectId,
    /// The keyserver's URL.
    pub keyserver: String,
    /// The relay's URL.
    pub relay: String,
    /// Signs messages.
    pub send: CertifiedKey,
    /// Authenticates at both servers.
    pub request: CertifiedKey,
    /// Seals what waits in the outbox.
    pub outbox_key: StorageKey,
}

/// Who makes tickets and countersigns devices.
#[derive(Clone, Debug)]
pub struct EnrollerIdentityFile {
    /// The tenant.
    pub tenant: TenantId,
    /// The tenant's root.
    pub root: VerifyingKey,
    /// The enroller's name in its certificates.
    pub subject: SubjectId,
    /// The keyserver's URL.
    pub keyserver: String,
    /// The relay's URL, for the devices that enrol.
    pub relay: String,
    /// Countersigns devices.
    pub enrol: CertifiedKey,
    /// Authenticates at both servers, with the roles enroller and revoker.
    pub request: CertifiedKey,
    /// Signs the tenant status.
    pub revoke: CertifiedKey,
    /// Seals the tickets' secrets.
    pub ticket_key: StorageKey,
}

impl SenderIdentityFile {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self, PrivateFileError> {
        let file: SenderFile = read_json(path)?;
        let root = file.common.root(path)?;
        Ok(Self {
            send: file.send.key(path)?,
            request: file.request.key(path)?,
            outbox_key: StorageKey::new(*seed(&file.outbox_key, path)?),
            root,
            tenant: file.common.tenant,
            subject: file.common.subject,
            keyserver: file.common.keyserver,
            relay: file.common.relay,
        })
    }

    /// Writes the file, mode 0600.
    pub fn write(&self, path: &Path) -> Result<(), PrivateFileError> {
        write_json(
            path,
            &SenderFile {
                common: Common {
                    tenant: self.tenant.clone(),
                    root: Base64Url(self.root.as_bytes().to_vec()),
                    subject: self.subject.clone(),
                    keyserver: self.keyserver.clone(),
                    relay: self.relay.clone(),
                },
                send: KeyPair::of(&self.send),
                request: KeyPair::of(&self.request),
                outbox_key: Base64Url(self.outbox_key.expose().to_vec()),
            },
        )
    }

    pub(crate) fn client(&self) -> Client {
        client(&self.tenant, &self.subject, &self.request)
    }
}

impl EnrollerIdentityFile {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self, PrivateFileError> {
        let file: EnrollerFile = read_json(path)?;
        let root = file.common.root(path)?;
        Ok(Self {
            enrol: file.enrol.key(path)?,
            request: file.request.key(path)?,
            revoke: file.revoke.key(path)?,
            ticket_key: StorageKey::new(*seed(&file.ticket_key, path)?),
            root,
            tenant: file.common.tenant,
            subject: file.common.subject,
            keyserver: file.common.keyserver,
            relay: file.common.relay,
        })
    }

    /// Writes the file, mode 0600.
    pub fn write(&self, path: &Path) -> Result<(), PrivateFileError> {
        write_json(
            path,
            &EnrollerFile {
                common: Common {
                    tenant: self.tenant.clone(),
                    root: Base64Url(self.root.as_bytes().to_vec()),
                    subject: self.subject.clone(),
                    keyserver: self.keyserver.clone(),
                    relay: self.relay.clone(),
                },
                enrol: KeyPair::of(&self.enrol),
                request: KeyPair::of(&self.request),
                revoke: KeyPair::of(&self.revoke),
                ticket_key: Base64Url(self.ticket_key.expose().to_vec()),
            },
        )
    }

    pub(crate) fn client(&self) -> Client {
        client(&self.tenant, &self.subject, &self.request)
    }
}

fn client(tenant: &TenantId, subject: &SubjectId, request: &CertifiedKey) -> Client {
    Client {
        id: client_id(tenant, subject),
        key: RequestSigningKey::Ed25519(request.key.clone()),
        certificate: request.certificate.clone(),
    }
}

#[derive(Serialize, Deserialize)]
struct Common {
    tenant: TenantId,
    root: Base64Url,
    subject: SubjectId,
    keyserver: String,
    relay: String,
}

impl Common {
    fn root(&self, path: &Path) -> Result<VerifyingKey, PrivateFileError> {
        VerifyingKey::from_bytes(&*seed(&self.root, path)?)
            .map_err(|error| malformed(path, &error.to_string()))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyPair {
    seed: Base64Url,
    certificate: Base64Url,
}

impl KeyPair {
    fn of(pair: &CertifiedKey) -> Self {
        Self { seed: Base64Url(pair.key.seed().to_vec()), certificate: Base64Url(pair.certificate.clone()) }
    }

    fn key(&self, path: &Path) -> Result<CertifiedKey, PrivateFileError> {
        let key = SigningKey::from_seed(&*seed(&self.seed, path)?);
        Ok(CertifiedKey { key, certificate: self.certificate.0.clone() })
    }
}

#[derive(Serialize, Deserialize)]
struct SenderFile {
    #[serde(flatten)]
    common: Common,
    send: KeyPair,
    request: KeyPair,
    outbox_key: Base64Url,
}

#[derive(Serialize, Deserialize)]
struct EnrollerFile {
    #[serde(flatten)]
    common: Common,
    enrol: KeyPair,
    request: KeyPair,
    revoke: KeyPair,
    ticket_key: Base64Url,
}

fn seed(bytes: &Base64Url, path: &Path) -> Result<Zeroizing<[u8; 32]>, PrivateFileError> {
    bytes.as_ref().try_into().map(Zeroizing::new).map_err(|_| malformed(path, "a key does not have 32 bytes"))
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, PrivateFileError> {
    // The parser's own text could quote the file, and so a key.
    serde_json::from_slice(&read_private(path)?)
        .map_err(|_| malformed(path, "not the key file that is expected"))
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), PrivateFileError> {
    let text = serde_json::to_vec_pretty(value).map_err(|error| malformed(path, &error.to_string()))?;
    write_private(path, &Zeroizing::new(text))
}

fn malformed(path: &Path, what: &str) -> PrivateFileError {
    PrivateFileError::Malformed { path: path.to_owned(), what: what.to_owned() }
}
