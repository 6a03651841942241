//! The library that is loaded in front of libc: see the crate `sealpost-power` for the model and its limits.
//!
//! `hooks` are libc's functions; they make the system call, and tell `process` what was written or
//! synced. Nothing else is intercepted: files are told apart by inode at each call, so that no table of
//! descriptors can go stale.

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("the system calls are written for 64-bit Linux");

mod hooks;
mod process;
