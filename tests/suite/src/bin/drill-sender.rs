//! A sender for drills. Each line `KEY RECIPIENT PRIORITY` on standard input is a source event; it says
//! `queued KEY` once the outbox has it, or `refused KEY CODE`, and seals, sends and follows what becomes of
//! it.
//!
//! Arguments: the identity file, the folder of the outbox. It ends when its standard input does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender as Bell, channel};
use std::time::Duration;

use sealpost_sender::identity::SenderIdentityFile;
use sealpost_sender::{Alert, Sender, SenderError, SenderOptions, SourceEvent};
use sealpost_tests::Outcome;
use sealpost_tests::say::{log_to_stderr, say};
use sealpost_tests::site::CATEGORY;
use sealpost_tests::tenant::parts;
use sealpost_wire::id::Digest;
use sealpost_wire::payload::{Priority, Sensitivity, Text};

/// How long the relay keeps a look at the events open.
const WAIT: Duration = Duration::from_secs(2);
/// The wait after the relay was away.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// The longest that the outbox is left alone while something waits in it.
const IDLE_MAX: Duration = Duration::from_secs(1);
/// How long an alert is worth delivering (seconds).
const LIFETIME_SECONDS: u64 = 3600;

fn main() -> Outcome<()> {
    log_to_stderr();
    // One for each thread: the outbox is shared, as an application's is by its processes.
    let (mut intake, worker, follower) = (open()?, open()?, open()?);
    let (bell, rung) = channel();
    let echo = bell.clone();
    std::thread::spawn(move || end_on_error(work(worker, &rung)));
    std::thread::spawn(move || end_on_error(follow(follower, &echo)));
    say("ready")?;
    for line in std::io::stdin().lines() {
        let line = line?;
        let alert = alert(&line)?;
        match intake.enqueue(&alert) {
            Ok(_) => say(&format!("queued {}", alert.source.key))?,
            Err(error) => say(&format!("refused {} {}", alert.source.key, error.code()))?,
        }
        bell.send(())?;
    }
    Ok(())
}

fn open() -> Outcome<Sender> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(identity), Some(outbox)) = (arguments.next(), arguments.next()) else {
        return Err("the identity file and the outbox's folder are missing".into());
    };
    Ok(Sender::open(SenderIdentityFile::read(&identity)?, &outbox, SenderOptions::default(), parts())?)
}

fn work(mut sender: Sender, rung: &Receiver<()>) -> Outcome<()> {
    loop {
        let done = sender.work()?;
        if done.sealed + done.accepted > 0 {
            continue;
        }
        let due = sender.next_due_in_ms()?.map_or(IDLE_MAX, Duration::from_millis);
        // Rung or not, there may be something to do.
        let _rung = rung.recv_timeout(due.min(IDLE_MAX));
    }
}

fn follow(mut sender: Sender, bell: &Bell<()>) -> Outcome<()> {
    loop {
        match sender.follow(WAIT) {
            Ok(report) if report.events > 0 => bell.send(())?,
            Ok(_) => {}
            Err(SenderError::Http(error)) => {
                eprintln!("drill-sender: {error}");
                std::thread::sleep(AGAIN_AFTER);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// A thread that stops would let the drill wait for nothing.
fn end_on_error(ended: Outcome<()>) {
    if let Err(error) = ended {
        eprintln!("drill-sender: {error}");
        std::process::exit(1);
    }
}

fn alert(line: &str) -> Outcome<Alert> {
    let mut words = line.split(' ');
    let mut word = || words.next().ok_or("KEY RECIPIENT PRIORITY");
    let key = word()?.to_owned();
    let recipient = word()?.parse()?;
    let priority = Priority::from_code(word()?.parse()?)?;
    let text = Text { title: "Result".to_owned(), body: format!("Result {key} has come.") };
    Ok(Alert {
        source: SourceEvent { body: Digest::of(key.as_bytes()), key, subject: None, as_of: None },
        recipient,
        category: CATEGORY.to_owned(),
        priority,
        sensitivity: Sensitivity::Private,
        texts: BTreeMap::from([("en".to_owned(), text)]),
        parts: Vec::new(),
        replies: Vec::new(),
        lifetime_seconds: LIFETIME_SECONDS,
    })
}
