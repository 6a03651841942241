//! The writer thread: takes what waits, decides it, commits it as one batch, answers it.

use std::{
    collections::{HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use prometheus::IntCounter;

use super::{
    CommitStage, EngineError, OpenError, Options, Space, View,
    answers::Answers,
    command::{Decision, Job},
    keyspace::Content,
    metrics::EngineMetrics,
    queue::{CommandQueue, Linger},
    store::Store,
};
use crate::free_space::FreeSpace;

/// What fjall counts for a row in a memtable besides its key and value.
const MEMTABLE_ROW_BYTES: u64 = 64;

/// From this part of the bound on, the memtable of a bulk keyspace is written out before fuller ones.
const BULK_FIRST: u64 = 4;

/// Commands in the last group from which on the writer lingers: it is under load, and a commit costs the processor
/// as much as several commands.
const LINGER_FROM: usize = 6;
/// Commands that are enough for a group.
const LINGER_ENOUGH: usize = 32;
/// The longest time from one commit to the next group, where commands wait.
const LINGER_AT_MOST: Duration = Duration::from_millis(2);

pub(super) struct Writer {
    options: Options,
    store: Arc<Store>,
    queue: Arc<CommandQueue>,
    metrics: Arc<EngineMetrics>,
    free_space: FreeSpace,
    answers: Answers,
    view: View,
    /// Taken from the queue, not yet run.
    taken: VecDeque<Box<dyn Job>>,
    /// Run, and waiting for the commit.
    decided: Vec<Box<dyn Job>>,
    /// Bytes in each active memtable, by slot, about as fjall counts them.
    memtable_bytes: Vec<u64>,
    /// When the last group was durable, and how many commands it had.
    last_group: Option<(Instant, usize)>,
    /// Label look-ups of names that were seen.
    counters: HashMap<(&'static str, &'static str), IntCounter>,
}

impl Writer {
    pub(super) fn new(
        options: Options,
        store: Arc<Store>,
        queue: Arc<CommandQueue>,
        metrics: Arc<EngineMetrics>,
    ) -> Result<Self, OpenError> {
        let free_space =
            FreeSpace::new(&options.path, options.reserve_free_bytes, options.free_space_interval)
                .map_err(|source| OpenError::Io { what: "reading the free space", source })?;
        Ok(Self {
            answers: Answers::new(),
            view: View::new(store.clone()),
            taken: VecDeque::new(),
            decided: Vec::new(),
            // What a recovery has put there is not counted: it was within the same bound before.
            memtable_bytes: vec![0; store.slot_count()],
            last_group: None,
            counters: HashMap::new(),
            options,
            store,
            queue,
            metrics,
            free_space,
        })
    }

    pub(super) fn run(mut self) {
        // Commands catch their own panics, so one that arrives here is the engine's, or fjall's: state
        // unknown.
        let ended = catch_unwind(AssertUnwindSafe(|| self.serve()));
        let error = match ended {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => EngineError::failed(fjall::Error::Poisoned),
        };
        self.fail(&error);
    }

    fn serve(&mut self) -> Result<(), EngineError> {
        loop {
            let linger = self.linger();
            if !self.queue.take(&mut self.taken, self.options.group_max_commands, linger) {
                break;
            }
            self.metrics.queue_commands.set(i64::try_from(self.queue.len()).unwrap_or(i64::MAX));
            self.decide_group();
            self.commit_group()?;
            for act in self.view.take_after_commit() {
                act();
            }
            self.last_group = Some((Instant::now(), self.decided.len()));
            self.answers.send(std::mem::take(&mut self.decided));
            self.bound_memtables()?;
        }
        self.store.sync_all().map_err(EngineError::failed)
    }

    /// For how many commands to wait under load, and how long: fewer and larger groups leave more of the processor to
    /// those who are to make the next commands.
    fn linger(&self) -> Option<Linger> {
        let (durable, commands) = self.last_group.filter(|(_, commands)| *commands >= LINGER_FROM)?;
        let at_most = LINGER_AT_MOST.saturating_sub(durable.elapsed());
        (!at_most.is_zero()).then_some(Linger { enough: (2 * commands).min(LINGER_ENOUGH), at_most })
    }

    /// Runs commands until the group is full or none is left.
    fn decide_group(&mut self) {
        let has_space = self.free_space.is_enough();
        self.metrics.free_bytes.set(i64::try_from(self.free_space.bytes()).unwrap_or(i64::MAX));
        while self.decided.len() < self.options.group_max_commands
            && self.view.bytes() < self.options.group_max_bytes
            && let Some(mut job) = self.taken.pop_front()
        {
            if job.space() == Space::Takes && !has_space {
                self.metrics.refused(&EngineError::NoSpace);
                job.answer(Err(EngineError::NoSpace));
                continue;
            }
            let decision = job.run(&mut self.view);
            self.count(job.name(), decision);
            self.decided.push(job);
        }
    }

    /// Makes the group durable, and then visible. A group that wrote nothing costs no sync: what it read is
    /// durable.
    fn commit_group(&mut self) -> Result<(), EngineError> {
        if !self.decided.is_empty() {
            self.metrics.group_commands.observe(count_as_f64(self.decided.len()));
        }
        let bytes = self.view.bytes();
        let mut batch = self.store.batch(self.decided.len());
        for (slot, rows) in self.view.take_group() {
            let tree = self.store.tree_of_slot(slot);
            for (key, value) in rows {
                let value_len = value.as_ref().map_or(0, |value| value.len());
                self.memtable_bytes[slot] += (key.len() + value_len) as u64 + MEMTABLE_ROW_BYTES;
                match value {
                    Some(value) => batch.insert(tree, key, value),
                    None => batch.remove(tree, key),
                }
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.free_space.written(bytes);
        self.metrics.group_bytes.observe(count_as_f64(bytes));
        let began = Instant::now();
        self.hook(CommitStage::Before)?;
        batch.commit().map_err(EngineError::failed)?;
        self.metrics.commit_seconds.observe(began.elapsed().as_secs_f64());
        self.hook(CommitStage::After)
    }

    /// Keeps the sum of the memtables within bounds: one is written out. A bulk keyspace goes first: what it has written
    /// out is merged by its keys only, while the tables of the others cost less to merge the larger they are.
    fn bound_memtables(&mut self) -> Result<(), EngineError> {
        if self.memtable_bytes.iter().sum::<u64>() < self.options.memtable_bytes {
            return Ok(());
        }
        let bulk_first = self.options.memtable_bytes / BULK_FIRST;
        let next = self.memtable_bytes.iter().enumerate().max_by_key(|(slot, bytes)| {
            (self.store.content_of_slot(*slot) == Content::Bulk && **bytes >= bulk_first, **bytes)
        });
        if let Some((slot, _)) = next {
            self.memtable_bytes[slot] = 0;
            self.store.rotate_memtable(slot).map_err(EngineError::failed)?;
        }
        Ok(())
    }

    /// The end: answers everybody who waits, and tells the embedding, or ends the process.
    fn fail(&mut self, error: &EngineError) {
        tracing::error!(%error, path = %self.store.path().display(), "the store failed");
        if self.options.on_fatal.is_none() {
            // No answer may leave the process: whether the last group is on disk is for the recovery to find
            // out.
            std::process::abort();
        }
        self.queue.close(error.clone());
        for job in self.decided.drain(..).chain(self.taken.drain(..)) {
            job.answer(Err(error.clone()));
        }
        let mut waiting = VecDeque::new();
        while self.queue.take(&mut waiting, usize::MAX, None) {
            for job in waiting.drain(..) {
                job.answer(Err(error.clone()));
            }
        }
        if let Some(on_fatal) = &self.options.on_fatal {
            on_fatal(error);
        }
    }

    fn hook(&self, stage: CommitStage) -> Result<(), EngineError> {
        match &self.options.commit_hook {
            None => Ok(()),
            Some(hook) => hook(stage).map_err(|error| EngineError::failed(fjall::Error::Io(error))),
        }
    }

    fn count(&mut self, command: &'static str, decision: Decision) {
        let outcome = decision.label();
        self.counters
            .entry((command, outcome))
            .or_insert_with(|| self.metrics.commands.with_label_values(&[command, outcome]))
            .inc();
    }
}

/// Counts and sizes of one group, far below 2^52.
#[expect(clippy::cast_precision_loss, reason = "a histogram takes floats")]
const fn count_as_f64(count: usize) -> f64 {
    count as f64
}
