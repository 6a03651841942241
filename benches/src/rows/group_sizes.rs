//! What changes of a group cost, and how that grows with its members.

use std::path::Path;
use std::time::Instant;

use sealpost_group::limits::{ADDS_PER_COMMIT_MAX, PAST_EPOCHS_MAX};
use sealpost_group::{CommitPlan, GroupSuite, NewMember};
use sealpost_wire::limits::SIGNED_BYTES_MAX;

use crate::cast::{Hospital, Participant};
use crate::circle::{self, Circle, LABEL, bytes_of, commit, commit_of, welcome_of};
use crate::cores;
use crate::error::BenchError;
use crate::member_memory::{self, Resident};
use crate::picture::{Line, Panel, Unit, draw};
use crate::report::{Row, median, millis};
use crate::rows::Effort;
use crate::scene::Stage;

/// Members.
const SIZES: [usize; 4] = [2, 10, 50, 500];
/// With the hybrid suite, whose keys are 1216 bytes long, a welcome to 500 would be larger than a frame may be.
const SIZES_HYBRID: [usize; 4] = [2, 10, 50, 200];
const SIZES_QUICK: [usize; 3] = [2, 10, 20];
/// Growth counts from here on: below, what every commit costs hides it.
const GROWTH_FROM: usize = 10;
/// What growth with the members (an exponent of 1) may look like on a machine with other things to do.
const EXPONENT_MAX: f64 = 1.1;
/// Members above which a change is repeated less often in a run.
const MANY: usize = 100;
const REPEATED: usize = 10;
const REPEATED_MANY: usize = 3;

/// Measures the row, and draws it if a picture is asked for.
///
/// # Errors
/// [`BenchError::Cast`], [`BenchError::Miscounted`], [`BenchError::Io`].
pub fn row(
    name: &'static str,
    suite: GroupSuite,
    stage: &mut Stage,
    effort: Effort,
) -> Result<Row, BenchError> {
    let sizes = match suite {
        _ if effort.quick => &SIZES_QUICK[..],
        GroupSuite::Classical => &SIZES,
        GroupSuite::Hybrid => &SIZES_HYBRID,
    };
    let (hospital, folder) = (stage.cast.hospital(), &stage.folder);
    let all = cores::run_on(cores::TESTED, || {
        let all = sizes.iter().map(|members| measure(hospital, folder, suite, *members, effort));
        all.collect::<Result<Vec<Measured>, BenchError>>()
    })??;
    if let Some(file) = stage.picture.as_ref().filter(|_| suite == GroupSuite::Classical) {
        std::fs::write(file, picture(&all)).map_err(BenchError::io("writing the picture"))?;
    }
    let largest = all.last().ok_or(BenchError::Ended)?;
    let updates = &largest.update.made;
    let series = [
        Series::of("invite all", &all, |at| &at.create),
        Series::of("add", &all, |at| &at.add),
        Series::of("update", &all, |at| &at.update),
        Series::of("remove", &all, |at| &at.remove),
    ];
    // Inviting everybody takes as many commits as there are members for, which is all that it says.
    let steepest = series.iter().skip(1).flat_map(Series::exponents).fold(f64::NEG_INFINITY, f64::max);
    let mut notes: Vec<String> = series.iter().flat_map(|series| series.notes(&all)).collect();
    notes.extend(others(&all));
    notes.push(room(&series[1].points(WELCOME)));
    Ok(Row {
        name,
        what: format!(
            "an update in a group of {}, {suite:?}: the commit staged and merged, one core",
            largest.members
        ),
        value: median(updates),
        spread: [
            updates.iter().copied().fold(f64::INFINITY, f64::min),
            updates.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        ],
        unit: "ms",
        limit: None,
        limit_is: None,
        ratio: None,
        budget: format!(
            "no time or size of add, update or remove grows faster than the members from {GROWTH_FROM} on: \
             exponent at most {EXPONENT_MAX} ({steepest:.2} seen)"
        ),
        holds: steepest <= EXPONENT_MAX,
        notes,
    })
}

/// What one kind of change costs in groups of one size.
#[derive(Default)]
struct Change {
    /// The commit staged and merged by its author (ms).
    made: Vec<f64>,
    /// The commit processed by another member (ms).
    processed: Vec<f64>,
    /// The welcome processed by who comes in (ms).
    joined: Vec<f64>,
    /// Bytes of the commit.
    commit: usize,
    /// Bytes of the welcome.
    welcome: usize,
}

/// Groups of one size.
struct Measured {
    members: usize,
    /// A group made, and everybody invited to it.
    create: Change,
    /// The first update after that.
    first_update: Change,
    /// The last member comes in.
    add: Change,
    update: Change,
    remove: Change,
    /// Bytes that a member keeps.
    state: usize,
    resident: Resident,
}

fn measure(
    hospital: &Hospital,
    folder: &Path,
    suite: GroupSuite,
    members: usize,
    effort: Effort,
) -> Result<Measured, BenchError> {
    let repeat = effort.runs * if members > MANY { REPEATED_MANY } else { REPEATED };
    let (create, first_update) = invite_all(hospital, suite, members, effort)?;
    let mut circle = Circle::new(hospital, suite)?;
    circle.grow(members - 1)?;
    circle.renew(PAST_EPOCHS_MAX + 1)?;
    let (guest, new) = circle.guest()?;
    let add = CommitPlan { add: vec![new], ..CommitPlan::default() };
    let add = change(hospital, &circle, &add, Some(&guest), repeat)?;
    circle.grow(members)?;
    circle.renew(PAST_EPOCHS_MAX + 1)?;
    let update = change(hospital, &circle, &CommitPlan::default(), None, repeat)?;
    let remove = CommitPlan { remove: vec![circle.last()], ..CommitPlan::default() };
    let remove = change(hospital, &circle, &remove, None, repeat)?;
    let state = circle.steward.store().bytes();
    let resident = member_memory::measure(hospital, &mut circle, folder)?;
    Ok(Measured { members, create, first_update, add, update, remove, state, resident })
}

/// Makes the same change again and again, each time from the same state.
fn change(
    hospital: &Hospital,
    circle: &Circle<'_>,
    plan: &CommitPlan,
    guest: Option<&Participant>,
    repeat: usize,
) -> Result<Change, BenchError> {
    let mut change = Change::default();
    let by = circle.steward.device();
    for _ in 0..repeat {
        let mut steward = circle.steward.clone();
        let start = Instant::now();
        let staged = commit(&mut steward, hospital, circle.group(), plan)?;
        change.made.push(millis(start.elapsed()));
        change.commit = bytes_of(commit_of(&staged)?);
        if let Some(mut reader) = circle.reader.clone() {
            let start = Instant::now();
            reader.follow(hospital, by, commit_of(&staged)?)?;
            change.processed.push(millis(start.elapsed()));
        }
        if let Some(mut guest) = guest.cloned() {
            let welcome = welcome_of(&staged)?;
            change.welcome = bytes_of(welcome);
            let start = Instant::now();
            guest.follow(hospital, by, welcome)?;
            change.joined.push(millis(start.elapsed()));
        }
    }
    Ok(change)
}

/// A group made and everybody invited, as many at once as one commit takes; and the first update after that, when
/// nobody else has renewed anything.
fn invite_all(
    hospital: &Hospital,
    suite: GroupSuite,
    members: usize,
    effort: Effort,
) -> Result<(Change, Change), BenchError> {
    let guests = cores::make_on_both(members - 1, |_| circle::guest(hospital, suite))?;
    let (guests, invited): (Vec<Participant>, Vec<NewMember>) = guests.into_iter().unzip();
    let founder = hospital.participant(true)?;
    let (mut create, mut first_update) = (Change::default(), Change::default());
    for _ in 0..effort.runs {
        let (mut steward, mut last) = (founder.clone(), None);
        create.commit = 0;
        let start = Instant::now();
        let group = steward.groups(hospital, |groups| groups.create(LABEL, &[], suite))?;
        for add in invited.chunks(ADDS_PER_COMMIT_MAX) {
            let plan = CommitPlan { add: add.to_vec(), ..CommitPlan::default() };
            let staged = commit(&mut steward, hospital, group, &plan)?;
            create.commit += bytes_of(commit_of(&staged)?);
            last = Some(staged);
        }
        create.made.push(millis(start.elapsed()));

        let (Some(staged), Some(mut guest)) = (last, guests.last().cloned()) else { continue };
        let welcome = welcome_of(&staged)?;
        create.welcome = bytes_of(welcome);
        let start = Instant::now();
        guest.follow(hospital, steward.device(), welcome)?;
        create.joined.push(millis(start.elapsed()));

        let start = Instant::now();
        let staged = commit(&mut steward, hospital, group, &CommitPlan::default())?;
        first_update.made.push(millis(start.elapsed()));
        first_update.commit = bytes_of(commit_of(&staged)?);
        let start = Instant::now();
        guest.follow(hospital, steward.device(), commit_of(&staged)?)?;
        first_update.processed.push(millis(start.elapsed()));
    }
    Ok((create, first_update))
}

/// One figure of a change, size by size; NaN where there is none.
type Figure = fn(&Change) -> f64;

const MADE: Figure = |change| median(&change.made);
const PROCESSED: Figure = |change| median(&change.processed);
const JOINED: Figure = |change| median(&change.joined);
const COMMIT: Figure = |change| bytes(change.commit);
const WELCOME: Figure = |change| bytes(change.welcome);

/// The figures of one kind of change over all sizes.
struct Series<'m> {
    name: &'static str,
    changes: Vec<(usize, &'m Change)>,
}

impl<'m> Series<'m> {
    fn of(name: &'static str, all: &'m [Measured], which: impl Fn(&Measured) -> &Change) -> Self {
        Self { name, changes: all.iter().map(|at| (at.members, which(at))).collect() }
    }

    /// Members and figure, where there is one.
    fn points(&self, figure: Figure) -> Vec<(f64, f64)> {
        let points = self.changes.iter().map(|(members, change)| (bytes(*members), figure(change)));
        points.filter(|(_, figure)| figure.is_finite() && *figure > 0.0).collect()
    }

    fn exponents(&self) -> impl Iterator<Item = f64> {
        let figures = [MADE, PROCESSED, JOINED, COMMIT, WELCOME];
        figures.into_iter().filter_map(|figure| exponent(&self.points(figure)))
    }

    fn notes(&self, all: &[Measured]) -> Vec<String> {
        let sizes = all.iter().map(|at| at.members.to_string()).collect::<Vec<_>>().join(" | ");
        let figures: [(&str, Figure, &str); 5] = [
            ("made", MADE, "ms"),
            ("processed", PROCESSED, "ms"),
            ("joined", JOINED, "ms"),
            ("commit", COMMIT, "KiB"),
            ("welcome", WELCOME, "KiB"),
        ];
        let there = figures.into_iter().filter(|(_, figure, _)| !self.points(*figure).is_empty());
        there
            .map(|(what, figure, unit)| {
                let shown = self.changes.iter().map(|(_, change)| match figure(change) {
                    none if !none.is_finite() || none == 0.0 => "-".to_owned(),
                    bytes if unit == "KiB" => format!("{:.1}", bytes / 1024.0),
                    ms => format!("{ms:.2}"),
                });
                let shown = shown.collect::<Vec<_>>().join(" | ");
                let grows = exponent(&self.points(figure));
                let grows = grows.map_or_else(String::new, |grows| format!(", exponent {grows:.2}"));
                format!("{} of {sizes}, {what} ({unit}): {shown}{grows}", self.name)
            })
            .collect()
    }
}

/// What is seen beside the changes.
fn others(all: &[Measured]) -> Vec<String> {
    let sizes = all.iter().map(|at| at.members.to_string()).collect::<Vec<_>>().join(" | ");
    let list = |of: fn(&Measured) -> f64| {
        all.iter().map(|at| format!("{:.1}", of(at))).collect::<Vec<_>>().join(" | ")
    };
    vec![
        format!(
            "the first update after all were invited, {sizes}: made {} ms, processed {} ms, {} KiB",
            list(|at| MADE(&at.first_update)),
            list(|at| PROCESSED(&at.first_update)),
            list(|at| COMMIT(&at.first_update) / 1024.0)
        ),
        format!("what a member keeps, {sizes}: {} KiB", list(|at| bytes(at.state) / 1024.0)),
        format!(
            "a process that reads the group from files and takes one commit, {sizes}: {} MiB resident at most, of \
             which {} MiB before it began",
            list(|at| mebibytes(at.resident.peak)),
            list(|at| mebibytes(at.resident.before))
        ),
    ]
}

/// Up to how many members a welcome, which carries the tree, fits into a box.
fn room(welcomes: &[(f64, f64)]) -> String {
    let (most, kib) = (bytes(SIGNED_BYTES_MAX), SIGNED_BYTES_MAX / 1024);
    let beyond = welcomes.windows(2).find_map(|pair| match pair {
        [before, after] if before.1 <= most && after.1 > most => Some((before, after)),
        _ => None,
    });
    match beyond {
        // Between two sizes, on the line between them where both are logarithms.
        Some((before, after)) => {
            let share = (most / before.1).ln() / (after.1 / before.1).ln();
            let members = before.0 * (after.0 / before.0).powf(share);
            format!(
                "a box holds {kib} KiB: the welcome of one who comes in fits up to about {members:.0} members"
            )
        }
        None => format!("a box holds {kib} KiB: every welcome of one who came in fits"),
    }
}

/// The exponent with which the figures grow with the members: the slope of the line that fits them best where both
/// are logarithms, from the size on at which growth counts.
fn exponent(points: &[(f64, f64)]) -> Option<f64> {
    let logs: Vec<(f64, f64)> = points
        .iter()
        .filter(|(members, _)| *members >= bytes(GROWTH_FROM))
        .map(|(members, figure)| (members.ln(), figure.ln()))
        .collect();
    if logs.len() < 2 {
        return None;
    }
    let count = bytes(logs.len());
    let mean_of = |part: fn(&(f64, f64)) -> f64| logs.iter().map(part).sum::<f64>() / count;
    let (x, y) = (mean_of(|log| log.0), mean_of(|log| log.1));
    let together: f64 = logs.iter().map(|log| (log.0 - x) * (log.1 - y)).sum();
    let alone: f64 = logs.iter().map(|log| (log.0 - x).powi(2)).sum();
    Some(together / alone)
}

fn picture(all: &[Measured]) -> String {
    let series = [
        Series::of("invite all", all, |at| &at.create),
        Series::of("add", all, |at| &at.add),
        Series::of("update", all, |at| &at.update),
        Series::of("remove", all, |at| &at.remove),
    ];
    let lines = |solid: Figure, dashed: [Figure; 4]| {
        let both = series.iter().zip(dashed).enumerate().flat_map(|(colour, (series, dashed))| {
            [(solid, false), (dashed, true)].map(|(figure, dashed)| Line {
                colour,
                dashed,
                points: series.points(figure),
            })
        });
        both.filter(|line| !line.points.is_empty()).collect::<Vec<_>>()
    };
    let panels = [
        Panel {
            title: "time: solid its author, dashed another member (or who comes in)",
            unit: Unit::Milliseconds,
            lines: lines(MADE, [JOINED, PROCESSED, PROCESSED, PROCESSED]),
        },
        Panel {
            title: "size: solid the commit, dashed the welcome",
            unit: Unit::Bytes,
            lines: lines(COMMIT, [WELCOME, WELCOME, WELCOME, WELCOME]),
        },
    ];
    draw(&series.each_ref().map(|series| series.name), "members", &panels)
}

fn bytes(count: usize) -> f64 {
    // Counts and sizes of a measurement are far below what a float holds exactly.
    #[allow(clippy::cast_precision_loss)]
    let count = count as f64;
    count
}

fn mebibytes(count: u64) -> f64 {
    bytes(usize::try_from(count).unwrap_or(usize::MAX)) / (1024.0 * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exponent_is_that_of_the_growth() {
        let sizes = [10.0, 50.0, 500.0_f64];
        for power in [0.0, 0.5, 1.0, 2.0] {
            let points = sizes.map(|members| (members, 3.0 * members.powf(power)));
            let found = exponent(&points).expect("three points");
            assert!((found - power).abs() < 1e-9, "{power}: {found}");
        }
        let fits = room(&[(50.0, bytes(SIGNED_BYTES_MAX) / 2.0), (200.0, bytes(SIGNED_BYTES_MAX) * 2.0)]);
        assert!(fits.ends_with("up to about 100 members"), "{fits}");
        // What is below the beginning of growth does not count.
        assert_eq!(exponent(&[(2.0, 1e9), (10.0, 1.0)]), None);
    }

    #[test]
    fn groups_of_every_kind_are_measured_and_drawn() {
        let hospital = Hospital::new().expect("a hospital");
        let effort = Effort { runs: 1, messages: None, quick: true };
        let mut all = Vec::new();
        for members in [2, 5] {
            let (create, first_update) =
                invite_all(&hospital, GroupSuite::Classical, members, effort).expect("a group");
            let mut circle = Circle::new(&hospital, GroupSuite::Classical).expect("a group");
            circle.grow(members - 1).expect("it grows");
            let (guest, new) = circle.guest().expect("a guest");
            let add = CommitPlan { add: vec![new], ..CommitPlan::default() };
            let add = change(&hospital, &circle, &add, Some(&guest), 1).expect("the guest comes in");
            circle.grow(members).expect("it grows");
            let group = circle.group();
            let seen = circle.steward.groups(&hospital, |groups| groups.members(group));
            assert_eq!(seen.expect("members").len(), members);
            let update = change(&hospital, &circle, &CommitPlan::default(), None, 1).expect("an update");
            let remove = CommitPlan { remove: vec![circle.last()], ..CommitPlan::default() };
            let remove = change(&hospital, &circle, &remove, None, 1).expect("a removal");
            assert!(add.welcome > 0 && update.welcome == 0 && update.commit > 0);
            let (state, resident) = (circle.steward.store().bytes(), Resident::default());
            all.push(Measured { members, create, first_update, add, update, remove, state, resident });
        }
        let picture = picture(&all);
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"), "{picture}");
        assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
    }
}
