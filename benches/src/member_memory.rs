//! The memory of a process that takes one commit of a group and does nothing else: as a phone would, which is woken,
//! reads the group's state from its store, and writes it back.
//!
//! The state is in files, one for each value, so that what is measured is the group's and not the store's.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use data_encoding::HEXLOWER;
use sealpost_group::{CommitPlan, GroupStore, Groups, Member, Processed};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{DeviceId, GroupId, TenantId};
use sealpost_wire::key::{SigningKey, VerifyingKey};
use sealpost_wire::member::MemberCredential;
use sealpost_wire::payload::{MlsFrame, MlsKind};
use sealpost_wire::trust::TenantTrust;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::cast::{Hospital, system_rng};
use crate::circle::{Circle, commit, commit_of};
use crate::cores;
use crate::error::BenchError;

/// The option of this program that makes it such a process, before the folder's name.
pub const OPTION: &str = "--take-commit";

const TASK: &str = "task.json";
const VALUES: &str = "values";

/// Resident memory (bytes).
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Resident {
    /// When the process began.
    pub before: u64,
    /// The most that it had.
    pub peak: u64,
}

/// What the process is to do.
#[derive(Serialize, Deserialize)]
struct Task {
    tenant: TenantId,
    root: Base64Url,
    identity: Base64Url,
    admission: Base64Url,
    now: UnixTime,
    author: DeviceId,
    group: GroupId,
    commit: Base64Url,
}

/// Has a process take a commit of the circle's steward in the place of its reader.
///
/// # Errors
/// [`BenchError::Io`], [`BenchError::Cast`], [`BenchError::Miscounted`].
pub fn measure(hospital: &Hospital, circle: &mut Circle<'_>, folder: &Path) -> Result<Resident, BenchError> {
    let folder = tempfile::tempdir_in(folder).map_err(BenchError::io("making a folder"))?;
    let group = circle.group();
    let staged = commit(&mut circle.steward, hospital, group, &CommitPlan::default())?;
    let reader = circle.reader.as_ref().ok_or_else(|| BenchError::Miscounted("nobody reads".into()))?;
    let root = HEXLOWER.decode(hospital.root_hex().as_bytes()).map_err(BenchError::cast("the root"))?;
    let task = Task {
        tenant: hospital.tenant().clone(),
        root: Base64Url(root),
        identity: Base64Url(reader.key().seed().to_vec()),
        admission: Base64Url(reader.credential().admission.clone()),
        now: hospital.now(),
        author: circle.steward.device(),
        group,
        commit: Base64Url(commit_of(&staged)?.body.clone()),
    };
    let writing = || BenchError::io("writing a member's state");
    std::fs::write(folder.path().join(TASK), serde_json::to_vec(&task)?).map_err(writing())?;
    let values = folder.path().join(VALUES);
    std::fs::create_dir(&values).map_err(writing())?;
    for (key, value) in reader.store().values() {
        std::fs::write(values.join(HEXLOWER.encode(key)), value).map_err(writing())?;
    }
    let running = || BenchError::io("running a member's process");
    let program = std::env::current_exe().map_err(running())?;
    let output = Command::new(program).arg(OPTION).arg(folder.path()).output().map_err(running())?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(BenchError::Miscounted(format!("a member's process failed: {why}")));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What that process does: reads the task from `folder`, does it, and prints what memory it took.
///
/// # Errors
/// [`BenchError::Io`], [`BenchError::Cast`], [`BenchError::Miscounted`].
pub fn take_commit(folder: &Path) -> Result<(), BenchError> {
    let [before, _] = cores::resident_bytes(std::process::id())?;
    let task = std::fs::read(folder.join(TASK)).map_err(BenchError::io("reading the task"))?;
    let task: Task = serde_json::from_slice(&task)?;
    let key = |bytes: &Base64Url| <[u8; 32]>::try_from(bytes.0.as_slice()).map_err(BenchError::cast("a key"));
    let root = VerifyingKey::from_bytes(&key(&task.root)?).map_err(BenchError::cast("the root"))?;
    let trust = TenantTrust::new(task.tenant, vec![root]);
    let identity = SigningKey::from_seed(&key(&task.identity)?);
    let credential = MemberCredential { admission: task.admission.0, statement: None };
    let member = Member::new(identity, &credential, &trust).map_err(BenchError::cast("a member"))?;
    let frame = MlsFrame {
        created: task.now,
        kind: MlsKind::Message,
        group: task.group,
        body: task.commit.0,
        sets: Vec::new(),
    };
    let mut store = Files(folder.join(VALUES));
    let mut rng = system_rng();
    let processed = Groups::new(&member, &trust, task.now, &mut store, &mut rng).process(task.author, &frame);
    match processed.map_err(BenchError::cast("taking a commit"))? {
        Processed::Changed(_) => {}
        other => return Err(BenchError::Miscounted(format!("the commit came to {other:?}"))),
    }
    let [_, peak] = cores::resident_bytes(std::process::id())?;
    println!("{}", serde_json::to_string(&Resident { before, peak })?);
    Ok(())
}

/// A store of files, each named by its key.
struct Files(PathBuf);

impl Files {
    fn place(&self, key: &[u8]) -> PathBuf {
        self.0.join(HEXLOWER.encode(key))
    }
}

impl GroupStore for Files {
    type Error = std::io::Error;

    fn read(&self, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, std::io::Error> {
        match std::fs::read(self.place(key)) {
            Ok(value) => Ok(Some(Zeroizing::new(value))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&mut self, key: Vec<u8>, value: Zeroizing<Vec<u8>>) -> Result<(), std::io::Error> {
        std::fs::write(self.place(&key), value)
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), std::io::Error> {
        match std::fs::remove_file(self.place(key)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
