//! The patient map: which recipient pseudonym stands for which identifier of a patient.
//!
//! ```toml
//! [[patients]]
//! authority = "NORTHSIDE"     # PID-3.4: its namespace or its universal id
//! type = "MR"                 # PID-3.5
//! id = "PX-30417"             # PID-3.1
//! recipient = "7f3c0d52a98e41b6b0d4f1e2c3a59687"
//! ```
//!
//! The map names patients: it stays inside the hospital, beside the connector. A patient may have several
//! entries.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use sealpost_wire::id::RecipientId;
use serde::Deserialize;

use crate::oru::{PatientIdentifier, PatientIdentifiers};
use crate::quarantine::Reason;

/// Bytes of a map file.
pub const MAP_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Why a patient map cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PatientMapError {
    /// The file cannot be read. A retry can help.
    #[error("the patient map {path} cannot be read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is larger than [`MAP_BYTES_MAX`].
    #[error("the patient map has more than {MAP_BYTES_MAX} bytes")]
    TooLarge,
    /// Neither `.toml` nor `.json`.
    #[error("the patient map is neither a .toml nor a .json file")]
    UnknownFormat,
    /// Not the form of a map. The parser's own text is left out, since it quotes the file.
    #[error("the patient map is malformed near line {line}")]
    Malformed {
        /// The line, from 1.
        line: usize,
    },
    /// An entry without authority, type or id would match too much.
    #[error("entry {entry} of the patient map leaves authority, type or id empty")]
    Incomplete {
        /// The entry, from 1.
        entry: usize,
    },
    /// An identifier that an earlier entry gives to another recipient.
    #[error("entry {entry} of the patient map gives an identifier to a second recipient")]
    Contradiction {
        /// The entry, from 1.
        entry: usize,
    },
}

/// The patient map.
#[derive(Default)]
pub struct PatientMap {
    recipients: HashMap<Identifier, RecipientId>,
}

impl PatientMap {
    /// Reads a map from a `.toml` or `.json` file.
    ///
    /// # Errors
    /// [`PatientMapError`]; one entry that cannot be used refuses the whole map.
    pub fn load(path: &Path) -> Result<Self, PatientMapError> {
        let unreadable = |source| PatientMapError::Unreadable { path: path.to_owned(), source };
        if fs::metadata(path).map_err(unreadable)?.len() > MAP_BYTES_MAX {
            return Err(PatientMapError::TooLarge);
        }
        let read = || fs::read_to_string(path).map_err(unreadable);
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("toml") => Self::from_toml(&read()?),
            Some("json") => Self::from_json(&read()?),
            _ => Err(PatientMapError::UnknownFormat),
        }
    }

    /// Reads a map in TOML: tables `[[patients]]` with `authority`, `type`, `id`, `recipient`.
    ///
    /// # Errors
    /// [`PatientMapError`]
    pub fn from_toml(text: &str) -> Result<Self, PatientMapError> {
        let file: MapFile = toml::from_str(text).map_err(|error| PatientMapError::Malformed {
            line: error.span().and_then(|span| text.get(..span.start)).map_or(1, line_behind),
        })?;
        Self::of(file)
    }

    /// Reads a map in JSON: `{"patients": [{"authority", "type", "id", "recipient"}]}`.
    ///
    /// # Errors
    /// [`PatientMapError`]
    pub fn from_json(text: &str) -> Result<Self, PatientMapError> {
        let file: MapFile = serde_json::from_str(text)
            .map_err(|error| PatientMapError::Malformed { line: error.line().max(1) })?;
        Self::of(file)
    }

    /// The one recipient that a patient's identifiers lead to. Identifiers that the map does not have are
    /// passed over: a hospital sends more of them than it maps.
    ///
    /// # Errors
    /// [`Reason`], for the quarantine: no identifier, none that is known, or several recipients. Nothing may
    /// then be sent.
    pub fn resolve(&self, patient: &PatientIdentifiers) -> Result<RecipientId, Reason> {
        if patient.identifiers.is_empty() {
            return Err(Reason::NoIdentifier);
        }
        let mut found =
            patient.identifiers.iter().flat_map(names).filter_map(|name| self.recipients.get(&name));
        let first = found.next().ok_or(Reason::UnknownPatient)?;
        if found.all(|other| other == first) { Ok(*first) } else { Err(Reason::AmbiguousPatient) }
    }

    /// Identifiers in the map.
    #[must_use]
    pub fn len(&self) -> usize {
        self.recipients.len()
    }

    /// Whether the map has no identifier.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.recipients.is_empty()
    }

    fn of(file: MapFile) -> Result<Self, PatientMapError> {
        let mut recipients = HashMap::with_capacity(file.patients.len());
        for (index, MapEntry { authority, id_type, id, recipient }) in file.patients.into_iter().enumerate() {
            let entry = index + 1;
            let name = Identifier::new(&authority, &id_type, &id);
            if name.authority.is_empty() || name.id_type.is_empty() || name.id.is_empty() {
                return Err(PatientMapError::Incomplete { entry });
            }
            match recipients.entry(name) {
                Entry::Occupied(earlier) if *earlier.get() != recipient => {
                    return Err(PatientMapError::Contradiction { entry });
                }
                Entry::Occupied(_) => {}
                Entry::Vacant(place) => {
                    place.insert(recipient);
                }
            }
        }
        Ok(Self { recipients })
    }
}

/// Counts, never content.
impl fmt::Debug for PatientMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PatientMap").field("identifiers", &self.len()).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MapFile {
    patients: Vec<MapEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MapEntry {
    authority: String,
    #[serde(rename = "type")]
    id_type: String,
    id: String,
    recipient: RecipientId,
}

#[derive(PartialEq, Eq, Hash)]
struct Identifier {
    authority: Box<str>,
    id_type: Box<str>,
    id: Box<str>,
}

impl Identifier {
    fn new(authority: &str, id_type: &str, id: &str) -> Self {
        Self { authority: authority.trim().into(), id_type: id_type.trim().into(), id: id.trim().into() }
    }
}

/// What the map may call an identifier: by the authority's namespace and by its universal id.
fn names(identifier: &PatientIdentifier) -> impl Iterator<Item = Identifier> {
    [&identifier.authority.namespace, &identifier.authority.universal_id]
        .into_iter()
        .filter(|authority| !authority.is_empty())
        .map(|authority| Identifier::new(authority, &identifier.id_type, &identifier.id))
}

fn line_behind(text: &str) -> usize {
    text.matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hl7::{Message, ReadOptions};
    use crate::oru::Oru;

    const ANNA: &str = "11111111111111111111111111111111";
    const BEN: &str = "22222222222222222222222222222222";

    fn map() -> PatientMap {
        PatientMap::from_toml(&format!(
            "[[patients]]\nauthority = \"NORTH\"\ntype = \"MR\"\nid = \"1\"\nrecipient = \"{ANNA}\"\n\
             [[patients]]\nauthority = \"1.2.3\"\ntype = \"PI\"\nid = \"1\"\nrecipient = \"{ANNA}\"\n\
             [[patients]]\nauthority = \"NORTH\"\ntype = \"MR\"\nid = \"2\"\nrecipient = \"{BEN}\"\n"
        ))
        .unwrap()
    }

    fn patient(identifiers: &str) -> PatientIdentifiers {
        let text = format!(
            "MSH|^~\\&|LAB|N|||20240101||ORU^R01|1|P|2.5\rPID|1||{identifiers}\rOBR|1||7|K^Potassium^L\r"
        );
        let message = Message::parse(text.as_bytes(), &ReadOptions::default()).unwrap();
        Oru::from_message(&message).unwrap().patient
    }

    #[test]
    fn identifiers_lead_to_one_recipient_or_to_quarantine() {
        for (identifiers, expected) in [
            ("1^^^NORTH^MR", Ok(ANNA)),
            (" 1 ^^^NORTH ^MR", Ok(ANNA)),
            ("99^^^ELSEWHERE^MR~1^^^NORTH^MR", Ok(ANNA)),
            ("1^^^NORTH^MR~1^^^X&1.2.3&ISO^PI", Ok(ANNA)),
            ("1^^^&1.2.3&ISO^PI", Ok(ANNA)),
            ("2^^^NORTH^MR", Ok(BEN)),
            ("1^^^NORTH^MR~2^^^NORTH^MR", Err(Reason::AmbiguousPatient)),
            // The namespace is Ben's, the universal id Anna's.
            ("2^^^NORTH^MR~1^^^NORTH&1.2.3&ISO^PI", Err(Reason::AmbiguousPatient)),
            ("3^^^NORTH^MR", Err(Reason::UnknownPatient)),
            ("1^^^NORTH^PI", Err(Reason::UnknownPatient)),
            ("1^^^north^MR", Err(Reason::UnknownPatient)),
            ("1^^^^MR", Err(Reason::UnknownPatient)),
            ("1", Err(Reason::UnknownPatient)),
            ("", Err(Reason::NoIdentifier)),
            ("\"\"^^^NORTH^MR", Err(Reason::NoIdentifier)),
            ("^^^NORTH^MR", Err(Reason::NoIdentifier)),
        ] {
            let expected = expected.map(|recipient: &str| recipient.parse().unwrap());
            assert_eq!(map().resolve(&patient(identifiers)), expected, "{identifiers}");
        }
    }

    #[test]
    fn json_says_the_same() {
        let text = format!(
            r#"{{"patients": [{{"authority": "NORTH", "type": "MR", "id": "1", "recipient": "{ANNA}"}}]}}"#
        );
        let map = PatientMap::from_json(&text).unwrap();
        assert_eq!(map.len(), 1);
        assert_eq!(map.resolve(&patient("1^^^NORTH^MR")), Ok(ANNA.parse().unwrap()));
    }

    #[test]
    fn a_map_that_is_wrong_is_refused() {
        let entry = |authority: &str, id: &str, recipient: &str| {
            format!(
                "[[patients]]\nauthority = \"{authority}\"\ntype = \"MR\"\nid = \"{id}\"\n\
                 recipient = \"{recipient}\"\n"
            )
        };
        let twice = entry("N", "1", ANNA);
        assert_eq!(PatientMap::from_toml(&(twice.clone() + &twice)).unwrap().len(), 1);
        let contradiction = PatientMap::from_toml(&(twice + &entry("N", " 1", BEN)));
        assert!(matches!(contradiction, Err(PatientMapError::Contradiction { entry: 2 })));
        for (authority, id) in [("", "1"), ("N", ""), (" ", "1")] {
            let incomplete = PatientMap::from_toml(&entry(authority, id, ANNA));
            assert!(matches!(incomplete, Err(PatientMapError::Incomplete { entry: 1 })));
        }
        for (malformed, at) in [
            (entry("N", "1", "not a pseudonym"), 5),
            (entry("N", "1", ANNA) + "name = \"Secret\"\n", 6),
            ("[[patients]]\nauthority = \"N\"\n".to_owned(), 1),
            ("patients = 3".to_owned(), 1),
            (String::new(), 1),
        ] {
            match PatientMap::from_toml(&malformed) {
                Err(error @ PatientMapError::Malformed { line }) => {
                    assert_eq!(line, at, "{malformed}");
                    assert!(!format!("{error} {error:?}").contains("Secret"));
                }
                other => panic!("{malformed}: {other:?}"),
            }
        }
    }

    #[test]
    fn files_are_told_apart_by_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            PatientMap::load(&path)
        };
        assert!(write("a.toml", "patients = []").unwrap().is_empty());
        assert!(write("a.json", "{\"patients\": []}").unwrap().is_empty());
        assert!(matches!(write("a.csv", ""), Err(PatientMapError::UnknownFormat)));
        assert!(matches!(
            PatientMap::load(&folder.path().join("none.toml")),
            Err(PatientMapError::Unreadable { .. })
        ));
    }
}
