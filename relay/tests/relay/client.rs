//! A sender and a device, as far as a relay can tell.

use bytes::Bytes;
use getrandom::SysRng;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rand_core::UnwrapErr;
use sealpost_wire::api::relay::{
    DeviceRegistration, EventPage, MessageStatus, PushRegistration, Submission, SubmittedBox, SyncRequest,
    SyncResponse, WaitingBox,
};
use sealpost_wire::api::{StatusBody, TokenResponse};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::http_signature::{RequestParts, sign};
use sealpost_wire::id::{DeviceId, Digest, PrekeyId, TenantId, TicketId, TransportId};
use sealpost_wire::key::{P256SigningKey, RequestSigningKey, SignRequest as _, SigningKey};
use sealpost_wire::message::{SealedHeader, Suite};
use sealpost_wire::payload::Priority;
use sealpost_wire::prekey::PrekeyKind;
use sealpost_wire::problem::Problem;
use sealpost_wire::receipt::{Receipt, ReceiptStatement};
use sealpost_wire::record::DeviceRecord;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

pub(crate) const OPENED: ReceiptStatement = ReceiptStatement::Opened(PrekeyKind::OneTime);

/// An answer of a server.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<String>,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The problem's code; the status must be its own.
    pub(crate) fn problem(&self) -> String {
        let problem: Problem = self.json();
        assert_eq!(problem.status, self.status.as_u16());
        problem.code
    }

    pub(crate) fn expect(self, status: StatusCode) -> Self {
        assert_eq!(self.status, status, "{:?}", self.body);
        self
    }
}

/// HTTP to one relay.
#[derive(Clone)]
pub(crate) struct Http {
    pub(crate) url: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Http {
    pub(crate) fn new(url: &str) -> Self {
        Self { url: url.to_owned(), client: Client::builder(TokioExecutor::new()).build_http() }
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        self.try_send(request).await.unwrap()
    }

    /// Nothing when the connection ends first.
    async fn try_send(&self, request: Request<Full<Bytes>>) -> Option<Answer> {
        let (parts, body) = self.client.request(request).await.ok()?.into_parts();
        let retry_after = parts.headers.get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        Some(Answer { status: parts.status, retry_after, body: body.collect().await.ok()?.to_bytes() })
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(format!("{}{path}", self.url))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path).body(Full::default()).unwrap()).await
    }

    pub(crate) async fn token(&self, assertion: &str) -> Answer {
        let body = format!(
            "grant_type=client_credentials&client_assertion_type={}&client_assertion={assertion}",
            "urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer"
        );
        let request = self.request(Method::POST, "/v1/token");
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        self.send(request.body(Full::from(body)).unwrap()).await
    }
}

/// A client with an access token.
#[derive(Clone)]
pub(crate) struct ApiClient {
    pub(crate) http: Http,
    token: String,
}

/// A sending system, or whoever else has a token.
pub(crate) type Sender = ApiClient;

impl ApiClient {
    pub(crate) async fn with_assertion(http: Http, assertion: &str) -> Self {
        let token: TokenResponse = http.token(assertion).await.expect(StatusCode::OK).json();
        Self { http, token: token.access_token }
    }

    /// Its header.
    pub(crate) fn authorization(&self) -> http::HeaderValue {
        format!("Bearer {}", self.token).parse().unwrap()
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Answer {
        let mut request = self.http.request(method, path);
        request = request.header("authorization", format!("Bearer {}", self.token));
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        self.http.send(request.body(Full::from(body.unwrap_or_default())).unwrap()).await
    }

    /// A request for a stream of events.
    pub(crate) fn stream_request(&self, path: &str, last: Option<&str>) -> Request<Full<Bytes>> {
        let mut request = self.http.request(Method::GET, path);
        request = request.header("authorization", format!("Bearer {}", self.token));
        request = request.header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        request.body(Full::default()).unwrap()
    }

    /// The answer to it, its body unread.
    pub(crate) async fn stream(&self, path: &str, last: Option<&str>) -> http::Response<Incoming> {
        self.http.client.request(self.stream_request(path, last)).await.unwrap()
    }

    /// The page of events behind the one that `Last-Event-ID` names.
    pub(crate) async fn events_behind(&self, last: &str) -> Answer {
        let mut request = self.stream_request("/v1/events", Some(last));
        request.headers_mut().remove("accept");
        self.http.send(request).await
    }

    /// Sends the head of a request alone, which announces a body of `length` bytes.
    pub(crate) async fn announce(&self, path: &str, length: usize) -> TcpStream {
        let mut stream = TcpStream::connect(self.http.url.trim_start_matches("http://")).await.unwrap();
        let head = format!(
            "PUT {path} HTTP/1.1\r\nhost: relay\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n",
            self.token
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    pub(crate) async fn put<T: Serialize>(&self, path: &str, body: &T) -> Answer {
        self.call(Method::PUT, path, Some(serde_json::to_vec(body).unwrap())).await
    }

    pub(crate) async fn submit(&self, id: TransportId, submission: &Submission) -> Answer {
        self.put(&format!("/v1/messages/{id}"), submission).await
    }

    /// Submits to a relay that may be gone, or answers before it has read the body: then the answer may be lost with
    /// the connection.
    pub(crate) async fn try_submit(&self, id: TransportId, submission: &Submission) -> Option<Answer> {
        let request = self.http.request(Method::PUT, &format!("/v1/messages/{id}"));
        let request = request.header("authorization", format!("Bearer {}", self.token));
        let request = request.header("content-type", "application/json");
        let body = Full::from(serde_json::to_vec(submission).unwrap());
        self.http.try_send(request.body(body).unwrap()).await
    }

    /// Submits, and expects it to be accepted.
    pub(crate) async fn accepted(&self, id: TransportId, submission: &Submission) -> MessageStatus {
        self.submit(id, submission).await.expect(StatusCode::ACCEPTED).json()
    }

    pub(crate) async fn message(&self, id: TransportId) -> MessageStatus {
        self.call(Method::GET, &format!("/v1/messages/{id}"), None).await.expect(StatusCode::OK).json()
    }

    pub(crate) async fn events(&self, after: u64, wait: u16) -> EventPage {
        let path = format!("/v1/events?after={after}&wait={wait}");
        self.call(Method::GET, &path, None).await.expect(StatusCode::OK).json()
    }

    /// All events, as they come, until one satisfies `last`.
    pub(crate) async fn events_until(
        &self,
        last: impl Fn(&sealpost_wire::api::relay::Event) -> bool,
    ) -> Vec<sealpost_wire::api::relay::Event> {
        let mut events = Vec::new();
        loop {
            let page = self.events(u64::try_from(events.len()).unwrap(), 10).await;
            assert!(!page.events.is_empty(), "no further event came; so far {events:#?}");
            events.extend(page.events);
            let ids: Vec<u64> =
                events.iter().map(|event: &sealpost_wire::api::relay::Event| event.id).collect();
            assert_eq!(ids, (1..=ids.last().copied().unwrap()).collect::<Vec<_>>());
            if events.iter().any(&last) {
                return events;
            }
        }
    }

    pub(crate) async fn put_status(&self, status: Vec<u8>) -> Answer {
        self.put("/v1/status", &StatusBody { status: Base64Url(status) }).await
    }
}

/// A phone.
#[derive(Clone)]
pub(crate) struct Phone {
    pub(crate) tenant: TenantId,
    pub(crate) id: DeviceId,
    pub(crate) identity: SigningKey,
    pub(crate) request_key: RequestSigningKey,
    pub(crate) http: Http,
    /// Its push token.
    pub(crate) push_token: String,
    pub(crate) now: std::sync::Arc<dyn Fn() -> UnixTime + Send + Sync>,
    /// As the relay is addressed in signatures.
    pub(crate) authority: String,
}

impl Phone {
    pub(crate) fn new(
        number: u8,
        tenant: &TenantId,
        http: &Http,
        now: std::sync::Arc<dyn Fn() -> UnixTime + Send + Sync>,
    ) -> Self {
        let rng = &mut UnwrapErr(SysRng);
        Self {
            tenant: tenant.clone(),
            id: DeviceId::random(rng),
            identity: SigningKey::generate(rng),
            request_key: RequestSigningKey::P256(P256SigningKey::generate(rng)),
            authority: http.url.trim_start_matches("http://").to_owned(),
            http: http.clone(),
            push_token: format!("{number:02x}").repeat(32),
            now,
        }
    }

    pub(crate) fn record(&self, relay: &str) -> Vec<u8> {
        let record = DeviceRecord {
            tenant: self.tenant.clone(),
            ticket: TicketId([3; 16]),
            device: self.id,
            identity_key: self.identity.verifying_key(),
            request_key: self.request_key.request_key(),
            suites: vec![Suite::Hybrid],
            relay: relay.to_owned(),
            created: (self.now)(),
        };
        record.sign(&self.identity).unwrap()
    }

    /// The answer to a signed request.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Vec<u8>) -> Answer {
        self.http.send(self.signed(method, path, body)).await
    }

    /// A signed request, to be sent.
    pub(crate) fn signed(&self, method: Method, path: &str, body: Vec<u8>) -> Request<Full<Bytes>> {
        let parts = RequestParts {
            method: method.as_str(),
            authority: &self.authority,
            path,
            query: None,
            body: &body,
        };
        let rng = &mut UnwrapErr(SysRng);
        let headers = sign(&parts, &self.tenant, self.id, &self.request_key, (self.now)(), rng);
        let request = self.http.request(method, path).header("content-type", "application/json");
        let request = request
            .header("content-digest", headers.content_digest)
            .header("signature-input", headers.signature_input)
            .header("signature", headers.signature);
        request.body(Full::from(body)).unwrap()
    }

    /// Submits a message, signed.
    pub(crate) async fn submit(&self, id: TransportId, submission: &Submission) -> Answer {
        let body = serde_json::to_vec(submission).unwrap();
        self.call(Method::PUT, &format!("/v1/messages/{id}"), body).await
    }

    /// The answer to the question where a message is.
    pub(crate) async fn try_message(&self, id: TransportId) -> Answer {
        self.call(Method::GET, &format!("/v1/messages/{id}"), Vec::new()).await
    }

    pub(crate) async fn message(&self, id: TransportId) -> MessageStatus {
        self.try_message(id).await.expect(StatusCode::OK).json()
    }

    pub(crate) async fn register(&self, admission: Vec<u8>, app: Option<&str>) -> Answer {
        let push = app.map(|app| PushRegistration { app: app.to_owned(), token: self.push_token.clone() });
        let body = DeviceRegistration { admission: Base64Url(admission), push };
        let path = format!("/v1/devices/{}", self.id);
        self.call(Method::PUT, &path, serde_json::to_vec(&body).unwrap()).await
    }

    pub(crate) async fn try_sync(&self, request: &SyncRequest) -> Answer {
        self.call(Method::POST, "/v1/sync", serde_json::to_vec(request).unwrap()).await
    }

    pub(crate) async fn sync(&self, request: &SyncRequest) -> SyncResponse {
        self.try_sync(request).await.expect(StatusCode::OK).json()
    }

    pub(crate) async fn boxes(&self) -> Vec<WaitingBox> {
        self.sync(&SyncRequest::default()).await.boxes
    }

    pub(crate) fn receipt(&self, id: TransportId, sealed: &[u8], statement: ReceiptStatement) -> Vec<u8> {
        let receipt = Receipt {
            tenant: self.tenant.clone(),
            transport_id: id,
            device: self.id,
            sealed: Digest::of(sealed),
            statement,
            time: (self.now)(),
        };
        receipt.sign(&self.identity)
    }

    pub(crate) fn receipt_for(&self, one: &WaitingBox, statement: ReceiptStatement) -> Vec<u8> {
        self.receipt(one.id, one.sealed.as_ref(), statement)
    }

    /// Sends receipts alone.
    pub(crate) async fn acknowledge(
        &self,
        receipts: Vec<Vec<u8>>,
    ) -> Vec<sealpost_wire::api::relay::ReceiptOutcome> {
        let receipts = receipts.into_iter().map(Base64Url).collect();
        self.sync(&SyncRequest { receipts, limit: Some(0), ..SyncRequest::default() }).await.receipts
    }
}

/// What looks like a sealed message from outside: its ciphertext is `content`.
pub(crate) fn sealed(content: &[u8]) -> Vec<u8> {
    let header = SealedHeader::new(Suite::Hybrid, PrekeyId([5; 16]));
    let mut ciphertext = content.to_vec();
    ciphertext.resize(content.len().max(64), 0xcc);
    header.finish(&[9; 1120], &ciphertext)
}

/// A submission of one box for each of `devices`.
pub(crate) fn submission(
    devices: &[DeviceId],
    content: &str,
    priority: Priority,
    expires_at: UnixTime,
) -> Submission {
    let boxed = |device: &DeviceId| SubmittedBox {
        device: *device,
        sealed: Base64Url(sealed(format!("{content} for {device}").as_bytes())),
    };
    Submission { expires_at, priority, boxes: devices.iter().map(boxed).collect(), slot: None }
}

pub(crate) fn new_id() -> TransportId {
    TransportId::random(&mut UnwrapErr(SysRng))
}
