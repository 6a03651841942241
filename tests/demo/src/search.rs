//! The search for texts that must not be there, in every form in which they could have slipped through.
//!
//! A text is looked for as it is, in hexadecimal, in UTF-16 of either byte order, and in base64 and base64url. Base64
//! writes three bytes as four characters, so a text inside something longer looks different at each of three offsets; the
//! characters at its edges depend on its neighbours and are left out. Letters count in either case.

mod database;
mod dump;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use aho_corasick::{AhoCorasick, AhoCorasickKind, BuildError};
use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER};
use serde::Serialize;

use database::search_database;
use dump::search_dump;

/// Bytes that are read at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// A form in which a text was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Form {
    /// The bytes of the text.
    Raw,
    /// Hexadecimal.
    Hex,
    /// UTF-16 of either byte order.
    Utf16,
    /// Base64 or base64url.
    Base64,
}

impl Form {
    const ALL: [Self; 4] = [Self::Raw, Self::Hex, Self::Utf16, Self::Base64];

    /// What `text` looks like in this form, whatever stands around it.
    fn patterns(self, text: &[u8]) -> Vec<Vec<u8>> {
        match self {
            Self::Raw => vec![text.to_vec()],
            Self::Hex => vec![HEXLOWER.encode(text).into_bytes()],
            // Without the outer zero byte: the same bytes stand in both byte orders.
            Self::Utf16 => {
                // Bytes that are no text have no characters.
                let Ok(text) = std::str::from_utf8(text) else { return Vec::new() };
                let mut bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
                if bytes.last() == Some(&0) {
                    bytes.pop();
                }
                vec![bytes]
            }
            Self::Base64 => {
                let mut patterns: Vec<_> = (0..3)
                    .flat_map(|offset| {
                        [&BASE64_NOPAD, &BASE64URL_NOPAD].map(|alphabet| base64_core(text, offset, alphabet))
                    })
                    .collect();
                patterns.dedup();
                patterns
            }
        }
    }
}

/// The base64 of `text` behind `offset` unknown bytes, without the characters that its neighbours have a part in.
fn base64_core(text: &[u8], offset: usize, alphabet: &data_encoding::Encoding) -> Vec<u8> {
    let mut bytes = vec![0; offset];
    bytes.extend_from_slice(text);
    let encoded = alphabet.encode(&bytes).into_bytes();
    let first = (offset * 8).div_ceil(6);
    let end = bytes.len() * 8 / 6;
    encoded[first..end].to_vec()
}

/// Where a text was found first, within what was searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hit {
    /// Which of the texts.
    pub(crate) text: usize,
    /// In what form.
    pub(crate) form: Form,
    /// Bytes before it.
    pub(crate) offset: u64,
}

/// Looks for a number of texts at once.
pub(crate) struct Searcher {
    automaton: AhoCorasick,
    /// What each pattern stands for.
    meanings: Vec<(usize, Form)>,
    pattern_bytes_max: usize,
}

impl Searcher {
    /// A search for `texts`, or for bytes that are none. They should be long and random: short ones are found by chance.
    ///
    /// # Errors
    /// More patterns than the automaton can hold.
    pub(crate) fn new<T: AsRef<[u8]>>(texts: impl IntoIterator<Item = T>) -> Result<Self, BuildError> {
        let mut patterns = Vec::new();
        let mut meanings = Vec::new();
        for (index, text) in texts.into_iter().enumerate() {
            for form in Form::ALL {
                for pattern in form.patterns(text.as_ref()) {
                    patterns.push(pattern);
                    meanings.push((index, form));
                }
            }
        }
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(&patterns)?;
        Ok(Self { automaton, meanings, pattern_bytes_max: patterns.iter().map(Vec::len).max().unwrap_or(0) })
    }

    /// Searches bytes; each text is told once for each form.
    pub(crate) fn search_bytes(&self, bytes: &[u8]) -> Vec<Hit> {
        let mut found = BTreeMap::new();
        self.search_chunk(bytes, 0, &mut found);
        hits(found)
    }

    /// Searches what `source` gives until its end. Returns also how many bytes that was.
    ///
    /// # Errors
    /// What the source says.
    pub(crate) fn search_reader(&self, mut source: impl Read) -> io::Result<(u64, Vec<Hit>)> {
        let mut found = BTreeMap::new();
        // A text may begin in one chunk and end in the next: what it could have begun in is kept.
        let kept_max = self.pattern_bytes_max.saturating_sub(1);
        let mut buffer = vec![0; kept_max + CHUNK_BYTES];
        let (mut kept, mut total) = (0, 0_u64);
        loop {
            let read = match source.read(&mut buffer[kept..]) {
                Ok(0) => return Ok((total, hits(found))),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let filled = kept + read;
            self.search_chunk(&buffer[..filled], total - kept as u64, &mut found);
            total += read as u64;
            let keep = filled.min(kept_max);
            buffer.copy_within(filled - keep..filled, 0);
            kept = keep;
        }
    }

    fn search_chunk(&self, bytes: &[u8], start: u64, found: &mut BTreeMap<(usize, Form), u64>) {
        for matched in self.automaton.find_overlapping_iter(bytes) {
            let meaning = self.meanings[matched.pattern().as_usize()];
            found.entry(meaning).or_insert(start + matched.start() as u64);
        }
    }
}

fn hits(found: BTreeMap<(usize, Form), u64>) -> Vec<Hit> {
    found.into_iter().map(|((text, form), offset)| Hit { text, form, offset }).collect()
}

/// What was searched, and what was found in it.
#[derive(Debug, Default)]
pub(crate) struct Area {
    /// Files and folders, by their contents and names.
    pub(crate) files: u64,
    /// Values of stores and databases, decoded.
    pub(crate) values: u64,
    /// Bytes of both.
    pub(crate) bytes: u64,
    /// What was found.
    pub(crate) findings: Vec<Finding>,
}

/// A text at a place where it must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Which of the texts.
    pub(crate) text: usize,
    /// In what form.
    pub(crate) form: Form,
    /// Where: a file, or a value of a store.
    pub(crate) place: String,
    /// Bytes before it there.
    pub(crate) offset: u64,
}

impl Area {
    /// Adds what was found at a place.
    pub(crate) fn found(&mut self, place: &str, hits: Vec<Hit>) {
        self.findings.extend(hits.into_iter().map(|Hit { text, form, offset }| Finding {
            text,
            form,
            place: place.to_owned(),
            offset,
        }));
    }

    /// Searches a value of a store.
    pub(crate) fn search_value(&mut self, searcher: &Searcher, place: &str, value: &[u8]) {
        self.values += 1;
        self.bytes += value.len() as u64;
        self.found(place, searcher.search_bytes(value));
    }

    /// Searches the file or folder at `path` below `root`, with all that is in it but what `unsearched` names. Databases
    /// and dumps, by the ends of their names, are searched value by value, too.
    ///
    /// # Errors
    /// A file that cannot be read: a search that leaves something out proves nothing.
    pub(crate) fn search_path(
        &mut self,
        searcher: &Searcher,
        root: &Path,
        path: &Path,
        unsearched: &[&str],
    ) -> io::Result<()> {
        let mut waiting: Vec<PathBuf> = vec![path.to_owned()];
        while let Some(path) = waiting.pop() {
            if unsearched.iter().any(|unsearched| path == root.join(unsearched)) {
                continue;
            }
            let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            let kind = fs::symlink_metadata(&path).map_err(|error| at(&path, &error))?.file_type();
            self.found(&format!("the name of {shown}"), searcher.search_bytes(shown.as_bytes()));
            if kind.is_dir() {
                for entry in fs::read_dir(&path).map_err(|error| at(&path, &error))? {
                    waiting.push(entry?.path());
                }
            } else if kind.is_file() {
                let file = File::open(&path).map_err(|error| at(&path, &error))?;
                let (bytes, hits) = searcher.search_reader(file).map_err(|error| at(&path, &error))?;
                self.files += 1;
                self.bytes += bytes;
                self.found(&shown, hits);
                match path.extension().and_then(|extension| extension.to_str()) {
                    Some("sqlite") => {
                        let searched = search_database(self, searcher, &path, &shown);
                        searched.map_err(|error| at(&path, &io::Error::other(error)))?;
                    }
                    Some("ndjson") => {
                        search_dump(self, searcher, BufReader::new(File::open(&path)?), &shown)?;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
