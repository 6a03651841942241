//! Bytes of files: copying them with their holes, and tearing what was not synced.

use crate::dice::Dice;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What a disk is taken to write as one, in bytes.
pub const PAGE_BYTES: usize = 4096;

/// Pages read at once.
const CHUNK_BYTES: usize = 64 * PAGE_BYTES;

/// Copies the bytes `[start, end)`, or as many of them as there are.
///
/// Pages of zeros are not written where the target ends before them, so that a journal of preallocated
/// megabytes stays a hole. The caller sets the target's length.
///
/// # Errors
/// Reading or writing fails.
pub fn copy_range(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let to_len = to.metadata()?.len();
    let mut chunk =
        vec![0; CHUNK_BYTES.min(usize::try_from(end.saturating_sub(start)).unwrap_or(CHUNK_BYTES))];
    let mut at = start;
    while at < end {
        let want = usize::try_from(end - at).map_or(chunk.len(), |left| left.min(chunk.len()));
        let got = read_full(from, &mut chunk[..want], at)?;
        for page in chunk[..got].chunks(PAGE_BYTES) {
            if at < to_len || page.iter().any(|byte| *byte != 0) {
                to.write_all_at(page, at)?;
            }
            at += page.len() as u64;
        }
        if got < want {
            break;
        }
    }
    Ok(())
}

/// Copies a whole file into an empty one.
///
/// # Errors
/// Reading or writing fails.
pub fn copy_whole(from: &File, to: &File, len: u64) -> io::Result<()> {
    copy_range(from, to, 0, len)?;
    to.set_len(len)
}

/// The first page, by its offset, in which two files differ, bytes after the end of one counted as zeros.
///
/// # Errors
/// Reading fails.
pub fn first_difference(one: &File, other: &File, len: u64) -> io::Result<Option<u64>> {
    let mut found = None;
    each_page(one, other, len, |offset, a, b| {
        if a != b && found.is_none() {
            found = Some(offset);
        }
        Ok(())
    })?;
    Ok(found)
}

/// How much of what was written to a file after its last sync a cut leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survivors {
    /// Nothing.
    None,
    /// Every page before this offset.
    Before(u64),
    /// Each page with even chances.
    Some,
    /// Everything.
    All,
}

/// Writes over `kept`, the synced bytes, those pages of `live` that survive; returns how many pages do not.
///
/// # Errors
/// Reading or writing fails.
pub fn tear(live: &File, kept: &File, survivors: Survivors, dice: &mut Dice) -> io::Result<u64> {
    let (live_len, kept_len) = (live.metadata()?.len(), kept.metadata()?.len());
    let len = match survivors {
        Survivors::None => kept_len,
        Survivors::All => live_len,
        Survivors::Before(_) | Survivors::Some if dice.coin() => live_len,
        Survivors::Before(_) | Survivors::Some => kept_len,
    };
    let mut lost = 0;
    each_page(live, kept, live_len.max(kept_len), |offset, written, synced| {
        if written != synced {
            let survives = match survivors {
                Survivors::None => false,
                Survivors::Before(end) => offset < end,
                Survivors::Some => dice.coin(),
                Survivors::All => true,
            };
            if survives && offset < len {
                kept.write_all_at(written, offset)?;
            } else {
                lost += 1;
            }
        }
        Ok(())
    })?;
    kept.set_len(len)?;
    Ok(lost)
}

/// Calls with each page's offset and its bytes in both files, padded with zeros to full pages.
fn each_page(
    one: &File,
    other: &File,
    len: u64,
    mut visit: impl FnMut(u64, &[u8], &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let (mut a, mut b) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    let mut at = 0;
    while at < len {
        for (file, chunk) in [(one, &mut a), (other, &mut b)] {
            let got = read_full(file, chunk, at)?;
            chunk[got..].fill(0);
        }
        if a != b {
            for (page, (one, other)) in a.chunks(PAGE_BYTES).zip(b.chunks(PAGE_BYTES)).enumerate() {
                visit(at + (page * PAGE_BYTES) as u64, one, other)?;
            }
        }
        at += CHUNK_BYTES as u64;
    }
    Ok(())
}

fn read_full(file: &File, chunk: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < chunk.len() {
        match file.read_at(&mut chunk[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn file_of(bytes: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    fn bytes_of(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn a_copy_has_the_same_bytes_and_holes() {
        let from = file_of(b"start");
        from.set_len(8 << 20).unwrap();
        from.write_all_at(b"middle", 5_000_001).unwrap();
        let to = file_of(b"");
        copy_whole(&from, &to, 8 << 20).unwrap();
        assert_eq!(bytes_of(&from), bytes_of(&to));
        assert!(to.metadata().unwrap().blocks() * 512 < 64 << 10, "the holes were filled");
    }

    #[test]
    fn a_range_of_zeros_overwrites_what_was_there() {
        let to = file_of(&[7; 3 * PAGE_BYTES]);
        copy_range(&file_of(&[0; 3 * PAGE_BYTES]), &to, 100, 9000).unwrap();
        let mut expected = vec![7; 3 * PAGE_BYTES];
        expected[100..9000].fill(0);
        assert_eq!(bytes_of(&to), expected);
    }

    #[test]
    fn torn_pages_are_old_or_new_and_all_survivors_make_the_live_file() {
        let (old, new) = (vec![1; 20 * PAGE_BYTES], vec![2; 30 * PAGE_BYTES + 5]);
        let mut dice = Dice::seeded(3);

        let kept = file_of(&old);
        assert_eq!(tear(&file_of(&new), &kept, Survivors::None, &mut dice).unwrap(), 31);
        assert_eq!(bytes_of(&kept), old);

        assert_eq!(tear(&file_of(&new), &kept, Survivors::All, &mut dice).unwrap(), 0);
        assert_eq!(bytes_of(&kept), new);

        let kept = file_of(&old);
        let lost = tear(&file_of(&new), &kept, Survivors::Some, &mut dice).unwrap();
        let (kept, pages) = (bytes_of(&kept), 31);
        assert!(lost > 0 && lost < pages, "{lost}");
        for page in kept.chunks(PAGE_BYTES) {
            assert!(page.iter().all(|byte| *byte == page[0]) || page.len() < PAGE_BYTES);
        }

        let kept = file_of(&old);
        tear(&file_of(&new), &kept, Survivors::Before(4 * PAGE_BYTES as u64), &mut dice).unwrap();
        let kept = bytes_of(&kept);
        assert!(kept[..4 * PAGE_BYTES].iter().all(|byte| *byte == 2));
        assert!(kept[4 * PAGE_BYTES..20 * PAGE_BYTES].iter().all(|byte| *byte == 1));
    }

    #[test]
    fn the_first_difference_is_found_across_lengths() {
        let one = file_of(&[1; 5 * PAGE_BYTES]);
        assert_eq!(first_difference(&one, &file_of(&[1; 5 * PAGE_BYTES]), 1 << 20).unwrap(), None);
        let other = file_of(&[1; 4 * PAGE_BYTES + 1]);
        assert_eq!(first_difference(&one, &other, 1 << 20).unwrap(), Some(4 * PAGE_BYTES as u64));
    }
}
