//! How load is made: as fast as the answers come, or at times that were fixed before.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;

use crate::client::Client;
use crate::cores;
use crate::error::BenchError;

/// Does `work` for each of `0..count`, on every one of `clients` one after the other: a closed loop. Returns
/// the clients.
///
/// # Errors
/// The first one of `work`, after which nothing more begins.
pub async fn closed_loop<W, F>(clients: Vec<Client>, count: usize, work: W) -> Result<Vec<Client>, BenchError>
where
    W: Fn(Client, usize) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Client, BenchError>> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let mut running = JoinSet::new();
    for mut client in clients {
        let (next, work) = (Arc::clone(&next), work.clone());
        running.spawn(async move {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return Ok(client);
                }
                client = work(client, index).await?;
            }
        });
    }
    join_all(running).await
}

/// Does `work` for everything that comes out of `queue`, as [`closed_loop`] does, until it is closed.
///
/// # Errors
/// The first one of `work`, after which nothing more begins.
pub async fn drain<T, W, F>(
    clients: Vec<Client>,
    queue: UnboundedReceiver<T>,
    work: W,
) -> Result<Vec<Client>, BenchError>
where
    T: Send + 'static,
    W: Fn(Client, T) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Client, BenchError>> + Send,
{
    let queue = Arc::new(Mutex::new(queue));
    let mut running = JoinSet::new();
    for mut client in clients {
        let (queue, work) = (Arc::clone(&queue), work.clone());
        running.spawn(async move {
            loop {
                // The lock goes before the work begins.
                let next = queue.lock().await.recv().await;
                let Some(next) = next else { return Ok(client) };
                client = work(client, next).await?;
            }
        });
    }
    join_all(running).await
}

async fn join_all<T: 'static>(mut running: JoinSet<Result<T, BenchError>>) -> Result<Vec<T>, BenchError> {
    let mut done = Vec::with_capacity(running.len());
    while let Some(one) = running.join_next().await {
        done.push(one.map_err(|_| BenchError::Ended)??);
    }
    Ok(done)
}

/// One thing that is due.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    /// Its number, from 0.
    pub index: usize,
    /// When it was to begin, whatever delayed it since.
    pub at: Instant,
}

/// Tells `count` times, `rate` times a second, that something is due: an open loop. The times are fixed from
/// the start; a thread of its own on the core of the load keeps them, because the timers of a runtime are a
/// millisecond coarse.
///
/// # Panics
/// When `rate` is 0.
#[must_use]
pub fn open_loop(count: usize, rate: u32) -> UnboundedReceiver<Due> {
    let interval = Duration::from_secs(1) / rate;
    let (sender, receiver) = unbounded_channel();
    std::thread::spawn(move || {
        cores::stay_on(cores::LOAD);
        let mut at = Instant::now() + interval;
        for index in 0..count {
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            if sender.send(Due { index, at }).is_err() {
                return;
            }
            at += interval;
        }
    });
    receiver
}

/// Bounds what has begun and is not over.
#[derive(Clone)]
pub struct InProgress(Arc<Semaphore>);

impl InProgress {
    /// At most `max` at a time.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self(Arc::new(Semaphore::new(max)))
    }

    /// Waits until one more may begin.
    pub async fn begin(&self) {
        // It is never closed.
        if let Ok(place) = self.0.acquire().await {
            place.forget();
        }
    }

    /// One is over.
    pub fn end(&self) {
        self.0.add_permits(1);
    }
}
