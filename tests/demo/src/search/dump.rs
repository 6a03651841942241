//! What a server's `dump` prints of its store: one JSON object for each row, bytes in hexadecimal or base64. Stores keep
//! their files compressed, so this is where their values can be searched at all.

use std::io::{self, BufRead};

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, Encoding, HEXLOWER_PERMISSIVE};
use serde_json::Value;

use super::{Area, Searcher};

/// Searches a dump row by row: the text of each string in it, and the bytes that it stands for.
///
/// # Errors
/// What the source says, and a line that is no JSON.
pub(super) fn search_dump(
    area: &mut Area,
    searcher: &Searcher,
    dump: impl BufRead,
    shown: &str,
) -> io::Result<()> {
    for (index, line) in dump.lines().enumerate() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let place = format!("{shown}, row {}", index + 1);
        let row = serde_json::from_str(&line)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{place} is no JSON")))?;
        search_json(area, searcher, &place, &row);
    }
    Ok(())
}

fn search_json(area: &mut Area, searcher: &Searcher, place: &str, value: &Value) {
    match value {
        Value::Null | Value::Bool(_) => {}
        Value::Number(number) => area.search_value(searcher, place, number.to_string().as_bytes()),
        Value::String(text) => {
            area.search_value(searcher, place, text.as_bytes());
            for bytes in decoded(text) {
                area.search_value(searcher, &format!("{place}, decoded"), &bytes);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| search_json(area, searcher, place, item)),
        Value::Object(members) => {
            for (name, value) in members {
                area.search_value(searcher, place, name.as_bytes());
                search_json(area, searcher, place, value);
            }
        }
    }
}

/// The bytes that a text stands for, by each encoding that it fits: some texts fit several.
fn decoded(text: &str) -> impl Iterator<Item = Vec<u8>> {
    let unpadded = text.trim_end_matches('=').as_bytes();
    let encodings: [&Encoding; 3] = [&HEXLOWER_PERMISSIVE, &BASE64_NOPAD, &BASE64URL_NOPAD];
    let mut decoded: Vec<_> =
        encodings.iter().filter_map(|encoding| encoding.decode(unpadded).ok()).collect();
    decoded.retain(|bytes| !bytes.is_empty());
    decoded.dedup();
    decoded.into_iter()
}

#[cfg(test)]
mod tests {
    use data_encoding::{BASE64, HEXLOWER};

    use super::*;
    use crate::search::Form;

    const TEXT: &str = "qzkxwvjhpyrbmtndqfgs";

    fn search(dump: &str) -> io::Result<Area> {
        let mut area = Area::default();
        search_dump(&mut area, &Searcher::new([TEXT]).unwrap(), dump.as_bytes(), "relay store")?;
        Ok(area)
    }

    #[test]
    fn what_is_encoded_twice_is_found() {
        // In the store as base64 or hexadecimal, and so in the dump as hexadecimal of that, or base64.
        for stored in [BASE64.encode(TEXT.as_bytes()), HEXLOWER.encode(TEXT.as_bytes()), TEXT.to_owned()] {
            for value in [HEXLOWER.encode(stored.as_bytes()), BASE64.encode(stored.as_bytes())] {
                let area =
                    search(&format!("{{\"key\":\"00\"}}\n\n{{\"key\":\"01\",\"value\":[\"{value}\"]}}\n"));
                let findings = area.unwrap().findings;
                assert!(findings.iter().any(|one| one.place == "relay store, row 3, decoded"), "{value}");
            }
        }
    }

    #[test]
    fn names_and_numbers_count_too() {
        let area = search(&format!("{{\"{TEXT}\":1.5,\"n\":null,\"b\":true}}")).unwrap();
        assert_eq!(area.values, 4);
        assert_eq!((area.findings.len(), area.findings[0].form), (1, Form::Raw));
    }

    #[test]
    fn a_dump_that_cannot_be_read_is_an_error() {
        assert!(search("{\"key\":\"00\"}\nkey 01\n").is_err());
    }
}
