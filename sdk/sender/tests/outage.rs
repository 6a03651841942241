//! A sender whose servers do not answer: what it was given waits, is tried at growing intervals, and ends in time.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use getrandom::SysRng;
use rand_core::UnwrapErr;
use sealpost_sender::identity::{CertifiedKey, SenderIdentityFile, StorageKey};
use sealpost_sender::{
    Alert, Enqueued, Sender, SenderOptions, SenderParts, ServerRoots, SourceEvent, Stage, WorkReport,
};
use sealpost_wire::clock::Clock;
use sealpost_wire::id::{Digest, RecipientId};
use sealpost_wire::key::SigningKey;
use sealpost_wire::payload::{Priority, Sensitivity, Text};

struct Moved(AtomicU64);

impl Clock for Moved {
    fn now_millis(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Nobody listens at port 1.
const NOBODY: &str = "http://127.0.0.1:1";

/// A server that refuses each request with `answer`.
fn refusing(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut read = BufReader::new(stream.try_clone().unwrap());
            let (mut line, mut length) = (String::new(), 0);
            while read.read_line(&mut line).unwrap() > 2 {
                let field = line.to_ascii_lowercase();
                length = field
                    .strip_prefix("content-length: ")
                    .map_or(length, |text| text.trim().parse().unwrap());
                line.clear();
            }
            read.read_exact(&mut vec![0; length]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    url
}

fn identity(servers: &str) -> SenderIdentityFile {
    let key = |seed| CertifiedKey { key: SigningKey::from_seed(&[seed; 32]), certificate: Vec::from([0; 8]) };
    SenderIdentityFile {
        tenant: "st-mary".parse().unwrap(),
        root: SigningKey::from_seed(&[1; 32]).verifying_key(),
        subject: "laboratory".parse().unwrap(),
        keyserver: servers.to_owned(),
        relay: servers.to_owned(),
        send: key(2),
        request: key(3),
        outbox_key: StorageKey::new([4; 32]),
    }
}

fn alert() -> Alert {
    Alert {
        source: SourceEvent { key: "a".to_owned(), body: Digest::of(b"body"), subject: None, as_of: None },
        recipient: RecipientId([1; 16]),
        category: "lab-result".to_owned(),
        priority: Priority::Critical,
        sensitivity: Sensitivity::Private,
        texts: BTreeMap::from([("en".to_owned(), Text { title: "T".to_owned(), body: "B".to_owned() })]),
        parts: Vec::new(),
        replies: Vec::new(),
        lifetime_seconds: 3600,
    }
}

fn sender(servers: &str, folder: &Path, clock: &Arc<Moved>) -> Sender {
    let parts = SenderParts {
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        rng: Arc::new(|| Box::new(UnwrapErr(SysRng))),
        roots: ServerRoots::public(),
    };
    Sender::open(identity(servers), folder, SenderOptions::default(), parts).unwrap()
}

#[test]
fn an_alert_waits_ever_longer_and_not_beyond_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(Moved(AtomicU64::new(1_800_000_000_000)));
    let mut sender = sender(NOBODY, folder.path(), &clock);
    assert!(matches!(sender.enqueue(&alert()).unwrap(), Enqueued::New(_)));
    let mut wait_ms_max = 500;
    for attempt in 1..=12 {
        let report = sender.work().unwrap();
        assert_eq!(report, WorkReport { postponed: 1, ..WorkReport::default() }, "attempt {attempt}");
        let wait_ms = sender.next_due_in_ms().unwrap().expect("it is due again");
        assert!((wait_ms_max / 2..=wait_ms_max).contains(&wait_ms), "attempt {attempt}: {wait_ms} ms");
        assert_eq!(sender.work().unwrap(), WorkReport::default(), "tried before it was due");
        clock.0.fetch_add(wait_ms, Ordering::Relaxed);
        wait_ms_max = (wait_ms_max * 2).min(120_000);
    }
    let status = sender.alert("a").unwrap().unwrap();
    assert_eq!(status.submissions[0].failure.as_deref(), Some("unreachable"));
    assert!(status.is_under_way());
    clock.0.fetch_add(3_600_000, Ordering::Relaxed);
    assert_eq!(sender.work().unwrap(), WorkReport { failed: 1, ..WorkReport::default() });
    assert_eq!(sender.next_due_in_ms().unwrap(), None);
    assert_eq!(sender.alert("a").unwrap().unwrap().submissions[0].stage, Stage::Failed);
}

#[test]
fn a_server_that_says_when_to_come_again_is_not_asked_before() {
    for (status, wait_ms) in [("429 Too Many Requests", 700_000), ("503 Service Unavailable", 700_000)] {
        let answer = format!(
            "HTTP/1.1 {status}\r\nretry-after: 700\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(Moved(AtomicU64::new(1_800_000_000_000)));
        let mut sender = sender(&refusing(answer.leak()), folder.path(), &clock);
        assert!(matches!(sender.enqueue(&alert()).unwrap(), Enqueued::New(_)));
        assert_eq!(sender.work().unwrap(), WorkReport { postponed: 1, ..WorkReport::default() }, "{status}");
        assert_eq!(sender.next_due_in_ms().unwrap(), Some(wait_ms), "{status}");
        let refused = sender.follow(std::time::Duration::ZERO).unwrap_err();
        assert_eq!(refused.retry_after(), Some(std::time::Duration::from_millis(wait_ms)));
    }
}

#[test]
fn what_was_enqueued_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(Moved(AtomicU64::new(1_800_000_000_000)));
    let Enqueued::New(id) = sender(NOBODY, folder.path(), &clock).enqueue(&alert()).unwrap() else {
        panic!("not new")
    };
    let mut again = sender(NOBODY, folder.path(), &clock);
    assert_eq!(again.next_due_in_ms().unwrap(), Some(0));
    assert_eq!(again.enqueue(&alert()).unwrap(), Enqueued::Known(id));
    let unreachable = again.follow(std::time::Duration::ZERO).unwrap_err();
    assert!(unreachable.is_temporary());
    assert!(unreachable.to_string().contains(NOBODY), "{unreachable}");
}
