//! `cargo drill`, as a person or a script runs it.

use std::process::Command;

#[test]
fn the_command_says_its_seed_and_ends_with_its_result() {
    let output = Command::new(env!("CARGO_BIN_EXE_drill"))
        .args(["kills", "--count", "1", "--victim", "sender", "--victim", "relay", "--seed", "7", "--json"])
        // Without Cargo it takes the programs as they are.
        .env_remove("CARGO")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "seed = 7");
    assert_eq!(lines.len(), 1 + 2 + 2, "the seed, two kills, a summary, the object: {text}");
    let report: serde_json::Value = serde_json::from_str(lines[4]).unwrap();
    assert_eq!(report["kills"], 2);
    assert_eq!(report["broken"], serde_json::json!([]));
    assert!(report["alerts"].as_u64() > Some(0) && report["duplicates"] == 0);
}

#[test]
fn an_unknown_victim_is_refused() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_drill")).args(["kills", "--victim", "patient"]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("patient"));
}

#[test]
fn fuzzing_takes_targets_that_exist_and_a_time_that_ends() {
    for arguments in [
        &["--target", "patient"][..],
        &["--minutes", "0"],
        &["--minutes", "NaN"],
        &["--minutes", "inf"],
        &["--input", "x"],
        &["--resume", "--results"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_drill")).arg("fuzz").args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: a word about its use, and nothing else");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty());
    }
}
