//! A view's reads against a `BTreeMap`, over any mix of stored, overlaid, removed and taken-back rows.

use std::{
    collections::BTreeMap,
    ops::{Bound, RangeBounds},
};

use proptest::prelude::*;

use super::*;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// What one command does before it looks.
#[derive(Clone, Debug)]
struct Step {
    changes: Vec<Change>,
    declines: bool,
    look: Look,
}

#[derive(Clone, Debug)]
enum Change {
    Put(Vec<u8>, Vec<u8>),
    Remove(Vec<u8>),
    Take(Vec<u8>),
}

#[derive(Clone, Debug)]
struct Look {
    prefix: Vec<u8>,
    start: Bound<Vec<u8>>,
    end: Bound<Vec<u8>>,
}

/// Everything that a command, or a reader, can see through one look.
#[derive(Debug, PartialEq)]
struct Seen {
    at_prefix: Option<Vec<u8>>,
    range: Vec<(Vec<u8>, Vec<u8>)>,
    range_rev: Vec<(Vec<u8>, Vec<u8>)>,
    prefixed: Vec<(Vec<u8>, Vec<u8>)>,
    prefixed_rev: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Few bytes, so that keys meet, and the one that has no successor.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0_u8, 1, 0xfe, 0xff]), 1..4)
}

fn change() -> impl Strategy<Value = Change> {
    let value = prop::collection::vec(any::<u8>(), 0..4);
    prop_oneof![
        3 => (key(), value).prop_map(|(key, value)| Change::Put(key, value)),
        1 => key().prop_map(Change::Remove),
        1 => key().prop_map(Change::Take),
    ]
}

fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
    prop_oneof![key().prop_map(Bound::Included), key().prop_map(Bound::Excluded), Just(Bound::Unbounded),]
}

fn step() -> impl Strategy<Value = Step> {
    let look = (prop::collection::vec(prop::sample::select(vec![0_u8, 1, 0xff]), 0..3), bound(), bound())
        .prop_map(|(prefix, start, end)| Look { prefix, start, end });
    (prop::collection::vec(change(), 0..6), prop::bool::weighted(0.25), look)
        .prop_map(|(changes, declines, look)| Step { changes, declines, look })
}

fn apply(model: &mut Model, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Put(key, value) => model.insert(key.clone(), value.clone()),
            Change::Remove(key) | Change::Take(key) => model.remove(key),
        };
    }
}

fn expected(model: &Model, look: &Look) -> Seen {
    let bounds = (look.start.clone(), look.end.clone());
    let inside = |key: &Vec<u8>| RangeBounds::<Vec<u8>>::contains(&bounds, key);
    let collect = |keep: &dyn Fn(&Vec<u8>) -> bool| -> Vec<_> {
        model.iter().filter(|(key, _)| keep(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let range = collect(&inside);
    let prefixed = collect(&|key| key.starts_with(&look.prefix));
    Seen {
        at_prefix: model.get(&look.prefix).cloned(),
        range_rev: range.iter().rev().cloned().collect(),
        range,
        prefixed_rev: prefixed.iter().rev().cloned().collect(),
        prefixed,
    }
}

fn owned(rows: impl Iterator<Item = Row>) -> Vec<(Vec<u8>, Vec<u8>)> {
    rows.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

fn seen_by_view(view: &View, look: &Look) -> Seen {
    let bounds = || (look.start.as_ref().map(Vec::as_slice), look.end.as_ref().map(Vec::as_slice));
    let at_prefix = (!look.prefix.is_empty()).then(|| view.get(ROWS, &look.prefix)).flatten();
    assert_eq!(at_prefix.is_some(), !look.prefix.is_empty() && view.contains(ROWS, &look.prefix));
    Seen {
        at_prefix: at_prefix.map(|value| value.to_vec()),
        range: owned(view.range(ROWS, bounds())),
        range_rev: owned(view.range_rev(ROWS, bounds())),
        prefixed: owned(view.prefix(ROWS, &look.prefix)),
        prefixed_rev: owned(view.prefix_rev(ROWS, &look.prefix)),
    }
}

fn seen_by_snapshot(engine: &Engine, look: &Look) -> Seen {
    let bounds = || (look.start.as_ref().map(Vec::as_slice), look.end.as_ref().map(Vec::as_slice));
    let snapshot = engine.snapshot();
    let at_prefix = (!look.prefix.is_empty()).then(|| snapshot.get(ROWS, &look.prefix).unwrap()).flatten();
    Seen {
        at_prefix: at_prefix.map(|value| value.to_vec()),
        range: owned(snapshot.range(ROWS, bounds()).map(Result::unwrap)),
        range_rev: owned(snapshot.range_rev(ROWS, bounds()).map(Result::unwrap)),
        prefixed: owned(snapshot.prefix(ROWS, &look.prefix).map(Result::unwrap)),
        prefixed_rev: owned(snapshot.prefix_rev(ROWS, &look.prefix).map(Result::unwrap)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Groups of commands; each looks after its own changes, and whether it is taken back shows in the next.
    #[test]
    fn a_view_reads_like_a_map(groups in prop::collection::vec(prop::collection::vec(step(), 1..5), 1..5)) {
        let folder = tempfile::tempdir().unwrap();
        let (engine, gate) = gated(folder.path());
        let mut model = Model::from([(b"held".to_vec(), b"by the gate".to_vec())]);
        for group in groups {
            let held = gate.hold(&engine);
            let replies: Vec<_> = group.iter().cloned().map(|step| {
                engine.write("step", move |view| {
                    for change in step.changes {
                        match change {
                            Change::Put(key, value) => view.put(ROWS, key, value),
                            Change::Remove(key) => view.remove(ROWS, key),
                            Change::Take(key) => {
                                let value = view.get(ROWS, &key);
                                assert_eq!(view.take(ROWS, key), value);
                            }
                        }
                    }
                    let seen = seen_by_view(view, &step.look);
                    if step.declines { Err(seen) } else { Ok(seen) }
                })
            }).collect();
            gate.open();
            held.wait().unwrap().unwrap();
            for (step, reply) in group.iter().zip(replies) {
                let mut changed = model.clone();
                apply(&mut changed, &step.changes);
                let (Ok(seen) | Err(seen)) = reply.wait().unwrap();
                prop_assert_eq!(seen, expected(&changed, &step.look));
                if !step.declines {
                    model = changed;
                }
            }
            if let Some(last) = group.last() {
                prop_assert_eq!(seen_by_snapshot(&engine, &last.look), expected(&model, &last.look));
            }
        }
    }
}
