//! The program, as a script would run it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use sealpost_emulators::Manifest;

/// Ends the program also when the test fails.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_says_where_everything_is_and_ends_at_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_sealpost-emulators"))
        .arg("--dir")
        .arg(dir.path())
        .args(["--json", "--topic", "org.example.one", "--team-id", "TEAM000001"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut program = Program(child);
    let mut stdout = BufReader::new(program.0.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let manifest: Manifest = serde_json::from_str(&line).unwrap();
    assert_eq!((&*manifest.apns.team_id, &*manifest.apns.topics[0]), ("TEAM000001", "org.example.one"));
    let written = std::fs::read(dir.path().join("emulators.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Manifest>(&written).unwrap(), manifest);
    assert!(std::net::TcpStream::connect(("127.0.0.1", manifest.fcm.port)).is_ok());

    let pid = program.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(program.0.wait().unwrap().success());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "the object is on the last line");
}

#[test]
fn a_port_in_use_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_sealpost-emulators"))
        .arg("--dir")
        .arg(dir.path())
        .args(["--control-port", &port])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains(&port));
}
