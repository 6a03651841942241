//! TLS at a server's own port: the key exchange that it prefers, its certificate, and both read anew while it
//! serves.
//!
//! TLS 1.3 and 1.2 with the hybrid X25519MLKEM768 before X25519: what is recorded today stays closed to a
//! quantum computer of tomorrow. The sealed boxes inside do not depend on it.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::{IntCounterVec, IntGauge};
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sealpost_wire::id::Digest;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::{ConfigError, read_secret};
use crate::reload::ReloadRequests;
use crate::shutdown::Shutdown;
use crate::telemetry::{MetricError, Metrics};

/// Bytes of a certificate file; a chain has a few thousand.
const CERTIFICATE_BYTES_MAX: u64 = 1024 * 1024;

/// Where TLS ends at the server itself; the `tls` section of a configuration. Without it, something in front
/// of the server does TLS.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsOptions {
    /// The server's certificate and those between it and a root (PEM), its own first.
    pub certificate_file: PathBuf,
    /// The certificate's private key (PEM, mode 0600).
    pub key_file: PathBuf,
    /// Time for a handshake (seconds).
    #[serde(default = "default_handshake_seconds")]
    pub handshake_seconds_max: u64,
    /// Time between two looks at the files (seconds). SIGHUP looks at once.
    #[serde(default = "default_look_seconds")]
    pub look_seconds: u64,
}

impl TlsOptions {
    /// Makes relative paths start from `folder`.
    pub fn resolve(&mut self, folder: &Path) {
        for file in [&mut self.certificate_file, &mut self.key_file] {
            *file = folder.join(&*file);
        }
    }

    /// Refuses times that would serve nobody.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.handshake_seconds_max == 0 || self.look_seconds == 0 {
            return Err(ConfigError::Value("tls: a time of 0 would serve nobody".to_owned()));
        }
        Ok(())
    }
}

const fn default_handshake_seconds() -> u64 {
    10
}

const fn default_look_seconds() -> u64 {
    60
}

/// Why certificate and key cannot be used. The files have to change: no retry helps.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or others may read the key.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// A file is not PEM, or does not hold what it is for.
    #[error("{}: {source}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// They are not of a kind that can be used, or do not belong together.
    #[error("{}: {source}", path.display())]
    Unusable {
        /// The certificate file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The metrics are registered already.
    #[error(transparent)]
    Metrics(#[from] MetricError),
}

/// Does the handshakes of a server. Clones share its certificate.
#[derive(Clone)]
pub struct Tls {
    options: Arc<TlsOptions>,
    acceptor: TlsAcceptor,
    current: Arc<Current>,
    metrics: TlsMetrics,
}

impl Tls {
    /// TLS with the certificate and key in the files of `options`.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(options: TlsOptions, metrics: &Metrics) -> Result<Self, TlsError> {
        let provider = Arc::new(provider());
        let metrics = TlsMetrics::register(metrics)?;
        let current = Arc::new(Current(ArcSwap::from_pointee(Loaded::read(&options, &provider)?)));
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12]);
        let unusable = |source| TlsError::Unusable { path: options.certificate_file.clone(), source };
        let mut config = config.map_err(unusable)?.with_no_client_auth().with_cert_resolver(current.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { options: Arc::new(options), acceptor, current, metrics })
    }

    /// Reads the files anew when asked to and when they have changed, until the shutdown begins. Files that
    /// cannot be used leave everything as it is, with an error in the log and a metric.
    pub async fn keep_current(self, mut requests: ReloadRequests, shutdown: Shutdown) {
        let period = Duration::from_secs(self.options.look_seconds);
        let mut looks = tokio::time::interval_at(Instant::now() + period, period);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut complained = None;
        loop {
            let asked = tokio::select! {
                biased;
                () = shutdown.begun() => return,
                () = requests.next() => true,
                _ = looks.tick() => false,
            };
            let options = self.options.clone();
            let read = tokio::task::spawn_blocking(move || Loaded::read(&options, &provider())).await;
            match read {
                Ok(Ok(loaded)) => {
                    complained = None;
                    self.metrics.refused.set(0);
                    if asked || loaded.digest != self.current.0.load().digest {
                        self.current.0.store(Arc::new(loaded));
                        self.metrics.reloads.with_label_values(&["loaded"]).inc();
                        tracing::info!("the TLS certificate was read anew");
                    }
                }
                Ok(Err(error)) => {
                    self.metrics.refused.set(1);
                    let complaint = error.to_string();
                    // Once for each fault, not with each look.
                    if asked || complained.as_ref() != Some(&complaint) {
                        self.metrics.reloads.with_label_values(&["refused"]).inc();
                        tracing::error!(%error, "the TLS files cannot be used; the certificate stays as it is");
                        complained = Some(complaint);
                    }
                }
                Err(error) => tracing::error!(%error, "reading the TLS files was cut off"),
            }
        }
    }

    /// The secured stream; nothing when the handshake failed or took too long.
    pub(super) async fn accept(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let within = Duration::from_secs(self.options.handshake_seconds_max);
        let (outcome, stream) = match tokio::time::timeout(within, self.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => ("done", Some(stream)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a handshake failed");
                ("failed", None)
            }
            Err(_) => ("late", None),
        };
        let group = stream.as_ref().map_or("none", |stream| group_label(stream.get_ref().1));
        self.metrics.handshakes.with_label_values(&[outcome, group]).inc();
        stream
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("options", &self.options).finish_non_exhaustive()
    }
}

/// The certificate that handshakes show now.
struct Current(ArcSwap<Loaded>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().key.clone())
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current(…)")
    }
}

/// A certificate with its key, and what tells it from another one.
struct Loaded {
    key: Arc<CertifiedKey>,
    /// SHA-256 over both files.
    digest: Digest,
}

impl Loaded {
    fn read(options: &TlsOptions, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let path = &options.certificate_file;
        let failed = |source| ConfigError::File { path: path.clone(), source };
        let mut chain = Vec::new();
        File::open(path)
            .and_then(|file| file.take(CERTIFICATE_BYTES_MAX).read_to_end(&mut chain))
            .map_err(failed)?;
        let key = read_secret(&options.key_file)?;
        let digest = Digest::of(&[Digest::of(&chain).0, Digest::of(&key).0].concat());

        let malformed = |path: &Path| {
            let path = path.to_owned();
            move |source| TlsError::Pem { path, source }
        };
        let chain = CertificateDer::pem_slice_iter(&chain).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(malformed(path))?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(malformed(&options.key_file))?;
        let key = if chain.is_empty() {
            Err(rustls::Error::NoCertificatesPresented)
        } else {
            CertifiedKey::from_der(chain, key, provider)
        };
        let key = key.map_err(|source| TlsError::Unusable { path: path.clone(), source })?;
        Ok(Self { key: Arc::new(key), digest })
    }
}

/// The groups are named here, the hybrid one first, so that no feature of another crate can change them.
fn provider() -> CryptoProvider {
    let kx_groups = KX_GROUPS.iter().map(|(group, _)| *group).collect();
    CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() }
}

/// Key exchange groups by preference, and their labels in metrics.
const KX_GROUPS: [(&dyn rustls::crypto::SupportedKxGroup, &str); 4] = [
    (aws_lc_rs::kx_group::X25519MLKEM768, "x25519mlkem768"),
    (aws_lc_rs::kx_group::X25519, "x25519"),
    (aws_lc_rs::kx_group::SECP256R1, "secp256r1"),
    (aws_lc_rs::kx_group::SECP384R1, "secp384r1"),
];

fn group_label(connection: &rustls::ServerConnection) -> &'static str {
    let Some(group) = connection.negotiated_key_exchange_group() else { return "none" };
    KX_GROUPS.iter().find(|(known, _)| known.name() == group.name()).map_or("none", |(_, label)| label)
}

#[derive(Clone)]
struct TlsMetrics {
    handshakes: IntCounterVec,
    reloads: IntCounterVec,
    refused: IntGauge,
}

impl TlsMetrics {
    fn register(metrics: &Metrics) -> Result<Self, MetricError> {
        let handshakes = metrics.counters(
            "sealpost_tls_handshakes_total",
            "TLS handshakes, by what became of them and by key exchange.",
            &["outcome", "group"],
        )?;
        let reloads = metrics.counters(
            "sealpost_tls_reloads_total",
            "Times that the TLS certificate was read anew, or could not be.",
            &["outcome"],
        )?;
        for (outcome, group) in [("done", "x25519mlkem768"), ("failed", "none"), ("late", "none")] {
            handshakes.with_label_values(&[outcome, group]).inc_by(0);
        }
        for outcome in ["loaded", "refused"] {
            reloads.with_label_values(&[outcome]).inc_by(0);
        }
        let refused = metrics.gauge(
            "sealpost_tls_files_refused",
            "1 while the TLS files on disk cannot be used, and an older certificate is shown.",
        )?;
        Ok(Self { handshakes, reloads, refused })
    }
}
