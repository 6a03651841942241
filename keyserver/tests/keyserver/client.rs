//! A small HTTP client: sends what it is told to, well-formed or not.

use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Talks to one server.
#[derive(Clone)]
pub struct Http {
    /// Where it connects to.
    address: String,
    /// What the server calls itself.
    base: String,
    client: Client<HttpConnector, Full<bytes::Bytes>>,
}

/// What to send.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: Method,
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Http {
    pub fn new(base: &str) -> Self {
        Self {
            address: base.to_owned(),
            base: base.to_owned(),
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// The same server under the name that it goes by.
    pub fn named(&self, base: &str) -> Self {
        Self { base: base.to_owned(), ..self.clone() }
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    pub async fn send(&self, call: Call) -> Answer {
        let mut request =
            Request::builder().method(call.method).uri(format!("{}{}", self.address, call.path));
        for (name, value) in call.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(call.body.into())).unwrap();
        let response = self.client.request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Call::new(Method::GET, path)).await
    }
}

impl Call {
    pub fn new(method: Method, path: &str) -> Self {
        Self { method, path: path.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    pub fn json<T: Serialize>(method: Method, path: &str, body: &T) -> Self {
        Self::new(method, path).raw_json(serde_json::to_vec(body).unwrap())
    }

    pub fn raw_json(mut self, body: Vec<u8>) -> Self {
        self.body = body;
        self.header("content-type", "application/json")
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }
}

impl Answer {
    /// The body, of an answer with this status.
    #[track_caller]
    pub fn expect<T: DeserializeOwned>(&self, status: u16) -> T {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.body));
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The code and detail of a problem document, with the status that the code has.
    #[track_caller]
    pub fn problem(&self) -> (String, Option<String>) {
        let problem: sealpost_wire::problem::Problem =
            serde_json::from_slice(&self.body).unwrap_or_else(|error| {
                panic!("{error}: {} {}", self.status, String::from_utf8_lossy(&self.body))
            });
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.status.as_u16(), problem.status);
        (problem.code, problem.detail)
    }

    #[track_caller]
    pub fn expect_problem(&self, code: &str) {
        assert_eq!(self.problem().0, code, "{}", String::from_utf8_lossy(&self.body));
    }

    #[track_caller]
    pub fn expect_detail(&self, code: &str, detail: &str) {
        let (found, said) = self.problem();
        assert_eq!((found.as_str(), said.as_deref()), (code, Some(detail)));
    }

    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}
