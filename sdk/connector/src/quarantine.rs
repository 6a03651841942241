//! The quarantine: messages that must not be sent, kept until a person has decided.
//!
//! ```text
//! folder/                      0700
//!   .lock                      held while the folder is read or changed
//!   <SHA-256>.hl7              0600, the bytes as they came
//!   <SHA-256>.json             0600, why and when: {"reason", "detail", "received", "bytes"}
//! ```
//!
//! A file is written under another name, synced, renamed, and the folder synced: after [`Quarantine::put`]
//! has returned, a loss of power loses nothing. The name is the digest of the message: the same message is
//! one entry. The sidecar is written first, so that every message has one.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::Digest;
use serde::{Deserialize, Serialize};

use crate::hl7::{Hl7Error, MESSAGE_BYTES_MAX};
use crate::oru::OruError;

/// Messages that one quarantine holds. A full one means that something is wrong that more files do not help.
pub const ENTRIES_MAX: usize = 10_000;
/// Bytes of a sidecar.
const SIDECAR_BYTES_MAX: u64 = 4096;

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Why a message was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reason", content = "detail")]
pub enum Reason {
    /// PID-3 is empty.
    #[error("the message names no patient")]
    NoIdentifier,
    /// The patient map has none of the identifiers.
    #[error("the patient is not in the patient map")]
    UnknownPatient,
    /// The identifiers lead to several recipients.
    #[error("the patient's identifiers lead to several recipients")]
    AmbiguousPatient,
    /// A training or test message (MSH-11).
    #[error("the message is for training or a test")]
    NotProduction,
    /// Another message came under the same control id before.
    #[error("another message came under the same control id before")]
    SourceConflict,
    /// The bytes are no message, or the message no result: the code of [`Hl7Error`] or [`OruError`].
    #[error("the message cannot be read: {0}")]
    Unreadable(String),
}

impl Reason {
    /// A stable name for logs and metrics.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::NoIdentifier => "no_identifier",
            Self::UnknownPatient => "unknown_patient",
            Self::AmbiguousPatient => "ambiguous_patient",
            Self::NotProduction => "not_production",
            Self::SourceConflict => "source_conflict",
            Self::Unreadable(code) => code,
        }
    }
}

impl From<&Hl7Error> for Reason {
    fn from(error: &Hl7Error) -> Self {
        Self::Unreadable(error.code().to_owned())
    }
}

impl From<&OruError> for Reason {
    fn from(error: &OruError) -> Self {
        Self::Unreadable(error.code().to_owned())
    }
}

/// Why the quarantine could not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// The file system refused. A retry can help; until then the message is not safe and must not be
    /// acknowledged.
    #[error("the quarantine folder cannot be used")]
    Io(#[from] io::Error),
    /// There are [`ENTRIES_MAX`] messages already. A retry helps once some have been released.
    #[error("the quarantine holds {ENTRIES_MAX} messages")]
    Full,
    /// A message larger than any that is read. A retry cannot help.
    #[error("the message has more than {MESSAGE_BYTES_MAX} bytes")]
    TooLarge,
    /// There is no such message. A retry cannot help.
    #[error("there is no message {0} in the quarantine")]
    Unknown(Digest),
    /// The file is not the message that its name says; it is left where it is. A retry cannot help.
    #[error("the file of message {0} was changed")]
    Changed(Digest),
}

/// A message in quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineEntry {
    /// SHA-256 of the message.
    pub id: Digest,
    /// Why it is here. `None` if its sidecar was lost or changed.
    pub reason: Option<Reason>,
    /// When it first came.
    pub received: Option<UnixTime>,
    /// Bytes of the message.
    pub bytes: u64,
}

/// A folder of messages.
#[derive(Debug)]
pub struct Quarantine {
    folder: PathBuf,
}

impl Quarantine {
    /// Opens a folder, made if there is none, and takes it from everyone but its owner.
    ///
    /// # Errors
    /// [`QuarantineError::Io`]
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, QuarantineError> {
        let folder = folder.into();
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&folder)?;
        fs::set_permissions(&folder, Permissions::from_mode(FOLDER_MODE))?;
        if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(Self { folder })
    }

    /// Keeps a message. When this returns, the message is durable. One that is there already stays as it is,
    /// with its first reason and time.
    ///
    /// # Errors
    /// [`QuarantineError`]; nothing can be said then about whether the message is there.
    pub fn put(
        &self,
        message: &[u8],
        reason: &Reason,
        received: UnixTime,
    ) -> Result<Digest, QuarantineError> {
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(QuarantineError::TooLarge);
        }
        let id = Digest::of(message);
        let _lock = self.lock()?;
        if self.read_locked(id).is_ok() {
            return Ok(id);
        }
        if self.ids()?.len() >= ENTRIES_MAX {
            return Err(QuarantineError::Full);
        }
        let sidecar = Sidecar { reason: reason.clone(), received, bytes: message.len() };
        let sidecar = serde_json::to_vec(&sidecar).map_err(io::Error::other)?;
        self.write(&self.sidecar_path(id), &sidecar)?;
        self.write(&self.message_path(id), message)?;
        Ok(id)
    }

    /// Every message, by id.
    ///
    /// # Errors
    /// [`QuarantineError::Io`]
    pub fn list(&self) -> Result<Vec<QuarantineEntry>, QuarantineError> {
        let _lock = self.lock()?;
        self.ids()?
            .into_iter()
            .map(|id| {
                let bytes = fs::metadata(self.message_path(id))?.len();
                let sidecar = self.sidecar(id);
                let (reason, received) = sidecar.map(|known| (known.reason, known.received)).unzip();
                Ok(QuarantineEntry { id, reason, received, bytes })
            })
            .collect()
    }

    /// The bytes of a message, which stays.
    ///
    /// # Errors
    /// [`QuarantineError::Unknown`], [`QuarantineError::Changed`], [`QuarantineError::Io`]
    pub fn read(&self, id: Digest) -> Result<Vec<u8>, QuarantineError> {
        let _lock = self.lock()?;
        self.read_locked(id)
    }

    /// Takes a message out: its bytes are returned and its files removed. Whoever must not lose it between
    /// the two uses [`Quarantine::read`], stores it, and calls this afterwards.
    ///
    /// # Errors
    /// As [`Quarantine::read`]; the message is then still there, or at most its sidecar is gone.
    pub fn release(&self, id: Digest) -> Result<Vec<u8>, QuarantineError> {
        let _lock = self.lock()?;
        let bytes = self.read_locked(id)?;
        match fs::remove_file(self.sidecar_path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        fs::remove_file(self.message_path(id))?;
        self.sync_folder()?;
        Ok(bytes)
    }

    fn read_locked(&self, id: Digest) -> Result<Vec<u8>, QuarantineError> {
        let bytes = match bounded(&self.message_path(id), MESSAGE_BYTES_MAX as u64) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(QuarantineError::Unknown(id));
            }
            other => other?,
        };
        if Digest::of(&bytes) == id { Ok(bytes) } else { Err(QuarantineError::Changed(id)) }
    }

    fn sidecar(&self, id: Digest) -> Option<Sidecar> {
        serde_json::from_slice(&bounded(&self.sidecar_path(id), SIDECAR_BYTES_MAX).ok()?).ok()
    }

    /// One process or thread at a time; the lock ends with the file.
    fn lock(&self) -> Result<File, QuarantineError> {
        let path = self.folder.join(".lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
        file.lock()?;
        Ok(file)
    }

    fn ids(&self) -> Result<Vec<Digest>, QuarantineError> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension() != Some(OsStr::new("hl7")) {
                continue;
            }
            ids.extend(path.file_stem().and_then(OsStr::to_str).and_then(|stem| stem.parse::<Digest>().ok()));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Writes a file so that it is there in full or not at all. One that a crash left half written is
    /// overwritten.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), QuarantineError> {
        let unfinished = path.with_extension("unfinished");
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        self.sync_folder()
    }

    fn sync_folder(&self) -> Result<(), QuarantineError> {
        Ok(File::open(&self.folder)?.sync_all()?)
    }

    fn message_path(&self, id: Digest) -> PathBuf {
        self.folder.join(format!("{id}.hl7"))
    }

    fn sidecar_path(&self, id: Digest) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }
}

#[derive(Serialize, Deserialize)]
struct Sidecar {
    #[serde(flatten)]
    reason: Reason,
    received: UnixTime,
    bytes: usize,
}

fn bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: UnixTime = UnixTime(1_700_000_000);

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_message_is_kept_once_and_released_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/quarantine");
        let quarantine = Quarantine::open(&path).unwrap();
        let id = quarantine.put(b"MSH|one", &Reason::UnknownPatient, NOON).unwrap();
        assert_eq!(quarantine.put(b"MSH|one", &Reason::NoIdentifier, NOON.plus(9)).unwrap(), id);
        let other = quarantine.put(b"MSH|two!", &Reason::Unreadable("bad_segment".into()), NOON).unwrap();

        // A new process sees the same.
        let quarantine = Quarantine::open(&path).unwrap();
        let mut expected = vec![
            QuarantineEntry { id, reason: Some(Reason::UnknownPatient), received: Some(NOON), bytes: 7 },
            QuarantineEntry {
                id: other,
                reason: Some(Reason::Unreadable("bad_segment".into())),
                received: Some(NOON),
                bytes: 8,
            },
        ];
        expected.sort_by_key(|entry| entry.id);
        assert_eq!(quarantine.list().unwrap(), expected);
        assert_eq!(quarantine.read(id).unwrap(), b"MSH|one");
        assert_eq!(quarantine.release(id).unwrap(), b"MSH|one");
        assert!(matches!(quarantine.release(id), Err(QuarantineError::Unknown(gone)) if gone == id));
        assert!(matches!(quarantine.read(id), Err(QuarantineError::Unknown(_))));
        assert_eq!(quarantine.list().unwrap().len(), 1);
        let names: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 3, "{names:?}");
    }

    #[test]
    fn nobody_else_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("quarantine");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        let quarantine = Quarantine::open(&path).unwrap();
        quarantine.put(b"MSH", &Reason::AmbiguousPatient, NOON).unwrap();
        assert_eq!(mode(&path), 0o700);
        for entry in fs::read_dir(&path).unwrap() {
            assert_eq!(mode(&entry.unwrap().path()), 0o600);
        }
    }

    #[test]
    fn what_a_crash_left_behind_is_no_entry_and_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::open(folder.path()).unwrap();
        let id = Digest::of(b"MSH|half");
        fs::write(folder.path().join(format!("{id}.unfinished")), b"MSH|ha").unwrap();
        fs::write(folder.path().join(format!("{id}.json")), b"{").unwrap();
        assert_eq!(quarantine.list().unwrap(), []);
        assert_eq!(quarantine.put(b"MSH|half", &Reason::NoIdentifier, NOON).unwrap(), id);
        assert_eq!(quarantine.read(id).unwrap(), b"MSH|half");
        assert_eq!(quarantine.list().unwrap().first().unwrap().reason, Some(Reason::NoIdentifier));
    }

    #[test]
    fn a_changed_file_is_not_released() {
        let folder = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::open(folder.path()).unwrap();
        let id = quarantine.put(b"MSH|one", &Reason::UnknownPatient, NOON).unwrap();
        let path = folder.path().join(format!("{id}.hl7"));
        fs::write(&path, b"MSH|one of another patient").unwrap();
        assert!(matches!(quarantine.release(id), Err(QuarantineError::Changed(_))));
        assert!(path.exists());
        // The sender tries again: the true message takes its place.
        quarantine.put(b"MSH|one", &Reason::UnknownPatient, NOON).unwrap();
        assert_eq!(quarantine.release(id).unwrap(), b"MSH|one");
    }

    #[test]
    fn a_lost_sidecar_hides_no_message() {
        let folder = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::open(folder.path()).unwrap();
        let id = quarantine.put(b"MSH|one", &Reason::UnknownPatient, NOON).unwrap();
        fs::remove_file(folder.path().join(format!("{id}.json"))).unwrap();
        let entries = quarantine.list().unwrap();
        assert_eq!(entries, [QuarantineEntry { id, reason: None, received: None, bytes: 7 }]);
        assert_eq!(quarantine.release(id).unwrap(), b"MSH|one");
    }

    #[test]
    fn a_message_beyond_the_limit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::open(folder.path()).unwrap();
        let large = vec![b'x'; MESSAGE_BYTES_MAX + 1];
        let refused = quarantine.put(&large, &Reason::NoIdentifier, NOON);
        assert!(matches!(refused, Err(QuarantineError::TooLarge)));
        assert_eq!(quarantine.list().unwrap(), []);
        quarantine.put(&large[1..], &Reason::NoIdentifier, NOON).unwrap();
    }
}
