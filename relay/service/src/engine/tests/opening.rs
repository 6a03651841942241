//! Opening: versions, locks, options, and what is found again.

use super::*;

fn open_error(options: Options) -> OpenError {
    Engine::open(options, &Metrics::new()).unwrap_err()
}

#[test]
fn rows_are_there_again_after_a_shutdown_and_after_a_drop() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(options(folder.path()));
    put(&engine, "one", "1").wait().unwrap().unwrap();
    engine.shutdown();
    drop(engine);
    let engine = open(options(folder.path()));
    put(&engine, "two", "2").wait().unwrap().unwrap();
    drop(engine);
    let engine = open(options(folder.path()));
    assert_eq!(get(&engine, "one").as_deref(), Some("1"));
    assert_eq!(get(&engine, "two").as_deref(), Some("2"));
}

#[test]
fn a_folder_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(options(folder.path()));
    assert!(
        matches!(open_error(options(folder.path())), OpenError::Locked { path } if path == folder.path())
    );
    drop(engine);
    open(options(folder.path()));
}

#[test]
fn a_store_of_another_version_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(options(folder.path()));
    put(&engine, "key", "value").wait().unwrap().unwrap();
    let digest = engine.logical_digest().unwrap();
    drop(engine);

    let older_program = Options { version: VERSION - 1, ..options(folder.path()) };
    let newer_program = Options { version: VERSION + 1, ..options(folder.path()) };
    assert!(matches!(open_error(older_program), OpenError::NewerStore { found: VERSION, supported: 2 }));
    assert!(matches!(open_error(newer_program), OpenError::OlderStore { found: VERSION, needed: 4 }));
    assert_eq!(open(options(folder.path())).logical_digest().unwrap(), digest);
}

#[test]
fn a_store_of_an_older_version_that_is_read_is_raised_and_refused_by_older_programs_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(options(folder.path()));
    put(&engine, "key", "value").wait().unwrap().unwrap();
    let incarnation = engine.incarnation().unwrap();
    drop(engine);

    let newer =
        || Options { version: VERSION + 2, oldest_version: Some(VERSION + 1), ..options(folder.path()) };
    assert!(matches!(open_error(newer()), OpenError::OlderStore { found: VERSION, needed: 5 }));
    let reads_it = || Options { oldest_version: Some(VERSION), ..newer() };
    for _ in 0..2 {
        let engine = open(reads_it());
        assert_eq!(get(&engine, "key").as_deref(), Some("value"));
        assert_eq!(engine.incarnation().unwrap(), incarnation);
        drop(engine);
        assert!(matches!(
            open_error(options(folder.path())),
            OpenError::NewerStore { found: 5, supported: VERSION }
        ));
    }
}

#[test]
fn a_database_of_somebody_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let database = fjall::Database::builder(folder.path()).open().unwrap();
    database.keyspace("theirs", fjall::KeyspaceCreateOptions::default).unwrap();
    drop(database);
    assert!(matches!(open_error(options(folder.path())), OpenError::Foreign(_)));
}

#[test]
fn options_that_contradict_themselves_are_refused() {
    static OUT_OF_ORDER: [Keyspace; 2] = [BOXES, ROWS];
    static SAME_NAME: [Keyspace; 2] = [Keyspace::rows(0, "rows"), Keyspace::rows(1, "rows")];
    static OWN_NAME: [Keyspace; 1] = [Keyspace::rows(0, "_store")];
    let folder = tempfile::tempdir().unwrap();
    let good = || options(folder.path());
    for bad in [
        Options { keyspaces: &OUT_OF_ORDER, ..good() },
        Options { keyspaces: &SAME_NAME, ..good() },
        Options { keyspaces: &OWN_NAME, ..good() },
        Options { journal_bytes: JOURNAL_BYTES_MIN - 1, ..good() },
        Options { queue_len: 0, ..good() },
        Options { group_max_commands: 0, ..good() },
    ] {
        assert!(matches!(open_error(bad), OpenError::Options(_)));
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was made");
}

#[test]
fn an_incarnation_grows_by_one_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(options(folder.path()));
    assert_eq!(engine.incarnation().unwrap(), 1);
    assert_eq!(engine.raise_incarnation().wait().unwrap(), Ok(2));
    assert_eq!(engine.incarnation().unwrap(), 2);
    drop(engine);
    assert_eq!(open(options(folder.path())).incarnation().unwrap(), 2);
}

#[test]
fn rows_that_were_written_out_are_read_dumped_and_found_again() {
    const COUNT: u32 = 2000;
    let folder = tempfile::tempdir().unwrap();
    // Rotates a memtable every few commits.
    let engine = open(Options { memtable_bytes: 64 * 1024, ..options(folder.path()) });
    let written: Vec<Reply<(), Declined>> = (0..COUNT)
        .map(|number| {
            engine.write("put", move |view| {
                view.put(ROWS, number.to_be_bytes(), b"compressible ".repeat(10));
                view.put(BOXES, number.to_be_bytes(), vec![number.to_le_bytes()[0]; 2300]);
                Ok(())
            })
        })
        .collect();
    for reply in written {
        reply.wait().unwrap().unwrap();
    }
    let removed: Vec<Reply<(), Declined>> = (0..COUNT)
        .filter(|number| number % 2 == 0)
        .map(|number| {
            engine.write_with("remove", Space::Frees, move |view| {
                view.remove(BOXES, number.to_be_bytes());
                Ok(())
            })
        })
        .collect();
    for reply in removed {
        reply.wait().unwrap().unwrap();
    }
    let digest = engine.logical_digest().unwrap();
    engine.shutdown();
    drop(engine);

    let engine = open(options(folder.path()));
    assert_eq!(engine.logical_digest().unwrap(), digest);
    let mut seen = Vec::new();
    engine
        .dump(|keyspace, key, value| {
            seen.push(keyspace);
            match keyspace {
                "rows" => assert_eq!(value, b"compressible ".repeat(10)),
                "boxes" => assert_eq!(value, vec![key[3]; 2300]),
                _ => {}
            }
        })
        .unwrap();
    let count = |name| seen.iter().filter(|seen| **seen == name).count();
    assert_eq!((count("rows"), count("boxes"), count("_store")), (2000, 1000, 2));
}

#[test]
fn a_digest_tells_rows_from_rows_and_not_how_they_came() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, other] = [0, 1].map(|which| open(options(folders[which].path())));
    put(&one, "a", "1").wait().unwrap().unwrap();
    put(&one, "b", "2").wait().unwrap().unwrap();
    put(&other, "b", "2").wait().unwrap().unwrap();
    put(&other, "a", "0").wait().unwrap().unwrap();
    assert_ne!(one.logical_digest().unwrap(), other.logical_digest().unwrap());
    put(&other, "a", "1").wait().unwrap().unwrap();
    assert_eq!(one.logical_digest().unwrap(), other.logical_digest().unwrap());
}
