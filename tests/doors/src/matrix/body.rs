//! Bodies of another type, too large, cut off, nested, or with values that their schema does not allow.

use sealpost_wire::problem::ProblemCode;
use serde_json::{Map, Value, json};

use super::{Case, Expected, changed, with_body, with_json};
use crate::document::{Document, Operation, Security};
use crate::stage::Stage;

/// How deep the nested bodies go, where there is room.
const DEPTH: usize = 50_000;

/// Codes of a body whose JSON or values are not what they should be.
const MALFORMED: [ProblemCode; 4] = [
    ProblemCode::MalformedBody,
    ProblemCode::InvalidValue,
    ProblemCode::InvalidStructure,
    ProblemCode::InvalidExpiry,
];

pub(super) fn cases(stage: &Stage, operation: &Operation) -> Vec<Case> {
    let Some((media, schema)) = &operation.body else {
        // Who signs a request signs its body too, so that it is read, and none is taken.
        let call = || with_body(stage, operation, " ");
        let is_signed = operation.security == Security::Device;
        let case =
            is_signed.then(|| Case::new("a body where there is none", call(), ProblemCode::BodyTooLarge));
        return case.into_iter().collect();
    };
    let mut cases = sizes(stage, operation);
    if media == "application/json" {
        cases.extend(media_types(stage, operation));
        cases.extend(texts(stage, operation));
        cases.extend(values(stage, operation, stage.document.schema(schema)));
    }
    cases
}

fn sizes(stage: &Stage, operation: &Operation) -> Vec<Case> {
    let large = || with_body(stage, operation, vec![b' '; operation.body_bytes_max + 1]);
    let cut = stage.let_in(operation, stage.bare(operation)).cut_off();
    let none = ProblemCode::MalformedBody;
    let cut = Case::new("a body that ends before its announced length", cut, none);
    vec![
        Case::new("a body that is too large", large(), ProblemCode::BodyTooLarge),
        Case::new("a large body of unannounced length", large().chunked(), ProblemCode::BodyTooLarge),
        Case { expected: Expected::ProblemOrNothing(none), ..cut },
    ]
}

fn media_types(stage: &Stage, operation: &Operation) -> Vec<Case> {
    let typed = |media: &str| {
        changed(stage, operation, |call| {
            *call = call.clone().without("content-type").header("content-type", media);
        })
    };
    let others =
        ["text/plain", "application/cbor", "application/x-www-form-urlencoded", "application/jsonl", ""];
    let mut cases: Vec<_> = others
        .map(|media| {
            let name = format!("the content type {media:?}");
            Case::new(name, typed(media), ProblemCode::UnsupportedMediaType)
        })
        .into();
    let untyped = changed(stage, operation, |call| *call = call.clone().without("content-type"));
    cases.push(Case::new("no content type", untyped, ProblemCode::UnsupportedMediaType));
    cases
}

/// What is not JSON, and JSON that is no object.
fn texts(stage: &Stage, operation: &Operation) -> Vec<Case> {
    let right = stage.body(operation).expect("a body");
    let array: Value = right.as_object().into_iter().flat_map(Map::values).cloned().collect();
    let right = right.to_string();
    let depth = DEPTH.min(operation.body_bytes_max / 12);
    let field = right.trim_start_matches('{');
    let repeated = format!("{{{},{field}", field.trim_end_matches('}'));
    let mut texts = vec![
        ("nothing", Vec::new()),
        ("JSON that ends early", right.as_bytes()[..right.len() - 1].to_vec()),
        ("JSON with more behind it", format!("{right} {right}").into_bytes()),
        ("a byte order mark", format!("\u{feff}{right}").into_bytes()),
        ("bytes that are no UTF-8", b"\xff\xfe{}".to_vec()),
        ("a NUL", format!("{right}\0").into_bytes()),
        ("nested arrays", "[".repeat(depth).into_bytes()),
        ("nested arrays that end", [b"[".repeat(depth), b"]".repeat(depth)].concat()),
        ("nested objects", r#"{"a":"#.repeat(depth).into_bytes()),
        ("null", b"null".to_vec()),
        ("an empty array", b"[]".to_vec()),
        ("an array of the values", array.to_string().into_bytes()),
        ("a text", b"\"text\"".to_vec()),
        ("a number", b"1e999".to_vec()),
    ];
    if field.len() > 1 {
        texts.push(("fields that are there twice", repeated.into_bytes()));
    }
    let case = |(name, text): (&str, Vec<u8>)| {
        Case::new(name, with_body(stage, operation, text), ProblemCode::MalformedBody)
    };
    texts.into_iter().map(case).collect()
}

/// Values that the schema does not allow, one at a time.
fn values(stage: &Stage, operation: &Operation, schema: &Value) -> Vec<Case> {
    let right = stage.body(operation).expect("a body");
    let case = |(name, value): (String, Value)| {
        Case::one_of(format!("body{name}"), with_json(stage, operation, &value), &MALFORMED)
    };
    mutations(&stage.document, schema, &right).into_iter().map(case).collect()
}

/// `value` with one fault each, and where it is.
fn mutations(document: &Document, schema: &Value, value: &Value) -> Vec<(String, Value)> {
    let schema = document.resolve(schema);
    let mut faults = vec![];
    match (schema["type"].as_str(), value) {
        (Some("object"), Value::Object(fields)) => of_object(document, schema, fields, &mut faults),
        (Some("array"), Value::Array(items)) => {
            if let Some(first) = items.first() {
                for (name, fault) in mutations(document, &schema["items"], first) {
                    faults.push((format!("[0]{name}"), json!([fault])));
                }
                faults.push(("[0] of another type".to_owned(), json!([[null]])));
            }
            if let Some(most) = schema["maxItems"].as_u64().and_then(|most| usize::try_from(most).ok()) {
                let first = items.first().unwrap_or(&schema["items"]["example"]);
                let first = if first.is_null() { &Value::String(String::new()) } else { first };
                faults.push((" with too many".to_owned(), vec![first.clone(); most + 1].into()));
            }
            if schema["minItems"].as_u64().is_some_and(|least| least > 0) {
                faults.push((" with none".to_owned(), json!([])));
            }
        }
        (Some("string"), Value::String(text)) => {
            if schema["pattern"].is_string() {
                faults.push((" of another form".to_owned(), json!("\u{1}")));
                faults.push((" with white space".to_owned(), json!(format!("{text}\n"))));
            }
            if schema["enum"].is_array() {
                faults.push((" that is not listed".to_owned(), json!("nonsense")));
            }
            if let Some(most) = schema["maxLength"].as_u64().and_then(|most| usize::try_from(most).ok()) {
                faults.push((" that is too long".to_owned(), "x".repeat(most + 1).into()));
            }
        }
        (Some("integer"), Value::Number(_)) => {
            faults.push((" below zero".to_owned(), json!(-1)));
            faults.push((" with a fraction".to_owned(), json!(1.5)));
            faults.push((" as a text".to_owned(), json!("1")));
            let above = schema["maximum"].as_u64().and_then(|most| most.checked_add(1));
            faults.push((" that is too large".to_owned(), above.map_or(json!(1e20), |number| json!(number))));
        }
        (Some("boolean"), Value::Bool(_)) => faults.push((" as a text".to_owned(), json!("true"))),
        (kind, value) => panic!("the matrix knows no faults of {kind:?} with {value}"),
    }
    faults
}

fn of_object(
    document: &Document,
    schema: &Value,
    fields: &Map<String, Value>,
    faults: &mut Vec<(String, Value)>,
) {
    let with = |name: &str, value: Value| {
        let mut fields = fields.clone();
        fields.insert(name.to_owned(), value);
        Value::Object(fields)
    };
    let no_fields = Map::new();
    for (name, property) in schema["properties"].as_object().unwrap_or(&no_fields) {
        faults.push((format!(".{name} of another type"), with(name, json!([[null]]))));
        if let Some(value) = fields.get(name) {
            for (inner, fault) in mutations(document, property, value) {
                faults.push((format!(".{name}{inner}"), with(name, fault)));
            }
        }
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let mut without = fields.clone();
        without.remove(name);
        faults.push((format!(" without {name}"), Value::Object(without)));
    }
    assert_eq!(schema["additionalProperties"], false, "bodies take no unknown fields");
    faults.push((" with an unknown field".to_owned(), with("unknown", Value::Null)));
}
