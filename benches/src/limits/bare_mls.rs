//! openmls on its own: two members of a group in memory, with nothing around them.
//!
//! They have what members of `sealpost-group` have: the suite, the same crates for the primitives, a store in memory
//! that keeps CBOR, credentials of the same bytes, padding, past epochs and ratchets. What is beside it in a row is
//! what `sealpost-group` adds.

mod crypto;
mod shelf;

use openmls::credentials::{BasicCredential, CredentialWithKey};
use openmls::group::{
    GroupId, MlsGroup, MlsGroupCreateConfig, MlsGroupJoinConfig, PURE_CIPHERTEXT_WIRE_FORMAT_POLICY,
    StagedWelcome,
};
use openmls::prelude::{
    KeyPackage, LeafNodeParameters, MlsMessageBodyIn, MlsMessageIn, MlsMessageOut, ProcessedMessageContent,
    ProtocolMessage, SenderRatchetConfiguration,
};
use openmls_traits::OpenMlsProvider;
use openmls_traits::signatures::{Signer, SignerError};
use openmls_traits::types::{Ciphersuite, SignatureScheme};
use sealpost_group::limits::{FORWARD_DISTANCE_MAX, OUT_OF_ORDER_MAX, PADDING_BYTES, PAST_EPOCHS_MAX};
use sealpost_wire::key::SigningKey;
use tls_codec::Deserialize as _;

use crate::cast::system_rng;
use crate::error::BenchError;

use self::crypto::Crypto;
use self::shelf::Shelf;

/// The suite: 0x0003.
pub const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519;
/// The group's name.
const GROUP: [u8; 32] = [7; 32];

/// Two members of a group: one writes, the other reads.
pub struct BarePair {
    author: BareMember,
    reader: BareMember,
}

struct BareMember {
    provider: Provider,
    key: Key,
    group: MlsGroup,
}

impl BarePair {
    /// A group of two members with these credentials.
    ///
    /// # Errors
    /// [`BenchError::Cast`].
    pub fn new(credentials: [Vec<u8>; 2]) -> Result<Self, BenchError> {
        let [author, reader] = credentials;
        let (provider, key) = (Provider::default(), Key::new());
        let credential = key.credential(author);
        let id = GroupId::from_slice(&GROUP);
        let group = MlsGroup::new_with_group_id(&provider, &key, &create_config(), id, credential);
        let mut author = BareMember { group: group.map_err(made("a bare group"))?, provider, key };

        let (provider, key) = (Provider::default(), Key::new());
        let package = KeyPackage::builder().build(SUITE, &provider, &key, key.credential(reader));
        let package = package.map_err(made("a bare key package"))?.key_package().clone();
        let (_commit, welcome, _) = author
            .group
            .add_members(&author.provider, &author.key, &[package])
            .map_err(made("a bare commit"))?;
        author.group.merge_pending_commit(&author.provider).map_err(made("a bare commit"))?;
        let MlsMessageBodyIn::Welcome(welcome) = read(&welcome.to_bytes().map_err(made("a bare welcome"))?)?
        else {
            return Err(BenchError::Miscounted("a bare welcome is none".into()));
        };
        let group = StagedWelcome::new_from_welcome(&provider, &join_config(), welcome, None)
            .and_then(|staged| staged.into_group(&provider))
            .map_err(made("joining a bare group"))?;
        let mut pair = Self { author, reader: BareMember { provider, key, group } };
        pair.renew()?;
        Ok(pair)
    }

    /// The reader renews its keys, as who comes into a group of `sealpost-group` does at once: as many epochs are over
    /// here as there, and what is kept of them is written with every message.
    fn renew(&mut self) -> Result<(), BenchError> {
        let BareMember { provider, key, group } = &mut self.reader;
        let commit = group
            .self_update(provider, key, LeafNodeParameters::default())
            .map_err(made("a bare commit"))?
            .into_commit();
        group.merge_pending_commit(provider).map_err(made("a bare commit"))?;
        let BareMember { provider, group, .. } = &mut self.author;
        let MlsMessageBodyIn::PrivateMessage(commit) =
            read(&commit.to_bytes().map_err(made("a bare commit"))?)?
        else {
            return Err(BenchError::Miscounted("a bare commit is none".into()));
        };
        let processed = group.process_message(provider, ProtocolMessage::from(commit));
        let ProcessedMessageContent::StagedCommitMessage(staged) =
            processed.map_err(made("reading a bare commit"))?.into_content()
        else {
            return Err(BenchError::Miscounted("a bare commit is none".into()));
        };
        group.merge_staged_commit(provider, *staged).map_err(made("a bare commit"))
    }

    /// Encrypts one message.
    ///
    /// # Errors
    /// [`BenchError::Cast`].
    pub fn encrypt(&mut self, plaintext: &[u8]) -> Result<Vec<u8>, BenchError> {
        let BareMember { provider, key, group } = &mut self.author;
        let message = group.create_message(provider, key, plaintext).map_err(made("a bare message"))?;
        MlsMessageOut::to_bytes(&message).map_err(made("a bare message"))
    }

    /// Decrypts one message. Returns how many bytes it has.
    ///
    /// # Errors
    /// [`BenchError::Cast`], [`BenchError::Miscounted`].
    pub fn decrypt(&mut self, body: &[u8]) -> Result<usize, BenchError> {
        let BareMember { provider, group, .. } = &mut self.reader;
        let MlsMessageBodyIn::PrivateMessage(message) = read(body)? else {
            return Err(BenchError::Miscounted("a bare message is none".into()));
        };
        let processed = group.process_message(provider, ProtocolMessage::from(message));
        match processed.map_err(made("reading a bare message"))?.into_content() {
            ProcessedMessageContent::ApplicationMessage(message) => Ok(message.into_bytes().len()),
            _ => Err(BenchError::Miscounted("a bare message is none".into())),
        }
    }

    /// Reads the author's group from its store anew.
    ///
    /// # Errors
    /// [`BenchError::Cast`].
    pub fn reload_author(&mut self) -> Result<(), BenchError> {
        self.author.reload()
    }

    /// Reads the reader's group from its store anew.
    ///
    /// # Errors
    /// [`BenchError::Cast`].
    pub fn reload_reader(&mut self) -> Result<(), BenchError> {
        self.reader.reload()
    }
}

impl BareMember {
    fn reload(&mut self) -> Result<(), BenchError> {
        let group = MlsGroup::load(self.provider.storage(), &GroupId::from_slice(&GROUP));
        let group = group.map_err(made("loading a bare group"))?;
        self.group = group.ok_or_else(|| BenchError::Miscounted("a bare group is gone".into()))?;
        Ok(())
    }
}

/// What openmls works with.
#[derive(Default)]
struct Provider {
    crypto: Crypto,
    shelf: Shelf,
}

impl OpenMlsProvider for Provider {
    type CryptoProvider = Crypto;
    type RandProvider = Crypto;
    type StorageProvider = Shelf;

    fn storage(&self) -> &Shelf {
        &self.shelf
    }

    fn crypto(&self) -> &Crypto {
        &self.crypto
    }

    fn rand(&self) -> &Crypto {
        &self.crypto
    }
}

/// A member's signature key.
struct Key(SigningKey);

impl Key {
    fn new() -> Self {
        Self(SigningKey::generate(&mut system_rng()))
    }

    fn credential(&self, bytes: Vec<u8>) -> CredentialWithKey {
        CredentialWithKey {
            credential: BasicCredential::new(bytes).into(),
            signature_key: self.0.verifying_key().as_bytes().to_vec().into(),
        }
    }
}

impl Signer for Key {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        Ok(self.0.sign(payload).to_vec())
    }

    fn signature_scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

fn create_config() -> MlsGroupCreateConfig {
    MlsGroupCreateConfig::builder()
        .ciphersuite(SUITE)
        .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
        .padding_size(PADDING_BYTES)
        .max_past_epochs(PAST_EPOCHS_MAX)
        .number_of_resumption_psks(0)
        .use_ratchet_tree_extension(true)
        .sender_ratchet_configuration(ratchets())
        .build()
}

fn join_config() -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
        .padding_size(PADDING_BYTES)
        .max_past_epochs(PAST_EPOCHS_MAX)
        .number_of_resumption_psks(0)
        .use_ratchet_tree_extension(true)
        .sender_ratchet_configuration(ratchets())
        .build()
}

fn ratchets() -> SenderRatchetConfiguration {
    SenderRatchetConfiguration::new(OUT_OF_ORDER_MAX, FORWARD_DISTANCE_MAX)
}

fn read(body: &[u8]) -> Result<MlsMessageBodyIn, BenchError> {
    let message = MlsMessageIn::tls_deserialize_exact(body).map_err(made("reading a bare message"))?;
    Ok(message.extract())
}

fn made<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> BenchError {
    BenchError::cast(what)
}
