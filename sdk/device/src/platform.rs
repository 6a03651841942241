//! What the platform keeps for a device, outside its database.

mod file;

use std::fmt;
use std::path::Path;

use zeroize::{Zeroize, ZeroizeOnDrop};

pub use file::FilePlatform;

/// The key that seals every value in the database, wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct WrappingKey([u8; 32]);

impl WrappingKey {
    /// The key with these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for WrappingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WrappingKey(…)")
    }
}

/// A keychain or key store: bound to this device, left out of backups.
pub trait Platform: Send + Sync {
    /// The wrapping key; made at the first call.
    fn wrapping_key(&self) -> Result<WrappingKey, PlatformError>;

    /// A counter that only grows and that no restore of the database takes back; 0 at first.
    fn generation(&self) -> Result<u64, PlatformError>;

    /// Raises the counter; it is durable when this returns.
    fn set_generation(&self, generation: u64) -> Result<(), PlatformError>;
}

/// Why the platform did not answer.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// A file.
    #[error("a file of the device's state failed: {0}")]
    Io(#[from] std::io::Error),
    /// A key file that others may read, or of the wrong size.
    #[error("{0}")]
    KeyFile(String),
}

/// Makes `folder`, for its owner only.
pub(crate) fn make_private_folder(folder: &Path) -> Result<(), PlatformError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(PlatformError::Io)
}
