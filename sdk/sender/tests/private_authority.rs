//! Servers with certificates of a hospital's own authority.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use getrandom::SysRng;
use rand_core::UnwrapErr;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sealpost_sender::identity::{CertifiedKey, SenderIdentityFile, StorageKey};
use sealpost_sender::{Sender, SenderOptions, SenderParts, ServerRoots};
use sealpost_wire::clock::Clock;
use sealpost_wire::key::SigningKey;

struct Fixed;

impl Clock for Fixed {
    fn now_millis(&self) -> u64 {
        1_800_000_000_000
    }
}

/// A server that refuses whatever it is asked, its certificate (PEM), and the key exchange of each handshake.
fn server() -> (String, String, Receiver<String>) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let (tell, groups) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut read = BufReader::new(StreamOwned::new(connection, stream.unwrap()));
            let (mut line, mut length) = (String::new(), 0);
            // A client that does not believe the certificate goes before it asks.
            while read.read_line(&mut line).is_ok_and(|bytes| bytes > 2) {
                let field = line.to_ascii_lowercase();
                let value = field.strip_prefix("content-length: ");
                length = value.map_or(length, |text| text.trim().parse().unwrap());
                line.clear();
            }
            if line.is_empty() {
                continue;
            }
            read.read_exact(&mut vec![0; length]).unwrap();
            let mut stream = read.into_inner();
            let group = stream.conn.negotiated_key_exchange_group().unwrap();
            tell.send(format!("{:?}", group.name())).unwrap();
            let answer = b"HTTP/1.1 418 I'm a teapot\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.write_all(answer).unwrap();
            stream.flush().unwrap();
        }
    });
    (url, made.cert.pem(), groups)
}

/// The code of what the relay at `url` answers to a sender that believes `roots`.
fn answer(url: &str, roots: ServerRoots) -> String {
    let key = |seed| CertifiedKey { key: SigningKey::from_seed(&[seed; 32]), certificate: Vec::from([0; 8]) };
    let identity = SenderIdentityFile {
        tenant: "st-mary".parse().unwrap(),
        root: SigningKey::from_seed(&[1; 32]).verifying_key(),
        subject: "laboratory".parse().unwrap(),
        keyserver: url.to_owned(),
        relay: url.to_owned(),
        send: key(2),
        request: key(3),
        outbox_key: StorageKey::new([4; 32]),
    };
    let parts = SenderParts { clock: Arc::new(Fixed), rng: Arc::new(|| Box::new(UnwrapErr(SysRng))), roots };
    let folder = tempfile::tempdir().unwrap();
    let mut sender = Sender::open(identity, folder.path(), SenderOptions::default(), parts).unwrap();
    sender.follow(std::time::Duration::ZERO).unwrap_err().code().to_owned()
}

#[test]
fn a_private_authority_is_believed_when_it_is_named_and_the_key_exchange_is_post_quantum() {
    let (url, certificate, groups) = server();
    assert_eq!(answer(&url, ServerRoots::from_pem(certificate.as_bytes()).unwrap()), "http_418");
    assert_eq!(groups.recv().unwrap(), "X25519MLKEM768");
    assert_eq!(answer(&url, ServerRoots::public()), "unreachable");
    let (_, other, _) = server();
    assert_eq!(answer(&url, ServerRoots::from_pem(other.as_bytes()).unwrap()), "unreachable");
}
