//! The demo as a person runs it: what it shows, what it refuses, and that its search finds what is planted.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/hl7/critical-potassium.hl7");
const NO_RESULT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/hl7/ADT-A08-01.hl7");

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealpost-demo"));
    // Programs that were built elsewhere; without it the demo builds them itself, as it does for a person.
    if let Some(folder) = std::env::var_os("SEALPOST_PROGRAMS").filter(|_| !arguments.contains(&"--programs"))
    {
        command.arg("--programs").arg(folder);
    }
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The object on the last line of standard output.
fn report(output: &Output) -> Value {
    let out = text(&output.stdout);
    let last = out.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|_| panic!("no JSON: {out}\n{}", text(&output.stderr)))
}

#[test]
fn both_phones_open_the_sample_and_nothing_is_found_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let output = demo(&["--json"]).env("TMPDIR", folder.path()).output().unwrap();
    let report = report(&output);
    assert!(output.status.success(), "{report}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "the folder of the run is gone");
    assert_eq!(report["opened"], 2);
    assert_eq!(report["plaintext_found_outside_devices"], 0);
    assert_eq!(report["receipts_verified"], 2);
    assert!(report["milliseconds_accept_to_opened"].as_u64().unwrap() < 10_000);
    assert!(report["milliseconds_in_all"].as_u64().unwrap() < 15_000);
    // Every test name, value and note is on the phones, and stores, logs and pushes were there to be searched.
    assert!(report["canaries_on_devices"].as_u64().unwrap() >= 12);
    assert!(report["searched_values"].as_u64().unwrap() > 100);

    let out = text(&output.stdout);
    for shown in [
        "Potassium: 6.9 mmol/L, critically high (reference range 3.5-5.1)",
        "stored message",
        "\"sealpost\":\"sync\"",
        "Urgent lab result",
        "2 receipts verified",
        "both servers: every stored row",
        "no plaintext found outside the phones",
    ] {
        assert!(out.contains(shown), "{shown} is not in\n{out}");
    }
}

#[test]
fn every_encoding_is_found_wherever_it_is_planted() {
    let encodings = "raw,hex,hex-upper,utf16-le,utf16-be,base64,base64-at1,base64-at2,base64url,base64url-at1,\
                     base64url-at2";
    let output = demo(&["--json", "--plant", encodings, "--plant-in", "log,store,push"]).output().unwrap();
    let report = report(&output);
    assert_eq!(report["planted_found"], 33, "{report}");
    assert!(report["plaintext_found_outside_devices"].as_u64().unwrap() >= 33);
    assert!(output.status.success(), "found, and nothing beside it: {report}");
    assert_eq!(report["opened"], 2);
}

/// The sample with other line ends, another patient and texts of its own, in bytes.
fn variant(folder: &Path, line_end: &str, charset: &str, encode: impl Fn(&str) -> Vec<u8>) -> PathBuf {
    let sample = fs::read_to_string(SAMPLE).unwrap();
    let lines: Vec<&str> = sample.split(['\r', '\n']).filter(|line| !line.is_empty()).collect();
    let message = lines.join(line_end) + line_end;
    for part in ["PX-30417", "Lindqvist", "UNICODE UTF-8"] {
        assert!(message.contains(part), "{part}");
    }
    let message =
        message.replace("PX-30417", "ä/77").replace("Lindqvist", "Müßig").replace("UNICODE UTF-8", charset);
    let path = folder.join("result.hl7");
    fs::write(&path, encode(&message)).unwrap();
    path
}

#[test]
fn a_file_may_have_any_line_ends_mark_and_character_set() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let utf16 = |text: &str| -> Vec<u8> {
        std::iter::once(0xFEFF).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
    };
    let latin1 =
        |text: &str| -> Vec<u8> { text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect() };
    let files: [(&str, &dyn Fn() -> PathBuf); 4] = [
        ("UTF-8", &|| variant(folder, "\n", "UNICODE UTF-8", |text| text.as_bytes().to_vec())),
        ("UTF-8", &|| variant(folder, "\r\n", "", |text| ["\u{FEFF}", text].concat().into_bytes())),
        ("windows-1252", &|| variant(folder, "\r", "8859/1", latin1)),
        ("UTF-16LE", &|| variant(folder, "\r\n", "UNICODE UTF-16", utf16)),
    ];
    for (charset, file) in files {
        let file = file();
        let output = demo(&["--json", "--hl7", file.to_str().unwrap()]).output().unwrap();
        let report = report(&output);
        assert!(output.status.success(), "{charset}: {report}");
        assert_eq!((&report["opened"], &report["plaintext_found_outside_devices"]), (&2.into(), &0.into()));
        assert!(text(&output.stdout).contains(&format!("; {charset})")), "{}", text(&output.stdout));
    }
}

#[test]
fn what_is_missing_is_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("words"), "Dear Sir or Madam").unwrap();
    let full = folder.path().to_str().unwrap();
    for (arguments, expected) in [
        (vec!["--hl7", &path("none")], "No such file"),
        // As `cargo demo -- --hl7 FILE` gives them.
        (vec!["--", "--hl7", &path("none")], "No such file"),
        (vec!["--hl7", full], "Is a directory"),
        (vec!["--hl7", &path("words")], "does not begin with MSH"),
        (vec!["--hl7", NO_RESULT], "messages of type ADT^A08 are not supported"),
        (vec!["--programs", full], "the program sealpost-relay is missing"),
        (vec!["--programs", &path("none")], "No such file"),
    ] {
        let output = demo(&arguments).output().unwrap();
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{arguments:?}: {error}");
        assert!(error.contains(expected), "{arguments:?}: {error}");
        assert!(output.stdout.is_empty());
    }
    let output = demo(&["--json", "--hl7", &path("none")]).output().unwrap();
    assert!(report(&output)["error"].as_str().unwrap().contains("No such file"));
    // Told only after the programs were built, so that Cargo may have said something before.
    let output = demo(&["--dir", full]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("the folder is not empty"));
    assert_eq!(fs::read_to_string(path("words")).unwrap(), "Dear Sir or Madam");
}

/// Runs the demo until a line that holds `sign` is printed. Returns it, its output so far, and the rest of its output.
fn run_until(command: &mut Command, sign: &str) -> (Child, String, BufReader<std::process::ChildStdout>) {
    let mut child = command.stderr(Stdio::inherit()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut seen = String::new();
    while !seen.contains(sign) {
        assert!(out.read_line(&mut seen).unwrap() > 0, "it ended: {seen}");
    }
    (child, seen, out)
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn nothing_is_left_when_it_is_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    for (sent, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let mut command = demo(&[]);
        let (mut child, seen, mut rest) = run_until(command.env("TMPDIR", folder.path()), "Running");
        signal(&child, sent);
        rest.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code));
        let mut addresses = seen.split(&['/', ',', ' ', '\n']).filter(|part| part.starts_with("127.0.0.1:"));
        for _server in ["keyserver", "relay"] {
            let address = addresses.next().unwrap();
            assert!(TcpStream::connect(address).is_err(), "{address} still answers");
        }
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_folder_that_is_named_is_kept_with_everything_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let output = demo(&["--json", "--dir", run.to_str().unwrap()]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(report(&output)["folder"], fs::canonicalize(&run).unwrap().to_str().unwrap());
    for kept in ["logs/relay.log", "dumps/relay.ndjson", "dumps/keyserver.ndjson", "metrics/relay.prom"] {
        assert!(fs::metadata(run.join(kept)).unwrap().len() > 0, "{kept}");
    }
    // The hospital's own copy holds the plaintext, with the canaries: that the search looks for it is no accident.
    let sent = fs::read_to_string(run.join("hospital/input/result.hl7")).unwrap();
    assert!(sent.contains("Lindqvist"));
}

#[test]
fn what_it_tells_to_try_can_be_tried() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = demo(&["--stay", "--json"]);
    let (mut child, seen, mut rest) = run_until(command.env("TMPDIR", folder.path()), "/metrics\n");
    let told = |what: &str| {
        let mut lines = seen.lines().map(str::trim);
        lines
            .find(|line| line.starts_with("# ") && line.contains(what))
            .unwrap_or_else(|| panic!("{what}: {seen}"));
        let shell = Command::new("sh").args(["-c", lines.next().unwrap()]).output().unwrap();
        assert!(shell.status.success(), "{what}: {}", text(&shell.stderr));
        text(&shell.stdout)
    };
    assert!(told("Where the alert is").contains("opened"));
    assert!(told("The same result again").contains("already sent"));
    told("A text to both phones");
    let mut shown = String::new();
    while shown.matches("Please call us.").count() < 2 {
        assert!(rest.read_line(&mut shown).unwrap() > 0, "{shown}");
    }
    signal(&child, Signal::INT);
    let mut out = Vec::new();
    rest.read_to_end(&mut out).unwrap();
    assert!(child.wait().unwrap().success(), "{}", text(&out));
    let last: Value = serde_json::from_str(text(&out).lines().last().unwrap()).unwrap();
    assert_eq!((&last["opened"], &last["plaintext_found_outside_devices"]), (&2.into(), &0.into()));
}

#[test]
fn a_care_team_talks_and_a_revoked_phone_opens_nothing_later() {
    let folder = tempfile::tempdir().unwrap();
    let output = demo(&["--mls", "--json"]).env("TMPDIR", folder.path()).output().unwrap();
    let report = report(&output);
    assert!(output.status.success(), "{report}\n{}", text(&output.stderr));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "the folder of the run is gone");
    assert_eq!((&report["members"], &report["members_left"]), (&4.into(), &3.into()));
    // Three invitations and the removal, in the order of one slot.
    assert_eq!(
        (&report["commits"], &report["slots"], &report["slot_claims"]),
        (&4.into(), &1.into(), &4.into())
    );
    // A question to three, an answer and a confirmation to three each, the patient's words to two.
    assert_eq!((&report["messages"], &report["readings"]), (&4.into(), &11.into()));
    assert_eq!(report["removed_by_next_commit"], true);
    assert_eq!(report["lost_phone_turned_away"], "revoked");
    assert_eq!((&report["lost_phone_opened_later"], &report["lost_phone_commits"]), (&0.into(), &3.into()));
    assert_eq!(report["plaintext_found_outside_devices"], 0);
    assert_eq!((&report["canaries"], &report["canaries_on_devices"]), (&6.into(), &6.into()));
    assert!(report["searched_values"].as_u64().unwrap() > 100);
    assert_eq!(report["stubs"], 2);

    let out = text(&output.stdout);
    for shown in [
        "Potassium 6.9 mmol/L, critically high. Can somebody see her now?",
        "[I am on my way]",
        "shows the doctor's answer:",
        "I feel weak. Where are you?",
        "is turned away: revoked",
        "no plaintext found outside the phones",
    ] {
        assert!(out.contains(shown), "{shown} is not in\n{out}");
    }
    assert!(!out.contains("FAIL"), "{out}");
}

#[test]
fn what_is_planted_beside_a_care_team_is_found() {
    let output = demo(&["--mls", "--json", "--plant", "raw,hex,base64", "--plant-in", "log,store"]).output();
    let output = output.unwrap();
    let report = report(&output);
    assert_eq!(report["planted_found"], 6, "{report}");
    assert!(output.status.success(), "found, and nothing beside it: {report}");
    for beside in [&["--hl7", SAMPLE][..], &["--stay"]] {
        let refused = demo(&[&["--mls"], beside].concat()).output().unwrap();
        assert_eq!(refused.status.code(), Some(2), "{beside:?}");
    }
}
