//! The program itself: its arguments, its one line, its end.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, ExitStatus, Stdio};

use data_encoding::BASE64;
use http::StatusCode;
use sealpost_wire::clock::Clock as _;
use sealpost_wire::payload::Priority;

use crate::client::{ApiClient, Http, new_id, submission};
use crate::world::World;

const PROGRAM: &str = env!("CARGO_BIN_EXE_sealpost-relay");

/// A relay in a process of its own; it is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) url: String,
}

impl Process {
    pub(crate) fn start(world: &World) -> Self {
        let mut child = Command::new(PROGRAM)
            .arg("--config")
            .arg(world.config())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        if stdout.read_line(&mut line).unwrap() == 0 {
            let mut log = String::new();
            child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
            panic!("it did not start: {log}");
        }
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let url = format!("http://{}", line["listening"].as_str().unwrap());
        Self { child, url }
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.unwrap().success());
    }

    pub(crate) fn ended(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails when it has ended, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(arguments: &[&str]) -> (ExitStatus, String, String) {
    let output = Command::new(PROGRAM).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status, text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_under_load_loses_nothing_that_was_accepted() {
    let world = World::stopped("").await;
    let process = Process::start(&world);
    let http = Http::new(&process.url);
    let now = sealpost_service::clock::SystemClock.now();
    let key = world.mary.key("lab", &[sealpost_wire::certificate::Role::Sender], now);
    let sender = ApiClient::with_assertion(http.clone(), &world.mary.assertion(&key, now)).await;
    let (phone, devices) = {
        let mut phone = crate::client::Phone::new(
            1,
            &world.mary.id,
            &http,
            // Not within the second in which the relay started.
            std::sync::Arc::new(|| sealpost_service::clock::SystemClock.now().plus(1)),
        );
        phone.authority = "relay.example".to_owned();
        let admission = world.admission(&world.mary, &phone);
        phone.register(admission, Some("ios")).await.expect(StatusCode::CREATED);
        let id = phone.id;
        (phone, [id])
    };
    let sending: Vec<_> = (0..8)
        .map(|_| {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut accepted = Vec::new();
                loop {
                    let id = new_id();
                    let one = submission(&devices, "x", Priority::Normal, now.plus(600));
                    match sender.try_submit(id, &one).await {
                        Some(answer) if answer.status == StatusCode::ACCEPTED => accepted.push(id),
                        _ => return accepted,
                    }
                }
            })
        })
        .collect();
    world.emulator.next_push(&phone.push_token, 0).await;
    process.signal("TERM");
    let mut accepted = Vec::new();
    for one in sending {
        accepted.extend(one.await.unwrap());
    }
    assert!(process.ended().success());
    assert!(!accepted.is_empty());

    let process = Process::start(&world);
    let sender = ApiClient::with_assertion(Http::new(&process.url), &world.mary.assertion(&key, now)).await;
    for id in accepted {
        assert_eq!(sender.message(id).await.deliveries.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_shows_every_row_and_waits_for_no_running_relay() {
    let world = World::stopped("").await;
    let config = world.config().to_str().unwrap().to_owned();
    let process = Process::start(&world);
    let http = Http::new(&process.url);
    let now = sealpost_service::clock::SystemClock.now();
    let key = world.mary.key("lab", &[sealpost_wire::certificate::Role::Sender], now);
    let sender = ApiClient::with_assertion(http.clone(), &world.mary.assertion(&key, now)).await;
    let one = submission(&[sealpost_wire::id::DeviceId([1; 16])], "x", Priority::Normal, now.plus(600));
    let id = new_id();
    sender.accepted(id, &one).await;
    let (status, rows, log) = run(&["dump", "--config", &config]);
    assert!(!status.success() && rows.is_empty() && log.contains("in use"), "{log}");
    process.signal("INT");
    assert!(process.ended().success());

    let (status, rows, log) = run(&["dump", "--config", &config]);
    assert!(status.success(), "{log}");
    let hex: String = id.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let message = rows.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let message = message.filter(|row| row["keyspace"] == "messages").collect::<Vec<_>>();
    assert_eq!(message.len(), 1);
    assert!(message[0]["key"].as_str().unwrap().contains(&hex));
    assert!(BASE64.decode(message[0]["value"].as_str().unwrap().as_bytes()).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_checked_and_mistakes_are_named() {
    let world = World::stopped("").await;
    let config = world.config().to_str().unwrap();
    let (status, _, log) = run(&["--check", "--config", config]);
    assert!(status.success(), "{log}");
    let wrong = world.folder.path().join("wrong.toml");
    let text = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(&wrong, text.replace("topic = ", "tropic = ")).unwrap();
    let (status, _, log) = run(&["--check", "--config", wrong.to_str().unwrap()]);
    assert!(!status.success() && log.contains("tropic"), "{log}");
    let (status, _, log) = run(&[]);
    assert!(!status.success() && log.contains("--config"), "{log}");
    let (status, help, _) = run(&["--help"]);
    assert!(status.success() && help.contains("SIGTERM") && help.contains("dump"), "{help}");
}
