//! A client's connections: kept while they work, replaced when they do not.
//!
//! A request leases one stream of one connection ([`Pool::lease`]). A connection is a *link* as long as it takes
//! new requests: a link that is going away, refuses a stream, or leaves several requests in a row without an answer
//! is removed at once, and what is still in flight on it ends by itself. Requests that find no free stream wait in
//! line; the line opens further connections, one at a time. Failed connects back off for all requests together.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::backoff;
use super::connection::{self, ConnectionConfig, ConnectionStats, INITIAL_STREAMS, STARVED_STREAMS};
use super::endpoint::{DialError, Dialer};
use super::outcome::Detail;

/// A client's connections to one endpoint.
pub(super) struct Pool {
    dialer: Dialer,
    config: ConnectionConfig,
    state: Mutex<State>,
}

/// Names a connection within its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkId(pub(super) u64);

/// One stream of a connection, for one request. Given back when dropped.
pub(super) struct Lease {
    /// `None`: the pool already counts the stream as free.
    pool: Option<Arc<Pool>>,
    pub(super) link: LinkId,
    pub(super) sender: SendRequest<Bytes>,
    pub(super) ending: Ending,
}

/// How a request on a lease ended, as far as the connection is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nothing was sent.
    Unused,
    /// Sent, and no answer came: the deadline passed, or the caller went away.
    Unanswered,
    /// The server answered.
    Answered,
    /// The connection takes no further requests.
    Broken,
}

/// Why there is no stream for a request.
#[derive(Clone, Debug)]
pub(super) enum Unavailable {
    /// Too many requests are waiting already.
    Busy,
    /// All streams stayed taken until the deadline.
    NoStream,
    /// No connection came about. The next attempt is not before `after`.
    NoConnection { after: Duration, detail: Detail },
}

impl Pool {
    pub(super) fn new(dialer: Dialer, config: ConnectionConfig) -> Arc<Self> {
        let state = State {
            links: Vec::new(),
            waiters: VecDeque::new(),
            is_connecting: false,
            failures: 0,
            retry_at: None,
            last_failure: Detail::new("no connection yet"),
            next_link: 0,
        };
        Arc::new(Self { dialer, config, state: Mutex::new(state) })
    }

    /// Waits for a free stream, at most until `deadline`.
    pub(super) async fn lease(self: &Arc<Self>, deadline: Instant) -> Result<Lease, Unavailable> {
        let granted = {
            let mut state = self.lock();
            if let Some(lease) = self.take_stream(&mut state) {
                return Ok(lease);
            }
            if let Some(unavailable) = state.pause(Instant::now()) {
                return Err(unavailable);
            }
            state.drop_leading_gone_waiters();
            if state.waiters.len() >= self.config.waiting_max {
                return Err(Unavailable::Busy);
            }
            let (waiter, granted) = oneshot::channel();
            state.waiters.push_back(waiter);
            self.grow(&mut state);
            granted
        };
        match timeout_at(deadline, granted).await {
            Ok(Ok(granted)) => granted,
            _ => Err(self.lock().why_none()),
        }
    }

    /// The connections' present state.
    pub(super) fn stats(&self) -> ConnectionStats {
        let state = self.lock();
        ConnectionStats {
            open: state.links.len(),
            in_flight: state.links.iter().map(|link| link.in_flight).sum(),
            waiting: state.waiters.iter().filter(|waiter| !waiter.is_closed()).count(),
        }
    }

    /// Takes no further requests to a connection: the server said that it is shutting down.
    pub(super) fn retire(self: &Arc<Self>, link: LinkId) {
        let mut state = self.lock();
        self.remove(&mut state, link);
        self.grow(&mut state);
    }

    /// A connection has ended.
    pub(super) fn close(self: &Arc<Self>, link: LinkId, why: &Detail) {
        let mut state = self.lock();
        state.last_failure = why.clone();
        self.remove(&mut state, link);
        self.grow(&mut state);
    }

    /// The server allows `streams` on a connection from now on.
    pub(super) fn limit(self: &Arc<Self>, link: LinkId, streams: usize) {
        let mut state = self.lock();
        if let Some(link) = state.link(link) {
            link.streams_max = streams.min(self.config.streams_per_connection_max);
            if link.streams_max > STARVED_STREAMS {
                link.starved_since = None;
            } else if link.starved_since.is_none() {
                link.starved_since = Some(Instant::now());
            }
        }
        self.serve(&mut state);
        self.grow(&mut state);
    }

    /// Looks whether the line needs another connection.
    pub(super) fn review(self: &Arc<Self>) {
        let mut state = self.lock();
        self.grow(&mut state);
    }

    fn release(self: &Arc<Self>, id: LinkId, ending: Ending) {
        let mut state = self.lock();
        let is_first_answer = ending == Ending::Answered
            // An answer may be read after its connection has ended: that one worked, too.
            && state.link(id).is_none_or(|link| !link.has_answered);
        if is_first_answer {
            state.failures = 0;
            state.retry_at = None;
        }
        if let Some(link) = state.link(id) {
            link.in_flight -= 1;
            match ending {
                Ending::Unused => {}
                Ending::Answered => {
                    link.unanswered = 0;
                    link.has_answered = true;
                }
                Ending::Unanswered => {
                    link.unanswered += 1;
                    if link.unanswered >= UNANSWERED_MAX {
                        self.remove(&mut state, id);
                    }
                }
                Ending::Broken => self.remove(&mut state, id),
            }
        }
        self.serve(&mut state);
        self.grow(&mut state);
    }

    /// Takes a stream of the least loaded connection that has one.
    fn take_stream(self: &Arc<Self>, state: &mut State) -> Option<Lease> {
        let free = state.links.iter_mut().filter(|link| link.in_flight < link.streams_max);
        let link = free.min_by_key(|link| link.in_flight)?;
        link.in_flight += 1;
        let (pool, sender) = (Some(Arc::clone(self)), link.sender.clone());
        Some(Lease { pool, link: link.id, sender, ending: Ending::Unused })
    }

    /// Hands free streams to the line.
    fn serve(self: &Arc<Self>, state: &mut State) {
        while !state.waiters.is_empty() {
            let Some(lease) = self.take_stream(state) else { return };
            let Some(waiter) = state.waiters.pop_front() else { return };
            if let Err(Ok(mut lease)) = waiter.send(Ok(lease)) {
                // The waiter is gone. The stream is given back here: dropping the lease would lock again.
                lease.pool = None;
                if let Some(link) = state.link(lease.link) {
                    link.in_flight -= 1;
                }
            }
        }
    }

    /// Opens another connection where the line needs one: there is none, or each has shown that it works (or had
    /// the time to) and is full all the same. A connection that the server starves does not count.
    fn grow(self: &Arc<Self>, state: &mut State) {
        if state.is_connecting || state.waiters.is_empty() {
            return;
        }
        // A lease may be dropped where no runtime is left to open anything.
        let Ok(runtime) = Handle::try_current() else { return };
        let now = Instant::now();
        let useful = state.links.iter().filter(|link| !link.is_starved(now, &self.config));
        let (mut count, mut are_settled) = (0, true);
        for link in useful {
            count += 1;
            let is_working = link.has_answered && link.streams_max > STARVED_STREAMS;
            are_settled &= is_working || now.duration_since(link.opened) >= SETTLE_TIME;
        }
        if count < self.config.connections_max && are_settled {
            state.is_connecting = true;
            let pool = Arc::downgrade(self);
            // The guard is made inside: a runtime that is shutting down drops the task unpolled, here, under the
            // lock that the guard would take.
            runtime.spawn(async move { Connecting(pool).run().await });
        }
    }

    /// Removes a connection from those that take requests. One that never answered counts as a failed connect.
    fn remove(&self, state: &mut State, id: LinkId) {
        let Some(position) = state.links.iter().position(|link| link.id == id) else { return };
        let link = state.links.swap_remove(position);
        if !link.has_answered {
            state.failures = state.failures.saturating_add(1);
            // The first time may be chance: what it cut off goes out again at once.
            state.retry_at = match state.failures {
                1 => None,
                failures => Some(Instant::now() + self.backoff(failures)),
            };
            self.fail_fast(state);
        }
    }

    fn dialed(
        self: &Arc<Self>,
        sender: SendRequest<Bytes>,
        connection: h2::client::Connection<super::endpoint::Transport>,
    ) {
        let mut state = self.lock();
        let now = Instant::now();
        // Starved connections go now, when there is another one.
        state.links.retain(|link| !link.is_starved(now, &self.config));
        let id = LinkId(state.next_link);
        state.next_link += 1;
        state.links.push(Link {
            id,
            sender,
            streams_max: INITIAL_STREAMS,
            in_flight: 0,
            opened: now,
            starved_since: Some(now),
            has_answered: false,
            unanswered: 0,
        });
        tracing::debug!(link = id.0, host = %self.dialer.endpoint.authority, "provider connection opened");
        tokio::spawn(connection::drive(connection, Arc::downgrade(self), id, self.config.clone()));
        self.serve(&mut state);
    }

    /// Whether another attempt is worth making.
    fn dial_failed(&self, error: &DialError) -> bool {
        let mut state = self.lock();
        state.failures = state.failures.saturating_add(1);
        state.retry_at = Some(Instant::now() + self.backoff(state.failures));
        state.last_failure = Detail::new(&error.to_string());
        tracing::warn!(
            host = %self.dialer.endpoint.authority,
            failures = state.failures,
            why = state.last_failure.as_str(),
            "no connection to the provider"
        );
        self.fail_fast(&mut state);
        state.waiters.retain(|waiter| !waiter.is_closed());
        !state.waiters.is_empty()
    }

    /// Sends the line home when there is no connection and several attempts have failed: the callers have better
    /// things to do than to wait here.
    fn fail_fast(&self, state: &mut State) {
        let Some(unavailable) = state.pause(Instant::now()) else { return };
        for waiter in state.waiters.drain(..) {
            // A waiter that is gone needs no answer.
            let _gone = waiter.send(Err(unavailable.clone()));
        }
    }

    fn backoff(&self, failures: u32) -> Duration {
        let first = Duration::from_millis(self.config.backoff_first_ms);
        let max = Duration::from_millis(self.config.backoff_max_ms);
        backoff::delay(first, max, failures, backoff::jitter())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock; if one did, the counts are still the best there are.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.release(self.link, self.ending);
        }
    }
}

struct State {
    links: Vec<Link>,
    waiters: VecDeque<oneshot::Sender<Result<Lease, Unavailable>>>,
    is_connecting: bool,
    /// Connects in a row that led to no answer.
    failures: u32,
    /// Not to connect before this.
    retry_at: Option<Instant>,
    last_failure: Detail,
    next_link: u64,
}

impl State {
    fn link(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.id == id)
    }

    /// The answer to requests while there is no connection and none to hope for.
    fn pause(&self, now: Instant) -> Option<Unavailable> {
        let after = self.retry_at?.checked_duration_since(now)?;
        let is_hopeless = self.links.is_empty() && self.failures >= FAIL_FAST_AFTER;
        is_hopeless.then(|| Unavailable::NoConnection { after, detail: self.last_failure.clone() })
    }

    fn why_none(&self) -> Unavailable {
        if self.links.is_empty() {
            let now = Instant::now();
            let after = self.retry_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
            Unavailable::NoConnection { after, detail: self.last_failure.clone() }
        } else {
            Unavailable::NoStream
        }
    }

    /// The line is first in, first out, and all wait equally long: those who gave up are at its head.
    fn drop_leading_gone_waiters(&mut self) {
        while self.waiters.front().is_some_and(oneshot::Sender::is_closed) {
            self.waiters.pop_front();
        }
    }
}

struct Link {
    id: LinkId,
    sender: SendRequest<Bytes>,
    streams_max: usize,
    in_flight: usize,
    opened: Instant,
    starved_since: Option<Instant>,
    has_answered: bool,
    /// Requests in a row that got no answer.
    unanswered: u32,
}

impl Link {
    fn is_starved(&self, now: Instant, config: &ConnectionConfig) -> bool {
        // A configured limit of one stream is no starvation.
        config.streams_per_connection_max > STARVED_STREAMS
            && self.starved_since.is_some_and(|since| now.duration_since(since) >= config.starved_after())
    }
}

/// The task that opens a connection; there is at most one for a pool.
struct Connecting(Weak<Pool>);

impl Connecting {
    async fn run(self) {
        loop {
            let Some(retry_at) = self.0.upgrade().map(|pool| pool.lock().retry_at) else { return };
            if let Some(at) = retry_at {
                tokio::time::sleep_until(at).await;
            }
            let Some(pool) = self.0.upgrade() else { return };
            match connection::open(&pool.dialer).await {
                Ok((sender, connection)) => return pool.dialed(sender, connection),
                Err(error) if pool.dial_failed(&error) => {}
                Err(_) => return,
            }
        }
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            let mut state = pool.lock();
            state.is_connecting = false;
            pool.grow(&mut state);
        }
    }
}

/// A connection is replaced after this many requests in a row without an answer.
const UNANSWERED_MAX: u32 = 3;
/// From this many failed connects in a row, requests do not wait for the next attempt.
const FAIL_FAST_AFTER: u32 = 3;
/// A connection that has not answered within this time does not hold up the next one.
const SETTLE_TIME: Duration = Duration::from_secs(1);
