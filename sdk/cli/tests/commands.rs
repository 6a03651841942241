//! The `sealpost` command, as a person or a script meets it.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    /// A desk with a tenant and a sender, whose servers are not there.
    fn with_tenant() -> Self {
        let desk = Self::new();
        // Port 9 discards; nothing listens there.
        let servers = ["--keyserver", "http://127.0.0.1:9", "--relay", "http://127.0.0.1:9"];
        desk.run(&[&["tenant", "init", "st-mary"], &servers[..]].concat()).done();
        desk.run(&["sender", "add", "laboratory"]).done();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, "")
    }

    fn run_with(&self, arguments: &[&str], input: &str) -> Ran {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sealpost"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env_remove("SEALPOST_HOME")
            .env_remove("SEALPOST_DEVICE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        // A program that does not read its input may be gone already.
        let _written = stdin.write_all(input.as_bytes());
        drop(stdin);
        Ran(child.wait_with_output().expect("the program ends"))
    }
}

struct Ran(Output);

impl Ran {
    fn code(&self) -> i32 {
        self.0.status.code().expect("it ended by itself")
    }

    fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    fn json(&self) -> Value {
        let text = self.stdout();
        let last = text.lines().last().unwrap_or_default().to_owned();
        serde_json::from_str(&last).unwrap_or_else(|_| panic!("the last line is not JSON: {last:?}"))
    }

    fn done(self) -> Self {
        assert_eq!(self.code(), 0, "{} {}", self.stdout(), self.stderr());
        self
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[test]
fn every_command_has_help() {
    let desk = Desk::new();
    let commands: &[&[&str]] = &[
        &[],
        &["tenant"],
        &["tenant", "init"],
        &["tenant", "show"],
        &["tenant", "revoke"],
        &["sender", "add"],
        &["recipient", "new"],
        &["consent"],
        &["ticket", "new"],
        &["ticket", "approve"],
        &["device", "enrol"],
        &["device", "sync"],
        &["device", "confirm"],
        &["send"],
        &["outbox", "run"],
        &["quarantine", "list"],
        &["status"],
    ];
    for command in commands {
        let ran = desk.run(&[command, &["--help"][..]].concat()).done();
        assert!(ran.stdout().contains("Usage: sealpost"), "{command:?}");
    }
    assert!(desk.run(&["--help"]).stdout().contains("Exit codes"));
    assert_eq!(
        desk.run(&["--version"]).done().stdout().trim(),
        concat!("sealpost ", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn mistakes_on_the_command_line_exit_with_2() {
    let desk = Desk::new();
    for arguments in
        [&["nonsense"][..], &["send"], &["tenant", "init", "St Mary"], &["send", "--hl7", "a"], &["ticket"]]
    {
        let ran = desk.run(arguments);
        assert_eq!(ran.code(), 2, "{arguments:?}");
        let with_json = [arguments, &["--json"]].concat();
        let ran = desk.run(&with_json);
        assert_eq!((ran.code(), ran.json()["error"]["code"].as_str()), (2, Some("usage")), "{arguments:?}");
    }
    let init =
        ["tenant", "init", "st-mary", "--keyserver", "keys.example", "--relay", "https://relay.example"];
    assert_eq!(desk.run(&init).code(), 2, "a server's URL has a scheme");
}

#[test]
fn keys_are_for_their_owner_only() {
    let desk = Desk::with_tenant();
    let home = desk.path("sealpost-home");
    for file in ["root.json", "enrollers/enroller.json", "senders/laboratory.json"] {
        assert_eq!(mode(&home.join(file)), 0o600, "{file}");
    }
    for folder in ["", "enrollers", "senders"] {
        assert_eq!(mode(&home.join(folder)), 0o700, "{folder:?}");
    }
    // A key that others could have read is not used.
    let key = home.join("senders/laboratory.json");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("it is ours");
    let ran = desk.run(&["status", "--json"]);
    assert_eq!((ran.code(), ran.json()["error"]["code"].as_str()), (1, Some("file")));
    assert!(ran.json()["error"]["message"].as_str().is_some_and(|text| text.contains("0600")));
}

#[test]
fn nothing_is_overwritten() {
    let desk = Desk::with_tenant();
    let root = fs::read(desk.path("sealpost-home/root.json")).expect("a root");
    let again =
        desk.run(&["tenant", "init", "other", "--keyserver", "http://k", "--relay", "http://r", "--json"]);
    assert_eq!((again.code(), again.json()["error"]["code"].as_str()), (1, Some("tenant_exists")));
    let again = desk.run(&["sender", "add", "laboratory", "--json"]);
    assert_eq!((again.code(), again.json()["error"]["code"].as_str()), (1, Some("sender_exists")));
    assert_eq!(fs::read(desk.path("sealpost-home/root.json")).expect("a root"), root);
}

#[test]
fn no_secret_is_printed() {
    let desk = Desk::with_tenant();
    let home = desk.path("sealpost-home");
    let mut secrets = Vec::new();
    for file in ["root.json", "enrollers/enroller.json", "senders/laboratory.json"] {
        let keys: Value = serde_json::from_slice(&fs::read(home.join(file)).expect("keys")).expect("JSON");
        collect_secrets(&keys, &mut secrets);
    }
    assert!(secrets.len() >= 7, "the search knows {} secrets only", secrets.len());
    for arguments in
        [&["tenant", "show"][..], &["tenant", "show", "--json"], &["sender", "list", "--json"], &["status"]]
    {
        let ran = desk.run(&[arguments, &["--log", "trace"]].concat()).done();
        let said = ran.stdout() + &ran.stderr();
        for secret in &secrets {
            assert!(!said.contains(secret.as_str()), "{arguments:?} prints a secret");
        }
    }
}

fn collect_secrets(value: &Value, secrets: &mut Vec<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        match value {
            Value::String(text) if name == "seed" || name.ends_with("_key") => secrets.push(text.clone()),
            other => collect_secrets(other, secrets),
        }
    }
}

#[test]
fn what_is_not_clear_is_held_and_not_sent() {
    let desk = Desk::with_tenant();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/hl7/critical-potassium.hl7");
    let sample = fs::read(sample).expect("the sample");
    let text = String::from_utf8(sample.clone()).expect("the sample is UTF-8");
    fs::write(desk.path("result.hl7"), &sample).expect("a file");
    fs::write(desk.path("cut.hl7"), &sample[..sample.len() / 3]).expect("a file");
    fs::write(desk.path("junk.hl7"), b"\x00\xff not a message").expect("a file");
    fs::write(desk.path("training.hl7"), text.replacen("|P|", "|T|", 1)).expect("a file");
    let row = "[[patients]]\nauthority = \"NORTHSIDE\"\ntype = \"MR\"\nid = \"PX-30417\"\nrecipient = \"";
    fs::write(desk.path("known.toml"), format!("{row}{}\"\n", "ab".repeat(16))).expect("a file");
    fs::write(desk.path("others.toml"), format!("{row}{}\"\n", "cd".repeat(16)).replace("30417", "1"))
        .expect("a file");
    for (file, map, code) in [
        ("result.hl7", "others.toml", "unknown_patient"),
        ("training.hl7", "known.toml", "not_production"),
        ("junk.hl7", "known.toml", ""),
    ] {
        let ran = desk.run(&["send", "--hl7", file, "--patients", map, "--json"]);
        assert_eq!((ran.code(), ran.json()["error"]["code"].as_str()), (1, Some("quarantined")), "{file}");
        let held = desk.run(&["quarantine", "list", "--json"]).done().json();
        let held = held["held"].as_array().expect("a list").clone();
        let held =
            held.iter().find(|row| code.is_empty() || row["reason"] == code).expect("it is held").clone();
        let id = held["id"].as_str().expect("an id").to_owned();
        let released = desk.run(&["quarantine", "release", &id]).done();
        assert_eq!(
            released.0.stdout,
            fs::read(desk.path(file)).expect("the file"),
            "{file} comes out as it went in"
        );
    }
    assert_eq!(desk.run(&["status", "--json"]).done().json()["alerts"].as_array().map(Vec::len), Some(0));
    let ran = desk.run(&["send", "--hl7", "missing.hl7", "--patients", "known.toml", "--json"]);
    assert_eq!((ran.code(), ran.json()["error"]["code"].as_str()), (1, Some("file")));
}

#[test]
fn an_alert_is_safe_in_the_outbox_while_the_servers_are_away() {
    let desk = Desk::with_tenant();
    let recipient = "ab".repeat(16);
    let send = ["send", "--text", "Call us", "--recipient", &recipient, "--source", "event-1", "--json"];
    let ran = desk.run(&send);
    assert_eq!((ran.code(), ran.json()["error"]["code"].as_str()), (3, Some("not_yet")));
    // The same event again is the same alert; with another text it is a contradiction that somebody must see.
    assert_eq!(desk.run(&send).code(), 3);
    let other = ["send", "--text", "Do not call", "--recipient", &recipient, "--source", "event-1", "--json"];
    let ran = desk.run(&other);
    assert_eq!((ran.code(), ran.json()["error"]["code"].as_str()), (1, Some("source_conflict")));
    let alerts = desk.run(&["status", "--json"]).done().json();
    assert_eq!(alerts["alerts"].as_array().map(Vec::len), Some(1));
    assert_eq!(alerts["alerts"][0]["submissions"][0]["failure"], "unreachable");
    // Nothing that was to be said is in the outbox's files as it was said.
    for entry in fs::read_dir(desk.path("sealpost-home/senders/laboratory")).expect("an outbox").flatten() {
        let bytes = fs::read(entry.path()).expect("a file");
        assert!(!bytes.windows(7).any(|window| window == b"Call us"), "{:?}", entry.path());
    }
}

#[test]
fn bad_links_and_missing_devices_are_told_in_one_line() {
    let desk = Desk::new();
    for link in ["", "https://portal.example/enrol", "https://portal.example/#sp1.AAAA", "#sp1.%%%"] {
        let ran = desk.run_with(&["device", "enrol", "-", "--json"], link);
        assert_eq!(
            (ran.code(), ran.json()["error"]["code"].as_str()),
            (1, Some("malformed_link")),
            "{link:?}"
        );
    }
    let ran = desk.run(&["device", "sync"]);
    assert_eq!(ran.code(), 1);
    assert_eq!(ran.stderr(), "sealpost: no device is enrolled here\n");
    assert_eq!(desk.run(&["device", "show", "--json"]).json()["error"]["code"], "not_enrolled");
}
