//! Requests as a client of a tenant makes them, for what the sender's library would never ask.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use getrandom::SysRng;
use rand_core::UnwrapErr;
use sealpost_sender::identity::CertifiedKey;
use sealpost_wire::api::TokenResponse;
use sealpost_wire::assertion::{self, ASSERTION_TYPE, GRANT_TYPE, client_id};
use sealpost_wire::id::{SubjectId, TenantId};
use sealpost_wire::key::RequestSigningKey;
use serde::Serialize;
use serde_json::Value;
use ureq::Agent;

use crate::{Outcome, tenant};

const REQUEST_DEADLINE: Duration = Duration::from_secs(20);

/// A client with a `request` key at one server.
pub struct Client {
    url: String,
    id: String,
    request: CertifiedKey,
    agent: Agent,
    token: Mutex<Option<String>>,
}

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Value,
}

impl Client {
    /// The client of `request` at `url`.
    #[must_use]
    pub fn new(url: &str, tenant: &TenantId, subject: &SubjectId, request: CertifiedKey) -> Self {
        let config = Agent::config_builder().http_status_as_error(false);
        let agent = config.timeout_global(Some(REQUEST_DEADLINE)).build().new_agent();
        Self { url: url.to_owned(), id: client_id(tenant, subject), request, agent, token: Mutex::new(None) }
    }

    /// Asks, with an access token that is fetched anew when the server takes the old one no more.
    ///
    /// # Errors
    /// The server is away, or answers something else than JSON.
    pub fn call<T: Serialize>(&self, method: &str, path: &str, body: Option<&T>) -> Outcome<Answer> {
        let answer = self.send(method, path, body)?;
        if answer.status != 401 {
            return Ok(answer);
        }
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.send(method, path, body)
    }

    /// A `GET`.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn get(&self, path: &str) -> Outcome<Answer> {
        self.call::<()>("GET", path, None)
    }

    fn send<T: Serialize>(&self, method: &str, path: &str, body: Option<&T>) -> Outcome<Answer> {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("authorization", format!("Bearer {}", self.token()?));
        let response = match body {
            Some(body) => {
                let request = request.header("content-type", "application/json");
                self.agent.run(request.body(serde_json::to_vec(body)?)?)?
            }
            None => self.agent.run(request.body(())?)?,
        };
        read(response)
    }

    fn token(&self) -> Outcome<String> {
        // Held while a token is fetched: one request for all threads.
        let mut held = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = &*held {
            return Ok(token.clone());
        }
        let audience = format!("{}/v1/token", self.url);
        let key = RequestSigningKey::Ed25519(self.request.key.clone());
        let rng = &mut UnwrapErr(SysRng);
        let assertion =
            assertion::sign(&self.id, &audience, &self.request.certificate, &key, tenant::now(), rng);
        let form = [
            ("grant_type", GRANT_TYPE),
            ("client_assertion_type", ASSERTION_TYPE),
            ("client_assertion", assertion.as_str()),
        ];
        let answer = read(self.agent.post(&audience).send_form(form)?)?;
        if answer.status != 200 {
            return Err(format!("no access token: {} {}", answer.status, answer.body).into());
        }
        let token: TokenResponse = serde_json::from_value(answer.body)?;
        *held = Some(token.access_token.clone());
        Ok(token.access_token)
    }
}

fn read(mut response: ureq::http::Response<ureq::Body>) -> Outcome<Answer> {
    let status = response.status().as_u16();
    let text = response.body_mut().read_to_string()?;
    let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? };
    Ok(Answer { status, body })
}
