//! What is in a store when it is opened: where jobs are due, and how many deliveries wait.

use std::sync::Arc;

use sealpost_service::engine::{EngineError, Snapshot};
use sealpost_wire::delivery::DeliveryState;
use sealpost_wire::payload::Priority;

use super::AppId;
use super::codec::Decoder;
use super::key::{self, DELIVERIES, Home, JOBS};
use super::signals::Shared;

/// Rows after which the workers may look, and an end is noticed.
const ROWS_PER_LOOK: usize = 4096;

/// A look over the whole store, as it was when it was opened.
pub struct Survey {
    snapshot: Snapshot,
    shared: Arc<Shared>,
    apps: Vec<(Home, AppId)>,
}

impl Survey {
    pub(super) const fn new(snapshot: Snapshot, shared: Arc<Shared>, apps: Vec<(Home, AppId)>) -> Self {
        Self { snapshot, shared, apps }
    }

    /// Finds all jobs and counts what waits, or ends early when `stop` says so. Blocks: the most overdue jobs
    /// of each lane are pushed meanwhile.
    ///
    /// # Errors
    /// [`EngineError::Read`]: jobs behind the damage would not be found, so a server must not go on.
    pub fn run(self, stop: impl Fn() -> bool) -> Result<(), EngineError> {
        for (home, app) in &self.apps {
            for priority in Priority::ALL {
                self.jobs(*home, *app, priority, &stop)?;
            }
        }
        let mut counts = [0_i64; DeliveryState::ALL.len()];
        for (position, row) in self.snapshot.range(DELIVERIES, ..).enumerate() {
            if position % ROWS_PER_LOOK == 0 && stop() {
                return Ok(());
            }
            let (_, value) = row?;
            let state = Decoder::new(&value).and_then(|mut row| row.state());
            if let Some(count) = state.and_then(|state| counts.get_mut(usize::from(state.code()))) {
                *count += 1;
            }
        }
        for (state, count) in DeliveryState::ALL.into_iter().zip(counts) {
            self.shared.metrics.found(state, count);
        }
        Ok(())
    }

    fn jobs(
        &self,
        home: Home,
        app: AppId,
        priority: Priority,
        stop: &impl Fn() -> bool,
    ) -> Result<(), EngineError> {
        let Some(lane) = self.shared.lane(app, priority) else { return Ok(()) };
        for (count, row) in self.snapshot.prefix(JOBS, key::jobs(home, app, priority)).enumerate() {
            let (key, _) = row?;
            if let Some(due) = key::due(&key) {
                lane.hint(due);
            }
            if count % ROWS_PER_LOOK == 0 {
                lane.wake();
                if stop() {
                    return Ok(());
                }
            }
        }
        lane.wake();
        Ok(())
    }
}
