//! The whole life of a message: accepted, pushed, fetched by its device, acknowledged as opened.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use sealpost_wire::api::relay::{ReceiptOutcome, SyncRequest};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::MissedTickBehavior;

use crate::client::Client;
use crate::cores;
use crate::error::BenchError;
use crate::load::{InProgress, closed_loop, drain};
use crate::message::{Message, seal_all};
use crate::report::{Row, Runs};
use crate::rows::sync::{fetch, sync};
use crate::rows::{Effort, WARM_UP};
use crate::scene::{Cost, Plan, Scene, Stage, device_of};

/// Messages of a run.
const MESSAGES: usize = 20_000;
/// Connections to the relay: half of them the sender's, half of them devices'.
const CONNECTIONS: usize = 100;
/// Messages that were submitted and not opened yet.
const IN_PROGRESS_MAX: usize = 500;
/// How often the load looks which pushes came.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// The longest that a run may take.
const RUN_DEADLINE: Duration = Duration::from_secs(600);
/// What must be reached (messages a second).
const LEAST: f64 = 3000.0;

/// Measures the row.
///
/// # Errors
/// See [`BenchError`].
pub fn row(stage: &mut Stage, effort: Effort) -> Result<Row, BenchError> {
    let count = effort.messages(MESSAGES);
    let mut runs = Runs::default();
    let mut notes = Vec::new();
    for _ in 0..effort.runs {
        let cost = cores::drive(async {
            let (_scene, _clients, cost) = run(stage, count, CONNECTIONS).await?;
            Ok(cost)
        })?;
        runs.single(cost.rate(count));
        notes = vec![cost.note(count)];
    }
    notes.insert(0, stage.ground());
    Ok(Row {
        name: "life",
        what: format!(
            "messages accepted, pushed, fetched by a sync after the push, and acknowledged as opened by the \
             next one; one core, {CONNECTIONS} connections, {count} messages"
        ),
        value: runs.value(),
        spread: runs.spread(),
        unit: "/s",
        limit: None,
        limit_is: None,
        ratio: None,
        budget: format!("at least {LEAST:.0} /s"),
        holds: runs.value() >= LEAST,
        notes,
    })
}

/// Lets `count` messages live over `connections` connections, which come back still connected.
pub(super) async fn run(
    stage: &mut Stage,
    count: usize,
    connections: usize,
) -> Result<(Scene, Vec<Client>, Cost), BenchError> {
    let all = WARM_UP + count;
    let scene = Scene::open(stage, Plan::new(all)).await?;
    let messages: Arc<[Message]> = seal_all(&scene.hospital, &scene.devices)?.into();
    // Which device a push was for is known only where pushes are kept.
    scene.emulator.record_bodies(true);
    let token = scene.token().await?;
    let clients = Client::connect_many(scene.relay.address(), connections).await?;
    let clients = live(clients, &scene, &messages, 0..WARM_UP, &token).await?;
    scene.settle().await?;

    let meter = scene.meter()?;
    let clients = live(clients, &scene, &messages, WARM_UP..all, &token).await?;
    let cost = meter.until(Instant::now(), &scene)?;
    scene.check_pushes(all)?;
    Ok((scene, clients, cost))
}

async fn live(
    mut clients: Vec<Client>,
    scene: &Scene,
    messages: &Arc<[Message]>,
    which: std::ops::Range<usize>,
    token: &HeaderValue,
) -> Result<Vec<Client>, BenchError> {
    let of_devices = clients.split_off(clients.len() / 2);
    let in_progress = InProgress::new(IN_PROGRESS_MAX);
    let (pushed, pushes) = unbounded_channel();
    let submit = {
        let (messages, token, in_progress) = (Arc::clone(messages), token.clone(), in_progress.clone());
        let first = which.start;
        move |mut client: Client, index: usize| {
            let (messages, token, in_progress) = (Arc::clone(&messages), token.clone(), in_progress.clone());
            async move {
                in_progress.begin().await;
                let message = &messages[first + index];
                client.put_message(&token, &message.path, message.body.clone()).await?;
                Ok(client)
            }
        }
    };
    let open = {
        let (hospital, devices) = (Arc::clone(&scene.hospital), Arc::clone(&scene.devices));
        let messages = Arc::clone(messages);
        move |mut client: Client, index: usize| {
            let (hospital, devices) = (Arc::clone(&hospital), Arc::clone(&devices));
            let (messages, in_progress) = (Arc::clone(&messages), in_progress.clone());
            async move {
                let (device, message) = (&devices[index], &messages[index]);
                let cursor = fetch(&mut client, &hospital, device, message).await?;
                let receipts = vec![message.opened.clone()];
                let request = SyncRequest { after: cursor, receipts, ..SyncRequest::default() };
                let answer = sync(&mut client, &hospital, device, &request).await?;
                in_progress.end();
                if answer.receipts == [ReceiptOutcome::Accepted] && answer.boxes.is_empty() {
                    Ok(client)
                } else {
                    Err(BenchError::Miscounted(format!("a receipt became {:?}", answer.receipts)))
                }
            }
        }
    };
    let life = async {
        tokio::try_join!(
            closed_loop(clients, which.len(), submit),
            watch(scene, which.clone(), pushed),
            drain(of_devices, pushes, open),
        )
    };
    let lived = tokio::time::timeout(RUN_DEADLINE, life).await;
    let (mut clients, (), mut of_devices) =
        lived.map_err(|_| BenchError::TooLong("the life of messages"))??;
    clients.append(&mut of_devices);
    Ok(clients)
}

/// Tells which devices were pushed, until all of `which` were, each once.
async fn watch(
    scene: &Scene,
    which: std::ops::Range<usize>,
    pushed: UnboundedSender<usize>,
) -> Result<(), BenchError> {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = which.start as u64;
    while seen < which.end as u64 {
        look.tick().await;
        for push in scene.emulator.pushes(seen) {
            seen = push.sequence;
            let device = device_of(&push.token).filter(|device| which.contains(device));
            let device =
                device.ok_or_else(|| BenchError::Miscounted("a push came for another device".to_owned()))?;
            // The devices' side has failed if nobody listens, and says why.
            let _ = pushed.send(device);
        }
    }
    Ok(())
}
