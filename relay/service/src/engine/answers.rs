//! How answers reach their callers: a group at a time.

use tokio::{runtime::Handle, sync::mpsc};

use super::command::Job;

/// Durable groups on their way to their callers. More than a few only wait when the runtime is starved; then
/// the writer answers by itself.
const GROUPS_MAX: usize = 64;

/// Answers durable groups, from within the async runtime where there is one.
///
/// Each answer wakes a task. From a foreign thread every such wake may be a system call, and on one core the
/// woken worker runs at once, finds a single task, sleeps, and is woken again for the next answer. Handing
/// over a group is one wake, and within the runtime the others cost none.
pub(super) struct Answers {
    runtime: Option<mpsc::Sender<Group>>,
}

/// Run, durable, not yet answered.
struct Group(Vec<Box<dyn Job>>);

impl Answers {
    /// Answers through the runtime that this is called in, if it is called in one.
    pub(super) fn new() -> Self {
        let runtime = Handle::try_current().ok().map(|runtime| {
            let (sender, mut groups) = mpsc::channel::<Group>(GROUPS_MAX);
            runtime.spawn(async move { while groups.recv().await.is_some() {} });
            sender
        });
        Self { runtime }
    }

    pub(super) fn send(&self, jobs: Vec<Box<dyn Job>>) {
        if let Some(runtime) = &self.runtime {
            // What cannot be handed over is dropped here, which answers it here.
            let _ = runtime.try_send(Group(jobs));
        } else {
            drop(Group(jobs));
        }
    }
}

impl Drop for Group {
    /// Answers wherever the group ends: in the runtime, or with a runtime that is shut down while it holds
    /// it.
    fn drop(&mut self) {
        for job in self.0.drain(..) {
            job.answer(Ok(()));
        }
    }
}
