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
    let mut commands: Vec<Vec<String>> = vec![Vec::new()];
    let mut seen = 0;
    while let Some(command) = commands.pop() {
        let words: Vec<_> = command.iter().map(String::as_str).collect();
        let help = desk.run(&[&words[..], &["--help"]].concat()).done().stdout();
        assert!(help.contains("Usage: sealpost"), "{command:?}");
        let below = subcommands(&help);
        assert!(below.iter().all(|(_, about)| !about.is_empty()), "{command:?} has a command without a word");
        commands.extend(below.into_iter().map(|(name, _)| [&command[..], &[name]].concat()));
        seen += 1;
    }
    assert!(seen > 35, "only {seen} commands were found");
    assert!(desk.run(&["--help"]).stdout().contains("Exit codes"));
    assert_eq!(
        desk.run(&["--version"]).done().stdout().trim(),
        concat!("sealpost ", env!("CARGO_PKG_VERSION"))
    );
}

const GROUP_MISTAKES: [&[&str]; 6] = [
    &["group"],
    &["group", "add", "Ward 3"],
    &["group", "remove", "Ward 3", "the doctor"],
    &["group", "send", "Ward 3", "Come", "--offer", "yes"],
    &["group", "send", "Ward 3", "Come", "--offer", "=Yes"],
    &["group", "reply", "Ward 3", "12", "yes"],
];

/// Names and descriptions below `Commands:`, without `help` itself.
fn subcommands(help: &str) -> Vec<(String, String)> {
    let list =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let pairs = list.map(|line| {
        let (name, about) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        (name.to_owned(), about.trim().to_owned())
    });
    pairs.filter(|(name, _)| name != "help").collect()
}

#[test]
fn mistakes_on_the_command_line_exit_with_2() {
    let desk = Desk::new();
    for arguments in
        [&["nonsense"][..], &["send"], &["tenant", "init", "St Mary"], &["send", "--hl7", "a"], &["ticket"]]
            .into_iter()
            .chain(GROUP_MISTAKES.iter().copied())
    {
        let ran = desk.run(arguments);
        assert_eq!(ran.code(), 2, "{arguments:?}");
        let with_json = [arguments, &["--json"]].concat();
        let ran = desk.run(&with_json);
        assert_eq!((ran.code(), ran.json()["error"]["code"].as_str()), (2, Some("usage")), "{arguments:?}");
    }
    let missing = desk.run(&["tenant", "init", "st-mary", "--json"]).json();
    assert!(missing["error"]["message"].as_str().is_some_and(|text| text.contains("--relay")), "{missing}");
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
        let ran = desk.run(&[arguments, &["--log", "debug"]].concat()).done();
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
        assert_eq!(ran.json()["held"][0]["id"], held["id"], "the failure does not say what is held");
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
    assert_eq!(ran.stderr().lines().count(), 1);
    assert!(ran.stderr().starts_with("sealpost: no device is enrolled in "), "{}", ran.stderr());
    assert!(!desk.path("sealpost-device").exists(), "a look at a missing device leaves a folder behind");
    assert_eq!(desk.run(&["device", "show", "--json"]).json()["error"]["code"], "not_enrolled");
    for arguments in [
        &["group", "list"][..],
        &["group", "new", "Ward 3"],
        &["group", "send", "Ward 3", "Come"],
        &["group", "show", "Ward 3", "--device", "elsewhere"],
    ] {
        let ran = desk.run(&[arguments, &["--json"]].concat());
        let code = ran.json()["error"]["code"].clone();
        assert_eq!((ran.code(), code), (1, Value::from("not_enrolled")), "{arguments:?}");
    }
    assert!(!desk.path("sealpost-device").exists() && !desk.path("elsewhere").exists());
}

#[test]
fn a_category_that_goes_into_groups_is_not_sent_in_another_way() {
    let desk = Desk::with_tenant();
    let policy = desk.path("sealpost-home/policy.toml");
    let recipient = "ab".repeat(16);
    let send = ["send", "--text", "Call us", "--recipient", &recipient, "--category", "care-team", "--json"];
    for (text, code) in [
        ("[categories.care-team]\ntransport = \"group\"\n", "policy"),
        ("mailbox = \"m\"\n[categories.care-team]\ntransport = \"mls\"\n", "policy"),
        ("mailbox = \"m\"\n[categories.care-team]\ntransport = \"group\"\n", "not_enrolled"),
    ] {
        fs::write(&policy, text).expect("a file");
        let ran = desk.run(&send);
        assert_eq!((ran.code(), ran.json()["error"]["code"].as_str()), (1, Some(code)), "{text}");
    }
    let alerts =
        |desk: &Desk| desk.run(&["status", "--json"]).done().json()["alerts"].as_array().map(Vec::len);
    assert_eq!(alerts(&desk), Some(0));
    // Other categories are sealed as ever.
    let other = ["send", "--text", "Call us", "--recipient", &recipient, "--json"];
    assert_eq!((desk.run(&other).code(), alerts(&desk)), (3, Some(1)));
}

#[test]
fn a_mailbox_needs_a_sender_and_a_device() {
    let desk = Desk::with_tenant();
    for (name, code) in [("laboratory", "not_enrolled"), ("pharmacy", "unknown_name")] {
        let ran = desk.run(&["sender", "mailbox", name, "--device", "mailbox", "--json"]);
        assert_eq!((ran.code(), ran.json()["error"]["code"].as_str()), (1, Some(code)), "{name}");
    }
    assert!(!desk.path("mailbox").exists());
}

/// A laboratory's message, and a map that knows its patient.
fn put_sample(desk: &Desk) -> String {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/hl7/critical-potassium.hl7");
    let text = fs::read_to_string(sample).expect("the sample");
    fs::write(desk.path("result.hl7"), &text).expect("a file");
    let row = "[[patients]]\nauthority = \"NORTHSIDE\"\ntype = \"MR\"\nid = \"PX-30417\"\nrecipient = \"";
    fs::write(desk.path("known.toml"), format!("{row}{}\"\n", "ab".repeat(16))).expect("a file");
    text
}

#[test]
fn the_same_result_twice_is_one_alert_and_another_content_under_its_id_is_held() {
    let desk = Desk::with_tenant();
    let text = put_sample(&desk);
    let send = ["send", "--hl7", "result.hl7", "--patients", "known.toml", "--json"];
    let first = desk.run(&send);
    assert_eq!((first.code(), &first.json()["taken_in"][0]["taken_in"]), (3, &Value::from("new")));
    assert_eq!(first.json()["alerts"][0]["submissions"][0]["failure"], "unreachable");
    assert_eq!(desk.run(&send).json()["taken_in"][0]["taken_in"], "known");
    fs::write(desk.path("changed.hl7"), text.replace("|6.9|", "|3.9|")).expect("a file");
    let changed = desk.run(&["send", "--hl7", "changed.hl7", "--patients", "known.toml", "--json"]);
    assert_eq!((changed.code(), &changed.json()["held"][0]["reason"]), (1, &Value::from("source_conflict")));
    let waiting = desk.run(&["outbox", "list", "--json"]).done().json();
    assert_eq!(waiting["waiting"].as_array().map(Vec::len), Some(1));
}

#[test]
fn one_bad_file_does_not_keep_the_others() {
    let desk = Desk::with_tenant();
    put_sample(&desk);
    fs::write(desk.path("junk.hl7"), "junk").expect("a file");
    let files =
        ["send", "--hl7", "missing.hl7", "junk.hl7", "result.hl7", "--patients", "known.toml", "--json"];
    let ran = desk.run(&files);
    assert_eq!((ran.code(), ran.json()["error"]["code"].as_str()), (1, Some("file")));
    assert_eq!(ran.json()["held"][0]["reason"], "not_hl7");
    assert_eq!(ran.json()["alerts"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_result_is_read_from_standard_input() {
    let desk = Desk::with_tenant();
    let text = put_sample(&desk);
    let ran = desk.run_with(&["send", "--hl7", "-", "--patients", "known.toml", "--json"], &text);
    assert_eq!((ran.code(), &ran.json()["taken_in"][0]["taken_in"]), (3, &Value::from("new")));
}

#[test]
fn a_held_message_goes_only_once_its_copy_is_safe() {
    let desk = Desk::with_tenant();
    fs::write(desk.path("junk.hl7"), "junk").expect("a file");
    fs::write(desk.path("known.toml"), "patients = []").expect("a file");
    let ran = desk.run(&["send", "--hl7", "junk.hl7", "--patients", "known.toml", "--json"]);
    let id = ran.json()["held"][0]["id"].as_str().expect("an id").to_owned();
    let occupied = desk.run(&["quarantine", "release", &id, "--to", "junk.hl7", "--json"]);
    assert_eq!((occupied.code(), occupied.json()["error"]["code"].as_str()), (1, Some("file")));
    assert_eq!(desk.run(&["quarantine", "show", &id]).done().stdout(), "junk");
    desk.run(&["quarantine", "release", &id, "--to", "copy.hl7", "--json"]).done();
    let copy = desk.path("copy.hl7");
    assert_eq!((fs::read(&copy).expect("the copy"), mode(&copy)), (b"junk".to_vec(), 0o600));
    assert_eq!(desk.run(&["quarantine", "show", &id]).code(), 1);
}

#[test]
fn a_code_is_compared_by_somebody_or_by_policy() {
    let desk = Desk::with_tenant();
    let ran = desk.run(&["ticket", "new", "--wait", "10s", "--json"]);
    assert_eq!((ran.code(), ran.json()["error"]["code"].as_str()), (2, Some("usage")));
    let tickets = desk.run(&["ticket", "list", "--json"]).done().json();
    assert_eq!(tickets["tickets"].as_array().map(Vec::len), Some(0));
    // A link that the keyserver has not heard of is not shown to a patient.
    let ran = desk.run(&["ticket", "new", "--json"]);
    assert_eq!((ran.code(), ran.json()["error"]["code"].as_str()), (3, Some("unreachable")));
    assert!(!ran.stdout().contains("sp1."));
}

#[test]
fn the_root_may_be_elsewhere() {
    let desk = Desk::with_tenant();
    let root = desk.path("sealpost-home/root.json");
    fs::rename(&root, desk.path("offline.json")).expect("it is ours");
    let shown = desk.run(&["tenant", "show", "--json"]).done().json();
    let keys = shown["keys"].as_array().map(Vec::len);
    assert_eq!((shown["tenant"].as_str(), keys), (Some("st-mary"), Some(5)));
    for needs_it in
        [&["sender", "add", "pharmacy"][..], &["sender", "renew", "laboratory"], &["tenant", "renew"]]
    {
        let ran = desk.run(&[needs_it, &["--json"]].concat());
        assert_eq!(
            (ran.code(), ran.json()["error"]["code"].as_str()),
            (1, Some("no_tenant")),
            "{needs_it:?}"
        );
    }
    let again =
        desk.run(&["tenant", "init", "x", "--keyserver", "https://k", "--relay", "https://r", "--json"]);
    assert_eq!(again.json()["error"]["code"], "tenant_exists", "a second root over the first one's enroller");
}

#[test]
fn renewed_certificates_are_for_the_same_keys() {
    let desk = Desk::with_tenant();
    let keys =
        || desk.run(&["tenant", "show", "--json"]).done().json()["keys"].as_array().expect("keys").clone();
    let before = keys();
    desk.run(&["sender", "renew", "laboratory", "--valid-days", "700"]).done();
    desk.run(&["tenant", "renew", "--valid-days", "700"]).done();
    let after = keys();
    assert_eq!((before.len(), after.len()), (5, 5));
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((&before["key"], &before["purpose"]), (&after["key"], &after["purpose"]));
        assert!(before["valid_until"].as_u64() < after["valid_until"].as_u64());
    }
    assert_eq!(mode(&desk.path("sealpost-home/senders/laboratory.json")), 0o600);
    assert_eq!(desk.run(&["sender", "add", "x", "--valid-days", "0"]).code(), 2);
}

#[test]
fn a_revocation_that_reaches_no_server_is_signed_and_kept() {
    let desk = Desk::with_tenant();
    let device = "cd".repeat(16);
    let ran = desk.run(&["tenant", "revoke", "--device", &device, "--sender", "laboratory", "--json"]);
    assert_eq!((ran.code(), ran.json()["error"]["code"].as_str()), (3, Some("unreachable")));
    let status = desk.run(&["tenant", "show", "--json"]).done().json()["status"].clone();
    assert_eq!((&status["sequence"], &status["revoked_devices"][0]), (&Value::from(1), &Value::from(device)));
    assert_eq!(status["revoked_keys"].as_array().map(Vec::len), Some(2));
    assert_eq!(desk.run(&["tenant", "revoke", "--json"]).json()["error"]["code"], "usage");
}

#[test]
fn a_run_ends_in_good_order_when_it_is_asked_to() {
    for signal in ["-TERM", "-INT"] {
        let desk = Desk::with_tenant();
        let mut child = Command::new(env!("CARGO_BIN_EXE_sealpost"))
            .args(["outbox", "run", "--json", "--home"])
            .arg(desk.path("sealpost-home"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        // The signals are taken care of before the outbox is opened.
        let outbox = desk.path("sealpost-home/senders/laboratory/outbox.sqlite");
        while !outbox.exists() {
            assert!(child.try_wait().expect("it can be asked").is_none(), "it ended by itself");
            std::thread::yield_now();
        }
        let id = child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().expect("kill is there").success());
        let ran = Ran(child.wait_with_output().expect("it ends")).done();
        assert_eq!(ran.json()["stopped"], true, "{signal}");
    }
}

#[test]
fn a_reader_that_is_gone_is_no_reason_to_fail() {
    let desk = Desk::with_tenant();
    let mut child = Command::new(env!("CARGO_BIN_EXE_sealpost"))
        .args(["tenant", "show", "--home"])
        .arg(desk.path("sealpost-home"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let ran = Ran(child.wait_with_output().expect("it ends")).done();
    assert_eq!(ran.stderr(), "");
}
