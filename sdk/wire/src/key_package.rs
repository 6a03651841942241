//! Key packages of MLS (RFC 9420 section 10): what a device leaves at the keyserver, so that it can be added to a
//! group while it is away.
//!
//! ```text
//! key package  = version (2) | suite (2) | <init key> | leaf node | <extension*> | <signature>
//! leaf node    = <encryption key> | <signature key> | credential | capabilities |
//!                source (1) | not before (8) | not after (8) | <extension*> | <signature>       section 7.2
//! credential   = type (2) | <identity>                                                          section 5.3
//! capabilities = <version (2)*> | <suite (2)*> | <extension type (2)*> | <proposal type (2)*> |
//!                <credential type (2)*>
//! extension    = type (2) | <data>
//! <x>          = length of x in 1, 2 or 4 bytes, as few as will do (section 2.1.2) | x
//! ```
//! Signatures are Ed25519 over `<"MLS 1.0 " label> | <bytes>` (section 5.1.2): that of the leaf over the leaf up to
//! it, with the label `LeafNodeTBS`; that of the package over the package up to it, with `KeyPackageTBS`. Neither
//! can be taken for a COSE signature of the same key, whose bytes begin with 0x84: a label is shorter than 64
//! bytes, so that these begin with a byte below 0x40.
//!
//! This reader is the project's own and knows no more than it must: a server that looks at key packages links no
//! MLS library. It is stricter than the standard: two suites, basic credentials that name a device of the tenant,
//! the device's identity key as the key of the leaf.

mod draft;
mod vector;

pub use self::draft::KeyPackageDraft;

use crate::clock::UnixTime;
use crate::error::{FormatError, TrustError};
use crate::id::{DeviceId, Digest, KeyPackageRef};
use crate::key::VerifyingKey;
use crate::limits::{
    CLOCK_SKEW_SECONDS_MAX, KEY_PACKAGE_BYTES_MAX, KEY_PACKAGE_EXTENSIONS_MAX,
    KEY_PACKAGE_LIFETIME_SECONDS_MAX,
};
use crate::member::MemberCredential;
use crate::trust::TenantTrust;

use self::vector::{Numbers, Reader, put_vector};

const VERSION_MLS10: u16 = 1;
const CREDENTIAL_BASIC: u16 = 1;
const LEAF_SOURCE_KEY_PACKAGE: u8 = 1;
/// Extension types up to this one are part of every implementation and not listed in capabilities (section 7.2).
const EXTENSION_DEFAULT_MAX: u16 = 5;
/// The extension of a key package that may be used more than once (draft-ietf-mls-extensions).
const EXTENSION_LAST_RESORT: u16 = 0x000a;
const LABEL_LEAF_NODE: &str = "LeafNodeTBS";
const LABEL_KEY_PACKAGE: &str = "KeyPackageTBS";
const LABEL_REFERENCE: &[u8] = b"MLS 1.0 KeyPackage Reference";

/// A cipher suite of MLS (RFC 9420 section 17.1). Both sign with Ed25519 and hash with SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MlsSuite {
    /// X25519, ChaCha20-Poly1305: 0x0003.
    Classical,
    /// X-Wing (draft-connolly-cfrg-xwing-kem-06), ChaCha20-Poly1305: 0x004D, a provisional number.
    Hybrid,
}

impl MlsSuite {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Classical, Self::Hybrid];

    /// The suite's number.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Classical => 0x0003,
            Self::Hybrid => 0x004d,
        }
    }

    /// The suite with this number.
    #[must_use]
    pub const fn from_code(code: u16) -> Option<Self> {
        match code {
            0x0003 => Some(Self::Classical),
            0x004d => Some(Self::Hybrid),
            _ => None,
        }
    }

    /// Bytes of a public key that is sealed to.
    #[must_use]
    pub const fn public_key_bytes(self) -> usize {
        match self {
            Self::Classical => 32,
            Self::Hybrid => 1216,
        }
    }
}

/// Why a key package is refused. The same bytes will do later only where they are not valid yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyPackageError {
    /// The bytes do not have the form; or the signatures, or the admission, are not to be believed.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Another version of MLS.
    #[error("another version of MLS")]
    UnknownVersion,
    /// A cipher suite that is not taken.
    #[error("a cipher suite that is not taken")]
    UnknownSuite,
    /// The leaf was made for an update or a commit.
    #[error("the leaf was not made for a key package")]
    WrongLeafSource,
    /// A credential of another type than basic.
    #[error("a credential of another type")]
    WrongCredential,
    /// The capabilities leave out what the key package itself is made of.
    #[error("the capabilities leave out what the key package is made of")]
    MissingCapability,
    /// One key for welcome and leaf.
    #[error("one key for welcome and leaf")]
    RepeatedKey,
    /// It ends before it begins, or lives too long.
    #[error("it ends before it begins, or lives too long")]
    WrongLifetime,
    /// It may not be used yet. Later it may.
    #[error("not valid yet")]
    NotYetValid,
    /// It may not be used any more.
    #[error("no longer valid")]
    Expired,
}

impl KeyPackageError {
    /// The stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Trust(error) => error.code(),
            Self::UnknownVersion => "unknown_version",
            Self::UnknownSuite => "unknown_suite",
            Self::WrongLeafSource => "wrong_leaf_source",
            Self::WrongCredential => "wrong_credential",
            Self::MissingCapability => "missing_capability",
            Self::RepeatedKey => "repeated_key",
            Self::WrongLifetime => "wrong_lifetime",
            Self::NotYetValid => "key_package_not_yet_valid",
            Self::Expired => "key_package_expired",
        }
    }
}

impl From<FormatError> for KeyPackageError {
    fn from(error: FormatError) -> Self {
        Self::Trust(error.into())
    }
}

/// When a key package may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Not before then.
    pub not_before: UnixTime,
    /// Before then.
    pub not_after: UnixTime,
}

impl Lifetime {
    /// Whether it is a lifetime at all, not too long, and begun (give or take clocks that differ) and not over at
    /// `now`.
    fn check(self, now: UnixTime) -> Result<(), KeyPackageError> {
        let seconds = self.not_after.0.checked_sub(self.not_before.0);
        if seconds.is_none_or(|seconds| seconds > KEY_PACKAGE_LIFETIME_SECONDS_MAX) {
            return Err(KeyPackageError::WrongLifetime);
        }
        if self.not_before > now.plus(CLOCK_SKEW_SECONDS_MAX) {
            return Err(KeyPackageError::NotYetValid);
        }
        if self.not_after <= now { Err(KeyPackageError::Expired) } else { Ok(()) }
    }
}

/// A key package as it came: of the right form, and nothing in it to be believed.
#[derive(Clone, Copy, Debug)]
pub struct SignedKeyPackage<'a> {
    bytes: &'a [u8],
    suite: MlsSuite,
    leaf: LeafNode<'a>,
    is_last_resort: bool,
    signed: Signed<'a>,
}

impl<'a> SignedKeyPackage<'a> {
    /// Reads a key package, all of it.
    ///
    /// # Errors
    /// All of [`KeyPackageError`] that the bytes alone show.
    pub fn read(bytes: &'a [u8]) -> Result<Self, KeyPackageError> {
        if bytes.len() > KEY_PACKAGE_BYTES_MAX {
            return Err(FormatError::TooLarge(KEY_PACKAGE_BYTES_MAX).into());
        }
        let mut reader = Reader::new(bytes);
        if reader.u16()? != VERSION_MLS10 {
            return Err(KeyPackageError::UnknownVersion);
        }
        let suite = MlsSuite::from_code(reader.u16()?).ok_or(KeyPackageError::UnknownSuite)?;
        let init_key = public_key(&mut reader, suite, "init key")?;
        let leaf = LeafNode::read(&mut reader, suite)?;
        let extensions = Extensions::read(&mut reader)?;
        let signed = Signed::read(&mut reader, 0)?;
        reader.end()?;
        if init_key == leaf.encryption_key {
            return Err(KeyPackageError::RepeatedKey);
        }
        leaf.capabilities.check(suite)?;
        leaf.capabilities.check_extensions(&leaf.extensions)?;
        leaf.capabilities.check_extensions(&extensions)?;
        let is_last_resort = extensions.contains(EXTENSION_LAST_RESORT);
        Ok(Self { bytes, suite, leaf, is_last_resort, signed })
    }

    /// The suite.
    #[must_use]
    pub const fn suite(&self) -> MlsSuite {
        self.suite
    }

    /// Whether it may be used more than once.
    #[must_use]
    pub const fn is_last_resort(&self) -> bool {
        self.is_last_resort
    }

    /// When it may be used.
    #[must_use]
    pub const fn lifetime(&self) -> Lifetime {
        self.leaf.lifetime
    }

    /// The identity of its BasicCredential: a member credential, if it is of this project.
    #[must_use]
    pub const fn credential(&self) -> &'a [u8] {
        self.leaf.identity
    }

    /// The key that signs as the member that it becomes.
    #[must_use]
    pub const fn signature_key(&self) -> &VerifyingKey {
        &self.leaf.signature_key
    }

    /// Its name, in welcomes too: RefHash of all its bytes (section 5.2).
    #[must_use]
    pub fn reference(&self) -> KeyPackageRef {
        let mut input = Vec::with_capacity(LABEL_REFERENCE.len() + self.bytes.len() + 8);
        put_vector(&mut input, LABEL_REFERENCE);
        put_vector(&mut input, self.bytes);
        KeyPackageRef(Digest::of(&input).0)
    }

    /// Verifies both signatures by the key in its leaf, and nothing else: whose key that is, is for
    /// [`Self::verify`].
    ///
    /// # Errors
    /// [`TrustError::BadSignature`].
    pub fn verify_signatures(&self) -> Result<(), TrustError> {
        self.leaf.signed.verify(&self.leaf.signature_key, LABEL_LEAF_NODE)?;
        self.signed.verify(&self.leaf.signature_key, LABEL_KEY_PACKAGE)
    }

    /// Verifies that it is a key package of `owner` that may be used at `now`.
    ///
    /// # Errors
    /// The lifetime; [`TrustError::WrongDevice`] for another key than the owner's identity key; a signature; what
    /// [`KeyPackageOwner`] refuses.
    pub fn verify(
        &self,
        owner: &mut KeyPackageOwner<'_>,
        now: UnixTime,
    ) -> Result<VerifiedKeyPackage<'a>, KeyPackageError> {
        self.leaf.lifetime.check(now)?;
        if self.leaf.signature_key != owner.identity_key {
            return Err(TrustError::WrongDevice.into());
        }
        self.verify_signatures()?;
        owner.check_credential(self.leaf.identity)?;
        Ok(VerifiedKeyPackage { package: *self })
    }
}

/// A key package of a device that its tenant has admitted.
#[derive(Clone, Copy, Debug)]
pub struct VerifiedKeyPackage<'a> {
    package: SignedKeyPackage<'a>,
}

impl<'a> VerifiedKeyPackage<'a> {
    /// What it says.
    #[must_use]
    pub const fn package(&self) -> &SignedKeyPackage<'a> {
        &self.package
    }
}

/// Whose key packages are verified. The packages of one upload carry one credential: what was believed a moment
/// ago is not verified again.
#[derive(Debug)]
pub struct KeyPackageOwner<'t> {
    trust: &'t TenantTrust,
    device: DeviceId,
    identity_key: VerifyingKey,
    believed: Option<Vec<u8>>,
}

impl<'t> KeyPackageOwner<'t> {
    /// The device with this identity key, of a tenant that is believed so much.
    #[must_use]
    pub const fn new(trust: &'t TenantTrust, device: DeviceId, identity_key: VerifyingKey) -> Self {
        Self { trust, device, identity_key, believed: None }
    }

    /// Whether a member credential is this device's.
    fn check_credential(&mut self, credential: &[u8]) -> Result<(), TrustError> {
        if self.believed.as_deref() == Some(credential) {
            return Ok(());
        }
        let member = MemberCredential::read(credential)?.verify(self.trust)?;
        let record = member.record();
        if record.device != self.device || record.identity_key != self.identity_key {
            return Err(TrustError::WrongDevice);
        }
        self.believed = Some(credential.to_vec());
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
struct LeafNode<'a> {
    encryption_key: &'a [u8],
    signature_key: VerifyingKey,
    identity: &'a [u8],
    capabilities: Capabilities<'a>,
    lifetime: Lifetime,
    extensions: Extensions,
    signed: Signed<'a>,
}

impl<'a> LeafNode<'a> {
    fn read(reader: &mut Reader<'a>, suite: MlsSuite) -> Result<Self, KeyPackageError> {
        let start = reader.position();
        let encryption_key = public_key(reader, suite, "encryption key")?;
        let signature_key =
            reader.vector()?.try_into().map_err(|_| FormatError::WrongValue("signature key"))?;
        let signature_key = VerifyingKey::from_bytes(signature_key)?;
        if reader.u16()? != CREDENTIAL_BASIC {
            return Err(KeyPackageError::WrongCredential);
        }
        let identity = reader.vector()?;
        let capabilities = Capabilities::read(reader)?;
        if reader.u8()? != LEAF_SOURCE_KEY_PACKAGE {
            return Err(KeyPackageError::WrongLeafSource);
        }
        let lifetime = Lifetime { not_before: UnixTime(reader.u64()?), not_after: UnixTime(reader.u64()?) };
        let extensions = Extensions::read(reader)?;
        let signed = Signed::read(reader, start)?;
        Ok(Self { encryption_key, signature_key, identity, capabilities, lifetime, extensions, signed })
    }
}

/// What the device says that it can do.
#[derive(Clone, Copy, Debug)]
struct Capabilities<'a> {
    versions: Numbers<'a>,
    suites: Numbers<'a>,
    extensions: Numbers<'a>,
    credentials: Numbers<'a>,
}

impl<'a> Capabilities<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, FormatError> {
        let (versions, suites, extensions) = (reader.numbers()?, reader.numbers()?, reader.numbers()?);
        let _proposals = reader.numbers()?;
        Ok(Self { versions, suites, extensions, credentials: reader.numbers()? })
    }

    fn check(&self, suite: MlsSuite) -> Result<(), KeyPackageError> {
        let is_listed = self.versions.contains(VERSION_MLS10)
            && self.suites.contains(suite.code())
            && self.credentials.contains(CREDENTIAL_BASIC);
        if is_listed { Ok(()) } else { Err(KeyPackageError::MissingCapability) }
    }

    fn check_extensions(&self, extensions: &Extensions) -> Result<(), KeyPackageError> {
        let is_listed =
            |kind: u16| (1..=EXTENSION_DEFAULT_MAX).contains(&kind) || self.extensions.contains(kind);
        if extensions.kinds().all(is_listed) { Ok(()) } else { Err(KeyPackageError::MissingCapability) }
    }
}

/// The types of a list of extensions; what they say is for the members of a group.
#[derive(Clone, Copy, Debug)]
struct Extensions {
    kinds: [Option<u16>; KEY_PACKAGE_EXTENSIONS_MAX],
}

impl Extensions {
    /// Reads a list, in which each type is at most once (section 13).
    fn read(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let mut list = Reader::new(reader.vector()?);
        let mut extensions = Self { kinds: [None; KEY_PACKAGE_EXTENSIONS_MAX] };
        let wrong = FormatError::WrongValue("extensions");
        while list.end().is_err() {
            let kind = list.u16()?;
            list.vector()?;
            if extensions.contains(kind) {
                return Err(wrong);
            }
            *extensions.kinds.iter_mut().find(|slot| slot.is_none()).ok_or(wrong)? = Some(kind);
        }
        Ok(extensions)
    }

    fn kinds(&self) -> impl Iterator<Item = u16> {
        self.kinds.iter().copied().flatten()
    }

    fn contains(&self, kind: u16) -> bool {
        self.kinds().any(|known| known == kind)
    }
}

/// Some bytes with the signature behind them.
#[derive(Clone, Copy, Debug)]
struct Signed<'a> {
    bytes: &'a [u8],
    signature: [u8; 64],
}

impl<'a> Signed<'a> {
    /// Reads the signature of what was read since `start`.
    fn read(reader: &mut Reader<'a>, start: usize) -> Result<Self, FormatError> {
        let bytes = reader.since(start);
        let signature = reader.vector()?.try_into().map_err(|_| FormatError::WrongValue("signature"))?;
        Ok(Self { bytes, signature })
    }

    fn verify(&self, key: &VerifyingKey, label: &str) -> Result<(), TrustError> {
        key.verify(&sign_content(label, self.bytes), &self.signature)
    }
}

/// SignContent (section 5.1.2).
fn sign_content(label: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(content.len() + 32);
    put_vector(&mut bytes, &[b"MLS 1.0 ", label.as_bytes()].concat());
    put_vector(&mut bytes, content);
    bytes
}

fn public_key<'a>(
    reader: &mut Reader<'a>,
    suite: MlsSuite,
    field: &'static str,
) -> Result<&'a [u8], FormatError> {
    let key = reader.vector()?;
    if key.len() == suite.public_key_bytes() { Ok(key) } else { Err(FormatError::WrongValue(field)) }
}
