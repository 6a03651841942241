//! One provider is a black hole: it takes connections and requests, and never answers. What the other one's
//! pushes notice of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sealpost_emulators::{ConnectionFault, Outcome, Provider, Reception};

use crate::client::Client;
use crate::cores;
use crate::error::BenchError;
use crate::message::{Message, seal_all};
use crate::report::{Row, Runs, millis, percentile};
use crate::rows::accept::put_all;
use crate::rows::latency::{CONNECTIONS, RATE, put_when_due};
use crate::rows::{Effort, WARM_UP};
use crate::scene::{App, PUSH_DEADLINE, Plan, Scene, Stage, device_of};

/// Messages of a run, half of them for each provider.
const MESSAGES: usize = 20_000;
/// Devices' apps, in turn.
const APPS: &[App] = &[App::Apns, App::Fcm];
/// What must not be exceeded, of the p99 without the fault.
const MOST: f64 = 2.0;
/// By how much memory may grow more in the second half of a run than without the fault (MiB).
const GROWTH_MOST: f64 = 4.0;
/// How often the load looks whether all has come.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The part of all messages that must be faster.
const SHARE: f64 = 0.99;

/// Measures the row.
///
/// # Errors
/// See [`BenchError`].
pub fn row(stage: &mut Stage, effort: Effort) -> Result<Row, BenchError> {
    let count = effort.messages(MESSAGES);
    let mut runs = Runs::default();
    let mut growth = Vec::new();
    let mut notes = vec![
        stage.ground(),
        "p99 in ms, and resident memory in MiB in the middle and at the end, run by run:".to_owned(),
    ];
    for _ in 0..effort.runs {
        let whole = cores::drive(run(stage, count, None))?;
        for lost in APPS {
            let other = if *lost == App::Apns { App::Fcm } else { App::Apns };
            let faulty = cores::drive(run(stage, count, Some(*lost)))?;
            runs.pair(faulty.p99(other), whole.p99(other));
            growth.push(faulty.growth() - whole.growth());
            notes.push(format!(
                "{} a black hole: {} {:.2}, without the fault {:.2}; memory {} and {}, without the fault {} \
                 and {}",
                lost.name(),
                other.name(),
                faulty.p99(other),
                whole.p99(other),
                faulty.resident[0],
                faulty.resident[1],
                whole.resident[0],
                whole.resident[1],
            ));
        }
    }
    let growth = growth.into_iter().fold(f64::NEG_INFINITY, f64::max);
    let ratio = runs.ratio();
    Ok(Row {
        name: "isolation",
        what: format!(
            "p99 from PUT to push at one provider while the other never answers; open loop of {RATE} \
             /s, half for each, {count} messages"
        ),
        value: runs.value(),
        spread: runs.spread(),
        unit: "ms",
        limit: runs.limit(),
        limit_is: Some("the same while both answer".to_owned()),
        ratio,
        budget: format!(
            "at most {MOST} x, and memory grows by at most {GROWTH_MOST} MiB more in the second half (most: \
             {growth:.1})"
        ),
        holds: ratio.is_some_and(|ratio| ratio <= MOST) && growth <= GROWTH_MOST,
        notes,
    })
}

/// What a run gave.
struct Run {
    /// From the time at which a message was to be sent to its push (milliseconds), sorted, for each app.
    latencies: [Vec<f64>; 2],
    /// Resident memory in the middle and at the end (MiB).
    resident: [u64; 2],
}

impl Run {
    fn p99(&self, app: App) -> f64 {
        percentile(&self.latencies[usize::from(app == App::Fcm)], SHARE)
    }

    fn growth(&self) -> f64 {
        // Mebibytes of a process: far below what a float holds exactly.
        #[allow(clippy::cast_precision_loss)]
        let [middle, end] = self.resident.map(|mebibytes| mebibytes as f64);
        end - middle
    }
}

async fn run(stage: &mut Stage, count: usize, lost: Option<App>) -> Result<Run, BenchError> {
    let all = WARM_UP + count;
    let scene = Scene::open(stage, Plan { apps: APPS, ..Plan::new(all + WARM_UP) }).await?;
    let messages: Arc<[Message]> = seal_all(&scene.hospital, &scene.devices)?.into();
    let token = scene.token().await?;
    let clients = Client::connect_many(scene.relay.address(), CONNECTIONS).await?;
    let clients = put_all(clients, &messages, all..all + WARM_UP, &token).await?;
    scene.await_pushes(WARM_UP).await?;
    scene.settle().await?;

    if let Some(app) = lost {
        black_hole(&scene, app)?;
    }
    scene.emulator.reset();
    scene.emulator.record_bodies(true);
    let half = tokio::time::sleep(Duration::from_secs(all as u64) / RATE / 2);
    let middle = async {
        half.await;
        mebibytes(&scene)
    };
    let (due, middle) = tokio::try_join!(put_when_due(clients, &messages, all, token), middle)?;
    let mut resident = [middle, 0];
    let mut latencies = [Vec::new(), Vec::new()];
    for app in APPS.iter().copied().filter(|app| Some(*app) != lost) {
        await_answered(&scene, app, all / APPS.len()).await?;
    }
    resident[1] = mebibytes(&scene)?;
    for push in scene.emulator.pushes(0) {
        let device = device_of(&push.token).filter(|device| *device < all);
        let device =
            device.ok_or_else(|| BenchError::Miscounted("a push came for another device".to_owned()))?;
        if device >= WARM_UP {
            let latency = millis(push.received.saturating_duration_since(due[device].0));
            latencies[device % APPS.len()].push(latency);
        }
    }
    latencies.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
    Ok(Run { latencies, resident })
}

/// From now on, the provider of `app` takes requests and connections, and never answers.
fn black_hole(scene: &Scene, app: App) -> Result<(), BenchError> {
    let provider = match app {
        App::Apns => Provider::Apns,
        App::Fcm => Provider::Fcm,
    };
    let unanswered = Outcome { no_answer: true, ..Outcome::new(provider, 200) };
    scene.emulator.set_outcome(unanswered).map_err(BenchError::cast("an outcome"))?;
    let fault = ConnectionFault { provider, reception: Reception::NoHandshake, count: None };
    scene.emulator.set_connection_fault(fault).map_err(BenchError::cast("a fault"))
}

/// Waits until `count` pushes of `app` were answered.
async fn await_answered(scene: &Scene, app: App, count: usize) -> Result<(), BenchError> {
    let answered = || {
        let counts = scene.emulator.counts();
        let of_app = if app == App::Apns { counts.apns } else { counts.fcm };
        of_app.by_status.get(&200).copied().unwrap_or_default()
    };
    let began = Instant::now();
    while answered() < count as u64 {
        if began.elapsed() > PUSH_DEADLINE {
            return Err(BenchError::Miscounted(format!(
                "{} of {count} pushes of {} were answered",
                answered(),
                app.name()
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Resident memory of the relay (MiB).
fn mebibytes(scene: &Scene) -> Result<u64, BenchError> {
    let [now, _most] = scene.relay.resident_bytes()?;
    Ok(now / (1024 * 1024))
}
