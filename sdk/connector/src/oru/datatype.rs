//! The data types that a result uses (HL7 v2.9 chapter 2A): CX, HD, XPN, EI, XCN, CE and CWE.

use std::fmt;

use super::{NULL, OruError};
use crate::hl7::{Field, Repetition, Segment};

/// Repetitions of PID-3.
const IDENTIFIERS_MAX: usize = 64;

/// The patient as PID names them.
#[derive(Clone, PartialEq, Eq)]
pub struct PatientIdentifiers {
    /// PID-3, every repetition with an id.
    pub identifiers: Vec<PatientIdentifier>,
    /// PID-5, the first.
    pub name: Option<PersonName>,
}

/// One identifier of a patient (CX).
#[derive(Clone, PartialEq, Eq)]
pub struct PatientIdentifier {
    /// CX.1, the id itself.
    pub id: String,
    /// CX.4, who assigned it.
    pub authority: AssigningAuthority,
    /// CX.5, the type of table 0203: `MR`, `PI`.
    pub id_type: String,
}

/// An assigning authority (HD).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AssigningAuthority {
    /// HD.1, a name that the site chose.
    pub namespace: String,
    /// HD.2, a name that is unique everywhere.
    pub universal_id: String,
    /// HD.3, what kind of name HD.2 is: `ISO`, `DNS`.
    pub universal_id_type: String,
}

/// A person's name (XPN).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PersonName {
    /// XPN.1.1.
    pub family: String,
    /// XPN.2.
    pub given: String,
    /// XPN.3.
    pub middle: String,
}

/// A clinician (XCN).
#[derive(Clone, PartialEq, Eq)]
pub struct Provider {
    /// XCN.1.
    pub id: String,
    /// XCN.2 and following.
    pub name: PersonName,
}

/// The number of an order (EI).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EntityIdentifier {
    /// EI.1.
    pub id: String,
    /// EI.2, whose number it is.
    pub namespace: String,
    /// EI.3, the same as a name that is unique everywhere.
    pub universal_id: String,
    /// EI.4, what kind of name EI.3 is.
    pub universal_id_type: String,
}

/// A coded element (CE, CWE).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Coded {
    /// CWE.1 and CWE.3: the code and the name of its system (`LN` is LOINC).
    pub code: Option<(String, String)>,
    /// CWE.4 and CWE.6: the same in another system.
    pub alternate: Option<(String, String)>,
    /// CWE.2, else CWE.9, else CWE.5: the code in words.
    pub text: Option<String>,
}

impl PatientIdentifiers {
    pub(super) fn of(segment: Segment<'_>) -> Result<Self, OruError> {
        let field = segment.field(3);
        if field.repetitions().nth(IDENTIFIERS_MAX).is_some() {
            return Err(OruError::TooMany { segment: "PID-3", limit: IDENTIFIERS_MAX });
        }
        let identifiers = field
            .repetitions()
            .filter_map(|repetition| {
                let authority = repetition.component(4);
                Some(PatientIdentifier {
                    id: filled(repetition.component(1).text())?,
                    authority: AssigningAuthority {
                        namespace: text(authority.subcomponent(1)),
                        universal_id: text(authority.subcomponent(2)),
                        universal_id_type: text(authority.subcomponent(3)),
                    },
                    id_type: text(repetition.component(5).text()),
                })
            })
            .collect();
        Ok(Self { identifiers, name: PersonName::of(segment.field(5).first(), 1) })
    }
}

/// Counts, never content.
impl fmt::Debug for PatientIdentifiers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PatientIdentifiers")
            .field("identifiers", &self.identifiers.len())
            .finish_non_exhaustive()
    }
}

debug_without_content!(PatientIdentifier, AssigningAuthority, PersonName, Provider, EntityIdentifier, Coded);

impl PersonName {
    /// Reads a name whose family name is component `first`.
    fn of(repetition: Repetition<'_>, first: usize) -> Option<Self> {
        let part = |number: usize| text(repetition.component(first + number).text());
        Some(Self { family: part(0), given: part(1), middle: part(2) })
            .filter(|name| !name.family.is_empty() || !name.given.is_empty())
    }

    /// Given, middle and family name.
    #[must_use]
    pub fn display(&self) -> String {
        let parts: Vec<&str> = [&self.given, &self.middle, &self.family]
            .into_iter()
            .map(String::as_str)
            .filter(|part| !part.is_empty())
            .collect();
        parts.join(" ")
    }
}

impl Provider {
    pub(super) fn of(field: Field<'_>) -> Option<Self> {
        let id = filled(field.text());
        let name = PersonName::of(field.first(), 2);
        if id.is_none() && name.is_none() {
            return None;
        }
        Some(Self { id: id.unwrap_or_default(), name: name.unwrap_or_default() })
    }
}

impl EntityIdentifier {
    pub(super) fn of(field: Field<'_>) -> Self {
        let part = |number: usize| text(field.component(number).text());
        Self { id: part(1), namespace: part(2), universal_id: part(3), universal_id_type: part(4) }
    }

    /// The number and whose it is, as one text: `986^LAB^2.16.840.1^ISO`.
    #[must_use]
    pub fn key(&self) -> String {
        [self.id.as_str(), &self.namespace, &self.universal_id, &self.universal_id_type]
            .join("^")
            .trim_end_matches('^')
            .to_owned()
    }
}

impl Coded {
    pub(super) fn of(repetition: Repetition<'_>) -> Option<Self> {
        let part = |number: usize| filled(repetition.component(number).text());
        let code = |number: usize| Some((part(number)?, part(number + 2).unwrap_or_default()));
        let coded = Self { code: code(1), alternate: code(4), text: part(2).or(part(9)).or(part(5)) };
        Some(coded).filter(|coded| *coded != Self::default())
    }

    /// The words, or the code where there are none.
    #[must_use]
    pub fn display(&self) -> &str {
        let first = self.code.as_ref().or(self.alternate.as_ref()).map(|(code, _)| code.as_str());
        self.text.as_deref().or(first).unwrap_or_default()
    }

    /// The code, or the words where there is none: how units are written.
    #[must_use]
    pub fn short(&self) -> &str {
        self.code.as_ref().map_or_else(|| self.display(), |(code, _)| code)
    }
}

fn text(text: impl AsRef<str>) -> String {
    filled(text).unwrap_or_default()
}

/// The text without space around it, if there is any.
fn filled(text: impl AsRef<str>) -> Option<String> {
    let text = text.as_ref().trim();
    (!text.is_empty() && text != NULL).then(|| text.to_owned())
}
