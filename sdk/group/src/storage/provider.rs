//! [`Storage`] as openmls knows it.

use openmls_traits::storage::{CURRENT_VERSION, StorageProvider, traits};

use super::{Kind, Storage, StorageError, encode};
use crate::store::GroupStore;

const V: u16 = CURRENT_VERSION;

impl<S: GroupStore> StorageProvider<V> for Storage<'_, S> {
    type Error = StorageError;

    fn write_mls_join_config<G: traits::GroupId<V>, E: traits::MlsGroupJoinConfig<V>>(
        &self,
        group: &G,
        config: &E,
    ) -> Result<(), StorageError> {
        self.put(Kind::JoinConfig, group, config)
    }

    fn mls_group_join_config<G: traits::GroupId<V>, E: traits::MlsGroupJoinConfig<V>>(
        &self,
        group: &G,
    ) -> Result<Option<E>, StorageError> {
        self.get(Kind::JoinConfig, group)
    }

    fn delete_group_config<G: traits::GroupId<V>>(&self, group: &G) -> Result<(), StorageError> {
        self.delete(Kind::JoinConfig, group)
    }

    fn write_tree<G: traits::GroupId<V>, E: traits::TreeSync<V>>(
        &self,
        group: &G,
        tree: &E,
    ) -> Result<(), StorageError> {
        self.put(Kind::Tree, group, tree)
    }

    fn tree<G: traits::GroupId<V>, E: traits::TreeSync<V>>(
        &self,
        group: &G,
    ) -> Result<Option<E>, StorageError> {
        self.get(Kind::Tree, group)
    }

    fn delete_tree<G: traits::GroupId<V>>(&self, group: &G) -> Result<(), StorageError> {
        self.delete(Kind::Tree, group)
    }

    fn write_interim_transcript_hash<G: traits::GroupId<V>, E: traits::InterimTranscriptHash<V>>(
        &self,
        group: &G,
        hash: &E,
    ) -> Result<(), StorageError> {
        self.put(Kind::InterimTranscriptHash, group, hash)
    }

    fn interim_transcript_hash<G: traits::GroupId<V>, E: traits::InterimTranscriptHash<V>>(
        &self,
        group: &G,
    ) -> Result<Option<E>, StorageError> {
        self.get(Kind::InterimTranscriptHash, group)
    }

    fn delete_interim_transcript_hash<G: traits::GroupId<V>>(&self, group: &G) -> Result<(), StorageError> {
        self.delete(Kind::InterimTranscriptHash, group)
    }

    fn write_context<G: traits::GroupId<V>, E: traits::GroupContext<V>>(
        &self,
        group: &G,
        context: &E,
    ) -> Result<(), StorageError> {
        self.put(Kind::Context, group, context)
    }

    fn group_context<G: traits::GroupId<V>, E: traits::GroupContext<V>>(
        &self,
        group: &G,
    ) -> Result<Option<E>, StorageError> {
        self.get(Kind::Context, group)
    }

    fn delete_context<G: traits::GroupId<V>>(&self, group: &G) -> Result<(), StorageError> {
        self.delete(Kind::Context, group)
    }

    fn write_confirmation_tag<G: traits::GroupId<V>, E: traits::ConfirmationTag<V>>(
        &self,
        group: &G,
        tag: &E,
    ) -> Result<(), StorageError> {
        self.put(Kind::ConfirmationTag, group, tag)
    }

    fn confirmation_tag<G: traits::GroupId<V>, E: traits::ConfirmationTag<V>>(
        &self,
        group: &G,
    ) -> Result<Option<E>, StorageError> {
        self.get(Kind::ConfirmationTag, group)
    }

    fn delete_confirmation_tag<G: traits::GroupId<V>>(&self, group: &G) -> Result<(), StorageError> {
        self.delete(Kind::ConfirmationTag, group)
    }

    fn write_group_state<E: traits::GroupState<V>, G: traits::GroupId<V>>(
        &self,
        group: &G,
        state: &E,
    ) -> Result<(), StorageError> {
        self.put(Kind::State, group, state)
    }

    fn group_state<E: traits::GroupState<V>, G: traits::GroupId<V>>(
        &self,
        group: &G,
    ) -> Result<Option<E>, StorageError> {
        self.get(Kind::State, group)
    }

    fn delete_group_state<G: traits::GroupId<V>>(&self, group: &G) -> Result<(), StorageError> {
        self.delete(Kind::State, group)
    }

    fn write_message_secrets<G: traits::GroupId<V>, E: traits::MessageSecrets<V>>(
        &self,
        group: &G,
        secrets: &E,
    ) -> Result<(), StorageError> {
        self.put(Kind::MessageSecrets, group, secrets)
    }

    fn message_secrets<G: traits::GroupId<V>, E: traits::MessageSecrets<V>>(
        &self,
        group: &G,
    ) -> Result<Option<E>, StorageError> {
        self.get(Kind::MessageSecrets, group)
    }

    fn delete_message_secrets<G: traits::GroupId<V>>(&self, group: &G) -> Result<(), StorageError> {
        self.delete(Kind::MessageSecrets, group)
    }

    fn write_resumption_psk_store<G: traits::GroupId<V>, E: traits::ResumptionPskStore<V>>(
        &self,
        group: &G,
        psks: &E,
    ) -> Result<(), StorageError> {
        self.put(Kind::ResumptionPsks, group, psks)
    }

    fn resumption_psk_store<G: traits::GroupId<V>, E: traits::ResumptionPskStore<V>>(
        &self,
        group: &G,
    ) -> Result<Option<E>, StorageError> {
        self.get(Kind::ResumptionPsks, group)
    }

    fn delete_all_resumption_psk_secrets<G: traits::GroupId<V>>(
        &self,
        group: &G,
    ) -> Result<(), StorageError> {
        self.delete(Kind::ResumptionPsks, group)
    }

    fn write_own_leaf_index<G: traits::GroupId<V>, E: traits::LeafNodeIndex<V>>(
        &self,
        group: &G,
        index: &E,
    ) -> Result<(), StorageError> {
        self.put(Kind::OwnLeafIndex, group, index)
    }

    fn own_leaf_index<G: traits::GroupId<V>, E: traits::LeafNodeIndex<V>>(
        &self,
        group: &G,
    ) -> Result<Option<E>, StorageError> {
        self.get(Kind::OwnLeafIndex, group)
    }

    fn delete_own_leaf_index<G: traits::GroupId<V>>(&self, group: &G) -> Result<(), StorageError> {
        self.delete(Kind::OwnLeafIndex, group)
    }

    fn write_group_epoch_secrets<G: traits::GroupId<V>, E: traits::GroupEpochSecrets<V>>(
        &self,
        group: &G,
        secrets: &E,
    ) -> Result<(), StorageError> {
        self.put(Kind::EpochSecrets, group, secrets)
    }

    fn group_epoch_secrets<G: traits::GroupId<V>, E: traits::GroupEpochSecrets<V>>(
        &self,
        group: &G,
    ) -> Result<Option<E>, StorageError> {
        self.get(Kind::EpochSecrets, group)
    }

    fn delete_group_epoch_secrets<G: traits::GroupId<V>>(&self, group: &G) -> Result<(), StorageError> {
        self.delete(Kind::EpochSecrets, group)
    }

    fn append_own_leaf_node<G: traits::GroupId<V>, L: traits::LeafNode<V>>(
        &self,
        group: &G,
        leaf: &L,
    ) -> Result<(), StorageError> {
        let before: Vec<L> = self.own_leaf_nodes(group)?;
        let leaves: Vec<&L> = before.iter().chain([leaf]).collect();
        self.put(Kind::OwnLeafNodes, group, &leaves)
    }

    fn own_leaf_nodes<G: traits::GroupId<V>, L: traits::LeafNode<V>>(
        &self,
        group: &G,
    ) -> Result<Vec<L>, StorageError> {
        Ok(self.get(Kind::OwnLeafNodes, group)?.unwrap_or_default())
    }

    fn delete_own_leaf_nodes<G: traits::GroupId<V>>(&self, group: &G) -> Result<(), StorageError> {
        self.delete(Kind::OwnLeafNodes, group)
    }

    fn queue_proposal<G: traits::GroupId<V>, R: traits::ProposalRef<V>, Q: traits::QueuedProposal<V>>(
        &self,
        group: &G,
        reference: &R,
        proposal: &Q,
    ) -> Result<(), StorageError> {
        self.put(Kind::Proposal, &(group, reference), proposal)?;
        let before: Vec<R> = self.queued_proposal_refs(group)?;
        let references: Vec<&R> = before.iter().chain([reference]).collect();
        self.put(Kind::ProposalRefs, group, &references)
    }

    fn queued_proposal_refs<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        group: &G,
    ) -> Result<Vec<R>, StorageError> {
        Ok(self.get(Kind::ProposalRefs, group)?.unwrap_or_default())
    }

    fn queued_proposals<G: traits::GroupId<V>, R: traits::ProposalRef<V>, Q: traits::QueuedProposal<V>>(
        &self,
        group: &G,
    ) -> Result<Vec<(R, Q)>, StorageError> {
        let references: Vec<R> = self.queued_proposal_refs(group)?;
        let with_proposal = |reference: R| {
            let proposal = self.get(Kind::Proposal, &(group, &reference))?;
            Ok((reference, proposal.ok_or(StorageError::Unreadable)?))
        };
        references.into_iter().map(with_proposal).collect()
    }

    fn remove_proposal<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        group: &G,
        reference: &R,
    ) -> Result<(), StorageError> {
        let gone = encode(reference)?;
        let mut left = Vec::new();
        for known in self.queued_proposal_refs::<G, R>(group)? {
            if encode(&known)? != gone {
                left.push(known);
            }
        }
        self.put(Kind::ProposalRefs, group, &left)?;
        self.delete(Kind::Proposal, &(group, reference))
    }

    fn clear_proposal_queue<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        group: &G,
    ) -> Result<(), StorageError> {
        for reference in self.queued_proposal_refs::<G, R>(group)? {
            self.delete(Kind::Proposal, &(group, &reference))?;
        }
        self.delete(Kind::ProposalRefs, group)
    }

    fn write_signature_key_pair<K: traits::SignaturePublicKey<V>, P: traits::SignatureKeyPair<V>>(
        &self,
        key: &K,
        pair: &P,
    ) -> Result<(), StorageError> {
        self.put(Kind::SignatureKeyPair, key, pair)
    }

    fn signature_key_pair<K: traits::SignaturePublicKey<V>, P: traits::SignatureKeyPair<V>>(
        &self,
        key: &K,
    ) -> Result<Option<P>, StorageError> {
        self.get(Kind::SignatureKeyPair, key)
    }

    fn delete_signature_key_pair<K: traits::SignaturePublicKey<V>>(
        &self,
        key: &K,
    ) -> Result<(), StorageError> {
        self.delete(Kind::SignatureKeyPair, key)
    }

    fn write_encryption_key_pair<K: traits::EncryptionKey<V>, P: traits::HpkeKeyPair<V>>(
        &self,
        key: &K,
        pair: &P,
    ) -> Result<(), StorageError> {
        self.put(Kind::EncryptionKeyPair, key, pair)
    }

    fn encryption_key_pair<P: traits::HpkeKeyPair<V>, K: traits::EncryptionKey<V>>(
        &self,
        key: &K,
    ) -> Result<Option<P>, StorageError> {
        self.get(Kind::EncryptionKeyPair, key)
    }

    fn delete_encryption_key_pair<K: traits::EncryptionKey<V>>(&self, key: &K) -> Result<(), StorageError> {
        self.delete(Kind::EncryptionKeyPair, key)
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
    ) -> Result<(), StorageError> {
        self.put(Kind::EpochKeyPairs, &(group, epoch, leaf_index), pairs)
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
    ) -> Result<Vec<P>, StorageError> {
        Ok(self.get(Kind::EpochKeyPairs, &(group, epoch, leaf_index))?.unwrap_or_default())
    }

    fn delete_encryption_epoch_key_pairs<G: traits::GroupId<V>, E: traits::EpochKey<V>>(
        &self,
        group: &G,
        epoch: &E,
        leaf_index: u32,
    ) -> Result<(), StorageError> {
        self.delete(Kind::EpochKeyPairs, &(group, epoch, leaf_index))
    }

    fn write_key_package<H: traits::HashReference<V>, K: traits::KeyPackage<V>>(
        &self,
        reference: &H,
        package: &K,
    ) -> Result<(), StorageError> {
        self.put(Kind::KeyPackage, reference, package)
    }

    fn key_package<H: traits::HashReference<V>, K: traits::KeyPackage<V>>(
        &self,
        reference: &H,
    ) -> Result<Option<K>, StorageError> {
        self.get(Kind::KeyPackage, reference)
    }

    fn delete_key_package<H: traits::HashReference<V>>(&self, reference: &H) -> Result<(), StorageError> {
        self.delete(Kind::KeyPackage, reference)
    }

    fn write_psk<I: traits::PskId<V>, P: traits::PskBundle<V>>(
        &self,
        id: &I,
        psk: &P,
    ) -> Result<(), StorageError> {
        self.put(Kind::Psk, id, psk)
    }

    fn psk<P: traits::PskBundle<V>, I: traits::PskId<V>>(&self, id: &I) -> Result<Option<P>, StorageError> {
        self.get(Kind::Psk, id)
    }

    fn delete_psk<I: traits::PskId<V>>(&self, id: &I) -> Result<(), StorageError> {
        self.delete(Kind::Psk, id)
    }
}
