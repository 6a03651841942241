//! Every target over its corpus, its seeds, and plain mutations of both: without coverage feedback, and in every
//! run of the tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use sealpost_fuzz::{TARGETS, Target, seeds};

/// How long a target is given mutations.
const MUTATION_TIME: Duration = Duration::from_millis(500);
/// Bytes of the whole corpus: it is checked in.
const CORPUS_BYTES_MAX: u64 = 200 * 1024;

#[test]
fn every_target_has_seeds_and_a_folder() {
    let seeded: BTreeSet<&str> = seeds::all().iter().map(|(name, _)| *name).collect();
    let named: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(seeded, named);
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let folders =
        fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let folders: BTreeSet<String> = folders.collect();
    assert!(folders.iter().map(String::as_str).eq(named.iter().copied()), "{folders:?}");
    let bytes: u64 = TARGETS.iter().flat_map(inputs).map(|input| input.len() as u64).sum();
    assert!(bytes <= CORPUS_BYTES_MAX, "{bytes}");
}

#[test]
fn what_must_hold_holds_of_the_corpus() {
    for target in TARGETS {
        let seeds = seeds::all().into_iter().filter(|(name, _)| *name == target.name).map(|(_, seed)| seed);
        let inputs: Vec<_> = inputs(&target).into_iter().chain(seeds).chain([Vec::new()]).collect();
        for input in &inputs {
            (target.check)(input);
        }
        let started = Instant::now();
        let mut dice = Dice(1);
        while started.elapsed() < MUTATION_TIME {
            let input = mutated(&inputs, &mut dice);
            let checked = std::panic::catch_unwind(|| (target.check)(&input));
            assert!(checked.is_ok(), "{}: {:02x?}", target.name, input);
        }
    }
}

fn inputs(target: &Target) -> Vec<Vec<u8>> {
    let files = fs::read_dir(target.corpus()).unwrap();
    files.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

/// An input with a few bytes changed, put in, taken out or brought over from another one.
fn mutated(inputs: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut input = inputs[dice.below(inputs.len())].clone();
    for _ in 0..=dice.below(4) {
        let at = dice.below(input.len() + 1);
        let end = (at + 1 + dice.below(8)).min(input.len());
        match dice.below(5) {
            0 if at < input.len() => input[at] ^= 1 << dice.below(8),
            1 if at < input.len() => input[at] = dice.byte(),
            2 => drop(input.drain(at..end)),
            3 => input.insert(at, dice.byte()),
            _ => {
                let other = &inputs[dice.below(inputs.len())];
                let from = dice.below(other.len() + 1);
                let piece = other[from..(from + dice.below(32)).min(other.len())].to_vec();
                drop(input.splice(at..at, piece));
            }
        }
    }
    input
}

/// SplitMix64: what fails, fails again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((bits ^ (bits >> 31)) % bound as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }
}
