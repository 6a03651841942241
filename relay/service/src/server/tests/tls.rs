//! TLS: the key exchange, the files, and clients that do not speak it.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;

use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;

/// A folder with a certificate and its key.
struct Files(TempDir);

/// A certificate and its key, as they stand in files.
struct Pair {
    certificate: String,
    key: String,
    der: CertificateDer<'static>,
}

impl Pair {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["relay.example".to_owned()]).unwrap();
        Self {
            certificate: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
            der: made.cert.der().clone(),
        }
    }
}

impl Files {
    fn new(pair: &Pair) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write(&pair.certificate, &pair.key);
        files
    }

    fn write(&self, certificate: &str, key: &str) {
        let options = self.options();
        fs::write(options.certificate_file, certificate).unwrap();
        let mut file = fs::OpenOptions::new();
        let file = file.write(true).create(true).truncate(true).mode(0o600).open(options.key_file);
        io::Write::write_all(&mut file.unwrap(), key.as_bytes()).unwrap();
    }

    fn options(&self) -> TlsOptions {
        let mut options = TlsOptions {
            certificate_file: "chain.pem".into(),
            key_file: "key.pem".into(),
            handshake_seconds_max: 1,
            look_seconds: 3600,
        };
        options.resolve(self.0.path());
        options
    }
}

/// A client that trusts `pair` alone and offers `groups`.
fn client(pair: &Pair, groups: &[&'static dyn SupportedKxGroup]) -> ClientConfig {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = groups.to_vec();
    let mut roots = RootCertStore::empty();
    roots.add(pair.der.clone()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

async fn connect(server: &TestServer, config: ClientConfig) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("relay.example").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, server.connect().await).await
}

/// Whether a handshake with a client that trusts `pair` alone works.
async fn is_shown(server: &TestServer, pair: &Pair) -> bool {
    connect(server, client(pair, &[kx_group::X25519])).await.is_ok()
}

#[tokio::test]
async fn the_hybrid_key_exchange_is_taken_wherever_it_is_offered() {
    let pair = Pair::new();
    let files = Files::new(&pair);
    let server = TestServer::start_with(quick(), Some(files.options())).await;
    let hybrid = kx_group::X25519MLKEM768;
    for (offered, taken) in [
        (&[hybrid, kx_group::X25519][..], hybrid),
        (&[hybrid], hybrid),
        (&[kx_group::X25519], kx_group::X25519),
        (&[kx_group::SECP256R1], kx_group::SECP256R1),
    ] {
        let mut stream = connect(&server, client(&pair, offered)).await.unwrap();
        let negotiated = stream.get_ref().1.negotiated_key_exchange_group().unwrap();
        assert_eq!(negotiated.name(), taken.name());
        stream.write_all(&close("/healthz")).await.unwrap();
        assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200"));
    }
    server.shows("sealpost_tls_handshakes_total{group=\"x25519mlkem768\",outcome=\"done\"} 2").await;
    server.shows("sealpost_tls_handshakes_total{group=\"x25519\",outcome=\"done\"} 1").await;
}

#[tokio::test]
async fn http_2_and_http_1_are_negotiated_and_tls_1_2_is_the_oldest() {
    let pair = Pair::new();
    let files = Files::new(&pair);
    let server = TestServer::start_with(quick(), Some(files.options())).await;
    for (offered, taken) in [(&["h2", "http/1.1"][..], Some("h2")), (&["http/1.1"], Some("http/1.1"))] {
        let mut config = client(&pair, &[kx_group::X25519]);
        config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = connect(&server, config).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), taken.map(str::as_bytes));
        if taken == Some("h2") {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                    .await
                    .unwrap();
            tokio::spawn(connection);
            let request = http::Request::get("https://relay.example/healthz").body(String::new()).unwrap();
            assert_eq!(sender.send_request(request).await.unwrap().status(), StatusCode::OK);
        }
    }
    let older = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(pair.der.clone()).unwrap();
    let stream = connect(&server, older.with_root_certificates(roots).with_no_client_auth()).await.unwrap();
    assert_eq!(stream.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
}

#[tokio::test]
async fn who_does_not_speak_tls_is_not_served() {
    let files = Files::new(&Pair::new());
    let server = TestServer::start_with(quick(), Some(files.options())).await;
    assert!(!server.ask(&close("/healthz")).await.contains("HTTP/1.1"));
    server.shows("sealpost_tls_handshakes_total{group=\"none\",outcome=\"failed\"} 1").await;
    assert_eq!(server.ask(b"").await, "", "a handshake that does not begin");
    // The first bytes of a TLS record that promises 512 more.
    assert_eq!(server.ask(&[0x16, 3, 1, 2, 0, 1]).await, "", "a handshake that does not go on");
    server.shows("sealpost_tls_handshakes_total{group=\"none\",outcome=\"late\"} 2").await;
}

#[tokio::test]
async fn a_handshake_does_not_hold_up_a_drain() {
    let files = Files::new(&Pair::new());
    let options = TlsOptions { handshake_seconds_max: 3600, ..files.options() };
    let server = TestServer::start_with(quick(), Some(options)).await;
    let _silent = server.connect().await;
    server.shows("sealpost_http_connections 1").await;
    server.shutdown.begin();
    assert_eq!(server.served.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_new_certificate_is_shown_and_a_bad_one_is_not() {
    let (first, second) = (Pair::new(), Pair::new());
    let files = Files::new(&first);
    let server = TestServer::start_with(quick(), Some(files.options())).await;
    assert!(is_shown(&server, &first).await);
    files.write(&second.certificate, &second.key);
    server.reload.ask();
    server.shows("sealpost_tls_reloads_total{outcome=\"loaded\"} 1").await;
    assert!(is_shown(&server, &second).await && !is_shown(&server, &first).await);

    let mut refused = 0;
    for (certificate, key) in [
        (first.certificate.as_str(), second.key.as_str()),
        ("not a certificate", &second.key),
        (&second.certificate, "not a key"),
        ("", ""),
    ] {
        files.write(certificate, key);
        server.reload.ask();
        refused += 1;
        server.shows(&format!("sealpost_tls_reloads_total{{outcome=\"refused\"}} {refused}")).await;
        server.shows("sealpost_tls_files_refused 1").await;
        assert!(is_shown(&server, &second).await, "{certificate} {key}");
    }
    files.write(&first.certificate, &first.key);
    server.reload.ask();
    server.shows("sealpost_tls_files_refused 0").await;
    assert!(is_shown(&server, &first).await);
}

#[tokio::test]
async fn changed_files_are_found_without_a_signal() {
    let (first, second) = (Pair::new(), Pair::new());
    let files = Files::new(&first);
    let server =
        TestServer::start_with(quick(), Some(TlsOptions { look_seconds: 1, ..files.options() })).await;
    assert!(is_shown(&server, &first).await);
    files.write(&second.certificate, &second.key);
    server.shows("sealpost_tls_reloads_total{outcome=\"loaded\"} 1").await;
    assert!(is_shown(&server, &second).await);
}

#[test]
fn files_that_cannot_be_used_stop_a_start() {
    let pair = Pair::new();
    let files = Files::new(&pair);
    let load = |options| Tls::load(options, &Metrics::new()).map(|_| ()).map_err(|error| error.to_string());
    assert_eq!(load(files.options()), Ok(()));
    let missing = TlsOptions { key_file: "/nowhere/key.pem".into(), ..files.options() };
    assert!(load(missing).unwrap_err().contains("/nowhere/key.pem"));
    let exposed = files.options();
    fs::set_permissions(&exposed.key_file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    assert!(load(exposed).unwrap_err().contains("0600"));
}
