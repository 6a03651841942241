//! Parameters of paths and queries that are not what the document says.

use sealpost_wire::id::RecipientId;
use sealpost_wire::problem::ProblemCode;
use serde_json::Value;

use super::{Case, changed};
use crate::document::Operation;
use crate::hospital::rng;
use crate::stage::Stage;

/// What no parameter of a path may be: no UTF-8, a NUL, a slash, a letter of no id, and too long.
const NEVER: [&str; 5] = ["%ff", "%00", "a%2Fb", "%C3%A4", LONG];
const LONG: &str = "00000000000000000000000000000000000000000000000000000000000000000000000000000000";
/// What an id of 32 hexadecimal digits may not be.
const NO_ID: [&str; 4] = [
    "x",
    "0123456789abcdef0123456789abcde",
    "0123456789abcdef0123456789abcdefa",
    "0123456789ABCDEF0123456789ABCDEF",
];
const ID_PATTERN: &str = "^[0-9a-f]{32}$";

pub(super) fn cases(stage: &Stage, operation: &Operation) -> Vec<Case> {
    let mut cases = in_path(stage, operation);
    cases.extend(in_query(stage, operation));
    cases.extend(unknown(stage, operation));
    cases
}

/// An id that is nobody's, where the document says that there may be nothing.
fn unknown(stage: &Stage, operation: &Operation) -> Option<Case> {
    let is_id = |one: &&Value| one["in"] == "path" && one["schema"]["pattern"] == ID_PATTERN;
    let parameter = operation.parameters.iter().find(is_id)?;
    let name = parameter["name"].as_str()?;
    let id = RecipientId::random(&mut rng()).to_string();
    let path = operation.path.replace(&format!("{{{name}}}"), &id);
    let path = stage.path(&Operation { path, ..operation.clone() });
    let call = changed(stage, operation, |call| call.path = path);
    let is_told = operation.codes.contains(ProblemCode::NotFound.code());
    is_told.then(|| Case::new(format!("an unknown {name}"), call, ProblemCode::NotFound))
}

fn in_path(stage: &Stage, operation: &Operation) -> Vec<Case> {
    let codes = [ProblemCode::MalformedParameter, ProblemCode::InvalidValue];
    let mut cases = Vec::new();
    for parameter in operation.parameters.iter().filter(|one| one["in"] == "path") {
        let name = parameter["name"].as_str().expect("a name");
        let pattern = parameter["schema"]["pattern"].as_str();
        let values: &[&str] = if pattern == Some(ID_PATTERN) { &NO_ID } else { &[] };
        for value in NEVER.iter().chain(values) {
            let path = operation.path.replace(&format!("{{{name}}}"), value);
            let path = stage.path(&Operation { path, ..operation.clone() });
            let call = changed(stage, operation, |call| call.path = path);
            cases.push(Case::one_of(format!("{name} of {value} in the path"), call, &codes));
        }
    }
    cases
}

fn in_query(stage: &Stage, operation: &Operation) -> Vec<Case> {
    let parameters: Vec<_> = operation.parameters.iter().filter(|one| one["in"] == "query").collect();
    let mut queries = Vec::new();
    for parameter in &parameters {
        let (name, schema) = (parameter["name"].as_str().expect("a name"), &parameter["schema"]);
        assert_eq!(schema["type"], "integer", "{}: {name}", operation.id);
        let above = schema["maximum"].as_u64().expect("a maximum").checked_add(1);
        let above = above.map_or_else(|| "18446744073709551616".to_owned(), |number| number.to_string());
        for value in ["soon", "-1", "1.5", "", &above] {
            queries.push(format!("{name}={value}"));
        }
        queries.push(format!("{name}=1&{name}=1"));
        let below = schema["minimum"].as_u64().and_then(|number| number.checked_sub(1));
        queries.extend(below.map(|number| format!("{name}={number}")));
    }
    if !parameters.is_empty() {
        queries.push("unknown=1".to_owned());
    }
    let codes = [ProblemCode::MalformedParameter, ProblemCode::InvalidValue];
    let case = |query: String| {
        let call = changed(stage, operation, |call| call.path = format!("{}?{query}", call.path));
        Case::one_of(format!("the query {query}"), call, &codes)
    };
    queries.into_iter().map(case).collect()
}
