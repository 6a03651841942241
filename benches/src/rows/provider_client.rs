//! The relay's client of APNs beside a bare HTTP/2 client.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use sealpost_emulators::{Emulator, Manifest, Options};
use sealpost_relay::provider::{ApnsClient, Outcome, Push, PushPriority, PushToken};
use sealpost_service::clock::SystemClock;
use serde_json::json;
use tokio::task::JoinSet;

use crate::cast::system_time;
use crate::cores;
use crate::error::BenchError;
use crate::limits::raw_h2::{self, Pushed};
use crate::report::{Row, Runs, per_second};
use crate::rows::Effort;
use crate::scene::{Stage, push_token};

/// Pushes of a run.
const PUSHES: usize = 40_000;
/// Pushes at one time: as many as a busy app has, and as few as made other clients wait for delayed
/// acknowledgements.
const IN_FLIGHT: [usize; 2] = [500, 100];
/// What must be reached of the bare client, with as many in flight.
const SHARE: f64 = 0.6;

/// Measures the row. Rates are for a second of the client's own processor time: the emulator, on the other core,
/// would else be measured as well.
///
/// # Errors
/// See [`BenchError`].
pub fn row(stage: &mut Stage, effort: Effort) -> Result<Row, BenchError> {
    let count = effort.messages(PUSHES);
    let mut runs = [Runs::default(), Runs::default()];
    let mut walls = [Runs::default(), Runs::default()];
    for _ in 0..effort.runs {
        let pairs = cores::drive(run(stage, count))?;
        for ((client, bare), (runs, walls)) in pairs.into_iter().zip(runs.iter_mut().zip(&mut walls)) {
            runs.pair(client.rate / client.busy, bare.rate / bare.busy);
            walls.pair(client.rate, bare.rate);
        }
    }
    let ratios: Vec<f64> = runs.iter().chain(&walls).filter_map(Runs::ratio).collect();
    let [many, few] = &runs;
    let on_the_wall = |walls: &Runs, in_flight: usize| {
        let (rate, limit) = (walls.value(), walls.limit().unwrap_or(f64::NAN));
        let ratio = walls.ratio().unwrap_or(f64::NAN);
        format!("on the wall, {in_flight} in flight: {rate:.0} /s beside {limit:.0} /s; ratio {ratio:.2}")
    };
    Ok(Row {
        name: "client",
        what: format!(
            "pushes by the client of APNs for a second of its processor time, {} in flight, {count} pushes",
            IN_FLIGHT[0]
        ),
        value: many.value(),
        spread: many.spread(),
        unit: "/s",
        limit: many.limit(),
        limit_is: Some("raw h2 over one connection, as many in flight".to_owned()),
        ratio: many.ratio(),
        budget: format!("at least {SHARE} x the limit, also with {} in flight and on the wall", IN_FLIGHT[1]),
        holds: !ratios.is_empty() && ratios.iter().all(|ratio| *ratio >= SHARE),
        notes: vec![
            format!(
                "TLS to the emulator; with {} in flight the ratio is {:.2}",
                IN_FLIGHT[1],
                few.ratio().unwrap_or(f64::NAN)
            ),
            on_the_wall(&walls[0], IN_FLIGHT[0]),
            on_the_wall(&walls[1], IN_FLIGHT[1]),
        ],
    })
}

/// The client and the bare one, for each number in flight.
async fn run(stage: &Stage, count: usize) -> Result<Vec<(Pushed, Pushed)>, BenchError> {
    let folder = tempfile::Builder::new().prefix("run-").tempdir_in(&stage.folder);
    let folder = folder.map_err(BenchError::io("making a folder for a run"))?;
    let options = Options { record_bodies: false, ..Options::new(folder.path().join("emulators")) };
    let emulator = Emulator::start(options).await?;
    let mut pairs = Vec::new();
    for in_flight in IN_FLIGHT {
        let manifest = emulator.manifest().clone();
        let client = cores::run_beside(cores::TESTED, move || push(&manifest, count, in_flight)).await??;
        let peer = raw_h2::Peer::new(emulator.manifest(), emulator.apns_addr())?;
        let bare = cores::run_beside(cores::TESTED, move || raw_h2::run(&peer, count, in_flight)).await??;
        pairs.push((client, bare));
        emulator.reset();
    }
    Ok(pairs)
}

/// Pushes `count` times with the relay's client, on the calling thread.
fn push(emulators: &Manifest, count: usize, in_flight: usize) -> Result<Pushed, BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(BenchError::io("making a runtime"))?;
    runtime.block_on(async {
        let config = json!({
            "topic": emulators.apns.topics.first(),
            "team_id": emulators.apns.team_id,
            "key_id": emulators.apns.key_id,
            "key_file": emulators.apns.key_file,
            "endpoint": emulators.apns.url,
            "root_ca_file": emulators.ca_file,
        });
        let client = ApnsClient::new(serde_json::from_value(config)?, Arc::new(SystemClock));
        let client = Arc::new(client.map_err(BenchError::cast("the client of APNs"))?);
        push_one(&client, 0).await?;
        let next = Arc::new(AtomicUsize::new(0));
        let (start, before) = (Instant::now(), cores::spent_by_this_thread()?);
        let mut running = JoinSet::new();
        for _ in 0..in_flight {
            let (client, next) = (Arc::clone(&client), Arc::clone(&next));
            running.spawn(async move {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return Ok::<_, BenchError>(());
                    }
                    push_one(&client, index).await?;
                }
            });
        }
        while let Some(done) = running.join_next().await {
            done.map_err(|_| BenchError::Ended)??;
        }
        let wall = start.elapsed();
        let spent = cores::spent_by_this_thread()?.saturating_sub(before);
        Ok(Pushed { rate: per_second(count, wall), busy: spent.as_secs_f64() / wall.as_secs_f64() })
    })
}

async fn push_one(client: &ApnsClient, index: usize) -> Result<(), BenchError> {
    let token = PushToken::new(push_token(index)).map_err(BenchError::cast("a push token"))?;
    let push = Push {
        priority: PushPriority::High,
        expires_at: system_time().plus(3600).0,
        push_id: u128::try_from(index).unwrap_or_default().to_be_bytes(),
    };
    match client.push(&token, push).await {
        Outcome::Accepted { .. } => Ok(()),
        other => Err(BenchError::Relay(format!("a push was not accepted: {other:?}"))),
    }
}
