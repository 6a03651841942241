//! A result as FHIR R4: a Bundle of type `collection` with a DiagnosticReport for each OBR, followed by its
//! Observations. Hand-written: only what a result uses.
//!
//! Status codes follow tables 0123 and 0085 by the definitions of FHIR R4 (DiagnosticReport.status,
//! Observation.status). What was retracted carries neither value, flags, range nor notes: with OBX-11 = W
//! they are another patient's.

use sealpost_wire::id::Digest;
use serde::Serialize;
use serde_json::value::RawValue;

use super::Report;
use crate::hl7::Timestamp;
use crate::oru::{
    AbnormalFlag, Coded, EntityIdentifier, Observation, Order, OrderStatus, ResultStatus, Value,
};

const LOINC: &str = "http://loinc.org";
const SNOMED: &str = "http://snomed.info/sct";
const UCUM: &str = "http://unitsofmeasure.org";
const ICD10: &str = "http://hl7.org/fhir/sid/icd-10";
const INTERPRETATION: &str = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation";
const IDENTIFIER_TYPE: &str = "http://terminology.hl7.org/CodeSystem/v2-0203";
const SERVICE_SECTION: &str = "http://terminology.hl7.org/CodeSystem/v2-0074";
const OBSERVATION_CATEGORY: &str = "http://terminology.hl7.org/CodeSystem/observation-category";

/// The report as JSON.
pub(super) fn bundle(report: &Report<'_>) -> Result<Vec<u8>, serde_json::Error> {
    let mut entries = Vec::new();
    let mut url = Urls::of(report);
    for order in &report.orders {
        let place = entries.len();
        let report_url = url.next();
        let mut results = Vec::new();
        for observation in &order.observations {
            let full_url = url.next();
            results.push(Reference { reference: Some(full_url.clone()), ..Reference::default() });
            let resource = Resource::Observation(Box::new(observation_resource(report, observation)?));
            entries.push(Entry { full_url, resource });
        }
        let resource = Resource::DiagnosticReport(Box::new(report_resource(report, order, results)));
        entries.insert(place, Entry { full_url: report_url, resource });
    }
    serde_json::to_vec(&Bundle { resource_type: "Bundle", kind: "collection", entry: entries })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    resource_type: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    entry: Vec<Entry>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    full_url: String,
    resource: Resource,
}

#[derive(Serialize)]
#[serde(tag = "resourceType")]
enum Resource {
    DiagnosticReport(Box<DiagnosticReport>),
    Observation(Box<ObservationResource>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DiagnosticReport {
    based_on: [Reference; 1],
    status: &'static str,
    category: [CodeableConcept; 1],
    code: CodeableConcept,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    result: Vec<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conclusion: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ObservationResource {
    status: &'static str,
    category: [CodeableConcept; 1],
    code: CodeableConcept,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effective_date_time: Option<String>,
    #[serde(flatten)]
    value: Option<ValueX>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    interpretation: Vec<CodeableConcept>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    note: Vec<Annotation>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reference_range: Vec<ReferenceRange>,
}

#[derive(Serialize)]
enum ValueX {
    #[serde(rename = "valueQuantity")]
    Quantity(Quantity),
    #[serde(rename = "valueCodeableConcept")]
    CodeableConcept(CodeableConcept),
    #[serde(rename = "valueDateTime")]
    DateTime(String),
    #[serde(rename = "valueString")]
    String(String),
}

#[derive(Serialize)]
struct Quantity {
    /// The digits that were sent, unrounded.
    value: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comparator: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
}

#[derive(Serialize, Default)]
struct CodeableConcept {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    coding: Vec<Coding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

#[derive(Serialize)]
struct Coding {
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<&'static str>,
    code: String,
}

#[derive(Serialize, Default)]
struct Reference {
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identifier: Option<Identifier>,
    #[serde(skip_serializing_if = "Option::is_none")]
    display: Option<String>,
}

#[derive(Serialize)]
struct Identifier {
    #[serde(rename = "type")]
    kind: CodeableConcept,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<String>,
    value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    assigner: Option<Box<Reference>>,
}

#[derive(Serialize)]
struct Annotation {
    text: String,
}

#[derive(Serialize)]
struct ReferenceRange {
    text: String,
}

fn report_resource(report: &Report<'_>, order: &Order, result: Vec<Reference>) -> DiagnosticReport {
    let time = |time: Timestamp| time.or_offset(report.options.zone);
    let wrong = |observation: &Observation| observation.status == ResultStatus::Wrong;
    let told = !order.observations.iter().any(wrong);
    let hidden = !told && order.observations.iter().all(wrong);
    let conclusion = order.notes.iter().filter(|_| told).filter_map(|note| string(note)).collect::<Vec<_>>();
    DiagnosticReport {
        based_on: [Reference {
            kind: Some("ServiceRequest"),
            identifier: Some(filler(&order.filler)),
            ..Reference::default()
        }],
        status: report_status(order),
        category: [concept(SERVICE_SECTION, "LAB")],
        code: if hidden { withdrawn() } else { code(&order.service) },
        subject: subject(report),
        issued: order.changed_at.and_then(|changed| time(changed).fhir_instant()),
        result,
        conclusion: (!conclusion.is_empty()).then(|| conclusion.join("\n")),
    }
}

fn observation_resource(
    report: &Report<'_>,
    observation: &Observation,
) -> Result<ObservationResource, serde_json::Error> {
    let status = observation.status;
    let shared = ObservationResource {
        status: observation_status(status),
        category: [concept(OBSERVATION_CATEGORY, "laboratory")],
        code: code(&observation.code),
        subject: subject(report),
        effective_date_time: None,
        value: None,
        interpretation: Vec::new(),
        note: Vec::new(),
        reference_range: Vec::new(),
    };
    if status == ResultStatus::Wrong {
        return Ok(ObservationResource { code: withdrawn(), ..shared });
    }
    if status.retracts() {
        return Ok(shared);
    }
    let at = observation.observed_at.map(|time| time.or_offset(report.options.zone).fhir_date_time());
    let note = observation.notes.iter().filter_map(|note| Some(Annotation { text: string(note)? })).collect();
    let shared = ObservationResource { effective_date_time: at, note, ..shared };
    if !status.has_value() {
        return Ok(shared);
    }
    let range = observation.reference_range.as_deref().and_then(string);
    Ok(ObservationResource {
        value: value(observation)?,
        interpretation: observation.flags.iter().map(interpretation).collect(),
        reference_range: range.into_iter().map(|text| ReferenceRange { text }).collect(),
        ..shared
    })
}

/// OBR-25, table 0123. A report that claims to be final while a result in it is not is partial.
fn report_status(order: &Order) -> &'static str {
    let statuses = || order.observations.iter().map(|observation| observation.status);
    let any = |test: fn(ResultStatus) -> bool| statuses().any(test);
    if statuses().next().is_some() && statuses().all(ResultStatus::retracts) {
        return "entered-in-error";
    }
    let open = any(ResultStatus::is_preliminary)
        || any(|status| matches!(status, ResultStatus::Pending | ResultStatus::Unstated));
    match order.status {
        OrderStatus::Final | OrderStatus::Corrected if open => "partial",
        OrderStatus::Corrected => "corrected",
        OrderStatus::Final if any(|status| status == ResultStatus::Corrected) => "corrected",
        OrderStatus::Final if any(ResultStatus::revises) => "amended",
        OrderStatus::Final => "final",
        OrderStatus::Preliminary | OrderStatus::CorrectedNotFinal => "preliminary",
        OrderStatus::Unverified | OrderStatus::Partial => "partial",
        OrderStatus::Pending => "registered",
        OrderStatus::Cancelled => "cancelled",
        OrderStatus::Unstated => "unknown",
    }
}

/// OBX-11, table 0085.
const fn observation_status(status: ResultStatus) -> &'static str {
    match status {
        ResultStatus::Final | ResultStatus::NowFinal => "final",
        ResultStatus::Preliminary | ResultStatus::Unverified | ResultStatus::Partial => "preliminary",
        ResultStatus::Pending => "registered",
        ResultStatus::Corrected => "corrected",
        ResultStatus::Amended | ResultStatus::Appended => "amended",
        ResultStatus::Cancelled => "cancelled",
        ResultStatus::Deleted | ResultStatus::Wrong => "entered-in-error",
        ResultStatus::NotAsked | ResultStatus::OrderDetail | ResultStatus::Unstated => "unknown",
    }
}

fn value(observation: &Observation) -> Result<Option<ValueX>, serde_json::Error> {
    let unit = observation.unit.as_ref();
    Ok(match &observation.value {
        Value::Absent | Value::Document => None,
        Value::Quantity { comparator, number } => {
            let ucum = unit.and_then(|unit| unit.code.as_ref()).filter(|(_, system)| system == "UCUM");
            Some(ValueX::Quantity(Quantity {
                value: RawValue::from_string(number.as_str().to_owned())?,
                comparator: comparator.map(|comparator| comparator.as_str()),
                unit: unit.and_then(|unit| string(unit.short())),
                system: ucum.map(|_| UCUM),
                code: ucum.and_then(|(code, _)| string(code)),
            }))
        }
        Value::Coded(coded) => Some(ValueX::CodeableConcept(code(coded))),
        Value::Time(time) => Some(ValueX::DateTime(time.fhir_date_time())),
        // A string has no place for a unit: it goes with the text, since a value must not lose it.
        Value::Text(text) => {
            let unit = unit.map(|unit| format!(" {}", unit.short())).unwrap_or_default();
            string(&format!("{text}{unit}")).map(ValueX::String)
        }
    })
}

/// What the report is about. The name tells whoever cares for several people whose result it is; record
/// numbers stay in the hospital.
fn subject(report: &Report<'_>) -> Option<Reference> {
    let name = report.oru.patient.name.as_ref()?.display();
    Some(Reference { display: Some(string(&name)?), ..Reference::default() })
}

fn filler(number: &EntityIdentifier) -> Identifier {
    let oid = number.universal_id_type == "ISO"
        && !number.universal_id.is_empty()
        && number.universal_id.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let assigner = string(&number.namespace)
        .map(|display| Box::new(Reference { display: Some(display), ..Reference::default() }));
    Identifier {
        kind: concept(IDENTIFIER_TYPE, "FILL"),
        system: oid.then(|| format!("urn:oid:{}", number.universal_id)),
        value: string(&number.id).unwrap_or_default(),
        assigner,
    }
}

fn code(coded: &Coded) -> CodeableConcept {
    let coding = [&coded.code, &coded.alternate]
        .into_iter()
        .flatten()
        .filter_map(|(code, system)| Some(Coding { system: system_uri(system), code: string(code)? }))
        .collect();
    CodeableConcept { coding, text: string(coded.display()) }
}

/// The systems of table 0396 that have one known URI. Another system's code goes without one.
fn system_uri(name: &str) -> Option<&'static str> {
    match name {
        "LN" => Some(LOINC),
        "SCT" => Some(SNOMED),
        "UCUM" => Some(UCUM),
        "I10" => Some(ICD10),
        _ => None,
    }
}

fn interpretation(flag: &AbnormalFlag) -> CodeableConcept {
    use AbnormalFlag as Flag;
    let known = match flag {
        Flag::Low => "L",
        Flag::High => "H",
        Flag::CriticallyLow => "LL",
        Flag::CriticallyHigh => "HH",
        Flag::BelowScale => "<",
        Flag::AboveScale => ">",
        Flag::Normal => "N",
        Flag::Abnormal => "A",
        Flag::CriticallyAbnormal => "AA",
        Flag::Risen => "U",
        Flag::Fallen => "D",
        Flag::Better => "B",
        Flag::Worse => "W",
        Flag::Susceptible => "S",
        Flag::Intermediate => "I",
        Flag::Resistant => "R",
        Flag::Positive => "POS",
        Flag::Negative => "NEG",
        Flag::SignificantlyLow => "LU",
        Flag::SignificantlyHigh => "HU",
        Flag::Other(code) => return CodeableConcept { text: string(code), ..CodeableConcept::default() },
    };
    concept(INTERPRETATION, known)
}

/// In the place of what was tested, where that is another patient's.
fn withdrawn() -> CodeableConcept {
    CodeableConcept { text: Some("Withdrawn result".to_owned()), ..CodeableConcept::default() }
}

fn concept(system: &'static str, code: &str) -> CodeableConcept {
    CodeableConcept { coding: vec![Coding { system: Some(system), code: code.to_owned() }], text: None }
}

/// A FHIR string: not empty, and of the control characters only tab and line ends.
fn string(text: &str) -> Option<String> {
    let text: String = text.chars().filter(|c| !c.is_control() || matches!(c, '\t' | '\r' | '\n')).collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Names for the bundle's entries: made from the message and the order, so that the same result gives the
/// same bytes.
struct Urls {
    seed: String,
    count: usize,
}

impl Urls {
    fn of(report: &Report<'_>) -> Self {
        let source = report.oru.source.key();
        Self { seed: format!("{}\r{}\r{}", source.key, source.body_digest, report.key), count: 0 }
    }

    /// A UUID of version 8 (RFC 9562 section 5.8) from SHA-256.
    fn next(&mut self) -> String {
        self.count += 1;
        let hex = Digest::of(format!("{}\r{}", self.seed, self.count).as_bytes()).to_string();
        let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
        format!(
            "urn:uuid:{}-{}-8{}-a{}-{}",
            part(0, 8),
            part(8, 12),
            part(12, 15),
            part(15, 18),
            part(18, 30)
        )
    }
}
