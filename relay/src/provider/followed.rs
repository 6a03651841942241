//! An app's client, made anew when the files that its configuration names have changed: credentials and root
//! certificates.
//!
//! The new client takes all pushes from the moment it is there. The one before ends with the last push that
//! is under way on it, and its connections with it. Files that make no client change nothing: the present one
//! goes on.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{Context, SHA256};

use super::{ConnectionStats, Outcome, ProviderClient, ProviderError, Push, PushToken, read_file};

/// Makes a client from the files as they are now.
type Make = Box<dyn Fn() -> Result<ProviderClient, ProviderError> + Send + Sync>;

/// A client that follows its files.
pub struct FollowedClient {
    make: Make,
    files: Vec<PathBuf>,
    current: ArcSwap<ProviderClient>,
    seen: Mutex<Seen>,
}

/// What makes a client look at its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Time has passed: they are read if the file system says that they have changed.
    Regular,
    /// Somebody asked: they are read.
    Asked,
}

/// What a look at the files came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// They hold what they held before.
    Same,
    /// A new client has taken over.
    Replaced,
}

impl FollowedClient {
    /// The client that `make` makes from `files`.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn new(
        files: Vec<PathBuf>,
        make: impl Fn() -> Result<ProviderClient, ProviderError> + Send + Sync + 'static,
    ) -> Result<Self, ProviderError> {
        // Before they are read: a change in between is then seen at the next look.
        let seen = Seen { stamps: stamps(&files), contents: contents(&files), is_refused: false };
        let client = make()?;
        Ok(Self {
            make: Box::new(make),
            files,
            current: ArcSwap::from_pointee(client),
            seen: Mutex::new(seen),
        })
    }

    /// See [`ProviderClient::push`].
    pub async fn push(&self, token: &PushToken, push: Push) -> Outcome {
        // Holds on to the client until the answer is there.
        let client = self.current.load_full();
        client.push(token, push).await
    }

    /// See [`ProviderClient::stats`]; of the present client alone.
    #[must_use]
    pub fn stats(&self) -> ConnectionStats {
        self.current.load().stats()
    }

    /// See [`ProviderClient::clock_ahead_s`].
    #[must_use]
    pub fn clock_ahead_s(&self) -> Option<i64> {
        self.current.load().clock_ahead_s()
    }

    /// Whether the files hold what no client can be made from, so that the one before them is at work.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).is_refused
    }

    /// Looks at the files, and makes a new client if they hold something new. Reads files: it blocks.
    ///
    /// # Errors
    /// The files make no client; the present one goes on. A regular look tells it once for each change.
    pub fn follow(&self, look: Look) -> Result<Followed, ProviderError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = stamps(&self.files);
        if look == Look::Regular && stamps == seen.stamps {
            return Ok(Followed::Same);
        }
        seen.stamps = stamps;
        let contents = contents(&self.files);
        if contents.is_some() && contents == seen.contents {
            seen.is_refused = false;
            return Ok(Followed::Same);
        }
        match (self.make)() {
            Ok(client) => {
                self.current.store(Arc::new(client));
                seen.contents = contents;
                seen.is_refused = false;
                Ok(Followed::Replaced)
            }
            Err(error) => {
                seen.is_refused = true;
                Err(error)
            }
        }
    }
}

impl fmt::Debug for FollowedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FollowedClient").field(&self.current.load()).finish()
    }
}

/// What is known of the files.
struct Seen {
    stamps: Vec<Option<Stamp>>,
    /// Digest of what the present client was made from; nothing where a file could not be read.
    contents: Option<Vec<u8>>,
    is_refused: bool,
}

/// What the file system says of a file, links followed.
#[derive(PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    modified: Option<SystemTime>,
    bytes: u64,
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |file: &PathBuf| {
        let metadata = std::fs::metadata(file).ok()?;
        let path = std::fs::canonicalize(file).ok()?;
        Some(Stamp { path, modified: metadata.modified().ok(), bytes: metadata.len() })
    };
    files.iter().map(stamp).collect()
}

/// The name that a link leads to counts: it may be a key's id.
fn contents(files: &[PathBuf]) -> Option<Vec<u8>> {
    let mut digest = Context::new(&SHA256);
    for file in files {
        let name = std::fs::canonicalize(file).ok()?;
        let bytes = read_file("file", file).ok()?;
        for part in [file_name(&name).as_bytes(), &bytes[..]] {
            digest.update(&(part.len() as u64).to_be_bytes());
            digest.update(part);
        }
    }
    Some(digest.finish().as_ref().to_vec())
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(std::ffi::OsStr::to_str).unwrap_or_default()
}
