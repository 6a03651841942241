//! Commands of one group: they see each other, stand and fall alone, and wait for the disk together.

use super::*;

#[test]
fn a_declined_command_is_taken_back_and_the_others_of_its_group_stand() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, gate) = gated(folder.path());
    put(&engine, "durable", "old").wait().unwrap().unwrap();

    let held = gate.hold(&engine);
    let first = put(&engine, "shared", "first");
    let declined: Reply<(), Declined> = engine.write("decline", |view| {
        view.put(ROWS, "shared", "declined");
        view.put(ROWS, "shared", "declined again");
        view.put(ROWS, "own", "declined");
        view.remove(ROWS, "durable");
        view.remove(ROWS, "shared");
        Err(Declined)
    });
    let seen_after: Reply<_, Declined> = engine.write("look", |view| {
        Ok([view.get(ROWS, "shared"), view.get(ROWS, "own"), view.get(ROWS, "durable")])
    });
    gate.open();

    held.wait().unwrap().unwrap();
    first.wait().unwrap().unwrap();
    assert_eq!(declined.wait().unwrap(), Err(Declined));
    let seen = seen_after.wait().unwrap().unwrap().map(text);
    assert_eq!(seen, [Some("first".into()), None, Some("old".into())]);
    assert_eq!(get(&engine, "shared").as_deref(), Some("first"));
    assert_eq!(get(&engine, "own"), None);
    assert_eq!(get(&engine, "durable").as_deref(), Some("old"));
}

#[test]
fn a_panicking_command_is_taken_back_and_the_writer_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(options(folder.path()));
    let panicked: Reply<(), Declined> = engine.write("panic", |view| {
        view.put(ROWS, "key", "half done");
        panic!("a mistake in a command");
    });
    assert!(matches!(panicked.wait(), Err(EngineError::Panicked("panic"))));
    let empty_key: Reply<(), Declined> = engine.write("empty_key", |view| {
        view.put(ROWS, "key", "half done");
        view.put(ROWS, "", "no key");
        Ok(())
    });
    assert!(matches!(empty_key.wait(), Err(EngineError::Panicked("empty_key"))));
    assert_eq!(get(&engine, "key"), None);
    put(&engine, "key", "whole").wait().unwrap().unwrap();
    assert_eq!(get(&engine, "key").as_deref(), Some("whole"));
}

#[test]
fn nobody_sees_a_group_and_nobody_is_answered_before_it_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, gate) = gated(folder.path());
    let mut held = gate.hold(&engine);
    let before = engine.snapshot();
    let mut written = put(&engine, "key", "value");
    let mut declined: Reply<(), Declined> =
        engine.write("decline", |view| if view.contains(ROWS, "key") { Err(Declined) } else { Ok(()) });
    let mut only_read: Reply<_, Declined> = engine.write("look", |view| Ok(view.get(ROWS, "held")));

    assert_eq!(get(&engine, "held"), None);
    assert_eq!(get(&engine, "key"), None);
    assert_eq!(engine.snapshot().range(ROWS, ..).count(), 0);
    assert!(!is_answered(&mut held) && !is_answered(&mut written));
    assert!(!is_answered(&mut declined) && !is_answered(&mut only_read));

    gate.open();
    written.wait().unwrap().unwrap();
    assert_eq!(declined.wait().unwrap(), Err(Declined));
    assert_eq!(text(only_read.wait().unwrap().unwrap()).as_deref(), Some("by the gate"));
    assert_eq!(get(&engine, "key").as_deref(), Some("value"));
    assert_eq!(engine.snapshot().range(ROWS, ..).count(), 2);
    assert_eq!(before.range(ROWS, ..).count(), 0, "a snapshot stays at its moment");
}

#[test]
fn of_two_commands_that_race_for_a_key_in_one_group_one_wins() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, gate) = gated(folder.path());
    let held = gate.hold(&engine);
    let claim = |name: &'static str| {
        engine.write("claim", move |view| {
            if view.contains(ROWS, "slot") {
                return Err(Declined);
            }
            view.put(ROWS, "slot", name);
            Ok(())
        })
    };
    let claims = [claim("one"), claim("two"), claim("three")];
    gate.open();
    held.wait().unwrap().unwrap();
    assert_eq!(claims.map(|claim| claim.wait().unwrap()), [Ok(()), Err(Declined), Err(Declined)]);
    assert_eq!(get(&engine, "slot").as_deref(), Some("one"));
}

#[test]
fn commands_run_in_the_order_in_which_they_were_given() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(Options { group_max_commands: 7, ..options(folder.path()) });
    let replies: Vec<Reply<u64, Declined>> = (0..500)
        .map(|_| {
            engine.write("count", |view| {
                let count = view
                    .get(ROWS, "count")
                    .map_or(0, |value| u64::from_be_bytes((*value).try_into().unwrap()));
                view.put(ROWS, "count", (count + 1).to_be_bytes());
                Ok(count)
            })
        })
        .collect();
    for (expected, reply) in replies.into_iter().enumerate() {
        assert_eq!(reply.wait().unwrap(), Ok(expected as u64));
    }
}

#[test]
fn a_group_ends_at_its_bytes_and_the_rest_follows() {
    let folder = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gate::default());
    let metrics = Metrics::new();
    let options = Options { commit_hook: Some(gate.hook()), group_max_bytes: 1000, ..options(folder.path()) };
    let engine = Engine::open(options, &metrics).unwrap();
    let held = gate.hold(&engine);
    let replies: Vec<Reply<(), Declined>> = (0..4_u8)
        .map(|number| {
            engine.write("put", move |view| {
                view.put(BOXES, [number], vec![number; 600]);
                Ok(())
            })
        })
        .collect();
    gate.open();
    held.wait().unwrap().unwrap();
    for reply in replies {
        reply.wait().unwrap().unwrap();
    }
    // The held one, and then two by two: after 601 bytes there is room for another, after 1202 there is none.
    assert!(metrics.render().contains("sealpost_store_group_commands_count 3\n"), "{}", metrics.render());
}

#[test]
fn a_full_queue_refuses_at_once_and_takes_again_later() {
    let folder = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gate::default());
    let engine = open(Options { commit_hook: Some(gate.hook()), queue_len: 2, ..options(folder.path()) });
    let held = gate.hold(&engine);
    let waiting = [put(&engine, "one", "1"), put(&engine, "two", "2")];
    let refused = put(&engine, "three", "3").wait().unwrap_err();
    assert!(matches!(refused, EngineError::Busy) && refused.is_retryable());
    assert_eq!(engine.queue_len(), 2);
    gate.open();
    held.wait().unwrap().unwrap();
    for reply in waiting {
        reply.wait().unwrap().unwrap();
    }
    put(&engine, "three", "3").wait().unwrap().unwrap();
    assert_eq!(get(&engine, "three").as_deref(), Some("3"));
}

#[tokio::test]
async fn a_dropped_reply_does_not_call_its_command_back() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(options(folder.path()));
    drop(put(&engine, "key", "value"));
    let seen: Reply<_, Declined> = engine.write("look", |view| Ok(view.get(ROWS, "key")));
    assert_eq!(text(seen.await.unwrap().unwrap()).as_deref(), Some("value"));
}

#[test]
fn metrics_tell_commands_groups_and_refusals() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Metrics::new();
    let engine = Engine::open(options(folder.path()), &metrics).unwrap();
    put(&engine, "key", "value").wait().unwrap().unwrap();
    let declined: Reply<(), Declined> = engine.write("decline", |_| Err(Declined));
    assert_eq!(declined.wait().unwrap(), Err(Declined));
    engine.shutdown();
    assert!(put(&engine, "key", "value").wait().is_err());
    let text = metrics.render();
    for line in [
        "sealpost_store_commands_total{command=\"put\",outcome=\"done\"} 1",
        "sealpost_store_commands_total{command=\"decline\",outcome=\"declined\"} 1",
        "sealpost_store_refused_total{reason=\"stopped\"} 1",
        "sealpost_store_commit_seconds_count 1",
        "sealpost_store_group_commands_count 2",
        "sealpost_store_queue_commands 0",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn what_follows_a_commit_is_done_in_order_and_only_for_commands_that_stand() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, gate) = gated(folder.path());
    let done = Arc::new(Mutex::new(Vec::new()));
    let following = |name: &'static str, stands: bool| {
        let done = done.clone();
        engine.write("following", move |view| {
            view.put(ROWS, name, "written");
            view.after_commit(move || done.lock().unwrap().push(name));
            if stands { Ok(()) } else { Err(Declined) }
        })
    };
    let held = gate.hold(&engine);
    let first = following("first", true);
    drop(following("second, whose caller has gone away", true));
    let declined = following("declined", false);
    let last = following("last", true);
    assert_eq!(*done.lock().unwrap(), [""; 0], "nothing is durable yet");
    gate.open();

    held.wait().unwrap().unwrap();
    first.wait().unwrap().unwrap();
    let names = ["first", "second, whose caller has gone away", "last"];
    assert_eq!(*done.lock().unwrap(), names, "before the first answer");
    assert_eq!(declined.wait().unwrap(), Err(Declined));
    last.wait().unwrap().unwrap();
}
