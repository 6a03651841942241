//! Files that hold keys: readable by their owner only, and written so that a crash leaves the old one or the new one.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Bytes of a key file at most.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    /// The file system.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What failed.
        error: std::io::Error,
    },
    /// Others may read it.
    #[error("{} can be read by others (mode {mode:o}); make it 0600", path.display())]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It does not hold what it should.
    #[error("{}: {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// Makes `folder`, for its owner only.
pub fn make_private_folder(folder: &Path) -> Result<(), PrivateFileError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|error| io(folder, error))
}

/// Reads a file that only its owner may read.
pub fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, PrivateFileError> {
    let file = File::open(path).map_err(|error| io(path, error))?;
    #[cfg(unix)]
    {
        let metadata = file.metadata().map_err(|error| io(path, error))?;
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
        if mode & 0o077 != 0 {
            return Err(PrivateFileError::TooOpen { path: path.to_owned(), mode });
        }
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(|error| io(path, error))?;
    Ok(bytes)
}

/// Writes a file that only its owner may read; it is durable when this returns.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), PrivateFileError> {
    let beside = path.with_extension("new");
    // One that a crash left behind may have other permissions: it is not written to.
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(&beside, error)),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&beside).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|error| io(&beside, error))?;
    std::fs::rename(&beside, path).map_err(|error| io(path, error))?;
    let folder =
        path.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
    match folder {
        Some(folder) => {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| io(folder, error))
        }
        None => Ok(()),
    }
}

fn io(path: &Path, error: std::io::Error) -> PrivateFileError {
    PrivateFileError::Io { path: path.to_owned(), error }
}
