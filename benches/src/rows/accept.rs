//! Accepting durably and pushing, as fast as the answers come.

use std::sync::Arc;

use http::HeaderValue;

use crate::client::Client;
use crate::cores;
use crate::error::BenchError;
use crate::limits::{append_log, raw_h2};
use crate::load::closed_loop;
use crate::message::{Message, seal_all};
use crate::report::{Row, Runs};
use crate::rows::{Effort, WARM_UP};
use crate::scene::{Cost, Plan, Scene, Stage};

/// Messages of a run.
pub(super) const MESSAGES: usize = 30_000;
/// Connections to the relay.
const CONNECTIONS: usize = 100;
/// What must be reached of the limit.
const SHARE: f64 = 0.4;
/// And whatever the limit was (messages a second).
const LEAST: f64 = 10_000.0;

/// Measures the row.
///
/// # Errors
/// See [`BenchError`].
pub fn row(stage: &mut Stage, effort: Effort) -> Result<Row, BenchError> {
    let count = effort.messages(MESSAGES);
    let (mut runs, mut append, mut h2) = (Runs::default(), Runs::default(), Runs::default());
    let mut notes = Vec::new();
    for _ in 0..effort.runs {
        let Run { cost, limits } = cores::drive(run(stage, count))?;
        runs.pair(cost.rate(count), limits.together());
        append.single(limits.append);
        h2.single(limits.h2.rate);
        notes = vec![
            cost.note(count),
            format!(
                "alone: append log {:.0} /s, raw h2 {:.0} /s (its core {:.0} % busy)",
                append.value(),
                h2.value(),
                100.0 * limits.h2.busy
            ),
        ];
    }
    notes.insert(0, stage.ground());
    let ratio = runs.ratio();
    Ok(Row {
        name: "accept",
        what: format!(
            "messages accepted durably and pushed, one core, {CONNECTIONS} connections, {count} messages"
        ),
        value: runs.value(),
        spread: runs.spread(),
        unit: "/s",
        limit: runs.limit(),
        limit_is: Some("append log and raw h2, one after the other on the core".to_owned()),
        ratio,
        budget: format!("at least {SHARE} x the limit, and {LEAST:.0} /s"),
        holds: ratio.is_some_and(|ratio| ratio >= SHARE) && runs.value() >= LEAST,
        notes,
    })
}

struct Run {
    cost: Cost,
    limits: Limits,
}

async fn run(stage: &mut Stage, count: usize) -> Result<Run, BenchError> {
    let scene = Scene::open(stage, Plan::new(WARM_UP + count)).await?;
    let messages: Arc<[Message]> = seal_all(&scene.hospital, &scene.devices)?.into();
    let limits =
        Limits::measure(&scene, count, messages.first().map_or(0, |message| message.body.len())).await?;
    scene.emulator.reset();
    let cost = accept_and_push(&scene, &messages).await?;
    Ok(Run { cost, limits })
}

/// Accepts and pushes all of `messages`, of which the first [`WARM_UP`] do not count.
pub(super) async fn accept_and_push(scene: &Scene, messages: &Arc<[Message]>) -> Result<Cost, BenchError> {
    let all = messages.len();
    let token = scene.token().await?;
    let clients = Client::connect_many(scene.relay.address(), CONNECTIONS).await?;
    let clients = put_all(clients, messages, 0..WARM_UP, &token).await?;
    scene.await_pushes(WARM_UP).await?;
    scene.settle().await?;

    let meter = scene.meter()?;
    put_all(clients, messages, WARM_UP..all, &token).await?;
    let end = scene.await_pushes(all).await?;
    let cost = meter.until(end, scene)?;
    scene.settle().await?;
    scene.check_pushes(all)?;
    Ok(cost)
}

/// Submits messages over all of `clients`.
pub(super) async fn put_all(
    clients: Vec<Client>,
    messages: &Arc<[Message]>,
    which: std::ops::Range<usize>,
    token: &HeaderValue,
) -> Result<Vec<Client>, BenchError> {
    let (messages, token, first) = (Arc::clone(messages), token.clone(), which.start);
    let put = move |mut client: Client, index: usize| {
        let (messages, token) = (Arc::clone(&messages), token.clone());
        async move {
            let message = &messages[first + index];
            client.put_message(&token, &message.path, message.body.clone()).await?;
            Ok(client)
        }
    };
    closed_loop(clients, which.len(), put).await
}

/// What the limits gave, each alone on the core under test.
struct Limits {
    append: f64,
    h2: raw_h2::Pushed,
}

impl Limits {
    async fn measure(scene: &Scene, count: usize, bytes: usize) -> Result<Self, BenchError> {
        let folder = scene.folder().to_path_buf();
        let append =
            cores::run_beside(cores::TESTED, move || append_log::run(&folder, count, bytes)).await??;
        let peer = raw_h2::Peer::new(scene.emulator.manifest(), scene.emulator.apns_addr())?;
        let h2 =
            cores::run_beside(cores::TESTED, move || raw_h2::run(&peer, count, raw_h2::IN_FLIGHT)).await??;
        Ok(Self { append, h2 })
    }

    /// Both for each message, one after the other.
    fn together(&self) -> f64 {
        1.0 / (1.0 / self.append + 1.0 / self.h2.rate)
    }
}
