//! Programs that do not keep to what the shim can see, and tests that forget it.

use crate::victim::{Scene, Victim, cut_after, files_below, say};
use sealpost_power::{PowerCut, PowerError};
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

const LARGE_BYTES: usize = 1 << 20;

pub(crate) fn work(name: &str, root: &Path) -> bool {
    let path = root.join("file");
    match name {
        "write past libc" => write_past_libc(&path),
        "sync while locked" => sync_while_locked(&path),
        "sync from threads" => sync_from_threads(&path),
        _ => return false,
    }
    true
}

#[test]
fn a_write_past_libc_is_lost_and_with_verification_it_is_found() {
    let scene = Scene::new();
    cut_after("write past libc", &scene.power());
    let bytes = fs::read(scene.root().join("file")).unwrap();
    assert!(bytes.len() == LARGE_BYTES && bytes.iter().all(|byte| *byte == 1));

    let scene = Scene::new();
    let power = scene.power().verified();
    let mut victim = Victim::start(&power, "write past libc");
    assert_eq!(victim.hear(), None);
    assert_eq!(victim.wait().signal(), Some(libc::SIGABRT));
}

#[test]
fn a_sync_drops_no_lock_of_the_program() {
    let scene = Scene::new();
    let power = scene.power();
    let mut victim = Victim::start(&power, "sync while locked");
    assert_eq!(victim.hear().as_deref(), Some("still locked"));
    victim.hear_done();
}

#[test]
fn syncs_and_writes_of_many_threads_do_not_miss_each_other() {
    let scene = Scene::new();
    cut_after("sync from threads", &scene.power());
    let bytes = fs::read(scene.root().join("file")).unwrap();
    let wrong = bytes.iter().position(|byte| *byte != LAST_ROUND);
    assert_eq!((bytes.len(), wrong), (LARGE_BYTES, None));
}

#[test]
fn another_program_is_subject_to_the_cut_as_well() {
    let scene = Scene::new();
    let power = scene.power();
    for (name, conv) in [("synced", "conv=fsync"), ("unsynced", "conv=notrunc")] {
        let mut command = Command::new("dd");
        command.args(["if=/dev/zero", "bs=1000", "count=400", "status=none", conv]);
        command.arg(format!("of={}", scene.root().join(name).display()));
        assert!(power.arm(&mut command).status().unwrap().success());
    }
    power.restore().unwrap();
    assert_eq!(files_below(&scene.root()), [("synced".to_owned(), vec![0; 400_000])]);
}

#[test]
fn a_cut_without_a_process_that_loaded_the_shim_is_refused() {
    let scene = Scene::new();
    let power = scene.power();
    assert!(Command::new("true").status().unwrap().success());
    assert!(matches!(power.restore(), Err(PowerError::NeverAttached)));
}

#[test]
fn a_shadow_within_the_root_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let cut = PowerCut::new(folder.path(), folder.path().join("shadow"));
    assert!(matches!(cut, Err(PowerError::ShadowMisplaced(_))));
    let cut = PowerCut::new(folder.path().join("shadow/root"), folder.path().join("shadow"));
    assert!(matches!(cut, Err(PowerError::ShadowMisplaced(_))));
}

#[test]
fn a_process_whose_root_was_replaced_does_not_start() {
    let scene = Scene::new();
    let power = scene.power();
    fs::rename(scene.root(), scene.root().with_extension("moved")).unwrap();
    fs::create_dir(scene.root()).unwrap();
    let mut victim = Victim::start(&power, "sync while locked");
    assert_eq!(victim.hear(), None);
    assert_eq!(victim.wait().signal(), Some(libc::SIGABRT));
}

#[expect(unsafe_code, reason = "makes a system call")]
fn write_past_libc(path: &Path) {
    let file = File::create(path).unwrap();
    use_whole(&file, 1);
    let zeros = [0u8; 100];
    // SAFETY: the bytes are valid for reads.
    let written = unsafe { libc::syscall(libc::SYS_pwrite64, file.as_raw_fd(), zeros.as_ptr(), 100, 5000) };
    assert_eq!(written, 100);
    file.sync_all().unwrap();
}

#[expect(unsafe_code, reason = "std has no POSIX locks")]
fn sync_while_locked(path: &Path) {
    let file = File::create(path).unwrap();
    let locked = OpenOptions::new().read(true).write(true).open(path).unwrap();
    #[expect(clippy::cast_possible_truncation, reason = "small constants")]
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: the lock is valid for reads and writes.
    unsafe {
        assert_eq!(libc::fcntl(locked.as_raw_fd(), libc::F_SETLK, &raw const lock), 0);
    }
    file.sync_all().unwrap();
    locked.sync_all().unwrap();
    // SAFETY: as above; a lock of the process conflicts with one of an open file.
    unsafe {
        assert_eq!(libc::fcntl(locked.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock), 0);
    }
    say(if i32::from(lock.l_type) == libc::F_WRLCK { "still locked" } else { "unlocked" });
}

const LAST_ROUND: u8 = 60;

/// Four writers, each of whose rounds ends with its own sync, while another thread syncs all the time.
fn sync_from_threads(path: &Path) {
    use std::os::unix::fs::FileExt;
    const WRITERS: usize = 4;
    let file = File::create(path).unwrap();
    use_whole(&file, 0);
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let syncer = scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                file.sync_data().unwrap();
            }
        });
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let file = &file;
                scope.spawn(move || {
                    let share = LARGE_BYTES / WRITERS;
                    for round in 1..=LAST_ROUND {
                        for part in 0..share / 4096 {
                            let offset = (writer * share + part * 4096) as u64;
                            file.write_all_at(&[round; 4096], offset).unwrap();
                        }
                        file.sync_data().unwrap();
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        is_done.store(true, Ordering::Relaxed);
        syncer.join().unwrap();
    });
}

fn use_whole(file: &File, byte: u8) {
    use std::os::unix::fs::FileExt;
    file.write_all_at(&vec![byte; LARGE_BYTES], 0).unwrap();
    file.sync_all().unwrap();
}
