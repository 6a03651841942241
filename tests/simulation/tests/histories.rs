//! Histories of groups, by their seeds.
//!
//! `SEALPOST_HISTORIES` says how many to run instead of the first 500, or as many as fit into a minute, `SEALPOST_SEED`
//! which one to begin with, and with `SEALPOST_TRACE` a history that fails tells what happened in it.

use std::time::{Duration, Instant};

use sealpost_simulation::{Fault, History, Hospital, Scenery, Tally, run};

/// How long the histories of an ordinary run take.
const TIME: Duration = Duration::from_secs(60);
/// An ordinary run ends here even if there is time left: what it runs is the same everywhere.
const HISTORIES_MAX: u64 = 500;
/// A seeded fault is found within so many histories.
const HISTORIES_PER_FAULT: u64 = 400;

/// Histories that have found something once, each under a name. A seed means the same history in a scenery as long as
/// the table of events in `world/events.rs` stays as it is.
const FOUND: [(&str, u64, Scenery); 3] = [
    (
        "a member whose invitation was for a key package that is gone, and whose removal came after it",
        79,
        Scenery::PLAIN,
    ),
    ("a commit that is refused was staged again at once, for ever", 15, Scenery::PLAIN),
    ("an invitation overtook the relay's answer to a commit", 262, Scenery::PLAIN),
];

fn hospitals() -> [Hospital; 2] {
    [Hospital::st_mary(), Hospital::of_an_intruder()]
}

fn number_from(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn whatever_happens_the_group_heals() {
    let [hospital, intruder] = hospitals();
    let begun = Instant::now();
    let first = number_from("SEALPOST_SEED").unwrap_or(1);
    let histories = number_from("SEALPOST_HISTORIES");
    let mut all = Tally::default();
    let mut count = 0;
    while count < histories.unwrap_or(HISTORIES_MAX) && (histories.is_some() || begun.elapsed() < TIME) {
        let history = History::of(first + count);
        let tally = run(&hospital, &intruder, history).unwrap_or_else(|wrong| panic!("{wrong}"));
        all.add(&tally);
        count += 1;
    }
    println!("{count} histories in {:?}: {all:#?}", begun.elapsed());
    assert!(all.opened > 0 && all.came_back > 0 && all.kills > 0 && all.restored > 0);
    assert!(all.hybrid > 0 && all.several > 0 && all.skewed > 0 && all.absences > 0);
}

#[test]
fn found_cases_stay_mended() {
    let [hospital, intruder] = hospitals();
    for (name, seed, scenery) in FOUND {
        let history = History { seed, scenery, fault: None };
        run(&hospital, &intruder, history).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
    }
}

#[test]
fn every_seeded_fault_is_found() {
    let [hospital, intruder] = hospitals();
    for fault in Fault::ALL {
        let found = (1..=HISTORIES_PER_FAULT).find_map(|seed| {
            run(&hospital, &intruder, History { fault: Some(fault), ..History::of(seed) }).err()
        });
        let found = found.unwrap_or_else(|| panic!("{fault:?} is not found"));
        println!("{fault:?}: {}", found.lines().next().unwrap_or_default());
    }
}
