//! Sending a case, and whether the answer is the refusal that it should be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::header;
use sealpost_wire::problem::{MEDIA_TYPE, Problem, ProblemCode};
use serde_json::Value;

use super::{Case, Expected, cases};
use crate::call::Answer;
use crate::document::{Operation, Security};
use crate::server::Rows;
use crate::stage::Stage;

/// After which a server counts the requests of a device anew.
const STRETCH: Duration = Duration::from_secs(10);
/// The keyspace of both servers' audit rows.
const AUDIT: &str = "audit";

/// What was wrong with the answers.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Cases that were sent.
    pub cases: usize,
    /// One line each.
    pub faults: Vec<String>,
    /// The codes that each operation answered with.
    pub seen: BTreeMap<String, BTreeSet<String>>,
}

impl Faults {
    /// Sends every case of an operation.
    pub async fn of(stage: &Stage, operation: &Operation) -> Self {
        let mut faults = Self::default();
        for way in operation.ways() {
            if way.security == Security::Device {
                // One device plays all of them, and a server takes so many of its requests in a stretch of
                // time.
                stage.clock.advance(STRETCH);
            }
            for case in cases(stage, &way) {
                faults.send(stage, &way, case).await;
            }
        }
        faults
    }

    /// With those of another operation.
    pub fn extend(&mut self, other: Self) {
        self.cases += other.cases;
        self.faults.extend(other.faults);
        self.seen.extend(other.seen);
    }

    async fn send(&mut self, stage: &Stage, operation: &Operation, case: Case) {
        let base = &stage.server.base;
        let name = format!("{} ({:?}), {}", operation.id, operation.security, case.name);
        self.cases += 1;
        if let Some(first) = case.first {
            let answer = first.send(base).await;
            if answer.status == 401 {
                self.faults.push(format!("{name}: the first request is refused: {answer:?}"));
            }
        }
        let (digest, rows) = (stage.server.digest(), stage.server.rows(&stage.mary.id));
        let answer = case.call.try_send(base).await;
        if matches!(case.expected, Expected::Audited(_)) {
            let left = stage.server.rows(&stage.mary.id);
            if without_audit(left) != without_audit(rows) || stage.server.digest() == digest {
                self.faults.push(format!("{name}: an audit row, and nothing else, was to be stored"));
            }
        } else if stage.server.digest() != digest {
            self.faults.push(format!("{name}: the store has changed; {answer:?}"));
        }
        let checked = match (&case.expected, &answer) {
            (Expected::ProblemOrNothing(_), None) => Ok(None),
            (_, None) => Err("no answer".to_owned()),
            (Expected::OAuth(error), Some(answer)) => oauth_error(operation, error, answer).map(|()| None),
            (Expected::Problem(codes), Some(answer)) => problem(operation, codes, answer).map(Some),
            (Expected::ProblemOrNothing(code) | Expected::Audited(code), Some(answer)) => {
                problem(operation, &[*code], answer).map(Some)
            }
        };
        match checked {
            Ok(code) => self.seen.entry(operation.id.clone()).or_default().extend(code),
            Err(fault) => self.faults.push(format!("{name}: {fault}; {answer:?}")),
        }
    }
}

fn without_audit(mut rows: Rows) -> Rows {
    rows.retain(|(keyspace, _), _| *keyspace != AUDIT);
    rows
}

/// The code of a problem that is one of the table, of those expected, and described for its operation.
fn problem(operation: &Operation, expected: &[ProblemCode], answer: &Answer) -> Result<String, String> {
    let problem: Problem =
        serde_json::from_slice(&answer.body).map_err(|error| format!("no problem document: {error}"))?;
    let known = ProblemCode::ALL.iter().find(|known| known.code() == problem.code);
    let known = *known.ok_or_else(|| format!("{} is in no table", problem.code))?;
    if !expected.contains(&known) {
        return Err(format!("{expected:?} was to be the code"));
    }
    // Every path has methods that it does not know; their refusal is described once, in front.
    if known != ProblemCode::MethodNotAllowed && !operation.codes.contains(known.code()) {
        return Err(format!("{} is not described for the operation", problem.code));
    }
    let fixed = known.problem(problem.detail.clone());
    if problem != (Problem { server_time: problem.server_time, ..fixed }) {
        return Err("type, title and status are not those of the table".to_owned());
    }
    if (known == ProblemCode::ClockSkew) != problem.server_time.is_some() {
        return Err("the server's time goes with clock_skew".to_owned());
    }
    if known == ProblemCode::MethodNotAllowed && !answer.headers.contains_key(header::ALLOW) {
        return Err("no Allow (RFC 9110 section 15.5.6)".to_owned());
    }
    headers(answer, known.status(), MEDIA_TYPE)?;
    Ok(problem.code)
}

/// An error of RFC 6749 section 5.2, as the operation's document has it.
fn oauth_error(operation: &Operation, expected: &str, answer: &Answer) -> Result<(), String> {
    let body: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    let fields = body.as_object().ok_or("no object")?;
    if !fields.keys().all(|name| name == "error" || name == "error_description") {
        return Err("fields that RFC 6749 does not know".to_owned());
    }
    if body["error"] != expected {
        return Err(format!("{expected} was to be the error"));
    }
    let status = if expected == "invalid_client" { 401 } else { 400 };
    let content = &operation.responses[status.to_string()]["content"]["application/json"];
    if content["schema"]["$ref"] != "#/components/schemas/OAuthError" {
        return Err("the document does not describe it".to_owned());
    }
    headers(answer, status, "application/json")
}

fn headers(answer: &Answer, status: u16, media: &str) -> Result<(), String> {
    if answer.status.as_u16() != status {
        return Err(format!("{status} was to be the status"));
    }
    let value = |name| answer.headers.get(name).and_then(|value| value.to_str().ok());
    let fixed = [
        (header::CONTENT_TYPE, media),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, wanted) in fixed {
        if value(name.clone()) != Some(wanted) {
            return Err(format!("{name} was to be {wanted}"));
        }
    }
    if status == 401 && value(header::WWW_AUTHENTICATE).is_none() {
        return Err("no challenge (RFC 9110 section 15.5.2)".to_owned());
    }
    Ok(())
}
