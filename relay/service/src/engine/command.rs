//! A command on its way through the writer, and the reply that its caller waits for.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::oneshot;

use super::{EngineError, View};

/// What a command does to the disk: decides whether it may run when space is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// It stores something new: refused with [`EngineError::NoSpace`] below the reserve.
    Takes,
    /// It deletes, expires or settles: always allowed, because it is what makes room.
    Frees,
}

/// The answer to come, of one command: `Ok(Ok(T))` decided and durable, `Ok(Err(E))` refused by the command
/// itself and taken back, `Err` not run or not known to be durable.
///
/// Dropping it does not call the command back.
#[derive(Debug)]
#[must_use = "a command may be refused or fail"]
pub struct Reply<T, E> {
    state: ReplyState<T, E>,
}

#[derive(Debug)]
enum ReplyState<T, E> {
    Waiting(oneshot::Receiver<Outcome<T, E>>),
    Refused(Option<EngineError>),
}

type Outcome<T, E> = Result<Result<T, E>, EngineError>;

impl<T, E> Reply<T, E> {
    pub(super) const fn refused(error: EngineError) -> Self {
        Self { state: ReplyState::Refused(Some(error)) }
    }

    /// Waits on a thread that runs no async code.
    ///
    /// # Errors
    /// As awaiting it would.
    ///
    /// # Panics
    /// Inside an async runtime.
    pub fn wait(self) -> Outcome<T, E> {
        match self.state {
            ReplyState::Waiting(receiver) => receiver.blocking_recv().unwrap_or(Err(EngineError::Stopped)),
            ReplyState::Refused(error) => Err(error.unwrap_or(EngineError::Stopped)),
        }
    }
}

// The parts are not structurally pinned: the receiver is `Unpin`, and so is an error.
impl<T, E> Unpin for Reply<T, E> {}

impl<T, E> Future for Reply<T, E> {
    type Output = Outcome<T, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.state {
            // A job that is dropped unanswered was never run: the writer has ended.
            ReplyState::Waiting(receiver) => {
                Pin::new(receiver).poll(context).map(|answer| answer.unwrap_or(Err(EngineError::Stopped)))
            }
            ReplyState::Refused(error) => Poll::Ready(Err(error.take().unwrap_or(EngineError::Stopped))),
        }
    }
}

/// A command as the writer sees it: run once, then answered once.
pub(super) trait Job: Send {
    fn name(&self) -> &'static str;

    fn space(&self) -> Space;

    /// Runs the command and keeps its result; whatever it wrote is taken back unless it is
    /// [`Decision::Done`].
    fn run(&mut self, view: &mut View) -> Decision;

    /// Answers: with the kept result if the group is durable, else with the reason why not.
    fn answer(self: Box<Self>, group: Result<(), EngineError>);
}

/// What became of a command; the label of its metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Done,
    Declined,
    Failed,
}

impl Decision {
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Declined => "declined",
            Self::Failed => "failed",
        }
    }
}

pub(super) struct Command<T, E, F> {
    name: &'static str,
    space: Space,
    decide: Option<F>,
    outcome: Option<Outcome<T, E>>,
    reply: oneshot::Sender<Outcome<T, E>>,
}

impl<T, E, F> Command<T, E, F> {
    pub(super) fn new(name: &'static str, space: Space, decide: F) -> (Self, Reply<T, E>) {
        let (reply, receiver) = oneshot::channel();
        let command = Self { name, space, decide: Some(decide), outcome: None, reply };
        (command, Reply { state: ReplyState::Waiting(receiver) })
    }
}

impl<T, E, F> Job for Command<T, E, F>
where
    F: FnOnce(&mut View) -> Result<T, E> + Send,
    T: Send,
    E: Send,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn space(&self) -> Space {
        self.space
    }

    fn run(&mut self, view: &mut View) -> Decision {
        let Some(decide) = self.decide.take() else { return Decision::Failed };
        view.begin();
        // Unwind safe: of what the closure can leave half done, the view is taken back below, and the rest is
        // dropped.
        let decided = catch_unwind(AssertUnwindSafe(|| decide(view)));
        let (outcome, decision) = match (view.take_read_error(), decided) {
            // A command that could not read has decided on nothing, whatever it says.
            (Some(error), _) => (Err(EngineError::read(error)), Decision::Failed),
            (None, Err(_)) => (Err(EngineError::Panicked(self.name)), Decision::Failed),
            (None, Ok(Err(error))) => (Ok(Err(error)), Decision::Declined),
            (None, Ok(Ok(value))) => (Ok(Ok(value)), Decision::Done),
        };
        if decision != Decision::Done {
            view.take_back();
        }
        self.outcome = Some(outcome);
        decision
    }

    fn answer(self: Box<Self>, group: Result<(), EngineError>) {
        let outcome = match (group, self.outcome) {
            (Ok(()), Some(outcome)) => outcome,
            (Ok(()), None) => Err(EngineError::Stopped),
            (Err(error), _) => Err(error),
        };
        // Nobody waits any more: a client that has gone away.
        let _ = self.reply.send(outcome);
    }
}
