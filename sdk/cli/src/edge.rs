//! Where the program meets the world: the system's clock and randomness, and waiting.

use std::fmt::Display;
use std::fs::File;
use std::io::{IsTerminal as _, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use getrandom::SysRng;
use rand_core::{CryptoRng, UnwrapErr};
use sealpost_sender::{SenderParts, ServerRoots};
use sealpost_wire::clock::Clock;

use crate::error::CliError;

/// The system's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now_millis(&self) -> u64 {
        // The one reading of the system's time in this program.
        #[allow(clippy::disallowed_methods)]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The system's randomness.
pub(crate) fn rng() -> Box<dyn CryptoRng + Send> {
    Box::new(UnwrapErr(SysRng))
}

/// What senders and enrollers are built on.
pub(crate) fn sender_parts(ca_file: Option<&Path>) -> Result<SenderParts, CliError> {
    let roots = match ca_file {
        Some(path) => ServerRoots::from_pem(&roots_pem(path)?).map_err(|error| no_roots(path, error))?,
        None => ServerRoots::public(),
    };
    Ok(SenderParts { clock: Arc::new(SystemClock), rng: Arc::new(rng), roots })
}

/// The bytes of a file of root certificates.
pub(crate) fn roots_pem(path: &Path) -> Result<Vec<u8>, CliError> {
    read(path, ROOTS_BYTES_MAX)
}

/// A file that holds no root certificates.
pub(crate) fn no_roots(path: &Path, error: impl Display) -> CliError {
    CliError::state("malformed_ca_file", format!("{}: {error}", path.display()))
}

/// Bytes of a file of root certificates; all public ones together have about 200 KiB.
const ROOTS_BYTES_MAX: usize = 1024 * 1024;

/// Waits until `done` says so, at most `wait`. It is asked at once, and after each time that `step` returns.
pub(crate) fn until<E>(
    wait: Duration,
    mut done: impl FnMut() -> Result<bool, E>,
    mut step: impl FnMut(Duration) -> Result<(), E>,
) -> Result<bool, E> {
    let start = std::time::Instant::now();
    loop {
        if done()? {
            return Ok(true);
        }
        let left = wait.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(false);
        }
        step(left)?;
    }
}

/// Whether somebody is there to be asked.
pub(crate) fn has_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks a yes-or-no question on the terminal. No answer is no.
pub(crate) fn ask(question: &str) -> bool {
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// Reads a file, or standard input for `-`, as far as `bytes_max` and one byte more.
pub(crate) fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, CliError> {
    let limit = bytes_max as u64 + 1;
    let mut bytes = Vec::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().take(limit).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    read.map_err(|error| CliError::file(path, error))?;
    Ok(bytes)
}
