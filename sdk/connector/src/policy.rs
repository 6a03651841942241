//! How messages of each category travel: sealed for each device by itself, or into a group.
//!
//! ```toml
//! mailbox = "mailbox"               # the device by which the sender takes part in groups
//!
//! [categories.lab-result]
//! transport = "sealed"              # HPKE: what a category without an entry has
//!
//! [categories.care-team]
//! transport = "group"               # MLS: into the group that the mailbox has made and the recipient is in
//! ```
//!
//! A message in a group is one of a conversation: all of its members read it, its text alone goes there, with normal
//! priority, and who has read it is not told to the sender. What is for the recipient alone, or is to be proven to have
//! arrived, is sealed; and what is critical is sealed whatever its category, because it must wake somebody at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use sealpost_wire::limits::CATEGORY_BYTES_MAX;
use sealpost_wire::payload::Priority;
use serde::Deserialize;

/// Bytes of a policy file.
pub const POLICY_BYTES_MAX: u64 = 1024 * 1024;

/// How messages of a category travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// A sealed box for each of the recipient's devices (HPKE).
    #[default]
    Sealed,
    /// Into the group that the sender's mailbox has made and the recipient is in (MLS).
    Group,
}

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read. A retry can help.
    #[error("the policy {path} cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is larger than [`POLICY_BYTES_MAX`].
    #[error("the policy has more than {POLICY_BYTES_MAX} bytes")]
    TooLarge,
    /// Not the form of a policy.
    #[error("the policy is malformed: {0}")]
    Malformed(String),
    /// A category that no message can have.
    #[error("{0:?} is no category")]
    Category(String),
    /// A category goes into groups, and there is no mailbox to write to them.
    #[error("category {0} goes into groups, and the policy names no mailbox")]
    NoMailbox(String),
}

/// How messages of each category travel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SendPolicy {
    mailbox: Option<PathBuf>,
    categories: BTreeMap<String, Transport>,
}

impl SendPolicy {
    /// The policy in the file at `path`; without one everything is sealed.
    ///
    /// # Errors
    /// A file that cannot be read or used.
    pub fn load(path: &Path) -> Result<Self, PolicyError> {
        let unreadable = |source| PolicyError::Unreadable { path: path.to_owned(), source };
        match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(unreadable(error)),
            Ok(found) if found.len() > POLICY_BYTES_MAX => Err(PolicyError::TooLarge),
            Ok(_) => Self::from_toml(&fs::read_to_string(path).map_err(unreadable)?),
        }
    }

    /// The policy in `text`.
    ///
    /// # Errors
    /// A text that is no policy.
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        let file: PolicyFile =
            toml::from_str(text).map_err(|error| PolicyError::Malformed(error.message().to_owned()))?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        for (category, entry) in &file.categories {
            if category.is_empty() || category.len() > CATEGORY_BYTES_MAX || !category.bytes().all(plain) {
                return Err(PolicyError::Category(category.clone()));
            }
            if entry.transport == Transport::Group && file.mailbox.is_none() {
                return Err(PolicyError::NoMailbox(category.clone()));
            }
        }
        let categories = file.categories.into_iter().map(|(category, entry)| (category, entry.transport));
        Ok(Self { mailbox: file.mailbox, categories: categories.collect() })
    }

    /// How messages of `category` and `priority` travel. Critical ones are sealed: a group has no priority.
    #[must_use]
    pub fn transport(&self, category: &str, priority: Priority) -> Transport {
        match priority {
            Priority::Critical => Transport::Sealed,
            Priority::Normal | Priority::Bulk => self.categories.get(category).copied().unwrap_or_default(),
        }
    }

    /// The folder of the device by which the sender takes part in groups, as the file names it; there is one if any
    /// category goes into groups.
    #[must_use]
    pub fn mailbox(&self) -> Option<&Path> {
        self.mailbox.as_deref()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    mailbox: Option<PathBuf>,
    #[serde(default)]
    categories: BTreeMap<String, CategoryEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CategoryEntry {
    transport: Transport,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_category_without_an_entry_is_sealed() {
        let text = "mailbox = \"box\"\n[categories.care-team]\ntransport = \"group\"\n\
                    [categories.lab-result]\ntransport = \"sealed\"\n";
        let policy = SendPolicy::from_toml(text).unwrap();
        for (category, expected) in [
            ("care-team", Transport::Group),
            ("lab-result", Transport::Sealed),
            ("message", Transport::Sealed),
            ("Care-Team", Transport::Sealed),
        ] {
            assert_eq!(policy.transport(category, Priority::Normal), expected, "{category}");
            assert_eq!(policy.transport(category, Priority::Critical), Transport::Sealed, "{category}");
        }
        assert_eq!(policy.mailbox(), Some(Path::new("box")));
        assert_eq!(SendPolicy::from_toml("").unwrap(), SendPolicy::default());
    }

    #[test]
    fn the_sample_is_a_policy() {
        let policy = SendPolicy::from_toml(include_str!("../../../deploy/policy.toml")).unwrap();
        assert_eq!(policy.transport("care-team", Priority::Normal), Transport::Group);
        assert_eq!(policy.transport("lab-result", Priority::Normal), Transport::Sealed);
    }

    #[test]
    fn what_is_not_clear_is_refused() {
        for (text, expected) in [
            ("[categories.a]\ntransport = \"group\"\n", "names no mailbox"),
            ("mailbox = \"b\"\n[categories.a]\ntransport = \"mls\"\n", "malformed"),
            ("mailbox = \"b\"\n[categories.a]\n", "malformed"),
            ("[categories.a]\ntransport = \"sealed\"\nmode = 1\n", "malformed"),
            ("[category.a]\ntransport = \"sealed\"\n", "malformed"),
            ("[categories.\"a b\"]\ntransport = \"sealed\"\n", "no category"),
            ("transport = \"group\"", "malformed"),
        ] {
            let error = SendPolicy::from_toml(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_missing_file_is_no_policy_and_a_bad_one_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.toml");
        assert_eq!(SendPolicy::load(&path).unwrap(), SendPolicy::default());
        fs::write(&path, "[categories").unwrap();
        assert!(matches!(SendPolicy::load(&path), Err(PolicyError::Malformed(_))));
        assert!(matches!(SendPolicy::load(folder.path()), Err(PolicyError::Unreadable { .. })));
    }
}
