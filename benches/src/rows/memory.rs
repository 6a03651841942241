//! What the relay keeps in memory once many messages have lived and nothing happens any more.

use std::time::Duration;

use crate::client::Client;
use crate::cores;
use crate::error::BenchError;
use crate::report::Row;
use crate::rows::{Effort, life};
use crate::scene::Stage;

/// Messages that live before.
const MESSAGES: usize = 100_000;
/// Connections that stay open.
const CONNECTIONS: usize = 500;
/// How long after the last message was opened.
const AFTER: Duration = Duration::from_secs(60);
const AFTER_QUICK: Duration = Duration::from_secs(2);
/// How often a connection shows that it lives: servers close what is silent.
const TOUCH_EVERY: Duration = Duration::from_secs(10);
/// What must not be exceeded (MiB).
const MOST: f64 = 60.0;

/// Measures the row: once, whatever the number of runs, because it takes minutes and hardly differs.
///
/// # Errors
/// See [`BenchError`].
pub fn row(stage: &mut Stage, effort: Effort) -> Result<Row, BenchError> {
    let count = effort.messages(MESSAGES);
    let after = if effort.quick { AFTER_QUICK } else { AFTER };
    let [now, most] = cores::drive(run(stage, count, after))?.map(mebibytes);
    Ok(Row {
        name: "memory",
        what: format!(
            "resident memory with {CONNECTIONS} connections, {} s after {count} messages were opened",
            after.as_secs()
        ),
        value: now,
        spread: [now, now],
        unit: "MiB",
        limit: None,
        limit_is: None,
        ratio: None,
        budget: format!("at most {MOST} MiB"),
        holds: now <= MOST,
        notes: vec![stage.ground(), format!("one run; at most {most:.1} MiB on the way")],
    })
}

async fn run(stage: &mut Stage, count: usize, after: Duration) -> Result<[u64; 2], BenchError> {
    let (scene, mut clients, _cost) = life::run(stage, count, CONNECTIONS).await?;
    let end = tokio::time::Instant::now() + after;
    while tokio::time::Instant::now() < end {
        tokio::time::sleep_until(end.min(tokio::time::Instant::now() + TOUCH_EVERY)).await;
        touch_all(&mut clients).await?;
    }
    scene.relay.resident_bytes()
}

/// Every connection is still there: memory is not measured without them.
async fn touch_all(clients: &mut [Client]) -> Result<(), BenchError> {
    for client in clients {
        client.touch("/healthz").await?;
    }
    Ok(())
}

fn mebibytes(bytes: u64) -> f64 {
    // Whole kibibytes of a process: far below what a float holds exactly.
    #[allow(clippy::cast_precision_loss)]
    let bytes = bytes as f64;
    bytes / (1024.0 * 1024.0)
}
