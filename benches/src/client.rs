//! A client of the relay: one HTTP/1.1 connection, one request at a time.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Request, StatusCode, request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use sealpost_wire::http_signature::{self, RequestParts};
use tokio::net::TcpStream;

use crate::cast::{Device, Hospital, RELAY_AUTHORITY, system_rng, system_time};
use crate::error::BenchError;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const AUTHORITY: HeaderValue = HeaderValue::from_static(RELAY_AUTHORITY);
/// Bytes of a refusal that are shown.
const REFUSAL_BYTES_SHOWN: usize = 300;

/// A connection to the relay.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// [`BenchError::Io`], [`BenchError::Http`].
    pub async fn connect(address: SocketAddr) -> Result<Self, BenchError> {
        let failed = || BenchError::io("connecting to the relay");
        let stream = TcpStream::connect(address).await.map_err(failed())?;
        stream.set_nodelay(true).map_err(failed())?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with either side; whoever waits for an answer then gets an error.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender })
    }

    /// `count` connections.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_many(address: SocketAddr, count: usize) -> Result<Vec<Self>, BenchError> {
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            clients.push(Self::connect(address).await?);
        }
        Ok(clients)
    }

    /// Submits a message.
    ///
    /// # Errors
    /// [`BenchError::Refused`] for anything but 202 with the delivery queued, and what fails on the way.
    pub async fn put_message(
        &mut self,
        token: &HeaderValue,
        path: &str,
        body: Bytes,
    ) -> Result<(), BenchError> {
        let request = Request::put(path).header(AUTHORIZATION, token);
        let (status, answer) = self.send(request, body).await?;
        // A device that the relay does not know fails inside a 202.
        let queued = contains(&answer, b"\"queued\"");
        if status == StatusCode::ACCEPTED && queued {
            Ok(())
        } else {
            Err(refused("a submission", status, &answer))
        }
    }

    /// Sends a request that `device` signs.
    ///
    /// # Errors
    /// [`BenchError::Refused`] for anything but success, and what fails on the way.
    pub async fn signed(
        &mut self,
        what: &'static str,
        method: &'static str,
        path: &str,
        hospital: &Hospital,
        device: &Device,
        body: Vec<u8>,
    ) -> Result<Bytes, BenchError> {
        let parts = RequestParts { method, authority: RELAY_AUTHORITY, path, query: None, body: &body };
        let (tenant, key) = (hospital.tenant(), device.request_key());
        // Within the second of its start a relay takes what is signed for the next one.
        let created = system_time().plus(1);
        let signed = http_signature::sign(&parts, tenant, device.id(), key, created, &mut system_rng());
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-digest", signed.content_digest)
            .header("signature-input", signed.signature_input)
            .header("signature", signed.signature);
        let (status, answer) = self.send(request, body.into()).await?;
        if status.is_success() { Ok(answer) } else { Err(refused(what, status, &answer)) }
    }

    /// Sends a form to the token endpoint.
    ///
    /// # Errors
    /// [`BenchError::Refused`] for anything but 200, and what fails on the way.
    pub async fn post_form(&mut self, path: &str, form: String) -> Result<Bytes, BenchError> {
        let request = Request::post(path).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let (status, answer) = self.send(request, form.into()).await?;
        if status == StatusCode::OK { Ok(answer) } else { Err(refused("a token request", status, &answer)) }
    }

    /// Asks for `/healthz` or `/readyz`, and shows thereby that the connection lives.
    ///
    /// # Errors
    /// [`BenchError::Refused`] for anything but 200, and what fails on the way.
    pub async fn touch(&mut self, path: &'static str) -> Result<(), BenchError> {
        let (status, answer) = self.send(Request::get(path), Bytes::new()).await?;
        if status == StatusCode::OK { Ok(()) } else { Err(refused(path, status, &answer)) }
    }

    async fn send(
        &mut self,
        request: request::Builder,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), BenchError> {
        let has_type = request.headers_ref().is_some_and(|headers| headers.contains_key(CONTENT_TYPE));
        let request = if has_type || body.is_empty() { request } else { request.header(CONTENT_TYPE, JSON) };
        let request = request.header(HOST, AUTHORITY).body(Full::new(body))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn refused(what: &'static str, status: StatusCode, body: &[u8]) -> BenchError {
    let body = String::from_utf8_lossy(body).chars().take(REFUSAL_BYTES_SHOWN).collect();
    BenchError::Refused { what, status: status.as_u16(), body }
}
