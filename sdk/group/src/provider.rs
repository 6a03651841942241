//! What openmls works with during one operation.

use openmls_traits::OpenMlsProvider;
use rand_core::CryptoRng;

use crate::crypto::Crypto;
use crate::storage::Storage;
use crate::store::GroupStore;

/// Cryptography over the caller's generator, state over the caller's store.
pub(crate) struct Provider<'o, S: GroupStore> {
    pub(crate) crypto: Crypto<'o>,
    pub(crate) storage: Storage<'o, S>,
}

impl<'o, S: GroupStore> Provider<'o, S> {
    pub(crate) const fn new(store: &'o S, rng: &'o mut (dyn CryptoRng + Send)) -> Self {
        Self { crypto: Crypto::new(rng), storage: Storage::new(store) }
    }
}

impl<'o, S: GroupStore> OpenMlsProvider for Provider<'o, S> {
    type CryptoProvider = Crypto<'o>;
    type RandProvider = Crypto<'o>;
    type StorageProvider = Storage<'o, S>;

    fn storage(&self) -> &Self::StorageProvider {
        &self.storage
    }

    fn crypto(&self) -> &Self::CryptoProvider {
        &self.crypto
    }

    fn rand(&self) -> &Self::RandProvider {
        &self.crypto
    }
}
