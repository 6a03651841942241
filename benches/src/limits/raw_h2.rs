//! A bare HTTP/2 client: the least that a push costs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::limits::append_log::per_second;

/// The peer to push to, and what every push says.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Its certificate authority, in PEM.
    pub ca_pem: Vec<u8>,
    /// The URL of a device, without its token.
    pub url: String,
    /// Headers of each push.
    pub headers: Vec<(String, String)>,
    /// The body of each push.
    pub body: Bytes,
}

/// Pushes `count` times with `in_flight` at one time over one connection, on the calling thread's runtime. Pushes a
/// second.
pub async fn run(peer: &Peer, count: usize, in_flight: usize) -> Result<f64, Box<dyn std::error::Error>> {
    let client = connect(peer).await?;
    // The first one alone: the peer takes one stream until it has seen a valid token.
    push(client.clone(), peer.clone()).await?;
    let start = Instant::now();
    let mut running = JoinSet::new();
    let share = count / in_flight;
    for _ in 0..in_flight {
        let (client, peer) = (client.clone(), peer.clone());
        running.spawn_local(async move {
            for _ in 0..share {
                push(client.clone(), peer.clone()).await.expect("the peer takes pushes");
            }
        });
    }
    while let Some(done) = running.join_next().await {
        done?;
    }
    Ok(per_second(share * in_flight, start.elapsed().as_secs_f64()))
}

async fn connect(peer: &Peer) -> Result<SendRequest<Bytes>, Box<dyn std::error::Error>> {
    let mut roots = RootCertStore::empty();
    for certificate in rustls_pki_types::CertificateDer::pem_slice_iter(&peer.ca_pem) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(peer.address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost")?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let (client, connection) =
        h2::client::Builder::new().initial_max_send_streams(1).handshake::<_, Bytes>(stream).await?;
    tokio::task::spawn_local(async move {
        // It ends when the peer or this program does.
        let _ended = connection.await;
    });
    Ok(client)
}

async fn push(client: SendRequest<Bytes>, peer: Peer) -> Result<(), h2::Error> {
    let mut client = client.ready().await?;
    let token = "ab".repeat(32);
    let mut request = Request::post(format!("{}{token}", peer.url));
    for (name, value) in &peer.headers {
        request = request.header(name, value);
    }
    let request = request.body(()).expect("headers of this program");
    let (response, mut body) = client.send_request(request, false)?;
    body.send_data(peer.body, true)?;
    let response = response.await?;
    assert_eq!(response.status(), 200, "the emulator refused a push of the limit");
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        let _ = body.flow_control().release_capacity(data?.len());
    }
    Ok(())
}
