//! ORU^R01 into its typed form.

use sealpost_connector::hl7::Timestamp;
use sealpost_connector::oru::{
    AbnormalFlag, Comparator, ORDERS_MAX, OrderStatus, Oru, OruError, ProcessingId, ResultStatus, Value,
};

use super::{oru, parse, potassium, result, sample};

#[test]
fn the_critical_potassium_is_read_in_full() {
    let oru = oru(sample("critical-potassium.hl7")).unwrap();
    assert_eq!(oru.source.sending_application, "NORTHLAB");
    assert_eq!(oru.source.sending_facility, "NORTHSIDE^2.16.840.1.113883.19.5^ISO");
    assert_eq!(oru.source.control_id, "NL20261103-000417");
    assert_eq!(oru.source.version, "2.5.1");
    assert_eq!(oru.source.processing, ProcessingId::Production);
    assert_eq!(oru.source.key().key, "NORTHLAB|NORTHSIDE^2.16.840.1.113883.19.5^ISO|NL20261103-000417");

    let ids: Vec<_> = oru
        .patient
        .identifiers
        .iter()
        .map(|id| {
            (
                id.id.as_str(),
                id.authority.namespace.as_str(),
                id.authority.universal_id.as_str(),
                &*id.id_type,
            )
        })
        .collect();
    assert_eq!(
        ids,
        [("PX-30417", "NORTHSIDE", "2.16.840.1.113883.19.5", "MR"), ("884-220-117", "NATIONAL", "", "NI")]
    );
    assert_eq!(oru.patient.name.as_ref().unwrap().display(), "Mara Elise Lindqvist");

    let [order] = oru.orders.as_slice() else { panic!("one order") };
    assert_eq!(order.filler.key(), "F-2026-118844^NORTHLAB^2.16.840.1.113883.19.5.7^ISO");
    assert_eq!(order.service.display(), "Electrolytes panel");
    assert_eq!(order.status, OrderStatus::Final);
    assert_eq!(order.changed_at, Timestamp::parse("20261103141200+0100"));
    assert_eq!(order.notes, ["Called to the ordering clinic at 14:10."]);
    let provider = order.ordering_provider.as_ref().unwrap();
    assert_eq!((provider.id.as_str(), provider.name.display().as_str()), ("4471", "Daniel Okafor"));
    assert_eq!(order.observations.len(), 4);
    let potassium = &order.observations[0];
    assert_eq!(potassium.code.code, Some(("2823-3".into(), "LN".into())));
    assert_eq!(potassium.unit.as_ref().unwrap().short(), "mmol/L");
    assert_eq!(potassium.reference_range.as_deref(), Some("3.5-5.1"));
    assert_eq!(potassium.flags, [AbnormalFlag::CriticallyHigh]);
    assert_eq!(potassium.status, ResultStatus::Final);
    assert_eq!(potassium.notes, ["Sample not haemolysed. Measured twice & confirmed."]);
    assert!(
        matches!(&potassium.value, Value::Quantity { comparator: None, number } if number.as_str() == "6.9")
    );
}

#[test]
fn the_samples_of_others_are_read() {
    let lab = oru(sample("LAB-ORU-1.hl7")).unwrap();
    assert_eq!(lab.orders.iter().map(|order| order.observations.len()).collect::<Vec<_>>(), [5, 5]);
    assert_eq!(
        lab.orders.iter().map(|order| order.filler.key()).collect::<Vec<_>>(),
        ["82503246", "890775544"]
    );
    assert_eq!(lab.orders[0].observations[0].status, ResultStatus::Pending);
    assert_eq!(lab.orders[0].observations[0].value, Value::Absent);
    assert_eq!(lab.patient.identifiers[0].authority.namespace, "1");

    let stool = oru(sample("ORU-R01-01.hl7")).unwrap();
    // One OBX describes the patient, one the order; the three behind OBR are its results.
    assert_eq!(stool.unattached_observations, 2);
    let [order] = stool.orders.as_slice() else { panic!("one order") };
    assert_eq!(order.filler.id, "986");
    assert_eq!(order.notes.len(), 2);
    assert!(order.notes[0].contains("O157:H7 & other STECs"));
    assert_eq!(order.observations.len(), 3);
    assert_eq!(order.observations[0].notes, ["Submission of serum", "No Antibodies Detected"]);
    assert!(matches!(&order.observations[0].value, Value::Coded(coded) if coded.display() == "Salmonella"));
    assert_eq!(order.observations[1].value, Value::Document);
    assert_eq!(order.observations[1].status, ResultStatus::OrderDetail);
    assert!(matches!(&order.observations[2].value, Value::Text(text) if text == "27\n25"));
}

#[test]
fn other_messages_are_refused_by_name() {
    for (name, expected) in [
        ("ADT-A08-01.hl7", "ADT^A08"),
        ("ADT-A40-01.hl7", "ADT^A40"),
        ("ORM-O01-01.hl7", "ORM^O01"),
        ("SIU-S12-01.hl7", "SIU^S12"),
    ] {
        let error = oru(sample(name)).unwrap_err();
        assert_eq!(error.code(), "unsupported_message_type");
        assert_eq!(error, OruError::UnsupportedMessageType { message_type: expected.into() });
    }
    for (field, expected) in [("ORU^R03", "ORU^R03"), ("ORU", "ORU"), ("Jane Doe^x", "?"), ("", "?")] {
        let text = result("").replace("ORU^R01^ORU_R01", field);
        assert_eq!(
            oru(text).unwrap_err(),
            OruError::UnsupportedMessageType { message_type: expected.into() }
        );
    }
    assert!(oru(result("").replace("ORU^R01^ORU_R01", "ORU^R01")).is_ok());
    assert!(oru(result("").replace("ORU^R01^ORU_R01", "ORU^^ORU_R01")).is_ok());
}

#[test]
fn a_result_that_lacks_something_is_refused() {
    let whole = result(&potassium("4.1", "N", "F"));
    for (from, to, expected) in [
        ("|P|2.5.1", "|P|3.0", OruError::UnsupportedVersion),
        ("|P|2.5.1", "|P|2.", OruError::UnsupportedVersion),
        ("|P|2.5.1", "|P|", OruError::MissingField { field: "MSH-12" }),
        ("|P|2.5.1", "|X|2.5.1", OruError::UnsupportedProcessingId),
        ("|P|2.5.1", "||2.5.1", OruError::MissingField { field: "MSH-11" }),
        ("|M1|", "||", OruError::MissingField { field: "MSH-10" }),
        ("|M1|", "|\"\"|", OruError::MissingField { field: "MSH-10" }),
        ("PID|", "ZPI|", OruError::MissingSegment { segment: "PID" }),
        ("OBR|", "ZBR|", OruError::MissingSegment { segment: "OBR" }),
        ("F77^LAB", "^LAB", OruError::MissingField { field: "OBR-3" }),
        ("2823-3^Potassium^LN", "", OruError::MissingField { field: "OBX-3" }),
        ("\rOBR|", "\rPID|2||2^^^NORTH^MR\rOBR|", OruError::MultiplePatients),
    ] {
        assert!(whole.contains(from));
        assert_eq!(oru(whole.replace(from, to)).unwrap_err(), expected, "{from} -> {to}");
    }
}

#[test]
fn the_filler_number_of_the_common_order_stands_in() {
    let text = result("").replace("OBR|1||F77^LAB|", "ORC|RE||C5^LAB\rOBR|1|||");
    assert_eq!(oru(text).unwrap().orders[0].filler.key(), "C5^LAB");
    let text = result("").replace("OBR|1|", "ORC|RE||C5^LAB\rOBR|1|");
    assert_eq!(oru(text).unwrap().orders[0].filler.key(), "F77^LAB");
    // It does not stand in for the OBR after its own.
    let text = result("OBR|2|||X\r").replace("OBR|1|", "ORC|RE||C5^LAB\rOBR|1|");
    assert_eq!(oru(text).unwrap_err(), OruError::MissingField { field: "OBR-3" });
}

#[test]
fn notes_belong_to_what_they_follow() {
    let text = result(
        "NTE|1||of the order~second line\rOBX|1|ST|a||x||||||F\rPRT|1\rNTE|1||of a\rNTE|2||\"\"\rNTE|3\r\
         OBX|2|ST|b||y||||||F\rSPM|1\rNTE|1||of the specimen\r",
    )
    .replace("\rOBR", "\rNTE|1||of the patient\rOBR");
    let oru = oru(text).unwrap();
    assert_eq!(oru.orders[0].notes, ["of the order\nsecond line"]);
    assert_eq!(oru.orders[0].observations[0].notes, ["of a"]);
    assert_eq!(oru.orders[0].observations[1].notes, Vec::<String>::new());
}

#[test]
fn values_are_read_by_their_type() {
    let value = |value_type: &str, value: &str| {
        let text = result(&format!("OBX|1|{value_type}|K||{value}||||||F\r"));
        match oru(text).unwrap().orders.remove(0).observations.remove(0).value {
            Value::Absent => "absent".to_owned(),
            Value::Quantity { comparator, number } => {
                format!("{}{}", comparator.map_or("", Comparator::as_str), number.as_str())
            }
            Value::Coded(coded) => format!("coded {}", coded.display()),
            Value::Time(time) => format!("time {}", time.fhir_date_time()),
            Value::Text(text) => format!("text {text}"),
            Value::Document => "document".to_owned(),
        }
    };
    for (value_type, raw, expected) in [
        ("NM", "6.9", "6.9"),
        ("NM", " 6.90 ", "6.90"),
        ("NM", "+007", "7"),
        ("NM", "-.5", "-0.5"),
        ("NM", "5.", "5"),
        ("NM", "<5", "text <5"),
        ("NM", "1e3", "text 1e3"),
        ("NM", "6,9", "text 6,9"),
        ("NM", ".", "text ."),
        ("NM", "-", "text -"),
        ("NM", "٣", "text ٣"),
        ("NM", "123456789012345678901234567890123", "text 123456789012345678901234567890123"),
        ("NM", "27~25", "text 27\n25"),
        ("NM", "", "absent"),
        ("NM", "\"\"", "absent"),
        ("NM", "  ", "absent"),
        ("SN", ">^100", ">100"),
        ("SN", "<=^0.5", "<=0.5"),
        ("SN", "=^3", "3"),
        ("SN", "^3", "3"),
        ("SN", "^1^-^5", "text 1-5"),
        ("SN", "^2^+", "text 2+"),
        ("SN", "<>^5", "text <>5"),
        ("ST", "a^b&c", "text a^b&c"),
        ("ST", "a\\T\\b", "text a&b"),
        ("TX", "one~two", "text one\ntwo"),
        ("FT", "one\\.br\\two", "text one\ntwo"),
        ("CE", "260385009^Negative^SCT", "coded Negative"),
        ("CWE", "X1", "coded X1"),
        ("CWE", "^^^A1^Alternate^L", "coded Alternate"),
        ("CWE", "^^^^^^^^free text", "coded free text"),
        ("CE", "a^A~b^B", "text A\nB"),
        ("DT", "20240229", "time 2024-02-29"),
        ("TS", "20240229103000+0100", "time 2024-02-29T10:30:00+01:00"),
        ("DT", "soon", "text soon"),
        ("XPN", "Doe^Jo", "text Doe Jo"),
        ("ED", "^AP^PDF^Base64^AAAA", "document"),
        ("RP", "https://example.org/x", "document"),
        ("", "plain", "text plain"),
    ] {
        assert_eq!(value(value_type, raw), expected, "{value_type} {raw}");
    }
}

#[test]
fn statuses_and_flags_are_read() {
    use ResultStatus as Status;
    for (code, expected) in [
        ("F", Status::Final),
        ("V", Status::Final),
        ("P", Status::Preliminary),
        ("R", Status::Unverified),
        ("S", Status::Partial),
        ("I", Status::Pending),
        ("C", Status::Corrected),
        ("A", Status::Amended),
        ("B", Status::Appended),
        ("U", Status::NowFinal),
        ("X", Status::Cancelled),
        ("D", Status::Deleted),
        ("W", Status::Wrong),
        ("N", Status::NotAsked),
        ("O", Status::OrderDetail),
        ("", Status::Unstated),
        ("f", Status::Unstated),
        ("FINAL", Status::Unstated),
    ] {
        let oru = oru(result(&potassium("4.1", "", code))).unwrap();
        assert_eq!(oru.orders[0].observations[0].status, expected, "{code}");
    }
    let flagged = oru(result(&potassium("4.1", "HH~>~~\"\"~ZZ^x", "F"))).unwrap();
    assert_eq!(
        flagged.orders[0].observations[0].flags,
        [AbnormalFlag::CriticallyHigh, AbnormalFlag::AboveScale, AbnormalFlag::Other("ZZ".into())]
    );
}

#[test]
fn times_take_the_offset_of_the_message() {
    let text = result(&potassium("4.1", "", "F")).replace("120000+0000", "120000+0500");
    let oru = oru(text).unwrap();
    assert_eq!(oru.orders[0].observations[0].observed_at, Timestamp::parse("20240301100000+0500"));
    assert_eq!(oru.orders[0].changed_at, Timestamp::parse("20240301113000+0000"));
}

#[test]
fn a_resend_has_the_same_key_and_digest_and_other_content_has_not() {
    let key = |text: &str| oru(text).unwrap().source.key();
    let text = result(&potassium("6.9", "HH", "F"));
    let first = key(&text);
    // Another time of sending and other line ends are a resend.
    assert_eq!(key(&text.replace("|20240301120000+0000||ORU", "|20240301120500+0000||ORU")), first);
    assert_eq!(key(&text.replace('\r', "\r\n")), first);
    for (from, to) in [("6.9", "6.8"), ("Anna", "Anne"), ("|M1|P|", "|M1|T|"), ("F77", "F78")] {
        let other = key(&text.replace(from, to));
        assert_eq!(other.key, first.key);
        assert_ne!(other.body_digest, first.body_digest, "{from}");
    }
    for (from, to) in [("|LAB|", "|LAB2|"), ("|NORTH|", "|SOUTH|"), ("|M1|", "|M2|")] {
        assert_ne!(key(&text.replacen(from, to, 1)).key, first.key, "{from}");
    }
    // The parts cannot be shifted into each other.
    let shifted = |from: &str| key(&text.replacen("|LAB|NORTH|", from, 1)).key;
    assert_ne!(shifted("|A\\F\\B|C|"), shifted("|A|B\\F\\C|"));
    assert_ne!(shifted("|A\\E\\|B|"), shifted("|A|\\E\\B|"));
}

#[test]
fn the_number_of_segments_is_bounded() {
    let orders: String = (0..ORDERS_MAX).map(|number| format!("OBR|1||X{number}\r")).collect();
    assert_eq!(oru(result(&orders)).unwrap_err(), OruError::TooMany { segment: "OBR", limit: ORDERS_MAX });
    for (segment, content) in [("OBX", "OBX|1|ST|a||x||||||F\r"), ("NTE", "NTE|1||x\r"), ("PID-3", "")] {
        let mut text = result(&content.repeat(1025));
        if content.is_empty() {
            text = text.replace("1^^^NORTH^MR", &"1~".repeat(65));
        }
        let error = oru(text).unwrap_err();
        assert!(matches!(error, OruError::TooMany { segment: named, .. } if named == segment), "{error}");
    }
}

#[test]
fn nothing_of_a_patient_reaches_a_log() {
    let oru = Oru::from_message(&parse(sample("critical-potassium.hl7")).unwrap()).unwrap();
    let order = &oru.orders[0];
    let shown = format!(
        "{oru:?} {:?} {:?} {:?} {order:?} {:?} {:?} {:?}",
        oru.patient,
        oru.patient.name,
        oru.patient.identifiers,
        order.observations,
        order.ordering_provider,
        order.observations[0].value,
    );
    for secret in ["Lindqvist", "Mara", "PX-30417", "6.9", "Potassium", "Okafor", "haemolysed"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}
