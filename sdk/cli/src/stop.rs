//! SIGTERM and SIGINT, for the command that runs until it is stopped. A service manager's first process gets no default
//! action for them (in a container), and a clean end has exit code 0.

use std::io;
use std::mem::MaybeUninit;

/// Blocks the two signals for this thread and those that it starts, and runs `stop` once one of them has come. To be
/// called before there are other threads.
pub(crate) fn on_signal(stop: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let signals = block()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        wait_for(&signals);
        stop();
    })?;
    Ok(())
}

#[allow(unsafe_code, reason = "the standard library has no signals")]
fn block() -> io::Result<libc::sigset_t> {
    let mut signals = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initializes the set before anything reads it; the pointers are to live memory of this frame,
    // and the old mask is not asked for.
    let (signals, failed) = unsafe {
        libc::sigemptyset(signals.as_mut_ptr());
        let mut signals = signals.assume_init();
        libc::sigaddset(&raw mut signals, libc::SIGTERM);
        libc::sigaddset(&raw mut signals, libc::SIGINT);
        (signals, libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut()))
    };
    if failed == 0 { Ok(signals) } else { Err(io::Error::from_raw_os_error(failed)) }
}

#[allow(unsafe_code, reason = "the standard library has no signals")]
fn wait_for(signals: &libc::sigset_t) {
    let mut signal = 0;
    // SAFETY: both pointers are to live memory. It can fail only for a set that holds no signal.
    while unsafe { libc::sigwait(signals, &raw mut signal) } != 0 {}
}
