//! What this process knows of the files below the root, and how a sync reaches the shadow.
#![expect(unsafe_code, reason = "reads descriptor flags and asks for locks, which std has no calls for")]
#![expect(
    clippy::cast_possible_truncation,
    reason = "libc declares lock kinds as int and keeps them as short"
)]

use sealpost_power::changes::{Changes, Copy};
use sealpost_power::content;
use sealpost_power::inode::{Inode, Kind, Node, borrowed};
use sealpost_power::shadow::Shadow;
use sealpost_power::tree::{Rule, Tree};
use sealpost_power::{
    IGNORE_SYNC_VARIABLE, ROOT_VARIABLE, SHADOW_VARIABLE, STRICT_VARIABLE, VERIFY_VARIABLE,
};
use std::collections::HashMap;
use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::ops::{Deref, Range};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Files up to this length are copied whole, so that writes which were not seen do no harm.
const WHOLE_BYTES_MAX: u64 = 256 << 10;

/// How often a file that other threads write to is compared before a difference counts.
const VERIFY_ATTEMPTS_MAX: u32 = 100;

/// Everything the hooks share.
pub(crate) struct Process {
    root: PathBuf,
    device: u64,
    shadow: Shadow,
    rule: Rule,
    ignore_syncs: bool,
    verify: bool,
    files: Mutex<HashMap<Inode, Known>>,
    mappings: Mutex<Vec<Mapping>>,
    /// One sync at a time; other processes are kept out by the shadow's lock.
    turn: Mutex<()>,
}

struct Known {
    changes: Changes,
    /// Under what name, and with which permissions, the file was last made durable.
    named: Option<Named>,
}

#[derive(PartialEq, Eq)]
struct Named {
    path: PathBuf,
    mode: u32,
    names: u64,
}

struct Mapping {
    addresses: Range<usize>,
    inode: Inode,
    path: PathBuf,
}

impl Process {
    /// Reads the environment; `None` where it does not ask for the shim.
    pub(crate) fn attach() -> io::Result<Option<Self>> {
        let (Some(root), Some(shadow)) = (env::var_os(ROOT_VARIABLE), env::var_os(SHADOW_VARIABLE)) else {
            return Ok(None);
        };
        let root = PathBuf::from(root).canonicalize()?;
        let is_set = |variable| env::var_os(variable).is_some_and(|value| value == "1");
        let process = Self {
            device: fs::metadata(&root)?.dev(),
            shadow: Shadow::in_folder(PathBuf::from(shadow).canonicalize()?),
            rule: if is_set(STRICT_VARIABLE) { Rule::Strict } else { Rule::Ext4 },
            ignore_syncs: is_set(IGNORE_SYNC_VARIABLE),
            verify: is_set(VERIFY_VARIABLE),
            files: Mutex::default(),
            mappings: Mutex::default(),
            turn: Mutex::default(),
            root,
        };
        if process.shadow.tree()?.root() != Node::at(&process.root)?.inode {
            return Err(io::Error::other("the root is another folder than when the shadow was begun"));
        }
        process.shadow.attach(std::process::id())?;
        Ok(Some(process))
    }

    /// The file system of the root, to pass over other descriptors quickly.
    pub(crate) fn device(&self) -> u64 {
        self.device
    }

    /// Bytes in `[start, end)` of the file may have changed.
    pub(crate) fn written(&self, fd: RawFd, start: u64, end: u64) {
        self.change(fd, |changes| changes.add(start, end));
    }

    /// Any byte of the file may have changed.
    pub(crate) fn rewritten(&self, fd: RawFd) {
        self.change(fd, Changes::add_all);
    }

    /// The file can be written through memory from now on.
    pub(crate) fn mapped(&self, fd: RawFd, addresses: Range<usize>) {
        self.change(fd, Changes::map);
        if let (Ok(node), Some(path)) = (Node::of(fd), self.path_below_root(fd)) {
            held(&self.mappings).push(Mapping { addresses, inode: node.inode, path });
        }
    }

    /// These addresses show no file any more.
    pub(crate) fn unmapped(&self, addresses: &Range<usize>) {
        held(&self.mappings).retain(|mapping| !overlap(&mapping.addresses, addresses));
    }

    /// What was written through these addresses is on the disk.
    pub(crate) fn memory_synced(&self, addresses: &Range<usize>) -> io::Result<()> {
        let shown = |mapping: &&Mapping| overlap(&mapping.addresses, addresses);
        let files: Vec<_> =
            held(&self.mappings).iter().filter(shown).map(|m| (m.inode, m.path.clone())).collect();
        for (inode, path) in files {
            let Ok(file) = File::open(&path) else { continue }; // removed
            let reader = Reader::Own(ManuallyDrop::new(file));
            if Node::of(reader.as_raw_fd())?.inode == inode {
                self.synced(reader.as_raw_fd())?;
            }
        }
        Ok(())
    }

    /// The descriptor's file or folder has been synced: brings the shadow up to date before the program
    /// learns of it.
    pub(crate) fn synced(&self, fd: RawFd) -> io::Result<()> {
        let Some(path) = self.path_below_root(fd) else { return Ok(()) };
        if self.ignore_syncs {
            return Ok(());
        }
        let _turn = held(&self.turn);
        let _locked = self.shadow.lock()?;
        let node = Node::of(fd)?;
        match node.kind {
            Kind::File => self.file_synced(fd, path, node),
            Kind::Folder => self.folder_synced(node.inode),
            Kind::Link | Kind::Other => Ok(()),
        }
    }

    fn file_synced(&self, fd: RawFd, path: PathBuf, node: Node) -> io::Result<()> {
        let copy = match held(&self.files).get_mut(&node.inode) {
            Some(known) => known.changes.take(),
            None => Copy::Whole,
        };
        let reader = Reader::of(fd)?;
        match (copy, self.shadow.open_data(node.inode)?) {
            (Copy::Ranges(ranges), Some(data)) if node.len > WHOLE_BYTES_MAX => {
                for (start, end) in ranges {
                    content::copy_range(&reader, &data, start, end.min(node.len))?;
                }
                data.set_len(node.len)?;
            }
            _ => self.shadow.replace_data(node.inode, &reader, node.len)?,
        }
        if self.verify {
            self.compare(&reader, node.inode, &path)?;
        }
        let named = Named { path, mode: node.mode, names: node.names };
        let is_named =
            held(&self.files).get(&node.inode).is_some_and(|known| known.named.as_ref() == Some(&named));
        if self.rule == Rule::Ext4 && !is_named {
            let live = Tree::read(&self.root)?;
            let mut durable = self.shadow.tree()?;
            durable.sync_file(&live, node.inode);
            self.shadow.store(&durable)?;
        }
        let mut files = held(&self.files);
        // Nothing of a file met here for the first time was missed: it has just been copied, and writes of
        // other threads since then are of this process and have made it known.
        let known =
            files.entry(node.inode).or_insert_with(|| Known { changes: Changes::none(), named: None });
        known.named = Some(named);
        Ok(())
    }

    fn folder_synced(&self, folder: Inode) -> io::Result<()> {
        let live = Tree::read(&self.root)?;
        let before = self.shadow.tree()?;
        let mut durable = before.clone();
        durable.sync_folder(&live, folder, self.rule);
        durable.forget_removed(&live);
        if durable != before {
            self.shadow.store(&durable)?;
        }
        self.shadow.forget_data(&durable, &live)?;
        let (durable, live) = (durable.inodes(), live.inodes());
        let mut files = held(&self.files);
        files.retain(|inode, _| durable.contains(inode) || live.contains(inode));
        files.values_mut().for_each(|known| known.named = None);
        Ok(())
    }

    fn compare(&self, file: &File, inode: Inode, path: &Path) -> io::Result<()> {
        let mut differs = None;
        for _ in 0..VERIFY_ATTEMPTS_MAX {
            let Some(data) = self.shadow.open_data(inode)? else { return Ok(()) };
            differs = content::first_difference(file, &data, file.metadata()?.len())?;
            // A write of another thread since the sync is known by the time it returns.
            let written_since = held(&self.files).get(&inode).is_some_and(|known| !known.changes.is_empty());
            if differs.is_none() || written_since {
                return Ok(());
            }
            std::thread::yield_now();
        }
        let at = differs.unwrap_or_default();
        Err(io::Error::other(format!("{} was written past the shim, at offset {at}", path.display())))
    }

    fn change(&self, fd: RawFd, change: impl FnOnce(&mut Changes)) {
        let Ok(node) = Node::of(fd) else { return }; // closed by another thread meanwhile
        let mut files = held(&self.files);
        if let Some(known) = files.get_mut(&node.inode) {
            change(&mut known.changes);
            return;
        }
        drop(files);
        if self.path_below_root(fd).is_some() {
            let unknown = || Known { changes: Changes::unknown(), named: None };
            change(&mut held(&self.files).entry(node.inode).or_insert_with(unknown).changes);
        }
    }

    fn path_below_root(&self, fd: RawFd) -> Option<PathBuf> {
        let path = fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
        path.starts_with(&self.root).then_some(path)
    }
}

/// A file to read from: the program's own descriptor, or another one where that is open for writing only.
enum Reader {
    Programs(ManuallyDrop<File>),
    Own(ManuallyDrop<File>),
}

impl Reader {
    fn of(fd: RawFd) -> io::Result<Self> {
        // SAFETY: reads the flags of a descriptor.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
        if flags & libc::O_ACCMODE == libc::O_WRONLY {
            Ok(Self::Own(ManuallyDrop::new(File::open(format!("/proc/self/fd/{fd}"))?)))
        } else {
            Ok(Self::Programs(borrowed(fd)))
        }
    }
}

impl Deref for Reader {
    type Target = File;

    fn deref(&self) -> &File {
        match self {
            Self::Programs(file) | Self::Own(file) => file,
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let Self::Own(file) = self else { return };
        // Closing it would drop the POSIX locks that the program holds on the file: it stays open while there
        // are any.
        let mut lock = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        // SAFETY: `lock` is valid for reads and writes.
        let asked = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
        if asked == 0 && lock.l_type == libc::F_UNLCK as libc::c_short {
            // SAFETY: the file is not used after its drop.
            unsafe { ManuallyDrop::drop(file) };
        }
    }
}

/// Ends the process: a shadow that cannot be kept would make the test say something untrue.
pub(crate) fn give_up(error: &io::Error) -> ! {
    // Nothing is left to do where stderr is closed.
    let _ = writeln!(io::stderr(), "sealpost-power: {error}");
    std::process::abort();
}

fn overlap(one: &Range<usize>, other: &Range<usize>) -> bool {
    one.start < other.end && other.start < one.end
}

/// A thread that panicked has aborted the process: the lock cannot be poisoned.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
