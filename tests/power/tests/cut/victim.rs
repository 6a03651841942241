//! The process that is killed.

use sealpost_power::PowerCut;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

const WORK_VARIABLE: &str = "POWER_TEST_WORK";
const MARK: &str = "victim: ";

/// Not a test: what a killed process does, as named by the environment.
#[test]
#[ignore = "started by the other tests as a process of its own"]
fn victim() {
    let work = std::env::var(WORK_VARIABLE).expect("started by another test");
    let root = PathBuf::from(std::env::var(sealpost_power::ROOT_VARIABLE).expect("armed"));
    let done = crate::edits::work(&work, &root)
        || crate::files::work(&work, &root)
        || crate::stores::work(&work, &root)
        || crate::strangers::work(&work, &root);
    assert!(done, "nobody knows the work {work:?}");
    say("done");
    // Ends by the kill alone, so that no destructor syncs anything.
    loop {
        std::thread::park();
    }
}

/// Tells the test something; what has been said counts, whenever the kill comes.
pub(crate) fn say(line: &str) {
    // One write, so that a kill cannot cut the line.
    std::io::stdout().write_all(format!("\n{MARK}{line}\n").as_bytes()).expect("the test reads");
}

/// A folder for a victim and its shadow.
pub(crate) struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    pub(crate) fn power(&self) -> PowerCut {
        PowerCut::new(self.root(), self.folder.path().join("shadow")).expect("a shadow")
    }
}

/// A running victim; killed when dropped.
pub(crate) struct Victim {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Victim {
    pub(crate) fn start(power: &PowerCut, work: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["victim::victim", "--exact", "--ignored", "--nocapture"]).env(WORK_VARIABLE, work);
        let mut process = power.arm(&mut command).stdout(Stdio::piped()).spawn().expect("a process");
        let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        Self { process, lines }
    }

    /// What it says next; `None` when it has ended.
    pub(crate) fn hear(&mut self) -> Option<String> {
        self.lines.by_ref().map_while(Result::ok).find_map(|line| line.strip_prefix(MARK).map(str::to_owned))
    }

    #[track_caller]
    pub(crate) fn hear_done(&mut self) {
        assert_eq!(self.hear().as_deref(), Some("done"));
    }

    /// Kills it (SIGKILL) and returns what it had said that was not heard yet.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.process.kill().expect("killed");
        self.process.wait().expect("waited");
        std::iter::from_fn(|| self.hear()).collect()
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.process.wait().expect("waited")
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Does the work, kills the process, cuts the power.
pub(crate) fn cut_after(work: &str, power: &PowerCut) {
    let mut victim = Victim::start(power, work);
    victim.hear_done();
    victim.kill();
    power.restore().expect("restored");
}

/// All files below a folder, by path, with their bytes; links as the text they hold.
pub(crate) fn files_below(folder: &Path) -> Vec<(String, Vec<u8>)> {
    fn visit(folder: &Path, above: &str, found: &mut Vec<(String, Vec<u8>)>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let entry = entry.expect("an entry");
            let name = format!("{above}{}", entry.file_name().to_str().expect("UTF-8"));
            let kind = entry.file_type().expect("a kind");
            if kind.is_dir() {
                found.push((format!("{name}/"), Vec::new()));
                visit(&entry.path(), &format!("{name}/"), found);
            } else if kind.is_symlink() {
                let target = std::fs::read_link(entry.path()).expect("a link");
                found.push((name, target.into_os_string().into_encoded_bytes()));
            } else {
                found.push((name, std::fs::read(entry.path()).expect("bytes")));
            }
        }
    }
    let mut found = Vec::new();
    visit(folder, "", &mut found);
    found.sort();
    found
}
