//! How long a relay is away that is killed while many messages wait.

use std::sync::Arc;
use std::time::Instant;

use sealpost_emulators::{Outcome, Provider};

use crate::client::Client;
use crate::cores;
use crate::error::BenchError;
use crate::message::{Message, seal_all};
use crate::report::{Row, Runs, millis};
use crate::rows::accept::put_all;
use crate::rows::waiting::{WAITING, WAITING_QUICK};
use crate::rows::{Effort, WARM_UP};
use crate::scene::{PUSH_DEADLINE, Plan, Scene, Stage, push_token};
use crate::stock::Stock;

/// What must not be exceeded (seconds).
const MOST: f64 = 5.0;

/// Measures the row.
///
/// # Errors
/// See [`BenchError`].
pub fn row(stage: &mut Stage, effort: Effort) -> Result<Row, BenchError> {
    let waiting = if effort.quick { WAITING_QUICK } else { WAITING };
    let stock = stage.waiting(waiting)?;
    let mut runs = Runs::default();
    let mut notes = vec![stage.ground(), "seconds after SIGKILL, run by run:".to_owned()];
    for _ in 0..effort.runs {
        let away = cores::drive(run(stage, &stock))?;
        runs.single(away.ready.max(away.accepted).max(away.pushed));
        notes.push(format!(
            "/readyz {:.2}, a new message's 202 {:.2}, the push that was due {:.2}",
            away.ready, away.accepted, away.pushed
        ));
    }
    Ok(Row {
        name: "restart",
        what: format!(
            "SIGKILL until the relay, started again at once over {waiting} waiting messages, was ready, had \
             accepted one message, and had sent a push that was due before"
        ),
        value: runs.value(),
        spread: runs.spread(),
        unit: "s",
        limit: None,
        limit_is: None,
        ratio: None,
        budget: format!("at most {MOST} s"),
        holds: runs.value() <= MOST,
        notes,
    })
}

/// Seconds since the relay was killed.
struct Away {
    ready: f64,
    accepted: f64,
    pushed: f64,
}

async fn run(stage: &mut Stage, stock: &Stock) -> Result<Away, BenchError> {
    // After the warm-up: one whose push comes to nothing before the end, and one for after it.
    let (interrupted, after) = (WARM_UP, WARM_UP + 1);
    let devices = stage.unused_devices(WARM_UP + 2);
    let mut scene = Scene::open(stage, Plan { devices, stock: Some(stock), ..Plan::new(0) }).await?;
    let messages: Arc<[Message]> = seal_all(&scene.hospital, &scene.devices)?.into();
    scene.emulator.record_bodies(true);
    let token = scene.token().await?;
    let clients = Client::connect_many(scene.relay.address(), 1).await?;
    let clients = put_all(clients, &messages, 0..WARM_UP, &token).await?;
    scene.await_pushes(WARM_UP).await?;
    let unanswered = Outcome {
        token: Some(push_token(interrupted)),
        no_answer: true,
        ..Outcome::new(Provider::Apns, 200)
    };
    scene.emulator.set_outcome(unanswered).map_err(BenchError::cast("an outcome"))?;
    put_all(clients, &messages, interrupted..after, &token).await?;
    // It is under way.
    let tried = scene.emulator.next_push(&push_token(interrupted), 0).await.sequence;

    let killed = scene.kill_and_restart(stage)?;
    scene.emulator.clear_outcomes();
    scene.await_ready().await?;
    let ready = since(killed);
    let clients = Client::connect_many(scene.relay.address(), 1).await?;
    put_all(clients, &messages, after..after + 1, &token).await?;
    let accepted = since(killed);
    let due = push_token(interrupted);
    let again = tokio::time::timeout(PUSH_DEADLINE, scene.emulator.next_push(&due, tried)).await;
    let pushed = again.map_err(|_| BenchError::TooLong("the push that was due"))?.received;
    Ok(Away { ready, accepted, pushed: millis(pushed.saturating_duration_since(killed)) / 1000.0 })
}

fn since(start: Instant) -> f64 {
    millis(start.elapsed()) / 1000.0
}
