//! The vectors of the MLS working group for passive clients, suite 3, over this crate's cryptography and storage.

use openmls::group::{
    JoinBuilder, MIXED_PLAINTEXT_WIRE_FORMAT_POLICY, MlsGroup, MlsGroupJoinConfig, ProcessMessageError,
    ProcessedWelcome, ValidationError,
};
use openmls::prelude::{
    HpkePrivateKey, KeyPackage, KeyPackageBundle, KeyPackageIn, KeyPackageVerifyError, MlsMessageBodyIn,
    MlsMessageIn, ProcessedMessageContent, ProtocolMessage, RatchetTreeIn,
};
use openmls::schedule::PreSharedKeyId;
use openmls_traits::storage::StorageProvider as _;
use serde::{Deserialize, Serialize};
use tls_codec::Deserialize as _;

use super::world::{Dice, Memory};
use crate::provider::Provider;
use crate::storage::StorageError;

const WELCOMES: &str = include_str!("../../tests/vectors/passive-client-welcome.json");
const COMMITS: &str = include_str!("../../tests/vectors/passive-client-handling-commit.json");

/// Bytes in hexadecimal.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Hex(Vec<u8>);

impl TryFrom<String> for Hex {
    type Error = data_encoding::DecodeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        data_encoding::HEXLOWER.decode(text.as_bytes()).map(Hex)
    }
}

#[derive(Deserialize)]
struct Vector {
    cipher_suite: u16,
    external_psks: Vec<ExternalPsk>,
    key_package: Hex,
    encryption_priv: Hex,
    init_priv: Hex,
    welcome: Hex,
    ratchet_tree: Option<Hex>,
    initial_epoch_authenticator: Hex,
    epochs: Vec<Epoch>,
}

#[derive(Deserialize)]
struct ExternalPsk {
    psk_id: Hex,
    psk: Hex,
}

#[derive(Deserialize)]
struct Epoch {
    proposals: Vec<Hex>,
    commit: Hex,
    epoch_authenticator: Hex,
}

#[test]
fn welcomes() {
    let vectors: Vec<Vector> = serde_json::from_str(WELCOMES).unwrap();
    assert_eq!(vectors.len(), 8);
    for vector in &vectors {
        assert_eq!(run(vector), vector.epochs.len());
    }
}

#[test]
fn commits() {
    let vectors: Vec<Vector> = serde_json::from_str(COMMITS).unwrap();
    assert_eq!(vectors.len(), 13);
    let epochs: usize = vectors.iter().map(|vector| vector.epochs.len()).sum();
    let run: usize = vectors.iter().map(run).sum();
    assert_eq!((run, epochs), (26, 26));
}

/// How many epochs of the vector were gone through.
fn run(vector: &Vector) -> usize {
    assert_eq!(vector.cipher_suite, crate::GroupSuite::Classical.code());
    let (memory, mut dice) = (Memory::default(), Dice::new("vectors"));
    let provider = Provider::new(&memory, &mut dice);
    for psk in &vector.external_psks {
        let id = PreSharedKeyId::external(psk.psk_id.0.clone(), vec![]);
        id.store(&provider, &psk.psk.0).unwrap();
    }
    keep_key_package(&provider, vector);
    let config = MlsGroupJoinConfig::builder()
        .use_ratchet_tree_extension(true)
        .wire_format_policy(MIXED_PLAINTEXT_WIRE_FORMAT_POLICY)
        .number_of_resumption_psks(16)
        .build();
    let MlsMessageBodyIn::Welcome(welcome) = message(&vector.welcome) else { panic!("no welcome") };
    let welcome = ProcessedWelcome::new_from_welcome(&provider, &config, welcome).unwrap();
    let join = JoinBuilder::new(&provider, welcome).skip_lifetime_validation();
    let join = match &vector.ratchet_tree {
        Some(tree) => join.with_ratchet_tree(RatchetTreeIn::tls_deserialize_exact(&tree.0).unwrap()),
        None => join,
    };
    let group = join.build().unwrap().into_group(&provider).unwrap();
    assert_eq!(group.epoch_authenticator().as_slice(), vector.initial_epoch_authenticator.0);
    let id = group.group_id().clone();
    for (at, epoch) in vector.epochs.iter().enumerate() {
        for handshake in epoch.proposals.iter().chain([&epoch.commit]) {
            // From the store each time, as the crate does it.
            let mut group = MlsGroup::load(&provider.storage, &id).unwrap().unwrap();
            match take(&mut group, &provider, handshake) {
                Ok(()) => {}
                // openmls compares lifetimes with the clock of the system: those of some vectors have ended.
                Err(ProcessMessageError::ValidationError(ValidationError::KeyPackageVerifyError(
                    KeyPackageVerifyError::LifetimeError(_),
                ))) => return at,
                Err(error) => panic!("{error:?}"),
            }
        }
        let group = MlsGroup::load(&provider.storage, &id).unwrap().unwrap();
        assert_eq!(group.epoch_authenticator().as_slice(), epoch.epoch_authenticator.0);
    }
    vector.epochs.len()
}

fn take(
    group: &mut MlsGroup,
    provider: &Provider<'_, Memory>,
    handshake: &Hex,
) -> Result<(), ProcessMessageError<StorageError>> {
    let handshake = match message(handshake) {
        MlsMessageBodyIn::PrivateMessage(message) => ProtocolMessage::from(message),
        MlsMessageBodyIn::PublicMessage(message) => ProtocolMessage::from(message),
        _ => panic!("no handshake"),
    };
    match group.process_message(provider, handshake)?.into_content() {
        ProcessedMessageContent::ProposalMessage(proposal) => {
            group.store_pending_proposal(&provider.storage, *proposal).unwrap();
        }
        ProcessedMessageContent::StagedCommitMessage(commit) => {
            group.merge_staged_commit(provider, *commit).unwrap();
        }
        _ => panic!("no handshake"),
    }
    Ok(())
}

fn message(bytes: &Hex) -> MlsMessageBodyIn {
    MlsMessageIn::tls_deserialize_exact(&bytes.0).unwrap().extract()
}

/// Puts the vector's key package with its private keys into the store. openmls makes such a bundle from what it
/// stored only, so it is put together in the form in which it is stored.
fn keep_key_package(provider: &Provider<'_, Memory>, vector: &Vector) {
    #[derive(Serialize)]
    struct Stored {
        key_package: KeyPackageIn,
        private_init_key: HpkePrivateKey,
        private_encryption_key: StoredKey,
    }
    #[derive(Serialize)]
    struct StoredKey {
        key: HpkePrivateKey,
    }
    let MlsMessageBodyIn::KeyPackage(key_package) = message(&vector.key_package) else {
        panic!("no key package")
    };
    let stored = Stored {
        key_package,
        private_init_key: vector.init_priv.0.clone().into(),
        private_encryption_key: StoredKey { key: vector.encryption_priv.0.clone().into() },
    };
    let bytes = minicbor_serde::to_vec(&stored).unwrap();
    let bundle: KeyPackageBundle = minicbor_serde::from_slice(&bytes).unwrap();
    let package: &KeyPackage = bundle.key_package();
    let reference = package.hash_ref(&provider.crypto).unwrap();
    provider.storage.write_key_package(&reference, &bundle).unwrap();
}
