//! A store in memory for openmls alone: every value is CBOR under the CBOR of what it is stored by.

use std::cell::RefCell;
use std::collections::BTreeMap;

use openmls_traits::storage::{CURRENT_VERSION, StorageProvider, traits};
use serde::Serialize;
use serde::de::DeserializeOwned;

const V: u16 = CURRENT_VERSION;

/// A value that is not what was put there, or one that a pair has no use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shelf has no such value")]
pub(super) struct NotKept;

/// What a member keeps.
#[derive(Default)]
pub(super) struct Shelf(RefCell<BTreeMap<Vec<u8>, Vec<u8>>>);

impl Shelf {
    fn put<T: Serialize + ?Sized>(&self, kind: u8, by: &impl Serialize, value: &T) -> Result<(), NotKept> {
        let value = minicbor_serde::to_vec(value).map_err(|_| NotKept)?;
        self.0.borrow_mut().insert(place(kind, by)?, value);
        Ok(())
    }

    fn get<T: DeserializeOwned>(&self, kind: u8, by: &impl Serialize) -> Result<Option<T>, NotKept> {
        let values = self.0.borrow();
        let value = values.get(&place(kind, by)?);
        value.map(|value| minicbor_serde::from_slice(value).map_err(|_| NotKept)).transpose()
    }

    fn remove(&self, kind: u8, by: &impl Serialize) -> Result<(), NotKept> {
        self.0.borrow_mut().remove(&place(kind, by)?);
        Ok(())
    }
}

fn place(kind: u8, by: &impl Serialize) -> Result<Vec<u8>, NotKept> {
    let mut place = minicbor_serde::to_vec(by).map_err(|_| NotKept)?;
    place.insert(0, kind);
    Ok(place)
}

const STATE: u8 = 1;
const ENCRYPTION_KEY: u8 = 2;
const EPOCH_KEYS: u8 = 3;
const PSK: u8 = 4;

/// Values of which a group has one.
macro_rules! one_of_a_group {
    ($($kind:literal: $write:ident, $read:ident, $delete:ident, $value:ident;)*) => {$(
        fn $write<G: traits::GroupId<V>, E: traits::$value<V>>(
            &self,
            group: &G,
            value: &E,
        ) -> Result<(), NotKept> {
            self.put($kind, group, value)
        }

        fn $read<G: traits::GroupId<V>, E: traits::$value<V>>(&self, group: &G) -> Result<Option<E>, NotKept> {
            self.get($kind, group)
        }

        fn $delete<G: traits::GroupId<V>>(&self, group: &G) -> Result<(), NotKept> {
            self.remove($kind, group)
        }
    )*};
}

/// Values that are found by a key of their own.
macro_rules! one_of_a_key {
    ($($kind:literal: $write:ident, $read:ident, $delete:ident, $key:ident, $value:ident;)*) => {$(
        fn $write<K: traits::$key<V>, E: traits::$value<V>>(&self, key: &K, value: &E) -> Result<(), NotKept> {
            self.put($kind, key, value)
        }

        fn $read<K: traits::$key<V>, E: traits::$value<V>>(&self, key: &K) -> Result<Option<E>, NotKept> {
            self.get($kind, key)
        }

        fn $delete<K: traits::$key<V>>(&self, key: &K) -> Result<(), NotKept> {
            self.remove($kind, key)
        }
    )*};
}

impl StorageProvider<V> for Shelf {
    type Error = NotKept;

    one_of_a_group! {
        16: write_mls_join_config, mls_group_join_config, delete_group_config, MlsGroupJoinConfig;
        17: write_tree, tree, delete_tree, TreeSync;
        18: write_interim_transcript_hash, interim_transcript_hash, delete_interim_transcript_hash,
            InterimTranscriptHash;
        19: write_context, group_context, delete_context, GroupContext;
        20: write_confirmation_tag, confirmation_tag, delete_confirmation_tag, ConfirmationTag;
        21: write_message_secrets, message_secrets, delete_message_secrets, MessageSecrets;
        22: write_resumption_psk_store, resumption_psk_store, delete_all_resumption_psk_secrets,
            ResumptionPskStore;
        23: write_own_leaf_index, own_leaf_index, delete_own_leaf_index, LeafNodeIndex;
        24: write_group_epoch_secrets, group_epoch_secrets, delete_group_epoch_secrets, GroupEpochSecrets;
    }

    one_of_a_key! {
        32: write_signature_key_pair, signature_key_pair, delete_signature_key_pair, SignaturePublicKey,
            SignatureKeyPair;
        33: write_key_package, key_package, delete_key_package, HashReference, KeyPackage;
    }

    // What follows differs in the order of its parameters, or is found by more than one key.

    fn write_group_state<E: traits::GroupState<V>, G: traits::GroupId<V>>(
        &self,
        group: &G,
        state: &E,
    ) -> Result<(), NotKept> {
        self.put(STATE, group, state)
    }

    fn group_state<E: traits::GroupState<V>, G: traits::GroupId<V>>(
        &self,
        group: &G,
    ) -> Result<Option<E>, NotKept> {
        self.get(STATE, group)
    }

    fn delete_group_state<G: traits::GroupId<V>>(&self, group: &G) -> Result<(), NotKept> {
        self.remove(STATE, group)
    }

    fn write_encryption_key_pair<K: traits::EncryptionKey<V>, P: traits::HpkeKeyPair<V>>(
        &self,
        key: &K,
        pair: &P,
    ) -> Result<(), NotKept> {
        self.put(ENCRYPTION_KEY, key, pair)
    }

    fn encryption_key_pair<P: traits::HpkeKeyPair<V>, K: traits::EncryptionKey<V>>(
        &self,
        key: &K,
    ) -> Result<Option<P>, NotKept> {
        self.get(ENCRYPTION_KEY, key)
    }

    fn delete_encryption_key_pair<K: traits::EncryptionKey<V>>(&self, key: &K) -> Result<(), NotKept> {
        self.remove(ENCRYPTION_KEY, key)
    }

    fn write_encryption_epoch_key_pairs<
        G: traits::GroupId<V>,
        E: traits::EpochKey<V>,
        P: traits::HpkeKeyPair<V>,
    >(
        &self,
        group: &G,
        epoch: &E,
        leaf_index: u32,
        pairs: &[P],
    ) -> Result<(), NotKept> {
        self.put(EPOCH_KEYS, &(group, epoch, leaf_index), pairs)
    }

    fn encryption_epoch_key_pairs<
        G: traits::GroupId<V>,
        E: traits::EpochKey<V>,
        P: traits::HpkeKeyPair<V>,
    >(
        &self,
        group: &G,
        epoch: &E,
        leaf_index: u32,
    ) -> Result<Vec<P>, NotKept> {
        Ok(self.get(EPOCH_KEYS, &(group, epoch, leaf_index))?.unwrap_or_default())
    }

    fn delete_encryption_epoch_key_pairs<G: traits::GroupId<V>, E: traits::EpochKey<V>>(
        &self,
        group: &G,
        epoch: &E,
        leaf_index: u32,
    ) -> Result<(), NotKept> {
        self.remove(EPOCH_KEYS, &(group, epoch, leaf_index))
    }

    fn write_psk<I: traits::PskId<V>, P: traits::PskBundle<V>>(
        &self,
        id: &I,
        psk: &P,
    ) -> Result<(), NotKept> {
        self.put(PSK, id, psk)
    }

    fn psk<P: traits::PskBundle<V>, I: traits::PskId<V>>(&self, id: &I) -> Result<Option<P>, NotKept> {
        self.get(PSK, id)
    }

    fn delete_psk<I: traits::PskId<V>>(&self, id: &I) -> Result<(), NotKept> {
        self.remove(PSK, id)
    }

    // The pair makes no proposals apart from commits: these lists stay empty.

    fn append_own_leaf_node<G: traits::GroupId<V>, L: traits::LeafNode<V>>(
        &self,
        _group: &G,
        _leaf: &L,
    ) -> Result<(), NotKept> {
        Err(NotKept)
    }

    fn own_leaf_nodes<G: traits::GroupId<V>, L: traits::LeafNode<V>>(
        &self,
        _group: &G,
    ) -> Result<Vec<L>, NotKept> {
        Ok(Vec::new())
    }

    fn delete_own_leaf_nodes<G: traits::GroupId<V>>(&self, _group: &G) -> Result<(), NotKept> {
        Ok(())
    }

    fn queue_proposal<G: traits::GroupId<V>, R: traits::ProposalRef<V>, Q: traits::QueuedProposal<V>>(
        &self,
        _group: &G,
        _reference: &R,
        _proposal: &Q,
    ) -> Result<(), NotKept> {
        Err(NotKept)
    }

    fn queued_proposal_refs<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        _group: &G,
    ) -> Result<Vec<R>, NotKept> {
        Ok(Vec::new())
    }

    fn queued_proposals<G: traits::GroupId<V>, R: traits::ProposalRef<V>, Q: traits::QueuedProposal<V>>(
        &self,
        _group: &G,
    ) -> Result<Vec<(R, Q)>, NotKept> {
        Ok(Vec::new())
    }

    fn remove_proposal<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        _group: &G,
        _reference: &R,
    ) -> Result<(), NotKept> {
        Err(NotKept)
    }

    fn clear_proposal_queue<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        _group: &G,
    ) -> Result<(), NotKept> {
        Ok(())
    }
}
