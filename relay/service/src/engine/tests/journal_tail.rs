//! A loss of power in the middle of a sync: blocks of the last batch that did not reach the disk read as
//! zeros.

use std::{
    fs::OpenOptions,
    io::{Seek as _, SeekFrom, Write as _},
};

use super::*;

const PAGE_BYTES: usize = 4096;

fn put_large(engine: &Engine, key: &'static str, byte: u8) {
    let written: Reply<(), Declined> = engine.write("put", move |view| {
        view.put(ROWS, key, vec![byte; 5 * PAGE_BYTES]);
        Ok(())
    });
    written.wait().unwrap().unwrap();
}

/// Overwrites the pages of the journal that lie within values of `byte`, from the `skip`-th on, `count` of
/// them.
fn overwrite_pages(folder: &Path, byte: u8, skip: usize, count: usize, with: u8) {
    let path = folder.join("0.jnl");
    let journal = std::fs::read(&path).unwrap();
    let pages = journal.chunks_exact(PAGE_BYTES).enumerate();
    let within: Vec<_> =
        pages.filter(|(_, page)| page.iter().all(|b| *b == byte)).map(|(at, _)| at).collect();
    let mut file = OpenOptions::new().write(true).open(&path).unwrap();
    assert!(within.len() >= skip + count);
    for at in &within[skip..skip + count] {
        file.seek(SeekFrom::Start((at * PAGE_BYTES) as u64)).unwrap();
        file.write_all(&[with; PAGE_BYTES]).unwrap();
    }
}

/// A store with a small row, a large one, and then another large one as its last batch.
fn store_with_large_last_batch() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(options(folder.path()));
    put(&engine, "small", "value").wait().unwrap().unwrap();
    put_large(&engine, "earlier", 1);
    put_large(&engine, "last", 2);
    folder
}

#[test]
fn a_last_batch_with_a_page_that_was_never_written_is_dropped_and_the_rest_is_there() {
    for (skip, count) in [(0, 1), (1, 2), (2, 1)] {
        let folder = store_with_large_last_batch();
        overwrite_pages(folder.path(), 2, skip, count, 0);
        let engine = open(options(folder.path()));
        assert_eq!(get(&engine, "small").as_deref(), Some("value"));
        assert_eq!(engine.get(ROWS, "earlier").unwrap().unwrap().len(), 5 * PAGE_BYTES);
        assert_eq!(engine.get(ROWS, "last").unwrap(), None);
        put_large(&engine, "last", 3);
        drop(engine);
        let engine = open(options(folder.path()));
        assert_eq!(engine.get(ROWS, "last").unwrap().unwrap().first(), Some(&3));
    }
}

#[test]
fn a_damaged_batch_that_was_answered_is_an_error_and_nothing_is_cut() {
    // A hole in an earlier batch, and bytes of the last that are wrong without being unwritten.
    for (byte, with) in [(1, 0), (2, 0xaa)] {
        let folder = store_with_large_last_batch();
        overwrite_pages(folder.path(), byte, 0, 1, with);
        let before = std::fs::read(folder.path().join("0.jnl")).unwrap();
        let refused = Engine::open(options(folder.path()), &Metrics::new()).unwrap_err();
        assert!(matches!(refused, OpenError::Database(_)), "{refused}");
        assert!(std::fs::read(folder.path().join("0.jnl")).unwrap() == before, "the journal was changed");
    }
}
