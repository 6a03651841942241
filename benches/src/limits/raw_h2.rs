//! A bare HTTP/2 client: the least that a push costs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sealpost_emulators::Manifest;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::cast::system_time;
use crate::cores;
use crate::error::BenchError;
use crate::report::per_second;
use crate::scene::push_token;

/// Pushes in flight: as many as the relay has of one app and priority.
pub const IN_FLIGHT: usize = 300;
/// The stub, as the relay sends it.
const STUB: &str = concat!(
    r#"{"aps":{"alert":{"title":"New message","body":"Open the app to read it."},"#,
    r#""mutable-content":1,"sound":"default"},"sealpost":"sync"}"#
);

/// The peer to push to, and the headers of every push.
#[derive(Clone, Debug)]
pub struct Peer {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    url: String,
    headers: HeaderMap,
}

impl Peer {
    /// The emulator of APNs, with a provider token.
    ///
    /// # Errors
    /// Its credentials cannot be used.
    pub fn new(emulators: &Manifest, address: SocketAddr) -> Result<Self, BenchError> {
        let failed = |what| move |error: &dyn std::error::Error| BenchError::cast(what)(error.to_string());
        let key =
            std::fs::read(&emulators.apns.key_file).map_err(BenchError::io("reading a provider key"))?;
        let key = EncodingKey::from_ec_pem(&key).map_err(|error| failed("a provider key")(&error))?;
        let header = Header { kid: Some(emulators.apns.key_id.clone()), ..Header::new(Algorithm::ES256) };
        let claims = serde_json::json!({ "iss": emulators.apns.team_id, "iat": system_time().0 });
        let token = jsonwebtoken::encode(&header, &claims, &key);
        let token = token.map_err(|error| failed("a provider token")(&error))?;
        let topic = emulators.apns.topics.first().map_or("", String::as_str);
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", format!("bearer {token}").as_str()),
            ("apns-topic", topic),
            ("apns-push-type", "alert"),
            ("apns-priority", "10"),
            ("apns-id", "00000000-0000-4000-8000-000000000000"),
        ] {
            let value = HeaderValue::from_str(value).map_err(|error| failed("a header")(&error))?;
            headers.insert(HeaderName::from_static(name), value);
        }
        Ok(Self { address, tls: Arc::new(tls(emulators)?), url: emulators.apns.url.clone(), headers })
    }

    /// Connects; the first push goes alone, because the peer takes one stream until it has seen a valid
    /// token.
    ///
    /// # Errors
    /// What fails on the way.
    pub async fn connect(&self) -> Result<Connection, BenchError> {
        let failed = || BenchError::io("connecting to the emulator");
        let stream = TcpStream::connect(self.address).await.map_err(failed())?;
        stream.set_nodelay(true).map_err(failed())?;
        let name = ServerName::try_from("localhost").map_err(BenchError::cast("a name"))?;
        let stream =
            TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await.map_err(failed())?;
        let (sender, connection) = h2::client::handshake(stream).await?;
        // It ends when the peer or this program does.
        tokio::spawn(async move { drop(connection.await) });
        let connection = Connection { sender, peer: self.clone() };
        connection.push(0).await?;
        Ok(connection)
    }
}

/// A connection to the peer.
#[derive(Clone)]
pub struct Connection {
    sender: SendRequest<Bytes>,
    peer: Peer,
}

impl Connection {
    /// Pushes to device number `index`.
    ///
    /// # Errors
    /// The peer refuses, or the connection ended.
    pub async fn push(&self, index: usize) -> Result<(), BenchError> {
        let mut sender = self.sender.clone().ready().await?;
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::try_from(format!("{}/3/device/{}", self.peer.url, push_token(index)))
            .map_err(http::Error::from)?;
        *request.headers_mut() = self.peer.headers.clone();
        let (response, mut body) = sender.send_request(request, false)?;
        body.send_data(Bytes::from_static(STUB.as_bytes()), true)?;
        let response = response.await?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(BenchError::Refused { what: "a push of the limit", status, body: String::new() });
        }
        // The body is empty: its end came with the headers.
        Ok(())
    }
}

/// What the limit gave.
#[derive(Clone, Copy, Debug)]
pub struct Pushed {
    /// Pushes a second.
    pub rate: f64,
    /// How busy the client's core was, from 0 to 1.
    pub busy: f64,
}

/// Pushes `count` times, `in_flight` at one time over one connection, on the calling thread.
///
/// # Errors
/// What fails on the way.
pub fn run(peer: &Peer, count: usize, in_flight: usize) -> Result<Pushed, BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(BenchError::io("making a runtime"))?;
    runtime.block_on(async {
        let connection = peer.connect().await?;
        let next = Arc::new(AtomicUsize::new(0));
        let (start, before) = (Instant::now(), cores::spent_by_this_thread()?);
        let mut running = JoinSet::new();
        for _ in 0..in_flight {
            let (connection, next) = (connection.clone(), Arc::clone(&next));
            running.spawn(async move {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return Ok::<_, BenchError>(());
                    }
                    connection.push(index).await?;
                }
            });
        }
        while let Some(done) = running.join_next().await {
            done.map_err(|_| BenchError::Ended)??;
        }
        let wall = start.elapsed();
        let spent: Duration = cores::spent_by_this_thread()?.saturating_sub(before);
        Ok(Pushed { rate: per_second(count, wall), busy: spent.as_secs_f64() / wall.as_secs_f64() })
    })
}

fn tls(emulators: &Manifest) -> Result<ClientConfig, BenchError> {
    let failed = "the limit's TLS";
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(&emulators.ca_file).map_err(BenchError::cast(failed))?;
    roots.add(certificate).map_err(BenchError::cast(failed))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config =
        config.map_err(BenchError::cast(failed))?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
