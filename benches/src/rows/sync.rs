//! Syncs that return one waiting message.

use std::sync::Arc;
use std::time::Instant;

use sealpost_wire::api::relay::{SyncRequest, SyncResponse};

use crate::cast::{Device, Hospital};
use crate::client::Client;
use crate::cores;
use crate::error::BenchError;
use crate::load::closed_loop;
use crate::message::{Message, seal_all};
use crate::report::{Row, Runs};
use crate::rows::accept::put_all;
use crate::rows::{Effort, WARM_UP};
use crate::scene::{Cost, Plan, Scene, Stage};

/// Messages, and so devices, of a run.
const MESSAGES: usize = 30_000;
/// Connections to the relay.
const CONNECTIONS: usize = 100;
/// What must be reached (syncs a second).
const LEAST: f64 = 6000.0;

/// Measures the row.
///
/// # Errors
/// See [`BenchError`].
pub fn row(stage: &mut Stage, effort: Effort) -> Result<Row, BenchError> {
    let count = effort.messages(MESSAGES);
    let mut runs = Runs::default();
    let mut notes = Vec::new();
    for _ in 0..effort.runs {
        let cost = cores::drive(run(stage, count))?;
        runs.single(cost.rate(count));
        notes = vec![cost.note(count)];
    }
    notes.insert(0, stage.ground());
    Ok(Row {
        name: "sync",
        what: format!(
            "syncs that check a signature and return the one waiting message, one core, {CONNECTIONS} \
             connections, {count} devices once each"
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

async fn run(stage: &mut Stage, count: usize) -> Result<Cost, BenchError> {
    let all = WARM_UP + count;
    let scene = Scene::open(stage, Plan::new(all)).await?;
    let messages: Arc<[Message]> = seal_all(&scene.hospital, &scene.devices)?.into();
    let token = scene.token().await?;
    let clients = Client::connect_many(scene.relay.address(), CONNECTIONS).await?;
    let clients = put_all(clients, &messages, 0..all, &token).await?;
    scene.await_pushes(all).await?;
    let clients = sync_all(clients, &scene, &messages, 0..WARM_UP).await?;
    scene.settle().await?;

    let meter = scene.meter()?;
    sync_all(clients, &scene, &messages, WARM_UP..all).await?;
    let cost = meter.until(Instant::now(), &scene)?;
    scene.check_pushes(all)?;
    Ok(cost)
}

async fn sync_all(
    clients: Vec<Client>,
    scene: &Scene,
    messages: &Arc<[Message]>,
    which: std::ops::Range<usize>,
) -> Result<Vec<Client>, BenchError> {
    let (hospital, devices) = (Arc::clone(&scene.hospital), Arc::clone(&scene.devices));
    let (messages, first) = (Arc::clone(messages), which.start);
    let sync = move |mut client: Client, index: usize| {
        let (hospital, devices) = (Arc::clone(&hospital), Arc::clone(&devices));
        let messages = Arc::clone(&messages);
        async move {
            let (device, message) = (&devices[first + index], &messages[first + index]);
            fetch(&mut client, &hospital, device, message).await?;
            Ok(client)
        }
    };
    closed_loop(clients, which.len(), sync).await
}

/// Syncs, and checks that the one box that comes is the message's. Returns its cursor.
pub(super) async fn fetch(
    client: &mut Client,
    hospital: &Hospital,
    device: &Device,
    message: &Message,
) -> Result<u64, BenchError> {
    let answer = sync(client, hospital, device, &SyncRequest::default()).await?;
    match answer.boxes.as_slice() {
        [only] if only.id == message.id && only.sealed.as_ref().len() == message.sealed_bytes => {
            Ok(only.cursor)
        }
        boxes => Err(BenchError::Miscounted(format!(
            "a sync returned {} boxes, not the one that waits",
            boxes.len()
        ))),
    }
}

/// One signed sync.
pub(super) async fn sync(
    client: &mut Client,
    hospital: &Hospital,
    device: &Device,
    request: &SyncRequest,
) -> Result<SyncResponse, BenchError> {
    let body = serde_json::to_vec(request)?;
    let answer = client.signed("a sync", "POST", "/v1/sync", hospital, device, body).await?;
    Ok(serde_json::from_slice(&answer)?)
}
