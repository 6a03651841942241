//! A clock that never goes back, so that what has expired stays expired.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sealpost_wire::clock::{Clock, UnixTime};

/// The system's clock, held at the latest time that this device has ever seen.
pub(crate) struct SteadyClock {
    clock: Arc<dyn Clock>,
    latest: AtomicU64,
}

impl SteadyClock {
    pub(crate) fn new(clock: Arc<dyn Clock>, latest: UnixTime) -> Self {
        Self { clock, latest: AtomicU64::new(latest.0) }
    }

    /// The time for deciding what has expired.
    pub(crate) fn now(&self) -> UnixTime {
        let reading = self.clock.now().0;
        UnixTime(self.latest.fetch_max(reading, Ordering::Relaxed).max(reading))
    }

    /// The system's own reading, for signing requests.
    pub(crate) fn reading(&self) -> UnixTime {
        self.clock.now()
    }
}
