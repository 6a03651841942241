//! Which file this is: an identity that stays through renames and is never used twice.
#![expect(
    unsafe_code,
    reason = "name_to_handle_at has no safe wrapper, and a descriptor of the program is only borrowed"
)]

use std::ffi::CString;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;
use std::time::UNIX_EPOCH;

/// The identity of a file, folder or link within one file system.
///
/// An inode number alone is given to a new file as soon as the old one is gone (SQLite's rollback journal
/// gets the same number at every commit), hence the generation: a digest of the kernel's file handle, or the
/// time of birth where the file system knows no handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Inode {
    number: u64,
    generation: u64,
}

impl fmt::Display for Inode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}", self.number, self.generation)
    }
}

/// Text that is not an [`Inode`].
#[derive(Debug)]
pub struct NotAnInode;

impl FromStr for Inode {
    type Err = NotAnInode;

    fn from_str(text: &str) -> Result<Self, NotAnInode> {
        let (number, generation) = text.split_once('.').ok_or(NotAnInode)?;
        let hex = |digits| u64::from_str_radix(digits, 16).map_err(|_| NotAnInode);
        Ok(Self { number: hex(number)?, generation: hex(generation)? })
    }
}

/// What a name can stand for. Sockets, pipes and devices are no durable data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// Anything else.
    Other,
}

/// One look at a file: who it is and what its inode says.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// Which file.
    pub inode: Inode,
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Length in bytes.
    pub len: u64,
    /// How many names it has.
    pub names: u64,
}

impl Node {
    /// Looks at a path without following a link at its end.
    ///
    /// # Errors
    /// The path cannot be looked at, or its file system gives neither a handle nor a time of birth.
    pub fn at(path: &Path) -> io::Result<Self> {
        let c_path = CString::new(path.as_os_str().as_bytes())?;
        Self::new(&fs::symlink_metadata(path)?, handle_digest(libc::AT_FDCWD, &c_path, 0))
    }

    /// Looks at an open descriptor, which stays the caller's.
    ///
    /// # Errors
    /// As [`Node::at`]; `EBADF` where nothing is open.
    pub fn of(fd: RawFd) -> io::Result<Self> {
        let metadata = borrowed(fd).metadata()?;
        Self::new(&metadata, handle_digest(fd, c"", libc::AT_EMPTY_PATH))
    }

    fn new(metadata: &Metadata, handle: Option<u64>) -> io::Result<Self> {
        let generation = match handle {
            Some(digest) => digest,
            // 64 bits of nanoseconds reach the year 2554.
            #[expect(clippy::cast_possible_truncation, reason = "see above")]
            None => {
                metadata.created()?.duration_since(UNIX_EPOCH).map_err(io::Error::other)?.as_nanos() as u64
            }
        };
        let file_type = metadata.file_type();
        let kind = if file_type.is_file() {
            Kind::File
        } else if file_type.is_dir() {
            Kind::Folder
        } else if file_type.is_symlink() {
            Kind::Link
        } else {
            Kind::Other
        };
        Ok(Self {
            inode: Inode { number: metadata.ino(), generation },
            kind,
            mode: metadata.mode() & 0o7777,
            len: metadata.len(),
            names: metadata.nlink(),
        })
    }
}

/// A descriptor of somebody else as a file that is not closed here: closing any descriptor of a file drops
/// the POSIX locks that the process has on it, SQLite's for example.
#[must_use]
pub fn borrowed(fd: RawFd) -> ManuallyDrop<File> {
    // SAFETY: the file is never dropped; every use of a descriptor that is not open fails with EBADF.
    ManuallyDrop::new(unsafe { File::from_raw_fd(fd) })
}

/// The kernel's upper bound, `MAX_HANDLE_SZ`.
const HANDLE_BYTES_MAX: usize = 128;

#[repr(C)]
struct Handle {
    len: u32,
    kind: i32,
    bytes: [u8; HANDLE_BYTES_MAX],
}

/// FNV-1a over the file handle, which holds the inode's generation on ext4, XFS, Btrfs and tmpfs.
fn handle_digest(folder: RawFd, path: &std::ffi::CStr, flags: i32) -> Option<u64> {
    #[expect(clippy::cast_possible_truncation, reason = "128")]
    let mut handle = Handle { len: HANDLE_BYTES_MAX as u32, kind: 0, bytes: [0; HANDLE_BYTES_MAX] };
    let mut mount = 0i32;
    // SAFETY: the path ends with NUL; handle and mount id are valid for writes, and `len` tells the room in
    // `bytes`.
    let done = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            folder,
            path.as_ptr(),
            &raw mut handle,
            &raw mut mount,
            flags,
        )
    };
    if done != 0 {
        return None;
    }
    let bytes = handle.bytes.iter().take(handle.len as usize);
    Some(handle.kind.to_le_bytes().iter().chain(bytes).fold(0xcbf2_9ce4_8422_2325, |digest, byte| {
        (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_file_keeps_its_identity_through_a_rename_and_a_new_file_gets_another() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        let mut seen = std::collections::HashSet::new();
        for _ in 0..50 {
            let file = File::create_new(&old).unwrap();
            let inode = Node::at(&old).unwrap().inode;
            assert_eq!(Node::of(file.as_raw_fd()).unwrap().inode, inode);
            fs::rename(&old, &new).unwrap();
            assert_eq!(Node::at(&new).unwrap().inode, inode);
            assert_eq!(inode.to_string().parse::<Inode>().unwrap(), inode);
            fs::remove_file(&new).unwrap();
            drop(file);
            assert!(seen.insert(inode), "{inode} was given twice");
        }
    }

    #[test]
    fn other_text_is_no_inode() {
        for text in ["", ".", "1", "1.", "x.1", "1.2.3"] {
            assert!(text.parse::<Inode>().is_err(), "{text:?}");
        }
    }
}
