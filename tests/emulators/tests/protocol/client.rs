//! A client that can do everything wrong: HTTP/2 requests over TLS, tokens with any claims, JSON over
//! HTTP/1.1.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use sealpost_emulators::{Clock, Emulator, Manifest, Options, SystemClock};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Emulators and the folder they live in.
pub(crate) struct Fixture {
    pub(crate) emulator: Emulator,
    _dir: TempDir,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let dir = TempDir::new().unwrap();
        let mut options = Options::new(dir.path());
        change(&mut options);
        Self { emulator: Emulator::start(options).await.unwrap(), _dir: dir }
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        self.emulator.manifest()
    }

    pub(crate) async fn apns(&self) -> Client {
        Client::connect(self.emulator.apns_addr(), self.manifest()).await
    }

    pub(crate) async fn fcm(&self) -> Client {
        Client::connect(self.emulator.fcm_addr(), self.manifest()).await
    }

    /// A provider token as it should be, issued so many seconds from now.
    pub(crate) fn provider_token(&self, age_s: i64) -> String {
        let apns = &self.manifest().apns;
        provider_token(&apns.key_file, &apns.key_id, &apns.team_id, now_s() - age_s)
    }

    /// An access token from the token endpoint.
    pub(crate) async fn access_token(&self) -> String {
        let mut client = self.fcm().await;
        let answer = client.post_form(&grant(&self.assertion(|_| {}))).await;
        assert_eq!(answer.status, 200, "{}", answer.json);
        answer.json["access_token"].as_str().unwrap().to_owned()
    }

    /// An assertion as it should be, but for `change`.
    pub(crate) fn assertion(&self, change: impl FnOnce(&mut Value)) -> String {
        let account: Value =
            serde_json::from_slice(&std::fs::read(&self.manifest().fcm.service_account_file).unwrap())
                .unwrap();
        let mut claims = json!({
            "iss": account["client_email"],
            "scope": "https://www.googleapis.com/auth/firebase.messaging",
            "aud": account["token_uri"],
            "iat": now_s(),
            "exp": now_s() + 3600,
        });
        change(&mut claims);
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(account["private_key_id"].as_str().unwrap().to_owned());
        let key = EncodingKey::from_rsa_pem(account["private_key"].as_str().unwrap().as_bytes()).unwrap();
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    }

    /// A control request; the status and the JSON of the answer.
    pub(crate) async fn control(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let tcp = TcpStream::connect(self.emulator.control_addr()).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header("host", "control");
        let response = sender.send_request(request.body(Full::new(body)).unwrap()).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }
}

pub(crate) fn provider_token(key_file: &Path, key_id: &str, team_id: &str, issued_at: i64) -> String {
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some(key_id.to_owned());
    let key = EncodingKey::from_ec_pem(&std::fs::read(key_file).unwrap()).unwrap();
    jsonwebtoken::encode(&header, &json!({ "iss": team_id, "iat": issued_at }), &key).unwrap()
}

pub(crate) fn grant(assertion: &str) -> String {
    format!("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}")
}

pub(crate) fn now_s() -> i64 {
    i64::try_from(SystemClock.now_ms() / 1000).unwrap()
}

pub(crate) async fn tls(
    address: SocketAddr,
    manifest: &Manifest,
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&manifest.ca_file).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

/// An HTTP/2 connection.
pub(crate) struct Client {
    pub(crate) sender: SendRequest<Bytes>,
    /// How the connection ended.
    pub(crate) ended: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

/// An answer; `json` is null when the body is empty.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) json: Value,
}

impl Answer {
    pub(crate) fn refusal(&self) -> (u16, &str) {
        (self.status, self.json["reason"].as_str().unwrap_or("(no reason)"))
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr, manifest: &Manifest) -> Self {
        Self::connect_with(address, manifest, h2::client::Builder::new()).await
    }

    pub(crate) async fn connect_with(
        address: SocketAddr,
        manifest: &Manifest,
        builder: h2::client::Builder,
    ) -> Self {
        let tls = tls(address, manifest, &[b"h2"]).await.unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) = builder.handshake(tls).await.unwrap();
        Self { sender, ended: tokio::spawn(connection) }
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn send(&mut self, request: Request<Bytes>) -> Result<Answer, h2::Error> {
        let sender = self.sender.clone().ready().await?;
        receive(start(sender, request)?).await
    }

    pub(crate) async fn post_form(&mut self, form: &str) -> Answer {
        let request = Request::post("https://localhost/token")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Bytes::copy_from_slice(form.as_bytes()));
        self.send(request.unwrap()).await.unwrap()
    }
}

/// Sends a request without waiting for a place among the streams.
pub(crate) fn start(
    mut sender: SendRequest<Bytes>,
    request: Request<Bytes>,
) -> Result<h2::client::ResponseFuture, h2::Error> {
    let (head, body) = request.into_parts();
    let (response, mut stream) = sender.send_request(Request::from_parts(head, ()), body.is_empty())?;
    if !body.is_empty() {
        stream.send_data(body, true)?;
    }
    Ok(response)
}

pub(crate) async fn receive(response: h2::client::ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    let mut bytes = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        bytes.extend_from_slice(&chunk);
    }
    let json = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, json })
}
