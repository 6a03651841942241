//! Canaries: random texts that are planted in every field of a result that says something about the patient, so that each
//! can be looked for everywhere, and so that one that is found tells which field leaked.

use rand_core::CryptoRng;
use sealpost_connector::hl7::{Location, Message, WriteError};
use sealpost_connector::oru::is_content;

use crate::report::Needle;

/// Letters of a canary in words.
const LETTERS: usize = 20;
/// Digits of a canary in a number.
const DIGITS: usize = 18;
/// Characters that a number with its canary may have; the connector reads no longer ones as numbers.
const NUMBER_CHARS_MAX: usize = 32;

/// A random text in the place of a field's own.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Canary {
    /// The random part, which is looked for.
    pub(crate) text: String,
    /// The field: `OBX[3]-5`, with the place among the segments of the message.
    pub(crate) field: String,
    /// What stands in the field now.
    planted: String,
    /// What stood there before.
    original: String,
}

impl Canary {
    /// A canary before `text`, which stands in what is called `field`.
    pub(crate) fn before(text: &str, field: &str, rng: &mut dyn CryptoRng) -> Self {
        let canary = random(b"abcdefghijklmnopqrstuvwxyz", LETTERS, rng);
        let planted = format!("{canary} {text}");
        Self { text: canary, field: field.to_owned(), planted, original: text.to_owned() }
    }

    /// The text with its canary.
    pub(crate) fn planted(&self) -> &str {
        &self.planted
    }

    /// What is looked for.
    pub(crate) fn needle(&self) -> Needle<'_> {
        Needle { name: &self.field, bytes: self.text.as_bytes() }
    }
}

/// Plants a canary in every content field of `message`, and in the patient's identifiers. Numbers stay numbers: theirs
/// are further digits. Dates stay as they are.
///
/// # Errors
/// A message whose separators or character set do not allow it.
pub(crate) fn plant(message: &mut Message, rng: &mut dyn CryptoRng) -> Result<Vec<Canary>, WriteError> {
    let types: Vec<String> =
        message.segments().map(|segment| segment.field(2).first().component(1).text().into_owned()).collect();
    let mut canaries = Vec::new();
    message.map_texts(|location, text| {
        if !(is_content(&location) || is_patient_id(&location)) {
            return None;
        }
        let is_value = location.segment == "OBX" && location.field == 5;
        let value_type = types.get(location.segment_number - 1).filter(|_| is_value);
        let (canary, planted) = planted(text, value_type.map_or("", String::as_str), rng)?;
        let Location { segment, segment_number, field, .. } = location;
        let field = format!("{segment}[{segment_number}]-{field}.{}", location.component);
        canaries.push(Canary { text: canary, field, planted: planted.clone(), original: text.to_owned() });
        Some(planted)
    })?;
    Ok(canaries)
}

/// The text as the hospital wrote it, without the canaries that were planted in it.
pub(crate) fn without_canaries(text: &str, canaries: &[Canary]) -> String {
    canaries.iter().fold(text.to_owned(), |text, canary| {
        let whole = text.replace(&canary.planted, &canary.original);
        // What was cut short behind its canary.
        whole.replace(&format!("{} ", canary.text), "").replace(&canary.text, "")
    })
}

fn is_patient_id(location: &Location<'_>) -> bool {
    location.segment == "PID" && location.field == 3 && location.component == 1
}

/// A canary for `text`, and the two together. Nothing where it would change what kind of thing the text is.
fn planted(text: &str, value_type: &str, rng: &mut dyn CryptoRng) -> Option<(String, String)> {
    match value_type {
        "DT" | "DTM" | "TM" | "TS" => None,
        "NM" | "SN" if is_number(text) => {
            let point = if text.contains('.') { "" } else { "." };
            let digits = NUMBER_CHARS_MAX.saturating_sub(text.len() + point.len()).min(DIGITS);
            let canary = (digits == DIGITS).then(|| random(b"0123456789", digits, rng))?;
            let planted = format!("{text}{point}{canary}");
            Some((canary, planted))
        }
        // The sign of a comparison or a range.
        _ if !text.chars().any(char::is_alphanumeric) => None,
        _ => {
            let canary = random(b"abcdefghijklmnopqrstuvwxyz", LETTERS, rng);
            let planted = format!("{canary} {text}");
            Some((canary, planted))
        }
    }
}

fn is_number(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    text.len() - digits.len() <= 1
        && digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.chars().all(|c| c.is_ascii_digit() || c == '.')
        && digits.matches('.').count() <= 1
}

fn random(alphabet: &[u8], length: usize, rng: &mut dyn CryptoRng) -> String {
    let largest = alphabet.len() as u64;
    // The bias of the remainder of 64 random bits is far below anything that matters here.
    (0..length)
        .map(|_| {
            let place = usize::try_from(rng.next_u64() % largest).unwrap_or_default();
            char::from(alphabet[place])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use getrandom::SysRng;
    use rand_core::UnwrapErr;
    use sealpost_connector::hl7::ReadOptions;
    use sealpost_connector::oru::{Oru, Value};

    use super::*;

    fn message(segments: &[&str]) -> Message {
        let header = r"MSH|^~\&|LAB|NORTH|||20260101||ORU^R01|7|P|2.5";
        let text = [&[header], segments].concat().join("\r");
        Message::parse(text.as_bytes(), &ReadOptions::default()).unwrap()
    }

    #[test]
    fn every_content_field_gets_its_own_and_the_result_stays_a_result() {
        let mut message = message(&[
            "PID|1||12^^^N^MR||Mustermann^Jörg||19700101|M|||Ring 5^^Ulm^^89073",
            "OBR|1||F1|24326-1^Electrolytes^LN|||20260101|||||||||9^Okafor^D",
            "OBX|1|NM|2823-3^Potassium^LN||6.9|mmol/L|3.5-5.1|HH|||F",
            "OBX|2|SN|1-1^Titer^LN||>^128||||||F",
            "OBX|3|DT|2-2^Day^LN||20260101||||||F",
            r"NTE|1||Called \T\ told",
        ]);
        let canaries = plant(&mut message, &mut UnwrapErr(SysRng)).unwrap();
        let mut fields: Vec<_> = canaries.iter().map(|canary| canary.field.as_str()).collect();
        fields.sort_unstable();
        assert_eq!(
            fields,
            [
                "NTE[7]-3.1",
                "OBR[3]-16.2",
                "OBR[3]-16.3",
                "OBR[3]-4.2",
                "OBX[4]-3.2",
                "OBX[4]-5.1",
                "OBX[5]-3.2",
                "OBX[5]-5.2",
                "OBX[6]-3.2",
                "PID[2]-11.1",
                "PID[2]-11.3",
                "PID[2]-11.5",
                "PID[2]-3.1",
                "PID[2]-5.1",
                "PID[2]-5.2"
            ]
        );
        let mut texts: Vec<_> = canaries.iter().map(|canary| canary.text.as_str()).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), fields.len());

        let written = message.encode().unwrap();
        let written = std::str::from_utf8(&written).unwrap();
        assert!(texts.iter().all(|text| written.contains(text)));
        let oru = Oru::from_message(&message).unwrap();
        let potassium = &oru.orders[0].observations[0];
        assert!(
            matches!(&potassium.value, Value::Quantity { number, .. } if number.as_str().starts_with("6.9"))
        );
        let titer = &oru.orders[0].observations[1];
        assert!(matches!(&titer.value, Value::Quantity { comparator: Some(_), .. }));
        let shown =
            format!("Potassium: {}", canaries.iter().find(|c| c.field == "OBX[4]-5.1").unwrap().planted);
        assert_eq!(without_canaries(&shown, &canaries), "Potassium: 6.9");
        assert_eq!(without_canaries(&oru.orders[0].observations[2].notes[0], &canaries), "Called & told");
    }

    #[test]
    fn numbers_are_told_from_words() {
        for (text, expected) in [
            ("6.9", true),
            ("-12", true),
            ("+1.50", true),
            ("1.2.3", false),
            ("", false),
            ("-", false),
            ("6,9", false),
        ] {
            assert_eq!(is_number(text), expected, "{text}");
        }
        let rng = &mut UnwrapErr(SysRng);
        let (canary, whole) = planted("138", "NM", rng).unwrap();
        assert_eq!(whole, format!("138.{canary}"));
        // Too long for the digits to fit: the number stays as it is.
        assert!(planted("123456789012345.67", "NM", rng).is_none());
        assert!(planted(">", "SN", rng).is_none());
        // A word where a number should stand is still content.
        assert!(planted("haemolysed", "NM", rng).is_some());
    }
}
