//! From a result to what a patient is told.

use sealpost_connector::alert::{Alert, AlertOptions, Priority};
use sealpost_connector::hl7::UtcOffset;
use sealpost_connector::oru::{Oru, is_content};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::RecipientId;
use sealpost_wire::limits::{BODY_BYTES_MAX, CATEGORY_BYTES_MAX, PART_BYTES_MAX, TITLE_BYTES_MAX};
use serde_json::{Value, json};

use super::{oru, potassium, result, sample};

const RECIPIENT: RecipientId = RecipientId([0x5a; 16]);

fn alerts(text: impl AsRef<[u8]>) -> Vec<Alert> {
    Alert::from_oru(&oru(text).unwrap(), RECIPIENT, &AlertOptions::default()).unwrap()
}

fn alert(text: impl AsRef<[u8]>) -> Alert {
    let mut alerts = alerts(text);
    assert_eq!(alerts.len(), 1);
    alerts.remove(0)
}

fn fhir(alert: &Alert) -> Value {
    serde_json::from_slice(&alert.part.as_ref().unwrap().bytes).unwrap()
}

/// The resources of the bundle: the report, then its observations.
fn resources(alert: &Alert) -> Vec<Value> {
    let bundle = fhir(alert);
    bundle["entry"].as_array().unwrap().iter().map(|entry| entry["resource"].clone()).collect()
}

fn body(alert: &Alert) -> &str {
    &alert.texts["en"].body
}

fn title(alert: &Alert) -> &str {
    &alert.texts["en"].title
}

#[test]
fn a_critical_potassium_asks_the_patient_to_call() {
    let alert = alert(sample("critical-potassium.hl7"));
    assert_eq!(alert.recipient, RECIPIENT);
    assert_eq!(alert.priority, Priority::Critical);
    assert_eq!(alert.category, "lab-result");
    assert!(alert.category.len() <= CATEGORY_BYTES_MAX);
    assert_eq!(alert.order, "F-2026-118844^NORTHLAB^2.16.840.1.113883.19.5.7^ISO");
    assert_eq!(alert.created, Some(UnixTime(1_793_711_520)));
    assert_eq!(alert.observed_at, alert.created);
    assert_eq!((alert.revision_of.as_ref(), alert.retracts, alert.preliminary), (None, false, false));
    assert_eq!(title(&alert), "Urgent lab result");
    assert_eq!(
        body(&alert),
        "Potassium: 6.9 mmol/L, critically high (reference range 3.5-5.1)\n\
         Creatinine: 187 umol/L, high (reference range 45-84)\n\
         Sodium: 138 mmol/L, normal (reference range 136-145)\n\
         Chloride: 102 mmol/L, normal (reference range 98-107)\n\
         This needs attention soon. Please call your care team now. If you feel very unwell, call your local \
         emergency number."
    );
}

#[test]
fn the_part_is_a_fhir_bundle() {
    let alert = alert(sample("critical-potassium.hl7"));
    assert_eq!(alert.part.as_ref().unwrap().media_type, "application/fhir+json");
    let bundle = fhir(&alert);
    assert_eq!((&bundle["resourceType"], &bundle["type"]), (&json!("Bundle"), &json!("collection")));
    let urls: Vec<&Value> =
        bundle["entry"].as_array().unwrap().iter().map(|entry| &entry["fullUrl"]).collect();
    assert_eq!(urls.len(), 5);
    let resources = resources(&alert);
    let results: Vec<Value> = urls[1..].iter().map(|url| json!({ "reference": url })).collect();
    assert_eq!(
        resources[0],
        json!({
            "resourceType": "DiagnosticReport",
            "basedOn": [{
                "type": "ServiceRequest",
                "identifier": {
                    "type": { "coding": [{
                        "system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "FILL"
                    }] },
                    "system": "urn:oid:2.16.840.1.113883.19.5.7",
                    "value": "F-2026-118844",
                    "assigner": { "display": "NORTHLAB" },
                },
            }],
            "status": "final",
            "category": [{ "coding": [{
                "system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "LAB"
            }] }],
            "code": {
                "coding": [{ "system": "http://loinc.org", "code": "24326-1" }], "text": "Electrolytes panel"
            },
            "subject": { "display": "Mara Elise Lindqvist" },
            "issued": "2026-11-03T14:12:00+01:00",
            "result": results,
            "conclusion": "Called to the ordering clinic at 14:10.",
        })
    );
    assert_eq!(
        resources[1],
        json!({
            "resourceType": "Observation",
            "status": "final",
            "category": [{ "coding": [{
                "system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"
            }] }],
            "code": { "coding": [{ "system": "http://loinc.org", "code": "2823-3" }], "text": "Potassium" },
            "subject": { "display": "Mara Elise Lindqvist" },
            "effectiveDateTime": "2026-11-03T12:15:00+01:00",
            "valueQuantity": {
                "value": 6.9, "unit": "mmol/L", "system": "http://unitsofmeasure.org", "code": "mmol/L"
            },
            "interpretation": [{ "coding": [{
                "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation", "code": "HH"
            }] }],
            "note": [{ "text": "Sample not haemolysed. Measured twice & confirmed." }],
            "referenceRange": [{ "text": "3.5-5.1" }],
        })
    );
}

#[test]
fn the_same_message_gives_the_same_alert_and_names_are_unique() {
    let first = alerts(sample("LAB-ORU-1.hl7"));
    assert!(first == alerts(sample("LAB-ORU-1.hl7")));
    let mut urls: Vec<String> = first
        .iter()
        .flat_map(|alert| fhir(alert)["entry"].as_array().unwrap().clone())
        .map(|entry| entry["fullUrl"].as_str().unwrap().to_owned())
        .collect();
    let count = urls.len();
    for url in &urls {
        let groups: Vec<&str> = url.strip_prefix("urn:uuid:").unwrap().split('-').collect();
        assert_eq!(groups.iter().map(|group| group.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{url}");
        assert!(groups[2].starts_with('8') && groups[3].starts_with('a'), "{url}");
    }
    urls.sort();
    urls.dedup();
    assert_eq!((urls.len(), count), (12, 12));
}

#[test]
fn digits_are_kept_as_sent() {
    let alert = alert(result(&potassium("4.10", "", "F")));
    let part = String::from_utf8(alert.part.as_ref().unwrap().bytes.clone()).unwrap();
    assert!(part.contains("\"value\":4.10,"), "{part}");
    assert!(body(&alert).starts_with("Potassium: 4.10 mmol/L (reference range 3.5-5.1)"));
}

#[test]
fn an_order_is_an_alert() {
    let alerts = alerts(sample("LAB-ORU-1.hl7"));
    let orders: Vec<&str> = alerts.iter().map(|alert| alert.order.as_str()).collect();
    assert_eq!(orders, ["82503246", "890775544"]);
    assert!(alerts.iter().all(|alert| alert.source_event == alerts[0].source_event));
    // OBRs under one number are one order, with a report each.
    let shared = alert(result(&format!(
        "{}OBR|2||F77^LAB|57021-8^Blood count^LN|||||||||||||||||||||F\r\
         OBX|1|NM|718-7^Haemoglobin^LN||9.1|g/dL||L|||F\r",
        potassium("4.1", "N", "F"),
    )));
    assert_eq!(shared.priority, Priority::High);
    let kinds: Vec<Value> =
        resources(&shared).iter().map(|resource| resource["resourceType"].clone()).collect();
    assert_eq!(kinds, ["DiagnosticReport", "Observation", "DiagnosticReport", "Observation"]);
    assert!(body(&shared).starts_with("Haemoglobin: 9.1 g/dL, low\nPotassium: 4.1"));
}

#[test]
fn priority_follows_the_flags() {
    for (flags, expected) in [
        ("HH", Priority::Critical),
        ("LL", Priority::Critical),
        ("AA", Priority::Critical),
        (">", Priority::Critical),
        ("<", Priority::Critical),
        ("H~HH", Priority::Critical),
        ("H", Priority::High),
        ("L", Priority::High),
        ("A", Priority::High),
        ("HU", Priority::High),
        ("N", Priority::Normal),
        ("", Priority::Normal),
        ("R", Priority::Normal),
        ("hh", Priority::Normal),
    ] {
        assert_eq!(alert(result(&potassium("6.9", flags, "F"))).priority, expected, "{flags}");
    }
    // One critical value among others decides, final or not.
    for status in ["F", "P", "R", "C", ""] {
        let several = potassium("4.1", "N", "F") + &potassium("6.9", "HH", status);
        assert_eq!(alert(result(&several)).priority, Priority::Critical, "{status}");
    }
    // What was never measured, or was taken back, does not.
    for (status, expected) in [("X", Priority::Normal), ("D", Priority::High), ("W", Priority::High)] {
        assert_eq!(alert(result(&potassium("6.9", "HH", status))).priority, expected, "{status}");
    }
    // Whoever was alarmed for nothing hears of it soon.
    assert_eq!(alert(result(&potassium("4.1", "N", "C"))).priority, Priority::High);
}

#[test]
fn each_status_reads_and_maps_as_what_it_is() {
    for (status, starts, titled, mapped) in [
        ("F", "Potassium: 4.1 mmol/L, normal (", "New lab result", "final"),
        ("V", "Potassium: 4.1 mmol/L, normal (", "New lab result", "final"),
        ("P", "Potassium: 4.1 mmol/L, normal, preliminary (", "Preliminary lab result", "preliminary"),
        ("S", "Potassium: 4.1 mmol/L, normal, preliminary (", "Preliminary lab result", "preliminary"),
        (
            "R",
            "Potassium: 4.1 mmol/L, normal, preliminary, not yet verified (",
            "Preliminary lab result",
            "preliminary",
        ),
        ("U", "Potassium: 4.1 mmol/L, normal, now final (", "Changed lab result", "final"),
        ("B", "Potassium: 4.1 mmol/L, normal (", "Changed lab result", "amended"),
        (
            "C",
            "This corrects a result that you were sent before.\nPotassium: 4.1 mmol/L, normal, corrected (",
            "Changed lab result",
            "corrected",
        ),
        (
            "A",
            "This corrects a result that you were sent before.\nPotassium: 4.1 mmol/L, normal, corrected (",
            "Changed lab result",
            "amended",
        ),
        ("I", "Potassium: in progress, no result yet.", "News about your lab test", "registered"),
        ("X", "Potassium: could not be completed.", "Lab test not completed", "cancelled"),
        ("D", "Potassium: withdrawn. Please disregard", "Lab result withdrawn", "entered-in-error"),
        ("", "Potassium: not confirmed yet.", "News about your lab test", "unknown"),
        ("Q", "Potassium: not confirmed yet.", "News about your lab test", "unknown"),
    ] {
        let alert = alert(result(&potassium("4.1", "N", status)));
        assert!(body(&alert).starts_with(starts), "{status}: {}", body(&alert));
        assert_eq!(title(&alert), titled, "{status}");
        let observation = &resources(&alert)[1];
        assert_eq!(observation["status"], mapped, "{status}");
        let told = body(&alert).contains("4.1");
        assert_eq!(observation.get("valueQuantity").is_some(), told, "{status}");
        assert_eq!(observation.get("interpretation").is_some(), told, "{status}");
        assert_eq!(alert.preliminary, matches!(status, "P" | "R" | "S"), "{status}");
        assert_eq!(alert.preliminary, body(&alert).contains("may still change"), "{status}");
        assert_eq!(alert.retracts, matches!(status, "D" | "W"), "{status}");
        let revises = matches!(status, "C" | "A" | "B" | "U" | "D" | "W");
        assert_eq!(alert.revision_of.as_deref(), revises.then_some("F77^LAB"), "{status}");
    }
}

#[test]
fn a_report_is_never_more_final_than_its_results() {
    let status = |order: &str, results: &[&str]| {
        let observations: String = results.iter().map(|status| potassium("4.1", "N", status)).collect();
        let text = result(&observations).replace("|||F\rOBX", &format!("|||{order}\rOBX"));
        resources(&alert(text))[0]["status"].as_str().unwrap().to_owned()
    };
    for (order, results, expected) in [
        ("F", &["F", "F"][..], "final"),
        ("F", &["F", "P"], "partial"),
        ("F", &["F", "I"], "partial"),
        ("F", &["F", ""], "partial"),
        ("F", &["F", "C"], "corrected"),
        ("F", &["F", "A"], "amended"),
        ("F", &["F", "D"], "amended"),
        ("F", &["D", "W"], "entered-in-error"),
        ("C", &["C"], "corrected"),
        ("C", &["C", "P"], "partial"),
        ("M", &["C", "P"], "preliminary"),
        ("P", &["P"], "preliminary"),
        ("A", &["F"], "partial"),
        ("R", &["R"], "partial"),
        ("I", &["I"], "registered"),
        ("O", &["I"], "registered"),
        ("S", &["I"], "registered"),
        ("N", &["I"], "registered"),
        ("X", &["X"], "cancelled"),
        ("", &["F"], "unknown"),
        ("Y", &["F"], "unknown"),
        ("ZZ", &["F"], "unknown"),
    ] {
        assert_eq!(status(order, results), expected, "{order} {results:?}");
    }
}

#[test]
fn another_patients_result_is_taken_back_without_repeating_it() {
    let text = result(&format!("NTE|1||SECRET\r{}NTE|1||SECRET\r", potassium("6.66", "HH", "W")));
    let withdrawn = alert(text.replace("Potassium", "SECRET").replace("Electrolytes", "SECRET"));
    assert!(withdrawn.retracts);
    assert_eq!(withdrawn.revision_of.as_deref(), Some("F77^LAB"));
    assert_eq!(title(&withdrawn), "Lab result withdrawn");
    assert_eq!(
        body(&withdrawn),
        "A result that you were sent before is not yours or was wrong. Please disregard it."
    );
    let part = String::from_utf8(withdrawn.part.as_ref().unwrap().bytes.clone()).unwrap();
    for secret in ["SECRET", "6.66", "2823-3", "24326-1", "HH", "3.5-5.1", "mmol"] {
        assert!(!part.contains(secret), "{secret} in {part}");
    }
    assert!(part.contains("Anna Test"));

    // Beside results that stand.
    let mixed = alert(result(&(potassium("6.66", "HH", "W") + &potassium("4.1", "N", "F"))));
    assert!(mixed.retracts);
    assert_eq!(title(&mixed), "Changed lab result");
    assert!(body(&mixed).contains("4.1") && !body(&mixed).contains("6.66"));
}

#[test]
fn an_order_without_results_says_so() {
    for (status, told, titled) in [
        ("X", "Electrolytes: cancelled, there will be no result.", "Lab test not completed"),
        ("I", "Electrolytes: in progress, no result yet.", "News about your lab test"),
        ("F", "Electrolytes: no results were included.", "News about your lab test"),
    ] {
        let alert = alert(result("").replace("|||F\r", &format!("|||{status}\r")));
        assert!(body(&alert).starts_with(told), "{status}: {}", body(&alert));
        assert_eq!(title(&alert), titled, "{status}");
    }
    let bare = alert(result("OBX|1|ST|K||x||||||N\r").replace("24326-1^Electrolytes^LN", ""));
    assert!(body(&bare).starts_with("Your test: no results"), "{}", body(&bare));
    assert_eq!(resources(&bare)[0]["code"], json!({}));
}

#[test]
fn kinds_of_values_read_and_map() {
    for (fields, read, key, value) in [
        (
            "SN|K^Ferritin^L||>^500|ug/L||",
            "Ferritin: >500 ug/L",
            "valueQuantity",
            json!({"value": 500, "comparator": ">", "unit": "ug/L"}),
        ),
        ("ST|K^Ferritin^L||<5|ug/L||", "Ferritin: <5 ug/L", "valueString", json!("<5 ug/L")),
        ("NM|K^Saturation^L||97|%||", "Saturation: 97%", "valueQuantity", json!({"value": 97, "unit": "%"})),
        (
            "CWE|K^Culture^L||27268008^Salmonella^SCT|||",
            "Culture: Salmonella",
            "valueCodeableConcept",
            json!({
                "coding": [{"system": "http://snomed.info/sct", "code": "27268008"}], "text": "Salmonella"
            }),
        ),
        (
            "CWE|K^Culture^L||X^Local^ZZ|||",
            "Culture: Local",
            "valueCodeableConcept",
            json!({"coding": [{"code": "X"}], "text": "Local"}),
        ),
        ("DT|K^Due^L||20240501|||", "Due: 2024-05-01", "valueDateTime", json!("2024-05-01")),
        (
            "TX|K^Report^L||First line~Second\\X07\\ line|||",
            "Report: First line Second line",
            "valueString",
            json!("First line\nSecond line"),
        ),
        (
            "ED|K^Scan^L||^AP^PDF^Base64^QUJD|||",
            "Scan: a document, which your care team can show you",
            "valueString",
            Value::Null,
        ),
        ("NM|K^Iron^L|||||", "Iron: no value was reported", "valueQuantity", Value::Null),
        ("NM|K||7|||", "K: 7", "valueQuantity", json!({"value": 7})),
    ] {
        let alert = alert(result(&format!("OBX|1|{fields}|||F\r")));
        assert_eq!(body(&alert), read);
        assert_eq!(resources(&alert)[1].get(key), Some(&value).filter(|value| !value.is_null()), "{fields}");
    }
}

#[test]
fn a_message_cut_off_never_shows_half_a_value() {
    let whole = sample("critical-potassium.hl7");
    let mut told = 0;
    for length in 0..whole.len() {
        let Ok(message) = super::parse(&whole[..length]) else { continue };
        let Ok(oru) = Oru::from_message(&message) else { continue };
        for alert in Alert::from_oru(&oru, RECIPIENT, &AlertOptions::default()).unwrap() {
            for line in body(&alert).lines().filter(|line| line.contains("/L")) {
                told += 1;
                assert!(
                    [
                        "Potassium: 6.9 mmol/L, critically high (reference range 3.5-5.1)",
                        "Creatinine: 187 umol/L, high (reference range 45-84)",
                        "Sodium: 138 mmol/L, normal (reference range 136-145)",
                        "Chloride: 102 mmol/L, normal (reference range 98-107)",
                    ]
                    .contains(&line),
                    "{length}: {line}"
                );
            }
        }
    }
    assert!(told > 100);
}

#[test]
fn long_reports_stay_within_the_limits_and_keep_what_is_critical() {
    let wide = "\u{10348}".repeat(300);
    let line = |number: usize, flag: &str| {
        format!("OBX|{number}|ST|K{number}^{wide}^L||{wide}|{wide}|{wide}|{flag}~U~D~B~W~POS~NEG|||F\r")
    };
    let normal: String = (1..30).map(|number| line(number, "N")).collect();
    let text = result(&(normal + "OBX|30|NM|K^Potassium^LN||6.9|mmol/L||HH|||F\r"));
    let alert = alert(text);
    assert!(body(&alert).starts_with("Potassium: 6.9 mmol/L, critically high\n"));
    assert!(body(&alert).contains("20 more in the full report."));
    assert!(body(&alert).len() <= BODY_BYTES_MAX, "{}", body(&alert).len());
    assert!(title(&alert).len() <= TITLE_BYTES_MAX);
    assert!(alert.part.unwrap().bytes.len() <= PART_BYTES_MAX);
}

#[test]
fn a_report_too_large_for_a_part_is_told_without_it() {
    let text = result(&format!("OBX|1|TX|K^Report^L||{}||||||F\r", "long ".repeat(PART_BYTES_MAX / 5)));
    let alert = alert(text);
    assert!(alert.part.is_none());
    assert!(body(&alert).contains("Your care team has the full report."), "{}", body(&alert));
}

#[test]
fn times_are_unix_seconds_or_left_out() {
    let timed = |sent: &str, changed: &str, zone: Option<i16>| {
        let text = result(&potassium("4.1", "N", "F"))
            .replace("|20240301120000+0000||ORU", &format!("|{sent}||ORU"))
            .replace("|20240301113000+0000|||F", &format!("|{changed}|||F"));
        let options = AlertOptions { zone: zone.and_then(UtcOffset::of_minutes) };
        let alert = Alert::from_oru(&oru(text).unwrap(), RECIPIENT, &options).unwrap().remove(0);
        let resources = resources(&alert);
        (
            alert.created.map(|time| time.0),
            alert.observed_at.map(|time| time.0),
            resources[0]["issued"].as_str().unwrap_or("-").to_owned(),
            resources[1]["effectiveDateTime"].as_str().unwrap_or("-").to_owned(),
        )
    };
    let half_past = 1_709_292_600;
    let expected = |created, observed, issued: &str, effective: &str| {
        (created, observed, issued.to_owned(), effective.to_owned())
    };
    assert_eq!(
        timed("20240301120000+0000", "20240301113000+0000", Some(60)),
        expected(Some(half_past), Some(half_past), "2024-03-01T11:30:00+00:00", "2024-03-01T10:00:00+00:00")
    );
    // No offset anywhere: seconds as if UTC, and FHIR without the time of day.
    assert_eq!(
        timed("20240301120000", "20240301113000", None),
        expected(Some(half_past), Some(half_past), "-", "2024-03-01")
    );
    // The site's own.
    assert_eq!(
        timed("20240301120000", "20240301123000", Some(60)),
        expected(Some(half_past), Some(half_past), "2024-03-01T12:30:00+01:00", "2024-03-01T10:00:00+01:00")
    );
    assert_eq!(
        timed("20240301113000+0000", "", None),
        expected(Some(half_past), None, "-", "2024-03-01T10:00:00+00:00")
    );
    assert_eq!(timed("yesterday", "today", None), expected(None, None, "-", "2024-03-01"));
}

#[test]
fn a_mark_in_every_text_arrives() {
    let mut message = super::parse(sample("critical-potassium.hl7")).unwrap();
    let mut planted = Vec::new();
    message
        .map_texts(|location, text| {
            is_content(&location).then(|| {
                planted.push(format!("mark{}x", planted.len()));
                format!("{text} {}", planted.last().unwrap())
            })
        })
        .unwrap();
    let oru = Oru::from_message(&super::parse(message.encode().unwrap()).unwrap()).unwrap();
    let alert = Alert::from_oru(&oru, RECIPIENT, &AlertOptions::default()).unwrap().remove(0);
    let part = String::from_utf8(alert.part.clone().unwrap().bytes).unwrap();
    // Name and address (3 texts each), panel, doctor (2), two notes, names and values of four tests.
    assert_eq!(planted.len(), 19);
    let arrived = planted.iter().filter(|mark| part.contains(*mark)).count();
    // All but the address and the doctor.
    assert_eq!(arrived, 14);
    assert_eq!(planted.iter().filter(|mark| body(&alert).contains(*mark)).count(), 8);
    assert_eq!(alert.priority, Priority::Critical);
    let untouched = self::alert(sample("critical-potassium.hl7"));
    assert_eq!((alert.order, alert.created), (untouched.order, untouched.created));
    assert_eq!(alert.source_event.key, untouched.source_event.key);
}

#[test]
fn delivery_knows_two_of_the_three_priorities() {
    use sealpost_wire::payload::Priority as Delivery;
    let priorities = [Priority::Normal, Priority::High, Priority::Critical];
    assert_eq!(priorities.map(Delivery::from), [Delivery::Normal, Delivery::Normal, Delivery::Critical]);
}

#[test]
fn nothing_of_an_alert_reaches_a_log() {
    let alert = alert(sample("critical-potassium.hl7"));
    let shown = format!("{alert:?}");
    for secret in ["Potassium", "6.9", "Lindqvist", "Urgent"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
