//! An OpenAPI document, as far as the tests read it.

use std::collections::BTreeSet;

use http::Method;
use sealpost_wire::problem::ProblemCode;
use serde_json::Value;

/// A document.
#[derive(Clone, Debug)]
pub struct Document(Value);

/// How an operation knows its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Not at all, or by what is in the body.
    None,
    /// By an access token.
    Bearer,
    /// By a device's signature.
    Device,
}

/// An operation of a document.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Its id.
    pub id: String,
    /// Its method.
    pub method: Method,
    /// Its path, parameters in braces.
    pub path: String,
    /// How it knows its caller; the first way where there are two.
    pub security: Security,
    /// The other way, where there are two.
    pub other_security: Option<Security>,
    /// The roles of which the caller has one; any will do when there is none.
    pub roles: Vec<String>,
    /// The parameters.
    pub parameters: Vec<Value>,
    /// The body: media type and name of its schema.
    pub body: Option<(String, String)>,
    /// Bytes of the longest body.
    pub body_bytes_max: usize,
    /// The codes of its refusals.
    pub codes: BTreeSet<String>,
    /// Whether its refusals have the form of RFC 6749.
    pub is_oauth: bool,
    /// Its answers by status.
    pub responses: Value,
}

impl Document {
    /// Reads a document.
    ///
    /// # Panics
    /// It is not JSON.
    #[must_use]
    pub fn read(text: &str) -> Self {
        Self(serde_json::from_str(text).expect("the document is JSON"))
    }

    /// Its operations, in its order.
    ///
    /// # Panics
    /// It does not have the form that the tests read.
    #[must_use]
    pub fn operations(&self) -> Vec<Operation> {
        let paths = self.0["paths"].as_object().expect("paths");
        let of_path = |path: &String, item: &Value| -> Vec<Operation> {
            let methods = item.as_object().expect("a path item");
            methods.iter().map(|(method, operation)| self.operation(path, method, operation)).collect()
        };
        paths.iter().flat_map(|(path, item)| of_path(path, item)).collect()
    }

    /// The schema of this name.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn schema(&self, name: &str) -> &Value {
        let schema = &self.0["components"]["schemas"][name];
        assert!(schema.is_object(), "there is a schema {name}");
        schema
    }

    /// The names of all schemas.
    ///
    /// # Panics
    /// There are none.
    #[must_use]
    pub fn schemas(&self) -> BTreeSet<&str> {
        let schemas = self.0["components"]["schemas"].as_object().expect("schemas");
        schemas.keys().map(String::as_str).collect()
    }

    /// What a `$ref` leads to; any other value is itself.
    ///
    /// # Panics
    /// It leads nowhere.
    #[must_use]
    pub fn resolve<'v>(&'v self, value: &'v Value) -> &'v Value {
        match value["$ref"].as_str() {
            Some(reference) => {
                let pointer = reference.strip_prefix('#').expect("a reference into the document");
                self.0.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"))
            }
            None => value,
        }
    }

    fn operation(&self, path: &str, method: &str, operation: &Value) -> Operation {
        let id = operation["operationId"].as_str().expect("an operationId").to_owned();
        let texts = |value: &Value| -> Vec<String> {
            let texts = value.as_array().map(Vec::as_slice).unwrap_or_default();
            texts.iter().map(|text| text.as_str().expect("a text").to_owned()).collect()
        };
        let security = operation["security"].as_array().unwrap_or_else(|| panic!("{id}: security"));
        let security: Vec<_> = security.iter().map(|one| security_of(&id, one)).collect();
        assert!(security.len() <= 2, "{id}: the tests know two ways to show who calls");
        let content = operation["requestBody"]["content"].as_object();
        let body = content.and_then(|content| content.iter().next()).map(|(media, body)| {
            let schema = body["schema"]["$ref"].as_str().expect("a schema by its name");
            (media.clone(), schema.rsplit('/').next().unwrap_or_default().to_owned())
        });
        let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
        let bytes = operation["x-body-bytes-max"].as_u64().unwrap_or(0);
        Operation {
            method: method.to_uppercase().parse().expect("a method"),
            path: path.to_owned(),
            security: security.first().copied().unwrap_or(Security::None),
            other_security: security.get(1).copied(),
            roles: texts(&operation["x-roles"]),
            parameters: parameters.iter().map(|parameter| self.resolve(parameter).clone()).collect(),
            body,
            body_bytes_max: usize::try_from(bytes).expect("a size"),
            codes: texts(&operation["x-problem-codes"]).into_iter().collect(),
            is_oauth: operation["x-errors"] == "oauth",
            responses: operation["responses"].clone(),
            id,
        }
    }
}

fn security_of(id: &str, security: &Value) -> Security {
    let name = security.as_object().and_then(|one| one.keys().next()).expect("a security scheme");
    match name.as_str() {
        "bearer" => Security::Bearer,
        "device" => Security::Device,
        name => panic!("{id}: the tests know no {name}"),
    }
}

impl Operation {
    /// The operation once for each way to show who calls, each the first of its own.
    #[must_use]
    pub fn ways(&self) -> Vec<Self> {
        let mut ways = vec![self.clone()];
        if let Some(other) = self.other_security {
            ways.push(Self { security: other, other_security: Some(self.security), ..self.clone() });
        }
        ways
    }

    /// Asserts that the codes of an operation and the statuses of its refusals say the same.
    ///
    /// # Panics
    /// They do not.
    pub fn check_codes(&self) {
        let mut statuses = BTreeSet::new();
        for code in &self.codes {
            let known = ProblemCode::ALL.iter().find(|known| known.code() == code);
            let known = known.unwrap_or_else(|| panic!("{}: {code} is no problem code", self.id));
            statuses.insert(known.status().to_string());
        }
        let documented = self.responses.as_object().expect("responses").keys();
        let mut documented: BTreeSet<String> =
            documented.filter(|status| status.as_str() >= "400").cloned().collect();
        if self.is_oauth {
            // RFC 6749 section 5.2.
            documented.retain(|status| !matches!(status.as_str(), "400" | "401"));
            statuses.retain(|status| !matches!(status.as_str(), "400" | "401"));
        }
        assert_eq!(documented, statuses, "{}: statuses of its refusals, and of their codes", self.id);
    }

    /// Asserts that the path's parameters are described.
    ///
    /// # Panics
    /// They are not.
    pub fn check_parameters(&self) {
        let in_path: BTreeSet<_> =
            self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        let described = self.parameters.iter().filter(|one| one["in"] == "path");
        let described: BTreeSet<_> = described.filter_map(|one| one["name"].as_str()).collect();
        assert_eq!(described, in_path, "{}", self.id);
    }
}
