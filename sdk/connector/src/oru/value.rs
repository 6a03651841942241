//! OBX-5 by the type in OBX-2 (table 0125).

use super::datatype::Coded;
use crate::hl7::{Field, Timestamp};

/// Digits of a number, sign and point included.
const DECIMAL_CHARS_MAX: usize = 32;

/// The value of an observation.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// None is given.
    Absent,
    /// NM, and SN with one number.
    Quantity {
        /// SN.1, where it is not `=`.
        comparator: Option<Comparator>,
        /// The number, with the digits that were sent.
        number: Decimal,
    },
    /// CE, CWE and their kin.
    Coded(Coded),
    /// DT, DTM, TS.
    Time(Timestamp),
    /// Every other type, and a number or time that is none; repetitions are lines.
    Text(String),
    /// ED and RP: a document, in the message or elsewhere. It is not carried on.
    Document,
}

/// How a number bounds the value (SN.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparator {
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>=`
    AtLeast,
    /// `>`
    Greater,
}

/// A decimal number as digits: 6.90 is not 6.9, since trailing zeros tell how precise the value is.
#[derive(Clone, PartialEq, Eq)]
pub struct Decimal(String);

debug_without_content!(Value, Decimal);

impl Value {
    pub(super) fn of(value_type: &str, field: Field<'_>) -> Self {
        if field.is_empty() || field.raw() == super::NULL {
            return Self::Absent;
        }
        if matches!(value_type, "ED" | "RP") {
            return Self::Document;
        }
        let single = field.repetitions().nth(1).is_none();
        let typed = match value_type {
            "NM" if single => Decimal::parse(&field.first().literal())
                .map(|number| Self::Quantity { comparator: None, number }),
            "SN" if single => structured_number(field),
            "CE" | "CWE" | "CNE" | "CF" if single => Coded::of(field.first()).map(Self::Coded),
            "DT" | "DTM" | "TS" if single => Timestamp::parse(&field.text()).map(Self::Time),
            _ => None,
        };
        typed.unwrap_or_else(|| match text(value_type, field) {
            text if text.is_empty() => Self::Absent,
            text => Self::Text(text),
        })
    }
}

impl Decimal {
    /// Reads a number as NM has it: a sign, digits, a point and digits. `None` if it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.len() > DECIMAL_CHARS_MAX {
            return None;
        }
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => ("-", digits),
            None => ("", text.strip_prefix('+').unwrap_or(text)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let plain = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() && fraction.is_empty() || !plain(whole) || !plain(fraction) {
            return None;
        }
        let whole = match whole.trim_start_matches('0') {
            "" => "0",
            whole => whole,
        };
        let point = if fraction.is_empty() { "" } else { "." };
        Some(Self(format!("{sign}{whole}{point}{fraction}")))
    }

    /// The number as JSON writes one.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Comparator {
    /// The sign, as FHIR writes it too.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::AtLeast => ">=",
            Self::Greater => ">",
        }
    }
}

/// SN: comparator, number, and nothing that would make it a range or a ratio.
fn structured_number(field: Field<'_>) -> Option<Value> {
    let comparator = match field.component(1).text().trim() {
        "" | "=" => None,
        "<" => Some(Comparator::Less),
        "<=" => Some(Comparator::AtMost),
        ">=" => Some(Comparator::AtLeast),
        ">" => Some(Comparator::Greater),
        _ => return None,
    };
    let alone = field.first().components().skip(2).all(|part| part.raw().is_empty());
    let number = Decimal::parse(&field.component(2).text()).filter(|_| alone)?;
    Some(Value::Quantity { comparator, number })
}

/// Any value as text. Types without structure are taken literally; of the others, the parts that are not
/// empty.
fn text(value_type: &str, field: Field<'_>) -> String {
    let literal = matches!(value_type, "ST" | "TX" | "FT" | "NM" | "");
    let between = if value_type == "SN" { "" } else { " " };
    let lines: Vec<String> = field
        .repetitions()
        .map(|repetition| {
            if literal {
                return repetition.literal().trim_end().to_owned();
            }
            if let Some(coded) = value_type.starts_with('C').then(|| Coded::of(repetition)).flatten() {
                return coded.display().to_owned();
            }
            let parts: Vec<String> = repetition
                .components()
                .map(|part| part.text().trim().to_owned())
                .filter(|part| !part.is_empty())
                .collect();
            parts.join(between)
        })
        .collect();
    lines.join("\n").trim().to_owned()
}
