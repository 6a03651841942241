//! What many settled messages leave behind: how long it takes to lease the pushes that are due.

use crate::cores;
use crate::error::BenchError;
use crate::report::{Row, Runs, percentile};
use crate::rows::Effort;
use crate::scene::Stage;
use crate::stock::Stock;

/// Messages that were settled before.
const SETTLED: usize = 5_000_000;
const SETTLED_QUICK: usize = 2000;
/// Pushes that are leased.
const LEASES: usize = 20_000;
/// Pushes that are leased together: what a lane asks for while it is busy.
const AT_ONCE: usize = 16;
/// What must not be exceeded, of the time in an empty store.
const MOST: f64 = 1.5;
/// The part of all leases that must be faster.
const SHARE: f64 = 0.99;

/// Measures the row.
///
/// # Errors
/// See [`BenchError`].
pub fn row(stage: &mut Stage, effort: Effort) -> Result<Row, BenchError> {
    let settled = if effort.quick { SETTLED_QUICK } else { SETTLED };
    let count = effort.messages(LEASES);
    let stock = Stock::settled(stage, settled)?;
    let mut runs = Runs::default();
    let mut notes = vec![
        stage.ground(),
        format!("µs for {AT_ONCE} leases, median / p99, empty store and after {settled}, run by run:"),
    ];
    for _ in 0..effort.runs {
        let empty = Stock::empty(stage)?;
        let empty = Leases::measure(&empty, count)?;
        let full = Leases::measure(&stock, count)?;
        let (value, limit) = full.worst_beside(&empty);
        runs.pair(value, limit);
        notes.push(format!("{}; {}", empty.in_words(), full.in_words()));
    }
    let ratio = runs.ratio();
    Ok(Row {
        name: "settled",
        what: format!(
            "p99 of leasing {AT_ONCE} of {count} due pushes after {settled} messages were opened: of pushes \
             just accepted, or found in the store after it was opened, whichever is worse"
        ),
        value: runs.value(),
        spread: runs.spread(),
        unit: "µs",
        limit: runs.limit(),
        limit_is: Some("the same in an empty store".to_owned()),
        ratio,
        budget: format!("at most {MOST} x the time in an empty store"),
        holds: ratio.is_some_and(|ratio| ratio <= MOST),
        notes,
    })
}

/// Sorted times of leases (microseconds).
struct Leases {
    /// Of jobs that came while the store was open.
    fresh: Vec<f64>,
    /// Of jobs that were there when it was opened.
    found: Vec<f64>,
}

impl Leases {
    fn measure(stock: &Stock, count: usize) -> Result<Self, BenchError> {
        cores::run_on(cores::TESTED, || {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let runtime = runtime.map_err(BenchError::io("making a runtime"))?;
            let open = stock.open()?;
            let fresh = runtime.block_on(async {
                let devices = open.register(count).await?;
                open.accept(&devices).await?;
                let fresh = open.time_leases(count, AT_ONCE).await?;
                let devices = open.register(count).await?;
                open.accept(&devices).await?;
                Ok::<_, BenchError>(fresh)
            })?;
            open.close();
            let open = stock.open()?;
            let found = runtime.block_on(open.time_leases(count, AT_ONCE))?;
            open.close();
            Ok(Self { fresh: sorted_micros(fresh), found: sorted_micros(found) })
        })?
    }

    /// The p99 that grew more, and what it was in `other`.
    fn worst_beside(&self, other: &Self) -> (f64, f64) {
        let p99 = |times: &[f64]| percentile(times, SHARE);
        let fresh = (p99(&self.fresh), p99(&other.fresh));
        let found = (p99(&self.found), p99(&other.found));
        if fresh.0 / fresh.1 >= found.0 / found.1 { fresh } else { found }
    }

    fn in_words(&self) -> String {
        let [fresh, found] = [&self.fresh, &self.found]
            .map(|times| format!("{:.0} / {:.0}", percentile(times, 0.5), percentile(times, SHARE)));
        format!("just accepted {fresh}, found {found}")
    }
}

fn sorted_micros(mut millis: Vec<f64>) -> Vec<f64> {
    millis.iter_mut().for_each(|time| *time *= 1000.0);
    millis.sort_by(f64::total_cmp);
    millis
}
