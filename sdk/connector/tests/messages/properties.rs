//! Nothing panics, whatever the bytes.

use proptest::prelude::*;
use sealpost_connector::alert::{Alert, AlertOptions};
use sealpost_connector::hl7::{Message, ReadOptions};
use sealpost_connector::oru::Oru;
use sealpost_wire::id::RecipientId;
use sealpost_wire::limits::{BODY_BYTES_MAX, PART_BYTES_MAX, TITLE_BYTES_MAX};

use super::{SAMPLES, sample};

/// Reads as far as the bytes allow, and checks what must hold of whatever was read.
fn read(bytes: &[u8]) {
    let Ok(message) = Message::parse(bytes, &ReadOptions::default()) else { return };
    assert_eq!(message.header().name(), "MSH");
    for segment in message.segments() {
        for field in segment.fields() {
            for component in field.repetitions().flat_map(|repetition| repetition.components()) {
                let _ = component.text();
            }
        }
    }
    let written = message.encode().unwrap();
    let again =
        Message::parse(&written, &ReadOptions { message_bytes_max: usize::MAX, ..ReadOptions::default() });
    assert_eq!(again.as_ref().map(|message| message.encode().unwrap()), Ok(written));
    let Ok(oru) = Oru::from_message(&message) else { return };
    let alerts = Alert::from_oru(&oru, RecipientId([7; 16]), &AlertOptions::default()).unwrap();
    assert!(!alerts.is_empty());
    for alert in alerts {
        let text = &alert.texts["en"];
        assert!(!text.title.is_empty() && text.title.len() <= TITLE_BYTES_MAX);
        assert!(!text.body.is_empty() && text.body.len() <= BODY_BYTES_MAX);
        if let Some(part) = alert.part {
            assert!(part.bytes.len() <= PART_BYTES_MAX);
            serde_json::from_slice::<serde_json::Value>(&part.bytes).unwrap();
        }
    }
}

/// A change to a message: a place, as a fraction of its length, and what happens there.
#[derive(Clone, Debug)]
enum Change {
    Replace(u8),
    Insert(Vec<u8>),
    Remove(usize),
    Repeat(usize),
    Cut,
}

fn change() -> impl Strategy<Value = (prop::sample::Index, Change)> {
    let pieces = prop::sample::select(vec![
        "|",
        "^",
        "~",
        "&",
        "\\",
        "\r",
        "\n",
        "\"\"",
        "\\X",
        "\\.sp9\\",
        "OBX|",
        "\rOBX|1|NM|x||",
        "MSH|^~\\&|",
        "é",
    ]);
    let change = prop_oneof![
        any::<u8>().prop_map(Change::Replace),
        pieces.prop_map(|piece| Change::Insert(piece.as_bytes().to_vec())),
        prop::collection::vec(any::<u8>(), 1..4).prop_map(Change::Insert),
        (1..200_usize).prop_map(Change::Remove),
        (1..400_usize).prop_map(Change::Repeat),
        Just(Change::Cut),
    ];
    (any::<prop::sample::Index>(), change)
}

fn changed(mut bytes: Vec<u8>, changes: &[(prop::sample::Index, Change)]) -> Vec<u8> {
    for (place, change) in changes {
        if bytes.is_empty() {
            break;
        }
        let at = place.index(bytes.len());
        match change {
            Change::Replace(byte) => bytes[at] = *byte,
            Change::Insert(piece) => drop(bytes.splice(at..at, piece.iter().copied())),
            Change::Remove(length) => drop(bytes.drain(at..(at + length).min(bytes.len()))),
            Change::Repeat(length) => {
                let piece = bytes[at..(at + length).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            Change::Cut => bytes.truncate(at),
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        read(&bytes);
    }

    #[test]
    fn any_bytes_behind_a_header_are_read_or_refused(
        separators in "[!-/:-@\\[-`{-~]{0,7}",
        bytes in prop::collection::vec(any::<u8>(), 0..256),
    ) {
        read(&[b"MSH", separators.as_bytes(), &bytes].concat());
    }

    #[test]
    fn any_fields_of_a_result_are_mapped(
        value_type in "(NM|SN|ST|TX|FT|CE|CWE|DT|TS|TM|ED|RP|XX|)",
        value in "[ -~äß\u{202e}]{0,60}",
        unit in "\\PC{0,20}",
        flags in "(HH|LL|AA|H|L|A|N|<|>|ZZ|HH~L|)",
        status in "[A-Z]?",
        order_status in "[A-Z]?",
    ) {
        let text = format!(
            "MSH|^~\\&|LAB|N|||2024||ORU^R01|1|P|2.5\rPID|1||1^^^N^MR||T\r\
             OBR|1||7|K||||||||||||||||||||||{order_status}\r\
             OBX|1|{value_type}|K^Potassium^LN||{value}|{unit}|1-2|{flags}|||{status}\r"
        );
        read(text.as_bytes());
    }

    #[test]
    fn a_changed_sample_is_read_or_refused(
        name in prop::sample::select(SAMPLES.to_vec()),
        changes in prop::collection::vec(change(), 1..8),
    ) {
        read(&changed(sample(name), &changes));
    }

    #[test]
    fn any_text_survives_writing(text in any::<String>(), separators in "[!-%'-/:-@\\[\\]-`{}]") {
        let mut message = Message::parse(
            format!("MSH{separators}^~\\&{separators}LAB\rNTE{separators}1{separators}x\r").as_bytes(),
            &ReadOptions::default(),
        ).or_else(|_| Message::parse(b"MSH|^~\\&#|LAB\rNTE|1|x\r", &ReadOptions::default())).unwrap();
        message.map_texts(|location, _| (location.segment == "NTE").then(|| text.clone())).unwrap();
        let again = Message::parse(&message.encode().unwrap(), &ReadOptions::default()).unwrap();
        let note = again.segments().nth(1).unwrap();
        prop_assert_eq!(note.field(1).text(), text.clone());
        prop_assert_eq!(note.field(2).text(), text);
    }
}
