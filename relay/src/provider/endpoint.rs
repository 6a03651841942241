//! Where a provider is, and the way there: name, TCP, TLS. Every dial looks the name up again.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, Scheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::outcome::Detail;
use super::proxy::{Proxy, ProxyError, ProxyUrl};

/// Why an address in the configuration cannot be used. A retry does not help.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Not a URL of a server.
    #[error("{0:?} is not a URL of the form https://host[:port]")]
    Url(String),
    /// Credentials would cross the network in the clear.
    #[error("{0:?} is not https, and plain http is for the loopback interface alone")]
    Insecure(String),
    /// The additional root certificates cannot be used.
    #[error("root certificates in {path}: {why}")]
    RootCertificates {
        /// The configured file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// Not a URL of a proxy. It may hold a password, so it is not quoted.
    #[error("proxy is not a URL of the form http://[user:password@]host:port")]
    Proxy,
    /// TLS cannot be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// A server's address, as configured.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
    /// The path and query of the URL; `/` when it has none.
    pub(super) path: String,
    host: String,
    port: u16,
    server_name: ServerName<'static>,
}

impl Endpoint {
    /// Reads `https://host[:port][/path]`, or `http://` of a loopback address.
    pub(super) fn parse(text: &str) -> Result<Self, EndpointError> {
        let invalid = || EndpointError::Url(Detail::new(text).to_string());
        let url = Url::parse(text).map_err(|_| invalid())?;
        let carries_more = !url.username().is_empty() || url.password().is_some() || url.fragment().is_some();
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err(invalid());
        };
        if carries_more || !matches!(url.scheme(), "https" | "http") {
            return Err(invalid());
        }
        let is_loopback = match &host {
            Host::Domain(name) => *name == "localhost",
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
        };
        let is_plain = url.scheme() == "http";
        if is_plain && !is_loopback {
            return Err(EndpointError::Insecure(Detail::new(text).to_string()));
        }
        let (name, server_name) = match host {
            Host::Domain(name) => {
                (name.to_owned(), ServerName::try_from(name.to_owned()).map_err(|_| invalid())?)
            }
            Host::Ipv4(address) => (address.to_string(), ServerName::from(std::net::IpAddr::from(address))),
            Host::Ipv6(address) => (address.to_string(), ServerName::from(std::net::IpAddr::from(address))),
        };
        Ok(Self {
            scheme: if is_plain { Scheme::HTTP } else { Scheme::HTTPS },
            authority: url.authority().parse().map_err(|_| invalid())?,
            path: url[url::Position::BeforePath..].to_owned(),
            host: name,
            port,
            server_name,
        })
    }

    /// The same, of an address that has no path of its own.
    pub(super) fn parse_origin(text: &str) -> Result<Self, EndpointError> {
        let endpoint = Self::parse(text)?;
        if endpoint.path == "/" {
            Ok(endpoint)
        } else {
            Err(EndpointError::Url(Detail::new(text).to_string()))
        }
    }
}

/// Which protocol the server speaks on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// A byte stream to the server.
pub(super) type Transport = Box<dyn Stream>;

/// What [`Transport`] can do.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Why no connection came about. A retry may help with each.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("no connection within {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("name not resolved: {0}")]
    Resolve(io::Error),
    #[error("connect: {0}")]
    Connect(io::Error),
    #[error("proxy: {0}")]
    Proxy(#[from] ProxyError),
    #[error("TLS: {0}")]
    Tls(io::Error),
    #[error("server does not speak HTTP/2")]
    NoHttp2,
    #[error("HTTP/2: {0}")]
    Http2(#[from] h2::Error),
}

/// Opens connections to one endpoint.
pub(super) struct Dialer {
    pub(super) endpoint: Endpoint,
    proxy: Option<Proxy>,
    tls: Option<TlsConnector>,
    /// What an endpoint without TLS speaks; with TLS, what is offered by ALPN.
    protocols: Protocols,
    timeout: Duration,
}

/// Which protocols a client can speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocols {
    Http2Only,
    Http2OrHttp1,
}

impl Dialer {
    /// `root_ca_file`: certificates (PEM) that are trusted beside the public ones, where a proxy or an
    /// emulator has its own.
    pub(super) fn new(
        endpoint: Endpoint,
        proxy: Option<&ProxyUrl>,
        root_ca_file: Option<&Path>,
        protocols: Protocols,
        timeout: Duration,
    ) -> Result<Self, EndpointError> {
        let tls = if endpoint.scheme == Scheme::HTTPS {
            Some(TlsConnector::from(Arc::new(tls_config(root_ca_file, protocols)?)))
        } else {
            None
        };
        let proxy = proxy.map(Proxy::parse).transpose()?;
        Ok(Self { endpoint, proxy, tls, protocols, timeout })
    }

    /// Looks the name up, connects (through the proxy, where there is one), and shakes hands.
    pub(super) async fn dial(&self) -> Result<(Transport, Protocol), DialError> {
        timeout(self.timeout, self.dial_unbounded()).await.unwrap_or(Err(DialError::Timeout(self.timeout)))
    }

    async fn dial_unbounded(&self) -> Result<(Transport, Protocol), DialError> {
        let Endpoint { host, port, .. } = &self.endpoint;
        match &self.proxy {
            None => self.shake_hands(self.connect_any_address(host, *port).await?).await,
            Some(proxy) => {
                let stream = self.connect_any_address(&proxy.host, proxy.port).await?;
                self.shake_hands(proxy.tunnel(stream, host, *port).await?).await
            }
        }
    }

    async fn shake_hands(&self, stream: impl Stream + 'static) -> Result<(Transport, Protocol), DialError> {
        let Some(tls) = &self.tls else {
            let protocol = match self.protocols {
                Protocols::Http2Only => Protocol::Http2,
                Protocols::Http2OrHttp1 => Protocol::Http1,
            };
            return Ok((Box::new(stream), protocol));
        };
        let stream = tls.connect(self.endpoint.server_name.clone(), stream).await.map_err(DialError::Tls)?;
        let protocol = match stream.get_ref().1.alpn_protocol() {
            Some(ALPN_HTTP2) => Protocol::Http2,
            _ => Protocol::Http1,
        };
        if protocol == Protocol::Http1 && self.protocols == Protocols::Http2Only {
            return Err(DialError::NoHttp2);
        }
        Ok((Box::new(stream), protocol))
    }

    /// Tries the name's addresses in their order; one that swallows packets must not use up the whole
    /// timeout.
    async fn connect_any_address(&self, host: &str, port: u16) -> Result<TcpStream, DialError> {
        let addresses = lookup_host((host, port)).await.map_err(DialError::Resolve)?;
        let mut last_error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses.take(ADDRESSES_MAX) {
            match timeout(self.timeout / ADDRESS_SHARE, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // A push is one small write that waits for its answer: Nagle's algorithm would hold it
                    // back.
                    stream.set_nodelay(true).map_err(DialError::Connect)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => last_error = error,
                Err(_elapsed) => last_error = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(DialError::Connect(last_error))
    }
}

fn tls_config(
    root_ca_file: Option<&Path>,
    protocols: Protocols,
) -> Result<rustls::ClientConfig, EndpointError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = root_ca_file {
        let failure = |why: String| EndpointError::RootCertificates { path: path.display().to_string(), why };
        let pem = std::fs::read(path).map_err(|error| failure(error.to_string()))?;
        let mut added = 0;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| failure(error.to_string()))?;
            roots.add(certificate).map_err(|error| failure(error.to_string()))?;
            added += 1;
        }
        if added == 0 {
            return Err(failure("no certificate in it".to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = match protocols {
        Protocols::Http2Only => vec![ALPN_HTTP2.to_vec()],
        Protocols::Http2OrHttp1 => vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()],
    };
    Ok(config)
}

const ALPN_HTTP2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";
/// How many of a name's addresses one dial tries.
const ADDRESSES_MAX: usize = 8;
/// One address gets the timeout divided by this.
const ADDRESS_SHARE: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_their_defaults() {
        let endpoint = Endpoint::parse_origin("https://api.push.apple.com").unwrap();
        assert_eq!((endpoint.host.as_str(), endpoint.port), ("api.push.apple.com", 443));
        assert_eq!(endpoint.authority, "api.push.apple.com");
        let endpoint = Endpoint::parse_origin("https://api.push.apple.com:2197").unwrap();
        assert_eq!((endpoint.authority.as_str(), endpoint.port), ("api.push.apple.com:2197", 2197));
        let endpoint = Endpoint::parse("https://oauth2.googleapis.com/token").unwrap();
        assert_eq!(endpoint.path, "/token");
        let endpoint = Endpoint::parse_origin("https://[::1]:8443").unwrap();
        assert_eq!((endpoint.host.as_str(), endpoint.authority.as_str()), ("::1", "[::1]:8443"));
    }

    #[test]
    fn credentials_never_leave_in_the_clear() {
        for plain in ["http://fcm.googleapis.com", "http://10.0.0.1", "http://127.0.0.1.example.org"] {
            assert!(matches!(Endpoint::parse(plain), Err(EndpointError::Insecure(_))), "{plain}");
        }
        for local in ["http://127.0.0.1:8080", "http://localhost:1", "http://[::1]"] {
            assert!(Endpoint::parse(local).is_ok(), "{local}");
        }
    }

    #[test]
    fn malformed_addresses_are_refused() {
        for bad in ["", "api.push.apple.com", "ftp://x", "https://u:p@host", "https://host/#x", "https://"] {
            assert!(matches!(Endpoint::parse(bad), Err(EndpointError::Url(_))), "{bad}");
        }
        assert!(matches!(Endpoint::parse_origin("https://host/path"), Err(EndpointError::Url(_))));
    }

    #[test]
    fn root_certificates_must_be_certificates() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "not a certificate").unwrap();
        let endpoint = || Endpoint::parse("https://localhost").unwrap();
        let dialer =
            |path| Dialer::new(endpoint(), None, Some(path), Protocols::Http2Only, Duration::from_secs(1));
        assert!(dialer(file.path()).is_err());
        assert!(dialer(Path::new("/nonexistent/ca.pem")).is_err());
    }
}
