//! Kills and power cuts under load: what was promised holds, and a program that does not sync is found out.

use std::time::{Duration, Instant};

use getrandom::SysRng;
use getrandom::rand_core::{Rng as _, UnwrapErr};
use sealpost_tests::drill::{Drill, DrillOptions, PATIENCE, Report, run};
use sealpost_tests::plan::{Files, Strike, Victim};
use sealpost_tests::program::Syncs;
use sealpost_tests::promises::Broken;
use sealpost_tests::record::Seen;

/// Kills of each program, and power cuts of each.
const KILLS: usize = 8;
const CUTS: usize = 4;
/// How much must have happened before the one cut that is to be found out.
const ENOUGH: usize = 20;
/// A promise that is broken already does not get better: a shorter wait will do.
const PATIENCE_WITH_THE_BROKEN: Duration = Duration::from_secs(3);

#[test]
fn kills_break_no_promise() {
    assert_kept(&DrillOptions { seed: 20_260_114, victims: Victim::ALL.to_vec(), count: KILLS, cuts: false });
}

#[test]
fn kills_at_random_break_no_promise() {
    let seed = UnwrapErr(SysRng).next_u64();
    assert_kept(&DrillOptions { seed, victims: Victim::ALL.to_vec(), count: KILLS, cuts: false });
}

#[test]
fn power_cuts_break_no_promise() {
    assert_kept(&DrillOptions { seed: 31_415_926, victims: Victim::CUT.to_vec(), count: CUTS, cuts: true });
}

#[test]
fn power_cuts_at_random_break_no_promise() {
    let seed = UnwrapErr(SysRng).next_u64();
    assert_kept(&DrillOptions { seed, victims: Victim::CUT.to_vec(), count: CUTS, cuts: true });
}

#[test]
fn a_relay_that_does_not_sync_is_found_out() {
    let report = cut_without_syncs(Victim::Relay, |drill| {
        // What is accepted now waits at the relay and nowhere else.
        drill.hold_devices().unwrap();
        let before = drill.record().seen().accepted.len();
        wait_for(drill, |seen| seen.accepted.len() >= before + ENOUGH);
    });
    let lost = report.promises.iter().filter(|one| matches!(one, Broken::AcceptedLost(..))).count();
    assert!(lost >= ENOUGH, "{:?}", report.broken);
}

#[test]
fn a_keyserver_that_does_not_sync_is_found_out() {
    let report = cut_without_syncs(Victim::Keyserver, |drill| {
        wait_for(drill, |seen| seen.prekeys.len() >= ENOUGH && !seen.consents.is_empty());
    });
    assert!(report.promises.iter().any(|one| matches!(one, Broken::PrekeyTwice(_))), "{:?}", report.broken);
    assert!(report.promises.iter().any(|one| matches!(one, Broken::ConsentLost(_))), "{:?}", report.broken);
}

#[test]
fn an_outbox_that_does_not_sync_is_found_out() {
    let report = cut_without_syncs(Victim::Sender, |drill| {
        wait_for(drill, |seen| seen.queued.len() >= ENOUGH);
    });
    let lost = report.promises.iter().filter(|one| matches!(one, Broken::AlertLost(_))).count();
    assert!(lost >= ENOUGH, "{:?}", report.broken);
}

#[test]
fn a_device_that_does_not_sync_is_found_out_by_the_keys_that_it_uses_again() {
    // The first device is a member of the group.
    let report = cut_without_syncs(Victim::Device, |drill| {
        wait_for(drill, |seen| seen.said.len() >= ENOUGH);
    });
    let used = report.promises.iter().any(|one| matches!(one, Broken::KeyTwice(_)));
    assert!(used, "{:?}", report.broken);
}

#[track_caller]
fn assert_kept(options: &DrillOptions) {
    println!("seed = {}", options.seed);
    let report = run(options, &mut |number, strike, back_after| {
        println!("{number} {strike:?}, back in {back_after:?}");
    });
    let report = report.unwrap_or_else(|error| panic!("seed = {}: {error}", options.seed));
    assert!(report.broken.is_empty(), "seed = {}: {:#?}\n{}", options.seed, report.broken, report.logs);
    assert_eq!(report.kills, options.count * options.victims.len());
    // There was load, and all of it came through.
    assert!(report.alerts > report.kills && report.opened > report.alerts, "{report:?}");
    assert!(report.said > options.count, "{report:?}");
}

/// A drill with one cut of `victim`, whose syncs make nothing durable, once `enough` has happened.
fn cut_without_syncs(victim: Victim, enough: impl FnOnce(&mut Drill)) -> Report {
    let mut drill = Drill::begin(Some(Syncs::AreIgnored)).unwrap();
    let devices_were_held = victim == Victim::Relay;
    enough(&mut drill);
    let strike = Strike { victim, device: 0, exchanges: 0, pause: Duration::ZERO, files: Files::Cut };
    drill.strike(&strike).unwrap();
    if devices_were_held {
        drill.release_devices().unwrap();
    }
    let before = drill.record().seen().prekeys.len();
    wait_for(&drill, |seen| seen.prekeys.len() >= before + ENOUGH);
    drill.finish(PATIENCE_WITH_THE_BROKEN).unwrap()
}

#[track_caller]
fn wait_for(drill: &Drill, enough: impl FnMut(&Seen) -> bool) {
    assert!(drill.record().wait_for(Instant::now() + PATIENCE, enough), "the load has come to a stop");
}
