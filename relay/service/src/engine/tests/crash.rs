//! A process that is killed: what it had been told is durable is there, and nothing in part.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command as Process, Stdio},
};

use super::*;

/// Tells the test binary that it is the process to be killed, and which folder is its store.
const FOLDER_VARIABLE: &str = "SEALPOST_CRASH_TEST_FOLDER";

const WRITERS: u32 = 8;

/// Answers that are read before the process is killed.
const ANSWERS: usize = 2000;

/// The process to be killed: writes a row and a box for each number, and prints the numbers that were
/// answered.
#[test]
#[ignore = "run by a_killed_process_has_lost_nothing_that_it_was_told_is_durable"]
fn writes_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER_VARIABLE) else { return };
    // Small memtables: the kill may come while files are written out and journals turn over.
    let engine = open(Options { memtable_bytes: 256 * 1024, ..options(folder.as_ref()) });
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let engine = engine.clone();
            thread::spawn(move || {
                for round in 0.. {
                    let number: u32 = round * WRITERS + writer;
                    let written: Reply<(), Declined> = engine.write("put", move |view| {
                        view.put(ROWS, number.to_be_bytes(), number.to_be_bytes());
                        view.put(BOXES, number.to_be_bytes(), number.to_be_bytes().repeat(600));
                        Ok(())
                    });
                    written.wait().unwrap().unwrap();
                    writeln!(io::stdout().lock(), "durable {number}").unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
}

#[test]
fn a_killed_process_has_lost_nothing_that_it_was_told_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::new(std::env::current_exe().unwrap())
        .args(["--exact", "engine::tests::crash::writes_until_it_is_killed", "--ignored", "--nocapture"])
        .env(FOLDER_VARIABLE, folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let answered: Vec<u32> = lines
        .map(Result::unwrap)
        .filter_map(|line| line.strip_prefix("durable ")?.parse().ok())
        .take(ANSWERS)
        .collect();
    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!(answered.len(), ANSWERS);

    let engine = open(options(folder.path()));
    let snapshot = engine.snapshot();
    for number in answered {
        assert!(snapshot.get(ROWS, number.to_be_bytes()).unwrap().is_some(), "{number} is lost");
    }
    let rows: Vec<_> = snapshot.range(ROWS, ..).map(|row| row.unwrap().0).collect();
    let boxes: Vec<_> = snapshot.range(BOXES, ..).map(Result::unwrap).collect();
    assert_eq!(rows, boxes.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), "a command in part");
    assert!(boxes.iter().all(|(key, value)| **value == key.repeat(600)));
}
