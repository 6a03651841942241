//! How many pushes a second the APNs emulator takes, and how much processor time it spends on them.
//!
//! `cargo run --release -p sealpost-emulators --example throughput [pushes] [in flight] [count-only]`
//!
//! The emulator has a thread of its own; the load comes from another one. What a gateway can be measured at
//! is bounded by the processor time per push that this prints.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use sealpost_emulators::{Clock, Emulator, Manifest, Options, SystemClock};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let pushes: u64 = arguments.next().map_or(Ok(200_000), |text| text.parse())?;
    let in_flight: usize = arguments.next().map_or(Ok(200), |text| text.parse())?;
    let record_bodies = arguments.next().as_deref() != Some("count-only");

    let dir = std::env::temp_dir().join(format!("sealpost-throughput-{}", std::process::id()));
    let options = Options { record_bodies, ..Options::new(&dir) };
    let (started, manifest) = std::sync::mpsc::channel();
    let emulator = std::thread::spawn(move || -> Result<Duration, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let emulator = Emulator::start(options).await?;
            let before = thread_time()?;
            started.send(emulator.manifest().clone())?;
            emulator.wait_for_count(pushes).await;
            let spent = thread_time()?.saturating_sub(before);
            emulator.stop().await;
            Ok(spent)
        })
    });
    let manifest = manifest.recv()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let elapsed = runtime.block_on(load(&manifest, pushes, in_flight))?;
    let spent = emulator.join().map_err(|_| "the emulator's thread panicked")??;
    std::fs::remove_dir_all(&dir)?;

    let seconds = elapsed.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let pushes = pushes as f64;
    println!("{:.0} pushes a second, {in_flight} in flight", pushes / seconds);
    println!(
        "emulator: {:.1} µs of processor time a push, {:.0} % of a core, at most {:.0} pushes a second",
        spent.as_secs_f64() / pushes * 1e6,
        spent.as_secs_f64() / seconds * 100.0,
        pushes / spent.as_secs_f64(),
    );
    Ok(())
}

async fn load(manifest: &Manifest, pushes: u64, in_flight: usize) -> Result<Duration, Failure> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&manifest.ca_file)?)?;
    let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(("127.0.0.1", manifest.apns.port)).await?;
    tcp.set_nodelay(true)?;
    let tls = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost")?, tcp).await?;
    let (mut sender, connection) = h2::client::handshake(tls).await?;
    tokio::spawn(connection);

    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some(manifest.apns.key_id.clone());
    let claims = serde_json::json!({ "iss": manifest.apns.team_id, "iat": SystemClock.now_ms() / 1000 });
    let key = EncodingKey::from_ec_pem(&std::fs::read(&manifest.apns.key_file)?)?;
    let authorization = format!("bearer {}", jsonwebtoken::encode(&header, &claims, &key)?);
    let body = Bytes::from_static(
        br#"{"aps":{"alert":{"title-loc-key":"NEW","loc-key":"OPEN"},"mutable-content":1},"sync":1}"#,
    );
    let push = |number: u64| {
        Request::post(format!("https://localhost/3/device/{number:064x}"))
            .header("authorization", &authorization)
            .header("apns-topic", &manifest.apns.topics[0])
            .header("apns-push-type", "alert")
            .header("apns-priority", "10")
            .header("apns-id", format!("00000000-0000-4000-8000-{number:012x}"))
            .body(())
    };

    let places = Arc::new(Semaphore::new(1));
    let begun = Instant::now();
    for number in 0..pushes {
        let place = Arc::clone(&places).acquire_owned().await?;
        sender = sender.ready().await?;
        let (response, mut stream) = sender.send_request(push(number)?, false)?;
        stream.send_data(body.clone(), true)?;
        if number == 0 {
            // The first answer opens the connection for more.
            let response = response.await?;
            assert_eq!(response.status(), 200);
            places.add_permits(in_flight);
            continue;
        }
        tokio::spawn(async move {
            let answered = response.await.map(|response| response.status().as_u16());
            drop(place);
            assert_eq!(answered.ok(), Some(200));
        });
    }
    let _all = places.acquire_many(u32::try_from(in_flight)?).await?;
    Ok(begun.elapsed())
}

/// Processor time of this thread, from /proc/thread-self/schedstat (nanoseconds, first field).
fn thread_time() -> Result<Duration, Failure> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split_whitespace().next().ok_or("empty schedstat")?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}
