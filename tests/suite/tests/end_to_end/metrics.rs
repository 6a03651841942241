//! What the servers say of themselves, as Prometheus' own tool judges it.

use std::io::{ErrorKind, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use sealpost_device::EnrolOptions;
use sealpost_tests::site::Site;

use crate::{alert, send};

#[test]
fn promtool_finds_nothing_to_complain_of() {
    if is_missing("promtool") {
        println!("skipped: promtool is not installed");
        return;
    }
    let site = Site::start().unwrap();
    let recipient = site.recipient().unwrap();
    let (_, mut phone) = site.enrol(recipient, &EnrolOptions::default()).unwrap();
    let (_, mut sender) = site.sender("laboratory").unwrap();
    send(&mut sender, &alert("one", recipient));
    phone.sync(Duration::ZERO).unwrap();
    for url in [&site.tenant.keyserver, &site.tenant.relay] {
        let text = ureq::get(format!("{url}/metrics")).call().unwrap().body_mut().read_to_string().unwrap();
        assert!(text.contains("# TYPE "), "{url}");
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let judged = promtool.wait_with_output().unwrap();
        let complaints = String::from_utf8_lossy(&judged.stdout) + String::from_utf8_lossy(&judged.stderr);
        assert!(judged.status.success() && complaints.trim().is_empty(), "{complaints}\n{text}");
    }
    site.stop().unwrap();
}

fn is_missing(program: &str) -> bool {
    let tried = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    matches!(tried, Err(error) if error.kind() == ErrorKind::NotFound)
}
