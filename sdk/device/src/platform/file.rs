//! Key and counter in files, for devices without a key store of their own (a server, a test, a terminal).

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use getrandom::SysRng;
use rand_core::{Rng as _, UnwrapErr};
use zeroize::Zeroizing;

use crate::platform::{Platform, PlatformError, WrappingKey, make_private_folder};

const KEY_FILE: &str = "wrapping.key";
const GENERATION_FILE: &str = "generation";

/// Keeps key and counter as files with tight permissions. They protect against whoever gets the database alone; a real
/// key store also protects against whoever gets the files.
#[derive(Debug)]
pub struct FilePlatform {
    folder: PathBuf,
}

impl FilePlatform {
    /// Files in `folder`, which should not be the database's own.
    pub fn new(folder: &Path) -> Result<Self, PlatformError> {
        make_private_folder(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }
}

impl Platform for FilePlatform {
    fn wrapping_key(&self) -> Result<WrappingKey, PlatformError> {
        let path = self.folder.join(KEY_FILE);
        let mut key = Zeroizing::new([0; 32]);
        match File::open(&path) {
            Ok(mut file) => {
                check_private(&file, &path)?;
                let short = |_| PlatformError::KeyFile(format!("{} does not hold 32 bytes", path.display()));
                file.read_exact(key.as_mut()).map_err(short)?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                UnwrapErr(SysRng).fill_bytes(key.as_mut());
                write_durably(&path, key.as_ref())?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(WrappingKey::new(*key))
    }

    fn generation(&self) -> Result<u64, PlatformError> {
        match std::fs::read_to_string(self.folder.join(GENERATION_FILE)) {
            Ok(text) => text
                .trim()
                .parse()
                .map_err(|_| PlatformError::KeyFile("the generation is not a number".to_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    fn set_generation(&self, generation: u64) -> Result<(), PlatformError> {
        write_durably(&self.folder.join(GENERATION_FILE), generation.to_string().as_bytes())
    }
}

/// Writes beside, syncs, renames, syncs the folder: the file is the old one or the new one, never half of one.
fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), PlatformError> {
    let beside = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

fn check_private(file: &File, path: &Path) -> Result<(), PlatformError> {
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata()?.permissions());
        if mode & 0o077 != 0 {
            let text =
                format!("{} can be read by others (mode {:o}); make it 0600", path.display(), mode & 0o777);
            return Err(PlatformError::KeyFile(text));
        }
    }
    #[cfg(not(unix))]
    let _ = (file, path);
    Ok(())
}
