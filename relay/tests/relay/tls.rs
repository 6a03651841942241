//! The program with TLS of its own.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::process::Process;
use crate::world::World;

/// Writes a new certificate and its key into `folder`.
fn certify(folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["relay.example".to_owned()]).unwrap();
    fs::write(folder.join("chain.pem"), made.cert.pem()).unwrap();
    let mut key = fs::OpenOptions::new();
    let key = key.write(true).create(true).truncate(true).mode(0o600).open(folder.join("key.pem"));
    std::io::Write::write_all(&mut key.unwrap(), made.signing_key.serialize_pem().as_bytes()).unwrap();
    made.cert.der().clone()
}

/// What `/healthz` answers to a client that believes `certificate` alone, and the key exchange.
async fn health(address: &str, certificate: &CertificateDer<'static>) -> std::io::Result<(String, String)> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("relay.example").unwrap();
    let stream = TcpStream::connect(address).await?;
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: relay.example\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap();
    Ok((answer, format!("{:?}", group.name())))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_brings_the_new_certificate_and_a_bad_one_changes_nothing() {
    let world = World::stopped("tls = { certificate_file = \"chain.pem\", key_file = \"key.pem\" }").await;
    let folder = world.folder.path();
    let first = certify(folder);
    let process = Process::start(&world);
    let address = process.url.trim_start_matches("http://").to_owned();
    let (answer, group) = health(&address, &first).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(group, "X25519MLKEM768");

    fs::write(folder.join("chain.pem"), "not a certificate").unwrap();
    process.signal("HUP");
    assert!(health(&address, &first).await.is_ok());
    let second = certify(folder);
    process.signal("HUP");
    while health(&address, &second).await.is_err() {}
    assert!(health(&address, &first).await.is_err());
    process.signal("TERM");
    assert!(process.ended().success());
}
