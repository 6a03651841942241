//! A large file, of which a sync copies only what was written: edits of every kind, in any order.

use crate::victim::{Scene, cut_after};
use sealpost_power::dice::Dice;
use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A file above the length up to which files are copied whole.
const LARGE_BYTES: usize = 1 << 20;
const EDITS: u64 = 400;
const EDIT_SEEDS: u64 = 6;

pub(crate) fn work(name: &str, root: &Path) -> bool {
    let Some(seed) = name.strip_prefix("edit ") else { return false };
    edit(seed.parse().unwrap(), &root.join("large"));
    true
}

#[test]
fn a_large_file_has_the_bytes_of_its_last_sync_after_edits_of_every_kind() {
    for seed in 0..EDIT_SEEDS {
        let scene = Scene::new();
        let power = scene.power().verified();
        cut_after(&format!("edit {seed}"), &power);
        let left = fs::read(scene.root().join("large")).unwrap();
        let expected = Edits::new(seed).last_synced();
        assert_eq!(left.len(), expected.len(), "seed {seed}");
        let differs = left.iter().zip(&expected).position(|(left, expected)| left != expected);
        assert_eq!(differs, None, "seed {seed}");
    }
}

/// Edits of a file, the same for one seed in the process that makes them and in the test that predicts them.
struct Edits {
    dice: Dice,
    left: u64,
}

enum Edit {
    Write { offset: u64, bytes: Vec<u8> },
    Append(Vec<u8>),
    Gather { offset: u64, parts: [Vec<u8>; 2] },
    SetLen(u64),
    CopyIn { offset: u64, bytes: Vec<u8> },
    Punch { offset: u64, len: u64 },
    Recreate(Vec<u8>),
    Sync,
}

impl Edits {
    fn new(seed: u64) -> Self {
        Self { dice: Dice::seeded(seed), left: EDITS }
    }

    fn last_synced(self) -> Vec<u8> {
        let (mut bytes, mut synced) = (Vec::new(), Vec::new());
        let put = |bytes: &mut Vec<u8>, offset: u64, new: &[u8]| {
            let start = usize::try_from(offset).unwrap();
            bytes.resize(bytes.len().max(start + new.len()), 0);
            bytes[start..start + new.len()].copy_from_slice(new);
        };
        for edit in self {
            match edit {
                Edit::Write { offset, bytes: new } | Edit::CopyIn { offset, bytes: new } => {
                    put(&mut bytes, offset, &new);
                }
                Edit::Punch { offset, len } => {
                    let hole = [offset, offset + len].map(|at| usize::try_from(at).unwrap().min(bytes.len()));
                    bytes[hole[0]..hole[1]].fill(0);
                }
                Edit::Gather { offset, parts } => put(&mut bytes, offset, &parts.concat()),
                Edit::Append(new) => bytes.extend(new),
                Edit::SetLen(len) => bytes.resize(usize::try_from(len).unwrap(), 0),
                Edit::Recreate(new) => bytes = new,
                Edit::Sync => synced.clone_from(&bytes),
            }
        }
        synced
    }

    fn bytes(&mut self, len_max: usize) -> Vec<u8> {
        let len = 1 + self.dice.below(len_max as u64);
        let byte = self.dice.roll().to_le_bytes()[0];
        (0..len).map(|n| byte.wrapping_add(n.to_le_bytes()[0])).collect()
    }
}

impl Iterator for Edits {
    type Item = Edit;

    fn next(&mut self) -> Option<Edit> {
        self.left = self.left.checked_sub(1)?;
        if self.left == EDITS - 1 {
            return Some(Edit::SetLen(LARGE_BYTES as u64));
        }
        let offset = self.dice.below(LARGE_BYTES as u64);
        Some(match self.dice.below(40) {
            0 => Edit::SetLen(self.dice.below(2 * LARGE_BYTES as u64)),
            1 => Edit::Recreate(self.bytes(LARGE_BYTES)),
            2 => Edit::Punch { offset, len: 1 + self.dice.below(50_000) },
            3..10 => Edit::Sync,
            36.. => Edit::CopyIn { offset, bytes: self.bytes(50_000) },
            10..15 => Edit::Gather { offset, parts: [self.bytes(9000), self.bytes(9000)] },
            15..25 => Edit::Append(self.bytes(20_000)),
            _ => Edit::Write { offset, bytes: self.bytes(20_000) },
        })
    }
}

fn edit(seed: u64, path: &Path) {
    File::create(path).unwrap();
    for edit in Edits::new(seed) {
        match edit {
            Edit::Write { offset, bytes } => open(path).write_all_at(&bytes, offset).unwrap(),
            Edit::Append(bytes) => open_append(path).write_all(&bytes).unwrap(),
            Edit::Gather { offset, parts } => {
                let mut file = open(path);
                file.seek(SeekFrom::Start(offset)).unwrap();
                let slices = [IoSlice::new(&parts[0]), IoSlice::new(&parts[1])];
                let len = parts[0].len() + parts[1].len();
                assert_eq!(file.write_vectored(&slices).unwrap(), len);
            }
            Edit::SetLen(len) => open(path).set_len(len).unwrap(),
            Edit::CopyIn { offset, bytes } => {
                let from = path.with_extension("from");
                fs::write(&from, bytes).unwrap();
                let mut file = open(path);
                file.seek(SeekFrom::Start(offset)).unwrap();
                std::io::copy(&mut File::open(&from).unwrap(), &mut file).unwrap();
            }
            Edit::Punch { offset, len } => punch(&open(path), offset, len),
            Edit::Recreate(bytes) => fs::write(path, bytes).unwrap(),
            Edit::Sync => open(path).sync_data().unwrap(),
        }
    }
}

#[expect(unsafe_code, reason = "std punches no holes")]
fn punch(file: &File, offset: u64, len: u64) {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let [offset, len] = [offset, len].map(|bytes| libc::off_t::try_from(bytes).unwrap());
    // SAFETY: changes a file that is open.
    assert_eq!(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, len) }, 0);
}

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

fn open_append(path: &Path) -> File {
    OpenOptions::new().append(true).open(path).unwrap()
}
