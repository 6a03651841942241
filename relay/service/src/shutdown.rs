//! How a server ends: it says that it drains, lets running work finish for a bounded time, and stops.
//!
//! ```text
//! running --(SIGTERM, SIGINT, begin)--> draining --(second signal, hurry)--> hurried
//! ```

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, watch},
};

/// Tells every part of a server that it is to end, and counts the work that is still running. Clones share
/// it.
#[derive(Clone)]
pub struct Shutdown {
    stage: watch::Sender<Stage>,
    work: Arc<Work>,
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nobody has asked for an end.
    Running,
    /// No new work is taken; `/readyz` says so, so that load balancers look elsewhere.
    Draining,
    /// Running work is not waited for any more.
    Hurried,
}

/// A piece of work that a drain waits for; over when this is dropped.
pub struct WorkGuard {
    work: Arc<Work>,
}

/// A drain that ended before the work did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{unfinished} pieces of work were cut off")]
pub struct Unfinished {
    /// Pieces of work that were still running.
    pub unfinished: usize,
}

impl Shutdown {
    /// A shutdown that only [`Shutdown::begin`] starts.
    #[must_use]
    pub fn new() -> Self {
        Self { stage: watch::Sender::new(Stage::Running), work: Arc::default() }
    }

    /// A shutdown that SIGTERM or SIGINT starts, and a second of them hurries. Called within a runtime.
    ///
    /// # Errors
    /// The signals cannot be listened to.
    pub fn on_signals() -> io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = Self::new();
        let signalled = shutdown.clone();
        tokio::spawn(async move {
            let first = either(&mut terminate, &mut interrupt).await;
            tracing::info!(signal = first, "draining");
            signalled.begin();
            let second = either(&mut terminate, &mut interrupt).await;
            tracing::warn!(signal = second, "not waiting any longer");
            signalled.hurry();
        });
        Ok(shutdown)
    }

    /// Begins to drain; at most once, later calls change nothing.
    pub fn begin(&self) {
        self.raise(Stage::Draining);
    }

    /// Ends a drain without waiting for what still runs.
    pub fn hurry(&self) {
        self.raise(Stage::Hurried);
    }

    /// How far the end has come.
    #[must_use]
    pub fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Whether the server is to be taken out of rotation: what `/readyz` answers.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.stage() >= Stage::Draining
    }

    /// Comes when draining begins; at once when it has begun.
    pub async fn begun(&self) {
        self.reached(Stage::Draining).await;
    }

    /// Comes when the drain is hurried; at once when it was.
    pub async fn hurried(&self) {
        self.reached(Stage::Hurried).await;
    }

    /// Makes a drain wait for the work that holds the guard.
    #[must_use]
    pub fn work(&self) -> WorkGuard {
        self.work.running.fetch_add(1, Ordering::Relaxed);
        WorkGuard { work: self.work.clone() }
    }

    /// Pieces of work that run now.
    #[must_use]
    pub fn working(&self) -> usize {
        self.work.running.load(Ordering::Acquire)
    }

    /// Begins to drain, if that has not begun, and waits for the running work: until it is done, for at most
    /// `deadline`, or until it is hurried.
    ///
    /// # Errors
    /// [`Unfinished`] when work was still running.
    pub async fn drain(&self, deadline: Duration) -> Result<(), Unfinished> {
        self.begin();
        tokio::select! {
            biased;
            () = self.work.done() => {}
            () = self.reached(Stage::Hurried) => {}
            () = tokio::time::sleep(deadline) => {}
        }
        match self.working() {
            0 => Ok(()),
            unfinished => Err(Unfinished { unfinished }),
        }
    }

    fn raise(&self, to: Stage) {
        self.stage.send_if_modified(|stage| {
            let raised = *stage < to;
            *stage = to.max(*stage);
            raised
        });
    }

    async fn reached(&self, least: Stage) {
        // Never fails: this very value holds the sender.
        let _ = self.stage.subscribe().wait_for(|stage| *stage >= least).await;
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown").field("stage", &self.stage()).field("working", &self.working()).finish()
    }
}

impl Drop for WorkGuard {
    fn drop(&mut self) {
        // Release: whoever sees none running also sees what the work has done.
        if self.work.running.fetch_sub(1, Ordering::Release) == 1 {
            self.work.idle.notify_waiters();
        }
    }
}

#[derive(Default)]
struct Work {
    running: AtomicUsize,
    idle: Notify,
}

impl Work {
    async fn done(&self) {
        loop {
            // Registered before the count is read, so that the last guard cannot go unnoticed between the
            // two.
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if self.running.load(Ordering::Acquire) == 0 {
                return;
            }
            idle.await;
        }
    }
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn a_drain_waits_for_the_work_and_no_longer() {
        let shutdown = Shutdown::new();
        let work = shutdown.work();
        let draining = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.drain(NEVER).await }
        });
        shutdown.begun().await;
        assert!(shutdown.is_draining());
        assert!(!draining.is_finished());
        drop(work);
        assert_eq!(draining.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn a_drain_ends_at_its_deadline() {
        let shutdown = Shutdown::new();
        let _work = (shutdown.work(), shutdown.work());
        assert_eq!(shutdown.drain(Duration::from_millis(1)).await, Err(Unfinished { unfinished: 2 }));
    }

    #[tokio::test]
    async fn a_drain_ends_when_it_is_hurried() {
        let shutdown = Shutdown::new();
        let _work = shutdown.work();
        let draining = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.drain(NEVER).await }
        });
        shutdown.begun().await;
        shutdown.hurry();
        assert_eq!(draining.await.unwrap(), Err(Unfinished { unfinished: 1 }));
        shutdown.begin();
        assert_eq!(shutdown.stage(), Stage::Hurried);
    }

    #[tokio::test]
    async fn a_signal_begins_and_a_second_one_hurries() {
        let shutdown = Shutdown::on_signals().unwrap();
        assert!(!shutdown.is_draining());
        let own = rustix::process::getpid();
        rustix::process::kill_process(own, rustix::process::Signal::TERM).unwrap();
        shutdown.begun().await;
        assert_eq!(shutdown.stage(), Stage::Draining);
        rustix::process::kill_process(own, rustix::process::Signal::TERM).unwrap();
        shutdown.reached(Stage::Hurried).await;
    }
}
