//! The reader over line ends, byte order marks, character sets, separators, escapes, and what is no message.

use sealpost_connector::hl7::{Fallback, Hl7Error, Message, ReadOptions, WriteError};

use super::parse;

const LINES: [&str; 3] =
    ["MSH|^~\\&|LAB|N|||20240101||ORU^R01|1|P|2.5", "PID|1||7^^^N^MR||Doe^Jo", "OBR|1||9"];

fn names(message: &Message) -> Vec<&str> {
    message.segments().map(|segment| segment.name()).collect()
}

fn name_of_patient(bytes: &[u8]) -> Result<String, Hl7Error> {
    let message = parse(bytes)?;
    let patient = message.segments().find(|segment| segment.name() == "PID").unwrap();
    Ok(patient.field(5).text().into_owned())
}

#[test]
fn every_line_end_separates_segments() {
    for end in ["\r", "\n", "\r\n", "\r\r", "\n\n", "\n\r", "\r\n\r\n"] {
        for (before, behind) in [("", ""), ("", end), (end, ""), (end, end)] {
            let text = format!("{before}{}{behind}", LINES.join(end));
            let message = parse(&text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
            assert_eq!(names(&message), ["MSH", "PID", "OBR"], "{text:?}");
            assert_eq!(message.segments().last().unwrap().field(3).text(), "9", "{text:?}");
        }
    }
}

#[test]
fn a_line_feed_inside_a_text_is_kept_or_refused_never_guessed() {
    let [header, ..] = LINES;
    let message = parse(format!("{header}\rNTE|1||first\nBUN: high\rOBX|1\r")).unwrap();
    assert_eq!(names(&message), ["MSH", "NTE", "OBX"]);
    let note = message.segments().nth(1).unwrap().field(3);
    assert_eq!(note.text(), "first\nBUN: high");
    // Either a forged result in a note, or a segment whose end was mangled.
    let mixed = parse(format!("{header}\rNTE|1||first\nOBX|1|NM|K||6.9\rOBX|2\r"));
    assert_eq!(mixed.unwrap_err(), Hl7Error::MixedLineEnds { line: 2 });
    // What stands before the message has no say in what a segment looks like.
    for envelope in ["BHS", "BHS^", "FHS|^~\\&\rBHS#"] {
        let mixed = parse(format!("{envelope}\r{header}\rNTE|1||first\nOBX|1|NM|K||6.9\r")).unwrap_err();
        assert!(matches!(mixed, Hl7Error::MixedLineEnds { .. }), "{envelope}: {mixed}");
    }
    let swallowed = parse(format!("BHS|^~\\&\n{header}\rNTE|1\r{header}\r"));
    assert_eq!(swallowed.unwrap_err(), Hl7Error::MixedLineEnds { line: 1 });
}

#[test]
fn byte_order_marks_decide() {
    let text = "MSH|^~\\&|LAB|N|||2024||ORU^R01|1|P|2.5||||||8859/1\rPID|1||7||Jürgen\r";
    let utf16 = |to_bytes: fn(u16) -> [u8; 2], mark: bool| -> Vec<u8> {
        mark.then_some(0xFEFF).into_iter().chain(text.encode_utf16()).flat_map(to_bytes).collect()
    };
    let utf8 = [b"\xEF\xBB\xBF", text.as_bytes()].concat();
    for bytes in [
        utf8,
        utf16(u16::to_le_bytes, true),
        utf16(u16::to_be_bytes, true),
        utf16(u16::to_le_bytes, false),
        utf16(u16::to_be_bytes, false),
    ] {
        assert_eq!(name_of_patient(&bytes).as_deref(), Ok("Jürgen"));
        assert_eq!(parse(&bytes).unwrap().encode().unwrap(), bytes);
    }
    let odd = [0xFF, 0xFE, b'M'];
    assert_eq!(parse(odd).unwrap_err(), Hl7Error::InvalidText { charset: "UTF-16LE" });
}

#[test]
fn the_character_set_is_that_of_msh_18() {
    let cases: &[(&str, &[u8], Result<&str, Hl7Error>)] = &[
        ("8859/1", b"J\xFCrgen", Ok("Jürgen")),
        ("8859/2", b"\xA3ukasz", Ok("Łukasz")),
        ("8859/5", b"\xB8\xD2\xD0\xDD", Ok("Иван")),
        ("8859/15", b"\xBD", Ok("œ")),
        ("UNICODE UTF-8", "Jürgen".as_bytes(), Ok("Jürgen")),
        ("UNICODE", "Jürgen".as_bytes(), Ok("Jürgen")),
        ("UTF-8", "Jürgen".as_bytes(), Ok("Jürgen")),
        ("utf8", "Jürgen".as_bytes(), Ok("Jürgen")),
        ("WINDOWS-1252", b"J\xFCrgen \x96", Ok("Jürgen –")),
        ("UNICODE UTF-16", "Jürgen".as_bytes(), Ok("Jürgen")),
        ("8859/1~ISO IR87", b"J\xFCrgen", Ok("Jürgen")),
        // Undeclared, or declared too narrowly: UTF-8 if it is that, else the fallback.
        ("", "Jürgen".as_bytes(), Ok("Jürgen")),
        ("", b"J\xFCrgen \x80", Ok("Jürgen €")),
        ("ASCII", b"J\xFCrgen", Ok("Jürgen")),
        ("~ISO IR87", b"Juergen", Ok("Juergen")),
        // The second byte of the last character is a backslash, of the next-to-last case a bar.
        ("ISO IR14", b"\x95\x5C", Ok("表")),
        ("GB 18030-2000", b"\x81\x7C", Ok("亅")),
        ("BIG-5", b"\xA4\xA4", Ok("中")),
        ("ISO IR87", b"\x1B$B;3ED\x1B(B", Ok("山田")),
        // Declared and not true.
        ("UNICODE UTF-8", b"J\xFCrgen", Err(Hl7Error::InvalidText { charset: "UTF-8" })),
        ("GB 18030-2000", b"\x81", Err(Hl7Error::InvalidText { charset: "gb18030" })),
        ("UNICODE UTF-32", b"x", Err(Hl7Error::UnsupportedCharset)),
        ("ISO-2022-KR", b"x", Err(Hl7Error::UnsupportedCharset)),
        ("EBCDIC", b"x", Err(Hl7Error::UnsupportedCharset)),
        ("\u{fc}", b"x", Err(Hl7Error::UnsupportedCharset)),
    ];
    for (declared, name, expected) in cases {
        let header = format!("MSH|^~\\&|LAB|N|||2024||ORU^R01|1|P|2.5||||||{declared}\rPID|1||7||");
        let bytes = [header.as_bytes(), name, b"\r"].concat();
        let read = name_of_patient(&bytes);
        assert_eq!(read.as_deref().map_err(Clone::clone), expected.clone(), "{declared:?} {name:?}");
        if read.is_ok() {
            assert_eq!(parse(&bytes).unwrap().encode().unwrap(), bytes, "{declared}");
        }
    }
}

#[test]
fn the_fallback_is_the_sites_choice() {
    let bytes = b"MSH|^~\\&|LAB\rPID|1||7||\xA3ukasz\r";
    let read = |fallback: Option<Fallback>| {
        let options = ReadOptions { fallback: fallback.unwrap(), ..ReadOptions::default() };
        let message = Message::parse(bytes, &options).unwrap();
        message.segments().nth(1).unwrap().field(5).text().into_owned()
    };
    assert_eq!(read(Some(Fallback::default())), "£ukasz");
    assert_eq!(read(Fallback::named("8859/2")), "Łukasz");
    assert_eq!(read(Fallback::named("windows-1250")), "Łukasz");
    for unusable in ["", "klingon", "UNICODE UTF-16", "UNICODE UTF-32", "iso-2022-kr"] {
        assert_eq!(Fallback::named(unusable), None, "{unusable}");
    }
}

#[test]
fn msh_18_must_hold_in_its_own_set() {
    // In GB 18030 the bar after 0x81 is half of a character, so that MSH-18 is another field after decoding.
    let bytes = b"MSH|^~\\&|LAB|\x81||2024|x||ORU^R01|1|P|2.5||||||GB 18030-2000\r";
    assert_eq!(parse(bytes).unwrap_err(), Hl7Error::CharsetConflict);
}

#[test]
fn separators_are_those_of_the_message() {
    let message = parse("MSH#*@!%#LAB#N\rPID#1##7***N%1.2%ISO*MR@8*a^b&c|d~e\\f##D!F!e\r").unwrap();
    let patient = message.segments().nth(1).unwrap();
    let ids: Vec<_> = patient.field(3).repetitions().map(|id| id.component(1).text().into_owned()).collect();
    assert_eq!(ids, ["7", "8"]);
    assert_eq!(patient.field(3).component(4).subcomponent(2), "1.2");
    assert_eq!(patient.field(3).repetitions().nth(1).unwrap().component(2).text(), "a^b&c|d~e\\f");
    assert_eq!(patient.field(5).text(), "D#e");
    assert_eq!(message.header().field(1).raw(), "#");
    assert_eq!(message.header().field(2).text(), "*@!%");
    assert_eq!(message.header().field(3).text(), "LAB");
}

#[test]
fn separators_that_are_left_out_do_not_separate() {
    let message = parse("MSH|^|LAB\rPID|a~b&c\\F\\^d\r").unwrap();
    let field = message.segments().nth(1).unwrap().field(1);
    assert_eq!(field.repetitions().count(), 1);
    assert_eq!(field.component(1).text(), "a~b&c\\F\\");
    assert_eq!(field.component(2).text(), "d");
    let mut message = message;
    let refused = message.map_texts(|_, text| Some(format!("{text}|")));
    assert_eq!(refused, Err(WriteError::NoEscape));
    assert_eq!(message.segments().nth(1).unwrap().raw(), "PID|a~b&c\\F\\^d");
}

#[test]
fn escapes_are_decoded() {
    for (raw, expected) in [
        (r"a\F\b\S\c\T\d\R\e\E\f\P\g", r"a|b^c&d~e\f#g"),
        (r"one\.br\two", "one\ntwo"),
        (r"one\.sp2\two\.sp+1\", "one\n\ntwo\n"),
        (r"a\.sk3\b", "a   b"),
        (r"a\.in+4\b\.fi\c\.ce\d", "abc\nd"),
        (r"\H\loud\N\", "loud"),
        (r"\XC3A9\\X0d0A\\X41\", "é\r\nA"),
        // What is no sequence stays.
        (r"C:\dir\x", r"C:\dir\x"),
        (r"50\", r"50\"),
        (r"\\", r"\\"),
        (
            r"\X\ \XC\ \XZZ\ \XFF\ \.\ \.xx\ \.sp-1\ \Zab\ \C2842\",
            r"\X\ \XC\ \XZZ\ \XFF\ \.\ \.xx\ \.sp-1\ \Zab\ \C2842\",
        ),
        (r"\x\F\", r"\x|"),
        (r"\.é\", r"\.é\"),
    ] {
        let message = parse(format!("MSH|^~\\&#|LAB\rNTE|1||{raw}\r")).unwrap();
        assert_eq!(message.segments().nth(1).unwrap().field(3).text(), expected, "{raw}");
    }
    // A bomb of line feeds is defused.
    let message = parse("MSH|^~\\&|LAB\rNTE|1||\\.sp999999999\\\r").unwrap();
    assert_eq!(message.segments().nth(1).unwrap().field(3).text().len(), 16);
    // Bytes of an escape are in the message's set.
    let message = parse("MSH|^~\\&|LAB|||||||||||||||8859/1\rNTE|1||\\XE9\\\r").unwrap();
    assert_eq!(message.segments().nth(1).unwrap().field(3).text(), "é");
}

#[test]
fn what_is_left_out_reads_as_empty() {
    let message = parse("MSH|^~\\&\rPID\rZZ9|\r").unwrap();
    assert_eq!(names(&message), ["MSH", "PID", "ZZ9"]);
    for segment in message.segments().skip(1) {
        for number in [0, 1, 2, 999, usize::MAX] {
            let field = segment.field(number);
            assert!(field.is_empty());
            assert_eq!(field.component(number).subcomponent(number), "");
            assert_eq!(field.first().literal(), "");
        }
    }
    assert_eq!(message.header().field(9).text(), "");
}

#[test]
fn file_and_batch_headers_are_passed_over() {
    let batch = "FHS|^~\\&|A\rBHS|^~\\&|B\rMSH#*~!%#LAB\rPID#7\rBTS#1\rFTS#1\r";
    let message = parse(batch).unwrap();
    assert_eq!(names(&message), ["MSH", "PID"]);
    assert_eq!(message.header().field(3).text(), "LAB");
    for several in [
        "MSH|^~\\&|A\rPID|1\rMSH|^~\\&|B\rPID|2\r",
        "BHS|^~\\&|A\rMSH|^~\\&|B\rMSH|^~\\&|B\rBTS|2\r",
        "MSH|^~\\&|A\rBTS|1\rBHS|^~\\&|B\rMSH|^~\\&|B\r",
    ] {
        assert_eq!(parse(several).unwrap_err(), Hl7Error::MultipleMessages, "{several:?}");
    }
    for empty in ["FHS|^~\\&|A\rBHS|^~\\&|B\rBTS|0\r", "FHS|^~\\&\rBHS|^~\\&\rFHS|^~\\&\rMSH|^~\\&\r"] {
        assert_eq!(parse(empty).unwrap_err(), Hl7Error::NotHl7, "{empty:?}");
    }
}

#[test]
fn what_is_no_message_has_a_clear_name() {
    for (bytes, code) in [
        (&b""[..], "message_empty"),
        (b"\r\n\r\n", "message_empty"),
        (b"\xEF\xBB\xBF", "message_empty"),
        (b"<?xml version=\"1.0\"?>", "not_hl7"),
        (b"PID|1\rMSH|^~\\&|A\r", "not_hl7"),
        (b"\x0BMSH|^~\\&|A\r\x1C\r", "not_hl7"),
        (b"MS", "not_hl7"),
        (b"\xFF\xFE", "message_empty"),
        (b"MSH", "bad_separators"),
        (b"MSH|", "bad_separators"),
        (b"MSH||LAB", "bad_separators"),
        (b"MSH|^~\\&#!|LAB", "bad_separators"),
        (b"MSH|^^\\&|LAB", "bad_separators"),
        (b"MSHA^~\\&A", "bad_separators"),
        (b"MSH|abc|LAB", "bad_separators"),
        (b"MSH |^~\\&", "bad_separators"),
        (b"MSH|^~\\&|A\rpid|1\r", "bad_segment"),
        (b"MSH|^~\\&|A\rPI\r", "bad_segment"),
        (b"MSH|^~\\&|A\rPIDX|1\r", "bad_segment"),
        (b"MSH|^~\\&|A\r3PI|1\r", "bad_segment"),
        (b"MSH|^~\\&|A\nNTE|1||a\nsecond line\n", "bad_segment"),
        (b"MSH|^~\\&|A\r\x1C\r", "bad_segment"),
        (b"MSH|^~\\&|A\r\xC3\xA4\xC3\xA4|1\r", "bad_segment"),
    ] {
        assert_eq!(parse(bytes).unwrap_err().code(), code, "{}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn a_message_cut_off_anywhere_is_read_or_refused() {
    let whole = super::sample("critical-potassium.hl7");
    for length in 0..whole.len() {
        match parse(&whole[..length]) {
            Ok(message) => assert!(message.encode().unwrap().len() <= length + 1),
            Err(error) => {
                let named = matches!(error.code(), "bad_segment" | "unsupported_charset");
                assert!(length < 12 || named, "{length}: {error}");
            }
        }
    }
}

#[test]
fn limits_hold() {
    let limited = |bytes: &[u8]| {
        let options =
            ReadOptions { message_bytes_max: 100, segments_max: 3, fields_max: 5, ..ReadOptions::default() };
        Message::parse(bytes, &options).map(|_| ())
    };
    let header = "MSH|^~\\&|A\r";
    assert_eq!(limited(&[b'x'; 101]), Err(Hl7Error::TooLarge { limit: 100 }));
    assert_eq!(limited(format!("{header}PID\rOBR\r").as_bytes()), Ok(()));
    assert_eq!(
        limited(format!("{header}PID\rOBR\rOBX\r").as_bytes()),
        Err(Hl7Error::TooManySegments { limit: 3 })
    );
    assert_eq!(limited(format!("{header}PID|1|2|3|4|5\r").as_bytes()), Ok(()));
    assert_eq!(
        limited(format!("{header}PID|1|2|3|4|5|\r").as_bytes()),
        Err(Hl7Error::TooManyFields { line: 2, limit: 5 })
    );
}

#[test]
fn bombs_are_defused() {
    let filled = |filler: &str| {
        let header = "MSH|^~\\&|A\rOBX|1||";
        header.to_owned()
            + &filler.repeat((sealpost_connector::hl7::MESSAGE_BYTES_MAX - header.len()) / filler.len())
    };
    assert_eq!(parse(filled("|")).unwrap_err().code(), "too_many_fields");
    assert_eq!(parse(filled("\r")).map(|message| message.segments().count()), Ok(2));
    assert_eq!(parse(filled("\rPID")).unwrap_err().code(), "too_many_segments");
    for separator in ["~", "^", "&", "\\", "\\.sp16\\", "ä"] {
        let mut message = parse(filled(separator)).unwrap();
        let field = message.segments().nth(1).unwrap().field(3);
        assert!(field.component(1).text().len() <= sealpost_connector::hl7::MESSAGE_BYTES_MAX * 3);
        let texts = std::cell::Cell::new(0_usize);
        message
            .map_texts(|_, _| {
                texts.set(texts.get() + 1);
                None
            })
            .unwrap();
        assert!(texts.get() <= 3);
    }
}

#[test]
fn texts_can_be_changed_and_nothing_else() {
    let bytes = super::sample("critical-potassium.hl7");
    let mut message = parse(&bytes).unwrap();
    let mut seen = Vec::new();
    message
        .map_texts(|location, text| {
            seen.push(text.to_owned());
            (location.segment == "PID" && location.field == 5).then(|| "A|B^C~D\\E&F\r\nü".to_owned())
        })
        .unwrap();
    assert!(seen.contains(&"Sample not haemolysed. Measured twice & confirmed.".to_owned()));
    assert!(!seen.iter().any(|text| text.is_empty() || text == "^~\\&"));

    let written = message.encode().unwrap();
    let again = parse(&written).unwrap();
    assert_eq!(again, message);
    let name = again.segments().nth(1).unwrap().field(5);
    assert_eq!(name.text(), "A|B^C~D\\E&F\r\nü");
    assert_eq!(name.component(7).text(), "A|B^C~D\\E&F\r\nü");
    let unchanged = |text: &[u8]| -> Vec<String> {
        let text = String::from_utf8(text.to_vec()).unwrap().replace('\n', "\r");
        text.split('\r').filter(|line| !line.starts_with("PID") && !line.is_empty()).map(Into::into).collect()
    };
    assert_eq!(unchanged(&written), unchanged(&bytes));
}

#[test]
fn a_text_outside_the_set_cannot_be_written() {
    let mut message = parse("MSH|^~\\&|LAB|||||||||||||||8859/1\rNTE|1||x\r").unwrap();
    message.map_texts(|location, _| (location.segment == "NTE").then(|| "山".to_owned())).unwrap();
    assert_eq!(message.encode(), Err(WriteError::Unencodable { charset: "windows-1252" }));
}

#[test]
fn nothing_of_a_message_reaches_a_log() {
    let message = parse("MSH|^~\\&|LAB\rPID|1||4711||Geheim\r").unwrap();
    let patient = message.segments().nth(1).unwrap();
    let shown = format!("{message:?} {patient:?} {:?} {:?}", patient.field(5), patient.field(5).component(1));
    assert!(!shown.contains("Geheim") && !shown.contains("4711"), "{shown}");
    let refused = parse("MSH|^~\\&|LAB\rGeheim\r").unwrap_err();
    assert!(!format!("{refused} {refused:?}").contains("Geheim"));
}
