//! A batch that was cut off by a loss of power, at the end of the newest journal.
//!
//! fjall 3.1 drops such a batch by itself when its end, or the head of one of its rows, did not reach the
//! disk. When all heads did, but a block inside a large value did not, it meets a wrong checksum and refuses
//! to open at all. Nobody was answered for that batch, so dropping it loses nothing, and the server comes up
//! again by itself.
//!
//! ```text
//! batch  = start (item | clear)* end                                         little endian throughout
//! start  = 1 | item count (u32) | sequence number (u64)
//! item   = 2 | kind (u8) | compression (u8) | keyspace (u64) | key length (u16) | value length (u32)
//!            | stored length (u32) | key | stored value
//! clear  = 4 | keyspace (u64)
//! end    = 3 | XXH3 of the items (u64) | "FJL" 3
//! ```

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::Xxh3;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;

const MAGIC: &[u8; 4] = b"FJL\x03";

/// The least that a disk writes at once. What was never written reads as zeros: journals are new files.
const SECTOR_BYTES: usize = 512;

/// Cuts a torn batch off the newest journal in `folder`; true if there was one.
///
/// A batch counts as torn only if its checksum is wrong, a whole sector of it is zero, nothing but zeros
/// follows, and every batch before it is right: the journal is synced batch by batch. All else is damage, and
/// left alone.
///
/// # Errors
/// The journal cannot be read or cut.
pub(super) fn cut_torn_batch(folder: &Path) -> io::Result<bool> {
    let Some(path) = newest_journal(folder)? else { return Ok(false) };
    let mut journal = Journal::new(File::open(&path)?);
    let Some(torn_at) = journal.torn_batch()? else { return Ok(false) };
    let file = OpenOptions::new().write(true).open(&path)?;
    file.set_len(torn_at)?;
    file.sync_all()?;
    Ok(true)
}

fn newest_journal(folder: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest: Option<(u64, PathBuf)> = None;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let is_journal = path.extension().is_some_and(|extension| extension == "jnl");
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let Some(number) = number.filter(|_| is_journal)
            && newest.as_ref().is_none_or(|(newest, _)| *newest < number)
        {
            newest = Some((number, path));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

struct Journal<R> {
    reader: BufReader<R>,
    position: u64,
    checksum: Xxh3,
    sector: ZeroSector,
}

enum Batch {
    Right,
    /// The structure is there, and the checksum is another.
    Wrong,
    /// Not a batch, or not all of one: fjall cuts it off.
    None,
}

impl<R: Read> Journal<R> {
    fn new(journal: R) -> Self {
        let (checksum, sector) = (Xxh3::new(), ZeroSector::default());
        Self { reader: BufReader::new(journal), position: 0, checksum, sector }
    }

    /// Where the torn batch begins.
    fn torn_batch(&mut self) -> io::Result<Option<u64>> {
        loop {
            let began = self.position;
            self.sector.found = false;
            match self.batch()? {
                Batch::Right => {}
                Batch::None => return Ok(None),
                Batch::Wrong => {
                    let torn = self.sector.found && self.rest_is_zero()?;
                    return Ok(torn.then_some(began));
                }
            }
        }
    }

    fn batch(&mut self) -> io::Result<Batch> {
        match self.structure() {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Batch::None),
            batch => batch,
        }
    }

    fn structure(&mut self) -> io::Result<Batch> {
        if self.take::<1>()? != [START] {
            return Ok(Batch::None);
        }
        let item_count = u32::from_le_bytes(self.take()?);
        let _sequence_number: [u8; 8] = self.take()?;
        self.checksum.reset();
        for _ in 0..item_count {
            let [tag] = self.take_hashed()?;
            match tag {
                ITEM => {
                    let _kind_compression_keyspace: [u8; 10] = self.take_hashed()?;
                    let key_bytes = u16::from_le_bytes(self.take_hashed()?);
                    let _value_bytes: [u8; 4] = self.take_hashed()?;
                    let stored_bytes = u32::from_le_bytes(self.take_hashed()?);
                    self.skip_hashed(u64::from(key_bytes) + u64::from(stored_bytes))?;
                }
                CLEAR => {
                    let _keyspace: [u8; 8] = self.take_hashed()?;
                }
                _ => return Ok(Batch::None),
            }
        }
        if self.take::<1>()? != [END] {
            return Ok(Batch::None);
        }
        let expected = u64::from_le_bytes(self.take()?);
        if self.take()? != *MAGIC {
            return Ok(Batch::None);
        }
        Ok(if self.checksum.digest() == expected { Batch::Right } else { Batch::Wrong })
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        self.sector.see(self.position, &bytes);
        self.position += N as u64;
        Ok(bytes)
    }

    fn take_hashed<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let bytes = self.take()?;
        self.checksum.update(&bytes);
        Ok(bytes)
    }

    fn skip_hashed(&mut self, mut count: u64) -> io::Result<()> {
        let mut chunk = [0; 4096];
        while count > 0 {
            let len = usize::try_from(count).map_or(chunk.len(), |count| count.min(chunk.len()));
            let (bytes, _) = chunk.split_at_mut(len);
            self.reader.read_exact(bytes)?;
            self.sector.see(self.position, bytes);
            self.checksum.update(bytes);
            self.position += len as u64;
            count -= len as u64;
        }
        Ok(())
    }

    fn rest_is_zero(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 4096];
        loop {
            match self.reader.read(&mut chunk)? {
                0 => return Ok(true),
                len if chunk.iter().take(len).any(|byte| *byte != 0) => return Ok(false),
                _ => {}
            }
        }
    }
}

/// Watches bytes go by for a whole sector of zeros.
#[derive(Default)]
struct ZeroSector {
    found: bool,
    zeros: usize,
}

impl ZeroSector {
    fn see(&mut self, position: u64, bytes: &[u8]) {
        for (at, byte) in (position..).zip(bytes) {
            if at % SECTOR_BYTES as u64 == 0 {
                self.zeros = 0;
            }
            self.zeros += usize::from(*byte == 0);
            self.found |= self.zeros == SECTOR_BYTES;
        }
    }
}
