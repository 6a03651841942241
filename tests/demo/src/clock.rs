//! Time and randomness of this program: the edge where they are read.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use getrandom::SysRng;
use rand_core::{CryptoRng, UnwrapErr};
use sealpost_wire::clock::Clock;

/// The system's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place where this program reads the time of day")]
    fn now_millis(&self) -> u64 {
        // A clock before 1970 is no clock; 0 is as good as any other reading of it.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The clock as the libraries take it.
pub(crate) fn system_clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

/// The system's randomness. Without it nothing here can go on, so that a failure of it ends the program.
pub(crate) fn system_rng() -> Box<dyn CryptoRng + Send> {
    Box::new(UnwrapErr(SysRng))
}
