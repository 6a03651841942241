//! Where a group's state is kept: the caller's store, inside the caller's transaction.

use std::error::Error;

use zeroize::Zeroizing;

/// A view of the caller's store inside one transaction. Keys are opaque, at most 64 bytes; values are secret.
///
/// Every operation of this crate reads through this trait, and writes once at its end and only if it succeeds. What
/// an operation returns is true if the transaction is committed; if it is dropped, nothing of the operation is left,
/// in memory or elsewhere. After an error of the store itself the transaction is to be dropped.
pub trait GroupStore {
    /// Why a read or a write failed.
    type Error: Error + Send + Sync + 'static;

    /// The value under `key`.
    fn read(&self, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, Self::Error>;

    /// Puts `value` under `key`, in the place of what was there. Both are handed over: what keeps them need not copy
    /// them.
    fn write(&mut self, key: Vec<u8>, value: Zeroizing<Vec<u8>>) -> Result<(), Self::Error>;

    /// Removes what is under `key`, if anything is.
    fn delete(&mut self, key: &[u8]) -> Result<(), Self::Error>;
}

/// Bytes of the longest key.
pub const KEY_BYTES_MAX: usize = 64;
