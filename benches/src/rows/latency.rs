//! How long a message takes until it is accepted, and until its stub is at the provider, at a rate that was
//! fixed before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use tokio::sync::mpsc::unbounded_channel;

use crate::client::Client;
use crate::cores;
use crate::error::BenchError;
use crate::limits::durable_push;
use crate::limits::raw_h2::Peer;
use crate::load::{Due, drain, open_loop};
use crate::message::{Message, seal_all};
use crate::report::{Row, Runs, millis, percentile};
use crate::rows::accept::put_all;
use crate::rows::{Effort, WARM_UP};
use crate::scene::{PUSH_DEADLINE, Plan, Scene, Stage, device_of};

/// Messages of a run.
const MESSAGES: usize = 10_000;
/// Messages a second.
pub(super) const RATE: u32 = 1000;
/// Connections to the relay.
pub(super) const CONNECTIONS: usize = 100;
/// What may be above the limit (milliseconds).
const ABOVE_MS: f64 = 5.0;
/// The part of all messages that must be faster.
const SHARE: f64 = 0.99;

/// Measures the row.
///
/// # Errors
/// See [`BenchError`].
pub fn row(stage: &mut Stage, effort: Effort) -> Result<Row, BenchError> {
    let count = effort.messages(MESSAGES);
    let mut runs = Runs::default();
    let mut notes = Vec::new();
    for _ in 0..effort.runs {
        let run = cores::drive(run(stage, count))?;
        runs.pair(run.accepted.worst().max(run.pushed.worst()), run.limit.worst());
        notes.push(format!(
            "PUT to 202 {}; PUT to stub {}; the limit {}",
            run.accepted.in_words(),
            run.pushed.in_words(),
            run.limit.in_words()
        ));
    }
    notes.insert(0, stage.ground());
    notes.insert(1, "in milliseconds, median / p99 / worst of each run:".to_owned());
    let above = runs.above();
    Ok(Row {
        name: "latency",
        what: format!(
            "p99 from PUT to 202 or to the stub, whichever is later; open loop of {RATE} /s, {count} messages"
        ),
        value: runs.value(),
        spread: runs.spread(),
        unit: "ms",
        limit: runs.limit(),
        limit_is: Some(
            "one group's fdatasync of the same bytes and a push by raw h2, p99 in an open loop".to_owned(),
        ),
        ratio: runs.ratio(),
        budget: format!("at most {ABOVE_MS} ms above the limit; it is {above:.2} ms above"),
        holds: above <= ABOVE_MS,
        notes,
    })
}

struct Run {
    accepted: Latencies,
    pushed: Latencies,
    limit: Latencies,
}

/// Sorted latencies (milliseconds).
struct Latencies(Vec<f64>);

impl Latencies {
    fn new(mut milliseconds: Vec<f64>) -> Self {
        milliseconds.sort_by(f64::total_cmp);
        Self(milliseconds)
    }

    fn worst(&self) -> f64 {
        percentile(&self.0, SHARE)
    }

    fn in_words(&self) -> String {
        let [median, worst, last] = [0.5, SHARE, 1.0].map(|share| percentile(&self.0, share));
        format!("{median:.2} / {worst:.2} / {last:.2}")
    }
}

async fn run(stage: &mut Stage, count: usize) -> Result<Run, BenchError> {
    let all = WARM_UP + count;
    // Those of the open loop, and others that warm everything up before it.
    let scene = Scene::open(stage, Plan::new(all + WARM_UP)).await?;
    let messages: Arc<[Message]> = seal_all(&scene.hospital, &scene.devices)?.into();
    let limit = limit(&scene, all, messages.first().map_or(0, |message| message.body.len())).await?;

    scene.emulator.record_bodies(false);
    scene.emulator.reset();
    let token = scene.token().await?;
    let clients = Client::connect_many(scene.relay.address(), CONNECTIONS).await?;
    let clients = put_all(clients, &messages, all..all + WARM_UP, &token).await?;
    scene.await_pushes(WARM_UP).await?;
    scene.settle().await?;

    scene.emulator.reset();
    scene.emulator.record_bodies(true);
    let answered = put_when_due(clients, &messages, all, token).await?;
    scene.await_pushes(all).await?;
    let due: Vec<Instant> = answered.iter().map(|(at, _)| *at).collect();
    let pushed = pushed(&scene, &due)?;
    scene.settle().await?;
    scene.check_pushes(all)?;
    let accepted = answered.iter().skip(WARM_UP).map(|(at, answered)| between(*at, *answered)).collect();
    Ok(Run { accepted: Latencies::new(accepted), pushed, limit })
}

/// When each message was due, and when it was answered.
pub(super) async fn put_when_due(
    clients: Vec<Client>,
    messages: &Arc<[Message]>,
    count: usize,
    token: HeaderValue,
) -> Result<Vec<(Instant, Instant)>, BenchError> {
    let (sender, mut receiver) = unbounded_channel();
    let messages = Arc::clone(messages);
    let put = move |mut client: Client, Due { index, at }: Due| {
        let (messages, token, sender) = (Arc::clone(&messages), token.clone(), sender.clone());
        async move {
            let message = &messages[index];
            client.put_message(&token, &message.path, message.body.clone()).await?;
            // The other end is read below.
            let _ = sender.send((index, at, Instant::now()));
            Ok(client)
        }
    };
    drain(clients, open_loop(count, RATE), put).await?;
    let mut answered = Vec::with_capacity(count);
    while let Some(one) = receiver.recv().await {
        answered.push(one);
    }
    answered.sort_unstable_by_key(|(index, ..)| *index);
    Ok(answered.into_iter().map(|(_, at, answered)| (at, answered)).collect())
}

/// How long after it was due the stub of each message was at the emulator.
fn pushed(scene: &Scene, due: &[Instant]) -> Result<Latencies, BenchError> {
    let mut latencies = Vec::with_capacity(due.len());
    for push in scene.emulator.pushes(0) {
        let device = device_of(&push.token).filter(|device| *device < due.len());
        let device =
            device.ok_or_else(|| BenchError::Miscounted("a push came for another device".to_owned()))?;
        if device >= WARM_UP {
            latencies.push(between(due[device], push.received));
        }
    }
    Ok(Latencies::new(latencies))
}

async fn limit(scene: &Scene, count: usize, bytes: usize) -> Result<Latencies, BenchError> {
    let (folder, peer) =
        (scene.folder().to_path_buf(), Peer::new(scene.emulator.manifest(), scene.emulator.apns_addr())?);
    scene.emulator.reset();
    scene.emulator.record_bodies(true);
    let due = open_loop(count, RATE);
    let work = cores::run_beside(cores::TESTED, move || durable_push::run(&peer, &folder, bytes, due));
    let longest = Duration::from_secs(count as u64 / u64::from(RATE)) + PUSH_DEADLINE;
    let due =
        tokio::time::timeout(longest, work).await.map_err(|_| BenchError::TooLong("the limit"))???;
    pushed(scene, &due)
}

fn between(start: Instant, end: Instant) -> f64 {
    millis(end.saturating_duration_since(start))
}
