//! A full disk, a failed sync, a damaged file, an end in the middle of work.

use super::*;

#[test]
fn short_of_space_only_what_makes_room_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(options(folder.path()));
    put(&engine, "old", "value").wait().unwrap().unwrap();
    drop(engine);

    let engine = open(Options { reserve_free_bytes: u64::MAX, ..options(folder.path()) });
    let refused = put(&engine, "new", "value").wait().unwrap_err();
    assert!(matches!(refused, EngineError::NoSpace) && refused.is_retryable());
    let expired: Reply<_, Declined> =
        engine.write_with("expire", Space::Frees, |view| Ok(view.take(ROWS, "old")));
    assert_eq!(text(expired.wait().unwrap().unwrap()).as_deref(), Some("value"));
    assert_eq!(get(&engine, "old"), None);
    assert_eq!(get(&engine, "new"), None);
}

/// Opens an engine whose commits fail at `stage`, writes, and gives what the fatal handler was told.
fn write_into_fault(folder: &Path, stage: CommitStage) -> (Engine, EngineError, Vec<EngineError>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let failing: CommitHook =
        Arc::new(move |now| if now == stage { Err(io::Error::other("no such disk")) } else { Ok(()) });
    let on_fatal: FatalHandler = {
        let told = told.clone();
        Arc::new(move |error| told.lock().unwrap().push(error.clone()))
    };
    let engine = open(Options { commit_hook: Some(failing), on_fatal: Some(on_fatal), ..options(folder) });
    let error = put(&engine, "key", "value").wait().unwrap_err();
    engine.shutdown();
    let told = told.lock().unwrap().clone();
    (engine, error, told)
}

#[test]
fn a_failed_sync_answers_nobody_with_success_and_ends_the_engine() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, error, told) = write_into_fault(folder.path(), CommitStage::Before);
    assert!(matches!(error, EngineError::Failed(_)) && !error.is_retryable());
    assert_eq!(told.len(), 1);
    assert!(engine.is_closed());
    assert!(matches!(put(&engine, "other", "value").wait(), Err(EngineError::Failed(_))));
    assert_eq!(get(&engine, "key"), None);
    drop(engine);
    assert_eq!(get(&open(options(folder.path())), "key"), None, "failed and lost");
}

#[test]
fn a_write_that_failed_after_it_reached_the_disk_is_not_answered_with_success_either() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, error, told) = write_into_fault(folder.path(), CommitStage::After);
    assert!(matches!(error, EngineError::Failed(_)));
    assert_eq!(told.len(), 1);
    drop(engine);
    let reopened = open(options(folder.path()));
    assert_eq!(get(&reopened, "key").as_deref(), Some("value"), "failed but persisted");
}

#[test]
fn everybody_who_waits_when_the_store_fails_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gate::default());
    let hold = gate.hook();
    let failing: CommitHook = Arc::new(move |stage| {
        hold(stage)?;
        Err(io::Error::other("no such disk"))
    });
    let on_fatal: FatalHandler = Arc::new(|_| ());
    let engine = open(Options {
        commit_hook: Some(failing),
        on_fatal: Some(on_fatal),
        group_max_commands: 2,
        ..options(folder.path())
    });
    let held = gate.hold(&engine);
    let waiting: Vec<_> = (0..10).map(|_| put(&engine, "key", "value")).collect();
    gate.open();
    for reply in waiting.into_iter().chain([held]) {
        assert!(matches!(reply.wait(), Err(EngineError::Failed(_))));
    }
}

#[test]
fn a_shutdown_finishes_what_waits_and_takes_nothing_more() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, gate) = gated(folder.path());
    let held = gate.hold(&engine);
    let waiting: Vec<_> = (0..10).map(|_| put(&engine, "key", "value")).collect();
    let closing = thread::spawn({
        let engine = engine.clone();
        move || engine.shutdown()
    });
    while !engine.is_closed() {
        thread::yield_now();
    }
    assert!(matches!(put(&engine, "late", "value").wait(), Err(EngineError::Stopped)));
    gate.open();
    closing.join().unwrap();
    for reply in waiting.into_iter().chain([held]) {
        reply.wait().unwrap().unwrap();
    }
    assert_eq!(get(&engine, "key").as_deref(), Some("value"), "a closed engine still reads");
    assert_eq!(get(&engine, "late"), None);
}

#[test]
fn the_last_handle_may_go_inside_a_command() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(options(folder.path()));
    let inside = engine.clone();
    let (proceed, proceeding) = std::sync::mpsc::channel::<()>();
    let reply: Reply<(), Declined> = engine.write("drop", move |view| {
        proceeding.recv().unwrap();
        view.put(ROWS, "key", "value");
        drop(inside);
        Ok(())
    });
    // The outer handle waits for the writer when it goes, so it goes elsewhere.
    let dropping = thread::spawn(move || drop(engine));
    proceed.send(()).unwrap();
    reply.wait().unwrap().unwrap();
    dropping.join().unwrap();
}

#[test]
fn a_command_that_meets_a_damaged_block_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(options(folder.path()));
    put(&engine, "damaged", "value").wait().unwrap().unwrap();
    let rows = engine.handle.store.tree(ROWS);
    rows.rotate_memtable_and_wait().unwrap();
    let tables: Vec<_> = std::fs::read_dir(rows.path().join("tables")).unwrap().collect();
    drop(engine);
    assert!(!tables.is_empty());
    for table in tables {
        let table = table.unwrap().path();
        let mut bytes = std::fs::read(&table).unwrap();
        let data = bytes.len().min(64);
        for byte in &mut bytes[..data] {
            *byte ^= 0xff;
        }
        std::fs::write(&table, bytes).unwrap();
    }

    let engine = open(Options { cache_bytes: 0, ..options(folder.path()) });
    assert!(matches!(engine.get(ROWS, "damaged"), Err(EngineError::Read(_))));
    let command: Reply<(), Declined> = engine.write("overwrite", |view| {
        view.put(ROWS, "other", "value");
        assert_eq!(view.get(ROWS, "damaged"), None);
        Ok(())
    });
    assert!(matches!(command.wait(), Err(EngineError::Read(_))));
    assert_eq!(engine.get(ROWS, "other").unwrap(), None);
}
