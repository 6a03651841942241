//! What a row found, for people and for programs.

use std::time::Duration;

use serde::Serialize;

/// One row of the budget.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name, as `--row` takes it.
    pub name: &'static str,
    /// What it measures, with the unit.
    pub what: String,
    /// The median of the runs.
    pub value: f64,
    /// The least and the greatest.
    pub spread: [f64; 2],
    /// The unit of `value` and `limit`.
    pub unit: &'static str,
    /// What the limit gave beside it (median), if the row has one.
    pub limit: Option<f64>,
    /// What the limit is.
    pub limit_is: Option<String>,
    /// `value` to `limit`: the median over the pairs.
    pub ratio: Option<f64>,
    /// What must be reached, in words.
    pub budget: String,
    /// Whether it is reached.
    pub holds: bool,
    /// What else was seen.
    pub notes: Vec<String>,
}

/// Runs of a value, paired with runs of its limit.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    values: Vec<f64>,
    limits: Vec<f64>,
}

impl Runs {
    /// One run, and its limit's run beside it.
    pub fn pair(&mut self, value: f64, limit: f64) {
        self.values.push(value);
        self.limits.push(limit);
    }

    /// One run without a limit.
    pub fn single(&mut self, value: f64) {
        self.values.push(value);
    }

    /// The median value.
    #[must_use]
    pub fn value(&self) -> f64 {
        median(&self.values)
    }

    /// The median limit.
    #[must_use]
    pub fn limit(&self) -> Option<f64> {
        (!self.limits.is_empty()).then(|| median(&self.limits))
    }

    /// The median of value to limit, pair by pair.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        let ratios: Vec<f64> =
            self.values.iter().zip(&self.limits).map(|(value, limit)| value / limit).collect();
        (!ratios.is_empty()).then(|| median(&ratios))
    }

    /// The median of value less limit, pair by pair.
    #[must_use]
    pub fn above(&self) -> f64 {
        let above: Vec<f64> =
            self.values.iter().zip(&self.limits).map(|(value, limit)| value - limit).collect();
        median(&above)
    }

    /// The least and the greatest value.
    #[must_use]
    pub fn spread(&self) -> [f64; 2] {
        let least = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        [least, greatest]
    }
}

/// `count` in `time`, as a rate.
#[must_use]
pub fn per_second(count: usize, time: Duration) -> f64 {
    // Counts of a measurement are far below what a float holds exactly.
    #[allow(clippy::cast_precision_loss)]
    let count = count as f64;
    count / time.as_secs_f64()
}

/// `time` in milliseconds.
#[must_use]
pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The middle value; the mean of the two in the middle of an even number.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

/// The value below which `share` of the sorted `values` are.
#[must_use]
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    if sorted.is_empty() {
        return f64::NAN;
    }
    // At most the number of measurements, which is no larger than a float holds exactly.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let index = ((sorted.len() as f64) * share).ceil() as usize;
    sorted[index.clamp(1, sorted.len()) - 1]
}

/// Prints a row for a person.
pub fn print(row: &Row) {
    let [least, greatest] = row.spread;
    let holds = if row.holds { "holds" } else { "FALLS SHORT" };
    println!(
        "{:<18} {:>12} {} [{} .. {}]",
        row.name,
        number(row.value),
        row.unit,
        number(least),
        number(greatest)
    );
    println!("{:18} {}", "", row.what);
    if let (Some(limit), Some(ratio), Some(limit_is)) = (row.limit, row.ratio, &row.limit_is) {
        println!("{:18} beside it: {limit_is} {} {}; ratio {ratio:.2}", "", number(limit), row.unit);
    }
    println!("{:18} budget: {}: {holds}", "", row.budget);
    for note in &row.notes {
        println!("{:18} {note}", "");
    }
    println!();
}

fn number(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_taken_pair_by_pair() {
        let mut runs = Runs::default();
        // The machine was twice as slow in the second pair: the ratio does not notice.
        for speed in [1.0, 0.5, 1.0] {
            runs.pair(40.0 * speed, 100.0 * speed);
        }
        assert_eq!(runs.ratio(), Some(0.4));
        assert_eq!(runs.above(), -60.0);
        assert_eq!((runs.value(), runs.limit()), (40.0, Some(100.0)));
        assert_eq!(runs.spread(), [20.0, 40.0]);
    }

    #[test]
    fn without_a_limit_there_is_no_ratio() {
        let mut runs = Runs::default();
        runs.single(3.0);
        runs.single(5.0);
        assert_eq!((runs.value(), runs.limit(), runs.ratio()), (4.0, None, None));
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        for (share, value) in
            [(0.0, 1.0), (0.005, 1.0), (0.5, 100.0), (0.99, 198.0), (0.999, 200.0), (1.0, 200.0)]
        {
            assert_eq!(percentile(&values, share), value, "{share}");
        }
        assert_eq!(percentile(&[7.0], 0.99), 7.0);
        assert!(percentile(&[], 0.99).is_nan() && median(&[]).is_nan());
    }

    #[test]
    fn rates_and_numbers() {
        assert_eq!(per_second(500, Duration::from_millis(250)), 2000.0);
        assert_eq!(millis(Duration::from_micros(1500)), 1.5);
        assert_eq!(
            (number(12_345.6), number(2.345), number(f64::NAN)),
            ("12346".into(), "2.35".into(), "NaN".into())
        );
    }
}
