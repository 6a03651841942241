//! Names: which folder holds which file under which name, and what of it a sync makes durable.
//!
//! One [`Tree`] is the state that would be found after a cut, another is read from the running file system;
//! the rules are functions from the second into the first, without I/O.

use crate::inode::{Inode, Kind, Node};
use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// What one name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which file, folder or link.
    pub inode: Inode,
    /// Permission bits.
    pub mode: u32,
    /// What it is.
    pub target: Target,
}

/// The kinds of entries that survive a cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A file, whose bytes are kept elsewhere.
    File,
    /// A folder, whose entries are another table of the tree.
    Folder,
    /// A symbolic link and where it points.
    Link(OsString),
}

/// The entries of one folder.
pub type Table = BTreeMap<OsString, Entry>;

/// Which names an fsync makes durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rule {
    /// As ext4: the sync of a file or folder also makes its own name durable, and the names of the folders
    /// above.
    #[default]
    Ext4,
    /// As POSIX at its narrowest: names become durable by the sync of their folder alone.
    Strict,
}

/// A folder with everything below it, by inode, so that moving a folder moves nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    root: Inode,
    folders: BTreeMap<Inode, Table>,
}

impl Tree {
    /// Reads a folder and everything below it.
    ///
    /// What comes and goes during the reading may be in the tree or not, as for a reader of any folder. A
    /// file that is renamed meanwhile must not be missed, so the reading is repeated until two in a row
    /// agree.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut last = Self::read_once(root)?;
        for _ in 0..READINGS_MAX {
            let next = Self::read_once(root)?;
            if next == last {
                break;
            }
            last = next;
        }
        Ok(last)
    }

    /// The root folder's inode.
    #[must_use]
    pub fn root(&self) -> Inode {
        self.root
    }

    /// The entries of a folder; none for one that is not in the tree.
    pub fn entries(&self, folder: Inode) -> impl Iterator<Item = (&OsStr, &Entry)> {
        self.folders.get(&folder).into_iter().flatten().map(|(name, entry)| (name.as_os_str(), entry))
    }

    /// Everything that has a name in the tree, and the root.
    #[must_use]
    pub fn inodes(&self) -> HashSet<Inode> {
        let named = self.folders.values().flat_map(Table::values).map(|entry| entry.inode);
        named.chain([self.root]).collect()
    }

    /// How many names of this tree stand for something else, or for nothing, in the other.
    #[must_use]
    pub fn names_missing_in(&self, other: &Self) -> u64 {
        let missing = |(folder, name, entry): &(Inode, &OsString, &Entry)| {
            other.lookup(*folder, name).is_none_or(|there| there.inode != entry.inode)
        };
        self.names().filter(missing).count() as u64
    }

    /// Makes durable what the sync of a file does under [`Rule::Ext4`]: the names it has now, and with them
    /// the renames that led there. Under [`Rule::Strict`] there is nothing to do.
    pub fn sync_file(&mut self, live: &Self, file: Inode) {
        let now = live.names_of(file);
        if now.is_empty() {
            return; // unlinked: that becomes durable with its folder
        }
        for (folder, name) in self.names_of(file) {
            if !now.contains(&(folder, name.clone())) {
                self.unlink(folder, &name);
            }
        }
        self.link_as_live(live, &now);
    }

    /// Makes durable what the sync of a folder does: all its entries as they are now.
    pub fn sync_folder(&mut self, live: &Self, folder: Inode, rule: Rule) {
        let Some(now) = live.folders.get(&folder) else { return };
        let before = self.folders.insert(folder, now.clone()).unwrap_or_default();
        let same =
            |a: &Table, name: &OsString, entry: &Entry| a.get(name).is_some_and(|e| e.inode == entry.inode);

        // A rename is one step: what came from another folder is gone there, and what went to another folder
        // has arrived.
        for (name, entry) in now.iter().filter(|(name, entry)| !same(&before, name, entry)) {
            if entry.target == Target::Folder {
                self.folders.entry(entry.inode).or_default();
            }
            for (from, old_name) in self.names_of(entry.inode) {
                if (from, &old_name) != (folder, name) && !same_name(live, from, &old_name, entry.inode) {
                    self.unlink(from, &old_name);
                }
            }
        }
        for (_, entry) in before.iter().filter(|(name, entry)| !same(now, name, entry)) {
            if self.names_of(entry.inode).is_empty() {
                self.link_as_live(live, &live.names_of(entry.inode));
            }
        }
        if rule == Rule::Ext4 {
            self.reach(live, folder);
        }
    }

    /// Forgets the folders that neither tree can name any more.
    pub fn forget_removed(&mut self, live: &Self) {
        let live = live.inodes();
        loop {
            let (before, durable) = (self.folders.len(), self.inodes());
            self.folders.retain(|folder, _| durable.contains(folder) || live.contains(folder));
            // What was forgotten may have been all that named others.
            if self.folders.len() == before {
                return;
            }
        }
    }

    /// Writes the tree as lines of bytes: `root`, then for each folder its inode and its entries.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for a name with a line feed, which the format has no room for.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        let mut lines = format!("root {}\n", self.root).into_bytes();
        for (folder, table) in &self.folders {
            lines.extend_from_slice(format!("in {folder}\n").as_bytes());
            for (name, entry) in table {
                let kind = match &entry.target {
                    Target::File => "file",
                    Target::Folder => "folder",
                    Target::Link(_) => "link",
                };
                lines.extend_from_slice(format!("{kind} {:o} {} ", entry.mode, entry.inode).as_bytes());
                push_line(&mut lines, name)?;
                if let Target::Link(to) = &entry.target {
                    push_line(&mut lines, to)?;
                }
            }
        }
        Ok(lines)
    }

    /// Reads what [`Tree::encode`] wrote.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for anything else.
    pub fn decode(bytes: &[u8]) -> io::Result<Self> {
        decode_lines(bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a tree of names"))
    }

    fn read_once(root: &Path) -> io::Result<Self> {
        let mut tree = Self { root: Node::at(root)?.inode, folders: BTreeMap::new() };
        let mut waiting = vec![(root.to_owned(), tree.root)];
        while let Some((path, folder)) = waiting.pop() {
            let mut table = Table::new();
            let found = match fs::read_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && folder != tree.root => continue,
                found => found?,
            };
            for name in found {
                let name = name?.file_name();
                let path = path.join(&name);
                match read_entry(&path) {
                    Ok(Some(entry)) => {
                        if entry.target == Target::Folder {
                            waiting.push((path, entry.inode));
                        }
                        table.insert(name, entry);
                    }
                    Ok(None) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            tree.folders.insert(folder, table);
        }
        Ok(tree)
    }

    fn names(&self) -> impl Iterator<Item = (Inode, &OsString, &Entry)> {
        let entries = |(folder, table): (&Inode, _)| (*folder, table);
        self.folders.iter().map(entries).flat_map(|(folder, table): (Inode, &Table)| {
            table.iter().map(move |(name, entry)| (folder, name, entry))
        })
    }

    fn lookup(&self, folder: Inode, name: &OsStr) -> Option<&Entry> {
        self.folders.get(&folder)?.get(name)
    }

    fn names_of(&self, inode: Inode) -> Vec<(Inode, OsString)> {
        let of_inode = self.names().filter(|(_, _, entry)| entry.inode == inode);
        of_inode.map(|(folder, name, _)| (folder, name.clone())).collect()
    }

    fn unlink(&mut self, folder: Inode, name: &OsStr) {
        if let Some(table) = self.folders.get_mut(&folder) {
            table.remove(name);
        }
    }

    fn link_as_live(&mut self, live: &Self, names: &[(Inode, OsString)]) {
        for (folder, name) in names {
            let Some(entry) = live.lookup(*folder, name) else { continue };
            if entry.target == Target::Folder {
                self.folders.entry(entry.inode).or_default();
            }
            self.folders.entry(*folder).or_default().insert(name.clone(), entry.clone());
            self.reach(live, *folder);
        }
    }

    /// Names a folder, and those above it, where no durable entry leads to it yet.
    fn reach(&mut self, live: &Self, folder: Inode) {
        if folder != self.root && self.names_of(folder).is_empty() {
            self.link_as_live(live, &live.names_of(folder));
        }
    }
}

/// How often a changing folder is read again.
const READINGS_MAX: usize = 16;

fn same_name(tree: &Tree, folder: Inode, name: &OsStr, inode: Inode) -> bool {
    tree.lookup(folder, name).is_some_and(|entry| entry.inode == inode)
}

fn read_entry(path: &Path) -> io::Result<Option<Entry>> {
    let node = Node::at(path)?;
    let target = match node.kind {
        Kind::File => Target::File,
        Kind::Folder => Target::Folder,
        Kind::Link => Target::Link(fs::read_link(path)?.into_os_string()),
        Kind::Other => return Ok(None),
    };
    Ok(Some(Entry { inode: node.inode, mode: node.mode, target }))
}

fn push_line(lines: &mut Vec<u8>, text: &OsStr) -> io::Result<()> {
    if text.as_bytes().contains(&b'\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a file name with a line feed"));
    }
    lines.extend_from_slice(text.as_bytes());
    lines.push(b'\n');
    Ok(())
}

fn decode_lines(bytes: &[u8]) -> Option<Tree> {
    let mut lines = bytes.strip_suffix(b"\n")?.split(|byte| *byte == b'\n');
    let inode = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<Inode>().ok();
    let mut tree = Tree { root: inode(lines.next()?.strip_prefix(b"root ")?)?, folders: BTreeMap::new() };
    let mut folder = tree.root;
    while let Some(line) = lines.next() {
        if let Some(text) = line.strip_prefix(b"in ") {
            folder = inode(text)?;
            tree.folders.entry(folder).or_default();
            continue;
        }
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let kind = fields.next()?;
        let mode = u32::from_str_radix(std::str::from_utf8(fields.next()?).ok()?, 8).ok()?;
        let inode = inode(fields.next()?)?;
        let name = OsString::from_vec(fields.next()?.to_vec());
        let target = match kind {
            b"file" => Target::File,
            b"folder" => Target::Folder,
            b"link" => Target::Link(OsString::from_vec(lines.next()?.to_vec())),
            _ => return None,
        };
        tree.folders.get_mut(&folder)?.insert(name, Entry { inode, mode, target });
    }
    Some(tree)
}

#[cfg(test)]
mod tests;
