//! The samples, against hl7-parser.

use hl7_parser::Message as Oracle;

use super::{SAMPLES, parse, sample};

#[test]
fn another_reader_finds_the_same_fields() {
    for name in SAMPLES {
        let bytes = sample(name);
        let text = String::from_utf8(bytes.clone()).unwrap();
        let text = text.trim_start_matches('\u{feff}').trim_end();
        let oracle = Oracle::parse_with_lenient_newlines(text, true).unwrap();
        let ours = parse(&bytes).unwrap();
        assert_eq!(ours.segments().count(), oracle.segments.len(), "{name}");
        for (segment, expected) in ours.segments().zip(oracle.segments()) {
            let context = format!("{name} {}", expected.name);
            assert_eq!(segment.name(), expected.name, "{context}");
            assert_eq!(segment.fields().count(), expected.fields.len(), "{context}");
            for (index, expected) in expected.fields().enumerate() {
                let field = segment.field(index + 1);
                let context = format!("{context}-{}", index + 1);
                assert_eq!(field.raw(), expected.raw_value(), "{context}");
                if segment.name() == "MSH" && index < 2 {
                    continue;
                }
                repetitions(field, expected, &oracle, &context);
            }
        }
    }
}

fn repetitions(
    field: sealpost_connector::hl7::Field<'_>,
    expected: &hl7_parser::message::Field<'_>,
    oracle: &Oracle<'_>,
    context: &str,
) {
    for (repetition, expected) in field.repetitions().zip(expected.repeats()) {
        assert_eq!(repetition.raw(), expected.raw_value(), "{context}");
        for (index, expected) in expected.components().enumerate() {
            let component = repetition.component(index + 1);
            assert_eq!(component.raw(), expected.raw_value(), "{context}");
            for (index, expected) in expected.subcomponents().enumerate() {
                let text = expected.display(&oracle.separators).to_string();
                assert_eq!(component.subcomponent(index + 1), text, "{context}");
            }
        }
    }
    // An empty field has one empty repetition here and none there.
    let count = field.repetitions().count();
    assert!(count == expected.repeats.len() || field.is_empty() && count == 1, "{context}");
}

#[test]
fn a_sample_is_written_as_it_was_read() {
    for name in SAMPLES {
        let bytes = sample(name);
        let written = parse(&bytes).unwrap().encode().unwrap();
        let lines = |bytes: &[u8]| -> Vec<Vec<u8>> {
            let lines = bytes.split(|byte| matches!(byte, b'\r' | b'\n'));
            lines.filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
        };
        assert_eq!(lines(&written), lines(&bytes), "{name}");
    }
}
