//! The keyspaces of a store: known when it is compiled, named by a small index.

/// One ordered map of a store. Keys of at most 20 bytes cost least: fjall keeps them inline, and measured with 28
/// bytes a write took a fifth more.
///
/// Declared as constants, and listed in the order of their indices in
/// [`Options::keyspaces`](super::Options::keyspaces):
///
/// ```
/// use sealpost_service::engine::Keyspace;
///
/// const DEVICES: Keyspace = Keyspace::rows(0, "devices");
/// const BOXES: Keyspace = Keyspace::bulk(1, "boxes");
/// static KEYSPACES: [Keyspace; 2] = [DEVICES, BOXES];
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Keyspace {
    slot: u8,
    name: &'static str,
    content: Content,
}

/// What a keyspace mostly holds: decides how its files are laid out, never what can be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Content {
    Rows,
    Bulk,
}

impl Keyspace {
    /// Where the store records its own version and incarnation.
    pub(super) const STORE: Self = Self { slot: 0, name: "_store", content: Content::Rows };

    /// A keyspace of small rows: compressed, values beside their keys.
    #[must_use]
    pub const fn rows(index: u8, name: &'static str) -> Self {
        Self { slot: index + 1, name, content: Content::Rows }
    }

    /// A keyspace of ciphertext, a kilobyte and more each: not compressed, and larger values are kept apart
    /// from their keys, so that compaction moves keys only.
    #[must_use]
    pub const fn bulk(index: u8, name: &'static str) -> Self {
        Self { slot: index + 1, name, content: Content::Bulk }
    }

    /// Name on disk, in dumps and in errors.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// Position in the tables of the engine: the store's own keyspace, then the others by index.
    pub(super) const fn slot(self) -> usize {
        self.slot as usize
    }

    pub(super) const fn content(self) -> Content {
        self.content
    }
}
