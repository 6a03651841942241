//! Where the program meets the world: the system's clock and randomness, and waiting.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use getrandom::SysRng;
use rand_core::{CryptoRng, UnwrapErr};
use sealpost_sender::SenderParts;
use sealpost_wire::clock::Clock;

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
pub(crate) fn sender_parts() -> SenderParts {
    SenderParts { clock: Arc::new(SystemClock), rng: Arc::new(rng) }
}

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

/// Asks a yes-or-no question on the terminal; nothing without one.
pub(crate) fn ask(question: &str) -> Option<bool> {
    if !std::io::stdin().is_terminal() {
        return None;
    }
    print!("{question} [y/N] ");
    std::io::stdout().flush().ok()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).ok()?;
    Some(matches!(answer.trim(), "y" | "Y" | "yes"))
}
