//! A care team by the `sealpost` command alone, as an integration engineer tries it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use sealpost_sender::make_private_folder;
use sealpost_tests::process::built;
use sealpost_tests::site::Site;
use serde_json::{Value, json};

const PURPOSE: &str = "care-team";

/// A terminal with a hospital's home and devices' folders.
struct Terminal {
    folder: PathBuf,
}

/// A device, by its folder's name.
struct Enrolled {
    folder: &'static str,
    device: String,
    recipient: String,
}

impl Terminal {
    /// With the keys of an enroller and of a laboratory.
    fn new(site: &Site) -> Self {
        let folder = site.path("terminal");
        for (kind, name) in [("enrollers", "desk"), ("senders", "laboratory")] {
            let keys = folder.join("sealpost-home").join(kind);
            make_private_folder(&keys).unwrap();
            let file = keys.join(format!("{name}.json"));
            match kind {
                "enrollers" => site.tenant.enroller(name).unwrap().write(&file).unwrap(),
                _ => site.tenant.sender(name).unwrap().write(&file).unwrap(),
            }
        }
        Self { folder }
    }

    /// Exit code, and the last line of standard output.
    #[track_caller]
    fn run(&self, input: &str, arguments: &[&str]) -> (i32, Value) {
        let mut child = Command::new(built("sealpost").unwrap())
            .args(arguments)
            .arg("--json")
            .current_dir(&self.folder)
            .env_remove("SEALPOST_HOME")
            .env_remove("SEALPOST_DEVICE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        // A program that does not read its input may be gone already.
        let _written = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let last = text.lines().last().unwrap_or_default();
        let value = serde_json::from_str(last).unwrap_or_else(|_| panic!("{arguments:?}: {text}"));
        (output.status.code().unwrap(), value)
    }

    #[track_caller]
    fn done(&self, arguments: &[&str]) -> Value {
        let (code, value) = self.run("", arguments);
        assert_eq!(code, 0, "{arguments:?}: {value}");
        value
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str]) -> (i32, String) {
        let (code, value) = self.run("", arguments);
        (code, value["error"]["code"].as_str().unwrap_or_else(|| panic!("{value}")).to_owned())
    }

    /// A device that has been let in and can be invited.
    #[track_caller]
    fn enrol(&self, folder: &'static str) -> Enrolled {
        let ticket = self.done(&["ticket", "new", "--no-qr", "--consent", PURPOSE]);
        let link = ticket["link"].as_str().unwrap();
        let (code, claimed) = self.run(link, &["device", "--device", folder, "enrol", "-"]);
        assert_eq!(code, 0, "{claimed}");
        let shown = claimed["code"].as_str().unwrap();
        self.done(&["ticket", "approve", ticket["ticket"].as_str().unwrap(), shown]);
        self.done(&["device", "--device", folder, "register"]);
        self.done(&["device", "--device", folder, "sync"]);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Enrolled { folder, device: text(&claimed["device"]), recipient: text(&ticket["recipient"]) }
    }

    /// What a device syncs: the messages of groups that it shows.
    #[track_caller]
    fn sync(&self, of: &Enrolled) -> Vec<Value> {
        let synced = self.done(&["device", "--device", of.folder, "sync"]);
        synced["group_messages"].as_array().unwrap().clone()
    }

    /// A `sealpost group` command of a device.
    #[track_caller]
    fn group(&self, of: &Enrolled, arguments: &[&str]) -> Value {
        self.done(&[&["group", "--device", of.folder], arguments].concat())
    }
}

#[test]
fn a_care_team_is_run_from_the_command_line() {
    let site = Site::start().unwrap();
    let terminal = Terminal::new(&site);
    let mailbox = terminal.enrol("mailbox");
    let (nurse, doctor) = (terminal.enrol("nurse"), terminal.enrol("doctor"));
    let patient = terminal.enrol("patient");

    let said = terminal.done(&["sender", "mailbox", "laboratory", "--device", "mailbox"]);
    assert_eq!(said["device"], mailbox.device);
    let made = terminal.group(&mailbox, &["new", "Ward 3", "--steward", &nurse.device]);
    assert_eq!(made["mailbox"], true);
    let group = made["group"].as_str().unwrap();
    let add = ["group", "--device", "mailbox", "add", "Ward 3", &nurse.recipient, &doctor.recipient];
    assert_eq!(terminal.refused(&add), (1, "consent_missing".to_owned()), "nobody agreed to a message");
    let added = terminal.done(&[&add[..], &["--category", PURPOSE]].concat());
    assert_eq!(added["added"], json!([nurse.device, doctor.device]));
    let again = terminal.done(&[&add[..], &["--category", PURPOSE]].concat());
    assert_eq!(again["added"], json!([]), "all are in already");
    assert!(terminal.sync(&nurse).is_empty() && terminal.sync(&doctor).is_empty());
    assert_eq!(terminal.group(&nurse, &["rename", "Ward 3", "Ward 4"])["label"], "Ward 4");
    terminal.sync(&mailbox);
    terminal.group(&mailbox, &["rename", "Ward 4", "Ward 3"]);
    assert!(terminal.sync(&nurse).is_empty() && terminal.sync(&doctor).is_empty());

    // A question by the beginning of the group's id, its answer and a confirmation.
    let (code, asked) = terminal.run(
        "Potassium 6.9.\nCan somebody come?\n",
        &[
            "group",
            "--device",
            "mailbox",
            "send",
            &group[..8],
            "-",
            "--offer",
            "yes=On my way",
            "--offer",
            "no=Busy",
        ],
    );
    assert_eq!((code, &asked["state"]), (0, &json!("sent")), "{asked}");
    let question = asked["message"].as_str().unwrap();
    let shown = terminal.sync(&doctor);
    assert_eq!(shown.len(), 1);
    assert_eq!(shown[0]["text"], "Potassium 6.9.\nCan somebody come?");
    assert_eq!((&shown[0]["sender"], &shown[0]["message"]), (&json!("laboratory"), &json!(question)));
    assert!(terminal.sync(&doctor).is_empty(), "shown twice");
    let reply = ["group", "--device", "doctor", "reply", "Ward 3"];
    let wrong = terminal.refused(&[&reply[..], &[question, "maybe"]].concat());
    assert_eq!(wrong, (1, "unknown_reply".to_owned()));
    let wrong = terminal.refused(&[&reply[..], &[&"0".repeat(32), "yes"]].concat());
    assert_eq!(wrong, (1, "unknown_message".to_owned()));
    terminal.done(&[&reply[..], &[question, "yes"]].concat());
    terminal.sync(&nurse);
    terminal.group(&nurse, &["confirm", "Ward 3", question]);
    terminal.sync(&mailbox);
    let kept = terminal.group(&mailbox, &["show", "Ward 3"]);
    let kinds: Vec<_> = kept["messages"].as_array().unwrap().iter().map(|one| one["kind"].clone()).collect();
    assert_eq!(kinds, ["text", "quick_reply", "confirmation"]);
    assert_eq!(kept["messages"][1]["author"], doctor.device);
    assert_eq!(
        (&kept["messages"][2]["about"], &kept["messages"][0]["own"]),
        (&json!(question), &json!(true))
    );

    // The doctor's phone is lost: the mailbox hears of it, and removes it by itself.
    terminal.done(&["tenant", "revoke", "--device", &doctor.device]);
    terminal.sync(&mailbox);
    let members = terminal.group(&mailbox, &["show", "Ward 3"])["members"].clone();
    let devices: Vec<_> = members.as_array().unwrap().iter().map(|one| one["device"].clone()).collect();
    assert_eq!(devices, [json!(mailbox.device), json!(nurse.device)]);
    assert_eq!(members[1]["recipient"], nurse.recipient);
    terminal.group(&mailbox, &["send", "Ward 3", "The doctor's phone is lost."]);
    assert_eq!(terminal.sync(&nurse)[0]["text"], "The doctor's phone is lost.");
    let (code, error) = terminal.refused(&["device", "--device", "doctor", "sync"]);
    assert_eq!((code, error.as_str()), (1, "revoked"));
    let lost = terminal.done(&["group", "--device", "doctor", "show", "Ward 3"]);
    assert!(!lost.to_string().contains("lost."), "{lost}");

    // What the laboratory's system sends of a category whose policy is a group goes there, and once.
    let policy = "mailbox = \"../mailbox\"\n[categories.care-team]\ntransport = \"group\"\n";
    std::fs::write(terminal.folder.join("sealpost-home/policy.toml"), policy).unwrap();
    let send = |recipient: &str, text: &str| {
        let source = ["--source", "visit-417", "--category", PURPOSE, "--title", "Visit"];
        terminal.run("", &[&["send", "--text", text, "--recipient", recipient], &source[..]].concat())
    };
    let (code, sent) = send(&nurse.recipient, "At nine.");
    assert_eq!((code, &sent["in_groups"][0]["state"]), (0, &json!("sent")), "{sent}");
    assert_eq!((&sent["in_groups"][0]["taken_in"], &sent["alerts"]), (&json!("new"), &json!([])));
    assert_eq!(send(&nurse.recipient, "At nine.").1["in_groups"][0]["taken_in"], "known");
    let (code, conflict) = send(&nurse.recipient, "At ten.");
    assert_eq!((code, &conflict["error"]["code"]), (1, &json!("source_conflict")));
    let (code, nobody) = send(&doctor.recipient, "At nine.");
    assert_eq!((code, &nobody["error"]["code"]), (1, &json!("no_group")));
    // Who reads in a group that the nurse makes is the nurse's choice.
    terminal.group(&nurse, &["new", "Ward 5", "--steward", &mailbox.device]);
    let others = [mailbox.recipient.as_str(), &patient.recipient];
    terminal.group(&nurse, &[&["add", "Ward 5"], &others[..], &["--category", PURPOSE]].concat());
    terminal.sync(&mailbox);
    let theirs = terminal.group(&mailbox, &["show", "Ward 5"]);
    assert_eq!((&theirs["made_here"], &theirs["standing"]), (&json!(false), &json!("in")));
    assert_eq!(theirs["members"][2]["recipient"], patient.recipient);
    let (code, nobody) = send(&patient.recipient, "At nine.");
    assert_eq!((code, &nobody["error"]["code"], &nobody["accepted"]), (1, &json!("no_group"), &json!(false)));
    let shown = terminal.sync(&nurse);
    assert_eq!((shown.len(), &shown[0]["text"]), (1, &json!("Visit\nAt nine.")), "{shown:?}");

    // A member that asks to go is let go, and reads no more.
    assert_eq!(terminal.group(&nurse, &["leave", "Ward 3"])["standing"], "leaving");
    terminal.sync(&mailbox);
    terminal.sync(&nurse);
    let listed = terminal.group(&nurse, &["list"]);
    let left = listed["groups"].as_array().unwrap().iter().find(|one| one["group"] == group).unwrap();
    assert_eq!((&left["standing"], &left["label"]), (&json!("out"), &json!("Ward 3")));
    let remove = ["group", "--device", "mailbox", "remove", "Ward 3", &nurse.recipient];
    assert_eq!(terminal.refused(&remove), (1, "no_such_member".to_owned()));
    let unknown = terminal.refused(&["group", "--device", "mailbox", "show", "Ward 4"]);
    assert_eq!(unknown, (1, "unknown_group".to_owned()));
    site.stop().unwrap();
}
