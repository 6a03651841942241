//! A power cut for tests: what a process has written and not synced is gone.
//!
//! A process that is killed leaves its writes in the kernel's page cache, so a test that only kills it does
//! not notice a missing `fsync`. Here the process under test runs with a small library in front of libc
//! (`LD_PRELOAD`, the crate `sealpost-power-shim`) that keeps beside its data folder, in a *shadow*, what
//! would still be there after the power had failed. The test kills the process, calls [`PowerCut::restore`],
//! which puts the folder into that state, and starts the process again.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = std::path::Path::new("/tmp");
//! let power = sealpost_power::PowerCut::new(folder.join("data"), folder.join("shadow"))?;
//! let mut command = std::process::Command::new("target/debug/sealpost-relay");
//! let mut relay = power.arm(&mut command).spawn()?;
//! // … work until something has been acknowledged …
//! relay.kill()?; // SIGKILL
//! relay.wait()?;
//! power.restore()?;
//! // … start it again: what was acknowledged is there …
//! # Ok(())
//! # }
//! ```
//!
//! [`PowerCut::ignoring_syncs`] proves such a test: it must fail then.
//!
//! A package whose tests use this names two dependencies, the second of which no code mentions: Cargo builds
//! the library for it, and [`PowerCut::new`] finds it in the target folder.
//!
//! ```toml
//! [dev-dependencies]
//! sealpost-power.workspace = true
//! sealpost-power-shim.workspace = true
//! ```
//!
//! # In scope
//!
//! **Bytes.** `fsync` and `fdatasync` make the whole file durable, whichever descriptor was used for writing;
//! so does a write to a file opened with `O_SYNC` or `O_DSYNC` (or `pwritev2` with those flags), and
//! `msync(MS_SYNC)` of a shared mapping. Everything else is lost: the file has exactly the bytes and the
//! length of its last sync, and is empty if it never had one. Nothing is durable by being closed, or by the
//! process ending well.
//!
//! **Names.** What became of a file's name is looked up at the time of a sync, by inode, in the folder
//! itself; creating, renaming, linking and removing need not be seen. (That matters: rustix makes system
//! calls without libc, and tempfile renames with it, as does fjall under it.) The sync of a folder makes its
//! entries durable as they are. By default, [`Rule::Ext4`], the sync of a file also makes durable the name it
//! has at that moment, a rename included, and the names of the folders above that are not durable yet,
//! because on ext4, XFS and Btrfs the same journal commit carries them and much software relies on it.
//! Nothing else of that commit counts: removed names come back, other new files are not there, until their
//! folder is synced. [`PowerCut::strict`] drops this and demands the sync of the folder for every name (fjall
//! 3.1 does not make it: it never syncs the folder in which it makes a keyspace's). Under both rules a rename
//! is one step: a file never loses its old name without having its new one. A file renamed without having
//! been synced is empty (ext4 would often save it: `auto_da_alloc`).
//!
//! **Torn writes.** [`PowerCut::restore_torn`] lets some of the unsynced pages survive, chosen by a seed, and
//! in every second case all names.
//!
//! **Kills at any moment.** The shadow is brought up to date before a sync returns. A process killed in the
//! middle leaves a sync that nobody was told of done in part, in pages of that file, as a disk would. Names
//! change in one step.
//!
//! **Several processes and threads**, children too, may work on one folder, at once and one after the other.
//! What one thread writes while another syncs the file may count as synced, as on a disk. Only a large file
//! (over 256 KiB) that one process writes while another, which has synced it before, syncs it again is not
//! followed: the write is lost.
//!
//! # Out of scope
//!
//! What is not seen is lost, so that a test fails which should pass, and not the other way round.
//!
//! - Syncs not made through libc's functions: raw system calls, `io_uring`, `sync`, `syncfs`.
//! - Writes to files over 256 KiB by raw system calls, `io_uring`, `FILE` streams, asynchronous I/O or
//!   `FICLONE`: the sync does not know what changed. (Smaller files are copied whole.) [`PowerCut::verified`]
//!   finds them: it compares every synced file with its shadow and aborts the process at a difference. Writes
//!   through a writable shared mapping are followed, unless it was made writable later (`mprotect`).
//! - Statically linked and set-user-id programs: the shim is not loaded. [`PowerCut::restore`] refuses to
//!   pass over it.
//! - Times, owners, extended attributes, sockets, pipes; other file systems mounted below the folder; file
//!   names with line feeds. Permissions are kept as of the last sync of the name.
//! - Disks that lie about a flush, and damage to what had been synced.

pub mod changes;
pub mod content;
pub mod dice;
pub mod inode;
mod restore;
pub mod shadow;
pub mod tree;

pub use restore::Loss;
pub use tree::Rule;

use dice::Dice;
use shadow::Shadow;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder whose files are subject to the cut.
pub const ROOT_VARIABLE: &str = "SEALPOST_POWER_ROOT";
/// The folder of the shadow.
pub const SHADOW_VARIABLE: &str = "SEALPOST_POWER_SHADOW";
/// `1`: syncs make nothing durable.
pub const IGNORE_SYNC_VARIABLE: &str = "SEALPOST_POWER_IGNORE_SYNC";
/// `1`: [`Rule::Strict`].
pub const STRICT_VARIABLE: &str = "SEALPOST_POWER_STRICT";
/// `1`: every synced file is compared with its shadow.
pub const VERIFY_VARIABLE: &str = "SEALPOST_POWER_VERIFY";
/// Where the shim is, for a test that finds it elsewhere than Cargo puts it.
pub const SHIM_VARIABLE: &str = "SEALPOST_POWER_SHIM";

const SHIM_FILE: &str = "libsealpost_power_shim.so";

/// Why a cut could not be prepared or made. Repeating the call helps in no case.
#[derive(Debug, thiserror::Error)]
pub enum PowerError {
    /// The shim was not built, or not beside the running program.
    #[error("{SHIM_FILE} is not beside {0}: the tests' package needs a dependency on sealpost-power-shim")]
    NoShim(PathBuf),
    /// The shadow is below the root, or on another file system.
    #[error("the shadow {0} must be outside the root and on the same file system")]
    ShadowMisplaced(PathBuf),
    /// No process has loaded the shim since the last cut, so nothing was being recorded.
    #[error("no process was started with the shim: everything would seem lost")]
    NeverAttached,
    /// Reading or writing the folders failed.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Which of the two folders.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A folder that can be cut off from its power.
#[derive(Debug)]
pub struct PowerCut {
    root: PathBuf,
    shadow_folder: PathBuf,
    shadow: Shadow,
    shim: PathBuf,
    rule: Rule,
    ignore_syncs: bool,
    verify: bool,
}

impl PowerCut {
    /// Takes `root` (made if it is not there) with everything in it, as it is now, for durable, and empties
    /// `shadow`.
    ///
    /// # Errors
    /// The shim is not found, the shadow is misplaced, or a folder cannot be read or written.
    pub fn new(root: impl AsRef<Path>, shadow: impl AsRef<Path>) -> Result<Self, PowerError> {
        let root = made(root.as_ref())?;
        let shadow_folder = made(shadow.as_ref())?;
        let device =
            |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).map_err(io("look at", path));
        if shadow_folder.starts_with(&root)
            || root.starts_with(&shadow_folder)
            || device(&root)? != device(&shadow_folder)?
        {
            return Err(PowerError::ShadowMisplaced(shadow_folder));
        }
        let shadow = Shadow::in_folder(shadow_folder.clone());
        shadow.begin(&root).map_err(io("begin the shadow of", &root))?;
        let shim = find_shim()?;
        Ok(Self { root, shadow_folder, shadow, shim, rule: Rule::Ext4, ignore_syncs: false, verify: false })
    }

    /// Demands the sync of the folder for every name ([`Rule::Strict`]).
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.rule = Rule::Strict;
        self
    }

    /// Lets syncs make nothing durable, as if they had been taken out of the program.
    #[must_use]
    pub fn ignoring_syncs(mut self) -> Self {
        self.ignore_syncs = true;
        self
    }

    /// Compares every file with its shadow after its sync and aborts the process at a difference, which means
    /// that it was written past the shim. Slow with large files.
    #[must_use]
    pub fn verified(mut self) -> Self {
        self.verify = true;
        self
    }

    /// The environment for a process whose writes below the root are subject to the cut.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        let flag = |on: bool| OsString::from(if on { "1" } else { "0" });
        let mut preload = OsString::from(&self.shim);
        if let Some(others) = env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
            preload.push(" ");
            preload.push(others);
        }
        vec![
            ("LD_PRELOAD", preload),
            (ROOT_VARIABLE, OsString::from(&self.root)),
            (SHADOW_VARIABLE, OsString::from(&self.shadow_folder)),
            (IGNORE_SYNC_VARIABLE, flag(self.ignore_syncs)),
            (STRICT_VARIABLE, flag(self.rule == Rule::Strict)),
            (VERIFY_VARIABLE, flag(self.verify)),
        ]
    }

    /// Puts [`PowerCut::environment`] into a command.
    pub fn arm<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.envs(self.environment())
    }

    /// The folder, without links in its path.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the cut: the root holds exactly what had been synced. It is the durable state for the next
    /// start.
    ///
    /// Every process that works on the root must have ended and been waited for.
    ///
    /// # Errors
    /// No process had loaded the shim, or a folder cannot be read or written.
    pub fn restore(&self) -> Result<Loss, PowerError> {
        self.cut(None)
    }

    /// Makes the cut as [`PowerCut::restore`] does, but lets some of what had not been synced survive: of
    /// each file nothing, the pages before some offset, pages here and there, or all; with the old length or
    /// the new; and the names all as synced or all as they were last. One seed gives one choice.
    ///
    /// # Errors
    /// As [`PowerCut::restore`].
    pub fn restore_torn(&self, seed: u64) -> Result<Loss, PowerError> {
        self.cut(Some(Dice::seeded(seed)))
    }

    fn cut(&self, dice: Option<Dice>) -> Result<Loss, PowerError> {
        if !self.shadow.was_attached().map_err(io("read the shadow", &self.shadow_folder))? {
            return Err(PowerError::NeverAttached);
        }
        restore::restore(&self.root, &self.shadow, dice).map_err(io("restore", &self.root))
    }
}

fn made(folder: &Path) -> Result<PathBuf, PowerError> {
    fs::create_dir_all(folder).and_then(|()| folder.canonicalize()).map_err(io("make", folder))
}

/// Cargo puts the cdylib of a dependency into `deps`, where test executables are too; binaries are one folder
/// above.
fn find_shim() -> Result<PathBuf, PowerError> {
    let given = env::var_os(SHIM_VARIABLE).map(PathBuf::from);
    let program = env::current_exe().map_err(io("find", Path::new("/proc/self/exe")))?;
    let folders =
        program.ancestors().skip(1).take(2).flat_map(|folder| [folder.join("deps"), folder.to_owned()]);
    given
        .into_iter()
        .chain(folders.map(|folder| folder.join(OsStr::new(SHIM_FILE))))
        .find(|candidate| candidate.is_file())
        .ok_or(PowerError::NoShim(program))
}

fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PowerError {
    let path = path.to_owned();
    move |source| PowerError::Io { doing, path, source }
}
