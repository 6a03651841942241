//! Putting back what survived the cut.

use crate::content::{self, Survivors, tear};
use crate::dice::Dice;
use crate::inode::Inode;
use crate::shadow::{Shadow, remove_if_there};
use crate::tree::{Target, Tree};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// What of the state before the cut is gone after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Names that were made, moved or given to another file, and are not there.
    pub names: u64,
    /// Pages of 4096 bytes that were written to files that are still there, and are not in them.
    pub pages: u64,
}

/// Makes `root` hold what survives, and begins the shadow anew from there.
pub(crate) fn restore(root: &Path, shadow: &Shadow, mut dice: Option<Dice>) -> io::Result<Loss> {
    let live = Tree::read(root)?;
    let durable = shadow.tree()?;
    // The journal of the file system may have reached the disk on its own, with all names in it.
    let names_survive = dice.as_mut().is_some_and(Dice::coin);
    let kept = if names_survive { &live } else { &durable };

    let mut paths = HashMap::new();
    file_paths(&live, live.root(), root, &mut paths);
    let staging = shadow.staging();
    remove_if_there(&staging)?;
    fs::create_dir(&staging)?;
    let mut build = Build { tree: kept, shadow, live: &paths, dice, made: HashMap::new(), pages_lost: 0 };
    build.folder(kept.root(), &staging)?;
    let loss = Loss { names: live.names_missing_in(kept), pages: build.pages_lost };

    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if path.symlink_metadata()?.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
    }
    for entry in fs::read_dir(&staging)? {
        let entry = entry?;
        fs::rename(entry.path(), root.join(entry.file_name()))?;
    }
    shadow.begin(root)?;
    Ok(loss)
}

struct Build<'a> {
    tree: &'a Tree,
    shadow: &'a Shadow,
    live: &'a HashMap<Inode, PathBuf>,
    dice: Option<Dice>,
    made: HashMap<Inode, PathBuf>,
    pages_lost: u64,
}

impl Build<'_> {
    fn folder(&mut self, folder: Inode, path: &Path) -> io::Result<()> {
        for (name, entry) in self.tree.entries(folder) {
            let path = path.join(name);
            match &entry.target {
                Target::Folder => {
                    fs::create_dir(&path)?;
                    self.folder(entry.inode, &path)?;
                    fs::set_permissions(&path, Permissions::from_mode(entry.mode))?;
                }
                Target::Link(to) => symlink(to, &path)?,
                Target::File => match self.made.get(&entry.inode) {
                    Some(first_name) => fs::hard_link(first_name, &path)?,
                    None => {
                        self.file(entry.inode, entry.mode, &path)?;
                        self.made.insert(entry.inode, path);
                    }
                },
            }
        }
        Ok(())
    }

    fn file(&mut self, inode: Inode, mode: u32, path: &Path) -> io::Result<()> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        if let Some(synced) = self.shadow.open_data(inode)? {
            content::copy_whole(&synced, &file, synced.metadata()?.len())?;
        }
        if let Some(live) = self.live.get(&inode) {
            let live = File::open(live)?;
            let mut none = Dice::seeded(0);
            let survivors = match &mut self.dice {
                None => Survivors::None,
                Some(dice) => match dice.below(4) {
                    0 => Survivors::None,
                    1 => Survivors::Before(dice.below(live.metadata()?.len().max(1))),
                    2 => Survivors::Some,
                    _ => Survivors::All,
                },
            };
            self.pages_lost += tear(&live, &file, survivors, self.dice.as_mut().unwrap_or(&mut none))?;
        }
        fs::set_permissions(path, Permissions::from_mode(mode))
    }
}

fn file_paths(tree: &Tree, folder: Inode, path: &Path, paths: &mut HashMap<Inode, PathBuf>) {
    for (name, entry) in tree.entries(folder) {
        match entry.target {
            Target::Folder => file_paths(tree, entry.inode, &path.join(name), paths),
            Target::File => drop(paths.insert(entry.inode, path.join(name))),
            Target::Link(_) => {}
        }
    }
}
