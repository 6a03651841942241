//! Accepting and pushing while many messages wait for their devices.

use std::sync::Arc;

use crate::cores;
use crate::error::BenchError;
use crate::message::{Message, seal_all};
use crate::report::{Row, Runs};
use crate::rows::accept::{self, accept_and_push};
use crate::rows::{Effort, WARM_UP};
use crate::scene::{Cost, Plan, Scene, Stage};

/// Messages that wait.
pub(super) const WAITING: usize = 1_000_000;
pub(super) const WAITING_QUICK: usize = 2000;
/// What must be reached of the rate with none.
const SHARE: f64 = 0.8;

/// Measures the row.
///
/// # Errors
/// See [`BenchError`].
pub fn row(stage: &mut Stage, effort: Effort) -> Result<Row, BenchError> {
    let count = effort.messages(accept::MESSAGES);
    let waiting = if effort.quick { WAITING_QUICK } else { WAITING };
    let stock = stage.waiting(waiting)?;
    let mut runs = Runs::default();
    let mut notes = Vec::new();
    for _ in 0..effort.runs {
        let none = cores::drive(run(stage, Plan::new(WARM_UP + count)))?;
        let devices = stage.unused_devices(WARM_UP + count);
        let many = cores::drive(run(stage, Plan { devices, stock: Some(&stock), ..Plan::new(0) }))?;
        runs.pair(many.rate(count), none.rate(count));
        notes =
            vec![format!("with {waiting}, {}", many.note(count)), format!("with none, {}", none.note(count))];
    }
    notes.insert(0, stage.ground());
    let ratio = runs.ratio();
    Ok(Row {
        name: "waiting",
        what: format!(
            "messages accepted durably and pushed while {waiting} wait, each for a device of its own; {count} \
             messages"
        ),
        value: runs.value(),
        spread: runs.spread(),
        unit: "/s",
        limit: runs.limit(),
        limit_is: Some("the same with none waiting".to_owned()),
        ratio,
        budget: format!("at least {SHARE} x the rate with none"),
        holds: ratio.is_some_and(|ratio| ratio >= SHARE),
        notes,
    })
}

async fn run(stage: &mut Stage, plan: Plan<'_>) -> Result<Cost, BenchError> {
    let scene = Scene::open(stage, plan).await?;
    let messages: Arc<[Message]> = seal_all(&scene.hospital, &scene.devices)?.into();
    accept_and_push(&scene, &messages).await
}
