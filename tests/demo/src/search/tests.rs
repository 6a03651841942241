use data_encoding::{BASE64, HEXUPPER};

use super::*;

/// With characters whose base64 needs `+` and `/`, `-` and `_`.
const TEXTS: [&str; 2] = ["qzkxwvjhpyrbmtndqfgs", "a?~>b?~>c?~>d?~>e~?>f"];

fn searcher() -> Searcher {
    Searcher::new(TEXTS).unwrap()
}

/// The forms in which each of the texts was found.
fn forms(hits: &[Hit]) -> Vec<(usize, Form)> {
    hits.iter().map(|hit| (hit.text, hit.form)).collect()
}

fn utf16(text: &str, bytes_of: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(bytes_of).collect()
}

#[test]
fn every_form_is_found_wherever_it_stands() {
    let searcher = searcher();
    for (index, text) in TEXTS.iter().enumerate() {
        for before in 0..7 {
            let around = format!("{}{text}{}", "<".repeat(before), ">".repeat(7 - before));
            let around = around.as_bytes();
            let written: Vec<(Form, Vec<u8>)> = vec![
                (Form::Raw, around.to_vec()),
                (Form::Raw, text.to_ascii_uppercase().into_bytes()),
                (Form::Hex, HEXLOWER.encode(around).into_bytes()),
                (Form::Hex, HEXUPPER.encode(around).into_bytes()),
                (Form::Utf16, utf16(&format!("<{text}>"), u16::to_le_bytes)),
                (Form::Utf16, utf16(&format!("<{text}>"), u16::to_be_bytes)),
                (Form::Utf16, utf16(text, u16::to_le_bytes)),
                (Form::Utf16, utf16(text, u16::to_be_bytes)),
                (Form::Base64, BASE64.encode(around).into_bytes()),
                (Form::Base64, BASE64URL_NOPAD.encode(around).into_bytes()),
            ];
            for (form, bytes) in written {
                let mut bytes_around = vec![b'x'; before];
                bytes_around.extend_from_slice(&bytes);
                bytes_around.push(b'y');
                let hits = searcher.search_bytes(&bytes_around);
                assert_eq!(forms(&hits), [(index, form)], "{text} as {form:?} behind {before}");
            }
        }
    }
}

#[test]
fn the_place_is_told() {
    let bytes = [b"....", TEXTS[0].as_bytes(), b"...."].concat();
    assert_eq!(searcher().search_bytes(&bytes), [Hit { text: 0, form: Form::Raw, offset: 4 }]);
}

#[test]
fn what_is_not_whole_is_not_found() {
    let searcher = searcher();
    let text = TEXTS[0];
    for bytes in ["", &text[1..], &text[..text.len() - 1], &text.replace('z', " ")] {
        assert_eq!(searcher.search_bytes(bytes.as_bytes()), []);
    }
}

/// Gives its bytes in pieces of a chosen size.
struct Pieces<'b>(&'b [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let piece = self.0.len().min(self.1).min(to.len());
        let (now, later) = self.0.split_at(piece);
        to[..piece].copy_from_slice(now);
        self.0 = later;
        Ok(piece)
    }
}

#[test]
fn a_text_that_is_split_over_reads_is_found_once_at_its_place() {
    let searcher = searcher();
    let hex = HEXLOWER.encode(TEXTS[1].as_bytes());
    // Across the edge of a chunk, and of every smaller read.
    for start in [0, 1, CHUNK_BYTES - hex.len() / 2, CHUNK_BYTES - 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 3] {
        let mut bytes = vec![0; start];
        bytes.extend_from_slice(hex.as_bytes());
        bytes.extend_from_slice(&[0; 100]);
        for piece in [7, 4096, usize::MAX] {
            let (total, hits) = searcher.search_reader(Pieces(&bytes, piece)).unwrap();
            assert_eq!(total, bytes.len() as u64);
            assert_eq!(hits, [Hit { text: 1, form: Form::Hex, offset: start as u64 }], "{start} in {piece}");
        }
    }
}

#[test]
fn folders_are_searched_by_content_and_name() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("one/two")).unwrap();
    fs::write(folder.path().join("one/two/clean"), "nothing").unwrap();
    fs::write(folder.path().join("one/leak"), BASE64.encode(format!("..{}", TEXTS[0]).as_bytes())).unwrap();
    fs::write(folder.path().join(format!("one/{}", TEXTS[0])), "").unwrap();
    let mut area = Area::default();
    fs::create_dir(folder.path().join("one/own")).unwrap();
    fs::write(folder.path().join("one/own/leak"), TEXTS[0]).unwrap();
    let unsearched = ["other", "one/own"];
    area.search_path(&searcher(), folder.path(), &folder.path().join("one"), &unsearched).unwrap();
    assert_eq!(area.files, 3);
    let mut places: Vec<_> = area.findings.iter().map(|one| (one.place.as_str(), one.form)).collect();
    places.sort_unstable();
    let name = format!("the name of one/{}", TEXTS[0]);
    assert_eq!(places, [("one/leak", Form::Base64), (name.as_str(), Form::Raw)]);
    assert!(area.search_path(&searcher(), folder.path(), &folder.path().join("none"), &[]).is_err());
}
