//! The cases of the matrix: for an operation of a document, each call that is to be refused, and how.
//!
//! ```text
//! document -> operation -> case { call, expected } -> answer, and the store's digest before and after
//! ```

mod body;
mod credential;
mod own;
mod parameter;
mod refusal;

use std::collections::BTreeSet;

use http::Method;
use sealpost_wire::problem::ProblemCode;
use serde_json::Value;

pub use self::refusal::Faults;
use crate::call::Call;
use crate::document::{Operation, Security};
use crate::stage::Stage;

/// A call that is to be refused.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is wrong with it.
    pub name: String,
    /// What is sent before, where it takes two: it is let in.
    pub first: Option<Call>,
    /// The call.
    pub call: Call,
    /// The answer.
    pub expected: Expected,
}

/// How a call is refused.
#[derive(Clone, Debug)]
pub enum Expected {
    /// By a problem with one of these codes.
    Problem(Vec<ProblemCode>),
    /// By a problem with one of these codes, or by no answer: the connection is gone.
    ProblemOrNothing(ProblemCode),
    /// As by a problem; the store keeps no more of it than an audit row.
    Audited(ProblemCode),
    /// By an error of RFC 6749 section 5.2.
    OAuth(&'static str),
}

impl Case {
    fn new(name: impl Into<String>, call: Call, code: ProblemCode) -> Self {
        Self::one_of(name, call, &[code])
    }

    fn one_of(name: impl Into<String>, call: Call, codes: &[ProblemCode]) -> Self {
        Self { name: name.into(), first: None, call, expected: Expected::Problem(codes.to_vec()) }
    }

    fn oauth(name: impl Into<String>, call: Call, error: &'static str) -> Self {
        Self { name: name.into(), first: None, call, expected: Expected::OAuth(error) }
    }
}

/// Every case of an operation, for its first way to show who calls. What its document does not say is in the
/// module `own`: an operation that knows its caller by the body alone has to be there.
///
/// # Panics
/// The operation is not described well enough to be tested.
#[must_use]
pub fn cases(stage: &Stage, operation: &Operation) -> Vec<Case> {
    let mut cases = methods(stage, operation);
    cases.extend(parameter::cases(stage, operation));
    match operation.security {
        Security::Bearer => cases.extend(credential::bearer(stage, operation)),
        Security::Device => cases.extend(credential::device(stage, operation)),
        Security::None => {}
    }
    cases.extend(body::cases(stage, operation));
    cases.extend(own::cases(stage, operation));
    cases
}

/// Methods that the document does not give to the path.
fn methods(stage: &Stage, operation: &Operation) -> Vec<Case> {
    let described = stage.document.operations();
    let described: BTreeSet<_> =
        described.iter().filter(|one| one.path == operation.path).map(|one| one.method.as_str()).collect();
    let others = [Method::GET, Method::PUT, Method::POST, Method::DELETE, Method::PATCH, Method::OPTIONS];
    let others = others.into_iter().filter(|method| !described.contains(method.as_str()));
    others
        .map(|method| {
            let call = Call { method: method.clone(), ..stage.bare(operation) };
            let call = stage.let_in(operation, call);
            Case::new(format!("the method {method}"), call, ProblemCode::MethodNotAllowed)
        })
        .collect()
}

/// What a right caller sends, signed or with a token, after `change`.
fn changed(stage: &Stage, operation: &Operation, change: impl FnOnce(&mut Call)) -> Call {
    let mut call = stage.bare(operation);
    change(&mut call);
    stage.let_in(operation, call)
}

/// The same with another body.
fn with_body(stage: &Stage, operation: &Operation, body: impl Into<Vec<u8>>) -> Call {
    changed(stage, operation, |call| call.body = body.into())
}

/// The same with another JSON body.
fn with_json(stage: &Stage, operation: &Operation, body: &Value) -> Call {
    with_body(stage, operation, body.to_string())
}
