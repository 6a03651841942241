//! The two together, in an open loop: what is due is appended and synced as a group, and pushed by a bare
//! HTTP/2 client. The least time that may lie between a message and its stub where acceptance is durable.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::cores;
use crate::error::BenchError;
use crate::limits::raw_h2::Peer;
use crate::load::Due;

/// Appends `bytes` bytes for everything that comes out of `due`, and pushes to the device of that number,
/// both on the core under test. Returns the times at which each was due.
///
/// # Errors
/// What fails on the way.
pub fn run(
    peer: &Peer,
    folder: &Path,
    bytes: usize,
    due: UnboundedReceiver<Due>,
) -> Result<Vec<Instant>, BenchError> {
    let (synced, durable) = unbounded_channel();
    std::thread::scope(|scope| {
        // It owns its end of the channel: when all is synced, the pushing ends too.
        let log = scope.spawn(move || {
            cores::stay_on(cores::TESTED);
            append(folder, bytes, due, &synced).map_err(BenchError::io("the append log"))
        });
        cores::stay_on(cores::TESTED);
        let times = push(peer, durable);
        log.join().map_err(|_| BenchError::Ended)??;
        times
    })
}

/// Syncs what is due as one group, and then the next one.
fn append(
    folder: &Path,
    bytes: usize,
    mut due: UnboundedReceiver<Due>,
    synced: &UnboundedSender<Due>,
) -> std::io::Result<()> {
    let path = folder.join("durable-push.log");
    let mut file = File::create(&path)?;
    let mut group = Vec::new();
    let mut buffer = Vec::new();
    while let Some(first) = due.blocking_recv() {
        group.push(first);
        while let Ok(next) = due.try_recv() {
            group.push(next);
        }
        buffer.resize(group.len() * bytes, 0x5a);
        file.write_all(&buffer)?;
        file.sync_data()?;
        for one in group.drain(..) {
            // Whoever listened has failed, and says why.
            let _ = synced.send(one);
        }
    }
    std::fs::remove_file(path)
}

fn push(peer: &Peer, mut durable: UnboundedReceiver<Due>) -> Result<Vec<Instant>, BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(BenchError::io("making a runtime"))?;
    runtime.block_on(async {
        let connection = peer.connect().await?;
        let mut times = Vec::new();
        let mut running = JoinSet::new();
        while let Some(Due { index, at }) = durable.recv().await {
            times.push(at);
            let connection = connection.clone();
            running.spawn(async move { connection.push(index).await });
            while let Some(done) = running.try_join_next() {
                done.map_err(|_| BenchError::Ended)??;
            }
        }
        while let Some(done) = running.join_next().await {
            done.map_err(|_| BenchError::Ended)??;
        }
        Ok(times)
    })
}
