//! The folder in which the state that would survive a cut is kept.
//!
//! ```text
//! SHADOW/tree           the durable names (see Tree::encode), replaced by rename
//! SHADOW/data/INODE     the synced bytes of each file; a file without one is empty
//! SHADOW/lock           held (flock) by whoever changes any of it
//! SHADOW/attached/PID   the processes that loaded the shim since the last start or cut
//! ```
//!
//! The shadow need not survive a real power cut, only the end of the process, so nothing here is synced.

use crate::content;
use crate::inode::{Inode, Node};
use crate::tree::{Target, Tree};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// A handle on the shadow folder.
#[derive(Clone, Debug)]
pub struct Shadow {
    folder: PathBuf,
}

/// Held while the shadow is changed; released when dropped, and by the kernel when the process dies.
#[must_use]
#[derive(Debug)]
pub struct Locked(#[expect(dead_code, reason = "held, not read")] File);

impl Shadow {
    /// Names the folder; touches nothing.
    #[must_use]
    pub fn in_folder(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Takes everything below `root`, as it is now, for durable, and forgets whatever the shadow held.
    ///
    /// # Errors
    /// Reading the root or writing the shadow fails.
    pub fn begin(&self, root: &Path) -> io::Result<()> {
        remove_if_there(&self.folder)?;
        fs::create_dir_all(self.data())?;
        fs::create_dir(self.attached())?;
        File::create_new(self.folder.join("lock"))?;
        let tree = Tree::read(root)?;
        self.copy_data(&tree, tree.root(), root)?;
        self.store(&tree)
    }

    /// Waits for its turn to change the shadow.
    ///
    /// # Errors
    /// The shadow has not been begun.
    pub fn lock(&self) -> io::Result<Locked> {
        let file = File::open(self.folder.join("lock"))?;
        file.lock()?;
        Ok(Locked(file))
    }

    /// Reads the durable names.
    ///
    /// # Errors
    /// The shadow has not been begun, or is not one.
    pub fn tree(&self) -> io::Result<Tree> {
        Tree::decode(&fs::read(self.folder.join("tree"))?)
    }

    /// Replaces the durable names in one step.
    ///
    /// # Errors
    /// Writing fails, or a name cannot be written (see [`Tree::encode`]).
    pub fn store(&self, tree: &Tree) -> io::Result<()> {
        let new = self.folder.join("tree.new");
        fs::write(&new, tree.encode()?)?;
        fs::rename(new, self.folder.join("tree"))
    }

    /// The synced bytes of a file, if it has any.
    ///
    /// # Errors
    /// Opening fails otherwise than by absence.
    pub fn open_data(&self, inode: Inode) -> io::Result<Option<File>> {
        match OpenOptions::new().read(true).write(true).open(self.data_of(inode)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the synced bytes of a file in one step.
    ///
    /// # Errors
    /// Reading or writing fails.
    pub fn replace_data(&self, inode: Inode, from: &File, len: u64) -> io::Result<()> {
        let new = self.folder.join("data.new");
        let to = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&new)?;
        content::copy_whole(from, &to, len)?;
        fs::rename(new, self.data_of(inode))
    }

    /// Deletes the bytes of files that are in neither tree.
    ///
    /// # Errors
    /// Deleting fails.
    pub fn forget_data(&self, durable: &Tree, live: &Tree) -> io::Result<()> {
        let (durable, live) = (durable.inodes(), live.inodes());
        for file in fs::read_dir(self.data())? {
            let file = file?;
            let inode = file.file_name().to_str().and_then(|name| name.parse().ok());
            if inode.is_none_or(|inode| !durable.contains(&inode) && !live.contains(&inode)) {
                fs::remove_file(file.path())?;
            }
        }
        Ok(())
    }

    /// Notes that a process has loaded the shim.
    ///
    /// # Errors
    /// Writing fails.
    pub fn attach(&self, process: u32) -> io::Result<()> {
        fs::write(self.attached().join(process.to_string()), b"")
    }

    /// Whether a process has loaded the shim since the shadow was begun.
    ///
    /// # Errors
    /// The shadow has not been begun.
    pub fn was_attached(&self) -> io::Result<bool> {
        Ok(fs::read_dir(self.attached())?.next().is_some())
    }

    /// Where a state is put together before it replaces the root.
    #[must_use]
    pub fn staging(&self) -> PathBuf {
        self.folder.join("staging")
    }

    fn copy_data(&self, tree: &Tree, folder: Inode, path: &Path) -> io::Result<()> {
        for (name, entry) in tree.entries(folder) {
            let path = path.join(name);
            match entry.target {
                Target::File => {
                    let from = File::open(&path)?;
                    self.replace_data(entry.inode, &from, Node::at(&path)?.len)?;
                }
                Target::Folder => self.copy_data(tree, entry.inode, &path)?,
                Target::Link(_) => {}
            }
        }
        Ok(())
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn data_of(&self, inode: Inode) -> PathBuf {
        self.data().join(inode.to_string())
    }

    fn attached(&self) -> PathBuf {
        self.folder.join("attached")
    }
}

/// Deletes a folder with everything in it, if it is there.
pub(crate) fn remove_if_there(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
