//! The engine from outside: what commands and readers notice.

mod crash;
mod faults;
mod groups;
mod journal_tail;
mod model;
mod opening;

use std::future::Future as _;
use std::sync::{Arc, Condvar, Mutex};

use super::*;

const ROWS: Keyspace = Keyspace::rows(0, "rows");
const BOXES: Keyspace = Keyspace::bulk(1, "boxes");
const KEYSPACES: [Keyspace; 2] = [ROWS, BOXES];
const VERSION: u8 = 3;

/// What a test command refuses with.
#[derive(Debug, PartialEq, Eq)]
struct Declined;

fn options(folder: &Path) -> Options {
    Options { reserve_free_bytes: 0, ..Options::new(folder, &KEYSPACES, VERSION) }
}

fn open(options: Options) -> Engine {
    Engine::open(options, &Metrics::new()).unwrap()
}

fn put(engine: &Engine, key: &'static str, value: &'static str) -> Reply<(), Declined> {
    engine.write("put", move |view| {
        view.put(ROWS, key, value);
        Ok(())
    })
}

fn text(value: Option<Slice>) -> Option<String> {
    value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

fn get(engine: &Engine, key: &str) -> Option<String> {
    text(engine.get(ROWS, key).unwrap())
}

/// Holds commits: what is queued meanwhile becomes one group.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    shut: bool,
    writer_held: bool,
}

impl Gate {
    fn hook(self: &Arc<Self>) -> CommitHook {
        let gate = self.clone();
        Arc::new(move |stage| {
            if stage == CommitStage::Before {
                let mut state = gate.state.lock().unwrap();
                while state.shut {
                    state.writer_held = true;
                    gate.changed.notify_all();
                    state = gate.changed.wait(state).unwrap();
                }
                state.writer_held = false;
            }
            Ok(())
        })
    }

    /// Shuts the gate, and sends a write into it: the writer is held when this returns.
    fn hold(&self, engine: &Engine) -> Reply<(), Declined> {
        self.state.lock().unwrap().shut = true;
        let held = put(engine, "held", "by the gate");
        let mut state = self.state.lock().unwrap();
        while !state.writer_held {
            state = self.changed.wait(state).unwrap();
        }
        held
    }

    fn open(&self) {
        self.state.lock().unwrap().shut = false;
        self.changed.notify_all();
    }
}

/// An engine whose commits a test can hold.
fn gated(folder: &Path) -> (Engine, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let engine = open(Options { commit_hook: Some(gate.hook()), ..options(folder) });
    (engine, gate)
}

/// Whether the reply is there, without waiting.
fn is_answered<T, E>(reply: &mut Reply<T, E>) -> bool {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    std::pin::Pin::new(reply).poll(&mut context).is_ready()
}
