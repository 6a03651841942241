//! libc's functions that write to files, and those that sync them.
//!
//! Each makes the system call itself; looking up libc's own function would bring the dynamic linker into
//! every path. A range is noted after the call has written it and before the program learns of it: a sync by
//! another thread in between may or may not contain it, as on a disk. It may be noted too wide, which only
//! copies more.
#![expect(unsafe_code, reason = "replaces functions of libc, under their C signatures")]
#![expect(clippy::cast_possible_truncation, reason = "long, off_t and ssize_t are one type on 64-bit Linux")]

use crate::process::{Process, give_up};
use libc::{c_char, c_int, c_long, c_uint, c_void, iovec, loff_t, mode_t, off_t, size_t, ssize_t, syscall};
use std::cell::Cell;
use std::os::fd::RawFd;
use std::sync::OnceLock;

static PROCESS: OnceLock<Option<Process>> = OnceLock::new();

#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = attach;

extern "C" fn attach() {
    let _inside = Inside::enter();
    PROCESS.get_or_init(|| Process::attach().unwrap_or_else(|error| give_up(&error)));
}

thread_local! {
    /// The shim's own file operations come through the hooks as well.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

struct Inside;

impl Inside {
    fn enter() -> Option<Self> {
        INSIDE.with(|inside| !inside.replace(true)).then_some(Self)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.with(|inside| inside.set(false));
    }
}

/// Does something with the process's state, with `errno` left as it is; nothing for the shim's own calls.
fn with_process<T>(act: impl FnOnce(&Process) -> T) -> Option<T> {
    let process = PROCESS.get()?.as_ref()?;
    let _inside = Inside::enter()?;
    // SAFETY: the address of this thread's errno.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: it is valid for reads and writes while the thread lives.
    let before = unsafe { *errno };
    let result = act(process);
    // SAFETY: as above.
    unsafe { *errno = before };
    Some(result)
}

/// `pwritev2`: as if opened with `O_DSYNC`, `O_SYNC`, `O_APPEND` (linux/fs.h).
const RWF_DSYNC: c_int = 0x2;
const RWF_SYNC: c_int = 0x4;
const RWF_APPEND: c_int = 0x10;

/// Where a write goes.
#[derive(Clone, Copy)]
enum At {
    Position,
    Offset(off_t),
    End,
}

/// A write to a regular file that may be below the root.
struct Writing {
    fd: RawFd,
    at: At,
    start: u64,
    is_synced: bool,
}

impl Writing {
    fn begin(process: &Process, fd: RawFd, at: At) -> Option<Self> {
        let status = regular(process, fd)?;
        // SAFETY: reads the flags of a descriptor.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
        // Linux appends for pwrite too.
        let at = if flags & libc::O_APPEND != 0 { At::End } else { at };
        let start = match at {
            At::End => status.st_size,
            At::Offset(offset) => offset,
            At::Position => position(fd),
        };
        Some(Self { fd, at, start: u64::try_from(start).ok()?, is_synced: flags & libc::O_DSYNC != 0 })
    }

    fn end(&self, process: &Process, written: u64) {
        let end = match self.at {
            At::Offset(_) => self.start + written,
            At::Position => u64::try_from(position(self.fd)).unwrap_or(0).max(self.start + written),
            At::End => u64::MAX,
        };
        process.written(self.fd, self.start, end);
        if self.is_synced {
            synced(process, self.fd);
        }
    }
}

/// Makes a call that writes and returns how many bytes it wrote.
fn write_through(fd: RawFd, at: At, flags: c_int, call: impl FnOnce() -> ssize_t) -> ssize_t {
    let at = if flags & RWF_APPEND != 0 { At::End } else { at };
    let writing = with_process(|process| Writing::begin(process, fd, at)).flatten();
    let written = call();
    if let (Some(mut writing), Ok(bytes @ 1..)) = (writing, u64::try_from(written)) {
        writing.is_synced |= flags & (RWF_DSYNC | RWF_SYNC) != 0;
        with_process(|process| writing.end(process, bytes));
    }
    written
}

fn regular(process: &Process, fd: RawFd) -> Option<libc::stat> {
    let mut status = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `status` is valid for writes.
    if unsafe { libc::fstat(fd, status.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: fstat has filled it in.
    let status = unsafe { status.assume_init() };
    (status.st_dev == process.device() && status.st_mode & libc::S_IFMT == libc::S_IFREG).then_some(status)
}

fn position(fd: RawFd) -> off_t {
    // SAFETY: moves nothing.
    unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) }
}

fn synced(process: &Process, fd: RawFd) {
    if let Err(error) = process.synced(fd) {
        give_up(&error);
    }
}

/// After a call that returned 0.
fn on_success(result: c_long, act: impl FnOnce(&Process)) -> c_int {
    if result == 0 {
        with_process(act);
        return 0;
    }
    -1
}

/// Notes the bytes from `start` on, after a change of length or of a range.
fn note_from(process: &Process, fd: RawFd, start: off_t) {
    if regular(process, fd).is_some() {
        process.written(fd, u64::try_from(start).unwrap_or(0), u64::MAX);
    }
}

/// Exports functions under C names, some under two: `off_t` has 64 bits either way.
macro_rules! hooks {
    (@alias $name64:ident $name:ident ($($parameter:ident: $type:ty),*) -> $result:ty) => {
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name64($($parameter: $type),*) -> $result {
            // SAFETY: the caller's, under the other name.
            unsafe { $name($($parameter),*) }
        }
    };
    (@function $(#[$doc:meta])* $name:ident ($($parameter:ident: $type:ty),*) -> $result:ty $body:block) => {
        $(#[$doc])*
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($parameter: $type),*) -> $result $body
    };
    ($($(#[$doc:meta])* [$name:ident $(, $name64:ident)?] $parameters:tt -> $result:ty $body:block)*) => {
        $(
            hooks!(@function $(#[$doc])* $name $parameters -> $result $body);
            $(hooks!(@alias $name64 $name $parameters -> $result);)?
        )*
    };
}

// SAFETY, for every system call below: the arguments are the caller's, passed on as they are.
hooks! {
    /// write(2)
    [write] (fd: c_int, bytes: *const c_void, len: size_t) -> ssize_t {
        let call = || unsafe { syscall(libc::SYS_write, fd, bytes, len) as ssize_t };
        write_through(fd, At::Position, 0, call)
    }

    /// pwrite(2)
    [pwrite, pwrite64] (fd: c_int, bytes: *const c_void, len: size_t, offset: off_t) -> ssize_t {
        let call = || unsafe { syscall(libc::SYS_pwrite64, fd, bytes, len, offset) as ssize_t };
        write_through(fd, At::Offset(offset), 0, call)
    }

    /// writev(2)
    [writev] (fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
        let call = || unsafe { syscall(libc::SYS_writev, fd, parts, c_long::from(count)) as ssize_t };
        write_through(fd, At::Position, 0, call)
    }

    /// pwritev(2)
    [pwritev, pwritev64] (fd: c_int, parts: *const iovec, count: c_int, offset: off_t) -> ssize_t {
        let (count, high_bits) = (c_long::from(count), 0 as c_long);
        let call = || unsafe { syscall(libc::SYS_pwritev, fd, parts, count, offset, high_bits) as ssize_t };
        write_through(fd, At::Offset(offset), 0, call)
    }

    /// pwritev2(2); offset -1 is the position.
    [pwritev2, pwritev64v2] (
        fd: c_int, parts: *const iovec, count: c_int, offset: off_t, flags: c_int
    ) -> ssize_t {
        let at = if offset == -1 { At::Position } else { At::Offset(offset) };
        let (count, high_bits) = (c_long::from(count), 0 as c_long);
        let call = || unsafe {
            syscall(libc::SYS_pwritev2, fd, parts, count, offset, high_bits, flags) as ssize_t
        };
        write_through(fd, at, flags, call)
    }

    /// sendfile(2), into a file
    [sendfile, sendfile64] (to: c_int, from: c_int, offset: *mut off_t, len: size_t) -> ssize_t {
        let call = || unsafe { syscall(libc::SYS_sendfile, to, from, offset, len) as ssize_t };
        write_through(to, At::Position, 0, call)
    }

    /// copy_file_range(2)
    [copy_file_range] (
        from: c_int, from_offset: *mut loff_t, to: c_int, to_offset: *mut loff_t, len: size_t, flags: c_uint
    ) -> ssize_t {
        let at = unsafe { to_offset.as_ref() }.map_or(At::Position, |offset| At::Offset(*offset));
        write_through(to, at, 0, || unsafe {
            syscall(libc::SYS_copy_file_range, from, from_offset, to, to_offset, len, flags) as ssize_t
        })
    }

    /// splice(2), from a pipe into a file
    [splice] (
        from: c_int, from_offset: *mut loff_t, to: c_int, to_offset: *mut loff_t, len: size_t, flags: c_uint
    ) -> ssize_t {
        let at = unsafe { to_offset.as_ref() }.map_or(At::Position, |offset| At::Offset(*offset));
        write_through(to, at, 0, || unsafe {
            syscall(libc::SYS_splice, from, from_offset, to, to_offset, len, flags) as ssize_t
        })
    }

    /// ftruncate(2): what is cut off, and grown again later, is zeros.
    [ftruncate, ftruncate64] (fd: c_int, len: off_t) -> c_int {
        on_success(unsafe { syscall(libc::SYS_ftruncate, fd, len) }, |process| note_from(process, fd, len))
    }

    /// truncate(2)
    [truncate, truncate64] (path: *const c_char, len: off_t) -> c_int {
        on_success(unsafe { syscall(libc::SYS_truncate, path, len) }, |process| {
            let fd = unsafe { libc::open(path, libc::O_PATH | libc::O_CLOEXEC) };
            note_from(process, fd, len);
            unsafe { libc::close(fd) };
        })
    }

    /// fallocate(2): may punch holes and move ranges.
    [fallocate, fallocate64] (fd: c_int, mode: c_int, offset: off_t, len: off_t) -> c_int {
        let result = unsafe { syscall(libc::SYS_fallocate, fd, mode, offset, len) };
        on_success(result, |process| note_from(process, fd, offset))
    }

    /// open(2): may cut the file short.
    [open, open64] (path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
        unsafe { openat(libc::AT_FDCWD, path, flags, mode) }
    }

    /// openat(2)
    [openat, openat64] (folder: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
        let fd = unsafe { syscall(libc::SYS_openat, folder, path, flags, mode) };
        opened(fd, flags)
    }

    /// creat(2)
    [creat, creat64] (path: *const c_char, mode: mode_t) -> c_int {
        unsafe { openat(libc::AT_FDCWD, path, libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC, mode) }
    }

    /// mmap(2): may make the file writable without a call.
    [mmap, mmap64] (
        at: *mut c_void, len: size_t, protection: c_int, flags: c_int, fd: c_int, offset: off_t
    ) -> *mut c_void {
        let (bits, kind) = (c_long::from(protection), c_long::from(flags));
        let address =
            unsafe { syscall(libc::SYS_mmap, at, len, bits, kind, c_long::from(fd), offset) } as *mut c_void;
        let is_shared = matches!(flags & libc::MAP_TYPE, libc::MAP_SHARED | libc::MAP_SHARED_VALIDATE);
        if address != libc::MAP_FAILED && fd >= 0 && is_shared && protection & libc::PROT_WRITE != 0 {
            with_process(|process| {
                if regular(process, fd).is_some() {
                    process.mapped(fd, address as usize..address as usize + len);
                }
            });
        }
        address
    }

    /// munmap(2)
    [munmap] (address: *mut c_void, len: size_t) -> c_int {
        with_process(|process| process.unmapped(&(address as usize..address as usize + len)));
        if unsafe { syscall(libc::SYS_munmap, address, len) } == 0 { 0 } else { -1 }
    }

    /// msync(2)
    [msync] (address: *mut c_void, len: size_t, flags: c_int) -> c_int {
        on_success(unsafe { syscall(libc::SYS_msync, address, len, flags) }, |process| {
            if flags & libc::MS_SYNC != 0
                && let Err(error) = process.memory_synced(&(address as usize..address as usize + len))
            {
                give_up(&error);
            }
        })
    }

    /// fsync(2)
    [fsync] (fd: c_int) -> c_int {
        on_success(unsafe { syscall(libc::SYS_fsync, fd) }, |process| synced(process, fd))
    }

    /// fdatasync(2)
    [fdatasync] (fd: c_int) -> c_int {
        on_success(unsafe { syscall(libc::SYS_fdatasync, fd) }, |process| synced(process, fd))
    }
}

fn opened(fd: c_long, flags: c_int) -> c_int {
    // A descriptor fits in an int.
    let fd = c_int::try_from(fd).unwrap_or(-1);
    if fd >= 0 && flags & libc::O_TRUNC != 0 {
        with_process(|process| {
            if regular(process, fd).is_some() {
                process.rewritten(fd);
            }
        });
    }
    fd
}
