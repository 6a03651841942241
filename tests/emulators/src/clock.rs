//! The time the emulators go by: a clock that is passed in, plus an offset that the control port can move.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Wall time, in milliseconds since the Unix epoch.
pub trait Clock: Send + Sync {
    /// The present moment.
    fn now_ms(&self) -> u64;
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        #[expect(clippy::disallowed_methods, reason = "this is the edge: everything else is given a Clock")]
        let now = std::time::SystemTime::now();
        let since_epoch = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
    }
}

/// A clock with an offset, so that a test can make a token an hour old without waiting an hour.
pub(crate) struct ShiftedClock {
    inner: Arc<dyn Clock>,
    shift_ms: AtomicI64,
}

impl ShiftedClock {
    pub(crate) fn new(inner: Arc<dyn Clock>) -> Self {
        Self { inner, shift_ms: AtomicI64::new(0) }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.inner.now_ms().saturating_add_signed(self.shift_ms.load(Ordering::Relaxed))
    }

    pub(crate) fn set_shift_ms(&self, shift_ms: i64) {
        self.shift_ms.store(shift_ms, Ordering::Relaxed);
    }
}
