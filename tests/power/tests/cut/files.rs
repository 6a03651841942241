//! Single files: which bytes and which names are there after the cut.

use crate::victim::{Scene, Victim, cut_after, files_below};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

/// What a process does to a folder that holds `old` with the bytes `old`, and what is left of it.
struct Case {
    name: &'static str,
    work: fn(&Path),
    ext4: &'static [(&'static str, &'static str)],
    strict: &'static [(&'static str, &'static str)],
}

const OLD: &[(&str, &str)] = &[("old", "old")];

const CASES: &[Case] = &[
    Case { name: "nothing", work: |_| {}, ext4: OLD, strict: OLD },
    Case {
        name: "new file, closed, not synced",
        work: |root| write(&root.join("new"), b"new"),
        ext4: OLD,
        strict: OLD,
    },
    Case {
        name: "new file, synced",
        work: |root| write_synced(&root.join("new"), b"new"),
        ext4: &[("new", "new"), ("old", "old")],
        strict: OLD,
    },
    Case {
        name: "new file, synced, folder synced",
        work: |root| {
            write_synced(&root.join("new"), b"new");
            sync(root);
        },
        ext4: &[("new", "new"), ("old", "old")],
        strict: &[("new", "new"), ("old", "old")],
    },
    Case {
        name: "new file, folder synced, file not",
        work: |root| {
            write(&root.join("new"), b"new");
            sync(root);
        },
        ext4: &[("new", ""), ("old", "old")],
        strict: &[("new", ""), ("old", "old")],
    },
    Case {
        name: "appended after the sync",
        work: |root| {
            let mut file = open_append(&root.join("old"));
            file.write_all(b" and synced").unwrap();
            file.sync_data().unwrap();
            file.write_all(b" and not").unwrap();
        },
        ext4: &[("old", "old and synced")],
        strict: &[("old", "old and synced")],
    },
    Case {
        name: "synced through another descriptor that only reads",
        work: |root| {
            write(&root.join("old"), b"fresh");
            sync(&root.join("old"));
        },
        ext4: &[("old", "fresh")],
        strict: &[("old", "fresh")],
    },
    Case {
        name: "overwritten in place, not synced",
        work: |root| open(&root.join("old")).write_all_at(b"NEW", 0).unwrap(),
        ext4: OLD,
        strict: OLD,
    },
    Case { name: "emptied, not synced", work: |root| write(&root.join("old"), b""), ext4: OLD, strict: OLD },
    Case {
        name: "cut short and grown, synced",
        work: |root| {
            let file = open(&root.join("old"));
            file.set_len(1).unwrap();
            file.set_len(3).unwrap();
            file.sync_all().unwrap();
        },
        ext4: &[("old", "o\0\0")],
        strict: &[("old", "o\0\0")],
    },
    Case {
        name: "cut short, synced, grown",
        work: |root| {
            let file = open(&root.join("old"));
            file.set_len(1).unwrap();
            file.sync_all().unwrap();
            file.set_len(3).unwrap();
        },
        ext4: &[("old", "o")],
        strict: &[("old", "o")],
    },
    Case {
        name: "replaced by rename, nothing synced",
        work: |root| {
            write(&root.join("old.new"), b"new");
            fs::rename(root.join("old.new"), root.join("old")).unwrap();
        },
        ext4: OLD,
        strict: OLD,
    },
    Case {
        name: "replaced by rename, file synced before, folder not",
        work: |root| {
            write_synced(&root.join("old.new"), b"new");
            fs::rename(root.join("old.new"), root.join("old")).unwrap();
        },
        ext4: &[("old", "old"), ("old.new", "new")],
        strict: OLD,
    },
    Case {
        name: "replaced by rename, folder synced, file not",
        work: |root| {
            write(&root.join("old.new"), b"new");
            fs::rename(root.join("old.new"), root.join("old")).unwrap();
            sync(root);
        },
        ext4: &[("old", "")],
        strict: &[("old", "")],
    },
    Case {
        name: "replaced by rename, file synced after",
        work: |root| {
            write(&root.join("old.new"), b"new");
            fs::rename(root.join("old.new"), root.join("old")).unwrap();
            sync(&root.join("old"));
        },
        ext4: &[("old", "new")],
        strict: OLD,
    },
    Case {
        name: "replaced by rename, all synced",
        work: |root| {
            write_synced(&root.join("old.new"), b"new");
            fs::rename(root.join("old.new"), root.join("old")).unwrap();
            sync(root);
        },
        ext4: &[("old", "new")],
        strict: &[("old", "new")],
    },
    Case {
        name: "replaced by a rename that libc does not see",
        work: |root| {
            let mut file = tempfile::NamedTempFile::new_in(root).unwrap();
            file.write_all(b"new").unwrap();
            file.as_file().sync_all().unwrap();
            file.persist(root.join("old")).unwrap();
            sync(root);
        },
        ext4: &[("old", "new")],
        strict: &[("old", "new")],
    },
    Case {
        name: "removed, folder not synced",
        work: |root| fs::remove_file(root.join("old")).unwrap(),
        ext4: OLD,
        strict: OLD,
    },
    Case {
        name: "removed, another file synced",
        work: |root| {
            fs::remove_file(root.join("old")).unwrap();
            write_synced(&root.join("new"), b"new");
        },
        ext4: &[("new", "new"), ("old", "old")],
        strict: OLD,
    },
    Case {
        name: "removed, folder synced",
        work: |root| {
            fs::remove_file(root.join("old")).unwrap();
            sync(root);
        },
        ext4: &[],
        strict: &[],
    },
    Case {
        name: "removed and made again under the same name",
        work: |root| {
            for round in 0..20 {
                fs::remove_file(root.join("old")).unwrap();
                sync(root);
                write_synced(&root.join("old"), format!("round {round}").as_bytes());
                sync(root);
            }
            fs::remove_file(root.join("old")).unwrap();
            write(&root.join("old"), b"last");
        },
        ext4: &[("old", "round 19")],
        strict: &[("old", "round 19")],
    },
    Case {
        name: "file synced in new folders",
        work: |root| {
            fs::create_dir_all(root.join("a/b")).unwrap();
            write_synced(&root.join("a/b/new"), b"new");
            write(&root.join("a/beside"), b"beside");
        },
        ext4: &[("a/", ""), ("a/b/", ""), ("a/b/new", "new"), ("old", "old")],
        strict: OLD,
    },
    Case {
        name: "file synced in a new folder, folders synced upwards",
        work: |root| {
            fs::create_dir(root.join("a")).unwrap();
            write_synced(&root.join("a/new"), b"new");
            sync(&root.join("a"));
            sync(root);
        },
        ext4: &[("a/", ""), ("a/new", "new"), ("old", "old")],
        strict: &[("a/", ""), ("a/new", "new"), ("old", "old")],
    },
    Case {
        name: "moved to another folder, old folder synced",
        work: |root| {
            fs::create_dir(root.join("a")).unwrap();
            fs::rename(root.join("old"), root.join("a/moved")).unwrap();
            sync(root);
        },
        ext4: &[("a/", ""), ("a/moved", "old")],
        strict: &[("a/", ""), ("a/moved", "old")],
    },
    Case {
        name: "folder renamed, not synced, file in it synced",
        work: |root| {
            fs::create_dir(root.join("a")).unwrap();
            sync(root);
            fs::rename(root.join("a"), root.join("b")).unwrap();
            write_synced(&root.join("b/new"), b"new");
        },
        ext4: &[("a/", ""), ("a/new", "new"), ("old", "old")],
        strict: &[("a/", ""), ("old", "old")],
    },
    Case {
        name: "written with O_DSYNC",
        work: |root| {
            let options = OpenOptions::new().write(true).custom_flags(libc::O_DSYNC).open(root.join("old"));
            options.unwrap().write_all(b"dsync").unwrap();
        },
        ext4: &[("old", "dsync")],
        strict: &[("old", "dsync")],
    },
    Case {
        name: "hard link, folder synced, written through the second name",
        work: |root| {
            fs::hard_link(root.join("old"), root.join("second")).unwrap();
            sync(root);
            write_synced(&root.join("second"), b"both");
        },
        ext4: &[("old", "both"), ("second", "both")],
        strict: &[("old", "both"), ("second", "both")],
    },
    Case {
        name: "symbolic links before and after the folder's sync",
        work: |root| {
            symlink("old", root.join("link")).unwrap();
            sync(root);
            symlink("old", root.join("late")).unwrap();
        },
        ext4: &[("link", "old"), ("old", "old")],
        strict: &[("link", "old"), ("old", "old")],
    },
    Case {
        name: "written through memory, msync",
        work: |root| write_through_memory(&root.join("old"), b"map", true),
        ext4: &[("old", "map")],
        strict: &[("old", "map")],
    },
    Case {
        name: "written through memory, not synced",
        work: |root| write_through_memory(&root.join("old"), b"map", false),
        ext4: OLD,
        strict: OLD,
    },
];

const LARGE_BYTES: usize = 1 << 20;

pub(crate) fn work(name: &str, root: &Path) -> bool {
    if let Some(case) = CASES.iter().find(|case| case.name == name) {
        (case.work)(root);
    } else if let Some(len) = name.strip_prefix("overwrite ") {
        let file = open(&root.join("large"));
        file.set_len(0).unwrap();
        file.write_all_at(&vec![2; len.parse().unwrap()], 0).unwrap();
    } else {
        return false;
    }
    true
}

#[test]
fn what_was_synced_is_left_and_nothing_else() {
    for case in CASES {
        for strict in [false, true] {
            let scene = Scene::new();
            fs::create_dir(scene.root()).unwrap();
            write(&scene.root().join("old"), b"old");
            let power = scene.power().verified();
            let power = if strict { power.strict() } else { power };
            cut_after(case.name, &power);

            let expected = if strict { case.strict } else { case.ext4 };
            let expected: Vec<_> =
                expected.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect();
            assert_eq!(files_below(&scene.root()), expected, "{} (strict: {strict})", case.name);
        }
    }
}

#[test]
fn with_syncs_ignored_everything_since_the_start_is_lost() {
    for name in ["new file, synced, folder synced", "replaced by rename, all synced", "written with O_DSYNC"]
    {
        let scene = Scene::new();
        fs::create_dir(scene.root()).unwrap();
        write(&scene.root().join("old"), b"old");
        cut_after(name, &scene.power().ignoring_syncs());
        assert_eq!(files_below(&scene.root()), [("old".to_owned(), b"old".to_vec())], "{name}");
    }
}

#[test]
fn permissions_are_kept() {
    let scene = Scene::new();
    fs::create_dir(scene.root()).unwrap();
    write(&scene.root().join("old"), b"old");
    fs::set_permissions(scene.root().join("old"), fs::Permissions::from_mode(0o640)).unwrap();
    cut_after("nothing", &scene.power());
    assert_eq!(fs::metadata(scene.root().join("old")).unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn torn_pages_are_old_or_new_and_the_seed_decides() {
    let torn = |seed| {
        let scene = Scene::new();
        fs::create_dir(scene.root()).unwrap();
        write(&scene.root().join("large"), &vec![1; LARGE_BYTES]);
        let power = scene.power();
        let mut victim = Victim::start(&power, &format!("overwrite {LARGE_BYTES}"));
        victim.hear_done();
        victim.kill();
        let loss = power.restore_torn(seed).unwrap();
        (loss, fs::read(scene.root().join("large")).unwrap())
    };
    let (mut mixed, mut kept, mut lost) = (0, 0, 0);
    for seed in 0..16 {
        let (loss, bytes) = torn(seed);
        let new_pages = bytes.chunks(4096).filter(|page| page.iter().all(|byte| *byte == 2)).count();
        let old_pages = bytes.chunks(4096).filter(|page| page.iter().all(|byte| *byte == 1)).count();
        assert_eq!((new_pages + old_pages) * 4096, LARGE_BYTES);
        assert_eq!(loss.pages, old_pages as u64);
        match (old_pages, new_pages) {
            (0, _) => kept += 1,
            (_, 0) => lost += 1,
            _ => mixed += 1,
        }
        if seed < 3 {
            assert_eq!(torn(seed), (loss, bytes), "the same seed");
        }
    }
    assert!(mixed > 0 && kept > 0 && lost > 0, "{mixed} {kept} {lost}");
}

#[test]
fn the_loss_is_counted() {
    let scene = Scene::new();
    fs::create_dir(scene.root()).unwrap();
    write(&scene.root().join("old"), b"old");
    let power = scene.power();
    let mut victim = Victim::start(&power, "new file, closed, not synced");
    victim.hear_done();
    victim.kill();
    assert_eq!(power.restore().unwrap().names, 1);

    let mut victim = Victim::start(&power, "overwritten in place, not synced");
    victim.hear_done();
    victim.kill();
    let loss = power.restore().unwrap();
    assert_eq!((loss.names, loss.pages), (0, 1));
}

#[expect(unsafe_code, reason = "maps a file")]
fn write_through_memory(path: &Path, bytes: &[u8], synced: bool) {
    let file = open(path);
    let (len, protection) = (bytes.len(), libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: the mapping is as long as the file, and stays while the slice is used.
    unsafe {
        let memory = libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, file.as_raw_fd(), 0);
        assert_ne!(memory, libc::MAP_FAILED);
        drop(file);
        std::slice::from_raw_parts_mut(memory.cast::<u8>(), len).copy_from_slice(bytes);
        if synced {
            assert_eq!(libc::msync(memory, len, libc::MS_SYNC), 0);
        }
        assert_eq!(libc::munmap(memory, len), 0);
    }
}

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

fn open_append(path: &Path) -> File {
    OpenOptions::new().append(true).open(path).unwrap()
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
}

fn write_synced(path: &Path, bytes: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
}

/// A file or a folder.
fn sync(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}
